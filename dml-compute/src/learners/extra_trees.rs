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
    use dml_core::{Task, Value};

    use super::*;
    use crate::{
        learner::Predict,
        learners::testing::{accuracy, block, halves, noise, params, probabilities, run, xor},
    };

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
}
