//! Acknowledged writes: each is on as many disks as the answer says, and stays readable while disks are lost.

use alloc::{collections::BTreeSet, format, vec::Vec};

use super::{
    Invariant,
    check::{Acked, RECENTLY},
    disk::Disk,
    sometimes::Sometimes,
    world::World,
};
use crate::{id::Digest, member::NodeId, record::Record, replication};

/// Whether a record on a disk shows that the thing was made in this life.
fn shows(record: Option<&Record>, acked_alive: bool, life: u64) -> bool {
    record.is_some_and(|record| {
        record.life > life || record.life == life && record.body.is_some() == acked_alive
    })
}

impl World<'_> {
    /// A write is acknowledged: it is durable on as many disks as the answer says.
    pub(super) fn write_acknowledged(&mut self, host: usize, id: Digest, alive: bool, replicas: Option<u32>) {
        let lives = self.hosts.iter().filter_map(|host| host.disk.durable().get(&id));
        let greatest = lives.clone().map(|record| record.life).max().unwrap_or(0);
        let least = lives.filter(|record| record.body.is_some() == alive).map(|record| record.life).min();
        let life = self.life_at(host, &id, alive).or(least).unwrap_or(0);
        let there = |disk: &Disk| shows(disk.durable().get(&id), alive, life.max(1));
        let holders: BTreeSet<NodeId> =
            self.hosts.iter().filter(|host| there(&host.disk)).map(|host| host.me.id).collect();
        let now = self.now;
        let lost =
            self.ledger.graveyard.iter().filter(|(at, disk)| *at + RECENTLY > now && there(disk)).count();
        let copies = holders.len() + lost;
        let few = self.wanted_copies();
        if let Some(replicas) = replicas {
            if copies < replicas as usize || (replicas as usize) < few {
                self.breach(Invariant::AcknowledgedIsDurable, || {
                    format!("host {host} says {id:?} is on {replicas} disks: it is on {copies}, and should be on {few}")
                });
            }
            let full = replicas >= self.settings.replication;
            let case = if full { Sometimes::FullyCopied } else { Sometimes::FewerCopies };
            if self.storm {
                self.reach(case);
            }
        }
        if greatest == life && !holders.is_empty() {
            self.ledger.acked.insert(id, Acked { alive, life, holders });
        }
    }

    /// The life of a thing at the node that answers: on the other side of a partition it may have been deleted and made
    /// again meanwhile.
    fn life_at(&self, host: usize, id: &Digest, alive: bool) -> Option<u64> {
        let record = self.hosts[host].node.as_ref()?.record(id)?;
        Some(record.life).filter(|_| record.body.is_some() == alive)
    }

    /// How many copies a write must have: as many as are wanted, or as the loneliest node saw others of late.
    fn wanted_copies(&self) -> usize {
        let write = self.settings.write_copies.unwrap_or(self.settings.replication);
        let up = self.hosts.iter().filter(|host| host.node.is_some());
        let seen = up.map(|host| host.view.len());
        let views =
            self.ledger.views.iter().filter(|(at, _)| *at + RECENTLY > self.now).map(|(_, seen)| *seen);
        replication::wanted_copies(write, 1 + seen.chain(views).min().unwrap_or(0))
    }

    /// Whether a disk may be lost: every acknowledged write is on another one, and all blobs are whole.
    pub(super) fn may_lose(&mut self, host: usize) -> bool {
        if self.hosts.iter().any(|host| host.disk.is_hurt()) {
            return false;
        }
        let wanted = (self.settings.replication as usize).min(self.hosts.len());
        let lost = self.hosts[host].me.id;
        for (id, acked) in &mut self.ledger.acked {
            let there = |disk: &Disk| shows(disk.durable().get(id), acked.alive, acked.life);
            let now: BTreeSet<NodeId> =
                self.hosts.iter().filter(|host| there(&host.disk)).map(|host| host.me.id).collect();
            if now.len() >= wanted {
                acked.holders = now;
            }
        }
        let others = |acked: &Acked| acked.holders.iter().any(|holder| *holder != lost);
        self.hosts.len() > 1 && self.ledger.acked.values().all(others)
    }

    /// After the loss of a disk, every acknowledged write is still on some disk.
    pub(super) fn check_readable(&mut self) {
        let lost = self.ledger.acked.iter().find(|(id, acked)| {
            acked.alive && !self.hosts.iter().any(|host| shows(host.disk.durable().get(id), true, acked.life))
        });
        if let Some(id) = lost.map(|(id, _)| *id) {
            self.breach(Invariant::AcknowledgedIsDurable, || {
                format!("{id:?} was acknowledged and is on no disk")
            });
        }
        let ids: Vec<NodeId> = self.hosts.iter().map(|host| host.me.id).collect();
        self.ledger.acked.values_mut().for_each(|acked| acked.holders.retain(|holder| ids.contains(holder)));
    }
}
