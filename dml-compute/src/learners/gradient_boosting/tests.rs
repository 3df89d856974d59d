use dml_core::Value;

use super::*;
use crate::{
    learner::{Block, Predict, Scores},
    learners::testing::{
        Table, accuracy, block, halves, noise, params, probabilities, rings, run, run_cut, through_bytes,
        values, xor,
    },
};

const LEARNER: GradientBoosting = GradientBoosting;

fn wave(row: u64) -> (Vec<f64>, f64) {
    let (a, b) = (noise(row, 0) * 3.0, noise(row, 1));
    let a_seen = if row.is_multiple_of(7) { f64::NAN } else { a };
    (vec![a_seen, b], 10.0 + libm::sin(a) + b * b)
}

fn trees(count: i64) -> Params {
    params(&[("n_estimators", Value::Int(count))])
}

#[test]
fn learns_a_wave_xor_and_rings() {
    let smooth = block(2000, |row| (vec![noise(row, 0) * 3.0], libm::sin(noise(row, 0) * 3.0)));
    let (train, test) = halves(&smooth);
    let model = run(&LEARNER, &train, &trees(100), Task::Regression, 0).unwrap();
    let errors = values(model.predict(&test.x)) - &test.y;
    assert!(errors.mapv(|e| e * e).mean().unwrap() < 1e-3);

    let (train, test) = halves(&block(2000, xor));
    let model = run(&LEARNER, &train, &trees(50), Task::Classification, 2).unwrap();
    assert!(accuracy(&probabilities(model.predict(&test.x)), &test.y) > 0.97);

    let (train, test) = halves(&block(3000, rings));
    let model = run(&LEARNER, &train, &trees(40), Task::Classification, 3).unwrap();
    assert_eq!(model.trees().len(), 120);
    let said = probabilities(model.predict(&test.x));
    assert!(accuracy(&said, &test.y) > 0.83, "{}", accuracy(&said, &test.y));
    assert!(said.sum_axis(ndarray::Axis(1)).iter().all(|sum| (sum - 1.0).abs() < 1e-12));
}

/// The mean loss on the training rows with the first so many trees.
fn loss(model: &Ensemble, table: &Block, count: usize) -> f64 {
    let first = Ensemble::new(model.link(), model.width(), model.base().to_vec());
    let first = first.with(model.trees()[..count].to_vec()).unwrap();
    let losses = match first.predict(&table.x) {
        Scores::Values(v) => (v - &table.y).mapv(|e| e * e).to_vec(),
        Scores::Probabilities(p) => {
            let rows = table.y.iter().enumerate();
            rows.map(|(i, &y)| -libm::log(p[(i, y as usize)])).collect()
        }
    };
    losses.iter().sum::<f64>() / losses.len() as f64
}

#[test]
fn the_training_loss_falls_with_every_iteration() {
    for (table, task, classes, a_tree) in [
        (block(500, wave), Task::Regression, 0, 1),
        (block(500, xor), Task::Classification, 2, 1),
        (block(500, rings), Task::Classification, 3, 3),
    ] {
        let model = run(&LEARNER, &table, &trees(30), task, classes).unwrap();
        let losses = (0..=30).map(|i| loss(&model, &table, i * a_tree)).collect::<Vec<_>>();
        assert!(losses.windows(2).all(|pair| pair[1] < pair[0]), "{losses:?}");
        assert!(losses[30] < losses[0] * 0.7, "{losses:?}");
    }
}

#[test]
fn rounds_chunks_and_threads_leave_no_trace() {
    let given = [("n_estimators", Value::Int(12)), ("subsample", Value::Float(0.7))];
    let given = params(&[&given[..], &[("max_features", Value::Float(0.5))]].concat());
    for (table, task, classes) in [
        (block(3000, wave), Task::Regression, 0),
        (block(800, xor), Task::Classification, 2),
        (block(800, rings), Task::Classification, 3),
    ] {
        let fit = |threads, chunks, rounds| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let plan = Some(Plan::sequential(rounds));
            pool.install(|| run_cut(&LEARNER, &table, &given, task, classes, chunks, plan).unwrap())
        };
        let whole = fit(1, 1, 1);
        assert_eq!(whole, fit(4, 1, 12));
        assert_eq!(whole, fit(2, 5, 7));
        assert_eq!(whole, fit(1, 3, 50));
    }
}

fn sharded(units: u32) -> Option<Plan> {
    Some(Plan { rounds: 10_000, units, fold: true })
}

fn on_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}

/// Rows over any number of shards, on any number of threads, give the trees of one unit alone.
#[test]
fn shards_give_the_trees_of_one_machine() {
    let tables = [
        (block(2500, wave), Task::Regression, 0),
        (block(2500, xor), Task::Classification, 2),
        (block(2500, rings), Task::Classification, 3),
    ];
    let ways: [&[(&str, Value)]; 7] = [
        &[],
        &[
            ("early_stopping", Value::Bool(true)),
            ("n_iter_no_change", Value::Int(2)),
            ("tol", Value::Float(1e-3)),
        ],
        &[("subsample", Value::Float(0.6)), ("max_features", Value::Float(0.5))],
        &[("class_weight", Value::Text("balanced".into())), ("min_samples_leaf", Value::Int(1))],
        &[
            ("max_depth", Value::Int(3)),
            ("learning_rate", Value::Float(1.0)),
            ("l2_regularization", Value::Float(0.0)),
        ],
        &[("max_leaves", Value::Int(2)), ("max_bins", Value::Int(7))],
        &[
            ("max_leaves", Value::Int(200)),
            ("min_samples_leaf", Value::Int(2)),
            ("subsample", Value::Float(0.9)),
            ("early_stopping", Value::Bool(true)),
        ],
    ];
    for (table, task, classes) in &tables {
        for way in ways {
            let way = way.iter().filter(|(name, _)| *task == Task::Classification || *name != "class_weight");
            let way = way.cloned().chain([("n_estimators", Value::Int(6))]).collect::<Vec<_>>();
            let fit = |threads, chunks, plan| {
                on_threads(threads, || {
                    run_cut(&LEARNER, table, &params(&way), *task, *classes, chunks, plan).unwrap()
                })
            };
            let alone = fit(2, 3, Some(Plan::sequential(2)));
            assert!(alone.trees().iter().all(|tree| tree.nodes().len() > 1));
            for (threads, chunks, units) in [(1, 2, 2), (4, 11, 3), (1, 7, 7), (4, 2, 5)] {
                assert_eq!(alone, fit(threads, chunks, sharded(units)), "{task:?} {way:?} {units} shards");
            }
        }
    }
}

#[test]
fn odd_tables_in_shards_are_no_exception() {
    let one = block(1, |_| (vec![3.0], 7.0));
    let constant = block(50, |row| (vec![1.0, f64::NAN], noise(row, 0)));
    let huge = block(50, |row| (vec![row as f64], if row % 2 == 0 { f64::MAX } else { -f64::MAX }));
    for table in [&one, &constant, &huge] {
        let fit = |plan| run_cut(&LEARNER, table, &trees(9), Task::Regression, 0, 3, plan).unwrap();
        assert_eq!(fit(sharded(3)), fit(None));
    }
    let single = block(20, |row| (vec![noise(row, 0)], 0.0));
    for classes in 1..4 {
        let fit =
            |plan| run_cut(&LEARNER, &single, &trees(9), Task::Classification, classes, 3, plan).unwrap();
        assert_eq!(fit(sharded(3)), fit(None));
    }
    let infinite = block(30, |row| (vec![row as f64], if row == 7 { f64::INFINITY } else { 1.0 }));
    let refused = run_cut(&LEARNER, &infinite, &trees(3), Task::Regression, 0, 5, sharded(2));
    assert!(matches!(refused, Err(WorkError::Input(why)) if why.contains("row 7")));
}

#[test]
fn a_unit_again_is_the_same_bytes_and_others_are_refused() {
    let table = block(300, wave);
    let rows = Table::new(&table, 2, 0);
    let params = LEARNER.kind().check(&trees(10)).unwrap();
    let plan = Plan::sequential(5);
    let fit = Fit { task: Task::Regression, classes: 0, params: &params, seed: 1, plan, rows: &rows };
    let state = LEARNER.start(&fit).unwrap();
    let first = LEARNER.unit(&fit, 0, 0, &state).unwrap();
    let Folded::Next(state) = LEARNER.fold(&fit, 0, state, vec![first]).unwrap() else { panic!("not yet") };
    let again = || postcard::to_allocvec(&LEARNER.unit(&fit, 1, 0, &through_bytes(&state)).unwrap()).unwrap();
    assert_eq!(again(), again());
    let other = Fit { task: Task::Classification, classes: 3, ..fit };
    assert!(matches!(LEARNER.unit(&other, 1, 0, &state), Err(WorkError::Corrupt { .. })));
}

#[test]
fn a_balanced_fit_finds_a_rare_class() {
    let rare = |row: u64| {
        let a = noise(row, 0);
        (vec![a, noise(row, 1)], f64::from(u32::from(a > 0.9 && noise(row, 2) > 0.0)))
    };
    let (train, test) = halves(&block(6000, rare));
    let recall = |class_weight: &str| {
        let given = [("n_estimators", Value::Int(20)), ("class_weight", Value::Text(class_weight.into()))];
        let model = run(&LEARNER, &train, &params(&given), Task::Classification, 2).unwrap();
        let said = probabilities(model.predict(&test.x));
        let rows = test.y.iter().enumerate().filter(|(_, y)| **y == 1.0).map(|(i, _)| said[(i, 1)] > 0.5);
        rows.clone().filter(|hit| *hit).count() as f64 / rows.count() as f64
    };
    assert!(recall("balanced") > 0.95, "{}", recall("balanced"));
    assert!(recall("balanced") > recall("none") + 0.2, "{}", recall("none"));
}

#[test]
fn early_stopping_stops_when_there_is_nothing_left_to_learn() {
    for (table, task, classes, a_tree) in [
        (block(2000, |row| (vec![noise(row, 0)], noise(row, 1))), Task::Regression, 0, 1),
        (block(2000, xor), Task::Classification, 2, 1),
        (block(2000, rings), Task::Classification, 3, 3),
    ] {
        let given = [
            ("n_estimators", Value::Int(1000)),
            ("early_stopping", Value::Bool(true)),
            ("learning_rate", Value::Float(0.3)),
            ("n_iter_no_change", Value::Int(5)),
            ("tol", Value::Float(1e-4)),
        ];
        let fit = |threads, chunks, rounds| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let plan = Some(Plan::sequential(rounds));
            pool.install(|| run_cut(&LEARNER, &table, &params(&given), task, classes, chunks, plan).unwrap())
        };
        let whole = fit(1, 1, 1);
        let iterations = whole.trees().len() / a_tree;
        assert!((5..300).contains(&iterations), "{iterations}");
        assert_eq!(whole, fit(3, 4, 200));
    }
}

#[test]
fn infinite_targets_are_refused_with_their_row() {
    let table = block(30, |row| (vec![row as f64], if row == 7 { f64::INFINITY } else { 1.0 }));
    let Err(WorkError::Input(why)) = run(&LEARNER, &table, &trees(3), Task::Regression, 0) else {
        panic!("it was taken")
    };
    assert!(why.contains("row 7") && why.contains("inf"), "{why}");
}

#[test]
fn odd_tables_give_a_model() {
    let one = block(1, |_| (vec![3.0], 7.0));
    let constant = block(50, |row| (vec![1.0, f64::NAN], noise(row, 0)));
    let huge = block(50, |row| (vec![row as f64], if row % 2 == 0 { f64::MAX } else { -f64::MAX }));
    for table in [&one, &constant, &huge] {
        let model = run(&LEARNER, table, &trees(9), Task::Regression, 0).unwrap();
        let said = values(model.predict(&table.x));
        assert!(said.iter().all(|v| v.is_finite()), "{said}");
    }
    let single = block(20, |row| (vec![noise(row, 0)], 0.0));
    for classes in 1..4 {
        let model = run(&LEARNER, &single, &trees(9), Task::Classification, classes).unwrap();
        let said = probabilities(model.predict(&single.x));
        assert_eq!(said.ncols(), classes);
        assert!(said.column(0).iter().all(|&p| p > 0.9), "{said}");
    }
}

#[test]
fn small_tables_are_split_all_the_same() {
    let table = block(30, |row| (vec![row as f64], f64::from(u32::from(row >= 15))));
    let model = run(&LEARNER, &table, &trees(30), Task::Classification, 2).unwrap();
    assert_eq!(accuracy(&probabilities(model.predict(&table.x)), &table.y), 1.0);
}

#[test]
fn importance_is_where_the_signal_is() {
    let table = block(500, |row| (vec![noise(row, 1), noise(row, 0), f64::NAN], noise(row, 0)));
    let model = run(&LEARNER, &table, &trees(20), Task::Regression, 0).unwrap();
    let importance = model.importance().unwrap();
    assert!(importance[1] > importance[0] * 20.0 && importance[2] == 0.0, "{importance:?}");
}

#[test]
fn plans_follow_the_work() {
    let plan = |count, rows| {
        let params = LEARNER.kind().check(&trees(count)).unwrap();
        LEARNER.plan(&params, &Shape { rows, columns: 28, chunks: 1, classes: 2 }).rounds
    };
    assert_eq!([plan(100, 300), plan(3, 300), plan(1, 1 << 40)], [8, 3, 1]);
    assert_eq!([plan(100, 1_000_000), plan(10_000, 1 << 40), plan(100, 0)], [11, 20, 8]);
}
