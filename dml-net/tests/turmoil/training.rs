//! A db node dies in the middle of a training: the worker goes on with the others, to the same bytes.

use std::{collections::BTreeMap, sync::OnceLock};

use dml_core::{Digest, rng, training::State};
use dml_net::{
    client::{Client, Piece},
    cluster::{self, Cluster as Embedded},
    view::{NewModel, NewTraining, TrainingView},
};
use futures_util::stream;

use crate::hosts::{Cluster, client};

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

/// Uploads the table and trains several kinds on it: of one round and of many.
pub(crate) async fn train(client: Client) -> Result<Essence, String> {
    let mut tries = 0;
    let dataset = loop {
        // A stream cannot be sent twice: who uploads begins anew.
        match client.upload("table", "text/csv", stream::iter(pieces())).await {
            Ok(dataset) => break dataset,
            Err(error) if tries == 20 => return Err(error.to_string()),
            Err(_) => tries += 1,
        }
    };
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
    let mut cluster = Cluster::new(seed, 1, |_| ());
    cluster.together();
    let trained = cluster.start(train(client(1)));
    let victim = seed as usize % 3;
    cluster.until("the work has begun", |dbs| dbs.iter().all(|db| db.records().len() > 2));
    let changes = cluster.dbs[victim].disk.changes() + 1 + cluster.draw(0, 300);
    cluster.until("the work goes on", |dbs| dbs[victim].disk.changes() >= changes);
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
    (0..3).for_each(a_db_dies);
}
