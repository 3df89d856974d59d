//! A machine with a db node on it, or without one while it is down; its disk and its clocks.

use alloc::{boxed::Box, collections::BTreeMap, vec::Vec};
use core::{net::SocketAddr, time::Duration};

use super::disk::Disk;
use crate::{
    dice::Dice,
    member::{Member, NodeId},
    node::{Event, Node},
};

/// A clock that counts from the start of its node, and runs too fast or too slow by some millionths.
#[derive(Default)]
pub(super) struct Clock {
    started: Duration,
    ppm: i64,
    /// By how much the wall clock is wrong, in milliseconds.
    pub(super) wall_ms: i64,
}

impl Clock {
    /// The node's time.
    pub(super) fn read(&self, now: Duration) -> Duration {
        let passed = (now - self.started).as_micros() as i64;
        Duration::from_micros((passed + passed * self.ppm / 1_000_000) as u64)
    }

    /// When the node's clock will have come to this.
    pub(super) fn when(&self, local: Duration) -> Duration {
        let local = local.as_micros() as i128;
        let passed = local * 1_000_000 / i128::from(1_000_000 + self.ppm) + 2;
        self.started + Duration::from_micros(passed as u64)
    }

    /// Milliseconds since 1970, as the node believes.
    pub(super) fn wall(&self, now: Duration) -> u64 {
        1_800_000_000_000_u64.saturating_add_signed(now.as_millis() as i64 + self.wall_ms)
    }
}

/// Something that waits until a frozen node goes on.
pub(super) struct Frozen {
    pub(super) event: Box<Event>,
    pub(super) from: Option<usize>,
    pub(super) fetched: bool,
}

/// A machine.
pub(super) struct Host {
    pub(super) node: Option<Node>,
    pub(super) me: Member,
    /// Counts starts over all of the machine's names.
    pub(super) life: u64,
    pub(super) disk: Disk,
    pub(super) clock: Clock,
    /// Since when the process does nothing.
    pub(super) frozen: Option<Duration>,
    pub(super) inbox: Vec<Frozen>,
    /// The other nodes that this one was told are there.
    pub(super) view: BTreeMap<NodeId, Member>,
    /// All members that this one ever knew; kept on the disk by the program around the brain.
    pub(super) known: BTreeMap<NodeId, Member>,
    /// When the next tick is due, as it was planned last.
    pub(super) tick_at: Option<Duration>,
    /// Ticks in a row that came to nothing: see the watchdog.
    pub(super) idle_ticks: u32,
    /// How many events it took in and has not acted on.
    pub(super) taken: u32,
    /// Whether another node's answer is among them.
    pub(super) relays: bool,
    /// The process dies with its next write; if set, with that write torn.
    pub(super) doomed: Option<bool>,
}

impl Host {
    /// A machine that has not started yet.
    pub(super) fn new(dice: &mut Dice, address: SocketAddr) -> Self {
        Self {
            node: None,
            me: Member { id: NodeId::new(dice.number()), address, generation: 0 },
            life: 0,
            disk: Disk::default(),
            clock: Clock::default(),
            frozen: None,
            inbox: Vec::new(),
            view: BTreeMap::new(),
            known: BTreeMap::new(),
            tick_at: None,
            idle_ticks: 0,
            taken: 0,
            relays: false,
            doomed: None,
        }
    }

    /// The clock of this machine runs wrong from its next start on.
    pub(super) fn drift(&mut self, ppm: i64) {
        self.clock.ppm = ppm;
    }

    /// Starts the node from what is durable.
    pub(super) fn start(&mut self, now: Duration, settings: &crate::node::Settings) {
        self.me.generation += 1;
        self.life += 1;
        self.clock.started = now;
        let records = self.disk.keys().iter().map(|(id, record)| (*id, record.clone()));
        let mut node = Node::new(settings.clone(), self.me, records);
        node.remember(self.known.values().copied());
        self.node = Some(node);
        (self.tick_at, self.frozen, self.doomed, self.idle_ticks) = (None, None, None, 0);
        (self.taken, self.relays) = (0, false);
    }

    /// The process dies; of its writes on their way the first `kept` are durable.
    pub(super) fn stop(&mut self, kept: usize) {
        self.disk.crash(kept);
        self.node = None;
        self.inbox.clear();
        self.view.clear();
        (self.frozen, self.doomed) = (None, None);
        self.life += 1;
    }

    /// The machine gets an empty disk, and with it its node another name.
    pub(super) fn replace_disk(&mut self, dice: &mut Dice) -> Disk {
        self.me = Member { id: NodeId::new(dice.number()), generation: 0, ..self.me };
        self.known.clear();
        core::mem::take(&mut self.disk)
    }

    /// Whether a process is there and does something.
    pub(super) fn is_up(&self) -> bool {
        self.node.is_some() && self.frozen.is_none()
    }

    /// The node's time.
    pub(super) fn now(&self, now: Duration) -> Duration {
        self.clock.read(now)
    }
}
