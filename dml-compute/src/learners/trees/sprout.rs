//! A tree on its way while many workers grow it, each from a shard of the rows.
//!
//! What is split first follows from gains, which follow from sums over all shards: one round a split would be too many.
//! So a round asks for the children of all nodes that may come to be split, and in the end the order in which one
//! machine would have gone decides which of them the tree has. Nobody's speed or number decides anything.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
};

use dml_core::rng;
use serde::{Deserialize, Serialize};

use super::{
    bins::Bins,
    grow::{Branch, Grower, Limits, Open, write},
    histogram::Histogram,
    judge::Scratch,
    sums::{Sums, add_all},
    tree::Tree,
};

/// Of how many nodes the children are asked for in one round at most.
const MOST_FORKS: usize = 32;

/// A node, which the tree may come to have or not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Bud {
    /// Names the node, for random choices: follows from its place in the tree.
    path: u64,
    depth: u32,
    /// The sums over its rows; of a root that was not seen yet, nothing.
    total: Vec<i64>,
    /// Whether its sums by bin are wanted.
    pub(crate) is_wanted: bool,
    /// Its best split, if it has one.
    pub(crate) fork: Option<Fork>,
    /// Where its children are, if they are here: the left one, and behind it the right one.
    pub(crate) left: Option<u32>,
}

/// A split, and what goes left.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Fork {
    pub(crate) feature: u32,
    pub(crate) bin: u8,
    pub(crate) missing_left: bool,
    gain: f64,
    left_total: Vec<i64>,
}

/// A tree on its way: the first of the nodes is the root, and children stand behind their parents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sprout {
    pub(crate) buds: Vec<Bud>,
    /// Once the tree is finished, which nodes are its leaves, in its order.
    pub(crate) leaves: Vec<u32>,
}

/// A node in the order of one machine.
struct Next {
    gain: f64,
    at: usize,
    bud: usize,
}

impl Ord for Next {
    fn cmp(&self, other: &Self) -> Ordering {
        self.gain.total_cmp(&other.gain).then(Reverse(self.at).cmp(&Reverse(other.at)))
    }
}

impl PartialOrd for Next {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Next {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Next {}

/// How one machine would grow the tree, as far as it is known.
struct Replay {
    /// The tree's nodes in the order in which they come to be.
    buds: Vec<usize>,
    /// Which of them are split, and where their children are.
    forks: Vec<(usize, usize)>,
    /// Whose children must be known to go on.
    unknown: Vec<usize>,
}

impl Sprout {
    /// A root, of which nothing is known.
    pub(crate) fn new(seed: u64) -> Self {
        let root = Bud { path: seed, depth: 0, total: Vec::new(), is_wanted: true, fork: None, left: None };
        Self { buds: vec![root], leaves: Vec::new() }
    }

    /// Whether nothing is known of it.
    pub(crate) fn is_new(&self) -> bool {
        self.buds.len() == 1 && self.buds[0].is_wanted
    }

    /// The nodes whose sums are wanted.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = usize> {
        (0..self.buds.len()).filter(|&bud| self.buds[bud].is_wanted)
    }

    /// Whether all nodes refer to such as there are, with features and sums as these: so that no state makes a worker
    /// panic.
    pub(crate) fn is_sound(&self, bins: &Bins, channels: usize) -> bool {
        let sound = |(i, bud): (usize, &Bud)| {
            let fork = bud.fork.as_ref().is_none_or(|fork| {
                (fork.feature as usize) < bins.width() && fork.left_total.len() == channels
            });
            let children = bud.left.is_none_or(|left| {
                bud.fork.is_some() && left as usize > i && (left as usize) + 1 < self.buds.len()
            });
            let total = bud.total.len() == channels || bud.total.is_empty() && self.is_new();
            fork && children && total
        };
        !self.buds.is_empty() && self.buds.iter().enumerate().all(sound)
    }

    /// What is learned of the root.
    pub(crate) fn set_root(&mut self, total: &[i64], limits: &Limits, count: i64) {
        self.buds[0].total = total.to_vec();
        self.buds[0].is_wanted = limits.allow(count, 0);
    }

    /// Looks for the best split of a node with these sums by bin.
    pub(super) fn judge<S: Sums>(
        &self,
        grower: &Grower<S>,
        bud: usize,
        histogram: Histogram,
        scratch: &mut Scratch,
    ) -> Option<Fork> {
        let Bud { path, depth, total, .. } = &self.buds[bud];
        let mut sums = grower.sums.zero();
        sums.as_mut().copy_from_slice(total);
        let open = Open::remote(*path, *depth as usize, sums, histogram);
        let split = grower.judge(&open, &[], scratch)?;
        let mut left = grower.sums.zero();
        let channels = total.len();
        let cells = open.histogram.as_ref()?.feature(grower.table, split.feature).chunks_exact(channels);
        let missing = grower.bins.missing(split.feature);
        for (bin, cell) in cells.enumerate() {
            let goes_left = if bin == missing { split.missing_left == Some(true) } else { bin <= split.bin };
            if goes_left {
                add_all(left.as_mut(), cell, 1);
            }
        }
        let missing_left = split.missing_left.unwrap_or(S::count(left.as_ref()) * 2 >= S::count(total));
        Some(Fork {
            feature: split.feature as u32,
            bin: split.bin as u8,
            missing_left,
            gain: split.gain,
            left_total: left.as_ref().to_vec(),
        })
    }

    /// Takes what was found for a node.
    pub(crate) fn learn(&mut self, bud: usize, fork: Option<Fork>) {
        self.buds[bud].fork = fork;
        self.buds[bud].is_wanted = false;
    }

    /// The tree, if enough is known; else there are nodes that are wanted.
    pub(crate) fn grow<S: Sums>(&mut self, sums: &S, bins: &Bins, limits: &Limits) -> Option<Tree> {
        loop {
            let replay = self.replay(limits);
            if replay.unknown.is_empty() {
                return Some(self.finish(sums, bins, limits, &replay));
            }
            for &bud in replay.unknown.iter().take(MOST_FORKS) {
                self.fork::<S>(bud, limits);
            }
            if self.wanted().next().is_some() {
                return None;
            }
        }
    }

    /// Puts the children of a node down, which has a split.
    fn fork<S: Sums>(&mut self, bud: usize, limits: &Limits) {
        let parent = &self.buds[bud];
        let Some(fork) = &parent.fork else { return };
        let left_total = fork.left_total.clone();
        let mut right_total = parent.total.clone();
        add_all(&mut right_total, &left_total, -1);
        let (path, depth) = (parent.path, parent.depth + 1);
        let child = |side, total: Vec<i64>| Bud {
            path: rng::draw(path, side),
            depth,
            is_wanted: limits.allow(S::count(&total), depth as usize),
            total,
            fork: None,
            left: None,
        };
        let children = [child(0, left_total), child(1, right_total)];
        self.buds[bud].left = Some(self.buds.len() as u32);
        self.buds.extend(children);
    }

    /// Goes the way of one machine. Where children are not known, it goes on as if they had no splits.
    fn replay(&self, limits: &Limits) -> Replay {
        let mut replay = Replay { buds: vec![0], forks: Vec::new(), unknown: Vec::new() };
        let mut queue = BinaryHeap::new();
        let next =
            |at, bud: usize| self.buds[bud].fork.as_ref().map(|fork| Next { gain: fork.gain, at, bud });
        queue.extend(next(0, 0));
        while let Some(Next { at, bud, .. }) = queue.pop() {
            // The root is a leaf, and each split adds one.
            if replay.forks.len() + 1 >= limits.max_leaves {
                break;
            }
            let children = replay.buds.len();
            replay.forks.push((at, children));
            let is_last = replay.forks.len() + 1 == limits.max_leaves;
            match self.buds[bud].left {
                Some(left) => {
                    let left = left as usize;
                    replay.buds.extend([left, left + 1]);
                    queue.extend(next(children, left));
                    queue.extend(next(children + 1, left + 1));
                }
                None => {
                    replay.buds.extend([usize::MAX; 2]);
                    if !is_last {
                        replay.unknown.push(bud);
                    }
                }
            }
        }
        replay
    }

    /// Writes the tree, all splits of which are known.
    fn finish<S: Sums>(&mut self, sums: &S, bins: &Bins, limits: &Limits, replay: &Replay) -> Tree {
        let mut buds = replay.buds.clone();
        for &(at, children) in &replay.forks {
            // Only the last split may have no children yet. Nothing is wanted of them.
            if self.buds[buds[at]].left.is_none() {
                self.fork::<S>(buds[at], limits);
            }
            let left = self.buds[buds[at]].left.map_or(0, |left| left as usize);
            buds[children] = left;
            buds[children + 1] = left + 1;
        }
        self.buds.iter_mut().for_each(|bud| bud.is_wanted = false);
        let leaf = |&bud: &usize| {
            let mut total = sums.zero();
            total.as_mut().copy_from_slice(&self.buds[bud].total);
            Branch::Leaf { total }
        };
        let mut branches = buds.iter().map(leaf).collect::<Vec<Branch<S>>>();
        for &(at, left) in &replay.forks {
            if let Some(fork) = &self.buds[buds[at]].fork {
                branches[at] = Branch::Split {
                    feature: fork.feature as usize,
                    bin: usize::from(fork.bin),
                    missing_left: fork.missing_left,
                    gain: fork.gain,
                    left,
                    right: left + 1,
                };
            }
        }
        let (tree, leaves) = write(sums, bins, &branches);
        self.leaves = leaves.into_iter().map(|leaf| buds[leaf] as u32).collect();
        tree
    }
}
