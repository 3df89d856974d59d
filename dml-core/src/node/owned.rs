//! Ownership: what this node hands out work on. It follows from who holds a thing and who is there, so nobody decides
//! it; when it moves between two nodes that see each other, the leases move with it.

use alloc::{string::ToString, vec::Vec};
use core::time::Duration;

use super::{Holder, LeaseSeen, Message, Node, Refusal, Response, Route};
use crate::{id::Digest, lease::Lease, member::NodeId, record::Body};

/// An owner-to-be that waits for the leases of the one before.
pub(super) struct Handover {
    from: NodeId,
    until: Duration,
}

/// How often leases are passed on.
const MAX_HOPS: u8 = 3;

impl Node {
    /// Takes a thing over, or lets go of it, as its holders have it.
    pub(super) fn check_owner(&mut self, root: Digest) {
        self.check_owner_after(root, None);
    }

    /// The same, when a node has just sent it, of whose row nothing may be known yet.
    pub(super) fn check_owner_after(&mut self, root: Digest, sender: Option<NodeId>) {
        let owner = self.owner(&root);
        let mine = owner == Some(self.me.id);
        match (mine, self.owned.contains(&root)) {
            (true, false) => {
                let before = self.active_holders(&root).into_iter().find(|id| *id != self.me.id).or(sender);
                match before {
                    _ if self.handovers.contains_key(&root) => {}
                    Some(from) if self.has_work(&root) => {
                        let until = self.now + self.settings.patience;
                        self.handovers.insert(root, Handover { from, until });
                    }
                    Some(_) | None => self.take_over(root),
                }
            }
            (false, true) => {
                self.owned.remove(&root);
                self.hand_over(root, owner);
            }
            (true, true) | (false, false) => {}
        }
    }

    /// Whether there may be leases on it.
    fn has_work(&self, root: &Digest) -> bool {
        let family = self.catalogue.family(*root);
        family.iter().any(|id| self.catalogue.job(id).is_some_and(crate::job::Job::is_open))
    }

    pub(super) fn take_over(&mut self, root: Digest) {
        self.handovers.remove(&root);
        self.owned.insert(root);
        self.follow(root);
    }

    fn hand_over(&mut self, root: Digest, owner: Option<NodeId>) {
        let family = self.catalogue.family(root);
        let leases: Vec<(Lease, LeaseSeen)> =
            family.iter().flat_map(|id| self.leases_on(root, *id)).collect();
        let has_jobs = family.iter().any(|id| self.catalogue.job(id).is_some());
        family.into_iter().for_each(|id| self.close(id));
        // What has no jobs has no work at any node, so nobody waits for it.
        if let Some(owner) = owner.filter(|_| has_jobs) {
            self.send(owner, Message::Handover { root, leases, hops: 0 });
        }
    }

    fn leases_on(&self, root: Digest, job: Digest) -> Vec<(Lease, LeaseSeen)> {
        let seen = |(slot, epoch, worker, until): (_, u64, &str, Duration)| {
            let left_ms = until.saturating_sub(self.now).as_millis() as u64;
            (Lease { slot, root, epoch }, LeaseSeen { slot, worker: worker.into(), left_ms })
        };
        self.leases.of(job).map(seen).collect()
    }

    /// Another node hands over what this one owns now.
    pub(super) fn handed_over(&mut self, root: Digest, leases: Vec<(Lease, LeaseSeen)>, hops: u8) {
        // Another node thought that it owned this: what it did may not be known here.
        self.doubt();
        let owner = self.owner(&root);
        if owner != Some(self.me.id) {
            // It has moved on meanwhile.
            if let Some(owner) = owner.filter(|_| hops < MAX_HOPS) {
                self.send(owner, Message::Handover { root, leases, hops: hops + 1 });
            }
            return;
        }
        if !self.owned.contains(&root) {
            self.take_over(root);
        }
        for (lease, seen) in leases {
            self.adopt(&lease, &seen.worker, Duration::from_millis(seen.left_ms));
        }
    }

    /// Takes over a lease that another node granted on a piece that is still wanted.
    pub(super) fn adopt(&mut self, lease: &Lease, worker: &str, left: Duration) -> bool {
        let slot = lease.slot;
        let is_wanted = self.owned.contains(&lease.root)
            && self.catalogue.job(&slot.job).is_some_and(|job| {
                let done = matches!(slot.piece, crate::lease::Piece::Unit(unit) if job.progress.units.contains_key(&unit));
                job.is_open() && job.progress.round == slot.round && job.spec.plan.has(slot.piece) && !done
            })
            && self.shares.is_open(&slot.job);
        if is_wanted {
            self.leases.adopt(self.now + left.min(self.settings.lease), lease, worker);
        }
        is_wanted && self.leases.holder(lease).is_some()
    }

    /// Waits no longer for what a node does not hand over.
    pub(super) fn expire_handovers(&mut self) {
        let over = |handover: &Handover| handover.until <= self.now || !self.is_active(handover.from);
        let over: Vec<Digest> =
            self.handovers.iter().filter(|(_, handover)| over(handover)).map(|(root, _)| *root).collect();
        for root in over {
            self.handovers.remove(&root);
            if self.owner(&root) == Some(self.me.id) {
                self.take_over(root);
            }
        }
    }

    pub(super) fn handovers_deadline(&self) -> Option<Duration> {
        self.handovers.values().map(|handover| handover.until).min()
    }

    /// Leases on what has been done or decided meanwhile are over.
    pub(super) fn settle_leases(&mut self, id: Digest) {
        let Some(Body::Job(job)) = self.catalogue.body(&id) else { return };
        let round = job.progress.round;
        let done: Vec<_> = self
            .leases
            .of(id)
            .map(|(slot, ..)| slot)
            .filter(|slot| {
                matches!(slot.piece, crate::lease::Piece::Unit(unit) if job.progress.units.contains_key(&unit))
            })
            .collect();
        self.leases.forget(id, ..round);
        done.iter().for_each(|slot| self.leases.done(slot));
    }

    /// Where something is, as this node knows it.
    pub(super) fn route(&self, id: Digest, root: Digest) -> Response {
        let holder = |(node, held): &(NodeId, _)| Holder {
            node: *node,
            address: self.address(*node),
            active: self.is_active(*node),
            held: *held,
        };
        let holders: Vec<Holder> = self.routing.holders(&root).iter().map(holder).collect();
        if holders.is_empty() {
            return Response::Refused(Refusal::NotFound { what: "record".into(), text: id.to_string() });
        }
        Response::Route(Route { root, owner: self.owner(&root), holders, factor: self.factor(&root) })
    }

    fn address(&self, node: NodeId) -> Option<core::net::SocketAddr> {
        if node == self.me.id {
            return Some(self.me.address);
        }
        self.peers.get(&node).map(|peer| peer.member.address)
    }

    /// Who works on a thing.
    pub(super) fn list_leases(&self, root: Digest) -> Response {
        let family = self.catalogue.family(root);
        let leases = family.into_iter().flat_map(|id| self.leases_on(root, id));
        Response::Leases(leases.map(|(_, seen)| seen).collect())
    }
}
