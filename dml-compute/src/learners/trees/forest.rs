//! What random forests and extremely randomised trees share: many trees of chance, grown side by side.

use dml_core::{Params, Plan, Task, rng};
use rayon::prelude::*;

use super::{
    Bins, Ensemble, Tree,
    binned::Binned,
    bins::MAX_BINS,
    cart::Target,
    grow::{Choice, Limits},
};
use crate::{
    error::WorkError,
    kind::{Domain, Kind, Param},
    learner::{Encoding, Fit, Folded, Learner, Shape},
};

/// About how many values the trees of a unit look at: a second of work.
const UNIT_VALUES: u64 = 1 << 27;

/// The learner of a kind whose models are the means of many trees of chance.
#[derive(Debug, Clone, Copy)]
pub struct Forest {
    /// What the kind is called.
    pub(crate) name: &'static str,
    /// What it is, in a sentence.
    pub(crate) about: &'static str,
    /// Whether it is tried where no kind is named.
    pub(crate) default: bool,
    /// Whether a tree takes rows at random where nothing else is asked for.
    pub(crate) bootstrap: bool,
    /// Whether questions cut each feature at a random place.
    pub(crate) random_cuts: bool,
}

impl Learner for Forest {
    type State = Bins;
    type Partial = Vec<Tree>;
    type Model = Ensemble;

    fn kind(&self) -> Kind {
        Kind {
            name: self.name,
            about: self.about,
            tasks: vec![Task::Regression, Task::Classification],
            params: params(self.bootstrap),
            default: self.default,
            parallel: true,
            deterministic: true,
            exportable: vec!["native", "json", "onnx"],
            encoding: Encoding::Codes,
        }
    }

    /// Units of trees, each about a second of work.
    fn plan(&self, params: &Params, shape: &Shape) -> Plan {
        let trees = trees(params) as u64;
        let task = if shape.classes == 0 { Task::Regression } else { Task::Classification };
        let depth = u64::from(shape.rows.max(2).ilog2());
        let values = shape.rows.saturating_mul(depth * features(params, task, shape.columns) as u64);
        let units = trees.saturating_mul(values).div_ceil(UNIT_VALUES).clamp(1, trees);
        Plan { rounds: 1, units: units as u32, fold: true }
    }

    /// Where the features are cut.
    fn start(&self, fit: &Fit) -> Result<Bins, WorkError> {
        Ok(Bins::of(&fit.rows.sample()?.x, MAX_BINS))
    }

    /// The trees of a unit.
    fn unit(&self, fit: &Fit, _: u32, index: u32, bins: &Bins) -> Result<Vec<Tree>, WorkError> {
        let table = Binned::of(fit, bins)?;
        let target = Target::new(fit, &table);
        let limits = Limits {
            max_leaves: 0,
            max_depth: fit.params.int("max_depth") as usize,
            min_leaf: fit.params.int("min_samples_leaf"),
            min_split: 2,
        };
        let features = features(fit.params, fit.task, table.width);
        let share = fit.plan.share(index, trees(fit.params));
        let alone = share.len() == 1;
        let grow = |tree| {
            let seed = rng::draw(fit.seed, tree as u64);
            let weights = fit.params.bool("bootstrap").then(|| bootstrap(rng::draw(seed, 0), &table.ids));
            let choice = Choice { features, random_cuts: self.random_cuts, seed: rng::draw(seed, 1) };
            target.grow(bins, &table, limits, choice, weights.as_deref(), alone)
        };
        Ok(share.into_par_iter().map(grow).collect())
    }

    /// The trees of all units, in order.
    fn fold(
        &self,
        fit: &Fit,
        _: u32,
        bins: Bins,
        groups: Vec<Vec<Tree>>,
    ) -> Result<Folded<Bins, Ensemble>, WorkError> {
        Ok(Folded::Done(Ensemble::of_trees(fit.task, bins.width(), groups.into_iter().flatten().collect())?))
    }
}

/// The parameters, `bootstrap` by this default.
fn params(bootstrap: bool) -> Vec<Param> {
    vec![
        Param {
            name: "n_estimators",
            about: "How many trees.",
            domain: Domain::Int { default: 100, min: 1, max: 10_000 },
        },
        max_depth(0),
        min_samples_leaf(1),
        Param {
            name: "max_features",
            about: "How many features each question looks at: their square root, a third, or all of them; \
                    auto is the square root for classification and all for regression.",
            domain: Domain::Choice { default: "auto", choices: &["auto", "sqrt", "third", "all"] },
        },
        Param {
            name: "bootstrap",
            about: "Whether each tree takes rows at random, some of them several times; else it takes all.",
            domain: Domain::Bool { default: bootstrap },
        },
    ]
}

/// How deep trees are, unless told otherwise.
pub(crate) fn max_depth(default: i64) -> Param {
    Param {
        name: "max_depth",
        about: "How many questions lead to an answer at most; 0 for no limit.",
        domain: Domain::Int { default, min: 0, max: 1000 },
    }
}

/// How many rows leaves have, unless told otherwise.
pub(crate) fn min_samples_leaf(default: i64) -> Param {
    Param {
        name: "min_samples_leaf",
        about: "How many rows each leaf has at least.",
        domain: Domain::Int { default, min: 1, max: 1_000_000_000 },
    }
}

fn trees(params: &Params) -> usize {
    params.int("n_estimators").max(1) as usize
}

/// How many features each question looks at.
fn features(params: &Params, task: Task, width: usize) -> usize {
    let few = match (params.text("max_features"), task) {
        ("all", _) | ("auto", Task::Regression) => width,
        ("third", _) => width / 3,
        _ => width.isqrt(),
    };
    few.max(1)
}

/// How often each of these rows is taken; each once if chance would take none.
fn bootstrap(seed: u64, ids: &[u64]) -> Vec<u32> {
    let weights = ids.iter().map(|&id| poisson(rng::unit(seed, id))).collect::<Vec<_>>();
    if weights.iter().all(|&weight| weight == 0) { vec![1; ids.len()] } else { weights }
}

/// The Poisson number with mean 1 at this quantile, at most 16.
fn poisson(quantile: f64) -> u32 {
    let mut share = 1.0 / std::f64::consts::E;
    let mut below = share;
    for count in 0..16 {
        if quantile < below {
            return count;
        }
        share /= f64::from(count + 1);
        below += share;
    }
    16
}

#[cfg(test)]
mod tests {
    use dml_core::Value;

    use super::*;
    use crate::{
        learner::Predict,
        learners::{
            decision_tree::DecisionTree,
            extra_trees::EXTRA_TREES,
            random_forest::RANDOM_FOREST,
            testing::{block, halves, noise, params, rings, run, run_cut, values},
        },
    };

    #[test]
    fn many_trees_beat_one() {
        let slope = |row| {
            let x = (0..6).map(|column| noise(row, column)).collect::<Vec<_>>();
            let y = x.iter().sum::<f64>() + noise(row, 6);
            (x, y)
        };
        let (train, test) = halves(&block(2000, slope));
        let error = |model: Ensemble| {
            (values(model.predict(&test.x)) - &test.y).mapv(|error| error * error).mean().unwrap()
        };
        let single = error(run(&DecisionTree, &train, &params(&[]), Task::Regression, 0).unwrap());
        for forest in [RANDOM_FOREST, EXTRA_TREES] {
            let given = params(&[("n_estimators", Value::Int(40))]);
            let ours = error(run(&forest, &train, &given, Task::Regression, 0).unwrap());
            assert!(ours < single * 0.75, "{} {ours}, tree {single}", forest.name);
        }
    }

    #[test]
    fn groups_chunks_and_threads_leave_no_trace() {
        let table = block(600, rings);
        let given = params(&[("n_estimators", Value::Int(12))]);
        for forest in [RANDOM_FOREST, EXTRA_TREES] {
            let fit = |threads, chunks, units| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let plan = Some(Plan { rounds: 1, units, fold: true });
                pool.install(|| {
                    run_cut(&forest, &table, &given, Task::Classification, 3, chunks, plan).unwrap()
                })
            };
            let whole = fit(1, 1, 1);
            assert_eq!(whole, fit(4, 1, 5), "{}", forest.name);
            assert_eq!(whole, fit(2, 7, 12), "{}", forest.name);
        }
    }

    #[test]
    fn a_bootstrap_takes_rows_as_often_as_poisson_says() {
        let weights = bootstrap(3, &(0..100_000).collect::<Vec<_>>());
        let count = |n| weights.iter().filter(|&&weight| weight == n).count() as f64 / 1e5;
        for (n, share) in [(0, 0.3679), (1, 0.3679), (2, 0.1839), (3, 0.0613), (4, 0.0153)] {
            assert!((count(n) - share).abs() < 0.006, "{n}: {}", count(n));
        }
        assert_eq!(poisson(1.0), 16);
        assert_eq!(bootstrap((0..).find(|&seed| poisson(rng::unit(seed, 5)) == 0).unwrap(), &[5]), [1]);
    }
}
