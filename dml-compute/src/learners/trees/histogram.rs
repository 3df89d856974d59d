//! The sums of each bin of each feature. As integers they add up and subtract exactly, in any order: histograms over
//! shards of the rows merge into that of all rows, and a node's second child is the node less its first.

use std::ops::Range;

use rayon::prelude::*;

use super::{
    bins::Binned,
    sums::{Sums, add_all},
};

/// From how many bytes of rows on threads share the features out.
const PARALLEL_BYTES: usize = 1 << 17;

/// Sums by feature, bin and channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Histogram {
    cells: Vec<i64>,
    channels: usize,
}

impl Histogram {
    /// No rows.
    pub(crate) fn empty(table: &Binned, channels: usize) -> Self {
        let bins = table.starts[table.width] as usize;
        Self { cells: vec![0; bins * channels], channels }
    }

    /// The sums over these rows.
    pub(crate) fn of<S: Sums>(table: &Binned, sums: &S, rows: &[u32]) -> Self {
        let mut histogram = Self::empty(table, sums.zero().as_ref().len());
        histogram.add_rows(table, sums, rows, 1);
        histogram
    }

    /// Adds rows (or, with -1, takes them out).
    pub(crate) fn add_rows<S: Sums>(&mut self, table: &Binned, sums: &S, rows: &[u32], sign: i64) {
        let threads = rayon::current_num_threads();
        if threads == 1 || rows.len() * table.width < PARALLEL_BYTES {
            fill(table, sums, rows, sign, 0..table.width, &mut self.cells, self.channels);
            return;
        }
        let group = table.width.div_ceil(threads).max(1);
        let mut rest = self.cells.as_mut_slice();
        let mut groups = Vec::with_capacity(threads);
        for first in (0..table.width).step_by(group) {
            let end = (first + group).min(table.width);
            let size = (table.starts[end] - table.starts[first]) as usize * self.channels;
            let (cells, tail) = rest.split_at_mut(size);
            groups.push((first..end, cells));
            rest = tail;
        }
        let channels = self.channels;
        groups
            .into_par_iter()
            .for_each(|(features, cells)| fill(table, sums, rows, sign, features, cells, channels));
    }

    /// Takes the rows of another histogram out.
    pub(crate) fn subtract(&mut self, other: &Self) {
        add_all(&mut self.cells, &other.cells, -1);
    }

    /// The cells of one feature, bin by bin.
    pub(crate) fn feature(&self, table: &Binned, feature: usize) -> &[i64] {
        let at = |i: usize| table.starts[i] as usize * self.channels;
        &self.cells[at(feature)..at(feature + 1)]
    }

    /// How many numbers it holds.
    pub(crate) fn size(&self) -> usize {
        self.cells.len()
    }
}

/// Adds rows to the cells of these features.
fn fill<S: Sums>(
    table: &Binned,
    sums: &S,
    rows: &[u32],
    sign: i64,
    features: Range<usize>,
    cells: &mut [i64],
    channels: usize,
) {
    let starts = &table.starts[features.clone()];
    let offsets = starts.iter().map(|start| (start - starts[0]) as usize).collect::<Vec<_>>();
    for &row in rows {
        let statistics = sums.row(row, sign);
        for (&byte, &offset) in table.row(row)[features.clone()].iter().zip(&offsets) {
            S::add(statistics, &mut cells[(offset + byte as usize) * channels..][..channels]);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use dml_core::rng;
    use ndarray::Array2;
    use proptest::prelude::*;

    use super::*;
    use crate::learners::trees::{
        bins::Bins,
        sums::{Classes, Moments},
    };

    impl Histogram {
        fn merge(&mut self, other: &Self) {
            add_all(&mut self.cells, &other.cells, 1);
        }
    }

    pub(crate) fn table(rows: usize, width: usize) -> (Bins, Binned) {
        let value = |(row, column)| match rng::below(column as u64, row as u64, 50) {
            0 => f64::NAN,
            v => v as f64,
        };
        let x = Array2::from_shape_fn((rows, width), value);
        let bins = Bins::of(&x, 255);
        let mut table = Binned::empty(&bins);
        table.bytes = x.indexed_iter().map(|((_, feature), &value)| bins.bin(feature, value)).collect();
        table.y = (0..rows as u64).map(|row| rng::unit(99, row)).collect();
        table.ids = (0..rows as u64).collect();
        (bins, table)
    }

    fn splits_merge<S: Sums>(
        table: &Binned,
        sums: &S,
        shard: impl Fn(u32) -> usize,
    ) -> Result<(), TestCaseError> {
        let all = (0..table.rows() as u32).collect::<Vec<_>>();
        let whole = Histogram::of(table, sums, &all);
        let mut merged = Histogram::empty(table, whole.channels);
        let mut rest = whole.clone();
        for index in (0..4).rev() {
            let rows = all.iter().rev().copied().filter(|&row| shard(row) == index).collect::<Vec<_>>();
            let part = Histogram::of(table, sums, &rows);
            merged.merge(&part);
            if index % 2 == 0 { rest.subtract(&part) } else { rest.add_rows(table, sums, &rows, -1) }
        }
        prop_assert_eq!(&merged, &whole);
        prop_assert!(rest.cells.iter().all(|&cell| cell == 0));
        for feature in 0..table.width {
            let count = whole.feature(table, feature).chunks(whole.channels).map(S::count).sum::<i64>();
            prop_assert_eq!(count, all.len() as i64);
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn any_split_of_the_rows_merges_to_the_whole(seed: u64, rows in 1..300usize, width in 1..5usize) {
            let (_, table) = table(rows, width);
            let shard = |row: u32| rng::below(seed, u64::from(row), 4) as usize;
            splits_merge(&table, &Moments::squared(&table.y, |_| 1), shard)?;
            splits_merge(&table, &Moments::bounded(table.y.iter().map(|&y| (y, y / 4.0)).collect()), shard)?;
            let rows = table.y.iter().map(|y| ((y * 3.0) as u32, 1)).collect();
            splits_merge(&table, &Classes { zero: [0; 3], rows }, shard)?;
        }
    }

    #[test]
    fn threads_share_features_without_a_trace() {
        let (_, table) = table(20_000, 9);
        let sums = Moments::squared(&table.y, |_| 1);
        let rows = (0..20_000).collect::<Vec<_>>();
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| Histogram::of(&table, &sums, &rows))
        };
        assert_eq!(with(1), with(4));
        assert_eq!(with(1), with(7));
    }
}
