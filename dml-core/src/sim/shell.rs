//! What the program around a db node does: it hands events over, with the blobs that they name, and does what comes out.

use alloc::{boxed::Box, vec::Vec};
use core::time::Duration;

use super::{
    Invariant,
    asks::Heard,
    fault::Fault,
    faults::Mend,
    host::Frozen,
    network::Place,
    sometimes::Sometimes,
    world::{What, World},
};
use crate::{
    id::Digest,
    member::NodeId,
    node::{Effect, Event, Letter, Message, Response},
    planted::{self, Bug},
};

/// So many ticks at one time, each of which asks for another, are a loop.
const MAX_IDLE_TICKS: u32 = 1_000;

impl World<'_> {
    /// A node starts from what its disk has.
    pub(super) fn start(&mut self, host: usize) {
        if self.hosts[host].node.is_some() {
            return;
        }
        let now = self.now;
        self.hosts[host].start(now, &self.settings);
        self.note(|| alloc::format!("host {host} starts"));
        self.ledger.disturb(now);
        self.find_old_replicas(host);
        self.plan_tick(host);
        self.detector_starts(host);
        self.look_around(host);
        self.scrub(host);
    }

    /// A node dies, and starts again after a while.
    pub(super) fn crash(&mut self, host: usize, kept: usize, away: Duration) {
        if self.hosts[host].node.is_some() {
            if self.hosts[host].disk.is_waiting() {
                self.reach(Sometimes::DiedWhileWriting);
            }
            self.find_leases_of(host);
            self.hosts[host].stop(kept);
            self.note(|| alloc::format!("host {host} stops"));
            self.connections_break(host);
            self.look_around(host);
        }
        self.later(away, What::Mend(Mend::Start(host)));
    }

    /// A frozen node goes on.
    pub(super) fn resume(&mut self, host: usize) {
        if self.hosts[host].frozen.take().is_none() {
            return;
        }
        let life = self.hosts[host].life;
        let inbox = core::mem::take(&mut self.hosts[host].inbox);
        if inbox.iter().any(|frozen| matches!(*frozen.event, Event::Letter(_))) {
            self.reach(Sometimes::LettersAfterSleep);
        }
        for Frozen { event, from, fetched } in inbox {
            self.arrive(host, life, event, from, fetched);
        }
        self.tick(host, life);
        self.act(host);
        self.wake_prober(host);
        self.look_around(host);
    }

    /// An event is there for a node. The blobs that it names are fetched first, unless they were.
    pub(super) fn arrive(
        &mut self,
        host: usize,
        life: u64,
        event: Box<Event>,
        from: Option<usize>,
        fetched: bool,
    ) {
        let machine = &mut self.hosts[host];
        if machine.node.is_none() || machine.life != life {
            return;
        }
        if machine.frozen.is_some() {
            machine.inbox.push(Frozen { event, from, fetched });
            return;
        }
        let now = machine.now(self.now);
        let mut blobs = match &*event {
            Event::Request { request, .. } => request.blobs(),
            Event::Letter(letter) => letter.blobs(),
            Event::Gone(_) | Event::Persisted(_) | Event::Active(_) | Event::Inactive(_) | Event::Tick => {
                Vec::new()
            }
        };
        blobs.retain(|blob| !machine.disk.touch(now, blob));
        let unguarded = planted::is(Bug::CopyWithoutBlobs) && matches!(*event, Event::Letter(_));
        if blobs.is_empty() || unguarded {
            return self.hand(host, *event);
        }
        if fetched {
            return self.blobs_missing(host, *event);
        }
        if matches!(*event, Event::Letter(_)) {
            self.reach(Sometimes::LetterWaitedForBlobs);
        }
        let time = self.dice.millis(3, 30) * blobs.len() as u32;
        self.later(time, What::Fetched { host, life, blobs, from, event });
    }

    fn blobs_missing(&mut self, host: usize, event: Event) {
        match event {
            Event::Request { ticket, .. } => self.reply(host, ticket, Heard::BlobsMissing),
            Event::Letter(_) => self.reach(Sometimes::BlobsDidNotCome),
            Event::Gone(_) | Event::Persisted(_) | Event::Active(_) | Event::Inactive(_) | Event::Tick => {}
        }
    }

    /// The fetch of blobs is over: they are here now if whoever had them could be reached.
    pub(super) fn fetched(
        &mut self,
        host: usize,
        life: u64,
        blobs: &[Digest],
        from: Option<usize>,
        event: Box<Event>,
    ) {
        if self.hosts[host].node.is_none() || self.hosts[host].life != life {
            return;
        }
        let sender = match &*event {
            Event::Letter(letter) => Some(letter.from),
            Event::Request { .. } | Event::Gone(_) | Event::Persisted(_) => None,
            Event::Active(_) | Event::Inactive(_) | Event::Tick => None,
        };
        for blob in blobs {
            self.fetch(host, *blob, from.zip(sender));
        }
        self.arrive(host, life, event, from, true);
    }

    /// Fetches a blob from a certain node, or from any that has it. Says whether it came.
    fn fetch(&mut self, host: usize, blob: Digest, from: Option<(usize, NodeId)>) -> bool {
        if self.storm && self.dice.once_in(self.fetch_fails) {
            self.met(Fault::FetchFails);
            return false;
        }
        let others: Vec<usize> = match from {
            Some((from, id)) if self.hosts[from].me.id == id => alloc::vec![from],
            Some(_) => Vec::new(),
            None => (0..self.hosts.len()).filter(|other| *other != host).collect(),
        };
        let found = others.into_iter().any(|other| self.can_read(Place::Host(host), other, &blob));
        if found && !self.hosts[host].disk.full {
            let now = self.hosts[host].now(self.now);
            self.hosts[host].disk.put(now, blob);
        }
        found
    }

    /// Whether somebody can read a blob at a node now.
    pub(super) fn can_read(&mut self, reader: Place, host: usize, blob: &Digest) -> bool {
        if !self.hosts[host].is_up() || !self.network.talks(reader, Place::Host(host)) {
            return false;
        }
        let found = self.hosts[host].disk.read(blob);
        if !found && self.hosts[host].disk.lost.contains(blob) {
            self.later(Duration::from_millis(100), What::Refetch { host, life: self.hosts[host].life });
        }
        found
    }

    /// Reads all blobs of a disk.
    pub(super) fn scrub(&mut self, host: usize) {
        let blobs: Vec<Digest> = self.ledger.blobs().collect();
        blobs.iter().for_each(|blob| {
            self.hosts[host].disk.read(blob);
        });
        self.later(Duration::ZERO, What::Refetch { host, life: self.hosts[host].life });
    }

    /// Fetches what was lost to corruption, until it is there or nobody needs it.
    pub(super) fn refetch(&mut self, host: usize, life: u64) {
        if self.hosts[host].life != life || !self.hosts[host].is_up() || self.hosts[host].disk.lost.is_empty()
        {
            return;
        }
        for blob in self.hosts[host].disk.lost.clone() {
            let wanted = self.hosts[host].node.as_ref().is_some_and(|node| node.refers_to(&blob));
            if !wanted {
                self.hosts[host].disk.lost.remove(&blob);
            } else if self.fetch(host, blob, None) {
                self.reach(Sometimes::BlobMended);
            }
        }
        self.later(Duration::from_secs(3), What::Refetch { host, life });
    }

    /// The time that a node asked for has come.
    pub(super) fn tick(&mut self, host: usize, life: u64) {
        let machine = &mut self.hosts[host];
        if machine.life != life || !machine.is_up() || machine.tick_at.is_none_or(|at| at > self.now) {
            return;
        }
        machine.tick_at = None;
        self.hand(host, Event::Tick);
    }

    pub(super) fn plan_tick(&mut self, host: usize) {
        let machine = &mut self.hosts[host];
        let Some(node) = &machine.node else { return };
        let Some(local) = node.deadline(machine.clock.read(self.now)) else { return };
        let at = machine.clock.when(local).max(self.now);
        if machine.tick_at.is_some_and(|planned| planned <= at) {
            return;
        }
        machine.tick_at = Some(at);
        let life = machine.life;
        self.at(at, What::Tick { host, life });
    }

    fn watch_for_loops(&mut self, host: usize, event: &Event) {
        let machine = &mut self.hosts[host];
        let idle = matches!(event, Event::Tick) && machine.tick_at.is_some_and(|at| at <= self.now);
        machine.idle_ticks = if idle { machine.idle_ticks + 1 } else { 0 };
        if machine.idle_ticks > MAX_IDLE_TICKS {
            self.breach(Invariant::Watchdog, || alloc::format!("host {host} asks for a tick now, for ever"));
        }
    }

    /// A node takes an event in, and acts on it, unless it waits for more.
    fn hand(&mut self, host: usize, event: Event) {
        self.events += 1;
        self.note(|| alloc::format!("host {host} hears {event:?}"));
        self.before(host, &event);
        if let Event::Letter(letter) = &event
            && let Message::Bury { dead } = &letter.message
        {
            self.burying(host, dead);
        }
        let machine = &mut self.hosts[host];
        let Some(node) = &mut machine.node else { return };
        let is_tick = matches!(event, Event::Tick);
        machine.taken += 1;
        machine.relays |=
            matches!(&event, Event::Letter(letter) if matches!(letter.message, Message::Answer { .. }));
        node.take(machine.clock.read(self.now), event);
        let life = machine.life;
        if self.gathers > 0 && self.dice.once_in(self.gathers) {
            let wait = self.dice.millis(0, 4);
            return self.later(wait, What::Act { host, life });
        }
        self.act(host);
        self.watch_for_loops(host, if is_tick { &Event::Tick } else { &Event::Gone(0) });
    }

    /// A node acts on what it took in; what comes out is done.
    pub(super) fn act(&mut self, host: usize) {
        let machine = &mut self.hosts[host];
        let Some(node) = machine.node.as_mut().filter(|_| machine.frozen.is_none()) else { return };
        let effects = node.act();
        let (life, taken) = (machine.life, core::mem::take(&mut machine.taken));
        if taken > 1 {
            self.reach(Sometimes::ActedOnMany);
        }
        for effect in effects {
            self.note(|| alloc::format!("host {host} does {effect:?}"));
            if self.hosts[host].life != life {
                break;
            }
            self.perform(host, effect);
        }
        self.hosts[host].relays = false;
        self.plan_tick(host);
    }

    pub(super) fn perform(&mut self, host: usize, effect: Effect) {
        match effect {
            Effect::Persist { write, records } => {
                self.persisting(host, &records);
                let torn = self.hosts[host].doomed;
                self.hosts[host].disk.write(write, records);
                if let Some(torn) = torn {
                    let waiting = self.hosts[host].disk.waiting();
                    let kept = if torn { waiting - 1 } else { self.dice.below(waiting + 1) };
                    let away = self.dice.millis(200, 40_000);
                    return self.crash(host, kept, away);
                }
                let disk = &self.hosts[host].disk;
                if disk.full {
                    self.reach(Sometimes::FullWhileWriting);
                }
                let time = if self.hosts[host].disk.slow {
                    self.dice.millis(100, 2_500)
                } else {
                    self.dice.millis(1, 10)
                };
                let life = self.hosts[host].life;
                self.later(time, What::Durable { host, life, write });
            }
            Effect::Reply(ticket, response) => self.reply(host, ticket, Heard::Response(response)),
            Effect::Discard(blobs) => {
                self.discarding(host, &blobs);
                let now = self.hosts[host].now(self.now);
                self.hosts[host].disk.discard(now, &blobs);
            }
            Effect::Send { to, letter } => {
                if let Message::Bury { dead } = &letter.message {
                    self.burying(host, dead);
                }
                if let Message::Answer { response: Response::Created { id, replicas, .. }, .. } =
                    letter.message
                {
                    self.write_acknowledged(host, id, true, Some(replicas));
                }
                self.send(host, to, letter);
            }
            Effect::Remember(members) => {
                self.hosts[host].known = members.into_iter().map(|member| (member.id, member)).collect();
            }
        }
    }

    /// A write reaches the disk, unless that is full.
    pub(super) fn durable(&mut self, host: usize, life: u64, write: u64) {
        let machine = &mut self.hosts[host];
        if machine.life != life || machine.node.is_none() {
            return;
        }
        if machine.disk.full {
            return self.later(Duration::from_millis(400), What::Durable { host, life, write });
        }
        if machine.disk.sync(write) {
            self.arrive(host, life, Event::Persisted(write).into(), None, true);
        }
    }

    fn send(&mut self, host: usize, to: NodeId, letter: Letter) {
        let Some(at) = self.ids.get(&to).copied() else {
            return self
                .breach(Invariant::Watchdog, || alloc::format!("host {host} writes to {to}, who never was"));
        };
        self.sending(host, at, &letter);
        let fate = self.network.send(&mut self.dice, Place::Host(host), Place::Host(at));
        if let Some(fault) = fate.fault {
            self.met(fault);
        }
        let letter = Box::new(letter);
        // A question is one connection: it does not come again when that has ended.
        let is_question = matches!(letter.message, Message::Ask { .. });
        if let Some(after) = fate.again.filter(|after| !is_question || *after < Duration::from_secs(2)) {
            self.later(after, What::Letter { from: host, to, letter: letter.clone(), again: true });
        }
        if let Some(after) = fate.arrives {
            self.later(after, What::Letter { from: host, to, letter, again: false });
        }
    }

    /// A letter arrives at the machine that it was sent to, if the node that it is for still lives there.
    pub(super) fn letter_arrives(&mut self, from: usize, to: NodeId, letter: Box<Letter>, again: bool) {
        let Some(host) = self.ids.get(&to).copied().filter(|host| self.hosts[*host].me.id == to) else {
            return;
        };
        if self.hosts[host].node.is_none() {
            return;
        }
        self.receiving(host, &letter, again);
        let life = self.hosts[host].life;
        self.arrive(host, life, Box::new(Event::Letter(*letter)), Some(from), false);
    }

    /// Work that nobody takes is given back, if the program notices.
    pub(super) fn nobody_hears(&mut self, host: usize, response: Response) {
        let Response::Work(work) = response else { return };
        if self.dice.once_in(2) {
            return;
        }
        let life = self.hosts[host].life;
        for assignment in work {
            let (ticket, time_ms) = (self.name(), self.hosts[host].clock.wall(self.now));
            let outcome = crate::node::Outcome::Released { pause_ms: 0 };
            let request = crate::node::Request::Report { lease: assignment.lease, outcome };
            self.arrive(host, life, Box::new(Event::Request { ticket, request, time_ms }), None, true);
        }
    }
}
