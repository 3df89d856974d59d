//! Requests that other nodes have to answer: about a thing, its owner; about everything, everyone. What a node is asked
//! by another it answers itself, so no request travels further than one step, and none in circles.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::{String, ToString},
    vec::Vec,
};
use core::time::Duration;

use super::{Assignment, Claim, Message, Node, Outcome, Refusal, Request, Response, Ticket, gather::combine};
use crate::{id::Digest, lease::Lease, member::NodeId, record::Kind};

/// Requests under way between this node and others.
pub(super) struct Asks {
    /// The next name of a request of another node here, and of one of this node elsewhere.
    next: Ticket,
    /// Requests of other nodes, which wait here.
    foreign: BTreeMap<Ticket, (NodeId, Ticket)>,
    /// The same by the names that those nodes gave them.
    by_asker: BTreeMap<(NodeId, Ticket), Ticket>,
    /// Requests that other nodes have been sent.
    sent: BTreeMap<Ticket, Ask>,
    gathers: BTreeMap<Ticket, Gather>,
    /// Of what things these records are parts, as other nodes said; for a while.
    roots: BTreeMap<Digest, Digest>,
}

/// Tickets from here on are the node's own; the shell uses lower ones.
const OWN: Ticket = 1 << 63;

impl Default for Asks {
    fn default() -> Self {
        Self {
            next: OWN,
            foreign: BTreeMap::new(),
            by_asker: BTreeMap::new(),
            sent: BTreeMap::new(),
            gathers: BTreeMap::new(),
            roots: BTreeMap::new(),
        }
    }
}

impl Asks {
    /// What requests name that other nodes have been sent.
    pub(super) fn blobs(&self) -> BTreeSet<Digest> {
        self.sent.values().flat_map(|ask| ask.request.blobs()).collect()
    }
}

/// A request that another node has been sent.
struct Ask {
    to: NodeId,
    request: Request,
    time_ms: u64,
    /// When it is sent again, as it may have got lost, and how long after that once more.
    again: Duration,
    pause: Duration,
    until: Duration,
    why: Why,
}

/// What the answer is for.
enum Why {
    /// Somebody's request about this thing, for which these nodes have been tried.
    Relay { ticket: Ticket, root: Digest, tried: Vec<NodeId> },
    /// A part of an answer.
    Part(Ticket),
    /// Work for a claim, asked for after so many offers.
    Claim { ticket: Ticket, offers: u64 },
    /// Nobody waits for it.
    Notice,
}

/// An answer that is put together from those of all nodes.
struct Gather {
    waiting: usize,
    parts: Vec<Response>,
    then: Then,
}

/// What is done with the parts.
pub(super) enum Then {
    /// They are the answer to this request.
    Answer(Ticket, Request),
    /// They say what thing the request is about.
    Resume(Ticket, Request, u64),
    /// Unless the thing is in use, it is deleted.
    Delete(Ticket, Digest),
}

/// How long after it was sent a request is sent again; then after twice that, and so on.
const AGAIN: Duration = Duration::from_millis(250);

/// How long a node may take to find work for a claim.
const CLAIMED: Duration = Duration::from_secs(1);

/// How many records' things are remembered.
const MAX_ROOTS: usize = 4096;

/// Who has to answer a request.
enum Reach {
    Here,
    Everyone,
    /// The owner of the thing that this record is part of.
    Of(Digest),
    /// The owner of this thing.
    Root(Digest),
}

fn reach(request: &Request) -> Reach {
    match request {
        Request::Create { body, .. } => Reach::Root(body.id()),
        Request::Watch { id, .. } | Request::Cancel { id } => Reach::Of(*id),
        Request::Delete { id } | Request::Redeem { id } => Reach::Of(*id),
        Request::Route { id } | Request::Leases { id } => Reach::Of(*id),
        Request::Report { lease, .. } => Reach::Root(lease.root),
        Request::Find { .. } | Request::List { .. } | Request::Workers => Reach::Everyone,
        Request::Locate { .. } | Request::Users { .. } => Reach::Everyone,
        Request::Claim(_) | Request::Renew { .. } | Request::Leave { .. } => Reach::Here,
    }
}

/// What a request is about, for messages.
fn noun(request: &Request) -> &'static str {
    if let Request::Cancel { .. } = request {
        Kind::Training.name()
    } else if let Request::Redeem { .. } = request {
        Kind::Token.name()
    } else if let Request::Report { .. } = request {
        Kind::Job.name()
    } else {
        "record"
    }
}

impl Node {
    /// Somebody asks this node.
    pub(super) fn request(&mut self, ticket: Ticket, request: Request, time_ms: u64) {
        match reach(&request) {
            Reach::Here => {
                if let Request::Renew { worker, leases } = request {
                    self.renew(ticket, &worker, leases);
                } else if let Request::Leave { worker, dead } = request {
                    self.leave(&worker, dead);
                    for id in self.active() {
                        self.ask(id, Request::Leave { worker: worker.clone(), dead }, time_ms, Why::Notice);
                    }
                    self.answer(ticket, Response::Done);
                } else {
                    self.serve(ticket, request, time_ms);
                }
            }
            Reach::Everyone => {
                let then = Then::Answer(ticket, request.clone());
                self.gather(request, then);
            }
            Reach::Root(root) => self.toward(ticket, root, request, time_ms, Vec::new()),
            Reach::Of(id) => match self.root_of(&id) {
                Some(root) => self.toward(ticket, root, request, time_ms, Vec::new()),
                None => self.gather(Request::Locate { id }, Then::Resume(ticket, request, time_ms)),
            },
        }
    }

    /// The thing that a record is part of, if that is known here.
    fn root_of(&self, id: &Digest) -> Option<Digest> {
        if self.catalogue.get(id).is_some() {
            return Some(self.catalogue.root(*id));
        }
        let is_root = !self.routing.holders(id).is_empty();
        if is_root { Some(*id) } else { self.asks.roots.get(id).copied() }
    }

    /// Hands a request to the owner of a thing, or, if that was tried, to the next node that holds it.
    fn toward(&mut self, ticket: Ticket, root: Digest, request: Request, time_ms: u64, tried: Vec<NodeId>) {
        if let Request::Route { id } = request {
            let route = self.route(id, root);
            return self.answer(ticket, route);
        }
        let mut holders = self.active_holders(&root);
        if holders.is_empty() && matches!(request, Request::Report { .. }) {
            // A lease may be of a thing that is so new that its holders have not told of it yet: one of all has it.
            holders = self.active();
        }
        let holder = holders.into_iter().find(|id| !tried.contains(id));
        match holder {
            Some(id) if id == self.me.id => self.serve(ticket, request, time_ms),
            Some(id) => {
                self.ask(id, request, time_ms, Why::Relay { ticket, root, tried });
            }
            // What is new, or only on nodes that are not there, is made here, and merges when they meet.
            None if tried.is_empty() && matches!(request, Request::Create { .. }) => {
                self.serve(ticket, request, time_ms);
            }
            None if !tried.is_empty() || matches!(request, Request::Report { .. }) && !self.is_alone() => {
                self.answer(ticket, Response::Refused(Refusal::NoAnswer));
            }
            None => {
                let nodes: Vec<String> =
                    self.routing.holders(&root).iter().map(|(id, _)| id.to_string()).collect();
                let refusal = if nodes.is_empty() {
                    Refusal::NotFound { what: noun(&request).into(), text: root.to_string() }
                } else {
                    Refusal::Unreachable { id: root, nodes: nodes.join(", ") }
                };
                self.answer(ticket, Response::Refused(refusal));
            }
        }
    }

    /// Sends a request to a node. Gives the ticket of the answer.
    fn ask(&mut self, to: NodeId, request: Request, time_ms: u64, why: Why) -> Ticket {
        self.asks.next += 1;
        let ticket = self.asks.next;
        let wait = if let Request::Watch { wait_ms, .. } = &request {
            Duration::from_millis(*wait_ms).min(self.settings.max_wait)
        } else if let Request::Create { .. }
        | Request::Cancel { .. }
        | Request::Delete { .. }
        | Request::Redeem { .. } = &request
        {
            // They wait for copies.
            self.settings.copy_patience * 3
        } else {
            Duration::ZERO
        };
        // Work that was granted and got lost is leased in vain: such a request is not repeated but given up soon.
        let (again, until) = match why {
            Why::Claim { .. } => (Duration::MAX, self.now + CLAIMED),
            Why::Relay { .. } | Why::Part(_) | Why::Notice => {
                (self.now + AGAIN, self.now + self.settings.patience + wait)
            }
        };
        self.send(to, Message::Ask { ticket, request: request.clone().into(), time_ms });
        let ask = Ask { to, request, time_ms, again, pause: AGAIN, until, why };
        self.asks.sent.insert(ticket, ask);
        ticket
    }

    /// Asks a node for work on behalf of a claim.
    pub(super) fn ask_for_work(&mut self, to: NodeId, claim: Claim, ticket: Ticket) {
        let offers = self.peers.get(&to).map_or(0, |peer| peer.offers);
        let claim = Request::Claim(Claim { wait_ms: 0, ..claim });
        self.ask(to, claim, 0, Why::Claim { ticket, offers });
    }

    /// Asks every node, this one included, and goes on when all have answered or are given up.
    fn gather(&mut self, request: Request, then: Then) {
        self.asks.next += 1;
        let gather = self.asks.next;
        let parts = self.part(&request).into_iter().collect();
        let others = self.active();
        self.asks.gathers.insert(gather, Gather { waiting: others.len(), parts, then });
        for id in others {
            self.ask(id, request.clone(), 0, Why::Part(gather));
        }
        self.finish_gather(gather);
    }

    /// Deletes a thing unless a node knows that it is in use.
    pub(super) fn delete_unless_used(&mut self, ticket: Ticket, id: Digest, needs: Vec<Digest>) {
        self.gather(Request::Users { of: needs, except: id }, Then::Delete(ticket, id));
    }

    /// What this node has to say to a question that goes to everyone.
    fn part(&self, request: &Request) -> Option<Response> {
        let part = match request {
            Request::Find { kind, text } => Response::Matches(self.catalogue.find(*kind, text)),
            Request::List { kind, after, limit } => self.list(*kind, *after, *limit),
            Request::Workers => Response::Workers(self.workers()),
            Request::Users { of, except } => Response::Users(self.user_of(*except, of)),
            Request::Locate { id } => match self.catalogue.get(id) {
                Some(_) => Response::Found(self.catalogue.root(*id)),
                None => return None,
            },
            Request::Create { .. }
            | Request::Watch { .. }
            | Request::Cancel { .. }
            | Request::Delete { .. }
            | Request::Redeem { .. } => {
                return None;
            }
            Request::Claim(_) | Request::Renew { .. } | Request::Report { .. } | Request::Leave { .. } => {
                return None;
            }
            Request::Route { .. } | Request::Leases { .. } => return None,
        };
        Some(part)
    }

    fn finish_gather(&mut self, gather: Ticket) {
        if self.asks.gathers.get(&gather).is_none_or(|gather| gather.waiting > 0) {
            return;
        }
        let Some(Gather { parts, then, .. }) = self.asks.gathers.remove(&gather) else { return };
        match then {
            Then::Answer(ticket, request) => {
                let response = combine(&request, parts);
                self.answer(ticket, response);
            }
            Then::Resume(ticket, request, time_ms) => {
                let found = parts
                    .into_iter()
                    .find_map(|part| if let Response::Found(root) = part { Some(root) } else { None });
                match (found, reach(&request)) {
                    (Some(root), Reach::Of(id)) => {
                        while self.asks.roots.len() >= MAX_ROOTS {
                            self.asks.roots.pop_first();
                        }
                        self.asks.roots.insert(id, root);
                        self.toward(ticket, root, request, time_ms, Vec::new());
                    }
                    (_, Reach::Of(id)) => {
                        let refusal = Refusal::NotFound { what: noun(&request).into(), text: id.to_string() };
                        self.answer(ticket, Response::Refused(refusal));
                    }
                    _ => self.serve(ticket, request, time_ms),
                }
            }
            Then::Delete(ticket, id) => {
                let used =
                    parts.into_iter().find_map(|part| if let Response::Users(by) = part { by } else { None });
                match used {
                    Some(by) => self.answer(ticket, Response::Refused(Refusal::InUse { by })),
                    None => self.delete_now(ticket, id),
                }
            }
        }
    }

    /// Another node asks this one.
    pub(super) fn asked(&mut self, from: NodeId, theirs: Ticket, request: Request, time_ms: u64) {
        // What waits here already is not done twice.
        if self.asks.by_asker.contains_key(&(from, theirs)) {
            return;
        }
        self.asks.next += 1;
        let ticket = self.asks.next;
        self.asks.foreign.insert(ticket, (from, theirs));
        self.asks.by_asker.insert((from, theirs), ticket);
        if let Some(part) = self.part(&request) {
            return self.answer(ticket, part);
        }
        if let Request::Locate { id } = request {
            let refusal = Refusal::NotFound { what: "record".into(), text: id.to_string() };
            return self.answer(ticket, Response::Refused(refusal));
        }
        if let Request::Leave { worker, dead } = request {
            self.leave(&worker, dead);
            return self.answer(ticket, Response::Done);
        }
        if let Request::Renew { worker, leases } = request {
            let lost = self.renew_here(&worker, leases);
            return self.answer(ticket, Response::Lost(lost));
        }
        let root = match reach(&request) {
            Reach::Root(root) => Some(root),
            Reach::Of(id) => Some(self.catalogue.root(id)),
            Reach::Here | Reach::Everyone => None,
        };
        let is_create = matches!(request, Request::Create { .. });
        // The asker's table is behind: it is to try another node.
        if root.is_some_and(|root| self.catalogue.get(&root).is_none()) && !is_create {
            return self.answer(ticket, Response::Refused(Refusal::NoAnswer));
        }
        self.serve(ticket, request, time_ms);
    }

    /// The other node does not wait for the answer any more.
    pub(super) fn withdrawn(&mut self, from: NodeId, theirs: Ticket) {
        if let Some(ticket) = self.asks.by_asker.get(&(from, theirs)).copied() {
            self.forget_asker(ticket);
            self.gone(ticket);
        }
    }

    fn forget_asker(&mut self, ticket: Ticket) -> Option<(NodeId, Ticket)> {
        let asker = self.asks.foreign.remove(&ticket)?;
        self.asks.by_asker.remove(&asker);
        Some(asker)
    }

    /// Whoever asked does not wait any more.
    pub(super) fn gone(&mut self, ticket: Ticket) {
        self.claims.remove(&ticket);
        self.watches.remove(&ticket);
        let relay = self
            .asks
            .sent
            .iter()
            .find(|(_, ask)| matches!(ask.why, Why::Relay { ticket: t, .. } if t == ticket));
        if let Some((asked, to)) = relay.map(|(asked, ask)| (*asked, ask.to)) {
            self.asks.sent.remove(&asked);
            self.send(to, Message::Withdraw { ticket: asked });
        }
    }

    /// The node that asked; none if it was somebody at this one.
    pub(super) fn foreign(&self, ticket: Ticket) -> Option<NodeId> {
        self.asks.foreign.get(&ticket).map(|(node, _)| *node)
    }

    /// Answers whoever asked: somebody at this node, or another node.
    pub(super) fn answer(&mut self, ticket: Ticket, response: Response) {
        match self.forget_asker(ticket) {
            Some((node, theirs)) => self.send(node, Message::Answer { ticket: theirs, response }),
            None if ticket >= OWN => {}
            None => self.out.push(super::Effect::Reply(ticket, response)),
        }
    }

    /// A node answers.
    pub(super) fn answered(&mut self, from: NodeId, ticket: Ticket, response: Response) {
        match self.asks.sent.remove(&ticket) {
            Some(ask) if ask.to == from => self.went(ask, Some(response)),
            Some(ask) => {
                self.asks.sent.insert(ticket, ask);
            }
            // It comes too late: work in it is for others.
            None => {
                if let Response::Work(work) = response {
                    self.hand_back(from, work);
                }
            }
        }
    }

    fn hand_back(&mut self, to: NodeId, work: Vec<Assignment>) {
        for Assignment { lease, .. } in work {
            let request = Request::Report { lease, outcome: Outcome::Released { pause_ms: 0 } };
            self.ask(to, request, 0, Why::Notice);
        }
    }

    /// A request that was sent has its answer, or never will have.
    fn went(&mut self, ask: Ask, response: Option<Response>) {
        let Ask { to, request, time_ms, why, .. } = ask;
        match why {
            Why::Relay { ticket, root, mut tried } => match response {
                None | Some(Response::Refused(Refusal::NoAnswer)) => {
                    tried.push(to);
                    self.toward(ticket, root, request, time_ms, tried);
                }
                Some(response) => self.answer(ticket, response),
            },
            Why::Part(gather) => {
                if let Some(gathered) = self.asks.gathers.get_mut(&gather) {
                    gathered.waiting -= 1;
                    gathered.parts.extend(response);
                }
                self.finish_gather(gather);
            }
            Why::Claim { ticket, offers } => {
                let work = if let Some(Response::Work(work)) = response { work } else { Vec::new() };
                if let Some(unwanted) = self.work_came(to, offers, ticket, work) {
                    self.hand_back(to, unwanted);
                }
            }
            Why::Notice => {}
        }
    }

    /// Gives up what a node does not answer any more, and forgets what it asked.
    pub(super) fn drop_asks(&mut self, node: NodeId) {
        let lost = self.asks.sent.extract_if(.., |_, ask| ask.to == node);
        let lost: Vec<Ask> = lost.map(|(_, ask)| ask).collect();
        lost.into_iter().for_each(|ask| self.went(ask, None));
        let asked_here = self.asks.foreign.iter().filter(|(_, (asker, _))| *asker == node);
        for ticket in asked_here.map(|(ticket, _)| *ticket).collect::<Vec<_>>() {
            self.forget_asker(ticket);
            self.gone(ticket);
        }
    }

    /// Sends again what may have got lost, and gives up what was not answered in time.
    pub(super) fn expire_asks(&mut self) {
        let now = self.now;
        let mut again = Vec::new();
        for (ticket, ask) in self.asks.sent.iter_mut().filter(|(_, ask)| ask.again <= now && ask.until > now)
        {
            ask.pause *= 2;
            ask.again = now + ask.pause;
            let (request, time_ms) = (ask.request.clone().into(), ask.time_ms);
            again.push((ask.to, Message::Ask { ticket: *ticket, request, time_ms }));
        }
        again.into_iter().for_each(|(to, message)| self.send(to, message));
        let late: Vec<(Ticket, Ask)> = self.asks.sent.extract_if(.., |_, ask| ask.until <= now).collect();
        for (ticket, ask) in late {
            self.send(ask.to, Message::Withdraw { ticket });
            self.went(ask, None);
        }
    }

    pub(super) fn asks_deadline(&self) -> Option<Duration> {
        self.asks.sent.values().map(|ask| ask.until.min(ask.again)).min()
    }

    /// Renews leases wherever they were granted.
    fn renew(&mut self, ticket: Ticket, worker: &str, leases: Vec<Lease>) {
        let mut by_node: BTreeMap<NodeId, Vec<Lease>> = BTreeMap::new();
        for lease in leases {
            // Of a thing that is nowhere this node cannot say that the lease is lost, unless it is the only one.
            let owner = self.owner(&lease.root).or(self.is_alone().then_some(self.me.id));
            if let Some(owner) = owner {
                by_node.entry(owner).or_default().push(lease);
            }
        }
        let mine = by_node.remove(&self.me.id).unwrap_or_default();
        let lost = self.renew_here(worker, mine);
        self.asks.next += 1;
        let gather = self.asks.next;
        let request = Request::Renew { worker: worker.into(), leases: Vec::new() };
        let parts = alloc::vec![Response::Lost(lost)];
        let then = Then::Answer(ticket, request);
        self.asks.gathers.insert(gather, Gather { waiting: by_node.len(), parts, then });
        for (id, leases) in by_node {
            self.ask(id, Request::Renew { worker: worker.into(), leases }, 0, Why::Part(gather));
        }
        self.finish_gather(gather);
    }
}
