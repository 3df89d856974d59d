//! Trees laid out for prediction.
//!
//! A step down a tree waits for the step before it, so several walks are taken side by side: eight rows down one tree,
//! or one row down eight trees. Siblings are neighbours, so that a comparison is added to the place of the left one,
//! and nothing is left to guess for the processor. A leaf leads to itself.

use super::tree::{Node, Tree};

/// How many walks are taken side by side.
const LANES: usize = 8;

/// A node: 16 bytes.
#[derive(Debug, Clone, Copy)]
struct Step {
    /// Values up to this one go to `child`, others to the node behind it; all do from a leaf.
    threshold: f64,
    /// Twice the feature; one more if blanks go to `child`.
    feature: u32,
    child: u32,
}

/// The trees of a model.
#[derive(Debug)]
pub(super) struct Walk {
    steps: Vec<Step>,
    /// Where the values of each node are, if it is a leaf.
    at: Vec<u32>,
    values: Vec<f64>,
    trees: Vec<Root>,
    outputs: usize,
}

#[derive(Debug)]
struct Root {
    step: u32,
    /// Where its values begin.
    values: usize,
    /// How many numbers a leaf says, and which output the first adds to.
    width: usize,
    output: usize,
}

impl Walk {
    /// `outputs` is how many sums there are a row, which trees with fewer values serve in turn.
    pub(super) fn new(trees: &[Tree], outputs: usize) -> Self {
        let mut walk =
            Self { steps: Vec::new(), at: Vec::new(), values: Vec::new(), trees: Vec::new(), outputs };
        for (i, tree) in trees.iter().enumerate() {
            walk.push(tree, i * tree.outputs() % outputs);
        }
        walk
    }

    /// Lays a tree out level by level.
    fn push(&mut self, tree: &Tree, output: usize) {
        let first = self.steps.len();
        self.trees.push(Root {
            step: first as u32,
            values: self.values.len(),
            width: tree.outputs(),
            output,
        });
        self.values.extend(tree.values());
        let blank = Step { threshold: f64::INFINITY, feature: 1, child: 0 };
        self.steps.resize(first + tree.nodes().len(), blank);
        self.at.resize(first + tree.nodes().len(), 0);
        // A node of the tree waits at the index of its step.
        let mut waiting = std::collections::VecDeque::from([(0, first)]);
        let mut next = first + 1;
        while let Some((node, step)) = waiting.pop_front() {
            match tree.nodes()[node] {
                Node::Split { feature, threshold, missing_left, right } => {
                    let feature = feature * 2 + u32::from(missing_left);
                    self.steps[step] = Step { threshold, feature, child: next as u32 };
                    waiting.extend([(node + 1, next), (right as usize, next + 1)]);
                    next += 2;
                }
                Node::Leaf { at } => {
                    self.steps[step].child = step as u32;
                    self.at[step] = at;
                }
            }
        }
    }

    /// Adds what the trees say, in their order, to the sums of some rows of so many values.
    pub(super) fn add(&self, values: &[f64], width: usize, sums: &mut [f64]) {
        let rows = sums.len() / self.outputs;
        let blanks = values[..rows * width].iter().any(|value| value.is_nan());
        match blanks || width == 0 {
            true => self.add_rows::<true>(values, width, sums),
            false => self.add_rows::<false>(values, width, sums),
        }
    }

    fn add_rows<const BLANKS: bool>(&self, values: &[f64], width: usize, sums: &mut [f64]) {
        let whole = sums.len() / self.outputs / LANES * LANES;
        for tree in &self.trees {
            for first in (0..whole).step_by(LANES) {
                let ends = self.ends::<BLANKS>(
                    values,
                    [tree.step; LANES],
                    std::array::from_fn(|i| (first + i) * width),
                );
                for (i, end) in ends.into_iter().enumerate() {
                    self.say(tree, end, &mut sums[(first + i) * self.outputs..]);
                }
            }
        }
        for (row, sums) in sums.chunks_exact_mut(self.outputs).enumerate().skip(whole) {
            for trees in self.trees.chunks(LANES) {
                let start = |i: usize| trees.get(i).unwrap_or(&trees[0]).step;
                let ends = self.ends::<BLANKS>(values, std::array::from_fn(start), [row * width; LANES]);
                for (tree, end) in trees.iter().zip(ends) {
                    self.say(tree, end, sums);
                }
            }
        }
    }

    /// Where walks end that start at these steps, each with the row whose values begin there.
    #[inline]
    fn ends<const BLANKS: bool>(
        &self,
        values: &[f64],
        mut at: [u32; LANES],
        rows: [usize; LANES],
    ) -> [u32; LANES] {
        loop {
            let mut moved = 0;
            for (at, row) in at.iter_mut().zip(rows) {
                let step = self.steps[*at as usize];
                let value = values.get(row + (step.feature >> 1) as usize).copied().unwrap_or(f64::NAN);
                let left = match BLANKS {
                    true => (value <= step.threshold) | (value.is_nan() & (step.feature & 1 == 1)),
                    false => value <= step.threshold,
                };
                let next = step.child + u32::from(!left);
                moved |= next ^ *at;
                *at = next;
            }
            if moved == 0 {
                return at;
            }
        }
    }

    #[inline]
    fn say(&self, tree: &Root, end: u32, sums: &mut [f64]) {
        let values = &self.values[tree.values + self.at[end as usize] as usize..][..tree.width];
        sums[tree.output..].iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use dml_core::rng;
    use proptest::prelude::*;

    use super::*;
    use crate::learners::trees::tree::Writer;

    /// How many values a row has.
    pub(in super::super) const WIDTH: usize = 4;

    /// Trees of chance, at most so deep.
    pub(in super::super) fn trees(seed: u64, count: u64, outputs: usize, depth: usize) -> Vec<Tree> {
        fn grow(writer: &mut Writer, path: u64, depth: usize, most: usize, outputs: usize) {
            let leaf = depth == most || depth > 0 && rng::unit(path, 0) < 0.2;
            if leaf {
                writer.leaf(&(0..outputs as u64).map(|i| rng::unit(path, i)).collect::<Vec<_>>());
                return;
            }
            let threshold = rng::unit(path, 1);
            let split = writer.split(rng::below(path, 2, 4) as usize, threshold, path.is_multiple_of(2), 1.0);
            grow(writer, rng::draw(path, 3), depth + 1, most, outputs);
            writer.right(split);
            grow(writer, rng::draw(path, 4), depth + 1, most, outputs);
        }
        let tree = |i| {
            let mut writer = Writer::new(outputs);
            grow(&mut writer, rng::draw(seed, i), 0, depth, outputs);
            writer.finish()
        };
        (0..count).map(tree).collect()
    }

    /// The values of some rows.
    pub(in super::super) fn values(seed: u64, rows: usize, blanks: bool) -> Vec<f64> {
        let value = |i: u64| match rng::below(seed, 1000 + i, 8) {
            0 if blanks => f64::NAN,
            1 => f64::INFINITY,
            2 => f64::NEG_INFINITY,
            _ => rng::unit(seed, 2000 + i),
        };
        (0..(rows * WIDTH) as u64).map(value).collect()
    }

    /// What the trees add to sums that begin with a half, one by one.
    pub(in super::super) fn slowly(trees: &[Tree], values: &[f64], outputs: usize) -> Vec<f64> {
        let mut sums = vec![0.5; values.len() / WIDTH * outputs];
        for (row, sums) in values.chunks(WIDTH).zip(sums.chunks_mut(outputs)) {
            for tree in trees {
                sums.iter_mut().zip(tree.leaf(row)).for_each(|(sum, value)| *sum += value);
            }
        }
        sums
    }

    proptest! {
        #[test]
        fn walks_end_where_the_trees_lead(seed: u64, count in 0..12u64, rows in 1..20usize, blanks: bool, outputs in 1..3usize) {
            let (trees, values) = (trees(seed, count, outputs, 9), values(seed, rows, blanks));
            let mut sums = vec![0.5; rows * outputs];
            Walk::new(&trees, outputs).add(&values, WIDTH, &mut sums);
            prop_assert_eq!(sums, slowly(&trees, &values, outputs));
        }
    }
}
