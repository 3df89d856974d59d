//! The model of all linear classifiers: each class has a weighted sum of the features, the sums make probabilities.

use ndarray::Array2;
use serde::{Deserialize, Serialize};

use super::descent::{GREATEST, bounded};
use crate::{
    error::WorkError,
    learner::{Fit, Predict, Scores},
    onnx,
};

/// A row of weights an output, each with a weight a feature and, last, the intercept. Two classes have one output (the
/// second class against the first), more have one a class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Parts")]
pub struct Softmax {
    /// How many classes.
    pub classes: usize,
    /// The weights of each output.
    pub outputs: Vec<Vec<f64>>,
}

/// What a model file says, before it is known to be sound.
#[derive(Deserialize)]
struct Parts {
    classes: usize,
    outputs: Vec<Vec<f64>>,
}

impl TryFrom<Parts> for Softmax {
    type Error = &'static str;

    fn try_from(Parts { classes, outputs: rows }: Parts) -> Result<Self, Self::Error> {
        let width = rows.first().map_or(0, Vec::len);
        let is_sound = classes > 0
            && rows.len() == outputs(classes)
            && width > 0
            && rows.iter().all(|row| row.len() == width);
        if is_sound { Ok(Self { classes, outputs: rows }) } else { Err("its classes and weights do not fit") }
    }
}

/// How many outputs so many classes have.
pub fn outputs(classes: usize) -> usize {
    if classes > 2 { classes } else { 1 }
}

impl Softmax {
    /// From a row of weights for every class: of two, the differences count.
    pub fn from_classes(mut rows: Vec<Vec<f64>>) -> Self {
        let classes = rows.len();
        if classes == 2
            && let Some(second) = rows.pop()
        {
            let difference = |(first, second): (&f64, &f64)| second - first;
            rows[0] = rows[0].iter().zip(&second).map(difference).collect();
        }
        Self { classes, outputs: rows }
    }

    /// From the weights that a fit has found.
    pub(super) fn of(fit: &Fit, outputs: Vec<Vec<f64>>) -> Self {
        Self { classes: fit.classes, outputs }
    }

    /// Where a search for the weights may begin.
    pub(super) fn zeros(fit: &Fit) -> Result<Vec<f64>, WorkError> {
        Ok(vec![0.0; outputs(fit.classes) * (fit.rows.width() + 1)])
    }
}

impl Predict for Softmax {
    fn predict(&self, x: &Array2<f64>) -> Scores {
        let mut out = Array2::zeros((x.nrows(), self.classes));
        let first = self.classes - self.outputs.len();
        let mut scores = vec![0.0; self.classes];
        for (x, mut out) in x.rows().into_iter().zip(out.rows_mut()) {
            scores.fill(0.0);
            for (score, weights) in scores[first..].iter_mut().zip(&self.outputs) {
                let features = weights.iter().zip(x).fold(0.0, |sum, (weight, x)| sum + weight * x);
                *score = bounded(features + weights.last().unwrap_or(&0.0));
            }
            softmax(&mut scores);
            out.iter_mut().zip(&scores).for_each(|(o, p)| *o = *p);
        }
        Scores::Probabilities(out)
    }

    /// The mean size of each feature's weights: features are standardised, so they compare.
    fn importance(&self) -> Option<Vec<f64>> {
        let width = self.outputs.first()?.len() - 1;
        let mean =
            |j: usize| self.outputs.iter().map(|w| w[j].abs()).sum::<f64>() / self.outputs.len() as f64;
        Some((0..width).map(mean).collect())
    }

    fn onnx(&self, graph: &mut onnx::Graph, x: onnx::Value) -> Option<onnx::Value> {
        let first = self.classes - self.outputs.len();
        let width = self.outputs.first()?.len() - 1;
        // A class without weights of its own has the sum 0.
        let rows = std::iter::repeat_n(vec![0.0; width + 1], first).chain(self.outputs.clone());
        let rows: Vec<Vec<f64>> = rows.collect();
        let weights: Vec<&[f64]> = rows.iter().map(|row| &row[..width]).collect();
        let intercepts: Vec<f64> = rows.iter().map(|row| row[width]).collect();
        let sums = graph.affine(x, &weights, &intercepts);
        let sums = graph.tame(sums, &vec![0.0; rows.len()], GREATEST);
        Some(graph.softmax(sums))
    }
}

/// Turns scores into probabilities; returns the logarithm of the sum of their exponentials.
pub fn softmax(scores: &mut [f64]) -> f64 {
    let top = scores.iter().copied().fold(f64::MIN, f64::max);
    scores.iter_mut().for_each(|s| *s = libm::exp(*s - top));
    let sum: f64 = scores.iter().sum();
    scores.iter_mut().for_each(|s| *s /= sum);
    top + libm::log(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_together_is_no_model() {
        let read = |classes: usize, outputs: &[&[f64]]| {
            let model = Softmax { classes, outputs: outputs.iter().map(|row| row.to_vec()).collect() };
            let bytes = postcard::to_allocvec(&model).unwrap();
            postcard::from_bytes::<Softmax>(&bytes).is_ok_and(|read| read == model)
        };
        let row: &[f64] = &[1.0, 2.0];
        for (classes, outputs) in [(1, vec![row]), (2, vec![row]), (3, vec![row; 3])] {
            assert!(read(classes, &outputs));
        }
        let none: &[f64] = &[];
        let wrong = [(0, vec![]), (0, vec![row]), (2, vec![row; 2]), (3, vec![row]), (2, vec![none])];
        for (classes, outputs) in
            wrong.into_iter().chain([(3, vec![row, row, &row[..1]]), (usize::MAX, vec![row])])
        {
            assert!(!read(classes, &outputs), "{classes} {outputs:?}");
        }
    }
}
