//! The network: which line is cut, and what becomes of a message.

use crate::dice::Dice;
use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use core::time::Duration;

use super::fault::Fault;

/// Whoever sends and receives: a db node, a worker, a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Host(usize),
    Worker(usize),
    Client(usize),
}

/// How often a message meets a fault: once in so many times, never when 0.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rates {
    pub(super) lose: u32,
    pub(super) delay: u32,
    pub(super) reorder: u32,
    pub(super) repeat: u32,
    pub(super) repeat_late: u32,
}

/// What becomes of a message.
#[derive(Default)]
pub(super) struct Fate {
    /// When it arrives; nothing if it gets lost.
    pub(super) arrives: Option<Duration>,
    /// When it arrives again.
    pub(super) again: Option<Duration>,
    /// What happened to it.
    pub(super) fault: Option<Fault>,
}

/// All lines.
#[derive(Default)]
pub(super) struct Network {
    pub(super) rates: Rates,
    cut: BTreeSet<(Place, Place)>,
    /// On which side of a partition everybody is.
    sides: BTreeMap<Place, u8>,
    /// Which partition it is, counted.
    partition: u32,
    pub(super) slow: BTreeSet<Place>,
}

impl Network {
    /// Whole lines on which messages meet faults so often.
    pub(super) fn new(rates: Rates) -> Self {
        Self { rates, ..Self::default() }
    }

    /// Whether a message gets through.
    pub(super) fn passes(&self, from: Place, to: Place) -> bool {
        !self.cut.contains(&(from, to)) && self.side(from) == self.side(to)
    }

    /// Whether a question and its answer get through.
    pub(super) fn talks(&self, a: Place, b: Place) -> bool {
        self.passes(a, b) && self.passes(b, a)
    }

    /// Cuts a line in one direction.
    pub(super) fn cut(&mut self, from: Place, to: Place) {
        self.cut.insert((from, to));
    }

    /// Mends a line.
    pub(super) fn mend(&mut self, from: Place, to: Place) {
        self.cut.remove(&(from, to));
    }

    /// Divides everybody.
    pub(super) fn divide(&mut self, sides: BTreeMap<Place, u8>) {
        self.sides = sides;
        self.partition += 1;
    }

    /// Brings everybody together again.
    pub(super) fn unite(&mut self) {
        self.sides.clear();
    }

    /// The partition that lasts, and the side on which somebody is.
    pub(super) fn partition(&self, of: Place) -> Option<(u32, u8)> {
        (!self.sides.is_empty()).then(|| (self.partition, self.side(of)))
    }

    fn side(&self, of: Place) -> u8 {
        self.sides.get(&of).copied().unwrap_or(0)
    }

    /// Whether nothing is cut.
    pub(super) fn is_whole(&self) -> bool {
        self.cut.is_empty() && self.sides.is_empty()
    }

    /// Mends everything.
    pub(super) fn heal(&mut self) {
        self.cut.clear();
        self.sides.clear();
        self.slow.clear();
        self.rates = Rates::default();
    }

    /// What becomes of a message that is sent now.
    pub(super) fn send(&self, dice: &mut Dice, from: Place, to: Place) -> Fate {
        if !self.passes(from, to) {
            return Fate::default();
        }
        let slow = self.slow.contains(&from) || self.slow.contains(&to);
        let usual = if slow { dice.millis(50, 900) } else { dice.millis(1, 12) };
        let mut fate = Fate { arrives: Some(usual), ..Fate::default() };
        let Rates { lose, delay, reorder, repeat, repeat_late } = self.rates;
        if dice.once_in(lose) {
            (fate.arrives, fate.fault) = (None, Some(Fault::Loss));
        } else if dice.once_in(delay) {
            (fate.arrives, fate.fault) = (Some(dice.millis(500, 6_000)), Some(Fault::Delay));
        } else if dice.once_in(reorder) {
            (fate.arrives, fate.fault) = (Some(usual + dice.millis(20, 200)), Some(Fault::Reorder));
        } else if dice.once_in(repeat) {
            (fate.again, fate.fault) = (Some(dice.millis(1, 2_000)), Some(Fault::Duplicate));
        } else if dice.once_in(repeat_late) {
            (fate.again, fate.fault) = (Some(dice.millis(60_000, 240_000)), Some(Fault::LateDuplicate));
        }
        fate
    }
}

/// Everybody in a world of this size.
pub(super) fn places(hosts: usize, workers: usize, clients: usize) -> Vec<Place> {
    let hosts = (0..hosts).map(Place::Host);
    hosts.chain((0..workers).map(Place::Worker)).chain((0..clients).map(Place::Client)).collect()
}
