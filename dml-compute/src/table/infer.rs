//! The first reading of a table: what type each column has, over all its rows, and where its blocks are. The types of its
//! first rows are mostly those of all, so its chunks are made at the same time, in the hope that they are.

use std::{io::Write, ops::Range};

use arrow_array::RecordBatch;
use dml_core::ColumnType;
use rayon::prelude::*;

use super::{
    Limits,
    block::{self, Extent, Sink},
    chunks::{Chunks, Part, Values},
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

/// Keeps the types of a block's columns, and its values as long as they are of the types that are expected.
struct Types<'a> {
    seen: Vec<Seen>,
    row: u64,
    line: u64,
    values: Option<Values<'a>>,
}

impl<'a> Types<'a> {
    fn new(columns: usize, values: Option<Values<'a>>) -> Self {
        Self { seen: vec![Seen::default(); columns], row: 0, line: 0, values }
    }
}

impl Sink for Types<'_> {
    fn restart(&mut self) {
        self.values.iter_mut().for_each(Values::restart);
        *self = Self::new(self.seen.len(), self.values.take());
    }

    #[inline]
    fn row(&mut self, line: u64) {
        self.row += 1;
        self.line = line;
    }

    #[inline]
    fn expects_number(&self, column: usize) -> bool {
        !self.seen[column].text && self.values.as_ref().is_none_or(|values| values.expects_number(column))
    }

    #[inline]
    fn number(&mut self, column: usize, number: Number) -> bool {
        let seen = &mut self.seen[column];
        match (number.has_point(), number.is_code()) {
            (true, _) => seen.float = true,
            (false, true) => seen.text = true,
            (false, false) => seen.integer = true,
        }
        // A number that is a text wants its characters.
        self.values.as_mut().is_none_or(|values| values.number(column, number))
    }

    fn field(&mut self, column: usize, text: &str, quoted: bool) -> Result<(), Misfit> {
        if self.values.as_mut().is_some_and(|values| values.field(column, text, quoted).is_err()) {
            self.values = None;
        }
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
    fn end_row(&mut self, bytes: usize) {
        if let Some(values) = &mut self.values {
            values.end_row(bytes);
        }
    }

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
    guess: Guess,
}

/// The chunks of the table, if its types are those of its first rows.
#[derive(Debug)]
enum Guess {
    /// Nothing was read yet.
    Open,
    Made(Box<Chunks>),
    /// The types are others, or nobody asks for the chunks.
    Dropped,
}

/// What is found in a block.
type BlockRead = (Extent, Vec<Seen>, Option<Part>);

/// What the first reading finds.
#[derive(Debug)]
pub(super) struct Inferred {
    /// The reader at the end of the header.
    pub(super) head: Records,
    pub(super) columns: Vec<(String, ColumnType)>,
    /// The blocks in the spool, one after the other.
    pub(super) blocks: Vec<Extent>,
    pub(super) total: Extent,
    /// The chunks, if they are made already.
    pub(super) chunks: Option<Chunks>,
}

impl Inference {
    /// Finds types alone, or makes chunks at the same time, which are to be taken.
    pub(super) fn new(limits: Limits, with_chunks: bool) -> Self {
        let due = BATCH_BYTES.min(limits.max_record_bytes + 1);
        let head = Records::new(limits);
        Self {
            head,
            pending: Vec::new(),
            due,
            seen: Vec::new(),
            blocks: Vec::new(),
            total: Extent::default(),
            guess: if with_chunks { Guess::Open } else { Guess::Dropped },
        }
    }

    /// The next chunk, if the types found so far are those of the whole table.
    pub(super) fn chunk(&mut self) -> Option<RecordBatch> {
        match &mut self.guess {
            Guess::Made(chunks) => chunks.cut(),
            Guess::Open | Guess::Dropped => None,
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
        let columns: Vec<_> = columns.collect();
        let chunks = match self.guess {
            Guess::Made(chunks) if chunks.types() == columns => Some(*chunks),
            Guess::Made(_) | Guess::Open | Guess::Dropped => None,
        };
        Ok(Inferred { head: self.head, columns, blocks: self.blocks, total: self.total, chunks })
    }

    /// Reads all records that have ended. An error is that of the first block that has one.
    fn read(&mut self, spool: &mut (impl Write + Send)) -> Result<(), TableError> {
        let ranges = cut::blocks(&self.pending, self.head.delimiter());
        let Some(end) = ranges.last().map(|last| last.end) else { return Ok(()) };
        let (first, mut parts) = (self.total, Vec::new());
        let (written, read) =
            rayon::join(|| spool.write_all(&self.pending[..end]), || self.read_blocks(first, &ranges));
        self.seen.resize_with(self.head.names().len(), Seen::default);
        for (range, read) in ranges.iter().zip(read) {
            // Only now is it known which rows these are.
            let (extent, seen, part) = read.or_else(|_| self.read_block(first, self.total, range))?;
            self.seen.iter_mut().zip(seen).for_each(|(all, block)| all.add(block, self.total));
            self.blocks.push(extent);
            self.total.add(extent);
            parts.push(part);
        }
        if let Guess::Open = self.guess {
            self.guess = Guess::Made(Box::new(Chunks::new(self.columns())));
            let again = self.read_blocks(first, &ranges).into_iter();
            parts = again.map(|read| read.ok().and_then(|(.., part)| part)).collect();
        }
        self.keep(parts);
        self.pending.drain(..end);
        Ok(written?)
    }

    /// Adds what was read to the chunks, if they may still be right.
    fn keep(&mut self, parts: Vec<Option<Part>>) {
        let columns = self.columns();
        if let Guess::Made(chunks) = &mut self.guess
            && chunks.types() == columns
            && let Some(parts) = parts.into_iter().collect::<Option<Vec<_>>>()
        {
            parts.into_iter().for_each(|part| chunks.push(part));
        } else {
            self.guess = Guess::Dropped;
        }
    }

    fn columns(&self) -> Vec<(String, ColumnType)> {
        let types = self.seen.iter().map(Seen::column_type);
        self.head.names().iter().cloned().zip(types).collect()
    }

    /// Reads pending blocks; `first` is what was read before all of them.
    fn read_blocks(&self, first: Extent, ranges: &[Range<usize>]) -> Vec<Result<BlockRead, TableError>> {
        ranges.par_iter().map(|range| self.read_block(first, Extent::default(), range)).collect()
    }

    /// Reads a pending block; `before` is what lies between the header and it, as far as that is known.
    fn read_block(
        &self,
        first: Extent,
        before: Extent,
        range: &Range<usize>,
    ) -> Result<BlockRead, TableError> {
        let block = &self.pending[range.clone()];
        let values = match &self.guess {
            Guess::Made(chunks) => {
                // As many as in the blocks before, and some more.
                let rows = first.rows * block.len() as u64 / first.bytes.max(1) * 5 / 4;
                let start = self.head.consumed() + first.bytes + range.start as u64;
                Some(Values::new(chunks.types(), rows as usize, start))
            }
            Guess::Open | Guess::Dropped => None,
        };
        let mut types = Types::new(self.head.names().len(), values);
        let extent = block::read(&self.head, before, block, &mut types)?;
        Ok((extent, types.seen, types.values.map(Values::finish)))
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
