//! A db node dies in the middle of a training: the worker goes on with the others, to the same bytes.

use std::{collections::BTreeMap, sync::OnceLock};

use dml_core::{Digest, rng, training::State};
use dml_net::{
    client::{Client, ClientError, Piece},
    cluster::{self, Cluster as Embedded},
    view::{DatasetView, NewModel, NewTraining, TrainingView},
};
use futures_util::stream;

use crate::hosts::{Cluster, client, for_seeds};

/// A small table of two classes.
pub(crate) fn table() -> Vec<u8> {
    let row = |n: u64| {
        let [x, y, z] = [0, 1, 2].map(|column| rng::below(7, 3 * n + column, 100));
        let class = if x + y + rng::below(8, n, 40) > 110 { "high" } else { "low" };
        format!("{x},{y},{},{class}\n", ["red", "green", ""][z as usize % 3])
    };
    let rows: String = (0..200).map(row).collect();
    format!("x,y,colour,class\n{rows}").into_bytes()
}

fn pieces() -> Vec<Piece> {
    table().chunks(1000).map(|piece| Ok(piece.to_vec().into())).collect()
}

/// What must not depend on the cluster: each model's digest and metrics.
pub(crate) type Essence = BTreeMap<String, (Option<Digest>, String)>;

fn essence(view: &TrainingView) -> Essence {
    let models = view.models.iter();
    models
        .map(|model| {
            let metrics = model.metrics.as_ref().map(ToString::to_string).unwrap_or_default();
            (model.name.clone(), (model.digest, metrics))
        })
        .collect()
}

/// Uploads the table. A stream cannot be sent twice: when it breaks off, who uploads begins anew.
pub(crate) async fn upload(client: &Client) -> Result<DatasetView, ClientError> {
    let mut tries = 20;
    loop {
        let uploaded = client.upload("table", "text/csv", stream::iter(pieces())).await;
        if uploaded.is_ok() || tries == 0 {
            return uploaded;
        }
        tries -= 1;
    }
}

/// Uploads the table and trains several kinds on it: of one round and of many.
pub(crate) async fn train(client: Client) -> Result<Essence, String> {
    let dataset = upload(&client).await.map_err(|error| error.to_string())?;
    let kinds = ["logistic", "gaussian_nb", "decision_tree", "gradient_boosting"];
    let models = kinds.map(|kind| NewModel { kind: kind.into(), ..Default::default() }).to_vec();
    let new = NewTraining { models, ..NewTraining::new(dataset.id.to_string(), "class") };
    let view = client.train(&new).await.map_err(|error| error.to_string())?;
    let view = client.watch(&view.id.to_string(), |_| ()).await.map_err(|error| error.to_string())?;
    if view.state == State::Succeeded { Ok(essence(&view)) } else { Err(format!("{view:#?}")) }
}

/// What comes of it when nothing happens: one db node and one worker, without a network.
pub(crate) fn undisturbed() -> &'static Essence {
    static ESSENCE: OnceLock<Essence> = OnceLock::new();
    ESSENCE.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        runtime.expect("the system has threads").block_on(async {
            let cluster = Embedded::start(cluster::Options::default()).expect("memory does not fail");
            train(cluster.client()).await.expect("nothing disturbs it")
        })
    })
}

fn a_db_dies(seed: u64) {
    let mut cluster = Cluster::new(seed, 1);
    cluster.together();
    let trained = cluster.start(train(client(1)));
    let victim = seed as usize % 3;
    cluster.until("the work has begun", |dbs| dbs.iter().all(|db| db.records().len() > 2));
    // The power goes during a write.
    cluster.dbs[victim].disk.cut_power_after(1 + cluster.draw(0, 80));
    cluster.until("it goes", |dbs| dbs[victim].disk.is_off() || trained.borrow().is_some());
    assert!(trained.borrow().is_none(), "seed {seed}: it was over too soon");
    cluster.crash(victim);
    cluster.until("it ends without the dead", |_| trained.borrow().is_some());
    let essence = trained.take().expect("it has ended");
    assert_eq!(essence.as_ref(), Ok(undisturbed()), "seed {seed}");

    cluster.bounce(victim);
    cluster.together();
    cluster.same_everywhere();
}

#[test]
fn a_training_survives_a_db_node_that_loses_power() {
    assert_eq!(undisturbed().len(), 4);
    for_seeds(3, a_db_dies);
}
