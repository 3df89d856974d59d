//! Every page of help and the main errors, as their readers see them, are kept in `bins/tests/snapshots`, so that a change
//! is seen in review. `DML_REWRITE=1 cargo test -p dml-bins --test help` writes them anew.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

const PROGRAMS: [(&str, &str); 3] = [
    ("dml", env!("CARGO_BIN_EXE_dml")),
    ("db", env!("CARGO_BIN_EXE_db")),
    ("worker", env!("CARGO_BIN_EXE_worker")),
];

/// A program in a directory of its own, untouched by the environment of whoever runs the tests.
fn run(path: &str, directory: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(path);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("DML_")) {
        command.env_remove(name);
    }
    command.env_remove("COLUMNS").env("NO_COLOR", "1").current_dir(directory).stdin(Stdio::null());
    let output = command.args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[track_caller]
fn compare(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots").join(name);
    if std::env::var_os("DML_REWRITE").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    let differs = kept.lines().zip(text.lines()).position(|(kept, now)| kept != now);
    let line = differs.unwrap_or(kept.lines().count().min(text.lines().count()));
    let at = |text: &str| text.lines().nth(line).unwrap_or("(the end)").to_string();
    assert!(
        kept == text,
        "{} line {}:\n  was {}\n  is  {}\nIf that is meant: DML_REWRITE=1 cargo test -p dml-bins --test help",
        path.display(),
        line + 1,
        at(&kept),
        at(text)
    );
}

/// The commands that a page of help lists.
fn commands(help: &str) -> Vec<String> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let listed = listed.take_while(|line| !line.is_empty());
    // Names stand two blanks in, what is said of them further.
    let names = listed.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.filter_map(|line| line.split_whitespace().next()).map(Into::into).collect()
}

/// The help of a command, and of those below it.
fn pages(program: (&str, &str), path: &[String], directory: &Path, all: &mut String) {
    let words: Vec<&str> = path.iter().map(String::as_str).chain(["--help"]).collect();
    let (code, help, _) = run(program.1, directory, &words);
    assert_eq!(code, 0, "{words:?}");
    *all += &format!("$ {} {}\n{help}\n", program.0, words.join(" "));
    for command in commands(&help) {
        pages(program, &[path, &[command]].concat(), directory, all);
    }
}

#[test]
fn every_page_of_help() {
    let directory = tempfile::tempdir().unwrap();
    for program in PROGRAMS {
        let mut all = String::new();
        pages(program, &[], directory.path(), &mut all);
        compare(&format!("{}.txt", program.0), &all);
    }
    assert!(fs::read_dir(&directory).unwrap().next().is_none(), "help leaves nothing behind");
}

#[test]
fn the_main_errors() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let penguins = concat!(env!("CARGO_MANIFEST_DIR"), "/../data/penguins.csv");
    fs::copy(penguins, here.join("penguins.csv")).unwrap();
    fs::write(here.join("ragged.csv"), "a,b\n1,2\n3\n").unwrap();
    fs::write(here.join("empty.csv"), "").unwrap();
    fs::write(here.join("header.csv"), "a,b\n").unwrap();
    fs::write(here.join("latin.csv"), b"a,b\n1,caf\xe9\n").unwrap();
    fs::write(here.join("constant.csv"), "a,b\n1,2\n2,2\n3,2\n4,2\n5,2\n").unwrap();
    fs::write(here.join("bad.toml"), "clustr = 1\n").unwrap();
    assert_eq!(run(PROGRAMS[0].1, here, &["dataset", "add", "penguins.csv"]).0, 0);
    let cases: [(usize, &str); 33] = [
        (0, "tarin penguins.csv"),
        (0, "train penguins.csv"),
        (0, "train penguins.csv --target specise"),
        (0, "train missing.csv --target a"),
        (0, "train penguins.csv --target species --model forest"),
        (0, "train penguins.csv --target species --model ridge"),
        (0, "train penguins.csv --target species --model logistic:c"),
        (0, "train penguins.csv --target species --model logistic:c=much"),
        (0, "train penguins.csv --target species --model logistic:depth=3"),
        (0, "train penguins.csv --target species --task regression"),
        (0, "train penguins.csv --target species --holdout 2"),
        (0, "train penguins.csv --target species --holdout 0.2 --folds 5"),
        (0, "train penguins.csv --target species --folds 1"),
        (0, "train penguins.csv --target species --features beak"),
        (0, "train penguins.csv --target species --name ../up"),
        (0, "train ragged.csv --target a"),
        (0, "train empty.csv --target a"),
        (0, "train header.csv --target a"),
        (0, "train latin.csv --target a"),
        (0, "train constant.csv --target b"),
        (0, "predict nothing penguins.csv"),
        (0, "dataset show nothing"),
        (0, "training watch nothing"),
        (0, "training cancel nothing"),
        (0, "model download nothing"),
        (0, "model kinds nothing"),
        (0, "token add me --scope read"),
        (0, "dataset ls --limit 0"),
        (0, "dataset show nothing --json"),
        (0, "--cluster http://127.0.0.1:1 dataset ls"),
        (0, "--config bad.toml dataset ls"),
        (1, "--listen 0.0.0.0:7301"),
        (2, "--listen nonsense"),
    ];
    let mut all = String::new();
    for (program, line) in cases {
        let (name, path) = PROGRAMS[program];
        let words: Vec<&str> = line.split(' ').collect();
        let (code, out, err) = run(path, here, &words);
        assert!(code != 0 && out.is_empty(), "{name} {line}: {code}\n{out}{err}");
        // A program that is named by its path in usage hints is named by its name here.
        let err = err.replace(path, name);
        all += &format!("$ {name} {line}\n{err}exit code {code}\n\n");
    }
    compare("errors.txt", &all);
}

#[test]
fn every_command_has_a_manual_page() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let (code, out, err) = run(PROGRAMS[0].1, here, &["man", "man1"]);
    assert_eq!(code, 0, "{err}");
    let listed = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots/dml.txt"));
    let pages: Vec<String> =
        listed.unwrap().lines().filter_map(|line| line.strip_prefix("$ dml").map(Into::into)).collect();
    assert!(pages.len() > 30 && pages.len() == out.lines().count(), "{out}");
    for page in pages {
        let words = page.trim_end_matches("--help").split_whitespace();
        let name = std::iter::once("dml").chain(words).collect::<Vec<_>>().join("-");
        let text = fs::read_to_string(here.join("man1").join(format!("{name}.1"))).unwrap();
        assert!(text.contains(".SH NAME") && text.contains(".SH SYNOPSIS"), "{name}: {text}");
    }
    let train = fs::read_to_string(here.join("man1/dml-train.1")).unwrap();
    assert!(train.contains("target") && train.contains("random_forest"), "options and examples are there");
}
