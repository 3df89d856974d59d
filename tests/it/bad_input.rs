//! Bad input: each with its own code, and the cluster goes on.

use crate::common::{Parts, cluster, penguins, upload};
use axum::body::{Body, Bytes};
use dml::Peer;
use futures_util::stream;
use http_body_util::BodyExt;
use hyper::Request;
use serde_json::{Value, json};

struct Api(Peer);

impl Api {
    fn of(parts: &Parts) -> Self {
        Self(parts.api.clone())
    }

    async fn send(&self, method: &str, path: &str, kind: &str, body: impl Into<Body>) -> (u16, Value) {
        let request =
            Request::builder().method(method).uri(path).header("content-type", kind).body(body.into());
        let answer = self.0.call(request.unwrap()).await.unwrap();
        let status = answer.status().as_u16();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn upload(&self, table: impl Into<Body>) -> (u16, Value) {
        self.send("POST", "/v1/datasets?name=t", "text/csv", table).await
    }

    async fn train(&self, body: Value) -> (u16, Value) {
        self.send("POST", "/v1/trainings", "application/json", body.to_string()).await
    }
}

/// Rows of a table with a class that is told by its number.
fn good_rows(n: usize) -> String {
    (0..n).map(|i| format!("{i},{},{}\n", i % 7, if i % 2 == 0 { "even" } else { "odd" })).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_cannot_be() {
    let parts = cluster(0, 1);
    let api = Api::of(&parts);
    let wide = (0..100_000).map(|c| format!("c{c},")).collect::<String>() + "last\n1\n";
    let long = format!("a,b\n1,{}\n", "x".repeat(100 << 20));
    let cases: Vec<(&str, Vec<u8>, Option<u64>)> = vec![
        ("empty-file", b"".to_vec(), None),
        ("header-only", b"a,b\n".to_vec(), None),
        ("ragged-row", b"a,b\n1,2\n3\n".to_vec(), Some(2)),
        ("ragged-row", b"a,b\n1,2\n3,4,5\n".to_vec(), Some(2)),
        ("unclosed-quote", b"a,b\n1,\"2\n3,4\n".to_vec(), Some(1)),
        ("duplicate-column", b"a,b,a\n1,2,3\n".to_vec(), None),
        ("not-finite", b"a,b\n1,2\n1,1e400\n".to_vec(), Some(2)),
        ("not-finite", b"a,b\n1,inf\n1,3\n".to_vec(), Some(1)),
        ("not-utf-8", b"name,b\nJos\xe9,2\n".to_vec(), Some(1)),
        ("compressed", b"PK\x03\x04\x14\x00\x00\x00".to_vec(), None),
        ("too-many-columns", wide.into_bytes(), None),
        ("record-too-long", long.into_bytes(), Some(1)),
        ("field-too-long", format!("a,b\n1,{}\n", "x".repeat(2 << 20)).into_bytes(), Some(1)),
    ];
    for (expected, table, row) in cases {
        let (status, problem) = api.upload(table).await;
        assert_eq!(problem["code"], expected, "{problem}");
        assert_eq!((status, problem["row"].as_u64()), (422, row), "{problem}");
        assert!(problem["detail"].as_str().unwrap().len() > 20, "{problem}");
    }
    let broken = stream::iter([Ok(Bytes::from_static(b"a,b\n1,")), Err(std::io::Error::other("gone"))]);
    let (status, problem) = api.upload(Body::from_stream(broken)).await;
    assert_eq!((status, &problem["code"]), (400, &json!("upload-truncated")));
    let (status, problem) = api.upload(b"\x1f\x8b\x08\x00\x00\x00\x00\x00".to_vec()).await;
    assert_eq!((status, &problem["code"]), (400, &json!("bad-compression")));
    let (status, problem) = api.send("POST", "/v1/datasets", "application/pdf", "x").await;
    assert_eq!((status, &problem["code"]), (415, &json!("unknown-format")));
    for name in ["..", "a%2Fb", "%1b%5b31m", "%3Cscript%3E"] {
        let (status, problem) =
            api.send("POST", &format!("/v1/datasets?name={name}"), "text/csv", "a,b\n1,2\n").await;
        assert_eq!((status, &problem["code"]), (400, &json!("bad-name")), "{name}");
    }
    // Nothing was kept, and the next one is welcome.
    let (_, list) = api.send("GET", "/v1/datasets", "", "").await;
    assert_eq!(list["items"], json!([]));
    assert_eq!(api.upload("a,b\n1,2\n").await.0, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn trainings_that_cannot_be() {
    let parts = cluster(0, 1);
    let api = Api::of(&parts);
    let tables = [
        ("good", format!("n,m,class\n{}", good_rows(40))),
        ("one", (0..40).fold("y\n".into(), |t: String, i| t + &format!("{i}\n"))),
        ("constant", (0..40).fold("x,y\n".into(), |t: String, i| t + &format!("{i},same\n"))),
        ("blank", (0..40).fold("x,y\n".into(), |t: String, i| t + &format!("{i},NA\n"))),
        ("lonely", format!("n,m,class\n{}99,1,alone\n", good_rows(40))),
    ];
    for (name, table) in tables {
        let (status, answer) =
            api.send("POST", &format!("/v1/datasets?name={name}"), "text/csv", table).await;
        assert_eq!(status, 201, "{answer}");
    }
    let with = |kind: &str, params: Value| json!([{ "kind": kind, "params": params }]);
    let cases = [
        (404, "not-found", json!({"dataset": "nowhere", "target": "y"})),
        (422, "target-missing", json!({"dataset": "good", "target": "klass"})),
        (422, "target-constant", json!({"dataset": "constant", "target": "y"})),
        (422, "target-blank", json!({"dataset": "blank", "target": "y"})),
        (422, "target-not-numeric", json!({"dataset": "good", "target": "class", "task": "regression"})),
        (422, "class-with-one-row", json!({"dataset": "lonely", "target": "class"})),
        (422, "no-features", json!({"dataset": "one", "target": "y"})),
        (422, "feature-missing", json!({"dataset": "good", "target": "class", "features": ["n", "o"]})),
        (
            422,
            "kind-unknown",
            json!({"dataset": "good", "target": "class", "models": with("perceptron", json!({}))}),
        ),
        (
            422,
            "param-unknown",
            json!({"dataset": "good", "target": "class", "models": with("random_forest", json!({"trees": 9}))}),
        ),
        (
            422,
            "param-value",
            json!({"dataset": "good", "target": "class", "models": with("random_forest", json!({"n_estimators": 1_000_000_000}))}),
        ),
        (
            422,
            "param-value",
            json!({"dataset": "good", "target": "class", "models": with("random_forest", json!({"n_estimators": "many"}))}),
        ),
        (422, "kind-task", json!({"dataset": "good", "target": "class", "models": with("ridge", json!({}))})),
        (422, "bad-holdout", json!({"dataset": "good", "target": "class", "validation": {"holdout": 1.5}})),
        (422, "bad-folds", json!({"dataset": "good", "target": "class", "validation": {"folds": 1}})),
        (422, "bad-field", json!({"dataset": "good", "target": "class", "color": "red"})),
        (422, "bad-field", json!({"dataset": "good"})),
    ];
    for (expected, code, body) in cases {
        let (status, problem) = api.train(body.clone()).await;
        assert_eq!((status, &problem["code"]), (expected, &json!(code)), "{body} {problem}");
    }
    let (status, problem) = api.send("POST", "/v1/trainings", "application/json", "{").await;
    assert_eq!((status, &problem["code"]), (400, &json!("bad-json")));
    let (_, list) = api.send("GET", "/v1/trainings", "", "").await;
    assert_eq!(list["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn predictions_that_cannot_be() {
    let parts = cluster(1, 2);
    let api = Api::of(&parts);
    upload(&parts.client, "penguins", penguins()).await;
    let new = json!({"dataset": "penguins", "target": "species", "models": [{"kind": "decision_tree"}], "name": "p"});
    let (status, view) = api.train(new).await;
    assert_eq!(status, 202, "{view}");
    let (_, view) = api.send("GET", "/v1/trainings/p?wait=60s", "", "").await;
    assert_eq!(view["state"], "succeeded", "{view}");

    let header = "island,bill_length_mm,bill_depth_mm,flipper_length_mm,body_mass_g,sex,year";
    let row = "Torgersen,39.1,18.7,181,3750,male,2007";
    let predict = |table: String| api.send("POST", "/v1/models/p/predict", "text/csv", table);
    let (status, _) = predict(format!("{header}\n{row}\n")).await;
    assert_eq!(status, 200);
    // Other order, columns that nobody asked for, a category never seen, blanks: all fine.
    let reordered = "year,note,sex,body_mass_g,flipper_length_mm,bill_depth_mm,bill_length_mm,island\n\
                     2007,hi,,3750,181,NA,39.1,Atlantis\n";
    assert_eq!(predict(reordered.into()).await.0, 200);
    let (status, problem) = predict("island,sex\nBiscoe,male\n".into()).await;
    assert_eq!((status, &problem["code"]), (422, &json!("missing-column")), "{problem}");
    let (status, problem) = predict(format!("{header}\n{}\n", row.replace("3750", "heavy"))).await;
    assert_eq!(
        (status, &problem["column"], &problem["row"]),
        (422, &json!("body_mass_g"), &json!(1)),
        "{problem}"
    );

    let rows = |rows: Value| {
        api.send("POST", "/v1/models/p/predict", "application/json", json!({"rows": rows}).to_string())
    };
    let (status, answer) = rows(json!([{"island": "Biscoe", "body_mass_g": 5000}])).await;
    assert_eq!((status, answer["predictions"].as_array().map(Vec::len)), (200, Some(1)), "{answer}");
    let (status, problem) = rows(json!([{"island": "Biscoe"}, {"iland": "Biscoe"}])).await;
    assert_eq!((status, &problem["row"]), (422, &json!(2)), "{problem}");
    let (status, problem) = rows(json!([{"body_mass_g": [1]}])).await;
    assert_eq!((status, &problem["column"]), (422, &json!("body_mass_g")), "{problem}");

    for (method, path, status) in [
        ("GET", "/v1/models/unknown", 404),
        ("GET", "/v1/trainings/0123", 404),
        ("DELETE", "/v1/datasets/unknown", 404),
        ("GET", "/v1/models/p/download?format=exe", 400),
        ("GET", "/v1/datasets?limit=0", 400),
        ("GET", "/v1/datasets?cursor=x", 400),
        ("GET", "/v1/trainings/p?wait=long", 400),
        ("GET", "/nowhere", 404),
        ("PUT", "/v1/datasets", 405),
    ] {
        let (found, problem) = api.send(method, path, "", "").await;
        assert_eq!(found, status, "{method} {path}: {problem}");
        assert!(problem["code"].is_string() && problem["detail"].is_string(), "{problem}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_tables_are_trained_on_or_refused() {
    let parts = cluster(1, 2);
    let api = Api::of(&parts);
    // A text that differs in every row, and every default model of each task.
    let many =
        (0..1_000_000).fold("id,n,y\n".into(), |t: String, i| t + &format!("u{i},{},{}\n", i % 97, i % 2));
    let odd = (0..200).fold("blank,same,n,y\n".into(), |t: String, i| t + &format!("NA,1,{},{}\n", i, i % 7));
    let alone = (0..50).fold("n,y\n".into(), |t: String, i| t + &format!("{i},c{i}\n"));
    for (name, table) in [("many", many), ("odd", odd), ("alone", alone)] {
        let path = format!("/v1/datasets?name={name}");
        let (status, answer) = api.send("POST", &path, "text/csv", table).await;
        assert_eq!(status, 201, "{answer}");
    }
    let (status, problem) = api.train(json!({"dataset": "alone", "target": "y"})).await;
    assert_eq!((status, &problem["code"]), (422, &json!("too-many-classes")), "{problem}");
    for (name, training) in [
        (
            "m",
            json!({"dataset": "many", "target": "y", "task": "classification", "models": [{"kind": "decision_tree"}, {"kind": "gaussian_nb"}]}),
        ),
        ("r", json!({"dataset": "odd", "target": "y", "task": "regression"})),
        ("c", json!({"dataset": "odd", "target": "y", "task": "classification"})),
    ] {
        let mut training = training;
        training["name"] = name.into();
        let (status, view) = api.train(training).await;
        assert_eq!(status, 202, "{view}");
        let (_, view) = api.send("GET", &format!("/v1/trainings/{name}?wait=120s"), "", "").await;
        assert_eq!(view["state"], "succeeded", "{view}");
        for model in view["models"].as_array().unwrap() {
            assert_eq!(model["state"], "succeeded", "{model}");
        }
    }
}
