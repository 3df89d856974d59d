//! A single decision tree: CART (Breiman et al. 1984, "Classification and Regression Trees") over binned features.
//!
//! Splits lower squared error or Gini impurity. Blanks go where they lose least. There is no pruning: depth and leaf
//! size are the limits.

use dml_core::{Params, Plan, Task};

use super::trees::{
    Bins, Ensemble, Tree,
    binned::Binned,
    bins::MAX_BINS,
    cart::Target,
    forest::{max_depth, min_samples_leaf},
    grow::{Choice, Limits},
};
use crate::{
    error::WorkError,
    kind::{Domain, Kind, Param},
    learner::{Encoding, Fit, Folded, Learner, Shape},
};

/// The learner of the kind `decision_tree`.
#[derive(Debug, Clone, Copy, Default)]
pub struct DecisionTree;

impl Learner for DecisionTree {
    type State = Bins;
    type Partial = Tree;
    type Model = Ensemble;

    fn kind(&self) -> Kind {
        let params = vec![
            max_depth(10),
            min_samples_leaf(5),
            Param {
                name: "min_samples_split",
                about: "How many rows a node must have to be split.",
                domain: Domain::Int { default: 2, min: 2, max: 1_000_000_000 },
            },
        ];
        Kind {
            name: "decision_tree",
            about: "A tree of yes-or-no questions about single features, as a person would ask them.",
            tasks: vec![Task::Regression, Task::Classification],
            params,
            default: true,
            parallel: false,
            deterministic: true,
            exportable: vec!["native", "json", "onnx"],
            encoding: Encoding::Codes,
        }
    }

    fn plan(&self, _: &Params, _: &Shape) -> Plan {
        Plan::sequential(1)
    }

    fn start(&self, fit: &Fit) -> Result<Bins, WorkError> {
        Ok(Bins::of(&fit.rows.sample()?.x, MAX_BINS))
    }

    fn unit(&self, fit: &Fit, _: u32, _: u32, bins: &Bins) -> Result<Tree, WorkError> {
        let table = Binned::of(fit, bins)?;
        let limits = Limits {
            max_leaves: 0,
            max_depth: fit.params.int("max_depth") as usize,
            min_leaf: fit.params.int("min_samples_leaf"),
            min_split: fit.params.int("min_samples_split"),
        };
        let choice = Choice { features: table.width, random_cuts: false, seed: fit.seed };
        Ok(Target::new(fit, &table).grow(bins, &table, limits, choice, None, true))
    }

    fn fold(
        &self,
        fit: &Fit,
        _: u32,
        bins: Bins,
        trees: Vec<Tree>,
    ) -> Result<Folded<Bins, Ensemble>, WorkError> {
        Ok(Folded::Done(Ensemble::of_trees(fit.task, bins.width(), trees)?))
    }
}

#[cfg(test)]
mod tests {
    use dml_core::Value;
    use linfa::traits::{Fit as _, Predict as _};
    use ndarray::Array2;

    use super::*;
    use crate::{
        learner::Predict,
        learners::testing::{
            accuracy, block, halves, noise, params, probabilities, rings, run, run_cut, values, xor,
        },
    };

    #[test]
    fn learns_xor_and_a_sine() {
        let table = block(1000, xor);
        let model = run(&DecisionTree, &table, &params(&[]), Task::Classification, 2).unwrap();
        assert!(accuracy(&probabilities(model.predict(&table.x)), &table.y) > 0.98);
        let wave = block(1000, |row| (vec![noise(row, 0) * 3.0], libm::sin(noise(row, 0) * 3.0)));
        let model = run(&DecisionTree, &wave, &params(&[]), Task::Regression, 0).unwrap();
        let errors = values(model.predict(&wave.x)) - &wave.y;
        assert!(errors.mapv(|e| e * e).mean().unwrap() < 1e-3);
    }

    #[test]
    fn is_no_worse_than_linfa() {
        let (train, test) = halves(&block(3000, rings));
        let model = run(&DecisionTree, &train, &params(&[]), Task::Classification, 3).unwrap();
        let ours = accuracy(&probabilities(model.predict(&test.x)), &test.y);
        let data = linfa::Dataset::new(train.x.clone(), train.y.mapv(|y| y as usize));
        let peer =
            linfa_trees::DecisionTree::params().max_depth(Some(10)).min_weight_leaf(5.0).fit(&data).unwrap();
        let said = peer.predict(&test.x);
        let hits = said.iter().zip(&test.y).filter(|(said, y)| **said == **y as usize).count();
        let theirs = hits as f64 / test.y.len() as f64;
        assert!(ours >= theirs - 0.01 && ours > 0.8, "ours {ours}, linfa's {theirs}");
    }

    #[test]
    fn splits_equal_those_of_an_exhaustive_search() {
        // One question: the best of all features and all midpoints between values, by squared error.
        for seed in 0..20 {
            let row = |row| {
                let x = (0..3).map(|c| (noise(row, seed * 9 + c) * 8.0).round()).collect::<Vec<_>>();
                let y = x[seed as usize % 3] * 0.5 + noise(row, seed * 9 + 5);
                (x, y)
            };
            let table = block(40, row);
            let given = params(&[("max_depth", Value::Int(1)), ("min_samples_leaf", Value::Int(1))]);
            let model = run(&DecisionTree, &table, &given, Task::Regression, 0).unwrap();
            let ours = (values(model.predict(&table.x)) - &table.y).mapv(|e| e * e).sum();
            let mut least = f64::INFINITY;
            for feature in 0..3 {
                for cut in -8..8 {
                    let side = |low: bool| {
                        let column = table.x.column(feature);
                        let chosen =
                            column.iter().zip(&table.y).filter(|(x, _)| (**x <= f64::from(cut)) == low);
                        let y = chosen.map(|(_, &y)| y).collect::<Vec<_>>();
                        let mean = y.iter().sum::<f64>() / y.len().max(1) as f64;
                        y.iter().map(|y| (y - mean) * (y - mean)).sum::<f64>()
                    };
                    least = least.min(side(true) + side(false));
                }
            }
            assert!((ours - least).abs() < 1e-4, "{ours} {least}");
        }
    }

    #[test]
    fn blanks_are_a_value_like_others() {
        let row = |row| if row % 3 == 0 { (vec![f64::NAN], 5.0) } else { (vec![noise(row, 0)], 1.0) };
        let table = block(300, row);
        let model = run(&DecisionTree, &table, &params(&[]), Task::Regression, 0).unwrap();
        let errors = values(model.predict(&table.x)) - &table.y;
        assert!(errors.iter().all(|e| e.abs() < 1e-6));
        assert_eq!(model.trees()[0].nodes().len(), 3);
    }

    #[test]
    fn odd_tables_give_a_leaf() {
        let one = block(1, |_| (vec![3.0], 7.0));
        let constant = block(50, |row| (vec![1.0, f64::NAN], noise(row, 0)));
        let narrow = block(5, |row| (vec![], row as f64));
        for table in [&one, &constant, &narrow] {
            let model = run(&DecisionTree, table, &params(&[]), Task::Regression, 0).unwrap();
            assert_eq!(model.trees()[0].nodes().len(), 1);
            let said = values(model.predict(&table.x))[0];
            assert!((said - table.y.mean().unwrap()).abs() < 1e-6);
        }
        let single = block(20, |row| (vec![noise(row, 0)], 0.0));
        let model = run(&DecisionTree, &single, &params(&[]), Task::Classification, 1).unwrap();
        assert_eq!(probabilities(model.predict(&single.x)), Array2::<f64>::ones((20, 1)));
        let none = block(0, |_| unreachable!());
        assert!(run(&DecisionTree, &none, &params(&[]), Task::Regression, 0).is_err());
    }

    #[test]
    fn chunks_and_threads_leave_no_trace() {
        let table = block(5000, rings);
        let fit = |threads, chunks| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let model = || {
                run_cut(&DecisionTree, &table, &params(&[]), Task::Classification, 3, chunks, None).unwrap()
            };
            pool.install(model)
        };
        let whole = fit(1, 1);
        assert_eq!(whole, fit(4, 1));
        assert_eq!(whole, fit(2, 7));
        let importance = whole.importance().unwrap();
        assert!(importance[0] > importance[2] * 3.0 && importance[1] > importance[2] * 3.0, "{importance:?}");
    }
}
