//! Copies: what each other node has yet to be sent, where copies that are missing go, and when a write counts as
//! acknowledged. A change is sent to all who hold the thing as a small record that merges (a delta: Almeida, Shoker,
//! Baquero 2018, "Delta state replicated data types"); what got lost is sent again, whole.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::ToString,
    vec::Vec,
};
use core::time::Duration;

use super::{Family, Message, Node, Refusal, Response, Ticket};
use crate::{
    id::Digest,
    job::Job,
    member::NodeId,
    merge::Merge,
    planted::{self, Bug},
    record::{Body, Record},
    replication::{self, Candidate},
};

/// What has changed in records: a record that brings it about when it is merged, or none where all of it is to be sent.
pub(super) type Changes = BTreeMap<Digest, Option<Record>>;

/// What a node has yet to be sent, and what is on its way to it.
#[derive(Default)]
pub(super) struct Outbox {
    /// Things to be copied whole.
    whole: BTreeSet<Digest>,
    /// Changes, by thing.
    changes: BTreeMap<Digest, Changes>,
    sent: BTreeMap<u64, Batch>,
    last: u64,
    /// It did not take a copy in time: until then others are tried.
    avoided_until: Duration,
}

/// Copies on their way.
struct Batch {
    /// What is in it: whole things, or some records of them.
    roots: BTreeMap<Digest, Option<BTreeSet<Digest>>>,
    /// All changes up to this one are in it.
    change: u64,
    /// When it is sent again, as it may have got lost, and how long after that once more.
    again: Duration,
    pause: Duration,
    until: Duration,
}

impl Outbox {
    /// All batches with lower numbers are settled.
    pub(super) fn floor(&self) -> u64 {
        self.sent.keys().next().copied().unwrap_or(self.last + 1)
    }

    pub(super) fn clear(&mut self) {
        *self = Self { last: self.last, ..Self::default() };
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        self.sent.values().map(|batch| batch.until.min(batch.again)).min()
    }

    /// Whether anything of this thing is still to be sent or on its way.
    pub(super) fn carries(&self, root: &Digest) -> bool {
        self.whole.contains(root)
            || self.changes.contains_key(root)
            || self.sent.values().any(|batch| batch.roots.contains_key(root))
    }

    fn is_copying(&self, root: &Digest) -> bool {
        self.whole.contains(root)
            || self.sent.values().any(|batch| matches!(batch.roots.get(root), Some(None)))
    }

    fn load(&self) -> u64 {
        let sent = self.sent.values().map(|batch| batch.roots.values().filter(|ids| ids.is_none()).count());
        (self.whole.len() + sent.sum::<usize>()) as u64
    }
}

/// A write that is acknowledged as soon as there are enough copies of it.
pub(super) struct Awaiting {
    ticket: Ticket,
    response: Response,
    root: Digest,
    /// In which of its lives.
    life: u64,
    /// The change that must be in a copy.
    change: u64,
    /// The write that makes it durable here.
    write: u64,
    copies: BTreeSet<NodeId>,
    until: Duration,
}

/// What a merge brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Learned {
    /// Nothing.
    Nothing,
    /// Units of the round that the job is in; the job is still open.
    Units,
    /// Anything else.
    More,
}

/// How many letters with copies may be on their way to a node.
const MAX_SENT: usize = 8;

/// How many things one letter carries, and how many bytes of blobs they may have beyond the first.
const MAX_FAMILIES: usize = 64;
const MAX_BYTES: u64 = 1 << 20;

/// How long after it was sent a letter is sent again; then after twice that, and so on.
const AGAIN: Duration = Duration::from_millis(500);

/// The rate at which blobs are thought to arrive at the least, in bytes a second.
const SLOW: u64 = 4 << 20;

/// How many times as long as a copy an acknowledgement may take, so that another node can be tried.
const TRIES: u32 = 3;

/// How many things are looked at in one go.
const CHECKS: usize = 2000;

impl Node {
    /// Something has changed here: it is to be written down and told to the other holders. `delta` is a record that
    /// brings about the change when it is merged; the whole record if none.
    pub(super) fn note(&mut self, id: Digest, delta: Option<Record>) {
        self.journal.mark(id);
        self.tell_holders(id, delta);
    }

    /// The same when nothing has changed in a job but that these units are done.
    pub(super) fn note_units(&mut self, id: Digest, units: Record) {
        self.journal.mark_units(id, &units);
        self.tell_holders(id, Some(units));
    }

    fn tell_holders(&mut self, id: Digest, delta: Option<Record>) {
        add(&mut self.news, id, delta);
    }

    /// The answer to a write waits until there are enough copies. Where nothing has changed, the holders are sent the
    /// root all the same, for only they know whether it is on their disks.
    pub(super) fn await_copies(&mut self, ticket: Ticket, response: Response, root: Digest) {
        let until = self.now + self.settings.copy_patience * TRIES;
        let (life, copies) = (0, BTreeSet::new());
        let waiting = Awaiting { ticket, response, root, life, change: 0, write: 0, copies, until };
        let waiting = self.ask_for_copies(waiting);
        self.awaiting.push(waiting);
    }

    fn ask_for_copies(&mut self, waiting: Awaiting) -> Awaiting {
        let last = self.unwritten.keys().next_back().copied().unwrap_or(0);
        let (change, write) = match self.journal.is_empty() {
            true => (self.changes, last),
            false => (self.changes + 1, self.writes + 1),
        };
        let life = self.catalogue.get(&waiting.root).map_or(0, |record| record.life);
        self.tell_holders(waiting.root, None);
        Awaiting { life, change, write, copies: BTreeSet::new(), ..waiting }
    }

    /// Puts what has changed into the outboxes of the other holders.
    pub(super) fn spread(&mut self, except: Option<NodeId>) {
        for (id, delta) in core::mem::take(&mut self.news) {
            let root = self.catalogue.root(id);
            for (peer_id, peer) in &mut self.peers {
                let is_planned = self.planned.get(&root).is_some_and(|planned| planned.contains_key(peer_id));
                let holds = is_planned || self.routing.held(*peer_id, &root).is_some();
                if !peer.active || !holds || Some(*peer_id) == except {
                    continue;
                }
                add(peer.outbox.changes.entry(root).or_default(), id, delta.clone());
            }
        }
    }

    /// Looks at things of which the holders have changed: who owns them, and whether there are enough copies.
    pub(super) fn check_some(&mut self) {
        for _ in 0..CHECKS {
            let Some(root) = self.unchecked.pop_first() else { return };
            if self.catalogue.get(&root).is_some() {
                self.check_owner(root);
                self.plan(root);
            }
        }
    }

    /// Orders the copies of a thing that are missing, if it is this node's.
    fn plan(&mut self, root: Digest) {
        if self.owner(&root) != Some(self.me.id) {
            return;
        }
        let now = self.now;
        if let Some(planned) = self.planned.get_mut(&root) {
            planned.retain(|id, until| {
                *until > now || self.peers.get(id).is_some_and(|peer| peer.outbox.is_copying(&root))
            });
        }
        let holders = self.active_holders(&root);
        let planned = self.planned.get(&root);
        let planned: Vec<NodeId> = planned.into_iter().flat_map(BTreeMap::keys).copied().collect();
        let coming = planned.iter().filter(|id| !holders.contains(id)).count();
        let lack = self.peers.iter().filter(|(id, peer)| {
            peer.active
                && !holders.contains(id)
                && !planned.contains(id)
                && peer.outbox.avoided_until <= self.now
        });
        let candidates: Vec<Candidate> = lack
            .map(|(id, peer)| Candidate {
                id: *id,
                place: peer.member.place(),
                load: self.routing.load(*id) + peer.outbox.load(),
            })
            .collect();
        let dead = self.routing.holders(&root).len().saturating_sub(holders.len());
        let counted = if planted::is(Bug::CountsDeadHolders) { dead } else { 0 };
        let present = holders.len() + coming + counted;
        let factor = self.factor(&root);
        let chosen = replication::place(root, present, factor, &candidates);
        // What is on its way may get lost, and who was avoided may be tried again: it is looked at once more.
        let lacks = present < factor as usize && holders.len() <= self.active().len();
        if coming > 0 || lacks {
            self.lacking.insert(root)
        } else {
            self.lacking.remove(&root)
        };
        let until = self.now + self.settings.copy_patience;
        for id in chosen {
            self.planned.entry(root).or_default().insert(id, until);
            self.copy_whole(id, [root]);
        }
    }

    /// A node holds it now: it is no longer on its way there.
    pub(super) fn landed(&mut self, at: NodeId, root: &Digest) {
        if let Some(planned) = self.planned.get_mut(root) {
            planned.remove(&at);
            if planned.is_empty() {
                self.planned.remove(root);
            }
        }
        // A copy that another node ordered is not acknowledged here. A write that waits for copies says what it changed,
        // and counts the answer.
        let waits =
            self.awaiting.iter().any(|waiting| waiting.root == *root && !waiting.copies.contains(&at));
        if let Some(peer) = self.peers.get_mut(&at).filter(|peer| waits && peer.active)
            && !peer.outbox.carries(root)
        {
            peer.outbox.changes.entry(*root).or_default().insert(*root, None);
        }
    }

    /// A node is not there any more: nothing goes there, and what it has acknowledged does not count, for it may come
    /// back without its disk.
    pub(super) fn unplan(&mut self, id: NodeId) {
        for waiting in &mut self.awaiting {
            waiting.copies.remove(&id);
        }
        self.planned.retain(|_, planned| {
            planned.remove(&id);
            !planned.is_empty()
        });
    }

    pub(super) fn copy_whole(&mut self, to: NodeId, roots: impl IntoIterator<Item = Digest>) {
        if let Some(peer) = self.peers.get_mut(&to).filter(|peer| peer.active) {
            peer.outbox.whole.extend(roots);
        }
    }

    /// Sends what the outboxes hold, as far as there is room on the way.
    pub(super) fn send_copies(&mut self) {
        for to in self.active() {
            while let Some((batch, families)) = self.next_batch(to) {
                self.send(to, Message::Copy { batch, families });
            }
        }
    }

    fn next_batch(&mut self, to: NodeId) -> Option<(u64, Vec<Family>)> {
        let peer = self.peers.get_mut(&to)?;
        let outbox = &mut peer.outbox;
        if outbox.sent.len() >= MAX_SENT {
            return None;
        }
        let (mut families, mut roots, mut bytes) = (Vec::new(), BTreeMap::new(), 0);
        let copying: BTreeSet<Digest> = outbox.sent.values().flat_map(|batch| whole(&batch.roots)).collect();
        let free: Vec<Digest> =
            outbox.whole.iter().filter(|root| !copying.contains(root)).take(MAX_FAMILIES).copied().collect();
        for root in free {
            if bytes > MAX_BYTES {
                break;
            }
            outbox.whole.remove(&root);
            outbox.changes.remove(&root);
            let ids = self.catalogue.family(root);
            if let Some(family) = family_of(&self.catalogue, root, ids.into_iter().map(|id| (id, None))) {
                bytes += self.catalogue.bytes(&root);
                families.push(family);
                roots.insert(root, None);
            }
        }
        // What is on its way whole is not sent in parts at the same time: a part means nothing without the thing.
        let parts = outbox.changes.keys().filter(|root| !copying.contains(root) && !roots.contains_key(root));
        let parts: Vec<Digest> = parts.take(MAX_FAMILIES).copied().collect();
        for root in parts {
            let changes = outbox.changes.remove(&root).unwrap_or_default();
            let ids = changes.keys().copied().collect();
            if let Some(family) = family_of(&self.catalogue, root, changes) {
                families.push(family);
                roots.insert(root, Some(ids));
            }
        }
        if families.is_empty() {
            return None;
        }
        outbox.last += 1;
        let until = self.now + self.settings.copy_patience + Duration::from_secs(bytes / SLOW);
        // Where many bytes have to follow, an answer is not expected soon.
        let again = if bytes > MAX_BYTES { Duration::MAX } else { self.now + AGAIN };
        let (change, pause) = (self.changes, AGAIN);
        outbox.sent.insert(outbox.last, Batch { roots, change, again, pause, until });
        Some((outbox.last, families))
    }

    /// Copies have arrived; they are acknowledged when they are durable.
    pub(super) fn take_copies(&mut self, from: NodeId, batch: u64, families: Vec<Family>) {
        let mut refused = Vec::new();
        for family in families {
            let root = family.root;
            if !self.take_copy(from, family) {
                refused.push(root);
            }
        }
        // What was known already may still be on its way to the disk.
        let last = if self.journal.is_empty() {
            self.unwritten.keys().next_back().copied()
        } else {
            Some(self.writes + 1)
        };
        match last {
            Some(write) => self.unwritten.entry(write).or_default().copied.push((from, batch, refused)),
            None => self.send(from, Message::Copied { batch, refused }),
        }
    }

    /// Merges a copy; false if there is something newer, or it means nothing without what is missing here.
    fn take_copy(&mut self, from: NodeId, family: Family) -> bool {
        let Family { root, life, records } = family;
        // What happened here before goes to the sender too; what it says now does not.
        self.spread(None);
        let mine = self.catalogue.get(&root).map_or(0, |record| record.life);
        if life < mine && !planted::is(Bug::TombstoneGivesWay) {
            self.copy_whole(from, [root]);
            return false;
        }
        if life > mine {
            if !records.iter().any(|(id, record)| *id == root && record.life == life) {
                self.send(from, Message::Want { roots: alloc::vec![root] });
                return false;
            }
            self.drop_children(root);
        }
        let mut learned = Vec::new();
        for (id, record) in records {
            if !self.belongs(root, life, id, &record) {
                continue;
            }
            let delta = record.clone();
            match self.merge_record(id, record) {
                Learned::Nothing => {}
                news @ (Learned::Units | Learned::More) => learned.push((id, delta, news)),
            }
        }
        let mut more = false;
        for (id, delta, news) in learned {
            more |= news == Learned::More;
            // The owner passes on what it learns; what another learns, it was told by who tells all.
            match (self.owned.contains(&root), news) {
                (true, Learned::Units) => self.note_units(id, delta),
                (true, _) => self.note(id, Some(delta)),
                (false, Learned::Units) => self.journal.mark_units(id, &delta),
                (false, _) => self.journal.mark(id),
            }
            if self.owned.contains(&root) {
                self.settle_leases(id);
            }
        }
        if !self.news.is_empty() {
            self.spread(Some(from));
        }
        if !self.owned.contains(&root) {
            self.check_owner_after(root, Some(from));
        } else if more {
            self.follow(root);
        }
        true
    }

    /// Whether a record is of this thing in this life.
    fn belongs(&self, root: Digest, life: u64, id: Digest, record: &Record) -> bool {
        let names_itself = record.body.as_ref().is_none_or(|body| body.id() == id);
        if id == root {
            return names_itself && record.life == life;
        }
        let is_child = |job: &Job| job.spec.parent == Some(root);
        let is_child = matches!(&record.body, Some(Body::Job(job)) if is_child(job));
        names_itself && is_child && self.catalogue.parent(&root).is_some()
    }

    /// Merges a record with what is here.
    pub(super) fn merge_record(&mut self, id: Digest, record: Record) -> Learned {
        let Some(mine) = self.catalogue.get(&id) else {
            self.catalogue.put(id, record);
            return Learned::More;
        };
        if let (Some(Body::Job(mine)), Some(Body::Job(theirs))) = (&mine.body, &record.body)
            && theirs.diverges(mine)
        {
            self.done.divergences += 1;
        }
        if let Some(learned) = self.catalogue.add_units(id, &record) {
            return learned;
        }
        let mut learned = false;
        self.catalogue.change(id, |mine| learned = mine.merge(record));
        if learned { Learned::More } else { Learned::Nothing }
    }

    /// The jobs of a thing whose life is over go without a trace: they cannot come back but with their root.
    pub(super) fn drop_children(&mut self, root: Digest) {
        for id in self.catalogue.family(root).into_iter().filter(|id| *id != root) {
            self.close(id);
            self.catalogue.remove(id);
            self.journal.mark(id);
        }
    }

    /// Copies are durable at a node.
    pub(super) fn copied(&mut self, at: NodeId, batch: u64, refused: &[Digest]) {
        let Some(peer) = self.peers.get_mut(&at) else { return };
        let Some(batch) = peer.outbox.sent.remove(&batch) else { return };
        for awaiting in &mut self.awaiting {
            let is_in = batch.roots.contains_key(&awaiting.root) && !refused.contains(&awaiting.root);
            if awaiting.change <= batch.change && is_in {
                awaiting.copies.insert(at);
            }
        }
    }

    /// Sends again what was not acknowledged in time, or tries another node.
    pub(super) fn expire_copies(&mut self) {
        self.repeat_copies();
        let (now, patience) = (self.now, self.settings.copy_patience);
        for (id, peer) in self.peers.iter_mut().filter(|(_, peer)| peer.active) {
            let late: Vec<u64> =
                peer.outbox.sent.iter().filter(|(_, batch)| batch.until <= now).map(|(n, _)| *n).collect();
            for batch in late.iter().filter_map(|batch| peer.outbox.sent.remove(batch)) {
                peer.outbox.avoided_until = now + patience;
                for (root, ids) in batch.roots {
                    match ids {
                        // Who did not take a part may lack the thing.
                        Some(_) => {
                            peer.outbox.whole.insert(root);
                        }
                        None if self.routing.held(*id, &root).is_some() => {
                            peer.outbox.whole.insert(root);
                        }
                        None => {
                            self.planned.entry(root).or_default().remove(id);
                            self.unchecked.insert(root);
                        }
                    }
                }
            }
        }
    }

    /// Sends again, as it is now, what was not acknowledged for a while: a node that has just started may not have known
    /// who wrote to it.
    fn repeat_copies(&mut self) {
        let now = self.now;
        let mut letters = Vec::new();
        for (id, peer) in self.peers.iter_mut().filter(|(_, peer)| peer.active) {
            let due =
                peer.outbox.sent.iter_mut().filter(|(_, batch)| batch.again <= now && batch.until > now);
            for (number, batch) in due {
                batch.pause *= 2;
                batch.again = now + batch.pause;
                let families = batch.roots.iter().filter_map(|(root, ids)| {
                    let ids =
                        ids.clone().unwrap_or_else(|| self.catalogue.family(*root).into_iter().collect());
                    family_of(&self.catalogue, *root, ids.into_iter().map(|id| (id, None)))
                });
                letters.push((*id, Message::Copy { batch: *number, families: families.collect() }));
            }
        }
        letters.into_iter().for_each(|(id, message)| self.send(id, message));
    }

    /// Answers the writes of which there are enough copies, and those that have waited long enough.
    pub(super) fn acknowledge(&mut self) {
        let active = 1 + self.active().len();
        let factor = self.settings.write_copies.unwrap_or(self.settings.replication);
        let factor = if planted::is(Bug::AcknowledgesOneCopy) { 1 } else { factor };
        let wanted = replication::wanted_copies(factor, active);
        let awaiting = core::mem::take(&mut self.awaiting);
        for waiting in awaiting {
            let is_created = matches!(waiting.response, Response::Created { .. });
            let record = self.catalogue.get(&waiting.root);
            if is_created && record.is_none_or(|record| record.life != waiting.life) {
                self.acknowledge_anew(waiting);
                continue;
            }
            let here = planted::is(Bug::AcknowledgesEarly) || !self.unwritten.contains_key(&waiting.write);
            let copies = usize::from(here) + waiting.copies.len();
            if here && copies >= wanted {
                let mut response = waiting.response;
                if let Response::Created { replicas, .. } = &mut response {
                    *replicas = copies as u32;
                }
                self.answer(waiting.ticket, response);
            } else if here && waiting.until <= self.now {
                let refusal = Refusal::TooFewCopies { copies: copies as u32, wanted: wanted as u32 };
                self.answer(waiting.ticket, Response::Refused(refusal));
            } else {
                self.awaiting.push(waiting);
            }
        }
    }

    /// What was created has been deleted meanwhile, and perhaps created again: other copies count now.
    fn acknowledge_anew(&mut self, waiting: Awaiting) {
        if self.catalogue.body(&waiting.root).is_some() {
            let waiting = self.ask_for_copies(waiting);
            self.spread(None);
            self.awaiting.push(waiting);
        } else {
            let refusal = Refusal::NotFound { what: "record".into(), text: waiting.root.to_string() };
            self.answer(waiting.ticket, Response::Refused(refusal));
        }
    }

    pub(super) fn copies_deadline(&self) -> Option<Duration> {
        let outboxes = self.peers.values().filter(|peer| peer.active);
        let sent = outboxes.filter_map(|peer| peer.outbox.deadline());
        let here = |waiting: &&Awaiting| !self.unwritten.contains_key(&waiting.write);
        sent.chain(self.awaiting.iter().filter(here).map(|waiting| waiting.until)).min()
    }
}

/// Adds a change of a record to what has changed already.
fn add(changes: &mut Changes, id: Digest, delta: Option<Record>) {
    match (changes.get_mut(&id), delta) {
        (Some(Some(before)), Some(delta)) => {
            before.merge(delta);
        }
        (Some(before), None) => *before = None,
        (Some(None), Some(_)) => {}
        (None, delta) => {
            changes.insert(id, delta);
        }
    }
}

fn whole(roots: &BTreeMap<Digest, Option<BTreeSet<Digest>>>) -> impl Iterator<Item = Digest> {
    roots.iter().filter(|(_, ids)| ids.is_none()).map(|(root, _)| *root)
}

/// Records of a thing, to be sent; none if it is not there any more.
fn family_of(
    catalogue: &super::catalogue::Catalogue,
    root: Digest,
    ids: impl IntoIterator<Item = (Digest, Option<Record>)>,
) -> Option<Family> {
    let life = catalogue.get(&root)?.life;
    let records = ids.into_iter().filter_map(|(id, delta)| {
        Some((
            id,
            match delta {
                // A change of an earlier life is over.
                Some(delta) if id != root && catalogue.get(&id).is_some() => delta,
                Some(_) | None => catalogue.get(&id)?.clone(),
            },
        ))
    });
    Some(Family { root, life, records: records.collect() })
}
