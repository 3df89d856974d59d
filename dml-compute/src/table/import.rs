//! CSV to typed chunks. As bytes come in, the types are found, and the chunks are made as if the types of the first rows
//! were those of all; the bytes are kept in a temporary file, from which the chunks are made anew if they are not. Both
//! readings take blocks of whole records on all threads; memory is bounded by a few blocks and the chunk in the making,
//! whatever the size of the file.

use std::{
    collections::VecDeque,
    fs::File,
    io::{Read, Seek, SeekFrom},
    sync::mpsc,
    thread,
};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use dml_core::{Column, ColumnType};
use rayon::prelude::*;

use super::{
    Limits,
    block::{self, Extent},
    chunks::{Chunks, Values, batch},
    column::Builder,
    error::{Place, TableError},
    infer::{self, BATCH_BYTES, Inference, Inferred},
    records::{Record, Records},
    schema_of,
};

/// How many bytes are read of a file at a time.
const PIECE: usize = 1 << 20;

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
        Self { inference: Inference::new(limits, true), spool }
    }

    /// The next bytes of the file, however cut. Gives the chunks that they complete, which are the table's if it goes on
    /// as it has begun: [`Typed::kept`] tells.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<RecordBatch>, TableError> {
        self.inference.push(bytes, &mut self.spool)?;
        Ok(std::iter::from_fn(|| self.inference.chunk()).collect())
    }

    /// After the last byte: the table's types are known, and the rest of its chunks, or all of them, can be read.
    pub fn finish(mut self) -> Result<Typed, TableError> {
        let found = self.inference.finish(&mut self.spool)?;
        self.spool.rewind()?;
        Ok(Typed::new(self.spool, found))
    }
}

/// A table whose types are known: gives its chunks in order, one at a time, and then its statistics.
///
/// Where chunks are cut depends on the file alone: as soon as one has [`CHUNK_CELLS`](super::CHUNK_CELLS) values or was
/// read from [`CHUNK_BYTES`](super::CHUNK_BYTES) bytes.
#[derive(Debug)]
pub struct Typed<R = File> {
    source: R,
    head: Records,
    /// The blocks that were not read yet.
    blocks: VecDeque<Extent>,
    /// What was read of the source, without the header.
    read: Extent,
    chunks: Chunks,
    kept: usize,
    rows: u64,
}

impl<R: Read> Typed<R> {
    fn new(source: R, found: Inferred) -> Self {
        let Inferred { head, columns, blocks, total, chunks } = found;
        let blocks = if chunks.is_some() { VecDeque::new() } else { blocks.into() };
        let chunks = chunks.unwrap_or_else(|| Chunks::new(columns));
        let kept = chunks.count();
        Self { source, head, blocks, read: Extent::default(), chunks, kept, rows: total.rows }
    }

    /// How many of the chunks that [`Importer::push`] gave are those of the table: all, and the others follow them; or
    /// none, as its types have turned out to be others, and all follow.
    pub fn kept(&self) -> usize {
        self.kept
    }

    /// How many rows the whole table has.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The names and types of the columns.
    pub fn types(&self) -> &[(String, ColumnType)] {
        self.chunks.types()
    }

    /// The columns with the statistics of the chunks given so far: of the whole table, after the last.
    pub fn columns(&self) -> Vec<Column> {
        self.chunks.columns()
    }

    fn read_chunk(&mut self) -> Result<Option<RecordBatch>, TableError> {
        loop {
            if let Some(chunk) = self.chunks.cut() {
                return Ok(Some(chunk));
            }
            if !self.read_parts()? {
                return Ok(self.chunks.rest());
            }
        }
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
        let (head, columns) = (&self.head, self.chunks.types());
        let part = |(before, at, block): (Extent, usize, Extent)| {
            let text = &text[at..at + block.bytes as usize];
            let mut values = Values::new(columns, block.rows as usize, head.consumed() + before.bytes);
            block::read(head, before, text, &mut values).map(|_| values.finish())
        };
        let read: Vec<_> = blocks.par_iter().map(|block| part(*block)).collect();
        for part in read {
            self.chunks.push(part?);
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
            self.chunks.clear();
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

    fn finish(&mut self) -> RecordBatch {
        let arrays = self.builders.iter_mut().map(Builder::finish).collect();
        batch(&self.schema, arrays, std::mem::take(&mut self.rows))
    }
}

/// A whole CSV file of any size, in memory: its chunks, and its columns with their statistics. The next piece is read
/// while one is parsed; the file is read once more if the types of its first rows are not those of all.
pub fn read_table(
    mut csv: impl Read + Seek + Send,
    limits: Limits,
) -> Result<(Vec<RecordBatch>, Vec<Column>), TableError> {
    let start = csv.stream_position()?;
    let (mut inference, mut chunks) = (Inference::new(limits, true), Vec::new());
    thread::scope(|scope| {
        let (sender, pieces) = mpsc::sync_channel(1);
        let csv = &mut csv;
        scope.spawn(move || {
            loop {
                let mut piece = Vec::with_capacity(PIECE);
                let count = csv.by_ref().take(PIECE as u64).read_to_end(&mut piece);
                let is_last = !count.as_ref().is_ok_and(|count| *count > 0);
                // Nobody takes more after an error.
                if sender.send(count.map(|_| piece)).is_err() || is_last {
                    return;
                }
            }
        });
        pieces.into_iter().try_for_each(|piece| {
            inference.push(&piece?, &mut std::io::sink())?;
            chunks.extend(std::iter::from_fn(|| inference.chunk()));
            Ok::<_, TableError>(())
        })
    })?;
    let found = inference.finish(&mut std::io::sink())?;
    csv.seek(SeekFrom::Start(start + found.head.consumed()))?;
    // The last line may lack its end.
    let mut typed = Typed::new(csv.chain(&b"\n"[..]), found);
    chunks.truncate(typed.kept());
    typed.by_ref().try_for_each(|chunk| chunk.map(|chunk| chunks.push(chunk)))?;
    Ok((chunks, typed.columns()))
}

/// A whole small CSV file at once, its types found as [`Importer`] finds them.
pub fn read_rows(text: &[u8], limits: &Limits) -> Result<RecordBatch, TableError> {
    let mut inference = Inference::new(limits.clone(), false);
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
