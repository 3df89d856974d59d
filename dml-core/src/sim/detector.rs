//! How db nodes learn of each other. In most seeds that is modelled, since it costs few events: each node is told that
//! another is there or not, after a while of its own, sometimes wrongly. In some seeds it is [`crate::swim`] itself, with
//! its datagrams on the same network and a name resolution that fails.

use alloc::{boxed::Box, collections::BTreeMap, vec::Vec};
use core::time::Duration;

use super::{
    Setup,
    fault::Fault,
    network::Place,
    probe::{self, Names, Prober},
    world::{What, World},
};
use crate::{dice::Dice, member::Member, node::Event, swim};

/// How nodes learn of each other in this seed.
#[derive(Default)]
pub(super) struct Detector {
    /// The settings of SWIM, if it is used.
    pub(super) settings: Option<swim::Settings>,
    pub(super) probers: BTreeMap<usize, Prober>,
    pub(super) names: BTreeMap<usize, Names>,
}

impl Detector {
    /// The model, or SWIM in few seeds.
    pub(super) fn drawn(dice: &mut Dice, setup: &Setup) -> Self {
        let settings = dice.once_in(setup.swim_once_in).then(probe::slow);
        Self { settings, ..Self::default() }
    }

    /// Name resolution fails at some node; says whether anybody uses it.
    pub(super) fn mislead(&mut self, dice: &mut Dice, hosts: usize, fault: Fault) -> bool {
        let names = [
            (Fault::DnsEmpty, Names::Empty),
            (Fault::DnsStale, Names::Stale),
            (Fault::DnsWrong, Names::Wrong),
        ];
        let Some((_, names)) = names.into_iter().find(|(of, _)| *of == fault) else { return false };
        self.names.insert(dice.below(hosts), names);
        self.settings.is_some()
    }
}

impl World<'_> {
    /// Everybody looks whether this node is there, and it looks around.
    pub(super) fn look_around(&mut self, host: usize) {
        for other in 0..self.hosts.len() {
            if other != host {
                self.look_later(host, other);
                self.look_later(other, host);
            }
        }
    }

    /// The ends of a line look at each other.
    pub(super) fn look_at_line(&mut self, a: Place, b: Place) {
        if let (Place::Host(a), Place::Host(b)) = (a, b) {
            self.look_later(a, b);
            self.look_later(b, a);
        }
    }

    fn look_later(&mut self, host: usize, at: usize) {
        if self.detector.settings.is_none() {
            let (after, life) = (self.dice.millis(300, 3_000), self.hosts[host].life);
            self.later(after, What::Look { host, life, at });
        }
    }

    /// A node finds out whether another is there, directly or through a third one.
    pub(super) fn look(&mut self, host: usize, life: u64, at: usize) {
        if self.hosts[host].life != life || self.hosts[host].node.is_none() {
            return;
        }
        let direct = self.network.talks(Place::Host(host), Place::Host(at));
        let through = |third: usize| {
            let talks = |a, b| self.network.talks(Place::Host(a), Place::Host(b));
            self.hosts[third].is_up() && talks(host, third) && talks(third, at)
        };
        let reachable =
            direct || (0..self.hosts.len()).any(|third| third != host && third != at && through(third));
        let frozen =
            self.hosts[at].frozen.is_some_and(|since| since + Duration::from_millis(1_200) < self.now);
        let there = reachable && !frozen && self.hosts[at].node.is_some();
        let other = self.hosts[at].me;
        let known: Vec<Member> = self.hosts[host].view.values().copied().collect();
        for member in known.into_iter().filter(|member| member.address == other.address) {
            if !there || member.id != other.id {
                self.believe(host, member, false);
            }
        }
        if there && self.hosts[host].view.get(&other.id) != Some(&other) {
            self.believe(host, other, true);
        }
        // Who was frozen just now may be so for long, and who starts again may have been missed.
        if self.hosts[at].frozen.is_some() && there {
            self.look_later(host, at);
        }
    }

    pub(super) fn believe(&mut self, host: usize, member: Member, there: bool) {
        // What it was told a moment ago may have made it stop: it knows nobody then.
        if self.hosts[host].node.is_none() {
            return;
        }
        let before = self.hosts[host].view.len();
        self.ledger.view_changes(self.now, before);
        let event = if there {
            self.hosts[host].view.insert(member.id, member);
            Event::Active(member)
        } else {
            self.hosts[host].view.remove(&member.id);
            Event::Inactive(member.id)
        };
        self.ledger.disturb(self.now);
        let life = self.hosts[host].life;
        self.arrive(host, life, Box::new(event), None, true);
    }

    /// Nodes are told wrongly that another is dead: one for long, or some for a moment.
    pub(super) fn misjudge(&mut self, fault: Fault) -> bool {
        let n = self.hosts.len();
        let at = self.dice.below(n);
        if n < 2 || self.detector.settings.is_some() || !self.hosts[at].is_up() {
            return false;
        }
        let others: Vec<usize> = (0..n).filter(|host| *host != at && self.hosts[*host].is_up()).collect();
        let one = self.dice.pick(&others);
        for host in others {
            let (told, life) = (self.dice.millis(1, 500), self.hosts[host].life);
            let is_long = fault == Fault::Disagreement;
            if is_long && Some(host) != one || !is_long && self.dice.once_in(2) {
                continue;
            }
            let time = if is_long { self.dice.millis(8_000, 40_000) } else { self.dice.millis(600, 6_000) };
            self.later(told, What::Misjudge { host, life, at });
            self.later(time, What::Look { host, life, at });
        }
        true
    }

    /// A node is told that another is not there.
    pub(super) fn believe_dead(&mut self, host: usize, life: u64, at: usize) {
        let id = self.hosts[at].me.id;
        if self.hosts[host].life == life
            && self.hosts[host].node.is_some()
            && let Some(member) = self.hosts[host].view.get(&id).copied()
        {
            self.believe(host, member, false);
        }
    }

    /// Name resolution works again.
    pub(super) fn discovery_heals(&mut self) {
        self.detector.names.clear();
    }
}
