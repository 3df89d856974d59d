//! What can be wrong with a table. Every message says what, where, and how to mend it; none quotes a whole row.

use std::fmt;

use dml_core::ColumnType;

use super::Limits;

/// Where in a table something is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// The row, counted from 1 after the header; absent in the header.
    pub row: Option<u64>,
    /// The line of the file that the row begins on, counted from 1; absent if the table is not a file.
    pub line: Option<u64>,
    /// The name of the column; in the header, and beyond it, its number.
    pub column: Option<String>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.row {
            Some(row) => write!(f, "row {row}")?,
            None => f.write_str("the header")?,
        }
        if let Some(line) = self.line {
            write!(f, " (line {line})")?;
        }
        if let Some(column) = &self.column {
            write!(f, ", column '{}'", Short(column))?;
        }
        Ok(())
    }
}

/// Why a table could not be read or turned into another.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// There is nothing in the file, or blank lines alone.
    #[error("the table is empty: send a header line with the names of the columns, and then one line a row")]
    EmptyFile,
    /// There are names, and no rows.
    #[error("the table has a header with {columns} column(s) but no rows: add at least one row below it")]
    HeaderOnly {
        /// How many columns the header names.
        columns: usize,
    },
    /// A column has no name.
    #[error(
        "column {position} has no name in the header: name it, or leave it out (row numbers are often written as a \
         first column without a name, and a delimiter at the end of each line makes a last one)"
    )]
    BlankName {
        /// The column, counted from 1.
        position: usize,
    },
    /// Two columns have the same name.
    #[error("columns {first} and {second} are both named '{}': rename or remove one", Short(.name))]
    DuplicateName {
        /// The name.
        name: String,
        /// The first column of that name, counted from 1.
        first: usize,
        /// The second.
        second: usize,
    },
    /// The name of a column is too long.
    #[error(
        "the name of column {position} is longer than {max} bytes: shorten it (is the header line missing?)"
    )]
    NameTooLong {
        /// The column, counted from 1.
        position: usize,
        /// [`Limits::max_name_bytes`].
        max: usize,
    },
    /// There are too many columns.
    #[error(
        "the header has {found} columns, and a table may have {max}: remove columns, or swap rows and columns"
    )]
    TooManyColumns {
        /// How many there are.
        found: usize,
        /// [`Limits::max_columns`].
        max: usize,
    },
    /// A row has more or fewer values than the header has names.
    #[error(
        "{place} has {found} value(s) where the header has {expected}: add or remove delimiters, and put values that \
         contain the delimiter in double quotes"
    )]
    RaggedRow {
        /// Where.
        place: Place,
        /// How many values the row has.
        found: usize,
        /// How many columns there are.
        expected: usize,
    },
    /// The file ends inside a quoted value.
    #[error(
        "{place}: a double quote is opened and never closed: close it, and write a double quote inside a quoted value \
         twice"
    )]
    UnclosedQuote {
        /// Where the quote was opened.
        place: Place,
    },
    /// Some bytes are not UTF-8.
    #[error(
        "{place}: byte 0x{byte:02X} is not UTF-8, so the table may be Latin-1 or Windows-1252: convert it, for example \
         with 'iconv -f WINDOWS-1252 -t UTF-8'"
    )]
    NotUtf8 {
        /// Where.
        place: Place,
        /// The first byte that does not fit.
        byte: u8,
    },
    /// The file is in UTF-16.
    #[error("the table is in UTF-16: save it as 'CSV UTF-8', or convert it with 'iconv -f UTF-16 -t UTF-8'")]
    Utf16,
    /// The file is compressed, or in a binary format.
    #[error("this is not CSV but {format}: {mend}")]
    Compressed {
        /// What it seems to be.
        format: &'static str,
        /// What to do.
        mend: &'static str,
    },
    /// Lines end with a carriage return alone.
    #[error(
        "the lines end with a carriage return alone: convert it, for example with 'mac2unix' or tr '\\r' '\\n'"
    )]
    CarriageReturn,
    /// A value is too long.
    #[error(
        "{place}: the value is longer than {max} bytes: shorten it or leave the column out (if it begins with a double \
         quote, the closing one may be missing)"
    )]
    FieldTooLong {
        /// Where.
        place: Place,
        /// [`Limits::max_field_bytes`].
        max: usize,
    },
    /// A row, or a line, is too long.
    #[error(
        "{place} is longer than {max} bytes: is this a text file with a line a row? (or a closing double quote is \
         missing)"
    )]
    RecordTooLong {
        /// Where.
        place: Place,
        /// [`Limits::max_record_bytes`].
        max: usize,
    },
    /// An infinite number, or one beyond 64-bit floating point.
    #[error("{place}: {} is not a finite number: write a number below 1.8e308, or leave it blank", Short(.value))]
    NotFinite {
        /// Where.
        place: Place,
        /// The value.
        value: String,
    },
    /// A number that does not fit the column's type.
    #[error("{place}: {} is out of the range of {}: {}", Short(.value), .wanted.name(), range(*.wanted))]
    OutOfRange {
        /// Where.
        place: Place,
        /// The value.
        value: String,
        /// What the column holds.
        wanted: ColumnType,
    },
    /// A value of another type than the column's.
    #[error("{place}: '{}' is not {}; write {}, or leave it blank", Short(.value), noun(*.wanted), example(*.wanted))]
    WrongType {
        /// Where.
        place: Place,
        /// The value.
        value: String,
        /// What the column holds.
        wanted: ColumnType,
    },
    /// Columns that are needed are not there.
    #[error("the table lacks {}: it has {}", Names(.missing), Names(.found))]
    MissingColumns {
        /// Those that are needed.
        missing: Vec<String>,
        /// Those that are there.
        found: Vec<String>,
    },
    /// A row given as JSON has a key that names no column.
    #[error("{place} is no column of the table: it has {}; mend the name or remove it", Names(.known))]
    UnknownColumn {
        /// Where: the row and the key.
        place: Place,
        /// The columns that there are.
        known: Vec<String>,
    },
    /// A row given as JSON has none of the columns.
    #[error("{place} has none of the columns: it needs at least one of {}", Names(.known))]
    EmptyRow {
        /// Where: the row.
        place: Place,
        /// The columns that there are.
        known: Vec<String>,
    },
    /// A line of NDJSON is no JSON object.
    #[error("{place} is no JSON object on a line of its own: {why}")]
    BadLine {
        /// Where: the row.
        place: Place,
        /// What is wrong with it.
        why: String,
    },
    /// A value of NDJSON is a list or an object.
    #[error(
        "{place} holds a list or an object, and a table holds single values: give its parts columns of their own"
    )]
    Nested {
        /// Where.
        place: Place,
    },
    /// An Arrow column of a type that tables do not hold.
    #[error(
        "{place} is of Arrow type {found}, which tables do not hold: convert it to int64, float64 or utf8, or leave it out"
    )]
    UnknownType {
        /// Where: the column.
        place: Place,
        /// Its type.
        found: String,
    },
    /// An Arrow file is damaged, or written in a way that is not read.
    #[error("the Arrow file cannot be read: {why}")]
    BadArrow {
        /// What is wrong with it, and where.
        why: String,
    },
    /// A Parquet file is damaged, or written in a way that is not read.
    #[error(
        "the Parquet file cannot be read: {why}: write it again with plain columns, compressed by snappy, gzip, lz4 or not at all"
    )]
    BadParquet {
        /// What is wrong with it.
        why: String,
    },
    /// The temporary file could not be written or read.
    #[error("the table could not be kept in a temporary file: {0}: is there room on the disk?")]
    Io(#[from] std::io::Error),
}

impl TableError {
    /// A stable word for the kind of error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::EmptyFile => "empty-file",
            Self::HeaderOnly { .. } => "header-only",
            Self::BlankName { .. } => "blank-column-name",
            Self::DuplicateName { .. } => "duplicate-column",
            Self::NameTooLong { .. } => "column-name-too-long",
            Self::TooManyColumns { .. } => "too-many-columns",
            Self::RaggedRow { .. } => "ragged-row",
            Self::UnclosedQuote { .. } => "unclosed-quote",
            Self::NotUtf8 { .. } | Self::Utf16 => "not-utf-8",
            Self::Compressed { .. } => "compressed",
            Self::CarriageReturn => "carriage-return",
            Self::FieldTooLong { .. } => "field-too-long",
            Self::RecordTooLong { .. } => "record-too-long",
            Self::NotFinite { .. } => "not-finite",
            Self::OutOfRange { .. } => "out-of-range",
            Self::WrongType { .. } => "wrong-type",
            Self::MissingColumns { .. } => "missing-column",
            Self::UnknownColumn { .. } => "unknown-column",
            Self::EmptyRow { .. } => "empty-row",
            Self::BadLine { .. } => "bad-line",
            Self::Nested { .. } => "nested-value",
            Self::UnknownType { .. } => "unknown-type",
            Self::BadArrow { .. } => "bad-arrow",
            Self::BadParquet { .. } => "bad-parquet",
            Self::Io(_) => "io",
        }
    }

    /// The row it is about, counted from 1 after the header.
    pub fn row(&self) -> Option<u64> {
        self.place().and_then(|place| place.row)
    }

    /// The column it is about.
    pub fn column(&self) -> Option<&str> {
        if let Self::DuplicateName { name, .. } = self {
            Some(name)
        } else if let Self::MissingColumns { missing, .. } = self {
            missing.first().map(String::as_str)
        } else {
            self.place().and_then(|place| place.column.as_deref())
        }
    }

    fn place(&self) -> Option<&Place> {
        match self {
            Self::RaggedRow { place, .. }
            | Self::UnclosedQuote { place }
            | Self::NotUtf8 { place, .. }
            | Self::FieldTooLong { place, .. }
            | Self::RecordTooLong { place, .. }
            | Self::NotFinite { place, .. }
            | Self::OutOfRange { place, .. }
            | Self::WrongType { place, .. }
            | Self::UnknownColumn { place, .. }
            | Self::EmptyRow { place, .. }
            | Self::BadLine { place, .. }
            | Self::Nested { place }
            | Self::UnknownType { place, .. } => Some(place),
            Self::EmptyFile
            | Self::HeaderOnly { .. }
            | Self::BlankName { .. }
            | Self::DuplicateName { .. }
            | Self::NameTooLong { .. }
            | Self::TooManyColumns { .. }
            | Self::Utf16
            | Self::Compressed { .. }
            | Self::CarriageReturn
            | Self::MissingColumns { .. }
            | Self::BadArrow { .. }
            | Self::BadParquet { .. }
            | Self::Io(_) => None,
        }
    }

    pub(super) fn too_many_columns(found: usize, limits: &Limits) -> Self {
        Self::TooManyColumns { found, max: limits.max_columns }
    }
}

fn noun(wanted: ColumnType) -> &'static str {
    match wanted {
        ColumnType::Integer => "a whole number",
        ColumnType::Float => "a number",
        ColumnType::Boolean => "true or false",
        ColumnType::Text => "text",
        ColumnType::Date => "a date",
        ColumnType::DateTime => "a date with a time",
    }
}

fn example(wanted: ColumnType) -> &'static str {
    match wanted {
        ColumnType::Integer => "one like 42",
        ColumnType::Float => "one like 42 or 0.5",
        ColumnType::Boolean => "one of the two",
        ColumnType::Text => "a text",
        ColumnType::Date => "one like 2026-01-31",
        ColumnType::DateTime => "one like 2026-01-31T12:00:00",
    }
}

fn range(wanted: ColumnType) -> &'static str {
    match wanted {
        ColumnType::Integer => "it goes from -9223372036854775808 to 9223372036854775807",
        ColumnType::Float => "it goes from -1.8e308 to 1.8e308",
        ColumnType::Boolean => "it is true or false",
        ColumnType::Text => "it is a text",
        ColumnType::Date | ColumnType::DateTime => "it goes from year 0 to year 9999",
    }
}

/// At most the first 40 characters of something that a user wrote, without control characters.
struct Short<'a>(&'a str);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const CHARACTERS: usize = 40;
        for c in self.0.chars().take(CHARACTERS) {
            if c.is_control() { write!(f, "{}", c.escape_default())? } else { write!(f, "{c}")? }
        }
        if self.0.chars().nth(CHARACTERS).is_some() { f.write_str("…") } else { Ok(()) }
    }
}

/// The first few of a list of names.
struct Names<'a>(&'a [String]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: usize = 20;
        for (i, name) in self.0.iter().take(NAMES).enumerate() {
            write!(f, "{}'{}'", if i == 0 { "" } else { ", " }, Short(name))?;
        }
        match self.0.len() {
            0 => f.write_str("no columns"),
            n if n > NAMES => write!(f, " and {} more", n - NAMES),
            _ => Ok(()),
        }
    }
}
