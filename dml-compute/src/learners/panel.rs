//! Some rows at a time, which stay near the processor while sums over all pairs of columns are made.
//!
//! A table is read in panels of [`ROWS`] rows. Each sum over a panel adds up its rows one after the other, and panels are
//! added one after the other: the same bits on every CPU. Many such sums are made side by side, which compilers vectorise.

use multiversion::multiversion;

use super::symmetric::Symmetric;

/// How many rows a panel has at most.
pub const ROWS: usize = 64;

/// How many columns are multiplied with how many others at a time, so that each number loaded is used often.
const LEFT: usize = 4;
const RIGHT: usize = 8;

/// How many partial sums a sum over the columns has.
const LANES: usize = 4;

/// A number for each row of a panel.
pub type Column = [f64; ROWS];

/// At most [`ROWS`] rows, filled up with columns of 0.
#[derive(Debug, Clone)]
pub struct Panel {
    width: usize,
    stride: usize,
    cells: Vec<f64>,
}

impl Panel {
    /// No rows.
    pub fn new(width: usize) -> Self {
        let stride = width.max(1).next_multiple_of(RIGHT);
        Self { width, stride, cells: Vec::with_capacity(ROWS * stride) }
    }

    /// Takes so many rows, at most [`ROWS`], for those before; `fill` writes each of them, given its number.
    pub fn fill(&mut self, rows: usize, fill: impl Fn(usize, &mut [f64])) {
        self.cells.resize(rows.min(ROWS) * self.stride, 0.0);
        let rows = self.cells.chunks_exact_mut(self.stride).enumerate();
        rows.for_each(|(i, row)| fill(i, &mut row[..self.width]));
    }

    /// Takes the rows of another panel of the same width, each times its weight.
    pub fn fill_weighted(&mut self, other: &Self, weights: &Column) {
        self.cells.resize(other.cells.len(), 0.0);
        set_weighted(&mut self.cells, &other.cells, self.stride, weights);
    }

    /// Sets of each row the sum of its numbers, each times the weight of its column.
    pub fn weighted_sums(&self, weights: &[f64], sums: &mut Column) {
        let mut padded = vec![0.0; self.stride];
        padded.iter_mut().zip(&weights[..self.width]).for_each(|(to, weight)| *to = *weight);
        weighted_sums(&self.cells, &padded, sums);
    }

    /// Adds to each number the sum of the column at its place, each row times its weight.
    pub fn add_weighted(&self, weights: &Column, sums: &mut [f64]) {
        let mut found = vec![0.0; self.stride];
        add_weighted(&self.cells, weights, &mut found);
        sums.iter_mut().zip(&found[..self.width]).for_each(|(sum, found)| *sum += found);
    }

    /// Adds `left' * right` of two panels to a symmetric matrix of their width. Only its upper triangle is computed: the
    /// product must be symmetric, as that of a panel with itself, or with its rows weighted, is.
    pub fn add_products(left: &Self, right: &Self, sum: &mut Symmetric) {
        for i in (0..left.width).step_by(LEFT) {
            for j in (i / RIGHT * RIGHT..left.width).step_by(RIGHT) {
                let found = products(&left.cells, &right.cells, left.stride, i, j);
                for (i, found) in (i..left.width).zip(&found) {
                    for (j, product) in (j..left.width).zip(found).filter(|(j, _)| *j >= i) {
                        *sum.at_mut(i, j) += product;
                    }
                }
            }
        }
    }
}

// What follows is compiled twice, for any CPU and for those with AVX2, whose registers hold four numbers. What is added to
// what is the same in both, so results have the same bits.

/// The sums of products of some columns from `i` on with some from `j` on.
#[multiversion(targets("x86_64+avx2"))]
fn products(left: &[f64], right: &[f64], stride: usize, i: usize, j: usize) -> [[f64; RIGHT]; LEFT] {
    products_of(left, right, stride, i, j)
}

#[inline(always)]
fn products_of(left: &[f64], right: &[f64], stride: usize, i: usize, j: usize) -> [[f64; RIGHT]; LEFT] {
    let mut sums = [[0.0; RIGHT]; LEFT];
    for (x, y) in left.chunks_exact(stride).zip(right.chunks_exact(stride)) {
        let (Some(x), Some(y)) = (x[i..].first_chunk::<LEFT>(), y[j..].first_chunk::<RIGHT>()) else { break };
        for (sums, x) in sums.iter_mut().zip(x) {
            sums.iter_mut().zip(y).for_each(|(sum, y)| *sum += x * y);
        }
    }
    sums
}

#[multiversion(targets("x86_64+avx2"))]
fn set_weighted(cells: &mut [f64], from: &[f64], stride: usize, weights: &Column) {
    let rows = cells.chunks_exact_mut(stride).zip(from.chunks_exact(stride));
    for ((row, from), weight) in rows.zip(weights) {
        row.iter_mut().zip(from).for_each(|(to, from)| *to = from * weight);
    }
}

#[multiversion(targets("x86_64+avx2"))]
fn weighted_sums(cells: &[f64], weights: &[f64], sums: &mut Column) {
    for (row, sum) in cells.chunks_exact(weights.len()).zip(sums) {
        let mut lanes = [0.0; LANES];
        for (row, weights) in row.as_chunks::<LANES>().0.iter().zip(weights.as_chunks::<LANES>().0) {
            lanes.iter_mut().zip(row.iter().zip(weights)).for_each(|(lane, (x, weight))| *lane += x * weight);
        }
        *sum = (lanes[0] + lanes[2]) + (lanes[1] + lanes[3]);
    }
}

#[multiversion(targets("x86_64+avx2"))]
fn add_weighted(cells: &[f64], weights: &Column, sums: &mut [f64]) {
    for (row, weight) in cells.chunks_exact(sums.len()).zip(weights) {
        sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x * weight);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(i: usize, j: usize) -> f64 {
        ((i * 31 + j * 17) % 23) as f64 - 11.0
    }

    fn panel(width: usize, rows: usize, cell: impl Fn(usize, usize) -> f64) -> Panel {
        let mut panel = Panel::new(width);
        // What was there before is gone.
        panel.fill(ROWS, |_, row| row.fill(9.0));
        panel.fill(rows, |i, row| row.iter_mut().enumerate().for_each(|(j, value)| *value = cell(i, j)));
        panel
    }

    /// `products_of` is compiled here for any CPU, and in `products` for this one.
    #[test]
    fn wider_registers_give_the_same_bits() {
        let panel = panel(RIGHT, ROWS, |i, j| 1.0 / (1.0 + (i * RIGHT + j) as f64) - j as f64 * 1e-3);
        let bits = |sums: [[f64; RIGHT]; LEFT]| sums.map(|sums| sums.map(f64::to_bits));
        let (here, any) = (
            products(&panel.cells, &panel.cells, RIGHT, LEFT, 0),
            products_of(&panel.cells, &panel.cells, RIGHT, LEFT, 0),
        );
        assert_eq!(bits(here), bits(any));
    }

    #[test]
    fn sums_are_those_of_the_textbook() {
        for (width, rows) in [(0, 3), (1, 1), (3, 60), (4, ROWS), (8, ROWS), (9, 2), (21, 37)] {
            let value = |i: usize, j: usize| cell(i, j) + j as f64;
            let weights: Column = std::array::from_fn(|i| (i % 5) as f64 * 0.5);
            let plain = panel(width, rows, value);
            let mut weighted = panel(width, 1, cell);
            weighted.fill_weighted(&plain, &weights);
            let (mut squares, mut products) = (Symmetric::zero(width), Symmetric::zero(width));
            Panel::add_products(&plain, &plain, &mut squares);
            Panel::add_products(&plain, &weighted, &mut products);
            let (mut columns, mut of_rows) = (vec![1.0; width], [f64::NAN; ROWS]);
            plain.add_weighted(&weights, &mut columns);
            let factors: Vec<f64> = (0..width).map(|j| j as f64 - 2.0).collect();
            plain.weighted_sums(&factors, &mut of_rows);
            for (a, sum) in columns.iter().enumerate() {
                for b in a..width {
                    let plainly: f64 = (0..rows).map(|i| value(i, a) * value(i, b)).sum();
                    let weighted: f64 = (0..rows).map(|i| weights[i] * value(i, a) * value(i, b)).sum();
                    assert_eq!((squares.at(a, b), products.at(a, b)), (plainly, weighted), "{width} {rows}");
                }
                assert_eq!(*sum, 1.0 + (0..rows).map(|i| weights[i] * value(i, a)).sum::<f64>());
            }
            for (i, sum) in of_rows.iter().enumerate().take(rows) {
                assert_eq!(*sum, (0..width).map(|j| value(i, j) * factors[j]).sum::<f64>());
            }
        }
    }
}
