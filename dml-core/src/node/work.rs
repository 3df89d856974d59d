//! The requests about work: claims, results, leases that run out.

use alloc::{string::ToString, vec::Vec};
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
        while (work.len() as u32) < claim.slots {
            let Some((job, slot)) = self.next(now, claim) else { break };
            let (spec, progress) = (job.spec.clone(), job.progress.clone());
            let lease = self.leases.grant(now, slot, &claim.worker);
            self.shares.serve(&slot.job);
            let lease_ms = self.settings.lease.as_millis() as u64;
            work.push(Assignment { lease, lease_ms, spec, progress });
        }
        work
    }

    fn next(&self, now: Duration, claim: &Claim) -> Option<(&Job, Slot)> {
        let free = self.shares.jobs().filter_map(|id| {
            let job = self.catalogue.job(id)?;
            let slot = self.free_slot(now, *id, job)?;
            let (created, priority) = self.catalogue.standing(*id);
            let local = claim.have.contains(&job.spec.work.dataset());
            Some((self.shares.turn(*id, priority, local, created), job, slot))
        });
        free.min_by_key(|(turn, _, _)| *turn).map(|(_, job, slot)| (job, slot))
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
        let Some(job) = self.catalogue.job(&slot.job) else {
            return Response::Refused(Refusal::NotFound { what: "job".into(), text: slot.job.to_string() });
        };
        let plan = job.spec.plan;
        let stale = Response::Refused(Refusal::StaleLease { slot });
        if job.progress.round != slot.round || !job.is_open() {
            return stale;
        }
        let news = match (outcome, slot.piece) {
            (Outcome::Released { pause_ms }, _) => {
                self.leases.release(now, &lease, Duration::from_millis(pause_ms));
                return Response::Done;
            }
            (Outcome::Failed(why), _) => {
                self.fail(slot.job, why);
                return Response::Done;
            }
            (Outcome::Partial(partial), Piece::Unit(unit)) if unit < plan.units => {
                let state = job.progress.state;
                Progress { round: slot.round, state, units: [(unit, partial)].into() }
            }
            (Outcome::State { state, finished }, Piece::Fold) if plan.fold => {
                let round = if finished { plan.rounds } else { slot.round + 1 };
                Progress { round, state: Some(state), units: Default::default() }
            }
            (Outcome::Partial(_) | Outcome::State { .. }, _) => return stale,
        };
        self.leases.done(&slot);
        if news.round > slot.round {
            self.leases.forget(slot.job, news.round);
        }
        self.advance(slot.job, news);
        Response::Done
    }

    fn advance(&mut self, id: Digest, news: Progress) {
        let mut learned = false;
        self.catalogue.change(id, |record| {
            if let Some(Body::Job(job)) = &mut record.body {
                learned = job.progress.merge(news);
            }
        });
        if learned {
            self.changed(id);
        }
    }

    fn fail(&mut self, id: Digest, why: alloc::string::String) {
        self.leases.forget(id, u32::MAX);
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
            let why = alloc::format!(
                "a piece of this job was started {MAX_LOST} times and no worker lived to finish it: \
                 it may need more memory than a worker has"
            );
            self.fail(slot.job, why);
        }
        let forget = self.settings.forget_worker;
        self.workers.retain(|_, seen| now.saturating_sub(seen.at) < forget);
    }
}
