//! Gradient boosting at work: what the trees so far add up to for each training row, and the trees that correct it.

use std::sync::atomic::{AtomicU32, Ordering};

use dml_core::rng;
use rayon::prelude::*;

use super::{
    Bins, Tree,
    binned::Binned,
    grow::{Choice, Grower, Grown, Limits},
    objective::{Derived, Objective, ROWS, Reach},
    stepped::Stepped,
    stop::{HeldBack, is_done},
    sums::Moments,
};
use crate::learner::Fit;

/// A leaf needs no more than this part of the rows, whatever the parameter says, so that small tables can be split.
const LEAST_LEAVES: u64 = 16;
/// From how many values of the table on the trees of several classes are grown one by one, each by all threads.
const LARGE_TABLE: usize = 1 << 20;
/// The row is in no leaf, as the tree has not learned from it.
const NO_LEAF: u32 = u32::MAX;

/// A unit at work.
pub(crate) struct Booster<'a> {
    fit: &'a Fit<'a>,
    bins: &'a Bins,
    table: &'a Binned,
    objective: &'a Objective,
    /// How far derivatives reach in the iteration to come.
    reach: Vec<Reach>,
    /// What base and trees add up to for each row, row-major.
    sums: Vec<f64>,
    held_back: Option<HeldBack>,
    /// The losses on the rows that are held back, those that earlier units noted among them.
    losses: Vec<f64>,
    trees: Vec<Tree>,
}

/// What a [`Booster`] has come to.
pub(crate) struct Boosted {
    pub(crate) trees: Vec<Tree>,
    pub(crate) losses: Vec<f64>,
    pub(crate) sums: Vec<f64>,
    pub(crate) reach: Vec<Reach>,
}

impl<'a> Booster<'a> {
    pub(crate) fn new(
        fit: &'a Fit<'a>,
        bins: &'a Bins,
        table: &'a Binned,
        objective: &'a Objective,
        reach: Vec<Reach>,
        sums: Vec<f64>,
        losses: Vec<f64>,
    ) -> Self {
        let some = |held: &HeldBack| held.rows.contains(&true) && held.rows.contains(&false);
        let held_back = HeldBack::of(fit, table).filter(some);
        let trees = Vec::new();
        let mut booster = Self { fit, bins, table, objective, reach, sums, held_back, losses, trees };
        if booster.losses.is_empty() {
            booster.note_loss();
        }
        booster
    }

    /// Whether the loss no longer falls.
    pub(crate) fn is_done(&self) -> bool {
        self.held_back.is_some() && is_done(self.fit.params, &self.losses)
    }

    /// The trees that were grown, all losses, the sums with these trees, and the reach of what is left.
    pub(crate) fn finish(self) -> Boosted {
        Boosted { trees: self.trees, losses: self.losses, sums: self.sums, reach: self.reach }
    }

    /// Grows the trees of one iteration.
    pub(crate) fn iterate(&mut self, iteration: u64) {
        let seed = rng::draw(self.fit.seed, iteration);
        let rows = chosen(self.fit, self.table, self.held_back.as_ref(), seed);
        let before = self.trees.len();
        let greatest = match (self.objective.trees(), self.objective.outputs) {
            (0, _) => return,
            (1, 1) if self.fit.task == dml_core::Task::Regression => self.one::<Moments<2>>(rows, seed),
            (1, _) => self.one::<Moments<3>>(rows, seed),
            _ => self.several(rows, seed),
        };
        self.reach = self.objective.next_reach(&greatest, farthest(&self.trees[before..]));
        self.note_loss();
    }

    fn one<S: Derived>(&mut self, rows: Vec<u32>, seed: u64) -> Vec<Reach> {
        let (sums, greatest) = S::derive(self.objective, 0, self.reach[0], &self.table.y, &self.sums);
        let grown = self.grow(sums, rows, tree_seed(seed, 0), true);
        self.apply(0, grown);
        vec![greatest]
    }

    /// A tree a class.
    fn several(&mut self, rows: Vec<u32>, seed: u64) -> Vec<Reach> {
        let classes = self.objective.trees();
        // The shares stay those from before the iteration.
        let shares = self.objective.expected(&self.sums).unwrap_or_default();
        let derive =
            |k: usize| Moments::<3>::derive(self.objective, k, self.reach[k], &self.table.y, &shares);
        if self.table.rows() * self.table.width < LARGE_TABLE {
            let grow = |k| {
                let (sums, greatest) = derive(k);
                (self.grow(sums, rows.clone(), tree_seed(seed, k), false), greatest)
            };
            let grown = (0..classes).into_par_iter().map(grow).collect::<Vec<_>>();
            let (grown, greatest): (Vec<_>, Vec<_>) = grown.into_iter().unzip();
            grown.into_iter().enumerate().for_each(|(k, grown)| self.apply(k, grown));
            return greatest;
        }
        let mut all = Vec::new();
        for k in 0..classes {
            let (sums, greatest) =
                Moments::<3>::derive(self.objective, k, self.reach[k], &self.table.y, &shares);
            let grown = self.grow(sums, rows.clone(), tree_seed(seed, k), true);
            self.apply(k, grown);
            all.push(greatest);
        }
        all
    }

    fn apply(&mut self, output: usize, grown: Grown) {
        add(&mut self.sums, (self.objective.outputs, output), self.bins, self.table, &grown);
        self.trees.push(grown.tree);
    }

    fn grow<S: Derived>(&self, sums: S, rows: Vec<u32>, seed: u64, threads: bool) -> Grown {
        let sums = drawn(self.fit, sums);
        let (limits, choice) = (limits(self.fit, self.objective), choice(self.fit, self.table.width, seed));
        Grower { bins: self.bins, table: self.table, sums: &sums, limits, choice, threads }.grow(rows)
    }

    /// Notes the mean loss on the rows that are held back.
    fn note_loss(&mut self) {
        let Some(held_back) = &self.held_back else { return };
        let tally = held_back.tally(self.objective, &self.table.y, &self.sums, &self.reach);
        self.losses.push(tally.mean(self.objective, &self.reach));
    }
}

/// The seed of a tree of an iteration, which has this seed itself.
pub(crate) fn tree_seed(iteration: u64, k: usize) -> u64 {
    rng::draw(iteration, 1 + k as u64)
}

/// The rows of a table that an iteration learns from.
pub(crate) fn chosen(fit: &Fit, table: &Binned, held_back: Option<&HeldBack>, seed: u64) -> Vec<u32> {
    let all = 0..table.rows() as u32;
    let share = fit.params.float("subsample");
    if share >= 1.0 && held_back.is_none() {
        return all.collect();
    }
    let seed = rng::draw(seed, 0);
    let is_held_back = |row: u32| held_back.is_some_and(|held| held.rows[row as usize]);
    let is_drawn = |row: u32| share >= 1.0 || rng::unit(seed, table.ids[row as usize]) < share;
    all.filter(|&row| !is_held_back(row) && is_drawn(row)).collect()
}

/// How far a tree of a fit may grow.
pub(crate) fn limits(fit: &Fit, objective: &Objective) -> Limits {
    let least = (objective.rows / LEAST_LEAVES).max(1) as i64;
    Limits {
        max_leaves: fit.params.int("max_leaves") as usize,
        max_depth: fit.params.int("max_depth") as usize,
        min_leaf: fit.params.int("min_samples_leaf").min(least),
        min_split: 2,
    }
}

/// Which questions a tree with this seed looks at.
pub(crate) fn choice(fit: &Fit, width: usize, seed: u64) -> Choice {
    let features = (fit.params.float("max_features") * width as f64).ceil().max(1.0) as usize;
    Choice { features, random_cuts: false, seed }
}

/// Sums with the fit's way of making leaves of them.
pub(crate) fn drawn<S: Derived>(fit: &Fit, sums: S) -> S {
    sums.drawn(fit.params.float("l2_regularization"), fit.params.float("learning_rate"))
}

/// The greatest number that a leaf says, without its sign.
pub(crate) fn farthest(trees: &[Tree]) -> f64 {
    trees.iter().flat_map(Tree::values).fold(0.0, |most, value| f64::max(most, value.abs()))
}

/// Adds what a tree says of the rows to one of their sums, the second of so many. Rows that it has learned from are in a
/// leaf already.
pub(crate) fn add(
    sums: &mut [f64],
    (outputs, output): (usize, usize),
    bins: &Bins,
    table: &Binned,
    grown: &Grown,
) {
    let values = grown.tree.values();
    let leaf_of = (0..table.rows()).map(|_| AtomicU32::new(NO_LEAF)).collect::<Vec<_>>();
    // No two threads have the same row, and all are done before anything is read.
    grown.leaves.par_iter().enumerate().for_each(|(leaf, rows)| {
        grown.rows[rows.clone()].par_chunks(1 << 15).for_each(|rows| {
            rows.iter().for_each(|&row| leaf_of[row as usize].store(leaf as u32, Ordering::Relaxed));
        });
    });
    let stepped = Stepped::new(&grown.tree, bins);
    let blocks = sums.par_chunks_mut(ROWS * outputs).zip(leaf_of.par_chunks(ROWS)).enumerate();
    blocks.for_each(|(block, (sums, leaves))| {
        let rows = sums.iter_mut().skip(output).step_by(outputs).zip(leaves);
        for (i, (sum, leaf)) in rows.enumerate() {
            *sum += match leaf.load(Ordering::Relaxed) {
                NO_LEAF => stepped.leaf(table.row((block * ROWS + i) as u32))[0],
                leaf => values[leaf as usize],
            };
        }
    });
}
