//! Questions of workers and clients to db nodes, and what becomes of them.

use alloc::{boxed::Box, vec::Vec};
use core::time::Duration;

use super::{
    network::Place,
    sometimes::Sometimes,
    world::{What, World},
};
use crate::{
    id::Digest,
    lease::Lease,
    node::{Event, Refusal, Request, Response, Ticket},
};

/// Who asked, and what for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    /// A worker in one of its lives wants work.
    Claim(usize, u64),
    /// It brings the result of this piece.
    Report(usize, u64, u64),
    /// It renews its leases.
    Renew(usize, u64),
    /// It says goodbye, or something was sent twice: nobody waits for the answer.
    Nobody,
    /// A client.
    Client(usize),
}

/// What is heard in the end.
pub(super) enum Heard {
    /// An answer.
    Response(Response),
    /// The node has not got a blob that was named, nor can it have it.
    BlobsMissing,
    /// Nothing, or that nobody is there.
    Nothing,
}

/// A question on its way or with a node.
pub(super) struct Ask {
    who: Who,
    from: Place,
    pub(super) host: usize,
    /// The life of the node that was asked, once it was.
    life: Option<u64>,
    request: Option<Request>,
    /// Since when the node has it.
    pub(super) since: Duration,
    pub(super) creates: Option<Digest>,
    pub(super) deletes: Option<Digest>,
    pub(super) renews: Vec<Lease>,
    pub(super) claims: Option<alloc::string::String>,
}

impl World<'_> {
    /// Sends a question to a db node. Whoever asks gives up after `patience`.
    pub(super) fn ask(
        &mut self,
        who: Who,
        from: Place,
        host: usize,
        request: Request,
        patience: Duration,
    ) -> Ticket {
        let ticket = self.name();
        let mut ask = Ask {
            who,
            from,
            host,
            life: None,
            request: None,
            since: self.now,
            creates: None,
            deletes: None,
            renews: Vec::new(),
            claims: None,
        };
        if let Request::Create { body, .. } = &request {
            ask.creates = Some(body.id());
        }
        if let Request::Delete { id } = &request {
            ask.deletes = Some(*id);
        }
        if let Request::Renew { leases, .. } = &request {
            ask.renews.clone_from(leases);
        }
        if let Request::Claim(claim) = &request {
            ask.claims = Some(claim.worker.clone());
        }
        let fate = self.network.send(&mut self.dice, from, Place::Host(host));
        if let Some(fault) = fate.fault {
            self.met(fault);
        }
        // A repetition has a ticket that nobody waits for; it does not come after minutes, as a connection ends.
        if let Some(after) = fate.again.filter(|after| *after < Duration::from_secs(10)) {
            let again = self.name();
            let copy = Ask {
                who: Who::Nobody,
                request: Some(request.clone()),
                renews: ask.renews.clone(),
                claims: ask.claims.clone(),
                ..ask
            };
            self.asks.insert(again, copy);
            self.later(after, What::Asked(again));
            self.later(after + patience, What::Patience(again));
        }
        if let Some(after) = fate.arrives {
            self.later(after, What::Asked(ticket));
        }
        self.later(patience, What::Patience(ticket));
        self.asks.insert(ticket, Ask { request: Some(request), ..ask });
        ticket
    }

    /// A question arrives at its node.
    pub(super) fn asked(&mut self, ticket: Ticket) {
        let Some(ask) = self.asks.get_mut(&ticket) else { return };
        let (host, from) = (ask.host, ask.from);
        if self.hosts[host].node.is_none() {
            // The machine answers that nobody listens.
            if self.network.passes(Place::Host(host), from) {
                self.later(Duration::from_millis(2), What::Answer(ticket, Box::new(Heard::Nothing)));
            }
            return;
        }
        let Some(request) = ask.request.take() else { return };
        ask.life = Some(self.hosts[host].life);
        ask.since = self.now;
        let time_ms = self.hosts[host].clock.wall(self.now);
        let life = self.hosts[host].life;
        self.arrive(host, life, Box::new(Event::Request { ticket, request, time_ms }), None, false);
    }

    /// A node answers.
    pub(super) fn reply(&mut self, host: usize, ticket: Ticket, heard: Heard) {
        if let Heard::Response(response) = &heard {
            self.acknowledged(host, ticket, response);
        }
        let Some(ask) = self.asks.get(&ticket) else {
            if let Heard::Response(response) = heard {
                self.nobody_hears(host, response);
            }
            return;
        };
        let (from, nobody) = (ask.from, ask.who == Who::Nobody);
        if nobody {
            self.asks.remove(&ticket);
            if let Heard::Response(response) = heard {
                self.nobody_hears(host, response);
            }
            return;
        }
        let fate = self.network.send(&mut self.dice, Place::Host(host), from);
        if let Some(fault) = fate.fault {
            self.met(fault);
        }
        if let Some(after) = fate.arrives {
            self.later(after, What::Answer(ticket, Box::new(heard)));
        }
    }

    /// An answer arrives, if anybody still waits for it.
    pub(super) fn answered(&mut self, ticket: Ticket, heard: Heard) {
        if let Some(Ask { who, host, .. }) = self.asks.remove(&ticket) {
            self.note(|| alloc::format!("{who:?} is answered by host {host}"));
            if let Heard::Response(Response::Refused(Refusal::Unreachable { .. })) = heard {
                self.reach(Sometimes::Unreachable);
            }
            self.tell(who, host, ticket, heard);
        }
    }

    /// Whoever asked has waited long enough, or the connection broke.
    pub(super) fn patience_ends(&mut self, ticket: Ticket) {
        let Some(Ask { who, host, life, from, .. }) = self.asks.remove(&ticket) else { return };
        if let Some(life) = life {
            let passes = self.network.passes(from, Place::Host(host));
            let notices = if passes { self.dice.millis(1, 20) } else { self.dice.millis(5_000, 30_000) };
            self.later(notices, What::Gone { host, life, ticket });
        }
        self.tell(who, host, ticket, Heard::Nothing);
    }

    /// A node died: those who asked it notice, or wait until their patience ends.
    pub(super) fn connections_break(&mut self, host: usize) {
        let asks = self.asks.iter().filter(|(_, ask)| ask.host == host && ask.life.is_some());
        let broken: Vec<Ticket> = asks.map(|(ticket, _)| *ticket).collect();
        for ticket in broken {
            if !self.dice.once_in(3) {
                let notices = self.dice.millis(1, 50);
                self.later(notices, What::Answer(ticket, Box::new(Heard::Nothing)));
            }
        }
    }

    fn tell(&mut self, who: Who, host: usize, ticket: Ticket, heard: Heard) {
        match who {
            Who::Claim(worker, life) => self.claim_answered(worker, life, host, heard),
            Who::Report(worker, life, task) => self.report_answered(worker, life, host, task, heard),
            Who::Renew(worker, life) => self.renewal_answered(worker, life, host, heard),
            Who::Client(client) => self.client_hears(client, ticket, heard),
            Who::Nobody => {}
        }
    }
}
