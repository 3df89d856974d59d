//! Rows turned into short columns, which stay near the processor while sums over all pairs of columns are made.
//!
//! A table is read in panels of [`ROWS`] rows. Sums over a panel have a fixed order, that of interleaved partial
//! sums, and panels are added one after the other: the same bits on every CPU, yet loops that compilers vectorise.

use super::symmetric::Symmetric;

/// How many rows a panel has.
pub const ROWS: usize = 128;

/// How many partial sums run side by side: what the narrowest vector registers hold.
const LANES: usize = 2;

/// How many columns are multiplied with how many others at a time, so that each number loaded is used often.
const LEFT: usize = 2;
const RIGHT: usize = 4;

/// One column of a panel.
pub type Column = [f64; ROWS];

/// Some columns of [`ROWS`] rows. Rows that are missing in the last panel of a block are 0.
#[derive(Debug, Clone)]
pub struct Panel {
    width: usize,
    columns: Vec<Column>,
}

impl Panel {
    /// Zeros.
    pub fn zero(width: usize) -> Self {
        Self { width, columns: vec![[0.0; ROWS]; width.next_multiple_of(RIGHT)] }
    }

    /// The columns, to be read.
    pub fn columns(&self) -> &[Column] {
        &self.columns[..self.width]
    }

    /// The columns, to be changed.
    pub fn columns_mut(&mut self) -> &mut [Column] {
        &mut self.columns[..self.width]
    }

    /// Sets the first columns to what `value` makes of the cells of some rows, at most [`ROWS`], that stand one after the
    /// other with `stride` cells each. `value` is told the column. Missing rows become 0.
    pub fn fill(&mut self, cells: &[f64], stride: usize, value: impl Fn(usize, f64) -> f64) {
        let rows = cells.len().checked_div(stride).unwrap_or(0);
        for (j, column) in self.columns[..stride.min(self.width)].iter_mut().enumerate() {
            let from = cells[j.min(cells.len())..].iter().step_by(stride);
            column.iter_mut().zip(from).for_each(|(to, from)| *to = value(j, *from));
            column[rows.min(ROWS)..].fill(0.0);
        }
    }

    /// Adds `left' * right` of two panels to a symmetric matrix of their width. Only its upper triangle is computed: the
    /// product must be symmetric, as that of a panel with itself, or with its rows weighted, is.
    pub fn add_products(left: &Self, right: &Self, sum: &mut Symmetric) {
        for i in (0..left.width).step_by(LEFT) {
            for j in (i / RIGHT * RIGHT..right.width).step_by(RIGHT) {
                let found = products(
                    std::array::from_fn(|a| &left.columns[i + a]),
                    std::array::from_fn(|b| &right.columns[j + b]),
                );
                for (a, found) in found.iter().enumerate().take(left.width - i) {
                    let i = i + a;
                    for (j, product) in (j..right.width).zip(found).filter(|(j, _)| *j >= i) {
                        *sum.at_mut(i, j) += product;
                    }
                }
            }
        }
    }
}

/// The sums of products of each left column with each right one.
fn products(left: [&Column; LEFT], right: [&Column; RIGHT]) -> [[f64; RIGHT]; LEFT] {
    let mut sums = [[[0.0; LANES]; RIGHT]; LEFT];
    for start in (0..ROWS).step_by(LANES) {
        let x: [[f64; LANES]; LEFT] = left.map(|column| std::array::from_fn(|lane| column[start + lane]));
        let y: [[f64; LANES]; RIGHT] = right.map(|column| std::array::from_fn(|lane| column[start + lane]));
        for (sums, x) in sums.iter_mut().zip(&x) {
            for (sums, y) in sums.iter_mut().zip(&y) {
                for lane in 0..LANES {
                    sums[lane] += x[lane] * y[lane];
                }
            }
        }
    }
    sums.map(|sums| sums.map(|lanes| lanes.iter().sum()))
}

/// The sum of the products of two columns.
pub fn dot(left: &Column, right: &Column) -> f64 {
    let mut sums = [0.0; 4 * LANES];
    for (left, right) in left.chunks_exact(4 * LANES).zip(right.chunks_exact(4 * LANES)) {
        for (sum, (left, right)) in sums.iter_mut().zip(left.iter().zip(right)) {
            *sum += left * right;
        }
    }
    sums.iter().sum()
}

/// Adds `factor` times a column to another.
pub fn add_scaled(sum: &mut Column, factor: f64, column: &Column) {
    sum.iter_mut().zip(column).for_each(|(sum, value)| *sum += factor * value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(i: usize, j: usize) -> f64 {
        ((i * 31 + j * 17) % 23) as f64 - 11.0
    }

    #[test]
    fn products_are_those_of_the_textbook() {
        for (width, rows) in [(1, 1), (3, 100), (4, ROWS), (5, ROWS), (11, 77)] {
            let cells: Vec<f64> = (0..rows).flat_map(|i| (0..width).map(move |j| cell(i, j))).collect();
            let mut panel = Panel::zero(width);
            panel.fill(&[9.0; 7 * ROWS], 1, |_, value| value);
            panel.fill(&cells, width, |j, value| value + j as f64);
            let mut weighted = panel.clone();
            let weight = |i: usize| (i % 5) as f64 * 0.5;
            for column in weighted.columns_mut() {
                column.iter_mut().enumerate().for_each(|(i, value)| *value *= weight(i));
            }
            let (mut plain, mut other) = (Symmetric::zero(width), Symmetric::zero(width));
            Panel::add_products(&panel, &panel, &mut plain);
            Panel::add_products(&panel, &weighted, &mut other);
            let value = |i: usize, j: usize| cell(i, j) + j as f64;
            for a in 0..width {
                for b in 0..width {
                    let plainly: f64 = (0..rows).map(|i| value(i, a) * value(i, b)).sum();
                    let weighted: f64 = (0..rows).map(|i| weight(i) * value(i, a) * value(i, b)).sum();
                    assert_eq!((plain.at(a, b), other.at(a, b)), (plainly, weighted), "{width} {rows}");
                }
                assert_eq!(dot(&panel.columns()[a], &panel.columns()[a]), plain.at(a, a));
            }
        }
    }
}
