//! Linear regression by stochastic gradient descent on squared errors.
//!
//! As scikit-learn's `SGDRegressor` with its `invscaling` rates, `eta0 / step^power_t`, on standardised features, but for
//! the order of the rows. `tol` is in the square of the target's unit. See [`super::walk`].

use dml_core::Task;

use super::{
    gram::Affine,
    walk::{self, RowLoss, Stepwise},
};
use crate::{
    kind::{Domain, Kind, Param},
    learner::{Encoding, Fit},
};

/// The learner of the kind `sgd_regressor`.
pub const SGD_REGRESSOR: Stepwise<Affine> = Stepwise {
    kind,
    outputs: |_| 1,
    loss: |fit| Box::new(SquaredError::new(fit)),
    model: |_, outputs| Affine::from_outputs(outputs),
};

/// Half the squared error.
struct SquaredError {
    eta0: f64,
    power_t: f64,
}

/// Its name, tasks, parameters and properties.
fn kind() -> Kind {
    Kind {
        name: "sgd_regressor",
        about: "Linear regression that learns row by row: from tables of any length, quickly.",
        tasks: vec![Task::Regression],
        params: {
            let mut params = walk::params();
            params.push(Param {
                name: "eta0",
                about: "The length of the first step.",
                domain: Domain::Float { default: 0.01, min: 1e-12, max: 1e3 },
            });
            params.push(Param {
                name: "power_t",
                about: "How quickly steps become shorter.",
                domain: Domain::Float { default: 0.25, min: 0.0, max: 10.0 },
            });
            params
        },
        default: false,
        parallel: false,
        deterministic: true,
        exportable: vec!["native", "json", "onnx"],
        encoding: Encoding::Dense,
    }
}

impl SquaredError {
    fn new(fit: &Fit) -> Self {
        Self { eta0: fit.params.float("eta0"), power_t: fit.params.float("power_t") }
    }
}

impl RowLoss for SquaredError {
    fn at(&self, _: usize, value: f64, y: f64) -> (f64, f64) {
        let error = value - y;
        (0.5 * error * error, error)
    }

    fn rate(&self, step: u64) -> f64 {
        self.eta0 / libm::pow(step as f64, self.power_t)
    }
}
