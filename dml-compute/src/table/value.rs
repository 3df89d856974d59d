//! How a value is written as text, and what a text can be read as. Knows nothing of columns or files.
//!
//! - Blank: nothing at all, or one of the words of [`is_blank`], exactly so.
//! - Whole numbers: digits, with or without a sign. With a leading zero, as in `00501`, they are text: codes.
//! - Numbers: the decimal point is a point; an exponent may follow. No hexadecimals, no thousands separators.
//! - Booleans: `true` and `false` in any case. `yes`, `no`, `0` and `1` are none.
//! - Dates: `YYYY-MM-DD`. Date-times: a date, `T` or a blank, `HH:MM`, maybe `:SS` and a fraction (cut to milliseconds),
//!   maybe `Z` or an offset as `+01:00`, which is then taken off. Years 0 to 9999.

use std::fmt::Write;

const DAY_MS: i64 = 86_400_000;

/// What a text that was trimmed could be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Blank,
    Integer,
    Float,
    /// A number that is not finite.
    Infinite,
    Boolean,
    Date,
    DateTime,
    Text,
}

/// Without blanks and tabs at both ends.
#[inline]
pub(super) fn trim(text: &str) -> &str {
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let bytes = text.as_bytes();
    if blank(bytes.first()) || blank(bytes.last()) { text.trim_matches([' ', '\t']) } else { text }
}

/// What stands for a value that is not there: nothing at all, or one of these words.
#[inline]
pub(super) fn is_blank(text: &str) -> bool {
    matches!(
        text,
        "" | "?" | "NA" | "N/A" | "n/a" | "#N/A" | "<NA>" | "NaN" | "nan" | "-nan" | "NULL" | "null" | "None"
    )
}

pub(super) fn shape(text: &str) -> Shape {
    let Some(first) = text.bytes().next() else { return Shape::Blank };
    if (first.is_ascii_digit() || matches!(first, b'+' | b'-' | b'.'))
        && let Some(shape) = number(text)
    {
        return shape;
    }
    match first {
        b'0'..=b'9' if date(text).is_some() => Shape::Date,
        b'0'..=b'9' if date_time(text).is_some() => Shape::DateTime,
        _ if is_blank(text) => Shape::Blank,
        _ if boolean(text).is_some() => Shape::Boolean,
        _ if is_infinity(text) => Shape::Infinite,
        _ => Shape::Text,
    }
}

/// What kind of number a text is, if it is one in digits.
fn number(text: &str) -> Option<Shape> {
    /// With fewer digits than this no number overflows.
    const SAFE_DIGITS: usize = 300;
    let bytes = text.as_bytes();
    let digits = |from: usize| bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let start = usize::from(matches!(bytes[0], b'+' | b'-'));
    let whole = digits(start);
    let mut at = start + whole;
    if at == bytes.len() && whole > 0 {
        return Some(match whole {
            1..=18 if whole > 1 && bytes[start] == b'0' => Shape::Text,
            1..=18 => Shape::Integer,
            _ if bytes[start] == b'0' => Shape::Text,
            _ if text.parse::<i64>().is_ok() => Shape::Integer,
            _ => finite(text),
        });
    }
    let mut fraction = 0;
    if bytes.get(at) == Some(&b'.') {
        fraction = digits(at + 1);
        at += 1 + fraction;
    }
    if whole + fraction == 0 {
        return None;
    }
    if at == bytes.len() {
        return Some(if whole + fraction < SAFE_DIGITS { Shape::Float } else { finite(text) });
    }
    if !matches!(bytes[at], b'e' | b'E') {
        return None;
    }
    at += 1 + usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
    let exponent = digits(at);
    (exponent > 0 && at + exponent == bytes.len()).then(|| finite(text))
}

fn finite(number: &str) -> Shape {
    if float(number).is_some() { Shape::Float } else { Shape::Infinite }
}

/// A finite number.
#[inline]
pub(super) fn float(text: &str) -> Option<f64> {
    decimal(text).or_else(|| fast_float2::parse::<f64, _>(text).ok().filter(|value| value.is_finite()))
}

/// A number of few digits and no exponent, as most are: its digits and the power of ten below them are whole numbers
/// that floats hold exactly, so that their quotient is rounded once, and correctly. After W. D. Clinger, "How to Read
/// Floating Point Numbers Accurately" (1990).
#[inline]
fn decimal(text: &str) -> Option<f64> {
    let (negative, digits) = match text.as_bytes() {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.len() > 15 {
        return None;
    }
    let (mut number, mut point) = (0_u64, None);
    for (at, byte) in digits.iter().enumerate() {
        match byte {
            b'0'..=b'9' => number = number * 10 + u64::from(byte - b'0'),
            b'.' if point.is_none() => point = Some(at),
            _ => return None,
        }
    }
    let below = match point {
        Some(at) => digits.len() - at - 1,
        None => 0,
    };
    if digits.len() == usize::from(point.is_some()) {
        return None;
    }
    let value = scaled(number, below);
    Some(if negative { -value } else { value })
}

/// A number of at most 15 digits, some of them below the point, as the nearest float.
#[inline]
pub(super) fn scaled(digits: u64, below: usize) -> f64 {
    const POWERS: [f64; 16] =
        [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];
    // Signed, as processors convert.
    digits as i64 as f64 / POWERS[below & 15]
}

/// Whether it is a word for infinity.
fn is_infinity(text: &str) -> bool {
    let word = text.strip_prefix(['+', '-']).unwrap_or(text);
    word.eq_ignore_ascii_case("inf") || word.eq_ignore_ascii_case("infinity")
}

/// The whole number that a float is, if it is one in range.
pub(super) fn whole(value: f64) -> Option<i64> {
    let limit = i64::MAX as f64;
    (value.trunc() == value && value >= -limit && value < limit).then_some(value as i64)
}

pub(super) fn boolean(text: &str) -> Option<bool> {
    if text.eq_ignore_ascii_case("true") {
        Some(true)
    } else if text.eq_ignore_ascii_case("false") {
        Some(false)
    } else {
        None
    }
}

/// Days since 1970-01-01.
pub(super) fn date(text: &str) -> Option<i32> {
    let bytes = text.as_bytes();
    if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' {
        return None;
    }
    let (year, month, day) = (digits(&bytes[..4])?, digits(&bytes[5..7])?, digits(&bytes[8..])?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i64::from(leap),
        _ => return None,
    };
    (1..=days).contains(&day).then(|| days_from_civil(year, month, day) as i32)
}

/// Milliseconds since 1970-01-01T00:00.
pub(super) fn date_time(text: &str) -> Option<i64> {
    let days = date(text.get(..10)?)?;
    let (b'T' | b' ', time) = text.as_bytes()[10..].split_first().map(|(t, rest)| (*t, rest))? else {
        return None;
    };
    let pair = |from: usize| digits(time.get(from..from + 2)?);
    let (hour, minute) = (pair(0)?, pair(3)?);
    let mut at = 5;
    let (mut second, mut fraction) = (0, 0);
    if time.get(at) == Some(&b':') {
        second = pair(6)?;
        at = 8;
        if time.get(at) == Some(&b'.') {
            let len = time[9..].iter().take_while(|b| b.is_ascii_digit()).count();
            if !(1..=9).contains(&len) {
                return None;
            }
            fraction =
                (0..3).fold(0, |ms, i| ms * 10 + time[9..9 + len].get(i).map_or(0, |b| i64::from(b - b'0')));
            at = 9 + len;
        }
    }
    let offset = match time.get(at..)? {
        [] | b"Z" => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (digits(&[*h1, *h2])?, digits(&[*m1, *m2])?);
            let offset = hours * 60 + minutes;
            (hours < 24 && minutes < 60).then_some(if *sign == b'-' { -offset } else { offset })?
        }
        _ => return None,
    };
    if time.get(2) != Some(&b':') || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let time_ms = ((hour * 60 + minute - offset) * 60 + second) * 1000 + fraction;
    let ms = midnight(days) + time_ms;
    is_instant(ms).then_some(ms)
}

/// Whether it is in the years 0 to 9999.
pub(super) fn is_instant(ms: i64) -> bool {
    let (first, last) = (days_from_civil(0, 1, 1) * DAY_MS, days_from_civil(10_000, 1, 1) * DAY_MS);
    (first..last).contains(&ms)
}

/// The instant at which a day begins.
pub(super) fn midnight(days: i32) -> i64 {
    i64::from(days) * DAY_MS
}

/// The day of an instant at midnight; none if it has a time of day.
pub(super) fn day_of(ms: i64) -> Option<i32> {
    (ms % DAY_MS == 0).then(|| i32::try_from(ms / DAY_MS).ok()).flatten()
}

fn digits(bytes: &[u8]) -> Option<i64> {
    bytes.iter().try_fold(0, |n, b| b.is_ascii_digit().then(|| n * 10 + i64::from(b - b'0')))
}

/// After Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms": years begin in March, eras have 400 years.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = (shifted + 2) % 12 + 1;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

/// The day so many days after 1970-01-01 in the Gregorian calendar: `YYYY-MM-DD`.
pub fn date_text(days: i64) -> String {
    let mut text = String::new();
    write_date(days, &mut text);
    text
}

/// `YYYY-MM-DD`.
pub(super) fn write_date(days: i64, out: &mut String) {
    let (year, month, day) = civil_from_days(days);
    write!(out, "{year:04}-{month:02}-{day:02}").expect("writing to a string");
}

/// `YYYY-MM-DDTHH:MM:SS`, and milliseconds if there are any.
pub(super) fn write_date_time(ms: i64, out: &mut String) {
    write_date(ms.div_euclid(DAY_MS), out);
    let ms = ms.rem_euclid(DAY_MS);
    let (seconds, ms) = (ms / 1000, ms % 1000);
    write!(out, "T{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
        .expect("writing to a string");
    if ms != 0 {
        write!(out, ".{ms:03}").expect("writing to a string");
    }
}

/// The shortest text that reads back as the same number, and as a float: `1.0`, `1e300`.
pub(super) fn write_float(value: f64, out: &mut String) {
    // Where neither writes an exponent, the faster one says the same.
    if (1e-4..1e15).contains(&value.abs()) {
        out.push_str(zmij::Buffer::new().format_finite(value));
    } else {
        write!(out, "{value:?}").expect("writing to a string");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_have_the_shapes_that_the_page_says() {
        let table = [
            (Shape::Blank, "|NA|N/A|n/a|NaN|nan|-nan|NULL|null|None|?|#N/A|<NA>"),
            (Shape::Integer, "0|7|-7|+7|42|-0|9223372036854775807|-9223372036854775808"),
            (
                Shape::Float,
                "1.5|.5|5.|+.5e-3|1e5|1E+5|-0.0|9223372036854775808|00.5|1e-400|1.7976931348623157e308",
            ),
            (Shape::Infinite, "inf|-Inf|+INFINITY|1e400|-1e309"),
            (Shape::Boolean, "true|FALSE|True"),
            (Shape::Date, "1970-01-01|2024-02-29|0000-01-01|9999-12-31"),
            (
                Shape::DateTime,
                "2024-02-29T23:59|2024-02-29 23:59:59|2024-01-01T00:00:00.5Z|2024-01-01 00:00-05:30|\
                 2024-01-01T00:00:00.123456789+14:00",
            ),
            (
                Shape::Text,
                "00501|-07|00|yes|no|.|-|+|1e|1e+|1.2.3|1,5|0x10|1_000|--1|NAN|none|2023-02-29|2024-13-01|2024-1-1|\
                 2024-01-01T24:00|2024-01-01T00:00:60|2024-01-01T00:00:00.|2024-01-01T|2024-01-01X00:00|\
                 2024-01-01T00:00+1:00|0000-01-01T00:00+01:00|9999-12-31T23:00-01:00|2024-01-01T0000|é|+é|1é",
            ),
        ];
        for (want, texts) in table {
            for text in texts.split('|') {
                assert_eq!(shape(text), want, "{text:?}");
            }
        }
        assert_eq!(shape(&"9".repeat(310)), Shape::Infinite);
        assert_eq!(shape(&format!("{}.0", "9".repeat(310))), Shape::Infinite);
        assert_eq!(shape(&"9".repeat(308)), Shape::Float);
    }

    #[test]
    fn dates_agree_with_known_ones() {
        // The figures are those of `date -u -d TEXT +%s`.
        for (text, seconds) in
            [("1970-01-01", 0), ("2000-02-29", 951_782_400), ("1899-12-31", -2_209_075_200_i64)]
        {
            assert_eq!(date(text).map(|days| i64::from(days) * 86_400), Some(seconds), "{text}");
        }
        assert_eq!(date_time("2026-03-01T12:30:15.250+02:00"), Some(1_772_361_015_250));
        assert_eq!(date_time("1969-12-31 23:59:59.9996"), Some(-1));
    }

    #[test]
    fn trims_blanks_and_tabs_alone() {
        for (text, want) in
            [(" a\t", "a"), ("a ", "a"), (" ", ""), ("", ""), ("\u{a0}a\n", "\u{a0}a\n"), (" a b", "a b")]
        {
            assert_eq!(trim(text), want);
        }
    }

    #[test]
    fn floats_are_whole_only_in_range() {
        assert_eq!(whole(-3.0), Some(-3));
        assert_eq!(whole(0.5), None);
        assert_eq!(whole(9_223_372_036_854_775_808.0), None);
        assert_eq!(whole(f64::INFINITY), None);
    }

    proptest! {
        #[test]
        fn numbers_are_written_as_rust_shows_them(any: f64, digits in -1_000_000_i64..1_000_000, below in 0..6) {
            for value in [any, digits as f64, digits as f64 / 10_f64.powi(below)] {
                let mut text = String::new();
                write_float(value, &mut text);
                prop_assert_eq!(text, format!("{value:?}"));
            }
        }

        #[test]
        fn every_day_is_written_and_read(days in -719_528_i32..2_932_897) {
            let mut text = String::new();
            write_date(days.into(), &mut text);
            prop_assert_eq!(date(&text), Some(days));
        }

        #[test]
        fn every_instant_is_written_and_read(ms in -62_167_219_200_000_i64..253_402_300_800_000) {
            let mut text = String::new();
            write_date_time(ms, &mut text);
            prop_assert_eq!(date_time(&text), Some(ms));
        }

        #[test]
        fn every_float_is_written_and_read(bits: u64) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            let mut text = String::new();
            write_float(value, &mut text);
            prop_assert_eq!(shape(&text), Shape::Float);
            prop_assert_eq!(float(&text).map(f64::to_bits), Some(bits));
        }

        #[test]
        fn short_decimals_are_read_as_the_standard_library_reads_them(text in "-?[0-9]{0,9}[.]?[0-9]{0,9}") {
            let std = text.parse::<f64>().ok().map(f64::to_bits);
            prop_assert_eq!(float(&text).map(f64::to_bits), std);
        }

        #[test]
        fn what_has_the_shape_of_a_number_is_one(text in "[-+]?[0-9]{0,4}[.]?[0-9]{0,4}([eE][-+]?[0-9]{0,3})?") {
            let std = text.parse::<f64>().ok();
            match shape(&text) {
                Shape::Integer => prop_assert_eq!(text.parse::<i64>().ok().map(|n| n as f64), std),
                Shape::Float => prop_assert_eq!(float(&text), std),
                Shape::Infinite => prop_assert_eq!(std.map(f64::is_infinite), Some(true)),
                Shape::Blank | Shape::Boolean | Shape::Date | Shape::DateTime | Shape::Text => {
                    prop_assert!(std.is_none() || text.trim_start_matches(['+', '-']).starts_with('0'));
                }
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,24}", tail in "[-0-9T: .Z+]{0,24}") {
            shape(&text);
            shape(&tail);
            shape(&format!("2024-01-01{text}"));
            shape(&format!("2024-01-01T{tail}"));
        }
    }
}
