//! Gradient boosting: each tree corrects those before it (Friedman 2001, "Greedy Function Approximation: A Gradient
//! Boosting Machine"), by a Newton step in each leaf (Chen and Guestrin 2016, "XGBoost"). Leaf-wise growth over binned
//! features, as in LightGBM (Ke et al. 2017).
//!
//! Losses: squared error; log-loss of two classes; log-loss of several, with a tree a class in each iteration.
//! A round is several iterations by one unit. The state is the trees so far: what they sum up to for each training row
//! is added up again when a unit starts, in the same order, so that a resumed fit equals one that never stopped. Early
//! stopping and rounds over shards of the rows are left out.

use dml_core::{Params, Plan, Task, rng};
use ndarray::Array2;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::trees::{
    Bins, Ensemble, Tree,
    bins::Binned,
    cart::{class, mean},
    ensemble::{Link, add_tree, logistic, softmax},
    grow::{Choice, Grower, Limits},
    sums::{Moments, Sums},
};
use crate::{
    error::WorkError,
    kind::{Domain, Kind, Param},
    learner::{Encoding, Fit, Folded, Learner, Scores, Shape},
};

/// About how many values the iterations of a round look at: a second of work.
const ROUND_VALUES: u64 = 1 << 28;
/// At least so many rounds, for progress; at most so many, for each begins by reading the table and adding up the trees.
const ROUNDS: (u64, u64) = (8, 20);
/// A leaf needs no more than this part of the rows, whatever the parameter says, so that small tables can be split.
const LEAST_LEAVES: usize = 16;

/// The learner of the kind `gradient_boosting`.
#[derive(Debug, Clone, Copy, Default)]
pub struct GradientBoosting;

/// A fit on its way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    bins: Bins,
    /// None before the first round.
    ensemble: Option<Ensemble>,
}

/// What a round adds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Growth {
    base: Vec<f64>,
    trees: Vec<Tree>,
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
        ];
        Kind {
            name: "gradient_boosting",
            about: "Many small trees, each correcting those before it.",
            tasks: vec![Task::Regression, Task::Classification],
            params,
            default: true,
            parallel: false,
            deterministic: true,
            exportable: vec!["native", "json"],
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
        Ok(State { bins: Bins::of(&fit.rows.sample()?.x, max_bins), ensemble: None })
    }

    fn unit(&self, fit: &Fit, round: u32, _: u32, state: &State) -> Result<Growth, WorkError> {
        let table = Binned::read(fit, &state.bins)?;
        let (link, outputs) = link(fit);
        let ensemble = match &state.ensemble {
            None => Ensemble::new(link, table.width, base(link, outputs, &table.y)),
            Some(ensemble) => ensemble.clone(),
        };
        if (ensemble.link(), ensemble.width(), ensemble.base().len()) != (link, table.width, outputs) {
            let why = "its trees are for another table".into();
            return Err(WorkError::Corrupt { what: "the state of the boosting", why });
        }
        let sums = ensemble.training_sums(&state.bins, &table);
        let mut booster =
            Booster { fit, bins: &state.bins, table: &table, link, outputs, sums, trees: Vec::new() };
        let at = |round: u32| u64::from(round) * iterations(fit.params) / u64::from(fit.plan.rounds.max(1));
        (at(round)..at(round + 1)).for_each(|iteration| booster.iterate(iteration));
        Ok(Growth { base: ensemble.base().to_vec(), trees: booster.trees })
    }

    fn fold(
        &self,
        fit: &Fit,
        round: u32,
        state: State,
        growth: Vec<Growth>,
    ) -> Result<Folded<State, Ensemble>, WorkError> {
        let State { bins, mut ensemble } = state;
        for Growth { base, trees } in growth {
            let before = ensemble.unwrap_or_else(|| Ensemble::new(link(fit).0, bins.width(), base));
            ensemble = Some(before.with(trees)?);
        }
        match ensemble {
            Some(ensemble) if round + 1 >= fit.plan.rounds => Ok(Folded::Done(ensemble)),
            ensemble => Ok(Folded::Next(State { bins, ensemble })),
        }
    }

    fn predict(&self, model: &Ensemble, x: &Array2<f64>) -> Scores {
        model.scores(x)
    }

    fn importance(&self, model: &Ensemble) -> Option<Vec<f64>> {
        Some(model.importance())
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

/// The best answer without a tree: the mean, or the logarithms of the classes' shares. A class without rows counts as
/// half a row.
fn base(link: Link, outputs: usize, y: &[f64]) -> Vec<f64> {
    let rows = |index: u32, classes: usize| {
        let count = y.iter().filter(|&&y| class(y, classes) == index).count();
        if count == 0 { 0.5 } else { count as f64 }
    };
    match link {
        Link::Identity | Link::Mean => vec![mean(y)],
        Link::Logistic => vec![libm::log(rows(1, 2) / rows(0, 2))],
        Link::Softmax | Link::Shares => {
            (0..outputs).map(|k| libm::log(rows(k as u32, outputs) / y.len() as f64)).collect()
        }
    }
}

/// A unit at work.
struct Booster<'a> {
    fit: &'a Fit<'a>,
    bins: &'a Bins,
    table: &'a Binned,
    link: Link,
    outputs: usize,
    /// What base and trees add up to for each row, row-major.
    sums: Vec<f64>,
    trees: Vec<Tree>,
}

impl Booster<'_> {
    /// Grows the trees of one iteration.
    fn iterate(&mut self, iteration: u64) {
        let seed = rng::draw(self.fit.seed, iteration);
        let rows = self.rows(rng::draw(seed, 0));
        let trees = match self.link {
            Link::Identity | Link::Mean => {
                let residuals =
                    self.table.y.iter().zip(&self.sums).map(|(y, sum)| y - sum).collect::<Vec<_>>();
                vec![self.grow(Moments::squared(&residuals, |_| 1), rows, rng::draw(seed, 1))]
            }
            Link::Logistic => {
                let derivatives = self.table.y.par_iter().zip(&self.sums).map(|(&y, &sum)| {
                    let p = logistic(sum);
                    (f64::from(class(y, 2)) - p, p * (1.0 - p))
                });
                vec![self.grow(Moments::bounded(derivatives.collect()), rows, rng::draw(seed, 1))]
            }
            Link::Softmax | Link::Shares => self.several(&rows, seed),
        };
        for (output, tree) in trees.iter().enumerate() {
            add_tree(&mut self.sums, self.outputs, self.bins, self.table, tree, output);
        }
        self.trees.extend(trees);
    }

    /// A tree a class; none if there is one class only. The second derivatives are those of Friedman's step, larger by
    /// K / (K - 1) than the diagonal of the Hessian, for the classes move together.
    fn several(&self, rows: &[u32], seed: u64) -> Vec<Tree> {
        let classes = self.outputs;
        if classes < 2 {
            return Vec::new();
        }
        let mut shares = self.sums.clone();
        shares.par_chunks_mut(classes).for_each(softmax);
        let together = classes as f64 / (classes as f64 - 1.0);
        let tree = |k: usize| {
            let derivatives = self.table.y.iter().zip(shares.chunks_exact(classes)).map(|(&y, shares)| {
                let hit = if class(y, classes) == k as u32 { 1.0 } else { 0.0 };
                (hit - shares[k], together * shares[k] * (1.0 - shares[k]))
            });
            self.grow(Moments::bounded(derivatives.collect()), rows.to_vec(), rng::draw(seed, 1 + k as u64))
        };
        (0..classes).into_par_iter().map(tree).collect()
    }

    /// The rows that an iteration learns from.
    fn rows(&self, seed: u64) -> Vec<u32> {
        let all = 0..self.table.rows() as u32;
        let share = self.fit.params.float("subsample");
        if share >= 1.0 {
            return all.collect();
        }
        all.filter(|&row| rng::unit(seed, self.table.ids[row as usize]) < share).collect()
    }

    fn grow<const C: usize>(&self, moments: Moments<C>, rows: Vec<u32>, seed: u64) -> Tree
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
        let sums =
            Moments { l2: params.float("l2_regularization"), rate: params.float("learning_rate"), ..moments };
        let (bins, table, choice) = (self.bins, self.table, Choice { features, seed });
        Grower { bins, table, sums: &sums, limits, choice }.grow(rows)
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
        let rows = Table::new(&table, 2);
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
