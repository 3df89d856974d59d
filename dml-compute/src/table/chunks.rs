//! Chunks of a table in the making, cut where the file says, however it was read.

use std::collections::VecDeque;

use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_schema::SchemaRef;
use dml_core::{Column, ColumnType};
use rayon::prelude::*;

use super::{
    block::Sink,
    column::{Builder, Misfit},
    error::TableError,
    number::Number,
    records::Records,
    schema_of,
    statistics::Statistics,
};

/// How many values a chunk has at least, unless it is cut for its bytes or is the last.
pub const CHUNK_CELLS: usize = 1 << 20;

/// How many bytes of CSV a chunk has at least, unless it is cut for its values or is the last.
pub const CHUNK_BYTES: u64 = 16 << 20;

/// Takes the rows of a table in order, and gives its chunks.
#[derive(Debug)]
pub(super) struct Chunks {
    columns: Vec<(String, ColumnType)>,
    schema: SchemaRef,
    /// The parts that belong to no chunk yet.
    parts: VecDeque<Part>,
    /// How many bytes of the file came before the chunk.
    before: u64,
    statistics: Statistics,
    /// How many chunks were given.
    count: usize,
}

impl Chunks {
    pub(super) fn new(columns: Vec<(String, ColumnType)>) -> Self {
        Self {
            schema: schema_of(&columns),
            parts: VecDeque::new(),
            before: 0,
            statistics: Statistics::new(&columns),
            columns,
            count: 0,
        }
    }

    pub(super) fn types(&self) -> &[(String, ColumnType)] {
        &self.columns
    }

    /// The columns with the statistics of the chunks given so far.
    pub(super) fn columns(&self) -> Vec<Column> {
        self.statistics.columns()
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The next rows.
    pub(super) fn push(&mut self, part: Part) {
        self.parts.push_back(part);
    }

    /// Forgets the rows that belong to no chunk yet.
    pub(super) fn clear(&mut self) {
        self.parts.clear();
    }

    /// The next chunk, if all of it is here.
    pub(super) fn cut(&mut self) -> Option<RecordBatch> {
        let most = CHUNK_CELLS.div_ceil(self.columns.len());
        let mut rows = 0;
        for (at, part) in self.parts.iter().enumerate() {
            let enough = part.ends.partition_point(|end| *end < self.before + CHUNK_BYTES) + 1;
            let taken = part.ends.len().min(enough).min(most - rows);
            rows += taken;
            if rows == most || taken == enough {
                self.before = part.ends[taken - 1];
                return Some(self.take(at, taken));
            }
        }
        None
    }

    /// The last chunk: what is left.
    pub(super) fn rest(&mut self) -> Option<RecordBatch> {
        let last = self.parts.len().checked_sub(1)?;
        let taken = self.parts[last].ends.len();
        Some(self.take(last, taken))
    }

    /// A chunk of all parts before one, and of the first rows of that one.
    fn take(&mut self, last: usize, taken: usize) -> RecordBatch {
        let rest = self.parts[last].split_off(taken);
        let pieces: Vec<Part> = self.parts.drain(..=last).collect();
        if let Some(rest) = rest {
            self.parts.push_front(rest);
        }
        let rows = pieces.iter().map(|part| part.ends.len()).sum();
        let column = |(column, (_, kind)): (usize, &(String, ColumnType))| {
            let mut builder = Builder::with_capacity(*kind, rows);
            pieces.iter().for_each(|part| builder.push_all(&part.arrays[column]));
            builder.finish()
        };
        let arrays = self.columns.par_iter().enumerate().map(column).collect();
        let batch = batch(&self.schema, arrays, rows);
        self.statistics.update(&batch);
        self.count += 1;
        batch
    }
}

/// Rows that follow each other, as columns.
#[derive(Debug)]
pub(super) struct Part {
    arrays: Vec<ArrayRef>,
    /// How many bytes of the file there are up to the end of each row.
    ends: Vec<u64>,
}

impl Part {
    /// Takes off what follows the first rows, if any does.
    fn split_off(&mut self, rows: usize) -> Option<Self> {
        if rows == self.ends.len() {
            return None;
        }
        let ends = self.ends.split_off(rows);
        let arrays = self.arrays.iter().map(|array| array.slice(rows, ends.len())).collect();
        self.arrays.iter_mut().for_each(|array| *array = array.slice(0, rows));
        Some(Self { arrays, ends })
    }
}

/// Makes columns of a block, their types being known.
pub(super) struct Values<'a> {
    columns: &'a [(String, ColumnType)],
    builders: Vec<Builder>,
    ends: Vec<u64>,
    before: u64,
}

impl<'a> Values<'a> {
    pub(super) fn new(columns: &'a [(String, ColumnType)], rows: usize, before: u64) -> Self {
        let builders = columns.iter().map(|(_, kind)| Builder::with_capacity(*kind, rows)).collect();
        Self { columns, builders, ends: Vec::with_capacity(rows), before }
    }

    pub(super) fn finish(mut self) -> Part {
        Part { arrays: self.builders.iter_mut().map(Builder::finish).collect(), ends: self.ends }
    }
}

impl Sink for Values<'_> {
    fn restart(&mut self) {
        self.builders.iter_mut().for_each(|builder| drop(builder.finish()));
        self.ends.clear();
    }

    #[inline]
    fn row(&mut self, _: u64) {}

    #[inline]
    fn expects_number(&self, column: usize) -> bool {
        self.builders[column].is_numeric()
    }

    #[inline]
    fn number(&mut self, column: usize, number: Number) -> bool {
        self.builders[column].push_number(number)
    }

    fn field(&mut self, column: usize, text: &str, quoted: bool) -> Result<(), Misfit> {
        self.builders[column].push_field(text, quoted)
    }

    #[inline]
    fn end_row(&mut self, bytes: usize) {
        self.ends.push(self.before + bytes as u64);
    }

    fn refusal(&self, misfit: Misfit, records: &Records, column: usize, text: &str) -> TableError {
        misfit.error(records.place(column), text.to_owned(), self.columns[column].1)
    }
}

/// A batch of arrays that were built for a schema.
pub(super) fn batch(schema: &SchemaRef, arrays: Vec<ArrayRef>, rows: usize) -> RecordBatch {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema.clone(), arrays, &options)
        .expect("the arrays have the schema's types and a value a row")
}
