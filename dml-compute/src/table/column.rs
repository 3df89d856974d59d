//! Columns of one type, cell by cell: read from Arrow, converted, and built.

use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, ArrowPrimitiveType, BooleanArray, Date32Array, Float64Array, Int64Array, PrimitiveArray,
    StringArray, TimestampMillisecondArray,
    builder::{BooleanBuilder, NullBufferBuilder, StringBuilder},
    types::{Date32Type, Float64Type, Int64Type, TimestampMillisecondType},
};
use arrow_schema::{DataType, TimeUnit};
use dml_core::ColumnType;

use super::{
    error::{Place, TableError},
    number::Number,
    value::{self, Shape},
};

/// The Arrow type that a column is kept in.
pub fn data_type(column: ColumnType) -> DataType {
    match column {
        ColumnType::Integer => DataType::Int64,
        ColumnType::Float => DataType::Float64,
        ColumnType::Boolean => DataType::Boolean,
        ColumnType::Text => DataType::Utf8,
        ColumnType::Date => DataType::Date32,
        ColumnType::DateTime => DataType::Timestamp(TimeUnit::Millisecond, None),
    }
}

/// The type of the column that is kept in an Arrow type, if one is.
pub fn column_type(arrow: &DataType) -> Option<ColumnType> {
    use ColumnType::{Boolean, Date, DateTime, Float, Integer, Text};
    [Integer, Float, Boolean, Text, Date, DateTime].into_iter().find(|column| data_type(*column) == *arrow)
}

/// A value of a column.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Cell<'a> {
    Blank,
    Integer(i64),
    Float(f64),
    Boolean(bool),
    Text(&'a str),
    Date(i32),
    DateTime(i64),
}

impl Cell<'_> {
    /// Writes it as it stands in a CSV file, but for quotes. Nothing, if it is blank.
    pub(super) fn write(self, out: &mut String) {
        match self {
            Self::Blank => {}
            Self::Integer(value) => out.push_str(itoa::Buffer::new().format(value)),
            Self::Float(value) => value::write_float(value, out),
            Self::Boolean(value) => out.push_str(if value { "true" } else { "false" }),
            Self::Text(value) => out.push_str(value),
            Self::Date(days) => value::write_date(days.into(), out),
            Self::DateTime(ms) => value::write_date_time(ms, out),
        }
    }

    /// As a category: like [`Self::write`], but whole numbers are written without a point, whatever their type.
    fn category(self, out: &mut String) {
        if let Self::Float(number) = self
            && number.abs() < 1e15
            && number.trunc() == number
        {
            Self::Integer(number as i64).write(out);
        } else {
            self.write(out);
        }
    }
}

/// An Arrow column whose cells can be read.
#[derive(Clone, Copy)]
pub(crate) enum View<'a> {
    Integer(&'a Int64Array),
    Float(&'a Float64Array),
    Boolean(&'a BooleanArray),
    Text(&'a StringArray),
    Date(&'a Date32Array),
    DateTime(&'a TimestampMillisecondArray),
}

impl<'a> View<'a> {
    /// None if it is of an Arrow type that tables do not hold.
    pub(crate) fn of(array: &'a dyn Array) -> Option<Self> {
        let any = array.as_any();
        match column_type(array.data_type())? {
            ColumnType::Integer => any.downcast_ref().map(Self::Integer),
            ColumnType::Float => any.downcast_ref().map(Self::Float),
            ColumnType::Boolean => any.downcast_ref().map(Self::Boolean),
            ColumnType::Text => any.downcast_ref().map(Self::Text),
            ColumnType::Date => any.downcast_ref().map(Self::Date),
            ColumnType::DateTime => any.downcast_ref().map(Self::DateTime),
        }
    }

    /// The type of column that it shows.
    pub(crate) fn column_type(&self) -> ColumnType {
        match self {
            Self::Integer(_) => ColumnType::Integer,
            Self::Float(_) => ColumnType::Float,
            Self::Boolean(_) => ColumnType::Boolean,
            Self::Text(_) => ColumnType::Text,
            Self::Date(_) => ColumnType::Date,
            Self::DateTime(_) => ColumnType::DateTime,
        }
    }

    pub(crate) fn cell(&self, row: usize) -> Cell<'a> {
        match self {
            Self::Integer(array) if array.is_valid(row) => Cell::Integer(array.value(row)),
            Self::Float(array) if array.is_valid(row) => Cell::Float(array.value(row)),
            Self::Boolean(array) if array.is_valid(row) => Cell::Boolean(array.value(row)),
            Self::Text(array) if array.is_valid(row) => Cell::Text(array.value(row)),
            Self::Date(array) if array.is_valid(row) => Cell::Date(array.value(row)),
            Self::DateTime(array) if array.is_valid(row) => Cell::DateTime(array.value(row)),
            Self::Integer(_)
            | Self::Float(_)
            | Self::Boolean(_)
            | Self::Text(_)
            | Self::Date(_)
            | Self::DateTime(_) => Cell::Blank,
        }
    }
}

/// Why a value does not fit a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Misfit {
    NotFinite,
    OutOfRange,
    WrongType,
}

impl Misfit {
    pub(super) fn error(self, place: Place, value: String, wanted: ColumnType) -> TableError {
        match self {
            Self::NotFinite => TableError::NotFinite { place, value },
            Self::OutOfRange => TableError::OutOfRange { place, value, wanted },
            Self::WrongType => TableError::WrongType { place, value, wanted },
        }
    }
}

/// A column that grows by values. What it refuses it does not take.
pub(super) enum Builder {
    Integer(Numbers<Int64Type>),
    Float(Numbers<Float64Type>),
    Boolean(BooleanBuilder),
    Text(StringBuilder),
    Date(Numbers<Date32Type>),
    DateTime(Numbers<TimestampMillisecondType>),
}

/// What grows to an array of numbers. Of Arrow's own builder each value costs a call.
pub(super) struct Numbers<T: ArrowPrimitiveType> {
    values: Vec<T::Native>,
    nulls: NullBufferBuilder,
}

impl<T: ArrowPrimitiveType> Numbers<T> {
    fn with_capacity(rows: usize) -> Self {
        Self { values: Vec::with_capacity(rows), nulls: NullBufferBuilder::new(rows) }
    }

    #[inline]
    fn append_value(&mut self, value: T::Native) {
        self.values.push(value);
        self.nulls.append_non_null();
    }

    fn append_null(&mut self) {
        self.values.push(T::Native::default());
        self.nulls.append_null();
    }

    fn append_array(&mut self, array: &PrimitiveArray<T>) {
        self.values.extend_from_slice(array.values());
        match array.nulls() {
            Some(nulls) => self.nulls.append_buffer(nulls),
            None => self.nulls.append_n_non_nulls(array.len()),
        }
    }

    fn finish(&mut self) -> PrimitiveArray<T> {
        PrimitiveArray::new(std::mem::take(&mut self.values).into(), self.nulls.finish())
    }
}

impl Builder {
    pub(super) fn new(column: ColumnType) -> Self {
        Self::with_capacity(column, 0)
    }

    /// With room for so many values.
    pub(super) fn with_capacity(column: ColumnType, rows: usize) -> Self {
        match column {
            ColumnType::Integer => Self::Integer(Numbers::with_capacity(rows)),
            ColumnType::Float => Self::Float(Numbers::with_capacity(rows)),
            ColumnType::Boolean => Self::Boolean(BooleanBuilder::with_capacity(rows)),
            ColumnType::Text => Self::Text(StringBuilder::with_capacity(rows, 0)),
            ColumnType::Date => Self::Date(Numbers::with_capacity(rows)),
            ColumnType::DateTime => Self::DateTime(Numbers::with_capacity(rows)),
        }
    }

    /// Whether most values are likely to be plain numbers.
    #[inline]
    pub(super) fn is_numeric(&self) -> bool {
        matches!(self, Self::Integer(_) | Self::Float(_))
    }

    /// A number of a CSV file as [`Self::push_field`] would take it; says no if it does not fit as it is.
    #[inline]
    pub(super) fn push_number(&mut self, number: Number) -> bool {
        match self {
            Self::Float(builder) => builder.append_value(number.float()),
            Self::Integer(builder) if !number.has_point() => builder.append_value(number.integer()),
            Self::Integer(_) | Self::Boolean(_) | Self::Text(_) | Self::Date(_) | Self::DateTime(_) => {
                return false;
            }
        }
        true
    }

    /// All values of a column of the very same type.
    pub(super) fn push_all(&mut self, array: &dyn Array) {
        match (self, View::of(array)) {
            (Self::Integer(builder), Some(View::Integer(array))) => builder.append_array(array),
            (Self::Float(builder), Some(View::Float(array))) => builder.append_array(array),
            (Self::Boolean(builder), Some(View::Boolean(array))) => builder.append_array(array),
            (Self::Text(builder), Some(View::Text(array))) => {
                builder.append_array(array).expect("a chunk's texts are far below 2 GiB");
            }
            (Self::Date(builder), Some(View::Date(array))) => builder.append_array(array),
            (Self::DateTime(builder), Some(View::DateTime(array))) => builder.append_array(array),
            (builder, _) => unreachable!("{} is not {:?}", array.data_type(), builder.finish().data_type()),
        }
    }

    /// A field of a CSV file. In a column of text, a quoted field is blank only if it is empty; elsewhere quotes make
    /// no difference.
    pub(super) fn push_field(&mut self, field: &str, quoted: bool) -> Result<(), Misfit> {
        if let Self::Text(builder) = self {
            let text = if quoted { field } else { value::trim(field) };
            let blank = if quoted { text.is_empty() } else { value::is_blank(text) };
            builder.append_option((!blank).then_some(text));
            return Ok(());
        }
        let text = value::trim(field);
        match self {
            // The usual ones first: nothing else looks like a number.
            Self::Float(builder) if let Some(number) = value::float(text) => builder.append_value(number),
            Self::Integer(builder) if let Ok(number) = text.parse() => builder.append_value(number),
            _ if value::is_blank(text) => self.push_blank(),
            Self::Float(_) => return Err(misfit_number(text)),
            Self::Integer(builder) => match value::float(text) {
                Some(number) => builder.append_value(whole(number)?),
                None => return Err(misfit_number(text)),
            },
            Self::Boolean(builder) => builder.append_value(value::boolean(text).ok_or(Misfit::WrongType)?),
            Self::Date(builder) => builder.append_value(match value::date(text) {
                Some(days) => days,
                None => value::date_time(text).and_then(value::day_of).ok_or(Misfit::WrongType)?,
            }),
            Self::DateTime(builder) => builder.append_value(match value::date_time(text) {
                Some(ms) => ms,
                None => value::date(text).map(value::midnight).ok_or(Misfit::WrongType)?,
            }),
            Self::Text(_) => {}
        }
        Ok(())
    }

    /// A value that may be of another type, if it can be told in the column's own without loss. Texts are read as they
    /// would be in a CSV file.
    pub(super) fn push(&mut self, cell: Cell) -> Result<(), Misfit> {
        match (self, cell) {
            (builder, Cell::Blank) => builder.push_blank(),
            (builder, Cell::Text(text)) => return builder.push_field(text, true),
            (Self::Integer(builder), Cell::Integer(value)) => builder.append_value(value),
            (Self::Integer(builder), Cell::Float(value)) => builder.append_value(whole(value)?),
            (Self::Float(builder), Cell::Integer(value)) => builder.append_value(value as f64),
            (Self::Float(builder), Cell::Float(value)) if value.is_finite() => builder.append_value(value),
            (Self::Float(_), Cell::Float(_)) => return Err(Misfit::NotFinite),
            (Self::Boolean(builder), Cell::Boolean(value)) => builder.append_value(value),
            (Self::Date(builder), Cell::Date(days)) => builder.append_value(days),
            (Self::Date(builder), Cell::DateTime(ms)) => {
                builder.append_value(value::day_of(ms).ok_or(Misfit::WrongType)?);
            }
            (Self::DateTime(builder), Cell::Date(days)) => builder.append_value(value::midnight(days)),
            (Self::DateTime(builder), Cell::DateTime(ms)) => builder.append_value(ms),
            (Self::Text(builder), cell) => {
                let mut text = String::new();
                cell.category(&mut text);
                builder.append_value(text);
            }
            (
                Self::Integer(_) | Self::Float(_) | Self::Boolean(_) | Self::Date(_) | Self::DateTime(_),
                Cell::Integer(_) | Cell::Float(_) | Cell::Boolean(_) | Cell::Date(_) | Cell::DateTime(_),
            ) => return Err(Misfit::WrongType),
        }
        Ok(())
    }

    pub(super) fn push_blank(&mut self) {
        match self {
            Self::Integer(builder) => builder.append_null(),
            Self::Float(builder) => builder.append_null(),
            Self::Boolean(builder) => builder.append_null(),
            Self::Text(builder) => builder.append_null(),
            Self::Date(builder) => builder.append_null(),
            Self::DateTime(builder) => builder.append_null(),
        }
    }

    /// The values so far; the builder begins anew.
    pub(super) fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Integer(builder) => Arc::new(builder.finish()),
            Self::Float(builder) => Arc::new(builder.finish()),
            Self::Boolean(builder) => Arc::new(builder.finish()),
            Self::Text(builder) => Arc::new(builder.finish()),
            Self::Date(builder) => Arc::new(builder.finish()),
            Self::DateTime(builder) => Arc::new(builder.finish()),
        }
    }
}

fn whole(number: f64) -> Result<i64, Misfit> {
    let misfit = if number.trunc() == number { Misfit::OutOfRange } else { Misfit::WrongType };
    value::whole(number).ok_or(misfit)
}

fn misfit_number(text: &str) -> Misfit {
    if value::shape(text) == Shape::Infinite { Misfit::NotFinite } else { Misfit::WrongType }
}
