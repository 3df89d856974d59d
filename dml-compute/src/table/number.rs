//! Plain decimal numbers, sixteen bytes at a time: what nearly all values of a large table are.
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
    /// The values of the digits, zero for a minus, and whatever in other lanes; the first is in the lowest lane.
    lanes: u128,
    /// How many characters stand before the point.
    whole: usize,
    /// How many characters there are.
    len: usize,
}

impl Number {
    /// The number that stands at a place, if there is one and sixteen bytes can be looked at.
    ///
    /// Where the next value begins follows from the length alone, so that little has to wait for it.
    #[inline]
    pub(super) fn read(bytes: &[u8], at: usize) -> Option<Self> {
        const HIGH: u128 = each(0x80);
        let window: [u8; LANES] = *bytes.get(at..)?.first_chunk()?;
        let negative = window[0] == b'-';
        let lanes = (u128::from_le_bytes(window) ^ each(b'0')) & !(0xFF * u128::from(negative));
        // The high bit of each lane that is above 9, and of each that is a point: sums of lanes below 0x80 do not carry.
        let others = (((lanes & !HIGH) + each(0x80 - 10)) | lanes) & HIGH;
        let apart = lanes ^ each(b'.' ^ b'0');
        let points = !(((apart & !HIGH) + each(0x7F)) | apart) & HIGH;
        let len = first_lane(others & !points);
        if len == LANES {
            return None;
        }
        let points = points & below(len);
        let whole = first_lane(points).min(len);
        let digits = len - usize::from(len > whole) - usize::from(negative);
        (digits > 0 && points & points.wrapping_sub(1) == 0).then_some(Self { negative, lanes, whole, len })
    }

    /// How many bytes it takes.
    #[inline]
    pub(super) fn bytes(self) -> usize {
        self.len
    }

    #[inline]
    pub(super) fn has_point(self) -> bool {
        self.len > self.whole
    }

    /// Whether it is a code rather than a number: `007`.
    #[inline]
    pub(super) fn is_code(self) -> bool {
        let first = self.lanes >> (8 * u32::from(self.negative));
        !self.has_point() && self.len > 1 + usize::from(self.negative) && first as u8 == 0
    }

    /// Its value, if it has no point.
    #[inline]
    pub(super) fn integer(self) -> i64 {
        let value = sum(self.lanes << (8 * (LANES - self.whole))) as i64;
        if self.negative { -value } else { value }
    }

    /// Its value, rounded correctly.
    #[inline]
    pub(super) fn float(self) -> f64 {
        let point = usize::from(self.has_point());
        let fraction = self.len - self.whole - point;
        let before = below(self.whole);
        let digits = (self.lanes & before) | ((self.lanes >> 8) & !before);
        let value = scaled(sum(digits << (8 * (LANES - self.len + point))), fraction);
        // Signs are hard to predict: a branch would cost more than the rest.
        f64::from_bits(value.to_bits() | u64::from(self.negative) << 63)
    }
}

/// The same byte in all lanes.
const fn each(byte: u8) -> u128 {
    u128::from_le_bytes([byte; LANES])
}

/// All bits of the first lanes, fewer than all.
#[inline]
fn below(lanes: usize) -> u128 {
    (1 << (8 * lanes)) - 1
}

#[inline]
fn first_lane(high: u128) -> usize {
    high.trailing_zeros() as usize / 8
}

/// The number that sixteen digits make, the highest in the lowest lane.
#[inline]
fn sum(lanes: u128) -> u64 {
    eight(lanes as u64) * 100_000_000 + eight((lanes >> 64) as u64)
}

/// Neighbours are added to pairs, pairs to fours, fours to eight.
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
