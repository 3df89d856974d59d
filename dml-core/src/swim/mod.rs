//! Which db nodes are there, as a value: SWIM (Das, Gupta, Motivala 2002), by the `foca` crate, and what a cluster needs
//! around it. Each node asks one other in each period; who does not answer, also not through others, is suspected; who
//! is suspected and does not speak up is dead. News travel as gossip on the same datagrams.
//!
//! Around the protocol:
//! - A node that nobody has accepted seeks others every second; one that was accepted greets the addresses of discovery
//!   that are not those of active members, and announces itself to those that failed, every 5 seconds, for ever. So
//!   boots become one cluster, clusters that started apart merge, and splits heal.
//! - A datagram is read to its end before the protocol sees any of it.
//! - The protocol may tell a member that has just refuted its suspicion that it is dead; that is held back.
//! - Who is suspected is told so, directly and through others, and asked to answer, three times in the time it has.
//! - A refused connection is evidence of death: the member is suspected at once and has less time.
//! - A process that was stopped for a while does not suspect the others on waking (`alarms.rs`).
//!
//! The generation of a node must grow with each start: a life with a lower one than the cluster knows is not accepted.

mod alarms;
mod codec;
mod identity;
mod seek;
mod settings;
mod table;
#[cfg(test)]
mod tests;

use alloc::{collections::BTreeMap, vec::Vec};
use core::{net::SocketAddr, time::Duration};

use foca::{
    Foca, Header, Incarnation, Member as Update, Message, NoCustomBroadcast, Notification, State, Timer,
};

use self::{
    alarms::{Alarm, Alarms},
    codec::Codec,
    identity::Identity,
    seek::Seek,
    table::Table,
};
pub use self::{
    settings::Settings,
    table::{Health, Seen},
};
use crate::{
    dice::Dice,
    member::{Member, NodeId},
};

/// How often a suspected member is asked in the time it has.
const ASKS: u32 = 3;
/// A member that goes tells so many itself; they tell the others.
const GOODBYES: usize = 64;
/// To so many missing members a node announces itself at a time; to one more while it is alone.
const ANNOUNCES: usize = 2;

type Protocol = Foca<Identity, Codec, Dice, NoCustomBroadcast>;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A datagram arrived, from whomever.
    Datagram(Vec<u8>),
    /// Discovery has these addresses now, and no others.
    Discovered(Vec<SocketAddr>),
    /// An address answered the handshake: it is this member.
    Greeted(Member),
    /// A connection to this member was refused.
    Refused(NodeId),
    /// This member answered some other request.
    Answered(NodeId),
    /// This node goes. It does nothing any more after this.
    Leave,
    /// The deadline has come.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Send this datagram; whether it arrives, nobody asks.
    Send {
        /// To whom.
        to: Member,
        /// What, at most 16 KiB.
        datagram: Vec<u8>,
    },
    /// Ask this address who is there; the answer is [`Event::Greeted`].
    Greet(SocketAddr),
    /// A member is there: a new one, one that came back, or one in a new life.
    Active(Member),
    /// A member that was there is not any more.
    Inactive {
        /// Who.
        id: NodeId,
        /// It said goodbye.
        left: bool,
    },
}

/// Who says that it has sent a datagram; nobody, if it is none.
pub fn sender(datagram: &[u8]) -> Option<NodeId> {
    codec::open(datagram).ok().map(|letter| letter.from.member.id)
}

/// See the module.
pub struct Swim {
    me: Member,
    settings: Settings,
    protocol: Protocol,
    outbox: Outbox,
    alarms: Alarms,
    table: Table,
    seek: Seek,
    dice: Dice,
    /// When members last refused a connection.
    refusals: BTreeMap<NodeId, Duration>,
    /// When the news that somebody is gone was last passed on at once.
    hurried: Option<Duration>,
    left: bool,
}

impl Swim {
    /// A node that knows of those of earlier lives, and takes them for inactive until it hears of them. The seed is that
    /// of its random choices, and should differ from those of others.
    pub fn new(me: Member, settings: Settings, seed: u64, known: impl IntoIterator<Item = Member>) -> Self {
        let settings = settings.checked();
        Self {
            me,
            settings,
            protocol: Foca::new(Identity::new(me), settings.config(), Dice::new(seed), Codec),
            outbox: Outbox::default(),
            alarms: Alarms::default(),
            table: Table::new(known.into_iter().filter(|member| member.id != me.id)),
            seek: Seek::new(me.address),
            dice: Dice::new(!seed),
            refusals: BTreeMap::new(),
            hurried: None,
            left: false,
        }
    }

    /// Takes in what happened, and does what is due.
    pub fn handle(&mut self, now: Duration, event: Event) -> Vec<Effect> {
        if self.left {
            return Vec::new();
        }
        let mut effects = Vec::new();
        match event {
            Event::Datagram(datagram) => self.receive(now, &datagram),
            Event::Discovered(addresses) => self.seek.learn(addresses, &mut self.dice),
            Event::Greeted(member) => self.greeted(now, member),
            Event::Refused(id) => self.refused(now, id),
            Event::Answered(id) => self.table.hear(id, now),
            Event::Leave => return self.leave(),
            Event::Tick => {}
        }
        self.settle(now, &mut effects);
        while let Some(alarm) = self.alarms.next(now, self.settings.rtt) {
            self.ring(alarm);
            self.settle(now, &mut effects);
        }
        if self.seek_deadline().is_some_and(|at| at <= now) {
            self.seek(now, &mut effects);
            self.settle(now, &mut effects);
        }
        self.hurry(now, &mut effects);
        effects
    }

    /// When [`Event::Tick`] is wanted; none while there is nobody to seek and nobody to watch.
    pub fn deadline(&self, now: Duration) -> Option<Duration> {
        let at = [self.alarms.deadline(), self.seek_deadline()].into_iter().flatten().min()?;
        (!self.left).then(|| at.max(now))
    }

    /// Everyone ever seen but this node, by name. Of those that are inactive the last 4,096 are remembered.
    pub fn nodes(&self) -> impl Iterator<Item = &Seen> {
        self.table.nodes()
    }

    fn seek_deadline(&self) -> Option<Duration> {
        self.seek.deadline(self.table.inactive(), &self.settings)
    }

    fn receive(&mut self, now: Duration, datagram: &[u8]) {
        let Ok(letter) = codec::open(datagram) else { return };
        self.table.hear(letter.from.member.id, now);
        self.call(|protocol, outbox| protocol.handle_data(letter.body, outbox));
    }

    /// Somebody answered at an address: unless it is known to be there, this node announces itself.
    fn greeted(&mut self, now: Duration, member: Member) {
        if member.id == self.me.id {
            return;
        }
        self.table.hear(member.id, now);
        let there = self.table.get(member.id).filter(|seen| seen.health.is_active());
        if !self.seek.is_joined() || there.is_none_or(|seen| seen.member.generation < member.generation) {
            self.call(|protocol, outbox| protocol.announce(Identity::new(member), outbox));
        }
    }

    /// A member whose process is gone is found out faster; one that lives answers in time. Once in a while, so that a
    /// wall between two living nodes does not keep everybody busy.
    fn refused(&mut self, now: Duration, id: NodeId) {
        self.refusals.retain(|_, at| now < *at + self.settings.announce);
        let held = self.protocol.iter_members().find(|held| held.id().member.id == id).cloned();
        let (Some(held), Some(token)) = (held, self.outbox.token) else { return };
        if self.refusals.contains_key(&id) {
            return;
        }
        self.refusals.insert(id, now);
        let (member_id, incarnation) = (held.id().clone(), held.incarnation());
        let suspected = Update::new(member_id.clone(), incarnation, State::Suspect);
        self.call(|protocol, outbox| protocol.apply_many([suspected].into_iter(), true, outbox));
        let verdict = Timer::ChangeSuspectToDown { member_id, incarnation, token };
        self.outbox.timers.push((verdict, self.settings.refusal));
    }

    /// That somebody is gone is passed on at once, and not with the next gossip; not too often, when many go.
    fn hurry(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        let gone = effects.iter().any(|effect| matches!(effect, Effect::Inactive { .. }));
        if gone && self.hurried.is_none_or(|at| at + self.settings.gossip / 4 <= now) {
            self.hurried = Some(now);
            self.call(|protocol, outbox| protocol.gossip(outbox));
            self.settle(now, effects);
        }
    }

    fn ring(&mut self, alarm: Alarm) {
        match alarm {
            Alarm::Protocol(timer) => self.call(|protocol, outbox| protocol.handle_timer(timer, outbox)),
            Alarm::Ask(identity, incarnation) => self.ask(&identity, incarnation),
        }
    }

    /// Tells a suspected member of it, also through others; its answer refutes it.
    fn ask(&mut self, identity: &Identity, incarnation: Incarnation) {
        let news = Update::new(identity.clone(), incarnation, State::Suspect);
        if !self.protocol.iter_members().any(|held| *held == news) {
            return;
        }
        let others = self.protocol.iter_members().map(|held| held.id()).filter(|id| *id != identity);
        let mut helpers: Vec<_> = others.cloned().collect();
        self.dice.keep(self.settings.helpers, &mut helpers);
        let help = Message::PingReq { target: identity.clone(), probe_number: 0 };
        let asked = helpers.into_iter().map(|helper| (helper, help.clone()));
        for (to, message) in asked.chain([(identity.clone(), Message::Ping(0))]) {
            let datagram = self.tell(&to, message, &news);
            self.outbox.sealed.push(Effect::Send { to: to.member, datagram });
        }
    }

    /// A message of ours with one piece of news. The others know our incarnation: a lower one changes nothing.
    fn tell(&self, to: &Identity, message: Message<Identity>, news: &Update<Identity>) -> Vec<u8> {
        let (src, dst) = (self.protocol.identity().clone(), to.clone());
        codec::letter(&Header { src, src_incarnation: 0, dst, message }, core::slice::from_ref(news))
    }

    /// Greets strangers, and announces this node to some that are missing; while it is alone, to anybody it knows of.
    fn seek(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        let strangers = self.seek.greet(now, self.table.nodes(), &self.settings);
        effects.extend(strangers.into_iter().map(Effect::Greet));
        let joined = self.seek.is_joined();
        let wanted = |seen: &&Seen| match seen.health {
            Health::Active | Health::Suspected => !joined,
            Health::Failed => true,
            Health::Left => false,
        };
        let mut missing: Vec<_> = self.table.nodes().filter(wanted).map(|seen| seen.member).collect();
        self.dice.keep(ANNOUNCES + usize::from(!joined), &mut missing);
        for member in missing {
            self.call(|protocol, outbox| protocol.announce(Identity::new(member), outbox));
        }
    }

    fn leave(&mut self) -> Vec<Effect> {
        self.left = true;
        self.alarms.clear();
        let goodbye = Update::new(self.protocol.identity().clone(), codec::GOODBYE, State::Down);
        let mut others: Vec<_> = self.protocol.iter_members().map(|held| held.id()).collect();
        self.dice.keep(GOODBYES, &mut others);
        let letter = |to: &Identity| {
            let datagram = self.tell(to, Message::Gossip, &goodbye);
            Effect::Send { to: to.member, datagram }
        };
        others.into_iter().map(letter).collect()
    }

    /// Lets the protocol do something. What it complains of is settled by itself: datagrams that speak for us or ask us
    /// about ourselves are dropped, and a probe that did not run its course is begun anew.
    fn call(&mut self, with: impl FnOnce(&mut Protocol, &mut Outbox) -> Result<(), foca::Error>) {
        let had_news = self.protocol.updates_backlog() > 0;
        let complaint = with(&mut self.protocol, &mut self.outbox).is_err();
        self.outbox.changed |= had_news || complaint || self.protocol.updates_backlog() > 0;
    }

    /// Takes over what the protocol wants and what it has found out.
    fn settle(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        if let Some(joined) = self.outbox.joined.take() {
            self.seek.joined(joined, now);
        }
        for (timer, after) in core::mem::take(&mut self.outbox.timers) {
            self.set(now, after, timer);
        }
        effects.append(&mut self.outbox.sealed);
        for (to, body) in core::mem::take(&mut self.outbox.letters) {
            if self.may_send(&to, &body) {
                effects.push(Effect::Send { to: to.member, datagram: codec::seal(&body) });
            }
        }
        // Every change is news for the others too: without news there is nothing to compare.
        if core::mem::take(&mut self.outbox.changed) {
            self.compare(now, effects);
        }
    }

    fn set(&mut self, now: Duration, after: Duration, timer: Timer<Identity>) {
        if let Timer::ChangeSuspectToDown { member_id, incarnation, .. } = &timer {
            for ask in 0..ASKS {
                self.alarms.set(now + after * ask / ASKS, Alarm::Ask(member_id.clone(), *incarnation));
            }
        }
        self.alarms.set(now + after, Alarm::Protocol(timer));
    }

    /// Nobody writes to itself; and foca 2.0.0 tells a member that has refuted its suspicion in time that it is dead.
    fn may_send(&self, to: &Identity, body: &[u8]) -> bool {
        let wrong = codec::turns_undead(body) && self.protocol.iter_members().any(|held| held.id() == to);
        to.member.id != self.me.id && !wrong
    }

    fn compare(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        for held in self.protocol.iter_membership_state() {
            let (member, health) = (held.id().member, health(held));
            let known =
                self.table.get(member.id).is_some_and(|seen| (seen.member, seen.health) == (member, health));
            if member.id != self.me.id && !known {
                effects.extend(self.table.update(now, member, health));
            }
        }
        for id in self.table.trim() {
            let held = self.protocol.iter_membership_state().find(|held| held.id().member.id == id);
            if let Some(forgotten) = held.map(|held| held.id().clone()) {
                self.call(|protocol, outbox| protocol.handle_timer(Timer::RemoveDown(forgotten), outbox));
            }
        }
    }
}

fn health(held: &Update<Identity>) -> Health {
    match held.state() {
        State::Alive => Health::Active,
        State::Suspect => Health::Suspected,
        State::Down if held.incarnation() == codec::GOODBYE => Health::Left,
        State::Down => Health::Failed,
    }
}

/// What the protocol wants done.
#[derive(Debug, Default)]
struct Outbox {
    letters: Vec<(Identity, Vec<u8>)>,
    /// What the node wants sent besides.
    sealed: Vec<Effect>,
    timers: Vec<(Timer<Identity>, Duration)>,
    joined: Option<bool>,
    changed: bool,
    /// What the protocol marks its present timers with.
    token: Option<foca::TimerToken>,
}

impl foca::Runtime<Identity> for &mut Outbox {
    fn notify(&mut self, notification: Notification<'_, Identity>) {
        self.changed = true;
        match notification {
            Notification::Active => self.joined = Some(true),
            Notification::Idle | Notification::Defunct | Notification::Rejoin(_) => self.joined = Some(false),
            Notification::MemberUp(_) | Notification::MemberDown(_) | Notification::Rename(..) => {}
        }
    }

    fn send_to(&mut self, to: Identity, data: &[u8]) {
        self.letters.push((to, data.to_vec()));
    }

    fn submit_after(&mut self, timer: Timer<Identity>, after: Duration) {
        if let Timer::ProbeRandomMember(token) = timer {
            self.token = Some(token);
        }
        self.timers.push((timer, after));
    }
}
