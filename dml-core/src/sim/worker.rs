//! Workers: each asks one db node at a time, computes what it is given, and keeps nothing that matters.

use alloc::{format, string::String, vec::Vec};
use core::time::Duration;

use super::{
    asks::{Heard, Who},
    faults::Mend,
    network::Place,
    reference,
    settle::Stage,
    sometimes::Sometimes,
    world::{What, World},
};
use crate::{
    id::Digest,
    node::{Assignment, Claim, Outcome, Refusal, Request, Response},
};

/// What a worker does next; the number names the piece.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    Claim,
    Renew,
    Fetch(u64),
    Put(u64),
}

/// A piece of work in a worker's hands.
struct Piece {
    id: u64,
    assignment: Assignment,
    computed: bool,
    tries: u32,
}

/// A worker.
pub(super) struct Worker {
    name: String,
    /// Counts the processes that ran in this place.
    life: u64,
    there: bool,
    /// The node that it asks.
    host: usize,
    slots: u32,
    claiming: bool,
    pieces: Vec<Piece>,
    /// Until when it does nothing.
    pub(super) stalled: Duration,
    /// The next bytes that it sends are wrong.
    pub(super) wrong: bool,
}

impl Worker {
    /// Whether a process is there.
    pub(super) fn is_there(&self) -> bool {
        self.there
    }
}

/// So often a piece is tried before the worker drops it.
const MAX_TRIES: u32 = 60;

/// How long an answer may take beyond what was asked to wait.
const PATIENCE: Duration = Duration::from_secs(6);

impl World<'_> {
    /// A worker starts.
    pub(super) fn hire(&mut self) {
        let number = self.name();
        let (host, slots) = (self.dice.below(self.hosts.len()), 1 + self.dice.below(3) as u32);
        let mut worker = Worker {
            name: format!("worker-{number:x}"),
            life: number,
            there: true,
            host,
            slots,
            claiming: false,
            pieces: Vec::new(),
            stalled: Duration::ZERO,
            wrong: false,
        };
        let free = self.workers.iter().position(|worker| !worker.there);
        match free {
            Some(place) => core::mem::swap(&mut self.workers[place], &mut worker),
            None if self.workers.len() < self.setup.workers as usize => self.workers.push(worker),
            None => return,
        }
        let place = free.unwrap_or(self.workers.len() - 1);
        let first = self.dice.millis(10, 1_000);
        self.later(first, What::Worker(place, number, Step::Claim));
        let renewal = self.renewal();
        self.later(renewal, What::Worker(place, number, Step::Renew));
    }

    /// How often leases are renewed.
    fn renewal(&self) -> Duration {
        self.settings.lease / 2
    }

    /// Does something to some worker.
    pub(super) fn some_worker(&mut self, what: impl FnOnce(&mut Worker)) -> bool {
        let there: Vec<usize> = (0..self.workers.len()).filter(|w| self.workers[*w].there).collect();
        let worker = self.dice.pick(&there);
        if let Some(worker) = worker {
            what(&mut self.workers[worker]);
        }
        worker.is_some()
    }

    /// A worker dies, or says goodbye; another one comes after a while.
    pub(super) fn lose_worker(&mut self, says_so: bool) -> bool {
        let there: Vec<usize> = (0..self.workers.len()).filter(|w| self.workers[*w].there).collect();
        let Some(w) = self.dice.pick(&there) else { return false };
        let worker = &mut self.workers[w];
        worker.there = false;
        worker.pieces.clear();
        let (host, name) = (worker.host, worker.name.clone());
        if says_so {
            let request = Request::Leave { worker: name, dead: false };
            self.ask(Who::Nobody, Place::Worker(w), host, request, PATIENCE);
        }
        let away = self.dice.millis(500, 20_000);
        self.later(away, What::Mend(Mend::Hire));
        true
    }

    /// A worker does its next step, unless it is dead; later, if it is stalled.
    pub(super) fn work(&mut self, w: usize, life: u64, step: Step) {
        let worker = &mut self.workers[w];
        if !worker.there || worker.life != life {
            return;
        }
        let stalled = worker.stalled;
        if stalled > self.now {
            return self.at(stalled, What::Worker(w, life, step));
        }
        match step {
            Step::Claim => self.claim(w),
            Step::Renew => self.renew(w),
            Step::Fetch(piece) => self.fetch_inputs(w, piece),
            Step::Put(piece) => self.put_result(w, piece),
        }
    }

    fn next_host(&mut self, w: usize, failed: usize) {
        if self.workers[w].host == failed {
            self.workers[w].host = (failed + 1) % self.hosts.len();
        }
    }

    fn claim(&mut self, w: usize) {
        if self.stage == Stage::Agreeing {
            let life = self.workers[w].life;
            return self.later(Duration::from_secs(1), What::Worker(w, life, Step::Claim));
        }
        let wait_ms = 8_000 + self.dice.below(16_000) as u64;
        let worker = &mut self.workers[w];
        let free = worker.slots - worker.pieces.len() as u32;
        if worker.claiming || free == 0 {
            return;
        }
        worker.claiming = true;
        let (life, host) = (worker.life, worker.host);
        let name = worker.name.clone();
        let claim = Claim {
            worker: name,
            slots: free,
            capacity: worker.slots,
            have: Vec::new(),
            wait_ms,
            address: None,
        };
        let patience = Duration::from_millis(wait_ms) + PATIENCE;
        self.ask(Who::Claim(w, life), Place::Worker(w), host, Request::Claim(claim), patience);
    }

    /// A claim is answered.
    pub(super) fn claim_answered(&mut self, w: usize, life: u64, host: usize, heard: Heard) {
        let worker = &mut self.workers[w];
        if !worker.there || worker.life != life {
            if let Heard::Response(response) = heard {
                self.nobody_hears(host, response);
            }
            return;
        }
        worker.claiming = false;
        let again = match heard {
            Heard::Response(Response::Work(work)) => {
                for assignment in work {
                    self.take_up(w, life, assignment);
                }
                self.dice.millis(50, 800)
            }
            Heard::Response(_) | Heard::BlobsMissing | Heard::Nothing => {
                self.next_host(w, host);
                self.dice.millis(200, 2_000)
            }
        };
        self.later(again, What::Worker(w, life, Step::Claim));
    }

    fn take_up(&mut self, w: usize, life: u64, assignment: Assignment) {
        let id = self.name();
        self.workers[w].pieces.push(Piece { id, assignment, computed: false, tries: 0 });
        let fetch = self.dice.millis(5, 60);
        self.later(fetch, What::Worker(w, life, Step::Fetch(id)));
    }

    fn fetch_inputs(&mut self, w: usize, id: u64) {
        let life = self.workers[w].life;
        let Some(piece) = self.workers[w].pieces.iter_mut().find(|piece| piece.id == id) else { return };
        piece.tries += 1;
        let (tries, lease) = (piece.tries, piece.assignment.lease);
        let Assignment { spec, progress, .. } = piece.assignment.clone();
        let mut blobs = spec.work.blobs();
        blobs.extend(progress.state.iter().chain(progress.units.values()));
        blobs.extend(self.chunks(&spec.work.dataset()));
        let missing = blobs
            .iter()
            .any(|blob| !(0..self.hosts.len()).any(|host| self.can_read(Place::Worker(w), host, blob)));
        if !missing {
            let compute = self.dice.millis(200, 3_000);
            return self.later(compute, What::Worker(w, life, Step::Put(id)));
        }
        if tries < 6 {
            let again = self.dice.millis(500, 2_500);
            return self.later(again, What::Worker(w, life, Step::Fetch(id)));
        }
        self.bring(w, id, Request::Report { lease, outcome: Outcome::Released { pause_ms: 1_000 } });
    }

    fn put_result(&mut self, w: usize, id: u64) {
        let (life, host) = (self.workers[w].life, self.workers[w].host);
        let Some(piece) = self.workers[w].pieces.iter_mut().find(|piece| piece.id == id) else { return };
        piece.tries += 1;
        piece.computed = true;
        let outcome = reference::compute(&piece.assignment);
        let lease = piece.assignment.lease;
        if piece.tries > MAX_TRIES {
            return self.drop_piece(w, id);
        }
        let blob = match outcome {
            Outcome::Partial(blob) | Outcome::State { state: blob, .. } => blob,
            Outcome::Failed(_) | Outcome::Released { .. } => return self.drop_piece(w, id),
        };
        // The store compares the bytes with the digest, and does not keep wrong ones.
        let refused = core::mem::take(&mut self.workers[w].wrong);
        if refused {
            self.reach(Sometimes::WrongBytesRefused);
        }
        if refused || !self.put(Place::Worker(w), host, blob) {
            self.next_host(w, host);
            let again = self.dice.millis(200, 1_500);
            return self.later(again, What::Worker(w, life, Step::Put(id)));
        }
        self.bring(w, id, Request::Report { lease, outcome });
    }

    /// Puts a blob at a db node. Says whether it is there.
    pub(super) fn put(&mut self, from: Place, host: usize, blob: Digest) -> bool {
        if !self.reaches(from, host) || self.hosts[host].disk.full {
            return false;
        }
        let now = self.hosts[host].now(self.now);
        self.hosts[host].disk.put(now, blob);
        self.ledger.seen_blob(blob);
        true
    }

    fn bring(&mut self, w: usize, id: u64, request: Request) {
        let (life, host) = (self.workers[w].life, self.workers[w].host);
        self.ask(Who::Report(w, life, id), Place::Worker(w), host, request, PATIENCE);
    }

    /// A report is answered.
    pub(super) fn report_answered(&mut self, w: usize, life: u64, host: usize, id: u64, heard: Heard) {
        let worker = &self.workers[w];
        if !worker.there || worker.life != life {
            return;
        }
        match heard {
            Heard::Response(Response::Done) => self.drop_piece(w, id),
            Heard::Response(Response::Refused(Refusal::StaleLease { .. } | Refusal::NotFound { .. })) => {
                self.reach(Sometimes::ResultNotNeeded);
                self.drop_piece(w, id);
            }
            Heard::Response(_) | Heard::BlobsMissing | Heard::Nothing => {
                self.next_host(w, host);
                let computed = self.workers[w].pieces.iter().any(|piece| piece.id == id && piece.computed);
                let step = if computed { Step::Put(id) } else { Step::Fetch(id) };
                let again = self.dice.millis(300, 2_000);
                self.later(again, What::Worker(w, life, step));
            }
        }
    }

    fn drop_piece(&mut self, w: usize, id: u64) {
        let worker = &mut self.workers[w];
        worker.pieces.retain(|piece| piece.id != id);
        let life = worker.life;
        let again = self.dice.millis(20, 500);
        self.later(again, What::Worker(w, life, Step::Claim));
    }

    fn renew(&mut self, w: usize) {
        let worker = &self.workers[w];
        let (life, host) = (worker.life, worker.host);
        let leases: Vec<_> = worker.pieces.iter().map(|piece| piece.assignment.lease).collect();
        if !leases.is_empty() {
            let request = Request::Renew { worker: worker.name.clone(), leases };
            self.ask(Who::Renew(w, life), Place::Worker(w), host, request, PATIENCE);
        }
        let renewal = self.renewal();
        self.later(renewal, What::Worker(w, life, Step::Renew));
    }

    /// A renewal is answered: what was lost is dropped, unless the worker is one that finishes what it began.
    pub(super) fn renewal_answered(&mut self, w: usize, life: u64, host: usize, heard: Heard) {
        if !self.workers[w].there || self.workers[w].life != life {
            return;
        }
        let Heard::Response(Response::Lost(lost)) = heard else { return self.next_host(w, host) };
        for lease in lost {
            self.reach(Sometimes::LeaseLost);
            let piece = self.workers[w].pieces.iter().find(|piece| piece.assignment.lease == lease);
            if let Some(id) = piece.map(|piece| piece.id)
                && self.dice.once_in(2)
            {
                self.drop_piece(w, id);
            }
        }
    }
}
