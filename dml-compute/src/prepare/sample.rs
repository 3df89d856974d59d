//! A sample of rows that merges without order: those with the smallest hashes (bottom-k sampling; Cohen and Kaplan 2007,
//! "Summarizing data using bottom-k sketches").

use std::collections::BTreeMap;

use dml_core::rng;
use serde::{Deserialize, Serialize};

use super::{moments::Target, values::Cell};

/// A training row as the table has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SampledRow {
    /// Its number in the dataset.
    pub row: u64,
    /// Its target.
    pub target: Target,
    /// Its features, in the problem's order.
    pub cells: Vec<Cell>,
}

/// At most `capacity` rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sample {
    seed: u64,
    capacity: u64,
    /// By hash and number.
    rows: BTreeMap<(u64, u64), SampledRow>,
}

const MOST_ROWS: u64 = 1 << 14;
const MOST_CELLS: u64 = 1 << 20;
const LEAST_ROWS: u64 = 64;

impl Sample {
    pub(crate) fn new(seed: u64, columns: usize) -> Self {
        let capacity = (MOST_CELLS / (columns as u64).max(1)).clamp(LEAST_ROWS, MOST_ROWS);
        Self { seed, capacity, rows: BTreeMap::new() }
    }

    /// Takes the row if it belongs to the sample of the rows so far.
    pub(crate) fn offer(&mut self, row: u64, make: impl FnOnce() -> SampledRow) {
        let key = (rng::draw(self.seed, row), row);
        let full = self.rows.len() as u64 >= self.capacity;
        if full && self.rows.last_key_value().is_some_and(|(last, _)| key > *last) {
            return;
        }
        self.rows.insert(key, make());
        self.shrink();
    }

    /// Takes the rows of another part, whose class `c` is `codes[c]` here.
    pub(crate) fn merge(&mut self, other: Self, codes: &[u32]) {
        for (key, mut sampled) in other.rows {
            if let Target::Class(code) = &mut sampled.target {
                *code = codes.get(*code as usize).copied().unwrap_or(*code);
            }
            self.rows.insert(key, sampled);
        }
        self.shrink();
    }

    fn shrink(&mut self) {
        while self.rows.len() as u64 > self.capacity {
            self.rows.pop_last();
        }
    }

    /// The rows in the order of the table.
    pub(crate) fn in_order(&self) -> Vec<&SampledRow> {
        let mut rows: Vec<&SampledRow> = self.rows.values().collect();
        rows.sort_unstable_by_key(|sampled| sampled.row);
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample(rows: impl IntoIterator<Item = u64>) -> Sample {
        let mut sample = Sample::new(5, usize::MAX);
        for row in rows {
            sample.offer(row, || SampledRow { row, target: Target::Number(row as f64), cells: Vec::new() });
        }
        sample
    }

    proptest! {
        #[test]
        fn parts_merge_to_the_whole_in_any_order(cut in 0u64..500) {
            let whole = sample(0..500);
            let mut forward = sample(0..cut);
            forward.merge(sample(cut..500), &[]);
            let mut backward = sample((cut..500).rev());
            backward.merge(sample(0..cut), &[]);
            prop_assert_eq!(&forward, &whole);
            prop_assert_eq!(&backward, &whole);
            prop_assert_eq!(whole.in_order().len(), 64);
        }
    }
}
