//! What is to be done when. A process that was stopped for a while does not blame the others for its own silence.

use alloc::collections::BTreeMap;
use core::time::Duration;

use foca::{Incarnation, Timer};

use super::identity::Identity;

/// What is to be done.
#[derive(Debug, Clone)]
pub(super) enum Alarm {
    /// The protocol wants to be called.
    Protocol(Timer<Identity>),
    /// Tell a member that it is suspected, and ask it to answer.
    Ask(Identity, Incarnation),
}

impl Alarm {
    /// At the same moment, help is sought before the probe is given up.
    fn order(&self) -> u8 {
        u8::from(!matches!(self, Self::Protocol(Timer::SendIndirectProbe { .. })))
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Alarms {
    due: BTreeMap<(Duration, u8, u64), Alarm>,
    set: u64,
    /// The last lateness was forgiven, and nothing was done since.
    forgiven: bool,
}

impl Alarms {
    pub(super) fn set(&mut self, at: Duration, alarm: Alarm) {
        self.set += 1;
        self.due.insert((at, alarm.order(), self.set), alarm);
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        self.due.first_key_value().map(|(&(at, ..), _)| at)
    }

    /// The next that is due. If it is late by more than `patience`, this process stood still, answers to it wait unread,
    /// and all alarms wait that much longer. That happens once in a row, so that a node that is always late goes on.
    pub(super) fn next(&mut self, now: Duration, patience: Duration) -> Option<Alarm> {
        let late = now.checked_sub(self.deadline()?)?;
        if late > patience && !self.forgiven {
            self.forgiven = true;
            self.postpone(late + patience);
            return None;
        }
        self.forgiven = false;
        self.due.pop_first().map(|(_, alarm)| alarm)
    }

    pub(super) fn clear(&mut self) {
        self.due.clear();
    }

    fn postpone(&mut self, by: Duration) {
        let due = core::mem::take(&mut self.due);
        self.due = due.into_iter().map(|((at, order, set), alarm)| ((at + by, order, set), alarm)).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alarm(token: u8) -> Alarm {
        Alarm::Protocol(Timer::PeriodicGossip(token))
    }

    fn tokens(alarms: &mut Alarms, now: u64) -> alloc::vec::Vec<u8> {
        let next = || alarms.next(Duration::from_millis(now), Duration::from_millis(100));
        let token = |alarm| {
            let Alarm::Protocol(Timer::PeriodicGossip(token)) = alarm else {
                panic!("{alarm:?} was never set")
            };
            token
        };
        core::iter::from_fn(next).map(token).collect()
    }

    #[test]
    fn alarms_come_in_their_order_and_wait_for_who_was_stopped() {
        let mut alarms = Alarms::default();
        for (at, token) in [(30, 2), (10, 1), (900, 3)] {
            alarms.set(Duration::from_millis(at), alarm(token));
        }
        assert!(tokens(&mut alarms, 9).is_empty());
        assert_eq!(tokens(&mut alarms, 100), [1, 2]);
        assert!(tokens(&mut alarms, 5000).is_empty(), "4.1 s late: forgiven");
        assert_eq!(alarms.deadline(), Some(Duration::from_millis(5100)));
        assert_eq!(tokens(&mut alarms, 9000), [3], "late again: done all the same");
        assert_eq!(alarms.deadline(), None);
    }
}
