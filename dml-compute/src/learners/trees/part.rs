//! Parts the rows of a node into its two children.

use super::{binned::Binned, split::Split};

/// From how many rows on threads share them.
const PARALLEL_ROWS: usize = 1 << 15;

/// Parts the rows in place, each side in its order: how many go left. `missing` is the bin of blanks; `room` is as long
/// as the rows, or longer.
pub(super) fn part(
    table: &Binned,
    rows: &mut [u32],
    split: &Split,
    missing: usize,
    room: &mut [u32],
    threads: bool,
) -> usize {
    let also = if split.missing_left == Some(true) { missing } else { split.bin };
    let (bin, also, feature) = (split.bin as u8, also as u8, split.feature);
    let room = &mut room[..rows.len()];
    let shares = if threads { rayon::current_num_threads() } else { 1 };
    match table.columns.get(feature).map(Vec::as_slice) {
        Some(column) => Sides { of: move |row| column[row as usize], bin, also }.part(rows, room, shares),
        None => Sides { of: |row| table.row(row)[feature], bin, also }.part(rows, room, shares),
    }
}

/// A question to rows.
struct Sides<F> {
    /// The bin of a row.
    of: F,
    /// Bins up to this one go left,
    bin: u8,
    /// and this one.
    also: u8,
}

impl<F: Fn(u32) -> u8 + Sync> Sides<F> {
    fn part(&self, rows: &mut [u32], room: &mut [u32], shares: usize) -> usize {
        if shares < 2 || rows.len() < PARALLEL_ROWS {
            return self.part_alone(rows, room);
        }
        let first = shares / 2;
        let middle = rows.len() * first / shares;
        let ((low, high), (low_room, high_room)) = (rows.split_at_mut(middle), room.split_at_mut(middle));
        let low = || self.part(low, low_room, first);
        let (low, high) = rayon::join(low, || self.part(high, high_room, shares - first));
        rows[low..middle + high].rotate_left(middle - low);
        low + high
    }

    fn part_alone(&self, rows: &mut [u32], room: &mut [u32]) -> usize {
        let (mut left, mut right) = (0, 0);
        for i in 0..rows.len() {
            let row = rows[i];
            let bin = (self.of)(row);
            let goes_left = (bin <= self.bin) | (bin == self.also);
            // Written to both sides and counted on one: no branch to be guessed.
            rows[left] = row;
            room[right] = row;
            left += usize::from(goes_left);
            right += usize::from(!goes_left);
        }
        rows[left..].copy_from_slice(&room[..right]);
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learners::trees::histogram::tests::table;

    #[test]
    fn each_side_keeps_its_order_on_any_number_of_threads() {
        let (bins, twice) = table(200_000, 2);
        let (_, mut once) = table(200_000, 2);
        once.columns.clear();
        let all = (0..200_000).filter(|row| row % 3 > 0).collect::<Vec<u32>>();
        for missing_left in [Some(true), Some(false), None] {
            let split = Split { feature: 1, bin: 17, missing_left, gain: 1.0 };
            let missing = bins.missing(1);
            let goes_left = |row: &u32| {
                let bin = usize::from(twice.columns[1][*row as usize]);
                bin <= 17 || bin == missing && missing_left == Some(true)
            };
            let (left, right) = all.iter().copied().partition::<Vec<_>, _>(goes_left);
            let mut room = vec![0; all.len()];
            for (threads, table) in
                [1, 2, 5].into_iter().flat_map(|threads| [(threads, &twice), (threads, &once)])
            {
                let mut rows = all.clone();
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let count = pool.install(|| part(table, &mut rows, &split, missing, &mut room, true));
                assert_eq!(count, left.len());
                assert_eq!(rows, [&left[..], &right[..]].concat());
            }
        }
    }
}
