//! The programs as their users run them: real processes, real files, real sockets.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use serde_json::Value;

const PENGUINS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../data/penguins.csv");
const HOUSES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../data/houses.csv");

/// A program in a directory, untouched by the environment of whoever runs the tests.
fn program(path: &str, directory: &Path) -> Command {
    let mut command = Command::new(path);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("DML_")) {
        command.env_remove(name);
    }
    command.current_dir(directory).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// What a program that did its work wrote to stdout.
    #[track_caller]
    fn done(self) -> String {
        assert_eq!(self.code, 0, "{}\n{}", self.out, self.err);
        self.out
    }

    /// What a program that failed wrote to stderr.
    #[track_caller]
    fn failed(self, code: i32) -> String {
        assert_eq!(self.code, code, "{}\n{}", self.out, self.err);
        assert_eq!(self.out, "");
        self.err
    }

    #[track_caller]
    fn json(self) -> Value {
        serde_json::from_str(&self.done()).unwrap()
    }
}

fn dml(directory: &Path, arguments: &[&str]) -> Ran {
    Ran::of(program(env!("CARGO_BIN_EXE_dml"), directory).args(arguments).output().unwrap())
}

fn dml_fed(directory: &Path, arguments: &[&str], input: &[u8]) -> Ran {
    let mut command = program(env!("CARGO_BIN_EXE_dml"), directory);
    let mut child = command.args(arguments).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    Ran::of(child.wait_with_output().unwrap())
}

/// A program that serves; it is killed at the end of the test.
struct Server {
    child: Child,
    url: String,
}

impl Server {
    /// Starts it and waits for its first line, which says where it listens.
    fn start(path: &str, directory: &Path, arguments: &[&str]) -> Self {
        let mut child = program(path, directory).args(arguments).stderr(Stdio::inherit()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let url = line.split_whitespace().find(|word| word.starts_with("http://"));
        let url = url.unwrap_or_else(|| panic!("no address in {line:?}")).to_string();
        Self { child, url }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn models_predict_together() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let train =
        ["train", HOUSES, "--target", "price", "--model", "ridge", "--model", "ridge:alpha=9", "--ensemble"];
    for (method, line) in [
        ("bagging", "together, by bagging: 2 of 2 models, rmse "),
        ("stacking", "together, by stacking: 2 of 2"),
    ] {
        let board = dml(here, &[&train[..], &[method]].concat()).done();
        assert!(board.contains(line), "{board}");
    }
    let folds = dml(here, &[&train[..], &["voting", "--folds", "3"]].concat()).failed(2);
    assert!(folds.contains("--folds"), "{folds}");
    // A snapshot keeps how they were asked for.
    dml(here, &["snapshot", "kept"]).done();
    let restored = dml(here, &["--data", "other", "restore", "kept"]).done();
    assert!(restored.contains("4 models as they were"), "{restored}");
}

#[test]
fn from_a_table_to_a_model_in_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let train = ["train", PENGUINS, "--target", "species", "--model", "logistic", "--model", "gaussian_nb"];

    let first = dml(here, &train);
    assert!(first.err.contains("344 rows") && first.err.contains("What next:"), "{}", first.err);
    let told = |model: &str| {
        first.err.lines().any(|line| {
            line.starts_with(&format!("{model}: accuracy 0."))
                || line.starts_with(&format!("{model}: accuracy 1."))
        })
    };
    assert!(told("logistic") && told("gaussian_nb"), "{}", first.err);
    let board = first.done();
    assert!(board.contains("penguins-species: classification of species, judged on"), "{board}");
    let place = |model: &str| board.lines().position(|line| line.contains(model)).unwrap();
    assert!(place("logistic") < place("gaussian_nb"), "{board}");

    // The same again is not computed again, and JSON is one document.
    let again = dml(here, &[&train[..], &["--json"]].concat());
    assert!(again.err.contains("already trained"), "{}", again.err);
    let training = again.json();
    assert_eq!(training["state"], "succeeded");
    assert!(training["models"][0]["metrics"]["accuracy"].as_f64().unwrap() > 0.95);

    // Through a pipe, to a file, and as JSON: the same predictions.
    let table = std::fs::read(PENGUINS).unwrap();
    let piped = dml_fed(here, &["predict", "penguins-species", "-"], &table).done();
    assert_eq!(piped.lines().count(), 345);
    assert!(piped.starts_with("prediction,probability_Adelie,"), "{piped}");
    let silent =
        dml(here, &["predict", "penguins-species", "penguins", "-o", "out.csv", "--name", "p"]).done();
    assert_eq!(
        (silent.as_str(), std::fs::read_to_string(here.join("out.csv")).unwrap()),
        ("", piped.clone())
    );
    let document = dml(here, &["predict", "penguins-species", "penguins", "--json"]).json();
    assert_eq!(document["results"].as_array().unwrap().len(), 344);
    assert_eq!(document["results"][0]["prediction"], "Adelie");
    assert_eq!(dml(here, &["prediction", "results", "p"]).done(), piped);

    let shown = dml(here, &["model", "show", "penguins-species"]).done();
    for words in
        ["penguins-species/logistic", "balanced_accuracy", "bill_length_mm (float)", "Chinstrap", "█"]
    {
        assert!(shown.contains(words), "{words} is not in\n{shown}");
    }
    dml(here, &["model", "download", "penguins-species"]).done();
    assert!(here.join("penguins-species-logistic.dml").metadata().unwrap().len() > 100);
    let model =
        dml(here, &["model", "download", "penguins-species/gaussian_nb", "--format", "json", "-o", "-"])
            .json();
    assert!(model.is_object());
    dml(here, &["model", "download", "penguins-species/gaussian_nb", "--format", "onnx"]).done();
    let onnx = std::fs::read(here.join("penguins-species-gaussian_nb.onnx")).unwrap();
    assert!(onnx.windows(14).any(|bytes| bytes == b"bill_length_mm"), "an input is named as its column");

    let shown = dml(here, &["dataset", "show", "penguins"]).done();
    assert!(shown.contains("3 values: Adelie (152)") && shown.contains("Torgersen"), "{shown}");
    // A table that comes again under another name is the same table.
    let lists = [
        ("dataset", 1, "stdin"),
        ("training", 1, "penguins-species"),
        ("model", 2, "penguins-species/gaussian_nb"),
        ("prediction", 1, "done"),
    ];
    for (list, count, word) in lists {
        let items = dml(here, &[list, "ls", "--json"]).json()["items"].as_array().unwrap().len();
        let text = dml(here, &[list, "ls"]).done();
        assert!(items == count && text.contains(word), "{items} in\n{text}");
    }
    assert!(dml(here, &["prediction", "show", "p"]).done().contains("done"));
    dml(here, &["training", "rm", "penguins-species"]).done();
    dml(here, &["training", "show", "penguins-species"]).failed(3);
    dml(here, &["dataset", "rm", "penguins"]).done();
    dml(here, &["dataset", "show", "penguins"]).failed(3);
}

#[test]
fn regression_by_folds_with_a_file_of_settings() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    std::fs::write(
        here.join("dml.toml"),
        "data = 'kept'\nfolds = 3\nmodel = ['linear', 'ridge:alpha=2.5']\n",
    )
    .unwrap();
    let board = dml(
        here,
        &["--config", "dml.toml", "train", HOUSES, "-t", "price", "--features", "lotsize,bedrooms"],
    )
    .done();
    assert!(board.contains("judged by 3 folds") && board.contains(" ± ") && board.contains("R²"), "{board}");
    let training = dml(here, &["--data", "kept", "training", "show", "houses-price", "--json"]).json();
    assert_eq!(training["features"], serde_json::json!(["lotsize", "bedrooms"]));
    let ridge = training["models"].as_array().unwrap().iter().find(|model| model["kind"] == "ridge").unwrap();
    assert_eq!(ridge["params"]["alpha"], 2.5);
    assert!(!here.join(".dml").exists());
}

#[test]
fn mistakes_have_their_codes() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    // 2: wrong usage.
    assert!(dml(here, &["trian"]).failed(2).contains("train"));
    dml(here, &["train", PENGUINS]).failed(2);
    assert!(
        dml(here, &["train", PENGUINS, "-t", "x", "--model", "ridge:alpha"]).failed(2).contains("name=value")
    );
    assert!(dml(here, &["--cluster", "ftp://a", "dataset", "ls"]).failed(2).contains("ftp://a"));
    assert!(dml(here, &["up", "--listen", "0.0.0.0:0"]).failed(2).contains("--insecure"));
    // 3: no such thing; and nothing is made by looking.
    assert!(dml(here, &["model", "show", "nothing"]).failed(3).contains("nothing"));
    assert!(!here.join(".dml").exists());
    assert!(dml(here, &["train", "missing.csv", "-t", "x"]).failed(3).contains("no file 'missing.csv'"));
    let error = dml(here, &["training", "show", "nothing", "--json"]).failed(3);
    assert_eq!(serde_json::from_str::<Value>(&error).unwrap()["code"], "not-found");
    // 4: the input is at fault.
    std::fs::write(here.join("ragged.csv"), "a,b\n1,2\n3\n").unwrap();
    assert!(dml(here, &["dataset", "add", "ragged.csv"]).failed(4).contains("row 2"));
    assert!(dml(here, &["train", PENGUINS, "-t", "colour"]).failed(4).contains("colour"));
    // 5: no cluster answers.
    let silent = dml(here, &["--cluster", "http://127.0.0.1:1", "dataset", "ls"]).failed(5);
    assert!(silent.contains("127.0.0.1:1") && silent.contains("dml up"), "{silent}");
}

#[test]
fn what_needs_no_cluster() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    assert!(dml(here, &[]).done().contains("train TABLE.csv --target COLUMN"));
    assert!(dml(here, &["completions", "bash"]).done().contains("_dml"));
    assert!(dml(here, &["model", "kinds", "ridge"]).done().contains("alpha"));
    assert!(dml(here, &["dataset", "ls"]).done().is_empty());
    // A reader that leaves early is no error.
    let mut command = program(env!("CARGO_BIN_EXE_dml"), here);
    let mut child = command.args(["model", "kinds"]).spawn().unwrap();
    drop(child.stdout.take());
    let left = Ran::of(child.wait_with_output().unwrap());
    assert_eq!((left.code, left.err.as_str()), (0, ""));
}

#[test]
fn a_cluster_in_one_process_serves_others() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let mut up =
        Server::start(env!("CARGO_BIN_EXE_dml"), here, &["up", "--workers", "2", "--listen", "127.0.0.1:0"]);
    let on_cluster = |arguments: &[&str]| dml(here, &[&["--cluster", &up.url], arguments].concat());

    let taken = dml(here, &["dataset", "ls"]).failed(1);
    assert!(taken.contains("another process uses") && taken.contains("--cluster"), "{taken}");
    on_cluster(&["train", PENGUINS, "-t", "species", "--model", "gaussian_nb", "--name", "mine"]).done();
    let watched = on_cluster(&["training", "watch", "mine", "--json"]).json();
    assert_eq!(watched["state"], "succeeded");
    assert!(on_cluster(&["cluster"]).done().contains("active"));
    // The first address does not answer: the second is tried.
    let both = format!("127.0.0.1:1,{}", up.url);
    assert!(dml(here, &["--cluster", &both, "model", "ls"]).done().contains("mine/gaussian_nb"));

    let told = Command::new("kill").arg(up.child.id().to_string()).status().unwrap();
    assert!(told.success() && up.child.wait().unwrap().success());
    assert!(dml(here, &["model", "ls"]).done().contains("mine/gaussian_nb"));
}

#[test]
fn a_db_node_and_a_worker_are_a_cluster() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let db = Server::start(env!("CARGO_BIN_EXE_db"), here, &["--listen", "127.0.0.1:0", "--log", "warn"]);
    let join = ["--listen", "127.0.0.1:0", "--slots", "2", "--log", "warn", "--join", &db.url];
    let worker = Server::start(env!("CARGO_BIN_EXE_worker"), here, &join);
    let on_cluster = |arguments: &[&str]| dml(here, &[&["--cluster", &worker.url], arguments].concat());
    on_cluster(&["train", PENGUINS, "-t", "species", "--model", "gaussian_nb"]).done();
    let predicted = on_cluster(&["predict", "penguins-species", "penguins"]).done();
    assert_eq!(predicted.lines().count(), 345);
    let nodes = on_cluster(&["cluster", "--json"]).json();
    assert_eq!(nodes["items"].as_array().unwrap().len(), 2, "{nodes}");
    assert!(here.join(".dml-db").is_dir());
}

#[test]
fn one_frame_shows_what_the_cluster_is_at() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    dml(here, &["train", PENGUINS, "--target", "species", "--model", "logistic"]).done();
    let frame = dml(here, &["top", "--once"]).done();
    for words in ["1 of 1 db nodes", "units/s", "in this process", "penguins-species", "1 of 1", "100 %"] {
        assert!(frame.contains(words), "no {words} in {frame}");
    }
    let document = dml(here, &["top", "--json"]).json();
    assert_eq!(document["trainings"][0]["models_done"], 1);
    assert_eq!((&document["trainings"][0]["state"], &document["busy"]), (&"succeeded".into(), &0.into()));
    assert!(document["units_per_second"].is_number() && document["nodes"].as_array().unwrap().len() == 2);
}

/// On a terminal it goes on until it is told to end, and gives the terminal back. `script` is the terminal.
#[test]
fn frames_follow_each_other_until_q() {
    let directory = tempfile::tempdir().unwrap();
    let top = format!("stty rows 40 cols 120; {} top; stty -a", env!("CARGO_BIN_EXE_dml"));
    let mut terminal = program("script", directory.path());
    terminal.args(["-qec", &top, "/dev/null"]).stdin(Stdio::piped());
    let Ok(mut terminal) = terminal.spawn() else { return };
    std::thread::sleep(std::time::Duration::from_millis(3500));
    terminal.stdin.as_mut().unwrap().write_all(b"q").unwrap();
    let ran = Ran::of(terminal.wait_with_output().unwrap());
    assert_eq!(ran.code, 0, "{}", ran.out);
    assert!(ran.out.matches("db nodes, 1 worker").count() >= 2, "{}", ran.out);
    let restored = ran.out.rsplit("\u{1b}[?1049l").next().unwrap();
    assert!(
        ran.out.contains("\u{1b}[?1049h") && restored.contains(" icanon") && restored.contains(" echo "),
        "{restored}"
    );
}

#[test]
fn a_model_in_a_file_predicts_as_in_its_cluster() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    dml(here, &["train", PENGUINS, "--target", "species", "--model", "random_forest:n_estimators=9"]).done();
    dml(here, &["model", "download", "penguins-species", "-o", "forest.dml"]).done();
    let known = dml(here, &["predict", "penguins-species", PENGUINS]).done();
    let alone = tempfile::tempdir().unwrap();
    let (there, run) = (alone.path(), |arguments: &[&str]| dml(alone.path(), arguments));
    std::fs::copy(here.join("forest.dml"), there.join("forest.dml")).unwrap();
    assert_eq!(run(&["predict", "forest.dml", PENGUINS]).done(), known);
    run(&["predict", "forest.dml", PENGUINS, "-o", "out.csv"]).done();
    assert_eq!(std::fs::read_to_string(there.join("out.csv")).unwrap(), known);
    let penguins = std::fs::read(PENGUINS).unwrap();
    let told = dml_fed(there, &["predict", "forest.dml", "-", "--json"], &penguins).json();
    assert_eq!((told["rows"].as_u64(), told["results"].as_array().unwrap().len()), (Some(344), 344));
    assert!(!there.join(".dml").exists(), "nothing is kept");

    let model = std::fs::read(there.join("forest.dml")).unwrap();
    std::fs::write(there.join("cut.dml"), &model[..model.len() - 1]).unwrap();
    assert!(run(&["predict", "cut.dml", PENGUINS]).failed(4).contains("cut.dml: a model cannot be read"));
    std::fs::write(there.join("few.csv"), "island,sex\nDream,male\n").unwrap();
    assert!(run(&["predict", "forest.dml", "few.csv"]).failed(4).contains("bill_length_mm"));
    std::fs::write(there.join("packed.csv"), b"\x1f\x8b\x08").unwrap();
    assert!(run(&["predict", "forest.dml", "packed.csv"]).failed(4).contains("gzip"));
    assert!(run(&["predict", "forest.dml", "penguins"]).failed(3).contains("a table in a file"));
    assert!(run(&["predict", "forest.dml", PENGUINS, "--name", "x"]).failed(2).contains("--name"));
    assert!(run(&["predict", "gone.dml", PENGUINS]).failed(3).contains("gone.dml"));
}
