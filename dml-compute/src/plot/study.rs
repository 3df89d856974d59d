//! A study: each trial as a line through its parameters to its score (parallel coordinates; Inselberg 1985), and what part
//! each parameter has in how the scores differ.

use std::collections::{BTreeMap, BTreeSet};

use dml_core::Value;

use super::{
    Frame,
    svg::{Anchor, Svg, cut},
};
use crate::search::Trial;

/// So many trials are drawn, the best ones.
const LINES: usize = 300;

/// One in so many trials stands out.
const BEST: usize = 10;

/// Where a line passes a parameter that its kind does not have: below.
const NOWHERE: f64 = -0.07;

/// So many parameters have room.
const AXES: usize = 10;

const LINES_AT: Frame = Frame { x: 78.0, y: 74.0, width: 752.0, height: 320.0 };
const BARS_AT: Frame = Frame { x: 300.0, y: 504.0, width: 520.0, height: 20.0 };

/// Where the values of a parameter stand, from 0 to 1.
struct Axis {
    name: String,
    /// Numbers from the one to the other, perhaps by their logarithms.
    range: Option<(f64, f64, bool)>,
    /// Else words, one above the other.
    words: Vec<String>,
}

/// The picture of trials, the best first; none if there are fewer than two that can be drawn.
pub fn draw_study(
    title: &str,
    metric: &str,
    trials: &[Trial],
    importance: &BTreeMap<String, f64>,
) -> Option<String> {
    let scored: Vec<&Trial> = trials.iter().filter(|trial| trial.score.is_some()).take(LINES).collect();
    if scored.len() < 2 {
        return None;
    }
    let names: BTreeSet<&String> = scored.iter().flat_map(|trial| trial.params.0.keys()).collect();
    let axes = names.into_iter().filter_map(|name| Axis::of_param(name, &scored)).take(AXES);
    let scores: Vec<f64> = scored.iter().filter_map(|trial| trial.score).collect();
    let axes: Vec<Axis> = axes.chain([Axis::of_numbers(metric, &scores)]).collect();
    let mut shares: Vec<_> = importance.iter().collect();
    shares.sort_by(|a, b| b.1.total_cmp(a.1));
    shares.truncate(AXES);
    let below = if shares.is_empty() { 0.0 } else { 56.0 + BARS_AT.height * shares.len() as f64 };
    let mut svg = Svg::new(908.0, 464.0 + below, title);
    svg.text(LINES_AT.x, 30.0, Anchor::Start, "title", title);
    let at = |axis: usize, place: f64| {
        let x = LINES_AT.x + LINES_AT.width * axis as f64 / (axes.len() - 1).max(1) as f64;
        [x, LINES_AT.y + LINES_AT.height * (1.0 - place)]
    };
    let best = scored.len().div_ceil(BEST);
    // The best last, above the others.
    for (rank, trial) in scored.iter().enumerate().rev() {
        let class = if rank < best { "curve c1" } else { "trial" };
        let places = axes.iter().enumerate().map(|(a, axis)| {
            let place = match a + 1 == axes.len() {
                true => trial.score.and_then(|score| axis.place(&Value::Float(score))),
                false => trial.params.0.get(&axis.name).and_then(|value| axis.place(value)),
            };
            at(a, place.unwrap_or(NOWHERE))
        });
        svg.path(class, places);
    }
    for (a, axis) in axes.iter().enumerate() {
        svg.line("frame axis", at(a, 0.0), at(a, 1.0));
        let [x, bottom] = at(a, 0.0);
        // Long names of neighbours stand one below the other.
        svg.text(x, bottom + 40.0 + 16.0 * (a % 2) as f64, Anchor::Middle, "head", &cut(&axis.name, 24));
        for (place, word) in axis.marks() {
            let [x, y] = at(a, place);
            let (y, anchor) = match place {
                0.0 => (y + 15.0, Anchor::Middle),
                1.0 => (y - 6.0, Anchor::Middle),
                _ => (y + 4.0, Anchor::Start),
            };
            let x = if matches!(anchor, Anchor::Start) { x + 5.0 } else { x };
            svg.text(x, y, anchor, "faint", &cut(&word, 16));
        }
    }
    if !shares.is_empty() {
        svg.text(
            LINES_AT.x,
            BARS_AT.y - 14.0,
            Anchor::Start,
            "head",
            "What each parameter has in how the scores differ",
        );
    }
    for (row, (name, share)) in shares.into_iter().enumerate() {
        let y = BARS_AT.y + BARS_AT.height * row as f64;
        svg.text(BARS_AT.x - 8.0, y + 13.0, Anchor::End, "", &cut(name, 34));
        svg.rect("cell", [BARS_AT.x, y + 3.0], [BARS_AT.width * share.clamp(0.0, 1.0), 13.0], 0.8);
        let end = BARS_AT.x + BARS_AT.width * share.clamp(0.0, 1.0) + 6.0;
        svg.text(end, y + 13.0, Anchor::Start, "faint", &format!("{:.0} %", share * 100.0));
    }
    Some(svg.finish())
}

impl Axis {
    /// None if all trials have the same value.
    fn of_param(name: &str, trials: &[&Trial]) -> Option<Self> {
        let values: Vec<&Value> = trials.iter().filter_map(|trial| trial.params.0.get(name)).collect();
        if values.windows(2).all(|two| two[0] == two[1]) {
            return None;
        }
        let numbers: Option<Vec<f64>> = values.iter().map(|value| number(value)).collect();
        Some(match numbers {
            Some(numbers) => Self::of_numbers(name, &numbers),
            None => {
                let words: BTreeSet<String> = values.iter().map(ToString::to_string).collect();
                Self { name: name.into(), range: None, words: words.into_iter().collect() }
            }
        })
    }

    fn of_numbers(name: &str, numbers: &[f64]) -> Self {
        let low = numbers.iter().copied().fold(f64::INFINITY, f64::min);
        let high = numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let log = low > 0.0 && high / low > 20.0;
        Self { name: name.into(), range: Some((low, high, log)), words: Vec::new() }
    }

    fn place(&self, value: &Value) -> Option<f64> {
        let Some((low, high, log)) = self.range else {
            let word = value.to_string();
            let place = self.words.iter().position(|other| *other == word)?;
            return Some(place as f64 / (self.words.len() - 1).max(1) as f64);
        };
        let scale = |x: f64| if log { x.ln() } else { x };
        let width = scale(high) - scale(low);
        let place = (scale(number(value)?) - scale(low)) / width;
        Some(if width > 0.0 { place.clamp(0.0, 1.0) } else { 0.5 })
    }

    /// Texts along the axis.
    fn marks(&self) -> Vec<(f64, String)> {
        if let Some((low, high, _)) = self.range {
            return vec![(0.0, short(low)), (1.0, short(high))];
        }
        let last = (self.words.len() - 1).max(1) as f64;
        self.words.iter().enumerate().map(|(place, word)| (place as f64 / last, word.clone())).collect()
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Int(value) => Some(*value as f64),
        Value::Float(value) => Some(*value),
        Value::Bool(_) | Value::Text(_) => None,
    }
}

/// A number with about four digits.
fn short(value: f64) -> String {
    let size = value.abs();
    match () {
        () if value.fract() == 0.0 && size < 1e6 => format!("{value}"),
        () if !(1e-3..1e6).contains(&size) => format!("{value:.2e}"),
        () => {
            let digits = (3 - size.log10().floor() as i32).clamp(0, 6) as usize;
            let text = format!("{value:.digits$}");
            if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').into() } else { text }
        }
    }
}
