//! CSV to typed chunks, in two readings: the first, as bytes come in, finds the types and keeps the bytes in a temporary
//! file; the second makes the chunks. Memory is bounded by the chunk in the making, whatever the size of the file.

use std::{
    fs::File,
    io::{BufWriter, Read, Seek, Write},
};

use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_schema::SchemaRef;
use dml_core::{Column, ColumnType};

use super::{
    Limits,
    column::Builder,
    error::{Place, TableError},
    infer::{self, Inference},
    records::{Record, Records},
    schema_of,
    statistics::Statistics,
};

/// How many values a chunk has at least, unless it is cut for its bytes or is the last.
pub const CHUNK_CELLS: usize = 1 << 20;

/// How many bytes of CSV a chunk has at least, unless it is cut for its values or is the last.
pub const CHUNK_BYTES: u64 = 16 << 20;

/// How much of the file is read at once.
const BLOCK_BYTES: usize = 256 << 10;

/// Takes a CSV file piece by piece. After an error it is of no further use.
#[derive(Debug)]
pub struct Importer {
    limits: Limits,
    inference: Inference,
    spool: BufWriter<File>,
}

impl Importer {
    /// Begins a table. The spool is an empty file, open for reading and writing, that the caller removes afterwards:
    /// what `tempfile::tempfile()` gives.
    pub fn new(spool: File, limits: Limits) -> Self {
        let spool = BufWriter::with_capacity(BLOCK_BYTES, spool);
        Self { inference: Inference::new(limits.clone()), limits, spool }
    }

    /// The next bytes of the file, however cut.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), TableError> {
        self.inference.push(bytes)?;
        Ok(self.spool.write_all(bytes)?)
    }

    /// After the last byte: the table's types are known, and its chunks can be read.
    pub fn finish(self) -> Result<Typed, TableError> {
        let (columns, rows) = self.inference.finish()?;
        let mut spool = self.spool.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        spool.rewind()?;
        Ok(Typed::new(spool, self.limits, columns, rows))
    }
}

/// A table whose types are known: gives its chunks in order, one at a time, and then its statistics.
///
/// Where chunks are cut depends on the file alone: as soon as one has [`CHUNK_CELLS`] values or was read from
/// [`CHUNK_BYTES`] bytes.
#[derive(Debug)]
pub struct Typed<R = File> {
    source: R,
    block: Vec<u8>,
    /// The part of the block that is not parsed yet begins here.
    at: usize,
    ended: bool,
    records: Records,
    columns: Vec<(String, ColumnType)>,
    chunk: ChunkBuilder,
    /// How many bytes came before the chunk.
    before: u64,
    statistics: Statistics,
    rows: u64,
}

impl<R: Read> Typed<R> {
    fn new(source: R, limits: Limits, columns: Vec<(String, ColumnType)>, rows: u64) -> Self {
        let picks = (0..columns.len()).collect();
        Self {
            source,
            block: Vec::new(),
            at: 0,
            ended: false,
            records: Records::new(limits),
            chunk: ChunkBuilder::new(&columns, picks),
            before: 0,
            statistics: Statistics::new(&columns),
            columns,
            rows,
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
        while !self.ended {
            let mut rest = &self.block[self.at..];
            let found = self.records.advance(&mut rest)?;
            self.at = self.block.len() - rest.len();
            let Some(found) = found else {
                self.read_block()?;
                continue;
            };
            self.chunk.push(&self.records, &self.records.record(found))?;
            let bytes = self.records.consumed() - self.before;
            if self.chunk.cells() >= CHUNK_CELLS || bytes >= CHUNK_BYTES {
                self.before = self.records.consumed();
                break;
            }
        }
        if self.chunk.rows == 0 {
            return Ok(None);
        }
        let batch = self.chunk.finish();
        self.statistics.update(&batch);
        Ok(Some(batch))
    }

    /// Replaces the block, all of which was parsed. At the end of the file, takes the record that no line feed ended.
    fn read_block(&mut self) -> Result<(), TableError> {
        self.block.clear();
        self.at = 0;
        let read = (&mut self.source).take(BLOCK_BYTES as u64).read_to_end(&mut self.block)?;
        if read == 0 {
            self.ended = true;
            if let Some(last) = self.records.finish()? {
                self.chunk.push(&self.records, &self.records.record(last))?;
            }
        }
        Ok(())
    }
}

impl<R: Read> Iterator for Typed<R> {
    type Item = Result<RecordBatch, TableError>;

    fn next(&mut self) -> Option<Self::Item> {
        let chunk = self.read_chunk();
        if chunk.is_err() {
            self.ended = true;
            self.chunk.rows = 0;
        }
        chunk.transpose()
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

    fn cells(&self) -> usize {
        self.rows.saturating_mul(self.types.len())
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
    inference.push(text)?;
    let (columns, _) = inference.finish()?;
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
