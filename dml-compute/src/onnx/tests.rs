//! Files as a reader sees them. That runtimes say the same as the model is checked by `tests/onnx/run.sh`.

use std::collections::{BTreeMap, BTreeSet};

use dml_core::{ColumnType, Params, Plan};
use ndarray::Array2;
use serde::{Deserialize, Serialize};

use super::*;
use crate::{
    Encoding, Fit, Folded, Kind, Learner, Predict, Scores, Shape,
    learners::{
        gaussian_nb,
        gram::Affine,
        trees::{Ensemble, Tree, ensemble::Link, tree::Writer},
    },
};

/// A file, taken apart.
struct File {
    nodes: Vec<Node>,
    /// Name, shape, type, how many bytes or texts.
    constants: Vec<(String, Vec<u64>, u64, usize)>,
    inputs: Vec<(String, u64)>,
    outputs: Vec<(String, u64)>,
    facts: Vec<(String, String)>,
}

struct Node {
    operator: String,
    domain: String,
    name: String,
    inputs: Vec<String>,
    outputs: Vec<String>,
    /// The whole numbers of each attribute that has some.
    ints: BTreeMap<String, Vec<u64>>,
}

/// A field's number and its value.
enum Field<'a> {
    Int(u32, u64),
    Bytes(u32, &'a [u8]),
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().expect("a number ends");
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return value;
        }
    }
    panic!("a number is too long")
}

fn fields(mut bytes: &[u8]) -> Vec<Field<'_>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let number = (tag >> 3) as u32;
        match tag & 7 {
            0 => fields.push(Field::Int(number, varint(&mut bytes))),
            2 => {
                let length = varint(&mut bytes) as usize;
                let (value, rest) = bytes.split_at(length);
                bytes = rest;
                fields.push(Field::Bytes(number, value));
            }
            other => panic!("the wire type {other} is not used"),
        }
    }
    fields
}

fn ints(bytes: &[u8], wanted: u32) -> Vec<u64> {
    let int = |field| {
        if let Field::Int(number, value) = field { (number == wanted).then_some(value) } else { None }
    };
    fields(bytes).into_iter().filter_map(int).collect()
}

fn parts(bytes: &[u8], wanted: u32) -> Vec<&[u8]> {
    let part = |field| {
        if let Field::Bytes(number, value) = field { (number == wanted).then_some(value) } else { None }
    };
    fields(bytes).into_iter().filter_map(part).collect()
}

fn texts(bytes: &[u8], wanted: u32) -> Vec<String> {
    parts(bytes, wanted).into_iter().map(|text| String::from_utf8(text.to_vec()).unwrap()).collect()
}

fn text(bytes: &[u8], wanted: u32) -> String {
    texts(bytes, wanted).concat()
}

impl File {
    fn of(bytes: &[u8]) -> Self {
        assert_eq!(ints(bytes, 1), [8]);
        assert_eq!(text(bytes, 2), "dml");
        let opsets = parts(bytes, 8).into_iter().map(|set| (text(set, 1), ints(set, 2)[0]));
        assert_eq!(opsets.collect::<Vec<_>>(), [(String::new(), 17), ("ai.onnx.ml".into(), 5)]);
        let [graph] = parts(bytes, 7)[..] else { panic!("there is one graph") };
        let node = |node| Node {
            operator: text(node, 4),
            domain: text(node, 7),
            name: text(node, 3),
            inputs: texts(node, 1),
            outputs: texts(node, 2),
            ints: parts(node, 5).into_iter().map(|set| (text(set, 1), ints(set, 8))).collect(),
        };
        let constant = |tensor| {
            let values = parts(tensor, 9).concat().len() + parts(tensor, 6).len();
            (text(tensor, 8), ints(tensor, 1), ints(tensor, 2)[0], values)
        };
        let tensor = |value| {
            let tensor = parts(parts(value, 2)[0], 1)[0];
            (text(value, 1), ints(tensor, 1)[0])
        };
        Self {
            nodes: parts(graph, 1).into_iter().map(node).collect(),
            constants: parts(graph, 5).into_iter().map(constant).collect(),
            inputs: parts(graph, 11).into_iter().map(tensor).collect(),
            outputs: parts(graph, 12).into_iter().map(tensor).collect(),
            facts: parts(bytes, 14).into_iter().map(|fact| (text(fact, 1), text(fact, 2))).collect(),
        }
    }

    /// Every value is made once and before it is used; every constant is as large as it says.
    fn is_sound(&self) {
        let mut known = BTreeSet::new();
        let named = self.inputs.iter().map(|(name, _)| name).chain(self.constants.iter().map(|c| &c.0));
        for name in named {
            assert!(known.insert(name.clone()), "{name:?} is there twice");
        }
        for node in &self.nodes {
            assert!(node.inputs.iter().all(|input| known.contains(input)), "{} is too early", node.name);
            for output in &node.outputs {
                assert!(known.insert(output.clone()), "{output:?} is there twice");
            }
            let ml = ["TreeEnsemble", "LabelEncoder"].contains(&node.operator.as_str());
            assert_eq!(node.domain, if ml { "ai.onnx.ml" } else { "" });
        }
        assert!(self.outputs.iter().all(|(name, _)| known.contains(name)));
        let names: BTreeSet<&String> = self.nodes.iter().map(|node| &node.name).collect();
        assert_eq!(names.len(), self.nodes.len());
        for (name, shape, r#type, length) in &self.constants {
            let size = if *r#type == Type::Text as u64 { 1 } else { 8 };
            assert_eq!(shape.iter().product::<u64>() * size, *length as u64, "{name}");
        }
    }

    fn operators(&self) -> Vec<&str> {
        self.nodes.iter().map(|node| node.operator.as_str()).collect()
    }
}

const DENSE: &str = r#"{"columns": [
    {"name": "x", "type": "float", "code": {"standard": {"mean": 3.0, "std": 0.5}}},
    {"name": "colour", "type": "text", "code": {"one_hot": {"categories": ["red"], "other": true, "blank": true}}}
]}"#;
const CODES: &str = r#"{"columns": [
    {"name": "x", "type": "float", "code": "number"},
    {"name": "new", "type": "boolean", "code": {"places": {"categories": ["false", "true"], "places": [1, 0], "other": null}}},
    {"name": "id", "type": "text", "code": {"ignored": {"reason": "is free text"}}}
]}"#;

fn model<M: serde::Serialize>(kind: &str, classes: &[&str], pipeline: &str, learned: &M) -> Model {
    let pipeline: crate::pipeline::Pipeline = serde_json::from_str(pipeline).unwrap();
    Model {
        task: if classes.is_empty() { Task::Regression } else { Task::Classification },
        target: "y".into(),
        classes: classes.iter().map(|class| (*class).to_string()).collect(),
        kind: kind.into(),
        params: Params::default(),
        seed: 7,
        rows: 300,
        features: pipeline.columns().iter().map(|column| (column.name.clone(), column.r#type)).collect(),
        pipeline,
        learner: postcard::to_allocvec(learned).unwrap(),
    }
}

fn file(model: &Model) -> (File, String) {
    let bytes = model.to_onnx_of(&Registry::default(), "an id", "1.2.3").unwrap();
    let file = File::of(&bytes);
    file.is_sound();
    (file, Digest::of(&bytes).to_string())
}

fn affine() -> Affine {
    Affine { intercept: 1.0, weights: vec![2.0, 4.0, 0.0, -1.0] }
}

fn stump(values: &[&[f64]]) -> Tree {
    let mut writer = Writer::new(values[0].len());
    if let [low, high] = values {
        let split = writer.split(1, 0.5, true, 2.0);
        writer.leaf(low);
        writer.right(split);
        writer.leaf(high);
    } else {
        writer.leaf(values[0]);
    }
    writer.finish()
}

fn ensemble(link: Link, base: &[f64], trees: Vec<Tree>) -> Ensemble {
    Ensemble::new(link, 2, base.to_vec()).with(trees).unwrap()
}

#[test]
fn files_are_golden_a_shape() {
    let class =
        |mean: f64, prior: f64| gaussian_nb::Class { prior, mean: vec![mean; 4], variance: vec![0.5; 4] };
    let softmax = |classes: usize, outputs: usize| crate::learners::softmax::Softmax {
        classes,
        outputs: (0..outputs).map(|k| vec![k as f64 + 0.5; 5]).collect(),
    };
    let single = || vec![stump(&[&[-0.5], &[0.25]]), stump(&[&[1.5]])];
    let shares = vec![stump(&[&[0.0, 1.0], &[0.75, 0.25]]), stump(&[&[0.5, 0.5]])];
    let made = [
        ("affine", model("ridge", &[], DENSE, &affine())),
        ("two classes", model("logistic", &["no", "yes"], DENSE, &softmax(2, 1))),
        ("three classes", model("logistic", &["a", "b", "c"], DENSE, &softmax(3, 3))),
        (
            "gaussian",
            model(
                "gaussian_nb",
                &["no", "yes"],
                DENSE,
                &gaussian_nb::Classes(vec![class(0.0, 0.25), class(1.0, 0.75)]),
            ),
        ),
        ("sum", model("gradient_boosting", &[], CODES, &ensemble(Link::Identity, &[3.0], single()))),
        ("mean", model("random_forest", &[], CODES, &ensemble(Link::Mean, &[0.0], single()))),
        ("shares", model("random_forest", &["no", "yes"], CODES, &ensemble(Link::Shares, &[0.0; 2], shares))),
        (
            "odds",
            model("gradient_boosting", &["no", "yes"], CODES, &ensemble(Link::Logistic, &[0.5], single())),
        ),
        (
            "turns",
            model("gradient_boosting", &["a", "b"], CODES, &ensemble(Link::Softmax, &[0.1, 0.2], single())),
        ),
        ("no trees", model("gradient_boosting", &[], CODES, &ensemble(Link::Identity, &[3.0], vec![]))),
    ];
    let digests: Vec<_> = made.iter().map(|(shape, model)| (*shape, file(model).1)).collect();
    let digests: Vec<_> = digests.iter().map(|(shape, digest)| (*shape, &digest[..16])).collect();
    assert_eq!(digests, GOLDEN);
}

/// The first bytes of the digest of each file.
const GOLDEN: [(&str, &str); 10] = [
    ("affine", "81d02047f40cd930"),
    ("two classes", "178c2e43bc689848"),
    ("three classes", "8d8c73335a493106"),
    ("gaussian", "2bec6f8f222bfd56"),
    ("sum", "45b4cf477442cd69"),
    ("mean", "e2978853c809d6ba"),
    ("shares", "a2f30a66fb04ae7f"),
    ("odds", "6c219e521c8ecd8e"),
    ("turns", "4056c50764ebdaff"),
    ("no trees", "d4bb61b67dcbbaa5"),
];

#[test]
fn nearest_neighbours_are_golden() {
    let known: Vec<f64> = (0..12).map(f64::from).collect();
    let file = |by_distance: bool| {
        let mut graph = Graph::default();
        let inputs = ["a", "b", "c"].map(|name| graph.input(name, Type::Double));
        let x = graph.node("Concat", &inputs, &[("axis", Attribute::Int(1))]);
        let (distances, rows) = graph.nearest(x, &known, 3, 2, 3);
        let shares = graph.shares(distances, 3, by_distance);
        let mean = graph.mean_of(rows, shares, &[1.0, 2.0, 3.0, 4.0]);
        let votes = graph.votes(rows, shares, &[0, 1, 1, 0], 2);
        graph.output("prediction", mean, Type::Double, &[None, Some(1)]);
        graph.output("probabilities", votes, Type::Double, &[None, Some(2)]);
        let bytes = graph.into_bytes("1.2.3", &[]);
        let file = File::of(&bytes);
        file.is_sound();
        assert_eq!(file.operators().iter().filter(|operator| **operator == "Add").count(), 2);
        let top = file.nodes.iter().find(|node| node.operator == "TopK").unwrap();
        assert_eq!(top.outputs.len(), 2);
        Digest::of(&bytes).to_string()[..16].to_string()
    };
    assert_eq!([file(false), file(true)], ["c9eca602bc9507a2", "92568955b3fa3d1e"]);
}

#[test]
fn a_reader_finds_what_is_meant() {
    let model = model("ridge", &[], DENSE, &affine());
    let (file, _) = file(&model);
    let double = Type::Double as u64;
    assert_eq!(file.inputs, [("x".into(), double), ("colour".into(), Type::Text as u64)]);
    assert_eq!(file.outputs, [("prediction".into(), double)]);
    let nodes =
        "Sub Div IsNaN IsInf Or Where LabelEncoder Equal Cast Concat MatMul Add IsNaN Where Clip Identity";
    assert_eq!(file.operators().join(" "), nodes);
    let fact =
        |name: &str| file.facts.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str()).unwrap();
    assert_eq!((fact("dml.version"), fact("dml.model"), fact("dml.kind")), ("1.2.3", "an id", "ridge"));
    assert_eq!((fact("dml.task"), fact("dml.target"), fact("dml.classes")), ("regression", "y", "[]"));
    assert_eq!(fact("dml.digest"), Digest::of(&model.to_bytes()).to_string());
    assert_eq!(fact("dml.outputs"), r#"["prediction"]"#);
    let schema = r#"[{"blank":"NaN","input":"double","name":"x","type":"float"},"#;
    assert!(fact("dml.schema").starts_with(schema), "{}", fact("dml.schema"));
    assert_eq!(fact("dml.params"), "{}");
}

#[test]
fn columns_may_have_any_name() {
    for name in ["prediction", "prediction_", "v2", "v3_", "Sub_0", "N", "größe \"netto\"\n", "/../", "dml"]
    {
        let mut model = model("ridge", &[], DENSE, &affine());
        let pipeline = DENSE.replace("\"colour\"", &json!(name).to_string());
        model.pipeline = serde_json::from_str(&pipeline).unwrap();
        model.features[1].0 = name.into();
        let (file, _) = file(&model);
        assert_eq!(file.inputs[1].0, name);
        let output = if name == "prediction" { "prediction_" } else { "prediction" };
        assert_eq!(file.outputs[0].0, output);
    }
}

#[test]
fn columns_that_are_not_used_are_inputs_all_the_same() {
    let model =
        model("random_forest", &[], CODES, &ensemble(Link::Mean, &[0.0], vec![stump(&[&[1.0], &[2.0]])]));
    let (file, _) = file(&model);
    assert_eq!(file.inputs.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["x", "new", "id"]);
    assert!(file.nodes.iter().all(|node| !node.inputs.contains(&"id".to_string())));
}

#[test]
fn no_root_but_a_leaf_has_sides_of_the_same_number() {
    let stump = || stump(&[&[-0.5], &[0.25]]);
    let mut writer = Writer::new(1);
    let root = writer.split(0, 1.0, false, 1.0);
    writer.leaf(&[7.0]);
    writer.right(root);
    let below = writer.split(1, 2.0, false, 1.0);
    writer.leaf(&[8.0]);
    writer.right(below);
    writer.leaf(&[9.0]);
    // As they come, the root of the second tree would have question 2 on one side and leaf 2 on the other.
    let trees = ensemble(Link::Identity, &[0.0], vec![stump(), writer.finish(), stump()]);
    let (file, _) = file(&model("gradient_boosting", &[], CODES, &trees));
    let node = file.nodes.iter().find(|node| node.operator == "TreeEnsemble").unwrap();
    let column = |name: &str| node.ints[name].clone();
    assert_eq!(column("tree_roots"), [0, 1, 3]);
    assert_eq!((column("nodes_truenodeids"), column("nodes_trueleafs")), (vec![0, 4, 3, 5], vec![1; 4]));
    assert_eq!(
        (column("nodes_falsenodeids"), column("nodes_falseleafs")),
        (vec![1, 2, 2, 6], vec![1, 0, 1, 1])
    );
}

#[test]
fn trees_of_both_sorts_in_one_model_are_refused() {
    let trees = vec![stump(&[&[1.0, 2.0]]), stump(&[&[1.0]])];
    let model = model("random_forest", &["a", "b"], CODES, &ensemble(Link::Shares, &[0.0; 2], trees));
    assert!(matches!(model.to_onnx(&Registry::default(), ""), Err(OnnxError::Kind { .. })));
}

/// A kind that has no file.
struct Silent;

#[derive(Serialize, Deserialize)]
struct Column;

impl Learner for Silent {
    type State = ();
    type Partial = ();
    type Model = Column;

    fn kind(&self) -> Kind {
        Kind {
            name: "silent",
            about: "",
            tasks: vec![Task::Regression],
            params: vec![],
            default: false,
            parallel: false,
            deterministic: true,
            exportable: vec!["native", "json"],
            encoding: Encoding::Dense,
        }
    }

    fn plan(&self, _: &Params, _: &Shape) -> Plan {
        Plan::sequential(1)
    }

    fn start(&self, _: &Fit) -> Result<(), WorkError> {
        Ok(())
    }

    fn unit(&self, _: &Fit, _: u32, _: u32, (): &()) -> Result<(), WorkError> {
        Ok(())
    }

    fn fold(&self, _: &Fit, _: u32, (): (), _: Vec<()>) -> Result<Folded<(), Column>, WorkError> {
        Ok(Folded::Done(Column))
    }
}

impl Predict for Column {
    fn predict(&self, x: &Array2<f64>) -> Scores {
        Scores::Values(x.column(0).to_owned())
    }
}

#[test]
fn a_kind_without_a_file_is_refused_and_others_are_named() {
    let mut registry = Registry::default();
    registry.add(Silent).unwrap();
    let model = model("silent", &[], DENSE, &Column);
    let error = model.to_onnx(&registry, "").unwrap_err().to_string();
    assert!(
        error.starts_with("a model of the kind silent cannot be taken away as ONNX; kinds that can are ")
    );
    assert!(error.contains("ridge") && !error.ends_with("silent"), "{error}");
    let damaged = Model { learner: vec![1], kind: "ridge".into(), ..model };
    assert!(matches!(damaged.to_onnx(&registry, ""), Err(OnnxError::Model(WorkError::Corrupt { .. }))));
}

#[test]
fn inputs_are_numbers_for_all_but_text() {
    use ColumnType::{Boolean, Date, DateTime, Float, Integer};
    for r#type in [Integer, Float, Boolean, Date, DateTime] {
        assert_eq!(pipeline::input_type(r#type), Type::Double);
    }
    assert_eq!(pipeline::input_type(ColumnType::Text), Type::Text);
}
