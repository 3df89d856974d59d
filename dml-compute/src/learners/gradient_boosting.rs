//! Gradient boosting: each tree corrects those before it (Friedman 2001, "Greedy Function Approximation: A Gradient
//! Boosting Machine"), by a Newton step in each leaf (Chen and Guestrin 2016, "XGBoost"). Leaf-wise growth over binned
//! features, as in LightGBM (Ke et al. 2017).
//!
//! Losses: squared error; log-loss of two classes; log-loss of several, with a tree a class in each iteration.
//!
//! A round is several iterations by one unit; or, if the parameters say so, each unit has a shard of the rows, and a round
//! asks all of them for sums by bin of the nodes that may come to be split ([`super::trees`]). Sums are of
//! integers, so both ways give the same trees. The state is the trees so far. What they sum up to for each training row
//! is kept in memory from round to round; where it is not there, it is added up again, in the same order, so that a
//! resumed fit equals one that never stopped.

use std::{
    any::Any,
    sync::{Arc, Mutex, PoisonError},
};

use dml_core::{Digest, Params, Plan, Task};
use serde::{Deserialize, Serialize};

use super::trees::{
    Bins, Ensemble, Tree,
    binned::Binned,
    boost::{Boosted, Booster},
    objective::{Derived, Objective, Reach},
    shard::{Common, Iteration, Round, Seen, Shard},
    stepped::training_sums,
    sums::Moments,
};
use crate::{
    error::WorkError,
    kind::{Domain, Kind, Param},
    learner::{Encoding, Fit, Folded, Learner, Shape},
};

/// About how many values the iterations of a round look at: a second of work.
const ROUND_VALUES: u64 = 1 << 28;
/// At least so many rounds, for progress; at most so many, for each begins by reading the table and adding up the trees.
const ROUNDS: (u64, u64) = (8, 20);

/// With more classes or leaves than these, what shards would send outweighs what they save.
const MOST_SHARDED: (usize, i64) = (16, 1024);

/// The learner of the kind `gradient_boosting`.
#[derive(Debug, Clone, Copy, Default)]
pub struct GradientBoosting;

/// A fit on its way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    ensemble: Ensemble,
    /// With early stopping, the loss on the validation rows before the first iteration and after each.
    losses: Vec<f64>,
    /// How far derivatives reach in the iteration to come.
    reach: Vec<Reach>,
    /// Over shards: the iteration on its way.
    iteration: Option<Iteration>,
}

/// What a unit of a round hands to the fold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Part {
    /// Whole iterations.
    Growth(Growth),
    /// What a shard of the rows has seen.
    Seen(Seen),
}

/// What whole iterations add.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Growth {
    trees: Vec<Tree>,
    /// All losses.
    losses: Vec<f64>,
    reach: Vec<Reach>,
    /// Whether the loss no longer falls.
    stopped: bool,
}

impl Learner for GradientBoosting {
    type State = State;
    type Partial = Part;
    type Model = Ensemble;

    fn kind(&self) -> Kind {
        let float = |name, about, default, min, max| Param {
            name,
            about,
            domain: Domain::Float { default, min, max },
        };
        let int =
            |name, about, default, min, max| Param { name, about, domain: Domain::Int { default, min, max } };
        let params = vec![
            int(
                "n_estimators",
                "How many iterations, each of one tree (several classes: a tree a class).",
                100,
                1,
                10_000,
            ),
            float("learning_rate", "How much of its correction each tree applies.", 0.1, 1e-4, 1.0),
            int("max_leaves", "How many leaves a tree has at most.", 31, 2, 65_536),
            int("max_depth", "How many questions lead to a leaf at most; 0 for no limit.", 0, 0, 1000),
            int(
                "min_samples_leaf",
                "How many rows each leaf has at least; never more than a sixteenth of the table.",
                20,
                1,
                1_000_000_000,
            ),
            float("l2_regularization", "Draws the leaves towards 0.", 1.0, 0.0, 1e9),
            int("max_bins", "Into how many bins a feature is cut at most.", 255, 2, 255),
            float("subsample", "The share of rows that each iteration learns from.", 1.0, 0.01, 1.0),
            float("max_features", "The share of features that each question looks at.", 1.0, 0.01, 1.0),
            Param::class_weight(),
            Param {
                name: "early_stopping",
                about: "Whether to stop when the loss on rows that are held back no longer falls.",
                domain: Domain::Bool { default: false },
            },
            float("validation_fraction", "The share of rows held back for early stopping.", 0.1, 0.001, 0.9),
            int(
                "n_iter_no_change",
                "Early stopping: after so many iterations without a lower loss.",
                10,
                1,
                10_000,
            ),
            float("tol", "Early stopping: by how much the loss must fall to count.", 1e-7, 0.0, 1e9),
            int(
                "shards",
                "Over how many shards of the rows the fit is spread, for as many workers; the trees are the same. A round a \
                 level of a tree goes through a db node, so it pays where one worker takes minutes.",
                1,
                1,
                1024,
            ),
        ];
        Kind {
            name: "gradient_boosting",
            about: "Many small trees, each correcting those before it.",
            tasks: vec![Task::Regression, Task::Classification],
            params,
            default: true,
            parallel: true,
            deterministic: true,
            exportable: vec!["native", "json", "onnx"],
            encoding: Encoding::Codes,
        }
    }

    fn plan(&self, params: &Params, shape: &Shape) -> Plan {
        let iterations = iterations(params);
        let trees = if shape.classes > 2 { shape.classes as u64 } else { 1 };
        let values = shape.rows.saturating_mul(shape.columns as u64).max(1);
        let (classes, leaves) = MOST_SHARDED;
        let shards = match params.int("shards") {
            _ if shape.classes > classes || params.int("max_leaves") > leaves => 1,
            shards => shards.max(1) as u64,
        };
        let units = shards.min(shape.chunks as u64).max(1) as u32;
        if units > 1 {
            // Each round but the first of an iteration brings at least one of the splits.
            let rounds = iterations.saturating_mul(params.int("max_leaves") as u64);
            return Plan { rounds: rounds.min(u64::from(u32::MAX)) as u32, units, fold: true };
        }
        let (least, most) = ROUNDS;
        let values = iterations.saturating_mul(values).saturating_mul(trees);
        let rounds = values.div_ceil(ROUND_VALUES).clamp(least, most);
        Plan::sequential(rounds.min(iterations) as u32)
    }

    fn start(&self, fit: &Fit) -> Result<State, WorkError> {
        let objective = Objective::new(fit)?;
        let ensemble = Ensemble::new(objective.link, fit.rows.width(), objective.base());
        let reach = objective.first_reach();
        let mut state = State { ensemble, losses: Vec::new(), reach, iteration: None };
        if fit.plan.units > 1 {
            let bins = bins(fit)?;
            state.iteration = Some(Iteration::next(&common(fit, &bins, &objective, &state), Vec::new()));
        }
        Ok(state)
    }

    fn unit(&self, fit: &Fit, round: u32, index: u32, state: &State) -> Result<Part, WorkError> {
        let (bins, objective) = (bins(fit)?, Objective::new(fit)?);
        let ensemble = &state.ensemble;
        let fits = (ensemble.link(), ensemble.width(), ensemble.base().len())
            == (objective.link, fit.rows.width(), objective.outputs);
        if !fits || state.reach.len() != objective.outputs {
            let why = "its trees are for another table".into();
            return Err(WorkError::Corrupt { what: "the state of the boosting", why });
        }
        match (&state.iteration, fit.task) {
            (None, _) => grow(fit, round, state, &bins, &objective).map(Part::Growth),
            (Some(iteration), Task::Regression) => {
                let common = common(fit, &bins, &objective, state);
                look::<Moments<2>>(iteration, &common, round, index).map(Part::Seen)
            }
            (Some(iteration), Task::Classification) => {
                let common = common(fit, &bins, &objective, state);
                look::<Moments<3>>(iteration, &common, round, index).map(Part::Seen)
            }
        }
    }

    fn fold(
        &self,
        fit: &Fit,
        round: u32,
        state: State,
        parts: Vec<Part>,
    ) -> Result<Folded<State, Ensemble>, WorkError> {
        let mut seen = Vec::new();
        let mut state = state;
        for part in parts {
            match part {
                Part::Growth(growth) if state.iteration.is_none() => {
                    let stopped = growth.stopped;
                    state = grown(state, growth)?;
                    if stopped || round + 1 >= fit.plan.rounds {
                        return Ok(Folded::Done(state.ensemble));
                    }
                }
                Part::Seen(part) if state.iteration.is_some() => seen.push(part),
                Part::Growth(_) | Part::Seen(_) => {
                    let why = "it is of another way to fit".into();
                    return Err(WorkError::Corrupt { what: "a part of a fit", why });
                }
            }
        }
        match state.iteration.take() {
            None => Ok(Folded::Next(state)),
            Some(iteration) => close(fit, state, iteration, &seen),
        }
    }

    fn so_far(&self, _: &Fit, state: State) -> Option<Ensemble> {
        Some(state.ensemble)
    }

    fn is_gradual(&self) -> bool {
        true
    }
}

fn iterations(params: &Params) -> u64 {
    params.int("n_estimators").max(1) as u64
}

/// Where features are cut: the same for every worker, as it follows from the sample that they share.
fn bins(fit: &Fit) -> Result<Arc<Bins>, WorkError> {
    let (max_bins, name) = (fit.params.int("max_bins").max(2) as usize, cuts(fit));
    if let Some(bins) = fit.rows.recall(name).and_then(|kept| kept.downcast().ok()) {
        return Ok(bins);
    }
    let bins = Arc::new(Bins::of(&fit.rows.sample()?.x, max_bins));
    fit.rows.keep(name, bins.width() * max_bins * size_of::<f64>(), bins.clone());
    Ok(bins)
}

/// What the bins are kept under, of the same rows.
fn cuts(fit: &Fit) -> Digest {
    Digest::of_value(&("bins", fit.params.int("max_bins")))
}

/// Whole iterations, by one unit.
fn grow(
    fit: &Fit,
    round: u32,
    state: &State,
    bins: &Bins,
    objective: &Objective,
) -> Result<Growth, WorkError> {
    let table = Binned::of(fit, bins)?;
    let sums = take_sums(fit, state)
        .filter(|sums| sums.len() == table.rows() * objective.outputs)
        .unwrap_or_else(|| training_sums(&state.ensemble, bins, &table));
    let (reach, losses) = (state.reach.clone(), state.losses.clone());
    let mut booster = Booster::new(fit, bins, &table, objective, reach, sums, losses);
    let at = |round: u32| u64::from(round) * iterations(fit.params) / u64::from(fit.plan.rounds.max(1));
    for iteration in at(round)..at(round + 1) {
        if booster.is_done() {
            break;
        }
        booster.iterate(iteration);
    }
    let stopped = booster.is_done();
    let Boosted { trees, losses, sums, reach } = booster.finish();
    let growth = Growth { trees, losses, reach, stopped };
    if !stopped && round + 1 < fit.plan.rounds {
        keep_sums(fit, &grown(state.clone(), growth.clone())?, sums);
    }
    Ok(growth)
}

/// The state after a round of whole iterations.
fn grown(state: State, growth: Growth) -> Result<State, WorkError> {
    let Growth { trees, losses, reach, .. } = growth;
    Ok(State { ensemble: state.ensemble.with(trees)?, losses, reach, iteration: None })
}

/// What the sums of a state are kept under. They follow from the state and the rows.
fn name_of(fit: &Fit, state: &State) -> Digest {
    Digest::of_value(&("sums", fit.params.int("max_bins"), state))
}

/// The sums of this state if they are here. They are taken out, as the next state has others.
fn take_sums(fit: &Fit, state: &State) -> Option<Vec<f64>> {
    if state.ensemble.trees().is_empty() {
        return None;
    }
    let name = name_of(fit, state);
    let kept = fit.rows.recall(name)?;
    fit.rows.forget(name);
    let sums = kept.downcast::<Vec<f64>>().ok()?;
    Some(Arc::try_unwrap(sums).unwrap_or_else(|shared| (*shared).clone()))
}

fn keep_sums(fit: &Fit, state: &State, sums: Vec<f64>) {
    fit.rows.keep(name_of(fit, state), sums.len() * size_of::<f64>(), Arc::new(sums));
}

fn common<'a>(fit: &'a Fit, bins: &'a Bins, objective: &'a Objective, state: &'a State) -> Common<'a> {
    Common { fit, bins, objective, ensemble: &state.ensemble, reach: &state.reach }
}

/// A round of one shard.
fn look<S: Derived>(
    iteration: &Iteration,
    common: &Common,
    round: u32,
    index: u32,
) -> Result<Seen, WorkError> {
    let fit = common.fit;
    let chunks = fit.plan.share(index, fit.rows.chunks());
    let table = Binned::of_chunks(fit, common.bins, cuts(fit), chunks)?;
    // A shard after a round follows from the job, which is all that the state of the round follows from.
    let job = Digest::of_value(&("shard", fit.params, fit.seed, fit.plan, index));
    let name = |round: u32| job.child(&format!("{round}"));
    let kept = round.checked_sub(1).and_then(|before| take::<Shard<S>>(fit, name(before)));
    let (seen, shard) = iteration.look(common, &table, kept)?;
    let bytes = shard.bytes();
    fit.rows.keep(name(round), bytes, Arc::new(Mutex::new(Some(shard))));
    Ok(seen)
}

/// What is kept under that name: for one alone, as it changes.
fn take<T: Any + Send>(fit: &Fit, name: Digest) -> Option<T> {
    let kept = fit.rows.recall(name)?;
    fit.rows.forget(name);
    let kept = kept.downcast::<Mutex<Option<T>>>().ok()?;
    kept.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// The end of a round over shards.
fn close(
    fit: &Fit,
    mut state: State,
    mut iteration: Iteration,
    seen: &[Seen],
) -> Result<Folded<State, Ensemble>, WorkError> {
    let (bins, objective) = (bins(fit)?, Objective::new(fit)?);
    let mut losses = std::mem::take(&mut state.losses);
    let common = common(fit, &bins, &objective, &state);
    let round = match fit.task {
        Task::Regression => iteration.fold::<Moments<2>>(&common, &mut losses, seen)?,
        Task::Classification => iteration.fold::<Moments<3>>(&common, &mut losses, seen)?,
    };
    state.losses = losses;
    match round {
        Round::Stopped => return Ok(Folded::Done(state.ensemble)),
        Round::Growing => state.iteration = Some(iteration),
        Round::Grown(trees, reach) => {
            (state.ensemble, state.reach) = (state.ensemble.with(trees)?, reach);
            let done = state.ensemble.trees().len() as u64 / objective.trees().max(1) as u64;
            if done >= iterations(fit.params) {
                return Ok(Folded::Done(state.ensemble));
            }
            let common = self::common(fit, &bins, &objective, &state);
            let next = Iteration::next(&common, iteration.into_trees());
            state.iteration = Some(next);
        }
    }
    Ok(Folded::Next(state))
}

#[cfg(test)]
mod tests;
