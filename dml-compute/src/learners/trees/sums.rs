//! What is summed over the rows of a bin, and what such sums are worth: all in integers until a split is judged.
//!
//! - [`Moments`]: first and second derivatives of a loss. A regression tree is the case where they are the target and
//!   the weight. Worth `G² / (H + l2)` (Chen and Guestrin 2016, "XGBoost", equation 7).
//! - [`Classes`]: how often each class occurs. Worth the sum of `count² / rows`, by which Gini impurity falls
//!   (Breiman et al. 1984, "Classification and Regression Trees").

/// Statistics of rows that add up.
pub(crate) trait Sums: Sync {
    /// The sums over some rows.
    type Total: AsRef<[i64]> + AsMut<[i64]> + Clone + Send + Sync;
    /// What one row adds.
    type Row: Copy;

    /// No rows.
    fn zero(&self) -> Self::Total;

    /// What this row adds, `sign` times.
    fn row(&self, row: u32, sign: i64) -> Self::Row;

    /// Adds a row to the sums in a cell of a histogram.
    fn add(row: Self::Row, cell: &mut [i64]);

    /// How many rows there are, each as often as it weighs.
    fn count(cell: &[i64]) -> i64;

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

/// Sums of derivatives. With two channels the second derivative is the weight itself; with three they are separate.
pub(crate) struct Moments<const C: usize> {
    /// The negative first derivative, the second derivative, and with three channels the weight, a row.
    pub(crate) rows: Vec<[i32; C]>,
    /// What 1 in the first channel stands for.
    pub(crate) unit: f64,
    /// What 1 in the second channel stands for.
    pub(crate) second_unit: f64,
    /// Added to the second derivative of each leaf.
    pub(crate) l2: f64,
    /// What a leaf says: `offset + rate * (G / (H + l2))`.
    pub(crate) offset: f64,
    /// See `offset`.
    pub(crate) rate: f64,
}

/// How many bits the whole part of a fixed-point number has at most; a row may weigh up to 32.
const BITS: i32 = 25;
/// The most that a row may weigh.
pub(crate) const MAX_WEIGHT: u32 = 31;

/// The power of two by which numbers of at most this magnitude fit into [`BITS`] bits.
fn scale(magnitude: f64) -> f64 {
    match libm::frexp(magnitude.min(f64::MAX)) {
        (0.0, _) => 1.0,
        (_, exponent) => libm::ldexp(1.0, BITS - exponent.max(-900)),
    }
}

/// The greatest magnitude among numbers; NaN counts for nothing.
pub(crate) fn magnitude(numbers: impl Iterator<Item = f64>) -> f64 {
    numbers.fold(0.0, |most, number| f64::max(most, number.abs()))
}

impl Moments<2> {
    /// Squared error: how far each row's target is from what is known, and its weight.
    pub(crate) fn squared(residuals: &[f64], weight: impl Fn(usize) -> u32) -> Self {
        let scale = scale(magnitude(residuals.iter().copied()));
        let row = |(i, residual): (usize, &f64)| {
            let weight = weight(i).min(MAX_WEIGHT) as i32;
            [(residual.clamp(f64::MIN, f64::MAX) * scale).round() as i32 * weight, weight]
        };
        let rows = residuals.iter().enumerate().map(row).collect();
        Self { rows, unit: 1.0 / scale, second_unit: 1.0, l2: 0.0, offset: 0.0, rate: 1.0 }
    }
}

impl Moments<3> {
    /// A loss whose derivatives are at most 1 and 2 in magnitude: those of log-loss, negative first and second.
    pub(crate) fn bounded(derivatives: Vec<(f64, f64)>) -> Self {
        let one = f64::from(1 << (BITS - 1));
        let row = |(first, second): (f64, f64)| {
            [(first * one).round() as i32, ((second * one).round() as i32).max(1), 1]
        };
        let rows = derivatives.into_iter().map(row).collect();
        Self { rows, unit: 1.0 / one, second_unit: 1.0 / one, l2: 0.0, offset: 0.0, rate: 1.0 }
    }
}

impl<const C: usize> Moments<C> {
    fn second(&self, total: &[i64; C]) -> f64 {
        total[1] as f64 * self.second_unit + self.l2
    }
}

impl<const C: usize> Sums for Moments<C> {
    type Total = [i64; C];
    type Row = [i64; C];

    fn zero(&self) -> [i64; C] {
        [0; C]
    }

    #[inline]
    fn row(&self, row: u32, sign: i64) -> [i64; C] {
        self.rows[row as usize].map(|value| i64::from(value) * sign)
    }

    #[inline]
    fn add(row: [i64; C], cell: &mut [i64]) {
        let cell: &mut [i64; C] = cell.try_into().expect("a cell has a number a channel");
        (0..C).for_each(|c| cell[c] += row[c]);
    }

    #[inline]
    fn count(cell: &[i64]) -> i64 {
        cell[C - 1]
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

/// How often each class occurs. The counts are an array if the classes are few, for speed, else a vector.
pub(crate) struct Classes<T> {
    /// A zero a class.
    pub(crate) zero: T,
    /// The class and the weight of each row.
    pub(crate) rows: Vec<(u32, u32)>,
}

impl<T: AsRef<[i64]> + AsMut<[i64]> + Clone + Send + Sync> Sums for Classes<T> {
    type Total = T;
    type Row = (usize, i64);

    fn zero(&self) -> T {
        self.zero.clone()
    }

    #[inline]
    fn row(&self, row: u32, sign: i64) -> (usize, i64) {
        let (class, weight) = self.rows[row as usize];
        (class as usize, i64::from(weight) * sign)
    }

    #[inline]
    fn add((class, weight): (usize, i64), cell: &mut [i64]) {
        cell[class] += weight;
    }

    #[inline]
    fn count(cell: &[i64]) -> i64 {
        cell.iter().sum()
    }

    #[inline]
    fn worth(&self, total: &T) -> f64 {
        let total = total.as_ref();
        let count = Self::count(total);
        let squares = total.iter().map(|&n| n as f64 * n as f64).sum::<f64>();
        if count > 0 { squares / count as f64 } else { 0.0 }
    }

    fn gain_unit(&self) -> f64 {
        1.0
    }

    fn leaf(&self, total: &T) -> Vec<f64> {
        let total = total.as_ref();
        let count = Self::count(total);
        let share = |&n: &i64| if count > 0 { n as f64 / count as f64 } else { 1.0 / total.len() as f64 };
        total.iter().map(share).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn total<S: Sums>(sums: &S, rows: u32) -> S::Total {
        let mut total = sums.zero();
        (0..rows).for_each(|row| S::add(sums.row(row, 1), total.as_mut()));
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
        let classes = Classes { zero: [0; 2], rows: vec![(0, 1), (1, 2), (1, 1), (0, 3)] };
        let [zeros, ones] = [4.0, 3.0];
        let worth = classes.worth(&total(&classes, 4));
        assert!((worth - (zeros * zeros + ones * ones) / 7.0).abs() < 1e-12);
        assert_eq!(classes.leaf(&total(&classes, 4)), [4.0 / 7.0, 3.0 / 7.0]);
        let in_vector = Classes { zero: vec![0; 2], rows: classes.rows };
        assert_eq!(in_vector.worth(&total(&in_vector, 4)), worth);
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
