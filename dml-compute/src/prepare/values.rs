//! The values of a column as learning sees them: numbers, texts and blanks, whatever array holds them.

use std::{borrow::Cow, collections::BTreeMap};

use arrow_array::{Array, ArrowPrimitiveType, PrimitiveArray, RecordBatch};
use dml_core::ColumnType;

use super::{MAX_CATEGORY_BYTES, sample::Cells};
use crate::{
    error::WorkError,
    table::{self, View},
};

/// A column of a batch, or of the sampled rows.
#[derive(Clone, Copy)]
pub(crate) enum Values<'a> {
    Column(View<'a>),
    Sampled(&'a Cells),
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
        Self::near(batch, usize::MAX, name, r#type)
    }

    /// The same, for a column that is likely to be at that place: few rows are predicted sooner than many columns found.
    pub(crate) fn near(
        batch: &'a RecordBatch,
        at: usize,
        name: &str,
        r#type: ColumnType,
    ) -> Result<Self, WorkError> {
        let there = batch.schema_ref().fields().get(at).filter(|field| field.name() == name);
        let array = there.map(|_| batch.column(at)).or_else(|| batch.column_by_name(name));
        let array = array.ok_or_else(|| WorkError::Input(format!("the table has no column '{name}'")))?;
        let fits = |view: &View| {
            view.column_type() == r#type || view.column_type().is_numeric() && r#type.is_numeric()
        };
        View::of(array.as_ref())
            .filter(fits)
            .map(Self::Column)
            .ok_or_else(|| WorkError::Input(format!("the column '{name}' is not of type {}", r#type.name())))
    }

    /// The number in a row; none if it is blank or no number. A float that is not finite counts as blank.
    pub(crate) fn number(&self, row: usize) -> Option<f64> {
        match self {
            Self::Column(view) => number(view.cell(row)),
            Self::Sampled(Cells::Numbers(cells)) => cells[row],
            Self::Sampled(Cells::Texts(_)) => None,
        }
    }

    /// Calls `take` with the place and the number of each row, NaN where there is none: the loops are over arrays of one
    /// type, as most of what is read of a table is read here.
    pub(crate) fn numbers(&self, rows: &[usize], take: impl FnMut(usize, f64)) {
        match self {
            Self::Column(View::Float(array)) => {
                let finite = |value: f64| if value.is_finite() { value } else { f64::NAN };
                each(array, rows, finite, take);
            }
            Self::Column(View::Integer(array)) => each(array, rows, |value| value as f64, take),
            Self::Column(View::Date(array)) => each(array, rows, f64::from, take),
            Self::Column(View::DateTime(array)) => each(array, rows, |value| value as f64, take),
            Self::Column(View::Boolean(_) | View::Text(_)) | Self::Sampled(_) => {
                let numbers = rows.iter().map(|row| self.number(*row).unwrap_or(f64::NAN));
                let mut take = take;
                numbers.enumerate().for_each(|(place, number)| take(place, number));
            }
        }
    }

    /// The text of a row: that of a category or of a label; none if it is blank.
    pub(crate) fn text(&self, row: usize) -> Option<Cow<'a, str>> {
        match *self {
            Self::Column(view) => match view.cell(row) {
                table::Cell::Integer(value) => Some(value.to_string().into()),
                table::Cell::Boolean(value) => Some(if value { "true" } else { "false" }.into()),
                table::Cell::Text(text) => Some(text.into()),
                cell @ (table::Cell::Blank
                | table::Cell::Float(_)
                | table::Cell::Date(_)
                | table::Cell::DateTime(_)) => number(cell).map(|number| number.to_string().into()),
            },
            Self::Sampled(Cells::Texts(cells)) => cells[row].as_deref().map(Cow::Borrowed),
            Self::Sampled(Cells::Numbers(_)) => None,
        }
    }

    /// The text of a row if it may be a category: longer ones are none.
    pub(crate) fn category(&self, row: usize) -> Option<String> {
        self.text(row).filter(|text| text.len() <= MAX_CATEGORY_BYTES).map(Cow::into_owned)
    }

    /// What `place` says of the text of each row; NaN for a blank. It is asked once for each whole number, as these
    /// take longer to write than to find.
    pub(crate) fn labels<E>(
        &self,
        rows: &[usize],
        mut place: impl FnMut(&str) -> Result<f64, E>,
    ) -> Result<Vec<f64>, E> {
        let mut known: BTreeMap<i64, f64> = BTreeMap::new();
        let mut label = |row: &usize| {
            if let Self::Column(View::Integer(array)) = self
                && array.is_valid(*row)
            {
                let value = array.value(*row);
                if let Some(place) = known.get(&value) {
                    return Ok(*place);
                }
                let place = place(&value.to_string())?;
                known.insert(value, place);
                return Ok(place);
            }
            self.text(*row).map_or(Ok(f64::NAN), |text| place(&text))
        };
        rows.iter().map(&mut label).collect()
    }
}

fn number(cell: table::Cell) -> Option<f64> {
    match cell {
        table::Cell::Integer(value) => Some(value as f64),
        table::Cell::Float(value) => Some(value).filter(|value| value.is_finite()),
        table::Cell::Date(days) => Some(f64::from(days)),
        table::Cell::DateTime(ms) => Some(ms as f64),
        table::Cell::Blank | table::Cell::Boolean(_) | table::Cell::Text(_) => None,
    }
}

fn each<T: ArrowPrimitiveType>(
    array: &PrimitiveArray<T>,
    rows: &[usize],
    number: impl Fn(T::Native) -> f64,
    mut take: impl FnMut(usize, f64),
) {
    let values = array.values();
    let first = rows.first().copied().unwrap_or(0);
    let one_after_the_other = rows.iter().enumerate().all(|(place, row)| *row == first + place);
    match array.nulls().filter(|nulls| nulls.null_count() > 0) {
        None if one_after_the_other => {
            let values = values[first..][..rows.len()].iter();
            values.enumerate().for_each(|(place, value)| take(place, number(*value)));
        }
        None => rows.iter().enumerate().for_each(|(place, row)| take(place, number(values[*row]))),
        Some(nulls) => rows.iter().enumerate().for_each(|(place, row)| {
            take(place, if nulls.is_valid(*row) { number(values[*row]) } else { f64::NAN });
        }),
    }
}
