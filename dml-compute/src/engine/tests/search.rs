use std::collections::BTreeMap;

use dml_core::{Dimension, Space, Strategy, StudySpec, TrainingSpec, Validation, Value};

use super::*;
use crate::search::History;

fn given(all: &[(&str, Value)]) -> Params {
    Params(all.iter().map(|(name, value)| (name.to_string(), value.clone())).collect())
}

impl Trial {
    /// A study with its job, prepared.
    fn study(
        &mut self,
        strategy: Strategy,
        trials: u32,
        search: Plan,
        spaces: Vec<Space>,
    ) -> (StudySpec, JobSpec) {
        let plan = self.engine.plan_evaluate(&self.dataset);
        let training = TrainingSpec {
            problem: self.problem.clone(),
            models: Vec::new(),
            validation: Validation::Folds(2),
            seed: 5,
            prepare: plan,
            evaluate: plan,
            ensemble: None,
        };
        let splits = training.judged_splits();
        let prepared = splits.into_iter().map(|split| {
            let prepare = self.prepare(split);
            let profile = self.engine.run(&prepare, &self.inputs).unwrap();
            self.inputs.put(profile)
        });
        let prepared = prepared.collect();
        let metric = crate::metrics::primary(self.problem.task).into();
        let study = StudySpec { training, spaces, strategy, trials, reduction: 2, metric, keep: 2, search };
        let job = job("search", search, Work::Search { study: study.clone(), prepared });
        (study, job)
    }

    fn searched(&mut self, job: &JobSpec) -> History {
        History::from_bytes(&self.engine.run(job, &self.inputs).unwrap()).unwrap()
    }
}

fn boosting() -> Vec<Space> {
    let fixed = given(&[("n_estimators", Value::Int(16)), ("min_samples_leaf", Value::Int(5))]);
    let dimensions = [
        ("learning_rate".to_string(), Dimension::Log(0.02, 0.3)),
        ("max_leaves".to_string(), Dimension::LogInt(2, 16)),
    ];
    vec![Space { kind: "gradient_boosting".into(), fixed, dimensions: dimensions.into() }]
}

#[test]
fn a_trial_that_goes_on_ends_as_if_it_had_never_stopped() {
    let mut trial = Trial::new(HOUSES, Task::Regression, "price");
    let rungs = Plan { rounds: 3, units: 4, fold: true };
    let (study, halving) = trial.study(Strategy::Halving, 8, rungs, boosting());
    let halved = trial.searched(&halving);
    let whole = Plan { rounds: 1, units: 8, fold: true };
    let (_, random) = trial.study(Strategy::Random, 8, whole, boosting());
    let full = trial.searched(&random);
    let rounds: Vec<u32> = halved.ranked(&study.metric).iter().map(|trial| trial.rounds).collect();
    assert_eq!(
        rounds,
        [8, 8, 4, 4, 2, 2, 2, 2],
        "all learn a quarter, half of them half, a quarter of them in full"
    );
    for finalist in halved.ranked(&study.metric).into_iter().take(2) {
        let alike = &full.trials[finalist.number as usize];
        assert_eq!((&finalist.params, finalist.score), (&alike.params, alike.score));
    }
    assert!(halved.states.is_empty(), "nothing is kept of what nobody goes on with");
}

#[test]
fn a_trial_that_cannot_be_is_told_of_and_the_others_go_on() {
    let mut trial = Trial::new(PENGUINS, Task::Classification, "species");
    let knn = |values: &[i64]| Space {
        kind: "knn_classifier".into(),
        fixed: Params::default(),
        dimensions: BTreeMap::from([(
            "n_neighbors".to_string(),
            Dimension::Values(values.iter().map(|value| Value::Int(*value)).collect()),
        )]),
    };
    let plan = Plan { rounds: 2, units: 2, fold: true };
    // No registry would let such a value through; a worker of another version might know other bounds.
    let (study, job) = trial.study(Strategy::Grid, 4, plan, vec![knn(&[3, -1, 5, 7])]);
    let history = trial.searched(&job);
    let failed: Vec<bool> = history.trials.iter().map(|trial| trial.score.is_none()).collect();
    assert_eq!(failed, [false, true, false, false]);
    let error = history.trials[1].error.as_deref().unwrap();
    assert!(error.contains("n_neighbors") && error.contains("-1"), "{error}");
    let best = trial.engine.best(&study, &trial.dataset, &history).unwrap();
    let kept: Vec<i64> = best.models.iter().map(|model| model.params.int("n_neighbors")).collect();
    assert_eq!(kept.len(), 2);
    assert_eq!(kept[0], history.ranked("accuracy")[0].params.int("n_neighbors"));
    let (study, job) = trial.study(Strategy::Grid, 1, Plan::sequential(1), vec![knn(&[-1])]);
    let history = trial.searched(&job);
    assert_eq!(trial.engine.best(&study, &trial.dataset, &history), None, "nothing is kept of what failed");
}

#[test]
fn a_trial_s_score_is_that_of_the_model_which_is_kept() {
    let mut trial = Trial::new(PENGUINS, Task::Classification, "species");
    let (study, job) = trial.study(Strategy::Tpe, 4, Plan { rounds: 2, units: 2, fold: true }, boosting());
    let history = trial.searched(&job);
    let best = history.ranked(&study.metric)[0].clone();
    let params = trial.engine.registry().check(&best.kind, Task::Classification, &best.params).unwrap();
    let models = study.training.judged_splits().into_iter().map(|split| {
        let prepare = trial.prepare(split);
        let profile = trial.engine.run(&prepare, &trial.inputs).unwrap();
        let prepared = trial.inputs.put(profile);
        let shape = shape(&trial.dataset, &trial.problem);
        let plan = trial.engine.plan_fit(&best.kind, &params, &shape).unwrap();
        let fit = job_of(study.training.fit(split, prepared, &best.kind, &params), plan);
        let bytes = trial.engine.run(&fit, &trial.inputs).unwrap();
        (trial.inputs.put(bytes), split)
    });
    let models = models.collect();
    let evaluation = trial.evaluate(models);
    assert_eq!(evaluation.report.values, best.metrics);
}

fn job_of(work: Work, plan: Plan) -> JobSpec {
    job("fit", plan, work)
}
