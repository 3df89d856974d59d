//! Random numbers without state: each is a function of a seed and of what it is drawn for.
//!
//! A draw does not depend on how many were drawn before it, so work may be cut and ordered in any way. The mixer is the
//! finaliser of SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators").

/// Mixes 64 bits so that each output bit depends on each input bit.
pub const fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The number that `seed` holds for `index`.
pub const fn draw(seed: u64, index: u64) -> u64 {
    mix(mix(seed) ^ index)
}

/// The draw as a number in [0, 1).
pub const fn unit(seed: u64, index: u64) -> f64 {
    (draw(seed, index) >> 11) as f64 / (1u64 << 53) as f64
}

/// The draw as a number in 0..n (by multiplication, Lemire 2019); 0 when n is 0.
pub const fn below(seed: u64, index: u64, n: u64) -> u64 {
    ((draw(seed, index) as u128 * n as u128) >> 64) as u64
}

/// The place of `index` in an order of 0..n that the seed chooses; `index` itself from `n` on. A Feistel network over the
/// next power of four, walked along until it is below `n` (Black, Rogaway 2002, "Ciphers with arbitrary finite domains").
pub const fn place(seed: u64, index: u64, n: u64) -> u64 {
    if index >= n || n < 2 {
        return index;
    }
    let half = (64 - (n - 1).leading_zeros()).div_ceil(2);
    let mask = (1 << half) - 1;
    let mut at = index;
    loop {
        let (mut left, mut right) = (at >> half, at & mask);
        let mut round = 0;
        while round < 4 {
            (left, right) = (right, left ^ (draw(draw(seed, round), right) & mask));
            round += 1;
        }
        at = left << half | right;
        if at < n {
            return at;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{collections::BTreeSet, vec::Vec};

    #[test]
    fn places_are_an_order() {
        for n in [1, 2, 3, 5, 16, 17, 1000] {
            let places: BTreeSet<u64> = (0..n).map(|i| place(7, i, n)).collect();
            assert_eq!(places, (0..n).collect(), "of {n}");
        }
        assert_ne!((0..100).map(|i| place(7, i, 100)).collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
        assert_ne!(place(7, 3, 1 << 40), place(8, 3, 1 << 40));
        assert_eq!(place(1, 9, 9), 9);
    }

    #[test]
    fn draws_are_golden() {
        // Models depend on these numbers: a change here changes every digest.
        assert_eq!([draw(0, 0), draw(1, 0), draw(1, 7)], GOLDEN);
    }

    const GOLDEN: [u64; 3] =
        [12_035_550_249_420_947_055, 6_791_897_765_849_424_158, 8_581_286_081_765_471_666];

    #[test]
    fn draws_are_even() {
        let n = 100_000;
        let mean = (0..n).map(|i| unit(42, i)).sum::<f64>() / n as f64;
        assert!((mean - 0.5).abs() < 0.005, "{mean}");
        let mut counts = [0; 7];
        (0..70_000).for_each(|i| counts[below(3, i, 7) as usize] += 1);
        assert!(counts.iter().all(|&c: &i32| (c - 10_000).abs() < 500), "{counts:?}");
    }
}
