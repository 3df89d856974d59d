//! The graph of a [`Pipeline`]: from columns as they are in a table to the matrix that the learner sees.

use dml_core::ColumnType;

use super::graph::{
    Attribute::{Doubles, Int, Ints, Text, Texts},
    Graph, Type, Value,
};
use crate::{
    pipeline::{Code, Encoded, Pipeline},
    prepare::is_number,
};

/// An encoded column and the input that it is made of.
type Source<'a> = (&'a Encoded, Value);

/// What an input of such a column holds: numbers for all but text.
pub(super) fn input_type(r#type: ColumnType) -> Type {
    if is_number(r#type) || r#type == ColumnType::Boolean { Type::Double } else { Type::Text }
}

/// Declares an input for each feature, and gives the encoded matrix: `[N, width]`.
pub(super) fn encode(graph: &mut Graph, features: &[(String, ColumnType)], pipeline: &Pipeline) -> Value {
    let inputs: Vec<Value> =
        features.iter().map(|(name, r#type)| graph.input(name, input_type(*r#type))).collect();
    let used = pipeline.columns().iter().filter_map(|column| {
        let at = features.iter().position(|(name, _)| *name == column.name)?;
        (column.code.width() > 0).then_some((column, inputs[at]))
    });
    let used: Vec<Source> = used.collect();
    // Neighbours that are treated alike share their nodes.
    let alike = |a: &Source, b: &Source| {
        matches!(
            (&a.0.code, &b.0.code),
            (Code::Number, Code::Number) | (Code::Standard { .. }, Code::Standard { .. })
        )
    };
    let parts: Vec<Value> = used.chunk_by(alike).filter_map(|run| part(graph, run)).collect();
    join(graph, &parts)
}

/// The encoded columns of sources that are treated alike.
fn part(graph: &mut Graph, run: &[Source]) -> Option<Value> {
    let (first, input) = run.first()?;
    match &first.code {
        Code::Ignored { .. } => None,
        Code::Number => Some(numbers(graph, run)),
        Code::Standard { .. } => Some(standard(graph, run)),
        Code::OneHot { categories, other, blank } => {
            let text = text(graph, first.r#type, *input);
            Some(one_hot(graph, text, categories, *other, *blank))
        }
        Code::Places { categories, places, other } => {
            let text = text(graph, first.r#type, *input);
            Some(self::places(graph, text, categories, places, *other))
        }
    }
}

/// The values side by side.
fn join(graph: &mut Graph, values: &[Value]) -> Value {
    match values {
        [value] => *value,
        values => graph.node("Concat", values, &[("axis", Int(1))]),
    }
}

/// Numbers as they are; what is not finite is NaN.
fn numbers(graph: &mut Graph, run: &[Source]) -> Value {
    let x = join(graph, &run.iter().map(|(_, input)| *input).collect::<Vec<_>>());
    let infinite = graph.node("IsInf", &[x], &[]);
    let blank = graph.doubles(&[1], &[f64::NAN]);
    graph.node("Where", &[infinite, blank, x], &[])
}

/// Numbers less their mean, in standard deviations; 0 for what is not finite.
fn standard(graph: &mut Graph, run: &[Source]) -> Value {
    let x = join(graph, &run.iter().map(|(_, input)| *input).collect::<Vec<_>>());
    let parameters = run.iter().filter_map(|(column, _)| match column.code {
        Code::Standard { mean, std } => Some((mean, std)),
        Code::Ignored { .. } | Code::Number | Code::OneHot { .. } | Code::Places { .. } => None,
    });
    let (mean, std): (Vec<f64>, Vec<f64>) = parameters.unzip();
    let mean = graph.doubles(&[1, mean.len()], &mean);
    let std = graph.doubles(&[1, run.len()], &std);
    let centred = graph.node("Sub", &[x, mean], &[]);
    let scaled = graph.node("Div", &[centred, std], &[]);
    let (nan, infinite) = (graph.node("IsNaN", &[x], &[]), graph.node("IsInf", &[x], &[]));
    let blank = graph.node("Or", &[nan, infinite], &[]);
    let zero = graph.doubles(&[1], &[0.0]);
    graph.node("Where", &[blank, zero, scaled], &[])
}

/// A category as text, "" for a blank: booleans come as 1 and 0.
fn text(graph: &mut Graph, r#type: ColumnType, input: Value) -> Value {
    if r#type != ColumnType::Boolean {
        return input;
    }
    let attributes = [
        ("keys_tensor", Doubles(&[0.0, 1.0])),
        ("values_strings", Texts(&["false", "true"])),
        ("default_string", Text("")),
    ];
    graph.ml_node("LabelEncoder", &[input], &attributes)
}

/// A column a category, then that of all others, then that of blanks.
fn one_hot(graph: &mut Graph, text: Value, categories: &[String], other: bool, blank: bool) -> Value {
    let count = categories.len();
    let column = |there: bool, at: usize| if there { at as i64 } else { -1 };
    let keys: Vec<&str> = categories.iter().map(String::as_str).chain([""]).collect();
    let columns: Vec<i64> = (0..count as i64).chain([column(blank, count + usize::from(other))]).collect();
    let attributes = [
        ("keys_strings", Texts(&keys)),
        ("values_int64s", Ints(&columns)),
        ("default_int64", Int(column(other, count))),
    ];
    let place = graph.ml_node("LabelEncoder", &[text], &attributes);
    let all: Vec<i64> = (0..(count + usize::from(other) + usize::from(blank)) as i64).collect();
    let all = graph.integers(&[1, all.len()], &all);
    let hot = graph.node("Equal", &[place, all], &[]);
    graph.node("Cast", &[hot], &[("to", Int(Type::Double as i64))])
}

/// The place of the category; NaN for a blank.
fn places(
    graph: &mut Graph,
    text: Value,
    categories: &[String],
    places: &[u32],
    other: Option<u32>,
) -> Value {
    let known = categories.iter().zip(places).map(|(category, place)| (category.as_str(), f64::from(*place)));
    let (keys, values): (Vec<&str>, Vec<f64>) = known.chain([("", f64::NAN)]).unzip();
    let attributes = [
        ("keys_strings", Texts(&keys)),
        ("values_tensor", Doubles(&values)),
        ("default_tensor", Doubles(&[other.map_or(f64::NAN, f64::from)])),
    ];
    graph.ml_node("LabelEncoder", &[text], &attributes)
}
