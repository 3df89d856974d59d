//! A random forest: the mean of many trees, each of other rows and, question by question, of other features (Breiman
//! 2001, "Random Forests").
//!
//! A bootstrap of n rows takes each of them about Poisson(1) times (Oza and Russell 2001, "Online Bagging and
//! Boosting"). That number is drawn from the seed, the tree and the row's number alone, so that any worker can grow any
//! tree. Out-of-bag estimates are left out: hold-outs and folds serve all kinds alike.

use super::trees::Forest;

/// The learner of the kind `random_forest`.
pub const RANDOM_FOREST: Forest = Forest {
    name: "random_forest",
    about: "The mean of many trees that were grown from random rows and features.",
    default: true,
    bootstrap: true,
    random_cuts: false,
};

#[cfg(test)]
mod tests {
    use dml_core::{Task, Value};

    use super::*;
    use crate::{
        learner::{Learner, Predict, Shape},
        learners::{
            decision_tree::DecisionTree,
            testing::{accuracy, block, halves, noise, params, probabilities, rings, run, values, xor},
        },
    };

    #[test]
    fn fits_curves_and_xor() {
        let wave =
            block(1000, |row| (vec![noise(row, 0) * 3.0, noise(row, 1)], libm::sin(noise(row, 0) * 3.0)));
        let given =
            params(&[("n_estimators", Value::Int(30)), ("max_features", Value::Text("third".into()))]);
        let model = run(&RANDOM_FOREST, &wave, &given, Task::Regression, 0).unwrap();
        let errors = values(model.predict(&wave.x)) - &wave.y;
        assert!(errors.mapv(|e| e * e).mean().unwrap() < 1e-3);
        let (train, test) = halves(&block(1000, xor));
        let model = run(&RANDOM_FOREST, &train, &params(&[]), Task::Classification, 2).unwrap();
        let said = probabilities(model.predict(&test.x));
        assert!(accuracy(&said, &test.y) > 0.95);
        assert!(said.sum_axis(ndarray::Axis(1)).iter().all(|sum| (sum - 1.0).abs() < 1e-12));
    }

    #[test]
    fn without_chance_it_is_one_tree() {
        let table = block(500, rings);
        let given = [("n_estimators", Value::Int(3)), ("max_features", Value::Text("all".into()))];
        let given = params(&[&given[..], &[("bootstrap", Value::Bool(false))]].concat());
        let forest = run(&RANDOM_FOREST, &table, &given, Task::Classification, 3).unwrap();
        let alone = params(&[("max_depth", Value::Int(0)), ("min_samples_leaf", Value::Int(1))]);
        let tree = run(&DecisionTree, &table, &alone, Task::Classification, 3).unwrap();
        assert_eq!(forest.trees().to_vec(), vec![tree.trees()[0].clone(); 3]);
    }

    #[test]
    fn plans_grow_with_the_work() {
        let plan = |rows, columns| {
            let params = RANDOM_FOREST.kind().check(&params(&[])).unwrap();
            RANDOM_FOREST.plan(&params, &Shape { rows, columns, chunks: 1, classes: 2 }).units
        };
        assert_eq!(plan(300, 8), 1);
        assert!((4..20).contains(&plan(100_000, 28)), "{}", plan(100_000, 28));
        assert_eq!(plan(1 << 40, 100), 100);
        assert_eq!(plan(0, 0), 1);
    }

    #[test]
    fn one_row_is_enough() {
        let table = block(1, |_| (vec![f64::NAN], 7.0));
        let model = run(&RANDOM_FOREST, &table, &params(&[]), Task::Regression, 0).unwrap();
        assert_eq!(values(model.predict(&table.x)).to_vec(), [7.0]);
    }
}
