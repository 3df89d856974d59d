//! Where output goes: results to stdout, all else to stderr. A reader who leaves early (`| head`) is no error.

use std::io::{IsTerminal, Write, stderr, stdout};

use comfy_table::{Attribute, Cell, CellAlignment, ContentArrangement, LineStyle, Table, TableStyle};
use dml_core::Digest;
pub(crate) use dml_net::words::{ago, count, counted, number, size, until};

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

/// What a person types to name a thing: its name, or the beginning of its id.
pub(crate) fn handle(name: Option<&String>, id: &Digest) -> String {
    name.cloned().unwrap_or_else(|| id.short())
}
