//! Finding those that are missing: at the addresses that discovery gives, and among those known before.

use crate::dice::Dice;
use alloc::vec::Vec;
use core::{net::SocketAddr, time::Duration};

use super::{settings::Settings, table::Seen};

/// Whoever found nobody for so long seeks less often.
const HOPEFUL: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub(super) struct Seek {
    me: SocketAddr,
    addresses: Vec<SocketAddr>,
    /// Where in the list the next round begins.
    turn: usize,
    last: Option<Duration>,
    /// Whether another node has accepted this one.
    joined: bool,
    alone_since: Duration,
}

impl Seek {
    pub(super) fn new(me: SocketAddr) -> Self {
        Self { me, addresses: Vec::new(), turn: 0, last: None, joined: false, alone_since: Duration::ZERO }
    }

    /// Takes the list of discovery in place of the last; a new address is sought at once.
    pub(super) fn learn(&mut self, mut addresses: Vec<SocketAddr>, dice: &mut Dice) {
        addresses.retain(|address| *address != self.me);
        addresses.sort_unstable();
        addresses.dedup();
        if addresses.iter().any(|address| self.addresses.binary_search(address).is_err()) {
            self.last = None;
            self.turn = dice.below(addresses.len());
        }
        self.addresses = addresses;
    }

    /// This node was accepted, or has lost the others.
    pub(super) fn joined(&mut self, joined: bool, now: Duration) {
        if self.joined && !joined {
            self.alone_since = now;
            self.last = None;
        }
        self.joined = joined;
    }

    pub(super) fn is_joined(&self) -> bool {
        self.joined
    }

    /// When to seek again; never, if there is no address and nobody is missing.
    pub(super) fn deadline(&self, missing: usize, settings: &Settings) -> Option<Duration> {
        if self.addresses.is_empty() && missing == 0 {
            return None;
        }
        let Some(last) = self.last else { return Some(Duration::ZERO) };
        let hopeful = last < self.alone_since + HOPEFUL;
        Some(last + if hopeful && !self.joined { settings.join } else { settings.announce })
    }

    /// The addresses to greet now: those of no active member, some at a time, in turn.
    pub(super) fn greet<'a>(
        &mut self,
        now: Duration,
        nodes: impl Iterator<Item = &'a Seen>,
        settings: &Settings,
    ) -> Vec<SocketAddr> {
        self.last = Some(now);
        let active = nodes.filter(|seen| seen.health.is_active());
        let mut there: Vec<_> = active.map(|seen| seen.member.address).collect();
        there.sort_unstable();
        let (after, before) = (self.addresses.iter().skip(self.turn), self.addresses.iter().take(self.turn));
        let strangers = after.chain(before).filter(|address| there.binary_search(address).is_err());
        let greeted: Vec<_> = strangers.copied().take(settings.greet_to).collect();
        if let Some(next) = greeted.last().and_then(|last| self.addresses.binary_search(last).ok()) {
            self.turn = next + 1;
        }
        greeted
    }
}
