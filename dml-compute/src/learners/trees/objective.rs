//! What boosting corrects: the derivatives of a loss, in units that every worker knows beforehand.
//!
//! Derivatives are rounded to whole parts of a unit, and the sums of all shards need the same one. It follows from the
//! greatest derivative of the iteration before, of all rows, and from how far the leaves since then can have moved it:
//! no worker has to be asked for it first.

use dml_core::Task;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{
    cart::class,
    ensemble::{Link, softmax},
    logistic::probability,
    packed::{pack, unpack},
    sums::{Moments, Scale, Sums},
};
use crate::{error::WorkError, learner::Fit};

/// How many rows a thread looks at in one go.
pub(crate) const ROWS: usize = 1 << 12;

/// How many rows have their expectation worked out together.
const AT_ONCE: usize = 512;

/// How great the first and the second derivative of an output are at most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reach {
    pub(crate) first: f64,
    pub(crate) second: f64,
}

impl Reach {
    /// That of rows of both.
    pub(crate) fn or(self, other: Self) -> Self {
        Self { first: self.first.max(other.first), second: self.second.max(other.second) }
    }

    /// NaN counts for nothing.
    #[inline]
    fn of((first, second): (f64, f64)) -> Self {
        Self { first: f64::max(0.0, first.abs()), second: f64::max(0.0, second.abs()) }
    }
}

/// A loss, and what rows of each class weigh in it.
#[derive(Debug)]
pub(crate) struct Objective {
    pub(crate) link: Link,
    pub(crate) outputs: usize,
    /// Empty if all rows weigh the same.
    weights: Vec<f64>,
    class_rows: Vec<u64>,
    /// Of a regression.
    target: Target,
    /// How many rows there are in all shards.
    pub(crate) rows: u64,
}

/// The target of a regression.
#[derive(Debug, Default)]
struct Target {
    mean: f64,
    min: f64,
    max: f64,
}

impl Objective {
    pub(crate) fn new(fit: &Fit) -> Result<Self, WorkError> {
        let (link, outputs) = match (fit.task, fit.classes) {
            (Task::Regression, _) => (Link::Identity, 1),
            (Task::Classification, 2) => (Link::Logistic, 1),
            (Task::Classification, classes) => (Link::Softmax, classes.max(1)),
        };
        let balanced = fit.task == Task::Classification && fit.params.text("class_weight") == "balanced";
        let weights = if balanced { fit.class_weights() } else { Vec::new() };
        let class_rows = fit.rows.class_rows();
        let (target, rows) = match fit.task {
            Task::Regression => {
                let moments = fit.rows.target().ok_or_else(|| WorkError::Corrupt {
                    what: "a preparation",
                    why: "it knows nothing of the target's numbers".into(),
                })?;
                (Target { mean: moments.mean, min: moments.min, max: moments.max }, moments.count)
            }
            Task::Classification => (Target::default(), class_rows.iter().sum()),
        };
        Ok(Self { link, outputs, weights, class_rows, target, rows })
    }

    /// How many trees an iteration has: none if there is one class alone.
    pub(crate) fn trees(&self) -> usize {
        if self.link == Link::Softmax && self.outputs < 2 { 0 } else { self.outputs }
    }

    /// The best answer without a tree: the mean, or the logarithms of the classes' shares. A class without rows counts
    /// as half a row.
    pub(crate) fn base(&self) -> Vec<f64> {
        let rows = |class: usize| {
            let count = self.class_rows.get(class).copied().filter(|&count| count > 0);
            count.map_or(0.5, |count| count as f64) * self.weight(class)
        };
        match self.link {
            Link::Identity | Link::Mean => vec![self.target.mean],
            Link::Logistic => vec![libm::log(rows(1) / rows(0))],
            Link::Softmax | Link::Shares => {
                (0..self.outputs).map(|k| libm::log(rows(k) / self.rows as f64)).collect()
            }
        }
    }

    /// What a row of this class weighs.
    pub(crate) fn weight(&self, class: usize) -> f64 {
        self.weights.get(class).copied().unwrap_or(1.0)
    }

    /// How many classes are told apart; 1 for a regression.
    pub(crate) fn classes(&self) -> usize {
        if self.link == Link::Logistic { 2 } else { self.outputs }
    }

    /// The reach of each output before the first tree.
    pub(crate) fn first_reach(&self) -> Vec<Reach> {
        let base = self.base();
        match self.link {
            Link::Identity | Link::Mean => {
                let far = f64::max((self.target.max - base[0]).abs(), (self.target.min - base[0]).abs());
                vec![Reach { first: far, second: 1.0 }]
            }
            Link::Logistic => {
                let p = probability(base[0]);
                let both = (0..2).map(|class| Reach::of(self.two_classes(class, p)));
                vec![both.fold(Reach::default(), Reach::or)]
            }
            Link::Softmax | Link::Shares => {
                let mut shares = base;
                softmax(&mut shares);
                let of = |k: usize| {
                    let classes = (0..self.outputs).map(|class| Reach::of(self.several(class, k, shares[k])));
                    classes.fold(Reach::default(), Reach::or)
                };
                (0..self.outputs).map(of).collect()
            }
        }
    }

    /// The reach of each output after an iteration: from what it was before, and the farthest that a leaf says.
    ///
    /// Residuals move by what the leaf says. The odds of a class, and so its share and its derivatives, grow by the
    /// exponential of that at most; where several classes move at a time, by that of both ways.
    pub(crate) fn next_reach(&self, before: &[Reach], farthest: f64) -> Vec<Reach> {
        let heaviest = (0..self.classes()).map(|class| self.weight(class)).fold(0.0, f64::max);
        let (farthest, most) = match self.link {
            Link::Identity | Link::Mean => {
                return before
                    .iter()
                    .map(|reach| Reach { first: reach.first + farthest, second: 1.0 })
                    .collect();
            }
            Link::Logistic => (farthest, 0.25),
            Link::Softmax | Link::Shares => (2.0 * farthest, self.together() / 4.0),
        };
        let growth = libm::exp(farthest);
        let after = |reach: &Reach| Reach {
            first: (reach.first * growth).min(heaviest),
            second: (reach.second * growth).min(heaviest * most),
        };
        before.iter().map(after).collect()
    }

    /// What the derivatives are made from: the sums themselves, or the classes' shares.
    pub(crate) fn expected(&self, sums: &[f64]) -> Option<Vec<f64>> {
        if self.link != Link::Softmax || self.outputs < 2 {
            return None;
        }
        let mut shares = sums.to_vec();
        shares.par_chunks_mut(self.outputs).with_min_len(ROWS / self.outputs + 1).for_each(softmax);
        Some(shares)
    }

    /// Friedman's step takes second derivatives that are larger by K / (K - 1) than the diagonal of the Hessian, for the
    /// classes move together.
    fn together(&self) -> f64 {
        self.outputs as f64 / (self.outputs as f64 - 1.0)
    }

    #[inline]
    fn two_classes(&self, class: usize, p: f64) -> (f64, f64) {
        let weight = self.weight(class);
        (weight * (class as f64 - p), weight * (p * (1.0 - p)))
    }

    #[inline]
    fn several(&self, class: usize, k: usize, share: f64) -> (f64, f64) {
        let weight = self.weight(class);
        let hit = if class == k { 1.0 } else { 0.0 };
        (weight * (hit - share), weight * (self.together() * share * (1.0 - share)))
    }

    /// The words of all rows (see [`Sums`]), and the greatest derivatives that they have. `expect` fills in what is
    /// expected of neighbouring rows from one on.
    fn words(
        rows: usize,
        expect: impl Fn(usize, &mut [f64]) + Sync,
        derivatives: impl Fn(usize, f64) -> (f64, f64) + Sync,
        word: impl Fn((f64, f64)) -> i64 + Sync,
    ) -> (Vec<i64>, Reach) {
        let mut words = vec![0; rows];
        let blocks = words.par_chunks_mut(AT_ONCE).with_min_len(ROWS / AT_ONCE).enumerate();
        let reaches = blocks.map(|(block, words)| {
            let mut expected = [0.0; AT_ONCE];
            expect(block * AT_ONCE, &mut expected[..words.len()]);
            let mut reach = Reach::default();
            for (i, (place, expected)) in words.iter_mut().zip(expected).enumerate() {
                let both = derivatives(block * AT_ONCE + i, expected);
                reach = reach.or(Reach::of(both));
                *place = word(both);
            }
            reach
        });
        let reach = reaches.reduce(Reach::default, Reach::or);
        (words, reach)
    }
}

/// Sums of derivatives for one output.
pub(crate) trait Derived: Sums + Send + 'static {
    /// How many numbers a bin has.
    const CHANNELS: usize;

    /// The sums for the rows of a table, from their targets and what is expected of them (see [`Objective::expected`]),
    /// and how far their derivatives reach. Without rows, what is needed to judge sums that came from elsewhere.
    fn derive(objective: &Objective, k: usize, reach: Reach, y: &[f64], expected: &[f64]) -> (Self, Reach)
    where
        Self: Sized;

    /// The same for leaves that are drawn towards 0 and say a part of what they found.
    fn drawn(self, l2: f64, rate: f64) -> Self
    where
        Self: Sized;

    /// See [`pack`].
    fn pack(cells: &[i64], into: &mut Vec<u8>);

    /// See [`unpack`].
    fn unpack<'a>(bytes: &'a [u8], cells: &mut [i64]) -> Option<&'a [u8]>;
}

impl Derived for Moments<2> {
    const CHANNELS: usize = 2;

    fn derive(_: &Objective, _: usize, reach: Reach, y: &[f64], expected: &[f64]) -> (Self, Reach) {
        let scale = Scale::<2>::new(reach.first);
        let (words, greatest) = Objective::words(
            y.len(),
            |from, into| into.copy_from_slice(&expected[from..from + into.len()]),
            |row, expected| (y[row] - expected, 1.0),
            |(first, _)| scale.word(first, 1),
        );
        (scale.moments(words), greatest)
    }

    fn drawn(self, l2: f64, rate: f64) -> Self {
        self.drawn(l2, rate)
    }

    fn pack(cells: &[i64], into: &mut Vec<u8>) {
        pack::<2>(cells, into);
    }

    fn unpack<'a>(bytes: &'a [u8], cells: &mut [i64]) -> Option<&'a [u8]> {
        unpack::<2>(bytes, cells)
    }
}

impl Derived for Moments<3> {
    const CHANNELS: usize = 3;

    fn derive(objective: &Objective, k: usize, reach: Reach, y: &[f64], expected: &[f64]) -> (Self, Reach) {
        let scale = Scale::<3>::new(reach.first, reach.second);
        let word = |(first, second): (f64, f64)| scale.word(first, second);
        let outputs = objective.outputs;
        let (words, greatest) = if objective.link == Link::Logistic {
            let expect = |from: usize, into: &mut [f64]| {
                into.iter_mut().zip(&expected[from..]).for_each(|(p, &sum)| *p = probability(sum));
            };
            let derivatives = |row: usize, p| objective.two_classes(class(y[row], 2) as usize, p);
            Objective::words(y.len(), expect, derivatives, word)
        } else {
            let expect = |from: usize, into: &mut [f64]| {
                let shares = expected[from * outputs + k..].iter().step_by(outputs);
                into.iter_mut().zip(shares).for_each(|(to, share)| *to = *share);
            };
            let derivatives =
                |row: usize, share| objective.several(class(y[row], outputs) as usize, k, share);
            Objective::words(y.len(), expect, derivatives, word)
        };
        (scale.moments(words), greatest)
    }

    fn drawn(self, l2: f64, rate: f64) -> Self {
        self.drawn(l2, rate)
    }

    fn pack(cells: &[i64], into: &mut Vec<u8>) {
        pack::<3>(cells, into);
    }

    fn unpack<'a>(bytes: &'a [u8], cells: &mut [i64]) -> Option<&'a [u8]> {
        unpack::<3>(bytes, cells)
    }
}
