//! What a node has done since it started and what it is at, in numbers, for those who watch it.

use super::Node;
use crate::lease::Leases;

/// The numbers of a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many data it holds.
    pub data: u64,
    /// How many of those that it owns have fewer copies than they should and could have.
    pub under_replicated: u64,
    /// How many jobs it shares out that may have something to hand out.
    pub jobs_ready: u64,
    /// How many jobs it shares out of which all that can be done now is in hand.
    pub jobs_busy: u64,
    /// How many leases are held.
    pub leases: u64,
    /// What it has done since it started.
    pub done: Done,
}

/// What a node has done since it started. These numbers only grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    /// Jobs of which a result that was reported here is the last.
    pub jobs_finished: u64,
    /// Jobs that it has given up.
    pub jobs_failed: u64,
    /// Results that were reported here and were news.
    pub pieces: u64,
    /// Results that were reported here and were no news: work that was done twice, or told twice.
    pub repeated: u64,
    /// Leases that it has granted.
    pub leases_granted: u64,
    /// Leases that ran out, or whose holder was found dead.
    pub leases_lost: u64,
    /// How often two copies contradicted each other: an alarm, for it means corruption, or a unit that is no function.
    pub divergences: u64,
}

impl Node {
    /// The numbers of this node. They cost no more with much data than with little.
    pub fn tally(&self) -> Tally {
        let under = self.lacking.iter().filter(|root| {
            let (copies, nodes) = (self.active_holders(root).len(), self.active().len() + 1);
            self.owned.contains(root) && copies < nodes.min(self.factor(root) as usize)
        });
        let (ready, _) = self.shares.ready();
        let Leases { granted, lost_in_all, .. } = self.leases;
        Tally {
            data: self.load(self.me.id),
            under_replicated: under.count() as u64,
            jobs_ready: ready.into(),
            jobs_busy: self.shares.len() as u64 - u64::from(ready),
            leases: self.leases.len() as u64,
            done: Done { leases_granted: granted, leases_lost: lost_in_all, ..self.done },
        }
    }
}
