//! The machines of a test: db nodes on disks that lose what was not synced, workers, clients; and what time does to them.

use std::{
    cell::RefCell,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use dml_compute::{Engine, Registry};
use dml_core::{Digest, Record, rng};
use dml_net::{
    client::Client,
    db::{self, Db, Network},
    discover::{Discover, Discovery, Fixed},
    link::Link,
    worker::{self, Worker},
};
use dml_store::{DiskStore, Store, StoreError, sim::SimDisk};
use turmoil::Sim;

use crate::net::{dial, pass_time, peer, serve};

/// How long anything may take, in simulated time.
const PATIENCE: Duration = Duration::from_secs(120);

/// So many milliseconds pass between two looks at a condition that is waited for.
const LOOK: usize = 10;

/// Runs a test with the first so many seeds, or with as many from another one on: `SEED=5 SEEDS=100 cargo test -p dml-net
/// --test turmoil`.
pub(crate) fn for_seeds(count: u64, test: impl Fn(u64)) {
    let set = |name| std::env::var(name).ok().map(|text| text.parse().expect("it is a number"));
    let first: u64 = set("SEED").unwrap_or(0);
    let count = set("SEEDS").unwrap_or(count);
    (first..first + count).for_each(test);
}

/// Where the db node number `n` is.
pub(crate) fn db(n: usize) -> SocketAddr {
    ([10, 0, 0, 1 + n as u8], 7301).into()
}

fn worker(n: usize) -> SocketAddr {
    ([10, 0, 1, 1 + n as u8], 7300).into()
}

/// A node that runs, and its store.
type Life = (Db, Arc<DiskStore>);

/// A machine with a db node; clones are the same machine.
#[derive(Clone)]
pub(crate) struct Machine {
    pub(crate) address: SocketAddr,
    pub(crate) disk: SimDisk,
    /// What discovery says here.
    pub(crate) names: Names,
    /// The node while the power is on, and its store.
    life: Arc<Mutex<Option<Life>>>,
}

/// A source of addresses that can be changed, like a name in DNS.
#[derive(Clone, Default)]
pub(crate) struct Names(Arc<Mutex<Vec<SocketAddr>>>);

impl Names {
    pub(crate) fn say(&self, addresses: &[SocketAddr]) {
        *self.0.lock().expect("nobody panics while holding it") = addresses.to_vec();
    }
}

#[async_trait]
impl Discover for Names {
    async fn addresses(&self) -> Vec<SocketAddr> {
        self.0.lock().expect("nobody panics while holding it").clone()
    }
}

impl Machine {
    fn new(n: usize, seed: u64) -> Self {
        let disk = SimDisk::new(rng::below(seed, n as u64, u64::MAX));
        Self { address: db(n), disk, names: Names::default(), life: Arc::default() }
    }

    /// From when the power is on to when it goes.
    async fn run(self) -> turmoil::Result {
        *self.life() = None;
        self.disk.restart();
        let store = Arc::new(DiskStore::on(self.disk.clone())?);
        let sources: Vec<Box<dyn Discover>> = vec![Box::new(self.names.clone())];
        let network = Network {
            address: self.address,
            sources,
            dial: Box::new(dial),
            swim: Default::default(),
            thread: false,
        };
        let options = db::Options { network: Some(network), ..Default::default() };
        let db = Db::start(store.clone(), options)?;
        *self.life() = Some((db.clone(), store));
        serve(self.address.port(), db.router()).await
    }

    fn life(&self) -> MutexGuard<'_, Option<(Db, Arc<DiskStore>)>> {
        self.life.lock().expect("nobody panics while holding it")
    }

    /// How many other db nodes it sees.
    pub(crate) fn sees(&self) -> usize {
        let life = self.life();
        let neighbours = life.iter().flat_map(|(db, _)| db.neighbours());
        neighbours.filter(|node| node.health.is_active()).count()
    }

    /// What is on its disk, as a node finds it that starts now; nobody may be using it.
    pub(crate) fn reopened(&self) -> Result<DiskStore, StoreError> {
        self.disk.restart();
        DiskStore::on(self.disk.clone())
    }

    /// What there is to tell of it: whom it sees, its records, the blobs that it lacks.
    fn state(&self) -> impl std::fmt::Debug + use<> {
        let neighbours = self.life().as_ref().map(|(db, _)| db.neighbours());
        neighbours.map(|neighbours| (self.address, neighbours, self.records().len(), self.lacking()))
    }

    /// Looks at its store.
    ///
    /// # Panics
    /// If it does not run.
    pub(crate) fn store<T>(&self, look: impl FnOnce(&dyn Store) -> T) -> T {
        let life = self.life();
        let (_, store) = life.as_ref().expect("it runs");
        look(&**store)
    }

    /// All of its records.
    pub(crate) fn records(&self) -> Vec<(Digest, Vec<u8>)> {
        self.store(|store| store.records().expect("the disk works"))
    }

    /// The blobs that its records name and that are not there.
    pub(crate) fn lacking(&self) -> Vec<Digest> {
        let record = |bytes: &[u8]| Record::from_bytes(bytes).expect("it is ours");
        let bodies = self.records().into_iter().filter_map(|(_, bytes)| record(&bytes).body);
        let blobs = bodies.flat_map(|body| body.blobs());
        self.store(|store| {
            blobs.filter(|blob| store.blob(*blob).expect("the disk works").is_none()).collect()
        })
    }
}

/// A cluster under simulation.
pub(crate) struct Cluster {
    pub(crate) seed: u64,
    pub(crate) sim: Sim<'static>,
    pub(crate) dbs: Vec<Machine>,
    workers: usize,
    clients: u8,
}

impl Cluster {
    /// Three db nodes that find the first of them by its name, and so many workers.
    pub(crate) fn new(seed: u64, workers: usize) -> Self {
        let mut builder = turmoil::Builder::new();
        builder.rng_seed(seed).enable_random_order().simulation_duration(Duration::from_secs(3600));
        builder.min_message_latency(Duration::from_millis(1)).max_message_latency(Duration::from_millis(10));
        let mut sim = builder.build();
        let dbs: Vec<Machine> = (0..3).map(|n| Machine::new(n, seed)).collect();
        for machine in &dbs {
            machine.names.say(&[db(0)]);
            let machine = machine.clone();
            sim.host(machine.address.ip(), move || machine.clone().run());
        }
        for n in 0..workers {
            sim.host(worker(n).ip(), move || work(n));
        }
        Self { seed, sim, dbs, workers, clients: 0 }
    }

    /// Makes the network between the nodes a bad one: it delays, and each message may be lost with this probability. As
    /// turmoil's TCP sends nothing again, a loss leaves connections that hang, and takes with it all that is under way
    /// between two machines.
    pub(crate) fn spoil_network(&mut self, loss: f64, latency: Duration) {
        let workers = (0..self.workers).map(worker);
        let nodes: Vec<IpAddr> =
            self.dbs.iter().map(|db| db.address).chain(workers).map(|at| at.ip()).collect();
        for (n, one) in nodes.iter().enumerate() {
            for other in &nodes[..n] {
                self.sim.set_link_max_message_latency(*one, *other, latency);
                self.sim.set_link_fail_rate(*one, *other, loss);
            }
        }
    }

    /// Lets a millisecond pass.
    pub(crate) fn step(&mut self) {
        if let Err(error) = self.sim.step() {
            panic!("seed {}: {error}", self.seed);
        }
    }

    /// Lets time pass until something holds.
    pub(crate) fn until(&mut self, what: &str, mut holds: impl FnMut(&[Machine]) -> bool) {
        let end = self.sim.elapsed() + PATIENCE;
        while !holds(&self.dbs) {
            if self.sim.elapsed() >= end {
                let seen: Vec<_> = self.dbs.iter().map(Machine::state).collect();
                panic!("seed {}: waited in vain until {what}: {seen:#?}", self.seed);
            }
            (0..LOOK).for_each(|_| self.step());
        }
    }

    /// Lets time pass until all db nodes see each other.
    pub(crate) fn together(&mut self) {
        self.until("three nodes see each other", |dbs| dbs.iter().all(|db| db.sees() == 2));
    }

    /// Lets time pass until all db nodes have the same records, and all that these need.
    pub(crate) fn same_everywhere(&mut self) {
        self.until("all copies are equal and whole", |dbs| {
            let first = dbs[0].records();
            dbs.iter().all(|db| db.records() == first && db.lacking().is_empty())
        });
    }

    /// Starts a client on a machine of its own. What it comes to is there when it has ended.
    pub(crate) fn start<T: 'static>(
        &mut self,
        client: impl Future<Output = T> + 'static,
    ) -> Rc<RefCell<Option<T>>> {
        let end = Rc::new(RefCell::new(None));
        let slot = end.clone();
        self.clients += 1;
        self.sim.client(IpAddr::from([10, 0, 2, self.clients]), async move {
            let outcome = client.await;
            *slot.borrow_mut() = Some(outcome);
            Ok(())
        });
        end
    }

    /// The same, and waits for the end.
    pub(crate) fn ask<T: 'static>(&mut self, what: &str, client: impl Future<Output = T> + 'static) -> T {
        let end = self.start(client);
        self.until(what, |_| end.borrow().is_some());
        end.take().expect("it has ended")
    }

    /// Takes the power from a db node. What it had not synced is lost when it starts again.
    pub(crate) fn crash(&mut self, n: usize) {
        self.sim.crash(self.dbs[n].address.ip());
        *self.dbs[n].life() = None;
    }

    /// Gives it back.
    pub(crate) fn bounce(&mut self, n: usize) {
        self.sim.bounce(self.dbs[n].address.ip());
    }

    /// Lets a db node without power forget what it has written down for itself.
    pub(crate) fn forget(&mut self, n: usize, setting: &str) {
        let store = self.dbs[n].reopened().expect("a disk that lost power can be used");
        store.set_setting(setting, b"").expect("the disk works");
    }

    /// A number below this one, by the seed.
    pub(crate) fn draw(&self, draw: u64, below: u64) -> u64 {
        rng::below(self.seed, 1000 + draw, below)
    }
}

/// A worker that serves users and computes.
async fn work(n: usize) -> turmoil::Result {
    tokio::spawn(pass_time());
    let everyone = Discovery::new(vec![Box::new(Fixed((0..3).map(db).collect()))]);
    let link = Link::discover(everyone, dial());
    let options = worker::Options { name: format!("worker-{n}"), slots: 2, ..Default::default() };
    let at_work = Worker::new(link, Engine::new(Registry::default()), options);
    let api = at_work.router();
    tokio::spawn(async move { at_work.run().await });
    serve(worker(n).port(), api).await
}

/// A client of so many workers.
pub(crate) fn client(workers: usize) -> Client {
    Client::new((0..workers).map(|n| peer(worker(n))))
}
