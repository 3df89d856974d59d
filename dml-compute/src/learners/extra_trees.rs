//! Extremely randomised trees: the mean of many trees whose questions cut random features at random places (Geurts,
//! Ernst and Wehenkel 2006, "Extremely randomized trees").
//!
//! Each question looks at some features, draws one place between the least and the greatest value that its rows have of
//! each, and takes the one that gains most. Places are rounded to where the features are cut into bins. Blanks go where
//! they lose least.

use super::trees::Forest;

/// The learner of the kind `extra_trees`.
pub const EXTRA_TREES: Forest = Forest {
    name: "extra_trees",
    about: "The mean of many trees that ask random questions.",
    default: false,
    bootstrap: false,
    random_cuts: true,
};

#[cfg(test)]
mod tests {
    use dml_core::{Plan, Task, Value};

    use super::*;
    use crate::{
        learner::Predict,
        learners::{
            decision_tree::DecisionTree,
            testing::{
                accuracy, block, halves, noise, params, probabilities, rings, run, run_cut, values, xor,
            },
        },
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
        let trees = run(&EXTRA_TREES, &train, &given, Task::Regression, 0).unwrap();
        let tree = run(&DecisionTree, &train, &params(&[]), Task::Regression, 0).unwrap();
        let error = |scores| (values(scores) - &test.y).mapv(|e| e * e).mean().unwrap();
        let (ours, single) = (error(trees.predict(&test.x)), error(tree.predict(&test.x)));
        assert!(ours < single * 0.75, "extra trees {ours}, tree {single}");
    }

    #[test]
    fn finds_xor_and_blanks() {
        let (train, test) = halves(&block(1000, xor));
        let model = run(&EXTRA_TREES, &train, &params(&[]), Task::Classification, 2).unwrap();
        assert!(accuracy(&probabilities(model.predict(&test.x)), &test.y) > 0.93);
        let row = |row| if row % 3 == 0 { (vec![f64::NAN], 1.0) } else { (vec![noise(row, 0)], 0.0) };
        let table = block(300, row);
        let model = run(&EXTRA_TREES, &table, &params(&[]), Task::Classification, 2).unwrap();
        assert_eq!(accuracy(&probabilities(model.predict(&table.x)), &table.y), 1.0);
    }

    #[test]
    fn trees_differ_though_they_see_the_same_rows() {
        let table = block(500, |row| (vec![noise(row, 0)], noise(row, 0)));
        let given = params(&[("n_estimators", Value::Int(2)), ("max_depth", Value::Int(1))]);
        let model = run(&EXTRA_TREES, &table, &given, Task::Regression, 0).unwrap();
        assert_ne!(model.trees()[0], model.trees()[1]);
    }

    #[test]
    fn groups_chunks_and_threads_leave_no_trace() {
        let table = block(600, rings);
        let given = params(&[("n_estimators", Value::Int(12))]);
        let fit = |threads, chunks, units| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let plan = Some(Plan { rounds: 1, units, fold: true });
            pool.install(|| {
                run_cut(&EXTRA_TREES, &table, &given, Task::Classification, 3, chunks, plan).unwrap()
            })
        };
        let whole = fit(1, 1, 1);
        assert_eq!(whole, fit(4, 1, 5));
        assert_eq!(whole, fit(2, 7, 12));
    }
}
