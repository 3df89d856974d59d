//! Pictures of how good a model is, and of the trials of a study, as SVG: of a classification its ROC curves and confusion matrix, of a regression what
//! it predicts against what is true, and the errors; the learning curve of what is built up in steps. The same evaluation gives the same bytes.
//!
//! A picture is one file without fonts, scripts or links. Its colours follow the reader's choice of light or dark.
//! Up to [`CURVES`] curves are drawn, those of the classes that are told apart worst, and cells have labels and numbers
//! for up to [`LABELS`] classes.

mod axes;
mod confusion;
mod learning;
mod roc;
mod scatter;
mod study;
mod svg;

pub use study::draw_study;
use svg::{Anchor, Svg};

use crate::metrics::{Curves, Report};

/// So many curves can be told apart by their colours.
pub const CURVES: usize = 8;

/// So many classes have room for a label each.
pub const LABELS: usize = 12;

/// Where a part of a picture is: left, top, width and height in pixels.
#[derive(Debug, Clone, Copy)]
struct Frame {
    x: f64,
    y: f64,
    width: f64,
    height: f64,
}

const LEFT: Frame = Frame { x: 78.0, y: 74.0, width: 340.0, height: 320.0 };
const RIGHT: Frame = Frame { x: 528.0, y: 74.0, width: 340.0, height: 320.0 };
const BELOW: Frame = Frame { x: 78.0, y: 484.0, width: 790.0, height: 240.0 };

/// The picture of what was measured; none if there is nothing to draw.
pub fn draw(title: &str, report: &Report, curves: &Curves) -> Option<String> {
    let height = if curves.learning.is_some() { 790.0 } else { 460.0 };
    let mut svg = Svg::new(908.0, height, title);
    svg.text(LEFT.x, 30.0, Anchor::Start, "title", title);
    if !curves.predicted.is_empty() {
        scatter::predicted(&mut svg, LEFT, &curves.predicted);
        scatter::residuals(&mut svg, RIGHT, &curves.predicted);
    } else if !curves.roc.is_empty() || report.confusion.is_some() {
        roc::draw(&mut svg, LEFT, &curves.roc);
        if let Some(confusion) = &report.confusion {
            confusion::draw(&mut svg, RIGHT, confusion);
        }
    } else {
        return None;
    }
    if let Some(curve) = &curves.learning {
        learning::draw(&mut svg, BELOW, curve);
    }
    Some(svg.finish())
}

#[cfg(test)]
mod tests;
