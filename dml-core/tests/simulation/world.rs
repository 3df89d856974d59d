//! A db node, its disk, a network and workers, all under one seed. Time passes only here.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    time::Duration,
};

use dml_core::{
    Digest, Member, Node, NodeId, Record,
    lease::Piece,
    node::{Assignment, Claim, Effect, Event, Outcome, Request, Response, Settings, Ticket},
    rng,
};

use crate::{ledger::Ledger, reference};

/// Random numbers, one after the other.
pub(crate) struct Dice {
    seed: u64,
    thrown: u64,
}

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, thrown: 0 }
    }

    /// A number in 0..n.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.thrown += 1;
        rng::below(self.seed, self.thrown, n as u64) as usize
    }

    /// True once in `n` times.
    pub(crate) fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// Who waits for an answer.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Asker {
    Claim(u64),
    Report(u64, Ticket),
    Renewal,
    /// The client, about the thing with this number.
    Client(usize),
    Watcher(usize),
}

/// A message on its way.
enum Flying {
    Request(Ticket, Box<Request>),
    Response(Ticket, Response),
}

/// A worker keeps nothing that matters.
struct Worker {
    name: u64,
    slots: u32,
    claiming: bool,
    work: Vec<Task>,
    renewed: Duration,
}

/// A piece of work in a worker's hands; `id` is its own name for it.
struct Task {
    id: Ticket,
    assignment: Assignment,
    reported: bool,
}

/// How often things go wrong: once in so many times, drawn for each seed; never when none.
#[derive(Clone, Copy)]
pub(crate) struct Faults {
    pub(crate) lose: usize,
    pub(crate) repeat: usize,
    pub(crate) kill: usize,
    pub(crate) leave: usize,
    pub(crate) restart: usize,
    pub(crate) stall: usize,
    pub(crate) release: usize,
}

impl Faults {
    pub(crate) fn drawn(dice: &mut Dice) -> Self {
        let mut rate =
            |usual: usize| if dice.once_in(3) { usize::MAX } else { usual + dice.below(usual * 4) };
        Self {
            lose: rate(8),
            repeat: rate(8),
            kill: rate(60),
            leave: rate(80),
            restart: rate(60),
            stall: rate(60),
            release: rate(8),
        }
    }

    pub(crate) fn none() -> Self {
        let never = usize::MAX;
        Self {
            lose: never,
            repeat: never,
            kill: never,
            leave: never,
            restart: never,
            stall: never,
            release: never,
        }
    }
}

/// Records to be written, or removed.
type Changes = Vec<(Digest, Option<Record>)>;

/// Requests that are not answered within this time are given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A blob that was put again so lately is not removed: it is about to be named.
const PUT_GRACE: Duration = Duration::from_secs(30);

pub(crate) struct World {
    pub(crate) dice: Dice,
    pub(crate) node: Node,
    pub(crate) now: Duration,
    pub(crate) disk: BTreeMap<Digest, Record>,
    pub(crate) faults: Faults,
    pub(crate) ledger: Ledger,
    /// What the client and the watchers heard, for them to look at.
    pub(crate) heard: Vec<(Asker, Ticket, Response)>,
    pub(crate) blobs: BTreeMap<Digest, Duration>,
    /// All blobs that workers ever put.
    pub(crate) ever: BTreeSet<Digest>,
    settings: Settings,
    generation: u32,
    writes: VecDeque<(u64, Changes)>,
    flying: Vec<Flying>,
    asked: BTreeMap<Ticket, (Asker, Duration)>,
    tickets: u64,
    workers: Vec<Worker>,
}

impl World {
    pub(crate) fn new(mut dice: Dice) -> Self {
        let settings = Settings::default();
        let (faults, workers) = (Faults::drawn(&mut dice), 1 + dice.below(4));
        let mut world = Self {
            node: Node::new(settings.clone(), me(1), []),
            ledger: Ledger::new(settings.lease),
            now: Duration::ZERO,
            disk: BTreeMap::new(),
            heard: Vec::new(),
            blobs: BTreeMap::new(),
            ever: BTreeSet::new(),
            generation: 1,
            writes: VecDeque::new(),
            flying: Vec::new(),
            asked: BTreeMap::new(),
            tickets: 0,
            workers: Vec::new(),
            dice,
            faults,
            settings,
        };
        (0..workers).for_each(|_| world.hire());
        world
    }

    /// One step of whatever comes next.
    pub(crate) fn step(&mut self) {
        self.faulty_step();
        match self.dice.below(10) {
            0..4 => self.deliver(),
            4..6 => self.write(),
            6..9 => self.work(),
            _ => {
                let time = Duration::from_millis(1 + self.dice.below(3000) as u64);
                self.pass(time);
            }
        }
    }

    /// Whether nothing is on its way but time.
    pub(crate) fn is_quiet(&self) -> bool {
        self.flying.is_empty()
            && self.writes.is_empty()
            && self.workers.iter().all(|worker| worker.work.is_empty())
    }

    fn faulty_step(&mut self) {
        let Faults { kill, leave, restart, stall, .. } = self.faults;
        if self.dice.once_in(kill) {
            let worker = self.dice.below(self.workers.len());
            self.workers.remove(worker);
            self.hire();
        }
        if self.dice.once_in(leave) {
            let worker = self.dice.below(self.workers.len());
            let worker = self.workers.remove(worker).name;
            self.ledger.left(worker);
            self.ask_now(Asker::Renewal, Request::Leave { worker: worker.to_string(), dead: false });
            self.hire();
        }
        // A piece that ran out too often would be given up: the counts are in memory alone.
        if self.dice.once_in(restart) || self.ledger.is_about_to_give_up() {
            self.restart();
        }
        if self.dice.once_in(stall) {
            let time = Duration::from_secs(15 + self.dice.below(15) as u64);
            self.pass(time);
        }
    }

    fn hire(&mut self) {
        self.tickets += 1;
        let slots = 1 + self.dice.below(3) as u32;
        let worker =
            Worker { name: self.tickets, slots, claiming: false, work: Vec::new(), renewed: self.now };
        self.workers.push(worker);
    }

    /// The node dies: of the writes on their way some reach the disk, in order. Connections break.
    fn restart(&mut self) {
        let kept = self.dice.below(self.writes.len() + 1);
        for (_, records) in std::mem::take(&mut self.writes).into_iter().take(kept) {
            apply(&mut self.disk, records);
        }
        self.flying.clear();
        self.reconnect();
        self.generation += 1;
        self.node = Node::new(self.settings.clone(), me(self.generation), self.disk.clone());
        self.ledger.restarted(&self.disk);
    }

    /// All who wait for an answer ask again.
    pub(crate) fn reconnect(&mut self) {
        for (ticket, (asker, _)) in std::mem::take(&mut self.asked) {
            self.give_up(ticket, asker);
        }
    }

    /// Sends a request into the network.
    pub(crate) fn ask(&mut self, asker: Asker, request: Request) -> Ticket {
        self.tickets += 1;
        self.asked.insert(self.tickets, (asker, self.now));
        if !self.dice.once_in(self.faults.lose) {
            if self.dice.once_in(self.faults.repeat) {
                // The repetition has a ticket that nobody waits for.
                self.flying.push(Flying::Request(self.tickets + 1, Box::new(request.clone())));
            }
            self.flying.push(Flying::Request(self.tickets, Box::new(request)));
        }
        self.tickets += 1;
        self.tickets - 1
    }

    /// Asks on a line that is never late.
    pub(crate) fn ask_now(&mut self, asker: Asker, request: Request) -> Ticket {
        self.tickets += 1;
        let ticket = self.tickets;
        self.asked.insert(ticket, (asker, self.now));
        self.handle(Event::Request { ticket, request, time_ms: self.now.as_millis() as u64 });
        ticket
    }

    fn deliver(&mut self) {
        if self.flying.is_empty() {
            return;
        }
        let at = self.dice.below(self.flying.len());
        match self.flying.swap_remove(at) {
            Flying::Request(ticket, request) => {
                if let Request::Report {
                    outcome: Outcome::Partial(blob) | Outcome::State { state: blob, .. },
                    ..
                } = &*request
                    && !self.blobs.contains_key(blob)
                {
                    return; // The shell answers that the blob must be put first.
                }
                self.handle(Event::Request {
                    ticket,
                    request: *request,
                    time_ms: self.now.as_millis() as u64,
                });
            }
            Flying::Response(ticket, response) => match self.asked.remove(&ticket) {
                Some((asker, _)) => self.hear(asker, ticket, response),
                None => self.unheard(response),
            },
        }
    }

    /// Nobody waits for this answer: the shell may notice, and take the work back.
    fn unheard(&mut self, response: Response) {
        if let Response::Work(work) = response
            && self.dice.once_in(2)
        {
            for Assignment { lease, .. } in work {
                let request = Request::Report { lease, outcome: Outcome::Released { pause_ms: 0 } };
                self.handle(Event::Request { ticket: 0, request, time_ms: 0 });
            }
        }
    }

    fn hear(&mut self, asker: Asker, ticket: Ticket, response: Response) {
        match (asker, response) {
            (Asker::Claim(name), response) => {
                let Some(worker) = self.workers.iter_mut().find(|worker| worker.name == name) else {
                    return self.unheard(response);
                };
                worker.claiming = false;
                let Response::Work(work) = response else {
                    panic!("a claim is answered with work: {response:?}")
                };
                for assignment in work {
                    self.tickets += 1;
                    worker.work.push(Task { id: self.tickets, assignment, reported: false });
                }
                assert!(worker.work.len() <= worker.slots as usize, "no more than it asked for");
            }
            (Asker::Report(name, task), _) => {
                if let Some(worker) = self.workers.iter_mut().find(|worker| worker.name == name) {
                    worker.work.retain(|other| other.id != task);
                }
            }
            (Asker::Renewal, _) => {}
            (Asker::Client(_) | Asker::Watcher(_), response) => self.heard.push((asker, ticket, response)),
        }
    }

    fn give_up(&mut self, ticket: Ticket, asker: Asker) {
        let worker = |name| move |worker: &&mut Worker| worker.name == name;
        match asker {
            Asker::Claim(name) => {
                self.workers
                    .iter_mut()
                    .find(worker(name))
                    .into_iter()
                    .for_each(|worker| worker.claiming = false);
            }
            Asker::Report(name, id) => {
                let tasks = self
                    .workers
                    .iter_mut()
                    .find(worker(name))
                    .into_iter()
                    .flat_map(|worker| &mut worker.work);
                tasks.filter(|task| task.id == id).for_each(|task| task.reported = false);
            }
            Asker::Renewal => {}
            Asker::Client(_) | Asker::Watcher(_) => self.heard.push((asker, ticket, Response::Done)),
        }
    }

    /// The next write reaches the disk.
    fn write(&mut self) {
        if let Some((write, records)) = self.writes.pop_front() {
            apply(&mut self.disk, records);
            self.handle(Event::Persisted(write));
        }
    }

    /// A worker does the next thing: claims, computes or reports.
    fn work(&mut self) {
        let w = self.dice.below(self.workers.len());
        let worker = &mut self.workers[w];
        let free = worker.slots - worker.work.len() as u32;
        if free > 0 && !worker.claiming {
            worker.claiming = true;
            let (name, wait_ms) = (worker.name, 1000 * self.dice.below(25) as u64);
            let worker = self.workers[w].name.to_string();
            let capacity = self.workers[w].slots;
            let claim = Claim { worker, slots: free, capacity, have: Vec::new(), wait_ms, address: None };
            self.ask(Asker::Claim(name), Request::Claim(claim));
        } else if let Some(task) = worker.work.iter_mut().find(|task| !task.reported) {
            task.reported = true;
            let (asker, lease) = (Asker::Report(worker.name, task.id), task.assignment.lease);
            let outcome = if self.dice.once_in(self.faults.release) {
                Outcome::Released { pause_ms: 1000 * self.dice.below(3) as u64 }
            } else {
                compute(&task.assignment)
            };
            if let Outcome::Partial(blob) | Outcome::State { state: blob, .. } = &outcome {
                self.blobs.insert(*blob, self.now);
                self.ever.insert(*blob);
            }
            self.ask(asker, Request::Report { lease, outcome });
        }
    }

    /// Time passes, in no greater steps than the node and the workers ask for, unless all stall.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.now += time;
        let late: Vec<Ticket> = self
            .asked
            .iter()
            .filter(|(_, (_, at))| *at + PATIENCE < self.now)
            .map(|(ticket, _)| *ticket)
            .collect();
        for ticket in late {
            let (asker, _) = self.asked.remove(&ticket).expect("it was just found");
            if self.dice.once_in(2) {
                self.handle(Event::Gone(ticket));
            }
            self.give_up(ticket, asker);
        }
        for w in 0..self.workers.len() {
            let worker = &mut self.workers[w];
            if worker.renewed + self.settings.lease / 2 <= self.now && !worker.work.is_empty() {
                worker.renewed = self.now;
                let leases = worker.work.iter().map(|task| task.assignment.lease).collect();
                let worker = worker.name.to_string();
                self.ask(Asker::Renewal, Request::Renew { worker, leases });
            }
        }
        if self.node.deadline(self.now).is_some_and(|at| at <= self.now) {
            self.handle(Event::Tick);
        }
    }

    fn handle(&mut self, event: Event) {
        self.ledger.before(&self.node, self.now, &event);
        for effect in self.node.handle(self.now, event.clone()) {
            self.ledger.during(&self.node, self.now, &event, &effect);
            match effect {
                Effect::Persist { write, records } => {
                    for (id, record) in &records {
                        self.ledger.grows(*id, record.as_ref());
                        let blobs: BTreeSet<Digest> = record
                            .iter()
                            .filter_map(|record| record.body.as_ref())
                            .flat_map(|body| body.blobs())
                            .collect();
                        assert!(
                            blobs.iter().all(|blob| self.blobs.contains_key(blob)),
                            "a record names a lost blob"
                        );
                    }
                    self.writes.push_back((write, records));
                }
                Effect::Reply(ticket, response) => {
                    self.ledger.acknowledged(ticket, &response, &self.disk);
                    match self.asked.get(&ticket) {
                        Some((Asker::Client(_), _)) => {
                            let (asker, _) = self.asked.remove(&ticket).expect("it was just found");
                            self.heard.push((asker, ticket, response));
                        }
                        _ if self.dice.once_in(self.faults.lose) => {}
                        _ => self.flying.push(Flying::Response(ticket, response)),
                    }
                }
                Effect::Discard(blobs) => self.discard(blobs),
                Effect::Send { .. } | Effect::Remember(_) => {
                    panic!("a node that is alone has nobody to write to")
                }
            }
        }
        let deadline = self.node.deadline(self.now);
        assert!(deadline.is_none_or(|at| at > self.now), "a loop that waits for the deadline would spin");
    }

    fn discard(&mut self, blobs: Vec<Digest>) {
        let stored = self
            .disk
            .values()
            .chain(self.writes.iter().flat_map(|(_, records)| records).filter_map(|(_, r)| r.as_ref()));
        let named: BTreeSet<Digest> =
            stored.filter_map(|r| r.body.as_ref()).flat_map(|body| body.blobs()).collect();
        for blob in blobs {
            assert!(!named.contains(&blob), "a blob was discarded that a record names");
            if self.blobs.get(&blob).is_some_and(|put| *put + PUT_GRACE <= self.now) {
                self.blobs.remove(&blob);
            }
        }
    }
}

fn me(generation: u32) -> Member {
    Member { id: NodeId::new(1), address: SocketAddr::from(([10, 0, 0, 1], 7301)), generation }
}

fn apply(disk: &mut BTreeMap<Digest, Record>, changes: Changes) {
    for (id, record) in changes {
        match record {
            Some(record) => disk.insert(id, record),
            None => disk.remove(&id),
        };
    }
}

fn compute(assignment: &Assignment) -> Outcome {
    let Assignment { lease, spec, progress, .. } = assignment;
    let (round, state) = (progress.round, progress.state);
    match lease.slot.piece {
        Piece::Unit(index) => Outcome::Partial(reference::unit(spec, round, index, state)),
        Piece::Fold => {
            let mut partials: Vec<Digest> = progress.units.values().copied().collect();
            if partials.is_empty() && spec.plan.units == 1 {
                partials.push(reference::unit(spec, round, 0, state));
            }
            assert_eq!(partials.len(), spec.plan.units as usize, "a fold has all partials");
            let (state, finished) = reference::fold(spec, round, state, &partials);
            Outcome::State { state, finished }
        }
    }
}
