//! How fast the cluster notices, and what it spends on that.

use core::{
    num::{NonZeroU8, NonZeroUsize},
    time::Duration,
};

use foca::{Config, PeriodicParams};

use super::codec;

/// The times and numbers of membership. All nodes of a cluster should have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How often a node asks one other whether it is there.
    pub period: Duration,
    /// How long it waits for the answer before it asks through others; at most half the period.
    pub rtt: Duration,
    /// How long a suspected node has to speak up before it is held for dead.
    pub suspicion: Duration,
    /// The same after it refused a connection: its process is gone, or will refute at once.
    pub refusal: Duration,
    /// How often news is passed on, while there is any.
    pub gossip: Duration,
    /// To how many nodes at a time.
    pub gossip_to: usize,
    /// How often a node passes on a piece of news in all.
    pub repeats: u8,
    /// How many nodes are asked for help when one does not answer.
    pub helpers: usize,
    /// How often a node that nobody has accepted yet seeks others.
    pub join: Duration,
    /// How often a node seeks those that are missing, for ever.
    pub announce: Duration,
    /// How often a node asks one other for its whole list, should news have passed it by.
    pub feed: Duration,
    /// How many unknown addresses it greets at a time.
    pub greet_to: usize,
}

impl Default for Settings {
    /// For up to about a hundred nodes.
    fn default() -> Self {
        Self {
            period: Duration::from_millis(300),
            rtt: Duration::from_millis(120),
            suspicion: Duration::from_millis(600),
            refusal: Duration::from_millis(300),
            gossip: Duration::from_millis(100),
            gossip_to: 3,
            repeats: 16,
            helpers: 3,
            join: Duration::from_secs(1),
            announce: Duration::from_secs(5),
            feed: Duration::from_secs(10),
            greet_to: 8,
        }
    }
}

impl Settings {
    /// For hundreds of nodes: slower, and more patient.
    pub fn large() -> Self {
        Self {
            period: Duration::from_millis(500),
            rtt: Duration::from_millis(200),
            suspicion: Duration::from_millis(1500),
            refusal: Duration::from_millis(600),
            gossip: Duration::from_millis(200),
            feed: Duration::from_secs(60),
            ..Self::default()
        }
    }

    /// The settings with what cannot be made possible: nothing takes no time, and nobody asks nobody.
    pub(super) fn checked(self) -> Self {
        let least = Duration::from_millis(1);
        let period = self.period.max(least * 2);
        Self {
            period,
            rtt: self.rtt.clamp(least, period / 2),
            suspicion: self.suspicion.max(least),
            refusal: self.refusal.max(least),
            gossip: self.gossip.max(least),
            join: self.join.max(least),
            announce: self.announce.max(least),
            feed: self.feed.max(least),
            ..self
        }
    }

    pub(super) fn config(&self) -> Config {
        let many = |n: usize| NonZeroUsize::MIN.saturating_add(n.saturating_sub(1));
        let every = |frequency, n| Some(PeriodicParams { frequency, num_members: many(n) });
        Config {
            probe_period: self.period,
            probe_rtt: self.rtt,
            num_indirect_probes: many(self.helpers),
            max_transmissions: NonZeroU8::new(self.repeats).unwrap_or(NonZeroU8::MIN),
            suspect_to_down_after: self.suspicion,
            // The table forgets, by number and not by age.
            remove_down_after: None,
            max_packet_size: many(codec::LONGEST - codec::ENVELOPE),
            notify_down_members: true,
            periodic_announce: every(self.feed, 1),
            // Seeking does that.
            periodic_announce_to_down_members: None,
            periodic_gossip: every(self.gossip, self.gossip_to),
        }
    }
}
