//! How fast db nodes are, measured from outside: real processes, real sockets, real disks, on one machine.
//!
//! ```text
//! cargo build --release -p dml-bins && cargo bench -p dml --bench cluster -- [claims|latency|writes|failover|restart|first|idle] ...
//! ```
//!
//! The programs are those of `target/release`, or of the directory that `DML_BIN` names. With `ETCD` in the environment
//! (`benches/etcd.sh` sees to it) writes and failover are measured for etcd too, by the same clients, in turns.
#![allow(clippy::print_stdout, reason = "a bench prints its tables")]

#[path = "cluster/connection.rs"]
mod connection;
#[path = "cluster/nodes.rs"]
mod nodes;

use std::{
    env, fs,
    net::SocketAddr,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use connection::Connection;
use dml::{
    Db, Digest,
    core::{
        Body, Dataset, Job, Record,
        dataset::{Chunk, Column, ColumnType, Summary},
        job::{JobSpec, Plan, Work},
        lease::Lease,
        node::{Claim, Outcome, Request},
        record::Names,
    },
    net::{db, serve::serve},
    store::{DiskStore, MemoryStore, Store},
};
use nodes::{Cluster, Kind, Process, cpu_of, free_address, program, rss, start_db, wait_for};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{sleep, timeout},
};

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    // cargo adds `--bench`.
    let wanted: Vec<String> = env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let all = ["claims", "latency", "writes", "failover", "restart", "first", "idle"];
    if let Some(unknown) = wanted.iter().find(|name| !all.contains(&name.as_str())) {
        return Err(format!("there is no bench '{unknown}': choose from {}", all.join(", ")).into());
    }
    for name in all.into_iter().filter(|name| wanted.is_empty() || wanted.iter().any(|w| w == name)) {
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        println!("\n{name}   (cargo bench -p dml --bench cluster -- {name}; load before: {})", load.trim());
        match name {
            "claims" => claims().await?,
            "latency" => latency().await?,
            "writes" => writes().await?,
            "failover" => failover().await?,
            "restart" => restart().await?,
            "first" => first_result().await?,
            _ => idle().await?,
        }
    }
    Ok(())
}

// ---- No-op units of work.

const WORKERS: usize = 8;
const SLOTS: usize = 32;
/// Jobs open at a time, and the units of each.
const JOBS: u64 = 8;
const UNITS: u64 = 500;
const WARM_UP: Duration = Duration::from_secs(1);
const WINDOW: Duration = Duration::from_secs(8);

/// Units a second, and what each costs: workers claim pieces and report each at once, as if they took no time.
async fn claims() -> Result<(), Failure> {
    println!("{WORKERS} workers with {SLOTS} slots each, {JOBS} jobs of {UNITS} units open at a time");
    println!(
        "nodes   units/s   report p50   report p99   CPU a unit: nodes    load   requests/s without work"
    );
    for nodes in [1, 3, 1, 3] {
        let cluster = Cluster::dml(nodes).await?;
        let (reports, costs) = claims_of(&cluster).await?;
        let units = reports.len() as u64;
        let bare = bare_requests(&cluster).await?;
        let [p50, p99] = [0.5, 0.99].map(|q| millis(quantile(&reports, q)));
        let [of_nodes, of_load] =
            costs.map(|cost| format!("{:.0} µs", cost.as_micros() as f64 / units as f64));
        let rate = per_second(units, WINDOW);
        println!("{nodes:5} {rate:9.0}   {p50:>10}   {p99:>10}   {of_nodes:>18} {of_load:>7}   {bare:23.0}");
    }
    Ok(())
}

/// How long each report in the window took, and the processor time of the nodes and of the load.
async fn claims_of(cluster: &Cluster) -> Result<(Vec<Duration>, [Duration; 2]), Failure> {
    let mut feed = Feed::prepare(cluster.addresses[0]).await?;
    let blob = feed.blob;
    let (tell, mut told) = mpsc::unbounded_channel();
    let mut workers = JoinSet::new();
    for n in 0..WORKERS {
        let (address, tell) = (cluster.addresses[n % cluster.addresses.len()], tell.clone());
        workers.spawn(async move { work(n, SLOTS, address, blob, tell).await });
    }
    let (mut reports, mut all, mut refusals) = (Vec::new(), 0, Vec::new());
    let (start, mut before) = (Instant::now(), None);
    loop {
        let left = (WARM_UP + WINDOW).saturating_sub(start.elapsed());
        if left.is_zero() {
            break;
        }
        if before.is_none() && start.elapsed() >= WARM_UP {
            (before, reports) = (Some([cluster.cpu(), cpu_of("self")]), Vec::new());
        }
        tokio::select! {
            Some(took) = told.recv() => {
                match took {
                    Ok(took) => reports.push(took),
                    Err(why) => refusals.push(why),
                }
                all += 1;
                if all % UNITS == 0 {
                    feed.job().await?;
                }
            }
            Some(ended) = workers.join_next() => ended??,
            () = sleep(left.min(Duration::from_millis(100))) => {}
        }
    }
    let before = before.ok_or("the warm-up did not end")?;
    let costs = [cluster.cpu() - before[0], cpu_of("self") - before[1]];
    if let Some(why) = refusals.first() {
        println!("{} of {all} reports were refused, the first so: {why}", refusals.len());
    }
    Ok((reports, costs))
}

/// Makes jobs whose units any worker has done as soon as it has them.
struct Feed {
    connection: Connection,
    dataset: Digest,
    blob: Digest,
    jobs: u64,
}

impl Feed {
    async fn prepare(address: SocketAddr) -> Result<Self, Failure> {
        let mut connection = Connection::open(address).await?;
        let bytes = b"a partial, and a model";
        let blob = Digest::of(bytes);
        connection.send("PUT", &format!("/v1/blobs/{blob}"), bytes).await?;
        // The record of the dataset is what keeps the blob.
        let chunks = vec![Chunk { digest: blob, rows: 1, bytes: bytes.len() as u64 }];
        let dataset = Dataset { rows: 1, chunks, ..tiny_dataset(0) };
        let id = dataset.id();
        connection.create(Body::Dataset(dataset)).await?;
        let mut feed = Self { connection, dataset: id, blob, jobs: 0 };
        for _ in 0..JOBS {
            feed.job().await?;
        }
        Ok(feed)
    }

    async fn job(&mut self) -> Result<(), Failure> {
        self.jobs += 1;
        let plan = Plan { rounds: 1, units: UNITS as u32, fold: false };
        let work = Work::Predict { model: self.blob, dataset: self.dataset };
        let spec = JobSpec { parent: None, role: format!("predict-{}", self.jobs), work, plan };
        self.connection.create(Body::Job(Job::new(spec))).await
    }
}

/// Of an answer to a claim, what is needed to report.
#[derive(Deserialize)]
struct Granted {
    work: Vec<Piece>,
}

#[derive(Deserialize)]
struct Piece {
    lease: Lease,
}

/// A worker: claims as many pieces as it has slots, and reports all of them in one request, as workers do with what is
/// done at the same time. Tells how long each report took, or why it was refused.
async fn work(
    n: usize,
    slots: usize,
    address: SocketAddr,
    result: Digest,
    tell: mpsc::UnboundedSender<Result<Duration, String>>,
) -> Result<(), Failure> {
    let claim = Request::Claim(Claim {
        worker: format!("worker-{n}"),
        slots: slots as u32,
        capacity: slots as u32,
        have: Vec::new(),
        wait_ms: 20_000,
        address: None,
    });
    let mut connection = Connection::open(address).await?;
    loop {
        let granted: Granted = connection.ask(&claim).await?;
        let report = |piece: Piece| Request::Report { lease: piece.lease, outcome: Outcome::Partial(result) };
        let reports: Vec<Request> = granted.work.into_iter().map(report).collect();
        let start = Instant::now();
        let answers = connection.send("POST", "/v1/asks", &serde_json::to_vec(&reports)?).await?;
        for answer in serde_json::from_slice::<Vec<Value>>(&answers)? {
            let took = if answer["Ok"] == "done" { Ok(start.elapsed()) } else { Err(answer.to_string()) };
            tell.send(took)?;
        }
    }
}

/// Requests a second on as many connections when there is nothing to do: what HTTP alone allows on this machine.
async fn bare_requests(cluster: &Cluster) -> Result<f64, Failure> {
    let (done, start) = (Arc::new(AtomicU64::new(0)), Instant::now());
    let mut clients = JoinSet::new();
    for n in 0..WORKERS * SLOTS {
        let (address, done) = (cluster.addresses[n % cluster.addresses.len()], done.clone());
        clients.spawn(async move {
            let mut connection = Connection::open(address).await?;
            while start.elapsed() < Duration::from_secs(2) {
                connection.send("GET", "/healthz", b"").await?;
                done.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, Failure>(())
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended??;
    }
    Ok(per_second(done.load(Ordering::Relaxed), start.elapsed()))
}

/// The round trip of one unit for one worker with one slot, and how much of it is the disk's.
async fn latency() -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    let syncs = syncs(directory.path())?;
    println!(
        "4 KiB written and synced: median {}, p99 {}",
        millis(quantile(&syncs, 0.5)),
        millis(quantile(&syncs, 0.99))
    );
    println!("                          claim + report: median     p99     max   report alone: median");
    for round in 0..2 {
        let stores: [(&str, Arc<dyn Store>); 2] = [
            ("memory, in this process", Arc::new(MemoryStore::default())),
            ("disk, in this process", Arc::new(DiskStore::open(directory.path().join(format!("{round}")))?)),
        ];
        for (name, store) in stores {
            let db = Db::start(store, db::Options::default())?;
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
            let address = listener.local_addr()?;
            let serving = tokio::spawn(serve(listener, db.router(), std::future::pending()));
            latency_of(name, address).await?;
            serving.abort();
        }
        let cluster = Cluster::dml(1).await?;
        latency_of("disk, a db process", cluster.addresses[0]).await?;
    }
    Ok(())
}

async fn latency_of(name: &str, address: SocketAddr) -> Result<(), Failure> {
    let feed = Feed::prepare(address).await?;
    let (tell, mut told) = mpsc::unbounded_channel();
    let worker = tokio::spawn(work(0, 1, address, feed.blob, tell));
    let (mut trips, mut reports, mut last) = (Vec::new(), Vec::new(), Instant::now());
    // Not more than there are: at the end a claim would wait.
    for _ in 0..JOBS * UNITS - 1 {
        let Some(report) = told.recv().await else { return worker.await? };
        trips.push(last.elapsed());
        reports.push(report?);
        last = Instant::now();
    }
    worker.abort();
    let [p50, p99, max] = [0.5, 0.99, 1.0].map(|q| millis(quantile(&trips, q)));
    println!("{name:25} {p50:>23} {p99:>7} {max:>7}   {:>20}", millis(quantile(&reports, 0.5)));
    Ok(())
}

/// How long small synced writes take here.
fn syncs(directory: &Path) -> Result<Vec<Duration>, Failure> {
    use std::io::Write;
    let mut file = fs::File::create(directory.join("sync"))?;
    let write = |_| {
        let start = Instant::now();
        file.write_all(&[7; 4096])?;
        file.sync_data()?;
        Ok(start.elapsed())
    };
    (0..300).map(write).collect()
}

// ---- Small durable writes on three nodes.

const CLIENTS: usize = 16;

/// Writes on three disks each, in turns with etcd if it is there.
async fn writes() -> Result<(), Failure> {
    let mut clusters = vec![Cluster::dml(3).await?];
    if env::var_os("ETCD").is_some() {
        clusters.push(Cluster::etcd(3).await?);
    }
    println!(
        "{CLIENTS} clients, {} bytes a write, each acknowledged when it is durable on the nodes",
        write_of(0).1.len()
    );
    println!("          writes/s       p50       p99       max   CPU a write: nodes");
    let mut rates = vec![Vec::new(); clusters.len()];
    for _ in 0..4 {
        for (cluster, rates) in clusters.iter().zip(&mut rates) {
            let (before, start) = (cluster.cpu(), Instant::now());
            let took = write_for(cluster, Duration::from_secs(5)).await?;
            let (cpu, rate) = (cluster.cpu() - before, per_second(took.len() as u64, start.elapsed()));
            let [p50, p99, max] = [0.5, 0.99, 1.0].map(|q| millis(quantile(&took, q)));
            let cost = cpu.as_micros() as f64 / took.len() as f64;
            println!("{:8} {rate:9.0} {p50:>9} {p99:>9} {max:>9}   {cost:>15.0} µs", cluster.name());
            rates.push(rate);
        }
    }
    if let [dml, etcd] = rates.as_slice() {
        println!(
            "dml writes {:.2} times as much as etcd",
            dml.iter().sum::<f64>() / etcd.iter().sum::<f64>()
        );
    }
    Ok(())
}

/// The longest that a client waited for a write while a node was killed.
async fn failover() -> Result<(), Failure> {
    println!(
        "{CLIENTS} clients; a node is killed (SIGKILL) after 2 s; a client gives an attempt 1 s, then asks the next node"
    );
    println!("          killed       longest write   writes in 6 s");
    let is_etcd = env::var_os("ETCD").is_some();
    for (etcd, of) in [(false, 0), (false, 1), (false, 2), (true, 0)].repeat(2) {
        if etcd && !is_etcd {
            continue;
        }
        let mut cluster = if etcd { Cluster::etcd(3).await? } else { Cluster::dml(3).await? };
        let of = if etcd { cluster.leader().await? } else { of };
        let what = ["the owner of all", "the second", "the third"][of];
        let what = if etcd { "the leader" } else { what };
        let (addresses, name) = (cluster.addresses.clone(), cluster.kind);
        let writing = tokio::spawn(write_to(addresses, name, Duration::from_secs(6)));
        sleep(Duration::from_secs(2)).await;
        cluster.nodes[of].kill();
        let took = writing.await??;
        println!("{:8}  {what:16} {:>9}   {:13}", cluster.name(), millis(quantile(&took, 1.0)), took.len());
    }
    Ok(())
}

async fn write_for(cluster: &Cluster, time: Duration) -> Result<Vec<Duration>, Failure> {
    write_to(cluster.addresses.clone(), cluster.kind, time).await
}

/// What all clients' writes took.
async fn write_to(addresses: Vec<SocketAddr>, kind: Kind, time: Duration) -> Result<Vec<Duration>, Failure> {
    let until = Instant::now() + time;
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        clients.spawn(write_until(addresses.clone(), kind, client, until));
    }
    let mut all = Vec::new();
    while let Some(took) = clients.join_next().await {
        all.extend(took?);
    }
    if all.is_empty() { Err("no write was acknowledged".into()) } else { Ok(all) }
}

/// A client: it turns to the next node when one does not do what it is asked.
async fn write_until(nodes: Vec<SocketAddr>, kind: Kind, client: usize, until: Instant) -> Vec<Duration> {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    let (mut turn, mut connection, mut all) = (client, None, Vec::new());
    while Instant::now() < until {
        let (key, value) = write_of(NUMBER.fetch_add(1, Ordering::Relaxed));
        let (path, body) = match kind {
            Kind::Dml => ("/v1/ask", format!(r#"{{"create":{{"body":{{"dataset":{value}}},"name":null}}}}"#)),
            Kind::Etcd => (
                "/v3/kv/put",
                json!({ "key": base64(key.as_bytes()), "value": base64(value.as_bytes()) }).to_string(),
            ),
        };
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(20) {
            let attempt = async {
                let mut open = match connection.take() {
                    Some(open) => open,
                    None => Connection::open(nodes[turn % nodes.len()]).await?,
                };
                open.send("POST", path, body.as_bytes()).await?;
                connection = Some(open);
                Ok::<_, Failure>(())
            };
            if let Ok(Ok(())) = timeout(Duration::from_secs(1), attempt).await {
                break;
            }
            turn += 1;
            sleep(Duration::from_millis(2)).await;
        }
        all.push(start.elapsed());
    }
    all
}

/// Key and value of a write: a dataset of one column and no rows.
fn write_of(number: u64) -> (String, String) {
    let dataset = tiny_dataset(number);
    (dataset.id().to_string(), serde_json::to_string(&dataset).unwrap_or_default())
}

fn tiny_dataset(number: u64) -> Dataset {
    let summary = Summary::Numeric { min: 0.0, max: 1.0, mean: 0.5, std: 0.25, counts: Vec::new() };
    let name = format!("column-{}-{number}", std::process::id());
    let columns = vec![Column { name, r#type: ColumnType::Float, nulls: 0, summary }];
    Dataset { rows: 0, columns, chunks: Vec::new() }
}

/// RFC 4648, section 4: how etcd's JSON gateway takes bytes.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let number =
            (0..3).fold(0u32, |number, i| number << 8 | u32::from(three.get(i).copied().unwrap_or(0)));
        for i in 0..4 {
            let digit = DIGITS[(number >> (18 - 6 * i) & 63) as usize];
            text.push(if i <= three.len() { digit.into() } else { '=' });
        }
    }
    text
}

// ---- Starts, and rest.

const RECORDS: u64 = 5000;
const BLOBS: u64 = 500;

/// From the start of a db node with 500 MiB to its first answer.
async fn restart() -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    {
        let store = DiskStore::open(directory.path())?;
        let mut chunks = Vec::new();
        for number in 0..BLOBS {
            let bytes: Vec<u8> = number.to_le_bytes().repeat((1 << 20) / 8);
            chunks.push(Chunk { digest: Digest::of(&bytes), rows: 1000, bytes: 1 << 20 });
            store.put_blob(Digest::of(&bytes), &bytes)?;
        }
        let record = |number| {
            let wide = (0..20).flat_map(|_| tiny_dataset(number).columns).collect();
            let chunk = chunks[number as usize % chunks.len()].clone();
            let dataset = Dataset { rows: 1000, columns: wide, chunks: vec![chunk] };
            let id = dataset.id();
            let mut record = Record::new(Body::Dataset(dataset));
            record.names = Names([(format!("dataset-{number}"), number)].into());
            (id, Some(record.to_bytes()))
        };
        store.commit(&(0..RECORDS).map(record).collect::<Vec<_>>())?;
    }
    println!(
        "{BLOBS} blobs of 1 MiB, {RECORDS} records of 20 columns; all in the page cache; killed each time"
    );
    for _ in 0..5 {
        let (address, start) = (free_address()?, Instant::now());
        let node = start_db(address, directory.path(), &[])?;
        wait_for(address, "/readyz").await?;
        println!("ready after {}; {:.1} MiB", millis(start.elapsed()), rss(&node.id()));
    }
    Ok(())
}

/// From the start of `dml up` to results.
async fn first_result() -> Result<(), Failure> {
    println!("   listens   uploaded   first result   training finished");
    for _ in 0..7 {
        let (directory, address, start) = (tempfile::tempdir()?, free_address()?, Instant::now());
        let data = directory.path().join("data");
        let mut up = Command::new(program("dml")?);
        up.arg("--data").arg(data).arg("up").args(["--listen", &address.to_string()]);
        let _up = Process::start(up)?;
        wait_for(address, "/readyz").await?;
        let listens = start.elapsed();
        let mut api = Connection::open(address).await?;
        let table: String = (0..100).map(|x| format!("{x},{}\n", 3 * x + 1)).collect();
        let csv = format!("x,y\n{table}");
        api.send_as("text/csv", "POST", "/v1/datasets?name=line", csv.as_bytes()).await?;
        let uploaded = start.elapsed();
        let training = json!({ "dataset": "line", "target": "y", "models": [{ "kind": "linear" }] });
        let bytes = api.send("POST", "/v1/trainings", training.to_string().as_bytes()).await?;
        let view: Value = serde_json::from_slice(&bytes)?;
        let path = format!("/v1/trainings/{}", view["id"].as_str().unwrap_or_default());
        let mut first = None;
        loop {
            let view: Value = serde_json::from_slice(&api.send("GET", &path, b"").await?)?;
            if view["progress"].as_f64().unwrap_or(0.0) > 0.0 {
                first.get_or_insert_with(|| start.elapsed());
            }
            if view["state"] == "succeeded" {
                break;
            }
            sleep(Duration::from_millis(1)).await;
        }
        let [listens, uploaded, finished] = [listens, uploaded, start.elapsed()].map(millis);
        let first = millis(first.ok_or("it had no progress")?);
        println!("{listens:>10} {uploaded:>10} {first:>14} {finished:>19}");
    }
    Ok(())
}

/// Memory and processor time of db nodes that have nothing to do.
async fn idle() -> Result<(), Failure> {
    println!("nodes   memory (MiB)          % of a core each, over 20 s");
    for nodes in [1, 3] {
        let cluster = Cluster::dml(nodes).await?;
        sleep(Duration::from_secs(2)).await;
        let before: Vec<Duration> = cluster.nodes.iter().map(|node| cpu_of(&node.id())).collect();
        sleep(Duration::from_secs(20)).await;
        let used = cluster.nodes.iter().zip(before).map(|(node, before)| {
            let share = (cpu_of(&node.id()) - before).as_secs_f64() / 20.0;
            format!("{:.2}", share * 100.0)
        });
        let memory: Vec<String> =
            cluster.nodes.iter().map(|node| format!("{:.1}", rss(&node.id()))).collect();
        println!("{nodes:5}   {:20}  {}", memory.join(" "), used.collect::<Vec<_>>().join(" "));
    }
    Ok(())
}

fn quantile(durations: &[Duration], q: f64) -> Duration {
    let mut sorted = durations.to_vec();
    sorted.sort();
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * q).round() as usize).copied().unwrap_or_default()
}

fn millis(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1000.0)
}

fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}
