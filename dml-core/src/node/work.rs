//! The requests about work: claims, results, leases that run out.

use alloc::{
    collections::BTreeMap,
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::time::Duration;

use super::{Assignment, Claim, Node, Outcome, Refusal, Response};
use crate::{
    id::Digest,
    job::{Job, Progress},
    lease::{Lease, MAX_LOST, Piece, Slot},
    merge::Merge,
    record::Body,
};

impl Node {
    /// The next pieces for a worker, fairly chosen.
    pub(super) fn assign(&mut self, now: Duration, claim: &Claim) -> Vec<Assignment> {
        let mut work = Vec::new();
        while (work.len() as u32) < claim.slots
            && let Some(id) = self.shares.next(&claim.have)
        {
            let job = self.catalogue.job(&id);
            let Some((job, slot)) = job.and_then(|job| Some((job, self.free_slot(now, id, job)?))) else {
                self.shares.rest(&id);
                continue;
            };
            // Only a fold needs the partials.
            let units = match slot.piece {
                Piece::Unit(_) => BTreeMap::new(),
                Piece::Fold => job.progress.units.clone(),
            };
            let (spec, progress) = (job.spec.clone(), Progress { units, ..job.progress });
            let lease = self.leases.grant(now, slot, self.catalogue.root(id), &claim.worker);
            self.shares.serve(&id);
            let lease_ms = self.settings.lease.as_millis() as u64;
            work.push(Assignment { lease, lease_ms, spec, progress });
        }
        work
    }

    /// The first piece of a job that nobody works on.
    fn free_slot(&self, now: Duration, id: Digest, job: &Job) -> Option<Slot> {
        let (plan, progress) = (&job.spec.plan, &job.progress);
        let slot = |piece| Slot { job: id, round: progress.round, piece };
        let free = |slot: &Slot| self.leases.is_free(now, slot);
        if plan.fold && (plan.units == 1 || progress.is_foldable(plan)) {
            return Some(slot(Piece::Fold)).filter(free);
        }
        let open = (0..plan.units).filter(|unit| !progress.units.contains_key(unit));
        open.map(|unit| slot(Piece::Unit(unit))).find(free)
    }

    /// Takes a result in, whoever brings it: it is the same bytes. Only what is over is refused.
    pub(super) fn report(&mut self, now: Duration, lease: Lease, outcome: Outcome) -> Response {
        let slot = lease.slot;
        if let Outcome::Released { pause_ms } = outcome {
            // No piece is kept back for longer than by a worker that died with it.
            let pause = Duration::from_millis(pause_ms).min(self.settings.lease);
            self.leases.release(now, &lease, pause);
            self.shares.wake(&slot.job);
            return Response::Done;
        }
        let Some(job) = self.catalogue.job(&slot.job) else {
            return Response::Refused(Refusal::NotFound { what: "job".into(), text: slot.job.to_string() });
        };
        let plan = job.spec.plan;
        let done = matches!(slot.piece, Piece::Unit(unit) if job.progress.units.contains_key(&unit));
        let stale = Response::Refused(Refusal::StaleLease { slot });
        if job.progress.round != slot.round || !job.is_open() {
            return stale;
        }
        let state = job.progress.state;
        let news = match (outcome, slot.piece) {
            (Outcome::Partial(partial), Piece::Unit(unit)) if unit < plan.units => {
                Progress { round: slot.round, state, units: [(unit, partial)].into() }
            }
            (Outcome::State { state, finished }, Piece::Fold) if plan.fold => {
                let round = if finished { plan.rounds } else { slot.round + 1 };
                Progress { round, state: Some(state), units: BTreeMap::new() }
            }
            // What one worker has done, no input forbids.
            (Outcome::Failed(why), piece) if !done && plan.has(piece) => {
                self.fail(slot.job, why);
                return Response::Done;
            }
            (
                Outcome::Partial(_) | Outcome::State { .. } | Outcome::Failed(_) | Outcome::Released { .. },
                _,
            ) => {
                return stale;
            }
        };
        self.leases.done(&slot);
        if news.round > slot.round {
            self.leases.forget(slot.job, ..news.round);
        }
        self.advance(slot.job, news);
        Response::Done
    }

    fn advance(&mut self, id: Digest, news: Progress) {
        let (mut learned, mut open) = (false, false);
        self.catalogue.change(id, |record| {
            if let Some(Body::Job(job)) = &mut record.body {
                learned = job.progress.merge(news);
                open = job.is_open();
            }
        });
        match () {
            () if learned && open => {
                // Nothing but this job's own next pieces follows from it.
                self.dirty.insert(id);
                self.shares.wake(&id);
            }
            () if learned => self.changed(id),
            () => {}
        }
    }

    fn fail(&mut self, id: Digest, why: String) {
        self.catalogue.change(id, |record| {
            if let Some(Body::Job(job)) = &mut record.body
                && job.is_open()
            {
                job.failure = Some(why);
            }
        });
        self.changed(id);
    }

    /// Frees what was not renewed, forgets workers that are gone, and gives up pieces that kill their workers.
    pub(super) fn expire(&mut self, now: Duration) {
        for slot in self.leases.expire(now) {
            if self.leases.is_deadly(&slot) {
                let why = format!(
                    "a piece of this job was started {MAX_LOST} times and no worker lived to finish it: \
                     it may need more memory than a worker has"
                );
                self.fail(slot.job, why);
            } else {
                self.shares.wake(&slot.job);
            }
        }
        let forget = self.settings.forget_worker;
        self.workers.retain(|_, seen| now.saturating_sub(seen.at) < forget);
    }

    /// A worker was heard of: it holds this lease.
    pub(super) fn heard(&mut self, now: Duration, lease: &Lease) {
        if let Some(worker) = self.leases.holder(lease)
            && let Some(seen) = self.workers.get_mut(worker)
        {
            seen.at = now;
        }
    }

    /// A worker leaves: what it holds is free, and what it asked for is not wanted any more.
    pub(super) fn leave(&mut self, now: Duration, worker: &str) {
        for slot in self.leases.release_all(worker) {
            self.shares.wake(&slot.job);
        }
        for waiting in self.claims.values_mut().filter(|waiting| waiting.what.worker == worker) {
            waiting.what.slots = 0;
            waiting.until = now;
        }
        self.workers.remove(worker);
    }

    /// A job opens, or is looked at again.
    pub(super) fn open(&mut self, id: Digest) {
        if let Some(job) = self.catalogue.job(&id) {
            self.shares.open(id, self.catalogue.standing(id, job));
        }
    }

    /// A job is not worked on any more: who holds a lease on it is told so at the next renewal.
    pub(super) fn close(&mut self, id: Digest) {
        self.shares.close(&id);
        self.leases.forget(id, ..);
    }
}
