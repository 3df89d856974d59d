//! The best place to part the rows of a node, by one feature's sums.

use super::sums::Sums;

/// Gains below this share of what the node is worth are rounding.
const LEAST_GAIN: f64 = 1e-12;

/// Rows whose feature is in a bin up to `bin` go left, others right, blanks where they lose least.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Split {
    pub(crate) feature: usize,
    pub(crate) bin: usize,
    /// Where blanks go; none when the node has none, so that nothing tells.
    pub(crate) missing_left: Option<bool>,
    pub(crate) gain: f64,
}

/// One node's question to all its features.
pub(crate) struct Search<'a, S: Sums> {
    pub(crate) sums: &'a S,
    /// The sums over all rows of the node.
    pub(crate) total: &'a S::Total,
    /// How many rows each side must have.
    pub(crate) min_leaf: i64,
}

impl<S: Sums> Search<'_, S> {
    /// The best split by this feature, if any gains. `occupied` are the bins with rows, ascending; `missing` is the bin
    /// of blanks. Among equal gains the lowest bin wins. Where the next bins are empty here, the cut is put in their
    /// middle.
    pub(crate) fn feature(
        &self,
        feature: usize,
        cells: &[i64],
        occupied: impl Iterator<Item = usize>,
        missing: usize,
    ) -> Option<Split> {
        let channels = self.total.as_ref().len();
        let cell = |bin: usize| &cells[bin * channels..][..channels];
        let blanks = S::count(cell(missing)) > 0;
        let whole = self.sums.worth(self.total);
        let mut sides = Sides { search: self, left: self.sums.zero(), right: self.total.clone() };
        let mut sides_with_blanks = sides.clone();
        sides_with_blanks.shift(cell(missing));
        let mut best: Option<Split> = None;
        // The bin of the best split when no occupied bin has come since.
        let mut open = false;
        for bin in occupied.take_while(|&bin| bin < missing) {
            if let Some(best) = best.as_mut().filter(|_| open) {
                best.bin = best.bin.midpoint(bin - 1);
                open = false;
            }
            let mut offer = |sides: &mut Sides<'_, '_, S>, missing_left: Option<bool>| {
                sides.shift(cell(bin));
                let gain = sides.worth().map_or(0.0, |worth| worth - whole);
                if gain > best.map_or(LEAST_GAIN * whole, |best| best.gain) {
                    best = Some(Split { feature, bin, missing_left, gain });
                    open = true;
                }
            };
            offer(&mut sides, blanks.then_some(false));
            if blanks {
                offer(&mut sides_with_blanks, Some(true));
            }
        }
        if open && let Some(best) = &mut best {
            best.bin = missing - 1;
        }
        best.map(|best| Split { gain: best.gain * self.sums.gain_unit(), ..best })
    }
}

impl<S: Sums> Search<'_, S> {
    /// The split by this feature behind the bin `cut`, if it gains; blanks go where they lose least.
    pub(crate) fn at(
        &self,
        feature: usize,
        cells: &[i64],
        occupied: impl Iterator<Item = usize>,
        missing: usize,
        cut: usize,
    ) -> Option<Split> {
        let channels = self.total.as_ref().len();
        let cell = |bin: usize| &cells[bin * channels..][..channels];
        let blanks = S::count(cell(missing)) > 0;
        let whole = self.sums.worth(self.total);
        let mut sides = Sides { search: self, left: self.sums.zero(), right: self.total.clone() };
        occupied.take_while(|&bin| bin <= cut).for_each(|bin| sides.shift(cell(bin)));
        let gain = |sides: &Sides<'_, '_, S>| sides.worth().map_or(0.0, |worth| worth - whole);
        let mut best = (gain(&sides), blanks.then_some(false));
        if blanks {
            sides.shift(cell(missing));
            let with_blanks = gain(&sides);
            if with_blanks > best.0 {
                best = (with_blanks, Some(true));
            }
        }
        let (gain, missing_left) = best;
        let gains = gain > LEAST_GAIN * whole;
        gains.then(|| Split { feature, bin: cut, missing_left, gain: gain * self.sums.gain_unit() })
    }
}

/// The sums on both sides of a cut that moves upwards.
struct Sides<'a, 's, S: Sums> {
    search: &'a Search<'s, S>,
    left: S::Total,
    right: S::Total,
}

impl<S: Sums> Clone for Sides<'_, '_, S> {
    fn clone(&self) -> Self {
        Self { search: self.search, left: self.left.clone(), right: self.right.clone() }
    }
}

impl<S: Sums> Sides<'_, '_, S> {
    /// Moves the rows of a bin to the left.
    #[inline]
    fn shift(&mut self, cell: &[i64]) {
        for ((left, right), &value) in self.left.as_mut().iter_mut().zip(self.right.as_mut()).zip(cell) {
            *left += value;
            *right -= value;
        }
    }

    /// What both sides are worth, if they have enough rows.
    #[inline]
    fn worth(&self) -> Option<f64> {
        let least = S::count(self.left.as_ref()).min(S::count(self.right.as_ref()));
        let enough = least >= self.search.min_leaf.max(1);
        enough.then(|| self.search.sums.worth(&self.left) + self.search.sums.worth(&self.right))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learners::trees::sums::Moments;

    /// The best split of targets that stand in these bins (4 is that of blanks).
    fn best(rows: &[(usize, f64)], min_leaf: i64) -> Option<Split> {
        let targets = rows.iter().map(|&(_, target)| target).collect::<Vec<_>>();
        let sums = Moments::squared(&targets, |_| 1);
        let (mut cells, mut total) = ([0; 10], sums.zero());
        for (&word, &(bin, _)) in sums.words().iter().zip(rows) {
            Moments::<2>::add(word, 1, &mut cells[bin * 2..][..2]);
            Moments::<2>::add(word, 1, &mut total);
        }
        let occupied = (0..5).filter(|&bin| cells[bin * 2 + 1] > 0);
        Search { sums: &sums, total: &total, min_leaf }.feature(0, &cells, occupied, 4)
    }

    #[test]
    fn cuts_in_the_middle_of_empty_bins() {
        let split = best(&[(0, -1.0), (0, -1.0), (3, 1.0), (3, 1.0)], 1).unwrap();
        assert_eq!((split.bin, split.missing_left), (1, None));
        assert!((split.gain - 4.0).abs() < 1e-6, "{}", split.gain);
    }

    #[test]
    fn blanks_go_where_they_fit() {
        assert_eq!(best(&[(0, -1.0), (1, 1.0), (4, 1.0)], 1).unwrap().missing_left, Some(false));
        assert_eq!(best(&[(0, -1.0), (1, 1.0), (4, -1.0)], 1).unwrap().missing_left, Some(true));
        let apart = best(&[(0, 1.0), (2, 1.0), (4, -1.0)], 1).unwrap();
        assert_eq!((apart.bin, apart.missing_left), (3, Some(false)));
    }

    #[test]
    fn nothing_to_gain_is_no_split() {
        assert_eq!(best(&[(0, 0.1), (1, 0.1), (2, 0.1), (4, 0.1)], 1), None);
        assert_eq!(best(&[(0, -1.0), (1, 1.0)], 2), None);
        assert_eq!(best(&[(4, -1.0), (4, 1.0)], 1), None);
        assert_eq!(best(&[], 0), None);
    }
}
