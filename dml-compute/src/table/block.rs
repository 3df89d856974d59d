//! A block of whole records, read on its own: quickly if it is plain, else as [`Records`] reads it.

use memchr::{memchr, memchr2};

use super::{
    column::Misfit,
    error::TableError,
    number::Number,
    records::{Records, is_blank_line},
};

/// Takes what a block holds, value by value in the order of rows.
pub(super) trait Sink {
    /// Forgets what it took: the block is read once more.
    fn restart(&mut self);

    /// A row begins on a line of the block, counted from 1.
    fn row(&mut self, line: u64);

    /// Whether the next value of a column is likely to be a plain number.
    fn expects_number(&self, column: usize) -> bool;

    /// A plain number; says no if it needs its text.
    fn number(&mut self, column: usize, number: Number) -> bool;

    /// Any other value, and whether it was quoted.
    fn field(&mut self, column: usize, text: &str, quoted: bool) -> Result<(), Misfit>;

    /// The row has ended, and so many bytes of the block with it.
    fn end_row(&mut self, bytes: usize);

    /// What is told of a value that was refused.
    fn refusal(&self, misfit: Misfit, records: &Records, column: usize, text: &str) -> TableError;
}

/// How much a block holds.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) bytes: u64,
    pub(super) rows: u64,
    /// Blank ones included.
    pub(super) lines: u64,
}

impl Extent {
    pub(super) fn add(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.rows += other.rows;
        self.lines += other.lines;
    }
}

/// Reads a block. The head was read up to the end of the header; `before` is what lies between it and the block, and
/// makes a difference to the places of errors alone.
pub(super) fn read(
    head: &Records,
    before: Extent,
    block: &[u8],
    sink: &mut impl Sink,
) -> Result<Extent, TableError> {
    if memchr(b'"', block).is_none()
        && let Ok(text) = std::str::from_utf8(block)
    {
        if let Some(extent) = read_plain(head, text, sink) {
            return Ok(extent);
        }
        sink.restart();
    }
    read_any(head, before, block, sink)
}

/// None if something is out of the ordinary, and may be wrong.
fn read_plain(head: &Records, text: &str, sink: &mut impl Sink) -> Option<Extent> {
    let (bytes, delimiter, width) = (text.as_bytes(), head.delimiter(), head.names().len());
    let longest = head.limits().max_field_bytes.min(head.limits().max_record_bytes);
    let (mut at, mut rows, mut lines) = (0, 0, 0);
    while at < bytes.len() {
        let start = at;
        lines += 1;
        if matches!(bytes[at], b'\n' | b'\r' | b' ' | b'\t') {
            let end = at + memchr(b'\n', &bytes[at..])?;
            let line = &bytes[at..end];
            if is_blank_line(line.strip_suffix(b"\r").unwrap_or(line), Some(delimiter)) {
                at = end + 1;
                continue;
            }
        }
        sink.row(lines);
        for column in 0..width {
            let last = column + 1 == width;
            if sink.expects_number(column)
                && let Some(number) = Number::read(bytes, at)
                && let Some(next) = next_field(bytes, at + number.bytes(), delimiter, last)
                && sink.number(column, number)
            {
                at = next;
                continue;
            }
            let mut end = at + memchr2(delimiter, b'\n', &bytes[at..])?;
            let next = end + 1;
            if (bytes[end] == b'\n') != last {
                return None;
            }
            end -= usize::from(last && end > at && bytes[end - 1] == b'\r');
            sink.field(column, &text[at..end], false).ok()?;
            at = next;
        }
        if at - start > longest {
            return None;
        }
        rows += 1;
        sink.end_row(at);
    }
    Some(Extent { bytes: bytes.len() as u64, rows, lines })
}

/// Where the next field begins, if one ends here.
#[inline]
fn next_field(bytes: &[u8], end: usize, delimiter: u8, last: bool) -> Option<usize> {
    let byte = *bytes.get(end)?;
    match last {
        false => (byte == delimiter).then_some(end + 1),
        true if byte == b'\n' => Some(end + 1),
        true => (byte == b'\r' && bytes.get(end + 1) == Some(&b'\n')).then_some(end + 2),
    }
}

fn read_any(
    head: &Records,
    before: Extent,
    mut block: &[u8],
    sink: &mut impl Sink,
) -> Result<Extent, TableError> {
    let mut records = head.resumed(before.rows, before.lines);
    let (first_row, first_line) = (records.rows(), records.lines());
    while let Some(found) = records.advance(&mut block)? {
        sink.row(records.line() - first_line);
        for (column, (text, quoted)) in records.record(found).fields().enumerate() {
            sink.field(column, text, quoted)
                .map_err(|misfit| sink.refusal(misfit, &records, column, text))?;
        }
        sink.end_row(records.consumed() as usize);
    }
    debug_assert!(records.finish().is_ok_and(|more| more.is_none()), "a block holds whole records");
    let (rows, lines) = (records.rows() - first_row, records.lines() - first_line);
    Ok(Extent { bytes: records.consumed(), rows, lines })
}

#[cfg(test)]
mod tests {
    use std::{fmt::Write, io::Cursor};

    use crate::table::{Importer, Limits, TableError, encode, read_rows_as, read_table};

    /// Rows over many blocks, some of them with quotes, blank lines, carriage returns and all types.
    fn table(rows: usize) -> String {
        let mut text = "number,mixed,word,day\n".to_owned();
        for row in 0..rows {
            let (ending, quote) = match row % 4096 {
                7 => ("\r\n", ""),
                8 => ("\n \n\r\n", ""),
                9 if row < rows / 2 => ("\n", "\""),
                _ => ("\n", ""),
            };
            let number = row as f64 / 8.0 - 1000.0;
            write!(text, "{number},{row},{quote}w{}{quote},2026-01-{:02}{ending}", row % 9, row % 28 + 1)
                .unwrap();
        }
        text
    }

    fn chunks(text: &str, piece: usize, threads: usize) -> Result<Vec<Vec<u8>>, TableError> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut importer = Importer::new(tempfile::tempfile()?, Limits::default());
            let mut chunks = Vec::new();
            for piece in text.as_bytes().chunks(piece) {
                chunks.extend(importer.push(piece)?.iter().map(encode));
            }
            let mut typed = importer.finish()?;
            chunks.truncate(typed.kept());
            typed.by_ref().try_for_each(|chunk| chunk.map(|chunk| chunks.push(encode(&chunk))))?;
            chunks.push(format!("{:?}", typed.columns()).into_bytes());
            Ok(chunks)
        })
    }

    #[test]
    fn threads_and_pieces_make_no_difference() {
        let text = table(300_000);
        let whole = chunks(&text, text.len(), 1).unwrap();
        assert_eq!(whole.len(), 3, "two chunks and the statistics");
        assert!(whole == chunks(&text, 1 << 16, 3).unwrap());
        assert!(whole == chunks(&text, 999_983, 8).unwrap());
    }

    /// Chunks are made before all types are known; whatever comes, they are those of a reader that knows them from the
    /// start.
    #[test]
    fn types_that_show_late_are_those_of_the_whole_table() {
        let with = |column: usize, value: &str| {
            let mut text = "whole,point,none,word,flag,day\n".to_owned();
            for row in 0..400_000 {
                let mut values = ["12", "0.5", "", "ab", "true", "2026-01-31"];
                if row == 390_000 {
                    values[column] = value;
                }
                writeln!(text, "{}", values.join(",")).unwrap();
            }
            text
        };
        // The value that comes late, and whether the chunks that were made before it stand.
        let cases = [
            (0, "-7", true),
            (0, "", true),
            (0, "2.0", false),
            (0, "007", false),
            (0, "99999999999999999999", false),
            (1, "3", true),
            (1, "-17", true),
            (1, "x", false),
            (2, "1", false),
            (2, "NA", true),
            (3, "1", true),
            (4, "1", false),
            (5, "2026-01-31T10:00:00", false),
            (5, "", true),
        ];
        for (column, value, stands) in cases {
            let text = with(column, value);
            let mut importer = Importer::new(tempfile::tempfile().unwrap(), Limits::default());
            let mut chunks = Vec::new();
            for piece in text.as_bytes().chunks(1 << 20) {
                chunks.extend(importer.push(piece).unwrap());
            }
            assert!(!chunks.is_empty(), "some are made early");
            let mut typed = importer.finish().unwrap();
            assert_eq!(typed.kept() > 0, stands, "column {column}, '{value}'");
            chunks.truncate(typed.kept());
            typed.by_ref().for_each(|chunk| chunks.push(chunk.unwrap()));
            let whole = read_rows_as(text.as_bytes(), &Limits::default(), typed.types()).unwrap();
            let mut at = 0;
            for chunk in &chunks {
                assert!(*chunk == whole.slice(at, chunk.num_rows()), "column {column}, '{value}'");
                at += chunk.num_rows();
            }
            assert_eq!(at, 400_000);
            let mut file = Cursor::new(format!("before{}", text.trim_end()));
            file.set_position(6);
            let (again, columns) = read_table(file, Limits::default()).unwrap();
            assert!(again == chunks && columns == typed.columns(), "column {column}, '{value}'");
        }
    }

    #[test]
    fn errors_in_late_blocks_have_their_place() {
        let good = table(200_000);
        let lines = good.matches('\n').count();
        for (bad, place) in [
            ("1,2,3\n", "has 3 value(s) where the header has 4"),
            ("1,2,\"3\n,4", ", column 'word': a double quote is opened and never closed"),
            ("1e999,2,3,4\n", ", column 'number': 1e999 is not a finite number"),
        ] {
            let text = format!("{good}{bad}");
            let error = chunks(&text, 1 << 17, 4).unwrap_err().to_string();
            assert!(error.starts_with(&format!("row 200001 (line {})", lines + 1)), "{error}");
            assert!(error.contains(place), "{error}");
        }
    }
}
