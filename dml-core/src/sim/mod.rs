//! A whole cluster under one seed: db nodes, disks, a network that fails, workers and clients, in one thread and without
//! any real time. The same seed does the same again, to the last event.
//!
//! ```
//! use dml_core::sim::{self, Setup};
//! let setup = Setup { storm: core::time::Duration::from_secs(60), ..Setup::default() };
//! let report = sim::run(7, &setup).expect("no invariant is broken");
//! assert!(report.events > 0);
//! ```
//!
//! A run has four stages: a storm, in which things fail; a minute in which all nodes must come to agree; the time until
//! everything that is wanted is finished, with the results of the one-machine for-loop; and a silence, after which nothing
//! may be left over. Some invariants hold at every event, the others at the end of a stage ([`Invariant`]).
//!
//! The world keeps the contract that [`crate::Node`] has with the program around it: an event is handed over only when
//! the blobs that it names are there, writes become durable in order, and a crash loses those that are not.

mod acks;
mod asks;
mod cases;
mod check;
mod client;
mod detector;
mod disk;
mod fault;
mod faults;
mod host;
mod leases;
mod network;
mod probe;
mod reference;
mod settle;
mod shell;
mod sometimes;
mod worker;
mod world;

use alloc::{collections::BTreeMap, string::String, vec::Vec};
use core::{fmt, time::Duration};

pub use fault::{FAULTS, Fault};
pub use sometimes::{SOMETIMES, Sometimes};

use crate::node::Settings;
use world::World;

/// What a cluster is like. With a [`Bug`](crate::planted::Bug) planted, every run in the process has it.
#[derive(Debug, Clone)]
pub struct Setup {
    /// How many db nodes, 1 to 7; drawn for each seed if none.
    pub nodes: Option<u32>,
    /// How many workers.
    pub workers: u32,
    /// The settings of the nodes' brains.
    pub settings: Settings,
    /// How long the storm lasts.
    pub storm: Duration,
    /// Kinds of faults; drawn for each seed if none.
    pub faults: Option<Vec<Fault>>,
    /// In one of so many seeds nodes find each other by [`crate::swim`]; in none if 0.
    pub swim_once_in: u32,
    /// Is told everything that happens.
    pub trace: Option<fn(&str)>,
}

impl Default for Setup {
    fn default() -> Self {
        let settings = Settings {
            bury_after: Duration::from_secs(60),
            sweep: Duration::from_secs(2),
            copy_patience: Duration::from_secs(10),
            ..Settings::default()
        };
        Self {
            nodes: None,
            workers: 3,
            settings,
            storm: Duration::from_secs(480),
            faults: None,
            swim_once_in: 25,
            trace: None,
        }
    }
}

/// What was seen in a run without a violation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// How many db nodes there were.
    pub nodes: usize,
    /// How many events they took in.
    pub events: u64,
    /// How much time passed in the simulation.
    pub time: Duration,
    /// How many pieces of work were handed out.
    pub pieces: u64,
    /// How often each fault was met.
    pub faults: BTreeMap<Fault, u64>,
    /// How often each hard case came up.
    pub sometimes: BTreeMap<Sometimes, u64>,
}

/// What must always hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// An acknowledged write is on as many disks as the answer says, and survives the loss of all of them but one.
    AcknowledgedIsDurable,
    /// When the faults are over, routing tables agree, there are as many copies as are wanted, and they are equal.
    ReplicasAgree,
    /// While all nodes agree who is there, no piece is leased twice at a time.
    OneLeaseHolder,
    /// Whatever a job record says, the one-machine for-loop says too.
    SameBytes,
    /// While all nodes agree, nothing finished is handed out again.
    BoundedRework,
    /// A deleted thing stays deleted until it is made again.
    DeletedStaysDeleted,
    /// What waits and what is kept for a while ends.
    Bounded,
    /// A node's records only grow.
    RecordsGrow,
    /// A record names no blob that its node has not got.
    BlobsAreThere,
    /// When the faults are over, everything that is wanted is finished in time.
    Liveness,
    /// Nothing goes round in circles.
    Watchdog,
}

impl Invariant {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::AcknowledgedIsDurable => "acknowledged-is-durable",
            Self::ReplicasAgree => "replicas-agree",
            Self::OneLeaseHolder => "one-lease-holder",
            Self::SameBytes => "same-bytes",
            Self::BoundedRework => "bounded-rework",
            Self::DeletedStaysDeleted => "deleted-stays-deleted",
            Self::Bounded => "bounded",
            Self::RecordsGrow => "records-grow",
            Self::BlobsAreThere => "blobs-are-there",
            Self::Liveness => "liveness",
            Self::Watchdog => "watchdog",
        }
    }
}

/// An invariant that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// What shows it.
    pub what: String,
    /// The seed.
    pub seed: u64,
    /// When, since the beginning of the run.
    pub time: Duration,
    /// The last things that happened.
    pub trail: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.trail {
            writeln!(f, "{line}")?;
        }
        let Self { invariant, what, seed, time, .. } = self;
        let seconds = time.as_secs_f64();
        writeln!(f, "{} does not hold with seed {seed} after {seconds:.3} s: {what}", invariant.name())?;
        write!(f, "replay it with: DML_SEED={seed} cargo test -p dml-core --test cluster -- --nocapture")
    }
}

impl core::error::Error for Violation {}

/// Runs a cluster from the beginning to the end.
///
/// # Errors
/// An invariant does not hold. The run is then repeated, which changes nothing, to tell what happened last.
pub fn run(seed: u64, setup: &Setup) -> Result<Report, Violation> {
    let mut world = World::new(seed, setup, false);
    world.play();
    if world.broken.is_none() {
        return Ok(world.report(seed));
    }
    let silent = Setup { trace: None, ..setup.clone() };
    let mut again = World::new(seed, &silent, true);
    again.play();
    let trail = again.trail();
    let broken = again.broken.or(world.broken).expect("it was broken the first time");
    Err(Violation { invariant: broken.invariant, what: broken.what, seed, time: world.now, trail })
}
