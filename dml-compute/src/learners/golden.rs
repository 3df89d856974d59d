//! All deterministic kinds but trees on one small table: the same bytes on any number of threads, in whatever order units
//! are done, and in every version.

use std::collections::BTreeMap;

use dml_core::{Digest, Params, Plan, Task, Value};

use super::testing::{self, Table, block, noise};
use crate::{
    Registry,
    error::WorkError,
    learner::{Block, Fit, Folded},
    registry::AnyLearner,
};

/// The kinds, and the beginning of the digest of their model. A change here changes what users
/// get from the same training: state it in the change log.
const GOLDEN: [(&str, &str); 16] = [
    ("bernoulli_nb", "8dc3d5d813d35905"),
    ("elastic_net", "f38108b3a7eb4471"),
    ("gaussian_nb", "b3fb221802b8d5e7"),
    ("glm", "4066cf8897dc5e15"),
    ("knn_classifier", "d647b684888185cd"),
    ("knn_regressor", "52c28a2123232023"),
    ("lasso", "8a41394bd02cb1f6"),
    ("linear", "a7c88e99b10a0348"),
    ("linear_svm", "ba1738deb119c42e"),
    ("linear_svr", "dd5e25f761cc3f9d"),
    ("logistic", "b53def5ea85badb7"),
    ("multinomial_nb", "4204bee8a0653f3e"),
    ("ridge", "48db0da1b22477e6"),
    ("ridge_classifier", "63a9e6ab5fcb25d5"),
    ("sgd_classifier", "c43c24705d539b52"),
    ("sgd_regressor", "051451044daef96d"),
];

fn table(task: Task) -> Block {
    block(300, |i| {
        let one = f64::from(u8::from(noise(i, 2) > 0.2));
        let x = vec![1.0 + noise(i, 0), 2.0 + noise(i, 1), one, 1.0 - one, 3.0];
        let score = x[0] - 0.5 * x[1] + one + 0.3 * noise(i, 3);
        (x, if task == Task::Regression { 2.0 + score } else { (score + 0.5).clamp(0.0, 2.0).floor() })
    })
}

fn run(learner: &dyn AnyLearner, block: &Block, task: Task, given: &Params) -> Result<Vec<u8>, WorkError> {
    run_in_order(learner, block, task, given, false)
}

/// The units of a round from the first to the last, or backwards.
fn run_in_order(
    learner: &dyn AnyLearner,
    block: &Block,
    task: Task,
    given: &Params,
    backwards: bool,
) -> Result<Vec<u8>, WorkError> {
    let classes = if task == Task::Regression { 0 } else { 3 };
    let table = Table::new(block, 5, classes);
    let params = learner.kind().check(given).expect("valid parameters");
    let plan = learner.plan(&params, &table.shape());
    let plan = if learner.kind().parallel { Plan { units: 3, ..plan } } else { plan };
    let fit = Fit { task, classes, params: &params, seed: 7, plan, rows: &table };
    let mut state: Option<Vec<u8>> = None;
    for round in 0..plan.rounds {
        let mut indices: Vec<u32> = (0..plan.units).collect();
        if backwards {
            indices.reverse();
        }
        let units =
            indices.iter().map(|&index| Ok((index, learner.unit(&fit, round, index, state.as_deref())?)));
        let partials: BTreeMap<u32, Vec<u8>> = units.collect::<Result<_, WorkError>>()?;
        let partials: Vec<Vec<u8>> = partials.into_values().collect();
        match learner.fold(&fit, round, state.as_deref(), &partials)? {
            Folded::Next(next) => state = Some(next),
            Folded::Done(model) => return Ok(model),
        }
    }
    panic!("{} has not finished", learner.kind().name)
}

/// The defaults, but where these leave no feature in.
fn params(kind: &str) -> Params {
    match kind {
        "lasso" | "elastic_net" => testing::params(&[("alpha", Value::Float(0.05))]),
        _ => Params::default(),
    }
}

fn on_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}

/// The kinds that see one-hot columns; trees have tests of their own.
fn each(mut then: impl FnMut(&dyn AnyLearner, Task)) {
    let registry = Registry::default();
    for kind in registry.kinds() {
        if kind.encoding != crate::Encoding::Codes && kind.deterministic {
            kind.tasks.iter().for_each(|task| then(registry.get(kind.name).unwrap(), *task));
        }
    }
}

#[test]
fn models_are_golden_on_any_number_of_threads() {
    let mut found = Vec::new();
    each(|learner, task| {
        let block = table(task);
        let fit = |threads, backwards| {
            let params = params(learner.kind().name);
            on_threads(threads, || run_in_order(learner, &block, task, &params, backwards).unwrap())
        };
        let (one, four) = (fit(1, false), fit(4, false));
        assert!(one == four, "{} depends on the number of threads", learner.kind().name);
        assert!(one == fit(3, true), "{} depends on the order of units", learner.kind().name);
        found.push((learner.kind().name, Digest::of(&one).to_string()[..16].to_string()));
    });
    found.sort();
    let found: Vec<(&str, &str)> = found.iter().map(|(name, digest)| (*name, digest.as_str())).collect();
    assert_eq!(found, GOLDEN, "{found:#?}");
}

#[test]
fn odd_tables_have_models_that_predict_finite_numbers_or_clear_errors() {
    let constant: fn(u64) -> Vec<f64> = |_| vec![2.0, 0.0];
    let equal: fn(u64) -> Vec<f64> = |i| vec![1.0 + noise(i, 0), 1.0 + noise(i, 0)];
    let bare: fn(u64) -> Vec<f64> = |_| vec![];
    for features in [constant, equal, bare] {
        for rows in [1, 2, 30] {
            each(|learner, task| {
                let y = |i: u64| if task == Task::Regression { 1.0 + noise(i, 5) } else { (i % 2) as f64 };
                let block = block(rows, |i| (features(i), y(i)));
                let model = run(learner, &block, task, &Params::default()).unwrap();
                let far = block.x.mapv(|v| v * 1e300);
                for x in [&block.x, &far] {
                    let numbers = match learner.load(&model).unwrap().predict(x) {
                        crate::Scores::Values(values) => values.to_vec(),
                        crate::Scores::Probabilities(p) => {
                            assert!(p.rows().into_iter().all(|row| (row.sum() - 1.0).abs() < 1e-9));
                            p.iter().copied().collect()
                        }
                    };
                    assert!(numbers.iter().all(|v| v.is_finite()), "{}: {numbers:?}", learner.kind().name);
                }
            });
        }
    }
    each(|learner, task| {
        let name = learner.kind().name;
        let none = block(0, |_| (vec![], 0.0));
        assert!(matches!(run(learner, &none, task, &Params::default()), Err(WorkError::Input(_))), "{name}");
    });
}

#[test]
fn parameters_out_of_range_are_refused() {
    each(|learner, task| {
        let kind = learner.kind();
        for param in &kind.params {
            let wrong = match param.domain {
                crate::Domain::Float { max, .. } => Value::Float(max * 2.0 + 1.0),
                crate::Domain::Int { min, .. } => Value::Int(min - 1),
                crate::Domain::Bool { .. } => Value::Int(1),
                crate::Domain::Choice { .. } => Value::Text("no such word".into()),
            };
            let given = Params([(param.name.to_string(), wrong)].into());
            let error = Registry::default().check(kind.name, task, &given).unwrap_err();
            assert_eq!(error.code(), "param-value", "{} {}", kind.name, param.name);
        }
    });
}
