//! The kinds of this crate beside scikit-learn 1.9 and SciPy, on one small table.
//!
//! The table has 40 rows `i` and 3 features `j`: `((i² (j+1) + 7 i (j+2) + 3 j) mod 19) / 9 - 1`. What was expected was
//! computed once, on the features as they are, with tolerances down to 1e-12; for the support vector machines, whose
//! intercept is free here, by minimising their objective with SciPy's BFGS.

use dml_core::{Task, Value};
use ndarray::Array2;

use super::{
    bernoulli_nb::BernoulliNb, elastic_net::ElasticNet, gaussian_nb::GaussianNb, glm::GLM,
    knn_classifier::KnnClassifier, knn_regressor::KnnRegressor, lasso::Lasso, linear_svm::LINEAR_SVM,
    linear_svr::LINEAR_SVR, logistic::LOGISTIC, multinomial_nb::MultinomialNb,
    ridge_classifier::RidgeClassifier, sgd_classifier::SGD_CLASSIFIER, sgd_regressor::SGD_REGRESSOR, testing,
};
use crate::learner::{Block, Learner, Predict, Scores};

fn x(i: u64) -> Vec<f64> {
    (0..3).map(|j| ((i * i * (j + 1) + 7 * i * (j + 2) + 3 * j) % 19) as f64 / 9.0 - 1.0).collect()
}

fn score(i: u64) -> f64 {
    x(i)[0] - 0.5 * x(i)[1] + (i % 5) as f64 / 5.0
}

fn number(i: u64) -> f64 {
    3.0 + 2.0 * x(i)[0] - x(i)[1] + (i * 13 % 7) as f64 / 7.0
}

fn count(i: u64) -> f64 {
    (2.0 + 2.0 * x(i)[0] - x(i)[1] + (i % 3) as f64).floor().max(0.0)
}

fn amount(i: u64) -> f64 {
    0.5 + (1.0 + x(i)[0]) * (1.2 + (i % 4) as f64 / 4.0)
}

fn three(i: u64) -> f64 {
    f64::from(u8::from(score(i) >= -0.2) + u8::from(score(i) >= 0.9))
}

fn two(i: u64) -> f64 {
    f64::from(u8::from(score(i) > 0.7))
}

fn table(y: fn(u64) -> f64) -> Block {
    testing::block(40, |i| (x(i), y(i)))
}

/// Whether the scores of the rows are as expected: of a regression the values, of two classes the probabilities of the
/// second, of more all probabilities. For the table as it is and in pieces.
fn check<L: Learner>(
    learner: &L,
    block: &Block,
    asked: &Array2<f64>,
    classes: usize,
    given: &[(&str, Value)],
    expected: &[f64],
) {
    let task = if classes == 0 { Task::Regression } else { Task::Classification };
    for (chunks, units) in [(1, 1), (7, 3)] {
        let params = testing::params(given);
        let complete = learner.kind().check(&params).unwrap();
        let plan = learner.plan(&complete, &testing::Table::new(block, chunks, classes).shape());
        let plan = if learner.kind().parallel { dml_core::Plan { units, ..plan } } else { plan };
        let model = testing::run_cut(learner, block, &params, task, classes, chunks, Some(plan)).unwrap();
        let scores = match model.predict(asked) {
            Scores::Values(values) => values.to_vec(),
            Scores::Probabilities(p) if classes == 2 => p.column(1).to_vec(),
            Scores::Probabilities(p) => p.iter().copied().collect(),
        };
        for (found, expected) in scores.iter().zip(expected) {
            let name = learner.kind().name;
            assert!((found - expected).abs() < 2e-6, "{name} {given:?}: {scores:?} instead of {expected}");
        }
        assert!(scores.len() >= expected.len());
    }
}

fn float(name: &'static str, value: f64) -> (&'static str, Value) {
    (name, Value::Float(value))
}

fn word(name: &'static str, value: &str) -> (&'static str, Value) {
    (name, Value::Text(value.into()))
}

const EXACT: (&str, Value) = ("tol", Value::Float(1e-11));
const LONG: (&str, Value) = ("max_iter", Value::Int(10_000));

#[test]
fn regressions_with_penalties() {
    let block = table(number);
    let tol = float("tol", 1e-14);
    check(
        &Lasso,
        &block,
        &block.x,
        0,
        &[float("alpha", 0.2), tol.clone(), LONG],
        &[2.247273362, 4.570968113, 4.201353109],
    );
    let given = [float("alpha", 0.3), float("l1_ratio", 0.4), tol, LONG];
    check(&ElasticNet, &block, &block.x, 0, &given, &[2.681501844, 4.399103604, 3.974727776]);
    let given = [float("C", 0.5), float("epsilon", 0.25), EXACT];
    check(&LINEAR_SVR, &block, &block.x, 0, &given, &[2.24058727, 4.867274783, 3.754820731]);
}

#[test]
fn generalised_linear_models() {
    for (y, power, expected) in [
        (count as fn(u64) -> f64, 1.0, [1.48371113, 3.96798651, 2.634782782]),
        (count, 1.5, [1.451660391, 3.924439627, 2.696766146]),
        (amount, 2.0, [0.90678326, 3.088044391, 2.679691152]),
        (amount, 3.0, [0.823050873, 2.862455798, 2.609560836]),
    ] {
        let block = table(y);
        check(&GLM, &block, &block.x, 0, &[float("power", power), float("alpha", 0.1), EXACT], &expected);
    }
}

#[test]
fn linear_classifiers() {
    let (of_two, of_three) = (table(two), table(three));
    let x = &of_two.x;
    for (weight, two, three, logistic) in [
        (
            "none",
            [0.243916236, 0.645755384, 0.497665428],
            [0.318955924, 0.557927441, 0.123116635, 0.144009757, 0.275334146, 0.580656097],
            [0.34064103, 0.647306295, 0.012052675, 0.016345799, 0.24741132, 0.736242881],
        ),
        (
            "balanced",
            [0.245491781, 0.651936287, 0.503896072],
            [0.498853857, 0.362599316, 0.138546827, 0.149492307, 0.255917835, 0.594589858],
            [0.562298303, 0.423585183, 0.014116514, 0.021647912, 0.226135783, 0.752216305],
        ),
    ] {
        let given = [float("alpha", 2.0), word("class_weight", weight)];
        check(&RidgeClassifier, &of_two, x, 2, &given, &two);
        check(&RidgeClassifier, &of_three, x, 3, &given, &three);
        let given = [float("C", 2.0), word("class_weight", weight), EXACT];
        check(&LOGISTIC, &of_three, x, 3, &given, &logistic);
    }
    let given = [float("C", 0.4), word("penalty", "l1"), EXACT];
    check(&LOGISTIC, &of_two, x, 2, &given, &[0.038075383, 0.782936335, 0.664013204]);
    let expected = [0.33882844, 0.627932272, 0.033239288, 0.080347021, 0.283076253, 0.636576726];
    check(&LOGISTIC, &of_three, x, 3, &given, &expected);
    let given = [float("C", 0.7), EXACT];
    check(&LINEAR_SVM, &of_two, x, 2, &given, &[0.118179916, 0.673580783, 0.483729978]);
    let given = [float("C", 0.7), word("class_weight", "balanced"), EXACT];
    let expected = [0.548557006, 0.397501946, 0.053941049, 0.076971266, 0.249665525, 0.67336321];
    check(&LINEAR_SVM, &of_three, x, 3, &given, &expected);
}

#[test]
fn an_l1_penalty_makes_weights_zero() {
    let given = testing::params(&[float("C", 0.4), word("penalty", "l1"), EXACT]);
    let model = testing::run(&LOGISTIC, &table(two), &given, Task::Classification, 2).unwrap();
    let [weights] = model.outputs.as_slice() else { panic!("two classes have one output") };
    assert!((weights[0] - 2.70733729).abs() < 1e-6, "{weights:?}");
    assert_eq!(weights[1..3], [0.0, 0.0]);
    let given = testing::params(&[float("alpha", 100.0)]);
    let model = testing::run(&Lasso, &table(number), &given, Task::Regression, 0).unwrap();
    assert_eq!(model.weights, [0.0; 3]);
}

#[test]
fn naive_bayes() {
    let (of_two, of_three) = (table(two), table(three));
    let x = &of_two.x;
    let expected = [0.253780962, 0.705432812, 0.040786226, 0.006928524, 0.238587011, 0.754484465];
    check(&BernoulliNb, &of_three, x, 3, &[float("alpha", 0.5)], &expected);
    let given = [float("binarize", 0.3), ("fit_prior", Value::Bool(false))];
    check(&BernoulliNb, &of_two, x, 2, &given, &[0.124714445, 0.86636704, 0.740947954]);
    let counts = |y: fn(u64) -> f64| {
        testing::block(40, |i| (x.row(i as usize).iter().map(|x| ((x + 1.0) * 9.0).round()).collect(), y(i)))
    };
    let (of_two, of_three) = (counts(two), counts(three));
    let expected = [0.591739446, 0.352263149, 0.055997404, 0.00016189, 0.338082236, 0.661755874];
    check(&MultinomialNb, &of_three, &of_three.x, 3, &[float("alpha", 0.5)], &expected);
    let given = [("fit_prior", Value::Bool(false))];
    check(&MultinomialNb, &of_two, &of_two.x, 2, &given, &[0.082967994, 0.923566624, 0.080038665]);
    let expected = [0.374438647, 0.625560881, 4.72e-7, 0.000203135, 0.111773158, 0.888023706];
    check(&GaussianNb, &table(three), x, 3, &[], &expected);
}

/// The first 19 rows differ, so that no two are equally far.
#[test]
fn nearest_neighbors() {
    let part = |y: fn(u64) -> f64| testing::block(19, |i| (x(i), y(i)));
    let asked = Array2::from_shape_fn((3, 3), |(i, j)| x(i as u64)[j] + [0.05, 0.03, -0.02][j]);
    for (weights, values, shares) in [
        ("uniform", [2.238095238, 5.08994709, 3.486772487], [0.5, 0.5, 0.0, 0.0, 0.0, 1.0, 0.0, 0.75, 0.25]),
        (
            "distance",
            [1.768829978, 5.368567613, 3.825576154],
            [0.894268632, 0.105731368, 0.0, 0.0, 0.0, 1.0, 0.0, 0.951769729, 0.048230271],
        ),
    ] {
        let given = |k| [("n_neighbors", Value::Int(k)), word("weights", weights)];
        check(&KnnRegressor, &part(number), &asked, 0, &given(3), &values);
        check(&KnnClassifier, &part(three), &asked, 3, &given(4), &shares);
    }
}

#[test]
fn the_first_of_equally_near_rows_counts_and_the_very_place_alone() {
    let block = testing::block(6, |i| (vec![[1.0, -1.0, 1.0, 0.0, 3.0, 0.0][i as usize]], i as f64));
    let asked = Array2::from_elem((1, 1), 0.0);
    for (k, weights, expected) in [
        (2, "uniform", 4.0),
        (3, "uniform", (3.0 + 5.0 + 0.0) / 3.0),
        (4, "uniform", (3.0 + 5.0 + 0.0 + 1.0) / 4.0),
        (4, "distance", 4.0),
        (100, "uniform", 2.5),
    ] {
        let given = [("n_neighbors", Value::Int(k)), word("weights", weights)];
        check(&KnnRegressor, &block, &asked, 0, &given, &[expected]);
    }
}

#[test]
fn a_descent_row_by_row_comes_near_the_least_loss() {
    let rows = 4000;
    let linear = |i| 3.0 + 2.0 * testing::noise(i, 0) - testing::noise(i, 1);
    let features = |i| (0..3).map(|j| testing::noise(i, j)).collect::<Vec<f64>>();
    let block = testing::block(rows, |i| (features(i), linear(i) + 0.1 * testing::noise(i, 9)));
    let given = testing::params(&[float("tol", 1e-6)]);
    let model = testing::run(&SGD_REGRESSOR, &block, &given, Task::Regression, 0).unwrap();
    for (weight, expected) in model.weights.iter().chain([&model.intercept]).zip([2.0, -1.0, 0.0, 3.0]) {
        assert!((weight - expected).abs() < 0.02, "{model:?}");
    }
    for classes in [2, 3] {
        let class = |i| ((linear(i) - 1.5) / 3.0 * classes as f64).floor().clamp(0.0, classes as f64 - 1.0);
        let block = testing::block(rows, |i| (features(i), class(i)));
        for loss in ["hinge", "log_loss"] {
            let given = testing::params(&[word("loss", loss), word("class_weight", "balanced")]);
            let model = testing::run(&SGD_CLASSIFIER, &block, &given, Task::Classification, classes).unwrap();
            let accuracy = testing::accuracy(&testing::probabilities(model.predict(&block.x)), &block.y);
            let least = if classes == 2 { 0.98 } else { 0.8 };
            assert!(accuracy > least, "{loss} {classes}: {accuracy}");
        }
    }
    let huge = testing::block(50, |i| (vec![1e8 * testing::noise(i, 0)], 1e300 * testing::noise(i, 1)));
    let refused = testing::run(&SGD_REGRESSOR, &huge, &testing::params(&[]), Task::Regression, 0);
    assert!(refused.unwrap_err().to_string().contains("went to infinity"));
}

#[test]
fn what_a_kind_cannot_learn_from_is_refused_with_the_place() {
    let run = |kind: &str, y: f64| {
        let block = testing::block(9, |i| (x(i), if i == 6 { y } else { 1.0 + i as f64 }));
        let given = testing::params(&[float("power", if kind == "gamma" { 2.0 } else { 1.0 })]);
        testing::run(&GLM, &block, &given, Task::Regression, 0)
    };
    assert!(run("gamma", 0.5).is_ok() && run("poisson", 0.0).is_ok());
    for (kind, y) in [("gamma", 0.0), ("poisson", -0.5)] {
        let why = run(kind, y).unwrap_err().to_string();
        assert!(
            why.starts_with(&format!("the target in row 7 of the table is {y}: glm with power ")),
            "{why}"
        );
    }
    let given = testing::params(&[]);
    let why = testing::run(&MultinomialNb, &table(two), &given, Task::Classification, 2).unwrap_err();
    assert!(why.to_string().starts_with("row 1 of the table has the negative number "), "{why}");
    let width = super::neighbors::MAX_CELLS / 50;
    let wide = testing::block(60, |i| (vec![i as f64; width], i as f64));
    let why = testing::run(&KnnRegressor, &wide, &given, Task::Regression, 0).unwrap_err();
    assert!(why.to_string().contains("at most 50 with these"), "{why}");
    let wide = testing::block(9, |i| (vec![i as f64; 2000], (i % 2) as f64));
    let given = testing::params(&[word("penalty", "l1")]);
    let why = testing::run(&LOGISTIC, &wide, &given, Task::Classification, 2).unwrap_err();
    assert!(why.to_string().contains("takes at most 2000 weights"), "{why}");
}
