//! The searches of `dml tune` on functions whose minimum is known: what a study would find if its models were these
//! functions. `benches/search/run.sh` runs it beside Optuna.
//!
//! `cargo bench -p dml --bench search -- STRATEGY TRIALS BATCH SEEDS [TABLE TARGET]` prints a line a function and seed: the
//! least value. With a table the function is the error of gradient boosting; `-- serve TABLE TARGET` computes it for
//! others, a line of JSON parameters at a time.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench tells what it finds")]

mod table;

use std::{collections::BTreeMap, env, error::Error, f64::consts::PI, io, path::Path};

use dml::{
    compute::search::{Trial, suggest},
    core::{
        Digest, Dimension, Params, Plan, Space, Strategy, StudySpec, Task, TrainingSpec, Validation,
        job::Problem,
    },
};
use table::Table;

/// A function, its dimensions and their bounds.
type Function = (&'static str, &'static [(f64, f64)], fn(&[f64]) -> f64);

const FUNCTIONS: [Function; 3] = [
    ("branin", &[(-5.0, 10.0), (0.0, 15.0)], branin),
    ("hartmann6", &[(0.0, 1.0); 6], hartmann6),
    ("rosenbrock4", &[(-2.0, 2.0); 4], rosenbrock),
];

fn branin(x: &[f64]) -> f64 {
    let bend = x[1] - 5.1 / (4.0 * PI * PI) * x[0] * x[0] + 5.0 / PI * x[0] - 6.0;
    bend * bend + 10.0 * (1.0 - 1.0 / (8.0 * PI)) * x[0].cos() + 10.0
}

fn rosenbrock(x: &[f64]) -> f64 {
    x.windows(2).map(|w| 100.0 * (w[1] - w[0] * w[0]).powi(2) + (1.0 - w[0]).powi(2)).sum()
}

fn hartmann6(x: &[f64]) -> f64 {
    const ALPHA: [f64; 4] = [1.0, 1.2, 3.0, 3.2];
    const A: [[f64; 6]; 4] = [
        [10.0, 3.0, 17.0, 3.5, 1.7, 8.0],
        [0.05, 10.0, 17.0, 0.1, 8.0, 14.0],
        [3.0, 3.5, 1.7, 10.0, 17.0, 8.0],
        [17.0, 8.0, 0.05, 10.0, 0.1, 14.0],
    ];
    const P: [[f64; 6]; 4] = [
        [0.1312, 0.1696, 0.5569, 0.0124, 0.8283, 0.5886],
        [0.2329, 0.4135, 0.8307, 0.3736, 0.1004, 0.9991],
        [0.2348, 0.1451, 0.3522, 0.2883, 0.3047, 0.6650],
        [0.4047, 0.8828, 0.8732, 0.5743, 0.1091, 0.0381],
    ];
    let peak = |i: usize| -> f64 {
        let distance: f64 = (0..6).map(|j| A[i][j] * (x[j] - P[i][j]).powi(2)).sum();
        ALPHA[i] * (-distance).exp()
    };
    -(0..4).map(peak).sum::<f64>()
}

/// The study of one space, whose metric is an error.
fn study(training: TrainingSpec, space: Space, trials: u32, search: Plan) -> StudySpec {
    StudySpec {
        training,
        spaces: vec![space],
        strategy: Strategy::Random,
        trials,
        reduction: 4,
        metric: "rmse".into(),
        keep: 1,
        search,
    }
}

/// A training that is only asked for its seed.
fn no_training(seed: u64) -> TrainingSpec {
    let plan = Plan::sequential(1);
    TrainingSpec {
        problem: Problem {
            task: Task::Regression,
            dataset: Digest::of(b"a function"),
            target: "y".into(),
            features: Vec::new(),
        },
        models: Vec::new(),
        validation: Validation::Holdout(0.2),
        seed,
        prepare: plan,
        evaluate: plan,
        ensemble: None,
    }
}

/// The least value that a study finds.
fn search(
    dimensions: BTreeMap<String, Dimension>,
    (strategy, trials, batch): (Strategy, u32, u32),
    seed: u64,
    value: impl Fn(&Params) -> Result<f64, Box<dyn Error>>,
) -> Result<f64, Box<dyn Error>> {
    let space = Space { kind: "function".into(), fixed: Params::default(), dimensions };
    let plan = Plan { rounds: trials.div_ceil(batch), units: batch, fold: true };
    let spec = StudySpec { strategy, ..study(no_training(seed), space, trials, plan) };
    let mut done: Vec<Trial> = Vec::new();
    while done.len() < trials as usize {
        let mut tried = Vec::new();
        for suggestion in suggest(&spec, &done, done.len() as u32, batch) {
            let score = Some(value(&suggestion.params)?);
            tried.push(Trial {
                number: suggestion.number,
                space: 0,
                kind: "function".into(),
                params: suggestion.params,
                score,
                metrics: BTreeMap::new(),
                rounds: 1,
                of_rounds: 1,
                error: None,
            });
        }
        done.extend(tried);
    }
    Ok(done.iter().filter_map(|trial| trial.score).fold(f64::INFINITY, f64::min))
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    if let ["serve", csv, target] = args[..] {
        let table = Table::read(Path::new(csv), target)?;
        for line in io::stdin().lines() {
            println!("{}", table.error(&serde_json::from_str(&line?)?)?);
        }
        return Ok(());
    }
    let [strategy, trials, batch, seeds, table @ ..] = &args[..] else {
        return Err("usage: search STRATEGY TRIALS BATCH SEEDS [TABLE TARGET]".into());
    };
    let strategy = match *strategy {
        "random" => Strategy::Random,
        "latin_hypercube" => Strategy::LatinHypercube,
        "tpe" => Strategy::Tpe,
        other => return Err(format!("no strategy '{other}': tpe, random or latin_hypercube").into()),
    };
    let how = (strategy, trials.parse()?, batch.parse::<u32>()?.max(1));
    let seeds: u64 = seeds.parse()?;
    if let [csv, target] = table {
        let table = Table::read(Path::new(csv), target)?;
        for seed in 0..seeds {
            let least = search(table::dimensions(), how, seed, |params| table.error(params))?;
            println!("table {seed} {least}");
        }
        return Ok(());
    }
    for (function, bounds, value) in &FUNCTIONS {
        let name = |d: usize| format!("x{d}");
        let dimensions =
            bounds.iter().enumerate().map(|(d, (low, high))| (name(d), Dimension::Uniform(*low, *high)));
        let dimensions: BTreeMap<_, _> = dimensions.collect();
        let at = |params: &Params| (0..bounds.len()).map(|d| params.float(&name(d))).collect::<Vec<f64>>();
        for seed in 0..seeds {
            let least = search(dimensions.clone(), how, seed, |params| Ok(value(&at(params))))?;
            println!("{function} {seed} {least}");
        }
    }
    Ok(())
}
