//! The requests about work: claims, results, leases that run out.

use alloc::{
    collections::BTreeMap,
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::{cmp::Reverse, time::Duration};

use super::{
    Assignment, Claim, Message, Node, Offer, Outcome, Refusal, Response, Ticket, WaitingClaim,
    copies::Learned,
};
use crate::{
    id::Digest,
    job::{Job, Progress},
    lease::{Lease, MAX_LOST, Piece, Slot},
    member::NodeId,
    record::{Body, Record},
};

/// Where work comes from.
enum Source {
    Here,
    Node(NodeId),
}

/// What one piece costs a source with one job; with more jobs it costs less, so that each job gets the same share
/// (stride scheduling: Waldspurger, Weihl 1995).
const STRIDE: u64 = 1 << 20;

impl Node {
    /// Answers the claims for which there is work, in the order in which they came, and those that waited long enough.
    pub(super) fn hand_out(&mut self) {
        let tickets: Vec<Ticket> = self.claims.keys().copied().collect();
        tickets.into_iter().for_each(|ticket| self.serve_claim(ticket));
    }

    fn serve_claim(&mut self, ticket: Ticket) {
        while let Some(waiting) = self.claims.get_mut(&ticket).filter(|waiting| !waiting.asking) {
            let (claim, until) = (waiting.what.clone(), waiting.until);
            let source = if claim.slots == 0 { None } else { self.next_source(self.foreign(ticket)) };
            match source {
                Some(Source::Here) => {
                    let (jobs, _) = self.shares.ready();
                    let work = self.assign(&claim);
                    if !work.is_empty() {
                        self.turn += work.len() as u64 * STRIDE / u64::from(jobs.max(1));
                        self.claims.remove(&ticket);
                        self.answer(ticket, Response::Work(work));
                    }
                }
                Some(Source::Node(id)) => {
                    waiting_of(&mut self.claims, ticket).asking = true;
                    self.ask_for_work(id, claim, ticket);
                }
                None if until <= self.now => {
                    self.claims.remove(&ticket);
                    if let Some(peer) = self.foreign(ticket).and_then(|id| self.peers.get_mut(&id)) {
                        peer.offered = Offer::default();
                    }
                    self.answer(ticket, Response::Work(Vec::new()));
                }
                None => return,
            }
        }
    }

    /// Whose turn it is to give work: the greatest priority first, then who gave least for what it has.
    fn next_source(&self, foreign: Option<NodeId>) -> Option<Source> {
        let (jobs, priority) = self.shares.ready();
        let here = (jobs > 0).then_some(((Reverse(priority), self.turn, self.me.place()), Source::Here));
        let others =
            self.peers.iter().filter(|(_, peer)| foreign.is_none() && peer.active && peer.offer.jobs > 0);
        let others = others.map(|(id, peer)| {
            ((Reverse(peer.offer.priority), peer.turn, peer.member.place()), Source::Node(*id))
        });
        here.into_iter().chain(others).min_by_key(|(turn, _)| *turn).map(|(_, source)| source)
    }

    /// Another node says what it has to hand out.
    pub(super) fn offered(&mut self, from: NodeId, offer: Offer) {
        let least = self.least_turn();
        if let Some(peer) = self.peers.get_mut(&from) {
            if peer.offer.jobs == 0 {
                peer.turn = peer.turn.max(least);
            }
            peer.offer = offer;
            peer.offers += 1;
        }
    }

    /// The turn of who is next: where one begins that had nothing to give for a while.
    fn least_turn(&self) -> u64 {
        let here = (self.shares.ready().0 > 0).then_some(self.turn);
        let others = self.peers.values().filter(|peer| peer.offer.jobs > 0).map(|peer| peer.turn);
        here.into_iter().chain(others).min().unwrap_or(0)
    }

    /// Tells the others that there is work here, when that is news to them.
    pub(super) fn offer_work(&mut self) {
        let (jobs, priority) = self.shares.ready();
        if jobs == 0 {
            return;
        }
        let offer = Offer { jobs, priority };
        let is_news = |known: Offer| {
            known.priority != priority || jobs >= known.jobs.saturating_mul(2) || jobs <= known.jobs / 2
        };
        let told = self.peers.iter_mut().filter(|(_, peer)| peer.active && is_news(peer.offered));
        let told: Vec<NodeId> = told
            .map(|(id, peer)| {
                peer.offered = offer;
                *id
            })
            .collect();
        told.into_iter().for_each(|id| self.send(id, Message::Offer(offer)));
    }

    /// A node was asked for work on behalf of a claim. Gives back the work that nobody waits for any more.
    pub(super) fn work_came(
        &mut self,
        from: NodeId,
        offers: u64,
        ticket: Ticket,
        work: Vec<Assignment>,
    ) -> Option<Vec<Assignment>> {
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.turn += work.len() as u64 * STRIDE / u64::from(peer.offer.jobs.max(1));
            // An offer that came meanwhile may be newer than this answer.
            if work.is_empty() && peer.offers == offers {
                peer.offer = Offer::default();
            }
        }
        let Some(waiting) = self.claims.get_mut(&ticket) else { return (!work.is_empty()).then_some(work) };
        waiting.asking = false;
        if work.is_empty() {
            return None;
        }
        // A worker that has left meanwhile does not want it.
        if waiting.what.slots == 0 {
            return Some(work);
        }
        self.claims.remove(&ticket);
        self.answer(ticket, Response::Work(work));
        None
    }

    /// The next pieces for a worker, fairly chosen.
    pub(super) fn assign(&mut self, claim: &Claim) -> Vec<Assignment> {
        let mut work = Vec::new();
        while (work.len() as u32) < claim.slots
            && let Some(id) = self.shares.next(&claim.have)
        {
            let job = self.catalogue.job(&id);
            let Some((job, (slot, others))) =
                job.and_then(|job| Some((job, self.free_slot(id, job, &claim.worker)?)))
            else {
                self.shares.rest(&id);
                continue;
            };
            // What another worker is likely to come back for is taken only by one that would go without work.
            if others && !work.is_empty() {
                break;
            }
            // Only a fold needs the partials.
            let units = match slot.piece {
                Piece::Unit(_) => BTreeMap::new(),
                Piece::Fold => job.progress.units.clone(),
            };
            let (spec, progress) = (job.spec.clone(), Progress { units, ..job.progress });
            if spec.plan.has_shards() {
                self.leases.remember(slot, &claim.worker);
            }
            let lost = self.leases.lost(&slot);
            let lease = self.leases.grant(self.now, slot, self.catalogue.root(id), &claim.worker);
            self.shares.serve(&id);
            let lease_ms = self.settings.lease.as_millis() as u64;
            work.push(Assignment { lease, lease_ms, lost, spec, progress });
        }
        work
    }

    /// The first piece of a job that nobody works on, and whether another worker had it in the round before. A worker
    /// gets what it had itself before what nobody had, and that before what others had.
    fn free_slot(&self, id: Digest, job: &Job, worker: &str) -> Option<(Slot, bool)> {
        let (plan, progress) = (&job.spec.plan, &job.progress);
        let slot = |piece| Slot { job: id, round: progress.round, piece };
        let free = |slot: &Slot| self.leases.is_free(self.now, slot);
        if plan.fold && (plan.units == 1 || progress.is_foldable(plan)) {
            return Some((slot(Piece::Fold), false)).filter(|(slot, _)| free(slot));
        }
        let open = (0..plan.units).filter(|unit| !progress.units.contains_key(unit));
        let mut open = open.filter(|unit| free(&slot(Piece::Unit(*unit))));
        if !plan.has_shards() {
            return open.next().map(|unit| (slot(Piece::Unit(unit)), false));
        }
        let nearness = |unit: &u32| match self.leases.last_hands(id, *unit) {
            Some(hands) if hands == worker => 0,
            None => 1,
            Some(_) => 2,
        };
        let unit = open.min_by_key(nearness)?;
        Some((slot(Piece::Unit(unit)), nearness(&unit) == 2))
    }

    /// Takes a result in, whoever brings it: it is the same bytes. Only what is over is refused.
    pub(super) fn report(&mut self, lease: Lease, outcome: Outcome) -> Response {
        let slot = lease.slot;
        if let Outcome::Released { pause_ms } = outcome {
            // No piece is kept back for longer than by a worker that died with it.
            let pause = Duration::from_millis(pause_ms).min(self.settings.lease);
            self.leases.release(self.now, &lease, pause);
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
            self.done.repeated += u64::from(!matches!(outcome, Outcome::Failed(_)));
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
        let (Some(job), Some(record)) = (self.catalogue.job(&id), self.catalogue.get(&id)) else { return };
        let body = Body::Job(Job { progress: news, ..Job::new(job.spec.clone()) });
        let delta = Record { life: record.life, ..Record::new(body) };
        let learned = self.merge_record(id, delta.clone());
        self.done.pieces += u64::from(learned != Learned::Nothing);
        self.done.repeated += u64::from(learned == Learned::Nothing);
        match learned {
            Learned::Nothing => {}
            Learned::Units => {
                // Nothing but this job's own next pieces follows from it.
                self.note_units(id, delta);
                self.shares.wake(&id);
            }
            Learned::More => {
                self.done.jobs_finished += u64::from(self.catalogue.job(&id).is_some_and(Job::is_finished));
                self.note(id, Some(delta));
                self.follow(id);
            }
        }
    }

    fn fail(&mut self, id: Digest, why: String) {
        self.done.jobs_failed += 1;
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
    pub(super) fn expire(&mut self) {
        let now = self.now;
        for slot in self.leases.expire(now) {
            self.freed(slot);
        }
        let forget = self.settings.forget_worker;
        self.workers.retain(|_, seen| now.saturating_sub(seen.at) < forget);
    }

    /// A piece is free again, unless it seems to be what kills its workers.
    fn freed(&mut self, slot: Slot) {
        let lost = self.leases.lost(&slot);
        let can_give_up = self.catalogue.job(&slot.job).is_some_and(|job| job.spec.work.can_give_up());
        // A worker is told to give up what it can; if that kills it too, it is the job that does.
        let most = if can_give_up { 2 * MAX_LOST } else { MAX_LOST };
        if lost >= most {
            let why = format!(
                "a piece of this job was started {lost} times and no worker lived to finish it: \
                 it may need more memory than a worker has"
            );
            self.fail(slot.job, why);
        } else {
            self.shares.wake(&slot.job);
        }
    }

    /// Renews leases that this node has granted, or that its predecessor has. Gives those that are lost.
    pub(super) fn renew_here(&mut self, worker: &str, leases: Vec<Lease>) -> Vec<Lease> {
        let (now, life) = (self.now, self.settings.lease);
        leases.iter().for_each(|lease| self.heard(lease));
        let lost = |lease: &Lease| !self.leases.renew(now, lease) && !self.adopt(lease, worker, life);
        leases.into_iter().filter(lost).collect()
    }

    /// A worker was heard of: it holds this lease.
    pub(super) fn heard(&mut self, lease: &Lease) {
        if let Some(worker) = self.leases.holder(lease)
            && let Some(seen) = self.workers.get_mut(worker)
        {
            seen.at = self.now;
        }
    }

    /// A worker leaves: what it holds is free, and what it asked for is not wanted any more.
    pub(super) fn leave(&mut self, worker: &str, dead: bool) {
        for slot in self.leases.release_all(worker, dead) {
            self.freed(slot);
        }
        for waiting in self.claims.values_mut().filter(|waiting| waiting.what.worker == worker) {
            waiting.what.slots = 0;
            waiting.until = self.now;
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
        self.leases.close(id);
    }
}

fn waiting_of(claims: &mut BTreeMap<Ticket, WaitingClaim>, ticket: Ticket) -> &mut WaitingClaim {
    claims.get_mut(&ticket).expect("it was just there")
}
