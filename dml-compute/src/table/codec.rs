//! Chunks as bytes: an Arrow IPC stream with a schema and one record batch, not compressed.
//!
//! Arrow's reader trusts lengths and types, and ends the program over some that are wrong. So the frame of the stream,
//! its types and the place of every buffer are checked before it sees them.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_buffer::Buffer;
use arrow_ipc::{
    DateUnit, Endianness, Field, Message, MessageHeader, MetadataVersion, Precision, Schema, TimeUnit, Type,
    reader::StreamDecoder, root_as_message, writer::StreamWriter,
};

use super::column::column_type;
use crate::WorkError;

/// The same rows give the same bytes.
pub fn encode(batch: &RecordBatch) -> Vec<u8> {
    let mut out = Vec::with_capacity(batch.get_array_memory_size() + 1024);
    let mut writer =
        StreamWriter::try_new(&mut out, &batch.schema()).expect("a table's types have a form in IPC");
    writer.write(batch).expect("writing to memory");
    writer.finish().expect("writing to memory");
    drop(writer);
    out
}

/// Reads what [`encode`] wrote. Other bytes, other types and other numbers of batches are errors.
pub fn decode(bytes: &[u8]) -> Result<RecordBatch, WorkError> {
    decode_shared(bytes.into())
}

/// As [`decode`], but the values stay where they are: the table keeps the bytes.
pub fn decode_shared(bytes: Arc<[u8]>) -> Result<RecordBatch, WorkError> {
    check(&bytes).map_err(corrupt)?;
    let mut rest = Buffer::from(bytes::Bytes::from_owner(bytes));
    let batch = StreamDecoder::new().decode(&mut rest).map_err(|error| corrupt(error.to_string()))?;
    let batch = batch.ok_or_else(|| corrupt("it has no rows"))?;
    match batch.schema().fields().iter().find(|field| column_type(field.data_type()).is_none()) {
        Some(field) => Err(corrupt(format!("column '{}' is of type {}", field.name(), field.data_type()))),
        None => Ok(batch),
    }
}

/// What ends a stream of several chunks.
pub const STREAM_END: [u8; 8] = [0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0];

/// What a chunk that [`encode`] wrote is in a stream of several with the same columns: the columns are named by the first
/// alone, and after the last [`STREAM_END`] follows.
pub fn stream_part(chunk: &[u8], first: bool) -> Result<&[u8], WorkError> {
    check(chunk).map_err(corrupt)?;
    let mut rest = chunk;
    next_message(&mut rest).map_err(corrupt)?;
    let part = if first { chunk } else { rest };
    part.strip_suffix(&STREAM_END).ok_or_else(|| corrupt("it does not end"))
}

fn corrupt(why: impl Into<String>) -> WorkError {
    WorkError::Corrupt { what: "a chunk of a table", why: why.into() }
}

fn check(bytes: &[u8]) -> Result<(), String> {
    let mut rest = bytes;
    let (schema, body) = next_message(&mut rest)?;
    let schema =
        schema.header_as_schema().filter(|_| body.is_empty()).ok_or("it does not begin with a schema")?;
    let kinds = check_schema(schema)?;
    let (batch, body) = next_message(&mut rest)?;
    check_batch(batch, body.len(), &kinds)?;
    if rest == STREAM_END { Ok(()) } else { Err("it does not end after one batch".into()) }
}

/// Takes a message and its body from the front.
fn next_message<'a>(rest: &mut &'a [u8]) -> Result<(Message<'a>, &'a [u8]), String> {
    const CUT: &str = "it is cut off";
    let head = rest.split_off(..8).ok_or(CUT)?;
    let (mark, length) = head.split_at(4);
    let length = length.try_into().map(u32::from_le_bytes).map_err(|_| CUT)?;
    if mark != [0xFF; 4] {
        return Err("it is not an Arrow stream".into());
    }
    if length == 0 {
        return Err("it ends too early".into());
    }
    let message = rest.split_off(..length as usize).ok_or(CUT)?;
    let message = root_as_message(message).map_err(|error| format!("a message is damaged: {error}"))?;
    let body = usize::try_from(message.bodyLength()).map_err(|_| CUT)?;
    let body = rest.split_off(..body).ok_or(CUT)?;
    Ok((message, body))
}

/// How many buffers a column has, and how many bits a value takes in the one of fixed width.
struct Layout {
    buffers: usize,
    bits: usize,
    /// Values in the fixed-width buffer beyond one a row.
    extra: usize,
}

fn check_schema(schema: Schema) -> Result<Vec<Layout>, String> {
    if schema.endianness() != Endianness::Little {
        return Err("it is big-endian".into());
    }
    schema.fields().ok_or("it names no columns")?.iter().map(layout).collect()
}

fn layout(field: Field) -> Result<Layout, String> {
    let name = field.name().ok_or("a column has no name")?;
    if field.dictionary().is_some() || field.children().is_some_and(|children| !children.is_empty()) {
        return Err(format!("column '{name}' is nested"));
    }
    let fixed = |bits| Some(Layout { buffers: 2, bits, extra: 0 });
    let layout = match field.type_type() {
        Type::Int => field.type_as_int().filter(|int| int.bitWidth() == 64 && int.is_signed()).and(fixed(64)),
        Type::FloatingPoint => field
            .type_as_floating_point()
            .filter(|float| float.precision() == Precision::DOUBLE)
            .and(fixed(64)),
        Type::Bool => fixed(1),
        Type::Utf8 => Some(Layout { buffers: 3, bits: 32, extra: 1 }),
        Type::Date => field.type_as_date().filter(|date| date.unit() == DateUnit::DAY).and(fixed(32)),
        Type::Timestamp => field
            .type_as_timestamp()
            .filter(|time| time.unit() == TimeUnit::MILLISECOND && time.timezone().is_none())
            .and(fixed(64)),
        _ => None,
    };
    layout.ok_or_else(|| format!("column '{name}' is of a type that tables do not hold"))
}

fn check_batch(message: Message, body: usize, layouts: &[Layout]) -> Result<(), String> {
    if message.header_type() != MessageHeader::RecordBatch || message.version() != MetadataVersion::V5 {
        return Err("its second message is no batch".into());
    }
    let batch = message.header_as_record_batch().ok_or("its second message is no batch")?;
    if batch.compression().is_some() || batch.variadicBufferCounts().is_some_and(|counts| !counts.is_empty())
    {
        return Err("it is compressed".into());
    }
    let rows = usize::try_from(batch.length()).map_err(|_| "it has a negative number of rows")?;
    let nodes = batch.nodes().ok_or("it has no columns")?;
    let buffers = batch.buffers().ok_or("it has no buffers")?;
    if nodes.len() != layouts.len()
        || buffers.len() != layouts.iter().map(|layout| layout.buffers).sum::<usize>()
    {
        return Err("its columns are not those of its schema".into());
    }
    let mut buffers = buffers.iter().map(|buffer| length_within(buffer.offset(), buffer.length(), body));
    for (node, layout) in nodes.iter().zip(layouts) {
        let (validity, values) = (buffers.next(), buffers.next());
        let (validity, values) =
            (validity.ok_or("a buffer is missing")??, values.ok_or("a buffer is missing")??);
        if layout.buffers == 3 {
            buffers.next().ok_or("a buffer is missing")??;
        }
        let nulls = usize::try_from(node.null_count()).map_err(|_| "a column has fewer than no blanks")?;
        let needed = |values: usize, bits: usize| values.checked_mul(bits).map(|bits| bits.div_ceil(8));
        let fits = |bytes: usize, needed: Option<usize>| needed.is_some_and(|needed| needed <= bytes);
        let of_rows = node.length() == batch.length() && nulls <= rows;
        let valid = nulls == 0 || fits(validity, needed(rows, 1));
        // Arrow leaves the offsets of no texts out.
        let empty = rows == 0 && values == 0;
        let whole = values % layout.bits.div_ceil(8) == 0;
        let enough = empty || fits(values, needed(rows.saturating_add(layout.extra), layout.bits));
        if !(of_rows && valid && whole && enough) {
            return Err("a column is shorter than the batch".into());
        }
    }
    Ok(())
}

/// The length of a buffer that lies where it may.
fn length_within(offset: i64, length: i64, body: usize) -> Result<usize, &'static str> {
    const BEYOND: &str = "a buffer lies beyond its end";
    const ALIGNMENT: i64 = 8;
    if offset % ALIGNMENT != 0 {
        return Err("a buffer is not aligned");
    }
    let (offset, length) =
        (usize::try_from(offset).map_err(|_| BEYOND)?, usize::try_from(length).map_err(|_| BEYOND)?);
    if offset.checked_add(length).is_some_and(|end| end <= body) { Ok(length) } else { Err(BEYOND) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, Int32Array, StringArray};
    use proptest::prelude::*;

    use super::*;
    use crate::table::{Limits, read_rows};

    fn table() -> RecordBatch {
        let text = "i,f,b,t,d,m\n1,0.5,true,a,2026-01-31,2026-01-31T10:00\n,,,,,\n-7,1e9,false,été,1970-01-01,1970-01-01 00:00\n";
        read_rows(text.as_bytes(), &Limits::default()).unwrap()
    }

    #[test]
    fn chunks_make_a_stream() {
        let (table, limits) = (table(), Limits::default());
        let chunks = [encode(&table.slice(0, 1)), encode(&table.slice(1, 2))];
        let parts =
            [stream_part(&chunks[0], true).unwrap(), stream_part(&chunks[1], false).unwrap(), &STREAM_END];
        let stream = parts.concat();
        let reader = arrow_ipc::reader::StreamReader::try_new(stream.as_slice(), None).unwrap();
        assert_eq!(reader.map(|batch| batch.unwrap().num_rows()).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(crate::table::read_arrow(&stream, &limits).unwrap(), table);
        assert!(stream_part(&chunks[0][..100], false).is_err());
    }

    #[test]
    fn chunks_come_back() {
        let table = table();
        let bytes = encode(&table);
        assert_eq!(decode(&bytes).unwrap(), table);
        assert_eq!(decode_shared(bytes.clone().into()).unwrap(), table);
        assert_eq!(bytes, encode(&decode(&bytes).unwrap()));
        assert_eq!(decode(&encode(&table.slice(1, 1))).unwrap(), table.slice(1, 1));
        assert_eq!(decode(&encode(&table.slice(0, 0))).unwrap().num_rows(), 0);
    }

    #[test]
    fn every_truncation_is_an_error() {
        let bytes = encode(&table());
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length]).is_err(), "{length} of {}", bytes.len());
        }
    }

    #[test]
    fn no_flipped_bit_makes_it_panic() {
        let bytes = encode(&table());
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut bytes = bytes.clone();
                bytes[at] ^= 1 << bit;
                if let Ok(batch) = decode(&bytes) {
                    crate::table::to_json_rows(&batch);
                }
            }
        }
    }

    #[test]
    fn other_streams_are_refused() {
        let stream = |array: ArrayRef, times: usize| {
            let batch = RecordBatch::try_from_iter([("a", array)]).unwrap();
            let mut out = Vec::new();
            let mut writer = StreamWriter::try_new(&mut out, &batch.schema()).unwrap();
            (0..times).for_each(|_| writer.write(&batch).unwrap());
            writer.finish().unwrap();
            drop(writer);
            out
        };
        let text = || Arc::new(StringArray::from(vec!["a"])) as ArrayRef;
        let small = Arc::new(Int32Array::from(vec![1]));
        for (bytes, words) in [
            (stream(text(), 0), "too early"),
            (stream(text(), 2), "one batch"),
            (stream(small, 1), "'a' is of a type"),
            (b"not an Arrow stream".to_vec(), "not an Arrow stream"),
        ] {
            let error = decode(&bytes).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            noise in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let mut bytes = encode(&table());
            for (at, byte) in edits {
                *at.get_mut(&mut bytes) = byte;
            }
            let _ = decode(&bytes);
            prop_assert!(decode(&noise).is_err());
            prop_assert!(decode(&[&[0xFF; 4], noise.as_slice()].concat()).is_err());
        }
    }
}
