//! Trees of few leaves, asked about many rows side by side.
//!
//! Every question of a tree is put to every row, whether it lies on the row's way or not: who answers "right" cannot end
//! in a leaf that lies left of it. A word of bits a row tells which leaves are lost, and the first that is not is the
//! row's (Lucchese et al. 2015, "QuickScorer: a fast algorithm to rank documents with additive ensembles of regression
//! trees"). Nothing is guessed, nothing waits, and rows share vector registers. Values are replaced by their rank among the thresholds of
//! their feature beforehand, which gives the same answers in half the room.

use std::collections::BTreeMap;

use super::tree::{Node, Tree};

/// Trees with more leaves than a word has bits are for [`Walk`](super::walk::Walk).
const MAX_LEAVES: usize = u32::BITS as usize;

/// One more than there may be thresholds of a feature: training cuts it into at most 255 bins.
const THRESHOLDS: usize = 256;

/// How many rows are asked side by side, and how many values are ranked.
const LANES: usize = 16;
const RANKED: usize = 4;

/// How many rows are ranked together: their ranks stay in the first-level cache.
const ROWS: usize = 128;

/// Beyond every rank, and so little that differences of ranks fit 32 bits.
const BLANK: i32 = 1 << 30;

/// The trees of a model.
#[derive(Debug)]
pub(super) struct Leaves {
    columns: Vec<Column>,
    questions: Vec<Question>,
    trees: Vec<Root>,
    /// The numbers of the leaves from left to right, tree after tree.
    values: Vec<f64>,
    outputs: usize,
}

/// Thresholds of one feature, of those questions where blanks go the same way.
#[derive(Debug)]
struct Column {
    feature: usize,
    /// The rank of a blank.
    blank: i32,
    /// Ascending and different; infinite behind the last.
    thresholds: [f64; THRESHOLDS],
}

/// A node of a tree: ranks up to this one go left.
#[derive(Debug, Clone, Copy)]
struct Question {
    column: u32,
    rank: i32,
    /// A bit for each leaf that who goes right has lost.
    lost: i32,
}

/// A tree: where its questions end, where its values begin.
#[derive(Debug)]
struct Root {
    end: usize,
    values: usize,
    /// How many numbers a leaf says, and which output the first adds to.
    width: usize,
    output: usize,
}

impl Leaves {
    /// None if a tree has too many leaves, or a feature too many thresholds. `outputs` is how many sums there are a row, which trees with fewer values
    /// serve in turn.
    pub(super) fn new(trees: &[Tree], outputs: usize) -> Option<Self> {
        let leaves =
            |tree: &Tree| tree.nodes().iter().filter(|node| matches!(node, Node::Leaf { .. })).count();
        if trees.iter().any(|tree| leaves(tree) > MAX_LEAVES) {
            return None;
        }
        let mut thresholds = BTreeMap::<(u32, bool), Vec<f64>>::new();
        for node in trees.iter().flat_map(Tree::nodes) {
            if let Node::Split { feature, threshold, missing_left, .. } = *node {
                let thresholds = thresholds.entry((feature, missing_left)).or_default();
                // Nothing is up to what is no number.
                thresholds.extend(Some(threshold).filter(|threshold| !threshold.is_nan()));
            }
        }
        for thresholds in thresholds.values_mut() {
            thresholds.sort_by(f64::total_cmp);
            thresholds.dedup();
        }
        if thresholds.values().any(|thresholds| thresholds.len() >= THRESHOLDS) {
            return None;
        }
        let places: BTreeMap<(u32, bool), u32> = thresholds.keys().copied().zip(0..).collect();
        let rank = |key, threshold: f64| match threshold.is_nan() {
            true => -1,
            false => thresholds[&key].partition_point(|other| *other < threshold) as i32,
        };
        let (mut questions, mut roots, mut values) = (Vec::new(), Vec::new(), Vec::new());
        for (i, tree) in trees.iter().enumerate() {
            let (width, first) = (tree.outputs(), values.len());
            // How many leaves stand before each node.
            let mut before = Vec::with_capacity(tree.nodes().len());
            for node in tree.nodes() {
                before.push((values.len() - first) / width);
                if let Node::Leaf { at } = *node {
                    values.extend(&tree.values()[at as usize..][..width]);
                }
            }
            for (node, before_node) in tree.nodes().iter().zip(&before) {
                if let Node::Split { feature, threshold, missing_left, right } = *node {
                    let key = (feature, missing_left);
                    let left = (1u32 << before[right as usize]) - (1 << before_node);
                    questions.push(Question {
                        column: places[&key],
                        rank: rank(key, threshold),
                        lost: left as i32,
                    });
                }
            }
            roots.push(Root { end: questions.len(), values: first, width, output: i * width % outputs });
        }
        let columns = thresholds.into_iter().map(|((feature, missing_left), there)| {
            let mut thresholds = [f64::INFINITY; THRESHOLDS];
            thresholds[..there.len()].copy_from_slice(&there);
            let blank = if missing_left { -BLANK } else { BLANK };
            Column { feature: feature as usize, blank, thresholds }
        });
        Some(Self { columns: columns.collect(), questions, trees: roots, values, outputs })
    }

    /// Adds what the trees say, in their order, to the sums of some rows of so many values.
    pub(super) fn add(&self, values: &[f64], width: usize, sums: &mut [f64]) {
        let mut ranks = vec![[0; LANES]; self.columns.len().max(1) * (ROWS / LANES)];
        for (block, sums) in sums.chunks_mut(ROWS * self.outputs).enumerate() {
            let rows = sums.len() / self.outputs;
            self.rank(&values[block * ROWS * width..][..rows * width], width, &mut ranks);
            self.add_block(&ranks, sums);
        }
    }

    /// The ranks of at most [`ROWS`] rows, group by group and in a group column by column.
    fn rank(&self, values: &[f64], width: usize, ranks: &mut [[i32; LANES]]) {
        let groups = ranks.chunks_exact_mut(self.columns.len().max(1));
        for (rows, ranks) in values.chunks((LANES * width).max(1)).zip(groups) {
            for (column, ranks) in self.columns.iter().zip(ranks) {
                let mut lanes = [f64::NAN; LANES];
                let there = rows.chunks_exact(width.max(1)).filter_map(|row| row.get(column.feature));
                lanes.iter_mut().zip(there).for_each(|(lane, value)| *lane = *value);
                column.rank(&lanes, ranks);
            }
        }
    }

    fn add_block(&self, ranks: &[[i32; LANES]], sums: &mut [f64]) {
        let mut start = 0;
        for tree in &self.trees {
            let questions = &self.questions[start..tree.end];
            start = tree.end;
            let groups = ranks.chunks_exact(self.columns.len().max(1));
            for (sums, ranks) in sums.chunks_mut(LANES * self.outputs).zip(groups) {
                let mut lost = [0i32; LANES];
                for question in questions {
                    let ranks = &ranks[question.column as usize];
                    for (lost, rank) in lost.iter_mut().zip(ranks) {
                        // The sign is that of who goes right, in every bit. A comparison here becomes a branch.
                        *lost |= ((question.rank - rank) >> (i32::BITS - 1)) & question.lost;
                    }
                }
                for (sums, lost) in sums.chunks_exact_mut(self.outputs).zip(lost) {
                    let values = tree.values + lost.trailing_ones() as usize * tree.width;
                    let values = &self.values[values..][..tree.width];
                    sums[tree.output..].iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
                }
            }
        }
    }
}

impl Column {
    /// How many thresholds are less than each value: a search in eight steps, for some values side by side.
    #[inline]
    fn rank(&self, values: &[f64; LANES], ranks: &mut [i32; LANES]) {
        let (values, ranks) = (values.as_chunks::<RANKED>().0, ranks.as_chunks_mut::<RANKED>().0);
        for (values, ranks) in values.iter().zip(ranks) {
            let mut at = [0; RANKED];
            for step in [128, 64, 32, 16, 8, 4, 2, 1] {
                for (at, value) in at.iter_mut().zip(values) {
                    // A choice here becomes a branch, and half of the guesses are wrong.
                    let below = self.thresholds[(*at + step - 1) % THRESHOLDS] < *value;
                    *at += usize::from(below) * step;
                }
            }
            for ((rank, value), at) in ranks.iter_mut().zip(values).zip(at) {
                *rank = if value.is_nan() { self.blank } else { at as i32 };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::{tree::Writer, walk::tests},
        *,
    };

    proptest! {
        #[test]
        fn rows_end_where_the_trees_lead(seed: u64, trees in 0..9u64, rows in 1..300usize, blanks: bool, outputs in 1..3usize) {
            let trees = tests::trees(seed, trees, outputs, 5);
            let values = tests::values(seed, rows, blanks);
            let mut sums = vec![0.5; rows * outputs];
            Leaves::new(&trees, outputs).unwrap().add(&values, tests::WIDTH, &mut sums);
            prop_assert_eq!(sums, tests::slowly(&trees, &values, outputs));
        }
    }

    #[test]
    fn a_leaf_alone_says_its_number() {
        let tree = |value| {
            let mut writer = Writer::new(1);
            writer.leaf(&[value]);
            writer.finish()
        };
        let mut sums = [0.0; 40];
        Leaves::new(&[tree(2.0), tree(3.0)], 1).unwrap().add(&[], 0, &mut sums);
        assert_eq!(sums, [5.0; 40]);
    }

    #[test]
    fn deep_trees_are_for_others() {
        let deep = (0..20).flat_map(|seed| tests::trees(seed, 1, 1, 9)).collect::<Vec<_>>();
        let leaves = |tree: &Tree| tree.nodes().len().div_ceil(2);
        assert!(deep.iter().any(|tree| leaves(tree) > MAX_LEAVES));
        for tree in deep {
            let fits = leaves(&tree) <= MAX_LEAVES;
            assert_eq!(Leaves::new(&[tree], 1).is_some(), fits);
        }
    }
}
