//! The cells of a column as the rest of the crate sees them: numbers, texts and blanks, whatever array holds them.

use std::borrow::Cow;

use arrow_array::{
    Array, BooleanArray, Date32Array, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMillisecondArray,
};
use dml_core::ColumnType;
use serde::{Deserialize, Serialize};

use super::sample::SampledRow;
use crate::error::WorkError;

/// One feature of a sampled row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Cell {
    /// Nothing was there.
    Blank,
    /// A number, a date in days or an instant in milliseconds.
    Number(f64),
    /// A category.
    Text(String),
}

/// A column of a batch, or of the sampled rows.
#[derive(Clone, Copy)]
pub(crate) enum Values<'a> {
    Integer(&'a Int64Array),
    Float(&'a Float64Array),
    Boolean(&'a BooleanArray),
    Text(&'a StringArray),
    Date(&'a Date32Array),
    DateTime(&'a TimestampMillisecondArray),
    Sampled(&'a [&'a SampledRow], usize),
}

/// Whether values of this type are computed with as numbers when they are features.
pub(crate) fn is_number(r#type: ColumnType) -> bool {
    match r#type {
        ColumnType::Integer | ColumnType::Float | ColumnType::Date | ColumnType::DateTime => true,
        ColumnType::Boolean | ColumnType::Text => false,
    }
}

impl<'a> Values<'a> {
    /// The column of that name, which must have that type; either type of number stands for the other.
    pub(crate) fn of(batch: &'a RecordBatch, name: &str, r#type: ColumnType) -> Result<Self, WorkError> {
        let array = batch
            .column_by_name(name)
            .ok_or_else(|| WorkError::Input(format!("the table has no column '{name}'")))?
            .as_any();
        let values = match r#type {
            ColumnType::Integer | ColumnType::Float => {
                array.downcast_ref().map(Self::Integer).or_else(|| array.downcast_ref().map(Self::Float))
            }
            ColumnType::Boolean => array.downcast_ref().map(Self::Boolean),
            ColumnType::Text => array.downcast_ref().map(Self::Text),
            ColumnType::Date => array.downcast_ref().map(Self::Date),
            ColumnType::DateTime => array.downcast_ref().map(Self::DateTime),
        };
        values
            .ok_or_else(|| WorkError::Input(format!("the column '{name}' is not of type {}", r#type.name())))
    }

    fn is_blank(&self, row: usize) -> bool {
        match self {
            Self::Integer(array) => array.is_null(row),
            Self::Float(array) => array.is_null(row),
            Self::Boolean(array) => array.is_null(row),
            Self::Text(array) => array.is_null(row),
            Self::Date(array) => array.is_null(row),
            Self::DateTime(array) => array.is_null(row),
            Self::Sampled(rows, column) => rows[row].cells[*column] == Cell::Blank,
        }
    }

    /// The number in a row; none if it is blank or no number. A float that is not finite counts as blank.
    pub(crate) fn number(&self, row: usize) -> Option<f64> {
        if self.is_blank(row) {
            return None;
        }
        match self {
            Self::Integer(array) => Some(array.value(row) as f64),
            Self::Float(array) => Some(array.value(row)).filter(|value| value.is_finite()),
            Self::Date(array) => Some(f64::from(array.value(row))),
            Self::DateTime(array) => Some(array.value(row) as f64),
            Self::Sampled(rows, column) => match rows[row].cells[*column] {
                Cell::Number(value) => Some(value),
                Cell::Blank | Cell::Text(_) => None,
            },
            Self::Boolean(_) | Self::Text(_) => None,
        }
    }

    /// The text of a row: that of a category or of a label; none if it is blank.
    pub(crate) fn text(&self, row: usize) -> Option<Cow<'a, str>> {
        if self.is_blank(row) {
            return None;
        }
        match *self {
            Self::Integer(array) => Some(array.value(row).to_string().into()),
            Self::Boolean(array) => Some(if array.value(row) { "true" } else { "false" }.into()),
            Self::Text(array) => Some(array.value(row).into()),
            Self::Sampled(rows, column) => match &rows[row].cells[column] {
                Cell::Text(text) => Some(text.as_str().into()),
                Cell::Blank | Cell::Number(_) => None,
            },
            Self::Float(_) | Self::Date(_) | Self::DateTime(_) => {
                self.number(row).map(|v| v.to_string().into())
            }
        }
    }
}
