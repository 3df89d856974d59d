//! The confusion matrix: true classes down, predicted ones across. A cell is as strong as its part of its true class.

use super::{
    Frame, LABELS,
    svg::{Anchor, Svg, cut},
};
use crate::metrics::Confusion;

/// How many pixels a letter takes, or a little less.
const LETTER: f64 = 7.0;

pub(super) fn draw(svg: &mut Svg, frame: Frame, confusion: &Confusion) {
    let Frame { x, y, width, height } = frame;
    let count = confusion.labels.len().max(1) as f64;
    let cell = [width / count, height / count];
    let labelled = confusion.labels.len() <= LABELS;
    svg.text(x, y - 12.0, Anchor::Start, "head", "Confusion matrix, in rows");
    for (i, row) in confusion.matrix.iter().enumerate() {
        let rows: u64 = row.iter().sum();
        for (j, n) in row.iter().enumerate() {
            let at = [x + j as f64 * cell[0], y + i as f64 * cell[1]];
            let part = *n as f64 / rows.max(1) as f64;
            svg.rect("cell", at, cell, part * 0.7);
            if labelled {
                let middle = [at[0] + cell[0] / 2.0, at[1] + cell[1] / 2.0 + 4.0];
                svg.text(middle[0], middle[1], Anchor::Middle, "", &short(*n, cell[0]));
            }
        }
    }
    svg.rect("frame", [x, y], [width, height], 1.0);
    if labelled {
        for (i, label) in confusion.labels.iter().enumerate() {
            let middle = (i as f64 + 0.5) * cell[1] + y + 4.0;
            svg.text(x - 6.0, middle, Anchor::End, "faint", &cut(label, 8));
            let most = ((cell[0] / LETTER) as usize).max(2);
            let middle = (i as f64 + 0.5) * cell[0] + x;
            svg.text(middle, y + height + 16.0, Anchor::Middle, "faint", &cut(label, most));
        }
    }
    svg.text(x + width / 2.0, y + height + 36.0, Anchor::Middle, "", "predicted");
    svg.upwards(x - 70.0, y + height / 2.0, "", "true");
}

/// A count that fits into a cell.
fn short(count: u64, width: f64) -> String {
    let exact = count.to_string();
    if exact.len() as f64 * LETTER <= width {
        return exact;
    }
    match count {
        0..1_000 => exact,
        1_000..1_000_000 => format!("{}k", count / 1_000),
        1_000_000..1_000_000_000 => format!("{}M", count / 1_000_000),
        _ => format!("{}G", count / 1_000_000_000),
    }
}
