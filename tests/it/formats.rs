//! Tables in several formats: the same dataset whatever it came as, and out again.

use std::io::Write;

use axum::body::Body;
use dml::{
    Peer,
    compute::table::{Limits, decode, encode, read_arrow, read_rows},
};
use http_body_util::BodyExt;
use hyper::{Request, header};
use serde_json::{Value, json};

use crate::common::cluster;

const ARROW: &str = "application/vnd.apache.arrow.stream";
const PARQUET: &str = "application/vnd.apache.parquet";

/// Sends a body of a type, and takes an answer of another.
async fn send(api: &Peer, method: &str, path: &str, kinds: (&str, &str), body: Vec<u8>) -> (u16, Vec<u8>) {
    let request = Request::builder().method(method).uri(path);
    let request = request.header(header::CONTENT_TYPE, kinds.0).header(header::ACCEPT, kinds.1);
    let answer = api.call(request.body(Body::from(body)).unwrap()).await.unwrap();
    let status = answer.status().as_u16();
    (status, answer.into_body().collect().await.unwrap().to_bytes().to_vec())
}

async fn dataset(api: &Peer, kind: &str, body: Vec<u8>) -> Value {
    let (status, answer) = send(api, "POST", "/v1/datasets?name=t", (kind, "*/*"), body).await;
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!(status, 201, "{answer}");
    answer["id"].clone()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_the_same_dataset_in_every_format() {
    let parts = cluster(1, 1);
    let api = &parts.api;
    let csv: String = (0..3000).fold("n,half,word,day,y\n".into(), |text: String, row| {
        let blank = if row % 7 == 1 { String::new() } else { format!("{:?}", f64::from(row) / 2.0) };
        text + &format!("{row},{blank},w{},2026-01-{:02},{}\n", row % 5, row % 28 + 1, row % 3)
    });
    let table = read_rows(csv.as_bytes(), &Limits::default()).unwrap();
    let arrow = encode(&table);
    let id = dataset(api, "text/csv", csv.clone().into()).await;
    for (kind, body) in [
        ("text/csv", gzip(csv.as_bytes())),
        ("application/zstd", zstd(csv.as_bytes())),
        (ARROW, arrow.clone()),
        ("application/vnd.apache.arrow.file", gzip(&arrow)),
    ] {
        assert_eq!(dataset(api, kind, body).await, id, "{kind}");
    }
    let path = format!("/v1/datasets/{}/content", id.as_str().unwrap());
    let (_, content) = send(api, "GET", &path, ("", "text/csv"), vec![]).await;
    assert_eq!(String::from_utf8(content).unwrap(), csv);
    let (_, content) = send(api, "GET", &path, ("", ARROW), vec![]).await;
    assert_eq!(read_arrow(&content, &Limits::default()).unwrap(), table);
    let (_, content) = send(api, "GET", &path, ("", PARQUET), vec![]).await;
    for body in [content.clone(), gzip(&content)] {
        assert_eq!(dataset(api, PARQUET, body).await, id, "its rows and types are those of the CSV");
    }

    let ask = json!({"dataset": "t", "target": "y", "task": "regression", "models": [{"kind": "ridge"}], "name": "r"});
    let json_ = ("application/json", "*/*");
    assert_eq!(send(api, "POST", "/v1/trainings", json_, ask.to_string().into()).await.0, 202);
    assert_eq!(send(api, "GET", "/v1/trainings/r?wait=60s", ("", "*/*"), vec![]).await.0, 200);
    let rows = table.slice(0, 10);
    let (status, as_arrow) = send(api, "POST", "/v1/models/r/predict", (ARROW, ARROW), encode(&rows)).await;
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&as_arrow));
    let ten: String = csv.split_inclusive('\n').take(11).collect();
    let (status, as_csv) =
        send(api, "POST", "/v1/models/r/predict", ("text/csv", "text/csv"), ten.into()).await;
    assert_eq!(status, 200);
    assert_eq!(read_rows(&as_csv, &Limits::default()).unwrap(), decode(&as_arrow).unwrap());

    let ask = json!({"model": "r", "dataset": "t", "name": "p"});
    assert_eq!(send(api, "POST", "/v1/predictions", json_, ask.to_string().into()).await.0, 202);
    assert_eq!(send(api, "GET", "/v1/predictions/p?wait=60s", ("", "*/*"), vec![]).await.0, 200);
    let (_, all) = send(api, "GET", "/v1/predictions/p/results", ("", ARROW), vec![]).await;
    let all = read_arrow(&all, &Limits::default()).unwrap();
    assert_eq!((all.num_rows(), all.slice(0, 10)), (3000, decode(&as_arrow).unwrap()));
    let (_, as_parquet) = send(api, "GET", "/v1/predictions/p/results", ("", PARQUET), vec![]).await;
    let results = dataset(api, PARQUET, as_parquet).await;
    let path = format!("/v1/datasets/{}/content", results.as_str().unwrap());
    let (_, content) = send(api, "GET", &path, ("", ARROW), vec![]).await;
    assert_eq!(read_arrow(&content, &Limits::default()).unwrap(), all);
}

#[tokio::test(flavor = "multi_thread")]
async fn arrow_files_that_cannot_be() {
    let parts = cluster(0, 1);
    let good = encode(&read_rows(b"a,b\n1,x\n2,y\n", &Limits::default()).unwrap());
    for (body, code) in [
        (good[..good.len() - 20].to_vec(), (422, "bad-arrow")),
        (gzip(&good)[..40].to_vec(), (400, "bad-compression")),
        (b"ARROW1\0\0".to_vec(), (422, "bad-arrow")),
        (b"PAR1\x15\x04\x15\x00\x00\x00".to_vec(), (422, "bad-parquet")),
    ] {
        let (status, problem) = send(&parts.api, "POST", "/v1/datasets", (ARROW, "*/*"), body).await;
        let problem: Value = serde_json::from_slice(&problem).unwrap();
        assert_eq!((status, problem["code"].as_str().unwrap()), code, "{problem}");
    }
}
