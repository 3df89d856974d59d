use std::{collections::BTreeMap, io::Cursor, sync::Arc};

use arrow_array::{Array, Float64Array, RecordBatch, StringArray};
use dml_core::{Task, rng};

use super::*;
use crate::learners;

mod search;
mod trees;

const PENGUINS: &[u8] = include_bytes!("../../../data/penguins.csv");
const HOUSES: &[u8] = include_bytes!("../../../data/houses.csv");

/// A CSV file's chunks, each cut to so many rows.
fn put_csv(inputs: &mut MemoryInputs, csv: &[u8], chunk_rows: usize) -> Arc<Dataset> {
    let (chunks, columns) = table::read_table(Cursor::new(csv), table::Limits::default()).unwrap();
    let cut = |chunk: &RecordBatch| {
        let starts = (0..chunk.num_rows()).step_by(chunk_rows);
        let part = |start| chunk.slice(start, chunk_rows.min(chunk.num_rows() - start));
        starts.map(part).collect::<Vec<_>>()
    };
    inputs.put_table(&chunks.iter().flat_map(cut).collect::<Vec<_>>(), columns)
}

fn job(role: &str, plan: Plan, work: Work) -> JobSpec {
    JobSpec { parent: Some(Digest::of(b"training")), role: role.into(), work, plan }
}

/// A training with all that belongs to it.
struct Trial {
    engine: Engine,
    inputs: MemoryInputs,
    dataset: Arc<Dataset>,
    problem: Problem,
}

impl Trial {
    fn new(csv: &[u8], task: Task, target: &str) -> Self {
        let mut inputs = MemoryInputs::default();
        let dataset = put_csv(&mut inputs, csv, 50);
        assert!(dataset.chunks.len() >= 6);
        let problem = check_problem(&dataset, task, target, None).unwrap();
        Self { engine: Engine::new(Registry::default()), inputs, dataset, problem }
    }

    /// Cut finer than its size asks for, so that there is something to bring together.
    fn in_three(&self, plan: Plan) -> Plan {
        Plan { units: 3, ..plan }
    }

    fn prepare(&mut self, split: Split) -> JobSpec {
        let work = Work::Prepare { problem: self.problem.clone(), split, seed: 1 };
        job("prepare", self.in_three(self.engine.plan_prepare(&self.dataset)), work)
    }

    fn fit(&mut self, kind: &str, split: Split) -> JobSpec {
        let prepare = self.prepare(split);
        let profile = self.engine.run(&prepare, &self.inputs).unwrap();
        let prepared = self.inputs.put(profile);
        let params = self.engine.registry().check(kind, self.problem.task, &Params::default()).unwrap();
        let shape = shape(&self.dataset, &self.problem);
        let plan = self.engine.plan_fit(kind, &params, &shape).unwrap();
        let problem = self.problem.clone();
        job(
            "fit",
            plan,
            Work::Fit { problem, split, prepared, kind: kind.into(), params, seed: 5, bag: None },
        )
    }

    fn model(&mut self, kind: &str, split: Split) -> Digest {
        let fit = self.fit(kind, split);
        let bytes = self.engine.run(&fit, &self.inputs).unwrap();
        self.inputs.put(bytes)
    }

    fn evaluate(&mut self, models: Vec<(Digest, Split)>) -> Evaluation {
        let work = Work::Evaluate { problem: self.problem.clone(), models };
        let job = job("evaluate", self.in_three(self.engine.plan_evaluate(&self.dataset)), work);
        Evaluation::from_json(&self.engine.run(&job, &self.inputs).unwrap()).unwrap()
    }

    fn folds(&mut self, kind: &str, folds: u32) -> Evaluation {
        let splits = (0..folds).map(|fold| Split::Fold { seed: 3, folds, fold });
        let models = splits.map(|split| (self.model(kind, split), split)).collect();
        self.evaluate(models)
    }

    /// The metric of each default kind on the hold-out of a training with the seed 0.
    fn leaderboard(&mut self, metric: &str) -> Vec<(&'static str, f64)> {
        let split = Split::Holdout { seed: rng::draw(0, 0), fraction: 0.2 };
        let kinds = self.engine.registry().defaults(self.problem.task);
        let score = |kind: crate::Kind| {
            let model = self.model(kind.name, split);
            let evaluation = self.evaluate(vec![(model, split)]);
            if let Some(importance) = &evaluation.importance {
                let sum: f64 = importance.values().sum();
                assert!((sum - 1.0).abs() < 1e-9, "{}: {importance:?}", kind.name);
                assert_eq!(importance.len(), self.problem.features.len());
            }
            (kind.name, evaluation.report.get(metric).unwrap())
        };
        let board: Vec<_> = kinds.into_iter().map(score).collect();
        println!("{metric}: {board:?}");
        board
    }
}

fn best(board: &[(&str, f64)]) -> f64 {
    board.iter().map(|(_, score)| *score).fold(f64::NEG_INFINITY, f64::max)
}

#[test]
fn penguins_are_told_apart() {
    let mut trial = Trial::new(PENGUINS, Task::Classification, "species");
    let board = trial.leaderboard("accuracy");
    assert!(board.len() >= 4 && best(&board) >= 0.97, "{board:?}");
    assert!(board.iter().all(|(_, accuracy)| *accuracy > 0.85), "{board:?}");
}

#[test]
fn houses_are_priced() {
    let mut trial = Trial::new(HOUSES, Task::Regression, "price");
    let board = trial.leaderboard("r2");
    assert!(board.len() >= 4 && best(&board) >= 0.55, "{board:?}");
}

#[test]
fn five_folds_of_houses_agree_with_other_libraries() {
    let mut trial = Trial::new(HOUSES, Task::Regression, "price");
    let evaluation = trial.folds("linear", 5);
    assert_eq!(evaluation.report.rows, trial.dataset.rows, "each row is judged once");
    let r2 = evaluation.report.get("r2").unwrap();
    println!("r2 of linear over five folds: {r2}");
    assert!((0.62..0.70).contains(&r2), "{r2}");
}

/// Units in any order, each on a machine that remembers nothing, give the bytes of the for-loop.
#[test]
fn whoever_computes_a_unit_the_result_is_the_same() {
    for (csv, task, target) in
        [(PENGUINS, Task::Classification, "species"), (HOUSES, Task::Regression, "price")]
    {
        let mut trial = Trial::new(csv, task, target);
        let split = Split::Holdout { seed: 11, fraction: 0.25 };
        let mut jobs = vec![trial.prepare(split)];
        for kind in trial.engine.registry().defaults(task) {
            jobs.push(trial.fit(kind.name, split));
        }
        for job in jobs {
            assert_eq!(
                scattered(&job, &trial.inputs),
                trial.engine.run(&job, &trial.inputs).unwrap(),
                "{job:?}"
            );
        }
    }
}

fn scattered(job: &JobSpec, inputs: &MemoryInputs) -> Vec<u8> {
    let forgetful = Engine::new(Registry::default()).with_cache_bytes(0);
    scattered_over(job, inputs, |_, _| &forgetful)
}

/// The engine for each piece is chosen by its round and unit.
fn scattered_over<'a>(
    job: &JobSpec,
    inputs: &MemoryInputs,
    node: impl Fn(u32, u32) -> &'a Engine,
) -> Vec<u8> {
    let mut state: Option<Vec<u8>> = None;
    for round in 0..job.plan.rounds {
        let mut order: Vec<u32> = (0..job.plan.units).collect();
        order.sort_by_key(|unit| rng::draw(u64::from(round), u64::from(*unit)));
        let unit = |index: &u32| {
            (*index, node(round, *index).unit(job, round, *index, state.as_deref(), inputs).unwrap())
        };
        let partials: BTreeMap<u32, Vec<u8>> = order.iter().map(unit).collect();
        let partials: Vec<Vec<u8>> = partials.into_values().collect();
        let outcome =
            node(round, job.plan.units).fold(job, round, state.as_deref(), &partials, inputs).unwrap();
        if outcome.finished {
            return outcome.state;
        }
        state = Some(outcome.state);
    }
    panic!("{} rounds gave no result", job.plan.rounds)
}

fn numbers(batch: &RecordBatch, name: &str) -> Vec<f64> {
    let column = batch.column_by_name(name).unwrap();
    column.as_any().downcast_ref::<Float64Array>().unwrap().values().to_vec()
}

#[test]
fn a_prediction_job_gives_a_row_a_row() {
    let mut trial = Trial::new(PENGUINS, Task::Classification, "species");
    let (kinds, dataset) = (trial.engine.registry().defaults(Task::Classification), trial.dataset.clone());
    for kind in kinds {
        let model = trial.model(kind.name, Split::All);
        let plan = trial.in_three(trial.engine.plan_predict(&dataset));
        assert!(!plan.fold);
        let job = job("predict", plan, Work::Predict { model, dataset: dataset.id() });
        let mut rows = 0;
        for unit in 0..plan.units {
            let bytes = trial.engine.unit(&job, 0, unit, None, &trial.inputs).unwrap();
            let batch = table::decode(&bytes).unwrap();
            let classes =
                ["Adelie", "Chinstrap", "Gentoo"].map(|c| numbers(&batch, &format!("probability_{c}")));
            for i in 0..batch.num_rows() {
                let sum: f64 = classes.iter().map(|p| p[i]).sum();
                assert!((sum - 1.0).abs() < 1e-9, "{}: {sum}", kind.name);
            }
            rows += batch.num_rows() as u64;
        }
        assert_eq!(rows, dataset.rows);
    }
}

#[test]
fn tables_that_differ_from_the_training_table_are_predicted() {
    let mut trial = Trial::new(PENGUINS, Task::Classification, "species");
    let csv = b"year,extra,sex,body_mass_g,flipper_length_mm,bill_depth_mm,bill_length_mm,island\n\
        2007,1,male,3750,181,18.7,39.1,Torgersen\n\
        2007,2,unknown,3750.5,181,18.7,39.1,Atlantis\n\
        2007,3,,,,,,\n";
    let lacking = b"year,sex\n2007,male\n2008,female\n";
    let (table, lacking) = (put_csv(&mut trial.inputs, csv, 10), put_csv(&mut trial.inputs, lacking, 10));
    let mass = |row: u32| if row == 14 { "heavy".into() } else { format!("{}", 3000 + row) };
    let lines: String =
        (0..20).map(|row| format!("2007,1,male,{},181,18.7,39.1,Torgersen\n", mass(row))).collect();
    let header = "year,extra,sex,body_mass_g,flipper_length_mm,bill_depth_mm,bill_length_mm,island\n";
    let heavy = put_csv(&mut trial.inputs, format!("{header}{lines}").as_bytes(), 10);
    for kind in trial.engine.registry().defaults(Task::Classification) {
        let model = trial.model(kind.name, Split::All);
        let predict = |dataset: &Dataset| {
            let plan = trial.engine.plan_predict(dataset);
            let job = job("predict", plan, Work::Predict { model, dataset: dataset.id() });
            trial.engine.run(&job, &trial.inputs)
        };
        let batch = table::decode(&predict(&table).unwrap()).unwrap();
        let labels = batch.column(0).as_any().downcast_ref::<StringArray>().unwrap();
        assert_eq!(
            (labels.len(), labels.value(0), labels.value(1)),
            (3, "Adelie", "Adelie"),
            "{}",
            kind.name
        );
        assert!(numbers(&batch, "probability_Gentoo").iter().all(|p| (0.0..=1.0).contains(p)));
        let error = predict(&lacking).unwrap_err();
        assert!(matches!(&error, WorkError::Input(why) if why.contains("island")), "{error}");
        let error = predict(&heavy).unwrap_err().to_string();
        assert!(error.starts_with("after the first 10 rows of the table: row 5"), "{error}");
        assert!(error.contains("body_mass_g"), "{error}");
    }
}

#[test]
fn a_class_without_training_rows_counts_as_wrong() {
    let split = Split::Holdout { seed: 1, fraction: 0.3 };
    let tests = (0..300).filter(|row| split.is_test(*row)).take(5).collect::<Vec<_>>();
    let class = |row: u64| match row {
        row if tests.contains(&row) => "rare",
        row if row.is_multiple_of(2) => "even",
        _ => "odd",
    };
    let lines: String = (0..300).map(|row| format!("{},{}\n", row % 2 * 10 + row % 3, class(row))).collect();
    let mut trial = Trial::new(format!("x,y\n{lines}").as_bytes(), Task::Classification, "y");
    let model = trial.model("decision_tree", split);
    let report = trial.evaluate(vec![(model, split)]).report;
    let rows = (0..300).filter(|row| split.is_test(*row)).count() as f64;
    assert_eq!(report.rows as f64, rows);
    assert!((report.get("accuracy").unwrap() - (rows - 5.0) / rows).abs() < 1e-12);
    assert_eq!(report.confusion.unwrap().labels, ["even", "odd", "rare"]);
}

#[test]
fn what_cannot_be_is_an_error_and_no_panic() {
    let mut trial = Trial::new(HOUSES, Task::Regression, "price");
    let prepare = trial.prepare(Split::All);
    let fit = trial.fit("linear", Split::All);
    let fold = |job: &JobSpec, partials: &[Vec<u8>]| {
        trial.engine.fold(job, 0, None, partials, &trial.inputs).unwrap_err().to_string()
    };
    let garbage = |job: &JobSpec| vec![vec![0xff; 40]; job.plan.units as usize];
    assert_eq!(fold(&prepare, &[]), "a round of units cannot be read: it has 0 parts instead of 3");
    assert!(fold(&prepare, &garbage(&prepare)).starts_with("a profile of training rows cannot be read"));
    assert!(fold(&fit, &garbage(&fit)).starts_with("a part of a fit cannot be read"));
    let empty = MemoryInputs::default();
    assert!(matches!(trial.engine.unit(&fit, 0, 0, None, &empty), Err(WorkError::Unavailable(_))));
    let mut lost = fit.clone();
    if let Work::Fit { kind, .. } = &mut lost.work {
        *kind = "nobody_knows".into();
    }
    assert!(matches!(trial.engine.unit(&lost, 0, 0, None, &trial.inputs), Err(WorkError::Unavailable(_))));
}

#[test]
fn a_kind_of_ones_own_is_trained_like_any_other() {
    let mut registry = Registry::empty();
    registry.add(learners::ridge::Ridge).unwrap();
    let mut trial = Trial::new(HOUSES, Task::Regression, "price");
    trial.engine = Engine::new(registry);
    let model = trial.model("ridge", Split::All);
    let model = Model::from_bytes(&trial.inputs.blob(model).unwrap()).unwrap();
    assert_eq!((model.kind.as_str(), model.rows, model.target.as_str()), ("ridge", 546, "price"));
}

#[test]
fn a_kind_can_be_taken_away_as_it_says() {
    let tables = [(PENGUINS, Task::Classification, "species"), (HOUSES, Task::Regression, "price")];
    for (csv, task, target) in tables {
        let mut trial = Trial::new(csv, task, target);
        for kind in trial.engine.registry().kinds().into_iter().filter(|kind| kind.tasks.contains(&task)) {
            let model = trial.model(kind.name, Split::All);
            let model = Model::from_bytes(&trial.inputs.blob(model).unwrap()).unwrap();
            let registry = trial.engine.registry();
            for (format, there) in [
                ("native", true),
                ("json", model.to_json(registry).is_ok()),
                ("onnx", model.to_onnx(registry, "").is_ok()),
            ] {
                assert_eq!(kind.exportable.contains(&format), there, "{} as {format}", kind.name);
            }
        }
    }
}

#[test]
fn evaluations_tell_what_matters_and_what_is_to_be_drawn() {
    let noise = |row: u64| rng::below(4, row, 1000);
    let lines: String = (0..400)
        .map(|row| format!("{},{},{}\n", row % 7, noise(row), if row % 7 < 3 { "a" } else { "b" }))
        .collect();
    let table = format!("x,noise,y\n{lines}");
    let mut trial = Trial::new(table.as_bytes(), Task::Classification, "y");
    let evaluation = trial.folds("decision_tree", 3);
    let permutation = evaluation.permutation.unwrap();
    assert_eq!((permutation.metric.as_str(), permutation.rows), ("accuracy", 400));
    assert!(permutation.worse["x"] > 0.3 && permutation.worse["noise"].abs() < 0.02, "{permutation:?}");
    let curves = evaluation.curves.unwrap();
    assert_eq!((curves.roc.len(), curves.roc[0].class.as_str()), (1, "b"));
    assert!(evaluation.report.interval["accuracy"][0] > 0.98);

    let mut trial = Trial::new(HOUSES, Task::Regression, "price");
    let evaluation = trial.folds("linear", 3);
    let permutation = evaluation.permutation.unwrap();
    assert_eq!((permutation.metric.as_str(), permutation.rows), ("rmse", 546));
    assert!(permutation.worse["lotsize"] > 1000.0, "{permutation:?}");
    let [low, high] = evaluation.report.interval["r2"];
    assert!(low < evaluation.report.get("r2").unwrap() && high - low < 0.4);
    let curves = evaluation.curves.unwrap();
    assert_eq!((curves.predicted.len(), curves.learning), (500, None));
}

#[test]
fn what_is_built_up_in_steps_has_a_learning_curve() {
    let mut trial = Trial::new(HOUSES, Task::Regression, "price");
    for kind in ["gradient_boosting", "random_forest", "extra_trees"] {
        let evaluation = trial.folds(kind, 3);
        let curve = evaluation.curves.unwrap().learning.unwrap();
        let steps = curve.points.iter().map(|point| point.steps).collect::<Vec<_>>();
        assert_eq!(steps, (1..20).chain((20..=100).step_by(5)).collect::<Vec<_>>());
        let (first, last) = (curve.points[0], *curve.points.last().unwrap());
        assert!(last.train < last.test && last.test < first.test, "{kind}: {first:?} {last:?}");
        // The fold's RMSE are averaged, the curve's squares: nearly the same.
        let rmse = evaluation.report.get("rmse").unwrap();
        assert!((last.test / rmse - 1.0).abs() < 0.02, "{kind}: {last:?} {rmse}");
    }
}

/// What a unit looks at beside the metrics does not depend on how the chunks are shared out.
#[test]
fn importance_and_curves_are_the_same_for_any_cut() {
    let mut trial = Trial::new(PENGUINS, Task::Classification, "species");
    let split = Split::Holdout { seed: 2, fraction: 0.3 };
    let models = vec![(trial.model("logistic", split), split)];
    let evaluations = [1, 2, 5].map(|units| {
        let plan = Plan { units, ..trial.engine.plan_evaluate(&trial.dataset) };
        let work = Work::Evaluate { problem: trial.problem.clone(), models: models.clone() };
        trial.engine.run(&job("evaluate", plan, work), &trial.inputs).unwrap()
    });
    assert!(evaluations.iter().all(|bytes| *bytes == evaluations[0]));
}
