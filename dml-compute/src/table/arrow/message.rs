//! The messages of Arrow IPC: their frames, what a schema says of columns, and where in a body the values are.

use std::{
    io::{self, Read},
    ops::Range,
};

use arrow_ipc::{
    Buffer, CompressionType, DateUnit, Endianness, Field, Int, Message, Precision, RecordBatch as Rows,
    Schema, TimeUnit, Type, root_as_message,
};
use dml_core::ColumnType;
use lz4_flex::frame::FrameDecoder;
use ruzstd::decoding::StreamingDecoder;

use super::{Batch, Buffers, FREE_BYTES, Form, Kind, MARK, MAX_BODY, MAX_HEAD, MAX_RATIO, Width, damaged};
use crate::table::{
    Limits,
    error::{Place, TableError},
    records::check_names,
    value,
};

#[derive(Debug)]
pub(super) struct Source<R> {
    pub(super) inner: R,
    /// How many bytes were read.
    pub(super) taken: u64,
}

impl<R: Read> Source<R> {
    pub(super) fn fill(&mut self, buffer: &mut [u8]) -> Result<(), TableError> {
        self.taken += buffer.len() as u64;
        self.inner.read_exact(buffer).map_err(|error| match error.kind() == io::ErrorKind::UnexpectedEof {
            true => damaged("it ends too early"),
            false => TableError::Io(error),
        })
    }

    /// The description of the next message; none after the last.
    pub(super) fn head(&mut self) -> Result<Option<Vec<u8>>, TableError> {
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
    pub(super) fn padding(&mut self) -> Result<(), TableError> {
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

    pub(super) fn head_after_mark(&mut self) -> Result<Option<Vec<u8>>, TableError> {
        let mut length = [0; 4];
        self.fill(&mut length)?;
        self.head_of(u32::from_le_bytes(length))
    }

    pub(super) fn head_of(&mut self, length: u32) -> Result<Option<Vec<u8>>, TableError> {
        match length as usize {
            0 => Ok(None),
            length if length > MAX_HEAD => Err(damaged("the description of a message is larger than 64 MiB")),
            length => self.body(length).map(Some),
        }
    }

    /// So many bytes; what does not come is not made room for.
    pub(super) fn body(&mut self, length: usize) -> Result<Vec<u8>, TableError> {
        let mut body = Vec::new();
        (&mut self.inner).take(length as u64).read_to_end(&mut body)?;
        self.taken += body.len() as u64;
        if body.len() == length { Ok(body) } else { Err(damaged("it ends too early")) }
    }
}

/// A message and the length of its body.
pub(super) fn parse(head: &[u8]) -> Result<(Message<'_>, usize), TableError> {
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

pub(super) type Named = Vec<(String, ColumnType)>;

pub(super) fn columns(schema: Schema, limits: &Limits) -> Result<(Named, Vec<Kind>), TableError> {
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
pub(super) fn rows_of(batch: Rows, kinds: &[Kind], body: Vec<u8>) -> Result<Batch, TableError> {
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
