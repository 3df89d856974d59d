//! Symmetric matrices for least squares: sums of outer products (see also [`super::panel`]), and a Cholesky solver that does not mind when the
//! matrix has no full rank.
//!
//! Everything is plain loops in a fixed order, so results are the same bits on every CPU; the inner loops run over
//! contiguous memory, so that compilers vectorise them. Sources: Golub and Van Loan, "Matrix Computations" (2013),
//! 4.2 (Cholesky), 3.5.3 (iterative refinement); van der Sluis 1969 (scaling to a unit diagonal).

use serde::{Deserialize, Serialize};

/// How many partial sums a sum of products has.
const LANES: usize = 4;

/// What is added to the unit diagonal of a scaled matrix before it is factored. Directions in which the matrix is
/// singular get (almost) the solution of least norm; each refinement takes more of the error out of all others.
const JITTER: f64 = 1e-9;

/// How often a solution is refined: enough for directions that are as weak as the jitter.
const REFINEMENTS: usize = 8;

/// A symmetric matrix: the upper triangle, row by row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Symmetric {
    order: usize,
    upper: Vec<f64>,
}

impl Symmetric {
    /// The matrix of zeros.
    pub fn zero(order: usize) -> Self {
        Self { order, upper: vec![0.0; order * (order + 1) / 2] }
    }

    /// How many rows and columns it has.
    pub fn order(&self) -> usize {
        self.order
    }

    /// Whether every element is a finite number.
    pub fn is_finite(&self) -> bool {
        self.upper.iter().all(|v| v.is_finite())
    }

    /// The element in row `i` and column `j`.
    pub fn at(&self, i: usize, j: usize) -> f64 {
        self.upper[self.index(i.min(j), i.max(j))]
    }

    /// The element in row `i` and column `j`, to be changed.
    pub fn at_mut(&mut self, i: usize, j: usize) -> &mut f64 {
        let index = self.index(i.min(j), i.max(j));
        &mut self.upper[index]
    }

    /// Adds another matrix of the same order.
    pub fn add(&mut self, other: &Self) {
        self.upper.iter_mut().zip(&other.upper).for_each(|(a, b)| *a += b);
    }

    /// Adds `weight * row * row'`.
    pub fn add_square(&mut self, row: &[f64], weight: f64) {
        let mut rest = self.upper.as_mut_slice();
        for i in 0..self.order {
            let (cells, below) = rest.split_at_mut(self.order - i);
            let factor = weight * row[i];
            cells.iter_mut().zip(&row[i..]).for_each(|(cell, value)| *cell += factor * value);
            rest = below;
        }
    }

    /// The matrix times a vector.
    pub fn times(&self, v: &[f64]) -> Vec<f64> {
        let mut out = vec![0.0; self.order];
        for i in 0..self.order {
            let row = self.row(i);
            out[i] += dot(row, &v[i..]);
            out[i + 1..].iter_mut().zip(&row[1..]).for_each(|(o, a)| *o += a * v[i]);
        }
        out
    }

    /// An `x` with `self * x = b`, or nearly so when there is none, for a matrix without negative eigenvalues. Unknowns
    /// whose diagonal element is zero are zero. None when the numbers are not finite.
    pub fn solve(&self, b: &[f64]) -> Option<Vec<f64>> {
        self.solve_all(&[b.to_vec()])?.pop()
    }

    /// The same for several right sides.
    pub fn solve_all(&self, sides: &[Vec<f64>]) -> Option<Vec<Vec<f64>>> {
        if !self.is_finite() {
            return None;
        }
        let (scaled, scale) = self.scaled();
        let factor = (0..8).find_map(|attempt| {
            let jitter = (0..attempt).fold(JITTER, |jitter, _| jitter * 100.0);
            scaled.clone().factored(jitter)
        })?;
        let solve = |b: &Vec<f64>| {
            let b: Vec<f64> = b.iter().zip(&scale).map(|(b, s)| b * s).collect();
            let mut x = factor.back_substituted(&b);
            for _ in 0..REFINEMENTS {
                let residual: Vec<f64> = b.iter().zip(scaled.times(&x)).map(|(b, ax)| b - ax).collect();
                x.iter_mut().zip(factor.back_substituted(&residual)).for_each(|(x, d)| *x += d);
            }
            x.iter_mut().zip(&scale).for_each(|(x, s)| *x *= s);
            x.iter().all(|v| v.is_finite()).then_some(x)
        };
        sides.iter().map(solve).collect()
    }

    /// Columns that are not (nearly) combinations of those before them, at most `limit` of them.
    pub fn independent(&self, limit: usize) -> Vec<usize> {
        let (scaled, scale) = self.scaled();
        let mut kept: Vec<usize> = Vec::new();
        let mut rows: Vec<Vec<f64>> = Vec::new();
        for j in (0..self.order).filter(|&j| scale[j] > 0.0) {
            let mut row = Vec::with_capacity(kept.len() + 1);
            for (k, other) in kept.iter().zip(&rows) {
                row.push((scaled.at(*k, j) - dot(&row, other)) / other[row.len()]);
            }
            let pivot = scaled.at(j, j) - dot(&row, &row);
            if pivot > 1e-8 && kept.len() < limit {
                row.push(pivot.sqrt());
                kept.push(j);
                rows.push(row);
            }
        }
        kept
    }

    fn index(&self, i: usize, j: usize) -> usize {
        i * (2 * self.order + 1 - i) / 2 + (j - i)
    }

    fn row(&self, i: usize) -> &[f64] {
        let start = self.index(i, i);
        &self.upper[start..start + self.order - i]
    }

    /// The matrix with rows and columns scaled so that its diagonal is 1, and the scale; 0 where the diagonal is.
    fn scaled(&self) -> (Self, Vec<f64>) {
        let scale_of = |d: f64| if d > 1e-280 { 1.0 / d.sqrt() } else { 0.0 };
        let scale: Vec<f64> = (0..self.order).map(|i| scale_of(self.at(i, i))).collect();
        let mut scaled = Self::zero(self.order);
        for i in 0..self.order {
            for j in i..self.order {
                *scaled.at_mut(i, j) = if i == j { 1.0 } else { self.at(i, j) * scale[i] * scale[j] };
            }
        }
        (scaled, scale)
    }

    /// The upper factor of Cholesky after `jitter` was added to the diagonal; none if the sum is not positive definite.
    fn factored(mut self, jitter: f64) -> Option<Self> {
        for k in 0..self.order {
            let start = self.index(k, k);
            let (head, mut rest) = self.upper.split_at_mut(start + self.order - k);
            let pivots = &mut head[start..];
            let pivot = pivots[0] + jitter;
            if !(pivot > 0.0 && pivot.is_finite()) {
                return None;
            }
            let root = pivot.sqrt();
            pivots[0] = root;
            pivots[1..].iter_mut().for_each(|v| *v /= root);
            for i in 1..pivots.len() {
                let (row, below) = rest.split_at_mut(pivots.len() - i);
                let factor = pivots[i];
                row.iter_mut().zip(&pivots[i..]).for_each(|(v, p)| *v -= factor * p);
                rest = below;
            }
        }
        Some(self)
    }

    /// For an upper factor `u`: the `x` with `u' u x = b`.
    fn back_substituted(&self, b: &[f64]) -> Vec<f64> {
        let mut x = b.to_vec();
        for k in 0..self.order {
            let row = self.row(k);
            x[k] /= row[0];
            let known = x[k];
            x[k + 1..].iter_mut().zip(&row[1..]).for_each(|(x, u)| *x -= u * known);
        }
        for k in (0..self.order).rev() {
            let row = self.row(k);
            x[k] = (x[k] - dot(&row[1..], &x[k + 1..])) / row[0];
        }
        x
    }
}

/// The sum of products, in an order that depends on the lengths alone; the shorter slice ends it.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    let n = a.len().min(b.len());
    let (a, b) = (a[..n].chunks_exact(LANES), b[..n].chunks_exact(LANES));
    let tail: f64 = a.remainder().iter().zip(b.remainder()).map(|(a, b)| a * b).sum();
    let mut lanes = [0.0; LANES];
    for (a, b) in a.zip(b) {
        lanes.iter_mut().zip(a.iter().zip(b)).for_each(|(lane, (a, b))| *lane += a * b);
    }
    (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]) + tail
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Outer products of the rows, added one by one.
    fn naive(rows: &[Vec<f64>], order: usize) -> Vec<Vec<f64>> {
        let cell = |i: usize, j: usize| rows.iter().map(|row| row[i] * row[j]).sum();
        (0..order).map(|i| (0..order).map(|j| cell(i, j)).collect()).collect()
    }

    fn gram(rows: &[Vec<f64>], order: usize) -> Symmetric {
        let mut sum = Symmetric::zero(order);
        rows.iter().for_each(|row| sum.add_square(row, 1.0));
        sum
    }

    fn rows() -> impl Strategy<Value = Vec<Vec<f64>>> {
        (1usize..7, 1usize..30).prop_flat_map(|(width, n)| {
            proptest::collection::vec(proptest::collection::vec(-3.0..3.0f64, width), n)
        })
    }

    proptest! {
        #[test]
        fn outer_products_and_multiplication_are_those_of_the_textbook(rows in rows()) {
            let order = rows[0].len();
            let (sum, naive) = (gram(&rows, order), naive(&rows, order));
            let v: Vec<f64> = (0..order).map(|i| i as f64 - 1.5).collect();
            let product = sum.times(&v);
            for i in 0..order {
                for (j, expected) in naive[i].iter().enumerate() {
                    prop_assert!((sum.at(i, j) - expected).abs() < 1e-9);
                }
                let expected: f64 = naive[i].iter().zip(&v).map(|(a, b)| a * b).sum();
                prop_assert!((product[i] - expected).abs() < 1e-9);
            }
        }

        #[test]
        fn solutions_solve_also_without_full_rank(rows in rows(), x in proptest::collection::vec(-3.0..3.0f64, 7)) {
            let order = rows[0].len();
            // A doubled column takes away a rank; b is in the range of the matrix.
            let rows: Vec<Vec<f64>> = rows.into_iter().map(|mut row| { row.push(row[0]); row }).collect();
            let a = gram(&rows, order + 1);
            let b = a.times(&x[..order + 1]);
            let solution = a.solve(&b).expect("finite");
            let size = 1.0 + b.iter().fold(0.0f64, |m, v| m.max(v.abs()));
            for (left, right) in a.times(&solution).iter().zip(&b) {
                prop_assert!((left - right).abs() < 1e-6 * size, "{left} {right}");
            }
            let apart = (solution[0] - solution[order]).abs();
            prop_assert!(apart < 1e-3 * (1.0 + solution[0].abs()), "equal columns share: {solution:?}");
        }
    }

    #[test]
    fn dependent_columns_are_found() {
        let rows: Vec<Vec<f64>> = (0..20)
            .map(|i| {
                let (a, b) = (f64::from(i % 5) - 2.0, f64::from(i % 3) - 1.0);
                vec![a, 2.0 * a, 0.0, b, a - b, f64::from(i * i % 7)]
            })
            .collect();
        assert_eq!(gram(&rows, 6).independent(9), [0, 3, 5]);
        assert_eq!(gram(&rows, 6).independent(2), [0, 3]);
    }

    #[test]
    fn infinity_has_no_solution() {
        let mut a = Symmetric::zero(2);
        *a.at_mut(0, 0) = f64::INFINITY;
        *a.at_mut(1, 1) = f64::NAN;
        *a.at_mut(0, 1) = f64::NAN;
        assert!(!a.is_finite());
        assert_eq!(a.solve(&[f64::NAN, 1.0]), None);
        assert_eq!(Symmetric::zero(2).solve(&[1.0, 1.0]), Some(vec![0.0, 0.0]));
    }
}
