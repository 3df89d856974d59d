//! Trainings that ask for what cannot be: for every parameter of every kind, numbers beside its range and words that are no
//! numbers.

use serde_json::{Value, json};

use super::Case;

pub(super) fn cases(kinds: &Value) -> Vec<Case> {
    let mut cases = Vec::new();
    let train = |body: Value| Case::json("POST /v1/trainings", body.to_string(), &[400, 404, 422]);
    let whole = json!({ "dataset": "penguins", "target": "species" });
    let with = |field: &str, value: Value| {
        let mut body = whole.clone();
        body[field] = value;
        body
    };
    let numbers = || {
        vec![
            json!(-1),
            json!(1e308),
            json!(-1e308),
            json!(u64::MAX),
            json!(1.5),
            json!("NaN"),
            json!(null),
            json!([]),
            json!({}),
        ]
    };
    for kind in kinds["items"].as_array().expect("a list") {
        let task = &kind["tasks"][0];
        let target = if task == "regression" { "body_mass_g" } else { "species" };
        let model = |params: Value| {
            json!({ "dataset": "penguins", "target": target, "task": task,
                    "models": [{ "kind": kind["name"], "params": params }] })
        };
        for param in kind["params"].as_array().expect("a list") {
            let name = param["name"].as_str().expect("a name");
            for value in outside(param) {
                cases.push(train(model(json!({ name: value }))));
            }
        }
        cases.push(train(model(json!({ "no_such_parameter": 1 }))));
    }
    for field in ["dataset", "target", "task", "models", "features", "validation", "seed", "priority", "name"]
    {
        for value in numbers() {
            // None means that nothing is said; some of these are good, if odd.
            let good = match field {
                "priority" => value == json!(-1),
                "models" => value == json!([]),
                "seed" => value == json!(u64::MAX),
                "name" => value == json!("NaN"),
                _ => false,
            };
            if !good && !value.is_null() {
                cases.push(train(with(field, value)));
            }
        }
    }
    for (field, value) in [
        ("validation", json!({ "holdout": 0 })),
        ("validation", json!({ "holdout": 1 })),
        ("validation", json!({ "folds": 1 })),
        ("validation", json!({ "folds": 4_000_000_000u32 })),
        ("validation", json!({ "holdout": 0.2, "folds": 5 })),
        ("features", json!(["species"])),
        ("features", json!(["no such column"])),
        ("models", json!([{ "kind": "no_such_kind" }])),
        ("models", json!(vec![json!({ "kind": "logistic" }); 2])),
        ("models", json!(vec![json!({ "kind": "logistic" }); 1001])),
        ("name", json!("../../etc/passwd")),
        ("name", json!("\u{1b}[2J")),
        ("name", json!("x".repeat(100_000))),
    ] {
        cases.push(train(with(field, value)));
    }
    cases
}

/// Values that a parameter may not have.
fn outside(param: &Value) -> Vec<Value> {
    let mut values = vec![json!("NaN"), json!(null), json!([1]), json!({ "a": 1 })];
    match param["type"].as_str() {
        Some("int") => {
            let (min, max) = (param["min"].as_i64(), param["max"].as_i64());
            values.extend(min.and_then(|min| min.checked_sub(1)).map(Value::from));
            values.extend(max.and_then(|max| max.checked_add(1)).map(Value::from));
            values.extend([json!(0.5), json!(true)]);
        }
        Some("float") => {
            values.extend(param["min"].as_f64().map(|min| json!(min - min.abs().max(1.0))));
            values.extend(param["max"].as_f64().map(|max| json!(max + max.abs().max(1.0))));
            values.push(json!(true));
        }
        Some("bool") => values.extend([json!(2), json!("yes")]),
        _ => values.extend([json!(1), json!("no such choice")]),
    }
    values
}
