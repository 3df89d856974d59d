//! A sample of rows that merges without order: those with the smallest hashes (bottom-k sampling; Cohen and Kaplan 2007,
//! "Summarizing data using bottom-k sketches"). It is held column by column.
//!
//! As it is known about how many rows there are, rows whose hash is so great that they cannot be among the smallest but
//! by a miracle are not taken at all: each of many parts then holds its share of the sample, and not a whole one.

use dml_core::rng;
use serde::{Deserialize, Serialize};

use super::{moments::Target, values::Values};

/// Some training rows as the table has them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sample {
    seed: u64,
    capacity: u64,
    /// The greatest hash of a row that is taken.
    greatest: u64,
    /// The numbers of the rows in the dataset, ascending.
    rows: Vec<u64>,
    /// The target of each.
    targets: Vec<Target>,
    /// The features, in the problem's order.
    features: Vec<Cells>,
}

/// One feature of each sampled row; none where it is blank.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Cells {
    /// Numbers, dates in days or instants in milliseconds.
    Numbers(Vec<Option<f64>>),
    /// Categories.
    Texts(Vec<Option<String>>),
}

const MOST_ROWS: u64 = 1 << 14;
const MOST_CELLS: u64 = 1 << 20;
const LEAST_ROWS: u64 = 64;

impl Sample {
    /// Of about so many rows; `is_number` tells what each feature holds.
    pub(crate) fn new(seed: u64, rows: f64, is_number: impl Iterator<Item = bool>) -> Self {
        let cells = |is_number| if is_number { Cells::Numbers(Vec::new()) } else { Cells::Texts(Vec::new()) };
        let features: Vec<Cells> = is_number.map(cells).collect();
        let capacity = (MOST_CELLS / (features.len() as u64).max(1)).clamp(LEAST_ROWS, MOST_ROWS);
        // More than are wanted, as rows may be fewer than was thought.
        let share = (capacity + capacity / 4 + LEAST_ROWS) as f64 / rows.max(1.0);
        // The cast ends at the greatest number.
        let greatest = (share * 2f64.powi(64)) as u64;
        Self { seed, capacity, greatest, rows: Vec::new(), targets: Vec::new(), features }
    }

    /// Takes those of some rows that belong to it: of rows of `columns`, which are counted from the `first` in the
    /// dataset, with these targets.
    pub(crate) fn take(
        &mut self,
        first: u64,
        rows: &[usize],
        columns: &[Values],
        target: impl Fn(usize) -> Target,
    ) {
        let mut chosen: Vec<usize> =
            (0..rows.len()).filter(|at| self.hash(first + rows[*at] as u64) <= self.greatest).collect();
        if chosen.len() as u64 > self.capacity {
            let key = |at: &usize| self.key(first + rows[*at] as u64);
            chosen.select_nth_unstable_by_key(self.capacity as usize, key);
            chosen.truncate(self.capacity as usize);
            chosen.sort_unstable();
        }
        for (cells, values) in self.features.iter_mut().zip(columns) {
            let rows = chosen.iter().map(|at| rows[*at]);
            match cells {
                Cells::Numbers(cells) => cells.extend(rows.map(|row| values.number(row))),
                Cells::Texts(cells) => cells.extend(rows.map(|row| values.category(row))),
            }
        }
        self.targets.extend(chosen.iter().map(|at| target(*at)));
        self.rows.extend(chosen.iter().map(|at| first + rows[*at] as u64));
        self.settle();
    }

    /// Takes the rows of another part, whose class `c` is `codes[c]` here.
    pub(crate) fn merge(&mut self, other: Self, codes: &[u32]) {
        self.rows.extend(other.rows);
        self.targets.extend(other.targets.into_iter().map(|target| match target {
            Target::Class(code) => Target::Class(codes.get(code as usize).copied().unwrap_or(code)),
            Target::Number(_) => target,
        }));
        for (mine, theirs) in self.features.iter_mut().zip(other.features) {
            match (mine, theirs) {
                (Cells::Numbers(mine), Cells::Numbers(theirs)) => mine.extend(theirs),
                (Cells::Texts(mine), Cells::Texts(theirs)) => mine.extend(theirs),
                (Cells::Numbers(mine), Cells::Texts(theirs)) => mine.resize(mine.len() + theirs.len(), None),
                (Cells::Texts(mine), Cells::Numbers(theirs)) => mine.resize(mine.len() + theirs.len(), None),
            }
        }
        self.settle();
    }

    /// Keeps the rows with the smallest hashes, in the order of the table.
    fn settle(&mut self) {
        let mut order: Vec<usize> = (0..self.rows.len()).collect();
        if self.rows.len() as u64 > self.capacity {
            order.select_nth_unstable_by_key(self.capacity as usize, |at| self.key(self.rows[*at]));
            order.truncate(self.capacity as usize);
        } else if self.rows.is_sorted() {
            return;
        }
        order.sort_unstable_by_key(|at| self.rows[*at]);
        self.rows = order.iter().map(|at| self.rows[*at]).collect();
        self.targets = order.iter().map(|at| self.targets[*at]).collect();
        for cells in &mut self.features {
            match cells {
                Cells::Numbers(cells) => *cells = order.iter().map(|at| cells[*at]).collect(),
                Cells::Texts(cells) => *cells = order.iter().map(|at| cells[*at].take()).collect(),
            }
        }
    }

    fn hash(&self, row: u64) -> u64 {
        rng::draw(self.seed, row)
    }

    fn key(&self, row: u64) -> (u64, u64) {
        (self.hash(row), row)
    }

    /// The numbers of the rows in the dataset, ascending.
    pub(crate) fn rows(&self) -> &[u64] {
        &self.rows
    }

    /// The target of each row.
    pub(crate) fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// A feature of each row.
    pub(crate) fn cells(&self, feature: usize) -> &Cells {
        &self.features[feature]
    }

    /// Whether there are so many features, and every row has each.
    pub(crate) fn is_whole(&self, features: usize) -> bool {
        let rows = self.rows.len();
        self.features.len() == features
            && self.targets.len() == rows
            && self.features.iter().all(|cells| match cells {
                Cells::Numbers(cells) => cells.len() == rows,
                Cells::Texts(cells) => cells.len() == rows,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A sample of so many rows at most, of a table with so many.
    fn sample(capacity: u64, all: u64, rows: impl IntoIterator<Item = u64>) -> Sample {
        let mut sample =
            Sample { capacity, ..Sample::new(5, all as f64, std::iter::repeat_n(true, 1 << 14)) };
        sample.features.clear();
        for row in rows {
            sample.take(row, &[0], &[], |_| Target::Number(row as f64));
        }
        sample
    }

    proptest! {
        #[test]
        fn parts_merge_to_the_whole_in_any_order(cut in 0u64..500) {
            let whole = sample(64, 500, 0..500);
            let mut forward = sample(64, 500, 0..cut);
            forward.merge(sample(64, 500, cut..500), &[]);
            let mut backward = sample(64, 500, (cut..500).rev());
            backward.merge(sample(64, 500, 0..cut), &[]);
            prop_assert_eq!(&forward, &whole);
            prop_assert_eq!(&backward, &whole);
            prop_assert_eq!(whole.rows().len(), 64);
            prop_assert!(whole.is_whole(0) && !whole.is_whole(1));
        }
    }

    #[test]
    fn what_is_left_out_at_once_does_not_belong_to_it() {
        let (few, many) = (sample(64, 20_000, 0..20_000), sample(64, 0, 0..20_000));
        assert!(few.greatest < u64::MAX / 50 && many.greatest == u64::MAX);
        assert_eq!((few.rows(), few.rows().len()), (many.rows(), 64));
    }
}
