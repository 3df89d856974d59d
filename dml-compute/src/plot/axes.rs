//! From numbers to places: ranges with round marks.

use super::{
    Frame,
    svg::{Anchor, Svg},
};

/// The range of numbers along one side of a frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range {
    low: f64,
    high: f64,
    step: f64,
}

impl Range {
    /// From round mark to round mark, around all of the numbers.
    pub(super) fn around(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) =
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
        let width = high - low;
        // Of one number alone, or of numbers that hardly differ.
        let width = if width > 1e-9 * high.abs() { width } else { high.abs().max(1.0) };
        let step = round_step(width / 5.0);
        let (low, high) = ((low / step).floor() * step, (high / step).ceil() * step);
        Self { low, high: if high > low { high } else { low + step }, step }
    }

    /// From 0 to 1.
    pub(super) const UNIT: Self = Self { low: 0.0, high: 1.0, step: 0.2 };

    fn place(&self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low)
    }

    fn marks(&self) -> impl Iterator<Item = (f64, String)> {
        let Self { low, high, step } = *self;
        let count = ((high - low) / step).round() as usize;
        (0..=count).map(move |i| {
            // Counted from 0 and not from the end, so that 0 is 0.
            let value = ((low / step).round() + i as f64) * step;
            (value, label(value, step))
        })
    }
}

/// 1, 2 or 5 times a power of ten, at least so much.
fn round_step(least: f64) -> f64 {
    let power = libm::pow(10.0, libm::floor(libm::log10(least)));
    [1.0, 2.0, 5.0].into_iter().map(|n| n * power).find(|step| *step >= least).unwrap_or(10.0 * power)
}

/// A mark with as many decimals as the step has.
fn label(value: f64, step: f64) -> String {
    if value != 0.0 && !(1e-4..1e6).contains(&value.abs().max(step)) {
        return format!("{value:.1e}");
    }
    let decimals = (-libm::floor(libm::log10(step) + 1e-9)).max(0.0) as usize;
    format!("{value:.decimals$}")
}

/// A frame with numbers along two sides.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axes {
    pub(super) frame: Frame,
    pub(super) x: Range,
    pub(super) y: Range,
}

impl Axes {
    /// Where a point is drawn.
    pub(super) fn at(&self, x: f64, y: f64) -> [f64; 2] {
        let Frame { x: left, y: top, width, height } = self.frame;
        [left + self.x.place(x) * width, top + (1.0 - self.y.place(y)) * height]
    }

    /// The ends of the line y = x within the frame; none if it is not there.
    pub(super) fn diagonal(&self) -> Option<[[f64; 2]; 2]> {
        let (low, high) = (self.x.low.max(self.y.low), self.x.high.min(self.y.high));
        (low < high).then(|| [self.at(low, low), self.at(high, high)])
    }

    /// The ends of the line y = 0.
    pub(super) fn zero(&self) -> [[f64; 2]; 2] {
        [self.at(self.x.low, 0.0), self.at(self.x.high, 0.0)]
    }

    /// Frame, marks and words.
    pub(super) fn draw(&self, svg: &mut Svg, head: &str, x: &str, y: &str) {
        let Frame { x: left, y: top, width, height } = self.frame;
        svg.text(left, top - 12.0, Anchor::Start, "head", head);
        for (value, label) in self.x.marks() {
            let [at, _] = self.at(value, self.y.low);
            svg.line("grid", [at, top], [at, top + height]);
            svg.text(at, top + height + 16.0, Anchor::Middle, "faint", &label);
        }
        for (value, label) in self.y.marks() {
            let [_, at] = self.at(self.x.low, value);
            svg.line("grid", [left, at], [left + width, at]);
            svg.text(left - 6.0, at + 4.0, Anchor::End, "faint", &label);
        }
        svg.rect("frame", [left, top], [width, height], 1.0);
        svg.text(left + width / 2.0, top + height + 36.0, Anchor::Middle, "", x);
        svg.upwards(left - 60.0, top + height / 2.0, "", y);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_round_and_hold_all() {
        let marks = |values: &[f64]| {
            Range::around(values.iter().copied()).marks().map(|(_, label)| label).collect::<Vec<_>>()
        };
        assert_eq!(marks(&[-0.3, 1.1]), ["-0.5", "0.0", "0.5", "1.0", "1.5"]);
        assert_eq!(marks(&[21_000.0, 183_000.0]), ["0", "50000", "100000", "150000", "200000"]);
        assert_eq!(marks(&[7.0]), ["6", "8"]);
        assert_eq!(marks(&[0.0]), ["0.0", "0.2"]);
        assert_eq!(Range::UNIT.marks().last(), Some((1.0, "1.0".to_string())));
    }
}
