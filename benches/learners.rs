//! How fast learners fit and predict, each through the engine as a worker runs it, from chunks in files.
//!
//! ```text
//! cargo bench -p dml --bench learners -- [CASE] ... [rows]
//! cargo bench -p dml --bench learners -- data DIRECTORY [rows]
//! ```
//!
//! Cases: `boosting`, `forest`, `extra`, `tree`, `logistic`, `gaussian_nb`, `ridge`, and `predict`, which tells how fast a
//! boosted model answers many rows and one.
//!
//! The second writes the same table for other programs: `x.npy`, `y.npy`, `table.csv`; its last tenth of rows is what
//! the first judges models by. Times are the best of `DML_BENCH_TIMES` (3) runs on `RAYON_NUM_THREADS` threads; `auc`
//! is the area under the curve on the judging rows, which no model saw.
#![allow(clippy::print_stdout, reason = "a bench prints its tables")]

#[path = "data/mod.rs"]
mod data;

use std::{env, fs, hint::black_box, path::Path, time::Instant};

use data::{COLUMNS, Stored, TARGET, rows};
use dml::{
    Digest, Model, Registry,
    compute::{
        Engine, Scores, WorkError,
        engine::{check_problem, shape},
    },
    core::{JobSpec, Params, Split, Task, Value, Work},
};

type Failure = Box<dyn std::error::Error>;

const SEED: u64 = 42;

/// A case: its name, kind, parameters and number of rows.
type Case = (&'static str, &'static str, Vec<(&'static str, Value)>, usize);

fn main() -> Result<(), Failure> {
    // cargo adds `--bench`.
    let words: Vec<String> = env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let count = words.iter().find_map(|word| word.parse().ok());
    let words: Vec<&str> =
        words.iter().map(String::as_str).filter(|word| word.parse::<usize>().is_err()).collect();
    if let ["data", directory] = words[..] {
        return Ok(data::write_files(Path::new(directory), SEED, count.unwrap_or(1_000_000) / 9 * 10)?);
    }
    let cases: [Case; 8] = [
        ("boosting", "gradient_boosting", vec![("n_estimators", Value::Int(100))], 1_000_000),
        ("forest", "random_forest", vec![("n_estimators", Value::Int(100))], 100_000),
        ("extra", "extra_trees", vec![("n_estimators", Value::Int(100))], 100_000),
        ("tree", "decision_tree", vec![("max_depth", Value::Int(10))], 1_000_000),
        ("logistic", "logistic", vec![], 1_000_000),
        ("gaussian_nb", "gaussian_nb", vec![], 1_000_000),
        ("ridge", "ridge", vec![], 1_000_000),
        ("predict", "gradient_boosting", vec![("n_estimators", Value::Int(100))], 100_000),
    ];
    if let Some(unknown) = words.iter().find(|word| cases.iter().all(|(name, ..)| name != *word)) {
        return Err(format!("there is no case '{unknown}'").into());
    }
    println!(
        "{:<11} {:>9} {:>10} {:>10} {:>8} {:>9}",
        "case", "rows", "prepare s", "fit s", "auc", "peak MiB"
    );
    for (name, kind, params, default) in cases {
        if words.is_empty() || words.contains(&name) {
            run(name, kind, &params, count.unwrap_or(default))?;
        }
    }
    Ok(())
}

/// Fits the case's kind, judges it, and prints a line.
fn run(name: &str, kind: &str, params: &[(&str, Value)], count: usize) -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    let mut table = Stored::write(directory.path(), SEED, count)?;
    let registry = Registry::default();
    // The class is a number too: of a regression, `auc` tells how well its numbers part the classes.
    let task = registry.get(kind)?.kind().tasks.last().copied().unwrap_or(Task::Regression);
    let problem = check_problem(&table.dataset, task, TARGET, None)?;
    let given = Params(params.iter().map(|(name, value)| ((*name).to_string(), value.clone())).collect());
    let params = registry.check(kind, task, &given)?;
    let split = Split::All;
    let job = |plan, work| JobSpec { parent: None, role: "bench".into(), work, plan };
    let (mut prepare_s, mut fit_s, mut model) = (f64::INFINITY, f64::INFINITY, Vec::new());
    for _ in 0..env::var("DML_BENCH_TIMES").map_or(Ok(3), |times| times.parse::<usize>())? {
        let engine = Engine::new(Registry::default());
        let work = Work::Prepare { problem: problem.clone(), split, seed: 1 };
        let (seconds, profile) =
            timed(|| engine.run(&job(engine.plan_prepare(&table.dataset), work), &table))?;
        prepare_s = prepare_s.min(seconds);
        let prepared = Digest::of(&profile);
        table.results = vec![profile.into()];
        let plan = engine.plan_fit(kind, &params, &shape(&table.dataset, &problem))?;
        let (problem, params) = (problem.clone(), params.clone());
        let work = Work::Fit { problem, split, prepared, kind: kind.into(), params, seed: 5, bag: None };
        let (seconds, bytes) = timed(|| engine.run(&job(plan, work), &table))?;
        (fit_s, model) = (fit_s.min(seconds), bytes);
    }
    let peak = peak_mib();
    let model = Model::from_bytes(&model)?;
    let test = rows(SEED, count as u64, (count / 9).clamp(1000, 100_000));
    let batch = data::batch(&test);
    let predictor = model.predictor(&registry)?;
    let said = match predictor.scores(&batch)? {
        Scores::Probabilities(p) => p.column(1).to_vec(),
        Scores::Values(values) => values.to_vec(),
    };
    let auc = auc(&said, &test.y);
    println!("{name:<11} {count:>9} {prepare_s:>10.2} {fit_s:>10.2} {auc:>8.4} {peak:>9.0}");
    if name == "predict" {
        predictions(&model, &registry, &test)?;
    }
    Ok(())
}

/// Prints how fast a model answers: encoded rows alone, tables, and one row.
fn predictions(model: &Model, registry: &Registry, test: &data::Rows) -> Result<(), Failure> {
    let learner = registry.get(&model.kind)?;
    let loaded = learner.load(&model.learner)?;
    let x = ndarray::Array2::from_shape_vec((test.y.len(), COLUMNS), test.x.clone())?;
    let one = x.select(ndarray::Axis(0), &[0]);
    let predictor = model.predictor(registry)?;
    let (table, row) = (data::batch(test), data::batch(&rows(SEED, 0, 1)));
    let many = x.nrows() as f64 / best(20, || drop(black_box(loaded.predict(&x))));
    let tables = x.nrows() as f64 / best(20, || drop(black_box(predictor.scores(&table))));
    let times = 1000;
    let single =
        best(50, || (0..times).for_each(|_| drop(black_box(loaded.predict(&one))))) / f64::from(times);
    let row =
        best(50, || (0..times).for_each(|_| drop(black_box(predictor.scores(&row))))) / f64::from(times);
    println!("  rows a second: {:.2} M encoded, {:.2} M from a table", many / 1e6, tables / 1e6);
    println!("  one row: {:.2} µs encoded, {:.2} µs from a table", single * 1e6, row * 1e6);
    Ok(())
}

fn timed<T>(part: impl FnOnce() -> Result<T, WorkError>) -> Result<(f64, T), WorkError> {
    let start = Instant::now();
    part().map(|value| (start.elapsed().as_secs_f64(), value))
}

/// The shortest of so many runs, in seconds.
fn best(times: usize, mut part: impl FnMut()) -> f64 {
    let run = |_| {
        let start = Instant::now();
        part();
        start.elapsed().as_secs_f64()
    };
    (0..times).map(run).fold(f64::INFINITY, f64::min)
}

/// The area under the curve: how often a row of the class is said to be more probable than one that is not.
fn auc(said: &[f64], y: &[u8]) -> f64 {
    let mut order: Vec<usize> = (0..y.len()).collect();
    order.sort_by(|&a, &b| said[a].total_cmp(&said[b]));
    let ones = y.iter().filter(|&&y| y == 1).count() as f64;
    let ranks = order.iter().enumerate().filter(|(_, row)| y[**row] == 1).map(|(rank, _)| rank as f64 + 1.0);
    (ranks.sum::<f64>() - ones * (ones + 1.0) / 2.0) / (ones * (y.len() as f64 - ones))
}

/// The most memory that the process has held, where the system tells.
fn peak_mib() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).map(str::trim);
    kib.and_then(|kib| kib.trim_end_matches(" kB").parse::<f64>().ok()).map_or(f64::NAN, |kib| kib / 1024.0)
}
