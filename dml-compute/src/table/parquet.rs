//! Parquet, in and out. What comes in is read batch by batch, and goes the way of Arrow ([`super::arrow`]): types,
//! limits and the cuts between chunks are the same. After "Apache Parquet Format", version 2.
//!
//! Leaves out nested and decimal columns, and pages compressed by zstd or brotli.

use std::{
    fs::File,
    io::{self, Read},
    panic::{AssertUnwindSafe, catch_unwind},
};

use arrow_array::RecordBatch;
use arrow_ipc::writer::StreamWriter;
use arrow_schema::SchemaRef;
use dml_core::{Column, ColumnType};
use parquet::{
    arrow::{
        ArrowWriter,
        arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder},
    },
    basic::Compression,
    errors::ParquetError,
    file::properties::WriterProperties,
};

use super::{
    Limits,
    arrow::{ArrowTable, FREE_BYTES, MAX_RATIO},
    error::TableError,
};

/// How many values are read at once, at the most.
const CELLS: usize = 1 << 18;

/// Whether bytes begin a Parquet file. Four are enough to tell.
pub fn is_parquet(first: &[u8]) -> bool {
    first.starts_with(b"PAR1")
}

/// A table in Parquet: gives its chunks in order, one at a time, and then its statistics. They are those of the same
/// table in Arrow.
#[derive(Debug)]
pub struct ParquetTable {
    table: ArrowTable<Transcoder>,
}

impl ParquetTable {
    /// Reads the types of a table's columns. The file is read from its end, wherever it stands.
    pub fn new(file: File, limits: Limits) -> Result<Self, TableError> {
        let size = file.metadata()?.len();
        // What a program adds about its own types would bring in more of them.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let reader = guarded(|| {
            let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options)?;
            let rows = CELLS / builder.schema().fields().len().max(1);
            builder.with_batch_size(rows.max(1)).build()
        });
        let reader = reader.map_err(|error| damaged(&error))?;
        let writer = StreamWriter::try_new(Vec::new(), &arrow_array::RecordBatchReader::schema(&reader));
        let writer = writer.map_err(|error| damaged(&error.into()))?;
        let room = size.saturating_mul(MAX_RATIO).max(FREE_BYTES);
        let stream = Transcoder { reader, writer, taken: 0, room, over: false };
        Ok(Self { table: ArrowTable::new(stream, limits).map_err(of_parquet)? })
    }

    /// The names and types of the columns.
    pub fn types(&self) -> &[(String, ColumnType)] {
        self.table.types()
    }

    /// The columns with the statistics of the chunks given so far: of the whole table, after the last.
    pub fn columns(&self) -> Vec<Column> {
        self.table.columns()
    }
}

impl Iterator for ParquetTable {
    type Item = Result<RecordBatch, TableError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.table.next().map(|chunk| chunk.map_err(of_parquet))
    }
}

/// The batches of a Parquet file as a stream of Arrow.
struct Transcoder {
    reader: ParquetRecordBatchReader,
    /// Holds what is to be read next.
    writer: StreamWriter<Vec<u8>>,
    /// How many bytes of what it holds were read.
    taken: usize,
    /// How many bytes may still come out: a short file may say that a value repeats for ever.
    room: u64,
    over: bool,
}

impl Transcoder {
    /// Makes the next bytes of the stream.
    fn advance(&mut self) -> Result<(), ParquetError> {
        self.writer.get_mut().clear();
        self.taken = 0;
        match guarded(|| self.reader.next().transpose().map_err(ParquetError::from))? {
            Some(batch) => self.writer.write(&batch)?,
            None => {
                self.writer.finish()?;
                self.over = true;
            }
        }
        let room = self.room.checked_sub(self.writer.get_ref().len() as u64);
        self.room = room.ok_or_else(|| {
            ParquetError::General("it has more than 200 times as many bytes of values as it is long".into())
        })?;
        Ok(())
    }
}

impl Read for Transcoder {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.writer.get_ref().len() && !self.over {
            self.advance().map_err(io::Error::other)?;
        }
        let rest = &self.writer.get_ref()[self.taken..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.taken += count;
        Ok(count)
    }
}

impl std::fmt::Debug for Transcoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transcoder")
            .field("room", &self.room)
            .field("over", &self.over)
            .finish_non_exhaustive()
    }
}

/// The reader trusts files in places: a damaged one may make it panic.
fn guarded<T>(read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, ParquetError> {
    catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err(ParquetError::General("its pages contradict each other".into())))
}

fn damaged(error: &ParquetError) -> TableError {
    TableError::BadParquet { why: error.to_string() }
}

/// An error of the stream may be one of the file.
fn of_parquet(error: TableError) -> TableError {
    if let TableError::Io(io) = &error
        && let Some(fault) = io.get_ref().and_then(|fault| fault.downcast_ref::<ParquetError>())
    {
        return damaged(fault);
    }
    error
}

/// Writes a table, a row group a batch.
pub struct ParquetWriter {
    writer: ArrowWriter<Vec<u8>>,
}

impl ParquetWriter {
    /// Begins a file.
    pub fn new(schema: SchemaRef) -> Result<Self, TableError> {
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let writer = ArrowWriter::try_new(Vec::new(), schema, Some(properties));
        Ok(Self { writer: writer.map_err(|error| damaged(&error))? })
    }

    /// The next bytes of the file, with these rows in them.
    pub fn write(&mut self, rows: &RecordBatch) -> Result<Vec<u8>, TableError> {
        let written = self.writer.write(rows).and_then(|()| self.writer.flush());
        written.map_err(|error| damaged(&error))?;
        Ok(std::mem::take(self.writer.inner_mut()))
    }

    /// The last bytes of the file.
    pub fn finish(mut self) -> Result<Vec<u8>, TableError> {
        self.writer.finish().map_err(|error| damaged(&error))?;
        Ok(std::mem::take(self.writer.inner_mut()))
    }
}

impl std::fmt::Debug for ParquetWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ParquetWriter").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Seek, Write};

    use super::*;
    use crate::table::{read_table, schema_of, to_json_rows};

    /// All types, blanks in each, and more rows than a batch has.
    fn table(rows: usize) -> Vec<RecordBatch> {
        let mut text = String::from("i,f,b,t,d,dt\n");
        for row in 0..rows {
            let line = match row % 3 {
                0 => ",,,,,\n".into(),
                n => format!(
                    "{row},{n}.5,{},w{},2026-01-{:02},2026-01-02T03:04:05\n",
                    n == 1,
                    row % 7,
                    row % 28 + 1
                ),
            };
            text.push_str(&line);
        }
        read_table(Cursor::new(text), Limits::default()).unwrap().0
    }

    fn written(chunks: &[RecordBatch]) -> Vec<u8> {
        let mut writer = ParquetWriter::new(chunks[0].schema()).unwrap();
        let mut bytes: Vec<u8> = chunks.iter().flat_map(|chunk| writer.write(chunk).unwrap()).collect();
        bytes.extend(writer.finish().unwrap());
        bytes
    }

    fn open(bytes: &[u8]) -> Result<ParquetTable, TableError> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        ParquetTable::new(file, Limits::default())
    }

    fn read(bytes: &[u8]) -> Result<Vec<RecordBatch>, TableError> {
        open(bytes)?.collect()
    }

    #[test]
    fn what_is_written_is_read_again() {
        let chunks = table(CELLS / 6 * 5);
        assert!(chunks.len() > 1);
        let bytes = written(&chunks);
        assert!(is_parquet(&bytes));
        let mut found = open(&bytes).unwrap();
        let read: Vec<RecordBatch> = found.by_ref().collect::<Result<_, _>>().unwrap();
        assert_eq!(schema_of(found.types()), chunks[0].schema());
        let rows = |chunks: &[RecordBatch]| chunks.iter().flat_map(to_json_rows).collect::<Vec<_>>();
        assert_eq!(rows(&read), rows(&chunks));
        assert_eq!(found.columns()[0].nulls, (CELLS / 6 * 5).div_ceil(3) as u64);
        assert_eq!(written(&chunks), bytes, "the same table gives the same bytes");
    }

    #[test]
    fn a_damaged_file_is_an_error() {
        let bytes = written(&table(1000));
        for end in (0..bytes.len()).step_by(97) {
            let error = read(&bytes[..end]).expect_err("its end is missing");
            assert_eq!(error.code(), "bad-parquet", "{end}: {error}");
        }
        let mut wrong = 0;
        for at in (0..bytes.len()).step_by(13) {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x41;
            // Some bytes are values, and may be anything.
            wrong += usize::from(read(&bytes).is_err());
        }
        assert!(wrong > 20, "{wrong}");
    }

    #[test]
    fn a_short_file_with_a_long_table_is_refused() {
        let long = "x".repeat(10_000);
        let texts = arrow_array::StringArray::from(vec![long.as_str(); 8_000]);
        let rows =
            RecordBatch::try_from_iter([("t", std::sync::Arc::new(texts) as arrow_array::ArrayRef)]).unwrap();
        let bytes = written(&[rows]);
        assert!(bytes.len() < 20_000, "{}", bytes.len());
        let error = read(&bytes).unwrap_err();
        assert!(error.to_string().contains("200 times"), "{error}");
    }
}
