//! What goes wrong, and how it is made to.

use alloc::{collections::BTreeMap, vec::Vec};
use core::time::Duration;

use super::{
    dice::Dice,
    network::{Place, Rates, places},
    sometimes::Sometimes,
    world::{What, World},
};

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A message gets lost.
    Loss,
    /// A message takes seconds.
    Delay,
    /// A message is overtaken by others.
    Reorder,
    /// A message arrives twice.
    Duplicate,
    /// A message arrives again after minutes.
    LateDuplicate,
    /// A line is cut in one direction.
    OneWayCut,
    /// The network falls into two parts, workers and clients included.
    Partition,
    /// A line is cut and mended again and again.
    Flapping,
    /// A db node dies, and stays away for a while.
    Crash,
    /// A db node dies while it writes: of the writes on their way a prefix reaches the disk.
    CrashInPersist,
    /// A db node dies while it writes: the write under way is torn, and undone at the next start.
    TornWrite,
    /// A db node starts again at once.
    Restart,
    /// A db node loses its disk, and comes back under another name.
    DiskLoss,
    /// A db node does nothing for a while, then finds everything at once.
    Pause,
    /// All that a db node hears and says takes long.
    SlowNode,
    /// A wall clock is wrong from the beginning.
    ClockOffset,
    /// A monotonic clock runs too fast or too slow.
    ClockDrift,
    /// A wall clock jumps.
    ClockJump,
    /// A disk is full for a while.
    DiskFull,
    /// A disk is slow for a while.
    SlowDisk,
    /// A blob is corrupt on one disk.
    BitRot,
    /// Some nodes believe for a moment that another is dead.
    FalseDeath,
    /// One node believes for long that another is dead, and nobody else does.
    Disagreement,
    /// A worker sends bytes that are not those of the digest.
    WrongBytes,
    /// A worker dies.
    WorkerKilled,
    /// A worker does nothing for a while.
    WorkerStalled,
    /// A worker says goodbye.
    WorkerLeft,
    /// A client goes away before it is answered.
    ClientGone,
    /// A blob that one db node fetches from another does not come.
    FetchFails,
    /// Name resolution finds nothing.
    DnsEmpty,
    /// Name resolution finds addresses of earlier times.
    DnsStale,
    /// Name resolution finds addresses of others.
    DnsWrong,
}

/// All kinds.
pub const FAULTS: [Fault; 32] = [
    Fault::Loss,
    Fault::Delay,
    Fault::Reorder,
    Fault::Duplicate,
    Fault::LateDuplicate,
    Fault::OneWayCut,
    Fault::Partition,
    Fault::Flapping,
    Fault::Crash,
    Fault::CrashInPersist,
    Fault::TornWrite,
    Fault::Restart,
    Fault::DiskLoss,
    Fault::Pause,
    Fault::SlowNode,
    Fault::ClockOffset,
    Fault::ClockDrift,
    Fault::ClockJump,
    Fault::DiskFull,
    Fault::SlowDisk,
    Fault::BitRot,
    Fault::FalseDeath,
    Fault::Disagreement,
    Fault::WrongBytes,
    Fault::WorkerKilled,
    Fault::WorkerStalled,
    Fault::WorkerLeft,
    Fault::ClientGone,
    Fault::FetchFails,
    Fault::DnsEmpty,
    Fault::DnsStale,
    Fault::DnsWrong,
];

impl Fault {
    /// Whether leases are no worse for it: workers and wall clocks may do what they like.
    fn is_harmless(self) -> bool {
        matches!(
            self,
            Self::ClockOffset
                | Self::ClockDrift
                | Self::ClockJump
                | Self::WrongBytes
                | Self::WorkerKilled
                | Self::WorkerStalled
                | Self::WorkerLeft
                | Self::ClientGone
                | Self::BitRot
        )
    }
}

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
        if let Some(kind) = self.dice.pick(&kinds)
            && self.inject(kind)
        {
            self.met(kind);
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
                if fault == Fault::DiskFull { disk.full = true } else { disk.slow = true }
                let time = self.dice.millis(2 * SECOND, 25 * SECOND);
                self.later(time, What::Mend(Mend::Disk(host)));
                true
            }
            Fault::BitRot => self.rot(),
            Fault::FalseDeath | Fault::Disagreement => self.misjudge(fault),
            Fault::WrongBytes => self.some_worker(|worker, _| worker.wrong = true),
            Fault::WorkerStalled => self.some_worker(|worker, dice| {
                worker.stalled += dice.millis(5 * SECOND, 40 * SECOND);
            }),
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
        let sides: BTreeMap<Place, u8> = all.into_iter().map(|place| (place, self.dice.below(2) as u8)).collect();
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
        let missing = self.setup.workers as usize - self.workers.iter().filter(|worker| worker.is_there()).count();
        (0..missing).for_each(|_| self.hire());
    }
}
