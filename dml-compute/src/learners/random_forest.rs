//! A random forest: the mean of many trees, each of other rows and, question by question, of other features (Breiman
//! 2001, "Random Forests").
//!
//! A bootstrap of n rows takes each of them about Poisson(1) times (Oza and Russell 2001, "Online Bagging and
//! Boosting"). That number is drawn from the seed, the tree and the row's number alone, so that any worker can grow any
//! tree. Out-of-bag estimates are left out: hold-outs and folds serve all kinds alike.

use dml_core::{Params, Plan, Task};
use ndarray::Array2;

use super::trees::{Bins, Ensemble, Tree, forest};
use crate::{
    error::WorkError,
    kind::Kind,
    learner::{Encoding, Fit, Folded, Learner, Scores, Shape},
    onnx,
};

/// The learner of the kind `random_forest`.
#[derive(Debug, Clone, Copy, Default)]
pub struct RandomForest;

impl Learner for RandomForest {
    type State = Bins;
    type Partial = Vec<Tree>;
    type Model = Ensemble;

    fn kind(&self) -> Kind {
        Kind {
            name: "random_forest",
            about: "The mean of many trees that were grown from random rows and features.",
            tasks: vec![Task::Regression, Task::Classification],
            params: forest::params(true),
            default: true,
            parallel: true,
            deterministic: true,
            exportable: vec!["native", "json", "onnx"],
            encoding: Encoding::Codes,
        }
    }

    fn plan(&self, params: &Params, shape: &Shape) -> Plan {
        forest::plan(params, shape)
    }

    fn start(&self, fit: &Fit) -> Result<Bins, WorkError> {
        forest::start(fit)
    }

    fn unit(&self, fit: &Fit, _: u32, index: u32, bins: &Bins) -> Result<Vec<Tree>, WorkError> {
        forest::unit(fit, index, bins, false)
    }

    fn fold(
        &self,
        fit: &Fit,
        _: u32,
        bins: Bins,
        groups: Vec<Vec<Tree>>,
    ) -> Result<Folded<Bins, Ensemble>, WorkError> {
        forest::fold(fit, &bins, groups)
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

#[cfg(test)]
mod tests {
    use dml_core::Value;

    use super::*;
    use crate::learners::{
        decision_tree::DecisionTree,
        testing::{accuracy, block, halves, noise, params, probabilities, rings, run, run_cut, values, xor},
    };

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
