//! Processes: our db nodes, the members of an etcd cluster, and what the system says of each.

use std::{
    env, fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::time::sleep;

use crate::{Failure, connection::Connection};

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Dml,
    Etcd,
}

/// Nodes of one kind, each a process with a directory.
pub(crate) struct Cluster {
    pub(crate) kind: Kind,
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) nodes: Vec<Process>,
    _directory: TempDir,
}

impl Cluster {
    /// Db nodes that all know each other. The first has the lowest address.
    pub(crate) async fn dml(size: usize) -> Result<Self, Failure> {
        let directory = tempfile::tempdir()?;
        let addresses = free_addresses(size)?;
        let start = |(n, address): (usize, &SocketAddr)| {
            start_db(*address, &directory.path().join(n.to_string()), &addresses)
        };
        let nodes = addresses.iter().enumerate().map(start).collect::<Result<_, _>>()?;
        for address in &addresses {
            wait_for(*address, "/readyz").await?;
        }
        let cluster = Self { kind: Kind::Dml, addresses, nodes, _directory: directory };
        for address in &cluster.addresses {
            let mut node = Connection::open(*address).await?;
            let sees_all = |view: &Value| {
                let items = view["items"].as_array().map(Vec::as_slice).unwrap_or_default();
                items.iter().filter(|node| node["role"] == "db" && node["active"] == true).count() == size
            };
            until("the nodes see each other", async || {
                let bytes = node.send("GET", "/v1/nodes", b"").await?;
                Ok(sees_all(&serde_json::from_slice(&bytes)?))
            })
            .await?;
        }
        Ok(cluster)
    }

    pub(crate) async fn etcd(size: usize) -> Result<Self, Failure> {
        let directory = tempfile::tempdir()?;
        let (addresses, peers) = (free_addresses(size)?, free_addresses(size)?);
        let members: Vec<String> = (0..size).map(|n| format!("m{n}=http://{}", peers[n])).collect();
        let start = |n: usize| {
            let mut etcd = Command::new(env::var_os("ETCD").unwrap_or("etcd".into()));
            let [client, peer] = [addresses[n], peers[n]].map(|address| format!("http://{address}"));
            etcd.arg("--data-dir").arg(directory.path().join(n.to_string()));
            etcd.args([
                "--name",
                &format!("m{n}"),
                "--initial-cluster",
                &members.join(","),
                "--logger=zap",
                "--log-level=fatal",
            ]);
            etcd.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
            etcd.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
            Process::start(etcd)
        };
        let nodes = (0..size).map(start).collect::<Result<_, _>>()?;
        for address in &addresses {
            wait_for(*address, "/health").await?;
        }
        Ok(Self { kind: Kind::Etcd, addresses, nodes, _directory: directory })
    }

    /// The etcd member that leads.
    pub(crate) async fn leader(&self) -> Result<usize, Failure> {
        for (n, address) in self.addresses.iter().enumerate() {
            let mut member = Connection::open(*address).await?;
            let bytes = member.send("POST", "/v3/maintenance/status", b"{}").await?;
            let status: Value = serde_json::from_slice(&bytes)?;
            if status["leader"] == status["header"]["member_id"] {
                return Ok(n);
            }
        }
        Err("nobody leads".into())
    }

    pub(crate) fn name(&self) -> &'static str {
        match self.kind {
            Kind::Dml => "dml",
            Kind::Etcd => "etcd",
        }
    }

    /// The processor time of all nodes.
    pub(crate) fn cpu(&self) -> Duration {
        self.nodes.iter().map(|node| cpu_of(&node.id())).sum()
    }
}

/// A process that ends with its value.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn start(mut command: Command) -> Result<Self, Failure> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit()).spawn();
        Ok(Self(
            child
                .map_err(|error| format!("{} cannot be started: {error}", command.get_program().display()))?,
        ))
    }
}

impl Process {
    pub(crate) fn id(&self) -> String {
        self.0.id().to_string()
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) fn start_db(address: SocketAddr, data: &Path, others: &[SocketAddr]) -> Result<Process, Failure> {
    let mut command = Command::new(program("db")?);
    command.args(["--log", "error", "--listen", &address.to_string(), "--data"]).arg(data);
    for other in others.iter().filter(|other| **other != address) {
        command.args(["--join", &other.to_string()]);
    }
    Process::start(command)
}

/// One of our programs, built as this bench is.
pub(crate) fn program(name: &str) -> Result<PathBuf, Failure> {
    let here = env::current_exe()?;
    let built = env::var_os("DML_BIN").map(PathBuf::from).or(here.ancestors().nth(2).map(Path::to_path_buf));
    let path = built.unwrap_or_default().join(name);
    if path.exists() {
        return Ok(path);
    }
    Err(format!("{} is not there: run `cargo build --release -p dml-bins` first", path.display()).into())
}

pub(crate) fn free_address() -> Result<SocketAddr, Failure> {
    Ok(free_addresses(1)?[0])
}

/// Addresses that nobody listens on, ascending.
fn free_addresses(count: usize) -> Result<Vec<SocketAddr>, Failure> {
    let listeners = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>()?;
    let mut addresses = listeners.iter().map(TcpListener::local_addr).collect::<Result<Vec<_>, _>>()?;
    addresses.sort();
    Ok(addresses)
}

/// Waits until a path is answered with success.
pub(crate) async fn wait_for(address: SocketAddr, path: &str) -> Result<(), Failure> {
    until(path, async || {
        let asked = async { Connection::open(address).await?.send("GET", path, b"").await };
        Ok(asked.await.is_ok())
    })
    .await
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> Result<bool, Failure>) -> Result<(), Failure> {
    let start = Instant::now();
    while !done().await? {
        if start.elapsed() > Duration::from_secs(60) {
            return Err(format!("waited in vain: {what}").into());
        }
        sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// The processor time that a process has used, in steps of 10 ms (proc(5), /proc/pid/stat, fields 14 and 15).
pub(crate) fn cpu_of(pid: &str) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

/// The memory of a process in MiB.
pub(crate) fn rss(pid: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0.0) / 1024.0
}
