//! The rows of a table, and which of them are nearest to a row (Cover and Hart 1967, "Nearest neighbor pattern
//! classification"): the model of [`knn_classifier`](super::knn_classifier) and [`knn_regressor`](super::knn_regressor).
//!
//! All distances are computed, so a prediction takes time in proportion to the rows. Among equal distances the row that
//! stands first in the table is nearer.

use dml_core::Plan;
use ndarray::Array2;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    error::WorkError,
    kind::{Domain, Param},
    learner::{Fit, Shape},
    onnx,
};

/// The most numbers that a model holds: 32 MiB of them.
pub const MAX_CELLS: usize = 1 << 22;

/// How many rows are compared with a stretch of the table while it is near.
const TOGETHER: usize = 16;

/// How many cells such a stretch has.
const STRETCH: usize = 2048;

/// How many partial sums a distance has.
const LANES: usize = 4;

/// Rows and their targets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Neighbors {
    /// How many nearest rows tell of a new one.
    pub neighbors: u32,
    /// Whether nearer ones count more: by the inverse of their distance.
    pub by_distance: bool,
    /// How many features a row has.
    pub width: usize,
    /// The features, row by row.
    pub x: Vec<f64>,
    /// The target of each row: the number, or the class.
    pub y: Vec<f64>,
}

/// The parameters of both kinds.
pub fn params() -> Vec<Param> {
    vec![
        Param {
            name: "n_neighbors",
            about: "How many of the nearest training rows tell of a new one.",
            domain: Domain::Int { default: 5, min: 1, max: 10_000 },
        },
        Param {
            name: "weights",
            about: "uniform: each neighbour counts the same; distance: by the inverse of its distance.",
            domain: Domain::Choice { default: "uniform", choices: &["uniform", "distance"] },
        },
    ]
}

/// One round of units that read.
pub fn plan(shape: &Shape) -> Plan {
    Plan::over_chunks(1, shape.rows, shape.chunks, (1 << 22) / shape.columns.max(1) as u64)
}

/// The rows of a unit's share.
pub fn unit(fit: &Fit, index: u32) -> Result<Neighbors, WorkError> {
    let mut all = Neighbors {
        neighbors: fit.params.int("n_neighbors") as u32,
        by_distance: fit.params.text("weights") == "distance",
        width: fit.rows.width(),
        x: Vec::new(),
        y: Vec::new(),
    };
    for chunk in fit.plan.share(index, fit.rows.chunks()) {
        let block = fit.rows.block(chunk)?;
        let (cells, y) = block.cells();
        all.x.extend(cells);
        all.y.extend(y);
        all.check()?;
    }
    Ok(all)
}

/// The rows of all units.
pub fn fold(partials: Vec<Neighbors>) -> Result<Neighbors, WorkError> {
    let none = || WorkError::Input("there are no rows to train on".into());
    let mut parts = partials.into_iter();
    let mut all = parts.next().ok_or_else(none)?;
    for part in parts {
        all.x.extend(part.x);
        all.y.extend(part.y);
        all.check()?;
    }
    if all.y.is_empty() { Err(none()) } else { Ok(all) }
}

impl Neighbors {
    fn check(&self) -> Result<(), WorkError> {
        if self.x.len() <= MAX_CELLS {
            return Ok(());
        }
        let (rows, width) = (MAX_CELLS / self.width.max(1), self.width);
        Err(WorkError::Input(format!(
            "a model of nearest neighbours holds all training rows, at most {rows} with these {width} encoded columns, \
             and there are more: choose fewer rows or columns, or another kind"
        )))
    }

    /// What `judge` makes of the nearest rows' targets and weights, for each row of `x`, nearest first. The weights are
    /// above 0.
    pub fn ask<T: Send>(&self, x: &Array2<f64>, judge: impl Fn(&[(f64, f64)]) -> T + Sync) -> Vec<T> {
        let x = x.as_standard_layout();
        let cells = x.as_slice().unwrap_or_default();
        let (width, rows) = (self.width, x.nrows());
        let groups = (0..rows).into_par_iter().step_by(TOGETHER).map(|start| {
            let group: Vec<usize> = (start..rows.min(start + TOGETHER)).collect();
            let asked = group.iter().map(|i| &cells[i * width..(i + 1) * width]).collect::<Vec<_>>();
            self.nearest(&asked).iter().map(|found| judge(&self.weighted(found))).collect::<Vec<T>>()
        });
        groups.collect::<Vec<Vec<T>>>().into_iter().flatten().collect()
    }

    /// The numbers of the nearest rows, and how much each counts, as nodes.
    pub fn onnx(&self, graph: &mut onnx::Graph, x: onnx::Value) -> (onnx::Value, onnx::Value) {
        let count = (self.neighbors as usize).min(self.y.len());
        let (distances, rows) = graph.nearest(x, &self.x, self.width, LANES, count);
        (rows, graph.shares(distances, count, self.by_distance))
    }

    /// The squared distances and numbers of the nearest rows, nearest first.
    fn nearest(&self, asked: &[&[f64]]) -> Vec<Vec<(f64, usize)>> {
        let most = (self.neighbors as usize).min(self.y.len());
        let mut found = vec![Vec::with_capacity(most + 1); asked.len()];
        let stretch = (STRETCH / self.width.max(1)).max(1);
        for start in (0..self.y.len()).step_by(stretch) {
            let end = self.y.len().min(start + stretch);
            for (found, asked) in found.iter_mut().zip(asked) {
                for row in start..end {
                    let distance = distance(asked, &self.x[row * self.width..(row + 1) * self.width]);
                    let full = found.len() == most;
                    if full && found.last().is_some_and(|(farthest, _)| distance >= *farthest) {
                        continue;
                    }
                    let place = found.partition_point(|(other, _)| *other <= distance);
                    found.insert(place, (distance, row));
                    found.truncate(most);
                }
            }
        }
        found
    }

    /// The target of each, and how much it counts. Where some are at the very place, they alone count.
    fn weighted(&self, found: &[(f64, usize)]) -> Vec<(f64, f64)> {
        let here = found.iter().take_while(|(distance, _)| *distance == 0.0).count();
        let (found, equal) =
            if self.by_distance && here > 0 { (&found[..here], true) } else { (found, !self.by_distance) };
        let weight = |distance: f64| if equal { 1.0 } else { 1.0 / distance.sqrt() };
        found.iter().map(|(distance, row)| (self.y[*row], weight(*distance))).collect()
    }
}

/// The squared distance, finite for values far out.
fn distance(a: &[f64], b: &[f64]) -> f64 {
    let (a, b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let square = |a: &f64, b: &f64| (a - b) * (a - b);
    let tail: f64 = a.remainder().iter().zip(b.remainder()).map(|(a, b)| square(a, b)).sum();
    let mut lanes = [0.0; LANES];
    for (a, b) in a.zip(b) {
        for lane in 0..LANES {
            lanes[lane] += square(&a[lane], &b[lane]);
        }
    }
    ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3]) + tail).min(f64::MAX)
}
