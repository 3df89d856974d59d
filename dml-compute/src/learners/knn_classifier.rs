//! Classification by nearest neighbours: the share of each class among the training rows that are nearest.
//!
//! Numbers are standardised before, so that each counts about the same in distances. The model holds the training rows:
//! see [`super::neighbors`] for their limit and for ties.

use dml_core::{Params, Plan, Task};
use ndarray::Array2;
use serde::{Deserialize, Serialize};

use super::neighbors::{self, Neighbors};
use crate::{
    error::WorkError,
    kind::Kind,
    learner::{Encoding, Fit, Folded, Learner, Predict, Scores, Shape},
    onnx,
};

/// The kind `knn_classifier`.
#[derive(Debug, Clone, Copy, Default)]
pub struct KnnClassifier;

/// Rows with classes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Voters {
    /// How many classes.
    pub classes: usize,
    /// The rows.
    pub rows: Neighbors,
}

impl Learner for KnnClassifier {
    type State = ();
    type Partial = Neighbors;
    type Model = Voters;

    fn kind(&self) -> Kind {
        Kind {
            name: "knn_classifier",
            about: "Nearest neighbours: the classes of the most similar training rows. Holds them all, so tables must be small.",
            tasks: vec![Task::Classification],
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

    fn start(&self, fit: &Fit) -> Result<(), WorkError> {
        fit.at_least_two_classes("knn_classifier")
    }

    fn unit(&self, fit: &Fit, _: u32, index: u32, (): &()) -> Result<Neighbors, WorkError> {
        neighbors::unit(fit, index)
    }

    fn fold(
        &self,
        fit: &Fit,
        _: u32,
        (): (),
        partials: Vec<Neighbors>,
    ) -> Result<Folded<(), Voters>, WorkError> {
        let classes = fit.classes;
        neighbors::fold(partials).map(|rows| Folded::Done(Voters { classes, rows }))
    }
}

impl Predict for Voters {
    fn predict(&self, x: &Array2<f64>) -> Scores {
        let votes = self.rows.ask(x, |near| {
            let all: f64 = near.iter().map(|(_, weight)| weight).sum();
            let mut shares = vec![0.0; self.classes];
            near.iter().for_each(|(class, weight)| shares[*class as usize] += weight / all);
            shares
        });
        let shape = (votes.len(), self.classes);
        Scores::Probabilities(Array2::from_shape_vec(shape, votes.concat()).expect("a share for each class"))
    }

    fn onnx(&self, graph: &mut onnx::Graph, x: onnx::Value) -> Option<onnx::Value> {
        let (rows, shares) = self.rows.onnx(graph, x);
        let of: Vec<i64> = self.rows.y.iter().map(|class| *class as i64).collect();
        Some(graph.votes(rows, shares, &of, self.classes))
    }
}
