//! What a study tries, and what came of it. [`suggest`] is a function of the study and of the trials of earlier rounds, so
//! that every worker tries the same.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use dml_core::{Digest, Params, Strategy, StudySpec, rng};
use serde::{Deserialize, Serialize};

use crate::{error::WorkError, metrics};

mod halving;
mod importance;
mod parzen;
mod report;
mod space;
#[cfg(test)]
mod tests;

pub use halving::rungs;
pub(crate) use halving::{part, rung};
pub use importance::importance;
pub use report::table;
pub use space::size;

/// So many trials are spread out evenly before a [`Strategy::Tpe`] learns from them.
pub const STARTUP: u32 = 10;

/// Parameters that were tried, and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Trial {
    /// Trials are numbered in the order in which they were thought of.
    pub number: u32,
    /// Which of the study's spaces it is from.
    pub space: u32,
    /// The kind of model.
    pub kind: String,
    /// The parameters that the study names; all others have their defaults.
    pub params: Params,
    /// The metric that the study goes by; none if the trial failed.
    pub score: Option<f64>,
    /// All metrics; with several folds their means.
    pub metrics: BTreeMap<String, f64>,
    /// How many rounds of learning it has had.
    pub rounds: u32,
    /// How many it has when it is learned in full.
    pub of_rounds: u32,
    /// Why it failed.
    pub error: Option<String>,
}

/// What a trial is to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Suggestion {
    /// Its number.
    pub number: u32,
    /// Which of the study's spaces it is from.
    pub space: u32,
    /// The parameters that the study names.
    pub params: Params,
}

impl Trial {
    /// The trial's name in its study: that of its parameters.
    pub fn id(&self, study: Digest) -> Digest {
        name(study, self.space, &self.params)
    }
}

fn name(study: Digest, space: u32, params: &Params) -> Digest {
    Digest::of_value(&(study, space, params))
}

/// Some trials with what those that go on have learned so far, for each split.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    /// By number.
    pub trials: Vec<Trial>,
    /// The states of fits that may go on, by the trial's number.
    pub states: BTreeMap<u32, Vec<Vec<u8>>>,
}

impl History {
    /// The bytes of a partial or of a state.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Parameters are of several types, which JSON tells apart; states are bytes.
        let trials = serde_json::to_string(&self.trials).expect("trials have string keys and finite numbers");
        postcard::to_allocvec(&(trials, &self.states)).expect("there is room")
    }

    /// Reads what [`History::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, WorkError> {
        let corrupt = |why: String| WorkError::Corrupt { what: "the trials of a study", why };
        let (trials, states): (String, _) =
            postcard::from_bytes(bytes).map_err(|error| corrupt(error.to_string()))?;
        let trials: Vec<Trial> = serde_json::from_str(&trials).map_err(|error| corrupt(error.to_string()))?;
        if !trials.is_sorted_by(|a, b| a.number < b.number) {
            return Err(corrupt("they are out of order".into()));
        }
        Ok(Self { trials, states })
    }

    /// Takes over trials that are new or have got further.
    pub fn add(&mut self, other: Self) {
        for trial in other.trials {
            match self.trials.binary_search_by_key(&trial.number, |known| known.number) {
                Ok(place) => self.trials[place] = trial,
                Err(place) => self.trials.insert(place, trial),
            }
        }
        self.states.extend(other.states);
    }

    /// The trials, the best first: by the metric, of equals the earlier; those that failed come last.
    pub fn ranked(&self, metric: &str) -> Vec<&Trial> {
        let mut trials: Vec<&Trial> = self.trials.iter().collect();
        trials.sort_by(|a, b| better(metric, a, b));
        trials
    }
}

/// How two trials are ranked: by the metric, and where that is the same by a finer one. One that has learned longer stands before one that was given up on the way.
fn better(metric: &str, a: &Trial, b: &Trial) -> Ordering {
    let share = |trial: &Trial| f64::from(trial.rounds) / f64::from(trial.of_rounds.max(1));
    let by_score = match (a.score, b.score) {
        (Some(a_score), Some(b_score)) => {
            let by_score = metrics::compare(metric, a_score, b_score);
            let finer = metrics::second(metric);
            let by_finer = finer.and_then(|finer| {
                let (a, b) = (a.metrics.get(finer)?, b.metrics.get(finer)?);
                Some(metrics::compare(finer, *a, *b))
            });
            let by_finer = by_finer.unwrap_or(Ordering::Equal);
            share(b).total_cmp(&share(a)).then(by_score).then(by_finer)
        }
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    };
    by_score.then(a.number.cmp(&b.number))
}

/// The uses of a study's seed, beside those of its training.
const PLACES: u64 = 10;
const POINTS: u64 = 11;
const STRATA: u64 = 12;
const PARZEN: u64 = 13;

/// The trials with the numbers from `first` on, at most `count`, after the ones of earlier rounds. Fewer at the end of the
/// study, or of the space.
pub fn suggest(spec: &StudySpec, done: &[Trial], first: u32, count: u32) -> Vec<Suggestion> {
    let seed = spec.training.seed;
    let numbers = first..spec.trials.min(first.saturating_add(count));
    let size = size(&spec.spaces);
    match (spec.strategy, size) {
        (Strategy::Grid, _) => {
            let all = numbers.filter(|n| size.is_none_or(|size| u64::from(*n) < size));
            all.filter_map(|n| space::nth(spec, n, u64::from(n))).collect()
        }
        (Strategy::Tpe, _) => tried_by_parzen(spec, done, numbers),
        // In a space that has an end, an order of all its points tries none twice.
        (Strategy::Random | Strategy::LatinHypercube | Strategy::Halving, Some(size)) => numbers
            .filter(|n| u64::from(*n) < size)
            .filter_map(|n| space::nth(spec, n, rng::place(rng::draw(seed, PLACES), u64::from(n), size)))
            .collect(),
        (Strategy::Random | Strategy::Halving, None) => numbers.map(|n| random(spec, n, 0)).collect(),
        (Strategy::LatinHypercube, None) => numbers.map(|n| stratified(spec, n, spec.trials)).collect(),
    }
}

/// One of so many points of which each dimension has one in each of as many equal parts (McKay, Beckman, Conover 1979,
/// "A comparison of three methods for selecting values of input variables").
fn stratified(spec: &StudySpec, number: u32, points: u32) -> Suggestion {
    let strata = rng::draw(spec.training.seed, STRATA);
    space::at(spec, number, |d| {
        let place = rng::place(rng::draw(strata, d), number.into(), points.into());
        let within = rng::unit(rng::draw(strata, !d), number.into());
        (place as f64 + within) / f64::from(points.max(1))
    })
}

/// Any point; another one for each try.
fn random(spec: &StudySpec, number: u32, again: u64) -> Suggestion {
    let seed = rng::draw(rng::draw(rng::draw(spec.training.seed, POINTS), number.into()), again);
    space::at(spec, number, |d| rng::unit(seed, d))
}

/// So often a strategy that may come back to a point is asked for another; then any point does that is new.
const ATTEMPTS: u64 = 16;
const RANDOM_ATTEMPTS: u64 = 64;

fn tried_by_parzen(spec: &StudySpec, done: &[Trial], numbers: Range<u32>) -> Vec<Suggestion> {
    let study = spec.id();
    let mut seen: BTreeSet<Digest> = done.iter().map(|trial| trial.id(study)).collect();
    let estimator = (done.len() >= STARTUP as usize).then(|| parzen::Estimator::new(spec, done));
    let mut suggestions = Vec::new();
    for n in numbers {
        let seed = rng::draw(rng::draw(spec.training.seed, PARZEN), n.into());
        let learned = estimator.iter().flat_map(|estimator| {
            (0..ATTEMPTS).map(move |attempt| estimator.suggest(n, rng::draw(seed, attempt)))
        });
        let spread = (n < STARTUP).then(|| stratified(spec, n, STARTUP));
        let any = (0..RANDOM_ATTEMPTS).map(|attempt| random(spec, n, attempt));
        let rest = (0..size(&spec.spaces).unwrap_or(0)).filter_map(|place| space::nth(spec, n, place));
        let is_new = |it: &Suggestion| seen.insert(name(study, it.space, &it.params));
        match learned.chain(spread).chain(any).chain(rest).find(is_new) {
            Some(suggestion) => suggestions.push(suggestion),
            None => break,
        }
    }
    suggestions
}
