//! Leases: while all is calm no piece has two holders, and nothing that is done is handed out again.

use alloc::{collections::BTreeSet, format};
use core::time::Duration;

use super::{
    Invariant,
    check::{Held, job_of},
    host::Host,
    sometimes::Sometimes,
    world::World,
};
use crate::{
    id::Digest,
    lease::{Lease, Piece, Slot},
    member::NodeId,
    node::{Assignment, Ticket},
};

impl World<'_> {
    /// Whether nodes have had time to agree since the last fault, and do agree who is there.
    pub(super) fn is_calm(&self) -> bool {
        let settings = &self.settings;
        let up = self.hosts.iter().filter(|host| host.node.is_some());
        let ids: BTreeSet<NodeId> = up.clone().map(|host| host.me.id).collect();
        let sees_all = |host: &Host| {
            host.is_up() && host.view.len() + 1 == ids.len() && host.view.keys().all(|id| ids.contains(id))
        };
        up.clone().all(sees_all)
            && self.network.is_whole()
            && self.ledger.calm_since + settings.lease + settings.lease / 5 + settings.patience * 2 < self.now
    }

    /// A piece is handed out.
    pub(super) fn granted(&mut self, host: usize, worker: &str, assignment: &Assignment) {
        let Lease { slot, root, epoch } = assignment.lease;
        self.ledger.granted += 1;
        if self.hosts[host].node.as_ref().is_some_and(|node| node.record(&slot.job).is_none()) {
            self.reach(Sometimes::WorkFromElsewhere);
        }
        // Nodes' clocks differ, and the answer took its time.
        let until = self.now + self.settings.lease * 9 / 10 - Duration::from_millis(500);
        if self.ledger.out.insert(slot, (root, until)).is_some_and(|(_, until)| until > self.now) {
            self.reach(Sometimes::TwoOwners);
        }
        if !self.is_calm() {
            return;
        }
        let held = Held { epoch, worker: worker.into(), until };
        if let Some(before) = self.ledger.held.insert(slot, held)
            && before.until > self.now
        {
            let other = before.worker;
            self.breach(Invariant::OneLeaseHolder, || {
                format!("{slot:?} is leased to {other} and to {worker}")
            });
        }
        if self.is_done(&root, &slot) {
            self.breach(Invariant::BoundedRework, || format!("{slot:?} is handed out, and was done before"));
        }
    }

    /// Whether a piece has been done for a while, as any node can know.
    fn is_done(&self, root: &Digest, slot: &Slot) -> bool {
        let records = self.hosts.iter().filter_map(|host| host.node.as_ref()?.record(root));
        let Some(life) = records.map(|record| record.life).max() else { return false };
        let Some(reached) = self.ledger.reached.get(&(slot.job, life)) else { return false };
        let long_ago = |at: Duration| at + Duration::from_secs(5) < self.now;
        let unit = match slot.piece {
            Piece::Unit(unit) => reached.units.get(&unit).is_some_and(|at| long_ago(*at)),
            Piece::Fold => false,
        };
        // What was not durable anywhere may have been lost, and what only nodes have that are down nobody can know.
        let is_kept = self.hosts.iter().filter(|host| host.node.is_some()).any(|host| {
            let records = host.disk.durable();
            let same_life = records.get(root).is_some_and(|root| root.life == life);
            let job = records.get(&slot.job).and_then(job_of).filter(|_| same_life);
            job.is_some_and(|job| job.progress.round > slot.round || has_unit(&job.progress, slot))
        });
        let long_ago =
            reached.round > slot.round && long_ago(reached.at) || reached.round == slot.round && unit;
        is_kept && long_ago
    }

    /// Leases are renewed, but for those that were lost.
    pub(super) fn renewed(&mut self, host: usize, ticket: Ticket, lost: &[Lease]) {
        let Some(ask) = self.asks.get(&ticket) else { return };
        let (leases, since, calm) = (ask.renews.clone(), ask.since, self.is_calm());
        for lease in leases.into_iter().filter(|lease| !lost.contains(lease)) {
            let until = since + self.settings.lease * 9 / 10 - Duration::from_millis(500);
            if let Some((_, known)) = self.ledger.out.get_mut(&lease.slot) {
                *known = until.max(*known);
            }
            let Some(held) = self.ledger.held.get_mut(&lease.slot) else { continue };
            if held.epoch == lease.epoch {
                held.until = until.max(held.until);
            } else if calm && held.until > self.now {
                self.breach(Invariant::OneLeaseHolder, || {
                    format!("host {host} renews {lease:?}, which another holds")
                });
            }
        }
    }
}

fn has_unit(progress: &crate::Progress, slot: &Slot) -> bool {
    let unit = |unit: u32| progress.units.contains_key(&unit);
    progress.round == slot.round && matches!(slot.piece, Piece::Unit(index) if unit(index))
}
