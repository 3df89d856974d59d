//! Models to an object store and back: the program against a small store of this process, which also fails as real ones do.
//! `tests/s3/run.sh` does the same with a store that checks signatures.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    http::{Method, StatusCode},
    response::Response,
};
use dml_core::Digest;
use serde_json::Value;

const PENGUINS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../data/penguins.csv");
const SECRET: &str = "hunter2-is-no-good-secret";
const DIGEST: &str = "x-amz-meta-blake3";

/// What the store has, what it was asked, and how it fails.
#[derive(Default)]
struct Kept {
    objects: BTreeMap<String, (Bytes, String)>,
    asked: Vec<String>,
    /// How many requests are yet to be refused, and how.
    fault: Option<(usize, u16, &'static str)>,
}

/// What is done to bytes behind everybody's back.
type Change = fn(&[u8]) -> Vec<u8>;

/// A store with a bucket, `models`.
#[derive(Clone)]
struct Store {
    kept: Arc<Mutex<Kept>>,
    address: String,
}

impl Store {
    fn start() -> Self {
        let kept = Arc::new(Mutex::new(Kept::default()));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let store = Self { kept, address: format!("http://{}", listener.local_addr().unwrap()) };
        let router = Router::new().fallback(answer).with_state(store.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                dml_net::serve::serve(listener, router, std::future::pending()).await
            })
        });
        store
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap()
    }

    /// What was asked since this was asked last, with requests of one method alone.
    fn asked(&self, method: &str) -> Vec<String> {
        let asked = std::mem::take(&mut self.kept().asked);
        asked.into_iter().filter(|line| line.starts_with(method)).collect()
    }

    fn keys(&self) -> Vec<String> {
        self.kept().objects.keys().cloned().collect()
    }

    fn bytes(&self, key: &str) -> Bytes {
        self.kept().objects[key].0.clone()
    }

    /// Changes an object behind everybody's back.
    fn damage(&self, key: &str, change: impl FnOnce(&[u8]) -> Vec<u8>) {
        let mut kept = self.kept();
        let object = kept.objects.get_mut(key).unwrap();
        object.0 = change(&object.0).into();
    }

    fn key(&self, ending: &str) -> String {
        self.keys().into_iter().find(|key| key.ends_with(ending)).unwrap()
    }
}

async fn answer(State(store): State<Store>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, 64 << 20).await.unwrap();
    let signed = head.headers.get("authorization").map(|value| value.to_str().unwrap().to_string());
    let path = head.uri.path().trim_start_matches('/');
    let mut kept = store.kept();
    kept.asked.push(format!("{} {path}", head.method));
    if let Some((left, status, code)) = kept.fault.filter(|(left, ..)| *left > 0) {
        kept.fault = Some((left - 1, status, code));
        // Real stores repeat what was signed.
        let signed = signed.unwrap_or_default();
        let words = format!(
            "<Error><Code>{code}</Code><Message>no</Message><StringToSign>{signed}</StringToSign></Error>"
        );
        return told(status, &[], if head.method == Method::HEAD { String::new() } else { words });
    }
    let Some(key) = path.strip_prefix("models").map(|key| key.trim_start_matches('/').to_string()) else {
        return told(404, &[], "<Error><Code>NoSuchBucket</Code></Error>");
    };
    if head.method == Method::PUT {
        let digest = head.headers.get(DIGEST).map_or(String::new(), |value| value.to_str().unwrap().into());
        kept.objects.insert(key, (body, digest));
        return told(200, &[("etag", "\"1\"")], "");
    }
    if key.is_empty() {
        return told(200, &[], list(&kept, head.uri.query().unwrap_or_default()));
    }
    let Some((bytes, digest)) = kept.objects.get(&key) else {
        return told(404, &[], "<Error><Code>NoSuchKey</Code></Error>");
    };
    let date = ("last-modified", "Sun, 22 Nov 2026 00:00:00 GMT");
    let headers = [("etag", "\"1\""), date, (DIGEST, digest), ("content-length", &bytes.len().to_string())];
    told(200, &headers, if head.method == Method::HEAD { Bytes::new() } else { bytes.clone() })
}

fn told(status: u16, headers: &[(&str, &str)], body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    for (name, value) in headers {
        response
            .headers_mut()
            .insert(name.parse::<axum::http::HeaderName>().unwrap(), value.parse().unwrap());
    }
    response
}

/// What is right below a prefix.
fn list(kept: &Kept, query: &str) -> String {
    let prefix = query.split('&').find_map(|part| part.strip_prefix("prefix=")).unwrap_or_default();
    let prefix = prefix.replace("%2F", "/").replace('+', "%20");
    let below = kept.objects.keys().filter_map(|key| key.strip_prefix(&prefix)?.split_once('/'));
    let below: BTreeSet<&str> = below.map(|(part, _)| part).collect();
    let part = |part: &&str| format!("<CommonPrefixes><Prefix>{prefix}{part}/</Prefix></CommonPrefixes>");
    let parts: String = below.iter().map(part).collect();
    format!("<ListBucketResult><Name>models</Name><IsTruncated>false</IsTruncated>{parts}</ListBucketResult>")
}

struct Ran {
    code: i32,
    out: Vec<u8>,
    err: String,
}

impl Ran {
    #[track_caller]
    fn done(self) -> String {
        assert_eq!(self.code, 0, "{}", self.err);
        String::from_utf8(self.out).unwrap()
    }

    #[track_caller]
    fn failed(self, code: i32, words: &str) -> String {
        assert_eq!(self.code, code, "{}", self.err);
        assert!(self.out.is_empty() && self.err.contains(words), "{words}: {}", self.err);
        self.err
    }

    #[track_caller]
    fn json(self) -> Value {
        serde_json::from_str(&self.done()).unwrap()
    }
}

/// `dml`, which knows of the store by its environment alone; without those variables that are empty.
fn dml_with(directory: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dml"));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("DML_") || name.starts_with("AWS_") {
            command.env_remove(name);
        }
    }
    let variables = variables.iter().filter(|(_, value)| !value.is_empty()).copied();
    let output = command.envs(variables).args(arguments).current_dir(directory).stdin(Stdio::null()).output();
    let output = output.unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(!err.contains(SECRET), "a secret is told: {err}");
    Ran { code: output.status.code().unwrap(), out: output.stdout, err }
}

fn dml(directory: &Path, store: &Store, arguments: &[&str]) -> Ran {
    let variables = [
        ("AWS_ENDPOINT_URL", store.address.as_str()),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_SESSION_TOKEN", SECRET),
    ];
    dml_with(directory, &variables, arguments)
}

/// A directory with a training of two models, `birds`.
fn trained(store: &Store) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let models = ["--model", "logistic", "--model", "gaussian_nb", "--name", "birds"];
    let train = [&["train", PENGUINS, "--target", "species"][..], &models].concat();
    dml(directory.path(), store, &train).done();
    directory
}

fn files(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    names.retain(|name| name != ".dml");
    names.sort();
    names
}

#[test]
fn a_model_comes_back_as_it_was() {
    let store = Store::start();
    let directory = trained(&store);
    let here = directory.path();
    let run = |arguments: &[&str]| dml(here, &store, arguments);
    run(&["model", "download", "birds", "-o", "best.dml"]).done();
    let best = fs::read(here.join("best.dml")).unwrap();

    let told = run(&["model", "push", "birds", "s3://models/our zoo/2026"]).done();
    assert!(told.starts_with("s3://models/our zoo/2026/birds: 1 model; 4 files sent"), "{told}");
    let keys = store.keys();
    let ends = ["index.json", "card.json", "model.dml", "model.onnx"];
    assert!(keys.len() == 4 && keys.iter().zip(ends).all(|(key, end)| key.ends_with(end)), "{keys:?}");
    assert!(keys.iter().all(|key| key.starts_with("our%20zoo/2026/birds/")), "{keys:?}");
    assert_eq!(store.bytes(&store.key("model.dml")), best);
    assert!(store.asked("PUT").last().unwrap().ends_with("/index.json"), "the index comes last");

    // What is there is not sent again; what is new is.
    run(&["model", "push", "birds", "s3://models/our zoo/2026"]).done();
    assert_eq!(store.asked("PUT"), [""; 0]);
    let other = "s3://models/our zoo/2026/birds/gaussian_nb";
    run(&["model", "pull", other]).failed(3, "dml model push --all");
    let pushed = run(&["model", "push", "birds", "s3://models/our zoo/2026", "--all", "--json"]).json();
    assert_eq!((&pushed["files_sent"], &pushed["files_there"]), (&3.into(), &4.into()), "{pushed}");
    assert_eq!(store.asked("PUT").len(), 3);

    // By the training, by name, by id, by key; to a file, to stdout.
    assert_eq!(files(here), ["best.dml"]);
    run(&["model", "pull", "s3://models/our zoo/2026/birds"]).done();
    assert_eq!(files(here), ["best.dml", "birds-logistic.dml"]);
    assert_eq!(fs::read(here.join("birds-logistic.dml")).unwrap(), best);
    let pulled = run(&["model", "pull", other, "-o", "nb.dml", "--json"]).json();
    run(&["model", "download", "birds/gaussian_nb", "-o", "other.dml"]).done();
    let bytes = fs::read(here.join("nb.dml")).unwrap();
    assert_eq!(bytes, fs::read(here.join("other.dml")).unwrap());
    assert_eq!(pulled["digest"], Digest::of(&bytes).to_string());
    let id = pushed["models"][0]["id"].as_str().unwrap();
    for from in [pulled["url"].as_str().unwrap(), &format!("s3://models/our zoo/2026/birds/{}", &id[..12])] {
        let out = run(&["model", "pull", from, "-o", "-"]).out;
        assert!(out == bytes || out == best, "{from}");
    }

    // Elsewhere is said what there is.
    run(&["model", "pull", "s3://models/our zoo"]).failed(3, "below: 2026");
    run(&["model", "pull", "s3://models/our zoo/2026/birds/ridge"]).failed(3, "has logistic, gaussian_nb");
    run(&["model", "push", "bears", "s3://models"]).failed(3, "bears");
}

#[test]
fn the_best_of_a_study_goes_by_its_name_and_id() {
    let store = Store::start();
    let directory = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| dml(directory.path(), &store, arguments);
    let param = ["--param", "var_smoothing=log:1e-12..1e-6", "--trials", "2", "--name", "nb"];
    let tune = [&["tune", PENGUINS, "--target", "species", "--kind", "gaussian_nb"][..], &param].concat();
    run(&tune).done();
    let study = run(&["study", "show", "nb", "--json"]).json();
    run(&["model", "push", study["id"].as_str().unwrap(), "s3://models"]).done();
    let keys = store.keys();
    run(&["model", "push", "nb", "s3://models"]).done();
    assert!(keys.len() == 4 && store.keys() == keys, "{keys:?}");
}

#[test]
fn what_was_damaged_is_refused_and_leaves_nothing() {
    let store = Store::start();
    let directory = trained(&store);
    let here = directory.path();
    let run = |arguments: &[&str]| dml(here, &store, arguments);
    run(&["model", "push", "birds", "s3://models"]).done();
    let (model, card, index) = (store.key("model.dml"), store.key("card.json"), store.key("index.json"));
    let (whole, key) = (store.bytes(&model), format!("s3://models/{model}"));

    let changes: [Change; 3] = [
        |bytes| bytes[..bytes.len() - 1].to_vec(),
        |bytes| bytes.iter().enumerate().map(|(at, byte)| if at == 100 { byte ^ 1 } else { *byte }).collect(),
        |_| Vec::new(),
    ];
    for change in changes {
        store.damage(&model, change);
        run(&["model", "pull", "s3://models/birds"]).failed(4, "not the model that was pushed");
        run(&["model", "pull", &key]).failed(4, "not the model that was pushed");
        // Without its card the model's own seal is left.
        let removed = store.kept().objects.remove(&card).unwrap();
        run(&["model", "pull", &key]).failed(4, "push it again");
        store.kept().objects.insert(card.clone(), removed);
        store.damage(&model, |_| whole.to_vec());
    }
    assert_eq!(files(here), [""; 0]);
    run(&["model", "pull", &key, "-o", "whole.dml"]).done();

    let kept = store.bytes(&index);
    let edit = |from: &str, to: &str| {
        let text = String::from_utf8(kept.to_vec()).unwrap();
        assert!(text.contains(from));
        store.damage(&index, |_| text.replace(from, to).into_bytes());
    };
    edit("\"version\": 1", "\"version\": 2");
    run(&["model", "pull", "s3://models/birds"]).failed(4, "a newer dml");
    edit("/model.dml", "/../../../other.dml");
    run(&["model", "pull", "s3://models/birds"]).failed(1, "cannot be part of a key");
    edit("\"birds\"", "\"\\u001b[2Jbirds\"");
    run(&["model", "pull", "s3://models/birds"]).failed(4, "control characters");
    edit("{", "");
    run(&["model", "pull", "s3://models/birds"]).failed(4, "not the index of a training");
    assert_eq!(files(here), ["whole.dml"]);
}

#[test]
fn refusals_say_what_to_do() {
    let store = Store::start();
    let directory = trained(&store);
    let here = directory.path();
    let run = |arguments: &[&str]| dml(here, &store, arguments);
    for (status, code, exit, words) in [
        (403, "InvalidAccessKeyId", 1, "AWS_ACCESS_KEY_ID"),
        (403, "SignatureDoesNotMatch", 1, "AWS_SECRET_ACCESS_KEY"),
        (403, "AccessDenied", 1, "s3:PutObject"),
        (403, "RequestTimeTooSkewed", 1, "clock"),
        (400, "ExpiredToken", 1, "AWS_SESSION_TOKEN"),
        (400, "AuthorizationHeaderMalformed", 1, "AWS_REGION"),
        (301, "PermanentRedirect", 1, "AWS_REGION"),
        (404, "NoSuchBucket", 3, "there is no bucket 'models'"),
        (400, "EntityTooLarge", 1, "EntityTooLarge: no"),
    ] {
        for command in
            [&["model", "push", "birds", "s3://models"][..], &["model", "pull", "s3://models/birds"]]
        {
            store.kept().fault = Some((usize::MAX, status, code));
            let err = run(&[command, &["-vvv"]].concat()).failed(exit, words);
            assert!(!err.contains("StringToSign") && !err.contains("Signature="), "{err}");
        }
    }
    // Who is too busy is asked again.
    store.kept().fault = Some((2, 503, "SlowDown"));
    run(&["model", "push", "birds", "s3://models"]).done();
    run(&["model", "push", "birds", "s3://other"]).failed(3, "there is no bucket 'other'");

    let known = [("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", SECRET)];
    let pull = ["model", "pull", "s3://models/birds"];
    dml_with(here, &[], &pull).failed(2, "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY");
    let dead = [known[0], known[1], ("AWS_ENDPOINT_URL", "http://127.0.0.1:1")];
    dml_with(here, &dead, &pull).failed(5, "http://127.0.0.1:1 does not answer");
    dml_with(here, &dead, &["model", "push", "birds", "s3://models"]).failed(5, "does not answer");
    let plain = [known[0], known[1], ("AWS_ENDPOINT_URL", &*store.address.replace("http", "https"))];
    dml_with(here, &plain, &pull).failed(5, "does not answer");
    for wrong in ["models/birds", "http://127.0.0.1/models", "s3://models/../etc", "s3://models//", "s3://m"]
    {
        run(&["model", "push", "birds", wrong]).failed(2, "is no address in an object store");
        run(&["model", "pull", wrong]).failed(2, "is no address in an object store");
    }
    run(&["model", "pull", &format!("s3://key:{SECRET}@models/birds")]).failed(2, "no password in it");
    assert_eq!(files(here), [""; 0]);
}
