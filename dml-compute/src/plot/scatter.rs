//! Rows as points: what is predicted against what is true, and how far off it is.

use super::{
    Frame,
    axes::{Axes, Range},
    svg::Svg,
};

/// True and predicted values on one scale: on the line, a prediction is right.
pub(super) fn predicted(svg: &mut Svg, frame: Frame, points: &[[f64; 2]]) {
    let range = Range::around(points.iter().flatten().copied());
    let axes = Axes { frame, x: range, y: range };
    let head = format!("Predicted against true, {} rows", points.len());
    axes.draw(svg, &head, "true", "predicted");
    if let Some([from, to]) = axes.diagonal() {
        svg.line("guide", from, to);
    }
    points.iter().for_each(|[truth, value]| svg.dot(axes.at(*truth, *value)));
}

/// What is left of the truth after the prediction: a shape here is something that the model has not learned.
pub(super) fn residuals(svg: &mut Svg, frame: Frame, points: &[[f64; 2]]) {
    let left = |[truth, value]: &[f64; 2]| truth - value;
    let axes = Axes {
        frame,
        x: Range::around(points.iter().map(|[_, value]| *value)),
        y: Range::around(points.iter().map(left).chain([0.0])),
    };
    axes.draw(svg, "Residuals", "predicted", "true − predicted");
    let [from, to] = axes.zero();
    svg.line("guide", from, to);
    points.iter().for_each(|point| svg.dot(axes.at(point[1], left(point))));
}
