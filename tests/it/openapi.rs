//! The description of the REST API for machines says what there is.

use axum::body::Body;
use dml::Peer;
use http_body_util::BodyExt;
use hyper::Request;
use serde_json::Value;

use crate::common::cluster;

async fn answer(api: &Peer, method: &str, path: &str) -> (u16, Value) {
    let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
    let answer = api.call(request).await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

fn references(value: &Value, all: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            all.extend(fields.get("$ref").and_then(Value::as_str).map(String::from));
            fields.values().for_each(|value| references(value, all));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, all)),
        _ => {}
    }
}

#[tokio::test]
async fn every_operation_that_is_described_is_there() {
    let parts = cluster(1, 1);
    let (status, api) = answer(&parts.api, "GET", "/openapi.json").await;
    assert_eq!((status, &api["openapi"]), (200, &Value::from("3.1.0")));
    let mut ids = Vec::new();
    for (path, methods) in api["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            ids.push(operation["operationId"].as_str().unwrap());
            let path = path.replace("{id}", "no-such-thing");
            let (status, problem) = answer(&parts.api, &method.to_uppercase(), &path).await;
            assert_ne!(status, 405, "{method} {path}");
            assert_ne!(problem["detail"], "there is no such route", "{method} {path}");
        }
    }
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count, "operations have names of their own");
    let mut all = Vec::new();
    references(&api, &mut all);
    assert!(all.len() > 20, "types are described once and referred to");
    for reference in all {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(api.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
}

/// The page for people has a row for each.
#[tokio::test]
async fn every_operation_is_told_of() {
    let page = std::fs::read_to_string("docs/api.md").unwrap();
    let (_, api) = answer(&cluster(1, 1).api, "GET", "/openapi.json").await;
    for path in api["paths"].as_object().unwrap().keys() {
        let last = path.rsplit_once('/').unwrap().1;
        let end = if last == "{id}" { path.as_str() } else { last };
        assert!(page.contains(end), "docs/api.md says nothing of {path}");
    }
}
