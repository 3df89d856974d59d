//! The training rows as bytes: each value is the number of its bin.
//!
//! Histograms of all features read them row by row, in groups of four features whose sums fit the first-level cache;
//! parting a node's rows, and sums of few features, read one column. Tables that are not large are held both ways.

use std::{borrow::Cow, ops::Range, sync::Arc};

use dml_core::Digest;
use ndarray::Array2;
use rayon::prelude::*;

use super::bins::Bins;
use crate::{
    error::WorkError,
    learner::{Fit, Rows},
};

/// How many features are added up together.
pub(crate) const GROUP: usize = 4;
/// From how many bins on a table is held once, row by row: memory is scarcer then than what reading a column of it costs.
const LARGE: f64 = (1u64 << 27) as f64;
/// How many neighbouring rows are looked at together when it is asked how many may share a bin.
pub(crate) const CROWD_ROWS: usize = 1024;

/// The training rows.
#[derive(Debug)]
pub(crate) struct Binned {
    /// How many features there are.
    pub(crate) width: usize,
    /// Where the bins of each feature start in a histogram; one more for the end.
    pub(crate) starts: Vec<u32>,
    /// The bins row by row, in groups; the last group of a row is filled up.
    pub(crate) groups: Vec<[u8; GROUP]>,
    /// The bins of each feature; none of a large table.
    pub(crate) columns: Vec<Vec<u8>>,
    /// For each feature: how many rows share a bin at most, added up over each [`CROWD_ROWS`] rows from the start.
    crowds: Vec<Vec<u32>>,
    /// The targets.
    pub(crate) y: Vec<f64>,
    /// The number of each row in the dataset.
    pub(crate) ids: Vec<u64>,
}

/// The rows of one chunk.
struct Piece {
    groups: Vec<[u8; GROUP]>,
    columns: Vec<Vec<u8>>,
    y: Vec<f64>,
    ids: Vec<u64>,
}

impl Binned {
    /// The rows of a fit: kept from before, or read chunk by chunk and kept.
    pub(crate) fn of(fit: &Fit, bins: &Bins) -> Result<Arc<Self>, WorkError> {
        let table = Self::of_chunks(fit, bins, Digest::of_value(bins), 0..fit.rows.chunks())?;
        if table.rows() == 0 {
            return Err(WorkError::Input(
                "there are no rows to train on; add rows, or hold out fewer".into(),
            ));
        }
        Ok(table)
    }

    /// The rows of some chunks; possibly none. `cuts` names the bins.
    pub(crate) fn of_chunks(
        fit: &Fit,
        bins: &Bins,
        cuts: Digest,
        chunks: Range<usize>,
    ) -> Result<Arc<Self>, WorkError> {
        let name = Digest::of_value(&("binned", cuts, &chunks));
        if let Some(table) = fit.rows.recall(name).and_then(|kept| kept.downcast().ok()) {
            return Ok(table);
        }
        let rows = fit.rows.target().map_or_else(|| fit.rows.class_rows().iter().sum(), |all| all.count);
        let share = chunks.len() as f64 / fit.rows.chunks().max(1) as f64;
        let is_large = rows as f64 * share * bins.width() as f64 > LARGE;
        let table = Arc::new(Self::read(fit.rows, bins, chunks, is_large)?);
        fit.rows.keep(name, table.bytes(), table.clone());
        Ok(table)
    }

    fn read(rows: &dyn Rows, bins: &Bins, chunks: Range<usize>, is_large: bool) -> Result<Self, WorkError> {
        let width = rows.width();
        if bins.width() != width {
            let why = format!("it has {} features, the table {width}", bins.width());
            return Err(WorkError::Corrupt { what: "the state of the trees", why });
        }
        let cutters = (0..width).map(|feature| bins.cutter(feature)).collect::<Vec<_>>();
        let mut table = Self::empty(bins);
        if is_large {
            table.columns.clear();
        }
        // As many chunks at a time as there are threads, so that few are in memory as numbers.
        for first in chunks.clone().step_by(rayon::current_num_threads()) {
            let end = (first + rayon::current_num_threads()).min(chunks.end);
            let piece = |chunk| {
                let block = rows.block_once(chunk)?;
                let (groups, columns) = cut(&cutters, &block.x);
                Ok(Piece { groups, columns, y: block.y.to_vec(), ids: block.rows.clone() })
            };
            let pieces = (first..end).into_par_iter().map(piece).collect::<Vec<Result<Piece, WorkError>>>();
            for piece in pieces {
                table.push(piece?, chunks.len());
            }
        }
        let count = table.rows();
        if u32::try_from(count).is_err() {
            return Err(WorkError::Input("trees take at most 4,294,967,295 rows; train on fewer".into()));
        }
        if let Some(at) = table.y.iter().position(|y| !y.is_finite()) {
            let (row, value) = (table.ids[at], table.y[at]);
            return Err(WorkError::Input(format!(
                "the target of row {row} (counted from 0) is {value}; leave that row out, or give it a finite number"
            )));
        }
        table.count_crowds();
        Ok(table)
    }

    /// A table without rows.
    pub(crate) fn empty(bins: &Bins) -> Self {
        let mut end = 0;
        let ends = (0..bins.width()).map(|feature| {
            end += bins.missing(feature) as u32 + 1;
            end
        });
        let starts = std::iter::once(0).chain(ends.collect::<Vec<_>>()).collect();
        let width = bins.width();
        Self {
            width,
            starts,
            groups: Vec::new(),
            columns: vec![Vec::new(); width],
            crowds: Vec::new(),
            y: Vec::new(),
            ids: Vec::new(),
        }
    }

    /// Appends the rows of a chunk, one of so many.
    fn push(&mut self, piece: Piece, chunks: usize) {
        if self.y.is_empty() {
            // Room for all if chunks are alike, so that growing does not hold two copies.
            self.groups.reserve_exact(piece.groups.len() * chunks);
            self.columns.iter_mut().for_each(|column| column.reserve_exact(piece.y.len() * chunks));
            self.y.reserve_exact(piece.y.len() * chunks);
            self.ids.reserve_exact(piece.y.len() * chunks);
        }
        self.groups.extend(piece.groups);
        self.columns.iter_mut().zip(&piece.columns).for_each(|(to, from)| to.extend_from_slice(from));
        self.y.extend(piece.y);
        self.ids.extend(piece.ids);
    }

    /// The table of these bins, row by row.
    #[cfg(test)]
    pub(crate) fn of_matrix(bins: &Bins, x: &Array2<f64>, y: Vec<f64>) -> Self {
        let cutters = (0..x.ncols()).map(|feature| bins.cutter(feature)).collect::<Vec<_>>();
        let (groups, columns) = cut(&cutters, x);
        let ids = (0..y.len() as u64).collect();
        let mut table = Self::empty(bins);
        table.push(Piece { groups, columns, y, ids }, 1);
        table.count_crowds();
        table
    }

    fn count_crowds(&mut self) {
        let crowds = (0..self.width).into_par_iter().map(|feature| {
            let column = match self.columns.get(feature) {
                Some(column) => Cow::from(column),
                None => (0..self.rows() as u32).map(|row| self.row(row)[feature]).collect(),
            };
            let mut sum = 0;
            let crowds = column.chunks(CROWD_ROWS).map(|rows| {
                let mut counts = [0u32; 256];
                rows.iter().for_each(|&bin| counts[usize::from(bin)] += 1);
                sum += counts.iter().max().copied().unwrap_or(0);
                sum
            });
            std::iter::once(0).chain(crowds).collect()
        });
        self.crowds = crowds.collect();
    }

    /// How many rows from `first` to `last` may share a bin of this feature: never too few.
    #[inline]
    pub(crate) fn crowd(&self, feature: usize, first: u32, last: u32) -> u32 {
        let crowds = &self.crowds[feature];
        crowds[last as usize / CROWD_ROWS + 1] - crowds[first as usize / CROWD_ROWS]
    }

    /// How many rows there are.
    pub(crate) fn rows(&self) -> usize {
        self.y.len()
    }

    /// How many groups of features a row has.
    pub(crate) fn row_groups(&self) -> usize {
        self.width.div_ceil(GROUP)
    }

    /// Calls `then` with the bins that rows have of a feature, each beside its word.
    #[inline]
    pub(crate) fn each_bin(
        &self,
        feature: usize,
        rows: &[u32],
        words: &[i64],
        mut then: impl FnMut(u8, i64),
    ) {
        let rows = rows.iter().zip(words);
        match self.columns.get(feature).map(Vec::as_slice) {
            Some(column) => rows.for_each(|(&row, &word)| then(column[row as usize], word)),
            None => rows.for_each(|(&row, &word)| then(self.row(row)[feature], word)),
        }
    }

    /// The bins of one row.
    pub(crate) fn row(&self, row: u32) -> &[u8] {
        let groups = self.row_groups();
        &self.groups[row as usize * groups..][..groups].as_flattened()[..self.width]
    }

    /// How many bins a feature has, with that of blanks.
    pub(crate) fn bins(&self, feature: usize) -> usize {
        (self.starts[feature + 1] - self.starts[feature]) as usize
    }

    /// About how much memory it takes.
    fn bytes(&self) -> usize {
        let crowds = self.width * self.rows().div_ceil(CROWD_ROWS) * size_of::<u32>();
        self.rows() * (self.columns.len() + self.row_groups() * GROUP + 16) + crowds
    }
}

/// The bins of a block: by row, and by column.
fn cut(cutters: &[super::bins::Cutter], x: &Array2<f64>) -> (Vec<[u8; GROUP]>, Vec<Vec<u8>>) {
    let (rows, width) = x.dim();
    let groups = width.div_ceil(GROUP);
    let mut by_row = vec![[0; GROUP]; rows * groups];
    let columns = cutters.iter().enumerate().map(|(feature, cutter)| {
        let column = x.column(feature).iter().map(|&value| cutter.bin(value)).collect::<Vec<_>>();
        let places = by_row.iter_mut().skip(feature / GROUP).step_by(groups);
        places.zip(&column).for_each(|(place, &bin)| place[feature % GROUP] = bin);
        column
    });
    let columns = columns.collect();
    (by_row, columns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learners::{
        testing::{Table, block, rings},
        trees::histogram::tests::table,
    };

    #[test]
    fn a_large_table_is_read_as_any_other_and_held_once() {
        let block = block(3000, rings);
        let bins = Bins::of(&block.x, 255);
        let rows = Table::new(&block, 7, 3);
        let read = |is_large| Binned::read(&rows, &bins, 0..7, is_large).unwrap();
        let (twice, once) = (read(false), read(true));
        assert_eq!((twice.columns.len(), once.columns.len()), (bins.width(), 0));
        assert_eq!((&twice.groups, &twice.crowds, &twice.y), (&once.groups, &once.crowds, &once.y));
        assert_eq!(twice.bytes() - once.bytes(), 3000 * bins.width());
    }

    #[test]
    fn rows_and_columns_say_the_same() {
        let (_, mut table) = table(3000, 6);
        let (rows, words): (Vec<u32>, Vec<i64>) = (0..3000).map(|row| (row, i64::from(row))).unzip();
        for is_large in [false, true] {
            for feature in 0..6 {
                let mut bins = Vec::new();
                table.each_bin(feature, &rows, &words, |bin, word| bins.push((bin, word)));
                let expected = rows.iter().map(|&row| (table.row(row)[feature], i64::from(row)));
                assert!(bins.into_iter().eq(expected), "{is_large}");
            }
            table.columns.clear();
        }
    }

    #[test]
    fn crowds_are_never_too_few() {
        let (_, table) = table(3000, 3);
        for (first, last) in [(0, 2999), (5, 1023), (1023, 1024), (700, 2100)] {
            for (feature, column) in table.columns.iter().enumerate() {
                let rows = &column[first as usize..=last as usize];
                let count = |bin| rows.iter().filter(|&&other| other == bin).count() as u32;
                let most = rows.iter().map(|&bin| count(bin)).max().unwrap();
                let said = table.crowd(feature, first, last);
                assert!(said >= most && said < 3000 / 10, "{said} {most}");
            }
        }
    }
}
