//! Linear regression by ordinary least squares (Legendre 1805, Gauss 1809), through the normal equations.
//!
//! One round: units sum the moments of their rows, the fold solves. One-hot columns add up to the intercept, so there
//! is no single best solution: the one of (nearly) least norm is taken, as other libraries do. See
//! [`super::gram`].

use dml_core::Params;

use super::gram::{self, Affine, LeastSquares, Moments};
use crate::{error::WorkError, kind::Kind};

/// The kind `linear`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Linear;

impl LeastSquares for Linear {
    fn kind(&self) -> Kind {
        let about = "Linear regression: the weighted sum of the features with the least squared error.";
        Kind { default: true, ..gram::kind("linear", about, vec![]) }
    }

    fn solve(&self, moments: &Moments, _: &Params) -> Result<Affine, WorkError> {
        moments.solve(0.0)
    }
}

#[cfg(test)]
mod tests {
    use dml_core::{Params, Plan, Task, Value};
    use proptest::prelude::*;

    use super::*;
    use crate::{
        learner::{Block, Learner, Predict, Scores},
        learners::{linfa_linear::LinfaLinear, ridge::Ridge, testing},
    };

    fn fit<L: Learner<Model = Affine>>(learner: &L, block: &Block) -> Result<Affine, WorkError> {
        testing::run(learner, block, &Params::default(), Task::Regression, 0)
    }

    fn ridge(block: &Block, alpha: f64) -> Affine {
        let given = testing::params(&[("alpha", Value::Float(alpha))]);
        testing::run(&Ridge, block, &given, Task::Regression, 0).unwrap()
    }

    fn predict(model: &Affine, block: &Block) -> Vec<f64> {
        match model.predict(&block.x) {
            Scores::Values(values) => values.to_vec(),
            Scores::Probabilities(_) => unreachable!("a regression"),
        }
    }

    /// Two numbers and a one-hot pair; the target is linear in them but for some noise.
    fn houses(rows: usize, noise: f64) -> Block {
        testing::block(rows, |row| {
            let (a, b) = (testing::noise(row, 0), testing::noise(row, 1));
            let garden = f64::from(u8::from(testing::noise(row, 2) > 0.0));
            let y = 1e6 + 3.0 * a - 2.0 * b + 5.0 * garden + noise * testing::noise(row, 3);
            (vec![a, b, garden, 1.0 - garden], y)
        })
    }

    #[test]
    fn a_linear_target_is_found_exactly() {
        let block = houses(50, 0.0);
        let model = fit(&Linear, &block).unwrap();
        for (guess, truth) in predict(&model, &block).iter().zip(&block.y) {
            assert!((guess - truth).abs() < 1e-6, "{guess} {truth}");
        }
        // The pair shares its 5 as the solution of least norm does.
        let expected = [3.0, -2.0, 2.5, -2.5];
        assert!(model.weights.iter().zip(expected).all(|(w, e)| (w - e).abs() < 1e-5), "{model:?}");
        assert!((model.intercept - 1e6 - 2.5).abs() < 1e-5, "{model:?}");
    }

    #[test]
    fn linfa_agrees_also_without_full_rank() {
        let block = houses(60, 1.0);
        let (ours, theirs) = (fit(&Linear, &block).unwrap(), fit(&LinfaLinear, &block).unwrap());
        for (a, b) in predict(&ours, &block).iter().zip(predict(&theirs, &block)) {
            assert!((a - b).abs() < 1e-6, "{a} {b}");
        }
    }

    proptest! {
        #[test]
        fn the_gradient_vanishes(rows in 1usize..40, alpha in prop_oneof![Just(0.0), 0.01..100.0f64]) {
            let block = houses(rows, 2.0);
            let model = ridge(&block, alpha);
            let errors: Vec<f64> = predict(&model, &block).iter().zip(&block.y).map(|(p, y)| p - y).collect();
            prop_assert!(errors.iter().sum::<f64>().abs() < 1e-5);
            for (column, weight) in block.x.columns().into_iter().zip(&model.weights) {
                let slope = column.iter().zip(&errors).map(|(x, e)| x * e).sum::<f64>() + alpha * weight;
                prop_assert!(slope.abs() < 1e-5, "{slope}");
            }
        }
    }

    #[test]
    fn without_a_penalty_ridge_is_linear_and_with_a_great_one_constant() {
        let block = houses(30, 1.0);
        assert_eq!(ridge(&block, 0.0), fit(&Linear, &block).unwrap());
        let flat = ridge(&block, 1e12);
        assert!(flat.weights.iter().all(|w| w.abs() < 1e-9));
        assert!((flat.intercept - block.y.sum() / 30.0).abs() < 1e-6);
    }

    #[test]
    fn units_and_chunks_change_nothing_but_the_last_digits() {
        let block = houses(64, 1.0);
        let run = |chunks, units| {
            let plan = Plan { rounds: 1, units, fold: true };
            testing::run_cut(&Linear, &block, &Params::default(), Task::Regression, 0, chunks, Some(plan))
                .unwrap()
        };
        let (one, many) = (run(1, 1), run(9, 4));
        assert!(one.weights.iter().zip(&many.weights).all(|(a, b)| (a - b).abs() < 1e-5));
        // More chunks than rows: some units have none.
        assert!((run(100, 70).weights[0] - one.weights[0]).abs() < 1e-7);
        assert_eq!(run(9, 4), many);
    }

    #[test]
    fn odd_tables_have_finite_models_or_clear_errors() {
        let wide = testing::block(3, |row| ((0..9).map(|j| testing::noise(row, j)).collect(), row as f64));
        let constant = testing::block(5, |row| (vec![0.1, 0.1, 7.0], row as f64));
        let single = testing::block(1, |_| (vec![1.0, 2.0], 3.0));
        let bare = testing::block(4, |row| (vec![], row as f64));
        for block in [&wide, &constant, &single, &bare] {
            for model in [fit(&Linear, block), fit(&LinfaLinear, block), Ok(ridge(block, 1.0))] {
                let model = model.unwrap();
                assert!(model.weights.iter().chain([&model.intercept]).all(|v| v.is_finite()), "{model:?}");
            }
        }
        assert!(
            predict(&fit(&Linear, &wide).unwrap(), &wide)
                .iter()
                .zip(0..)
                .all(|(p, y)| (p - f64::from(y)).abs() < 1e-6)
        );
        assert_eq!(fit(&Linear, &constant).unwrap(), Affine { intercept: 2.0, weights: vec![0.0; 3] });
        let far = testing::block(4, |row| (vec![row as f64], if row == 0 { 1e308 } else { -1e308 }));
        let none = testing::block(0, |_| (vec![], 0.0));
        for block in [&far, &none] {
            assert!(matches!(fit(&Linear, block), Err(WorkError::Input(_))));
            assert!(matches!(fit(&LinfaLinear, block), Err(WorkError::Input(_))));
        }
    }

    #[test]
    fn predictions_are_finite_far_outside() {
        let model = Affine { intercept: 1.0, weights: vec![2.0, -2.0] };
        let rows = testing::block(2, |row| (vec![1e308 * (1.0 + row as f64 * 0.7), 1e308 * row as f64], 0.0));
        assert!(predict(&model, &rows).iter().all(|v| v.is_finite()));
    }
}
