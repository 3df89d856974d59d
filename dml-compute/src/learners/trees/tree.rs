//! One decision tree, as models hold it: nodes in pre-order, so that a child stands behind its parent and a walk ends.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A node of a [`Tree`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Node {
    /// A question. The left child is the next node.
    Split {
        /// Which encoded feature is asked for.
        feature: u32,
        /// Values up to this one go left.
        threshold: f64,
        /// Whether blanks go left.
        missing_left: bool,
        /// The right child.
        right: u32,
    },
    /// An answer: where its values start among the tree's.
    Leaf {
        /// See [`Tree::values`].
        at: u32,
    },
}

/// A decision tree whose leaves say one or several numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Raw")]
pub struct Tree {
    outputs: u32,
    nodes: Vec<Node>,
    values: Vec<f64>,
    gains: BTreeMap<u32, f64>,
}

/// A tree as read, before anything of it is believed.
#[derive(Deserialize)]
struct Raw {
    outputs: u32,
    nodes: Vec<Node>,
    values: Vec<f64>,
    gains: BTreeMap<u32, f64>,
}

impl TryFrom<Raw> for Tree {
    type Error = &'static str;

    fn try_from(raw: Raw) -> Result<Self, Self::Error> {
        let Raw { outputs, nodes, values, gains } = raw;
        let fits =
            |at: u32| (at as usize).checked_add(outputs as usize).is_some_and(|end| end <= values.len());
        // In pre-order, what follows a leaf is the right child of the last split that has not had it yet.
        let mut rights = Vec::new();
        let sound = |(i, node): (usize, &Node)| match *node {
            Node::Split { right, .. } => {
                rights.push(right as usize);
                i + 1 < nodes.len()
            }
            Node::Leaf { at } => fits(at) && rights.pop().unwrap_or(nodes.len()) == i + 1,
        };
        if outputs == 0 || nodes.is_empty() || !nodes.iter().enumerate().all(sound) {
            return Err("a tree has a node that points nowhere");
        }
        Ok(Self { outputs, nodes, values, gains })
    }
}

impl Tree {
    /// The nodes; the first is the root.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The numbers of all leaves, [`outputs`](Self::outputs) a leaf.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// How many numbers a leaf says.
    pub fn outputs(&self) -> usize {
        self.outputs as usize
    }

    /// By how much the splits of each feature lowered the loss.
    pub fn gains(&self) -> &BTreeMap<u32, f64> {
        &self.gains
    }

    /// What the tree says of a row. A feature that the row lacks is blank.
    pub fn leaf(&self, row: &[f64]) -> &[f64] {
        let mut i = 0;
        loop {
            match self.nodes[i] {
                Node::Split { feature, threshold, missing_left, right } => {
                    let value = row.get(feature as usize).copied().unwrap_or(f64::NAN);
                    let left = value <= threshold || missing_left && value.is_nan();
                    i = if left { i + 1 } else { right as usize };
                }
                Node::Leaf { at } => return &self.values[at as usize..][..self.outputs as usize],
            }
        }
    }

    /// One more than the greatest feature that is asked for.
    pub(crate) fn width(&self) -> usize {
        let feature = |node: &Node| match node {
            Node::Split { feature, .. } => *feature as usize + 1,
            Node::Leaf { .. } => 0,
        };
        let gains = self.gains.keys().next_back().map_or(0, |&feature| feature as usize + 1);
        self.nodes.iter().map(feature).max().unwrap_or(0).max(gains)
    }
}

/// Writes a tree, node by node in pre-order.
#[derive(Debug)]
pub(crate) struct Writer(Tree);

impl Writer {
    pub(crate) fn new(outputs: usize) -> Self {
        Self(Tree { outputs: outputs as u32, nodes: Vec::new(), values: Vec::new(), gains: BTreeMap::new() })
    }

    /// A question; its left child comes next, and then [`Writer::right`] must be called with what this gives.
    pub(crate) fn split(&mut self, feature: usize, threshold: f64, missing_left: bool, gain: f64) -> usize {
        let feature = feature as u32;
        let sum = self.0.gains.entry(feature).or_default();
        *sum = (*sum + gain).min(f64::MAX);
        self.0.nodes.push(Node::Split { feature, threshold, missing_left, right: 0 });
        self.0.nodes.len() - 1
    }

    /// The right child of that split comes next.
    pub(crate) fn right(&mut self, split: usize) {
        let next = self.0.nodes.len() as u32;
        if let Node::Split { right, .. } = &mut self.0.nodes[split] {
            *right = next;
        }
    }

    /// An answer.
    pub(crate) fn leaf(&mut self, values: &[f64]) {
        self.0.nodes.push(Node::Leaf { at: self.0.values.len() as u32 });
        self.0.values.extend(values);
    }

    /// The tree.
    pub(crate) fn finish(self) -> Tree {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stump() -> Tree {
        let mut writer = Writer::new(1);
        let split = writer.split(1, 0.5, true, 2.0);
        writer.leaf(&[-1.0]);
        writer.right(split);
        writer.leaf(&[1.0]);
        writer.finish()
    }

    #[test]
    fn walks_by_value_and_default() {
        let tree = stump();
        let say = |row: &[f64]| tree.leaf(row)[0];
        assert_eq!(
            [say(&[9.0, 0.5]), say(&[9.0, 0.6]), say(&[9.0, f64::NAN]), say(&[])],
            [-1.0, 1.0, -1.0, -1.0]
        );
    }

    #[test]
    fn cycles_and_loose_ends_are_refused() {
        let leaf = Node::Leaf { at: 0 };
        let split = |right| Node::Split { feature: 0, threshold: 0.0, missing_left: false, right };
        for (nodes, values) in [
            (vec![], vec![1.0]),
            (vec![leaf], vec![]),
            (vec![Node::Leaf { at: u32::MAX }], vec![1.0]),
            (vec![split(0), leaf, leaf], vec![1.0]),
            (vec![split(1), leaf, leaf], vec![1.0]),
            (vec![split(3), leaf, leaf], vec![1.0]),
            (vec![split(2), leaf, split(1)], vec![1.0]),
            (vec![split(4), split(3), leaf, leaf, split(6), leaf, leaf, leaf], vec![1.0]),
            (vec![split(4), split(4), leaf, leaf, leaf], vec![1.0]),
        ] {
            let bytes =
                postcard::to_allocvec(&Tree { outputs: 1, nodes, values, gains: BTreeMap::new() }).unwrap();
            assert!(postcard::from_bytes::<Tree>(&bytes).is_err());
        }
    }

    proptest! {
        #[test]
        fn flipped_bytes_neither_hang_nor_panic(at in 0..64usize, byte: u8) {
            let mut bytes = postcard::to_allocvec(&stump()).unwrap();
            let at = at % bytes.len();
            bytes[at] = byte;
            if let Ok(tree) = postcard::from_bytes::<Tree>(&bytes) {
                prop_assert_eq!(tree.leaf(&[0.0, 1.0]).len(), tree.outputs());
            }
        }
    }
}
