//! Arrow IPC from other programs, file or stream, to typed chunks: read batch by batch, value by value.
//!
//! Nothing of a message is trusted: its frame is verified, and every value is looked up within the bytes that came. So a
//! damaged or hostile file is an error, and takes no more memory than its largest batch. After "Apache Arrow Columnar
//! Format", version 1.5.
//!
//! Leaves out nested types, dictionaries of anything but text or told in parts, and the footer of files: what stands
//! before it is a stream (not so in files of polars, which writes streams as well).

use std::{
    collections::BTreeMap,
    io::{self, Read},
    ops::Range,
};

use arrow_array::RecordBatch;
use arrow_ipc::{
    Buffer, CompressionType, DateUnit, Endianness, Field, Int, Message, Precision, RecordBatch as Rows,
    Schema, TimeUnit, Type, root_as_message,
};
use arrow_schema::SchemaRef;
use dml_core::{Column, ColumnType};
use lz4_flex::frame::FrameDecoder;
use rayon::prelude::*;
use ruzstd::decoding::StreamingDecoder;

use super::{
    Limits,
    column::{Builder, Cell, Misfit},
    error::{Place, TableError},
    import::{CHUNK_BYTES, CHUNK_CELLS, batch},
    records::check_names,
    schema_of,
    statistics::Statistics,
    value,
};

/// How many bytes a batch, or all dictionaries, may have: they are in memory while they are read.
const MAX_BODY: usize = 512 << 20;

/// How many bytes the description of a message may have.
const MAX_HEAD: usize = 64 << 20;

/// How many times their size in the file the texts of a table may have: a dictionary may name a long text often.
const MAX_RATIO: u64 = 200;

/// How many bytes of text any table may have.
const FREE_BYTES: u64 = 64 << 20;

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

/// Why a value cannot be had.
enum Fault {
    Damaged(&'static str),
    Misfit(Misfit, String),
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

// ---- Messages.

#[derive(Debug)]
struct Source<R> {
    inner: R,
    /// How many bytes were read.
    taken: u64,
}

impl<R: Read> Source<R> {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), TableError> {
        self.taken += buffer.len() as u64;
        self.inner.read_exact(buffer).map_err(|error| match error.kind() == io::ErrorKind::UnexpectedEof {
            true => damaged("it ends too early"),
            false => TableError::Io(error),
        })
    }

    /// The description of the next message; none after the last.
    fn head(&mut self) -> Result<Option<Vec<u8>>, TableError> {
        let mut mark = Vec::new();
        (&mut self.inner).take(4).read_to_end(&mut mark)?;
        if mark.is_empty() {
            return Ok(None);
        }
        if mark != MARK {
            return Err(damaged("a message does not begin where the one before ends"));
        }
        self.head_after_mark()
    }

    /// What stands between the mark of a file and the first message, and the mark of that.
    fn padding(&mut self) -> Result<(), TableError> {
        /// Files are aligned to as many bytes at most.
        const MOST: usize = 64;
        let mut mark = [0; 4];
        for _ in 0..MOST / mark.len() {
            self.fill(&mut mark)?;
            match mark {
                MARK => return Ok(()),
                [0, 0, 0, 0] => {}
                _ => break,
            }
        }
        Err(damaged(
            "no message follows the mark of the file: write it as a stream (in polars, write_ipc_stream)",
        ))
    }

    fn head_after_mark(&mut self) -> Result<Option<Vec<u8>>, TableError> {
        let mut length = [0; 4];
        self.fill(&mut length)?;
        self.head_of(u32::from_le_bytes(length))
    }

    fn head_of(&mut self, length: u32) -> Result<Option<Vec<u8>>, TableError> {
        match length as usize {
            0 => Ok(None),
            length if length > MAX_HEAD => Err(damaged("the description of a message is larger than 64 MiB")),
            length => self.body(length).map(Some),
        }
    }

    /// So many bytes; what does not come is not made room for.
    fn body(&mut self, length: usize) -> Result<Vec<u8>, TableError> {
        let mut body = Vec::new();
        (&mut self.inner).take(length as u64).read_to_end(&mut body)?;
        self.taken += body.len() as u64;
        if body.len() == length { Ok(body) } else { Err(damaged("it ends too early")) }
    }
}

/// A message and the length of its body.
fn parse(head: &[u8]) -> Result<(Message<'_>, usize), TableError> {
    let message = root_as_message(head).map_err(|_| damaged("the description of a message is damaged"))?;
    match usize::try_from(message.bodyLength()) {
        Ok(length) if length <= MAX_BODY => Ok((message, length)),
        Ok(_) => Err(damaged(
            "a batch of rows is larger than 512 MiB: write batches of fewer rows (in pyarrow, \
             write_table(table, max_chunksize=65536))",
        )),
        Err(_) => Err(damaged("a message has a negative length")),
    }
}

type Named = Vec<(String, ColumnType)>;

fn columns(schema: Schema, limits: &Limits) -> Result<(Named, Vec<Kind>), TableError> {
    if schema.endianness() != Endianness::Little {
        return Err(damaged("it is big-endian: write it on a little-endian machine"));
    }
    let fields = schema.fields().filter(|fields| !fields.is_empty()).ok_or(TableError::EmptyFile)?;
    if fields.len() > limits.max_columns {
        return Err(TableError::too_many_columns(fields.len(), limits));
    }
    let (mut columns, mut kinds) = (Vec::new(), Vec::new());
    for (position, field) in (1..).zip(fields) {
        let name = value::trim(field.name().unwrap_or_default()).to_owned();
        if name.len() > limits.max_name_bytes {
            return Err(TableError::NameTooLong { position, max: limits.max_name_bytes });
        }
        let (kind, column) = kind(field).ok_or_else(|| TableError::UnknownType {
            place: Place { row: None, line: None, column: Some(name.clone()) },
            found: described(field),
        })?;
        columns.push((name, column));
        kinds.push(kind);
    }
    check_names(&columns.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>())?;
    Ok((columns, kinds))
}

fn described(field: Field) -> String {
    let name = field.type_type().variant_name().unwrap_or("of a later version");
    match field.dictionary() {
        Some(_) => format!("dictionary of {name}"),
        None => name.to_owned(),
    }
}

fn kind(field: Field) -> Option<(Kind, ColumnType)> {
    let text = match field.type_type() {
        Type::Utf8 => Some(Form::Ends),
        Type::LargeUtf8 => Some(Form::WideEnds),
        Type::Utf8View => Some(Form::Views),
        _ => None,
    };
    if field.children().is_some_and(|children| !children.is_empty()) {
        return None;
    }
    if let Some(dictionary) = field.dictionary() {
        let width = dictionary.indexType().map_or(Some(Width { bytes: 4, signed: true }), width)?;
        return Some((Kind::Coded { id: dictionary.id(), width, form: text? }, ColumnType::Text));
    }
    Some(match field.type_type() {
        Type::Int => (Kind::Integer(width(field.type_as_int()?)?), ColumnType::Integer),
        Type::FloatingPoint => match field.type_as_floating_point()?.precision() {
            Precision::SINGLE => (Kind::Single, ColumnType::Float),
            Precision::DOUBLE => (Kind::Double, ColumnType::Float),
            _ => return None,
        },
        Type::Bool => (Kind::Boolean, ColumnType::Boolean),
        Type::Utf8 | Type::LargeUtf8 | Type::Utf8View => (Kind::Text(text?), ColumnType::Text),
        Type::Date => match field.type_as_date()?.unit() {
            DateUnit::DAY => (Kind::Days, ColumnType::Date),
            DateUnit::MILLISECOND => (Kind::Millis, ColumnType::Date),
            _ => return None,
        },
        Type::Timestamp => {
            // With or without a time zone: it is one of how instants are shown.
            let (in_ms, of_ms) = match field.type_as_timestamp()?.unit() {
                TimeUnit::SECOND => (1, 1000),
                TimeUnit::MILLISECOND => (1, 1),
                TimeUnit::MICROSECOND => (1000, 1),
                TimeUnit::NANOSECOND => (1_000_000, 1),
                _ => return None,
            };
            (Kind::Instant { in_ms, of_ms }, ColumnType::DateTime)
        }
        _ => return None,
    })
}

fn width(int: Int) -> Option<Width> {
    let bytes = usize::try_from(int.bitWidth()).ok()? / 8;
    let known = matches!(int.bitWidth(), 8 | 16 | 32 | 64);
    known.then_some(Width { bytes, signed: int.is_signed() })
}

/// The rows of a message: all values lie within the body, and there are as many as there should be.
fn rows_of(batch: Rows, kinds: &[Kind], body: Vec<u8>) -> Result<Batch, TableError> {
    const SHORT: &str = "a column is shorter than its batch";
    let rows = usize::try_from(batch.length()).map_err(|_| damaged("it has a negative number of rows"))?;
    let nodes = batch.nodes().ok_or_else(|| damaged("a batch has no columns"))?;
    let found = batch.buffers().ok_or_else(|| damaged("a batch has no values"))?;
    let mut variadic = batch.variadicBufferCounts().into_iter().flatten();
    // How many buffers of texts each column has.
    let texts = kinds.iter().map(|kind| match kind {
        Kind::Text(Form::Views) => variadic.next().and_then(|count| usize::try_from(count).ok()),
        Kind::Text(Form::Ends | Form::WideEnds) => Some(1),
        Kind::Integer(_)
        | Kind::Single
        | Kind::Double
        | Kind::Boolean
        | Kind::Days
        | Kind::Millis
        | Kind::Instant { .. }
        | Kind::Coded { .. } => Some(0),
    });
    let texts: Option<Vec<usize>> = texts.collect();
    let texts = texts.filter(|texts| {
        let all = texts.iter().try_fold(2 * kinds.len(), |sum, count| sum.checked_add(*count));
        nodes.len() == kinds.len() && all == Some(found.len())
    });
    let texts = texts.ok_or_else(|| damaged("the columns of a batch are not those of the table"))?;
    let range = |buffer: &Buffer| {
        let start = usize::try_from(buffer.offset()).ok()?;
        let end = start.checked_add(usize::try_from(buffer.length()).ok()?)?;
        (end <= body.len()).then_some(start..end)
    };
    let ranges: Option<Vec<_>> = found.iter().map(range).collect();
    let ranges = ranges.ok_or_else(|| damaged("values lie beyond their batch"))?;
    let (body, ranges) = match batch.compression() {
        Some(compression) => inflate(&body, &ranges, compression.codec())?,
        None => (body, ranges),
    };
    let mut ranges = ranges.into_iter();
    let mut next = || ranges.next().ok_or_else(|| damaged("values lie beyond their batch"));
    let mut columns = Vec::with_capacity(kinds.len());
    for ((node, kind), texts) in nodes.iter().zip(kinds).zip(texts) {
        let (validity, values) = (next()?, next()?);
        let data = (0..texts).map(|_| next()).collect::<Result<_, _>>()?;
        let (bits, extra) = match kind {
            Kind::Boolean => (1, 0),
            Kind::Integer(width) | Kind::Coded { width, .. } => (8 * width.bytes, 0),
            Kind::Single | Kind::Days => (32, 0),
            Kind::Double | Kind::Millis | Kind::Instant { .. } => (64, 0),
            Kind::Text(Form::Ends) => (32, 1),
            Kind::Text(Form::WideEnds) => (64, 1),
            Kind::Text(Form::Views) => (128, 0),
        };
        // Arrow leaves the ends of no texts out.
        let count = if rows == 0 { 0 } else { rows.saturating_add(extra) };
        let enough = |range: &Range<usize>, count: usize, bits: usize| {
            count.checked_mul(bits).is_some_and(|bits| bits.div_ceil(8) <= range.len())
        };
        let all_there = validity.is_empty() && node.null_count() == 0;
        let fits = node.length() == batch.length()
            && enough(&values, count, bits)
            && (all_there || enough(&validity, rows, 1));
        if !fits {
            return Err(damaged(SHORT));
        }
        columns.push(Buffers { validity: if all_there { 0..0 } else { validity }, values, data });
    }
    Ok(Batch { body, columns, rows, taken: 0 })
}

/// Decodes the buffers of a body one by one: each begins with its length when decoded, or -1 if it is plain.
fn inflate(
    body: &[u8],
    ranges: &[Range<usize>],
    codec: CompressionType,
) -> Result<(Vec<u8>, Vec<Range<usize>>), TableError> {
    let most = (body.len() as u64).saturating_mul(MAX_RATIO).max(FREE_BYTES).min(MAX_BODY as u64);
    let (mut out, mut found) = (Vec::new(), Vec::with_capacity(ranges.len()));
    for range in ranges {
        let start = out.len();
        if !range.is_empty() {
            let (length, mut bytes) = body[range.clone()]
                .split_first_chunk()
                .map(|(length, bytes)| (i64::from_le_bytes(*length), bytes))
                .ok_or_else(|| damaged("a compressed column is cut off"))?;
            let plain = length == -1;
            let length = if plain { bytes.len() as u64 } else { length.try_into().unwrap_or(u64::MAX) };
            if length > most - start as u64 {
                return Err(damaged(
                    "a batch is larger than 512 MiB, or than 200 times its size, when it is decoded",
                ));
            }
            let read = match codec {
                _ if plain => bytes.read_to_end(&mut out),
                CompressionType::LZ4_FRAME => FrameDecoder::new(bytes).take(length).read_to_end(&mut out),
                CompressionType::ZSTD => StreamingDecoder::new(bytes)
                    .map_err(io::Error::other)
                    .and_then(|decoder| decoder.take(length).read_to_end(&mut out)),
                _ => return Err(damaged("its batches are compressed in a way that is not known")),
            };
            if read.is_err() || (out.len() - start) as u64 != length {
                return Err(damaged("a compressed column is damaged"));
            }
        }
        found.push(start..out.len());
    }
    Ok((out, found))
}

// ---- Values.

/// A value of a column.
fn cell<'a>(
    kind: Kind,
    body: &'a [u8],
    buffers: &Buffers,
    row: usize,
    dictionaries: &'a BTreeMap<i64, Texts>,
) -> Result<Cell<'a>, Fault> {
    if !buffers.validity.is_empty() && !bit(body, &buffers.validity, row)? {
        return Ok(Cell::Blank);
    }
    let float = |number: f64| if number.is_nan() { Cell::Blank } else { Cell::Float(number) };
    Ok(match kind {
        Kind::Integer(width) => Cell::Integer(integer(body, &buffers.values, row, width)?),
        Kind::Single => float(f32::from_le_bytes(fixed(body, &buffers.values, row)?).into()),
        Kind::Double => float(f64::from_le_bytes(fixed(body, &buffers.values, row)?)),
        Kind::Boolean => Cell::Boolean(bit(body, &buffers.values, row)?),
        Kind::Text(Form::Views) => Cell::Text(view(body, buffers, row)?),
        Kind::Text(form) => Cell::Text(text(body, buffers, row, form)?),
        Kind::Days => Cell::Date(day(i32::from_le_bytes(fixed(body, &buffers.values, row)?))?),
        Kind::Millis => {
            let ms = instant(i64::from_le_bytes(fixed(body, &buffers.values, row)?))?;
            Cell::Date(
                value::day_of(ms)
                    .ok_or_else(|| Fault::Misfit(Misfit::WrongType, written(Cell::DateTime(ms))))?,
            )
        }
        Kind::Instant { in_ms, of_ms } => {
            let count = i64::from_le_bytes(fixed(body, &buffers.values, row)?);
            let ms = count.div_euclid(in_ms).checked_mul(of_ms);
            Cell::DateTime(instant(ms.unwrap_or(i64::MAX))?)
        }
        Kind::Coded { id, width, .. } => {
            let texts = dictionaries.get(&id).ok_or(Fault::Damaged("a dictionary is missing"))?;
            let code = integer(body, &buffers.values, row, width)?;
            let code = usize::try_from(code).ok().filter(|code| *code < texts.count);
            let code = code.ok_or(Fault::Damaged("a code is not in its dictionary"))?;
            cell(Kind::Text(texts.form), &texts.body, &texts.buffers, code, dictionaries)?
        }
    })
}

const BEYOND: Fault = Fault::Damaged("a value lies beyond its end");

fn bit(body: &[u8], range: &Range<usize>, row: usize) -> Result<bool, Fault> {
    let byte = body.get(range.start + row / 8).ok_or(BEYOND)?;
    Ok(byte >> (row % 8) & 1 == 1)
}

fn fixed<const N: usize>(body: &[u8], range: &Range<usize>, row: usize) -> Result<[u8; N], Fault> {
    let bytes = body.get(range.start + row * N..).and_then(|rest| rest.first_chunk());
    bytes.copied().ok_or(BEYOND)
}

fn integer(body: &[u8], range: &Range<usize>, row: usize, width: Width) -> Result<i64, Fault> {
    Ok(match (width.bytes, width.signed) {
        (1, true) => i8::from_le_bytes(fixed(body, range, row)?).into(),
        (1, false) => u8::from_le_bytes(fixed(body, range, row)?).into(),
        (2, true) => i16::from_le_bytes(fixed(body, range, row)?).into(),
        (2, false) => u16::from_le_bytes(fixed(body, range, row)?).into(),
        (4, true) => i32::from_le_bytes(fixed(body, range, row)?).into(),
        (4, false) => u32::from_le_bytes(fixed(body, range, row)?).into(),
        (_, true) => i64::from_le_bytes(fixed(body, range, row)?),
        (_, false) => {
            let number = u64::from_le_bytes(fixed(body, range, row)?);
            let fits = i64::try_from(number);
            fits.map_err(|_| Fault::Misfit(Misfit::OutOfRange, number.to_string()))?
        }
    })
}

fn text<'a>(body: &'a [u8], buffers: &Buffers, row: usize, form: Form) -> Result<&'a str, Fault> {
    let end = |at: usize| -> Result<usize, Fault> {
        let offset = match form == Form::WideEnds {
            true => i64::from_le_bytes(fixed(body, &buffers.values, at)?),
            false => i32::from_le_bytes(fixed(body, &buffers.values, at)?).into(),
        };
        usize::try_from(offset).map_err(|_| BEYOND)
    };
    utf8(within(body, buffers.data.first(), end(row)?..end(row + 1)?)?)
}

fn view<'a>(body: &'a [u8], buffers: &Buffers, row: usize) -> Result<&'a str, Fault> {
    const BYTES: usize = 16;
    const SHORT: usize = 12;
    let at = buffers.values.start + row * BYTES;
    let view: &[u8; BYTES] = body.get(at..).and_then(|rest| rest.first_chunk()).ok_or(BEYOND)?;
    let number = |at: usize| {
        let bytes = view[at..].first_chunk().copied().map(i32::from_le_bytes);
        bytes.and_then(|number| usize::try_from(number).ok()).ok_or(BEYOND)
    };
    let length = number(0)?;
    if length <= SHORT {
        return utf8(&body[at + 4..][..length]);
    }
    let (buffer, start) = (number(8)?, number(12)?);
    utf8(within(body, buffers.data.get(buffer), start..start + length)?)
}

fn within<'a>(body: &'a [u8], data: Option<&Range<usize>>, range: Range<usize>) -> Result<&'a [u8], Fault> {
    data.and_then(|data| body[data.clone()].get(range)).ok_or(BEYOND)
}

fn utf8(bytes: &[u8]) -> Result<&str, Fault> {
    std::str::from_utf8(bytes).map_err(|_| Fault::Damaged("a text is not UTF-8"))
}

/// A day of the years 0 to 9999.
fn day(days: i32) -> Result<i32, Fault> {
    instant(value::midnight(days)).map(|_| days).map_err(|_| beyond_calendar(days.into()))
}

/// A millisecond of the years 0 to 9999.
fn instant(ms: i64) -> Result<i64, Fault> {
    value::is_instant(ms).then_some(ms).ok_or_else(|| beyond_calendar(ms))
}

fn beyond_calendar(number: i64) -> Fault {
    Fault::Misfit(Misfit::OutOfRange, number.to_string())
}

fn written(cell: Cell) -> String {
    let mut text = String::new();
    cell.write(&mut text);
    text
}

impl Fault {
    fn error(self, row: u64, column: &str, wanted: ColumnType) -> TableError {
        let place = place(row, Some(column));
        match self {
            Self::Damaged(why) => damaged(format!("{place}: {why}")),
            Self::Misfit(misfit, value) => misfit.error(place, value, wanted),
        }
    }
}

fn place(row: u64, column: Option<&str>) -> Place {
    Place { row: Some(row), line: None, column: column.map(str::to_owned) }
}

fn damaged(why: impl Into<String>) -> TableError {
    TableError::BadArrow { why: why.into() }
}

#[cfg(test)]
mod tests;
