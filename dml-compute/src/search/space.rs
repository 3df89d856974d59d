//! Points of a search space: each dimension seen as the numbers from 0 to 1.

use dml_core::{Dimension, Params, Space, StudySpec, Value};

use super::Suggestion;

/// The coordinate that chooses among spaces; those of their dimensions follow.
const WHICH: u64 = 0;

/// How many points there are in all; none if a dimension is a range of numbers.
pub fn size(spaces: &[Space]) -> Option<u64> {
    spaces.iter().try_fold(0_u64, |sum, space| Some(sum.saturating_add(points(space)?)))
}

fn points(space: &Space) -> Option<u64> {
    space
        .dimensions
        .values()
        .try_fold(1_u64, |product, dimension| values(dimension).map(|values| product.saturating_mul(values)))
}

/// How many values a dimension has.
pub(super) fn values(dimension: &Dimension) -> Option<u64> {
    match dimension {
        Dimension::Values(values) => Some(values.len() as u64),
        Dimension::Int(low, high) | Dimension::LogInt(low, high) => {
            Some(high.saturating_sub(*low).max(0).unsigned_abs().saturating_add(1))
        }
        Dimension::Uniform(..) | Dimension::Log(..) => None,
    }
}

/// The point at a place in the order of all points: the last dimension changes fastest.
pub(super) fn nth(spec: &StudySpec, number: u32, place: u64) -> Option<Suggestion> {
    let mut place = place;
    for (which, space) in spec.spaces.iter().enumerate() {
        let points = points(space)?;
        if place >= points {
            place -= points;
            continue;
        }
        let mut params = space.fixed.clone();
        for (name, dimension) in space.dimensions.iter().rev() {
            let values = values(dimension)?;
            params.0.insert(name.clone(), value(dimension, place % values));
            place /= values;
        }
        return Some(Suggestion { number, space: which as u32, params });
    }
    None
}

fn value(dimension: &Dimension, place: u64) -> Value {
    match dimension {
        Dimension::Values(values) => values[place as usize].clone(),
        Dimension::Int(low, _) | Dimension::LogInt(low, _) => Value::Int(low.saturating_add_unsigned(place)),
        Dimension::Uniform(low, _) | Dimension::Log(low, _) => Value::Float(*low),
    }
}

/// The point with such coordinates from 0 to below 1.
pub(super) fn at(spec: &StudySpec, number: u32, coordinate: impl Fn(u64) -> f64) -> Suggestion {
    let which = part_of(coordinate(WHICH), spec.spaces.len() as u64) as usize;
    let space = &spec.spaces[which];
    let dimensions = space.dimensions.iter().zip(WHICH + 1..);
    let sought = dimensions.map(|((name, dimension), d)| (name.clone(), decode(dimension, coordinate(d))));
    let params = Params(space.fixed.0.clone().into_iter().chain(sought).collect());
    Suggestion { number, space: which as u32, params }
}

/// Which of so many equal parts a number from 0 to 1 lies in.
fn part_of(x: f64, parts: u64) -> u64 {
    ((x * parts as f64) as u64).min(parts.saturating_sub(1))
}

/// The bounds of a dimension, and whether they are of a logarithm. Whole numbers have half a step around each.
fn bounds(dimension: &Dimension) -> (f64, f64) {
    match *dimension {
        Dimension::Values(ref values) => (0.0, values.len() as f64),
        Dimension::Uniform(low, high) => (low, high),
        Dimension::Log(low, high) => (libm::log(low), libm::log(high)),
        Dimension::Int(low, high) => (low as f64 - 0.5, high as f64 + 0.5),
        Dimension::LogInt(low, high) => (libm::log(low as f64 - 0.5), libm::log(high as f64 + 0.5)),
    }
}

/// The value at a number from 0 to 1.
pub(super) fn decode(dimension: &Dimension, x: f64) -> Value {
    let (from, to) = bounds(dimension);
    let at = from + x.clamp(0.0, 1.0) * (to - from);
    match *dimension {
        Dimension::Values(ref values) => values[part_of(x, values.len() as u64) as usize].clone(),
        Dimension::Uniform(low, high) => Value::Float(at.clamp(low, high)),
        Dimension::Log(low, high) => Value::Float(libm::exp(at).clamp(low, high)),
        Dimension::Int(low, high) => Value::Int((libm::round(at) as i64).clamp(low, high)),
        Dimension::LogInt(low, high) => Value::Int((libm::round(libm::exp(at)) as i64).clamp(low, high)),
    }
}

/// Where a value lies, from 0 to 1; the middle if it is none of this dimension.
pub(super) fn encode(dimension: &Dimension, value: Option<&Value>) -> f64 {
    let (from, to) = bounds(dimension);
    let at = match (dimension, value) {
        (Dimension::Values(values), Some(value)) => {
            values.iter().position(|other| other == value).map(|place| place as f64 + 0.5)
        }
        (Dimension::Uniform(..) | Dimension::Int(..), Some(Value::Float(v))) => Some(*v),
        (Dimension::Uniform(..) | Dimension::Int(..), Some(Value::Int(v))) => Some(*v as f64),
        (Dimension::Log(..) | Dimension::LogInt(..), Some(Value::Float(v))) => Some(libm::log(*v)),
        (Dimension::Log(..) | Dimension::LogInt(..), Some(Value::Int(v))) => Some(libm::log(*v as f64)),
        (_, Some(Value::Bool(_) | Value::Text(_)) | None) => None,
    };
    let width = to - from;
    at.filter(|_| width > 0.0).map_or(0.5, |at| ((at - from) / width).clamp(0.0, 1.0))
}
