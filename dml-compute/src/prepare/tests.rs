use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, Date32Array, Float64Array, Int64Array, StringArray};
use dml_core::{Column, Summary};
use proptest::prelude::*;

use super::*;

/// A table of one column a type, with blanks, from the numbers given.
pub(crate) fn batch(numbers: &[u32]) -> RecordBatch {
    let kept = |n: &u32, k: u32| !n.is_multiple_of(k);
    let reals: Float64Array = numbers.iter().map(|n| kept(n, 7).then_some(f64::from(*n) / 3.0)).collect();
    let texts: StringArray = numbers.iter().map(|n| kept(n, 5).then(|| format!("t{}", n % 13))).collect();
    let flags: BooleanArray = numbers.iter().map(|n| Some(n % 3 == 1)).collect();
    let days: Date32Array = numbers.iter().map(|n| Some(*n as i32)).collect();
    let y: Int64Array = numbers.iter().map(|n| kept(n, 11).then_some(i64::from(n % 4 * 5))).collect();
    let columns: [(&str, ArrayRef); 5] = [
        ("real", Arc::new(reals)),
        ("text", Arc::new(texts)),
        ("flag", Arc::new(flags)),
        ("day", Arc::new(days)),
        ("y", Arc::new(y)),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

/// A dataset with these columns, as far as a profile looks at it.
pub(crate) fn dataset() -> Dataset {
    let types =
        [ColumnType::Float, ColumnType::Text, ColumnType::Boolean, ColumnType::Date, ColumnType::Integer];
    let column = |(name, r#type): (&str, ColumnType)| Column {
        name: name.into(),
        r#type,
        nulls: 0,
        summary: Summary::Blank,
    };
    let columns = ["real", "text", "flag", "day", "y"].into_iter().zip(types).map(column).collect();
    Dataset { rows: 0, columns, chunks: Vec::new() }
}

pub(crate) fn problem(task: Task, target: &str, features: &[&str]) -> Problem {
    let features = features.iter().map(|name| (*name).to_string()).collect();
    Problem { task, dataset: dml_core::Digest::of(b"d"), target: target.into(), features }
}

fn profile(task: Task, numbers: &[u32], first: u64, split: Split) -> Profile {
    let problem = problem(task, "y", &["real", "text", "flag", "day"]);
    let mut profile = Profile::new(&dataset(), &problem, &split, 3).unwrap();
    profile.add(&batch(numbers), first, &split).unwrap();
    profile
}

proptest! {
    /// Parts merge to the whole: counts, categories, classes and the sample exactly, means to the last bits.
    #[test]
    fn parts_merge_to_the_whole(numbers in prop::collection::vec(0u32..400, 1..80), cut in 0usize..80) {
        let cut = cut.min(numbers.len());
        let split = Split::Holdout { seed: 1, fraction: 0.3 };
        let of = |range: std::ops::Range<usize>| {
            profile(Task::Classification, &numbers[range.clone()], range.start as u64, split)
        };
        let whole = of(0..numbers.len());
        let mut merged = of(0..cut);
        merged.merge(Profile::from_bytes(&of(cut..numbers.len()).to_bytes()).unwrap()).unwrap();
        for (mine, theirs) in merged.features.iter().zip(&whole.features) {
            prop_assert_eq!(&mine.blank, &theirs.blank);
            match (&mine.values, &theirs.values) {
                (FeatureValues::Numbers(mine), FeatureValues::Numbers(theirs)) => {
                    prop_assert_eq!((mine.count, mine.min, mine.max), (theirs.count, theirs.min, theirs.max));
                    prop_assert!((mine.mean - theirs.mean).abs() < 1e-9 && (mine.std() - theirs.std()).abs() < 1e-9);
                }
                (mine, theirs) => prop_assert_eq!(mine, theirs),
            }
        }
        merged.features.clone_from(&whole.features);
        prop_assert_eq!(merged, whole);
    }

    #[test]
    fn damaged_bytes_are_no_panic(at in 0usize..2000, bit in 0u8..8) {
        let mut bytes = profile(Task::Classification, &(1..60).collect::<Vec<_>>(), 0, Split::All).to_bytes();
        let at = at % bytes.len();
        prop_assert!(Profile::from_bytes(&bytes[..at]).is_err());
        bytes[at] ^= 1 << bit;
        if let Ok(profile) = Profile::from_bytes(&bytes) {
            profile.check().ok();
            profile.places();
        }
    }
}

#[test]
fn only_training_rows_with_a_target_count() {
    let numbers: Vec<u32> = (0..200).collect();
    let split = Split::Holdout { seed: 1, fraction: 0.5 };
    let counted = numbers.iter().filter(|n| !split.is_test(u64::from(**n)) && !n.is_multiple_of(11)).count();
    let profile = profile(Task::Classification, &numbers, 0, split);
    assert_eq!(profile.rows(), counted as u64);
    assert_eq!(profile.sample().rows().len(), counted);
    assert_eq!(profile.classes(), ["0", "5", "10", "15"], "whole numbers are ordered as numbers");
}

#[test]
fn what_cannot_be_learned_is_refused() {
    let said = |profile: Profile| profile.check().unwrap_err().to_string();
    let none = profile(Task::Classification, &[11, 22], 0, Split::All);
    assert!(said(none).starts_with("there are no training rows"));
    assert_eq!(
        said(profile(Task::Classification, &[1, 5], 0, Split::All)),
        "the target 'y' is '5' in every training row"
    );
    assert_eq!(
        said(profile(Task::Regression, &[1, 5], 0, Split::All)),
        "the target 'y' is 5 in every training row"
    );
    for (task, target, words) in [
        (Task::Regression, "text", "regression needs a numeric target, and 'text' is text"),
        (Task::Classification, "day", "classes cannot be told by 'day', which is date"),
        (Task::Regression, "z", "the dataset has no column 'z'"),
    ] {
        let error = Profile::new(&dataset(), &problem(task, target, &["real"]), &Split::All, 0).unwrap_err();
        assert_eq!(error.to_string(), words);
    }
}

#[test]
fn free_text_is_given_up_in_any_order() {
    let text = |values: Vec<String>| {
        let y: ArrayRef = Arc::new(Int64Array::from_iter_values(0..values.len() as i64));
        let text: ArrayRef = Arc::new(StringArray::from_iter_values(values));
        let batch = RecordBatch::try_from_iter([("text", text), ("y", y)]).unwrap();
        let problem = problem(Task::Regression, "y", &["text"]);
        let mut profile = Profile::new(&dataset(), &problem, &Split::All, 0).unwrap();
        profile.add(&batch, 0, &Split::All).unwrap();
        profile
    };
    let many = |from: usize, to: usize| text((from..to).map(|i| i.to_string()).collect());
    let half = || many(0, MAX_DISTINCT / 2 + 1);
    assert_eq!(many(0, MAX_DISTINCT + 1).features[0].values, FeatureValues::FreeText);
    let mut merged = half();
    merged.merge(many(MAX_DISTINCT / 2 + 1, MAX_DISTINCT + 1)).unwrap();
    assert_eq!(merged.features[0].values, FeatureValues::FreeText);
    let long = || text(vec!["a".into(), "x".repeat(MAX_CATEGORY_BYTES + 1)]);
    for (mut first, second) in [(long(), half()), (half(), long())] {
        first.merge(second).unwrap();
        assert_eq!(first.features[0].values, FeatureValues::FreeText);
    }
    assert!(matches!(half().features[0].values, FeatureValues::Categories(_)));
}

/// The digests of models rest on these bytes.
#[test]
fn the_format_is_golden() {
    let profile = profile(Task::Regression, &(0..100).collect::<Vec<_>>(), 0, Split::All);
    let digest = dml_core::Digest::of(&profile.to_bytes());
    assert_eq!((digest.short().as_str(), profile.rows()), ("2b4cea2bae7d", 90));
}
