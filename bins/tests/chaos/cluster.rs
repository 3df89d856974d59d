//! A cluster of real processes, a machine each, and what can be done to them.

use std::{
    fs::File,
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use super::{facts::until, http, network::Network};

/// How many db nodes and workers there are.
pub(crate) const DBS: usize = 5;
pub(crate) const WORKERS: usize = 3;

/// The machines: db nodes first, then workers.
pub(crate) struct Cluster {
    // The processes go before their network.
    processes: Vec<Option<Child>>,
    pub(crate) network: Network,
    directory: tempfile::TempDir,
}

impl Cluster {
    /// Starts all, or says why that cannot be done here.
    pub(crate) fn start() -> Result<Self, String> {
        let network = Network::new(DBS + WORKERS)?;
        let directory = tempfile::tempdir().unwrap();
        let processes = (0..DBS + WORKERS).map(|_| None).collect();
        let mut cluster = Self { processes, network, directory };
        (0..DBS + WORKERS).for_each(|machine| cluster.run(machine));
        (0..DBS + WORKERS).for_each(|machine| cluster.wait_for(machine));
        Ok(cluster)
    }

    /// A file or directory of this test.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Where a db node is.
    pub(crate) fn db(&self, n: usize) -> SocketAddr {
        assert!(n < DBS);
        (self.network.address(n), 7301).into()
    }

    /// Where a worker is.
    pub(crate) fn worker(&self, n: usize) -> SocketAddr {
        assert!(n < WORKERS);
        (self.network.address(DBS + n), 7300).into()
    }

    /// Where all db nodes are.
    pub(crate) fn dbs(&self) -> Vec<SocketAddr> {
        (0..DBS).map(|n| self.db(n)).collect()
    }

    /// Where all workers are.
    pub(crate) fn workers(&self) -> Vec<SocketAddr> {
        (0..WORKERS).map(|n| self.worker(n)).collect()
    }

    /// Starts the process of a machine, on the data that are there.
    pub(crate) fn run(&mut self, machine: usize) {
        let join: Vec<String> = self.dbs().iter().map(ToString::to_string).collect();
        let (program, listen) = match machine < DBS {
            true => (env!("CARGO_BIN_EXE_db"), self.db(machine)),
            false => (env!("CARGO_BIN_EXE_worker"), self.worker(machine - DBS)),
        };
        let mut command = self.network.command(machine, program);
        command.args(["--insecure", "--join", &join.join(","), "--listen", &listen.to_string()]);
        if machine < DBS {
            command.arg("--data").arg(self.data(machine));
        } else {
            command.args(["--slots", "1"]);
        }
        let log = self.path(&format!("{machine}.log"));
        let log = || File::options().create(true).append(true).open(&log).unwrap();
        command.stdin(Stdio::null()).stdout(log()).stderr(log());
        let process = clean(&mut command).spawn().unwrap();
        assert!(self.processes[machine].replace(process).is_none(), "it runs already");
    }

    /// Waits until a machine answers.
    pub(crate) fn wait_for(&self, machine: usize) {
        let address = if machine < DBS { self.db(machine) } else { self.worker(machine - DBS) };
        let limit = Duration::from_secs(20);
        until(limit, &format!("{address} answers"), || {
            let answer = http::send(address, "GET", "/healthz", "text/plain", &[], limit);
            if answer.is_ok() { Ok(()) } else { Err("not yet".into()) }
        });
    }

    fn data(&self, db: usize) -> PathBuf {
        self.path(&format!("db-{db}"))
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self, machines: &[usize]) {
        for machine in machines {
            self.process(*machine).kill().unwrap();
        }
        for machine in machines {
            self.process(*machine).wait().unwrap();
            self.processes[*machine] = None;
        }
    }

    /// Removes the data of a db node that was killed: its disk is new.
    pub(crate) fn wipe(&self, db: usize) {
        assert!(self.processes[db].is_none());
        std::fs::remove_dir_all(self.data(db)).unwrap();
    }

    /// The process of a machine does nothing any more, but its connections stay.
    pub(crate) fn freeze(&mut self, machine: usize) {
        self.signal(machine, "-STOP");
    }

    /// It goes on.
    pub(crate) fn thaw(&mut self, machine: usize) {
        self.signal(machine, "-CONT");
    }

    fn signal(&mut self, machine: usize, signal: &str) {
        let process = self.process(machine).id().to_string();
        assert!(Command::new("kill").args([signal, &process]).status().unwrap().success());
    }

    fn process(&mut self, machine: usize) -> &mut Child {
        self.processes[machine].as_mut().unwrap_or_else(|| panic!("machine {machine} does not run"))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for process in self.processes.iter_mut().flatten() {
            let _ = process.kill();
            let _ = process.wait();
        }
        if std::thread::panicking() {
            self.directory.disable_cleanup(true);
            super::say(&format!("the logs and data of the nodes are in {}", self.directory.path().display()));
        }
    }
}

/// Without the settings of whoever runs the tests.
pub(crate) fn clean(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("DML_")) {
        command.env_remove(name);
    }
    command
}
