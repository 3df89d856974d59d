//! Real processes as an operator sees them: what they tell of themselves, and how they end.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "nodes/cluster.rs"]
#[allow(dead_code, reason = "it is shared with other tests")]
mod cluster;
#[path = "chaos/facts.rs"]
#[allow(dead_code, reason = "it is shared with other tests")]
mod facts;
#[path = "chaos/http.rs"]
mod http;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use cluster::{DB, DML, PATIENCE, Process, Three, WORKER, table, upload};
use dml_net::view::TrainingView;
use facts::until;
use serde_json::Value;

/// Tells people, also when the test passes.
fn say(words: &str) {
    let _ = writeln!(std::io::stderr(), "{words}");
}

fn metrics(of: SocketAddr) -> String {
    let (status, body) = http::send(of, "GET", "/metrics", "text/plain", &[], PATIENCE).unwrap();
    assert_eq!(status, 200);
    String::from_utf8(body).unwrap()
}

/// The value of a sample.
fn value(page: &str, sample: &str) -> f64 {
    let line = page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {sample} in:\n{page}")).parse().unwrap()
}

/// What Prometheus' own tool has to say against a page; none where there is no such tool.
fn promtool(page: &str) -> Option<Result<(), String>> {
    let mut tool = Command::new("promtool");
    tool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut tool = tool.spawn().ok()?;
    tool.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = tool.wait_with_output().unwrap();
    let words = [output.stdout, output.stderr].concat();
    let good = output.status.success() && words.is_empty();
    Some(if good { Ok(()) } else { Err(String::from_utf8_lossy(&words).into_owned()) })
}

fn train(worker: SocketAddr, dataset: &str) {
    let body =
        serde_json::json!({ "dataset": dataset, "target": "class", "models": [{ "kind": "gaussian_nb" }] });
    let view: TrainingView = http::post(worker, "/v1/trainings", body.to_string().as_bytes()).unwrap();
    until(PATIENCE, "the training ends", || {
        let view: TrainingView =
            http::get(worker, &format!("/v1/trainings/{}", view.id)).map_err(|error| error.to_string())?;
        if view.state.is_final() { Ok(()) } else { Err(format!("{:?}", view.state)) }
    });
}

#[test]
fn nodes_tell_what_they_hold_and_do() {
    let three = Three::start();
    let (_worker, worker) = three.worker(0);
    upload(worker, 0, PATIENCE).unwrap();
    train(worker, "t0");
    let pages = three.dbs.map(metrics);
    let sum = |sample: &str| pages.iter().map(|page| value(page, sample)).sum::<f64>();
    for page in &pages {
        assert_eq!(value(page, "dml_data"), 2.0, "the dataset and the training are on all three");
        assert_eq!(value(page, "dml_db_nodes{state=\"active\"}"), 3.0);
        assert!(value(page, "dml_disk_free_bytes") > 0.0 && value(page, "dml_blobs_bytes") > 0.0);
        assert!(value(page, "process_resident_memory_bytes") > 1e6);
    }
    assert_eq!(sum("dml_jobs_finished_total"), 3.0, "one prepares, one fits, one judges");
    assert!(sum("dml_leases_granted_total") >= 3.0);
    // A request takes letters for a while, and they are counted when it is answered.
    until(PATIENCE, "letters are counted", || {
        let sent = value(&metrics(three.dbs[0]), "dml_letters_sent_total");
        if sent > 0.0 { Ok(()) } else { Err(format!("{sent}")) }
    });
    assert_eq!((sum("dml_divergences_total"), sum("dml_data_under_replicated")), (0.0, 0.0));
    let own = metrics(worker);
    assert_eq!(value(&own, "dml_worker_pieces_total{outcome=\"done\"}"), sum("dml_pieces_done_total"));
    let uploads = "dml_requests_total{route=\"/v1/datasets\",method=\"POST\",status=\"201\"}";
    assert_eq!(value(&own, uploads), 1.0);
    for page in pages.iter().chain([&own]) {
        match promtool(page) {
            Some(outcome) => outcome.unwrap_or_else(|words| panic!("promtool: {words}\n{page}")),
            None => say("metrics: promtool is not here, their names are not checked"),
        }
    }
}

#[test]
fn a_request_has_the_same_trace_in_all_logs() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let start = |program: &str, name: &str, arguments: &[&str]| {
        let common = ["--listen", "127.0.0.1:0", "--log", "debug", "--log-format", "json"];
        Process::serve(program, &[&common, arguments].concat(), &path(name))
    };
    let (_db, db) = start(DB, "db.log", &["--data", path("data").to_str().unwrap()]);
    let (_worker, worker) = start(WORKER, "worker.log", &["--join", &db.to_string()]);
    let id = "4bf92f3577b34da6a3ce929d0e0e4736";
    // The client has no way to say a header of its own, but to say it behind another.
    let kind = format!("text/csv\r\ntraceparent: 00-{id}-00f067aa0ba902b7-01");
    let body = table(0);
    let (status, _) =
        http::send(worker, "POST", "/v1/datasets?name=t0", &kind, body.as_bytes(), PATIENCE).unwrap();
    assert_eq!(status, 201);
    for (program, address) in [(DB, db), (WORKER, worker), (DB, SocketAddr::from(([127, 0, 0, 1], 1)))] {
        let check = cluster::program(program).args(["--check", "--listen", &address.to_string()]).status();
        assert_eq!(check.unwrap().success(), address.port() != 1, "whether {address} is alive");
    }
    let routes = |name: &str| {
        let log = std::fs::read_to_string(path(name)).unwrap();
        let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let traced = lines.filter(|line| line["span"]["trace"] == id && line["message"] == "answered");
        let mut routes: Vec<String> =
            traced.map(|line| line["span"]["route"].as_str().unwrap().to_string()).collect();
        routes.dedup();
        routes
    };
    assert_eq!(routes("worker.log"), ["/v1/datasets"]);
    assert_eq!(routes("db.log"), ["/v1/blobs/{digest}", "/v1/ask"]);
}

/// Sends the head of an upload and half of its body; the rest is for the caller to send.
fn half_an_upload(worker: SocketAddr, number: usize) -> (TcpStream, String) {
    let body = table(number);
    let mut stream = TcpStream::connect(worker).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    let head = format!(
        "POST /v1/datasets?name=t{number} HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/csv\r\ncontent-length: {length}\r\n\r\n"
    );
    let (first, rest) = body.split_at(length / 2);
    stream.write_all(format!("{head}{first}").as_bytes()).unwrap();
    (stream, rest.into())
}

/// Whether a node says that it is ready; a node that hangs up or is gone does not.
fn is_ready(node: SocketAddr) -> bool {
    matches!(http::send(node, "GET", "/readyz", "text/plain", &[], PATIENCE), Ok((200, _)))
}

#[test]
fn a_worker_that_is_asked_to_end_finishes_what_it_is_at() {
    let three = Three::start();
    let (mut process, worker) = three.worker(0);
    upload(worker, 0, PATIENCE).unwrap();
    // So many models that it has something in hand whenever it is asked to end.
    let boosted = |n| serde_json::json!({ "kind": "gradient_boosting", "params": { "n_estimators": n } });
    let models: Vec<_> = (300..400).map(boosted).collect();
    let body = serde_json::json!({ "dataset": "t0", "target": "class", "name": "long", "models": models });
    let view: TrainingView = http::post(worker, "/v1/trainings", body.to_string().as_bytes()).unwrap();
    until(PATIENCE, "a piece is in hand", || match value(&metrics(worker), "dml_worker_busy_slots") {
        1.0 => Ok(()),
        busy => Err(format!("{busy}")),
    });
    let (mut stream, rest) = half_an_upload(worker, 1);
    let waits = std::thread::spawn(move || {
        let path = format!("/v1/trainings/{}?wait=60s", view.id);
        let answer = http::send(worker, "GET", &path, "text/plain", &[], PATIENCE).unwrap();
        (answer.0, serde_json::from_slice::<TrainingView>(&answer.1).unwrap())
    });
    std::thread::sleep(Duration::from_millis(300));
    let start = Instant::now();
    process.terminate();
    let (status, view) = waits.join().unwrap();
    assert_eq!((status, view.state.is_final()), (200, false), "who waits is answered");
    assert!(start.elapsed() < Duration::from_secs(2), "after {:?}", start.elapsed());
    assert!(!is_ready(worker), "it takes nothing new");
    stream.write_all(rest.as_bytes()).unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 201", "what it had begun to take in is kept");
    assert_eq!(process.0.wait().unwrap().code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(30), "it took {:?}", start.elapsed());
    let leases: f64 = three.dbs.map(|db| value(&metrics(db), "dml_leases")).iter().sum();
    assert_eq!(leases, 0.0, "its work is free at once");
    let lost: f64 = three.dbs.map(|db| value(&metrics(db), "dml_leases_lost_total")).iter().sum();
    assert_eq!(lost, 0.0, "no lease had to run out");
}

#[test]
fn a_db_node_that_is_asked_to_end_keeps_nobody_waiting() {
    let mut three = Three::start();
    let (_worker, worker) = three.worker(2);
    upload(worker, 0, PATIENCE).unwrap();
    // The worker's claim waits at the node by now: there is nothing to do.
    std::thread::sleep(Duration::from_millis(500));
    for leaver in [2, 1] {
        let start = Instant::now();
        assert_eq!(three.end(leaver).code(), Some(0));
        assert!(start.elapsed() < Duration::from_secs(3), "it took {:?}", start.elapsed());
        assert!(is_ready(worker));
        train(worker, "t0");
    }
}

#[test]
fn a_node_with_a_nearly_full_disk_takes_no_uploads_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let db = |name: &str, arguments: &[&str]| {
        let data = path(name);
        let common = ["--listen", "127.0.0.1:0", "--replication", "1", "--data", data.to_str().unwrap()];
        Process::serve(DB, &[&common, arguments].concat(), &path("log"))
    };
    // No disk has an exbibyte free.
    let (_full, full) = db("full", &["--keep-free", &(1u64 << 40).to_string()]);
    let join = full.to_string();
    let (_worker, worker) =
        Process::serve(WORKER, &["--listen", "127.0.0.1:0", "--join", &join], &path("log"));
    until(PATIENCE, "the worker is ready", || if is_ready(worker) { Ok(()) } else { Err("not yet".into()) });
    let refused = upload(worker, 0, PATIENCE).unwrap_err();
    assert!(refused.starts_with("507") && refused.contains("disk-full"), "{refused}");
    assert!(refused.contains("are kept free"), "{refused}");
    assert_eq!(value(&metrics(full), "dml_disk_full"), 1.0);

    // Another one takes what the first does not.
    let (_other, other) = db("other", &["--join", &join]);
    until(PATIENCE, "both are told of", || {
        let nodes = facts::nodes(worker).map_err(|error| error.to_string())?;
        let disks: Vec<_> = nodes.iter().filter_map(|node| node.disk).collect();
        match disks.iter().filter(|disk| disk.full).count() {
            1 if disks.len() == 2 => Ok(()),
            _ => Err(format!("{nodes:?}")),
        }
    });
    assert_eq!(value(&metrics(other), "dml_disk_full"), 0.0);
    until(PATIENCE, "an upload is taken", || upload(worker, 0, PATIENCE).map(drop));
    train(worker, "t0");
    let output = cluster::program(DML).args(["--cluster", &worker.to_string(), "cluster"]).output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("full ("), "{table}");
}

/// What the console application prints with `--json`.
fn dml(arguments: &[&str]) -> Value {
    let output = cluster::program(DML).arg("--json").args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_snapshot_of_one_node_is_restored_on_three() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_string();
    let (old, backup) = (path("old"), path("backup"));
    let data = |file: &str| format!("{}/../data/{file}", env!("CARGO_MANIFEST_DIR"));
    let from_old = |arguments: &[&str]| dml(&[&["--data", &old], arguments].concat());
    // The first model is not the best: what is restored has them in the order in which they were asked for.
    let train = ["--target", "species", "--model", "decision_tree", "--model", "logistic", "--name", "p"];
    let penguins = from_old(&[&["train", &data("penguins.csv")], &train[..]].concat());
    let train = ["--target", "price", "--model", "ridge:alpha=3", "--model", "ridge", "--folds", "3"];
    let houses = from_old(&[&["train", &data("houses.csv")], &train[..]].concat());
    let tune = ["--target", "price", "--trials", "6", "--kind", "ridge", "--param", "alpha=log:0.1..10"];
    let study = from_old(&[&["tune", &data("houses.csv")], &tune[..]].concat());
    let taken = from_old(&["snapshot", &backup]);
    assert_eq!(
        (&taken["datasets"], &taken["trainings"], &taken["studies"], &taken["models"]),
        (&2.into(), &3.into(), &1.into(), &5.into())
    );
    assert_eq!(from_old(&["snapshot", &backup]), taken, "again is as good as once");

    let three = Three::start();
    let (_worker, worker) = three.worker(0);
    let worker = worker.to_string();
    let to_new = |arguments: &[&str]| dml(&[&["--cluster", &worker], arguments].concat());
    for _ in 0..2 {
        let restored = to_new(&["restore", &backup]);
        assert_eq!(restored["models_as_they_were"], 5, "{restored}");
        assert_eq!(restored["other_models"], serde_json::json!([]));
    }
    let again = to_new(&["study", "show", "houses-price-tuned"]);
    assert_eq!((&again["id"], &again["leaders"]), (&study["id"], &study["leaders"]));
    for (before, name) in [(&penguins, "p"), (&houses, "houses-price")] {
        let after = to_new(&["training", "show", name]);
        assert_eq!((&after["id"], &after["dataset"]), (&before["id"], &before["dataset"]), "{name}");
        assert_eq!(after["best"], before["best"], "{name}");
        let routing = to_new(&["explain", name]);
        assert!(routing.to_string().contains("\"copies\":3"), "{routing}");
    }
    let model = &penguins["models"][0];
    let file =
        std::fs::read(path(&format!("backup/models/{}.dml", model["digest"].as_str().unwrap()))).unwrap();
    assert_eq!(
        dml_core::Digest::of(&file).to_string(),
        model["digest"],
        "the model itself is in the snapshot"
    );

    let refused = |directory: &str| {
        let output =
            cluster::program(DML).args(["--data", &path("none"), "restore", directory]).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, words) = refused(&path("nowhere"));
    assert!(code == Some(3) && words.contains("`dml snapshot`"), "{code:?} {words}");
    std::fs::write(path("backup/trainings/broken.json"), "{").unwrap();
    let (code, words) = refused(&backup);
    assert!(
        code == Some(1) && words.contains("broken.json") && words.contains("remove this file"),
        "{words}"
    );
}

#[test]
fn what_is_deployed_is_set_by_names_that_programs_know() {
    let deploy = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let known: String = [DB, WORKER, DML].iter().map(|path| help(path)).collect();
    let mut files = vec![];
    let mut directories = vec![deploy];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { &mut directories } else { &mut files }.push(path);
        }
    }
    let mut names = 0;
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for name in
            text.split(|c: char| !c.is_ascii_uppercase() && c != '_').filter(|word| word.starts_with("DML_"))
        {
            assert!(
                known.contains(&format!("[env: {name}]")),
                "no program knows {name} in {}",
                file.display()
            );
            names += 1;
        }
    }
    assert!(names > 10, "there are {names}");
}

fn help(program: &str) -> String {
    let output = cluster::program(program).arg("--help").output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}
