//! What nobody sends by mistake: hundreds of single cases, each with the statuses that it may get, against a worker and a
//! db node that listen on sockets. After each the node is as healthy as before, and at the end it has not grown.

mod data;
mod framing;
mod nodes;
mod parameters;

use std::net::SocketAddr;

use dml::net::serve::{Limits, Server};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Duration, timeout},
};

use crate::common::{Parts, cluster, penguins, upload};

/// How many cases there are to be at least.
const CASES: usize = 300;

/// How much memory the process may take in the end, tests of other files beside included.
const MEMORY: u64 = 2 << 30;

/// One request, and what may be said to it.
struct Case {
    name: String,
    /// As it goes over the wire.
    bytes: Vec<u8>,
    /// Statuses that are right; 0 is an end of the connection without a word.
    statuses: Vec<u16>,
    /// To the db node, else to the worker.
    db: bool,
}

impl Case {
    /// Bytes for the worker.
    fn raw(name: impl Into<String>, bytes: impl Into<Vec<u8>>, statuses: &[u16]) -> Self {
        Self { name: name.into(), bytes: bytes.into(), statuses: statuses.to_vec(), db: false }
    }

    /// A well-formed request with a body.
    fn request(line: &str, kind: &str, body: impl AsRef<[u8]>, statuses: &[u16]) -> Self {
        let body = body.as_ref();
        let head = format!(
            "{line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let shown: String = String::from_utf8_lossy(body).chars().take(80).collect();
        Self::raw(format!("{line} {kind} {shown}"), [head.as_bytes(), body].concat(), statuses)
    }

    fn json(line: &str, body: impl AsRef<[u8]>, statuses: &[u16]) -> Self {
        Self::request(line, "application/json", body, statuses)
    }

    fn get(path: &str, statuses: &[u16]) -> Self {
        let bytes = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        Self::raw(format!("GET {path}"), bytes, statuses)
    }

    fn at_db(self) -> Self {
        Self { db: true, ..self }
    }
}

async fn served(router: axum::Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let short = Duration::from_millis(300);
    let limits = Limits { head: short, body: short, ..Limits::default() };
    let server = Server { limits, ..Server::default() };
    tokio::spawn(server.serve(listener, router, std::future::pending()));
    address
}

/// The status of the first answer; 0 if there is none.
async fn status(to: SocketAddr, bytes: &[u8]) -> u16 {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let _ = timeout(Duration::from_secs(20), stream.write_all(bytes)).await;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(Ok(count @ 1..)) = timeout(Duration::from_secs(20), stream.read(&mut buffer)).await {
        answer.extend_from_slice(&buffer[..count]);
        if answer.len() > 16 {
            break;
        }
    }
    let line = String::from_utf8_lossy(&answer);
    line.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

fn memory() -> Option<u64> {
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
    Some(pages.split(' ').nth(1)?.parse::<u64>().ok()? * 4096)
}

async fn is_healthy(parts: &Parts, worker: SocketAddr, db: SocketAddr) -> bool {
    let ready = |to| status(to, b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    ready(worker).await == 200 && ready(db).await == 200 && parts.client.dataset("penguins").await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_harms_a_node() {
    let parts = cluster(0, 1);
    let dataset = upload(&parts.client, "penguins", penguins()).await;
    let (worker, db) = (served(parts.router()).await, served(parts.db.router()).await);
    let mut cases = framing::cases();
    cases.extend(data::cases(&dataset.id.to_string()));
    cases.extend(parameters::cases(&parts.client.kinds().await.unwrap()));
    cases.extend(nodes::cases());
    assert!(cases.len() >= CASES, "{} cases", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        let said = status(if case.db { db } else { worker }, &case.bytes).await;
        if !case.statuses.contains(&said) {
            wrong.push(format!("{} instead of {:?}: {}", said, case.statuses, case.name));
        }
        assert!(is_healthy(&parts, worker, db).await, "the node is not well after {}", case.name);
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert!(memory().is_none_or(|bytes| bytes < MEMORY), "{} MiB", memory().unwrap_or(0) >> 20);
    let nothing_else = parts.client.trainings(10, None).await.unwrap();
    assert!(nothing_else.items.is_empty(), "{nothing_else:?}");
}
