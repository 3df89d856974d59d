//! Sums of each feature in each class: what the naive Bayes kinds of counts and of switches are made of.

use dml_core::Plan;
use serde::{Deserialize, Serialize};

use super::descent::GREATEST;
use crate::{
    error::WorkError,
    kind::{Domain, Param},
    learner::{Block, Fit, Shape},
};

/// How many rows a class has, and the sum of each feature in them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    /// The rows.
    pub rows: u64,
    /// The sums.
    pub sums: Vec<f64>,
}

/// How the parameters of both kinds begin.
pub fn params() -> [Param; 2] {
    [
        Param {
            name: "alpha",
            about: "How often everything is taken to have been seen beforehand.",
            domain: Domain::Float { default: 1.0, min: 1e-10, max: 1e12 },
        },
        Param {
            name: "fit_prior",
            about: "Whether classes with more rows are likelier beforehand.",
            domain: Domain::Bool { default: true },
        },
    ]
}

/// One round of units that only add.
pub fn plan(shape: &Shape) -> Plan {
    Plan::over_chunks(1, shape.rows, shape.chunks, (1 << 27) / shape.columns.max(1) as u64)
}

/// The counts of each class in a unit's share of the rows; `value` is what a cell counts, or why it is refused.
pub fn unit(
    fit: &Fit,
    index: u32,
    value: impl Fn(f64) -> Result<f64, String> + Sync,
) -> Result<Vec<Counts>, WorkError> {
    let mut sum = empty(fit);
    let of = |block: &Block| {
        let mut counts = empty(fit);
        let (cells, y) = block.cells();
        let width = block.x.ncols();
        for (i, class) in y.iter().enumerate() {
            let class = &mut counts[*class as usize];
            class.rows += 1;
            for (sum, cell) in class.sums.iter_mut().zip(&cells[i * width..(i + 1) * width]) {
                let refused = |why| WorkError::Input(format!("row {} of the table {why}", block.rows[i] + 1));
                *sum += value(*cell).map_err(refused)?;
            }
        }
        Ok(counts)
    };
    fit.each_block(fit.plan.share(index, fit.rows.chunks()), of, |part| add(&mut sum, &part))?;
    Ok(sum)
}

/// The counts of all units.
pub fn total(fit: &Fit, partials: &[Vec<Counts>]) -> Result<Vec<Counts>, WorkError> {
    let mut sum = empty(fit);
    partials.iter().for_each(|part| add(&mut sum, part));
    if sum.iter().all(|class| class.rows == 0) {
        return Err(WorkError::Input("there are no rows to train on".into()));
    }
    if sum.iter().flat_map(|class| &class.sums).any(|sum| !sum.is_finite()) {
        return Err(WorkError::Input("the features are too large to be added up: divide them".into()));
    }
    Ok(sum)
}

/// The logarithm of how likely each class is beforehand; a class without rows is never chosen.
pub fn priors(fit: &Fit, counts: &[Counts]) -> Vec<f64> {
    let by_rows = fit.params.bool("fit_prior");
    let weight = |class: &Counts| if by_rows { class.rows as f64 } else { 1.0 };
    let all: f64 = counts.iter().filter(|class| class.rows > 0).map(weight).sum();
    let prior = |class: &Counts| if class.rows > 0 { libm::log(weight(class) / all) } else { -GREATEST };
    counts.iter().map(prior).collect()
}

fn empty(fit: &Fit) -> Vec<Counts> {
    vec![Counts { rows: 0, sums: vec![0.0; fit.rows.width()] }; fit.classes]
}

fn add(sum: &mut [Counts], part: &[Counts]) {
    for (sum, part) in sum.iter_mut().zip(part) {
        sum.rows += part.rows;
        sum.sums.iter_mut().zip(&part.sums).for_each(|(a, b)| *a += b);
    }
}
