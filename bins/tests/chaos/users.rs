//! Users at work while the cluster is under attack: one uploads, one reads what was acknowledged, some train.

use std::{
    fmt::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use dml_core::{Digest, rng};
use dml_net::view::DatasetView;
use serde_json::Value;

use super::{cluster::clean, facts::until, http};

/// A dataset whose upload was acknowledged.
#[derive(Clone)]
pub(crate) struct Dataset {
    pub(crate) id: Digest,
    pub(crate) content: String,
    /// How many copies the answer told of.
    pub(crate) copies: u32,
}

/// What was acknowledged so far.
pub(crate) type Acknowledged = Arc<Mutex<Vec<Dataset>>>;

/// A user who turns to the next worker when one does not do what it should.
pub(crate) struct User {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Service>,
}

/// How a user was served.
#[derive(Default, Debug)]
pub(crate) struct Service {
    /// Requests that succeeded.
    pub(crate) good: usize,
    /// The longest time from one success to the next.
    pub(crate) gap: Duration,
    /// Those times that were longer than a second.
    pub(crate) slow: Vec<Duration>,
    /// Errors with an answer, and silences.
    pub(crate) errors: Vec<String>,
}

impl User {
    /// Uploads one table after the other; each is made from `seed` and a number.
    pub(crate) fn uploads(workers: Vec<SocketAddr>, seed: u64, acknowledged: Acknowledged) -> Self {
        let mut number = 0;
        Self::start(workers, Duration::from_millis(250), move |worker| {
            let content = table(seed, number);
            // A copy takes as long as finding out that a node is dead.
            let limit = Duration::from_secs(10);
            let path = format!("/v1/datasets?name=t{seed}-{number}");
            let answer = http::send(worker, "POST", &path, "text/csv", content.as_bytes(), limit);
            let (status, body) = answer.map_err(|error| format!("upload: {error}"))?;
            if status != 201 {
                return Err(format!("upload: {status}: {}", String::from_utf8_lossy(&body)));
            }
            let view: DatasetView = serde_json::from_slice(&body).unwrap();
            let copies = view.replicas.unwrap();
            acknowledged.lock().unwrap().push(Dataset { id: view.id, content, copies });
            number += 1;
            Ok(())
        })
    }

    /// Reads what was acknowledged, again and again.
    pub(crate) fn reads(workers: Vec<SocketAddr>, acknowledged: Acknowledged) -> Self {
        let mut number = 0;
        Self::start(workers, Duration::from_millis(20), move |worker| {
            let dataset = {
                let known = acknowledged.lock().unwrap();
                let at = rng::below(1, number, known.len() as u64) as usize;
                known.get(at).cloned()
            };
            number += 1;
            dataset.map_or(Ok(()), |dataset| dataset.read(worker, Duration::from_secs(4)))
        })
    }

    fn start(
        workers: Vec<SocketAddr>,
        pause: Duration,
        mut work: impl FnMut(SocketAddr) -> Result<(), String> + Send + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::default());
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut service = Service::default();
            let (mut last, mut turn) = (Instant::now(), 0);
            while !stopped.load(Ordering::Relaxed) {
                let began = last.elapsed();
                match work(workers[turn % workers.len()]) {
                    Ok(()) => {
                        service.good += 1;
                        let gap = last.elapsed();
                        if gap > Duration::from_secs(1) {
                            service.slow.push(gap);
                        }
                        service.gap = service.gap.max(gap);
                        std::thread::sleep(pause);
                        last = Instant::now();
                    }
                    Err(why) => {
                        let took = last.elapsed() - began;
                        service
                            .errors
                            .push(format!("{} after {took:.1?}: {why}", workers[turn % workers.len()]));
                        turn += 1;
                        std::thread::sleep(Duration::from_millis(20));
                    }
                }
            }
            // What went on failing until the end counts as well.
            service.gap = service.gap.max(last.elapsed());
            service
        });
        Self { stop, thread }
    }

    /// Goes home, and tells.
    pub(crate) fn end(self) -> Service {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

impl Dataset {
    /// Reads it back from a worker and compares every byte.
    pub(crate) fn read(&self, worker: SocketAddr, limit: Duration) -> Result<(), String> {
        let path = format!("/v1/datasets/{}/content", self.id);
        let answer = http::send(worker, "GET", &path, "text/csv", &[], limit);
        let (status, body) = answer.map_err(|error| format!("read: {error}"))?;
        if status != 200 {
            return Err(format!("read: {status}: {}", String::from_utf8_lossy(&body)));
        }
        assert_eq!(String::from_utf8_lossy(&body), self.content, "dataset {} from {worker}", self.id);
        Ok(())
    }
}

/// A small table like no other.
fn table(seed: u64, number: u64) -> String {
    let mut text = "seed,number,row,x,word\n".to_string();
    for row in 0..20 {
        let x = rng::below(seed, number * 20 + row, 1_000_000);
        writeln!(text, "{seed},{number},{row},{x},w{}", x % 7).unwrap();
    }
    text
}

/// What is trained, on so many rows of a wavy function.
pub(crate) struct Work {
    pub(crate) rows: u64,
    pub(crate) models: &'static [&'static str],
}

/// A second or two of work, some of it in many rounds, some in many units.
pub(crate) const SHORT: Work = Work {
    rows: 3000,
    models: &["gradient_boosting:n_estimators=500", "random_forest:n_estimators=20", "ridge"],
};

/// Some seconds of work.
pub(crate) const LONG: Work =
    Work { rows: 6000, models: &["gradient_boosting:n_estimators=3000", "random_forest:n_estimators=100"] };

impl Work {
    /// Writes the table, once: somebody may be reading it.
    fn table(&self, directory: &Path) -> PathBuf {
        let path = directory.join(format!("waves-{}.csv", self.rows));
        if path.exists() {
            return path;
        }
        let mut text = "a,b,c,d,y\n".to_string();
        for row in 0..self.rows {
            let draw = |column| rng::below(column, row, 1000) as i64;
            let (a, b, c, d) = (draw(1), draw(2), draw(3), draw(4));
            writeln!(text, "{a},{b},{c},{d},{}", (a * a - b * c) / 1000 + d).unwrap();
        }
        std::fs::write(&path, text).unwrap();
        path
    }

    /// `dml train`, in this process's own cluster (`place` is `--data DIR`) or in another (`--cluster ADDRESSES`).
    fn command(&self, place: [&str; 2], directory: &Path, name: &str, seed: u64) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dml"));
        command.arg("--json").args(place).arg("train").arg(self.table(directory));
        command.args(["--target", "y", "--name", name, "--seed", &seed.to_string()]);
        self.models.iter().for_each(|model| {
            command.args(["--model", model]);
        });
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        clean(&mut command);
        command
    }

    /// The digests of the models that the undisturbed loop on one machine makes.
    pub(crate) fn undisturbed(&self, directory: &Path, seed: u64) -> Vec<String> {
        let data = directory.join("alone");
        let place = ["--data", data.to_str().unwrap()];
        let output = self.command(place, directory, "alone", seed).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        digests(&output.stdout)
    }
}

/// A user who trains with the console application, and watches.
pub(crate) struct Training {
    name: String,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<(Output, Duration)>>,
}

impl Training {
    /// Starts it on a cluster.
    pub(crate) fn start(
        work: &Work,
        directory: &Path,
        workers: &[SocketAddr],
        name: &str,
        seed: u64,
    ) -> Self {
        let addresses: Vec<String> = workers.iter().map(|worker| format!("http://{worker}")).collect();
        let place = ["--cluster", &addresses.join(",")];
        let mut child = work.command(place, directory, name, seed).spawn().unwrap();
        let stop = Arc::new(AtomicBool::default());
        let (stopped, start) = (stop.clone(), Instant::now());
        let thread = std::thread::spawn(move || {
            while child.try_wait().unwrap().is_none() {
                if stopped.load(Ordering::Relaxed) {
                    child.kill().unwrap();
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            let took = start.elapsed();
            // What it says is less than a pipe holds.
            (child.wait_with_output().unwrap(), took)
        });
        Self { name: name.into(), stop, thread: Some(thread) }
    }

    /// Whether it goes on.
    pub(crate) fn runs(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Waits for its end: the digests of its models, and how long it took.
    #[track_caller]
    pub(crate) fn end(mut self, limit: Duration) -> (Vec<String>, Duration) {
        let name = self.name.clone();
        until(limit, &format!("training {name} ends"), || {
            if self.runs() { Err("it still runs".into()) } else { Ok(()) }
        });
        let (output, took) = self.thread.take().unwrap().join().unwrap();
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "training {name} after {took:?}: {words}");
        (digests(&output.stdout), took)
    }
}

impl Drop for Training {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The digests of the models, by kind.
fn digests(output: &[u8]) -> Vec<String> {
    let view: Value = serde_json::from_slice(output).unwrap();
    let models = view["models"].as_array().unwrap();
    let told =
        |model: &Value| format!("{} {}", model["kind"].as_str().unwrap(), model["digest"].as_str().unwrap());
    let mut digests: Vec<String> = models.iter().map(told).collect();
    digests.sort();
    digests
}
