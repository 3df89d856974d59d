//! Several db nodes in one process: what any two of them may do to the others by dying.

use std::time::{Duration, Instant};

use crate::common::{cluster, essence, houses, penguins, training, upload};
use dml::{
    Client, Cluster,
    core::{Kind, training::State},
    net::cluster::Options,
};

fn three_dbs() -> Cluster {
    Cluster::start(Options { dbs: 3, workers: 2, slots: 1, ..Options::default() })
        .expect("memory does not fail")
}

/// Waits until there are so many copies of a thing.
async fn copies(client: &Client, name: &str, wanted: u32) {
    let start = Instant::now();
    loop {
        let routing = client.routing(name).await.unwrap();
        if routing.copies >= wanted && routing.owner.is_some() {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "{routing:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until all db nodes see each other.
async fn together(client: &Client, dbs: usize) {
    let start = Instant::now();
    loop {
        let nodes = client.nodes().await.unwrap_or_default();
        let dbs_seen = nodes.iter().filter(|node| node.role == dml::view::Role::Db && node.active).count();
        if dbs_seen == dbs {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "{nodes:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_of_three_db_nodes_die_and_the_bytes_are_the_same() {
    let undisturbed = cluster(1, 2);
    upload(&undisturbed.client, "houses", houses()).await;
    let view = undisturbed.client.train(&training("houses", "price")).await.unwrap();
    let expected = essence(&undisturbed.client.watch(&view.id.to_string(), |_| ()).await.unwrap());

    let mut cluster = three_dbs();
    let client = cluster.client();
    together(&client, 3).await;
    let dataset = upload(&client, "houses", houses()).await;
    assert_eq!(dataset.replicas, Some(3), "durable on three nodes before it is answered");
    let view = client.train(&training("houses", "price")).await.unwrap();
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(60)).await;
        cluster.kill_db(0);
    }
    let view = client.watch(&view.id.to_string(), |_| ()).await.unwrap();
    assert_eq!(view.state, State::Succeeded, "{view:#?}");
    assert_eq!(essence(&view), expected);
    let table = client.dataset("houses").await.unwrap();
    assert_eq!((table.id, table.rows), (dataset.id, dataset.rows));
    let best = view.best.unwrap().to_string();
    let predicted = client.predict_csv(&best, houses().into()).await.unwrap();
    let lines = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count();
    assert_eq!(lines(&predicted), lines(&houses()));
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_everywhere_and_known_to_all() {
    let cluster = three_dbs();
    let client = cluster.client();
    together(&client, 3).await;
    upload(&client, "penguins", penguins()).await;
    let view = client.train(&training("penguins", "species")).await.unwrap();
    let view = client.watch(&view.id.to_string(), |_| ()).await.unwrap();
    assert_eq!(view.state, State::Succeeded);
    for name in ["penguins", "penguins-species", &view.best.unwrap().to_string()] {
        copies(&client, name, 3).await;
    }
    let owner = client.routing("penguins").await.unwrap().owner;
    assert_eq!(owner.as_deref(), Some(cluster.dbs()[0].id()), "the lowest address owns it");
    let gone = client.routing("nothing").await.unwrap_err();
    assert!(gone.to_string().contains("nothing"), "{gone}");
    // What is deleted is deleted on all.
    client.delete(Kind::Training, "penguins-species").await.unwrap();
    client.delete(Kind::Dataset, "penguins").await.unwrap();
    assert!(client.dataset("penguins").await.is_err());
    assert!(client.datasets(10, None).await.unwrap().items.is_empty());
}
