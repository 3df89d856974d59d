//! Regression by nearest neighbours: the mean target of the training rows that are nearest.
//!
//! Numbers are standardised before, so that each counts about the same in distances. The model holds the training rows:
//! see [`super::neighbors`] for their limit and for ties.

use dml_core::{Params, Plan, Task};
use ndarray::{Array1, Array2};

use super::neighbors::{self, Neighbors};
use crate::{
    error::WorkError,
    kind::Kind,
    learner::{Encoding, Fit, Folded, Learner, Predict, Scores, Shape},
    onnx,
};

/// The kind `knn_regressor`.
#[derive(Debug, Clone, Copy, Default)]
pub struct KnnRegressor;

impl Learner for KnnRegressor {
    type State = ();
    type Partial = Neighbors;
    type Model = Neighbors;

    fn kind(&self) -> Kind {
        Kind {
            name: "knn_regressor",
            about: "Nearest neighbours: the mean of the most similar training rows. Holds them all, so tables must be small.",
            tasks: vec![Task::Regression],
            params: neighbors::params(),
            default: false,
            parallel: true,
            deterministic: true,
            exportable: vec!["native", "json", "onnx"],
            encoding: Encoding::Dense,
        }
    }

    fn plan(&self, _: &Params, shape: &Shape) -> Plan {
        neighbors::plan(shape)
    }

    fn start(&self, _: &Fit) -> Result<(), WorkError> {
        Ok(())
    }

    fn unit(&self, fit: &Fit, _: u32, index: u32, (): &()) -> Result<Neighbors, WorkError> {
        neighbors::unit(fit, index)
    }

    fn fold(
        &self,
        _: &Fit,
        _: u32,
        (): (),
        partials: Vec<Neighbors>,
    ) -> Result<Folded<(), Neighbors>, WorkError> {
        neighbors::fold(partials).map(Folded::Done)
    }
}

impl Predict for Neighbors {
    fn predict(&self, x: &Array2<f64>) -> Scores {
        let values = self.ask(x, |near| {
            let all: f64 = near.iter().map(|(_, weight)| weight).sum();
            near.iter().map(|(y, weight)| y * (weight / all)).sum::<f64>()
        });
        Scores::Values(Array1::from_vec(values))
    }

    fn onnx(&self, graph: &mut onnx::Graph, x: onnx::Value) -> Option<onnx::Value> {
        let (rows, shares) = self.onnx(graph, x);
        Some(graph.mean_of(rows, shares, &self.y))
    }
}
