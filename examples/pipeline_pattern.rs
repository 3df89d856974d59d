//! Producer, consumers and collector (the push/pull pipeline of ZeroMQ's guide) as a study: whoever asks for it produces the
//! trials, workers consume them as they are free, and to collect is to ask how it stands. No stage waits for another to
//! start, none keeps a queue of its own, and a consumer that dies costs nothing.
//!
//! `cargo run --release --example pipeline_pattern`
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use dml::{
    Client, Db, Peer, Worker,
    compute::Engine,
    core::{Strategy, Value, node::Settings},
    net::{db, link::Link, worker},
    store::MemoryStore,
    view::{NewSpace, NewStudy, Range, Sought, StudyView},
};
use futures_util::stream;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // What a consumer holds that dies is free again after a second; on a network it is noticed sooner.
    let settings = Settings { lease: Duration::from_secs(1), ..Settings::default() };
    let options = db::Options { settings, ..db::Options::default() };
    let db = Db::start(Arc::new(MemoryStore::default()), options)?;
    let consumer = |n: u32| {
        let options = worker::Options { name: format!("consumer-{n}"), slots: 1, ..Default::default() };
        let engine = Arc::new(Engine::new(dml::Registry::default()));
        Worker::new(Link::new([Peer::router(db.router())]), engine, options)
    };
    let consumers: Vec<Worker> = (1..=3).map(consumer).collect();

    // The producer comes first: there is nobody to consume yet, and that is no mistake.
    let producer = Client::new(consumers.iter().map(|consumer| Peer::router(consumer.router())));
    let table = std::fs::read("data/penguins.csv")?;
    producer.upload("penguins", "text/csv", stream::iter([Ok(table.into())])).await?;
    let values = Sought::Values([2, 4, 8, 16].map(Value::Int).to_vec());
    let rates = Sought::Range(Range { low: 0.02, high: 0.5, log: true });
    let space = BTreeMap::from([("max_leaves".into(), values), ("learning_rate".into(), rates)]);
    let boosting = NewSpace { kind: "gradient_boosting".into(), space, ..NewSpace::default() };
    let study = NewStudy {
        models: vec![boosting],
        strategy: Some(Strategy::LatinHypercube),
        trials: Some(60),
        metric: Some("log_loss".into()),
        ..NewStudy::new("penguins", "species")
    };
    let id = producer.tune(&study).await?.id.to_string();
    println!("produced: 60 trials");

    let mut running: Vec<_> =
        consumers.into_iter().map(|consumer| tokio::spawn(async move { consumer.run().await })).collect();
    let collector = &producer;
    let collect = |study: &StudyView| {
        if let Some(best) = study.leaders.first() {
            println!("collected {:2} of {}: best log-loss so far {:?}", study.done, study.trials, best.score);
        }
        if study.done > 0
            && running.len() == 3
            && let Some(consumer) = running.pop()
        {
            consumer.abort();
            println!("one consumer was killed");
        }
    };
    let study = collector.watch_study(&id, collect).await?;
    let best = study.leaders.first().ok_or("no trial was made")?;
    println!("the best hyper-parameters: {}", serde_json::to_string(&best.params)?);
    let kept = study.training.ok_or("nothing was kept")?.to_string();
    let kept = collector.watch(&kept, |_| ()).await?;
    println!("the model that is kept: {}", kept.best.ok_or("it was not trained")?);
    Ok(())
}
