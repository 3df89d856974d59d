//! Tables as JSON objects, one a line (NDJSON): what they say as CSV, so that the same values are the same table.
//!
//! The columns stand in the order in which the lines name them first, so they are known after the last line alone: the
//! lines wait in a temporary file until then. A key that a line leaves out is blank there, and so is null.

use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    io::{BufRead, BufReader, BufWriter, Seek, Write},
};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::Value;

use super::{
    Limits,
    error::{Place, TableError},
};

/// Takes lines of JSON objects piece by piece. After an error it is of no further use.
#[derive(Debug)]
pub struct NdJson {
    limits: Limits,
    lines: BufWriter<File>,
    columns: Columns,
    /// The beginning of a line whose end has not come.
    rest: Vec<u8>,
    rows: u64,
}

/// How many bytes of CSV are handed on at a time.
const PIECE: usize = 256 << 10;

impl NdJson {
    /// Begins a table. The spool is an empty file, open for reading and writing, that the caller removes afterwards.
    pub fn new(spool: File, limits: Limits) -> Self {
        Self { limits, lines: BufWriter::new(spool), columns: Columns::default(), rest: Vec::new(), rows: 0 }
    }

    /// The next bytes, however cut.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), TableError> {
        let Some(end) = memchr::memrchr(b'\n', bytes) else {
            self.rest.extend_from_slice(bytes);
            return self.bounded(self.rest.len());
        };
        let (lines, rest) = bytes.split_at(end + 1);
        let mut whole = std::mem::take(&mut self.rest);
        whole.extend_from_slice(lines);
        self.rest.extend_from_slice(rest);
        whole.split(|byte| *byte == b'\n').try_for_each(|line| self.line(line))
    }

    /// After the last byte: the lines as a CSV file, piece by piece.
    pub fn finish(mut self) -> Result<CsvOfLines, TableError> {
        let last = std::mem::take(&mut self.rest);
        self.line(&last)?;
        if self.columns.names.is_empty() {
            return Err(TableError::EmptyFile);
        }
        let mut lines = self.lines.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        lines.rewind()?;
        Ok(CsvOfLines { lines: BufReader::new(lines), columns: self.columns, row: 0, rows: self.rows })
    }

    fn line(&mut self, line: &[u8]) -> Result<(), TableError> {
        self.bounded(line.len())?;
        let line = line.trim_ascii();
        if line.is_empty() {
            return Ok(());
        }
        self.rows += 1;
        let fields = parse(line, self.rows)?.0;
        for (at, (name, value)) in fields.iter().enumerate() {
            if let Value::Array(_) | Value::Object(_) = value {
                return Err(TableError::Nested { place: self.place(Some(name)) });
            }
            if self.columns.of(name, at).is_none() {
                self.columns.add(name);
                if self.columns.names.len() > self.limits.max_columns {
                    return Err(TableError::too_many_columns(self.columns.names.len(), &self.limits));
                }
            }
        }
        let mut names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|two| two[0] == two[1]) {
            let why = "the key stands there twice".into();
            return Err(TableError::BadLine { place: self.place(Some(twice[0])), why });
        }
        self.lines.write_all(line)?;
        Ok(self.lines.write_all(b"\n")?)
    }

    fn place(&self, column: Option<&str>) -> Place {
        Place { row: Some(self.rows), line: None, column: column.map(Into::into) }
    }

    fn bounded(&self, length: usize) -> Result<(), TableError> {
        let max = self.limits.max_record_bytes;
        let place = Place { row: Some(self.rows + 1), ..Place::default() };
        if length > max { Err(TableError::RecordTooLong { place, max }) } else { Ok(()) }
    }
}

/// The lines of [`NdJson`] as a CSV file: what an [`Importer`](super::Importer) takes.
#[derive(Debug)]
pub struct CsvOfLines {
    lines: BufReader<File>,
    columns: Columns,
    /// How many lines were read again.
    row: u64,
    rows: u64,
}

impl CsvOfLines {
    fn piece(&mut self) -> Result<Vec<u8>, TableError> {
        let mut csv = Vec::new();
        if self.row == 0 {
            self.columns.names.iter().enumerate().for_each(|(at, name)| text(name, at, &mut csv));
            csv.push(b'\n');
        }
        let mut line = Vec::new();
        while self.row < self.rows && csv.len() < PIECE {
            self.row += 1;
            line.clear();
            self.lines.read_until(b'\n', &mut line)?;
            write(&parse(&line, self.row)?, &self.columns, &mut csv);
        }
        Ok(csv)
    }
}

impl Iterator for CsvOfLines {
    type Item = Result<Vec<u8>, TableError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.row == self.rows {
            return None;
        }
        let piece = self.piece();
        if piece.is_err() {
            self.row = self.rows;
        }
        Some(piece)
    }
}

/// The names of the columns, in the order in which they came.
#[derive(Debug, Default)]
struct Columns {
    names: Vec<String>,
    places: BTreeMap<String, usize>,
}

impl Columns {
    /// Which column has this name. Lines mostly name all of them in the same order, so it is looked for there first.
    fn of(&self, name: &str, at: usize) -> Option<usize> {
        let same = self.names.get(at).is_some_and(|known| known == name);
        if same { Some(at) } else { self.places.get(name).copied() }
    }

    fn add(&mut self, name: &str) {
        self.places.insert(name.into(), self.names.len());
        self.names.push(name.into());
    }
}

/// An object with its keys in the order in which they stand there.
struct Fields(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Fields, M::Error> {
                let mut fields: Vec<(String, Value)> = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}

fn parse(line: &[u8], row: u64) -> Result<Fields, TableError> {
    serde_json::from_slice(line).map_err(|error| {
        let place = Place { row: Some(row), ..Place::default() };
        TableError::BadLine { place, why: error.to_string() }
    })
}

/// A row as CSV. Texts are quoted, so that blanks around them count and `"NA"` is a text.
fn write(row: &Fields, columns: &Columns, csv: &mut Vec<u8>) {
    let mut values = vec![&Value::Null; columns.names.len()];
    for (at, (name, value)) in row.0.iter().enumerate() {
        if let Some(column) = columns.of(name, at) {
            values[column] = value;
        }
    }
    for (at, value) in values.into_iter().enumerate() {
        if let Value::String(value) = value {
            text(value, at, csv);
            continue;
        }
        if at > 0 {
            csv.push(b',');
        }
        // For null, nothing at all would not do: a line of blanks alone does not count as a row.
        let plain = if value.is_null() { "NA".into() } else { value.to_string() };
        csv.extend_from_slice(plain.as_bytes());
    }
    csv.push(b'\n');
}

fn text(value: &str, at: usize, csv: &mut Vec<u8>) {
    if at > 0 {
        csv.push(b',');
    }
    csv.push(b'"');
    csv.extend_from_slice(value.replace('"', "\"\"").as_bytes());
    csv.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Importer, read_rows, write_ndjson};

    fn read(text: &str, cut: usize) -> Result<arrow_array::RecordBatch, TableError> {
        let mut lines = NdJson::new(tempfile::tempfile()?, Limits::default());
        text.as_bytes().chunks(cut).try_for_each(|piece| lines.push(piece))?;
        let mut importer = Importer::new(tempfile::tempfile()?, Limits::default());
        for piece in lines.finish()? {
            assert!(importer.push(&piece?)?.is_empty(), "small tables have one chunk");
        }
        importer.finish()?.next().expect("small tables have one chunk")
    }

    #[test]
    fn lines_are_the_same_table_as_csv() {
        let csv = "id,name,born,weight,ok\n1,\"Tux, the \"\"first\"\"\",2020-01-31,23.5,true\n2,NA,2021-02-01,,false\n";
        let lines = "{\"id\": 1, \"name\": \"Tux, the \\\"first\\\"\", \"born\": \"2020-01-31\", \"weight\": 23.5, \"ok\": true}\r\n\n\
                     {\"name\": null, \"id\": 2, \"ok\": false, \"born\": \"2021-02-01\"}";
        let table = read_rows(csv.as_bytes(), &Limits::default()).unwrap();
        for cut in [1, 7, 1000] {
            assert_eq!(read(lines, cut).unwrap(), table);
        }
        let mut out = Vec::new();
        write_ndjson(&table, &mut out);
        assert_eq!(read(std::str::from_utf8(&out).unwrap(), 64).unwrap(), table, "and back");
        assert!(out.starts_with(b"{\"id\":1,\"name\":\"Tux"), "columns keep their order");
    }

    #[test]
    fn a_row_of_blanks_is_a_row() {
        assert_eq!(read("{\"a\": null}\n{\"a\": 1}\n{}\n", 100).unwrap().num_rows(), 3);
    }

    #[test]
    fn bad_lines_are_told_with_their_place() {
        let cases = [
            ("{\"a\": 1}\n[1]\n", "bad-line", Some(2)),
            ("{\"a\": 1}\n\n{\"a\": 1\n", "bad-line", Some(2)),
            ("{\"a\": 1, \"a\": 2}", "bad-line", Some(1)),
            ("{\"a\": 1}\n{\"a\": {\"b\": 1}}\n", "nested-value", Some(2)),
            ("\n \n", "empty-file", None),
            ("{}\n", "empty-file", None),
        ];
        for (text, code, row) in cases {
            let error = read(text, 5).unwrap_err();
            assert_eq!((error.code(), error.row()), (code, row), "{text}: {error}");
        }
        let limits = Limits { max_record_bytes: 10, ..Limits::default() };
        let mut lines = NdJson::new(tempfile::tempfile().unwrap(), limits);
        assert_eq!(lines.push(b"{\"a\": 1234567890").unwrap_err().code(), "record-too-long");
    }
}
