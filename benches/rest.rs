//! What the REST API costs beside a handler of axum that does nothing: a small resource, a row predicted at once, a table
//! up and down. Both serve in this process on loopback, and are asked in turns by the same client; ratios tell.
//!
//! ```text
//! cargo bench -p dml --bench rest
//! ```
#![allow(clippy::print_stdout, reason = "a bench prints its tables")]

#[path = "cluster/connection.rs"]
#[allow(dead_code, reason = "other benches use the rest")]
mod connection;

use std::{
    fs,
    net::SocketAddr,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, Bytes},
    routing::{get, post},
};
use connection::Connection;
use dml::{
    Cluster, Peer,
    cluster::Options,
    net::serve::serve,
    view::{NewModel, NewTraining},
};
use futures_util::{StreamExt, stream};
use http_body_util::BodyExt;
use hyper::Request;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How long each side is asked in a turn, and how many turns there are.
const TURN: Duration = Duration::from_secs(2);
const TURNS: usize = 3;

/// How many rows the table has that goes up and down.
const ROWS: usize = 400_000;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("load before: {}", load.trim());
    let cluster = Cluster::start(Options::default())?;
    let client = cluster.client();
    let penguins = fs::read("data/penguins.csv")?;
    let dataset = client.upload("penguins", "text/csv", stream::iter([Ok(penguins.into())])).await?;
    let models = vec![NewModel { kind: "logistic".into(), ..NewModel::default() }];
    let training = client.train(&NewTraining { models, ..NewTraining::new("penguins", "species") }).await?;
    let training = client.watch(&training.id.to_string(), |_| ()).await?;
    let model = training.best.ok_or("no model was finished")?;
    let row = json!({ "rows": [{ "island": "Biscoe", "bill_length_mm": 50, "bill_depth_mm": 15, "sex": "male",
        "flipper_length_mm": 225, "body_mass_g": 5600, "year": 2008 }] });
    let small = serde_json::to_string(&client.dataset("penguins").await?)?;
    let said = json!({ "predictions": [{ "prediction": "Gentoo", "probability_Adelie": 0.1, "probability_Gentoo": 0.8,
        "probability_Chinstrap": 0.1 }] });

    let bare = Router::new()
        .route("/alive", get(async || "alive\n"))
        .route("/small", get(async move || ([("content-type", "application/json")], small)))
        .route("/predict", post(async move |_: axum::Json<Value>| axum::Json(said)));
    let (dml, bare) = (listen(cluster.workers()[0].router()).await?, listen(bare).await?);
    let path = format!("/v1/datasets/{}", dataset.id);
    let predict = format!("/v1/models/{model}/predict");
    let row = row.to_string();
    println!("\n{:34} {:>12} {:>12} {:>7}", "", "bare axum", "dml", "ratio");
    for connections in [1, 32] {
        let asked = [
            ("nothing", "GET", "/alive", "/healthz", ""),
            ("a small resource", "GET", "/small", &path, ""),
            ("a row predicted", "POST", "/predict", &predict, &row),
        ];
        for (what, method, plain, ours, body) in asked {
            let ask = async |address, path: &str| rate(address, connections, method, path, body).await;
            let (theirs, ours) =
                in_turns(async || ask(bare, plain).await, async || ask(dml, ours).await).await?;
            line(&format!("{what}, {connections} connections, /s"), theirs, ours);
        }
    }
    println!(
        "\na row predicted, 32 connections, each at half the rate that it managed: ms from when it was due"
    );
    for (who, address, path) in [("bare axum", bare, "/predict"), ("dml", dml, predict.as_str())] {
        let most = rate(address, 32, "POST", path, &row).await?;
        let mut took = at_rate(address, 32, most / 2.0, path, &row).await?;
        took.sort_unstable();
        let ms = |part: f64| took[((took.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
        println!("{who:34} {:.0}/s: median {:.2}, p99 {:.2}", most / 2.0, ms(0.5), ms(0.99));
    }
    bodies(&cluster, dml).await
}

/// A table up and down, in MiB a second.
async fn bodies(cluster: &Cluster, dml: SocketAddr) -> Result<(), Failure> {
    let mut csv = String::from("a,b,c,d,e,f,g,h\n");
    for n in 0..ROWS {
        let values = (0..8).map(|c| format!("{}.{}", (n * (c + 3)) % 1000, n % 97));
        csv += &(values.collect::<Vec<_>>().join(",") + "\n");
    }
    let client = cluster.client();
    client.upload("big", "text/csv", stream::iter([Ok(csv.clone().into())])).await?;
    let arrow = client.content("big").await?.collect().await?.to_bytes();
    let given = arrow.clone();
    let down = async move || {
        let pieces: Vec<Bytes> =
            (0..given.len()).step_by(1 << 20).map(|at| piece(&given, at, 1 << 20)).collect();
        Body::from_stream(stream::iter(pieces.into_iter().map(Ok::<_, std::io::Error>)))
    };
    let up = async |body: Body| {
        let mut stream = body.into_data_stream();
        let mut bytes = 0;
        while let Some(Ok(piece)) = stream.next().await {
            bytes += piece.len();
        }
        bytes.to_string()
    };
    let bare = Router::new()
        .route("/down", get(down))
        .route("/up", post(up).layer(axum::extract::DefaultBodyLimit::disable()));
    let bare = listen(bare).await?;
    let arrow_type = "application/vnd.apache.arrow.stream";
    let mega = |bytes: usize, time: Duration| bytes as f64 / time.as_secs_f64() / f64::from(1 << 20);
    let get = async |address: SocketAddr, path: &str, accept: &str| -> Result<f64, Failure> {
        let peer = Peer::http(&address.to_string())?;
        let start = Instant::now();
        let answer = peer.call(Request::get(path).header("accept", accept).body(Body::empty())?).await?;
        let (mut body, mut bytes) = (answer.into_body(), 0);
        while let Some(frame) = body.frame().await {
            bytes += frame?.into_data().map_or(0, |data| data.len());
        }
        Ok(mega(bytes, start.elapsed()))
    };
    let post = async |address: SocketAddr, path: &str, kind: &str, body: &Bytes| -> Result<f64, Failure> {
        let peer = Peer::http(&address.to_string())?;
        let start = Instant::now();
        let request = Request::post(path).header("content-type", kind).body(Body::from(body.clone()))?;
        let answer = peer.call(request).await?;
        if !answer.status().is_success() {
            return Err(format!("{path}: {}", answer.status()).into());
        }
        answer.into_body().collect().await?;
        Ok(mega(body.len(), start.elapsed()))
    };
    let content = "/v1/datasets/big/content";
    for (what, kind) in [("Arrow", arrow_type), ("CSV", "text/csv"), ("NDJSON", "application/x-ndjson")] {
        let (theirs, ours) =
            in_turns(async || get(bare, "/down", "*/*").await, async || get(dml, content, kind).await)
                .await?;
        line(&format!("a table down as {what}, MiB/s"), theirs, ours);
    }
    let csv = Bytes::from(csv);
    for (what, kind, body) in [("Arrow", arrow_type, &arrow), ("CSV", "text/csv", &csv)] {
        let theirs = async || post(bare, "/up", kind, body).await;
        let (theirs, ours) =
            in_turns(theirs, async || post(dml, "/v1/datasets?name=again", kind, body).await).await?;
        line(&format!("a table up as {what}, MiB/s"), theirs, ours);
    }
    Ok(())
}

fn piece(bytes: &Bytes, at: usize, length: usize) -> Bytes {
    bytes.slice(at..bytes.len().min(at + length))
}

async fn listen(router: Router) -> Result<SocketAddr, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(serve(listener, router, std::future::pending()));
    Ok(address)
}

/// Measures both in turns, after a turn that does not count, and gives their medians.
async fn in_turns(
    theirs: impl AsyncFn() -> Result<f64, Failure>,
    ours: impl AsyncFn() -> Result<f64, Failure>,
) -> Result<(f64, f64), Failure> {
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for turn in 0..=TURNS {
        let (a, b) = (theirs().await?, ours().await?);
        if turn > 0 {
            first.push(a);
            second.push(b);
        }
    }
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Ok((median(first), median(second)))
}

/// How many requests a second are answered on so many connections.
async fn rate(
    address: SocketAddr,
    connections: usize,
    method: &str,
    path: &str,
    body: &str,
) -> Result<f64, Failure> {
    let mut tasks = JoinSet::new();
    let start = Instant::now();
    for _ in 0..connections {
        let (method, path, body) = (method.to_string(), path.to_string(), body.to_string());
        tasks.spawn(async move {
            let mut connection = Connection::open(address).await?;
            let mut count = 0u64;
            while start.elapsed() < TURN {
                connection.send(&method, &path, body.as_bytes()).await?;
                count += 1;
            }
            Ok::<u64, Failure>(count)
        });
    }
    let mut all = 0;
    while let Some(count) = tasks.join_next().await {
        all += count??;
    }
    Ok(all as f64 / start.elapsed().as_secs_f64())
}

/// How long each request takes at so many a second in all. A late answer delays those after it, and counts against them.
async fn at_rate(
    address: SocketAddr,
    connections: usize,
    rate: f64,
    path: &str,
    body: &str,
) -> Result<Vec<Duration>, Failure> {
    let mut tasks = JoinSet::new();
    let (start, apart) = (Instant::now(), Duration::from_secs_f64(connections as f64 / rate));
    for connection in 0..connections {
        let (path, body) = (path.to_string(), body.to_string());
        let first = start + apart.mul_f64(connection as f64 / connections as f64);
        tasks.spawn(async move {
            let mut connection = Connection::open(address).await?;
            let (mut took, mut due) = (Vec::new(), first);
            while due < start + TURN {
                let mut from = due;
                if Instant::now() < due {
                    tokio::time::sleep_until(due.into()).await;
                    // That the timer has steps of a millisecond is not the server's fault.
                    from = Instant::now();
                }
                connection.send("POST", &path, body.as_bytes()).await?;
                took.push(from.elapsed());
                due += apart;
            }
            Ok::<_, Failure>(took)
        });
    }
    let mut all = Vec::new();
    while let Some(took) = tasks.join_next().await {
        all.extend(took??);
    }
    Ok(all)
}

fn line(what: &str, bare: f64, dml: f64) {
    println!("{what:34} {bare:12.0} {dml:12.0} {:7.2}", dml / bare);
}
