//! [`crate::swim`] on each machine, in those seeds that have it.

use alloc::{boxed::Box, vec::Vec};
use core::{net::SocketAddr, time::Duration};

use super::{
    network::Place,
    world::{What, World},
};
use crate::{
    member::Member,
    swim::{self, Swim},
};

/// What name resolution finds.
#[derive(Clone, Copy, Default, PartialEq)]
pub(super) enum Names {
    #[default]
    Right,
    Empty,
    /// Some addresses only, and one of earlier times.
    Stale,
    /// An address at which there is somebody else.
    Wrong,
}

/// SWIM on one machine.
pub(super) struct Prober {
    swim: Swim,
    life: u64,
    tick_at: Option<Duration>,
}

/// How often names are resolved.
const RESOLVE: Duration = Duration::from_secs(15);

/// SWIM at a pace that a simulation can afford.
pub(super) fn slow() -> swim::Settings {
    swim::Settings {
        period: Duration::from_millis(2_000),
        rtt: Duration::from_millis(700),
        suspicion: Duration::from_millis(4_000),
        refusal: Duration::from_millis(1_000),
        gossip: Duration::from_millis(800),
        feed: Duration::from_secs(20),
        ..swim::Settings::default()
    }
}

impl World<'_> {
    /// A node started: so does its SWIM, if it has one.
    pub(super) fn detector_starts(&mut self, host: usize) {
        let Some(settings) = self.detector.settings else { return };
        let known: Vec<Member> = self.hosts[host].known.values().copied().collect();
        let (me, life) = (self.hosts[host].me, self.hosts[host].life);
        let swim = Swim::new(me, settings, self.dice.number(), known);
        self.detector.probers.insert(host, Prober { swim, life, tick_at: None });
        self.resolve(host, life);
    }

    /// A node resolves the name of its cluster, again and again.
    pub(super) fn resolve(&mut self, host: usize, life: u64) {
        if self.hosts[host].life != life {
            return;
        }
        let addresses: Vec<SocketAddr> = self.hosts.iter().map(|host| host.me.address).collect();
        let strange = SocketAddr::from(([10, 9, 9, 9], 80));
        let found = match self.detector.names.get(&host).copied().unwrap_or_default() {
            Names::Right => addresses,
            Names::Empty => Vec::new(),
            Names::Stale => addresses.into_iter().take(1).chain([strange]).collect(),
            Names::Wrong => alloc::vec![strange],
        };
        self.detect(host, life, swim::Event::Discovered(found));
        self.later(RESOLVE, What::Resolve { host, life });
    }

    /// SWIM takes something in. What arrives while the process is frozen is lost.
    pub(super) fn detect(&mut self, host: usize, life: u64, event: swim::Event) {
        let machine = &self.hosts[host];
        let (now, is_tick) = (machine.now(self.now), matches!(event, swim::Event::Tick));
        let Some(prober) = self.detector.probers.get_mut(&host) else { return };
        if machine.life != life || prober.life != life {
            return;
        }
        if is_tick {
            if prober.tick_at.is_none_or(|at| at > self.now) {
                return;
            }
            prober.tick_at = None;
        }
        if !machine.is_up() {
            return;
        }
        self.events += 1;
        for effect in prober.swim.handle(now, event) {
            self.perform_swim(host, life, effect);
        }
        self.plan_probe(host);
    }

    /// A frozen node goes on: so does its SWIM.
    pub(super) fn wake_prober(&mut self, host: usize) {
        if let Some(prober) = self.detector.probers.get_mut(&host) {
            prober.tick_at = None;
            self.plan_probe(host);
        }
    }

    /// When SWIM wants to be called again.
    fn plan_probe(&mut self, host: usize) {
        let machine = &self.hosts[host];
        let Some(prober) = self.detector.probers.get_mut(&host) else { return };
        let Some(local) = prober.swim.deadline(machine.now(self.now)) else { return };
        let at = machine.clock.when(local).max(self.now);
        if prober.tick_at.is_some_and(|planned| planned <= at) {
            return;
        }
        prober.tick_at = Some(at);
        let (life, event) = (prober.life, Box::new(swim::Event::Tick));
        self.at(at, What::Detect { host, life, event });
    }

    fn perform_swim(&mut self, host: usize, life: u64, effect: swim::Effect) {
        match effect {
            swim::Effect::Send { to, datagram } => self.send_datagram(host, to, datagram),
            swim::Effect::Greet(address) => {
                let other = self.hosts.iter().position(|host| host.me.address == address);
                let Some(other) = other.filter(|other| self.hosts[*other].is_up()) else { return };
                if self.network.talks(Place::Host(host), Place::Host(other)) {
                    let event = Box::new(swim::Event::Greeted(self.hosts[other].me));
                    let after = self.dice.millis(2, 30);
                    self.later(after, What::Detect { host, life, event });
                }
            }
            swim::Effect::Active(member) => self.believe(host, member, true),
            swim::Effect::Inactive { id, .. } => {
                if let Some(member) = self.hosts[host].view.get(&id).copied() {
                    self.believe(host, member, false);
                }
            }
        }
    }

    fn send_datagram(&mut self, host: usize, to: Member, datagram: Vec<u8>) {
        let Some(other) = self.hosts.iter().position(|host| host.me.address == to.address) else { return };
        let fate = self.network.send(&mut self.dice, Place::Host(host), Place::Host(other));
        if let Some(fault) = fate.fault {
            self.met(fault);
        }
        let (from, there) = (self.hosts[host].life, self.hosts[other].life);
        for after in [fate.arrives, fate.again].into_iter().flatten() {
            let (to, life, event) = match self.hosts[other].node {
                Some(_) => (other, there, swim::Event::Datagram(datagram.clone())),
                None => (host, from, swim::Event::Refused(to.id)),
            };
            self.later(after, What::Detect { host: to, life, event: Box::new(event) });
        }
    }
}
