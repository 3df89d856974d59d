//! The best split of one node, among the features that it looks at.

use dml_core::rng;
use rayon::prelude::*;

use super::{
    binned::Binned,
    grow::{Grower, Open},
    histogram::{Histogram, Words, add_column},
    split::{Search, Split},
    sums::{CAPACITY, Sums},
};

/// From how many values of a node's rows on threads share its features.
const PARALLEL_VALUES: usize = 1 << 15;

/// A node that is asked for its best split.
pub(super) struct Judge<'a, 'g, S: Sums> {
    pub(super) grower: &'a Grower<'g, S>,
    pub(super) open: &'a Open<S>,
    /// The node's rows.
    pub(super) rows: &'a [u32],
}

/// Memory that nodes use one after the other.
pub(super) struct Scratch {
    column: Column,
    words: Vec<i64>,
    order: Vec<usize>,
}

/// The sums of one feature.
struct Column {
    /// All zero between uses.
    cells: Vec<i64>,
    /// All zero between uses.
    words: Box<Words>,
}

impl Scratch {
    pub(super) fn new<S: Sums>(table: &Binned, sums: &S) -> Self {
        Self {
            column: Column::new(sums.zero().as_ref().len()),
            words: Vec::new(),
            order: Vec::with_capacity(table.width),
        }
    }
}

impl Column {
    fn new(channels: usize) -> Self {
        Self { cells: vec![0; 256 * channels], words: Box::new([0; 256]) }
    }
}

impl<S: Sums> Judge<'_, '_, S> {
    /// The split that gains most, if any does; the first of equals, in the order in which features are looked at.
    pub(super) fn best(&self, scratch: &mut Scratch) -> Option<Split> {
        let words = &mut scratch.words;
        words.clear();
        if self.open.histogram.is_none() {
            let all = self.grower.sums.words();
            words.extend(self.rows.iter().map(|&row| all[row as usize]));
            if S::is_settled(&self.open.total, words.iter().copied()) {
                return None;
            }
        }
        let (grower, width) = (self.grower, self.grower.table.width);
        let features = grower.choice.features.min(width);
        let order = &mut scratch.order;
        order.clear();
        order.extend(0..width);
        let search = Search { sums: grower.sums, total: &self.open.total, min_leaf: grower.limits.min_leaf };
        let mut best = None;
        let mut looked = 0;
        if features == width {
            best = self.among(&search, order, words, &mut scratch.column);
            looked = width;
        }
        while looked < width && (looked < features || best.is_none()) {
            let end = if looked < features { features } else { looked + 1 };
            for i in looked..end {
                let other = i + rng::below(self.open.path, i as u64, (width - i) as u64) as usize;
                order.swap(i, other);
            }
            best = better(best, self.among(&search, &order[looked..end], words, &mut scratch.column));
            looked = end;
        }
        best
    }

    /// The best split by these features.
    fn among(
        &self,
        search: &Search<S>,
        features: &[usize],
        words: &[i64],
        column: &mut Column,
    ) -> Option<Split> {
        let values = words.len() * features.len();
        if let Some(histogram) = &self.open.histogram {
            features.iter().map(|&feature| self.by_histogram(search, histogram, feature)).fold(None, better)
        } else if self.grower.threads && values >= PARALLEL_VALUES && features.len() > 1 {
            let make = || Column::new(search.total.as_ref().len());
            let judge = |column: &mut Column, &feature: &usize| self.by_rows(search, feature, words, column);
            let found = features.par_iter().map_init(make, judge).collect::<Vec<_>>();
            found.into_iter().fold(None, better)
        } else {
            let judge = |&feature: &usize| self.by_rows(search, feature, words, column);
            features.iter().map(judge).fold(None, better)
        }
    }

    fn by_histogram(&self, search: &Search<S>, histogram: &Histogram, feature: usize) -> Option<Split> {
        let cells = histogram.feature(self.grower.table, feature);
        self.search(search, feature, cells, occupied::<S>(cells, search.total.as_ref().len()))
    }

    /// The best split by one feature, from the rows themselves.
    fn by_rows(
        &self,
        search: &Search<S>,
        feature: usize,
        words: &[i64],
        column: &mut Column,
    ) -> Option<Split> {
        let table = self.grower.table;
        let channels = search.total.as_ref().len();
        let cells = &mut column.cells;
        if words.len() > CAPACITY as usize || !S::PACKED {
            let cells = &mut cells[..table.bins(feature) * channels];
            add_column::<S>(table, feature, self.rows, words, cells, channels);
            let split = self.search(search, feature, cells, occupied::<S>(cells, channels));
            cells.fill(0);
            return split;
        }
        // The cost is that of the rows, not of the bins.
        let mut seen = [0u64; 4];
        table.each_bin(feature, self.rows, words, |bin, word| {
            seen[usize::from(bin >> 6)] |= 1 << (bin & 63);
            column.words[usize::from(bin)] += word;
        });
        for bin in bits(seen) {
            S::add(std::mem::take(&mut column.words[bin]), 1, &mut cells[bin * channels..][..channels]);
        }
        let split = self.search(search, feature, cells, bits(seen));
        bits(seen).for_each(|bin| cells[bin * channels..][..channels].fill(0));
        split
    }

    fn search(
        &self,
        search: &Search<S>,
        feature: usize,
        cells: &[i64],
        occupied: impl Iterator<Item = usize> + Clone,
    ) -> Option<Split> {
        let bins = self.grower.bins;
        let missing = bins.missing(feature);
        if !self.grower.choice.random_cuts {
            return search.feature(feature, cells, occupied, missing);
        }
        let mut values = occupied.clone().filter(|&bin| bin < missing);
        let lowest = values.next()?;
        let highest = values.last().unwrap_or(lowest);
        let chance = rng::unit(rng::draw(self.open.path, u64::MAX), feature as u64);
        let cut = if lowest == highest {
            lowest
        } else {
            let (from, to) = (bins.threshold(feature, lowest), bins.threshold(feature, highest - 1));
            let place = from * (1.0 - chance) + to * chance;
            usize::from(bins.bin(feature, place)).clamp(lowest, highest - 1)
        };
        search.at(feature, cells, occupied, missing, cut)
    }
}

/// The split that gains more; the first of equals.
fn better(best: Option<Split>, next: Option<Split>) -> Option<Split> {
    match (best, next) {
        (Some(best), Some(next)) if next.gain > best.gain => Some(next),
        (None, next) => next,
        (best, _) => best,
    }
}

/// The bins with rows.
fn occupied<S: Sums>(cells: &[i64], channels: usize) -> impl Iterator<Item = usize> + Clone {
    let cells = cells.chunks_exact(channels).enumerate();
    cells.filter(|(_, cell)| S::count(cell) != 0).map(|(bin, _)| bin)
}

/// The numbers of the bits that are set, ascending.
fn bits(words: [u64; 4]) -> impl Iterator<Item = usize> + Clone {
    words.into_iter().enumerate().flat_map(|(i, mut word)| {
        std::iter::from_fn(move || {
            let bit = word.trailing_zeros() as usize;
            word &= word.wrapping_sub(1);
            (bit < 64).then_some(i * 64 + bit)
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::learners::trees::{
        grow::{Choice, Limits},
        histogram::tests::table,
        sums::{ManyClasses, Moments},
    };

    fn same_splits<S: Sums>(rows: u32, sums: impl Fn(&Binned) -> S) {
        let (bins, table) = table(rows as usize, 4);
        let sums = &sums(&table);
        let limits = Limits { max_leaves: 0, max_depth: 0, min_leaf: 7, min_split: 2 };
        let choice = Choice { features: 4, random_cuts: false, seed: 0 };
        let grower = Grower { bins: &bins, table: &table, sums, limits, choice, threads: false };
        let rows = (0..rows).collect::<Vec<_>>();
        let mut total = sums.zero();
        rows.iter().for_each(|&row| S::add(sums.words()[row as usize], 1, total.as_mut()));
        let open = Open::whole(total.clone());
        let judge = Judge { grower: &grower, open: &open, rows: &rows };
        let search = Search { sums, total: &total, min_leaf: 7 };
        let histogram = Histogram::of(&table, sums, &rows, false);
        let mut column = Column::new(total.as_ref().len());
        for feature in 0..4 {
            let from_histogram = judge.by_histogram(&search, &histogram, feature);
            assert_eq!(from_histogram, judge.by_rows(&search, feature, sums.words(), &mut column));
            assert!(from_histogram.is_some());
        }
        assert!(column.cells.iter().chain(column.words.iter()).all(|&cell| cell == 0));
    }

    #[test]
    fn histograms_and_rows_find_the_same_splits() {
        for rows in [800, 5000] {
            same_splits(rows, |table| Moments::squared(&table.y, |_| 1));
            same_splits(rows, |table| ManyClasses::new(5, table.y.iter().map(|y| ((y * 5.0) as u32, 2))));
        }
    }

    proptest! {
        #[test]
        fn bits_are_those_that_are_set(mut bins in prop::collection::btree_set(0..256usize, 0..60)) {
            let mut words = [0u64; 4];
            bins.iter().for_each(|bin| words[bin / 64] |= 1 << (bin % 64));
            bits(words).for_each(|bin| assert!(bins.remove(&bin)));
            prop_assert!(bins.is_empty());
        }
    }
}
