//! The first reading of a table: what type each column has, over all its rows.

use dml_core::ColumnType;

use super::{
    Limits,
    error::{Place, TableError},
    records::{Found, Record, Records},
    value::{self, Shape},
};

/// What a column's values so far could be: a set, so that the order of rows makes no difference.
#[derive(Debug, Default)]
struct Seen {
    integer: bool,
    float: bool,
    boolean: bool,
    date: bool,
    date_time: bool,
    text: bool,
    /// The first number that is not finite.
    infinite: Option<Box<(Place, String)>>,
}

impl Seen {
    fn column_type(&self) -> ColumnType {
        let number = self.integer || self.float || self.infinite.is_some();
        let day = self.date || self.date_time;
        match (number, self.boolean, day) {
            (true, false, false) if !self.text => match self.float || self.infinite.is_some() {
                true => ColumnType::Float,
                false => ColumnType::Integer,
            },
            (false, true, false) if !self.text => ColumnType::Boolean,
            (false, false, true) if !self.text => match self.date_time {
                true => ColumnType::DateTime,
                false => ColumnType::Date,
            },
            _ => ColumnType::Text,
        }
    }
}

/// Reads records and keeps nothing of them but the types of columns.
#[derive(Debug)]
pub(super) struct Inference {
    records: Records,
    seen: Vec<Seen>,
}

impl Inference {
    pub(super) fn new(limits: Limits) -> Self {
        Self { records: Records::new(limits), seen: Vec::new() }
    }

    /// The next bytes of the file.
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Result<(), TableError> {
        while let Some(found) = self.records.advance(&mut bytes)? {
            observe(&mut self.seen, &self.records, &self.records.record(found));
        }
        Ok(())
    }

    /// After the last byte: the columns and the number of rows.
    pub(super) fn finish(mut self) -> Result<(Vec<(String, ColumnType)>, u64), TableError> {
        if let Some(found) = self.records.finish()? {
            observe(&mut self.seen, &self.records, &self.records.record(found));
        }
        let names = self.records.names();
        if names.is_empty() {
            return Err(TableError::EmptyFile);
        }
        if self.records.rows() == 0 {
            return Err(TableError::HeaderOnly { columns: names.len() });
        }
        let types: Vec<_> = self.seen.iter().map(Seen::column_type).collect();
        let infinite = self.seen.into_iter().zip(&types).filter(|(_, column)| column.is_numeric());
        let first = infinite.filter_map(|(seen, _)| seen.infinite).min_by_key(|infinite| infinite.0.row);
        if let Some(infinite) = first {
            let (place, value) = *infinite;
            return Err(TableError::NotFinite { place, value });
        }
        Ok((names.iter().cloned().zip(types).collect(), self.records.rows()))
    }
}

fn observe(seen: &mut Vec<Seen>, records: &Records, record: &Record) {
    if seen.is_empty() {
        seen.resize_with(records.names().len(), Seen::default);
    }
    for (column, (seen, (field, _))) in seen.iter_mut().zip(record.fields()).enumerate() {
        if seen.text {
            continue;
        }
        let text = value::trim(field);
        match value::shape(text) {
            Shape::Blank => {}
            Shape::Integer => seen.integer = true,
            Shape::Float => seen.float = true,
            Shape::Infinite => {
                seen.infinite.get_or_insert_with(|| Box::new((records.place(column), text.to_owned())));
            }
            Shape::Boolean => seen.boolean = true,
            Shape::Date => seen.date = true,
            Shape::DateTime => seen.date_time = true,
            Shape::Text => seen.text = true,
        }
    }
}

/// Where the header's columns are, read without the rows.
pub(super) fn header(mut text: &[u8], limits: &Limits) -> Result<Vec<String>, TableError> {
    let mut records = Records::new(limits.clone());
    let found: Option<Found> = records.advance(&mut text)?;
    if found.is_none() {
        records.finish()?;
    }
    match records.names() {
        [] => Err(TableError::EmptyFile),
        names => Ok(names.to_vec()),
    }
}
