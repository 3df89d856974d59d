use std::{io::Cursor, sync::Arc};

use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Date64Array, DictionaryArray, Float32Array,
    Float64Array, Int8Array, Int16Array, Int64Array, LargeStringArray, NullArray, StringArray,
    StringViewArray, Time32SecondArray, TimestampMillisecondArray, TimestampNanosecondArray,
    TimestampSecondArray, UInt8Array, UInt32Array, UInt64Array, types::Int8Type,
};
use arrow_ipc::writer::{FileWriter, StreamWriter};
use proptest::prelude::*;

use super::*;
use crate::table::{encode, read_rows, read_table, write_csv};

fn array<A: arrow_array::Array + 'static>(array: A) -> ArrayRef {
    Arc::new(array)
}

fn stream(batches: &[RecordBatch]) -> Vec<u8> {
    let mut writer = StreamWriter::try_new(Vec::new(), &batches[0].schema()).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.into_inner().unwrap()
}

fn file(batch: &RecordBatch) -> Vec<u8> {
    let mut writer = FileWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    writer.write(batch).unwrap();
    writer.into_inner().unwrap()
}

fn column(values: ArrayRef) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable([("c", values, true)]).unwrap()
}

fn read(bytes: &[u8]) -> Result<RecordBatch, TableError> {
    read_arrow(bytes, &Limits::default())
}

/// Reads all chunks, as an upload does.
fn chunks(bytes: &[u8]) -> Result<Vec<Vec<u8>>, TableError> {
    let mut table = ArrowTable::new(bytes, Limits::default())?;
    let mut chunks =
        table.by_ref().map(|chunk| Ok(encode(&chunk?))).collect::<Result<Vec<_>, TableError>>()?;
    chunks.push(format!("{:?}", table.columns()).into_bytes());
    Ok(chunks)
}

fn csv(table: &RecordBatch) -> String {
    let mut out = Vec::new();
    write_csv(table, true, &mut out);
    String::from_utf8(out).unwrap()
}

/// A column of each type that is read.
fn all_types() -> RecordBatch {
    let words: DictionaryArray<Int8Type> =
        [Some("low"), None, Some("high"), Some("low")].into_iter().collect();
    RecordBatch::try_from_iter_with_nullable(
        [
            ("i8", array(Int8Array::from(vec![Some(-8), None, Some(3), Some(127)]))),
            ("i16", array(Int16Array::from(vec![-300, 0, 1, 2]))),
            ("u8", array(UInt8Array::from(vec![200, 0, 1, 2]))),
            ("u32", array(UInt32Array::from(vec![4_000_000_000, 0, 1, 2]))),
            ("u64", array(UInt64Array::from(vec![1 << 62, 0, 1, 2]))),
            ("f32", array(Float32Array::from(vec![0.5, f32::NAN, -2.0, 1.0]))),
            ("f64", array(Float64Array::from(vec![Some(0.1), Some(f64::NAN), None, Some(-0.0)]))),
            ("b", array(BooleanArray::from(vec![Some(true), Some(false), None, Some(true)]))),
            ("t", array(StringArray::from(vec![Some("NA"), Some(""), None, Some("é, \"x\"")]))),
            ("l", array(LargeStringArray::from(vec!["007", "b", "c", "d"]))),
            ("v", array(StringViewArray::from(vec![Some("v"), None, Some("longer than twelve"), Some("")]))),
            ("w", array(words)),
            ("d", array(Date32Array::from(vec![Some(0), None, Some(-1), Some(20_000)]))),
            ("m", array(Date64Array::from(vec![0, 86_400_000, -86_400_000, 0]))),
            ("s", array(TimestampSecondArray::from(vec![0, 1, -1, 60]))),
            (
                "n",
                array(
                    TimestampNanosecondArray::from(vec![1_999_999, -1, 0, 3_600_000_000_000])
                        .with_timezone("+02:00"),
                ),
            ),
        ]
        .map(|(name, values)| (name, values, true)),
    )
    .unwrap()
}

#[test]
fn every_type_becomes_one_of_ours() {
    let expected = "i8,i16,u8,u32,u64,f32,f64,b,t,l,v,w,d,m,s,n\n\
        -8,-300,200,4000000000,4611686018427387904,0.5,0.1,true,\"NA\",007,v,low,1970-01-01,1970-01-01,\
        1970-01-01T00:00:00,1970-01-01T00:00:00.001\n\
        ,0,0,0,0,,,false,,b,,,,1970-01-02,1970-01-01T00:00:01,1969-12-31T23:59:59.999\n\
        3,1,1,1,1,-2.0,,,,c,longer than twelve,high,1969-12-31,1969-12-31,1969-12-31T23:59:59,1970-01-01T00:00:00\n\
        127,2,2,2,2,1.0,-0.0,true,\"é, \"\"x\"\"\",d,,low,2024-10-04,1970-01-01,1970-01-01T00:01:00,1970-01-01T01:00:00\n";
    let table = all_types();
    for bytes in
        [file(&table), stream(std::slice::from_ref(&table)), stream(&[table.slice(0, 1), table.slice(1, 3)])]
    {
        assert_eq!(csv(&read(&bytes).unwrap()), expected);
    }
    assert_eq!(read(&stream(std::slice::from_ref(&table))[..]).unwrap().num_rows(), 4);
    let no_end = stream(std::slice::from_ref(&table));
    assert_eq!(
        csv(&read(&no_end[..no_end.len() - 8]).unwrap()),
        expected,
        "the mark of the end may be left out"
    );
}

/// Files as pyarrow 26 and polars 2 write them.
#[test]
fn files_of_other_programs_are_read() {
    macro_rules! kept {
        ($name:literal) => {
            include_bytes!(concat!("../../../../fuzz/corpus/arrow/", $name)).as_slice()
        };
    }
    let expected = "i,u,f,t,l,c,b,d,n\n\
        1,1,0.5,a,x,lo,true,2026-01-31,2026-01-31T10:00:00\n\
        ,2,,,y,hi,false,,\n\
        3,3,,,z,,,1969-12-31,1969-12-31T00:00:00\n";
    let (lz4, zstd) = (kept!("pyarrow-lz4.feather"), kept!("pyarrow-zstd.feather"));
    for file in [kept!("pyarrow.arrow"), kept!("pyarrow-stream.arrow"), lz4, zstd] {
        assert_eq!(csv(&read(file).unwrap()), expected);
    }
    let texts = "v,n\nshort,1\na text of more than twelve bytes,2\n,3\nanother that is rather long,4\n";
    assert_eq!(csv(&read(kept!("pyarrow-view.arrow")).unwrap()), texts);
    let long = "a text of more than twelve bytes";
    let polars = format!("a,s,f,c\n1,x,1.5,x\n2,{long},,{long}\n,,,\n");
    assert_eq!(csv(&read(kept!("polars-stream.arrow")).unwrap()), polars);
    let error = read(kept!("polars.arrow")).unwrap_err().to_string();
    assert!(error.ends_with("write it as a stream (in polars, write_ipc_stream)"), "{error}");
    let large = read(kept!("pyarrow-lz4-large.feather")).unwrap();
    assert_eq!((large.num_rows(), csv(&large.slice(2999, 1))), (3000, "z,w\n0,word\n".to_owned()));

    let good = [kept!("pyarrow-lz4-large.feather"), lz4, zstd, kept!("pyarrow-view.arrow")];
    for bytes in good {
        for at in 0..bytes.len() {
            for bits in [1, 0x80, 0xFF] {
                let mut bytes = bytes.to_vec();
                bytes[at] ^= bits;
                let _ = read(&bytes).map_err(|error| error.to_string());
            }
        }
    }
}

#[test]
fn a_table_has_the_same_chunks_as_csv_and_as_arrow() {
    let rows = 300_000;
    let mut text = "i,f,b,t,d,m\n".to_owned();
    for row in 0..rows {
        let blank = row % 11 == 3;
        let float = if blank { String::new() } else { format!("{:?}", row as f64 / 8.0 - 9.5) };
        let day = row % 28 + 1;
        text += &format!(
            "{row},{float},{},w{},2026-01-{day:02},2026-01-{day:02}T10:00:00\n",
            row % 3 == 0,
            row % 9
        );
    }
    let (batches, columns) = read_table(Cursor::new(&text), Limits::default()).unwrap();
    let mut expected: Vec<_> = batches.iter().map(encode).collect();
    expected.push(format!("{columns:?}").into_bytes());
    assert_eq!(expected.len(), 3, "two chunks and the statistics");

    assert!(chunks(&stream(&batches)).unwrap() == expected);
    let pieces: Vec<_> = batches
        .iter()
        .flat_map(|batch| {
            (0..batch.num_rows())
                .step_by(9_999)
                .map(|from| batch.slice(from, 9_999.min(batch.num_rows() - from)))
        })
        .collect();
    assert!(chunks(&stream(&pieces)).unwrap() == expected, "batches make no difference");
}

#[test]
fn what_tables_do_not_hold_is_refused_with_its_column_and_row() {
    let list = Int64Array::from(vec![1, 2]);
    let numbers: DictionaryArray<Int8Type> =
        DictionaryArray::new(Int8Array::from(vec![0, 1]), Arc::new(list.clone()));
    let cases: Vec<(ArrayRef, &str, Option<u64>, &str)> = vec![
        (array(BinaryArray::from(vec![b"a".as_slice()])), "unknown-type", None, "Binary"),
        (array(Time32SecondArray::from(vec![1])), "unknown-type", None, "Time"),
        (array(NullArray::new(3)), "unknown-type", None, "Null"),
        (array(numbers), "unknown-type", None, "dictionary of Int"),
        (array(Float64Array::from(vec![0.0, f64::INFINITY])), "not-finite", Some(2), "inf"),
        (array(Float32Array::from(vec![f32::NEG_INFINITY])), "not-finite", Some(1), "-inf"),
        (array(UInt64Array::from(vec![1, u64::MAX])), "out-of-range", Some(2), "18446744073709551615"),
        (array(Date32Array::from(vec![i32::MAX])), "out-of-range", Some(1), "year 9999"),
        (array(Date64Array::from(vec![1])), "wrong-type", Some(1), "1970-01-01T00:00:00.001"),
        (array(TimestampMillisecondArray::from(vec![0, i64::MIN])), "out-of-range", Some(2), "year 9999"),
        (array(TimestampSecondArray::from(vec![i64::MAX])), "out-of-range", Some(1), "year 9999"),
        (array(StringArray::from(vec!["x".repeat(2 << 20)])), "field-too-long", Some(1), "1048576 bytes"),
    ];
    for (values, code, row, words) in cases {
        let error = read(&stream(&[column(values)])).unwrap_err();
        assert_eq!((error.code(), error.row(), error.column()), (code, row, Some("c")), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
    let empty = column(array(Int64Array::from(Vec::<i64>::new())));
    assert_eq!(read(&stream(std::slice::from_ref(&empty))).unwrap_err().code(), "header-only");
    assert_eq!(chunks(&stream(&[empty])).unwrap_err().code(), "header-only");
    let twice = RecordBatch::try_new(
        schema_of(&[("a".into(), ColumnType::Integer), ("a ".into(), ColumnType::Integer)]),
        vec![array(list.clone()), array(list.clone())],
    );
    assert_eq!(read(&stream(&[twice.unwrap()])).unwrap_err().code(), "duplicate-column");
    let unnamed = RecordBatch::try_from_iter([("", array(list))]).unwrap();
    assert_eq!(read(&stream(&[unnamed])).unwrap_err().code(), "blank-column-name");
    for bytes in [&b"a,b\n1,2\n"[..], b"ARROW1\0\0", b"\xFF\xFF\xFF\xFF\0\0\0\0", b""] {
        assert_eq!(read(bytes).unwrap_err().code(), "bad-arrow");
    }
}

#[test]
fn errors_come_with_the_row_of_the_whole_table() {
    let mut values = vec![0.0; 30_000];
    values[29_998] = f64::INFINITY;
    let batches =
        [column(array(Float64Array::from(vec![1.0; 1 << 20]))), column(array(Float64Array::from(values)))];
    let bytes = stream(&batches);
    let mut table = ArrowTable::new(bytes.as_slice(), Limits::default()).unwrap();
    assert_eq!(table.next().unwrap().unwrap().num_rows(), 1 << 20);
    assert_eq!(table.next().unwrap().unwrap_err().row(), Some((1 << 20) + 29_999));
    assert!(table.next().is_none(), "nothing comes after an error");
}

#[test]
fn a_short_file_does_not_become_a_huge_table() {
    let long = StringArray::from(vec!["x".repeat(1 << 20)]);
    let words = DictionaryArray::<Int8Type>::new(Int8Array::from(vec![0; 1 << 20]), Arc::new(long));
    let error = chunks(&stream(&[column(array(words))])).unwrap_err();
    assert!(error.to_string().contains("more than 200 times as long"), "{error}");
}

#[test]
fn absurd_sizes_take_no_memory() {
    let good = stream(&[all_types()]);
    let mut huge = good.clone();
    huge[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(read(&huge).unwrap_err().to_string().contains("64 MiB"));
    let mut cut = good;
    cut[4..8].copy_from_slice(&(60_u32 << 20).to_le_bytes());
    assert!(read(&cut).unwrap_err().to_string().contains("ends too early"));
}

#[test]
fn every_cut_and_every_flipped_bit_is_an_error_or_a_table() {
    let table = all_types();
    let good = stream(std::slice::from_ref(&table));
    let whole = csv(&read(&good).unwrap());
    for end in 0..good.len() - 8 {
        match read(&good[..end]) {
            Err(error) => assert!(matches!(error.code(), "bad-arrow" | "header-only"), "{end}: {error}"),
            Ok(_) => panic!("what is cut at {end} is not whole"),
        }
    }
    for bytes in [good, file(&table)] {
        let mut others = 0;
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            others += usize::from(read(&bytes).is_ok_and(|table| csv(&table) != whole));
        }
        assert!(others > 100, "values differ, and nothing panics: {others}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        cut in 0_usize..3000,
        changes in prop::collection::vec((0_usize..4000, any::<u8>()), 0..6),
        tail in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let mut bytes = stream(&[all_types()]);
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        bytes.truncate(cut.max(8));
        bytes.extend(tail);
        if let Ok(table) = read(&bytes) {
            prop_assert!(table.num_columns() <= 16);
        }
    }

    #[test]
    fn what_is_read_of_csv_is_read_of_arrow(text in "([-0-9.]{1,4},(true|a|),(2026-01-0[1-9]|)\n){1,20}") {
        let table = read_rows(format!("x,y,z\n{text}").as_bytes(), &Limits::default()).unwrap();
        prop_assert_eq!(read(&encode(&table)).unwrap(), table);
    }
}
