//! DML's side of the comparison with other libraries, one measurement a process: `benches/peers/run.sh` starts it in
//! turns with them.
//!
//! ```text
//! peers data DIRECTORY ROWS [DIAMONDS.csv]     writes the tables for everybody
//! peers fit CASE DIRECTORY memory|disk SAID    fits, writes what it says of the judging rows into the file SAID
//! peers csv DIRECTORY                          reads the CSV file to typed chunks
//! ```
//!
//! It prints one line of JSON. Times are of what a user of the library waits for: a fit is the two jobs `prepare` and
//! `fit` on an [`Engine`], from the encoded chunks of the dataset (in files of which the system has a copy in memory, or
//! in memory) to the bytes of the model.
#![allow(clippy::print_stdout, reason = "a bench prints what it measures")]

#[allow(dead_code, reason = "the rest is for another bench")]
#[path = "../data/mod.rs"]
mod data;
mod table;

use std::{
    env,
    fs::{self, File},
    hint::black_box,
    io::{BufWriter, Cursor, Write},
    path::Path,
    time::Instant,
};

use arrow_array::RecordBatch;
use dml::{
    Model, Registry,
    compute::{
        Engine, Scores,
        engine::{check_problem, shape},
        model::Predictor,
        table::{Limits, read_rows, read_table},
    },
    core::{JobSpec, Params, Split, Task, Value, Work, rng},
};
use serde_json::{Value as Json, json};
use table::{Rows, Stored, TARGET, Writer};

type Failure = Box<dyn std::error::Error>;

const SEED: u64 = 42;
/// Columns of the regression table.
const SLOPES: usize = 20;
/// Which diamonds are for judging.
const HOLDOUT: Split = Split::Holdout { seed: 7, fraction: 0.2 };

fn main() -> Result<(), Failure> {
    // cargo adds `--bench`.
    let words: Vec<String> = env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["data", directory, rows] => write_tables(Path::new(directory), rows.parse()?),
        ["data", directory, rows, diamonds] => {
            write_tables(Path::new(directory), rows.parse()?)?;
            write_diamonds(&Path::new(directory).join("diamonds"), Path::new(diamonds))
        }
        ["fit", case, directory, store, said] => {
            println!("{}", fit(case, Path::new(directory), store == "memory", Path::new(said))?);
            Ok(())
        }
        ["csv", directory] => {
            println!("{}", read_csv(Path::new(directory))?);
            Ok(())
        }
        [] => {
            println!("`benches/peers/run.sh` compares DML with other libraries");
            Ok(())
        }
        _ => {
            Err(format!("'{}' is no measurement: see the head of benches/peers/main.rs", words.join(" "))
                .into())
        }
    }
}

// ---- Tables.

fn write_tables(directory: &Path, count: usize) -> Result<(), Failure> {
    table::write(&directory.join("binary"), Task::Classification, count, classes)?;
    table::write(&directory.join("small"), Task::Classification, count / 10, classes)?;
    table::write(&directory.join("regression"), Task::Regression, count, slopes)?;
    write_csv(&directory.join("table.csv"), count)
}

/// 28 columns, and a class that follows from seven of them.
fn classes(first: u64, count: usize) -> Rows {
    let data::Rows { x, y } = data::rows(SEED, first, count);
    Rows { x, y: y.into_iter().map(f64::from).collect() }
}

/// Columns of normal noise, and a number that is a weighted sum of them and one more.
fn slopes(first: u64, count: usize) -> Rows {
    let noise = data::rows(SEED + 1, first, count).x;
    let rows = noise.chunks(data::COLUMNS).map(|row| (&row[..SLOPES], row[SLOPES]));
    let weights: Vec<f64> = (0..SLOPES as u64).map(|column| rng::unit(SEED, column) * 4.0 - 2.0).collect();
    let y = |x: &[f64], error| x.iter().zip(&weights).map(|(x, weight)| x * weight).sum::<f64>() + error;
    Rows {
        y: rows.clone().map(|(x, error)| y(x, error)).collect(),
        x: rows.flat_map(|(x, _)| x).copied().collect(),
    }
}

/// The table of classes as text, numbers with six decimals.
fn write_csv(path: &Path, count: usize) -> Result<(), Failure> {
    let mut csv = BufWriter::new(File::create(path)?);
    writeln!(csv, "{},{TARGET}", table::names(data::COLUMNS).join(","))?;
    for first in (0..count).step_by(10_000) {
        let rows = classes(first as u64, 10_000.min(count - first));
        for (x, y) in rows.x.chunks(data::COLUMNS).zip(&rows.y) {
            x.iter().try_for_each(|value| write!(csv, "{value:.6},"))?;
            writeln!(csv, "{y}")?;
        }
    }
    Ok(csv.flush()?)
}

/// Cuts a table with a header and no quoted line ends into rows to learn from and rows to judge by.
fn write_diamonds(directory: &Path, csv: &Path) -> Result<(), Failure> {
    fs::create_dir_all(directory)?;
    let text = fs::read_to_string(csv)?;
    let (header, lines) = text.split_once('\n').ok_or("the table of diamonds is empty")?;
    let mut parts = [header.trim_end().to_string() + "\n", header.trim_end().to_string() + "\n"];
    for (row, line) in lines.lines().enumerate() {
        let part = &mut parts[usize::from(HOLDOUT.is_test(row as u64))];
        *part += line;
        *part += "\n";
    }
    let [train, judge] = parts;
    fs::write(directory.join("train.csv"), &train)?;
    fs::write(directory.join("judge.csv"), judge)?;
    let (chunks, columns) = read_table(Cursor::new(train), Limits::default())?;
    let columns = columns.into_iter().map(|column| (column.name, column.r#type));
    let mut writer = Writer::create(directory, columns.collect())?;
    chunks.iter().try_for_each(|chunk| writer.push(chunk))?;
    Ok(writer.finish()?)
}

// ---- Fits.

/// What is fitted: the table, its target, the task, the kind and its parameters.
struct Case {
    table: &'static str,
    target: &'static str,
    task: Task,
    kind: &'static str,
    params: Vec<(&'static str, Value)>,
}

fn case(name: &str) -> Result<Case, Failure> {
    let classify =
        |table, kind, params| Case { table, target: TARGET, task: Task::Classification, kind, params };
    let trees = || vec![("n_estimators", Value::Int(100)), ("max_leaves", Value::Int(31))];
    Ok(match name {
        "boosting" => classify("binary", "gradient_boosting", trees()),
        "logistic" => classify("binary", "logistic", vec![("C", Value::Float(1.0))]),
        "gaussian_nb" => classify("binary", "gaussian_nb", vec![("var_smoothing", Value::Float(1e-9))]),
        "tree" => classify("binary", "decision_tree", vec![("max_depth", Value::Int(10))]),
        "forest" => classify("small", "random_forest", vec![("n_estimators", Value::Int(100))]),
        "ridge" => Case {
            task: Task::Regression,
            ..classify("regression", "ridge", vec![("alpha", Value::Float(1.0))])
        },
        "diamonds" => Case {
            target: "price",
            task: Task::Regression,
            ..classify("diamonds", "gradient_boosting", trees())
        },
        _ => return Err(format!("there is no case '{name}'").into()),
    })
}

fn fit(name: &str, directory: &Path, in_memory: bool, said: &Path) -> Result<Json, Failure> {
    let Case { table, target, task, kind, params } = case(name)?;
    let directory = directory.join(table);
    let mut stored = Stored::open(&directory, in_memory)?;
    let problem = check_problem(&stored.dataset, task, target, None)?;
    let engine = Engine::new(Registry::default());
    let registry = engine.registry();
    let given = Params(params.into_iter().map(|(name, value)| (name.to_string(), value)).collect());
    let params = registry.check(kind, task, &given)?;
    let split = Split::All;
    let job = |plan, work| JobSpec { parent: None, role: "bench".into(), work, plan };

    let start = Instant::now();
    let work = Work::Prepare { problem: problem.clone(), split, seed: 1 };
    let profile = engine.run(&job(engine.plan_prepare(&stored.dataset), work), &stored)?;
    let prepared = stored.keep(profile);
    let prepare_s = start.elapsed().as_secs_f64();
    let plan = engine.plan_fit(kind, &params, &shape(&stored.dataset, &problem))?;
    let work = Work::Fit { problem, split, prepared, kind: kind.into(), params, seed: 5, bag: None };
    let model = engine.run(&job(plan, work), &stored)?;
    let seconds = start.elapsed().as_secs_f64();
    let peak_mib = peak_mib();

    let model = Model::from_bytes(&model)?;
    let predictor = model.predictor(registry)?;
    let judge = match name {
        "diamonds" => read_rows(&fs::read(directory.join("judge.csv"))?, &Limits::default())?,
        // What it minimises is a sum over the training rows.
        "logistic" => Rows::read(&directory, "train")?.batch(task),
        _ => Rows::read(&directory, "judge")?.batch(task),
    };
    write_said(said, predictor.scores(&judge)?)?;
    let mut measured = json!({ "seconds": seconds, "prepare_s": prepare_s, "peak_mib": peak_mib });
    if name == "boosting" {
        measured["batch_s"] = batch_s(&predictor, &judge)?.into();
        measured["one_row_s"] = one_row_s(&predictor, &judge)?.into();
    }
    Ok(measured)
}

/// Writes the predicted numbers, or the probabilities of the second class.
fn write_said(path: &Path, scores: Scores) -> Result<(), Failure> {
    let said = match scores {
        Scores::Values(values) => values.to_vec(),
        Scores::Probabilities(p) => p.column(1).to_vec(),
    };
    Ok(fs::write(path, said.into_iter().flat_map(f64::to_le_bytes).collect::<Vec<u8>>())?)
}

// ---- Predictions.

/// The median time to predict a table, for each row of it.
fn batch_s(predictor: &Predictor, table: &RecordBatch) -> Result<f64, Failure> {
    let scores = || {
        black_box(predictor.scores(table)?);
        Ok(())
    };
    median(7, scores).map(|s| s / table.num_rows() as f64)
}

/// The median time to predict a table of one row.
fn one_row_s(predictor: &Predictor, table: &RecordBatch) -> Result<f64, Failure> {
    let (row, times) = (table.slice(0, 1), 1000);
    let scores = || {
        for _ in 0..times {
            black_box(predictor.scores(&row)?);
        }
        Ok(())
    };
    median(7, scores).map(|s| s / f64::from(times))
}

fn median(times: usize, mut part: impl FnMut() -> Result<(), Failure>) -> Result<f64, Failure> {
    let mut seconds = Vec::new();
    for _ in 0..times {
        let start = Instant::now();
        part()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    Ok(seconds[times / 2])
}

// ---- CSV.

/// Reads the CSV file to typed columns, which are all kept until the clock stops.
fn read_csv(directory: &Path) -> Result<Json, Failure> {
    let start = Instant::now();
    let file = File::open(directory.join("table.csv"))?;
    let (batches, _) = read_table(file, Limits::default())?;
    let seconds = start.elapsed().as_secs_f64();
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    Ok(
        json!({ "seconds": seconds, "rows": rows, "columns": batches[0].num_columns(), "peak_mib": peak_mib() }),
    )
}

/// The most memory that the process has held, where the system tells.
fn peak_mib() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim();
    Some(kib.trim_end_matches(" kB").parse::<f64>().ok()? / 1024.0)
}
