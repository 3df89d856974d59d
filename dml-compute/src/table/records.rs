//! Cuts the bytes of a CSV file into records and fields, as they come in and in whatever pieces.
//!
//! Follows RFC 4180, and is lenient where files in the wild are, as [`super`] says; besides, a quote that does not begin a
//! field is text, and so is what follows a closing quote.
//!
//! A line without quotes is only looked at, not copied. Others go through the few states of [`Records::unquote`].

use std::{ops::Range, sync::Arc};

use memchr::{memchr, memchr_iter};

use super::{
    Limits,
    error::{Place, TableError},
    value,
};

/// What separates fields, the most usual first.
pub(super) const DELIMITERS: [u8; 4] = *b",;\t|";

/// One data record.
#[derive(Debug)]
pub(super) struct Record<'a> {
    text: &'a str,
    spans: &'a [Range<usize>],
    /// Whether each field was quoted; empty if none was.
    quoted: &'a [bool],
}

impl<'a> Record<'a> {
    /// The text of a field, and whether it was quoted.
    #[inline]
    pub(super) fn field(&self, column: usize) -> (&'a str, bool) {
        (&self.text[self.spans[column].clone()], self.quoted.get(column).is_some_and(|quoted| *quoted))
    }

    /// All fields.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&'a str, bool)> {
        (0..self.spans.len()).map(|column| self.field(column))
    }
}

/// Where the text of a complete record is.
#[derive(Debug)]
pub(super) enum Found<'i> {
    /// In the input.
    Input(&'i str),
    /// In the [`Records`] themselves.
    Kept,
}

/// The state between pieces of the file.
#[derive(Debug)]
pub(super) struct Records {
    limits: Limits,
    delimiter: Option<u8>,
    names: Arc<[String]>,
    /// The beginning of a line whose end has not come yet.
    carry: Vec<u8>,
    /// The text of a record that is not in the input: its fields without quotes, delimiters between them.
    kept: Vec<u8>,
    spans: Vec<Range<usize>>,
    quoted: Vec<bool>,
    /// How many fields the record has; beyond the limit they are counted only.
    fields: usize,
    /// The beginning in `kept` of the field whose quote is open at the end of the line.
    open: Option<usize>,
    /// Lines seen.
    lines: u64,
    /// The line that the record began on.
    line: u64,
    rows: u64,
    consumed: u64,
}

/// What a line led to.
enum Line {
    /// No record ends here.
    Nothing,
    /// A record, all of it in this range of the line.
    Plain(Range<usize>),
    /// A record, in `kept`.
    Unquoted,
}

impl Records {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            delimiter: None,
            names: Arc::default(),
            carry: Vec::new(),
            kept: Vec::new(),
            spans: Vec::new(),
            quoted: Vec::new(),
            fields: 0,
            open: None,
            lines: 0,
            line: 0,
            rows: 0,
            consumed: 0,
        }
    }

    /// The names in the header; empty before it is complete.
    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// What separates fields; known after the header.
    pub(super) fn delimiter(&self) -> u8 {
        self.delimiter.unwrap_or(DELIMITERS[0])
    }

    /// What bounds the table.
    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// How many lines there were.
    pub(super) fn lines(&self) -> u64 {
        self.lines
    }

    /// To go on after the header from a place where a record begins, so many rows and lines after this one.
    pub(super) fn resumed(&self, rows: u64, lines: u64) -> Self {
        Self {
            delimiter: self.delimiter,
            names: self.names.clone(),
            rows: self.rows + rows,
            lines: self.lines + lines,
            ..Self::new(self.limits.clone())
        }
    }

    /// How many data records there were.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// How many bytes were taken from the input.
    pub(super) fn consumed(&self) -> u64 {
        self.consumed
    }

    /// The line that the latest record began on.
    pub(super) fn line(&self) -> u64 {
        self.line
    }

    /// Where a field of the latest data record is.
    pub(super) fn place(&self, column: usize) -> Place {
        Place { row: Some(self.rows), line: Some(self.line), column: self.names.get(column).cloned() }
    }

    /// Takes from the input up to the end of the header, or all of it if the header does not end there.
    pub(super) fn advance_head(&mut self, input: &mut &[u8]) -> Result<(), TableError> {
        while self.names.is_empty() && self.advance_line(input)?.is_some() {}
        Ok(())
    }

    /// Takes from the input up to the end of a data record, or all of it if none ends there.
    pub(super) fn advance<'i>(&mut self, input: &mut &'i [u8]) -> Result<Option<Found<'i>>, TableError> {
        while let Some(found) = self.advance_line(input)? {
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Takes a line from the input, and tells the record that ends with it; or all of the input if no line ends there.
    fn advance_line<'i>(&mut self, input: &mut &'i [u8]) -> Result<Option<Option<Found<'i>>>, TableError> {
        let Some(end) = memchr(b'\n', input) else {
            self.carry.extend_from_slice(input);
            self.consumed += input.len() as u64;
            *input = &[];
            return match self.carry.len() > self.limits.max_record_bytes {
                true => Err(self.too_long(&self.carry)),
                false => Ok(None),
            };
        };
        let piece: &'i [u8] = input;
        let line = &piece[..end];
        *input = &piece[end + 1..];
        self.consumed += end as u64 + 1;
        if self.carry.is_empty() {
            return Ok(Some(match self.take_line(line)? {
                Line::Nothing => None,
                Line::Plain(range) => Some(Found::Input(self.checked(&line[range])?)),
                Line::Unquoted => {
                    self.check_kept()?;
                    Some(Found::Kept)
                }
            }));
        }
        let mut whole = std::mem::take(&mut self.carry);
        whole.extend_from_slice(line);
        let found = self.whole_line(&whole)?;
        whole.clear();
        self.carry = whole;
        Ok(Some(found.then_some(Found::Kept)))
    }

    /// After the end of the input: the last record, if no line feed ended it.
    pub(super) fn finish(&mut self) -> Result<Option<Found<'static>>, TableError> {
        let last = std::mem::take(&mut self.carry);
        let found = !last.is_empty() && self.whole_line(&last)?;
        if self.open.is_some() {
            return Err(TableError::UnclosedQuote { place: self.unfinished() });
        }
        Ok(found.then_some(Found::Kept))
    }

    /// The record that was found just now.
    pub(super) fn record<'a>(&'a self, found: Found<'a>) -> Record<'a> {
        let text = match found {
            Found::Input(text) => text,
            Found::Kept => std::str::from_utf8(&self.kept).expect("it was checked when it was found"),
        };
        Record { text, spans: &self.spans, quoted: &self.quoted }
    }

    /// A line that is not in the input: if a record ends with it, it is kept.
    fn whole_line(&mut self, line: &[u8]) -> Result<bool, TableError> {
        match self.take_line(line)? {
            Line::Nothing => return Ok(false),
            Line::Plain(range) => {
                self.kept.clear();
                self.kept.extend_from_slice(&line[range]);
            }
            Line::Unquoted => {}
        }
        self.check_kept().map(|()| true)
    }

    /// A line without its line feed.
    fn take_line(&mut self, line: &[u8]) -> Result<Line, TableError> {
        if line.len() > self.limits.max_record_bytes {
            return Err(self.too_long(line));
        }
        self.lines += 1;
        let end = line.len() - usize::from(line.last() == Some(&b'\r'));
        let mut start = 0;
        if self.open.is_none() {
            self.line = self.lines;
            if self.lines == 1 {
                refuse_binary(line)?;
                start = if line.starts_with(b"\xEF\xBB\xBF") { 3 } else { 0 };
            }
            if is_blank_line(&line[start..end], self.delimiter) {
                return Ok(Line::Nothing);
            }
            self.kept.clear();
            self.spans.clear();
            self.quoted.clear();
            self.fields = 0;
        }
        let delimiter = *self.delimiter.get_or_insert_with(|| sniff(&line[start..end]));
        let found = if self.open.is_none() && memchr(b'"', &line[start..end]).is_none() {
            self.split(&line[start..end], delimiter);
            Line::Plain(start..end)
        } else if self.unquote(&line[start..end], &line[end..], delimiter)? {
            Line::Unquoted
        } else {
            return Ok(Line::Nothing);
        };
        if self.names.is_empty() {
            let text = match &found {
                Line::Plain(range) => line[range.clone()].to_vec(),
                Line::Unquoted | Line::Nothing => self.kept.clone(),
            };
            self.header(&text)?;
            return Ok(Line::Nothing);
        }
        self.rows += 1;
        self.check_fields()?;
        Ok(found)
    }

    /// The fields of a record without quotes.
    fn split(&mut self, line: &[u8], delimiter: u8) {
        let mut start = 0;
        for end in memchr_iter(delimiter, line) {
            self.field(start..end);
            start = end + 1;
        }
        self.field(start..line.len());
    }

    fn field(&mut self, span: Range<usize>) {
        self.fields += 1;
        if self.fields <= self.limits.max_columns {
            self.spans.push(span);
        }
    }

    /// Goes on with a record that has quotes. Says whether the record ends with this line.
    fn unquote(&mut self, line: &[u8], ending: &[u8], delimiter: u8) -> Result<bool, TableError> {
        let mut open = self.open.is_some();
        let mut start = self.open.take().unwrap_or(0);
        let mut at = 0;
        loop {
            if open {
                let Some(length) = memchr(b'"', &line[at..]) else {
                    self.kept.extend_from_slice(&line[at..]);
                    self.kept.extend_from_slice(ending);
                    self.kept.push(b'\n');
                    self.open = Some(start);
                    return self.check_open(start).map(|()| false);
                };
                self.kept.extend_from_slice(&line[at..at + length]);
                at += length + 1;
                if line.get(at) == Some(&b'"') {
                    self.kept.push(b'"');
                    at += 1;
                } else {
                    open = false;
                }
            } else if line.get(at) == Some(&b'"') && self.quoted.len() == self.fields {
                self.quoted.push(true);
                open = true;
                at += 1;
            } else {
                if self.quoted.len() == self.fields {
                    self.quoted.push(false);
                }
                let length = memchr(delimiter, &line[at..]);
                let end = length.map_or(line.len(), |length| at + length);
                self.kept.extend_from_slice(&line[at..end]);
                self.field(start..self.kept.len());
                if length.is_none() {
                    return Ok(true);
                }
                self.kept.push(delimiter);
                start = self.kept.len();
                at = end + 1;
            }
        }
    }

    /// Bounds what an unclosed quote may swallow.
    fn check_open(&self, start: usize) -> Result<(), TableError> {
        if self.kept.len() - start > self.limits.max_field_bytes {
            Err(TableError::FieldTooLong { place: self.unfinished(), max: self.limits.max_field_bytes })
        } else if self.kept.len() > self.limits.max_record_bytes {
            Err(TableError::RecordTooLong { place: self.unfinished(), max: self.limits.max_record_bytes })
        } else {
            Ok(())
        }
    }

    fn check_fields(&self) -> Result<(), TableError> {
        if self.fields != self.names.len() {
            let place = Place { column: None, ..self.place(0) };
            return Err(TableError::RaggedRow { place, found: self.fields, expected: self.names.len() });
        }
        let max = self.limits.max_field_bytes;
        if self.spans.last().is_none_or(|last| last.end <= max) {
            return Ok(());
        }
        match self.spans.iter().position(|span| span.len() > max) {
            Some(column) => Err(TableError::FieldTooLong { place: self.place(column), max }),
            None => Ok(()),
        }
    }

    /// Where the record is that has not ended yet.
    fn unfinished(&self) -> Place {
        let row = (!self.names.is_empty()).then_some(self.rows + 1);
        if self.open.is_none() {
            return Place { row, line: Some(self.lines + 1), column: None };
        }
        let column = self.names.get(self.fields).cloned();
        Place { row, line: Some(self.line), column }
    }

    /// Only what comes within the limit is looked at, so that pieces make no difference.
    fn too_long(&self, line: &[u8]) -> TableError {
        if self.lines == 0
            && let Err(error) = refuse_binary(line)
        {
            return error;
        }
        if self.names.is_empty() && memchr(b'\r', &line[..self.limits.max_record_bytes]).is_some() {
            return TableError::CarriageReturn;
        }
        TableError::RecordTooLong { place: self.unfinished(), max: self.limits.max_record_bytes }
    }

    fn check_kept(&mut self) -> Result<(), TableError> {
        self.checked(&self.kept).map(|_| ())
    }

    /// The bytes of the latest data record as text.
    fn checked<'b>(&self, bytes: &'b [u8]) -> Result<&'b str, TableError> {
        std::str::from_utf8(bytes).map_err(|error| {
            let at = error.valid_up_to();
            let column = self.spans.iter().position(|span| at < span.end).unwrap_or(0);
            TableError::NotUtf8 { place: self.place(column), byte: bytes[at] }
        })
    }

    /// Reads the names of the columns.
    fn header(&mut self, text: &[u8]) -> Result<(), TableError> {
        let quoted = |column: usize| self.quoted.get(column).is_some_and(|quoted| *quoted);
        let bare = |(column, span): (usize, &Range<usize>)| {
            !quoted(column) && memchr(b'\r', &text[span.clone()]).is_some()
        };
        if self.spans.iter().enumerate().any(bare) {
            return Err(TableError::CarriageReturn);
        }
        if self.fields > self.limits.max_columns {
            return Err(TableError::too_many_columns(self.fields, &self.limits));
        }
        let mut names = Vec::with_capacity(self.fields);
        for (position, span) in (1..).zip(&self.spans) {
            let bytes = &text[span.clone()];
            if bytes.len() > self.limits.max_name_bytes {
                return Err(TableError::NameTooLong { position, max: self.limits.max_name_bytes });
            }
            let name = std::str::from_utf8(bytes).map_err(|error| TableError::NotUtf8 {
                place: Place { row: None, line: Some(self.line), column: Some(position.to_string()) },
                byte: bytes[error.valid_up_to()],
            })?;
            names.push(value::trim(name).to_owned());
        }
        check_names(&names)?;
        self.names = names.into();
        Ok(())
    }
}

/// Blank lines hold no values: no delimiter, that is, and nothing to be seen.
pub(super) fn is_blank_line(line: &[u8], delimiter: Option<u8>) -> bool {
    match line.first() {
        None => true,
        Some(b' ' | b'\t') => line.iter().all(|b| *b == b' ' || (*b == b'\t' && delimiter != Some(b'\t'))),
        Some(_) => false,
    }
}

/// Names are there, and differ.
pub(super) fn check_names(names: &[String]) -> Result<(), TableError> {
    if let Some(blank) = names.iter().position(String::is_empty) {
        return Err(TableError::BlankName { position: blank + 1 });
    }
    let mut sorted: Vec<_> = names.iter().zip(1..).collect();
    sorted.sort_unstable();
    match sorted.windows(2).filter(|pair| pair[0].0 == pair[1].0).map(|pair| (pair[1].1, pair[0].1)).min() {
        Some((second, first)) => {
            Err(TableError::DuplicateName { name: names[first - 1].clone(), first, second })
        }
        None => Ok(()),
    }
}

fn sniff(line: &[u8]) -> u8 {
    let mut counts = [0_usize; DELIMITERS.len()];
    let mut open = false;
    for byte in line {
        open ^= *byte == b'"';
        if !open && let Some(i) = DELIMITERS.iter().position(|delimiter| delimiter == byte) {
            counts[i] += 1;
        }
    }
    let most = counts.iter().copied().max().unwrap_or(0);
    let first = counts.iter().position(|count| *count == most).unwrap_or(0);
    DELIMITERS[first]
}

/// Tells files that are no text by their first bytes.
fn refuse_binary(head: &[u8]) -> Result<(), TableError> {
    const DECOMPRESS: &str = "decompress it first, and send the CSV inside";
    const CONVERT: &str = "convert it to CSV first, for example with pandas or DuckDB";
    let binary = head.iter().take(16).any(|b| *b < 9);
    let (format, mend) = match head {
        [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] => return Err(TableError::Utf16),
        [0x1F, 0x8B, ..] => ("a gzip file", DECOMPRESS),
        [b'P', b'K', 3, 4, ..] => (
            "a zip archive",
            "unpack it and send the CSV inside (an .xlsx workbook is a zip too: save it as CSV)",
        ),
        [0x28, 0xB5, 0x2F, 0xFD, ..] => ("a Zstandard file", DECOMPRESS),
        [0xFD, b'7', b'z', b'X', b'Z', 0, ..] => ("an xz file", DECOMPRESS),
        [b'B', b'Z', b'h', b'1'..=b'9', b'1', b'A', b'Y', b'&', b'S', b'Y', ..] => {
            ("a bzip2 file", DECOMPRESS)
        }
        [0xD0, 0xCF, 0x11, 0xE0, ..] => ("an old Excel workbook", "save it as CSV"),
        [b'P', b'A', b'R', b'1', 0x15, ..] => ("a Parquet file", CONVERT),
        [b'A', b'R', b'R', b'O', b'W', b'1', ..] if binary => ("an Arrow file", CONVERT),
        [0xFF, 0xFF, 0xFF, 0xFF, ..] => ("an Arrow stream", CONVERT),
        _ => return Ok(()),
    };
    Err(TableError::Compressed { format, mend })
}
