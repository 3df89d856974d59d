//! Plain decimal numbers, eight or sixteen bytes at a time: what nearly all values of a large table are.
//!
//! Digits are found and summed in the lanes of one wide integer, without a branch for each of them. After D. Lemire,
//! "Number Parsing at a Gigabyte per Second" (Software: Practice and Experience 51, 2021). Leaves out exponents, plus
//! signs and long numbers: they are rare, and [`super::value`] reads them.

use super::value::scaled;

const LANES: usize = 16;

/// A minus perhaps, digits, and a point perhaps: 15 characters at most, and something else after them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Number {
    negative: bool,
    has_point: bool,
    is_code: bool,
    /// The number that the digits make without the point.
    digits: u64,
    /// How many of them stand below the point.
    below: usize,
    bytes: usize,
}

impl Number {
    /// The number that stands at a place, if there is one and sixteen bytes can be looked at.
    ///
    /// Where the next value begins follows from the length alone, so that little has to wait for it.
    #[inline]
    pub(super) fn read(bytes: &[u8], at: usize) -> Option<Self> {
        let window = bytes.get(at..)?.first_chunk()?;
        Self::short(window).or_else(|| Self::long(window))
    }

    /// One of at most eight characters after the sign: half the work.
    #[inline]
    fn short(window: &[u8; LANES]) -> Option<Self> {
        const HIGH: u64 = all(0x80);
        let negative = window[0] == b'-';
        // Signs are hard to predict, so both are looked at.
        let sign = u64::from(negative).wrapping_neg();
        let window_after =
            |at: usize| window[at..].first_chunk().map_or(0, |lanes| u64::from_le_bytes(*lanes));
        let lanes = ((window_after(0) & !sign) | (window_after(1) & sign)) ^ all(b'0');
        // The high bit of each lane that is above 9, and of each that is a point: sums of lanes below 0x80 do not carry.
        let others = (((lanes & !HIGH) + all(0x80 - 10)) | lanes) & HIGH;
        let apart = lanes ^ all(b'.' ^ b'0');
        let points = !(((apart & !HIGH) + all(0x7F)) | apart) & HIGH;
        let end = others & !points;
        if end == 0 && matches!(window[8 + usize::from(negative)], b'0'..=b'9' | b'.') {
            return None;
        }
        let points = points & lanes_before(end);
        let (len, whole) = (first_lane(end), first_lane(points));
        let has_point = points != 0;
        let count = len - usize::from(has_point);
        if count == 0 || points & points.wrapping_sub(1) != 0 {
            return None;
        }
        let before = lanes_before(points);
        let digits = (lanes & before) | ((lanes >> 8) & !before);
        Some(Self {
            negative,
            has_point,
            is_code: !has_point && len > 1 && lanes as u8 == 0,
            digits: eight(digits << (8 * (8 - count))),
            below: count - whole.min(count),
            bytes: len + usize::from(negative),
        })
    }

    #[inline(never)]
    fn long(window: &[u8; LANES]) -> Option<Self> {
        const HIGH: u128 = each(0x80);
        let negative = window[0] == b'-';
        let sign = usize::from(negative);
        let lanes = (u128::from_le_bytes(*window) ^ each(b'0')) & !(0xFF * u128::from(negative));
        let others = (((lanes & !HIGH) + each(0x80 - 10)) | lanes) & HIGH;
        let apart = lanes ^ each(b'.' ^ b'0');
        let points = !(((apart & !HIGH) + each(0x7F)) | apart) & HIGH;
        let len = (others & !points).trailing_zeros() as usize / 8;
        if len == LANES {
            return None;
        }
        let points = points & below(len);
        let whole = (points.trailing_zeros() as usize / 8).min(len);
        let has_point = len > whole;
        let count = len - usize::from(has_point) - sign;
        if count == 0 || points & points.wrapping_sub(1) != 0 {
            return None;
        }
        let before = below(whole);
        let digits = ((lanes & before) | ((lanes >> 8) & !before)) << (8 * (LANES - sign - count));
        Some(Self {
            negative,
            has_point,
            is_code: !has_point && count > 1 && (lanes >> (8 * sign)) as u8 == 0,
            digits: eight(digits as u64) * 100_000_000 + eight((digits >> 64) as u64),
            below: sign + count - whole,
            bytes: len,
        })
    }

    /// How many bytes it takes.
    #[inline]
    pub(super) fn bytes(self) -> usize {
        self.bytes
    }

    #[inline]
    pub(super) fn has_point(self) -> bool {
        self.has_point
    }

    /// Whether it is a code rather than a number: `007`.
    #[inline]
    pub(super) fn is_code(self) -> bool {
        self.is_code
    }

    /// Its value, if it has no point.
    #[inline]
    pub(super) fn integer(self) -> i64 {
        let value = self.digits as i64;
        if self.negative { -value } else { value }
    }

    /// Its value, rounded correctly.
    #[inline]
    pub(super) fn float(self) -> f64 {
        let value = scaled(self.digits, self.below);
        // A branch on the sign would cost more than the rest.
        f64::from_bits(value.to_bits() | u64::from(self.negative) << 63)
    }
}

/// The same byte in all lanes.
const fn each(byte: u8) -> u128 {
    u128::from_le_bytes([byte; LANES])
}

/// The same byte in eight lanes.
const fn all(byte: u8) -> u64 {
    each(byte) as u64
}

/// All bits of the first lanes, fewer than all.
#[inline]
fn below(lanes: usize) -> u128 {
    (1 << (8 * lanes)) - 1
}

/// All bits of the lanes before the first whose high bit is set: of all eight, if none is.
#[inline]
fn lanes_before(high: u64) -> u64 {
    ((high & high.wrapping_neg()) >> 7).wrapping_sub(1)
}

/// The first lane whose high bit is set: eight, if none is.
#[inline]
fn first_lane(high: u64) -> usize {
    high.trailing_zeros() as usize / 8
}

/// The number that eight digits make, the highest in the lowest lane. Neighbours are added to pairs, pairs to fours,
/// fours to eight.
#[inline]
fn eight(lanes: u64) -> u64 {
    let pairs = (lanes * 10 + (lanes >> 8)) & 0x00FF_00FF_00FF_00FF;
    let fours = (pairs * 100 + (pairs >> 16)) & 0x0000_FFFF_0000_FFFF;
    (fours * 10_000 + (fours >> 32)) & 0xFFFF_FFFF
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::table::value::{Shape, float, shape};

    fn read(text: &str) -> Option<Number> {
        Number::read(format!("{text},following text").as_bytes(), 0)
    }

    #[test]
    fn what_is_no_plain_number_is_left() {
        for text in ["", "-", ".", "-.", "+1", "1e5", "1.2.3", "--1", "x", "é", "1234567890123456"] {
            let whole = read(text).is_some_and(|number| number.bytes() == text.len());
            assert!(!whole, "{text:?}");
        }
        assert!(Number::read(b"1,2", 0).is_none() && Number::read(b"", 0).is_none(), "too little to look at");
    }

    proptest! {
        #[test]
        fn numbers_are_those_of_the_standard_library(text in "[0-9]{15}|-?([0-9]{1,14}|[0-9]{0,7}[.][0-9]{1,6}|[0-9]{1,13}[.])") {
            let number = read(&text).unwrap();
            prop_assert_eq!(number.bytes(), text.len());
            prop_assert_eq!(number.float().to_bits(), text.parse::<f64>().unwrap().to_bits());
            prop_assert_eq!(Some(number.float().to_bits()), float(&text).map(f64::to_bits));
            if !number.has_point() {
                prop_assert_eq!(number.integer(), text.parse::<i64>().unwrap());
            }
            let want = match (number.has_point(), number.is_code()) {
                (true, _) => Shape::Float,
                (false, true) => Shape::Text,
                (false, false) => Shape::Integer,
            };
            prop_assert_eq!(shape(&text), want);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..40), at in 0_usize..50) {
            if let Some(number) = Number::read(&bytes, at) {
                let text = std::str::from_utf8(&bytes[at..at + number.bytes()]).unwrap();
                prop_assert_eq!(number.float(), text.parse::<f64>().unwrap());
            }
        }
    }
}
