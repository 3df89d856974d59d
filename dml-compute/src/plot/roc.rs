//! Receiver operating characteristics: which part of a class is found (up), at the price of which part of all other rows
//! being taken for it (right).

use super::{
    CURVES, Frame,
    axes::{Axes, Range},
    svg::{Anchor, Svg, cut},
};
use crate::metrics::RocCurve;

pub(super) fn draw(svg: &mut Svg, frame: Frame, curves: &[RocCurve]) {
    let axes = Axes { frame, x: Range::UNIT, y: Range::UNIT };
    let head = if curves.len() > 1 { "ROC, each class against all others" } else { "ROC" };
    axes.draw(svg, head, "false positive rate", "true positive rate");
    if let Some([from, to]) = axes.diagonal() {
        svg.line("guide", from, to);
    }
    let mut worst: Vec<&RocCurve> = curves.iter().collect();
    worst.sort_by(|a, b| a.auc.total_cmp(&b.auc));
    let shown = &worst[..worst.len().min(CURVES)];
    let (right, mut y) = (frame.x + frame.width, frame.y + frame.height - 12.0);
    if curves.len() > shown.len() {
        let more = format!("and {} that are told apart better", curves.len() - shown.len());
        svg.text(right - 10.0, y, Anchor::End, "faint", &more);
        y -= 17.0;
    }
    for (k, curve) in shown.iter().enumerate() {
        let class = format!("curve c{k}");
        svg.path(&class, curve.points.iter().map(|[x, y]| axes.at(*x, *y)));
        let words = format!("{}: AUC {:.4}", cut(&curve.class, 18), curve.auc);
        svg.line(&class, [right - 24.0, y - 4.0], [right - 8.0, y - 4.0]);
        svg.text(right - 30.0, y, Anchor::End, "", &words);
        y -= 17.0;
    }
}
