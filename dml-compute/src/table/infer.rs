//! The first reading of a table: what type each column has, over all its rows, and where its blocks are.

use std::io::Write;

use dml_core::ColumnType;
use rayon::prelude::*;

use super::{
    Limits,
    block::{self, Extent, Sink},
    column::Misfit,
    cut,
    error::{Place, TableError},
    number::Number,
    records::Records,
    value::{self, Shape},
};

/// How many bytes are read at once, on all threads: a few blocks.
pub(super) const BATCH_BYTES: usize = 16 * cut::BLOCK_BYTES;

/// What a column's values so far could be: a set, so that the order of rows makes no difference.
#[derive(Debug, Default, Clone)]
struct Seen {
    integer: bool,
    float: bool,
    boolean: bool,
    date: bool,
    date_time: bool,
    text: bool,
    /// The first number that is not finite.
    infinite: Option<Box<Infinite>>,
}

/// A number that is not finite, in a row that begins on a line: counted from 1, in a block or in the whole table.
#[derive(Debug, Clone)]
struct Infinite {
    row: u64,
    line: u64,
    value: String,
}

impl Seen {
    fn column_type(&self) -> ColumnType {
        let number = self.integer || self.float || self.infinite.is_some();
        let day = self.date || self.date_time;
        match (number, self.boolean, day) {
            (true, false, false) if !self.text => match self.float || self.infinite.is_some() {
                true => ColumnType::Float,
                false => ColumnType::Integer,
            },
            (false, true, false) if !self.text => ColumnType::Boolean,
            (false, false, true) if !self.text => match self.date_time {
                true => ColumnType::DateTime,
                false => ColumnType::Date,
            },
            _ => ColumnType::Text,
        }
    }

    /// Adds what was seen in the block that follows.
    fn add(&mut self, block: Self, before: Extent) {
        self.integer |= block.integer;
        self.float |= block.float;
        self.boolean |= block.boolean;
        self.date |= block.date;
        self.date_time |= block.date_time;
        self.text |= block.text;
        if self.infinite.is_none() {
            self.infinite = block.infinite.map(|mut infinite| {
                infinite.row += before.rows;
                infinite.line += before.lines;
                infinite
            });
        }
    }
}

/// Keeps nothing of a block but the types of its columns.
struct Types {
    seen: Vec<Seen>,
    row: u64,
    line: u64,
}

impl Types {
    fn new(columns: usize) -> Self {
        Self { seen: vec![Seen::default(); columns], row: 0, line: 0 }
    }
}

impl Sink for Types {
    fn restart(&mut self) {
        *self = Self::new(self.seen.len());
    }

    #[inline]
    fn row(&mut self, line: u64) {
        self.row += 1;
        self.line = line;
    }

    #[inline]
    fn expects_number(&self, column: usize) -> bool {
        !self.seen[column].text
    }

    #[inline]
    fn number(&mut self, column: usize, number: Number) -> bool {
        let seen = &mut self.seen[column];
        match (number.has_point(), number.is_code()) {
            (true, _) => seen.float = true,
            (false, true) => seen.text = true,
            (false, false) => seen.integer = true,
        }
        true
    }

    fn field(&mut self, column: usize, text: &str, _: bool) -> Result<(), Misfit> {
        let seen = &mut self.seen[column];
        if seen.text {
            return Ok(());
        }
        let text = value::trim(text);
        match value::shape(text) {
            Shape::Blank => {}
            Shape::Integer => seen.integer = true,
            Shape::Float => seen.float = true,
            Shape::Infinite => {
                let infinite = || Infinite { row: self.row, line: self.line, value: text.to_owned() };
                seen.infinite.get_or_insert_with(|| Box::new(infinite()));
            }
            Shape::Boolean => seen.boolean = true,
            Shape::Date => seen.date = true,
            Shape::DateTime => seen.date_time = true,
            Shape::Text => seen.text = true,
        }
        Ok(())
    }

    #[inline]
    fn end_row(&mut self, _: usize) {}

    fn refusal(&self, misfit: Misfit, records: &Records, column: usize, text: &str) -> TableError {
        misfit.error(records.place(column), text.to_owned(), self.seen[column].column_type())
    }
}

/// Reads a table as it comes in, and keeps its types and the extents of its blocks. What follows the header goes on to
/// a spool, block by block.
#[derive(Debug)]
pub(super) struct Inference {
    head: Records,
    /// What was not read yet: it begins where a record does.
    pending: Vec<u8>,
    /// At how many pending bytes they are read.
    due: usize,
    seen: Vec<Seen>,
    blocks: Vec<Extent>,
    total: Extent,
}

/// What the first reading finds.
#[derive(Debug)]
pub(super) struct Inferred {
    /// The reader at the end of the header.
    pub(super) head: Records,
    pub(super) columns: Vec<(String, ColumnType)>,
    /// The blocks in the spool, one after the other.
    pub(super) blocks: Vec<Extent>,
    pub(super) total: Extent,
}

impl Inference {
    pub(super) fn new(limits: Limits) -> Self {
        let due = BATCH_BYTES.min(limits.max_record_bytes + 1);
        let head = Records::new(limits);
        Self {
            head,
            pending: Vec::new(),
            due,
            seen: Vec::new(),
            blocks: Vec::new(),
            total: Extent::default(),
        }
    }

    /// The next bytes of the file.
    pub(super) fn push(
        &mut self,
        mut bytes: &[u8],
        spool: &mut (impl Write + Send),
    ) -> Result<(), TableError> {
        self.head.advance_head(&mut bytes)?;
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(self.due - self.pending.len()));
            self.pending.extend_from_slice(now);
            bytes = later;
            if self.pending.len() == self.due {
                self.read(spool)?;
                self.check_open()?;
            }
        }
        Ok(())
    }

    /// After the last byte.
    pub(super) fn finish(mut self, spool: &mut (impl Write + Send)) -> Result<Inferred, TableError> {
        self.head.finish()?;
        if self.pending.last().is_some_and(|last| *last != b'\n') {
            self.pending.push(b'\n');
            self.read(spool)?;
            self.pending.pop();
        }
        self.read(spool)?;
        let mut last = self.head.resumed(self.total.rows, self.total.lines);
        last.advance(&mut self.pending.as_slice())?;
        last.finish()?;

        let names = self.head.names();
        if names.is_empty() {
            return Err(TableError::EmptyFile);
        }
        if self.total.rows == 0 {
            return Err(TableError::HeaderOnly { columns: names.len() });
        }
        let types: Vec<_> = self.seen.iter().map(Seen::column_type).collect();
        let columns = names.iter().cloned().zip(types);
        let numbers = columns.clone().zip(self.seen).filter(|((_, column), _)| column.is_numeric());
        let infinite = numbers.filter_map(|((name, _), seen)| Some((name, seen.infinite?)));
        if let Some((name, first)) = infinite.min_by_key(|(_, infinite)| infinite.row) {
            let line = self.head.lines() + first.line;
            let place = Place { row: Some(first.row), line: Some(line), column: Some(name) };
            return Err(TableError::NotFinite { place, value: first.value });
        }
        let columns = columns.collect();
        Ok(Inferred { head: self.head, columns, blocks: self.blocks, total: self.total })
    }

    /// Reads all records that have ended. An error is that of the first block that has one.
    fn read(&mut self, spool: &mut (impl Write + Send)) -> Result<(), TableError> {
        let Self { head, pending, seen, .. } = self;
        let width = head.names().len();
        let ranges = cut::blocks(pending, head.delimiter());
        let Some(end) = ranges.last().map(|last| last.end) else { return Ok(()) };
        let types = |before: Extent, block: &[u8]| {
            let mut types = Types::new(width);
            block::read(head, before, block, &mut types).map(|extent| (extent, types))
        };
        let (written, read) = rayon::join(
            || spool.write_all(&pending[..end]),
            || {
                ranges
                    .par_iter()
                    .map(|range| types(Extent::default(), &pending[range.clone()]))
                    .collect::<Vec<_>>()
            },
        );
        seen.resize_with(width, Seen::default);
        for (range, read) in ranges.into_iter().zip(read) {
            // Only now is it known which rows these are.
            let (extent, types) = read.or_else(|_| types(self.total, &pending[range]))?;
            seen.iter_mut().zip(types.seen).for_each(|(seen, block)| seen.add(block, self.total));
            self.blocks.push(extent);
            self.total.add(extent);
        }
        pending.drain(..end);
        Ok(written?)
    }

    /// Bounds a record that does not end.
    fn check_open(&mut self) -> Result<(), TableError> {
        let (open, limits) = (self.pending.len(), self.head.limits());
        if open > limits.max_field_bytes.min(limits.max_record_bytes) {
            let mut records = self.head.resumed(self.total.rows, self.total.lines);
            records.advance(&mut self.pending.as_slice())?;
        }
        self.due = match open <= limits.max_record_bytes {
            true => (open + BATCH_BYTES).min(limits.max_record_bytes + 1),
            false => open + BATCH_BYTES,
        };
        Ok(())
    }
}

/// Where the header's columns are, read without the rows.
pub(super) fn header(mut text: &[u8], limits: &Limits) -> Result<Vec<String>, TableError> {
    let mut records = Records::new(limits.clone());
    records.advance_head(&mut text)?;
    records.finish()?;
    match records.names() {
        [] => Err(TableError::EmptyFile),
        names => Ok(names.to_vec()),
    }
}
