//! Clients: they upload tables, ask for trainings and predictions, watch, cancel, delete and ask again. A db node that
//! does not answer is replaced by the next.

use alloc::{format, string::String, vec::Vec};
use core::time::Duration;

use super::{
    asks::{Heard, Who},
    fault::Fault,
    network::Place,
    reference::{self, Course},
    settle::Stage,
    world::{What, World},
};
use crate::{
    dataset::{Chunk, Dataset},
    dice::Dice,
    id::Digest,
    job::{Job, JobSpec, Plan, Problem, Task, Work},
    node::{Refusal, Request, Response, Ticket},
    param::Params,
    parent::Parent,
    record::{Body, Kind},
    study::{Strategy, Study, StudySpec},
    training::{ModelSpec, Training, TrainingSpec, Validation},
};

/// Something that clients may want, with all that must come of it.
pub(super) struct Thing {
    pub(super) id: Digest,
    pub(super) body: Body,
    pub(super) name: String,
    /// Its jobs and how they must go; itself, if it is a prediction.
    pub(super) jobs: Vec<(Digest, Course)>,
    /// Whether it is to be there in the end.
    pub(super) wanted: bool,
}

/// What a client does: one thing at a time.
pub(super) struct Doing {
    request: Request,
    uploads: Vec<Digest>,
    tries: u32,
}

/// A client.
pub(super) struct Client {
    host: usize,
    doing: Option<Doing>,
    ticket: Option<Ticket>,
    seen: u64,
}

/// How many clients there are.
const CLIENTS: usize = 2;

/// So often a client tries in a storm.
const MAX_TRIES: u32 = 8;

/// How long an answer may take beyond what was asked to wait.
const PATIENCE: Duration = Duration::from_secs(8);

impl World<'_> {
    /// Draws what clients will want.
    pub(super) fn imagine(&mut self) {
        let client = |_| Client { host: 0, doing: None, ticket: None, seen: 0 };
        self.clients = (0..CLIENTS).map(client).collect();
        let tables = 1 + self.dice.below(2);
        for n in 0..tables {
            let body = Body::Dataset(dataset(&mut self.dice));
            self.wish(body, format!("table-{n}"), Vec::new());
        }
        for n in 0..1 + self.dice.below(3) {
            let table = self.things[self.dice.below(tables)].id;
            let spec = training(&mut self.dice, table);
            let kept = spec.model_id(spec.id(), 0);
            let training = Training { spec, priority: self.dice.below(2) as i32, stops: 0 };
            let jobs = reference::jobs_of(Parent::Training(&training));
            let model = jobs.iter().find(|(id, _)| *id == kept).and_then(|(_, course)| course.end().state);
            self.wish(Body::Training(training), format!("training-{n}"), jobs);
            if let Some(model) = model.filter(|_| n == 0) {
                let plan = Plan { rounds: 1, units: 1 + self.dice.below(4) as u32, fold: false };
                let work = Work::Predict { model, dataset: table };
                let spec = JobSpec { parent: None, role: "predict".into(), work, plan };
                let jobs = alloc::vec![(spec.id(), Course::of(&spec))];
                self.wish(Body::Job(Job::new(spec)), format!("prediction-{n}"), jobs);
            }
        }
        if self.dice.once_in(3) {
            let table = self.things[self.dice.below(tables)].id;
            let study = study(&mut self.dice, table);
            let jobs = reference::jobs_of(Parent::Study(&study));
            self.wish(Body::Study(study), "study".into(), jobs);
        }
    }

    fn wish(&mut self, body: Body, name: String, jobs: Vec<(Digest, Course)>) {
        let thing = Thing { id: body.id(), body, name, jobs, wanted: false };
        self.things.push(thing);
    }

    /// The chunks of a dataset.
    pub(super) fn chunks(&self, dataset: &Digest) -> Vec<Digest> {
        let thing = self.things.iter().find(|thing| thing.id == *dataset);
        thing.map_or_else(Vec::new, |thing| match &thing.body {
            Body::Dataset(dataset) => dataset.chunks.iter().map(|chunk| chunk.digest).collect(),
            Body::Training(_) | Body::Study(_) | Body::Job(_) | Body::Token(_) | Body::Revocation(_) => {
                Vec::new()
            }
        })
    }

    /// A client does the next thing, or tries again.
    pub(super) fn client_acts(&mut self, c: usize) {
        if self.clients[c].ticket.is_some() {
            return;
        }
        if self.clients[c].doing.is_none() {
            self.clients[c].doing = match self.stage {
                Stage::Storm => Some(self.whim(c)),
                Stage::Agreeing | Stage::Quiet | Stage::Over => None,
                Stage::Finishing => self.duty(c),
            };
        }
        let Some(doing) = &mut self.clients[c].doing else {
            return self.later(Duration::from_secs(1), What::Client(c));
        };
        doing.tries += 1;
        let (request, uploads) = (doing.request.clone(), doing.uploads.clone());
        let host = self.clients[c].host;
        if !uploads.into_iter().all(|blob| self.put(Place::Client(c), host, blob)) {
            return self.client_fails(c);
        }
        let wait = match &request {
            Request::Watch { wait_ms, .. } => Duration::from_millis(*wait_ms),
            Request::Create { .. } | Request::Delete { .. } | Request::Cancel { .. } => {
                Duration::from_secs(20)
            }
            Request::Find { .. } | Request::List { .. } | Request::Claim(_) | Request::Renew { .. } => {
                Duration::ZERO
            }
            Request::Report { .. }
            | Request::Leave { .. }
            | Request::Redeem { .. }
            | Request::Locate { .. }
            | Request::Route { .. } => Duration::ZERO,
            Request::Users { .. } | Request::Leases { .. } | Request::Workers => Duration::ZERO,
        };
        let ticket = self.ask(Who::Client(c), Place::Client(c), host, request, PATIENCE + wait);
        self.clients[c].ticket = Some(ticket);
    }

    fn client_fails(&mut self, c: usize) {
        let hosts = self.hosts.len();
        let client = &mut self.clients[c];
        client.host = (client.host + 1) % hosts;
        let tired = client.doing.as_ref().is_some_and(|doing| doing.tries >= MAX_TRIES);
        if tired || self.stage != Stage::Storm {
            client.doing = None;
        }
        let again = self.dice.millis(300, 2_000);
        self.later(again, What::Client(c));
    }

    /// A client is answered, or not.
    pub(super) fn client_hears(&mut self, c: usize, ticket: Ticket, heard: Heard) {
        if self.clients[c].ticket != Some(ticket) {
            return;
        }
        self.clients[c].ticket = None;
        let retry = match heard {
            Heard::Nothing | Heard::BlobsMissing => true,
            Heard::Response(Response::Refused(refusal)) => match refusal {
                Refusal::Unreachable { .. } | Refusal::NoAnswer | Refusal::TooFewCopies { .. } => true,
                Refusal::NotFound { .. } | Refusal::Ambiguous { .. } | Refusal::InUse { .. } => false,
                Refusal::NotCancellable | Refusal::StaleLease { .. } | Refusal::TooManyNames => false,
            },
            Heard::Response(Response::Family { version, .. }) => {
                self.clients[c].seen = version;
                false
            }
            Heard::Response(_) => false,
        };
        if retry {
            return self.client_fails(c);
        }
        self.clients[c].doing = None;
        let think =
            if self.stage == Stage::Storm { self.dice.millis(300, 7_000) } else { self.dice.millis(10, 200) };
        self.later(think, What::Client(c));
    }

    /// A client goes away before it is answered.
    pub(super) fn client_goes(&mut self) -> bool {
        let waiting: Vec<Ticket> = self.clients.iter().filter_map(|client| client.ticket).collect();
        let Some(ticket) = self.dice.pick(&waiting) else { return false };
        self.patience_ends(ticket);
        true
    }

    fn create(&self, thing: &Thing, name: Option<String>) -> Doing {
        let request = Request::Create { body: thing.body.clone(), name };
        Doing { request, uploads: self.chunks(&thing.id), tries: 0 }
    }

    /// What a client may come to think of.
    fn whim(&mut self, c: usize) -> Doing {
        let thing = self.dice.below(self.things.len());
        let id = self.things[thing].id;
        let kind = self.things[thing].body.kind();
        let is_dead = self.ledger.acked.get(&id).is_some_and(|acked| !acked.alive);
        let choice = match self.forsaken == Some(id) {
            true if is_dead => 19,
            true => 16,
            false => self.dice.below(24),
        };
        let wait_ms = 1_000 * self.dice.below(12) as u64;
        let text = if self.dice.once_in(2) { self.things[thing].name.clone() } else { id.short() };
        let name = (choice < 5).then(|| self.things[thing].name.clone());
        let mut seen = self.clients[c].seen;
        if self.dice.once_in(4) {
            seen = 0;
        }
        let request = match choice {
            0..12 => return self.create(&self.things[thing], name),
            12..16 => Request::Watch { id, seen, wait_ms },
            16 | 17 => Request::Delete { id },
            18 => Request::Cancel { id },
            19 => Request::List { kind, after: None, limit: 2 },
            20 => Request::Find { kind, text },
            21 => Request::Find { kind: Kind::Model, text },
            22 => Request::Route { id },
            _ => Request::Workers,
        };
        Doing { request, uploads: Vec::new(), tries: 0 }
    }

    /// In the end what is wanted is made, and what is not is deleted, in an order in which that is possible. The first
    /// client sees to that.
    fn duty(&mut self, c: usize) -> Option<Doing> {
        if c > 0 {
            return None;
        }
        let create =
            self.things.iter().find(|thing| thing.wanted && !self.goes_on(thing) && self.may_be_made(thing));
        if let Some(thing) = create {
            return Some(self.create(thing, None));
        }
        // Users of a thing come after it.
        let delete =
            |thing: &&Thing| !thing.wanted && self.exists(thing) || thing.wanted && self.has_failed(thing);
        let thing = self.things.iter().rev().find(delete)?;
        Some(Doing { request: Request::Delete { id: thing.id }, uploads: Vec::new(), tries: 0 })
    }

    fn may_be_made(&self, thing: &Thing) -> bool {
        let Body::Job(Job { spec: JobSpec { work: Work::Predict { model, .. }, .. }, .. }) = &thing.body
        else {
            return true;
        };
        self.hosts.iter().any(|host| host.node.as_ref().is_some_and(|node| node.refers_to(model)))
    }

    /// Decides what is wanted in the end: with a prediction its training, with a training its table.
    pub(super) fn make_up_minds(&mut self) {
        let mut needed: Vec<Digest> = Vec::new();
        for n in (0..self.things.len()).rev() {
            let id = self.things[n].id;
            let drawn = !self.dice.once_in(3);
            self.things[n].wanted = drawn || needed.contains(&id);
            if !self.things[n].wanted {
                continue;
            }
            match &self.things[n].body {
                Body::Dataset(_) | Body::Token(_) | Body::Revocation(_) => {}
                body @ (Body::Training(_) | Body::Study(_)) => {
                    needed.extend(Parent::of(body).map(Parent::dataset));
                }
                Body::Job(job) => {
                    needed.push(job.spec.work.dataset());
                    // A prediction stands right after its training.
                    needed.push(self.things[n - 1].id);
                }
            }
        }
    }

    /// Nobody does anything but what the end demands.
    pub(super) fn clients_stop(&mut self) {
        for c in 0..self.clients.len() {
            let client = &mut self.clients[c];
            client.doing = None;
            if client.ticket.take().is_some() {
                self.later(Duration::from_secs(1), What::Client(c));
            }
        }
    }

    /// In some seeds name resolution fails while there are no others to ask.
    pub(super) fn mislead(&mut self, fault: Fault) -> bool {
        let hosts = self.hosts.len();
        self.detector.mislead(&mut self.dice, hosts, fault)
    }
}

fn dataset(dice: &mut Dice) -> Dataset {
    let count = 1 + dice.below(3);
    let chunk = |_| Chunk { digest: Digest::of(&dice.number().to_le_bytes()), rows: 10, bytes: 100 };
    let chunks: Vec<Chunk> = (0..count).map(chunk).collect();
    Dataset { rows: 10 * chunks.len() as u64, columns: Vec::new(), chunks }
}

fn study(dice: &mut Dice, dataset: Digest) -> Study {
    let search = Plan { rounds: 1 + dice.below(4) as u32, units: 1 + dice.below(6) as u32, fold: true };
    let spec = StudySpec {
        training: TrainingSpec { models: Vec::new(), ..training(dice, dataset) },
        spaces: Vec::new(),
        strategy: Strategy::Random,
        trials: search.rounds * search.units,
        reduction: 1,
        metric: "rmse".into(),
        keep: 1,
        search,
    };
    Study { spec, priority: dice.below(2) as i32, stops: 0 }
}

fn training(dice: &mut Dice, dataset: Digest) -> TrainingSpec {
    let problem =
        Problem { task: Task::Regression, dataset, target: "y".into(), features: alloc::vec!["x".into()] };
    let mut plan = |rounds: usize| {
        let (rounds, units) = (1 + dice.below(rounds) as u32, 1 + dice.below(4) as u32);
        Plan { rounds, units, fold: true }
    };
    let (prepare, evaluate) = (plan(1), plan(1));
    let model = |plan| ModelSpec { kind: "kind".into(), params: Params::default(), plan };
    let mut models: Vec<ModelSpec> = [plan(3), plan(3)].into_iter().map(model).collect();
    models.truncate(1 + dice.below(2));
    if dice.once_in(8) {
        // So many units are written down one by one.
        models[0].plan = Plan { rounds: 2, units: 16 + dice.below(4) as u32, fold: true };
    }
    let validation = if dice.once_in(4) { Validation::Folds(2) } else { Validation::Holdout(0.2) };
    TrainingSpec { problem, models, validation, seed: dice.number(), prepare, evaluate, ensemble: None }
}
