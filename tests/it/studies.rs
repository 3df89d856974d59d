//! Searches: the same trials on any cluster, and a training of the best at their end.

use std::{collections::BTreeSet, time::Duration};

use dml::{
    Client, ClientError,
    core::{Params, Strategy, Value, lease::MAX_LOST, training::State},
    view::{NewSpace, NewStudy, NewValidation, Range, Sought, StudyView, TrialsView},
};

use crate::common::{Parts, cluster, houses, penguins, upload};

const LONG: Duration = Duration::from_secs(120);

fn space(kind: &str, sought: &[(&str, Sought)], fixed: &[(&str, Value)]) -> NewSpace {
    NewSpace {
        kind: kind.into(),
        params: Params(fixed.iter().map(|(name, value)| (name.to_string(), value.clone())).collect()),
        space: sought.iter().map(|(name, sought)| (name.to_string(), sought.clone())).collect(),
    }
}

fn range(low: f64, high: f64, log: bool) -> Sought {
    Sought::Range(Range { low, high, log })
}

fn boosting() -> NewSpace {
    let sought = [("learning_rate", range(0.02, 0.5, true)), ("max_leaves", range(2.0, 16.0, false))];
    space("gradient_boosting", &sought, &[("n_estimators", Value::Int(8))])
}

fn study(strategy: Strategy, trials: u32) -> NewStudy {
    let models = vec![boosting()];
    NewStudy { models, strategy: Some(strategy), trials: Some(trials), ..NewStudy::new("houses", "price") }
}

async fn carried_out(parts: &Parts, new: &NewStudy) -> (StudyView, TrialsView) {
    let study = parts.client.tune(new).await.unwrap();
    let mut done = Vec::new();
    let study = parts.client.watch_study(&study.id.to_string(), |study| done.push(study.done)).await.unwrap();
    assert_eq!(study.state, State::Succeeded, "{study:#?}");
    assert!(done.is_sorted() && done.last() == Some(&study.done), "{done:?}");
    let trials = parts.client.trials(&study.id.to_string()).await.unwrap();
    (study, trials)
}

#[tokio::test(flavor = "multi_thread")]
async fn any_number_of_workers_makes_the_same_trials() {
    for strategy in [Strategy::Tpe, Strategy::Halving] {
        let mut seen = Vec::new();
        for (workers, slots) in [(1, 1), (7, 1), (2, 3)] {
            let parts = cluster(workers, slots);
            upload(&parts.client, "houses", houses()).await;
            let (study, trials) = carried_out(&parts, &study(strategy, 16)).await;
            assert_eq!((study.done, study.failed, trials.items.len()), (16, 0, 16));
            seen.push((study.id, study.training, trials.items));
        }
        assert!(seen.windows(2).all(|two| two[0] == two[1]), "{strategy:?}: {seen:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_costs_a_study_nothing() {
    let parts = cluster(3, 1);
    upload(&parts.client, "houses", houses()).await;
    let undisturbed = carried_out(&parts, &study(Strategy::Tpe, 24)).await;
    let parts = cluster(3, 1);
    upload(&parts.client, "houses", houses()).await;
    let id = parts.client.tune(&study(Strategy::Tpe, 24)).await.unwrap().id.to_string();
    for killed in &parts.running[..2] {
        let so_far = parts.client.study(&id, Duration::from_millis(50)).await.unwrap();
        assert!(so_far.state != State::Failed, "{so_far:#?}");
        killed.abort();
    }
    let study = parts.client.study(&id, LONG).await.unwrap();
    assert_eq!((study.state, study.training), (State::Succeeded, undisturbed.0.training));
    assert_eq!(parts.client.trials(&id).await.unwrap().items, undisturbed.1.items);
}

/// A study whose trials take their time.
fn slow() -> NewStudy {
    let fixed = [("n_estimators", Value::Int(400)), ("max_leaves", Value::Int(31))];
    let models = vec![space("gradient_boosting", &[("learning_rate", range(0.02, 0.5, true))], &fixed)];
    NewStudy {
        models,
        trials: Some(4),
        validation: Some(NewValidation::Folds(5)),
        ..NewStudy::new("houses", "price")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_held_that_was_dropped_is_free_again() {
    let parts = cluster(2, 1);
    upload(&parts.client, "houses", houses()).await;
    let id = parts.client.tune(&slow()).await.unwrap().id.to_string();
    let holds = async |worker: &str| {
        let routing = parts.client.routing(&id).await.unwrap();
        routing.leases.iter().any(|lease| lease.worker == worker)
    };
    while !holds("w0").await {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    parts.running[0].abort();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(!holds("w0").await, "nobody renews it any more");
    let study = parts.client.study(&id, LONG).await.unwrap();
    assert_eq!((study.state, study.done), (State::Succeeded, 4));
}

/// Trials whose workers all die while they are at them.
#[tokio::test(flavor = "multi_thread")]
async fn a_trial_that_kills_its_workers_fails_alone() {
    let parts = cluster(MAX_LOST as usize + 1, 1);
    upload(&parts.client, "houses", houses()).await;
    let new = NewStudy { trials: Some(2), batch: Some(1), ..slow() };
    let id = parts.client.tune(&new).await.unwrap().id.to_string();
    let holders = async || {
        let leases = parts.client.routing(&id).await.unwrap().leases.into_iter();
        leases.map(|lease| (lease.worker, lease.job, lease.round)).collect::<BTreeSet<_>>()
    };
    let mut killed = BTreeSet::new();
    while killed.len() < MAX_LOST as usize {
        let before = holders().await;
        // A preparation is over by then.
        tokio::time::sleep(Duration::from_millis(100)).await;
        for (worker, _, round) in before.intersection(&holders().await) {
            if killed.insert(worker.clone()) {
                assert_eq!(*round, 0, "the first trial");
                let number: usize = worker.trim_start_matches('w').parse().unwrap();
                parts.running[number].abort();
            }
        }
    }
    let study = parts.client.study(&id, LONG).await.unwrap();
    assert_eq!((study.state, study.done, study.failed), (State::Succeeded, 2, 1), "{study:#?}");
    let trials = parts.client.trials(&id).await.unwrap().items;
    assert!(trials[0].error.is_none() && trials[0].number == 1, "{trials:#?}");
    let why = trials[1].error.clone().unwrap();
    assert!(why.contains("no worker lived"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_best_is_trained_and_predicts_under_the_name_of_the_study() {
    let parts = cluster(2, 1);
    upload(&parts.client, "penguins", penguins()).await;
    let models = vec![
        space("ridge_classifier", &[("alpha", range(0.001, 10.0, true))], &[]),
        space("decision_tree", &[("max_depth", Sought::Values([1, 3, 5].map(Value::Int).to_vec()))], &[]),
    ];
    let new = NewStudy {
        models,
        strategy: Some(Strategy::Random),
        trials: Some(12),
        keep: Some(3),
        validation: Some(NewValidation::Folds(3)),
        ..NewStudy::new("penguins", "species")
    };
    let (study, trials) = carried_out(&parts, &new).await;
    assert_eq!(study.name.as_deref(), Some("penguins-species-tuned"));
    let training = parts.client.watch("penguins-species-tuned", |_| ()).await.unwrap();
    assert_eq!((Some(training.id), training.models.len()), (study.training, 3));
    let best = training.models.iter().find(|model| model.place == 0).unwrap();
    let accuracy = dml::view::report(best.metrics.as_ref()).unwrap().get("accuracy");
    assert_eq!(accuracy, trials.items[0].score, "what is kept is what was tried");
    let predicted = parts.client.predict_csv("penguins-species-tuned", penguins().into()).await.unwrap();
    assert_eq!(predicted.iter().filter(|byte| **byte == b'\n').count(), 345);
    let csv = parts.client.trials_csv("penguins-species-tuned").await.unwrap();
    let csv = std::str::from_utf8(&csv).unwrap();
    assert!(
        csv.starts_with("rank,trial,kind,accuracy,rounds,of_rounds,param.alpha,param.max_depth,error\n"),
        "{csv}"
    );
    assert_eq!(csv.lines().count(), 13);
    // The same again is the same study; it can be removed, and the training stays.
    assert_eq!(parts.client.tune(&new).await.unwrap().id, study.id);
    let listed = parts.client.studies(10, None).await.unwrap();
    assert_eq!(listed.items.iter().map(|study| study.id).collect::<Vec<_>>(), [study.id]);
    parts.client.delete(dml::core::record::Kind::Study, "penguins-species-tuned").await.unwrap();
    assert!(parts.client.studies(10, None).await.unwrap().items.is_empty());
    assert_eq!(parts.client.training("penguins-species-tuned").await.unwrap().id, training.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_study_is_cancelled_and_taken_up_again() {
    // Nobody computes yet.
    let parts = cluster(0, 1);
    upload(&parts.client, "houses", houses()).await;
    let new = study(Strategy::Tpe, 8);
    let id = parts.client.tune(&new).await.unwrap().id.to_string();
    let busy = parts.client.delete(dml::core::record::Kind::Dataset, "houses").await.unwrap_err();
    assert!(matches!(&busy, ClientError::Problem(problem) if problem.code == "in-use"), "{busy}");
    let cancelled = parts.client.cancel_study(&id).await.unwrap();
    assert_eq!(cancelled.state, State::Cancelled);
    parts.work();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(parts.client.study(&id, Duration::ZERO).await.unwrap().done, 0, "what is cancelled rests");
    assert_ne!(parts.client.tune(&new).await.unwrap().state, State::Cancelled);
    let study = parts.client.study(&id, LONG).await.unwrap();
    assert_eq!((study.state, study.done), (State::Succeeded, 8));
    let over = parts.client.cancel_study(&id).await.unwrap_err();
    assert!(matches!(&over, ClientError::Problem(problem) if problem.code == "not-cancellable"), "{over}");
}

async fn refused(client: &Client, new: NewStudy) -> (String, String) {
    match client.tune(&new).await {
        Err(ClientError::Problem(problem)) => (problem.code.to_string(), problem.detail.clone()),
        other => panic!("it is refused: {other:?}"),
    }
}

#[tokio::test]
async fn what_cannot_be_searched_is_refused_with_a_reason() {
    let parts = cluster(0, 1);
    upload(&parts.client, "houses", houses()).await;
    let with = |models: Vec<NewSpace>| NewStudy { models, ..NewStudy::new("houses", "price") };
    let ridge = |name, sought| with(vec![space("ridge", &[(name, sought)], &[])]);
    let values = |values: &[f64]| Sought::Values(values.iter().map(|value| Value::Float(*value)).collect());
    let cases = [
        (ridge("alfa", values(&[1.0])), "param-unknown", "alfa"),
        (ridge("alpha", values(&[1.0, -1.0])), "param-value", "-1"),
        (ridge("alpha", values(&[])), "space-empty", "alpha"),
        (ridge("alpha", range(1.0, 1.0, false)), "bad-space", "alpha"),
        (ridge("alpha", range(-1.0, 1.0, false)), "param-value", "alpha"),
        (ridge("alpha", range(0.0, 1.0, true)), "bad-space", "logarithm"),
        (with(vec![space("linear", &[], &[])]), "space-empty", "linear"),
        (with(vec![space("forrest", &[], &[])]), "kind-unknown", "forrest"),
        (with(vec![space("gaussian_nb", &[], &[])]), "kind-task", "regression"),
        (
            with(vec![space("ridge", &[("alpha", values(&[1.0]))], &[("alpha", Value::Int(1))])]),
            "param-twice",
            "alpha",
        ),
        (
            with(vec![space("gradient_boosting", &[("max_leaves", range(2.5, 9.0, false))], &[])]),
            "bad-space",
            "whole",
        ),
        (with(vec![boosting(), boosting()]), "model-twice", "gradient_boosting"),
        (NewStudy { strategy: Some(Strategy::Grid), ..with(vec![boosting()]) }, "grid-of-ranges", "random"),
        (
            NewStudy { strategy: Some(Strategy::Halving), ..ridge("alpha", values(&[1.0])) },
            "kind-not-gradual",
            "gradient_boosting",
        ),
        (NewStudy { metric: Some("roc_auc".into()), ..with(vec![]) }, "metric-unknown", "rmse"),
        (ridge("alpha", values(&[1.0; 1_001])), "bad-study", "1001"),
        (with(vec![boosting(); 101]), "bad-study", "101"),
        (NewStudy { trials: Some(0), ..with(vec![]) }, "bad-study", "trials"),
        (NewStudy { trials: Some(10_001), ..with(vec![]) }, "bad-study", "10000"),
        (NewStudy { batch: Some(0), ..with(vec![]) }, "bad-study", "batch"),
        (NewStudy { reduction: Some(1), ..with(vec![]) }, "bad-study", "reduction"),
        (NewStudy { keep: Some(0), ..with(vec![]) }, "bad-study", "keep"),
        (NewStudy { target: "prise".into(), ..with(vec![]) }, "target-missing", "prise"),
        (NewStudy { validation: Some(NewValidation::Holdout(1.5)), ..with(vec![]) }, "bad-holdout", "1.5"),
        (NewStudy { name: Some("a/b".into()), ..with(vec![]) }, "bad-name", "name"),
    ];
    for (new, code, word) in cases {
        let (given, detail) = refused(&parts.client, new).await;
        assert_eq!(given, code, "{detail}");
        assert!(detail.contains(word), "{detail}");
    }
    let missing = parts.client.study("nothing", Duration::ZERO).await.unwrap_err();
    assert!(matches!(&missing, ClientError::Problem(problem) if problem.status == 404), "{missing}");
}

#[tokio::test]
async fn every_kind_has_a_usual_space_or_says_that_it_has_none() {
    let parts = cluster(0, 1);
    upload(&parts.client, "houses", houses()).await;
    upload(&parts.client, "penguins", penguins()).await;
    let mut without = Vec::new();
    for kind in dml::Registry::default().kinds() {
        let (dataset, target) = match kind.tasks.contains(&dml::core::Task::Regression) {
            true => ("houses", "price"),
            false => ("penguins", "species"),
        };
        let models = vec![space(kind.name, &[], &[])];
        match parts.client.tune(&NewStudy { models, ..NewStudy::new(dataset, target) }).await {
            Ok(study) => assert_eq!(study.kinds, [kind.name]),
            Err(ClientError::Problem(problem)) => {
                assert_eq!(problem.code, "space-empty", "{}", problem.detail);
                without.push(kind.name);
            }
            Err(error) => panic!("{}: {error}", kind.name),
        }
    }
    without.sort_unstable();
    assert_eq!(without, ["linear", "linfa_linear"]);
}
