//! Gradient boosting over shards of the rows: what workers that share a fit gain, and what it costs one that is alone.
//!
//! ```text
//! cargo bench -p dml --bench shards -- [rows] [iterations]
//! ```
//!
//! A db node with a directory and each worker are processes of their own. The table (28 columns, two classes) lies in
//! the db node; each fit begins with workers that know nothing of it, and is timed from its creation to its model. The
//! ways take turns, `DML_BENCH_TIMES` (2) times; their models are compared. Ratios tell; times depend on the machine.
#![allow(clippy::print_stdout, reason = "a bench prints its tables")]

#[path = "cluster/connection.rs"]
mod connection;
#[path = "data/mod.rs"]
#[allow(dead_code, reason = "other benches use the rest")]
mod data;

use std::{
    env, fs,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use connection::Connection;
use data::{Stored, TARGET};
use dml::{
    Db, Digest, Model, Peer, Registry, Worker,
    compute::{
        Engine, Inputs,
        engine::{check_problem, shape},
    },
    core::{
        Body, Dataset, Job, JobSpec, Params, Split, Task, Value, Work,
        dataset::Chunk,
        node::{Request, Response},
    },
    net::{db, link::Link, serve::serve, worker},
    store::DiskStore,
};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const SEED: u64 = 42;
const KIND: &str = "gradient_boosting";
/// What this process is, in the environment: `db DIRECTORY` or `worker ADDRESS`, else the bench itself.
const ROLE: &str = "DML_BENCH_ROLE";

/// A way to fit: its name, how many shards, and how many threads each worker has.
type Way = (&'static str, i64, &'static [usize]);

const WAYS: [Way; 4] = [
    ("one unit: one worker, two threads", 1, &[2]),
    ("two shards: two workers, a thread each", 2, &[1, 1]),
    ("two shards: one worker, two threads", 2, &[2]),
    ("one unit: one worker, a thread", 1, &[1]),
];

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let role = env::var(ROLE).unwrap_or_default();
    match role.split_once(' ') {
        Some(("db", directory)) => be_db(Path::new(directory)).await,
        Some((_, address)) => be_worker(address).await,
        None => bench().await,
    }
}

/// A db node, which writes its address into its directory.
async fn be_db(directory: &Path) -> Result<(), Failure> {
    let store = Arc::new(DiskStore::open(directory.join("store"))?);
    let db = Db::start(store, db::Options::default())?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    fs::write(directory.join("address.tmp"), listener.local_addr()?.to_string())?;
    fs::rename(directory.join("address.tmp"), directory.join("address"))?;
    serve(listener, db.router(), std::future::pending()).await;
    Ok(())
}

async fn be_worker(address: &str) -> Result<(), Failure> {
    let options = worker::Options { slots: 1, ..worker::Options::default() };
    let link = Link::new([Peer::http(&format!("http://{address}"))?]);
    Worker::new(link, Engine::new(Registry::default()), options).run().await;
    Ok(())
}

/// A process in one of the roles, which ends with this value.
struct Process(Child);

impl Process {
    fn start(role: &str, threads: usize) -> Result<Self, Failure> {
        let mut command = Command::new(env::current_exe()?);
        command.env(ROLE, role).env("RAYON_NUM_THREADS", threads.to_string()).stdout(Stdio::null());
        Ok(Self(command.spawn()?))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

async fn bench() -> Result<(), Failure> {
    let numbers: Vec<i64> = env::args().filter_map(|word| word.parse().ok()).collect();
    let rows = numbers.first().map_or(1_000_000, |&rows| rows as usize);
    let iterations = numbers.get(1).copied().unwrap_or(100);
    let directory = tempfile::tempdir()?;
    let mut table = Stored::write(directory.path(), SEED, rows)?;
    let problem = check_problem(&table.dataset, Task::Classification, TARGET, None)?;
    let engine = Engine::new(Registry::default());
    let split = Split::All;
    let work = Work::Prepare { problem: problem.clone(), split, seed: 1 };
    let prepare =
        JobSpec { parent: None, role: "bench".into(), work, plan: engine.plan_prepare(&table.dataset) };
    let profile = engine.run(&prepare, &table)?;
    let prepared = Digest::of(&profile);
    table.results = vec![profile.into()];

    let _db = Process::start(&format!("db {}", directory.path().display()), 2)?;
    let address = address_in(directory.path()).await?;
    let mut connection = Connection::open(address).await?;
    let chunks = table.dataset.chunks.iter().map(|chunk| chunk.digest);
    for digest in chunks.chain([prepared]) {
        let bytes = table.blob(digest)?;
        connection.send_as("application/octet-stream", "PUT", &format!("/v1/blobs/{digest}"), &bytes).await?;
    }
    connection.create(Body::Dataset((*table.dataset).clone())).await?;
    // A record must refer to the profile, as that of a preparation does in a training.
    let profile = Chunk { digest: prepared, rows: 1, bytes: table.results[0].len() as u64 };
    let holder = Dataset { rows: 1, chunks: vec![profile], columns: table.dataset.columns.clone() };
    connection.create(Body::Dataset(holder)).await?;

    println!("{rows} rows, 28 columns, {iterations} iterations");
    println!("{:<40} {:>8} {:>8} {:>8}", "way", "s", "ratio", "rounds");
    let (mut first, mut models) = (f64::NAN, Vec::new());
    for run in 0..env::var("DML_BENCH_TIMES").map_or(Ok(2), |times| times.parse::<usize>())? {
        for (name, shards, workers) in WAYS {
            let given = [("n_estimators", iterations), ("shards", shards)];
            let given = given.map(|(name, value)| (name.to_string(), Value::Int(value)));
            let params = engine.registry().check(KIND, Task::Classification, &Params(given.into()))?;
            let plan = engine.plan_fit(KIND, &params, &shape(&table.dataset, &problem))?;
            let problem = problem.clone();
            let work = Work::Fit { problem, split, prepared, kind: KIND.into(), params, seed: 5, bag: None };
            let job = JobSpec { parent: None, role: format!("bench/{run}/{name}"), work, plan };
            let start = |threads: &usize| Process::start(&format!("worker {address}"), *threads);
            let _workers = workers.iter().map(start).collect::<Result<Vec<_>, _>>()?;
            tokio::time::sleep(Duration::from_secs(1)).await;
            let start = Instant::now();
            let (model, rounds) = fitted(&mut connection, job).await?;
            let seconds = start.elapsed().as_secs_f64();
            first = if name == WAYS[0].0 { seconds } else { first };
            println!("{name:<40} {seconds:>8.2} {:>8.2} {rounds:>8}", seconds / first);
            models.push(Digest::of(&model.learner));
        }
    }
    let same = models.windows(2).all(|two| two[0] == two[1]);
    println!("{}", if same { "all models have the same trees" } else { "models differ" });
    if same { Ok(()) } else { Err("models differ".into()) }
}

async fn address_in(directory: &Path) -> Result<SocketAddr, Failure> {
    for _ in 0..200 {
        if let Ok(address) = fs::read_to_string(directory.join("address")) {
            return Ok(address.parse()?);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err("the db node does not start".into())
}

/// The model of a job, and how many rounds were seen of it.
async fn fitted(connection: &mut Connection, spec: JobSpec) -> Result<(Model, u32), Failure> {
    let (id, rounds) = (spec.id(), spec.plan.rounds);
    connection.create(Body::Job(Job::new(spec))).await?;
    let mut last = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let watch = Request::Watch { id, seen: 0, wait_ms: 0 };
        let Response::Family { entries, .. } = connection.ask(&watch).await? else {
            return Err("the db node knows nothing of the job".into());
        };
        let Some(Body::Job(job)) = entries.into_iter().next().and_then(|entry| entry.record.body) else {
            return Err("the job is gone".into());
        };
        if let Some(why) = job.failure {
            return Err(why.into());
        }
        if let Some(result) = job.result() {
            let bytes = connection.send("GET", &format!("/v1/blobs/{result}"), b"").await?;
            return Ok((Model::from_bytes(&bytes)?, last));
        }
        last = job.progress.round.min(rounds);
    }
}
