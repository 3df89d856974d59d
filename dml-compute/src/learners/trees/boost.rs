//! Gradient boosting at work: what the trees so far add up to for each training row, and the trees that correct it.

use std::sync::atomic::{AtomicU32, Ordering};

use dml_core::rng;
use rayon::prelude::*;

use super::{
    Bins, Tree,
    binned::Binned,
    cart::class,
    ensemble::{Link, softmax},
    grow::{Choice, Grower, Grown, Limits},
    logistic::probability,
    stepped::Stepped,
    sums::{Moments, Sums, magnitude},
};
use crate::learner::Fit;

/// A leaf needs no more than this part of the rows, whatever the parameter says, so that small tables can be split.
const LEAST_LEAVES: usize = 16;
/// How many rows a thread looks at in one go: sums over rows are added up by so many, in order.
const ROWS: usize = 1 << 12;
/// From how many values of the table on the trees of several classes are grown one by one, each by all threads.
const LARGE_TABLE: usize = 1 << 20;
/// The row is in no leaf, as the tree has not learned from it.
const NO_LEAF: u32 = u32::MAX;

/// A unit at work.
pub(crate) struct Booster<'a> {
    fit: &'a Fit<'a>,
    bins: &'a Bins,
    table: &'a Binned,
    link: Link,
    outputs: usize,
    /// What a row of each class weighs; empty if all weigh the same.
    weights: Vec<f64>,
    /// What base and trees add up to for each row, row-major.
    sums: Vec<f64>,
    /// Room for what each row is expected to be.
    expected: Vec<f64>,
    /// Room for the leaf in which each row ended.
    leaf_of: Vec<AtomicU32>,
    stop: Option<Stop>,
    trees: Vec<Tree>,
}

impl<'a> Booster<'a> {
    pub(crate) fn new(
        fit: &'a Fit<'a>,
        bins: &'a Bins,
        table: &'a Binned,
        (link, outputs): (Link, usize),
        weights: Vec<f64>,
        sums: Vec<f64>,
        stop: Option<Stop>,
    ) -> Self {
        let leaf_of = (0..table.rows()).map(|_| AtomicU32::new(NO_LEAF)).collect();
        let (expected, trees) = (Vec::new(), Vec::new());
        let mut booster =
            Self { fit, bins, table, link, outputs, weights, sums, expected, leaf_of, stop, trees };
        if booster.stop.as_ref().is_some_and(|stop| stop.before.is_empty()) {
            booster.note_loss();
        }
        booster
    }

    /// Whether the loss no longer falls.
    pub(crate) fn is_done(&self) -> bool {
        self.stop.as_ref().is_some_and(Stop::is_done)
    }

    /// The trees that were grown, the losses that were noted, and the sums with these trees.
    pub(crate) fn finish(self) -> (Vec<Tree>, Vec<f64>, Vec<f64>) {
        (self.trees, self.stop.map_or_else(Vec::new, |stop| stop.noted), self.sums)
    }

    /// Grows the trees of one iteration.
    pub(crate) fn iterate(&mut self, iteration: u64) {
        let seed = rng::draw(self.fit.seed, iteration);
        let rows = self.rows(rng::draw(seed, 0));
        match self.link {
            Link::Identity | Link::Mean => {
                let residuals = self.table.y.par_iter().zip(&self.sums).map(|(y, sum)| y - sum);
                residuals.collect_into_vec(&mut self.expected);
                let moments = Moments::squared(&self.expected, |_| 1);
                self.correct(0, moments, rows, rng::draw(seed, 1));
            }
            Link::Logistic => {
                let moments = self.log_loss();
                self.correct(0, moments, rows, rng::draw(seed, 1));
            }
            Link::Softmax | Link::Shares => self.several(rows, seed),
        }
        if self.stop.is_some() {
            self.note_loss();
        }
    }

    /// The derivatives of the log-loss of two classes.
    fn log_loss(&mut self) -> Moments<3> {
        let (y, weights) = (&self.table.y, &self.weights);
        self.expected.resize(y.len(), 0.0);
        let derivatives = |y: f64, p: f64| {
            let class = class(y, 2);
            let weight = weights.get(class as usize).copied().unwrap_or(1.0);
            (weight * (f64::from(class) - p), weight * (p * (1.0 - p)))
        };
        let blocks =
            self.expected.par_chunks_mut(ROWS).zip(self.sums.par_chunks(ROWS)).zip(y.par_chunks(ROWS));
        let greatest = blocks.map(|((expected, sums), y)| {
            expected.iter_mut().zip(sums).for_each(|(p, &sum)| *p = probability(sum));
            greatest(expected.iter().zip(y).map(|(&p, &y)| derivatives(y, p)))
        });
        let greatest = greatest.reduce(|| (0.0, 0.0), |a, b| (f64::max(a.0, b.0), f64::max(a.1, b.1)));
        let expected = &self.expected;
        Moments::derivatives(y.len(), greatest, |row| derivatives(y[row], expected[row]))
    }

    /// A tree a class; none if there is one class only. The second derivatives are those of Friedman's step, larger by
    /// K / (K - 1) than the diagonal of the Hessian, for the classes move together.
    fn several(&mut self, rows: Vec<u32>, seed: u64) {
        let classes = self.outputs;
        if classes < 2 {
            return;
        }
        let mut shares = self.sums.clone();
        shares.par_chunks_mut(classes).with_min_len(ROWS / classes + 1).for_each(softmax);
        let together = classes as f64 / (classes as f64 - 1.0);
        let (y, weights) = (&self.table.y, &self.weights);
        let moments = |k: usize| {
            let derivatives = |row: usize| {
                let class = class(y[row], classes) as usize;
                let weight = weights.get(class).copied().unwrap_or(1.0);
                let share = shares[row * classes + k];
                let hit = if class == k { 1.0 } else { 0.0 };
                (weight * (hit - share), weight * (together * share * (1.0 - share)))
            };
            let greatest = greatest((0..y.len()).map(derivatives));
            Moments::derivatives(y.len(), greatest, derivatives)
        };
        let seed = |k: usize| rng::draw(seed, 1 + k as u64);
        if self.table.rows() * self.table.width < LARGE_TABLE {
            let grow = |k| self.grow(moments(k), rows.clone(), seed(k), false);
            let grown = (0..classes).into_par_iter().map(grow).collect::<Vec<_>>();
            grown.into_iter().enumerate().for_each(|(k, grown)| self.apply(k, grown));
        } else {
            for k in 0..classes {
                let grown = self.grow(moments(k), rows.clone(), seed(k), true);
                // The shares stay those from before the iteration.
                Self::add(&mut self.sums, self.outputs, k, self.bins, self.table, &self.leaf_of, &grown);
                self.trees.push(grown.tree);
            }
        }
    }

    fn correct<const C: usize>(&mut self, output: usize, moments: Moments<C>, rows: Vec<u32>, seed: u64)
    where
        Moments<C>: Sums,
    {
        let grown = self.grow(moments, rows, seed, true);
        self.apply(output, grown);
    }

    fn apply(&mut self, output: usize, grown: Grown) {
        Self::add(&mut self.sums, self.outputs, output, self.bins, self.table, &self.leaf_of, &grown);
        self.trees.push(grown.tree);
    }

    /// The rows that an iteration learns from.
    fn rows(&self, seed: u64) -> Vec<u32> {
        let all = 0..self.table.rows() as u32;
        let share = self.fit.params.float("subsample");
        let held_back = |row: u32| self.stop.as_ref().is_some_and(|stop| stop.is_held_back[row as usize]);
        let chosen = |row: u32| share >= 1.0 || rng::unit(seed, self.table.ids[row as usize]) < share;
        if share >= 1.0 && self.stop.is_none() {
            return all.collect();
        }
        all.filter(|&row| !held_back(row) && chosen(row)).collect()
    }

    fn grow<const C: usize>(&self, moments: Moments<C>, rows: Vec<u32>, seed: u64, threads: bool) -> Grown
    where
        Moments<C>: Sums,
    {
        let params = self.fit.params;
        let least = (self.table.rows() / LEAST_LEAVES).max(1) as i64;
        let limits = Limits {
            max_leaves: params.int("max_leaves") as usize,
            max_depth: params.int("max_depth") as usize,
            min_leaf: params.int("min_samples_leaf").min(least),
            min_split: 2,
        };
        let features = (params.float("max_features") * self.table.width as f64).ceil().max(1.0) as usize;
        let sums = moments.drawn(params.float("l2_regularization"), params.float("learning_rate"));
        let choice = Choice { features, random_cuts: false, seed };
        Grower { bins: self.bins, table: self.table, sums: &sums, limits, choice, threads }.grow(rows)
    }

    /// Adds what a tree says of the rows to one of their sums. Rows that it has learned from are in a leaf already.
    fn add(
        sums: &mut [f64],
        outputs: usize,
        output: usize,
        bins: &Bins,
        table: &Binned,
        leaf_of: &[AtomicU32],
        grown: &Grown,
    ) {
        let values = grown.tree.values();
        let all = grown.rows.len() == table.rows();
        if !all {
            leaf_of.par_iter().with_min_len(ROWS).for_each(|leaf| leaf.store(NO_LEAF, Ordering::Relaxed));
        }
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

    /// Notes the mean loss on the rows that are held back.
    fn note_loss(&mut self) {
        let (outputs, link, y, weights) = (self.outputs, self.link, &self.table.y, &self.weights);
        let Some(stop) = &mut self.stop else { return };
        let blocks = self.sums.par_chunks(ROWS * outputs).enumerate().map(|(block, sums)| {
            let (mut sum, mut total) = (0.0, 0.0);
            for (i, sums) in sums.chunks_exact(outputs).enumerate() {
                let row = block * ROWS + i;
                if stop.is_held_back[row] {
                    let weight =
                        weights.get(class(y[row], weights.len().max(1)) as usize).copied().unwrap_or(1.0);
                    sum += weight * loss(link, sums, y[row]);
                    total += weight;
                }
            }
            (sum, total)
        });
        let blocks = blocks.collect::<Vec<_>>();
        let (sum, total) = blocks.iter().fold((0.0, 0.0), |all, one| (all.0 + one.0, all.1 + one.1));
        stop.noted.push(sum / total);
    }
}

/// The loss of one row.
fn loss(link: Link, sums: &[f64], y: f64) -> f64 {
    match link {
        Link::Identity | Link::Mean => (y - sums[0]) * (y - sums[0]) / 2.0,
        Link::Logistic => {
            let wrong = if class(y, 2) == 1 { -sums[0] } else { sums[0] };
            f64::max(wrong, 0.0) + libm::log1p(libm::exp(-wrong.abs()))
        }
        Link::Softmax | Link::Shares => {
            let most = sums.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total = sums.iter().map(|sum| libm::exp(sum - most)).sum::<f64>();
            libm::log(total) + most - sums[class(y, sums.len()) as usize]
        }
    }
}

fn greatest(derivatives: impl Iterator<Item = (f64, f64)>) -> (f64, f64) {
    derivatives.fold((0.0, 0.0), |most, one| {
        (magnitude([most.0, one.0].into_iter()), magnitude([most.1, one.1].into_iter()))
    })
}

/// Early stopping: rows are held back, and when the loss on them has not fallen for some iterations, the fit ends. All
/// trees stay, as in scikit-learn.
pub(crate) struct Stop {
    /// Whether each row is held back: by the hash of its number.
    is_held_back: Vec<bool>,
    patience: usize,
    tolerance: f64,
    /// The losses that earlier units noted.
    before: Vec<f64>,
    /// Those of this unit.
    noted: Vec<f64>,
}

impl Stop {
    /// None if the parameters do not ask for it, or the rows are too few to hold any back.
    pub(crate) fn new(fit: &Fit, table: &Binned, before: Vec<f64>) -> Option<Self> {
        if !fit.params.bool("early_stopping") {
            return None;
        }
        let share = fit.params.float("validation_fraction");
        let seed = rng::draw(fit.seed, u64::MAX);
        let is_held_back = table.ids.iter().map(|&id| rng::unit(seed, id) < share).collect::<Vec<_>>();
        let held_back = is_held_back.iter().filter(|&&held_back| held_back).count();
        if held_back == 0 || held_back == is_held_back.len() {
            return None;
        }
        let patience = fit.params.int("n_iter_no_change").max(1) as usize;
        let tolerance = fit.params.float("tol");
        Some(Self { is_held_back, patience, tolerance, before, noted: Vec::new() })
    }

    /// Whether none of the last losses is lower, by the tolerance, than the one before them.
    fn is_done(&self) -> bool {
        let losses = || self.before.iter().chain(&self.noted);
        let count = self.before.len() + self.noted.len();
        let Some(reference) = count.checked_sub(self.patience + 1) else { return false };
        let least = losses().nth(reference).map_or(f64::INFINITY, |loss| loss - self.tolerance);
        losses().skip(reference + 1).all(|&loss| loss >= least)
    }
}
