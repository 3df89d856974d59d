//! Several nodes that hear each other at once, for tests of what they do together.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};

use super::*;

/// Nodes, their disks, and the letters between those that are not cut off.
pub(super) struct Net {
    pub(super) nodes: BTreeMap<u8, Node>,
    pub(super) now: Duration,
    pub(super) letters: VecDeque<(NodeId, Letter)>,
    pub(super) replies: BTreeMap<Ticket, Response>,
    pub(super) tickets: Ticket,
    /// Nodes of the other side.
    pub(super) cut: BTreeSet<u8>,
}

pub(super) fn member(n: u8, generation: u32) -> Member {
    let address = core::net::SocketAddr::from(([10, 0, 0, n], 7301));
    Member { id: NodeId::new(u64::from(n)), address, generation }
}

impl Net {
    pub(super) fn new(count: u8) -> Self {
        Self::with(Settings { bury_after: 30 * SECOND, ..Settings::default() }, count)
    }

    pub(super) fn with(settings: Settings, count: u8) -> Self {
        let node = |n| (n, Node::new(settings.clone(), member(n, 1), []));
        let nodes = (1..=count).map(node).collect();
        let (letters, replies, cut) = (VecDeque::new(), BTreeMap::new(), BTreeSet::new());
        let mut net = Self { nodes, now: SECOND, letters, replies, tickets: 0, cut };
        net.meet();
        net
    }

    pub(super) fn meet(&mut self) {
        let all: Vec<u8> = self.nodes.keys().copied().collect();
        for a in &all {
            for b in all.iter().filter(|b| *b != a) {
                let event = match self.cut.contains(a) == self.cut.contains(b) {
                    true => Event::Active(self.nodes[b].me),
                    false => Event::Inactive(NodeId::new(u64::from(*b))),
                };
                self.handle(*a, event);
            }
        }
        self.run();
    }

    pub(super) fn split(&mut self, cut: &[u8]) {
        self.cut = cut.iter().copied().collect();
        self.meet();
    }

    pub(super) fn kill(&mut self, n: u8) {
        self.nodes.remove(&n);
        let all: Vec<u8> = self.nodes.keys().copied().collect();
        all.into_iter().for_each(|other| self.handle(other, Event::Inactive(NodeId::new(u64::from(n)))));
        self.run();
    }

    pub(super) fn handle(&mut self, n: u8, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let node = self.nodes.get_mut(&n).expect("it is there");
            for effect in node.handle(self.now, event) {
                match effect {
                    Effect::Persist { write, .. } => events.push_back(Event::Persisted(write)),
                    Effect::Reply(ticket, response) => {
                        self.replies.insert(ticket, response);
                    }
                    Effect::Send { to, letter } => self.letters.push_back((to, letter)),
                    Effect::Discard(_) | Effect::Remember(_) => {}
                }
            }
        }
    }

    /// Delivers letters until there are none.
    pub(super) fn run(&mut self) {
        for _ in 0..100_000 {
            let Some((to, letter)) = self.letters.pop_front() else { return };
            let (from, to) = (letter.from.number() as u8, to.number() as u8);
            if self.nodes.contains_key(&to) && self.cut.contains(&from) == self.cut.contains(&to) {
                self.handle(to, Event::Letter(letter));
            }
        }
        panic!("letters go in circles");
    }

    pub(super) fn pass(&mut self, seconds: u32) {
        for _ in 0..seconds * 4 {
            self.now += SECOND / 4;
            for n in self.nodes.keys().copied().collect::<Vec<_>>() {
                self.handle(n, Event::Tick);
            }
            self.run();
        }
    }

    pub(super) fn send(&mut self, n: u8, request: Request) -> Ticket {
        self.tickets += 1;
        let ticket = self.tickets;
        self.handle(n, Event::Request { ticket, request, time_ms: self.now.as_millis() as u64 });
        self.run();
        ticket
    }

    pub(super) fn ask(&mut self, n: u8, request: Request) -> Response {
        let ticket = self.send(n, request);
        self.replies.remove(&ticket).expect("it is answered at once")
    }

    pub(super) fn create(&mut self, n: u8, body: Body) -> (Digest, u32) {
        let response = self.ask(n, Request::Create { body, name: Some("x".into()) });
        let Response::Created { id, replicas, .. } = response else { panic!("not created: {response:?}") };
        (id, replicas)
    }

    /// Does pieces at the workers of these nodes in turn until there are none; gives how many there were.
    pub(super) fn work(&mut self, at: &[u8]) -> u32 {
        let mut pieces = 0;
        loop {
            let mut idle = true;
            for n in at {
                let worker = alloc::format!("w{n}");
                if let Response::Work(work) = self.ask(*n, claim(&worker, 1, 0))
                    && let Some(assignment) = work.first()
                {
                    assert_eq!(self.ask(*n, done(assignment.lease)), Response::Done);
                    (pieces, idle) = (pieces + 1, false);
                }
            }
            if idle {
                return pieces;
            }
        }
    }

    pub(super) fn holders(&self, id: Digest) -> Vec<u8> {
        self.nodes.iter().filter(|(_, node)| node.record(&id).is_some()).map(|(n, _)| *n).collect()
    }

    pub(super) fn owners(&self, id: Digest) -> Vec<u8> {
        self.nodes.iter().filter(|(_, node)| node.owned.contains(&id)).map(|(n, _)| *n).collect()
    }

    /// All copies of everything are equal, and there are enough.
    pub(super) fn agree(&self, factor: usize) {
        let mut all: BTreeMap<Digest, Vec<&Record>> = BTreeMap::new();
        for node in self.nodes.values() {
            for id in node.catalogue.ids() {
                all.entry(id).or_default().push(node.record(&id).expect("it has it"));
            }
        }
        for (id, copies) in all {
            assert!(copies.len() >= factor.min(self.nodes.len()), "{id:?} is on {} nodes", copies.len());
            assert!(copies.iter().all(|copy| *copy == copies[0]), "copies of {id:?} differ: {copies:?}");
        }
    }
}
