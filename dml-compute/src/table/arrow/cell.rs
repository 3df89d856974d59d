//! One value of a batch: every one is looked up within the bytes that came.

use std::{collections::BTreeMap, ops::Range};

use dml_core::ColumnType;

use super::{Buffers, Form, Kind, Texts, Width, damaged, place};
use crate::table::{
    column::{Cell, Misfit},
    error::TableError,
    value,
};

/// Why a value cannot be had.
pub(super) enum Fault {
    Damaged(&'static str),
    Misfit(Misfit, String),
}

/// A value of a column.
pub(super) fn cell<'a>(
    kind: Kind,
    body: &'a [u8],
    buffers: &Buffers,
    row: usize,
    dictionaries: &'a BTreeMap<i64, Texts>,
) -> Result<Cell<'a>, Fault> {
    if !buffers.validity.is_empty() && !bit(body, &buffers.validity, row)? {
        return Ok(Cell::Blank);
    }
    let float = |number: f64| if number.is_nan() { Cell::Blank } else { Cell::Float(number) };
    Ok(match kind {
        Kind::Integer(width) => Cell::Integer(integer(body, &buffers.values, row, width)?),
        Kind::Single => float(f32::from_le_bytes(fixed(body, &buffers.values, row)?).into()),
        Kind::Double => float(f64::from_le_bytes(fixed(body, &buffers.values, row)?)),
        Kind::Boolean => Cell::Boolean(bit(body, &buffers.values, row)?),
        Kind::Text(Form::Views) => Cell::Text(view(body, buffers, row)?),
        Kind::Text(form) => Cell::Text(text(body, buffers, row, form)?),
        Kind::Days => Cell::Date(day(i32::from_le_bytes(fixed(body, &buffers.values, row)?))?),
        Kind::Millis => {
            let ms = instant(i64::from_le_bytes(fixed(body, &buffers.values, row)?))?;
            Cell::Date(
                value::day_of(ms)
                    .ok_or_else(|| Fault::Misfit(Misfit::WrongType, written(Cell::DateTime(ms))))?,
            )
        }
        Kind::Instant { in_ms, of_ms } => {
            let count = i64::from_le_bytes(fixed(body, &buffers.values, row)?);
            let ms = count.div_euclid(in_ms).checked_mul(of_ms);
            Cell::DateTime(instant(ms.unwrap_or(i64::MAX))?)
        }
        Kind::Coded { id, width, .. } => {
            let texts = dictionaries.get(&id).ok_or(Fault::Damaged("a dictionary is missing"))?;
            let code = integer(body, &buffers.values, row, width)?;
            let code = usize::try_from(code).ok().filter(|code| *code < texts.count);
            let code = code.ok_or(Fault::Damaged("a code is not in its dictionary"))?;
            cell(Kind::Text(texts.form), &texts.body, &texts.buffers, code, dictionaries)?
        }
    })
}

const BEYOND: Fault = Fault::Damaged("a value lies beyond its end");

fn bit(body: &[u8], range: &Range<usize>, row: usize) -> Result<bool, Fault> {
    let byte = body.get(range.start + row / 8).ok_or(BEYOND)?;
    Ok(byte >> (row % 8) & 1 == 1)
}

fn fixed<const N: usize>(body: &[u8], range: &Range<usize>, row: usize) -> Result<[u8; N], Fault> {
    let bytes = body.get(range.start + row * N..).and_then(|rest| rest.first_chunk());
    bytes.copied().ok_or(BEYOND)
}

fn integer(body: &[u8], range: &Range<usize>, row: usize, width: Width) -> Result<i64, Fault> {
    Ok(match (width.bytes, width.signed) {
        (1, true) => i8::from_le_bytes(fixed(body, range, row)?).into(),
        (1, false) => u8::from_le_bytes(fixed(body, range, row)?).into(),
        (2, true) => i16::from_le_bytes(fixed(body, range, row)?).into(),
        (2, false) => u16::from_le_bytes(fixed(body, range, row)?).into(),
        (4, true) => i32::from_le_bytes(fixed(body, range, row)?).into(),
        (4, false) => u32::from_le_bytes(fixed(body, range, row)?).into(),
        (_, true) => i64::from_le_bytes(fixed(body, range, row)?),
        (_, false) => {
            let number = u64::from_le_bytes(fixed(body, range, row)?);
            let fits = i64::try_from(number);
            fits.map_err(|_| Fault::Misfit(Misfit::OutOfRange, number.to_string()))?
        }
    })
}

fn text<'a>(body: &'a [u8], buffers: &Buffers, row: usize, form: Form) -> Result<&'a str, Fault> {
    let end = |at: usize| -> Result<usize, Fault> {
        let offset = match form == Form::WideEnds {
            true => i64::from_le_bytes(fixed(body, &buffers.values, at)?),
            false => i32::from_le_bytes(fixed(body, &buffers.values, at)?).into(),
        };
        usize::try_from(offset).map_err(|_| BEYOND)
    };
    utf8(within(body, buffers.data.first(), end(row)?..end(row + 1)?)?)
}

fn view<'a>(body: &'a [u8], buffers: &Buffers, row: usize) -> Result<&'a str, Fault> {
    const BYTES: usize = 16;
    const SHORT: usize = 12;
    let at = buffers.values.start + row * BYTES;
    let view: &[u8; BYTES] = body.get(at..).and_then(|rest| rest.first_chunk()).ok_or(BEYOND)?;
    let number = |at: usize| {
        let bytes = view[at..].first_chunk().copied().map(i32::from_le_bytes);
        bytes.and_then(|number| usize::try_from(number).ok()).ok_or(BEYOND)
    };
    let length = number(0)?;
    if length <= SHORT {
        return utf8(&body[at + 4..][..length]);
    }
    let (buffer, start) = (number(8)?, number(12)?);
    utf8(within(body, buffers.data.get(buffer), start..start + length)?)
}

fn within<'a>(body: &'a [u8], data: Option<&Range<usize>>, range: Range<usize>) -> Result<&'a [u8], Fault> {
    data.and_then(|data| body[data.clone()].get(range)).ok_or(BEYOND)
}

fn utf8(bytes: &[u8]) -> Result<&str, Fault> {
    std::str::from_utf8(bytes).map_err(|_| Fault::Damaged("a text is not UTF-8"))
}

/// A day of the years 0 to 9999.
fn day(days: i32) -> Result<i32, Fault> {
    instant(value::midnight(days)).map(|_| days).map_err(|_| beyond_calendar(days.into()))
}

/// A millisecond of the years 0 to 9999.
fn instant(ms: i64) -> Result<i64, Fault> {
    value::is_instant(ms).then_some(ms).ok_or_else(|| beyond_calendar(ms))
}

fn beyond_calendar(number: i64) -> Fault {
    Fault::Misfit(Misfit::OutOfRange, number.to_string())
}

pub(super) fn written(cell: Cell) -> String {
    let mut text = String::new();
    cell.write(&mut text);
    text
}

impl Fault {
    pub(super) fn error(self, row: u64, column: &str, wanted: ColumnType) -> TableError {
        let place = place(row, Some(column));
        match self {
            Self::Damaged(why) => damaged(format!("{place}: {why}")),
            Self::Misfit(misfit, value) => misfit.error(place, value, wanted),
        }
    }
}
