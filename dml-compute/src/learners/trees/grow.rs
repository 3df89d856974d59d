//! Grows one tree: open leaves wait in order, the first is split, its rows are parted, its children are asked for their
//! best splits.
//!
//! With a limit on leaves the order is that of gain (leaf-wise growth, as in LightGBM); without one it does not matter
//! to the tree, and the smallest leaf comes first, so that few histograms are alive at once. A large node is judged by
//! a histogram of all features, a small one (or one that looks at few features) feature by feature from its rows;
//! both see the same integers, so that the choice never shows.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
    ops::Range,
};

use dml_core::rng;
use rayon::prelude::*;

use super::{
    bins::{Binned, Bins},
    histogram::Histogram,
    split::{Search, Split},
    sums::{Sums, add_all},
    tree::{Tree, Writer},
};

/// Nodes with fewer rows are judged without a histogram.
const MIN_HISTOGRAM_ROWS: usize = 512;
/// How many numbers the histograms of open leaves may hold together (64 MiB); beyond it they are made anew.
const MAX_KEPT: usize = 1 << 23;
/// From how many cells on threads share the search for a split.
const PARALLEL_CELLS: usize = 1 << 12;

/// How far a tree may grow. For the first two, 0 is no limit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) max_leaves: usize,
    pub(crate) max_depth: usize,
    /// How many rows each leaf must have.
    pub(crate) min_leaf: i64,
    /// How many rows a node must have to be split.
    pub(crate) min_split: i64,
}

/// Which features a node looks at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choice {
    /// How many, in random order; more only if none of them gains.
    pub(crate) features: usize,
    /// The source of that order.
    pub(crate) seed: u64,
}

/// What a tree is grown from.
pub(crate) struct Grower<'a, S: Sums> {
    pub(crate) bins: &'a Bins,
    pub(crate) table: &'a Binned,
    pub(crate) sums: &'a S,
    pub(crate) limits: Limits,
    pub(crate) choice: Choice,
}

/// A leaf that may be split.
struct Open<S: Sums> {
    /// Where the tree has it.
    at: usize,
    rows: Range<usize>,
    depth: usize,
    /// Names the node, for random choices: follows from its place in the tree.
    path: u64,
    total: S::Total,
    histogram: Option<Histogram>,
}

/// An open leaf with its best split, ordered by what is to be done first.
struct Ready<S: Sums> {
    urgency: f64,
    split: Split,
    open: Open<S>,
}

impl<S: Sums> Ready<S> {
    fn key(&self) -> (f64, Reverse<usize>) {
        (self.urgency, Reverse(self.open.at))
    }
}

impl<S: Sums> Ord for Ready<S> {
    fn cmp(&self, other: &Self) -> Ordering {
        let ((a, a_at), (b, b_at)) = (self.key(), other.key());
        a.total_cmp(&b).then(a_at.cmp(&b_at))
    }
}

impl<S: Sums> PartialOrd for Ready<S> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<S: Sums> PartialEq for Ready<S> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<S: Sums> Eq for Ready<S> {}

/// A node while the tree grows.
enum Branch<S: Sums> {
    Leaf(S::Total),
    Split { split: Split, missing_left: bool, left: usize, right: usize },
}

impl<S: Sums> Grower<'_, S> {
    /// The tree of these rows.
    pub(crate) fn grow(&self, mut rows: Vec<u32>) -> Tree {
        let mut scratch = Scratch::new(self);
        let total = self.total(&rows);
        let mut branches = vec![Branch::Leaf(total.clone())];
        let (mut queue, mut kept, mut leaves) = (BinaryHeap::new(), 0, 1);
        let root = Open {
            at: 0,
            rows: 0..rows.len(),
            depth: 0,
            path: self.choice.seed,
            total,
            histogram: self.histogram(&rows, kept),
        };
        self.enqueue(root, &rows, &mut queue, &mut kept, &mut scratch);
        while let Some(Ready { split, mut open, .. }) = queue.pop() {
            if leaves == self.limits.max_leaves {
                break;
            }
            leaves += 1;
            kept -= open.histogram.as_ref().map_or(0, Histogram::size);
            let histogram = open.histogram.take();
            let part = &mut rows[open.rows.clone()];
            let (left_count, missing_left) = self.part(part, &split, &mut scratch);
            let (left_rows, right_rows) = part.split_at(left_count);
            let left_is_small = left_rows.len() <= right_rows.len();
            let small_rows = if left_is_small { left_rows } else { right_rows };
            let small_total = self.total(small_rows);
            let mut large_total = open.total;
            add_all(large_total.as_mut(), small_total.as_ref(), -1);
            let last = leaves == self.limits.max_leaves;
            let (small, large) = if last {
                (None, None)
            } else {
                self.child_histograms(histogram, left_rows, right_rows, kept)
            };
            let ((left_total, left_histogram), (right_total, right_histogram)) = match left_is_small {
                true => ((small_total, small), (large_total, large)),
                false => ((large_total, large), (small_total, small)),
            };
            let (left, right) = (branches.len(), branches.len() + 1);
            branches.push(Branch::Leaf(left_total.clone()));
            branches.push(Branch::Leaf(right_total.clone()));
            branches[open.at] = Branch::Split { split, missing_left, left, right };
            if last {
                break;
            }
            let middle = open.rows.start + left_count;
            let child = |at, rows, side, total, histogram| {
                let path = rng::draw(open.path, side);
                Open { at, rows, depth: open.depth + 1, path, total, histogram }
            };
            let left = child(left, open.rows.start..middle, 0, left_total, left_histogram);
            self.enqueue(left, &rows, &mut queue, &mut kept, &mut scratch);
            let right = child(right, middle..open.rows.end, 1, right_total, right_histogram);
            self.enqueue(right, &rows, &mut queue, &mut kept, &mut scratch);
        }
        self.write(&branches)
    }

    fn total(&self, rows: &[u32]) -> S::Total {
        let mut total = self.sums.zero();
        rows.iter().for_each(|&row| S::add(self.sums.row(row, 1), total.as_mut()));
        total
    }

    /// Whether most features are looked at, so that sums of all of them pay.
    fn looks_at_most(&self) -> bool {
        self.choice.features * 2 > self.table.width
    }

    fn histogram(&self, rows: &[u32], kept: usize) -> Option<Histogram> {
        let worthwhile = self.looks_at_most() && rows.len() >= MIN_HISTOGRAM_ROWS && kept < MAX_KEPT;
        worthwhile.then(|| Histogram::of(self.table, self.sums, rows))
    }

    /// The histograms of the smaller and the larger child: the larger is the parent's less the smaller.
    fn child_histograms(
        &self,
        parent: Option<Histogram>,
        left: &[u32],
        right: &[u32],
        kept: usize,
    ) -> (Option<Histogram>, Option<Histogram>) {
        let (small, large) = if left.len() <= right.len() { (left, right) } else { (right, left) };
        let small_histogram = self.histogram(small, kept);
        let Some(mut histogram) = parent else { return (small_histogram, self.histogram(large, kept)) };
        if large.len() < MIN_HISTOGRAM_ROWS {
            return (small_histogram, None);
        }
        match &small_histogram {
            Some(small) => histogram.subtract(small),
            None => histogram.add_rows(self.table, self.sums, small, -1),
        }
        (small_histogram, Some(histogram))
    }

    /// Looks for the node's best split, and queues it if there is one.
    fn enqueue(
        &self,
        open: Open<S>,
        rows: &[u32],
        queue: &mut BinaryHeap<Ready<S>>,
        kept: &mut usize,
        scratch: &mut Scratch,
    ) {
        let limits = self.limits;
        let count = S::count(open.total.as_ref());
        let deep = limits.max_depth > 0 && open.depth >= limits.max_depth;
        if deep || count < limits.min_split || count < limits.min_leaf * 2 {
            return;
        }
        let search = Search { sums: self.sums, total: &open.total, min_leaf: limits.min_leaf };
        let Some(split) = self.search(&search, &open, &rows[open.rows.clone()], scratch) else { return };
        let urgency = if limits.max_leaves > 0 { split.gain } else { -(open.rows.len() as f64) };
        *kept += open.histogram.as_ref().map_or(0, Histogram::size);
        queue.push(Ready { urgency, split, open });
    }

    fn search(
        &self,
        search: &Search<S>,
        open: &Open<S>,
        rows: &[u32],
        scratch: &mut Scratch,
    ) -> Option<Split> {
        let width = self.table.width;
        let judge = |feature: usize, scratch: &mut Scratch| match &open.histogram {
            Some(histogram) => self.judge_histogram(search, histogram, feature),
            None => scratch.judge_rows(self, search, feature, rows),
        };
        if self.choice.features >= width {
            return match &open.histogram {
                Some(histogram) if histogram.size() >= PARALLEL_CELLS => {
                    let features = (0..width).into_par_iter();
                    let found = features.map(|feature| self.judge_histogram(search, histogram, feature));
                    found.collect::<Vec<_>>().into_iter().fold(None, better)
                }
                _ => (0..width).fold(None, |best, feature| better(best, judge(feature, scratch))),
            };
        }
        let mut order = std::mem::take(&mut scratch.order);
        order.clear();
        order.extend(0..width);
        let mut best = None;
        for looked in 0..width {
            if looked >= self.choice.features && best.is_some() {
                break;
            }
            let other = looked + rng::below(open.path, looked as u64, (width - looked) as u64) as usize;
            order.swap(looked, other);
            best = better(best, judge(order[looked], scratch));
        }
        scratch.order = order;
        best
    }

    fn judge_histogram(&self, search: &Search<S>, histogram: &Histogram, feature: usize) -> Option<Split> {
        let cells = histogram.feature(self.table, feature);
        let channels = search.total.as_ref().len();
        let occupied = cells.chunks_exact(channels).enumerate().filter(|(_, cell)| S::count(cell) != 0);
        search.feature(feature, cells, occupied.map(|(bin, _)| bin), self.bins.missing(feature))
    }

    /// Parts the rows in place, each side in its order: how many go left, and where blanks go. Where no blank tells,
    /// blanks to come follow the larger side.
    fn part(&self, rows: &mut [u32], split: &Split, scratch: &mut Scratch) -> (usize, bool) {
        let missing = self.bins.missing(split.feature);
        let right = &mut scratch.rows;
        right.clear();
        let mut left_count = 0;
        for i in 0..rows.len() {
            let row = rows[i];
            let bin = self.table.row(row)[split.feature] as usize;
            if bin <= split.bin || bin == missing && split.missing_left == Some(true) {
                rows[left_count] = row;
                left_count += 1;
            } else {
                right.push(row);
            }
        }
        rows[left_count..].copy_from_slice(right);
        (left_count, split.missing_left.unwrap_or(left_count * 2 >= rows.len()))
    }

    /// The branches in pre-order.
    fn write(&self, branches: &[Branch<S>]) -> Tree {
        let outputs = self.sums.leaf(&self.sums.zero()).len();
        let mut writer = Writer::new(outputs);
        // Each waiting node, with the split whose right child it is.
        let mut stack = vec![(0, None)];
        while let Some((at, parent)) = stack.pop() {
            if let Some(parent) = parent {
                writer.right(parent);
            }
            match &branches[at] {
                Branch::Leaf(total) => writer.leaf(&self.sums.leaf(total)),
                Branch::Split { split, missing_left, left, right } => {
                    let threshold = self.bins.threshold(split.feature, split.bin);
                    let written = writer.split(split.feature, threshold, *missing_left, split.gain);
                    stack.push((*right, Some(written)));
                    stack.push((*left, None));
                }
            }
        }
        writer.finish()
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

/// Memory that nodes use one after the other.
struct Scratch {
    /// The sums of one feature; all zero between uses.
    cells: Vec<i64>,
    rows: Vec<u32>,
    order: Vec<usize>,
}

impl Scratch {
    fn new<S: Sums>(grower: &Grower<S>) -> Self {
        let channels = grower.sums.zero().as_ref().len();
        Self { cells: vec![0; 256 * channels], rows: Vec::new(), order: Vec::new() }
    }

    /// The best split by one feature, from the rows themselves: the cost is that of the rows, not of the bins.
    fn judge_rows<S: Sums>(
        &mut self,
        grower: &Grower<S>,
        search: &Search<S>,
        feature: usize,
        rows: &[u32],
    ) -> Option<Split> {
        let channels = search.total.as_ref().len();
        let mut seen = [0u64; 4];
        let table = grower.table;
        for &row in rows {
            let bin = table.bytes[row as usize * table.width + feature] as usize;
            seen[bin / 64] |= 1 << (bin % 64);
            S::add(grower.sums.row(row, 1), &mut self.cells[bin * channels..][..channels]);
        }
        let split = search.feature(feature, &self.cells, bits(seen), grower.bins.missing(feature));
        bits(seen).for_each(|bin| self.cells[bin * channels..][..channels].fill(0));
        split
    }
}

/// The numbers of the bits that are set, ascending.
fn bits(words: [u64; 4]) -> impl Iterator<Item = usize> {
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
    use crate::learners::trees::{histogram::tests::table, sums::Moments, tree::Node};

    fn grow(limits: Limits, features: usize, rows: usize) -> (Tree, usize) {
        let (bins, table) = table(rows, 6);
        let mean = table.y.iter().sum::<f64>() / rows as f64;
        let residuals = table.y.iter().map(|y| y - mean).collect::<Vec<_>>();
        let sums = Moments::squared(&residuals, |_| 1);
        let choice = Choice { features, seed: 5 };
        let grower = Grower { bins: &bins, table: &table, sums: &sums, limits, choice };
        (grower.grow((0..rows as u32).collect()), rows)
    }

    fn leaves(tree: &Tree) -> usize {
        tree.nodes().iter().filter(|node| matches!(node, Node::Leaf { .. })).count()
    }

    const FREE: Limits = Limits { max_leaves: 0, max_depth: 0, min_leaf: 1, min_split: 2 };

    #[test]
    fn limits_hold() {
        assert_eq!(leaves(&grow(Limits { max_leaves: 31, ..FREE }, 6, 3000).0), 31);
        assert_eq!(leaves(&grow(Limits { max_depth: 3, ..FREE }, 6, 3000).0), 8);
        assert_eq!(leaves(&grow(Limits { min_leaf: 1501, ..FREE }, 6, 3000).0), 1);
        assert!(leaves(&grow(Limits { min_leaf: 100, ..FREE }, 6, 3000).0) <= 30);
    }

    #[test]
    fn the_order_of_growth_does_not_show() {
        let (by_size, rows) = grow(FREE, 6, 4000);
        let (by_gain, _) = grow(Limits { max_leaves: rows, ..FREE }, 6, 4000);
        assert_eq!(by_size, by_gain);
        assert!(leaves(&by_size) > 1000);
    }

    #[test]
    fn histograms_and_rows_find_the_same_splits() {
        // Looking at all features in random order, or in order: equal but for ties, which this data has none of.
        let (bins, table) = table(5000, 4);
        let sums = Moments::squared(&table.y, |_| 1);
        let rows = (0..5000).collect::<Vec<_>>();
        let choice = Choice { features: 4, seed: 0 };
        let grower = Grower { bins: &bins, table: &table, sums: &sums, limits: FREE, choice };
        let total = grower.total(&rows);
        let search = Search { sums: &sums, total: &total, min_leaf: 7 };
        let histogram = Histogram::of(&table, &sums, &rows);
        let mut scratch = Scratch::new(&grower);
        for feature in 0..4 {
            let from_histogram = grower.judge_histogram(&search, &histogram, feature);
            assert_eq!(from_histogram, scratch.judge_rows(&grower, &search, feature, &rows));
            assert!(from_histogram.is_some());
        }
        assert!(scratch.cells.iter().all(|&cell| cell == 0));
    }

    #[test]
    fn few_features_still_find_the_one_that_matters() {
        let (bins, mut table) = table(100, 6);
        table.bytes.chunks_mut(6).for_each(|row| row[..5].fill(0));
        let sums = Moments::squared(&table.y, |_| 1);
        let choice = Choice { features: 1, seed: 1 };
        let grower = Grower { bins: &bins, table: &table, sums: &sums, limits: FREE, choice };
        assert!(leaves(&grower.grow((0..100).collect())) > 10);
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
