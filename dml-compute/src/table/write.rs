//! Tables as CSV (RFC 4180, lines ending with LF), so that reading gives the same table again, as far as CSV can tell:
//! a column of text of which all values look like numbers reads as numbers, and an empty text as a blank.

use arrow_array::RecordBatch;

use super::{
    column::{Cell, View},
    records::DELIMITERS,
    value,
};

/// Appends the rows, with a header before them if asked for.
///
/// Floats are written with the fewest digits that read back as the same number, dates and times as ISO 8601 has them,
/// blanks as nothing (`NA` in a table of one column, where nothing would be a blank line). Guards against nothing that a
/// spreadsheet may do with the values. A column of a type that tables do not hold is all blank; [`super::decode`] lets
/// none through.
pub fn write_csv(batch: &RecordBatch, header: bool, out: &mut Vec<u8>) {
    let views: Vec<_> = batch.columns().iter().map(|array| View::of(array)).collect();
    if header {
        let schema = batch.schema();
        write_line(
            out,
            schema.fields().iter().map(|field| (field.name().as_str(), name_needs_quotes(field.name()))),
        );
    }
    let blank = if views.len() == 1 { "NA" } else { "" };
    let mut text = String::new();
    for row in 0..batch.num_rows() {
        for (column, view) in views.iter().enumerate() {
            if column > 0 {
                out.push(b',');
            }
            match view.as_ref().map_or(Cell::Blank, |view| view.cell(row)) {
                Cell::Blank => out.extend_from_slice(blank.as_bytes()),
                Cell::Text(text) => write_field(out, text, text_needs_quotes(text)),
                cell @ (Cell::Integer(_)
                | Cell::Float(_)
                | Cell::Boolean(_)
                | Cell::Date(_)
                | Cell::DateTime(_)) => {
                    text.clear();
                    cell.write(&mut text);
                    out.extend_from_slice(text.as_bytes());
                }
            }
        }
        out.push(b'\n');
    }
}

fn write_line<'a>(out: &mut Vec<u8>, fields: impl Iterator<Item = (&'a str, bool)>) {
    for (column, (field, quote)) in fields.enumerate() {
        if column > 0 {
            out.push(b',');
        }
        write_field(out, field, quote);
    }
    out.push(b'\n');
}

fn write_field(out: &mut Vec<u8>, field: &str, quote: bool) {
    if !quote {
        out.extend_from_slice(field.as_bytes());
        return;
    }
    out.push(b'"');
    for byte in field.bytes() {
        if byte == b'"' {
            out.push(b'"');
        }
        out.push(byte);
    }
    out.push(b'"');
}

/// Whether a text without quotes would be read as something else.
fn text_needs_quotes(text: &str) -> bool {
    let special = |byte| matches!(byte, b',' | b'"' | b'\n' | b'\r');
    text.bytes().any(special) || value::is_blank(text) || value::trim(text).len() != text.len()
}

/// Names must moreover not be taken for a mark or a delimiter.
fn name_needs_quotes(name: &str) -> bool {
    let special = |byte: u8| DELIMITERS.contains(&byte) || byte.is_ascii_control();
    text_needs_quotes(name) || name.bytes().any(special) || name.starts_with('\u{feff}')
}
