//! What the tests have in common: tables, clusters, the one-machine for-loop.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::Router;
use dml::{
    Client, Db, Digest, Peer, Registry, Worker,
    compute::{Engine, Inputs, WorkError},
    core::{Body, Dataset, Job, Params, Task, TrainingSpec, job::Plan, node::Settings, training},
    net::{db, link::Link, worker::Options},
    store::{MemoryStore, Store},
    view::{NewModel, NewTraining, TrainingView},
};
use futures_util::stream;
use tokio::task::JoinHandle;

pub(crate) fn penguins() -> Vec<u8> {
    std::fs::read("data/penguins.csv").expect("it comes with the project")
}

pub(crate) fn houses() -> Vec<u8> {
    std::fs::read("data/houses.csv").expect("it comes with the project")
}

/// A cluster of which every part is at hand.
pub(crate) struct Parts {
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) client: Client,
    pub(crate) db: Db,
    /// The first worker's REST API.
    pub(crate) api: Peer,
    pub(crate) running: Vec<JoinHandle<()>>,
    workers: Vec<Worker>,
}

impl Parts {
    /// What the first worker serves.
    pub(crate) fn router(&self) -> Router {
        self.workers[0].router()
    }

    /// Sets the workers to work.
    pub(crate) fn work(&self) {
        for worker in self.workers.clone() {
            tokio::spawn(async move { worker.run().await });
        }
    }
}

/// A cluster with short leases, so that a killed worker's pieces are free again soon. With no workers, one serves users
/// but does not compute.
pub(crate) fn cluster(workers: usize, slots: usize) -> Parts {
    let store = Arc::new(MemoryStore::default());
    let settings = Settings { lease: Duration::from_millis(500), ..Settings::default() };
    let db = Db::start(store.clone(), db::Options { settings, ..Default::default() })
        .expect("memory does not fail");
    let engine = Arc::new(Engine::new(Registry::default()));
    let (mut peers, mut running, mut all) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..workers.max(1) {
        let options = Options { name: format!("w{n}"), slots, ..Options::default() };
        let worker = Worker::new(Link::new([Peer::router(db.router())]), engine.clone(), options);
        peers.push(Peer::router(worker.router()));
        all.push(worker.clone());
        if n < workers {
            running.push(tokio::spawn(async move { worker.run().await }));
        }
    }
    Parts { store, db, api: peers[0].clone(), client: Client::new(peers), running, workers: all }
}

pub(crate) async fn upload(client: &Client, name: &str, table: Vec<u8>) -> dml::view::DatasetView {
    // In small pieces, as from a network.
    let pieces: Vec<_> = table.chunks(1000).map(|piece| Ok(piece.to_vec().into())).collect();
    client.upload(name, "text/csv", stream::iter(pieces)).await.expect("the table is good")
}

/// In one piece: for tables that are large for a test.
pub(crate) async fn upload_whole(client: &Client, name: &str, table: Vec<u8>) -> dml::view::DatasetView {
    let whole = stream::iter([Ok(table.into())]);
    client.upload(name, "text/csv", whole).await.expect("the table is good")
}

pub(crate) fn training(dataset: &str, target: &str) -> NewTraining {
    NewTraining::new(dataset, target)
}

/// The same with every kind that does this task and is deterministic.
pub(crate) fn training_of_all_kinds(dataset: &str, target: &str, task: Task) -> NewTraining {
    let kinds = Registry::default().kinds().into_iter();
    let kinds = kinds.filter(|kind| kind.deterministic && kind.tasks.contains(&task));
    let models = kinds.map(|kind| NewModel { kind: kind.name.into(), params: Params::default() }).collect();
    NewTraining { models, ..training(dataset, target) }
}

/// What must not depend on the cluster: each model's digest and metrics.
pub(crate) fn essence(view: &TrainingView) -> BTreeMap<String, (Option<Digest>, String)> {
    let model = |m: &dml::view::TrainedView| {
        let metrics = m.metrics.as_ref().map(ToString::to_string).unwrap_or_default();
        (m.name.clone(), (m.digest, metrics))
    };
    view.models.iter().map(model).collect()
}

/// Reads from a store, without any cluster.
struct Direct {
    store: Arc<MemoryStore>,
    datasets: BTreeMap<Digest, Arc<Dataset>>,
    made: Mutex<BTreeMap<Digest, Arc<[u8]>>>,
}

impl Inputs for Direct {
    fn dataset(&self, id: Digest) -> Result<Arc<Dataset>, WorkError> {
        Ok(self.datasets[&id].clone())
    }

    fn blob(&self, digest: Digest) -> Result<Arc<[u8]>, WorkError> {
        if let Some(bytes) = self.made.lock().expect("nobody panics").get(&digest) {
            return Ok(bytes.clone());
        }
        Ok(self.store.blob(digest).expect("memory does not fail").expect("it was uploaded").into())
    }
}

/// Runs a training by the one-machine for-loop: no node, no lease, no network. Gives each model's digest by its name.
pub(crate) fn for_loop(store: Arc<MemoryStore>, spec: &TrainingSpec) -> BTreeMap<String, Digest> {
    let records = store.records().expect("memory does not fail");
    let datasets =
        records.iter().filter_map(|(id, bytes)| match dml::core::Record::from_bytes(bytes).ok()?.body? {
            Body::Dataset(dataset) => Some((*id, Arc::new(dataset))),
            Body::Training(_) | Body::Study(_) | Body::Job(_) | Body::Token(_) | Body::Revocation(_) => None,
        });
    let inputs = Direct { datasets: datasets.collect(), store, made: Mutex::default() };
    let engine = Engine::new(Registry::default());
    let mut jobs: BTreeMap<Digest, Job> = BTreeMap::new();
    loop {
        let missing = training::reconcile(spec, |id| jobs.get(id));
        if missing.is_empty() {
            break;
        }
        for spec in missing {
            let bytes = engine.run(&spec, &inputs).expect("the table is good");
            let digest = Digest::of(&bytes);
            inputs.made.lock().expect("nobody panics").insert(digest, bytes.into());
            let Plan { rounds, .. } = spec.plan;
            let mut job = Job::new(spec);
            (job.progress.round, job.progress.state) = (rounds, Some(digest));
            jobs.insert(job.spec.id(), job);
        }
    }
    let id = spec.id();
    let model = |(m, name)| Some((name, jobs.get(&spec.model_id(id, m))?.result()?));
    spec.model_names().into_iter().enumerate().filter_map(model).collect()
}

/// The spec of a training, as it was stored.
pub(crate) fn stored_spec(store: &MemoryStore, id: Digest) -> TrainingSpec {
    let records = store.records().expect("memory does not fail");
    let bytes = &records.iter().find(|(key, _)| *key == id).expect("it was created").1;
    match dml::core::Record::from_bytes(bytes).expect("it was written by us").body {
        Some(Body::Training(training)) => training.spec,
        other => panic!("{other:?} under a training's id"),
    }
}
