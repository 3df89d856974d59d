//! What is summed over the rows of a bin, and what such sums are worth: all in integers until a split is judged.
//!
//! - [`Moments`]: first and second derivatives of a loss. A regression tree is the case where they are the target and
//!   the weight. Worth `G² / (H + l2)` (Chen and Guestrin 2016, "XGBoost", equation 7).
//! - [`FewClasses`], [`ManyClasses`]: how often each class occurs. Worth the sum of `count² / rows`, by which Gini impurity falls
//!   (Breiman et al. 1984, "Classification and Regression Trees").

use rayon::prelude::*;

/// Statistics of rows that add up.
///
/// What a row adds is a word: its numbers side by side in 64 bits. Words add up as whole numbers, so that one addition
/// serves all numbers of a row; before a field could run over, their sum is taken apart.
pub(crate) trait Sums: Sync {
    /// The sums over some rows.
    type Total: AsRef<[i64]> + AsMut<[i64]> + Clone + Send + Sync;

    /// Whether the sum of up to [`CAPACITY`] words can be taken apart; else each word stands alone.
    const PACKED: bool;

    /// No rows.
    fn zero(&self) -> Self::Total;

    /// A word a row.
    fn words(&self) -> &[i64];

    /// Takes a word (of a packed kind, also a sum of words) apart and adds it `sign` times to the sums in a cell.
    fn add(word: i64, sign: i64, cell: &mut [i64]);

    /// How many rows there are, each as often as it weighs.
    fn count(cell: &[i64]) -> i64;

    /// Whether no question can gain anything, as all rows of a node say the same.
    fn is_settled(total: &Self::Total, words: impl Iterator<Item = i64>) -> bool;

    /// What these rows are worth as one leaf: the more, the less loss is left.
    fn worth(&self, total: &Self::Total) -> f64;

    /// What a difference in worth is in the units of the loss.
    fn gain_unit(&self) -> f64;

    /// What a leaf of these rows says.
    fn leaf(&self, total: &Self::Total) -> Vec<f64>;
}

/// Adds (or, with -1, subtracts) all of `from` to `to`.
pub(crate) fn add_all(to: &mut [i64], from: &[i64], sign: i64) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += sign * from);
}

/// Sums of derivatives. With two channels (the first derivative and the weight) the second derivative is the weight
/// itself; with three (first, second, number of rows) they are separate.
pub(crate) struct Moments<const C: usize> {
    words: Vec<i64>,
    /// What 1 in the first channel stands for.
    unit: f64,
    /// What 1 in the second channel stands for.
    second_unit: f64,
    /// Added to the second derivative of each leaf.
    l2: f64,
    /// What a leaf says: `offset + rate * (G / (H + l2))`.
    offset: f64,
    /// See `offset`.
    rate: f64,
}

/// How many words add up before a field runs over.
pub(crate) const CAPACITY: u32 = 2047;
/// The most that a row may weigh.
pub(crate) const MAX_WEIGHT: u32 = 31;

/// Two channels: the bits of a first derivative, of weight 1.
const ALONE: i32 = 25;
/// Two channels: the bits of the sum of [`CAPACITY`] weights.
const WEIGHTS: u32 = 16;
/// Three channels: the bits of a derivative.
const SHARED: i32 = 15;
/// Three channels: the bits of the number of rows.
const ROWS: u32 = 11;
/// Three channels: the bits of the sum of [`CAPACITY`] second derivatives.
const SECONDS: u32 = SHARED as u32 + ROWS;

/// The power of two by which numbers of at most this magnitude become at most `2^bits`.
pub(crate) fn scale(magnitude: f64, bits: i32) -> f64 {
    match libm::frexp(magnitude.min(f64::MAX)) {
        (0.0, _) => 1.0,
        (_, exponent) => libm::ldexp(1.0, bits - exponent.max(-900)),
    }
}

/// The greatest magnitude among numbers; NaN counts for nothing.
pub(crate) fn magnitude(numbers: impl Iterator<Item = f64>) -> f64 {
    numbers.fold(0.0, |most, number| f64::max(most, number.abs()))
}

/// How numbers become whole ones, in `C` channels: by what they are multiplied.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale<const C: usize> {
    first: f64,
    second: f64,
}

impl<const C: usize> Scale<C> {
    /// The sums of these words.
    pub(crate) fn moments(self, words: Vec<i64>) -> Moments<C> {
        let (unit, second_unit) = (1.0 / self.first, 1.0 / self.second);
        Moments { words, unit, second_unit, l2: 0.0, offset: 0.0, rate: 1.0 }
    }
}

impl Scale<2> {
    /// For numbers up to this magnitude.
    pub(crate) fn new(greatest: f64) -> Self {
        Self { first: scale(greatest, ALONE), second: 1.0 }
    }

    /// A number and the weight of its row.
    #[inline]
    pub(crate) fn word(self, number: f64, weight: u32) -> i64 {
        let most = f64::from(1 << ALONE);
        let weight = i64::from(weight.min(MAX_WEIGHT));
        let first = (number.clamp(f64::MIN, f64::MAX) * self.first).clamp(-most, most).round() as i64;
        ((first * weight) << WEIGHTS) + weight
    }
}

impl Scale<3> {
    /// For first and second derivatives up to these magnitudes. They are rounded to 15 bits of what is the power of two
    /// above: their sums over the rows of a leaf are the finer, the more rows there are (Shi et al. 2022, "Quantized
    /// Training of Gradient Boosting Decision Trees", learn with 5 bits).
    pub(crate) fn new(first: f64, second: f64) -> Self {
        // What is a power of two itself, as the bounds of a log-loss are, becomes the most that there is.
        let scale = |greatest: f64| scale(if greatest > 0.0 { greatest.next_down() } else { 0.0 }, SHARED);
        Self { first: scale(first), second: scale(second) }
    }

    /// The negative first derivative and the second one of a row. One beyond the scale is taken for its end, so that no
    /// field runs over.
    #[inline]
    pub(crate) fn word(self, first: f64, second: f64) -> i64 {
        let most = f64::from(1 << SHARED);
        // The nearest, without a call of `round` or `floor` for each row. Ties never matter.
        let above = (first * self.first).clamp(-most, most) + 0.5;
        let first = above as i64 - i64::from(above as i64 as f64 > above);
        let second = (second * self.second + 0.5).clamp(1.0, most) as i64;
        (first << (ROWS + SECONDS)) + (second << ROWS) + 1
    }
}

impl Moments<2> {
    /// Squared error: how far each row's target is from what is known, and its weight.
    pub(crate) fn squared(residuals: &[f64], weight: impl Fn(usize) -> u32 + Sync) -> Self {
        let scale = Scale::<2>::new(magnitude(residuals.iter().copied()));
        let word = |(i, residual): (usize, &f64)| scale.word(*residual, weight(i));
        scale.moments(residuals.par_iter().enumerate().map(word).collect())
    }
}

#[cfg(test)]
impl Moments<3> {
    /// Those of so many rows, none greater in magnitude than `greatest`.
    pub(crate) fn derivatives(
        rows: usize,
        greatest: (f64, f64),
        row: impl Fn(usize) -> (f64, f64) + Sync,
    ) -> Self {
        let scale = Scale::<3>::new(greatest.0, greatest.1);
        scale.moments((0..rows).map(row).map(|(first, second)| scale.word(first, second)).collect())
    }
}

impl<const C: usize> Moments<C> {
    /// The same for leaves that are drawn towards 0 and say a part of what they found.
    pub(crate) fn drawn(self, l2: f64, rate: f64) -> Self {
        Self { l2, rate, ..self }
    }

    /// The same for leaves that say what they found beside this number.
    pub(crate) fn around(self, offset: f64) -> Self {
        Self { offset, ..self }
    }

    fn second(&self, total: &[i64; C]) -> f64 {
        total[1] as f64 * self.second_unit + self.l2
    }
}

impl<const C: usize> Sums for Moments<C> {
    type Total = [i64; C];

    const PACKED: bool = true;

    fn zero(&self) -> [i64; C] {
        [0; C]
    }

    fn words(&self) -> &[i64] {
        &self.words
    }

    #[inline]
    fn add(word: i64, sign: i64, cell: &mut [i64]) {
        let cell: &mut [i64; C] = cell.try_into().expect("a cell has a number a channel");
        let low = |bits: u32| (1 << bits) - 1;
        if C == 2 {
            cell[0] += sign * (word >> WEIGHTS);
            cell[1] += sign * (word & low(WEIGHTS));
        } else {
            cell[0] += sign * (word >> (ROWS + SECONDS));
            cell[1] += sign * ((word >> ROWS) & low(SECONDS));
            cell[2] += sign * (word & low(ROWS));
        }
    }

    #[inline]
    fn count(cell: &[i64]) -> i64 {
        cell[C - 1]
    }

    /// Rows say the same if their first derivatives are to each other as their second ones are.
    fn is_settled(total: &[i64; C], mut words: impl Iterator<Item = i64>) -> bool {
        words.all(|word| {
            let mut cell = [0; C];
            Self::add(word, 1, &mut cell);
            i128::from(cell[0]) * i128::from(total[1]) == i128::from(total[0]) * i128::from(cell[1])
        })
    }

    #[inline]
    fn worth(&self, total: &[i64; C]) -> f64 {
        let (first, second) = (total[0] as f64, self.second(total));
        if second > 0.0 { first * first / second } else { 0.0 }
    }

    fn gain_unit(&self) -> f64 {
        self.unit * self.unit
    }

    fn leaf(&self, total: &[i64; C]) -> Vec<f64> {
        let second = self.second(total);
        let step = if second > 0.0 { total[0] as f64 / second * self.unit } else { 0.0 };
        vec![self.offset + self.rate * step]
    }
}

/// How often each of two or three classes occurs: a field a class.
pub(crate) struct FewClasses<const C: usize> {
    words: Vec<i64>,
}

/// How often each of any number of classes occurs: a word names the class of its row.
pub(crate) struct ManyClasses {
    words: Vec<i64>,
    count: usize,
}

impl<const C: usize> FewClasses<C> {
    const BITS: u32 = 64 / C as u32;

    /// The class and the weight of each row.
    pub(crate) fn new(rows: impl Iterator<Item = (u32, u32)>) -> Self {
        let word = |(class, weight): (u32, u32)| i64::from(weight.min(MAX_WEIGHT)) << (class * Self::BITS);
        Self { words: rows.map(word).collect() }
    }
}

impl ManyClasses {
    /// How many classes there are; the class and the weight of each row.
    pub(crate) fn new(count: usize, rows: impl Iterator<Item = (u32, u32)>) -> Self {
        let word = |(class, weight): (u32, u32)| i64::from(class) << 32 | i64::from(weight.min(MAX_WEIGHT));
        Self { words: rows.map(word).collect(), count }
    }
}

impl<const C: usize> Sums for FewClasses<C> {
    type Total = [i64; C];

    const PACKED: bool = true;

    fn zero(&self) -> [i64; C] {
        [0; C]
    }

    fn words(&self) -> &[i64] {
        &self.words
    }

    #[inline]
    fn add(word: i64, sign: i64, cell: &mut [i64]) {
        let cell: &mut [i64; C] = cell.try_into().expect("a cell has a number a channel");
        let field = (1 << Self::BITS) - 1;
        (0..C).for_each(|c| cell[c] += sign * ((word >> (c as u32 * Self::BITS)) & field));
    }

    #[inline]
    fn count(cell: &[i64]) -> i64 {
        cell.iter().sum()
    }

    fn is_settled(total: &[i64; C], _: impl Iterator<Item = i64>) -> bool {
        is_one_class(total)
    }

    #[inline]
    fn worth(&self, total: &[i64; C]) -> f64 {
        worth_of_counts(total)
    }

    fn gain_unit(&self) -> f64 {
        1.0
    }

    fn leaf(&self, total: &[i64; C]) -> Vec<f64> {
        shares(total)
    }
}

impl Sums for ManyClasses {
    type Total = Vec<i64>;

    const PACKED: bool = false;

    fn zero(&self) -> Vec<i64> {
        vec![0; self.count]
    }

    fn words(&self) -> &[i64] {
        &self.words
    }

    #[inline]
    fn add(word: i64, sign: i64, cell: &mut [i64]) {
        cell[(word >> 32) as usize] += sign * (word & 0xffff_ffff);
    }

    #[inline]
    fn count(cell: &[i64]) -> i64 {
        cell.iter().sum()
    }

    fn is_settled(total: &Vec<i64>, _: impl Iterator<Item = i64>) -> bool {
        is_one_class(total)
    }

    #[inline]
    fn worth(&self, total: &Vec<i64>) -> f64 {
        worth_of_counts(total)
    }

    fn gain_unit(&self) -> f64 {
        1.0
    }

    fn leaf(&self, total: &Vec<i64>) -> Vec<f64> {
        shares(total)
    }
}

fn is_one_class(counts: &[i64]) -> bool {
    counts.iter().filter(|&&count| count > 0).count() < 2
}

#[inline]
fn worth_of_counts(counts: &[i64]) -> f64 {
    let count = counts.iter().sum::<i64>();
    let squares = counts.iter().map(|&n| n as f64 * n as f64).sum::<f64>();
    if count > 0 { squares / count as f64 } else { 0.0 }
}

fn shares(counts: &[i64]) -> Vec<f64> {
    let count = counts.iter().sum::<i64>();
    let share = |&n: &i64| if count > 0 { n as f64 / count as f64 } else { 1.0 / counts.len() as f64 };
    counts.iter().map(share).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn total<S: Sums>(sums: &S, rows: u32) -> S::Total {
        let mut total = sums.zero();
        sums.words()[..rows as usize].iter().for_each(|&word| S::add(word, 1, total.as_mut()));
        total
    }

    #[test]
    fn extreme_targets_neither_panic_nor_vanish() {
        for size in [0.0, 1e-320, 1e-9, 1.0, 1e300, f64::MAX] {
            let moments = Moments::squared(&[size, -size, size, size], |_| 1);
            let leaf = moments.leaf(&total(&moments, 4))[0];
            assert!((leaf - size / 2.0).abs() <= size * 1e-6 + 1e-300, "{size}: {leaf}");
        }
    }

    #[test]
    fn gini_of_two_classes_is_twice_squared_error() {
        let rows = [(0, 1), (1, 2), (1, 1), (0, 3)];
        let classes = FewClasses::<2>::new(rows.into_iter());
        let [zeros, ones] = [4.0, 3.0];
        let worth = classes.worth(&total(&classes, 4));
        assert!((worth - (zeros * zeros + ones * ones) / 7.0).abs() < 1e-12);
        assert_eq!(classes.leaf(&total(&classes, 4)), [4.0 / 7.0, 3.0 / 7.0]);
        let in_vector = ManyClasses::new(2, rows.into_iter());
        assert_eq!(in_vector.worth(&total(&in_vector, 4)), worth);
    }

    /// Words of so many rows, added up as they are and one by one.
    fn both<S: Sums>(sums: &S) -> (S::Total, S::Total) {
        let rows = sums.words().len() as u32;
        assert!(rows <= CAPACITY);
        let mut at_once = sums.zero();
        S::add(sums.words().iter().sum(), 1, at_once.as_mut());
        (at_once, total(sums, rows))
    }

    #[test]
    fn fields_hold_the_sums_of_extremes() {
        let most = CAPACITY as usize;
        for sign in [1.0, -1.0] {
            let (at_once, one_by_one) = both(&Moments::squared(&vec![sign; most], |_| MAX_WEIGHT));
            assert_eq!(at_once, one_by_one);
            let (at_once, one_by_one) = both(&Moments::derivatives(most, (1.0, 0.25), |_| (sign, 0.25)));
            assert_eq!(at_once, one_by_one);
            let just_below = |_: usize| (sign * 1.0f64.next_down(), 0.25f64.next_down());
            let (at_once, one_by_one) =
                both(&Moments::derivatives(most, (1.0f64.next_down(), 0.25f64.next_down()), just_below));
            assert_eq!(at_once, one_by_one);
            assert_eq!(
                at_once,
                [
                    (sign as i64 * i64::from(CAPACITY)) << SHARED,
                    i64::from(CAPACITY) << SHARED,
                    i64::from(CAPACITY)
                ]
            );
        }
        for class in 0..3 {
            let rows = || std::iter::repeat_n((class, MAX_WEIGHT), most);
            let (at_once, one_by_one) = both(&FewClasses::<3>::new(rows()));
            assert_eq!(at_once, one_by_one);
        }
    }

    #[test]
    fn rows_that_say_the_same_are_settled() {
        let settled = |targets: &[f64]| {
            let moments = Moments::squared(targets, |i| 1 + i as u32);
            Moments::is_settled(&total(&moments, targets.len() as u32), moments.words().iter().copied())
        };
        assert!(settled(&[2.5, 2.5, 2.5]) && settled(&[0.0, 0.0]) && !settled(&[2.5, 2.5, 2.0]));
        assert!(is_one_class(&[0, 3]) && is_one_class(&[0, 0]) && !is_one_class(&[1, 3]));
    }

    proptest! {
        #[test]
        fn a_leaf_is_the_weighted_mean(values in prop::collection::vec((-1e6..1e6f64, 1..31u32), 1..100)) {
            let residuals = values.iter().map(|&(value, _)| value).collect::<Vec<_>>();
            let moments = Moments::squared(&residuals, |i| values[i].1);
            let weight = values.iter().map(|&(_, weight)| f64::from(weight)).sum::<f64>();
            let mean = values.iter().map(|&(value, weight)| value * f64::from(weight)).sum::<f64>() / weight;
            let leaf = moments.leaf(&total(&moments, values.len() as u32))[0];
            prop_assert!((leaf - mean).abs() < 1.0, "{} {}", leaf, mean);
        }
    }
}
