//! Tables from end to end: good ones, bad ones, in pieces, and there and back.

use std::{fs, sync::Arc};

use arrow_array::{ArrayRef, RecordBatch};
use csv_core::ReadRecordResult;
use dml_core::{
    Column,
    ColumnType::{self, Boolean, Date, DateTime, Float, Integer, Text},
    Summary,
};
use proptest::prelude::*;

use super::{column::Builder, column::Cell, records::Records, *};

/// Imports a file in pieces of some size: its chunks and columns.
fn import(text: &[u8], piece: usize, limits: &Limits) -> Result<(Vec<RecordBatch>, Vec<Column>), TableError> {
    let mut importer = Importer::new(tempfile::tempfile()?, limits.clone());
    let mut chunks = Vec::new();
    for piece in text.chunks(piece) {
        chunks.extend(importer.push(piece)?);
    }
    let mut typed = importer.finish()?;
    chunks.truncate(typed.kept());
    typed.by_ref().try_for_each(|chunk| chunk.map(|chunk| chunks.push(chunk)))?;
    assert_eq!(typed.rows(), chunks.iter().map(|chunk| chunk.num_rows() as u64).sum::<u64>());
    assert!(typed.next().is_none());
    Ok((chunks, typed.columns()))
}

fn read(text: &str) -> RecordBatch {
    read_rows(text.as_bytes(), &Limits::default()).unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

fn csv(table: &RecordBatch) -> String {
    let mut out = Vec::new();
    write_csv(table, true, &mut out);
    String::from_utf8(out).unwrap()
}

fn types(table: &RecordBatch) -> Vec<ColumnType> {
    table.schema().fields().iter().map(|field| column_type(field.data_type()).unwrap()).collect()
}

#[test]
fn a_column_has_the_narrowest_type_of_all_its_values() {
    let cases = [
        ("1|NA||-7|+3", Integer),
        ("1|2.5", Float),
        ("1|9223372036854775808", Float),
        ("NaN|1e3", Float),
        ("00501|10001", Text),
        ("1|x", Text),
        ("true|FALSE|", Boolean),
        ("true|1", Text),
        ("yes|no", Text),
        ("2026-01-31|2024-02-29|null", Date),
        ("2026-01-31|2026-01-31 10:00", DateTime),
        ("2026-01-31|2023-02-29", Text),
        ("2026-01-31|7", Text),
        ("inf|x", Text),
        ("inf|true", Text),
        ("|NA|?", Text),
        (" 1 |\t2", Integer),
        ("\"1\"|\" 2\"|\"\"|\"NA\"", Integer),
    ];
    for (values, want) in cases {
        for reverse in [false, true] {
            let mut values: Vec<_> = values.split('|').collect();
            if reverse {
                values.reverse();
            }
            let rows: String = values.iter().map(|value| format!("{value},x\n")).collect();
            let table = read(&format!("a,b\n{rows}"));
            assert_eq!(types(&table)[0], want, "{values:?}");
        }
    }
}

#[test]
fn blanks_quotes_and_lines_are_read_as_documented() {
    let text = "\u{feff} t ,\"n,\"\"1\"\"\"\r\n\"NA\",1\r\n\r\n NA ,\" 2 \"\r\n  \n\"\",\"NA\"\n \"q\" , 3\n\"a\"b\"c,\n\" x \r\n\"\"y\",4";
    let table = read(text);
    assert_eq!(
        csv(&table),
        "t,\"n,\"\"1\"\"\"\n\"NA\",1\n,2\n,\n\"\"\"q\"\"\",3\n\"ab\"\"c\",\n\" x \r\n\"\"y\",4\n"
    );
    assert_eq!(table.schema().field(0).name(), "t");
}

#[test]
fn the_delimiter_is_the_most_frequent_in_the_header() {
    for (text, width) in [
        ("a,b\n1,2\n", 2),
        ("a;b;c\n1;2;3\n", 3),
        ("a\tb\n\t\n1\t2\n", 2),
        ("a|b\n1|2\n", 2),
        ("\"x,y,z\";b\n1;2\n", 2),
        ("a,b;c\n1,2\n", 2),
        ("a b\n1 2\n", 1),
    ] {
        assert_eq!(read(text).num_columns(), width, "{text:?}");
    }
    assert_eq!(read("a\tb\n\t\n1\t2\n").num_rows(), 2, "a row of blanks is no blank line");
}

#[test]
fn a_column_of_blanks_alone_is_text_without_a_summary() {
    let (_, columns) = import(b"a,b\nNA,1\n,2\n", 5, &Limits::default()).unwrap();
    assert_eq!((columns[0].r#type, columns[0].nulls, &columns[0].summary), (Text, 2, &Summary::Blank));
}

/// A bad file and what is told of it: the code, the row, the column, and words of the message.
type Bad = (Vec<u8>, &'static str, Option<u64>, Option<&'static str>, &'static str);

fn bad_files() -> Vec<Bad> {
    let wide: String = (0..200).map(|i| format!("c{i},")).collect();
    vec![
        (b"".to_vec(), "empty-file", None, None, "is empty"),
        (b"\xEF\xBB\xBF\r\n \n\n".to_vec(), "empty-file", None, None, "is empty"),
        (b"a,b".to_vec(), "header-only", None, None, "2 column(s) but no rows"),
        (b"a,b\n\n".to_vec(), "header-only", None, None, "2 column(s) but no rows"),
        (b",a\n0,1\n".to_vec(), "blank-column-name", None, None, "column 1 has no name"),
        (b"a, ,b\n0,1,2\n".to_vec(), "blank-column-name", None, None, "column 2 has no name"),
        (
            b"a,b, a\n0,1,2\n".to_vec(),
            "duplicate-column",
            None,
            Some("a"),
            "columns 1 and 3 are both named 'a'",
        ),
        (
            b"a,b\n1,2\n3\n".to_vec(),
            "ragged-row",
            Some(2),
            None,
            "row 2 (line 3) has 1 value(s) where the header has 2",
        ),
        (b"a,b\n1,2\n\n\n3,4,5".to_vec(), "ragged-row", Some(2), None, "row 2 (line 5) has 3 value(s)"),
        (b"a,b\n1,\"2\n3,4\n".to_vec(), "unclosed-quote", Some(1), Some("b"), "row 1 (line 2), column 'b'"),
        (b"a,\"b\n1,2\n".to_vec(), "unclosed-quote", None, None, "the header (line 1)"),
        (b"a,b\n1,2\n3,\"caf\xE9\"\n".to_vec(), "not-utf-8", Some(2), Some("b"), "byte 0xE9 is not UTF-8"),
        (b"a,b\n1,2\n\xE9,4\n".to_vec(), "not-utf-8", Some(2), Some("a"), "iconv -f WINDOWS-1252"),
        (
            b"a,\xFCber\n1,2\n".to_vec(),
            "not-utf-8",
            None,
            Some("2"),
            "the header (line 1), column '2': byte 0xFC",
        ),
        (b"\xFF\xFEa\0,\0b\0\n\0".to_vec(), "not-utf-8", None, None, "UTF-16"),
        (b"\x1F\x8B\x08\0\0\0\n".to_vec(), "compressed", None, None, "a gzip file: decompress it"),
        (b"PK\x03\x04\n\0\0".to_vec(), "compressed", None, None, "save it as CSV"),
        (b"\x28\xB5\x2F\xFD".to_vec(), "compressed", None, None, "Zstandard"),
        (b"PAR1\x15\x04\x15".to_vec(), "compressed", None, None, "a Parquet file: convert it"),
        (b"ARROW1\0\0\xFF\xFF".to_vec(), "compressed", None, None, "an Arrow file"),
        ([b"\x1F\x8B".as_slice(), &[7; 200]].concat(), "compressed", None, None, "gzip"),
        (b"a,b\r1,2\r3,4\r".to_vec(), "carriage-return", None, None, "carriage return alone"),
        (vec![b'x'; 300], "record-too-long", None, None, "the header (line 1) is longer than 128 bytes"),
        (
            [b"a,b\n1,".as_slice(), &[b'x'; 60], b"\n"].concat(),
            "field-too-long",
            Some(1),
            Some("b"),
            "than 50 bytes",
        ),
        (
            [b"a,b\n1,2\n".as_slice(), &[b'1'; 200]].concat(),
            "record-too-long",
            Some(2),
            None,
            "row 2 (line 3)",
        ),
        (
            [b"a,b\n1,\"".as_slice(), &b"2,3\n".repeat(20)].concat(),
            "field-too-long",
            Some(1),
            Some("b"),
            "may be missing",
        ),
        (
            format!("{}\n", &wide[..100]).into_bytes(),
            "too-many-columns",
            None,
            None,
            "and a table may have 20",
        ),
        (
            b"abcdefghijklmnop,b\n1,2\n".to_vec(),
            "column-name-too-long",
            None,
            None,
            "column 1 is longer than 10 bytes",
        ),
        (
            b"a,b\n1,x\n2,y\n-inf,z\n1e400,z\n".to_vec(),
            "not-finite",
            Some(3),
            Some("a"),
            "-inf is not a finite",
        ),
        (
            b"a,b\n1,1\nNaN,1e400\n".to_vec(),
            "not-finite",
            Some(2),
            Some("b"),
            "row 2 (line 3), column 'b': 1e400",
        ),
    ]
}

#[test]
fn every_bad_file_has_its_own_message_however_it_is_cut() {
    let limits = Limits { max_columns: 20, max_field_bytes: 50, max_record_bytes: 128, max_name_bytes: 10 };
    for (text, code, row, column, words) in bad_files() {
        let shown = String::from_utf8_lossy(&text);
        let mut messages = Vec::new();
        for piece in [1, 3, 7, text.len().max(1)] {
            let error = import(&text, piece, &limits).unwrap_err();
            assert_eq!(
                (error.code(), error.row(), error.column()),
                (code, row, column),
                "{shown:?}: {error}"
            );
            assert!(error.to_string().contains(words), "{shown:?}: {error}");
            messages.push(error.to_string());
        }
        messages.push(read_rows(&text, &limits).unwrap_err().to_string());
        messages.dedup();
        assert_eq!(messages.len(), 1, "{messages:?}");
    }
}

#[test]
fn a_hundred_thousand_columns_and_a_very_long_line_are_refused_early() {
    let limits = Limits::default();
    let names: Vec<_> = (0..100_000).map(|i| i.to_string()).collect();
    let error = read_rows(names.join(",").as_bytes(), &limits).unwrap_err();
    assert!(error.to_string().contains("100000 columns, and a table may have 10000"), "{error}");
    let mut importer = Importer::new(tempfile::tempfile().unwrap(), limits);
    importer.push(b"a,b\n").unwrap();
    let megabyte = vec![b'7'; 1 << 20];
    let taken = (0..100).take_while(|_| importer.push(&megabyte).is_ok()).count();
    assert_eq!(taken, 16);
}

#[test]
fn known_types_are_read_as_such() {
    let columns = [("zip".to_owned(), Text), ("n".to_owned(), Float), ("k".to_owned(), Integer)];
    let limits = Limits::default();
    let table = read_rows_as(b"n,x,zip,k\n1,?,1.50,7.0\n,?,NA,\n", &limits, &columns).unwrap();
    assert_eq!(csv(&table), "zip,n,k\n1.50,1.0,7\n,,\n");
    assert_eq!(read_rows_as(b"n,zip,k\n", &limits, &columns).unwrap().num_rows(), 0);
    let error = read_rows_as(b"n,k\n1,2\n", &limits, &columns).unwrap_err();
    assert_eq!((error.code(), error.column()), ("missing-column", Some("zip")));
    let error = read_rows_as(b"n,zip,k\n1,2,3\nabc,2,3\n", &limits, &columns).unwrap_err();
    assert_eq!(
        error.to_string().split(';').next(),
        Some("row 2 (line 3), column 'n': 'abc' is not a number")
    );
    assert_eq!(read_rows_as(b"n,zip,k\n1,2,3.5\n", &limits, &columns).unwrap_err().code(), "wrong-type");
    assert_eq!(read_rows_as(b"n,zip,k\ninf,2,3\n", &limits, &columns).unwrap_err().code(), "not-finite");
    assert_eq!(read_rows_as(b"", &limits, &columns).unwrap_err().code(), "empty-file");
}

#[test]
fn messages_never_quote_much() {
    let value = "secret ".repeat(1000);
    let columns = [("a".to_owned(), Float)];
    let error = read_rows_as(format!("a\n{value}\n").as_bytes(), &Limits::default(), &columns).unwrap_err();
    assert!(error.to_string().len() < 200, "{error}");
}

#[test]
fn chunks_are_cut_by_values_and_by_bytes() {
    let limits = Limits::default();
    let rows = CHUNK_CELLS / 4 + 10;
    let text = format!("a,b,c,d\n{}", "1,2,,4\n".repeat(rows));
    let (chunks, columns) = import(text.as_bytes(), 1 << 16, &limits).unwrap();
    assert_eq!(chunks.iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), [rows - 10, 10]);
    assert_eq!(columns[2].nulls, rows as u64);
    let long = format!("a\n{}", format!("{}\n", "x".repeat(1_000_000)).repeat(20));
    let (chunks, _) = import(long.as_bytes(), 1 << 20, &limits).unwrap();
    assert_eq!(chunks.iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), [17, 3]);
}

fn data(name: &str) -> (RecordBatch, Vec<Column>) {
    let text = fs::read(format!("{}/../data/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let (mut chunks, columns) = import(&text, 1000, &Limits::default()).unwrap();
    assert_eq!(chunks.len(), 1);
    let table = chunks.remove(0);
    assert_eq!(read_rows(csv(&table).as_bytes(), &Limits::default()).unwrap(), table);
    (table, columns)
}

#[test]
fn penguins_are_read() {
    let (table, columns) = data("penguins.csv");
    assert_eq!(table.num_rows(), 344);
    assert_eq!(types(&table), [Text, Text, Float, Float, Integer, Integer, Text, Integer]);
    assert_eq!(columns.iter().map(|column| column.nulls).collect::<Vec<_>>(), [0, 0, 2, 2, 2, 2, 11, 0]);
    let Summary::Categories { distinct: Some(3), top } = &columns[0].summary else {
        panic!("{:?}", columns[0])
    };
    let top: Vec<_> = top.iter().map(|count| (count.value.as_str(), count.rows)).collect();
    assert_eq!(top, [("Adelie", 152), ("Gentoo", 124), ("Chinstrap", 68)]);
    let Summary::Numeric { min, max, mean, std, .. } = columns[5].summary else { panic!("{:?}", columns[5]) };
    assert_eq!((min, max), (2700.0, 6300.0));
    assert!(
        (mean - 4_201.754_385_964_912).abs() < 1e-9 && (std - 800.781_229_2).abs() < 1e-6,
        "{mean} {std}"
    );
    let Summary::Numeric { counts, .. } = &columns[7].summary else { panic!("{:?}", columns[7]) };
    let years: Vec<_> = counts.iter().map(|count| (count.value.as_str(), count.rows)).collect();
    assert_eq!(years, [("2007", 110), ("2008", 114), ("2009", 120)]);
}

#[test]
fn houses_are_read() {
    let (table, columns) = data("houses.csv");
    assert_eq!((table.num_rows(), columns.len()), (546, 12));
    assert_eq!((columns[0].r#type, columns[5].r#type), (Integer, Text));
    assert!(columns.iter().all(|column| column.nulls == 0));
}

/// The fields of all data records, and the error that ended them.
fn fields(text: &[u8], piece: usize) -> (Vec<Vec<(String, bool)>>, Option<String>) {
    let mut records = Records::new(Limits::default());
    let mut all = Vec::new();
    let mut run = || {
        for mut input in text.chunks(piece) {
            while let Some(found) = records.advance(&mut input)? {
                all.push(
                    records.record(found).fields().map(|(text, quoted)| (text.to_owned(), quoted)).collect(),
                );
            }
        }
        if let Some(found) = records.finish()? {
            all.push(
                records.record(found).fields().map(|(text, quoted)| (text.to_owned(), quoted)).collect(),
            );
        }
        Ok::<_, TableError>(())
    };
    let error = run().err().map(|error| error.to_string());
    (all, error)
}

/// The same by the `csv-core` crate, which knows no blank lines with blanks in them and no unclosed quotes.
fn oracle(mut text: &[u8]) -> Vec<Vec<String>> {
    let mut reader = csv_core::Reader::new();
    let (mut out, mut ends) = (vec![0; 10_000], vec![0; 1000]);
    let (mut written, mut ended) = (0, 0);
    let mut records = Vec::new();
    loop {
        let (result, read, wrote, found) = reader.read_record(text, &mut out[written..], &mut ends[ended..]);
        text = &text[read..];
        written += wrote;
        ended += found;
        match result {
            ReadRecordResult::Record => {
                let starts = std::iter::once(0).chain(ends.iter().copied());
                let spans = starts.zip(&ends[..ended]);
                records.push(
                    spans.map(|(start, end)| String::from_utf8(out[start..*end].to_vec()).unwrap()).collect(),
                );
                (written, ended) = (0, 0);
            }
            ReadRecordResult::End => return records,
            ReadRecordResult::InputEmpty
            | ReadRecordResult::OutputFull
            | ReadRecordResult::OutputEndsFull => {}
        }
    }
}

/// Columns of one length with a name each, and values of all types.
fn tables() -> impl Strategy<Value = RecordBatch> {
    let text = || {
        prop_oneof!["[a-c]{1,3}", "[ \t,;|\"\r\n?NAé0-9x]{1,6}", Just("NA".to_owned()), Just("00".to_owned())]
    };
    let column = move |rows: usize| {
        let of = move |column: ColumnType| -> BoxedStrategy<(ColumnType, Vec<Option<String>>)> {
            let cell = match column {
                Integer => any::<i64>().prop_map(|i| i.to_string()).boxed(),
                Float => any::<f64>()
                    .prop_filter("finite", |f| f.is_finite())
                    .prop_map(|f| format!("{f:?}"))
                    .boxed(),
                Boolean => any::<bool>().prop_map(|b| b.to_string()).boxed(),
                Text => text().boxed(),
                Date => (0..2_900_000).prop_map(day).boxed(),
                DateTime => (0..200_000_000_000_000_i64).prop_map(instant).boxed(),
            };
            let cells = prop::collection::vec(prop::option::weighted(0.8, cell), rows);
            cells.prop_map(move |cells| (column, cells)).boxed()
        };
        prop_oneof![of(Integer), of(Float), of(Boolean), of(Text), of(Date), of(DateTime)]
    };
    let name = "[a-z ,;|\t\"\r\n\u{feff}é]{0,5}";
    (1_usize..4, 1_usize..8).prop_flat_map(move |(width, rows)| {
        let names = prop::collection::vec(name, width);
        (names, prop::collection::vec(column(rows), width)).prop_map(|(names, columns)| {
            RecordBatch::try_from_iter_with_nullable(names.iter().zip(columns).enumerate().map(
                |(i, (name, (column, cells)))| {
                    (format!("{name}{i}").trim_matches([' ', '\t']).to_owned(), array(column, cells), true)
                },
            ))
            .unwrap()
        })
    })
}

fn day(days: i32) -> String {
    let mut text = String::new();
    Cell::Date(days).write(&mut text);
    text
}

fn instant(ms: i64) -> String {
    let mut text = String::new();
    Cell::DateTime(ms).write(&mut text);
    text
}

/// A column of values as they would be written, such that its type can be told: the first is unmistakable.
fn array(column: ColumnType, cells: Vec<Option<String>>) -> ArrayRef {
    let mut builder = Builder::new(column);
    let sure = match column {
        Integer => "7",
        Float => "0.5",
        Boolean => "true",
        Text => "unmistakable",
        Date => "2026-01-31",
        DateTime => "2026-01-31T10:00:00",
    };
    builder.push_field(sure, true).unwrap();
    for cell in cells {
        match cell {
            Some(text) => builder.push_field(&text, true).unwrap(),
            None => builder.push_blank(),
        }
    }
    Arc::clone(&builder.finish())
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(table in tables()) {
        let text = csv(&table);
        let (chunks, columns) = import(text.as_bytes(), text.len(), &Limits::default()).unwrap();
        prop_assert_eq!(&chunks[0], &table, "{:?}", text);
        prop_assert_eq!(decode(&encode(&table)).unwrap(), table);
        let crlf = import(text.as_bytes(), 1, &Limits::default()).unwrap();
        prop_assert_eq!((chunks, columns), crlf);
    }

    #[test]
    fn json_tells_the_same_table(table in tables()) {
        let columns: Vec<_> =
            table.schema().fields().iter().map(|field| field.name().clone()).zip(types(&table)).collect();
        prop_assert_eq!(from_json_rows(&to_json_rows(&table), &columns).unwrap(), table);
    }

    #[test]
    fn pieces_make_no_difference(text in "[ab1,;\"\r\n é]{0,60}", piece in 1_usize..9) {
        let text = format!("a,b\n{text}");
        let whole = fields(text.as_bytes(), text.len());
        prop_assert_eq!(&whole, &fields(text.as_bytes(), 1));
        prop_assert_eq!(&whole, &fields(text.as_bytes(), piece));
    }

    #[test]
    fn fields_are_those_of_another_reader(text in "([ab1,\" é]{0,7}[,][ab1\" é\n]{0,6}(\r)?\n){0,5}") {
        // Every row begins with a letter: so no line is blank, and the readers agree on what a line is.
        let text = format!("h,i\n{}", text.replace('\r', "").replace("\n,", "\na,"));
        let (ours, error) = fields(text.as_bytes(), 5);
        let theirs = oracle(text.as_bytes());
        let blank = |record: &&Vec<String>| record.len() == 1 && record[0].trim().is_empty();
        let theirs: Vec<_> = theirs.into_iter().skip(1).filter(|record| !blank(&record)).collect();
        let ours: Vec<Vec<String>> = ours.into_iter().map(|record| record.into_iter().map(|field| field.0).collect()).collect();
        prop_assert_eq!(&ours[..], &theirs[..ours.len()]);
        if error.is_none() {
            prop_assert_eq!(ours.len(), theirs.len());
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), head: bool) {
        let text = if head { [b"a,b\n".as_slice(), &bytes].concat() } else { bytes };
        let limits = Limits { max_columns: 20, max_field_bytes: 50, max_record_bytes: 128, max_name_bytes: 10 };
        let whole = read_rows(&text, &limits).map_err(|error| error.to_string());
        let pieces = import(&text, 1, &limits).map(|(mut chunks, _)| chunks.remove(0)).map_err(|error| error.to_string());
        prop_assert_eq!(whole, pieces);
    }
}
