//! The sums of each bin of each feature. As integers they add up and subtract exactly, in any order: histograms over
//! shards of the rows merge into that of all rows, and a node's second child is the node less its first.
//!
//! Words of packed sums (see [`Sums`]) are added up in tables of 256 words a feature, and are taken apart before a bin
//! may have had more rows than a word can count.

use std::hint::black_box;

use super::{
    binned::{Binned, CROWD_ROWS, GROUP},
    sums::{CAPACITY, Sums, add_all},
};

/// From how many rows on threads share them.
const PARALLEL_ROWS: usize = 1 << 12;
/// How many shares there are for each thread, so that one that other programs hold up leaves its next to the rest.
const SHARES: usize = 4;

/// A word a bin.
pub(crate) type Words = [i64; 256];

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

    /// The sums over these rows, which ascend. `threads` says whether several may share them.
    pub(crate) fn of<S: Sums>(table: &Binned, sums: &S, rows: &[u32], threads: bool) -> Self {
        let shares = match rayon::current_num_threads() {
            count if threads && count > 1 => (count * SHARES).min(rows.len() / PARALLEL_ROWS),
            _ => 1,
        };
        Self::of_shares(table, sums, rows, shares)
    }

    fn of_shares<S: Sums>(table: &Binned, sums: &S, rows: &[u32], shares: usize) -> Self {
        if shares < 2 {
            let mut histogram = Self::empty(table, sums.zero().as_ref().len());
            histogram.add(table, sums, rows);
            return histogram;
        }
        let half = shares / 2;
        let (first, second) = rows.split_at(rows.len() / shares * half);
        let of = |rows, shares| move || Self::of_shares(table, sums, rows, shares);
        let (mut histogram, other) = rayon::join(of(first, half), of(second, shares - half));
        add_all(&mut histogram.cells, &other.cells, 1);
        histogram
    }

    fn add<S: Sums>(&mut self, table: &Binned, sums: &S, rows: &[u32]) {
        if S::PACKED {
            self.add_packed(table, sums, rows);
        } else {
            self.add_rows(table, sums, rows, 1);
        }
    }

    /// Adds rows one by one (or, with -1, takes them out): for few rows.
    pub(crate) fn add_rows<S: Sums>(&mut self, table: &Binned, sums: &S, rows: &[u32], sign: i64) {
        for &row in rows {
            let word = sums.words()[row as usize];
            for (&bin, &start) in table.row(row).iter().zip(&table.starts) {
                S::add(
                    word,
                    sign,
                    &mut self.cells[(start as usize + usize::from(bin)) * self.channels..][..self.channels],
                );
            }
        }
    }

    /// Adds rows, some hundred at a time, feature group by feature group, so that the rows' words, their bins and the
    /// sums of a group stay in the nearest caches.
    fn add_packed<S: Sums>(&mut self, table: &Binned, sums: &S, rows: &[u32]) {
        let (words, groups) = (sums.words(), table.row_groups());
        let mut tables = vec![[0; 256]; table.width];
        let mut held = vec![0; table.width];
        let mut gathered = [0; CROWD_ROWS];
        for rows in rows.chunks(CROWD_ROWS) {
            let (Some(&first), Some(&last)) = (rows.first(), rows.last()) else { break };
            // The ends of each row's bins are read here for nothing but to have them in a near cache below: the processor
            // waits for the memory of many rows at once here, and of few where it also adds.
            let mut ends = 0;
            for (word, &row) in gathered.iter_mut().zip(rows) {
                *word = words[row as usize];
                if let [first, .., last] = &table.groups[row as usize * groups..][..groups] {
                    ends ^= first[0] ^ last[0];
                }
            }
            black_box(ends);
            for (feature, held) in held.iter_mut().enumerate() {
                let more = table.crowd(feature, first, last).min(rows.len() as u32);
                if *held + more > CAPACITY {
                    self.take_apart::<S>(table, feature, &mut tables[feature]);
                    *held = 0;
                }
                *held += more;
            }
            let gathered = &gathered[..rows.len()];
            let (whole, rest) = tables.as_chunks_mut::<GROUP>();
            let last_group = whole.len();
            for (group, tables) in whole.iter_mut().enumerate() {
                add_group(table, group, rows, gathered, tables);
            }
            match rest {
                [a] => add_group(table, last_group, rows, gathered, std::array::from_mut(a)),
                [_, _] => add_group::<2>(table, last_group, rows, gathered, exact(rest)),
                [_, _, _] => add_group::<3>(table, last_group, rows, gathered, exact(rest)),
                _ => {}
            }
        }
        for (feature, words) in tables.iter_mut().enumerate() {
            self.take_apart::<S>(table, feature, words);
        }
    }

    /// Moves sums of words to where they have room.
    fn take_apart<S: Sums>(&mut self, table: &Binned, feature: usize, words: &mut Words) {
        let channels = self.channels;
        let start = table.starts[feature] as usize * channels;
        let cells = self.cells[start..].chunks_exact_mut(channels);
        for (cell, word) in cells.zip(&mut words[..table.bins(feature)]) {
            S::add(std::mem::take(word), 1, cell);
        }
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

    /// All cells, feature by feature.
    pub(crate) fn cells(&self) -> &[i64] {
        &self.cells
    }

    /// The same, to add to.
    pub(crate) fn cells_mut(&mut self) -> &mut [i64] {
        &mut self.cells
    }

    /// How many numbers it holds.
    pub(crate) fn size(&self) -> usize {
        self.cells.len()
    }
}

fn exact<const N: usize>(tables: &mut [Words]) -> &mut [Words; N] {
    tables.try_into().expect("the slice was matched to be so long")
}

/// Adds rows' words to the bins of the first `N` features of a group.
#[inline]
fn add_group<const N: usize>(
    table: &Binned,
    group: usize,
    rows: &[u32],
    words: &[i64],
    tables: &mut [Words; N],
) {
    let groups = table.row_groups();
    let bins = &table.groups[group..];
    for (&row, &word) in rows.iter().zip(words) {
        let bins = bins[row as usize * groups];
        for (words, bin) in tables.iter_mut().zip(bins) {
            words[usize::from(bin)] += word;
        }
    }
}

/// Adds rows' words to the sums of the bins of one feature, `channels` a bin: for nodes that look at few features.
pub(crate) fn add_column<S: Sums>(
    table: &Binned,
    feature: usize,
    rows: &[u32],
    words: &[i64],
    cells: &mut [i64],
    channels: usize,
) {
    if !S::PACKED {
        let add = |bin, word| S::add(word, 1, &mut cells[usize::from(bin) * channels..][..channels]);
        return table.each_bin(feature, rows, words, add);
    }
    let mut sums = [0; 256];
    for (rows, words) in rows.chunks(CAPACITY as usize).zip(words.chunks(CAPACITY as usize)) {
        table.each_bin(feature, rows, words, |bin, word| sums[usize::from(bin)] += word);
        for (cell, word) in cells.chunks_exact_mut(channels).zip(&mut sums[..table.bins(feature)]) {
            S::add(std::mem::take(word), 1, cell);
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
        sums::{FewClasses, ManyClasses, Moments},
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
        let y = (0..rows as u64).map(|row| rng::unit(99, row)).collect();
        let table = Binned::of_matrix(&bins, &x, y);
        (bins, table)
    }

    fn splits_merge<S: Sums>(
        table: &Binned,
        sums: &S,
        shard: impl Fn(u32) -> usize,
    ) -> Result<(), TestCaseError> {
        let all = (0..table.rows() as u32).collect::<Vec<_>>();
        let whole = Histogram::of(table, sums, &all, true);
        let mut merged = Histogram::empty(table, whole.channels);
        let mut rest = whole.clone();
        for index in (0..4).rev() {
            let rows = all.iter().copied().filter(|&row| shard(row) == index).collect::<Vec<_>>();
            let part = Histogram::of(table, sums, &rows, false);
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
        fn any_split_of_the_rows_merges_to_the_whole(seed: u64, rows in 1..300usize, width in 1..10usize) {
            let (_, table) = table(rows, width);
            let shard = |row: u32| rng::below(seed, u64::from(row), 4) as usize;
            splits_merge(&table, &Moments::squared(&table.y, |_| 1), shard)?;
            let derivatives = |i: usize| (table.y[i], table.y[i] / 4.0);
            splits_merge(&table, &Moments::derivatives(rows, (1.0, 0.25), derivatives), shard)?;
            let classes = || table.y.iter().map(|y| ((y * 3.0) as u32, 1));
            splits_merge(&table, &FewClasses::<3>::new(classes()), shard)?;
            splits_merge(&table, &ManyClasses::new(7, classes()), shard)?;
        }
    }

    #[test]
    fn words_are_taken_apart_before_they_run_over() {
        // One bin has nearly all rows of a feature, far more than a word can count.
        let value = |(row, column): (usize, usize)| {
            if column == 1 { f64::from(u32::from(row == 7)) } else { row as f64 }
        };
        let x = Array2::from_shape_fn((30_000, 6), value);
        let bins = Bins::of(&x, 255);
        let table = Binned::of_matrix(&bins, &x, vec![1.0; 30_000]);
        let sums = Moments::derivatives(30_000, (1.0, 1.0), |i| (if i % 3 == 0 { 1.0 } else { -1.0 }, 1.0));
        let rows = (0..30_000).filter(|row| row % 5 > 0).collect::<Vec<_>>();
        let packed = Histogram::of(&table, &sums, &rows, false);
        let mut one_by_one = Histogram::empty(&table, 3);
        one_by_one.add_rows(&table, &sums, &rows, 1);
        assert_eq!(packed, one_by_one);
        let words = rows.iter().map(|&row| sums.words()[row as usize]).collect::<Vec<_>>();
        let mut cells = vec![0; table.bins(1) * 3];
        add_column::<Moments<3>>(&table, 1, &rows, &words, &mut cells, 3);
        assert_eq!(cells, packed.feature(&table, 1));
    }

    #[test]
    fn threads_share_features_without_a_trace() {
        let (_, table) = table(20_000, 9);
        let sums = Moments::squared(&table.y, |_| 1);
        let rows = (0..20_000).collect::<Vec<_>>();
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| Histogram::of(&table, &sums, &rows, true))
        };
        assert_eq!(with(1), with(4));
        assert_eq!(with(1), with(7));
    }
}
