//! The other db nodes: who is there, what each was told, and the letters to and from them.

use alloc::{collections::BTreeSet, vec::Vec};
use core::time::Duration;

use super::{Effect, Letter, Message, Node, Offer, copies::Outbox, letter::VERSION};
use crate::{
    id::Digest,
    member::{Member, NodeId, Place},
    planted::{self, Bug},
    replication,
    routing::{Applied, Change, Held, Version},
};

/// Another db node.
pub(super) struct Peer {
    pub(super) member: Member,
    pub(super) active: bool,
    /// How far it was told of this node's row.
    told: Option<Version>,
    /// What it has to hand out, as far as is known.
    pub(super) offer: Offer,
    /// How often it said so.
    pub(super) offers: u64,
    /// What it was told of this node's.
    pub(super) offered: Offer,
    /// How much was taken of what it offered: see `work.rs`.
    pub(super) turn: u64,
    pub(super) outbox: Outbox,
    /// Copies of it that are numbered lower are not heard any more.
    floor: u64,
    /// The change after which it was compared with last, until it answers.
    pub(super) compared: Option<u64>,
    /// When it was compared with last.
    pub(super) compared_at: Duration,
    /// The change after which nothing was found to differ, and when that was.
    pub(super) agreed: Option<(u64, Duration)>,
    /// The nodes that it is known to have heard of.
    noted: BTreeSet<NodeId>,
}

impl Peer {
    fn new(member: Member) -> Self {
        Self {
            member,
            active: false,
            told: None,
            offer: Offer::default(),
            offers: 0,
            offered: Offer::default(),
            turn: 0,
            outbox: Outbox::default(),
            floor: 0,
            compared: None,
            compared_at: Duration::ZERO,
            agreed: None,
            noted: BTreeSet::new(),
        }
    }
}

/// How many members one letter names.
const MAX_MISSING: usize = 256;

/// How many changes of a row one letter carries.
const ROW_PAGE: usize = 4096;

impl Node {
    /// Takes note of nodes that were members in earlier lives of this one: they are not there until it is said.
    pub fn remember(&mut self, members: impl IntoIterator<Item = Member>) {
        for member in members.into_iter().filter(|member| member.id != self.me.id) {
            self.peers.entry(member.id).or_insert_with(|| Peer::new(member));
        }
    }

    /// The other db nodes, and whether they are there.
    pub fn members(&self) -> impl Iterator<Item = (Member, bool)> {
        self.peers.values().map(|peer| (peer.member, peer.active))
    }

    /// How many data a node holds, as far as is known.
    pub fn load(&self, node: NodeId) -> u64 {
        self.routing.load(node)
    }

    pub(super) fn is_active(&self, node: NodeId) -> bool {
        node == self.me.id || self.peers.get(&node).is_some_and(|peer| peer.active)
    }

    /// The other nodes that are there.
    pub(super) fn active(&self) -> Vec<NodeId> {
        self.peers.iter().filter(|(_, peer)| peer.active).map(|(id, _)| *id).collect()
    }

    pub(super) fn is_alone(&self) -> bool {
        !self.peers.values().any(|peer| peer.active)
    }

    /// The active nodes that hold a thing, the owner first. This node is one of them as soon as it has it in memory.
    pub(super) fn active_holders(&self, root: &Digest) -> Vec<NodeId> {
        let others = self.routing.holders(root).iter().filter_map(|(holder, _)| self.peers.get(holder));
        let others = others.filter(|peer| peer.active).map(|peer| peer.member);
        let mine = self.catalogue.get(root).map(|_| self.me);
        let mut holders: Vec<(Place, NodeId)> =
            others.chain(mine).map(|member| (member.place(), member.id)).collect();
        holders.sort_unstable();
        holders.into_iter().map(|(_, id)| id).collect()
    }

    pub(super) fn owner(&self, root: &Digest) -> Option<NodeId> {
        let others = self.routing.holders(root).iter().filter_map(|(holder, _)| self.peers.get(holder));
        let others = others.filter(|peer| peer.active).map(|peer| &peer.member);
        replication::owner(others.chain(self.catalogue.get(root).map(|_| &self.me)))
    }

    pub(super) fn send(&mut self, to: NodeId, message: Message) {
        let Some(peer) = self.peers.get(&to) else { return };
        let letter = Letter {
            v: VERSION,
            from: self.me.id,
            generation: self.me.generation,
            to,
            life: peer.member.generation,
            floor: peer.outbox.floor(),
            message,
        };
        self.out.push(Effect::Send { to, letter });
    }

    /// A node is there: new, back, or started again.
    pub(super) fn joined(&mut self, member: Member) {
        if member.id == self.me.id {
            return;
        }
        self.note_members([member]);
        let Some(peer) = self.peers.get(&member.id) else { return };
        if member.generation < peer.member.generation || (peer.active && peer.member == member) {
            return;
        }
        if member.generation > peer.member.generation {
            self.lost_contact(member.id);
            self.peers.insert(member.id, Peer::new(member));
        }
        let peer = self.peers.get_mut(&member.id).expect("it was just there");
        (peer.member, peer.active, peer.agreed) = (member, true, None);
        (peer.offer, peer.offered) = (Offer::default(), Offer::default());
        self.doubt();
        self.regroup_all();
        self.unchecked.extend(self.catalogue.roots());
        self.tell_missing(member.id);
        self.sweep_soon();
        self.compare_with(member.id);
    }

    /// Tells a node of those that are not there, until it has taken note: what they hold may be older than a deletion
    /// that it is asked to forget one day, when nobody else may know of them any more.
    pub(super) fn tell_missing(&mut self, to: NodeId) {
        let Some(peer) = self.peers.get(&to) else { return };
        let missing =
            self.peers.values().filter(|other| !other.active && !peer.noted.contains(&other.member.id));
        let members: Vec<Member> = missing.map(|other| other.member).take(MAX_MISSING).collect();
        if !members.is_empty() {
            self.send(to, Message::Missing { members });
        }
    }

    /// Takes note of members; those that are new are written down.
    fn note_members(&mut self, members: impl IntoIterator<Item = Member>) {
        let known = self.peers.len();
        self.remember(members);
        if self.peers.len() > known {
            self.out.push(Effect::Remember(self.peers.values().map(|peer| peer.member).collect()));
        }
    }

    /// A node is not there any more.
    pub(super) fn parted(&mut self, id: NodeId) {
        let Some(peer) = self.peers.get_mut(&id).filter(|peer| peer.active) else { return };
        peer.active = false;
        self.doubt();
        self.regroup_all();
        self.lost_contact(id);
        // Nobody hands over what a dead node owned.
        let orphans = self.catalogue.roots().filter(|root| self.routing.held(id, root).is_some());
        for root in orphans.collect::<Vec<_>>() {
            if !self.owned.contains(&root) && self.owner(&root) == Some(self.me.id) {
                self.take_over(root);
            }
        }
    }

    /// Nothing that was under way with a node will be answered.
    fn lost_contact(&mut self, id: NodeId) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.outbox.clear();
            peer.offer = Offer::default();
        }
        // In its next life it gives the numbers of its batches to others.
        self.unwritten.values_mut().for_each(|write| write.copied.retain(|(from, ..)| *from != id));
        self.unplan(id);
        self.unchecked.extend(self.catalogue.roots());
        self.drop_asks(id);
    }

    /// Reads a letter, unless it is of another life of its sender or for another life of this node.
    pub(super) fn read(&mut self, letter: Letter) {
        let Letter { v, from, generation, to, life, floor, message } = letter;
        let Some(peer) = self.peers.get_mut(&from) else { return };
        let other_life = generation != peer.member.generation || life != self.me.generation;
        if v != VERSION || to != self.me.id || other_life && !planted::is(Bug::HearsEarlierLives) {
            return;
        }
        peer.floor = peer.floor.max(floor);
        let floor = peer.floor;
        // What is still on its way from a node that cannot return may be of what was forgotten since.
        let is_late = self.peers.get(&from).is_some_and(|peer| self.is_replaced(peer));
        match message {
            Message::Ask { ticket, request, time_ms } => self.asked(from, ticket, *request, time_ms),
            Message::Answer { ticket, response } => self.answered(from, ticket, response),
            Message::Withdraw { ticket } => self.withdrawn(from, ticket),
            Message::Offer(offer) => self.offered(from, offer),
            Message::Row { version, since, changes } => self.learn_row(from, version, since, &changes),
            Message::RowWanted { since } => {
                if let Some(peer) = self.peers.get_mut(&from) {
                    peer.told = since;
                }
                self.tell_row_to(from);
            }
            Message::Handover { root, leases, hops } => self.handed_over(root, leases, hops),
            Message::Copy { batch, families } if batch >= floor && !is_late => {
                self.take_copies(from, batch, families)
            }
            Message::Copy { .. } => {}
            Message::Copied { batch, refused } => self.copied(from, batch, &refused),
            Message::Missing { members } => {
                let noted = members.iter().map(|member| member.id).collect();
                self.note_members(members);
                self.send(from, Message::Noted { members: noted });
            }
            Message::Noted { members } => {
                let known: Vec<NodeId> =
                    members.into_iter().filter(|id| self.peers.contains_key(id)).collect();
                if let Some(peer) = self.peers.get_mut(&from) {
                    peer.noted.extend(known);
                }
            }
            Message::Compare { number, summary } => self.compare(from, number, &summary),
            Message::Differ { number, parts, held } => self.differ(from, number, &parts, &held),
            Message::Want { roots } => self.copy_whole(from, roots),
            Message::MayBury { dead } => self.may_bury(from, dead),
            Message::Buriable { dead } => self.buriable(from, dead),
            Message::Bury { dead } => self.bury(dead),
        }
    }

    /// Notes in this node's row what it now has on its disk.
    pub(super) fn hold(&mut self, root: Digest, held: Held) {
        if self.row.set(root, held) {
            self.routing.set(self.me.id, Change { datum: root, held });
            self.review(root);
        }
    }

    /// The holders of a thing have changed. Copies that are missing are ordered at the next sweep: those that are on
    /// their way are heard of first.
    fn review(&mut self, root: Digest) {
        if self.catalogue.get(&root).is_some() {
            self.regroup(&root);
            self.check_owner(root);
            self.lacking.insert(root);
        }
    }

    /// Tells the others what has changed in this node's row.
    pub(super) fn tell_row(&mut self) {
        let version = Some(self.row.version());
        let behind = self.peers.iter().filter(|(_, peer)| peer.active && peer.told != version);
        let behind: Vec<NodeId> = behind.map(|(id, _)| *id).collect();
        behind.into_iter().for_each(|id| self.tell_row_to(id));
    }

    fn tell_row_to(&mut self, id: NodeId) {
        loop {
            let Some(peer) = self.peers.get_mut(&id) else { return };
            let (since, changes, version) = self.row.since(peer.told, ROW_PAGE);
            peer.told = Some(version);
            let is_last = version == self.row.version();
            self.send(id, Message::Row { version, since, changes });
            if is_last {
                return;
            }
        }
    }

    /// Says how far this node's row has come: who has missed something asks for it.
    pub(super) fn probe_row(&mut self, id: NodeId) {
        let version = self.row.version();
        let known = self.peers.get(&id).is_some_and(|peer| peer.told == Some(version));
        if known {
            self.send(id, Message::Row { version, since: Some(version), changes: Vec::new() });
        }
    }

    fn learn_row(&mut self, from: NodeId, version: Version, since: Option<Version>, changes: &[Change]) {
        match self.routing.apply(from, since, changes, version) {
            Applied::News(data) => {
                self.doubt();
                for datum in data {
                    self.landed(from, &datum);
                    self.review(datum);
                }
            }
            Applied::Gap(since) => self.send(from, Message::RowWanted { since }),
            Applied::Old => {}
        }
    }
}
