//! Repair: from time to time each node compares with the others what letters may have failed to bring over: its row,
//! and the digests of what it owns. Notes of deletions are forgotten when every node agrees to it.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use core::time::Duration;

use super::{Message, Node, Offer};
use crate::{
    consistency::{self, Summary, Sums},
    id::Digest,
    member::NodeId,
    planted::{self, Bug},
};

/// The comparisons of a node with the others.
#[derive(Default)]
pub(super) struct Sweep {
    next: Option<Duration>,
    /// With whom it was compared last.
    last: Option<NodeId>,
    /// What this node shares with others, and the sums of it by owner and replica.
    shared: BTreeMap<Digest, Shared>,
    sums: BTreeMap<(NodeId, NodeId), Sums>,
    /// Things that do not stand there as they are now, and whether their records have changed.
    stale: BTreeMap<Digest, bool>,
    /// Since when the notes of deletions that this node owns are known, by thing and life.
    dead: BTreeMap<(Digest, u64), Duration>,
    /// What may be forgotten if all agree, and who does not yet.
    burial: Option<Burial>,
}

/// Of a thing that this node has: who owns it, which others hold it, and the digest of its family.
struct Shared {
    owner: NodeId,
    holders: Vec<NodeId>,
    digest: Digest,
}

impl Shared {
    /// Between which owners and replicas it is compared, as far as that concerns this node.
    fn pairs(&self, me: NodeId) -> Vec<(NodeId, NodeId)> {
        if self.owner == me {
            self.holders.iter().map(|holder| (me, *holder)).collect()
        } else {
            alloc::vec![(self.owner, me)]
        }
    }
}

struct Burial {
    dead: BTreeSet<(Digest, u64)>,
    missing: BTreeSet<NodeId>,
    until: Duration,
}

/// All others are compared with in so many rounds.
const ROUNDS: usize = 5;

/// After so many intervals what was found equal is compared again, though nothing has changed here.
const TRUSTED: u32 = 12;

/// How many deletions are forgotten at a time.
const MAX_BURIED: usize = 1000;

impl Node {
    /// The family of this has changed.
    pub(super) fn stir(&mut self, root: &Digest) {
        self.sweep.stale.insert(*root, true);
    }

    /// Others hold this now, or another owns it.
    pub(super) fn regroup(&mut self, root: &Digest) {
        self.sweep.stale.entry(*root).or_insert(false);
    }

    /// Other nodes are there now: anything may have another owner.
    pub(super) fn regroup_all(&mut self) {
        for root in self.catalogue.roots() {
            self.sweep.stale.entry(root).or_insert(false);
        }
    }

    /// Another node has come: it is not long until the next comparison.
    pub(super) fn sweep_soon(&mut self) {
        self.sweep.next = Some(self.now + self.settings.sweep);
    }

    pub(super) fn sweep_deadline(&self) -> Option<Duration> {
        let has_cause = !self.is_alone() || self.catalogue.dead().next().is_some();
        has_cause.then(|| self.sweep.next.unwrap_or_default())
    }

    /// Compares with the nodes whose turn it is.
    pub(super) fn sweep(&mut self) {
        if self.sweep_deadline().is_none_or(|next| next > self.now) {
            return;
        }
        self.bury_some();
        if self.is_alone() {
            self.sweep.next = Some(self.now + self.settings.sweep.max(self.settings.bury_after / 8));
            return;
        }
        self.sweep.next = Some(self.now + self.settings.sweep);
        let active = self.active();
        let last = self.sweep.last;
        let turn = active.iter().position(|id| Some(*id) > last).unwrap_or(0);
        let count = active.len().div_ceil(ROUNDS);
        let chosen: Vec<NodeId> = active.iter().cycle().skip(turn).take(count).copied().collect();
        self.sweep.last = chosen.last().copied();
        for id in chosen {
            self.probe_row(id);
            self.tell_missing(id);
            if let Some(peer) = self.peers.get_mut(&id) {
                // The offer may have got lost: it is made again.
                peer.offered = Offer::default();
            }
            if self.is_comparison_due(id) {
                self.compare_with(id);
            }
        }
        self.unchecked.append(&mut self.lacking);
    }

    fn is_comparison_due(&self, id: NodeId) -> bool {
        let Some(peer) = self.peers.get(&id) else { return false };
        let is_fresh = |at: Duration| at + self.settings.sweep * TRUSTED > self.now;
        let is_agreed = peer.agreed.is_some_and(|(change, at)| change == self.changes && is_fresh(at));
        !is_agreed && peer.compared_at + self.settings.sweep * ROUNDS as u32 <= self.now
    }

    /// Who owns or holds what has changed: what was found equal need not be all that is to be compared now.
    pub(super) fn doubt(&mut self) {
        self.peers.values_mut().for_each(|peer| peer.agreed = None);
    }

    /// Sends the owner's summary of what it believes both hold.
    pub(super) fn compare_with(&mut self, id: NodeId) {
        let (number, summary) = (self.changes, self.summary(self.me.id, id));
        if let Some(peer) = self.peers.get_mut(&id) {
            (peer.compared, peer.compared_at) = (Some(number), self.now);
        }
        self.send(id, Message::Compare { number, summary });
    }

    /// The summary of what one owns and the other holds; one of them is this node.
    fn summary(&mut self, owner: NodeId, replica: NodeId) -> Summary {
        self.refresh();
        self.sweep.sums.get(&(owner, replica)).map(Sums::summary).unwrap_or_default()
    }

    /// Mends the sums where something has changed.
    fn refresh(&mut self) {
        let me = self.me.id;
        for (root, has_changed) in core::mem::take(&mut self.sweep.stale) {
            let before = self.sweep.shared.remove(&root);
            for pair in before.iter().flat_map(|before| before.pairs(me)) {
                let before = before.iter().next().expect("it has pairs");
                self.sweep.sums.entry(pair).or_default().remove(&root, &before.digest);
            }
            let Some(owner) = self.catalogue.get(&root).and_then(|_| self.owner(&root)) else { continue };
            let digest = match before {
                Some(before) if !has_changed => before.digest,
                Some(_) | None => self.digest(root),
            };
            let holders = self.routing.holders(&root).iter().map(|(id, _)| *id).filter(|id| *id != me);
            let shared = Shared { owner, holders: holders.collect(), digest };
            for pair in shared.pairs(me) {
                self.sweep.sums.entry(pair).or_default().insert(&root, &digest);
            }
            self.sweep.shared.insert(root, shared);
        }
    }

    fn digest(&self, root: Digest) -> Digest {
        let members = self.catalogue.family(root);
        let records = members.iter().filter_map(|id| Some((*id, self.catalogue.get(id)?)));
        consistency::family(records)
    }

    /// What one owns and the other holds of these parts, with the digests here.
    fn shared(&mut self, owner: NodeId, replica: NodeId, parts: &[u8]) -> BTreeMap<Digest, Digest> {
        self.refresh();
        let of = |part: &u8| {
            let [mut first, mut last] = [[0; 32], [u8::MAX; 32]];
            (first[0], last[0]) = (*part, *part);
            self.sweep.shared.range(Digest::from_bytes(first)..=Digest::from_bytes(last))
        };
        let all = parts.iter().flat_map(of);
        let between = all.filter(|(_, shared)| shared.pairs(self.me.id).contains(&(owner, replica)));
        between.map(|(root, shared)| (*root, shared.digest)).collect()
    }

    /// The owner compares: says what differs here.
    pub(super) fn compare(&mut self, owner: NodeId, number: u64, theirs: &Summary) {
        let mine = self.summary(owner, self.me.id);
        let parts = consistency::differing(&mine, theirs);
        let held = self.shared(owner, self.me.id, &parts).into_iter().collect();
        self.send(owner, Message::Differ { number, parts, held });
    }

    /// A replica says what differs there: it is sent what is here, and asked for what it has.
    pub(super) fn differ(&mut self, replica: NodeId, number: u64, parts: &[u8], held: &[(Digest, Digest)]) {
        // An answer to an earlier comparison says nothing of what is there now.
        let Some(peer) = self.peers.get_mut(&replica) else { return };
        if peer.compared.take_if(|compared| *compared == number).is_none() {
            return;
        }
        if parts.is_empty() {
            peer.agreed = Some((number, self.now));
            return;
        }
        let theirs: BTreeMap<Digest, Digest> = held.iter().copied().collect();
        let (mut behind, mut wanted) = (Vec::new(), Vec::new());
        for (root, digest) in self.shared(self.me.id, replica, parts) {
            if theirs.get(&root) != Some(&digest) {
                behind.push(root);
                wanted.extend(theirs.contains_key(&root).then_some(root));
            }
        }
        self.copy_whole(replica, behind);
        if !wanted.is_empty() {
            self.send(replica, Message::Want { roots: wanted });
        }
    }

    /// The owner proposes to forget the notes of old deletions, if everybody who was ever seen is there to agree.
    fn bury_some(&mut self) {
        if self.sweep.burial.as_ref().is_some_and(|burial| burial.until > self.now)
            || !self.is_complete() && !planted::is(Bug::BuriesUnasked)
        {
            return;
        }
        self.sweep.burial = None;
        let dead: Vec<(Digest, u64)> = self.catalogue.dead().collect();
        let all: BTreeSet<(Digest, u64)> = dead.iter().copied().collect();
        self.sweep.dead.retain(|dead, _| all.contains(dead));
        let mut old = BTreeSet::new();
        for (root, life) in dead {
            let since = *self.sweep.dead.entry((root, life)).or_insert(self.now);
            let is_old = since + self.settings.bury_after <= self.now;
            if is_old && old.len() < MAX_BURIED && self.owner(&root) == Some(self.me.id) {
                old.insert((root, life));
            }
        }
        if old.is_empty() {
            return;
        }
        let missing: BTreeSet<NodeId> = self.active().into_iter().collect();
        if missing.is_empty() || planted::is(Bug::BuriesUnasked) {
            return self.bury(old.into_iter().collect());
        }
        for id in &missing {
            self.send(*id, Message::MayBury { dead: old.iter().copied().collect() });
        }
        let until = self.now + self.settings.patience * 5;
        self.sweep.burial = Some(Burial { dead: old, missing, until });
    }

    /// Whether every node that was ever seen is there, but for those whose place another has taken; nobody is if others
    /// are expected and none was seen.
    fn is_complete(&self) -> bool {
        let has_met = !self.settings.expects_others || !self.peers.is_empty();
        has_met && self.peers.values().all(|peer| peer.active || self.is_replaced(peer))
    }

    /// Whether another node has the address of one that is not there: it has lost its disk, or its place.
    pub(super) fn is_replaced(&self, lost: &super::peers::Peer) -> bool {
        let mut others = self.peers.values().filter(|peer| peer.active).map(|peer| peer.member.address);
        !lost.active && (lost.member.address == self.me.address || others.any(|at| at == lost.member.address))
    }

    /// Which of these may be forgotten as far as this node knows.
    pub(super) fn may_bury(&mut self, from: NodeId, dead: Vec<(Digest, u64)>) {
        // The owner may not know of a node that is away.
        let dead = if self.is_complete() { dead } else { Vec::new() };
        let is_dead = |(root, life): &(Digest, u64)| {
            let record = self.catalogue.get(root);
            let gone = record.is_none_or(|record| record.body.is_none() && record.life == *life);
            gone && !self.peers.values().any(|peer| peer.outbox.carries(root))
        };
        let dead = dead.into_iter().filter(is_dead).collect();
        self.send(from, Message::Buriable { dead });
    }

    pub(super) fn buriable(&mut self, from: NodeId, dead: Vec<(Digest, u64)>) {
        let Some(burial) = &mut self.sweep.burial else { return };
        if !burial.missing.remove(&from) {
            return;
        }
        let agreed: BTreeSet<(Digest, u64)> = dead.into_iter().collect();
        burial.dead.retain(|dead| agreed.contains(dead));
        if burial.missing.is_empty()
            && let Some(burial) = self.sweep.burial.take()
            && self.is_complete()
        {
            let dead: Vec<(Digest, u64)> = burial.dead.into_iter().collect();
            for id in self.active() {
                self.send(id, Message::Bury { dead: dead.clone() });
            }
            self.bury(dead);
        }
    }

    /// Forgets the notes of these deletions.
    pub(super) fn bury(&mut self, dead: Vec<(Digest, u64)>) {
        for (root, life) in dead {
            let is_dead = |record: &crate::record::Record| record.body.is_none() && record.life == life;
            self.sweep.dead.remove(&(root, life));
            if self.catalogue.get(&root).is_some_and(is_dead) {
                self.catalogue.remove(root);
                self.owned.remove(&root);
                self.journal.mark(root);
            }
        }
    }
}
