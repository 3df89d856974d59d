//! Trials as a table, for other programs.

use std::{collections::BTreeSet, sync::Arc};

use arrow_array::{ArrayRef, Float64Array, RecordBatch, StringArray, UInt32Array};

use super::Trial;

/// A row a trial, in the order given: its rank and number, the kind, the score, how much it has learned, a column for each
/// parameter that any of them names, and why it failed.
pub fn table(metric: &str, trials: &[&Trial]) -> RecordBatch {
    let numbers = |of: fn(&Trial) -> u32| -> ArrayRef {
        Arc::new(trials.iter().map(|trial| of(trial)).collect::<UInt32Array>())
    };
    let words = |of: &dyn Fn(&Trial) -> Option<String>| -> ArrayRef {
        Arc::new(trials.iter().map(|trial| of(trial)).collect::<StringArray>())
    };
    let ranks: UInt32Array = (1..).take(trials.len()).collect();
    let scores: Float64Array = trials.iter().map(|trial| trial.score).collect();
    let mut columns: Vec<(String, ArrayRef)> = vec![
        ("rank".into(), Arc::new(ranks)),
        ("trial".into(), numbers(|trial| trial.number)),
        ("kind".into(), words(&|trial| Some(trial.kind.clone()))),
        (metric.into(), Arc::new(scores)),
        ("rounds".into(), numbers(|trial| trial.rounds)),
        ("of_rounds".into(), numbers(|trial| trial.of_rounds)),
    ];
    let names: BTreeSet<&String> = trials.iter().flat_map(|trial| trial.params.0.keys()).collect();
    for name in names {
        let value = |trial: &Trial| trial.params.0.get(name).map(ToString::to_string);
        columns.push((format!("param.{name}"), words(&value)));
    }
    columns.push(("error".into(), words(&|trial| trial.error.clone())));
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
        .expect("all columns have a row a trial")
}
