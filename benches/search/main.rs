//! The searches of `dml tune` on functions whose minimum is known: what a study would find if its models were these
//! functions. `benches/search/run.sh` runs it beside Optuna.
//!
//! `cargo bench -p dml --bench search -- STRATEGY TRIALS BATCH SEEDS` prints a line a function and seed: the least value.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench tells what it finds")]

use std::{collections::BTreeMap, env, f64::consts::PI, process::ExitCode};

use dml::{
    compute::search::{Trial, suggest},
    core::{
        Digest, Dimension, Params, Plan, Space, Strategy, StudySpec, Task, TrainingSpec, Validation,
        job::Problem,
    },
};

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

/// The least value that a study finds.
fn search(function: &Function, strategy: Strategy, trials: u32, batch: u32, seed: u64) -> f64 {
    let (_, bounds, value) = function;
    let name = |d: usize| format!("x{d}");
    let dimensions =
        bounds.iter().enumerate().map(|(d, (low, high))| (name(d), Dimension::Uniform(*low, *high)));
    let plan = Plan { rounds: trials.div_ceil(batch), units: batch, fold: true };
    let problem = Problem {
        task: Task::Regression,
        dataset: Digest::of(b"a function"),
        target: "y".into(),
        features: Vec::new(),
    };
    let spec = StudySpec {
        training: TrainingSpec {
            problem,
            models: Vec::new(),
            validation: Validation::Holdout(0.2),
            seed,
            prepare: plan,
            evaluate: plan,
            ensemble: None,
        },
        spaces: vec![Space {
            kind: "function".into(),
            fixed: Params::default(),
            dimensions: dimensions.collect(),
        }],
        strategy,
        trials,
        reduction: 4,
        metric: "rmse".into(),
        keep: 1,
        search: plan,
    };
    let mut done: Vec<Trial> = Vec::new();
    while done.len() < trials as usize {
        let batch = suggest(&spec, &done, done.len() as u32, batch);
        let tried = batch.into_iter().map(|suggestion| {
            let x: Vec<f64> = (0..bounds.len()).map(|d| suggestion.params.float(&name(d))).collect();
            Trial {
                number: suggestion.number,
                space: 0,
                kind: "function".into(),
                params: suggestion.params,
                score: Some(value(&x)),
                metrics: BTreeMap::new(),
                rounds: 1,
                of_rounds: 1,
                error: None,
            }
        });
        done.extend(tried.collect::<Vec<_>>());
    }
    done.iter().filter_map(|trial| trial.score).fold(f64::INFINITY, f64::min)
}

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let number = |place: usize, default: u32| args.get(place).map_or(Some(default), |arg| arg.parse().ok());
    let strategy = match args.first().map(String::as_str) {
        Some("random") => Strategy::Random,
        Some("latin_hypercube") => Strategy::LatinHypercube,
        Some("tpe") | None => Strategy::Tpe,
        Some(other) => {
            eprintln!("no strategy '{other}': tpe, random or latin_hypercube");
            return ExitCode::FAILURE;
        }
    };
    let (Some(trials), Some(batch), Some(seeds)) = (number(1, 100), number(2, 4), number(3, 20)) else {
        eprintln!("usage: search [STRATEGY [TRIALS [BATCH [SEEDS]]]]");
        return ExitCode::FAILURE;
    };
    for function in &FUNCTIONS {
        for seed in 0..seeds {
            println!(
                "{} {seed} {}",
                function.0,
                search(function, strategy, trials, batch.max(1), seed.into())
            );
        }
    }
    ExitCode::SUCCESS
}
