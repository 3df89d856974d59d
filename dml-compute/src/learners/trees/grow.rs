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

use super::{
    binned::Binned,
    bins::Bins,
    histogram::Histogram,
    judge::{Judge, Scratch},
    part::part,
    split::Split,
    sums::{Sums, add_all},
    tree::{Tree, Writer},
};

/// Nodes with fewer rows are judged without a histogram.
const MIN_HISTOGRAM_ROWS: usize = 512;
/// How many numbers the histograms of open leaves may hold together (64 MiB); beyond it they are made anew.
const MAX_KEPT: usize = 1 << 23;
/// From how many cells of a histogram on threads share two children.
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

impl Limits {
    /// Whether a node of so many rows in this depth may be split.
    pub(super) fn allow(&self, rows: i64, depth: usize) -> bool {
        let deep = self.max_depth > 0 && depth >= self.max_depth;
        !deep && rows >= self.min_split && rows >= self.min_leaf * 2
    }
}

/// Which questions a node looks at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choice {
    /// How many features, in random order; more only if none of them gains.
    pub(crate) features: usize,
    /// Whether each feature is cut at one random place instead of the best one.
    pub(crate) random_cuts: bool,
    /// The source of all chance.
    pub(crate) seed: u64,
}

/// What a tree is grown from.
pub(crate) struct Grower<'a, S: Sums> {
    pub(crate) bins: &'a Bins,
    pub(crate) table: &'a Binned,
    pub(crate) sums: &'a S,
    pub(crate) limits: Limits,
    pub(crate) choice: Choice,
    /// Whether threads share the work on one tree, rather than grow trees side by side.
    pub(crate) threads: bool,
}

/// A tree, and where its rows ended.
pub(crate) struct Grown {
    pub(crate) tree: Tree,
    /// The rows, leaf by leaf.
    pub(crate) rows: Vec<u32>,
    /// The range of `rows` of each leaf, in the order of the tree's leaves.
    pub(crate) leaves: Vec<Range<usize>>,
}

/// A leaf that may be split.
pub(super) struct Open<S: Sums> {
    /// Where the tree has it.
    at: usize,
    rows: Range<usize>,
    depth: usize,
    /// Names the node, for random choices: follows from its place in the tree.
    pub(super) path: u64,
    pub(super) total: S::Total,
    pub(super) histogram: Option<Histogram>,
}

impl<S: Sums> Open<S> {
    /// One whose rows are elsewhere.
    pub(super) fn remote(path: u64, depth: usize, total: S::Total, histogram: Histogram) -> Self {
        Self { at: 0, rows: 0..0, depth, path, total, histogram: Some(histogram) }
    }

    #[cfg(test)]
    pub(super) fn whole(total: S::Total) -> Self {
        Self { at: 0, rows: 0..0, depth: 0, path: 0, total, histogram: None }
    }
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
pub(super) enum Branch<S: Sums> {
    Leaf { total: S::Total },
    Split { feature: usize, bin: usize, missing_left: bool, gain: f64, left: usize, right: usize },
}

/// The leaves that wait.
struct Queue<S: Sums> {
    ready: BinaryHeap<Ready<S>>,
    /// How many numbers their histograms hold.
    kept: usize,
}

impl<S: Sums> Grower<'_, S> {
    /// The tree of these rows, which ascend.
    pub(crate) fn grow(&self, mut rows: Vec<u32>) -> Grown {
        let mut scratch = Scratch::new(self.table, self.sums);
        let mut parted = vec![0; rows.len()];
        let mut queue = Queue { ready: BinaryHeap::new(), kept: 0 };
        let total = self.total(&rows);
        let mut branches = vec![Branch::Leaf { total: total.clone() }];
        // Where the rows of each branch are.
        let mut ranges = std::iter::once(0..rows.len()).collect::<Vec<_>>();
        let mut leaves = 1;
        let histogram = self.histogram(&rows, 0);
        let root = Open { at: 0, rows: 0..rows.len(), depth: 0, path: self.choice.seed, total, histogram };
        let split = self.judge(&root, &rows, &mut scratch);
        self.enqueue(root, split, &mut queue);
        while let Some(Ready { split, mut open, .. }) = queue.ready.pop() {
            if leaves == self.limits.max_leaves {
                break;
            }
            leaves += 1;
            queue.kept -= open.histogram.as_ref().map_or(0, Histogram::size);
            let histogram = open.histogram.take();
            let node = &mut rows[open.rows.clone()];
            let missing = self.bins.missing(split.feature);
            let left_count = part(self.table, node, &split, missing, &mut parted, self.threads);
            let missing_left = split.missing_left.unwrap_or(left_count * 2 >= node.len());
            let (left_rows, right_rows) = node.split_at(left_count);
            let left_is_small = left_rows.len() <= right_rows.len();
            let last = leaves == self.limits.max_leaves;
            let (small_rows, large_rows) =
                if left_is_small { (left_rows, right_rows) } else { (right_rows, left_rows) };
            let (small, large) = if last {
                (None, None)
            } else {
                self.children(histogram, small_rows, large_rows, queue.kept)
            };
            let small_total = match &small {
                Some(histogram) => self.total_of(histogram),
                None => self.total(small_rows),
            };
            let mut large_total = open.total;
            add_all(large_total.as_mut(), small_total.as_ref(), -1);
            let ((left_total, left_histogram), (right_total, right_histogram)) = match left_is_small {
                true => ((small_total, small), (large_total, large)),
                false => ((large_total, large), (small_total, small)),
            };
            let middle = open.rows.start + left_count;
            let (left, right) = (branches.len(), branches.len() + 1);
            let (left_range, right_range) = (open.rows.start..middle, middle..open.rows.end);
            branches.push(Branch::Leaf { total: left_total.clone() });
            branches.push(Branch::Leaf { total: right_total.clone() });
            ranges.extend([left_range.clone(), right_range.clone()]);
            let Split { feature, bin, gain, .. } = split;
            branches[open.at] = Branch::Split { feature, bin, missing_left, gain, left, right };
            if last {
                break;
            }
            let child = |at, rows, side, total, histogram| {
                let path = rng::draw(open.path, side);
                Open { at, rows, depth: open.depth + 1, path, total, histogram }
            };
            let left = child(left, left_range, 0, left_total, left_histogram);
            let right = child(right, right_range, 1, right_total, right_histogram);
            let (left_split, right_split) = self.judge_both(&left, &right, &rows, &mut scratch);
            self.enqueue(left, left_split, &mut queue);
            self.enqueue(right, right_split, &mut queue);
        }
        drop(parted);
        let (tree, leaves) = write(self.sums, self.bins, &branches);
        Grown { tree, rows, leaves: leaves.into_iter().map(|leaf| ranges[leaf].clone()).collect() }
    }

    fn total(&self, rows: &[u32]) -> S::Total {
        let words = self.sums.words();
        let mut total = self.sums.zero();
        rows.iter().for_each(|&row| S::add(words[row as usize], 1, total.as_mut()));
        total
    }

    /// The same from a histogram: any feature has all rows.
    fn total_of(&self, histogram: &Histogram) -> S::Total {
        let mut total = self.sums.zero();
        let channels = total.as_ref().len();
        for cell in histogram.feature(self.table, 0).chunks_exact(channels) {
            add_all(total.as_mut(), cell, 1);
        }
        total
    }

    fn histogram(&self, rows: &[u32], kept: usize) -> Option<Histogram> {
        // Sums of all features pay if most are looked at.
        let most = self.choice.features * 2 > self.table.width && self.table.width > 0;
        let worthwhile = most && rows.len() >= MIN_HISTOGRAM_ROWS && kept < MAX_KEPT;
        worthwhile.then(|| Histogram::of(self.table, self.sums, rows, self.threads))
    }

    /// The histograms of the smaller and the larger child: the larger is the parent's less the smaller.
    fn children(
        &self,
        parent: Option<Histogram>,
        small: &[u32],
        large: &[u32],
        kept: usize,
    ) -> (Option<Histogram>, Option<Histogram>) {
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

    /// Looks for a node's best split, if it may be split at all.
    pub(super) fn judge(&self, open: &Open<S>, rows: &[u32], scratch: &mut Scratch) -> Option<Split> {
        if !self.limits.allow(S::count(open.total.as_ref()), open.depth) {
            return None;
        }
        Judge { grower: self, open, rows: &rows[open.rows.clone()] }.best(scratch)
    }

    fn judge_both(
        &self,
        left: &Open<S>,
        right: &Open<S>,
        rows: &[u32],
        scratch: &mut Scratch,
    ) -> (Option<Split>, Option<Split>) {
        let large = |open: &Open<S>| open.histogram.as_ref().is_some_and(|h| h.size() >= PARALLEL_CELLS);
        if self.threads && large(left) && large(right) {
            let other = || self.judge(right, rows, &mut Scratch::new(self.table, self.sums));
            rayon::join(|| self.judge(left, rows, scratch), other)
        } else {
            (self.judge(left, rows, scratch), self.judge(right, rows, scratch))
        }
    }

    fn enqueue(&self, open: Open<S>, split: Option<Split>, queue: &mut Queue<S>) {
        let Some(split) = split else { return };
        let urgency = if self.limits.max_leaves > 0 { split.gain } else { -(open.rows.len() as f64) };
        queue.kept += open.histogram.as_ref().map_or(0, Histogram::size);
        queue.ready.push(Ready { urgency, split, open });
    }
}

/// The tree of these branches, the first of which is the root; and which of them its leaves are, in its order.
pub(super) fn write<S: Sums>(sums: &S, bins: &Bins, branches: &[Branch<S>]) -> (Tree, Vec<usize>) {
    let outputs = sums.leaf(&sums.zero()).len();
    let mut writer = Writer::new(outputs);
    let mut leaves = Vec::new();
    // Each waiting node, with the split whose right child it is.
    let mut stack = vec![(0, None)];
    while let Some((at, parent)) = stack.pop() {
        if let Some(parent) = parent {
            writer.right(parent);
        }
        match &branches[at] {
            Branch::Leaf { total } => {
                writer.leaf(&sums.leaf(total));
                leaves.push(at);
            }
            Branch::Split { feature, bin, missing_left, gain, left, right } => {
                let threshold = bins.threshold(*feature, *bin);
                let written = writer.split(*feature, threshold, *missing_left, *gain);
                stack.push((*right, Some(written)));
                stack.push((*left, None));
            }
        }
    }
    (writer.finish(), leaves)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learners::trees::{histogram::tests::table, stepped::Stepped, sums::Moments, tree::Node};

    fn grow(limits: Limits, features: usize, rows: usize) -> (Tree, usize) {
        let (bins, table) = table(rows, 6);
        let mean = table.y.iter().sum::<f64>() / rows as f64;
        let residuals = table.y.iter().map(|y| y - mean).collect::<Vec<_>>();
        let sums = Moments::squared(&residuals, |_| 1);
        let choice = Choice { features, random_cuts: false, seed: 5 };
        let grower = Grower { bins: &bins, table: &table, sums: &sums, limits, choice, threads: true };
        (grower.grow((0..rows as u32).collect()).tree, rows)
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
    fn few_features_still_find_the_one_that_matters() {
        let (bins, mut table) = table(100, 6);
        table.columns[..5].iter_mut().for_each(|column| column.fill(0));
        let sums = Moments::squared(&table.y, |_| 1);
        let choice = Choice { features: 1, random_cuts: false, seed: 1 };
        let grower = Grower { bins: &bins, table: &table, sums: &sums, limits: FREE, choice, threads: true };
        assert!(leaves(&grower.grow((0..100).collect()).tree) > 10);
    }

    #[test]
    fn a_large_table_that_is_held_once_gives_the_same_trees() {
        let (bins, mut table) = table(50_000, 6);
        let mut grow = |features, is_large: bool| {
            if is_large {
                table.columns.clear();
            }
            let sums = Moments::squared(&table.y, |_| 1);
            let choice = Choice { features, random_cuts: false, seed: 3 };
            let grower =
                Grower { bins: &bins, table: &table, sums: &sums, limits: FREE, choice, threads: true };
            grower.grow((0..50_000).collect()).tree
        };
        let twice = [grow(6, false), grow(2, false)];
        assert_eq!([grow(6, true), grow(2, true)], twice);
    }

    #[test]
    fn rows_end_in_the_leaf_that_the_tree_leads_to() {
        for threads in [true, false] {
            let (bins, table) = table(50_000, 6);
            let sums = Moments::squared(&table.y, |_| 1);
            let choice = Choice { features: 6, random_cuts: false, seed: 0 };
            let limits = Limits { max_leaves: 20, ..FREE };
            let grown = Grower { bins: &bins, table: &table, sums: &sums, limits, choice, threads }
                .grow((0..50_000).collect());
            let stepped = Stepped::new(&grown.tree, &bins);
            assert_eq!((grown.leaves.len(), grown.rows.len()), (20, 50_000));
            for (leaf, rows) in grown.leaves.iter().enumerate() {
                let rows = &grown.rows[rows.clone()];
                assert!(rows.is_sorted());
                assert!(
                    rows.iter().all(|&row| stepped.leaf(table.row(row)) == &grown.tree.values()[leaf..=leaf])
                );
            }
        }
    }
}
