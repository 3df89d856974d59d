//! Events in, effects out; and what must be true of the node between any two events.

mod cluster;
mod net;
mod records;
mod wire;
mod work;

use alloc::{format, string::String, vec, vec::Vec};
use core::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::{
    dataset::{Chunk, Dataset},
    job::{Job, JobSpec, Plan, Problem, Task, Work},
    lease::{Lease, MAX_LOST, Piece, Slot},
    param::Params,
    record::Kind,
    study::{self, Study, StudySpec},
    training::{ModelSpec, Training, TrainingSpec, Validation},
};

/// A node with its clock. Writes become durable when [`Bench::written`] says so, or within [`Bench::ask`].
struct Bench {
    node: Node,
    now: Duration,
    tickets: Ticket,
}

fn me(generation: u32) -> Member {
    let address = core::net::SocketAddr::from(([10, 0, 0, 1], 7301));
    Member { id: NodeId::new(1), address, generation }
}

const SECOND: Duration = Duration::from_secs(1);

impl Bench {
    fn new() -> Self {
        Self::with([])
    }

    fn with(records: impl IntoIterator<Item = (Digest, Record)>) -> Self {
        Self { node: Node::new(Settings::default(), me(1), records), now: SECOND, tickets: 0 }
    }

    /// Gives the ticket and the effects.
    fn send(&mut self, request: Request) -> (Ticket, Vec<Effect>) {
        self.tickets += 1;
        let time_ms = self.now.as_millis() as u64;
        let event = Event::Request { ticket: self.tickets, request, time_ms };
        (self.tickets, self.handle(event))
    }

    fn handle(&mut self, event: Event) -> Vec<Effect> {
        let effects = self.node.handle(self.now, event);
        check(&self.node);
        effects
    }

    /// All writes are durable.
    fn written(&mut self) -> Vec<Effect> {
        self.handle(Event::Persisted(self.node.writes))
    }

    /// Asks, and gives all answers that there are when what was asked is durable.
    fn answers(&mut self, request: Request) -> Vec<(Ticket, Response)> {
        let (_, mut effects) = self.send(request);
        effects.extend(self.written());
        let answer = |effect| match effect {
            Effect::Reply(ticket, response) => Some((ticket, response)),
            Effect::Persist { .. } | Effect::Discard(_) | Effect::Send { .. } | Effect::Remember(_) => None,
        };
        effects.into_iter().filter_map(answer).collect()
    }

    /// Asks, and gives the answer; none if it has to wait.
    fn ask(&mut self, request: Request) -> Option<Response> {
        let answers = self.answers(request);
        answers.into_iter().find(|(ticket, _)| *ticket == self.tickets).map(|(_, response)| response)
    }

    fn refusal(&mut self, request: Request) -> Refusal {
        match self.ask(request) {
            Some(Response::Refused(refusal)) => refusal,
            other => panic!("not refused: {other:?}"),
        }
    }

    fn create(&mut self, body: Body, name: &str) -> Digest {
        match self.ask(Request::Create { body, name: Some(name.into()) }) {
            Some(Response::Created { id, .. }) => id,
            other => panic!("not created: {other:?}"),
        }
    }

    fn claim(&mut self, slots: u32) -> Vec<Assignment> {
        match self.ask(claim("w", slots, 0)) {
            Some(Response::Work(work)) => work,
            other => panic!("no work: {other:?}"),
        }
    }

    /// The piece that is next, and a report of it.
    fn step(&mut self) -> Option<Lease> {
        let lease = self.claim(1).first()?.lease;
        assert_eq!(self.ask(done(lease)), Some(Response::Done));
        Some(lease)
    }

    fn job(&self, id: Digest) -> &Job {
        self.node.catalogue.job(&id).expect("it is there")
    }
}

/// What is true between any two events.
fn check(node: &Node) {
    let [kept, anew] = node.catalogue.indices();
    assert_eq!(kept, anew, "the indices are what the records make them");
    let is_open = |id: &Digest| {
        let Some(job) = node.catalogue.job(id) else { return false };
        let wanted = job.spec.parent.is_none_or(|parent| node.catalogue.wanted(parent).contains(id));
        wanted && job.is_open()
    };
    let open: Vec<Digest> = node.catalogue.ids().filter(is_open).collect();
    assert_eq!(node.shares.jobs().collect::<Vec<_>>(), open, "what is wanted is served, and nothing else");
    assert!(node.leases.jobs().all(|job| open.contains(&job)), "leases are on what is wanted");
    assert!(
        node.versions.keys().all(|id| node.catalogue.body(id).is_some()),
        "versions are of what is there"
    );
    assert_eq!(node.doomed.times.len(), node.doomed.queue.len());
    let missing =
        |training: &Training| crate::training::reconcile(&training.spec, |job| node.catalogue.job(job));
    let trainings =
        node.catalogue.ids().filter_map(|id| node.catalogue.training(&id)).filter(|t| !t.is_cancelled());
    assert!(trainings.map(missing).all(|missing| missing.is_empty()), "no child is missing");
}

fn claim(worker: &str, slots: u32, wait_ms: u64) -> Request {
    Request::Claim(Claim {
        worker: worker.into(),
        slots,
        capacity: 4,
        have: Vec::new(),
        wait_ms,
        address: None,
    })
}

fn watch(id: Digest, seen: u64) -> Request {
    Request::Watch { id, seen, wait_ms: 30_000 }
}

fn report(lease: Lease, outcome: Outcome) -> Request {
    Request::Report { lease, outcome }
}

/// A result for the piece: a function of what it is.
fn result(slot: &Slot) -> Digest {
    Digest::of_value(slot)
}

fn done(lease: Lease) -> Request {
    let digest = result(&lease.slot);
    let outcome = match lease.slot.piece {
        Piece::Unit(_) => Outcome::Partial(digest),
        Piece::Fold => Outcome::State { state: digest, finished: false },
    };
    report(lease, outcome)
}

fn table(n: u8) -> Dataset {
    let chunks = vec![Chunk { digest: Digest::of(&[n]), rows: 9, bytes: 99 }];
    Dataset { rows: 9, columns: Vec::new(), chunks }
}

const ONCE: Plan = Plan { rounds: 1, units: 1, fold: true };

fn training(models: &[Plan], seed: u64) -> Training {
    let problem = Problem {
        task: Task::Regression,
        dataset: table(0).id(),
        target: "y".into(),
        features: vec!["x".into()],
    };
    let model = |plan: &Plan| ModelSpec { kind: "tree".into(), params: Params::default(), plan: *plan };
    let models = models.iter().map(model).collect();
    let validation = Validation::Holdout(0.2);
    let spec =
        TrainingSpec { problem, models, validation, seed, prepare: ONCE, evaluate: ONCE, ensemble: None };
    Training { spec, priority: 0, stops: 0 }
}

/// A bench with a dataset and a training with these models.
fn trained(models: &[Plan]) -> (Bench, Digest, TrainingSpec) {
    let mut bench = Bench::new();
    bench.create(Body::Dataset(table(0)), "table");
    let training = training(models, 0);
    let id = bench.create(Body::Training(training.clone()), "first");
    (bench, id, training.spec)
}

fn prediction(model: Digest, units: u32) -> Body {
    let work = Work::Predict { model, dataset: table(0).id() };
    let plan = Plan { rounds: 1, units, fold: false };
    Body::Job(Job::new(JobSpec { parent: None, role: "predict".into(), work, plan }))
}

fn not_found(what: &str, text: impl ToString) -> Refusal {
    Refusal::NotFound { what: what.into(), text: text.to_string() }
}
