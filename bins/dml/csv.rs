//! CSV that streams in as JSON that streams out, for `--json`.

use std::io::{self, Write};

use csv_core::{ReadFieldResult, Reader};
use serde_json::{Number, Value, json};

/// Writes an array of objects, a row each: blanks are null, what looks like a number is one, all else is text.
pub(crate) struct JsonRows<W> {
    out: W,
    reader: Reader,
    field: Vec<u8>,
    row: Vec<Vec<u8>>,
    heading: Option<Vec<String>>,
    rows: u64,
}

impl<W: Write> JsonRows<W> {
    /// Nothing is written yet but the beginning of the array.
    pub(crate) fn new(mut out: W) -> io::Result<Self> {
        out.write_all(b"[")?;
        Ok(Self { out, reader: Reader::new(), field: Vec::new(), row: Vec::new(), heading: None, rows: 0 })
    }

    /// Takes the next piece of CSV.
    pub(crate) fn feed(&mut self, mut piece: &[u8]) -> io::Result<()> {
        // An empty piece would mean the end.
        while !piece.is_empty() {
            let used = self.step(piece)?;
            piece = &piece[used..];
        }
        Ok(())
    }

    /// Ends the array.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        while self.step(&[])? > 0 || !self.field.is_empty() || !self.row.is_empty() {}
        self.out.write_all(b"\n]")?;
        Ok(self.out)
    }

    fn step(&mut self, input: &[u8]) -> io::Result<usize> {
        let mut buffer = [0; 1024];
        let (result, used, written) = self.reader.read_field(input, &mut buffer);
        self.field.extend_from_slice(&buffer[..written]);
        match result {
            ReadFieldResult::InputEmpty | ReadFieldResult::OutputFull => {}
            ReadFieldResult::End => {
                self.field.clear();
                self.row.clear();
            }
            ReadFieldResult::Field { record_end } => {
                self.row.push(std::mem::take(&mut self.field));
                if record_end {
                    self.end_row()?;
                }
            }
        }
        Ok(used)
    }

    fn end_row(&mut self) -> io::Result<()> {
        let row = std::mem::take(&mut self.row);
        let text = |cell: &Vec<u8>| String::from_utf8_lossy(cell).into_owned();
        let Some(heading) = &self.heading else {
            self.heading = Some(row.iter().map(text).collect());
            return Ok(());
        };
        let cells = heading.iter().zip(&row).map(|(name, cell)| (name.clone(), value(text(cell))));
        let object = Value::Object(cells.collect());
        write!(self.out, "{}\n{object}", if self.rows > 0 { "," } else { "" })?;
        self.rows += 1;
        Ok(())
    }
}

fn value(cell: String) -> Value {
    if cell.is_empty() {
        return Value::Null;
    }
    serde_json::from_str::<Number>(&cell).map_or(json!(cell), Value::Number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn converted(csv: &str, step: usize) -> Value {
        let mut rows = JsonRows::new(Vec::new()).unwrap();
        csv.as_bytes().chunks(step).for_each(|piece| rows.feed(piece).unwrap());
        serde_json::from_slice(&rows.finish().unwrap()).unwrap()
    }

    #[test]
    fn rows_become_objects_however_they_are_cut() {
        let csv = "prediction,p\n\"a, \"\"b\"\"\",0.5\r\n,007\nüz,-1e-3\nlast,1";
        let wanted = json!([
            {"prediction": "a, \"b\"", "p": 0.5},
            {"prediction": null, "p": "007"},
            {"prediction": "üz", "p": -1e-3},
            {"prediction": "last", "p": 1},
        ]);
        for step in [1, 2, 3, 7, 1000] {
            assert_eq!(converted(csv, step), wanted, "{step}");
            assert_eq!(converted(&format!("{csv}\n"), step), wanted, "{step}");
        }
        let long = "x".repeat(5000);
        assert_eq!(converted(&format!("a\n{long}\n"), 700), json!([{ "a": long }]));
        assert_eq!(converted("", 1), json!([]));
        assert_eq!(converted("a,b\n", 1), json!([]));
    }
}
