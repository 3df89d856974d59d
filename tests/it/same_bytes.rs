//! Same inputs, same bytes: whatever the cluster, the models and metrics are those of the one-machine for-loop.

use std::time::Duration;

use crate::common::{
    cluster, essence, for_loop, houses, penguins, stored_spec, training, training_of_all_kinds, upload,
    upload_whole,
};
use dml::{
    core::{Params, Task, Value, rng, training::State},
    view::{NewModel, NewValidation},
};

#[tokio::test(flavor = "multi_thread")]
async fn any_number_of_workers_slots_and_threads_trains_the_same_bytes() {
    for (name, table, target, task, validation) in [
        ("penguins", penguins(), "species", Task::Classification, None),
        ("houses", houses(), "price", Task::Regression, Some(NewValidation::Folds(3))),
    ] {
        let mut seen = Vec::new();
        for (workers, slots) in [(1, 1), (1, 4), (2, 2), (7, 1)] {
            let parts = cluster(workers, slots);
            upload(&parts.client, name, table.clone()).await;
            let new = dml::view::NewTraining { validation, ..training_of_all_kinds(name, target, task) };
            let view = parts.client.train(&new).await.unwrap();
            let view = parts.client.watch(&view.id.to_string(), |_| ()).await.unwrap();
            assert_eq!(view.state, State::Succeeded, "{view:#?}");
            let spec = stored_spec(&parts.store, view.id);
            let store = parts.store.clone();
            let alone = tokio::task::spawn_blocking(move || for_loop(store, &spec)).await.unwrap();
            let essence = essence(&view);
            let digests: Vec<_> =
                essence.iter().map(|(name, (digest, _))| (name.clone(), digest.unwrap())).collect();
            assert_eq!(digests, alone.into_iter().collect::<Vec<_>>(), "{workers} workers, {slots} slots");
            let id = view.best.unwrap().to_string();
            let predicted = parts.client.predict_csv(&id, table.clone().into()).await.unwrap();
            seen.push((essence, predicted));
        }
        assert!(seen.windows(2).all(|two| two[0] == two[1]), "{seen:#?}");
    }
}

/// A table of three chunks, and a class that follows from some of its 24 columns.
fn wide() -> Vec<u8> {
    let names: Vec<String> = (0..24).map(|column| format!("x{column}")).collect();
    let mut csv = format!("{},y\n", names.join(","));
    for row in 0..120_000 {
        let values: Vec<u64> = (0..24).map(|column| rng::below(column, row, 10)).collect();
        values.iter().for_each(|value| csv.push_str(&format!("{value},")));
        let is_one = values[0] * values[1] + 3 * values[2] + rng::below(99, row, 20) > 40;
        csv.push_str(if is_one { "one\n" } else { "other\n" });
    }
    csv.into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn boosting_over_shards_trains_the_same_bytes() {
    let table = wide();
    let mut seen = Vec::new();
    for (workers, slots) in [(1, 1), (2, 1), (7, 2)] {
        let parts = cluster(workers, slots);
        upload_whole(&parts.client, "wide", table.clone()).await;
        let given = [("n_estimators", 3), ("max_leaves", 12), ("shards", 7)];
        let params = given.map(|(name, value)| (name.to_string(), Value::Int(value)));
        let boosting = NewModel { kind: "gradient_boosting".into(), params: Params(params.into()) };
        let new = dml::view::NewTraining { models: vec![boosting], ..training("wide", "y") };
        let view = parts.client.train(&new).await.unwrap();
        let view = parts.client.watch(&view.id.to_string(), |_| ()).await.unwrap();
        assert_eq!(view.state, State::Succeeded, "{view:#?}");
        let spec = stored_spec(&parts.store, view.id);
        assert_eq!(spec.models[0].plan.units, 3, "a shard a chunk");
        if seen.is_empty() {
            let store = parts.store.clone();
            let alone = tokio::task::spawn_blocking(move || for_loop(store, &spec)).await.unwrap();
            let digest = essence(&view).into_values().next().and_then(|(digest, _)| digest).unwrap();
            assert_eq!(alone.into_values().collect::<Vec<_>>(), [digest]);
        }
        seen.push(essence(&view));
    }
    assert!(seen.windows(2).all(|two| two[0] == two[1]), "{seen:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn threads_within_a_unit_change_nothing() {
    let digests = [1, 4].map(|threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let runtime = tokio::runtime::Handle::current();
        let (store, spec) = tokio::task::block_in_place(|| {
            runtime.block_on(async {
                let parts = cluster(1, 1);
                upload(&parts.client, "penguins", penguins()).await;
                let view = parts.client.train(&training("penguins", "species")).await.unwrap();
                (parts.store.clone(), stored_spec(&parts.store, view.id))
            })
        });
        pool.install(|| for_loop(store, &spec))
    });
    assert_eq!(digests[0], digests[1]);
    assert!(digests[0].len() >= 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_killed_on_the_way_change_nothing() {
    let undisturbed = cluster(1, 2);
    upload(&undisturbed.client, "houses", houses()).await;
    let view = undisturbed.client.train(&training("houses", "price")).await.unwrap();
    let expected = essence(&undisturbed.client.watch(&view.id.to_string(), |_| ()).await.unwrap());
    for (kill_after_ms, survivor) in [(1, 2), (40, 1), (150, 0)] {
        let parts = cluster(3, 1);
        upload(&parts.client, "houses", houses()).await;
        let view = parts.client.train(&training("houses", "price")).await.unwrap();
        tokio::time::sleep(Duration::from_millis(kill_after_ms)).await;
        // All but one die with what they hold.
        parts
            .running
            .iter()
            .enumerate()
            .filter(|(n, _)| *n != survivor)
            .for_each(|(_, worker)| worker.abort());
        let view = parts.client.watch(&view.id.to_string(), |_| ()).await.unwrap();
        assert_eq!(essence(&view), expected, "killed after {kill_after_ms} ms");
    }
}
