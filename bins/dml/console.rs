//! Where output goes: results to stdout, all else to stderr. A reader who leaves early (`| head`) is no error.

use std::io::{IsTerminal, Write, stderr, stdout};

use comfy_table::{Attribute, Cell, CellAlignment, ContentArrangement, LineStyle, Table, TableStyle};
use dml_core::Digest;

use crate::failure::Failure;

/// Tables have a line under their heading, and no others.
const UNDERLINED: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─'));

/// Where output goes.
pub(crate) struct Console {
    /// Whether stdout gets one JSON document instead of text.
    pub(crate) json: bool,
    /// Whether someone looks at stderr, so that bars may move there.
    pub(crate) lively: bool,
    bold: bool,
}

impl Console {
    /// The console of this process.
    pub(crate) fn new(json: bool) -> Self {
        let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            json,
            lively: stderr().is_terminal() && !dumb,
            bold: stdout().is_terminal() && colour && !dumb,
        }
    }

    /// Prints a result: text for people, or the JSON document.
    pub(crate) fn show(
        &self,
        document: &impl serde::Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        if !self.json {
            return self.text(&text());
        }
        let json =
            serde_json::to_string_pretty(document).map_err(|error| Failure::failed(error.to_string()))?;
        self.text(&json)
    }

    /// Prints lines to stdout.
    pub(crate) fn text(&self, text: &str) -> Result<(), Failure> {
        let mut out = stdout().lock();
        out.write_all(text.as_bytes())?;
        if !text.ends_with('\n') {
            out.write_all(b"\n")?;
        }
        Ok(out.flush()?)
    }

    /// Prints bytes to stdout as they are.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut out = stdout().lock();
        out.write_all(bytes)?;
        Ok(out.flush()?)
    }

    /// Says something on stderr. That nobody can read it is no reason to stop.
    pub(crate) fn say(&self, text: &str) {
        let _ = writeln!(stderr().lock(), "{text}");
    }

    /// A table with these headings, the width of the terminal at most.
    pub(crate) fn table(&self, headings: &[&str]) -> Table {
        let mut table = Table::new();
        table.load_style(UNDERLINED).set_content_arrangement(ContentArrangement::Dynamic);
        let heading = |text: &&str| {
            let cell = Cell::new(text);
            if self.bold { cell.add_attribute(Attribute::Bold) } else { cell }
        };
        table.set_header(headings.iter().map(heading));
        table
    }
}

/// A cell whose text stands on the right, as numbers do.
pub(crate) fn right(text: impl ToString) -> Cell {
    Cell::new(text.to_string()).set_alignment(CellAlignment::Right)
}

/// A number with five digits or so: enough to compare, few enough to read.
pub(crate) fn number(value: f64) -> String {
    if value == 0.0 {
        return "0".into();
    }
    let size = value.abs();
    if !(1e-4..1e15).contains(&size) {
        return format!("{value:.3e}");
    }
    let text = format!("{value:.*}", decimals(value));
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').into(),
        false => text,
    }
}

/// How many decimals make five digits or so; more for numbers that are very small.
pub(crate) fn decimals(value: f64) -> usize {
    let size = value.abs();
    if size > 0.0 && size < 1e-3 {
        return (3 - size.log10().floor() as i32).clamp(4, 20) as usize;
    }
    let decimals = [(1e5, 0), (1e3, 1), (1e2, 2), (1e1, 3)].iter().find(|(least, _)| size >= *least);
    decimals.map_or(4, |(_, decimals)| *decimals)
}

/// A count with its digits in groups of three.
pub(crate) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.char_indices() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// `1 row`, `2 rows`.
pub(crate) fn counted(value: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(value), if value == 1 { "" } else { "s" })
}

/// A size in bytes, for people.
pub(crate) fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// How long ago that was.
pub(crate) fn ago(created_ms: u64) -> String {
    let now = std::time::UNIX_EPOCH.elapsed().map_or(0, |now| now.as_secs());
    span_ago(now.saturating_sub(created_ms / 1000))
}

fn span_ago(seconds: u64) -> String {
    match seconds {
        0..5 => "just now".into(),
        5..60 => format!("{seconds} s ago"),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..86400 => format!("{} h ago", seconds / 3600),
        _ => format!("{} ago", counted(seconds / 86400, "day")),
    }
}

/// What a person types to name a thing: its name, or the beginning of its id.
pub(crate) fn handle(name: Option<&String>, id: &Digest) -> String {
    name.cloned().unwrap_or_else(|| id.short())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let values =
            [0.0, 0.98512345, 1.0, -12.3456, 1234.56789, 15012.345, 1234567.8, 0.5, 1e-9, 1e20, 100.0];
        let texts = values.map(number);
        let wanted = [
            "0", "0.9851", "1", "-12.346", "1234.6", "15012.3", "1234568", "0.5", "1.000e-9", "1.000e20",
            "100",
        ];
        assert_eq!(texts, wanted);
    }

    #[test]
    fn counts_and_spans_read_well() {
        assert_eq!([0, 999, 1000, 1234567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!((counted(1, "row"), counted(344, "row")), ("1 row".to_string(), "344 rows".into()));
        let spans = [0, 59, 60, 7200, 86400, 200_000].map(span_ago);
        assert_eq!(spans, ["just now", "59 s ago", "1 min ago", "2 h ago", "1 day ago", "2 days ago"]);
    }
}
