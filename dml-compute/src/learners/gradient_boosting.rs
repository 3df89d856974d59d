//! Gradient boosting: each tree corrects those before it (Friedman 2001, "Greedy Function Approximation: A Gradient
//! Boosting Machine"), by a Newton step in each leaf (Chen and Guestrin 2016, "XGBoost"). Leaf-wise growth over binned
//! features, as in LightGBM (Ke et al. 2017).
//!
//! Losses: squared error; log-loss of two classes; log-loss of several, with a tree a class in each iteration.
//! A round is several iterations by one unit. The state is the trees so far. What they sum up to for each training row is
//! kept in memory from round to round; where it is not there, it is added up again, in the same order, so that a resumed
//! fit equals one that never stopped. Rounds over shards of the rows are left out.

use std::sync::Arc;

use dml_core::{Digest, Params, Plan, Task};
use ndarray::Array2;
use serde::{Deserialize, Serialize};

use super::trees::{
    Bins, Ensemble, Tree,
    binned::Binned,
    boost::{Booster, Stop},
    cart::{class, mean},
    ensemble::Link,
    stepped::training_sums,
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

/// The learner of the kind `gradient_boosting`.
#[derive(Debug, Clone, Copy, Default)]
pub struct GradientBoosting;

/// A fit on its way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    bins: Bins,
    /// None before the first round.
    ensemble: Option<Ensemble>,
    /// With early stopping, the loss on the validation rows before the first iteration and after each.
    losses: Vec<f64>,
}

/// What a round adds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Growth {
    base: Vec<f64>,
    trees: Vec<Tree>,
    losses: Vec<f64>,
    /// Whether the loss no longer falls.
    stopped: bool,
}

impl Learner for GradientBoosting {
    type State = State;
    type Partial = Growth;
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
        ];
        Kind {
            name: "gradient_boosting",
            about: "Many small trees, each correcting those before it.",
            tasks: vec![Task::Regression, Task::Classification],
            params,
            default: true,
            parallel: false,
            deterministic: true,
            exportable: vec!["native", "json", "onnx"],
            encoding: Encoding::Codes,
        }
    }

    fn plan(&self, params: &Params, shape: &Shape) -> Plan {
        let iterations = iterations(params);
        let trees = if shape.classes > 2 { shape.classes as u64 } else { 1 };
        let values = shape.rows.saturating_mul(shape.columns as u64).saturating_mul(trees).max(1);
        let (least, most) = ROUNDS;
        let rounds = iterations.saturating_mul(values).div_ceil(ROUND_VALUES).clamp(least, most);
        Plan::sequential(rounds.min(iterations) as u32)
    }

    fn start(&self, fit: &Fit) -> Result<State, WorkError> {
        let max_bins = fit.params.int("max_bins").max(2) as usize;
        let bins = Bins::of(&fit.rows.sample()?.x, max_bins);
        Ok(State { bins, ensemble: None, losses: Vec::new() })
    }

    fn unit(&self, fit: &Fit, round: u32, _: u32, state: &State) -> Result<Growth, WorkError> {
        let table = Binned::of(fit, &state.bins)?;
        let (link, outputs) = link(fit);
        let balanced = fit.task == Task::Classification && fit.params.text("class_weight") == "balanced";
        let weights = if balanced { fit.class_weights() } else { Vec::new() };
        let ensemble = match &state.ensemble {
            None => Ensemble::new(link, table.width, base(link, outputs, &weights, &table.y)),
            Some(ensemble) => ensemble.clone(),
        };
        if (ensemble.link(), ensemble.width(), ensemble.base().len()) != (link, table.width, outputs) {
            let why = "its trees are for another table".into();
            return Err(WorkError::Corrupt { what: "the state of the boosting", why });
        }
        let sums = take_sums(fit, state)
            .filter(|sums| sums.len() == table.rows() * outputs)
            .unwrap_or_else(|| training_sums(&ensemble, &state.bins, &table));
        let stop = Stop::new(fit, &table, state.losses.clone());
        let mut booster = Booster::new(fit, &state.bins, &table, (link, outputs), weights, sums, stop);
        let at = |round: u32| u64::from(round) * iterations(fit.params) / u64::from(fit.plan.rounds.max(1));
        for iteration in at(round)..at(round + 1) {
            if booster.is_done() {
                break;
            }
            booster.iterate(iteration);
        }
        let stopped = booster.is_done();
        let (trees, losses, sums) = booster.finish();
        let growth = Growth { base: ensemble.base().to_vec(), trees, losses, stopped };
        if !stopped && round + 1 < fit.plan.rounds {
            keep_sums(fit, &grown(fit, state.clone(), vec![growth.clone()])?, sums);
        }
        Ok(growth)
    }

    fn fold(
        &self,
        fit: &Fit,
        round: u32,
        state: State,
        growth: Vec<Growth>,
    ) -> Result<Folded<State, Ensemble>, WorkError> {
        let stopped = growth.iter().any(|growth| growth.stopped);
        match grown(fit, state, growth)? {
            State { ensemble: Some(ensemble), .. } if stopped || round + 1 >= fit.plan.rounds => {
                Ok(Folded::Done(ensemble))
            }
            state => Ok(Folded::Next(state)),
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

/// How sums become scores, and how many of them there are a row.
fn link(fit: &Fit) -> (Link, usize) {
    match (fit.task, fit.classes) {
        (Task::Regression, _) => (Link::Identity, 1),
        (Task::Classification, 2) => (Link::Logistic, 1),
        (Task::Classification, classes) => (Link::Softmax, classes.max(1)),
    }
}

/// The state after a round.
fn grown(fit: &Fit, state: State, growth: Vec<Growth>) -> Result<State, WorkError> {
    let State { bins, mut ensemble, mut losses } = state;
    for Growth { base, trees, losses: more, .. } in growth {
        let before = ensemble.unwrap_or_else(|| Ensemble::new(link(fit).0, bins.width(), base));
        ensemble = Some(before.with(trees)?);
        losses.extend(more);
    }
    Ok(State { bins, ensemble, losses })
}

/// What the sums of a state are kept under. They follow from the state and the rows.
fn name_of(state: &State) -> Digest {
    Digest::of_value(&("sums", state))
}

/// The sums of this state if they are here. They are taken out, as the next state has others.
fn take_sums(fit: &Fit, state: &State) -> Option<Vec<f64>> {
    state.ensemble.as_ref()?;
    let name = name_of(state);
    let kept = fit.rows.recall(name)?;
    fit.rows.forget(name);
    let sums = kept.downcast::<Vec<f64>>().ok()?;
    Some(Arc::try_unwrap(sums).unwrap_or_else(|shared| (*shared).clone()))
}

fn keep_sums(fit: &Fit, state: &State, sums: Vec<f64>) {
    fit.rows.keep(name_of(state), sums.len() * size_of::<f64>(), Arc::new(sums));
}

/// The best answer without a tree: the mean, or the logarithms of the classes' shares. A class without rows counts as
/// half a row.
fn base(link: Link, outputs: usize, weights: &[f64], y: &[f64]) -> Vec<f64> {
    let rows = |index: u32, classes: usize| {
        let count = y.iter().filter(|&&y| class(y, classes) == index).count();
        let count = if count == 0 { 0.5 } else { count as f64 };
        weights.get(index as usize).map_or(count, |weight| count * weight)
    };
    match link {
        Link::Identity | Link::Mean => vec![mean(y)],
        Link::Logistic => vec![libm::log(rows(1, 2) / rows(0, 2))],
        Link::Softmax | Link::Shares => {
            (0..outputs).map(|k| libm::log(rows(k as u32, outputs) / y.len() as f64)).collect()
        }
    }
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
