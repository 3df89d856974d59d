//! The end of a run. When the faults are over, all nodes must agree within a minute; then everything that is wanted must
//! be finished with the results of the for-loop; then nothing may be left over.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    format,
    string::String,
    vec::Vec,
};
use core::time::Duration;

use super::{
    Invariant,
    client::Thing,
    fault::Fault,
    world::{What, World},
};
use crate::{
    id::Digest,
    member::NodeId,
    node::{Effect, Event, Request, Response},
    parent::Parent,
    record::{Body, Record},
    routing::Held,
};

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Faults.
    Storm,
    /// No faults, no work: nodes come to agree.
    Agreeing,
    /// What is wanted is finished.
    Finishing,
    /// Nothing happens.
    Quiet,
    /// That was all.
    Over,
}

/// How long nodes may take to agree.
const AGREE: Duration = Duration::from_secs(60);

/// How long everything that is wanted may take.
const FINISH: Duration = Duration::from_secs(900);

/// How often is looked how far everything has come.
const LOOK: Duration = Duration::from_secs(2);

type Families<'a> = BTreeMap<Digest, Vec<(Digest, &'a Record)>>;

impl World<'_> {
    /// Looks how far everything has come, and goes on to the next stage.
    pub(super) fn look_how_far(&mut self) {
        match self.stage {
            Stage::Storm => {
                self.heal();
                self.clients_stop();
                self.enter(Stage::Agreeing, AGREE);
            }
            Stage::Agreeing => match self.agreed() {
                // In some seeds all is so calm before the work begins that no piece may be leased twice.
                Ok(()) if self.patient && !self.is_calm() => self.until = self.now + AGREE,
                Ok(()) => {
                    self.check_acknowledged();
                    self.make_up_minds();
                    self.enter(Stage::Finishing, FINISH);
                }
                Err(why) if self.now > self.until => self.breach(Invariant::ReplicasAgree, || why),
                Err(_) => {}
            },
            Stage::Finishing => match self.finished() {
                Ok(()) => {
                    let quiet = self.settings.lease + self.settings.max_wait + self.settings.blob_grace;
                    self.clients_stop();
                    self.enter(Stage::Quiet, quiet + Duration::from_secs(40));
                }
                Err(why) if self.now > self.until => self.breach(Invariant::Liveness, || why),
                Err(_) => self.disturb_a_little(),
            },
            Stage::Quiet if self.now > self.until => {
                if let Err(why) = self.agreed() {
                    self.breach(Invariant::ReplicasAgree, || why);
                }
                self.check_leftovers();
                self.stage = Stage::Over;
            }
            Stage::Quiet | Stage::Over => {}
        }
        self.later(LOOK, What::LookHowFar);
    }

    fn enter(&mut self, stage: Stage, time: Duration) {
        self.note(|| format!("now {stage:?}"));
        self.stage = stage;
        self.until = self.now + time;
    }

    /// What must not matter to leases: workers that stall, wall clocks that jump.
    fn disturb_a_little(&mut self) {
        let fault = if self.dice.once_in(2) { Fault::WorkerStalled } else { Fault::ClockJump };
        let often = if self.patient { 2 } else { 6 };
        if self.now + FINISH < self.until + AGREE && self.dice.once_in(often) && self.inject(fault) {
            self.met(fault);
        }
    }

    /// Whether all nodes know each other and hold the same, in as many copies as are wanted; else why not.
    pub(super) fn agreed(&mut self) -> Result<(), String> {
        for (n, host) in self.hosts.iter().enumerate() {
            let seen = host.view.len();
            if seen + 1 != self.hosts.len() {
                return Err(format!("host {n} knows {seen} of {} others", self.hosts.len() - 1));
            }
            if host.disk.is_waiting() || host.disk.is_hurt() {
                return Err(format!("host {n} still writes, or lacks a blob"));
            }
        }
        let families: Vec<Families<'_>> =
            self.hosts.iter().map(|host| families(host.disk.durable())).collect();
        let roots: BTreeSet<Digest> = families.iter().flat_map(|families| families.keys().copied()).collect();
        let mut holders = Vec::new();
        for root in roots {
            if let Some(of) = self.copies_agree(root, &families)? {
                holders.push((root, of));
            }
        }
        holders.into_iter().try_for_each(|(root, of)| self.routes_agree(root, &of))
    }

    /// The holders of a thing, if they have the same and are enough; none if it is dead everywhere.
    fn copies_agree(&self, root: Digest, families: &[Families<'_>]) -> Result<Option<Vec<usize>>, String> {
        let records = self.hosts.iter().map(|host| host.disk.durable().get(&root));
        let life = records.clone().flatten().map(|record| record.life).max().unwrap_or(0);
        let newest = |record: Option<&Record>| {
            record.is_some_and(|record| record.life == life && record.body.is_some())
        };
        let holders: Vec<usize> =
            records.enumerate().filter(|(_, record)| newest(*record)).map(|(n, _)| n).collect();
        let with = (0..families.len()).find(|n| !holders.contains(n) && families[*n].contains_key(&root));
        if let Some(n) = with {
            return Err(format!("host {n} has {root:?}, which is of an earlier life or deleted"));
        }
        let Some(first) = holders.first() else { return Ok(None) };
        let wanted = (self.settings.replication as usize).min(self.hosts.len());
        if holders.len() < wanted {
            return Err(format!("{root:?} is on {} of {wanted} nodes: {holders:?}", holders.len()));
        }
        for n in &holders {
            if families[*n].get(&root) != families[*first].get(&root) {
                return Err(format!("hosts {first} and {n} differ about {root:?}"));
            }
            let disk = &self.hosts[*n].disk;
            let bodies = families[*n][&root].iter().filter_map(|(_, record)| record.body.as_ref());
            if let Some(blob) = bodies.flat_map(Body::blobs).find(|blob| !disk.is_good(blob)) {
                return Err(format!("host {n} lacks the blob {blob:?} of {root:?}"));
            }
        }
        Ok(Some(holders))
    }

    /// Every node knows who holds a thing and who owns it.
    fn routes_agree(&mut self, root: Digest, of: &[usize]) -> Result<(), String> {
        let mut holders: Vec<NodeId> = of.iter().map(|n| self.hosts[*n].me.id).collect();
        // Machines are in the order of their addresses.
        let owner = holders[0];
        holders.sort_unstable();
        for host in 0..self.hosts.len() {
            let Some(Response::Route(route)) = self.question(host, Request::Route { id: root }) else {
                return Err(format!("host {host} does not say where {root:?} is"));
            };
            let alive = route.holders.iter().filter(|holder| holder.held == Held::Alive && holder.active);
            let mut known: Vec<NodeId> = alive.map(|holder| holder.node).collect();
            known.sort_unstable();
            if known != holders || route.owner != Some(owner) {
                return Err(format!("host {host} believes {root:?} is {route:?}, but it is on {of:?}"));
            }
        }
        Ok(())
    }

    /// Asks a node something that it can answer at once.
    fn question(&mut self, host: usize, request: Request) -> Option<Response> {
        let ticket = self.name();
        let now = self.hosts[host].now(self.now);
        let event = Event::Request { ticket, request, time_ms: 0 };
        let effects = self.hosts[host].node.as_mut()?.handle(now, event);
        let mut answer = None;
        for effect in effects {
            if let Effect::Reply(of, response) = &effect
                && *of == ticket
            {
                answer = Some(response.clone());
            } else {
                self.perform(host, effect);
            }
        }
        self.plan_tick(host);
        answer
    }

    /// Everything that was acknowledged is there, and what was deleted has stayed so.
    fn check_acknowledged(&mut self) {
        for (id, (alive, life)) in
            self.ledger.acked.iter().map(|(id, acked)| (*id, (acked.alive, acked.life))).collect::<Vec<_>>()
        {
            let records: Vec<&Record> =
                self.hosts.iter().filter_map(|host| host.disk.durable().get(&id)).collect();
            let newest = records.iter().map(|record| record.life).max();
            let back = records.iter().any(|record| record.body.is_some() && record.life < life);
            if alive && newest.is_none_or(|newest| newest < life) {
                self.breach(Invariant::AcknowledgedIsDurable, || {
                    format!("{id:?} was made, and is in life {newest:?} instead of {life}")
                });
            } else if !alive && back {
                self.breach(Invariant::DeletedStaysDeleted, || {
                    format!("{id:?} was deleted in life {life}, and an old copy is back")
                });
            }
        }
    }

    /// Whether everything wanted is finished, and the rest is gone; else what is not.
    fn finished(&mut self) -> Result<(), String> {
        for thing in &self.things {
            if thing.wanted != self.exists(thing) || thing.wanted && !self.goes_on(thing) {
                return Err(format!(
                    "{} {:?} should {}be there",
                    thing.name,
                    thing.id,
                    if thing.wanted { "" } else { "not " }
                ));
            }
            for (id, course) in thing.jobs.iter().filter(|_| thing.wanted) {
                let records = self.hosts.iter().filter_map(|host| host.disk.durable().get(id));
                let mut jobs = records.filter_map(super::check::job_of);
                if !jobs.any(|job| job.progress == *course.end()) {
                    return Err(format!("job {id:?} of {} is not finished", thing.name));
                }
            }
        }
        self.agreed()
    }

    fn newest(&self, thing: &Thing) -> Option<&Record> {
        let nodes = self.hosts.iter().filter_map(|host| host.node.as_ref());
        nodes.filter_map(|node| node.record(&thing.id)).max_by_key(|record| record.life)
    }

    /// Whether a thing is there.
    pub(super) fn exists(&self, thing: &Thing) -> bool {
        self.newest(thing).is_some_and(|record| record.body.is_some())
    }

    /// Whether a thing is there and was not cancelled.
    pub(super) fn goes_on(&self, thing: &Thing) -> bool {
        match self.newest(thing).and_then(|record| record.body.as_ref()) {
            Some(body @ (Body::Training(_) | Body::Study(_))) => {
                Parent::of(body).is_some_and(|parent| !parent.is_cancelled())
            }
            Some(Body::Dataset(_) | Body::Job(_) | Body::Token(_) | Body::Revocation(_)) => true,
            None => false,
        }
    }

    /// Whether some job was given up, as too many workers died with it.
    pub(super) fn has_failed(&self, thing: &Thing) -> bool {
        let nodes = self.hosts.iter().filter_map(|host| host.node.as_ref());
        let mut jobs = nodes
            .flat_map(|node| thing.jobs.iter().filter_map(|(id, _)| super::check::job_of(node.record(id)?)));
        jobs.any(|job| job.failure.is_some())
    }

    /// When all is quiet, nothing may be left over.
    fn check_leftovers(&mut self) {
        let claims = self.workers.iter().filter(|worker| worker.is_there()).count();
        if self.asks.len() > claims {
            let open = self.asks.len();
            self.breach(Invariant::Bounded, || {
                format!("{open} questions are open, and {claims} workers claim")
            });
        }
        // A letter that is very late may bring about a copy or two.
        if self.last_copies[0] + Duration::from_secs(30) > self.now {
            self.breach(Invariant::Bounded, || "copies are sent, though nothing changes".into());
        }
        for host in 0..self.hosts.len() {
            let tombs =
                self.hosts[host].disk.durable().values().filter(|record| record.body.is_none()).count();
            let diverged = self.hosts[host].node.as_ref().map_or(0, crate::Node::divergences);
            if tombs > 0 {
                self.breach(Invariant::Bounded, || format!("host {host} still keeps {tombs} tombstones"));
            }
            if diverged > 0 {
                self.breach(Invariant::SameBytes, || format!("host {host} met {diverged} contradictions"));
            }
        }
        self.check_no_leases();
    }

    fn check_no_leases(&mut self) {
        let roots: Vec<Digest> = self.things.iter().map(|thing| thing.id).collect();
        for root in roots {
            for host in 0..self.hosts.len() {
                if let Some(Response::Leases(leases)) = self.question(host, Request::Leases { id: root })
                    && !leases.is_empty()
                {
                    self.breach(Invariant::Bounded, || format!("host {host} still has leases: {leases:?}"));
                }
            }
        }
    }
}

/// The live records of a disk, by the thing that they are part of.
fn families(records: &BTreeMap<Digest, Record>) -> Families<'_> {
    let mut families = Families::new();
    for (id, record) in records {
        let root = match &record.body {
            Some(Body::Job(job)) => job.spec.parent.unwrap_or(*id),
            Some(
                Body::Dataset(_) | Body::Training(_) | Body::Study(_) | Body::Token(_) | Body::Revocation(_),
            ) => *id,
            None => continue,
        };
        families.entry(root).or_default().push((*id, record));
    }
    families
}
