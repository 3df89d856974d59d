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
use ndarray::Array2;
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
    learner::{Encoding, Fit, Folded, Learner, Scores, Shape},
    onnx,
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

    fn predict(&self, model: &Ensemble, x: &Array2<f64>) -> Scores {
        model.scores(x)
    }

    fn staged(&self, model: &Ensemble, x: &Array2<f64>, each: &mut dyn FnMut(u32, Scores)) {
        model.staged(x, each);
    }

    fn importance(&self, model: &Ensemble) -> Option<Vec<f64>> {
        Some(model.importance())
    }

    fn onnx(&self, model: &Ensemble, graph: &mut onnx::Graph, x: onnx::Value) -> Option<onnx::Value> {
        graph.ensemble(model, x)
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
mod tests {
    use dml_core::Value;

    use super::*;
    use crate::{
        learner::Block,
        learners::testing::{
            Table, accuracy, block, halves, noise, params, probabilities, rings, run, run_cut, through_bytes,
            values, xor,
        },
    };

    const LEARNER: GradientBoosting = GradientBoosting;

    fn wave(row: u64) -> (Vec<f64>, f64) {
        let (a, b) = (noise(row, 0) * 3.0, noise(row, 1));
        let a_seen = if row.is_multiple_of(7) { f64::NAN } else { a };
        (vec![a_seen, b], 10.0 + libm::sin(a) + b * b)
    }

    fn trees(count: i64) -> Params {
        params(&[("n_estimators", Value::Int(count))])
    }

    #[test]
    fn learns_a_wave_xor_and_rings() {
        let smooth = block(2000, |row| (vec![noise(row, 0) * 3.0], libm::sin(noise(row, 0) * 3.0)));
        let (train, test) = halves(&smooth);
        let model = run(&LEARNER, &train, &trees(100), Task::Regression, 0).unwrap();
        let errors = values(LEARNER.predict(&model, &test.x)) - &test.y;
        assert!(errors.mapv(|e| e * e).mean().unwrap() < 1e-3);

        let (train, test) = halves(&block(2000, xor));
        let model = run(&LEARNER, &train, &trees(50), Task::Classification, 2).unwrap();
        assert!(accuracy(&probabilities(LEARNER.predict(&model, &test.x)), &test.y) > 0.97);

        let (train, test) = halves(&block(3000, rings));
        let model = run(&LEARNER, &train, &trees(40), Task::Classification, 3).unwrap();
        assert_eq!(model.trees().len(), 120);
        let said = probabilities(LEARNER.predict(&model, &test.x));
        assert!(accuracy(&said, &test.y) > 0.83, "{}", accuracy(&said, &test.y));
        assert!(said.sum_axis(ndarray::Axis(1)).iter().all(|sum| (sum - 1.0).abs() < 1e-12));
    }

    /// The mean loss on the training rows with the first so many trees.
    fn loss(model: &Ensemble, table: &Block, count: usize) -> f64 {
        let first = Ensemble::new(model.link(), model.width(), model.base().to_vec());
        let first = first.with(model.trees()[..count].to_vec()).unwrap();
        let losses = match first.scores(&table.x) {
            Scores::Values(v) => (v - &table.y).mapv(|e| e * e).to_vec(),
            Scores::Probabilities(p) => {
                let rows = table.y.iter().enumerate();
                rows.map(|(i, &y)| -libm::log(p[(i, y as usize)])).collect()
            }
        };
        losses.iter().sum::<f64>() / losses.len() as f64
    }

    #[test]
    fn the_training_loss_falls_with_every_iteration() {
        for (table, task, classes, a_tree) in [
            (block(500, wave), Task::Regression, 0, 1),
            (block(500, xor), Task::Classification, 2, 1),
            (block(500, rings), Task::Classification, 3, 3),
        ] {
            let model = run(&LEARNER, &table, &trees(30), task, classes).unwrap();
            let losses = (0..=30).map(|i| loss(&model, &table, i * a_tree)).collect::<Vec<_>>();
            assert!(losses.windows(2).all(|pair| pair[1] < pair[0]), "{losses:?}");
            assert!(losses[30] < losses[0] * 0.7, "{losses:?}");
        }
    }

    #[test]
    fn rounds_chunks_and_threads_leave_no_trace() {
        let given = [("n_estimators", Value::Int(12)), ("subsample", Value::Float(0.7))];
        let given = params(&[&given[..], &[("max_features", Value::Float(0.5))]].concat());
        for (table, task, classes) in [
            (block(3000, wave), Task::Regression, 0),
            (block(800, xor), Task::Classification, 2),
            (block(800, rings), Task::Classification, 3),
        ] {
            let fit = |threads, chunks, rounds| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let plan = Some(Plan::sequential(rounds));
                pool.install(|| run_cut(&LEARNER, &table, &given, task, classes, chunks, plan).unwrap())
            };
            let whole = fit(1, 1, 1);
            assert_eq!(whole, fit(4, 1, 12));
            assert_eq!(whole, fit(2, 5, 7));
            assert_eq!(whole, fit(1, 3, 50));
        }
    }

    fn sharded(units: u32) -> Option<Plan> {
        Some(Plan { rounds: 10_000, units, fold: true })
    }

    fn on_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
    }

    /// Rows over any number of shards, on any number of threads, give the trees of one unit alone.
    #[test]
    fn shards_give_the_trees_of_one_machine() {
        let tables = [
            (block(2500, wave), Task::Regression, 0),
            (block(2500, xor), Task::Classification, 2),
            (block(2500, rings), Task::Classification, 3),
        ];
        let ways: [&[(&str, Value)]; 7] = [
            &[],
            &[
                ("early_stopping", Value::Bool(true)),
                ("n_iter_no_change", Value::Int(2)),
                ("tol", Value::Float(1e-3)),
            ],
            &[("subsample", Value::Float(0.6)), ("max_features", Value::Float(0.5))],
            &[("class_weight", Value::Text("balanced".into())), ("min_samples_leaf", Value::Int(1))],
            &[
                ("max_depth", Value::Int(3)),
                ("learning_rate", Value::Float(1.0)),
                ("l2_regularization", Value::Float(0.0)),
            ],
            &[("max_leaves", Value::Int(2)), ("max_bins", Value::Int(7))],
            &[
                ("max_leaves", Value::Int(200)),
                ("min_samples_leaf", Value::Int(2)),
                ("subsample", Value::Float(0.9)),
                ("early_stopping", Value::Bool(true)),
            ],
        ];
        for (table, task, classes) in &tables {
            for way in ways {
                let way =
                    way.iter().filter(|(name, _)| *task == Task::Classification || *name != "class_weight");
                let way = way.cloned().chain([("n_estimators", Value::Int(6))]).collect::<Vec<_>>();
                let fit = |threads, chunks, plan| {
                    on_threads(threads, || {
                        run_cut(&LEARNER, table, &params(&way), *task, *classes, chunks, plan).unwrap()
                    })
                };
                let alone = fit(2, 3, Some(Plan::sequential(2)));
                assert!(alone.trees().iter().all(|tree| tree.nodes().len() > 1));
                for (threads, chunks, units) in [(1, 2, 2), (4, 11, 3), (1, 7, 7), (4, 2, 5)] {
                    assert_eq!(
                        alone,
                        fit(threads, chunks, sharded(units)),
                        "{task:?} {way:?} {units} shards"
                    );
                }
            }
        }
    }

    #[test]
    fn odd_tables_in_shards_are_no_exception() {
        let one = block(1, |_| (vec![3.0], 7.0));
        let constant = block(50, |row| (vec![1.0, f64::NAN], noise(row, 0)));
        let huge = block(50, |row| (vec![row as f64], if row % 2 == 0 { f64::MAX } else { -f64::MAX }));
        for table in [&one, &constant, &huge] {
            let fit = |plan| run_cut(&LEARNER, table, &trees(9), Task::Regression, 0, 3, plan).unwrap();
            assert_eq!(fit(sharded(3)), fit(None));
        }
        let single = block(20, |row| (vec![noise(row, 0)], 0.0));
        for classes in 1..4 {
            let fit =
                |plan| run_cut(&LEARNER, &single, &trees(9), Task::Classification, classes, 3, plan).unwrap();
            assert_eq!(fit(sharded(3)), fit(None));
        }
        let infinite = block(30, |row| (vec![row as f64], if row == 7 { f64::INFINITY } else { 1.0 }));
        let refused = run_cut(&LEARNER, &infinite, &trees(3), Task::Regression, 0, 5, sharded(2));
        assert!(matches!(refused, Err(WorkError::Input(why)) if why.contains("row 7")));
    }

    #[test]
    fn a_unit_again_is_the_same_bytes_and_others_are_refused() {
        let table = block(300, wave);
        let rows = Table::new(&table, 2, 0);
        let params = LEARNER.kind().check(&trees(10)).unwrap();
        let plan = Plan::sequential(5);
        let fit = Fit { task: Task::Regression, classes: 0, params: &params, seed: 1, plan, rows: &rows };
        let state = LEARNER.start(&fit).unwrap();
        let first = LEARNER.unit(&fit, 0, 0, &state).unwrap();
        let Folded::Next(state) = LEARNER.fold(&fit, 0, state, vec![first]).unwrap() else {
            panic!("not yet")
        };
        let again =
            || postcard::to_allocvec(&LEARNER.unit(&fit, 1, 0, &through_bytes(&state)).unwrap()).unwrap();
        assert_eq!(again(), again());
        let other = Fit { task: Task::Classification, classes: 3, ..fit };
        assert!(matches!(LEARNER.unit(&other, 1, 0, &state), Err(WorkError::Corrupt { .. })));
    }

    #[test]
    fn a_balanced_fit_finds_a_rare_class() {
        let rare = |row: u64| {
            let a = noise(row, 0);
            (vec![a, noise(row, 1)], f64::from(u32::from(a > 0.9 && noise(row, 2) > 0.0)))
        };
        let (train, test) = halves(&block(6000, rare));
        let recall = |class_weight: &str| {
            let given =
                [("n_estimators", Value::Int(20)), ("class_weight", Value::Text(class_weight.into()))];
            let model = run(&LEARNER, &train, &params(&given), Task::Classification, 2).unwrap();
            let said = probabilities(LEARNER.predict(&model, &test.x));
            let rows = test.y.iter().enumerate().filter(|(_, y)| **y == 1.0).map(|(i, _)| said[(i, 1)] > 0.5);
            rows.clone().filter(|hit| *hit).count() as f64 / rows.count() as f64
        };
        assert!(recall("balanced") > 0.95, "{}", recall("balanced"));
        assert!(recall("balanced") > recall("none") + 0.2, "{}", recall("none"));
    }

    #[test]
    fn early_stopping_stops_when_there_is_nothing_left_to_learn() {
        for (table, task, classes, a_tree) in [
            (block(2000, |row| (vec![noise(row, 0)], noise(row, 1))), Task::Regression, 0, 1),
            (block(2000, xor), Task::Classification, 2, 1),
            (block(2000, rings), Task::Classification, 3, 3),
        ] {
            let given = [
                ("n_estimators", Value::Int(1000)),
                ("early_stopping", Value::Bool(true)),
                ("learning_rate", Value::Float(0.3)),
                ("n_iter_no_change", Value::Int(5)),
                ("tol", Value::Float(1e-4)),
            ];
            let fit = |threads, chunks, rounds| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let plan = Some(Plan::sequential(rounds));
                pool.install(|| {
                    run_cut(&LEARNER, &table, &params(&given), task, classes, chunks, plan).unwrap()
                })
            };
            let whole = fit(1, 1, 1);
            let iterations = whole.trees().len() / a_tree;
            assert!((5..300).contains(&iterations), "{iterations}");
            assert_eq!(whole, fit(3, 4, 200));
        }
    }

    #[test]
    fn infinite_targets_are_refused_with_their_row() {
        let table = block(30, |row| (vec![row as f64], if row == 7 { f64::INFINITY } else { 1.0 }));
        let Err(WorkError::Input(why)) = run(&LEARNER, &table, &trees(3), Task::Regression, 0) else {
            panic!("it was taken")
        };
        assert!(why.contains("row 7") && why.contains("inf"), "{why}");
    }

    #[test]
    fn odd_tables_give_a_model() {
        let one = block(1, |_| (vec![3.0], 7.0));
        let constant = block(50, |row| (vec![1.0, f64::NAN], noise(row, 0)));
        let huge = block(50, |row| (vec![row as f64], if row % 2 == 0 { f64::MAX } else { -f64::MAX }));
        for table in [&one, &constant, &huge] {
            let model = run(&LEARNER, table, &trees(9), Task::Regression, 0).unwrap();
            let said = values(LEARNER.predict(&model, &table.x));
            assert!(said.iter().all(|v| v.is_finite()), "{said}");
        }
        let single = block(20, |row| (vec![noise(row, 0)], 0.0));
        for classes in 1..4 {
            let model = run(&LEARNER, &single, &trees(9), Task::Classification, classes).unwrap();
            let said = probabilities(LEARNER.predict(&model, &single.x));
            assert_eq!(said.ncols(), classes);
            assert!(said.column(0).iter().all(|&p| p > 0.9), "{said}");
        }
    }

    #[test]
    fn small_tables_are_split_all_the_same() {
        let table = block(30, |row| (vec![row as f64], f64::from(u32::from(row >= 15))));
        let model = run(&LEARNER, &table, &trees(30), Task::Classification, 2).unwrap();
        assert_eq!(accuracy(&probabilities(LEARNER.predict(&model, &table.x)), &table.y), 1.0);
    }

    #[test]
    fn importance_is_where_the_signal_is() {
        let table = block(500, |row| (vec![noise(row, 1), noise(row, 0), f64::NAN], noise(row, 0)));
        let model = run(&LEARNER, &table, &trees(20), Task::Regression, 0).unwrap();
        let importance = LEARNER.importance(&model).unwrap();
        assert!(importance[1] > importance[0] * 20.0 && importance[2] == 0.0, "{importance:?}");
    }

    #[test]
    fn plans_follow_the_work() {
        let plan = |count, rows| {
            let params = LEARNER.kind().check(&trees(count)).unwrap();
            LEARNER.plan(&params, &Shape { rows, columns: 28, chunks: 1, classes: 2 }).rounds
        };
        assert_eq!([plan(100, 300), plan(3, 300), plan(1, 1 << 40)], [8, 3, 1]);
        assert_eq!([plan(100, 1_000_000), plan(10_000, 1 << 40), plan(100, 0)], [11, 20, 8]);
    }
}
