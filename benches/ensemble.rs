//! How long an ensemble of five takes to predict a row, undisturbed and with one member killed: its bytes are gone from every
//! db node. Both are served in this process on loopback by workers of their own, and asked in turns; the run fails if the
//! 99th percentile is more than twice as long with a member less.
//!
//! ```text
//! cargo bench -p dml --bench ensemble
//! ```
#![allow(clippy::print_stdout, reason = "a bench prints its tables")]

#[path = "cluster/connection.rs"]
#[allow(dead_code, reason = "other benches use the rest")]
mod connection;

use std::{
    fs,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use connection::Connection;
use dml::{
    Client, Db, Peer, Registry, Worker,
    compute::Engine,
    net::{db, link::Link, serve::serve, worker::Options},
    store::{MemoryStore, Store},
};
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinSet};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How long each side is asked in a turn, and how many turns there are. Together longer than a lost member is left alone, so
/// that it is looked for several times.
const TURN: Duration = Duration::from_secs(3);
const TURNS: usize = 5;

/// How many times as long it may take.
const MOST: f64 = 2.0;

const PREDICT: &str = "/v1/ml-distributed/predict";

#[tokio::main]
async fn main() -> Result<(), Failure> {
    println!("load before: {}", fs::read_to_string("/proc/loadavg").unwrap_or_default().trim());
    let house = fs::read("data/house_pricing/other/one_prediction_house_pricing_test.json")?;
    let store = Arc::new(MemoryStore::default());
    let db = Db::start(store.clone(), db::Options::default())?;
    let whole = worker(&db);
    let running = whole.clone();
    tokio::spawn(async move { running.run().await });
    let client = Client::new([Peer::router(whole.router())]);
    let whole = listen(&whole).await?;
    let fitted = ask(whole, "/v1/ml-distributed/fit", b"").await?;
    let training = client.training(fitted["training"].as_str().ok_or("no training")?).await?;
    let lost = training.models.iter().find_map(|model| model.digest).ok_or("no member was fitted")?;
    first("undisturbed", whole, &house).await?;
    store.remove_blob(lost, Duration::ZERO)?;
    // A worker that has not seen the member yet, as after a restart.
    let less = listen(&worker(&db)).await?;
    first("a member less", less, &house).await?;

    println!(
        "\n{:14} {:>4} {:>10} {:>10} {:>10} {:>10}",
        "", "", "requests", "p50 ms", "p99 ms", "p99 ratio"
    );
    let mut worst: f64 = 0.0;
    for connections in [1, 8] {
        let (mut theirs, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..TURNS {
            theirs.extend(times(whole, connections, &house).await?);
            ours.extend(times(less, connections, &house).await?);
        }
        let (undisturbed, degraded) =
            (told("undisturbed", connections, theirs), told("a member less", connections, ours));
        println!("{:>63.2}", degraded / undisturbed);
        worst = worst.max(degraded / undisturbed);
    }
    if worst > MOST {
        Err(format!("{worst:.2} times as long, and {MOST} are allowed").into())
    } else {
        Ok(())
    }
}

fn worker(db: &Db) -> Worker {
    let link = Link::new([Peer::router(db.router())]);
    Worker::new(link, Engine::new(Registry::default()), Options::default())
}

async fn listen(worker: &Worker) -> Result<SocketAddr, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(serve(listener, worker.router(), std::future::pending()));
    Ok(address)
}

async fn ask(address: SocketAddr, path: &str, body: &[u8]) -> Result<Value, Failure> {
    let bytes = Connection::open(address).await?.send("POST", path, body).await?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// The first answer, which has to fetch members and to measure them.
async fn first(what: &str, address: SocketAddr, row: &[u8]) -> Result<(), Failure> {
    let start = Instant::now();
    let answer = ask(address, PREDICT, row).await?;
    let (used, total) = (&answer["members_used"], &answer["members_total"]);
    println!(
        "{what}: {used} of {total} members, the first answer in {:.1} ms",
        start.elapsed().as_secs_f64() * 1e3
    );
    Ok(())
}

/// How long each request of a turn took, in milliseconds.
async fn times(address: SocketAddr, connections: usize, row: &[u8]) -> Result<Vec<f64>, Failure> {
    let (mut tasks, begun) = (JoinSet::new(), Instant::now());
    for _ in 0..connections {
        let row = row.to_vec();
        tasks.spawn(async move {
            let (mut connection, mut times) = (Connection::open(address).await?, Vec::new());
            while begun.elapsed() < TURN {
                let start = Instant::now();
                connection.send("POST", PREDICT, &row).await?;
                times.push(start.elapsed().as_secs_f64() * 1e3);
            }
            Ok::<_, Failure>(times)
        });
    }
    let mut all = Vec::new();
    while let Some(times) = tasks.join_next().await {
        all.extend(times??);
    }
    Ok(all)
}

/// Prints a line, and gives the 99th percentile.
fn told(what: &str, connections: usize, mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!("{what:14} {connections:4} {:10} {:10.3} {:10.3}", times.len(), at(0.5), at(0.99));
    at(0.99)
}
