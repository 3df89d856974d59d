//! Learning curves: the loss (up) after so many steps (right), of rows that the model learned from and of rows that it
//! has not seen.

use super::{
    Frame,
    axes::{Axes, Range},
    svg::{Anchor, Svg},
};
use crate::metrics::{LearningCurve, LearningPoint};

pub(super) fn draw(svg: &mut Svg, frame: Frame, curve: &LearningCurve) {
    let steps = |point: &LearningPoint| f64::from(point.steps);
    let losses = curve.points.iter().flat_map(|point| [point.train, point.test]);
    let axes = Axes {
        frame,
        x: Range::around(curve.points.iter().map(steps).chain([0.0])),
        y: Range::around(losses),
    };
    axes.draw(svg, "Learning curve", "iterations, or trees", &curve.metric);
    let (right, top) = (frame.x + frame.width, frame.y + 20.0);
    let mut line = |y: f64, class: &str, rows: &str, loss: fn(&LearningPoint) -> f64| {
        svg.path(class, curve.points.iter().map(|point| axes.at(steps(point), loss(point))));
        svg.line(class, [right - 24.0, y - 4.0], [right - 8.0, y - 4.0]);
        let last = curve.points.last().map(loss).map_or(String::new(), |loss| format!(": {}", short(loss)));
        svg.text(right - 30.0, y, Anchor::End, "", &format!("rows {rows}{last}"));
    };
    line(top, "curve c1", "not seen", |point| point.test);
    line(top + 17.0, "curve c0", "learned from", |point| point.train);
}

/// A loss with about five digits.
fn short(loss: f64) -> String {
    if loss >= 1000.0 { format!("{loss:.0}") } else { format!("{loss:.4}") }
}
