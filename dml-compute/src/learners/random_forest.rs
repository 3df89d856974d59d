//! A random forest: the mean of many trees, each of other rows and, question by question, of other features (Breiman
//! 2001, "Random Forests").
//!
//! A bootstrap of n rows takes each of them about Poisson(1) times (Oza and Russell 2001, "Online Bagging and
//! Boosting"). That number is drawn from the seed, the tree and the row's number alone, so that any worker can grow any
//! tree. Out-of-bag estimates are left out: hold-outs and folds serve all kinds alike.

use dml_core::{Params, Plan, Task, rng};
use ndarray::Array2;
use rayon::prelude::*;

use super::trees::{
    Bins, Ensemble, Tree,
    bins::{Binned, MAX_BINS},
    cart::Target,
    grow::{Choice, Limits},
};
use crate::{
    error::WorkError,
    kind::{Domain, Kind, Param},
    learner::{Encoding, Fit, Folded, Learner, Scores, Shape},
};

/// About how many values the trees of a unit look at: a second of work.
const UNIT_VALUES: u64 = 1 << 27;

/// The learner of the kind `random_forest`.
#[derive(Debug, Clone, Copy, Default)]
pub struct RandomForest;

impl Learner for RandomForest {
    type State = Bins;
    type Partial = Vec<Tree>;
    type Model = Ensemble;

    fn kind(&self) -> Kind {
        let params = vec![
            Param {
                name: "n_estimators",
                about: "How many trees.",
                domain: Domain::Int { default: 100, min: 1, max: 10_000 },
            },
            Param {
                name: "max_depth",
                about: "How many questions lead to an answer at most; 0 for no limit.",
                domain: Domain::Int { default: 0, min: 0, max: 1000 },
            },
            Param {
                name: "min_samples_leaf",
                about: "How many rows each leaf has at least.",
                domain: Domain::Int { default: 1, min: 1, max: 1_000_000_000 },
            },
            Param {
                name: "max_features",
                about: "How many features each question looks at: their square root, a third, or all of them; \
                        auto is the square root for classification and all for regression.",
                domain: Domain::Choice { default: "auto", choices: &["auto", "sqrt", "third", "all"] },
            },
            Param {
                name: "bootstrap",
                about: "Whether each tree takes rows at random, some of them several times; else it takes all.",
                domain: Domain::Bool { default: true },
            },
        ];
        Kind {
            name: "random_forest",
            about: "The mean of many trees that were grown from random rows and features.",
            tasks: vec![Task::Regression, Task::Classification],
            params,
            default: true,
            parallel: true,
            deterministic: true,
            exportable: vec!["native", "json"],
            encoding: Encoding::Codes,
        }
    }

    fn plan(&self, params: &Params, shape: &Shape) -> Plan {
        let trees = trees(params) as u64;
        let task = if shape.classes == 0 { Task::Regression } else { Task::Classification };
        let depth = u64::from(shape.rows.max(2).ilog2());
        let values = shape.rows * depth * features(params, task, shape.columns) as u64;
        let units = trees.saturating_mul(values).div_ceil(UNIT_VALUES).clamp(1, trees);
        Plan { rounds: 1, units: units as u32, fold: true }
    }

    fn start(&self, fit: &Fit) -> Result<Bins, WorkError> {
        Ok(Bins::of(&fit.rows.sample()?.x, MAX_BINS))
    }

    fn unit(&self, fit: &Fit, _: u32, index: u32, bins: &Bins) -> Result<Vec<Tree>, WorkError> {
        let table = Binned::read(fit, bins)?;
        let target = Target::new(fit, &table);
        let limits = Limits {
            max_leaves: 0,
            max_depth: fit.params.int("max_depth") as usize,
            min_leaf: fit.params.int("min_samples_leaf"),
            min_split: 2,
        };
        let features = features(fit.params, fit.task, table.width);
        let grow = |tree| {
            let seed = rng::draw(fit.seed, tree as u64);
            let weights = if fit.params.bool("bootstrap") {
                bootstrap(rng::draw(seed, 0), &table.ids)
            } else {
                vec![1; table.rows()]
            };
            target.grow(bins, &table, limits, Choice { features, seed: rng::draw(seed, 1) }, &weights)
        };
        Ok(fit.plan.share(index, trees(fit.params)).into_par_iter().map(grow).collect())
    }

    fn fold(
        &self,
        fit: &Fit,
        _: u32,
        bins: Bins,
        groups: Vec<Vec<Tree>>,
    ) -> Result<Folded<Bins, Ensemble>, WorkError> {
        Ok(Folded::Done(Ensemble::of_trees(fit.task, bins.width(), groups.into_iter().flatten().collect())?))
    }

    fn predict(&self, model: &Ensemble, x: &Array2<f64>) -> Scores {
        model.scores(x)
    }

    fn importance(&self, model: &Ensemble) -> Option<Vec<f64>> {
        Some(model.importance())
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
    use crate::learners::{
        decision_tree::DecisionTree,
        testing::{accuracy, block, halves, noise, params, probabilities, rings, run, run_cut, values, xor},
    };

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

    #[test]
    fn beats_one_tree() {
        let slope = |row| {
            let x = (0..6).map(|column| noise(row, column)).collect::<Vec<_>>();
            let y = x.iter().sum::<f64>() + noise(row, 6);
            (x, y)
        };
        let (train, test) = halves(&block(2000, slope));
        let given = params(&[("n_estimators", Value::Int(40))]);
        let forest = run(&RandomForest, &train, &given, Task::Regression, 0).unwrap();
        let tree = run(&DecisionTree, &train, &params(&[]), Task::Regression, 0).unwrap();
        let error = |scores| (values(scores) - &test.y).mapv(|e| e * e).mean().unwrap();
        let (ours, single) =
            (error(RandomForest.predict(&forest, &test.x)), error(DecisionTree.predict(&tree, &test.x)));
        assert!(ours < single * 0.75, "forest {ours}, tree {single}");
    }

    #[test]
    fn fits_curves_and_xor() {
        let wave =
            block(1000, |row| (vec![noise(row, 0) * 3.0, noise(row, 1)], libm::sin(noise(row, 0) * 3.0)));
        let given =
            params(&[("n_estimators", Value::Int(30)), ("max_features", Value::Text("third".into()))]);
        let model = run(&RandomForest, &wave, &given, Task::Regression, 0).unwrap();
        let errors = values(RandomForest.predict(&model, &wave.x)) - &wave.y;
        assert!(errors.mapv(|e| e * e).mean().unwrap() < 1e-3);
        let (train, test) = halves(&block(1000, xor));
        let model = run(&RandomForest, &train, &params(&[]), Task::Classification, 2).unwrap();
        let said = probabilities(RandomForest.predict(&model, &test.x));
        assert!(accuracy(&said, &test.y) > 0.95);
        assert!(said.sum_axis(ndarray::Axis(1)).iter().all(|sum| (sum - 1.0).abs() < 1e-12));
    }

    #[test]
    fn without_chance_it_is_one_tree() {
        let table = block(500, rings);
        let given = [("n_estimators", Value::Int(3)), ("max_features", Value::Text("all".into()))];
        let given = params(&[&given[..], &[("bootstrap", Value::Bool(false))]].concat());
        let forest = run(&RandomForest, &table, &given, Task::Classification, 3).unwrap();
        let alone = params(&[("max_depth", Value::Int(0)), ("min_samples_leaf", Value::Int(1))]);
        let tree = run(&DecisionTree, &table, &alone, Task::Classification, 3).unwrap();
        assert_eq!(forest.trees().to_vec(), vec![tree.trees()[0].clone(); 3]);
    }

    #[test]
    fn groups_chunks_and_threads_leave_no_trace() {
        let table = block(600, rings);
        let given = params(&[("n_estimators", Value::Int(12))]);
        let fit = |threads, chunks, units| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let plan = Some(Plan { rounds: 1, units, fold: true });
            pool.install(|| {
                run_cut(&RandomForest, &table, &given, Task::Classification, 3, chunks, plan).unwrap()
            })
        };
        let whole = fit(1, 1, 1);
        assert_eq!(whole, fit(4, 1, 5));
        assert_eq!(whole, fit(2, 7, 12));
    }

    #[test]
    fn plans_grow_with_the_work() {
        let plan = |rows, columns| {
            let params = RandomForest.kind().check(&params(&[])).unwrap();
            RandomForest.plan(&params, &Shape { rows, columns, chunks: 1, classes: 2 }).units
        };
        assert_eq!(plan(300, 8), 1);
        assert!((4..20).contains(&plan(100_000, 28)), "{}", plan(100_000, 28));
        assert_eq!(plan(1 << 40, 100), 100);
        assert_eq!(plan(0, 0), 1);
    }

    #[test]
    fn one_row_is_enough() {
        let table = block(1, |_| (vec![f64::NAN], 7.0));
        let model = run(&RandomForest, &table, &params(&[]), Task::Regression, 0).unwrap();
        assert_eq!(values(RandomForest.predict(&model, &table.x)).to_vec(), [7.0]);
    }
}
