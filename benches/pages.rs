//! How long a worker takes for each page of the console, and for pages of lists, where there is much: 10,000 models and
//! 1,000 nodes beside a cluster that has next to nothing. No page should cost by how much there is.
//!
//! ```text
//! cargo bench -p dml --bench pages -- [models]
//! ```
#![allow(clippy::print_stdout, reason = "a bench prints its tables")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::body::Body as HttpBody;
use dml::{
    Client, Db, Peer, Registry, Worker,
    compute::Engine,
    core::{
        Body, Job, JobSpec, Record,
        node::{Claim, Request},
    },
    net::{db, link::Link, worker},
    store::{MemoryStore, Store},
    view::{NewModel, NewTraining},
};
use futures_util::stream;
use http_body_util::BodyExt;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const NODES: usize = 1000;
const TURNS: usize = 7;

const PAGES: [&str; 11] = [
    "/",
    "/datasets",
    "/trainings",
    "/studies",
    "/models",
    "/predictions",
    "/jobs",
    "/cluster",
    "/logs",
    "/v1/models?limit=50",
    "/v1/trainings?limit=50",
];

/// A worker of a db node with this store.
struct Site {
    worker: Worker,
    api: Peer,
    link: Link,
}

impl Site {
    fn start(store: Arc<MemoryStore>) -> Result<Self, Failure> {
        let db = Db::start(store, db::Options::default())?;
        let link = Link::new([Peer::router(db.router())]);
        let worker = Worker::new(link.clone(), Engine::new(Registry::default()), worker::Options::default());
        Ok(Self { api: Peer::router(worker.router()), worker, link })
    }

    /// The median of some turns, after one that does not count.
    async fn time(&self, page: &str) -> Result<(Duration, usize), Failure> {
        let (mut times, mut bytes) = (Vec::new(), 0);
        for turn in 0..=TURNS {
            let start = Instant::now();
            let answer = self.api.call(hyper::Request::get(page).body(HttpBody::empty())?).await?;
            if answer.status() != 200 {
                return Err(format!("{page}: {}", answer.status()).into());
            }
            bytes = answer.into_body().collect().await?.to_bytes().len();
            if turn > 0 {
                times.push(start.elapsed());
            }
        }
        times.sort_unstable();
        Ok((times[TURNS / 2], bytes))
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let wanted = std::env::args().skip(1).find_map(|argument| argument.parse().ok());
    let models: u64 = wanted.unwrap_or(10_000);
    let few = Arc::new(MemoryStore::default());
    let small = Site::start(few.clone())?;
    train(&small).await?;
    let many = Arc::new(MemoryStore::default());
    copy(&few, &many, models)?;
    let large = Site::start(many)?;
    for n in 0..NODES {
        let claim = Claim {
            worker: format!("worker-{n}"),
            slots: 1,
            capacity: 1,
            have: Vec::new(),
            wait_ms: 0,
            address: None,
        };
        large.link.ask(&Request::Claim(claim)).await?;
    }
    println!("{:24} {:>10} {:>22} {:>10}", "", "1 model", format!("{models} models"), "KiB");
    for page in PAGES {
        let ((one, _), (all, bytes)) = (small.time(page).await?, large.time(page).await?);
        let ms = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);
        println!("{page:24} {:>10} {:>22} {:>10}", ms(one), ms(all), bytes >> 10);
    }
    Ok(())
}

/// One model, really trained.
async fn train(site: &Site) -> Result<(), Failure> {
    let worker = site.worker.clone();
    let running = tokio::spawn(async move { worker.run().await });
    let client = Client::new([site.api.clone()]);
    let table = std::fs::read("data/penguins.csv")?;
    client.upload("penguins", "text/csv", stream::iter([Ok(table.into())])).await?;
    let models = vec![NewModel { kind: "gaussian_nb".into(), ..NewModel::default() }];
    let training = client.train(&NewTraining { models, ..NewTraining::new("penguins", "species") }).await?;
    client.watch(&training.id.to_string(), |_| ()).await?;
    running.abort();
    Ok(())
}

/// The same store with the training as often as wanted, under other seeds, one a second; all have the same results.
fn copy(few: &MemoryStore, many: &MemoryStore, models: u64) -> Result<(), Failure> {
    let records: Vec<Record> =
        few.records()?.iter().map(|(_, bytes)| Record::from_bytes(bytes)).collect::<Result<_, _>>()?;
    let mut all = Vec::new();
    for record in &records {
        for blob in record.body.iter().flat_map(Body::blobs) {
            many.put_blob(blob, &few.blob(blob)?.ok_or("a blob is gone")?)?;
        }
        if let Some(Body::Dataset(dataset)) = &record.body {
            all.push((dataset.id(), Some(record.to_bytes())));
        }
    }
    let training = records.iter().find_map(|record| {
        let Some(Body::Training(training)) = &record.body else { return None };
        Some((record, training))
    });
    let (root, training) = training.ok_or("there is no training")?;
    for seed in 0..models {
        let mut again = training.clone();
        again.spec.seed = seed;
        let id = again.spec.id();
        let mut record = Record { body: Some(Body::Training(again)), ..root.clone() };
        record.names.0.values_mut().for_each(|at| *at += seed * 1000);
        all.push((id, Some(record.to_bytes())));
        for child in &records {
            let Some(Body::Job(job)) = &child.body else { continue };
            let job = Job { spec: JobSpec { parent: Some(id), ..job.spec.clone() }, ..job.clone() };
            all.push((
                job.spec.id(),
                Some(Record { body: Some(Body::Job(job)), ..child.clone() }.to_bytes()),
            ));
        }
    }
    many.commit(&all)?;
    Ok(())
}
