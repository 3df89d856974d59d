//! Everything there is, and the one loop that moves it.

use alloc::{
    boxed::Box,
    collections::{BTreeMap, VecDeque},
    string::String,
    vec::Vec,
};
use core::{net::SocketAddr, time::Duration};

use super::{
    Report, Setup,
    asks::{Ask, Heard},
    check::{Broken, Ledger},
    client::{Client, Thing},
    detector::Detector,
    fault::Fault,
    faults::{self, Mend},
    host::Host,
    network::Network,
    settle::Stage,
    sometimes::Sometimes,
    worker::{Step, Worker},
};
use crate::{
    dice::Dice,
    id::Digest,
    member::NodeId,
    node::{Event, Letter, Settings, Ticket},
};

/// Something that will happen.
pub(super) enum What {
    /// A node asked to be called.
    Tick { host: usize, life: u64 },
    /// A node acts on the events that it took in.
    Act { host: usize, life: u64 },
    /// A letter arrives.
    Letter { from: usize, to: NodeId, letter: Box<Letter>, again: bool },
    /// The blobs that an event names have come, if they have.
    Fetched { host: usize, life: u64, blobs: Vec<Digest>, from: Option<usize>, event: Box<Event> },
    /// A request arrives.
    Asked(Ticket),
    /// An answer arrives.
    Answer(Ticket, Box<Heard>),
    /// Whoever asked has waited long enough.
    Patience(Ticket),
    /// A node notices that whoever asked has gone.
    Gone { host: usize, life: u64, ticket: Ticket },
    /// A write and all before it are durable.
    Durable { host: usize, life: u64, write: u64 },
    /// A node looks whether another is there.
    Look { host: usize, life: u64, at: usize },
    /// A node is told that another is not there, which is wrong.
    Misjudge { host: usize, life: u64, at: usize },
    /// A node fetches a blob that it lost.
    Refetch { host: usize, life: u64 },
    /// Names are resolved.
    Resolve { host: usize, life: u64 },
    /// Something of a node's failure detector: see [`Detector`].
    Detect { host: usize, life: u64, event: Box<crate::swim::Event> },
    /// The next step of a worker in one of its lives.
    Worker(usize, u64, Step),
    /// A client does the next thing.
    Client(usize),
    /// Something goes wrong.
    Fault,
    /// A node goes for long, and something that it has is deleted.
    Forsake,
    /// A fault ends.
    Mend(Mend),
    /// Time to look how far everything has come.
    LookHowFar,
}

/// All there is.
pub(super) struct World<'a> {
    pub(super) setup: &'a Setup,
    pub(super) settings: Settings,
    pub(super) dice: Dice,
    pub(super) now: Duration,
    queue: BTreeMap<(Duration, u64), What>,
    pushed: u64,
    /// Events that nodes took in.
    pub(super) events: u64,
    pub(super) hosts: Vec<Host>,
    /// The machine behind each name that a node ever had.
    pub(super) ids: BTreeMap<NodeId, usize>,
    pub(super) network: Network,
    pub(super) detector: Detector,
    pub(super) workers: Vec<Worker>,
    pub(super) clients: Vec<Client>,
    pub(super) things: Vec<Thing>,
    pub(super) asks: BTreeMap<Ticket, Ask>,
    names: u64,
    /// Kinds of faults that are injected.
    pub(super) kinds: Vec<Fault>,
    /// Milliseconds between two of them.
    pub(super) pace: u64,
    /// Whether the fetch of a blob may fail: once in so many times.
    pub(super) fetch_fails: u32,
    pub(super) storm: bool,
    /// Whether the work after the storm begins when all has been calm for a while.
    pub(super) patient: bool,
    /// What nobody makes again in the storm.
    pub(super) forsaken: Option<Digest>,
    /// When a copy was sent last.
    pub(super) last_copies: [Duration; 4],
    /// Once in so many times a node takes in more events before it acts; never if it is 0.
    pub(super) gathers: u32,
    pub(super) stage: Stage,
    /// When the stage must be over.
    pub(super) until: Duration,
    /// Copies that nobody has confirmed: by sender and number, to whom and of what.
    pub(super) copies: BTreeMap<(NodeId, u64), (NodeId, Vec<Digest>)>,
    pub(super) faults: BTreeMap<Fault, u64>,
    pub(super) sometimes: BTreeMap<Sometimes, u64>,
    pub(super) ledger: Ledger,
    pub(super) broken: Option<Broken>,
    /// The last things that happened, if somebody wants to know.
    trail: Option<VecDeque<String>>,
}

/// Where db nodes listen.
const PORT: u16 = 7301;

/// More events than any healthy cluster needs.
const MAX_EVENTS: u64 = 2_000_000;

/// How many of the last things that happened are kept.
const TRAIL: usize = 40;

impl<'a> World<'a> {
    /// The world of a seed, at its beginning.
    pub(super) fn new(seed: u64, setup: &'a Setup, traced: bool) -> Self {
        let mut dice = Dice::new(seed);
        let usual = [5, 5, 5, 3, 3, 4, 2, 6, 7, 1];
        let drawn = dice.pick(&usual).unwrap_or(5);
        let count = setup.nodes.unwrap_or(drawn);
        let kinds = setup.faults.clone().unwrap_or_else(|| faults::swarm(&mut dice));
        // 10.0.0.7 to 10.0.0.13: in the order of text another would come first.
        let address = |n: u32| SocketAddr::from(([10, 0, 0, 7 + n as u8], PORT));
        let hosts: Vec<Host> = (0..count).map(|n| Host::new(&mut dice, address(n))).collect();
        let ids = hosts.iter().enumerate().map(|(n, host)| (host.me.id, n)).collect();
        let mut world = Self {
            setup,
            settings: Settings { expects_others: count > 1, ..setup.settings.clone() },
            network: Network::new(faults::rates(&mut dice, &kinds)),
            now: Duration::ZERO,
            queue: BTreeMap::new(),
            pushed: 0,
            events: 0,
            hosts,
            ids,
            detector: Detector::default(),
            workers: Vec::new(),
            clients: Vec::new(),
            things: Vec::new(),
            asks: BTreeMap::new(),
            names: 1 << 40,
            pace: 4_000 + dice.below(8_000) as u64,
            fetch_fails: if kinds.contains(&Fault::FetchFails) { 4 + dice.below(20) as u32 } else { 0 },
            kinds,
            storm: true,
            patient: dice.once_in(3),
            forsaken: None,
            last_copies: [Duration::ZERO; 4],
            gathers: if dice.once_in(2) { 1 + dice.below(8) as u32 } else { 0 },
            stage: Stage::Storm,
            until: Duration::MAX,
            copies: BTreeMap::new(),
            faults: BTreeMap::new(),
            sometimes: BTreeMap::new(),
            ledger: Ledger::default(),
            broken: None,
            trail: traced.then(VecDeque::new),
            dice,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        self.detector = Detector::drawn(&mut self.dice, self.setup);
        for host in 0..self.hosts.len() {
            if self.kinds.contains(&Fault::ClockDrift) {
                let ppm = self.dice.below(60_000) as i64 - 30_000;
                self.hosts[host].drift(ppm);
                self.met(Fault::ClockDrift);
            }
            if self.kinds.contains(&Fault::ClockOffset) {
                self.hosts[host].clock.wall_ms = self.dice.below(7_200_000) as i64 - 3_600_000;
                self.met(Fault::ClockOffset);
            }
            let start = self.dice.millis(0, 3_000);
            self.later(start, What::Mend(Mend::Start(host)));
        }
        self.imagine();
        (0..self.setup.workers).for_each(|_| self.hire());
        for client in 0..self.clients.len() {
            let first = self.dice.millis(1_000, 5_000);
            self.later(first, What::Client(client));
        }
        self.later(Duration::from_secs(10), What::Fault);
        if self.dice.once_in(2) {
            let part = self.setup.storm / 8 * (2 + self.dice.below(3) as u32);
            self.later(part, What::Forsake);
        }
        self.later(self.setup.storm, What::LookHowFar);
    }

    /// A name that nothing else has.
    pub(super) fn name(&mut self) -> u64 {
        self.names += 1;
        self.names
    }

    /// Something will happen after this time.
    pub(super) fn later(&mut self, after: Duration, what: What) {
        self.at(self.now + after, what);
    }

    /// Something will happen at this time.
    pub(super) fn at(&mut self, time: Duration, what: What) {
        self.pushed += 1;
        self.queue.insert((time.max(self.now), self.pushed), what);
    }

    /// A hard case came up.
    pub(super) fn reach(&mut self, case: Sometimes) {
        *self.sometimes.entry(case).or_default() += 1;
    }

    /// Writes down what happened, if somebody wants to know.
    pub(super) fn note(&mut self, what: impl FnOnce() -> String) {
        if self.trail.is_none() && self.setup.trace.is_none() {
            return;
        }
        let line = alloc::format!("{:>10.3} s  {}", self.now.as_secs_f64(), what());
        if let Some(trace) = self.setup.trace {
            trace(&line);
        }
        if let Some(trail) = &mut self.trail {
            trail.truncate(TRAIL - 1);
            trail.push_front(line);
        }
    }

    /// An invariant is broken: nothing goes on.
    pub(super) fn breach(&mut self, invariant: super::Invariant, what: impl FnOnce() -> String) {
        if self.broken.is_none() {
            let what = what();
            self.note(|| alloc::format!("{} is broken: {what}", invariant.name()));
            self.broken = Some(Broken { invariant, what });
        }
    }

    /// What was seen.
    pub(super) fn report(self, seed: u64) -> Report {
        Report {
            seed,
            nodes: self.hosts.len(),
            events: self.events,
            time: self.now,
            pieces: self.ledger.granted,
            faults: self.faults,
            sometimes: self.sometimes,
        }
    }

    /// The last things that happened, in order.
    pub(super) fn trail(&self) -> Vec<String> {
        self.trail.iter().flatten().rev().cloned().collect()
    }

    /// Runs until all is done, or an invariant is broken.
    pub(super) fn play(&mut self) {
        while self.broken.is_none() && self.stage != Stage::Over {
            let Some(((time, _), what)) = self.queue.pop_first() else {
                return self.breach(super::Invariant::Liveness, || "nothing is left to happen".into());
            };
            self.now = time;
            self.happen(what);
            if self.events > MAX_EVENTS {
                return self.breach(super::Invariant::Watchdog, || "there are too many events".into());
            }
        }
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Tick { host, life } => self.tick(host, life),
            What::Act { host, life } if self.hosts[host].life == life => self.act(host),
            What::Act { .. } => {}
            What::Letter { from, to, letter, again } => self.letter_arrives(from, to, letter, again),
            What::Fetched { host, life, blobs, from, event } => self.fetched(host, life, &blobs, from, event),
            What::Asked(ticket) => self.asked(ticket),
            What::Answer(ticket, heard) => self.answered(ticket, *heard),
            What::Patience(ticket) => self.patience_ends(ticket),
            What::Gone { host, life, ticket } => {
                self.arrive(host, life, Event::Gone(ticket).into(), None, true)
            }
            What::Durable { host, life, write } => self.durable(host, life, write),
            What::Look { host, life, at } => self.look(host, life, at),
            What::Misjudge { host, life, at } => self.believe_dead(host, life, at),
            What::Refetch { host, life } => self.refetch(host, life),
            What::Resolve { host, life } => self.resolve(host, life),
            What::Detect { host, life, event } => self.detect(host, life, *event),
            What::Worker(worker, life, step) => self.work(worker, life, step),
            What::Client(client) => self.client_acts(client),
            What::Fault if self.storm => self.next_fault(),
            What::Fault => {}
            What::Forsake => self.forsake(),
            What::Mend(mend) => self.mend(mend),
            What::LookHowFar => self.look_how_far(),
        }
    }
}
