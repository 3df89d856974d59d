//! What HTTP has for clients that come back: parts of downloads, links to the next page, keys of requests, events that
//! were seen; and rows as JSON, one a line.

use axum::body::{Body, Bytes};
use dml::{
    Peer,
    view::{DatasetView, NewModel, NewPrediction, NewTraining},
};
use http_body_util::BodyExt;
use hyper::{HeaderMap, Request};
use serde_json::{Value, json};

use crate::common::{Parts, cluster, penguins, training, upload};

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

async fn call(api: &Peer, method: &str, path: &str, head: &[(&str, &str)], body: impl Into<Body>) -> Answer {
    let request = Request::builder().method(method).uri(path);
    let request = head.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let answer = api.call(request.body(body.into()).unwrap()).await.unwrap();
    let (head, body) = answer.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer { status: head.status.as_u16(), headers: head.headers, body }
}

async fn get(api: &Peer, path: &str, head: &[(&str, &str)]) -> Answer {
    call(api, "GET", path, head, Body::empty()).await
}

async fn post_json(api: &Peer, path: &str, key: &str, body: Value) -> Answer {
    let head = [("content-type", "application/json"), ("idempotency-key", key)];
    call(api, "POST", path, &head, body.to_string()).await
}

/// Penguins, a logistic model of them, and its predictions.
async fn trained() -> Parts {
    let parts = cluster(1, 2);
    let client = &parts.client;
    upload(client, "penguins", penguins()).await;
    let models = vec![NewModel { kind: "logistic".into(), ..NewModel::default() }];
    let view = client.train(&NewTraining { models, ..training("penguins", "species") }).await.unwrap();
    client.watch(&view.id.to_string(), |_| ()).await.unwrap();
    let new = NewPrediction {
        model: "penguins-species".into(),
        dataset: "penguins".into(),
        name: Some("all".into()),
    };
    client.predict(&new).await.unwrap();
    client.prediction("all", 60).await.unwrap();
    parts
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_goes_on_where_it_broke_off() {
    let parts = trained().await;
    let arrow = "application/vnd.apache.arrow.stream";
    let downloads = [
        ("/v1/datasets/penguins/content", "text/csv"),
        ("/v1/datasets/penguins/content", "application/x-ndjson"),
        ("/v1/datasets/penguins/content", arrow),
        ("/v1/models/penguins-species/download", "*/*"),
        ("/v1/models/penguins-species/download?format=onnx", "*/*"),
        ("/v1/models/penguins-species/download?format=json", "*/*"),
        ("/v1/predictions/all/results", "text/csv"),
        ("/v1/predictions/all/results", "application/x-ndjson"),
        ("/v1/predictions/all/results", arrow),
    ];
    let mut tags = Vec::new();
    for (path, accept) in downloads {
        let whole = get(&parts.api, path, &[("accept", accept)]).await;
        assert_eq!((whole.status, whole.header("accept-ranges")), (200, "bytes"), "{path}");
        let (tag, total) = (whole.header("etag").to_string(), whole.body.len());
        let part = async |range: &str, more: &[(&str, &str)]| {
            let head = [&[("accept", accept), ("range", range)], more].concat();
            get(&parts.api, path, &head).await
        };
        for cut in [1, total / 2, total - 1] {
            let first = part(&format!("bytes=0-{}", cut - 1), &[]).await;
            let rest = part(&format!("bytes={cut}-"), &[("if-range", &tag)]).await;
            assert_eq!((first.status, rest.status), (206, 206), "{path}");
            let place = format!("bytes {cut}-{}/{total}", total - 1);
            assert_eq!(rest.header("content-range"), place, "{path} as {accept}");
            assert_eq!(rest.header("content-length"), rest.body.len().to_string());
            assert_eq!([first.body, rest.body].concat(), whole.body, "{path} as {accept} in two parts");
        }
        assert_eq!(part("bytes=-5", &[]).await.body, whole.body.slice(total - 5..));
        let beyond = part(&format!("bytes={total}-"), &[]).await;
        assert_eq!(beyond.status, 416);
        assert_eq!(beyond.header("content-range"), format!("bytes */{total}"));
        assert_eq!(beyond.json()["code"], "bad-range");
        let changed = part("bytes=5-", &[("if-range", "\"another\"")]).await;
        assert_eq!((changed.status, &changed.body), (200, &whole.body), "the whole of what it is now");
        let several = part("bytes=0-1,4-5", &[]).await;
        assert_eq!((several.status, several.body.len()), (200, total));
        let known = get(&parts.api, path, &[("accept", accept), ("if-none-match", &tag)]).await;
        assert_eq!((known.status, known.body.len()), (304, 0));
        tags.push(tag);
    }
    tags.sort_unstable();
    tags.dedup();
    assert_eq!(tags.len(), downloads.len(), "a tag means these bytes and no others");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_link_to_the_next() {
    let parts = cluster(1, 1);
    for n in 0..5 {
        upload(&parts.client, &format!("t{n}"), format!("a,b\n{n},1\n").into_bytes()).await;
    }
    let (mut path, mut seen) = ("/v1/datasets?limit=2".to_string(), Vec::new());
    loop {
        let page = get(&parts.api, &path, &[]).await;
        let items = page.json()["items"].as_array().unwrap().clone();
        seen.extend(items.iter().map(|item| item["name"].as_str().unwrap().to_string()));
        let Some(link) = page.header("link").strip_suffix(">; rel=\"next\"") else { break };
        path = format!("/v1/datasets{}", link.strip_prefix('<').unwrap());
        assert!(path.contains("limit=2"), "{path}");
    }
    assert_eq!(seen, ["t4", "t3", "t2", "t1", "t0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_for_one_thing() {
    let parts = cluster(1, 1);
    let table = async |key: &str, table: &'static str| {
        let head = [("content-type", "text/csv"), ("idempotency-key", key)];
        call(&parts.api, "POST", "/v1/datasets?name=t", &head, table).await
    };
    let rows = "a,b\n1,2\n2,3\n3,5\n4,7\n5,8\n6,9\n7,11\n8,13\n9,14\n10,16\n11,17\n12,19\n";
    let first = table("k1", rows).await;
    let again = table("\"k1\"", rows).await;
    assert_eq!((first.status, again.status), (201, 201));
    assert_eq!(first.json()["id"], again.json()["id"]);
    let other = table("k1", "a,b\n1,3\n").await;
    assert_eq!((other.status, &other.json()["code"]), (422, &json!("idempotency-key-reused")));
    assert_eq!(parts.client.datasets(10, None).await.unwrap().items.len(), 1, "nothing came of it");
    assert_eq!(table(&"x".repeat(300), "a\n1\n").await.json()["code"], "bad-idempotency-key");

    let wanted = json!({"dataset": "t", "target": "b", "models": [{"kind": "linear"}]});
    let training = post_json(&parts.api, "/v1/trainings", "k2", wanted.clone()).await;
    assert_eq!(training.status, 202, "{:?}", training.body);
    let again = post_json(&parts.api, "/v1/trainings", "k2", wanted.clone()).await;
    assert_eq!(again.json()["id"], training.json()["id"]);
    let named = json!({"dataset": "t", "target": "b", "models": [{"kind": "linear"}], "name": "another"});
    assert_eq!(post_json(&parts.api, "/v1/trainings", "k2", named).await.status, 422);
    assert_eq!(post_json(&parts.api, "/v1/trainings", "k1", wanted).await.status, 422, "k1 made a dataset");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_saw_the_last_event_is_not_told_again() {
    let parts = trained().await;
    let path = "/v1/trainings/penguins-species/events";
    let events = get(&parts.api, path, &[]).await;
    let text = String::from_utf8(events.body.to_vec()).unwrap();
    let id = text.lines().find_map(|line| line.strip_prefix("id: ")).unwrap();
    let again = get(&parts.api, path, &[("last-event-id", id)]).await;
    assert_eq!((again.status, again.body.len()), (204, 0), "a browser asks no more");
    let other = get(&parts.api, path, &[("last-event-id", "42")]).await;
    assert_eq!((other.status, other.body), (200, text.into()), "whoever saw something else is told all");
}

/// A row without its target.
fn without_species(line: &str) -> String {
    let mut row: Value = serde_json::from_str(line).unwrap();
    row.as_object_mut().unwrap().remove("species");
    row.to_string() + "\n"
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_come_and_go_as_json_lines() {
    let parts = trained().await;
    let (ndjson, path) = ("application/x-ndjson", "/v1/datasets/penguins/content");
    let lines = get(&parts.api, path, &[("accept", ndjson)]).await;
    assert_eq!(lines.header("content-type"), ndjson);
    assert_eq!(lines.body.split(|byte| *byte == b'\n').count(), 345);
    let upload = |name: &str, kind: &'static str, body: Bytes| {
        let path = format!("/v1/datasets?name={name}");
        let api = parts.api.clone();
        async move { call(&api, "POST", &path, &[("content-type", kind)], body).await }
    };
    let birds = upload("birds", ndjson, lines.body.clone()).await;
    let birds: DatasetView = serde_json::from_slice(&birds.body).unwrap();
    let known = parts.client.dataset("penguins").await.unwrap();
    assert_eq!(birds.id, known.id, "the same rows are the same table, from CSV or from JSON");

    let bad = upload("bad", ndjson, "{\"a\": 1}\n{\"a\": [2]}\n".into()).await;
    let problem = bad.json();
    assert_eq!((bad.status, &problem["code"]), (422, &json!("nested-value")));
    assert_eq!((&problem["row"], &problem["column"]), (&json!(2), &json!("a")));
    assert_eq!(upload("bad", ndjson, "{\"a\": 1}\nx\n".into()).await.json()["code"], "bad-line");

    let predict = async |accept: &str, body: Bytes| {
        let head = [("content-type", ndjson), ("accept", accept)];
        call(&parts.api, "POST", "/v1/models/penguins-species/predict", &head, body).await
    };
    // A row to predict has no column that the model does not know.
    let rows: Vec<String> =
        String::from_utf8(lines.body.to_vec()).unwrap().lines().map(without_species).collect();
    let rows = Bytes::from(rows.concat());
    let said = predict("*/*", rows.clone()).await;
    assert_eq!((said.status, said.header("content-type")), (200, ndjson));
    let batch = get(&parts.api, "/v1/predictions/all/results", &[("accept", ndjson)]).await;
    assert_eq!(said.body, batch.body, "in a batch or at once: the same");
    let csv = predict("text/csv", rows).await.body;
    assert_eq!(csv, get(&parts.api, "/v1/predictions/all/results", &[]).await.body);
    assert_eq!(predict("*/*", "{\"island\": \"Biscoe\"}\n[]\n".into()).await.json()["row"], 2);
}
