//! Noticing the hard cases of [`super::Sometimes`].

use super::{check::job_of, network::Place, reference::Course, sometimes::Sometimes, world::World};
use alloc::vec::Vec;

use crate::{
    id::Digest,
    merge::Merge,
    node::{Letter, Message},
    record::Record,
};

impl World<'_> {
    /// How a job must go.
    pub(super) fn course(&self, job: &Digest) -> Option<&Course> {
        let mut jobs = self.things.iter().flat_map(|thing| &thing.jobs);
        jobs.find(|(id, _)| id == job).map(|(_, course)| course)
    }

    /// The jobs of a thing.
    pub(super) fn jobs_of(&self, id: &Digest) -> Vec<Digest> {
        let thing = self.things.iter().filter(|thing| thing.id == *id);
        thing.flat_map(|thing| thing.jobs.iter().map(|(job, _)| *job)).collect()
    }

    /// A node is about to merge what another one sent.
    pub(super) fn merging(&mut self, host: usize, letter: &Letter) {
        let Message::Copy { families, .. } = &letter.message else { return };
        for (id, theirs) in families.iter().flat_map(|family| &family.records) {
            let Some(mine) = self.hosts[host].node.as_ref().and_then(|node| node.record(id)) else {
                continue;
            };
            let (met, both) = (mine.body.is_some() != theirs.body.is_some(), learns_both_ways(mine, theirs));
            if met {
                self.reach(Sometimes::TombstoneMetLiveCopy);
            }
            if both {
                self.reach(Sometimes::MergedBothWays);
            }
        }
    }

    /// A node sends a letter.
    pub(super) fn sending(&mut self, host: usize, at: usize, letter: &Letter) {
        let from = self.hosts[host].me.id;
        if let Message::Copy { batch, families, .. } = &letter.message {
            let (to, now) = (self.hosts[at].me.id, self.now);
            self.last_copies.rotate_left(1);
            *self.last_copies.last_mut().expect("it is not empty") = now;
            for family in families {
                let open = self.copies.iter().filter(|((sender, _), _)| *sender == from);
                let gone = |other| !self.hosts[host].view.contains_key(other);
                let again = open
                    .into_iter()
                    .any(|(_, (other, roots))| *other != to && gone(other) && roots.contains(&family.root));
                if again && !now.is_zero() {
                    *self.sometimes.entry(Sometimes::CopyReplanned).or_default() += 1;
                }
            }
            if self.copies.len() > 300 {
                self.copies.clear();
            }
            self.copies.insert((from, *batch), (to, families.iter().map(|family| family.root).collect()));
        }
        if let Message::Copied { batch, .. } = &letter.message {
            let to = self.hosts[at].me.id;
            self.copies.remove(&(to, *batch));
        }
    }

    /// A letter is there.
    pub(super) fn receiving(&mut self, host: usize, letter: &Letter, again: bool) {
        let me = self.hosts[host].me;
        let sender = self.ids.get(&letter.from).map(|from| self.hosts[*from].me);
        let earlier =
            sender.is_some_and(|sender| sender.id != letter.from || sender.generation != letter.generation);
        if earlier || letter.life != me.generation {
            self.reach(Sometimes::LetterOfEarlierLife);
        }
        if matches!(letter.message, Message::Answer { .. }) {
            self.reach(Sometimes::RoutedOn);
        }
        if again && let Message::Copy { families, .. } = &letter.message {
            let buried = families.iter().any(|family| self.ledger.buried.contains(&(me.id, family.root)));
            if buried {
                self.reach(Sometimes::LateDuplicateAfterBurial);
            }
        }
    }

    /// A node dies: did workers hold leases that it granted?
    pub(super) fn find_leases_of(&mut self, host: usize) {
        let holds = |host: usize, root: &Digest| {
            self.hosts[host].is_up() && self.hosts[host].disk.durable().contains_key(root)
        };
        // Machines are in the order of their addresses.
        let owner = |root: &Digest| (0..self.hosts.len()).find(|host| holds(*host, root));
        let mut out = self.ledger.out.values().filter(|(_, until)| *until > self.now);
        if self.hosts.len() > 1 && out.any(|(root, _)| owner(root) == Some(host)) {
            self.reach(Sometimes::OwnerDiedWithLeases);
        }
    }

    /// A node starts: have the others got further with what it has?
    pub(super) fn find_old_replicas(&mut self, host: usize) {
        if self.sometimes.contains_key(&Sometimes::OldReplicaReturned) {
            return;
        }
        let others = (0..self.hosts.len()).filter(|other| *other != host);
        let old = others.into_iter().any(|other| {
            let theirs = self.hosts[other].disk.durable();
            let mut mine = self.hosts[host].disk.durable().iter();
            mine.any(|(id, mine)| theirs.get(id).is_some_and(|theirs| theirs != mine && learns(mine, theirs)))
        });
        if old {
            self.reach(Sometimes::OldReplicaReturned);
        }
    }

    /// Whether a worker or client can reach this node.
    pub(super) fn reaches(&self, from: Place, host: usize) -> bool {
        self.hosts[host].is_up() && self.network.talks(from, Place::Host(host))
    }
}

fn learns(mine: &Record, theirs: &Record) -> bool {
    mine.clone().merge(theirs.clone())
}

/// Whether both records know units of the same round that the other does not.
fn learns_both_ways(mine: &Record, theirs: &Record) -> bool {
    let (Some(a), Some(b)) = (job_of(mine), job_of(theirs)) else { return false };
    let (a, b) = (&a.progress, &b.progress);
    let more =
        |a: &crate::Progress, b: &crate::Progress| a.units.keys().any(|unit| !b.units.contains_key(unit));
    mine.life == theirs.life && a.round == b.round && more(a, b) && more(b, a)
}
