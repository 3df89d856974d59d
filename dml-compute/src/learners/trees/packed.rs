//! Histograms on their way from a shard to the fold.
//!
//! A bit says of each bin whether it has rows; then come the bins that have, side by side: their numbers in as many bits
//! as the greatest of the histogram needs, rounded up to whole bytes a bin.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// How many bytes are read or written at once: a bin is never longer.
const WINDOW: usize = 16;

/// Bytes that are written as they are, not one by one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Packed(pub(crate) Vec<u8>);

impl Serialize for Packed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Packed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl de::Visitor<'_> for Bytes {
            type Value = Packed;

            fn expecting(&self, to: &mut std::fmt::Formatter) -> std::fmt::Result {
                to.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Packed, E> {
                Ok(Packed(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

/// Appends the cells of a histogram: `C` numbers a bin, of which the first alone may be negative and the last counts rows.
pub(crate) fn pack<const C: usize>(cells: &[i64], into: &mut Vec<u8>) {
    let (cells, _) = cells.as_chunks::<C>();
    let mut all = [0u64; C];
    for cell in cells {
        all.iter_mut().zip(fields(cell)).for_each(|(all, field)| *all |= field);
    }
    let bits = all.map(|all| u64::BITS - all.leading_zeros());
    let bytes = bytes_of(bits);
    into.extend(bits.map(|bits| bits as u8));
    let mut at = into.len() + cells.len().div_ceil(64) * 8;
    let mut masks = into.len();
    into.resize(at + cells.len() * bytes + WINDOW, 0);
    for cells in cells.chunks(64) {
        let mut mask = 0u64;
        for (i, cell) in cells.iter().enumerate().filter(|(_, cell)| cell[C - 1] != 0) {
            mask |= 1 << i;
            let mut shift = 0;
            let mut word = 0;
            for (field, bits) in fields(cell).into_iter().zip(bits) {
                word |= u128::from(field) << shift;
                shift += bits;
            }
            into[at..at + WINDOW].copy_from_slice(&word.to_le_bytes());
            at += bytes;
        }
        into[masks..masks + 8].copy_from_slice(&mask.to_le_bytes());
        masks += 8;
    }
    into[at..at + WINDOW].fill(0);
    into.truncate(at + WINDOW);
}

/// Adds a packed histogram to these cells, and gives the bytes behind it. None if it is not one of so many cells.
pub(crate) fn unpack<'a, const C: usize>(bytes: &'a [u8], cells: &mut [i64]) -> Option<&'a [u8]> {
    let (cells, _) = cells.as_chunks_mut::<C>();
    let (bits, rest) = bytes.split_first_chunk::<C>()?;
    let bits = bits.map(u32::from);
    if bits.iter().any(|&bits| bits > 63) || bits.iter().sum::<u32>() > u128::BITS {
        return None;
    }
    let (masks, mut rest) = rest.split_at_checked(cells.len().div_ceil(64) * 8)?;
    let length = bytes_of(bits);
    let (masks, _) = masks.as_chunks::<8>();
    for (cells, mask) in cells.chunks_mut(64).zip(masks) {
        let mut mask = u64::from_le_bytes(*mask);
        while mask != 0 {
            let cell = cells.get_mut(mask.trailing_zeros() as usize)?;
            mask &= mask - 1;
            let mut word = u128::from_le_bytes(*rest.first_chunk::<WINDOW>()?);
            rest = &rest[length..];
            for (channel, (to, bits)) in cell.iter_mut().zip(bits).enumerate() {
                let field = word as u64 & ((1 << bits) - 1);
                word >>= bits;
                let number =
                    if channel == 0 { (field >> 1) as i64 ^ -((field & 1) as i64) } else { field as i64 };
                *to = to.wrapping_add(number);
            }
        }
    }
    rest.split_at_checked(WINDOW).map(|(_, rest)| rest)
}

/// How long a bin is.
fn bytes_of<const C: usize>(bits: [u32; C]) -> usize {
    bits.iter().sum::<u32>().div_ceil(8) as usize
}

/// The numbers of a cell without signs: that of the first is its lowest bit.
#[inline]
fn fields<const C: usize>(cell: &[i64; C]) -> [u64; C] {
    let mut fields = cell.map(|number| number as u64);
    fields[0] = (cell[0] << 1 ^ cell[0] >> 63) as u64;
    fields
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn there_and_back<const C: usize>(cells: &[i64]) {
        let mut bytes = vec![7];
        pack::<C>(cells, &mut bytes);
        bytes.push(9);
        let mut back = vec![1; cells.len()];
        assert_eq!(unpack::<C>(&bytes[1..], &mut back), Some(&[9][..]));
        assert!(back.iter().zip(cells).all(|(back, cell)| back - 1 == *cell));
        for length in 1..bytes.len() - 1 {
            assert_eq!(unpack::<C>(&bytes[1..length], &mut back.clone()), None);
        }
    }

    #[test]
    fn the_greatest_fit_and_empty_ones_are_short() {
        let rows = i64::from(u32::MAX);
        there_and_back::<3>(&[-rows << 15, rows << 15, rows, 0, 0, 0, 5, 1, 1]);
        there_and_back::<2>(&[rows << 25, rows, -rows << 25, 1]);
        let mut bytes = Vec::new();
        pack::<3>(&[0; 3 * 255], &mut bytes);
        assert_eq!(bytes.len(), 3 + 32 + WINDOW);
    }

    proptest! {
        #[test]
        fn whatever_is_packed_comes_back(cells in prop::collection::vec((-9999..9999i64, 0..500i64, 1..9i64, any::<bool>()), 1..200)) {
            let three = cells.iter().flat_map(|&(g, h, n, there)| if there { [g, h, n] } else { [0; 3] });
            there_and_back::<3>(&three.collect::<Vec<_>>());
            let two = cells.iter().flat_map(|&(g, _, n, there)| if there { [g, n] } else { [0; 2] });
            there_and_back::<2>(&two.collect::<Vec<_>>());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = unpack::<3>(&bytes, &mut [0; 30]);
            let _ = unpack::<2>(&bytes, &mut [0; 300]);
        }
    }
}
