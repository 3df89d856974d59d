#![allow(clippy::unwrap_used, reason = "a test may panic")]
//! `kill -9` at any moment of a training: started again on the same data, it goes on and ends with the same bytes.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

/// A table that takes a while: 6,000 rows of a wavy function.
fn write_table(path: &Path) {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    writeln!(file, "a,b,c,d,y").unwrap();
    for i in 0..6_000u64 {
        let x = |k: u64| (dml_core::rng::unit(k, i) * 1000.0).round() / 100.0;
        let (a, b, c, d) = (x(1), x(2), x(3), x(4));
        writeln!(file, "{a},{b},{c},{d},{}", (a * a - b * c).round() + d).unwrap();
    }
}

fn train(data: &Path, table: &Path, iterations: u32) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dml"));
    command.args(["--json", "--data"]).arg(data).arg("train").arg(table).args(["--target", "y"]);
    let boosting = format!("gradient_boosting:n_estimators={iterations}");
    let models = [&boosting, "random_forest:n_estimators=20", "ridge"];
    models.iter().for_each(|model| {
        command.args(["--model", model]);
    });
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

/// The digests of the models, by kind.
fn digests(output: &[u8]) -> Vec<(String, String)> {
    let view: Value = serde_json::from_slice(output).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_string();
    let models = view["models"].as_array().unwrap();
    let mut digests: Vec<_> = models.iter().map(|m| (text(&m["kind"]), text(&m["digest"]))).collect();
    digests.sort();
    digests
}

#[test]
fn killed_at_twenty_moments_it_ends_with_the_same_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let table = directory.path().join("waves.csv");
    write_table(&table);
    let start = Instant::now();
    let undisturbed = train(&directory.path().join("undisturbed"), &table, 200).output().unwrap();
    let whole = start.elapsed();
    assert!(undisturbed.status.success());
    let expected = digests(&undisturbed.stdout);
    assert_eq!(expected.len(), 3);

    let data = directory.path().join("killed");
    let mut kills = 0;
    for round in 0..20u64 {
        // Somewhere between the very start and the end.
        let moment = whole.mul_f64(dml_core::rng::unit(7, round));
        let mut child = train(&data, &table, 200).spawn().unwrap();
        std::thread::sleep(moment);
        if child.try_wait().unwrap().is_none() {
            child.kill().unwrap();
            kills += 1;
        }
        child.wait().unwrap();
        if round % 2 == 1 {
            let finished = train(&data, &table, 200).output().unwrap();
            assert_eq!(digests(&finished.stdout), expected, "killed after {moment:?}");
            // The next moments begin with nothing again.
            std::fs::remove_dir_all(&data).unwrap();
        }
    }
    assert!(kills >= 5, "only {kills} processes were caught alive");
}

/// A process that is killed when the test ends, however it ends.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a program and reads where it listens.
fn serve(program: &str, args: &[&str]) -> (Process, String) {
    let mut child =
        Command::new(program).args(args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().rsplit_once("http://").unwrap().1.to_string();
    (Process(child), address)
}

/// Iterations that take seconds: the kills come while they are computed.
const LONG: u32 = 3000;

#[test]
fn a_db_node_killed_three_times_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let table = directory.path().join("waves.csv");
    write_table(&table);
    let undisturbed = train(&directory.path().join("alone"), &table, LONG).output().unwrap();
    let data = directory.path().join("db");
    let data = data.to_str().unwrap();
    let (mut db, address) = serve(env!("CARGO_BIN_EXE_db"), &["--data", data, "--listen", "127.0.0.1:0"]);
    let join = ["--join", &address, "--listen", "127.0.0.1:0"];
    let (_worker, api) = serve(env!("CARGO_BIN_EXE_worker"), &join);
    let mut command = train(directory.path(), &table, LONG);
    let mut client = command.env("DML_CLUSTER", format!("http://{api}")).spawn().unwrap();
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(200));
        drop(db);
        std::thread::sleep(Duration::from_millis(100));
        (db, _) = serve(env!("CARGO_BIN_EXE_db"), &["--data", data, "--listen", &address]);
    }
    assert!(client.try_wait().unwrap().is_none(), "the training ended before the kills");
    let output = client.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(digests(&output.stdout), digests(&undisturbed.stdout));
}
