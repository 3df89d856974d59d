use arrow_array::{Array, Int64Array};
use dml_core::Value;
use proptest::prelude::*;

use super::*;

/// 1 + 2 * (x - 3) / 0.5 + 4 * (colour is red).
fn model() -> Model {
    let pipeline = r#"{"columns": [
        {"name": "x", "type": "float", "code": {"standard": {"mean": 3.0, "std": 0.5}}},
        {"name": "colour", "type": "text", "code": {"one_hot": {"categories": ["red"], "other": false, "blank": false}}}
    ]}"#;
    let affine = crate::learners::gram::Affine { intercept: 1.0, weights: vec![2.0, 4.0] };
    Model {
        task: Task::Regression,
        target: "y".into(),
        classes: Vec::new(),
        kind: "linear".into(),
        params: Params([("depth".to_string(), Value::Int(3))].into()),
        seed: 7,
        rows: 300,
        features: vec![("x".into(), ColumnType::Float), ("colour".into(), ColumnType::Text)],
        pipeline: serde_json::from_str(pipeline).unwrap(),
        learner: postcard::to_allocvec(&affine).unwrap(),
    }
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter(columns).unwrap()
}

fn numbers(batch: &RecordBatch, name: &str) -> Vec<f64> {
    let column = batch.column_by_name(name).unwrap().as_any().downcast_ref::<Float64Array>();
    column.unwrap().values().to_vec()
}

#[test]
fn the_format_is_golden() {
    let bytes = model().to_bytes();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, GOLDEN);
    assert_eq!(Model::from_bytes(&bytes).unwrap(), model());
}

/// Magic, version; regression, "y", no
/// classes, "linear", parameters, seed, 300 rows; two features; two columns; the learner's bytes; the seal.
const GOLDEN: &str = concat!(
    "444d4c4d4f44454c0100",
    "0001790006",
    "6c696e6561720b7b226465707468223a337d07ac02",
    "0201780106636f6c6f757203",
    "02017801010000000000000840000000000000e03f",
    "06636f6c6f7572030301037265640000",
    "19000000000000f03f0200000000000000400000000000001040",
    "6da87aa8b9b636f8015dc63507a2e9dcc27f8844a275e0b562cbe0ad148725fa",
);

proptest! {
    #[test]
    fn damage_is_told_of(at in 0usize..10_000, bit in 0u8..8) {
        let bytes = model().to_bytes();
        let mut flipped = bytes.clone();
        flipped[at % bytes.len()] ^= 1 << bit;
        prop_assert!(Model::from_bytes(&flipped).is_err());
    }
}

#[test]
fn every_truncation_and_every_newer_version_is_told_of() {
    let bytes = model().to_bytes();
    for end in 0..bytes.len() {
        assert!(Model::from_bytes(&bytes[..end]).is_err(), "{end} bytes");
    }
    assert!(Model::from_bytes(&[bytes.as_slice(), b"x"].concat()).is_err());
    let mut newer = bytes.clone();
    newer[MAGIC.len()] = 2;
    let said = |bytes: &[u8]| Model::from_bytes(bytes).unwrap_err().to_string();
    assert_eq!(said(&newer), "a model cannot be read: it has the format version 2, and this program knows 1");
    assert_eq!(said(b"PK\x03\x04"), "a model cannot be read: it does not begin with DMLMODEL");
    assert!(said(&bytes[..bytes.len() - 1]).contains("checksum"));
}

#[test]
fn a_table_with_other_columns_in_another_order_is_predicted() {
    let x: ArrayRef = Arc::new(Int64Array::from(vec![3, 4, 5]));
    let colour: ArrayRef = Arc::new(StringArray::from(vec![Some("red"), Some("blue"), None]));
    let extra: ArrayRef = Arc::new(Float64Array::from(vec![0.0; 3]));
    let table = batch(vec![("extra", extra), ("colour", colour.clone()), ("x", x)]);
    let predicted = model().predict(&Registry::default(), &table).unwrap();
    assert_eq!(numbers(&predicted, "prediction"), [5.0, 5.0, 9.0]);
    assert_eq!(predicted.num_columns(), 1);
    let error = model().predict(&Registry::default(), &batch(vec![("colour", colour)])).unwrap_err();
    assert!(matches!(&error, PredictError::Table(_)) && error.to_string().contains("'x'"), "{error}");
}

#[test]
fn classifiers_give_a_label_and_a_probability_a_class() {
    let model = Model { classes: vec!["no".into(), "yes".into()], task: Task::Classification, ..model() };
    let p = ndarray::arr2(&[[0.25, 0.75], [0.5, 0.5]]);
    let output = model.output(&Scores::Probabilities(p));
    let labels = output.column_by_name("prediction").unwrap().as_any().downcast_ref::<StringArray>().unwrap();
    assert_eq!(labels.iter().flatten().collect::<Vec<_>>(), ["yes", "no"]);
    assert_eq!(numbers(&output, "probability_no"), [0.25, 0.5]);
    assert_eq!(numbers(&output, "probability_yes"), [0.75, 0.5]);
    let empty = model.output(&join(Task::Classification, 2, Vec::new()));
    assert_eq!((empty.num_rows(), empty.num_columns()), (0, 3));
}

#[test]
fn the_json_says_all_and_importance_is_of_the_columns() {
    let (model, registry) = (model(), Registry::default());
    let json: serde_json::Value = serde_json::from_str(&model.to_json(&registry).unwrap()).unwrap();
    assert_eq!(json["model"]["weights"], serde_json::json!([2.0, 4.0]));
    assert_eq!(json["params"], serde_json::json!({"depth": 3}));
    assert_eq!(json["encoded"], serde_json::json!(["x", "colour=red"]));
    let importance = model.predictor(&registry).unwrap().importance().unwrap();
    assert!((importance.values().sum::<f64>() - 1.0).abs() < 1e-12);
    assert!(importance["colour"] > importance["x"]);
}

#[test]
fn scores_that_do_not_fit_the_task_are_told_of() {
    let model = Model { classes: vec!["a".into(), "b".into()], ..model() };
    let registry = Registry::default();
    let error = model.predictor(&registry).unwrap().scores_of(&Array2::zeros((3, 2))).unwrap_err();
    assert!(error.to_string().contains("do not fit"), "{error}");
    let unknown = Model { kind: "x".into(), ..model }.to_json(&registry).unwrap_err();
    assert!(unknown.to_string().starts_with("unknown kind 'x'"), "{unknown}");
}

/// The file again, with a seal that fits, as if it had been written so.
fn resealed(content: &[u8]) -> Vec<u8> {
    [content, Digest::of(content).as_bytes().as_slice()].concat()
}

#[test]
fn a_file_that_was_sealed_too_early_or_too_late_is_told_of() {
    let bytes = model().to_bytes();
    let content = &bytes[..bytes.len() - SEAL];
    assert_eq!(resealed(content), bytes);
    for end in HEAD..content.len() {
        let error = Model::from_bytes(&resealed(&content[..end])).unwrap_err();
        assert!(matches!(error, WorkError::Corrupt { what: "a model", .. }), "{end} bytes: {error}");
    }
    let longer = Model::from_bytes(&resealed(&[content, b"xy"].concat())).unwrap_err();
    assert_eq!(longer.to_string(), "a model cannot be read: 2 bytes too many");
}

#[test]
fn trees_that_lead_nowhere_or_in_circles_are_told_of() {
    use crate::learners::trees::{Node, ensemble::Link};
    let split = |right| Node::Split { feature: 0, threshold: 0.5, missing_left: false, right };
    let leaf = Node::Leaf { at: 0 };
    let registry = Registry::default();
    let said = |nodes: Vec<Node>, width: u32| {
        // The parts of an ensemble in their order: link, width, base, trees of outputs, nodes, values, gains.
        let tree = (1u32, nodes, vec![1.5], BTreeMap::<u32, f64>::new());
        let learner = postcard::to_allocvec(&(Link::Identity, width, vec![0.0], vec![tree])).unwrap();
        let model = Model { kind: "decision_tree".into(), learner, ..model() };
        let read = Model::from_bytes(&model.to_bytes()).unwrap();
        read.predictor(&registry).err().map(|error| error.to_string())
    };
    assert_eq!(said(vec![split(2), leaf, leaf], 2), None);
    for nodes in [
        vec![split(0), leaf, leaf],
        vec![split(1), leaf, leaf],
        vec![split(2), split(0), leaf],
        vec![split(9), leaf, leaf],
        vec![Node::Leaf { at: 1 }],
        vec![],
    ] {
        let error = said(nodes.clone(), 2).unwrap_or_else(|| panic!("{nodes:?} was taken"));
        assert!(error.contains("cannot be read"), "{error}");
    }
    assert!(said(vec![split(2), leaf, leaf], 0).is_some(), "a feature that is not there");
}

proptest! {
    /// Whatever was sealed, reading and predicting end with an answer or an error.
    #[test]
    fn what_is_sealed_need_not_make_sense(at in 0usize..10_000, byte: u8) {
        let bytes = model().to_bytes();
        let mut content = bytes[..bytes.len() - SEAL].to_vec();
        let at = HEAD + at % (content.len() - HEAD);
        content[at] = byte;
        let Ok(read) = Model::from_bytes(&resealed(&content)) else { return Ok(()) };
        let x: ArrayRef = Arc::new(Float64Array::from(vec![Some(3.0), None]));
        let colour: ArrayRef = Arc::new(StringArray::from(vec![Some("red"), None]));
        let registry = Registry::default();
        let _ = read.predict(&registry, &batch(vec![("x", x), ("colour", colour)]));
        let _ = read.to_json(&registry);
        let _ = read.to_onnx(&registry, "id");
    }
}
