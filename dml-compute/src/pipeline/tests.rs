use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, Float64Array, StringArray};
use dml_core::{Column, Dataset, Digest, Split, Summary, Task, job::Problem};

use super::*;

const NAN: f64 = f64::NAN;

type Row<'a> = (Option<f64>, Option<&'a str>, Option<bool>, f64);

/// Columns by name: a is a number, b a text, c a boolean, y the target.
fn table(rows: &[Row]) -> RecordBatch {
    let a: ArrayRef = Arc::new(rows.iter().map(|row| row.0).collect::<Float64Array>());
    let b: ArrayRef = Arc::new(rows.iter().map(|row| row.1).collect::<StringArray>());
    let c: ArrayRef = Arc::new(rows.iter().map(|row| row.2).collect::<BooleanArray>());
    let y: ArrayRef = Arc::new(rows.iter().map(|row| Some(row.3)).collect::<Float64Array>());
    RecordBatch::try_from_iter([("y", y), ("c", c), ("b", b), ("a", a)]).unwrap()
}

fn profile(batch: &RecordBatch, task: Task) -> Profile {
    let types = [ColumnType::Float, ColumnType::Text, ColumnType::Boolean, ColumnType::Float];
    let column = |(name, r#type): (&str, ColumnType)| Column {
        name: name.into(),
        r#type,
        nulls: 0,
        summary: Summary::Blank,
    };
    let columns = ["a", "b", "c", "y"].into_iter().zip(types).map(column).collect();
    let dataset = Dataset { rows: 0, columns, chunks: Vec::new() };
    let features = ["a", "b", "c"].map(String::from).to_vec();
    let problem = Problem { task, dataset: Digest::of(b""), target: "y".into(), features };
    let mut profile = Profile::new(&dataset, &problem, &Split::All, 0).unwrap();
    profile.add(batch, 0, &Split::All).unwrap();
    profile
}

fn trained() -> RecordBatch {
    table(&[
        (Some(1.0), Some("red"), Some(true), 9.0),
        (Some(3.0), Some("green"), Some(false), 1.0),
        (None, Some("red"), Some(true), 8.0),
        (Some(5.0), None, Some(false), 0.0),
    ])
}

fn unseen() -> RecordBatch {
    table(&[(None, Some("blue"), None, 0.0), (Some(3.0), None, Some(true), 0.0)])
}

fn rows(x: &Array2<f64>) -> Vec<Vec<f64>> {
    x.rows().into_iter().map(|row| row.to_vec()).collect()
}

#[test]
fn dense_has_no_blanks_and_a_column_a_category() {
    let pipeline = Pipeline::new(&profile(&trained(), Task::Regression), Encoding::Dense).unwrap();
    assert_eq!(pipeline.names(), ["a", "b=green", "b=red", "b=(blank)", "c=false", "c=true"]);
    assert_eq!((0..7).map(|i| pipeline.source(i)).collect::<Vec<_>>(), [0, 1, 1, 1, 2, 2, 3]);
    let z = (2.0 / (8.0f64 / 3.0).sqrt()).abs();
    let x = pipeline.encode(&trained()).unwrap();
    assert_eq!(
        rows(&x),
        [
            [-z, 0.0, 1.0, 0.0, 0.0, 1.0],
            [0.0, 1.0, 0.0, 0.0, 1.0, 0.0],
            [0.0, 0.0, 1.0, 0.0, 0.0, 1.0],
            [z, 0.0, 0.0, 1.0, 1.0, 0.0],
        ]
    );
    let x = pipeline.encode(&unseen()).unwrap();
    assert_eq!(rows(&x), [[0.0; 6], [0.0, 0.0, 0.0, 1.0, 0.0, 1.0]]);
}

#[test]
fn codes_order_categories_by_their_target() {
    for task in [Task::Regression, Task::Classification] {
        let pipeline = Pipeline::new(&profile(&trained(), task), Encoding::Codes).unwrap();
        assert_eq!(pipeline.names(), ["a", "b", "c"]);
        let x = pipeline.encode(&trained()).unwrap();
        assert_eq!(x.column(1).to_vec()[..3], [1.0, 0.0, 1.0], "green has the lower target");
        assert_eq!(x.column(2), ndarray::arr1(&[1.0, 0.0, 1.0, 0.0]));
        assert!(x[[2, 0]].is_nan() && x[[3, 1]].is_nan());
        let x = pipeline.encode(&unseen()).unwrap();
        assert!(x[[0, 0]].is_nan() && x[[0, 1]].is_nan() && x[[0, 2]].is_nan());
    }
}

#[test]
fn the_sample_is_encoded_as_the_table_is() {
    for encoding in [Encoding::Dense, Encoding::Codes] {
        let profile = profile(&trained(), Task::Regression);
        let pipeline = Pipeline::new(&profile, encoding).unwrap();
        let bits = |x: Array2<f64>| x.mapv(f64::to_bits);
        assert_eq!(bits(pipeline.encode_sample(&profile)), bits(pipeline.encode(&trained()).unwrap()));
        let bytes = postcard::to_allocvec(&pipeline).unwrap();
        assert_eq!(postcard::from_bytes::<Pipeline>(&bytes).unwrap(), pipeline);
    }
}

/// `distinct` texts with their number as the target; those that get no code of their own are rarer.
fn many(distinct: usize) -> RecordBatch {
    let texts: Vec<String> = (0..distinct).map(|i| format!("{i:03}")).collect();
    let of = |i: usize| {
        let rows = if i < MAX_CODES { 3 } else { 2 };
        std::iter::repeat_n((None, Some(texts[i].as_str()), None, i as f64), rows)
    };
    table(&(0..distinct).flat_map(of).collect::<Vec<_>>())
}

#[test]
fn the_rarer_categories_share_a_column_or_a_place() {
    let batch = many(MAX_CODES + 2);
    let new = table(&[(None, Some("new"), None, 0.0), (None, Some("064"), None, 0.0)]);
    let profile = profile(&batch, Task::Regression);
    let dense = Pipeline::new(&profile, Encoding::Dense).unwrap();
    assert_eq!(dense.width(), MAX_ONE_HOT + 1);
    assert_eq!(dense.names()[MAX_ONE_HOT - 1..], ["b=063", "b=(other)"]);
    let x = dense.encode(&new).unwrap();
    assert!(x.rows().into_iter().all(|row| row[MAX_ONE_HOT] == 1.0 && row.sum() == 1.0));
    let codes = Pipeline::new(&profile, Encoding::Codes).unwrap();
    let x = codes.encode(&batch).unwrap();
    assert_eq!(x.iter().copied().fold(NAN, f64::max), MAX_CODES as f64, "two share the last place");
    assert_eq!(codes.encode(&new).unwrap(), ndarray::arr2(&[[MAX_CODES as f64], [64.0]]));
}

#[test]
fn columns_that_tell_nothing_are_ignored_with_a_reason() {
    let names: Vec<String> = (0..60).map(|i| i.to_string()).collect();
    let of = |i: usize| (Some(4.0), Some(names[i].as_str()), None, i as f64);
    let batch = table(&(0..60).map(of).collect::<Vec<_>>());
    let error = Pipeline::new(&profile(&batch, Task::Regression), Encoding::Dense).unwrap_err();
    let words = "no feature can be learned from: 'a' is constant; 'b' has a value of its own in most rows; 'c' is blank";
    assert_eq!(error.to_string(), words);
    let pipeline = Pipeline::new(&profile(&trained(), Task::Regression), Encoding::Dense).unwrap();
    assert_eq!(pipeline.ignored().count(), 0);
}

#[test]
fn a_missing_or_mistyped_column_is_an_error() {
    let pipeline = Pipeline::new(&profile(&trained(), Task::Regression), Encoding::Dense).unwrap();
    let a: ArrayRef = Arc::new(StringArray::from(vec!["1"]));
    let batch = RecordBatch::try_from_iter([("a", a)]).unwrap();
    assert_eq!(pipeline.encode(&batch).unwrap_err().to_string(), "the column 'a' is not of type float");
}
