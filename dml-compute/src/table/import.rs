//! CSV to typed chunks, in two readings: the first, as bytes come in, finds the types and keeps the bytes in a temporary
//! file; the second makes the chunks. Both read blocks of whole records on all threads; memory is bounded by a few
//! blocks and the chunk in the making, whatever the size of the file.

use std::{
    collections::VecDeque,
    fs::File,
    io::{Read, Seek},
};

use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_schema::SchemaRef;
use dml_core::{Column, ColumnType};
use rayon::prelude::*;

use super::{
    Limits,
    block::{self, Extent, Sink},
    column::{Builder, Misfit},
    error::{Place, TableError},
    infer::{self, BATCH_BYTES, Inference, Inferred},
    number::Number,
    records::{Record, Records},
    schema_of,
    statistics::Statistics,
};

/// How many values a chunk has at least, unless it is cut for its bytes or is the last.
pub const CHUNK_CELLS: usize = 1 << 20;

/// How many bytes of CSV a chunk has at least, unless it is cut for its values or is the last.
pub const CHUNK_BYTES: u64 = 16 << 20;

/// Takes a CSV file piece by piece. After an error it is of no further use.
#[derive(Debug)]
pub struct Importer {
    inference: Inference,
    spool: File,
}

impl Importer {
    /// Begins a table. The spool is an empty file, open for reading and writing, that the caller removes afterwards:
    /// what `tempfile::tempfile()` gives.
    pub fn new(spool: File, limits: Limits) -> Self {
        Self { inference: Inference::new(limits), spool }
    }

    /// The next bytes of the file, however cut.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), TableError> {
        self.inference.push(bytes, &mut self.spool)
    }

    /// After the last byte: the table's types are known, and its chunks can be read.
    pub fn finish(mut self) -> Result<Typed, TableError> {
        let found = self.inference.finish(&mut self.spool)?;
        self.spool.rewind()?;
        Ok(Typed::new(self.spool, found))
    }
}

/// A table whose types are known: gives its chunks in order, one at a time, and then its statistics.
///
/// Where chunks are cut depends on the file alone: as soon as one has [`CHUNK_CELLS`] values or was read from
/// [`CHUNK_BYTES`] bytes.
#[derive(Debug)]
pub struct Typed<R = File> {
    source: R,
    head: Records,
    columns: Vec<(String, ColumnType)>,
    schema: SchemaRef,
    /// The blocks that were not read yet.
    blocks: VecDeque<Extent>,
    /// What was read of the source, without the header.
    read: Extent,
    /// The parts that belong to no chunk yet.
    parts: VecDeque<Part>,
    /// How many bytes of the file came before the chunk.
    before: u64,
    statistics: Statistics,
    rows: u64,
}

impl<R: Read> Typed<R> {
    fn new(source: R, found: Inferred) -> Self {
        let Inferred { head, columns, blocks, total } = found;
        Self {
            source,
            head,
            schema: schema_of(&columns),
            blocks: blocks.into(),
            read: Extent::default(),
            parts: VecDeque::new(),
            before: 0,
            statistics: Statistics::new(&columns),
            columns,
            rows: total.rows,
        }
    }

    /// How many rows the whole table has.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The names and types of the columns.
    pub fn types(&self) -> &[(String, ColumnType)] {
        &self.columns
    }

    /// The columns with the statistics of the chunks given so far: of the whole table, after the last.
    pub fn columns(&self) -> Vec<Column> {
        self.statistics.columns()
    }

    fn read_chunk(&mut self) -> Result<Option<RecordBatch>, TableError> {
        let most = CHUNK_CELLS.div_ceil(self.columns.len());
        let (mut pieces, mut rows): (Vec<Part>, _) = (Vec::new(), 0);
        while rows < most {
            let Some(mut part) = self.parts.pop_front() else {
                match self.read_parts()? {
                    true => continue,
                    false => break,
                }
            };
            let enough = part.ends.partition_point(|end| *end < self.before + CHUNK_BYTES) + 1;
            let taken = part.ends.len().min(enough).min(most - rows);
            rows += taken;
            let full = rows == most || taken == enough;
            if full {
                self.before = part.ends[taken - 1];
            }
            if let Some(rest) = part.split_off(taken) {
                self.parts.push_front(rest);
            }
            pieces.push(part);
            if full {
                break;
            }
        }
        if rows == 0 {
            return Ok(None);
        }
        let column = |(column, (_, kind)): (usize, &(String, ColumnType))| {
            let mut builder = Builder::with_capacity(*kind, rows);
            pieces.iter().for_each(|part| builder.push_all(&part.arrays[column]));
            builder.finish()
        };
        let arrays = self.columns.par_iter().enumerate().map(|(i, kind)| column((i, kind))).collect();
        let batch = batch(&self.schema, arrays, rows);
        self.statistics.update(&batch);
        Ok(Some(batch))
    }

    /// Reads the next few blocks, if there are any.
    fn read_parts(&mut self) -> Result<bool, TableError> {
        let (mut bytes, mut blocks) = (0, Vec::new());
        while let Some(block) = self.blocks.front()
            && (blocks.is_empty() || bytes + block.bytes <= BATCH_BYTES as u64)
        {
            blocks.push((self.read, bytes as usize, *block));
            bytes += block.bytes;
            self.read.add(*block);
            self.blocks.pop_front();
        }
        let mut text = vec![0; bytes as usize];
        self.source.read_exact(&mut text)?;
        let (head, columns) = (&self.head, &self.columns);
        let part = |(before, at, block): (Extent, usize, Extent)| {
            let text = &text[at..at + block.bytes as usize];
            let mut values = Values::new(columns, block.rows as usize, head.consumed() + before.bytes);
            block::read(head, before, text, &mut values).map(|_| values.finish())
        };
        let read: Vec<_> = blocks.par_iter().map(|block| part(*block)).collect();
        for part in read {
            self.parts.push_back(part?);
        }
        Ok(!blocks.is_empty())
    }
}

impl<R: Read> Iterator for Typed<R> {
    type Item = Result<RecordBatch, TableError>;

    fn next(&mut self) -> Option<Self::Item> {
        let chunk = self.read_chunk();
        if chunk.is_err() {
            self.blocks.clear();
            self.parts.clear();
        }
        chunk.transpose()
    }
}

/// Rows that follow each other, as columns.
#[derive(Debug)]
struct Part {
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
struct Values<'a> {
    columns: &'a [(String, ColumnType)],
    builders: Vec<Builder>,
    ends: Vec<u64>,
    before: u64,
}

impl<'a> Values<'a> {
    fn new(columns: &'a [(String, ColumnType)], rows: usize, before: u64) -> Self {
        let builders = columns.iter().map(|(_, kind)| Builder::with_capacity(*kind, rows)).collect();
        Self { columns, builders, ends: Vec::with_capacity(rows), before }
    }

    fn finish(mut self) -> Part {
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

/// The rows of a chunk in the making.
struct ChunkBuilder {
    schema: SchemaRef,
    /// The column of the file that each column of the chunk is read from.
    picks: Vec<usize>,
    types: Vec<ColumnType>,
    builders: Vec<Builder>,
    rows: usize,
}

impl std::fmt::Debug for ChunkBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChunkBuilder")
            .field("types", &self.types)
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

impl ChunkBuilder {
    fn new(columns: &[(String, ColumnType)], picks: Vec<usize>) -> Self {
        let types: Vec<_> = columns.iter().map(|(_, column)| *column).collect();
        let builders = types.iter().map(|column| Builder::new(*column)).collect();
        Self { schema: schema_of(columns), picks, types, builders, rows: 0 }
    }

    fn push(&mut self, records: &Records, record: &Record) -> Result<(), TableError> {
        for ((builder, pick), wanted) in self.builders.iter_mut().zip(&self.picks).zip(&self.types) {
            let (field, quoted) = record.field(*pick);
            builder
                .push_field(field, quoted)
                .map_err(|misfit| misfit.error(records.place(*pick), field.to_owned(), *wanted))?;
        }
        self.rows += 1;
        Ok(())
    }

    fn finish(&mut self) -> RecordBatch {
        let arrays = self.builders.iter_mut().map(Builder::finish).collect();
        batch(&self.schema, arrays, std::mem::take(&mut self.rows))
    }
}

/// A batch of arrays that were built for a schema.
pub(super) fn batch(schema: &SchemaRef, arrays: Vec<ArrayRef>, rows: usize) -> RecordBatch {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema.clone(), arrays, &options)
        .expect("the arrays have the schema's types and a value a row")
}

/// A whole small CSV file at once, its types found as [`Importer`] finds them.
pub fn read_rows(text: &[u8], limits: &Limits) -> Result<RecordBatch, TableError> {
    let mut inference = Inference::new(limits.clone());
    inference.push(text, &mut std::io::sink())?;
    let Inferred { columns, .. } = inference.finish(&mut std::io::sink())?;
    read_picked(text, limits, &columns, (0..columns.len()).collect())
}

/// A whole small CSV file at once, in known types: its columns may stand in any order, and among others. Texts stay as
/// they are written, also where all of them look like numbers. There may be no rows.
pub fn read_rows_as(
    text: &[u8],
    limits: &Limits,
    columns: &[(String, ColumnType)],
) -> Result<RecordBatch, TableError> {
    let found = infer::header(text, limits)?;
    let wanted: Vec<_> =
        columns.iter().map(|(name, _)| found.iter().position(|other| other == name)).collect();
    let missing = columns.iter().zip(&wanted).filter(|(_, pick)| pick.is_none());
    let missing: Vec<_> = missing.map(|((name, _), _)| name.clone()).collect();
    if !missing.is_empty() {
        return Err(TableError::MissingColumns { missing, found });
    }
    read_picked(text, limits, columns, wanted.into_iter().flatten().collect())
}

fn read_picked(
    mut text: &[u8],
    limits: &Limits,
    columns: &[(String, ColumnType)],
    picks: Vec<usize>,
) -> Result<RecordBatch, TableError> {
    let mut records = Records::new(limits.clone());
    let mut chunk = ChunkBuilder::new(columns, picks);
    while let Some(found) = records.advance(&mut text)? {
        chunk.push(&records, &records.record(found))?;
    }
    if let Some(found) = records.finish()? {
        chunk.push(&records, &records.record(found))?;
    }
    Ok(chunk.finish())
}

/// An error's place in a batch.
pub(super) fn place(row: usize, column: &str) -> Place {
    Place { row: Some(row as u64 + 1), line: None, column: Some(column.to_owned()) }
}
