//! The normal equations of least squares: moments of the rows that add up over units, and the weights that follow
//! from them. Shared by [`linear`](super::linear), [`ridge`](super::ridge), [`lasso`](super::lasso),
//! [`elastic_net`](super::elastic_net), [`ridge_classifier`](super::ridge_classifier) and
//! [`linfa_linear`](super::linfa_linear).
//!
//! Moments are taken about the mean of each chunk and brought together by the update of Chan, Golub and LeVeque 1983
//! ("Algorithms for computing the sample variance"), so that a target far from zero costs no precision.

use dml_core::{Params, Plan, Task};
use ndarray::{Array1, Array2};
use serde::{Deserialize, Serialize};

use super::{
    coordinate::Coordinates,
    panel::{Panel, ROWS},
    softmax::outputs,
    symmetric::{Symmetric, dot},
};
use crate::{
    error::WorkError,
    kind::{Kind, Param},
    learner::{Block, Encoding, Fit, Folded, Learner, Predict, Scores, Shape},
    onnx,
};

/// The most encoded columns that a fit by normal equations takes: the matrix has the square of that many elements.
pub const MAX_WIDTH: usize = 4096;

/// Weight, means and centred products of the columns of `x` and, after them, of the targets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Moments {
    rows: u64,
    /// The sum of the rows' weights.
    weight: f64,
    targets: usize,
    mean: Vec<f64>,
    products: Symmetric,
}

/// What becomes of `y`.
#[derive(Debug, Clone, Copy)]
pub enum Targets<'a> {
    /// One target: the number. Every row counts the same.
    Number,
    /// For each output of a classifier 1 for rows of its class and -1 for others; a row counts by the weight of its
    /// class.
    Classes(&'a [f64]),
}

/// A linear function of the encoded features.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Affine {
    /// The value where all features are zero.
    pub intercept: f64,
    /// What one unit of each encoded feature adds.
    pub weights: Vec<f64>,
}

/// A kind of regression that follows from the moments of the rows alone: one round, whose units sum moments, and whose
/// fold solves.
pub trait LeastSquares: Send + Sync + 'static {
    /// Its name, tasks, parameters and properties.
    fn kind(&self) -> Kind;

    /// The function that these moments and complete parameters ask for.
    fn solve(&self, moments: &Moments, params: &Params) -> Result<Affine, WorkError>;
}

/// What kinds of least squares have in common.
pub fn kind(name: &'static str, about: &'static str, params: Vec<Param>) -> Kind {
    Kind {
        name,
        about,
        tasks: vec![Task::Regression],
        params,
        default: false,
        parallel: true,
        deterministic: true,
        exportable: vec!["native", "json", "onnx"],
        encoding: Encoding::Dense,
    }
}

impl<L: LeastSquares> Learner for L {
    type State = ();
    type Partial = Moments;
    type Model = Affine;

    fn kind(&self) -> Kind {
        LeastSquares::kind(self)
    }

    fn plan(&self, _: &Params, shape: &Shape) -> Plan {
        plan(shape)
    }

    fn start(&self, _: &Fit) -> Result<(), WorkError> {
        Ok(())
    }

    fn unit(&self, fit: &Fit, _: u32, index: u32, (): &()) -> Result<Moments, WorkError> {
        unit(fit, index, Targets::Number)
    }

    fn fold(
        &self,
        fit: &Fit,
        _: u32,
        (): (),
        partials: Vec<Moments>,
    ) -> Result<Folded<(), Affine>, WorkError> {
        self.solve(&Moments::sum(&partials)?, fit.params).map(Folded::Done)
    }
}

/// One round; a unit is about a second of multiplications.
pub fn plan(shape: &Shape) -> Plan {
    Plan::over_chunks(1, shape.rows, shape.chunks, (1 << 24) / shape.columns.max(1) as u64)
}

/// The moments of a unit's share of the rows.
pub fn unit(fit: &Fit, index: u32, targets: Targets) -> Result<Moments, WorkError> {
    let width = fit.rows.width();
    if width > MAX_WIDTH {
        return Err(WorkError::Input(format!(
            "the features are {width} columns once encoded, but this kind takes at most {MAX_WIDTH}: leave out text \
             columns with many values, or choose a kind of tree"
        )));
    }
    let mut moments = Moments::new(width, targets.count());
    fit.each_block(
        fit.plan.share(index, fit.rows.chunks()),
        |block| Ok(Moments::of(block, width, targets)),
        |part| moments.merge(&part),
    )?;
    Ok(moments)
}

impl Targets<'_> {
    fn count(&self) -> usize {
        match self {
            Self::Number => 1,
            Self::Classes(weights) => outputs(weights.len()),
        }
    }

    fn value(&self, target: usize, y: f64) -> f64 {
        match self {
            Self::Number => y,
            Self::Classes(weights) => {
                let class = if weights.len() > 2 { target } else { 1 };
                if y as usize == class { 1.0 } else { -1.0 }
            }
        }
    }

    fn weight(&self, y: f64) -> f64 {
        match self {
            Self::Number => 1.0,
            Self::Classes(weights) => weights[y as usize],
        }
    }
}

impl Moments {
    /// The moments of no rows.
    pub fn new(width: usize, targets: usize) -> Self {
        let (mean, products) = (vec![0.0; width + targets], Symmetric::zero(width + targets));
        Self { rows: 0, weight: 0.0, targets, mean, products }
    }

    /// The moments of a block's rows.
    pub fn of(block: &Block, width: usize, targets: Targets) -> Self {
        let mut moments = Self::new(width, targets.count());
        let (cells, y) = block.cells();
        if y.is_empty() {
            return moments;
        }
        for (i, y) in y.iter().enumerate() {
            let weight = targets.weight(*y);
            let (features, rest) = moments.mean.split_at_mut(width);
            let row = &cells[i * width..(i + 1) * width];
            features.iter_mut().zip(row).for_each(|(m, v)| *m += weight * v);
            rest.iter_mut().enumerate().for_each(|(t, m)| *m += weight * targets.value(t, *y));
            moments.weight += weight;
        }
        moments.mean.iter_mut().for_each(|m| *m /= moments.weight);
        moments.rows = y.len() as u64;
        let (mean, mut panel) = (&moments.mean, Panel::new(width + targets.count()));
        let mut weighted = Panel::new(width + targets.count());
        for (i, y) in y.chunks(ROWS).enumerate() {
            let cells = &cells[i * ROWS * width..];
            panel.fill(y.len(), |i, row| {
                let (features, rest) = row.split_at_mut(width);
                let values = cells[i * width..].iter().zip(mean);
                features.iter_mut().zip(values).for_each(|(cell, (value, mean))| *cell = value - mean);
                let targets = (0..).map(|t| targets.value(t, y[i]) - mean[width + t]);
                rest.iter_mut().zip(targets).for_each(|(cell, value)| *cell = value);
            });
            match targets {
                Targets::Number => Panel::add_products(&panel, &panel, &mut moments.products),
                Targets::Classes(_) => {
                    let mut weights = [0.0; ROWS];
                    weights.iter_mut().zip(y).for_each(|(weight, y)| *weight = targets.weight(*y));
                    weighted.fill_weighted(&panel, &weights);
                    Panel::add_products(&panel, &weighted, &mut moments.products);
                }
            }
        }
        moments
    }

    /// Adds the moments of the rows that follow.
    pub fn merge(&mut self, next: &Self) {
        if next.rows == 0 {
            return;
        }
        let (n, m) = (self.weight, next.weight);
        let delta: Vec<f64> = next.mean.iter().zip(&self.mean).map(|(b, a)| b - a).collect();
        self.products.add(&next.products);
        if self.rows > 0 {
            self.mean.iter_mut().zip(&delta).for_each(|(mean, d)| *mean += d * (m / (n + m)));
            self.products.add_square(&delta, n * (m / (n + m)));
        } else {
            self.mean.clone_from(&next.mean);
        }
        self.rows += next.rows;
        self.weight += next.weight;
    }

    /// All moments together, in the order of their units; an error when there are no rows or their numbers are too
    /// great to be multiplied.
    pub fn sum(partials: &[Self]) -> Result<Self, WorkError> {
        let (width, targets) = partials.first().map_or((0, 1), |first| (first.width(), first.targets));
        let mut sum = Self::new(width, targets);
        partials.iter().for_each(|partial| sum.merge(partial));
        if sum.rows == 0 {
            return Err(WorkError::Input("there are no rows to train on".into()));
        }
        // Products of targets alone may overflow: only the dual gap depends on them, which is then never small.
        for i in width..width + targets {
            for j in i..width + targets {
                let product = sum.products.at_mut(i, j);
                *product = product.min(f64::MAX);
            }
        }
        if !(sum.products.is_finite() && sum.mean.iter().all(|m| m.is_finite())) {
            return Err(WorkError::Input(
                "the numbers are too large to be multiplied with each other: divide the target or the features by a \
                 power of ten"
                    .into(),
            ));
        }
        Ok(sum)
    }

    /// The weights that make the sum of squared errors plus `alpha` times the sum of squared weights least, for each
    /// target. The intercept is free. Without full rank and with `alpha` 0, the weights are (nearly) those of least norm.
    pub fn solve_all(&self, alpha: f64) -> Result<Vec<Affine>, WorkError> {
        let width = self.width();
        let mut matrix = self.features();
        for j in (0..width).filter(|&j| !self.is_constant(j)) {
            *matrix.at_mut(j, j) += alpha;
        }
        let b: Vec<Vec<f64>> = (0..self.targets).map(|t| self.with_target(t)).collect();
        let weights = matrix.solve_all(&b).ok_or_else(no_solution)?;
        Ok(weights.into_iter().enumerate().map(|(t, weights)| self.affine(t, weights)).collect())
    }

    /// [`Moments::solve_all`] for the only target.
    pub fn solve(&self, alpha: f64) -> Result<Affine, WorkError> {
        self.solve_all(alpha)?.pop().ok_or_else(no_solution)
    }

    /// The weights `w` that make `|errors|² / 2 rows + l1 * |w| + l2 / 2 * |w|²` least for the first target: by coordinate
    /// descent until the dual gap is `tol` of that of no weights (as in scikit-learn), in at most so many sweeps.
    pub fn shrink(&self, l1: f64, l2: f64, tol: f64, max_iter: i64) -> Result<Affine, WorkError> {
        let (width, n) = (self.width(), self.weight);
        let (l1, l2) = (l1 * n, l2 * n);
        let mut matrix = self.features();
        for j in (0..width).filter(|&j| !self.is_constant(j)) {
            *matrix.at_mut(j, j) += l2;
        }
        let (b, square) = (self.with_target(0), self.products.at(width, width));
        let slope = b.iter().map(|b| -b).collect();
        let mut found = Coordinates::new(&matrix, slope, vec![l1; width], vec![0.0; width]);
        for _ in 0..max_iter {
            let moved = found.sweep();
            // With r the errors: X'r - l2 w is minus the slope, and r'r follows from w'X'y and w'(X'X + l2) w.
            let greatest = found.slope().iter().fold(0.0f64, |m, s| m.max(s.abs()));
            let (with_y, with_slope) = (found.dot(&b), found.dot(found.slope()));
            let norm = l2 * found.dot(found.point());
            let errors = square - with_y + with_slope - norm;
            let scale = if greatest > l1 { l1 / greatest } else { 1.0 };
            let gap =
                0.5 * (errors + norm) * (1.0 + scale * scale) + found.penalty() - scale * (square - with_y);
            if square < f64::MAX && gap <= tol * square || moved == 0.0 {
                break;
            }
        }
        let weights = found.point().to_vec();
        let finite = weights.iter().all(|w| w.is_finite());
        finite.then(|| self.affine(0, weights)).ok_or_else(no_solution)
    }

    /// The products of the features with a target.
    fn with_target(&self, target: usize) -> Vec<f64> {
        (0..self.width())
            .map(|j| if self.is_constant(j) { 0.0 } else { self.products.at(j, self.width() + target) })
            .collect()
    }

    fn affine(&self, target: usize, weights: Vec<f64>) -> Affine {
        Affine { intercept: self.mean[self.width() + target] - dot(&weights, &self.mean), weights }
    }

    /// Encoded columns that are not (nearly) constant or combinations of those before them.
    pub fn independent(&self) -> Vec<usize> {
        self.features().independent(self.rows.saturating_sub(1).try_into().unwrap_or(usize::MAX))
    }

    fn width(&self) -> usize {
        self.mean.len() - self.targets
    }

    /// The products of the features among each other, without those that are rounding errors.
    fn features(&self) -> Symmetric {
        let mut matrix = Symmetric::zero(self.width());
        for i in (0..self.width()).filter(|&i| !self.is_constant(i)) {
            for j in (i..self.width()).filter(|&j| !self.is_constant(j)) {
                *matrix.at_mut(i, j) = self.products.at(i, j);
            }
        }
        matrix
    }

    /// Whether a column varies by no more than rounding errors.
    fn is_constant(&self, column: usize) -> bool {
        let noise = 1e-12 * self.mean[column].abs();
        self.products.at(column, column) <= self.rows as f64 * noise * noise
    }
}

fn no_solution() -> WorkError {
    WorkError::Input("the normal equations of these numbers have no finite solution".into())
}

impl Affine {
    /// From the only output of a search: weights, then the intercept.
    pub fn from_outputs(outputs: Vec<Vec<f64>>) -> Self {
        let mut weights = outputs.into_iter().next().unwrap_or_default();
        Self { intercept: weights.pop().unwrap_or(0.0), weights }
    }

    /// The function's value for each row.
    pub(super) fn values(&self, x: &Array2<f64>) -> Array1<f64> {
        let value = |row: ndarray::ArrayView1<f64>| {
            let sum = row
                .as_slice()
                .map_or_else(|| dot(&self.weights, &row.to_vec()), |row| dot(&self.weights, row));
            // Values far outside of what was learned from must not make infinities cancel out.
            if sum.is_nan() { self.intercept } else { (self.intercept + sum).clamp(f64::MIN, f64::MAX) }
        };
        Array1::from_iter(x.rows().into_iter().map(value))
    }
}

impl Predict for Affine {
    fn predict(&self, x: &Array2<f64>) -> Scores {
        Scores::Values(self.values(x))
    }

    /// The size of each weight: features are standardised, so they compare.
    fn importance(&self) -> Option<Vec<f64>> {
        Some(self.weights.iter().map(|w| w.abs()).collect())
    }

    fn onnx(&self, graph: &mut onnx::Graph, x: onnx::Value) -> Option<onnx::Value> {
        let sums = graph.affine(x, &[&self.weights], &[self.intercept]);
        Some(graph.tame(sums, &[self.intercept], f64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn block(rows: &[Vec<f64>], width: usize) -> Block {
        let x = Array2::from_shape_fn((rows.len(), width), |(i, j)| rows[i][j]);
        let y = rows.iter().map(|row| row[width]).collect();
        Block { x, y, rows: (0..rows.len() as u64).collect() }
    }

    proptest! {
        #[test]
        fn moments_do_not_depend_on_how_rows_are_cut(
            rows in proptest::collection::vec(proptest::collection::vec(-9.0..9.0f64, 4), 1..40),
            cut in 0usize..40,
        ) {
            let (left, right) = rows.split_at(cut.min(rows.len()));
            let parts = [Moments::of(&block(left, 3), 3, Targets::Number), Moments::of(&block(right, 3), 3, Targets::Number)];
            let (sum, whole) = (Moments::sum(&parts).unwrap(), Moments::of(&block(&rows, 3), 3, Targets::Number));
            prop_assert_eq!(sum.rows, whole.rows);
            for i in 0..4 {
                prop_assert!((sum.mean[i] - whole.mean[i]).abs() < 1e-12);
                for j in 0..3 {
                    prop_assert!((sum.products.at(i, j) - whole.products.at(i, j)).abs() < 1e-9);
                }
            }
        }
    }

    #[test]
    fn overflow_and_no_rows_are_errors() {
        let huge = Moments::of(&block(&[vec![1e200, 1e200], vec![-1e200, -1e200]], 1), 1, Targets::Number);
        for partials in [vec![], vec![Moments::new(2, 1)], vec![huge]] {
            assert!(matches!(Moments::sum(&partials), Err(WorkError::Input(_))));
        }
    }
}
