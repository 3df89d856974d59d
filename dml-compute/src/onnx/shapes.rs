//! The shapes that models have in common, as nodes: weighted sums, bell curves, and the links from sums to scores.
//!
//! `x` is the encoded matrix, `[N, width]`.

use super::graph::{Attribute::Int, Graph, Value};

impl Graph {
    /// Weighted sums of the features, `[N, K]`: a row of weights and an intercept an output.
    pub fn affine(&mut self, x: Value, weights: &[&[f64]], intercepts: &[f64]) -> Value {
        let width = weights.first().map_or(0, |weights| weights.len());
        let by_feature: Vec<f64> = (0..width).flat_map(|j| weights.iter().map(move |row| row[j])).collect();
        let matrix = self.doubles(&[width, weights.len()], &by_feature);
        let intercepts = self.doubles(&[1, intercepts.len()], intercepts);
        let sums = self.node("MatMul", &[x, matrix], &[]);
        self.node("Add", &[sums, intercepts], &[])
    }

    /// Sums of `[N, K]` where no rows are so far out that infinities meet: a sum that is no number becomes `instead` (a
    /// number an output), and no sum is beyond `limit` on either side.
    pub fn tame(&mut self, sums: Value, instead: &[f64], limit: f64) -> Value {
        let instead = self.doubles(&[1, instead.len()], instead);
        let nan = self.node("IsNaN", &[sums], &[]);
        let numbers = self.node("Where", &[nan, instead, sums], &[]);
        let (least, most) = (self.doubles(&[], &[-limit]), self.doubles(&[], &[limit]));
        self.node("Clip", &[numbers, least, most], &[])
    }

    /// Probabilities of `[N, K]` from their logarithms, which are known but for a constant a row.
    pub fn softmax(&mut self, sums: Value) -> Value {
        self.node("Softmax", &[sums], &[("axis", Int(1))])
    }

    /// Probabilities of two classes, `[N, 2]`, from the log-odds of the second, `[N, 1]`.
    pub fn logistic(&mut self, sums: Value) -> Value {
        let second = self.node("Sigmoid", &[sums], &[]);
        let one = self.doubles(&[1], &[1.0]);
        let first = self.node("Sub", &[one, second], &[]);
        self.node("Concat", &[first, second], &[("axis", Int(1))])
    }

    /// Logarithms of densities, `[N, K]`, but for a constant a row: those of independent normal distributions of the
    /// features, one set of means and variances an output. `constants` has the logarithm of what stands before the
    /// exponential, prior included. No squared distance counts for more than `limit`.
    pub fn gaussian(
        &mut self,
        x: Value,
        means: &[&[f64]],
        variances: &[&[f64]],
        constants: &[f64],
        limit: f64,
    ) -> Value {
        let shape = [means.len(), means.first().map_or(0, |means| means.len())];
        let means = self.doubles(&shape, &means.concat());
        let variances = self.doubles(&shape, &variances.concat());
        let axis = self.integers(&[1], &[1]);
        let rows = self.node("Unsqueeze", &[x, axis], &[]);
        let deviations = self.node("Sub", &[rows, means], &[]);
        let squares = self.node("Mul", &[deviations, deviations], &[]);
        let scaled = self.node("Div", &[squares, variances], &[]);
        let limit = self.doubles(&[1], &[limit]);
        let bounded = self.node("Min", &[scaled, limit], &[]);
        let distances = self.sum(bounded, 2);
        let half = self.doubles(&[1], &[0.5]);
        let halves = self.node("Mul", &[distances, half], &[]);
        let constants = self.doubles(&[1, constants.len()], constants);
        self.node("Sub", &[constants, halves], &[])
    }

    /// The sums along an axis, which goes.
    pub fn sum(&mut self, values: Value, axis: i64) -> Value {
        let axis = self.integers(&[1], &[axis]);
        self.node("ReduceSum", &[values, axis], &[("keepdims", Int(0))])
    }
}
