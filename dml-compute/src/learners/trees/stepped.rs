//! What trees say of the training rows, which are bytes: thresholds are bins.

use rayon::prelude::*;

use super::{
    binned::Binned,
    bins::Bins,
    ensemble::Ensemble,
    tree::{Node, Tree},
};

/// How many rows a thread answers at a time.
const ROWS: usize = 256;

/// A tree whose thresholds are bins.
pub(crate) struct Stepped<'a> {
    tree: &'a Tree,
    nodes: Vec<Step>,
}

struct Step {
    /// For a leaf, where its values are.
    feature: u32,
    bin: u8,
    /// The bin that goes left beside those up to `bin`: that of blanks, or `bin` itself.
    also: u8,
    /// The right child; for a leaf, 0.
    right: u32,
}

impl<'a> Stepped<'a> {
    pub(crate) fn new(tree: &'a Tree, bins: &Bins) -> Self {
        let step = |node: &Node| match *node {
            Node::Split { feature, threshold, missing_left, right } => {
                let bin = bins.bin(feature as usize, threshold);
                let also = if missing_left { bins.missing(feature as usize) as u8 } else { bin };
                Step { feature, bin, also, right }
            }
            Node::Leaf { at } => Step { feature: at, bin: 0, also: 0, right: 0 },
        };
        Self { tree, nodes: tree.nodes().iter().map(step).collect() }
    }

    /// What the tree says of a row's bins.
    pub(crate) fn leaf(&self, row: &[u8]) -> &'a [f64] {
        let mut i = 0;
        loop {
            let step = &self.nodes[i];
            if step.right == 0 {
                return &self.tree.values()[step.feature as usize..][..self.tree.outputs()];
            }
            let bin = row[step.feature as usize];
            i = if bin <= step.bin || bin == step.also { i + 1 } else { step.right as usize };
        }
    }
}

/// The base and all trees, added up in order for each training row, row-major.
pub(crate) fn training_sums(ensemble: &Ensemble, bins: &Bins, table: &Binned) -> Vec<f64> {
    let mut sums = ensemble.base().repeat(table.rows());
    let trees = ensemble.trees().iter().map(|tree| Stepped::new(tree, bins)).collect::<Vec<_>>();
    let outputs = ensemble.base().len();
    sums.par_chunks_mut(ROWS * outputs).enumerate().for_each(|(block, sums)| {
        for (i, tree) in trees.iter().enumerate() {
            let output = ensemble.output(i);
            for (j, sums) in sums.chunks_exact_mut(outputs).enumerate() {
                let values = tree.leaf(table.row((block * ROWS + j) as u32));
                sums[output..].iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
            }
        }
    });
    sums
}
