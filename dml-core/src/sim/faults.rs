//! What goes wrong, and how it is made to.

use alloc::{collections::BTreeMap, vec::Vec};
use core::time::Duration;

use super::{
    fault::{FAULTS, Fault},
    network::{Place, Rates, places},
    sometimes::Sometimes,
    world::{What, World},
};
use crate::{dice::Dice, record::Kind};

/// The end of a fault.
#[derive(Debug, Clone, Copy)]
pub(super) enum Mend {
    Line(Place, Place),
    /// A line changes its state, so many times more.
    Flap(Place, Place, u32),
    Unite,
    Start(usize),
    Resume(usize),
    Fast(usize),
    Disk(usize),
    /// A disk is read from its beginning to its end.
    Scrub(usize),
    Hire,
}

/// Which faults a seed has: each kind is off in a third of the seeds, so that some meet others undisturbed.
pub(super) fn swarm(dice: &mut Dice) -> Vec<Fault> {
    FAULTS.into_iter().filter(|_| !dice.once_in(3)).collect()
}

/// The rates of the faults of messages.
pub(super) fn rates(dice: &mut Dice, on: &[Fault]) -> Rates {
    let mut rate = |fault, usual: u32| {
        let rate = usual + dice.below(usual as usize * 8) as u32;
        if on.contains(&fault) { rate } else { 0 }
    };
    Rates {
        lose: rate(Fault::Loss, 12),
        delay: rate(Fault::Delay, 12),
        reorder: rate(Fault::Reorder, 6),
        repeat: rate(Fault::Duplicate, 12),
        repeat_late: rate(Fault::LateDuplicate, 30),
    }
}

/// A second in milliseconds.
const SECOND: u64 = 1000;

impl World<'_> {
    /// Notes a fault.
    pub(super) fn met(&mut self, fault: Fault) {
        *self.faults.entry(fault).or_default() += 1;
        if !fault.is_harmless() {
            self.ledger.disturb(self.now);
        }
        self.note(|| alloc::format!("fault {fault:?}"));
    }

    /// Something goes wrong, and the next thing will.
    pub(super) fn next_fault(&mut self) {
        let kinds = self.kinds.clone();
        // Some kinds are impossible just now, or not made in this way.
        for _ in 0..6 {
            if let Some(kind) = self.dice.pick(&kinds)
                && self.inject(kind)
            {
                self.met(kind);
                break;
            }
        }
        let next = self.dice.millis(SECOND, 2 * self.pace);
        self.later(next, What::Fault);
    }

    fn some_host(&mut self) -> usize {
        self.dice.below(self.hosts.len())
    }

    fn some_up(&mut self) -> Option<usize> {
        let up: Vec<usize> = (0..self.hosts.len()).filter(|host| self.hosts[*host].is_up()).collect();
        self.dice.pick(&up)
    }

    pub(super) fn inject(&mut self, fault: Fault) -> bool {
        match fault {
            Fault::OneWayCut => self.cut_one_way(),
            Fault::Flapping => {
                let Some((a, b)) = self.some_line() else { return false };
                self.later(Duration::ZERO, What::Mend(Mend::Flap(a, b, 7)));
                true
            }
            Fault::Partition => self.divide(),
            Fault::Crash | Fault::Restart => {
                let Some(host) = self.some_up() else { return false };
                let kept = self.dice.below(self.hosts[host].disk.waiting() + 1);
                let away = if fault == Fault::Crash {
                    self.dice.millis(SECOND / 2, 60 * SECOND)
                } else {
                    self.dice.millis(20, 400)
                };
                self.crash(host, kept, away);
                true
            }
            Fault::CrashInPersist | Fault::TornWrite => {
                let Some(host) = self.some_up() else { return false };
                self.hosts[host].doomed = Some(fault == Fault::TornWrite);
                true
            }
            Fault::DiskLoss => self.lose_disk(),
            Fault::Pause => {
                let Some(host) = self.some_up() else { return false };
                self.hosts[host].frozen = Some(self.now);
                let pause = if self.dice.once_in(2) { 3 * SECOND } else { 40 * SECOND };
                let pause = self.dice.millis(SECOND / 5, pause);
                self.later(pause, What::Mend(Mend::Resume(host)));
                self.look_around(host);
                true
            }
            Fault::SlowNode => {
                let host = self.some_host();
                self.network.slow.insert(Place::Host(host));
                let slow = self.dice.millis(5 * SECOND, 50 * SECOND);
                self.later(slow, What::Mend(Mend::Fast(host)));
                true
            }
            Fault::ClockJump => {
                let host = self.some_host();
                let jump = [-86_400_000, -30_000, 30_000, 600_000, 86_400_000];
                self.hosts[host].clock.wall_ms += self.dice.pick(&jump).unwrap_or(0);
                true
            }
            Fault::DiskFull | Fault::SlowDisk => {
                let host = self.some_host();
                let disk = &mut self.hosts[host].disk;
                if fault == Fault::DiskFull {
                    disk.full = true
                } else {
                    disk.slow = true
                }
                let time = self.dice.millis(2 * SECOND, 25 * SECOND);
                self.later(time, What::Mend(Mend::Disk(host)));
                true
            }
            Fault::BitRot => self.rot(),
            Fault::FalseDeath | Fault::Disagreement => self.misjudge(fault),
            Fault::WrongBytes => self.some_worker(|worker| worker.wrong = true),
            Fault::WorkerStalled => {
                let until = self.now + self.dice.millis(5 * SECOND, 40 * SECOND);
                self.some_worker(|worker| worker.stalled = until)
            }
            Fault::WorkerKilled | Fault::WorkerLeft => self.lose_worker(fault == Fault::WorkerLeft),
            Fault::ClientGone => self.client_goes(),
            // These are met by messages, at the start, or by the failure detector.
            Fault::Loss | Fault::Delay | Fault::Reorder | Fault::Duplicate | Fault::LateDuplicate => false,
            Fault::ClockOffset | Fault::ClockDrift | Fault::FetchFails => false,
            Fault::DnsEmpty | Fault::DnsStale | Fault::DnsWrong => self.mislead(fault),
        }
    }

    fn some_line(&mut self) -> Option<(Place, Place)> {
        let hosts = places(self.hosts.len(), 0, 0);
        let all = if self.dice.once_in(3) { self.everybody() } else { hosts.clone() };
        let (a, b) = (self.dice.pick(&all)?, self.dice.pick(&hosts)?);
        (a != b).then(|| if self.dice.once_in(2) { (a, b) } else { (b, a) })
    }

    fn everybody(&self) -> Vec<Place> {
        places(self.hosts.len(), self.workers.len(), self.clients.len())
    }

    fn cut_one_way(&mut self) -> bool {
        let Some((a, b)) = self.some_line() else { return false };
        self.network.cut(a, b);
        let time = self.dice.millis(3 * SECOND, 40 * SECOND);
        self.later(time, What::Mend(Mend::Line(a, b)));
        self.look_at_line(a, b);
        true
    }

    fn divide(&mut self) -> bool {
        if self.network.partition(Place::Client(0)).is_some() || self.hosts.len() < 2 {
            return false;
        }
        let all = self.everybody();
        let sides: BTreeMap<Place, u8> =
            all.into_iter().map(|place| (place, self.dice.below(2) as u8)).collect();
        self.network.divide(sides);
        let time = self.dice.millis(5 * SECOND, 60 * SECOND);
        self.later(time, What::Mend(Mend::Unite));
        (0..self.hosts.len()).for_each(|host| self.look_around(host));
        true
    }

    fn lose_disk(&mut self) -> bool {
        let host = self.some_host();
        if !self.may_lose(host) {
            return false;
        }
        self.reach(Sometimes::DiskLost);
        let away = self.dice.millis(SECOND / 2, 30 * SECOND);
        self.crash(host, 0, away);
        let disk = self.hosts[host].replace_disk(&mut self.dice);
        self.ledger.lost_disk(self.now, disk);
        let id = self.hosts[host].me.id;
        self.ids.insert(id, host);
        self.check_readable();
        true
    }

    fn rot(&mut self) -> bool {
        let host = self.some_host();
        let Some(node) = &self.hosts[host].node else { return false };
        let named: Vec<_> = self.ledger.blobs().filter(|blob| node.refers_to(blob)).collect();
        let Some(blob) = self.dice.pick(&named) else { return false };
        let elsewhere = (0..self.hosts.len()).any(|other| {
            let there = &self.hosts[other];
            let named = there.node.as_ref().is_some_and(|node| node.refers_to(&blob));
            other != host && named && !there.disk.is_waiting() && there.disk.is_good(&blob)
        });
        if !elsewhere || self.hosts.iter().any(|host| host.disk.is_hurt()) {
            return false;
        }
        self.hosts[host].disk.rot(blob);
        let time = self.dice.millis(5 * SECOND, 60 * SECOND);
        self.later(time, What::Mend(Mend::Scrub(host)));
        true
    }

    /// A node goes for minutes; meanwhile something that it has is deleted, and not made again while it is away.
    pub(super) fn forsake(&mut self) {
        let trainings = self.things.iter().filter(|thing| thing.body.kind() == Kind::Training);
        let ids: Vec<_> = trainings.map(|thing| thing.id).collect();
        let Some(id) = self.dice.pick(&ids) else { return };
        let holds = |host: &usize| {
            let node = self.hosts[*host].node.as_ref();
            node.and_then(|node| node.record(&id)).is_some_and(|record| record.body.is_some())
        };
        let holders: Vec<usize> = (0..self.hosts.len()).filter(holds).collect();
        if !self.kinds.contains(&Fault::Crash) || holders.len() < 2 {
            return;
        }
        let Some(host) = self.dice.pick(&holders) else { return };
        self.forsaken = Some(id);
        let away = self.dice.millis(100 * SECOND, 200 * SECOND);
        self.crash(host, 0, away);
        self.met(Fault::Crash);
    }

    /// A fault ends, or goes on in another way.
    pub(super) fn mend(&mut self, mend: Mend) {
        self.ledger.disturb(self.now);
        match mend {
            Mend::Line(a, b) => {
                self.network.mend(a, b);
                self.look_at_line(a, b);
            }
            Mend::Flap(a, b, left) => {
                if left % 2 == 1 && self.storm {
                    self.network.cut(a, b);
                } else {
                    self.network.mend(a, b);
                }
                self.look_at_line(a, b);
                let time = self.dice.millis(SECOND / 2, 4 * SECOND);
                if left > 0 {
                    self.later(time, What::Mend(Mend::Flap(a, b, left - 1)));
                }
            }
            Mend::Unite => {
                self.network.unite();
                (0..self.hosts.len()).for_each(|host| self.look_around(host));
            }
            Mend::Start(host) => self.start(host),
            Mend::Resume(host) => self.resume(host),
            Mend::Fast(host) => {
                self.network.slow.remove(&Place::Host(host));
            }
            Mend::Disk(host) => {
                let disk = &mut self.hosts[host].disk;
                (disk.full, disk.slow) = (false, false);
            }
            Mend::Scrub(host) => self.scrub(host),
            Mend::Hire => self.hire(),
        }
    }

    /// All faults end.
    pub(super) fn heal(&mut self) {
        self.storm = false;
        self.kinds.clear();
        self.network.heal();
        self.ledger.disturb(self.now);
        for host in 0..self.hosts.len() {
            let machine = &mut self.hosts[host];
            (machine.disk.full, machine.disk.slow, machine.doomed) = (false, false, None);
            if self.hosts[host].node.is_none() {
                self.start(host);
            }
            self.resume(host);
            self.scrub(host);
            self.look_around(host);
        }
        self.discovery_heals();
        let missing =
            self.setup.workers as usize - self.workers.iter().filter(|worker| worker.is_there()).count();
        (0..missing).for_each(|_| self.hire());
    }
}
