//! Arrow IPC from other programs, file or stream, to typed chunks: read batch by batch, value by value.
//!
//! Nothing of a message is trusted: its frame is verified, and every value is looked up within the bytes that came. So a
//! damaged or hostile file is an error, and takes no more memory than its largest batch. After "Apache Arrow Columnar
//! Format", version 1.5.
//!
//! Leaves out nested types, dictionaries of anything but text or told in parts, and the footer of files: what stands
//! before it is a stream (not so in files of polars, which writes streams as well).

mod cell;
mod message;

use std::{collections::BTreeMap, io::Read, ops::Range};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use dml_core::{Column, ColumnType};
use rayon::prelude::*;

use self::{
    cell::{Fault, cell, written},
    message::{Source, columns, parse, rows_of},
};
use super::{
    Limits,
    chunks::{CHUNK_BYTES, CHUNK_CELLS, batch},
    column::{Builder, Cell},
    error::{Place, TableError},
    schema_of,
    statistics::Statistics,
};

/// How many bytes a batch, or all dictionaries, may have: they are in memory while they are read.
const MAX_BODY: usize = 512 << 20;

/// How many bytes the description of a message may have.
const MAX_HEAD: usize = 64 << 20;

/// How many times their size in the file the texts of a table may have: a dictionary may name a long text often.
pub(super) const MAX_RATIO: u64 = 200;

/// How many bytes of text any table may have.
pub(super) const FREE_BYTES: u64 = 64 << 20;

/// Whether bytes begin an Arrow file or stream. Eight are enough to tell.
pub fn is_arrow(first: &[u8]) -> bool {
    first.starts_with(FILE_MARK) || first.starts_with(&MARK)
}

const FILE_MARK: &[u8] = b"ARROW1\0\0";
const MARK: [u8; 4] = [0xFF; 4];

/// A table in Arrow IPC: gives its chunks in order, one at a time, and then its statistics.
///
/// Chunks are cut as those of a CSV file, where a number counts as nine bytes and a text as one more than it has. A file
/// without values of more than 14 bytes gives the same chunks in either format.
#[derive(Debug)]
pub struct ArrowTable<R> {
    source: Source<R>,
    columns: Vec<(String, ColumnType)>,
    kinds: Vec<Kind>,
    schema: SchemaRef,
    dictionaries: BTreeMap<i64, Texts>,
    batch: Option<Batch>,
    limits: Limits,
    statistics: Statistics,
    /// In the chunks given so far.
    rows: u64,
    text_bytes: u64,
    /// Whether all was given, or something was wrong.
    over: bool,
}

/// How the values of a column are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Integer(Width),
    Single,
    Double,
    Boolean,
    Text(Form),
    Days,
    /// Days as well, in milliseconds.
    Millis,
    /// So many of which are a millisecond, or have so many of them.
    Instant {
        in_ms: i64,
        of_ms: i64,
    },
    /// Numbers of texts in a dictionary.
    Coded {
        id: i64,
        width: Width,
        form: Form,
    },
}

/// How the texts of a column are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// By where each ends, in 32 bits.
    Ends,
    /// By where each ends, in 64 bits.
    WideEnds,
    /// By views: short texts stand in them, and of long ones where they are.
    Views,
}

/// Of an integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Width {
    bytes: usize,
    signed: bool,
}

/// Rows that were read of the source, and how many of them were taken.
#[derive(Debug)]
struct Batch {
    body: Vec<u8>,
    columns: Vec<Buffers>,
    rows: usize,
    taken: usize,
}

/// Where in a body the values of a column are.
#[derive(Debug, Default)]
struct Buffers {
    /// A bit a value; nothing, if all are there.
    validity: Range<usize>,
    values: Range<usize>,
    /// Of texts: the values are where each ends, or a view of it.
    data: Vec<Range<usize>>,
}

/// The texts of a dictionary.
#[derive(Debug)]
struct Texts {
    body: Vec<u8>,
    buffers: Buffers,
    form: Form,
    count: usize,
}

impl<R: Read> ArrowTable<R> {
    /// Reads the types of a table's columns.
    pub fn new(source: R, limits: Limits) -> Result<Self, TableError> {
        let mut source = Source { inner: source, taken: 0 };
        let mut first = [0; 8];
        source.fill(&mut first)?;
        if !is_arrow(&first) {
            return Err(damaged("it does not begin as Arrow does"));
        }
        let head = if first == FILE_MARK {
            source.padding()?;
            source.head_after_mark()?
        } else {
            let [_, _, _, _, length @ ..] = first;
            source.head_of(u32::from_le_bytes(length))?
        };
        let head = head.ok_or_else(|| damaged("it ends before its columns are named"))?;
        let (message, body) = parse(&head)?;
        let schema = message.header_as_schema().filter(|_| body == 0);
        let schema = schema.ok_or_else(|| damaged("it does not begin with the names of its columns"))?;
        let (columns, kinds) = columns(schema, &limits)?;
        Ok(Self {
            source,
            schema: schema_of(&columns),
            statistics: Statistics::new(&columns),
            columns,
            kinds,
            dictionaries: BTreeMap::new(),
            batch: None,
            limits,
            rows: 0,
            text_bytes: 0,
            over: false,
        })
    }

    /// The names and types of the columns.
    pub fn types(&self) -> &[(String, ColumnType)] {
        &self.columns
    }

    /// The columns with the statistics of the chunks given so far: of the whole table, after the last.
    pub fn columns(&self) -> Vec<Column> {
        self.statistics.columns()
    }

    fn read_chunk(&mut self, most: usize, most_bytes: u64) -> Result<Option<RecordBatch>, TableError> {
        let mut builders: Vec<_> = self.columns.iter().map(|(_, kind)| Builder::new(*kind)).collect();
        let (mut rows, mut bytes) = (0, 0);
        while rows < most && bytes < most_bytes {
            let Some(batch) = self.batch.take_if(|batch| batch.taken < batch.rows) else {
                match self.next_batch()? {
                    Some(batch) => self.batch = Some(batch),
                    None => break,
                }
                continue;
            };
            let from = batch.taken;
            // The row, counted from 1, of the first that is taken.
            let first = self.rows + rows as u64 + 1;
            let until = self.measure(&batch, first, most - rows, &mut bytes, most_bytes)?;
            let dictionaries = &self.dictionaries;
            let columns = builders.par_iter_mut().zip(&self.kinds).zip(&batch.columns).zip(&self.columns);
            let fill =
                |(((builder, kind), buffers), (name, wanted)): (((&mut Builder, &Kind), _), &(String, _))| {
                    for row in from..until {
                        let cell = cell(*kind, &batch.body, buffers, row, dictionaries);
                        cell.and_then(|cell| {
                            builder.push(cell).map_err(|misfit| Fault::Misfit(misfit, written(cell)))
                        })
                        .map_err(|fault| fault.error(first + (row - from) as u64, name, *wanted))?;
                    }
                    Ok(())
                };
            // The first column that has one tells of its first error, whichever thread is faster.
            let filled: Vec<Result<(), TableError>> = columns.map(fill).collect();
            filled.into_iter().collect::<Result<(), _>>()?;
            rows += until - from;
            self.batch = Some(Batch { taken: until, ..batch });
        }
        if rows == 0 {
            return match self.rows {
                0 => Err(TableError::HeaderOnly { columns: self.columns.len() }),
                _ => Ok(None),
            };
        }
        self.rows += rows as u64;
        let chunk = batch(&self.schema, builders.iter_mut().map(Builder::finish).collect(), rows);
        self.statistics.update(&chunk);
        Ok(Some(chunk))
    }

    /// Up to which row of a batch a chunk goes: at most so many further ones, and until it has enough bytes.
    fn measure(
        &mut self,
        batch: &Batch,
        first: u64,
        most: usize,
        bytes: &mut u64,
        most_bytes: u64,
    ) -> Result<usize, TableError> {
        /// What a number counts as, with its delimiter.
        const NUMBER: u64 = 9;
        let texts = |kind: &Kind| matches!(kind, Kind::Text(_) | Kind::Coded { .. });
        let numbers = self.kinds.iter().filter(|kind| !texts(kind)).count() as u64 * NUMBER;
        let allowed = self.source.taken.saturating_mul(MAX_RATIO).max(FREE_BYTES);
        let end = batch.rows.min(batch.taken.saturating_add(most));
        for row in batch.taken..end {
            let number = first + (row - batch.taken) as u64;
            let mut long = 0;
            for ((kind, buffers), (name, wanted)) in self.kinds.iter().zip(&batch.columns).zip(&self.columns)
            {
                if !texts(kind) {
                    continue;
                }
                let cell = cell(*kind, &batch.body, buffers, row, &self.dictionaries);
                let Cell::Text(text) = cell.map_err(|fault| fault.error(number, name, *wanted))? else {
                    continue;
                };
                if text.len() > self.limits.max_field_bytes {
                    let place = place(number, Some(name));
                    return Err(TableError::FieldTooLong { place, max: self.limits.max_field_bytes });
                }
                long += text.len() as u64 + 1;
            }
            if long > self.limits.max_record_bytes as u64 {
                let max = self.limits.max_record_bytes;
                return Err(TableError::RecordTooLong { place: place(number, None), max });
            }
            self.text_bytes += long;
            if self.text_bytes > allowed {
                return Err(damaged("its texts are more than 200 times as long as the file: send it as CSV"));
            }
            *bytes += numbers + long;
            if *bytes >= most_bytes {
                return Ok(row + 1);
            }
        }
        Ok(end)
    }

    /// The next batch; what dictionaries come before it are kept.
    fn next_batch(&mut self) -> Result<Option<Batch>, TableError> {
        while let Some(head) = self.source.head()? {
            let (message, length) = parse(&head)?;
            let body = self.source.body(length)?;
            if let Some(found) = message.header_as_dictionary_batch() {
                if found.isDelta() {
                    return Err(damaged(
                        "a dictionary is told in parts: write the table with one dictionary a column, or as plain text",
                    ));
                }
                let mut others = self.dictionaries.iter().filter(|(id, _)| **id != found.id());
                let kept = others.try_fold(body.len(), |sum, (_, texts)| sum.checked_add(texts.body.len()));
                if kept.is_none_or(|kept| kept > MAX_BODY) {
                    return Err(damaged(
                        "its dictionaries are larger than 512 MiB: write the columns as plain text",
                    ));
                }
                let form = self.kinds.iter().find_map(|kind| {
                    let Kind::Coded { id, form, .. } = kind else { return None };
                    (*id == found.id()).then_some(*form)
                });
                // A dictionary that no column has is of no use.
                if let Some(form) = form {
                    let rows = found.data().ok_or_else(|| damaged("a dictionary has no texts"))?;
                    let Batch { body, columns, rows: count, .. } = rows_of(rows, &[Kind::Text(form)], body)?;
                    let buffers = columns.into_iter().next().unwrap_or_default();
                    self.dictionaries.insert(found.id(), Texts { body, buffers, form, count });
                }
            } else if let Some(found) = message.header_as_record_batch() {
                return rows_of(found, &self.kinds, body).map(Some);
            } else {
                return Err(damaged("it has a message that is no batch of rows"));
            }
        }
        Ok(None)
    }
}

impl<R: Read> Iterator for ArrowTable<R> {
    type Item = Result<RecordBatch, TableError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let rows = CHUNK_CELLS.div_ceil(self.columns.len());
        let chunk = self.read_chunk(rows, CHUNK_BYTES).transpose();
        self.over = !matches!(chunk, Some(Ok(_)));
        chunk
    }
}

/// A whole small Arrow file or stream at once.
pub fn read_arrow(bytes: &[u8], limits: &Limits) -> Result<RecordBatch, TableError> {
    let mut table = ArrowTable::new(bytes, limits.clone())?;
    let rows = table.read_chunk(usize::MAX, u64::MAX)?;
    rows.ok_or(TableError::HeaderOnly { columns: table.columns.len() })
}

fn place(row: u64, column: Option<&str>) -> Place {
    Place { row: Some(row), line: None, column: column.map(str::to_owned) }
}

fn damaged(why: impl Into<String>) -> TableError {
    TableError::BadArrow { why: why.into() }
}

#[cfg(test)]
mod tests;
