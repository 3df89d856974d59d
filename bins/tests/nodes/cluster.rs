//! Three db nodes as real processes on this machine, and workers when they are wanted.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use dml_core::{
    Body, Digest,
    node::{Request, Response},
};
use dml_net::view::DatasetView;

use super::{
    facts::{ask, know_each_other, until},
    http,
};

/// How long a node may take to start, to meet the others, or to be repaired.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const DB: &str = env!("CARGO_BIN_EXE_db");
pub(crate) const DML: &str = env!("CARGO_BIN_EXE_dml");
pub(crate) const WORKER: &str = env!("CARGO_BIN_EXE_worker");

/// A program, untouched by the settings of whoever runs the tests.
pub(crate) fn program(path: &str) -> Command {
    let mut command = Command::new(path);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("DML_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

/// A process that is killed at the end of the test, however it ends.
pub(crate) struct Process(pub(crate) Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    /// Starts a program that serves; gives where it listens. Its log goes to a file.
    pub(crate) fn serve(path: &str, arguments: &[&str], log: &Path) -> (Self, SocketAddr) {
        let log = File::options().create(true).append(true).open(log).unwrap();
        let mut child = program(path).args(arguments).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let words = line.split_whitespace().filter_map(|word| word.split_once("://")).map(|(_, place)| place);
        let address = words.filter_map(|word| word.parse().ok()).next();
        (Self(child), address.unwrap_or_else(|| panic!("no address in {line:?}")))
    }

    /// Asks it to end (SIGTERM).
    pub(crate) fn terminate(&self) {
        let told = Command::new("kill").arg(self.0.id().to_string()).status().unwrap();
        assert!(told.success());
    }
}

/// Three db nodes.
pub(crate) struct Three {
    processes: [Option<Process>; 3],
    pub(crate) dbs: [SocketAddr; 3],
    /// Where each keeps its data.
    pub(crate) data: [PathBuf; 3],
    directory: tempfile::TempDir,
}

impl Three {
    /// Starts them, and waits until they know each other.
    pub(crate) fn start() -> Self {
        Self::with_last_at(None)
    }

    /// The same, the data of the last one being in this directory.
    pub(crate) fn with_last_at(last: Option<&Path>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let dbs = listeners.map(|listener| listener.local_addr().unwrap());
        let mut data = [0, 1, 2].map(|n| directory.path().join(format!("db-{n}")));
        if let Some(last) = last {
            data[2] = last.into();
        }
        let mut three = Self { processes: [None, None, None], dbs, data, directory };
        (0..3).for_each(|n| three.run(n));
        three.meet();
        three
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A db node as it is to be started.
    pub(crate) fn command(&self, n: usize) -> Command {
        let log = File::options().create(true).append(true).open(self.path(&format!("{n}.log"))).unwrap();
        let join = self.dbs.map(|db| db.to_string()).join(",");
        let mut command = program(DB);
        command.args(["--join", &join, "--listen", &self.dbs[n].to_string(), "--data"]);
        command.arg(&self.data[n]).stdout(Stdio::null()).stderr(log);
        command
    }

    pub(crate) fn run(&mut self, n: usize) {
        let child = self.command(n).spawn().unwrap();
        assert!(self.processes[n].replace(Process(child)).is_none(), "it runs already");
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self, n: usize) {
        drop(self.processes[n].take().unwrap());
    }

    /// Asks a node to end, and waits for that.
    pub(crate) fn end(&mut self, n: usize) -> ExitStatus {
        let mut process = self.processes[n].take().unwrap();
        process.terminate();
        process.0.wait().unwrap()
    }

    pub(crate) fn meet(&self) {
        until(PATIENCE, "the db nodes meet", || know_each_other(&self.dbs));
    }

    /// What a node has logged.
    pub(crate) fn log(&self, n: usize) -> String {
        std::fs::read_to_string(self.path(&format!("{n}.log"))).unwrap()
    }

    /// A worker that begins with this db node.
    pub(crate) fn worker(&self, db: usize) -> (Process, SocketAddr) {
        let join = self.dbs[db].to_string();
        let arguments = ["--listen", "127.0.0.1:0", "--slots", "1", "--join", &join];
        let (worker, address) = Process::serve(WORKER, &arguments, &self.path("worker.log"));
        until(PATIENCE, "the worker is ready", || {
            match http::send(address, "GET", "/readyz", "text/plain", &[], PATIENCE) {
                Ok((200, _)) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        (worker, address)
    }

    /// The file of a blob.
    pub(crate) fn blob(&self, n: usize, digest: Digest) -> PathBuf {
        let name = digest.to_string();
        self.data[n].join("blobs").join(&name[..2]).join(&name)
    }
}

impl Drop for Three {
    fn drop(&mut self) {
        if std::thread::panicking() {
            (0..3).for_each(|n| super::say(&format!("the log of db node {n}:\n{}", self.log(n))));
        }
    }
}

/// A small table like no other: numbers, and a class that is told by them.
pub(crate) fn table(number: usize) -> String {
    let row = |row: usize| format!("{},{},{}\n", row * 7 % 13, number, ["even", "odd"][row % 2]);
    (0..60).fold("x,n,class\n".into(), |table: String, n| table + &row(n))
}

/// Uploads the table of this number.
pub(crate) fn upload(worker: SocketAddr, number: usize, limit: Duration) -> Result<DatasetView, String> {
    let path = format!("/v1/datasets?name=t{number}");
    let answer = http::send(worker, "POST", &path, "text/csv", table(number).as_bytes(), limit);
    match answer.map_err(|error| error.to_string())? {
        (201, body) => Ok(serde_json::from_slice(&body).unwrap()),
        (status, body) => Err(format!("{status}: {}", String::from_utf8_lossy(&body))),
    }
}

/// Reads a table back, and compares every byte.
pub(crate) fn read_back(worker: SocketAddr, number: usize) -> Result<(), String> {
    let path = format!("/v1/datasets/t{number}/content");
    let answer = http::send(worker, "GET", &path, "text/csv", &[], Duration::from_secs(10));
    let (status, body) = answer.map_err(|error| error.to_string())?;
    let body = String::from_utf8_lossy(&body).into_owned();
    if status == 200 && body == table(number) { Ok(()) } else { Err(format!("{status}: {body}")) }
}

/// The chunks of a dataset.
pub(crate) fn chunks(db: SocketAddr, id: Digest) -> Vec<Digest> {
    let Ok(Response::Family { entries, .. }) = ask(db, &Request::Watch { id, seen: 0, wait_ms: 0 }) else {
        panic!("{db} does not find {id}")
    };
    let Some(Body::Dataset(dataset)) = &entries[0].record.body else { panic!("{id} is no dataset") };
    dataset.chunks.iter().map(|chunk| chunk.digest).collect()
}
