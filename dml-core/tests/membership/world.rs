//! A seeded network of membership values: datagrams are late, lost and doubled, links are cut, nodes die and stand
//! still. What each node says of the others is checked as it is said, and written down.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use dml_core::{
    Member, NodeId, rng,
    swim::{Effect, Event, Settings, Swim},
};

pub(crate) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(crate) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// The second byte of a datagram that tells a member that it is dead.
const TURN_UNDEAD: u8 = 9;

/// What the network does. Chances are in a thousand.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Net {
    pub(crate) loss: u64,
    pub(crate) doubled: u64,
    /// The host of a dead node is there, and refuses connections.
    pub(crate) refuses: bool,
    /// A node stands still for as long as this at most, once a minute.
    pub(crate) pause: Duration,
}

impl Net {
    pub(crate) const CALM: Self = Self { loss: 0, doubled: 0, refuses: false, pause: Duration::ZERO };

    pub(crate) fn losing(loss: u64) -> Self {
        Self { loss, doubled: loss, ..Self::CALM }
    }
}

/// What a node said of another, and when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Said {
    pub(crate) at: Duration,
    pub(crate) by: usize,
    pub(crate) of: NodeId,
    /// The generation that is there, or whether it said goodbye.
    pub(crate) what: Result<u32, bool>,
}

enum Happening {
    Event(Event),
    Deadline,
    /// Somebody at the first address asks who is at this one.
    Asked(SocketAddr),
    /// The node stands still.
    Pause,
}

pub(crate) struct Host {
    pub(crate) me: Member,
    pub(crate) swim: Option<Swim>,
    born: Duration,
    deadline: Option<Duration>,
    paused: Duration,
    /// Generations that it said are there.
    active: BTreeMap<NodeId, u32>,
}

pub(crate) struct World {
    pub(crate) now: Duration,
    pub(crate) hosts: Vec<Host>,
    pub(crate) said: Vec<Said>,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    /// How many were told that they are dead.
    pub(crate) verdicts: u64,
    /// How many addresses were greeted.
    pub(crate) greets: u64,
    pub(crate) net: Net,
    /// Pairs that do not reach each other; whether the first then is refused by the second.
    pub(crate) cuts: BTreeMap<(usize, usize), bool>,
    /// The side of the split on which a node is.
    pub(crate) side: Vec<u8>,
    settings: Settings,
    seed: u64,
    thrown: u64,
    queue: BTreeMap<(Duration, u64), (usize, Member, Happening)>,
    queued: u64,
}

pub(crate) fn address(n: usize) -> SocketAddr {
    ([10, 0, (n / 250) as u8, (n % 250) as u8], 7301).into()
}

impl World {
    pub(crate) fn new(seed: u64, settings: Settings, net: Net) -> Self {
        Self {
            now: Duration::ZERO,
            hosts: Vec::new(),
            said: Vec::new(),
            messages: 0,
            bytes: 0,
            verdicts: 0,
            greets: 0,
            net,
            cuts: BTreeMap::new(),
            side: Vec::new(),
            settings,
            seed,
            thrown: 0,
            queue: BTreeMap::new(),
            queued: 0,
        }
    }

    /// `n` nodes that start within a second and are told of `seeds` addresses, those of the first.
    pub(crate) fn booted(seed: u64, settings: Settings, net: Net, n: usize, seeds: usize) -> Self {
        let mut world = Self::new(seed, settings, net);
        for host in 0..n {
            world.now = ms(1000 * host as u64 / n as u64);
            world.start(host, (0..seeds.min(n)).map(address).collect());
        }
        world
    }

    /// As before, and everybody knows everybody.
    pub(crate) fn joined(seed: u64, settings: Settings, net: Net, n: usize) -> Self {
        let mut world = Self::booted(seed, settings, net, n, 4);
        world.until(secs(60), World::agrees).expect("a cluster after a minute");
        // Not at the same point of everybody's period.
        let more = world.throw(1_000_000);
        world.run(secs(5) + Duration::from_micros(more));
        world
    }

    fn throw(&mut self, n: u64) -> u64 {
        self.thrown += 1;
        rng::below(self.seed, self.thrown, n)
    }

    /// Starts the node with this number: its first life, or its next.
    pub(crate) fn start(&mut self, n: usize, discovered: Vec<SocketAddr>) {
        let me = Member { id: NodeId::new(1000 + n as u64), address: address(n), generation: 1 };
        let me =
            self.hosts.get(n).map_or(me, |host| Member { generation: host.me.generation + 1, ..host.me });
        self.start_as(n, me, discovered, Vec::new());
    }

    pub(crate) fn start_as(&mut self, n: usize, me: Member, discovered: Vec<SocketAddr>, known: Vec<Member>) {
        let seed = rng::draw(self.seed, me.id.number() << 8 | u64::from(me.generation));
        let swim = Some(Swim::new(me, self.settings, seed, known));
        let host =
            Host { me, swim, born: self.now, deadline: None, paused: self.now, active: BTreeMap::new() };
        if n < self.hosts.len() {
            self.hosts[n] = host;
        } else {
            self.hosts.push(host);
            self.side.push(0);
        }
        self.give(n, Event::Discovered(discovered));
        if self.net.pause > Duration::ZERO {
            self.plan_pause(n);
        }
    }

    pub(crate) fn crash(&mut self, n: usize) {
        self.hosts[n].swim = None;
    }

    /// The node stands still.
    pub(crate) fn pause(&mut self, n: usize, time: Duration) {
        self.hosts[n].paused = self.now + time;
    }

    /// An event for a node, now.
    pub(crate) fn give(&mut self, n: usize, event: Event) {
        let host = &mut self.hosts[n];
        let Some(swim) = &mut host.swim else { return };
        let own = self.now - host.born;
        let effects = swim.handle(own, event);
        let deadline = swim.deadline(own).map(|at| host.born + at);
        if deadline != host.deadline {
            host.deadline = deadline;
            let me = host.me;
            deadline.into_iter().for_each(|at| self.queue_at(at, n, me, Happening::Deadline));
        }
        effects.into_iter().for_each(|effect| self.perform(n, effect));
    }

    fn perform(&mut self, n: usize, effect: Effect) {
        match effect {
            Effect::Send { to, datagram } => self.send(n, to, datagram),
            Effect::Greet(to) => {
                self.greets += 1;
                self.carry(n, to, Happening::Asked(self.hosts[n].me.address));
            }
            Effect::Active(member) => {
                let (host, of) = (&mut self.hosts[n], member.id);
                assert_ne!(of, host.me.id, "a node speaks of others");
                assert!(
                    host.active.insert(of, member.generation).is_none_or(|was| was < member.generation),
                    "{of}: news"
                );
                self.say(n, of, Ok(member.generation));
            }
            Effect::Inactive { id, left } => {
                assert!(self.hosts[n].active.remove(&id).is_some(), "{id} was there");
                self.say(n, id, Err(left));
            }
        }
    }

    fn say(&mut self, by: usize, of: NodeId, what: Result<u32, bool>) {
        self.said.push(Said { at: self.now, by, of, what });
    }

    fn send(&mut self, n: usize, to: Member, datagram: Vec<u8>) {
        assert!(datagram.len() <= 16 * 1024, "datagrams are bounded");
        assert_ne!(to.id, self.hosts[n].me.id, "nobody writes to itself");
        self.messages += 1;
        self.bytes += datagram.len() as u64;
        self.verdicts += u64::from(datagram[1] == TURN_UNDEAD);
        let there = self.at(to.address);
        let cut = there.and_then(|there| self.cuts.get(&(n, there)).copied());
        let dead = there.is_some_and(|there| self.hosts[there].swim.is_none());
        if cut.unwrap_or(self.net.refuses && dead) {
            let back = self.now + self.delay();
            return self.queue_at(back, n, self.hosts[n].me, Happening::Event(Event::Refused(to.id)));
        }
        if self.throw(1000) < self.net.doubled {
            self.carry(n, to.address, Happening::Event(Event::Datagram(datagram.clone())));
        }
        self.carry(n, to.address, Happening::Event(Event::Datagram(datagram)));
    }

    fn at(&self, address: SocketAddr) -> Option<usize> {
        // Addresses are numbers, so that a thousand nodes are found at once.
        let SocketAddr::V4(v4) = address else { return None };
        let [_, _, high, low] = v4.ip().octets();
        Some(usize::from(high) * 250 + usize::from(low)).filter(|&n| n < self.hosts.len())
    }

    fn carry(&mut self, from: usize, to: SocketAddr, what: Happening) {
        let Some(to) = self.at(to) else { return };
        let lost = self.throw(1000) < self.net.loss;
        if lost || self.side[from] != self.side[to] || self.cuts.contains_key(&(from, to)) {
            return;
        }
        let at = self.now + self.delay();
        self.queue_at(at, to, self.hosts[to].me, what);
    }

    fn delay(&mut self) -> Duration {
        Duration::from_micros(200 + self.throw(4800))
    }

    fn queue_at(&mut self, at: Duration, n: usize, who: Member, what: Happening) {
        self.queued += 1;
        self.queue.insert((at, self.queued), (n, who, what));
    }

    fn plan_pause(&mut self, n: usize) {
        let at = self.now + Duration::from_micros(self.throw(120_000_000));
        self.queue_at(at, n, self.hosts[n].me, Happening::Pause);
    }

    fn step(&mut self) {
        let Some(((at, _), (n, who, what))) = self.queue.pop_first() else { return };
        self.now = at;
        let host = &self.hosts[n];
        let datagram = matches!(what, Happening::Event(Event::Datagram(_)) | Happening::Asked(_));
        if host.swim.is_none() || (host.me != who && !datagram) {
            return;
        }
        if at < host.paused {
            return self.queue_at(host.paused, n, who, what);
        }
        match what {
            Happening::Event(event) => self.give(n, event),
            Happening::Asked(asker) => {
                let answer = Event::Greeted(self.hosts[n].me);
                self.carry(n, asker, Happening::Event(answer));
            }
            Happening::Deadline if self.hosts[n].deadline.is_some_and(|deadline| deadline <= at) => {
                self.hosts[n].deadline = None;
                self.give(n, Event::Tick);
            }
            Happening::Deadline => {}
            Happening::Pause => {
                let longest = self.net.pause.as_micros() as u64;
                self.hosts[n].paused = at + Duration::from_micros(longest / 2 + self.throw(longest / 2));
                self.plan_pause(n);
            }
        }
    }

    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.queue.first_key_value().is_some_and(|(&(at, _), _)| at <= end) {
            self.step();
        }
        self.now = end;
    }

    /// Runs until it is so; how long that took, to 50 ms.
    pub(crate) fn until(&mut self, most: Duration, so: impl Fn(&Self) -> bool) -> Option<Duration> {
        let start = self.now;
        while !so(self) {
            if self.now >= start + most {
                return None;
            }
            self.run(ms(50));
        }
        Some(self.now - start)
    }

    pub(crate) fn alive(&self) -> impl Iterator<Item = &Host> {
        self.hosts.iter().filter(|host| host.swim.is_some())
    }

    /// Whether everybody alive knows everybody alive in its present life, and nobody else is there.
    pub(crate) fn agrees(&self) -> bool {
        let alive: BTreeMap<_, _> = self.alive().map(|host| (host.me.id, host.me.generation)).collect();
        self.alive().all(|host| {
            let others = host.active.len() + 1 == alive.len();
            others && host.active.iter().all(|(id, generation)| alive.get(id) == Some(generation))
        })
    }

    /// Whether everybody alive holds exactly those of its own side for active.
    pub(crate) fn sides_agree(&self) -> bool {
        let pairs: Vec<_> =
            self.hosts.iter().zip(&self.side).filter(|(host, _)| host.swim.is_some()).collect();
        pairs.iter().all(|(host, side)| {
            let others: BTreeSet<_> =
                pairs.iter().filter(|(_, other)| other == side).map(|(host, _)| host.me.id).collect();
            host.active.len() + 1 == others.len() && host.active.keys().all(|id| others.contains(id))
        })
    }

    /// How many of those alive were said to be gone since then, by whomever.
    pub(crate) fn false_deaths(&self, since: Duration) -> usize {
        let alive: BTreeSet<_> = self.alive().map(|host| host.me.id).collect();
        let said = self.said.iter().filter(|said| said.at >= since && said.what.is_err());
        said.filter(|said| alive.contains(&said.of)).map(|said| said.of).collect::<BTreeSet<_>>().len()
    }

    /// How long after now it takes until all those alive have said that these are gone, in order; `None` for who never did.
    pub(crate) fn crash_and_wait(&mut self, gone: &[usize], most: Duration) -> Option<Vec<Duration>> {
        let start = self.now;
        gone.iter().for_each(|&n| self.crash(n));
        let gone: BTreeSet<_> = gone.iter().map(|&n| self.hosts[n].me.id).collect();
        self.until(most, |world| {
            world.alive().all(|host| gone.iter().all(|id| !host.active.contains_key(id)))
        })?;
        let said =
            self.said.iter().filter(|said| said.at >= start && said.what.is_err() && gone.contains(&said.of));
        let mut times: Vec<_> = said.map(|said| said.at - start).collect();
        times.sort_unstable();
        Some(times)
    }
}
