//! Everyone ever seen, those that are not there any more included.

use alloc::{collections::BTreeMap, vec::Vec};
use core::time::Duration;

use super::Effect;
use crate::member::{Member, NodeId};

/// So many inactive nodes are remembered; who was heard longest ago is forgotten first.
pub(super) const MOST_INACTIVE: usize = 4096;

/// What is known of another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The node, in its last life that is known.
    pub member: Member,
    /// Whether it is there.
    pub health: Health,
    /// When it last gave a sign of life, or arrived by hearsay; zero for one that was not there in this node's life.
    pub heard: Duration,
}

/// Whether a node is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It is there.
    Active,
    /// It is there, but somebody has doubts; it still counts.
    Suspected,
    /// It did not answer for too long.
    Failed,
    /// It said goodbye.
    Left,
}

impl Health {
    /// Whether it takes part.
    pub fn is_active(self) -> bool {
        matches!(self, Self::Active | Self::Suspected)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Table {
    nodes: BTreeMap<NodeId, Seen>,
    inactive: usize,
}

impl Table {
    /// Nodes of earlier lives count as failed until heard of.
    pub(super) fn new(known: impl IntoIterator<Item = Member>) -> Self {
        let seen = |member| Seen { member, health: Health::Failed, heard: Duration::ZERO };
        let nodes: BTreeMap<_, _> = known.into_iter().map(|member| (member.id, seen(member))).collect();
        let mut table = Self { inactive: nodes.len(), nodes };
        table.trim();
        table
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = &Seen> {
        self.nodes.values()
    }

    pub(super) fn get(&self, id: NodeId) -> Option<&Seen> {
        self.nodes.get(&id)
    }

    pub(super) fn inactive(&self) -> usize {
        self.inactive
    }

    pub(super) fn hear(&mut self, id: NodeId, now: Duration) {
        if let Some(seen) = self.nodes.get_mut(&id) {
            seen.heard = now;
        }
    }

    /// Takes in what the protocol holds of a member, and says what that changes.
    pub(super) fn update(&mut self, now: Duration, member: Member, health: Health) -> Option<Effect> {
        let before = self.nodes.get(&member.id).copied();
        let was_active = before.is_some_and(|before| before.health.is_active());
        let same_life = before.is_some_and(|before| before.member == member);
        let arrives = health.is_active() && !(was_active && same_life);
        let heard = if arrives { now } else { before.map_or(Duration::ZERO, |before| before.heard) };
        self.nodes.insert(member.id, Seen { member, health, heard });
        self.inactive -= usize::from(before.is_some() && !was_active);
        self.inactive += usize::from(!health.is_active());
        match (was_active, health.is_active()) {
            (true, true) if same_life => None,
            (_, true) => Some(Effect::Active(member)),
            (true, false) => Some(Effect::Inactive { id: member.id, left: health == Health::Left }),
            (false, false) => None,
        }
    }

    /// Forgets whom there is no room for.
    pub(super) fn trim(&mut self) -> Vec<NodeId> {
        let surplus = self.inactive.saturating_sub(MOST_INACTIVE);
        if surplus == 0 {
            return Vec::new();
        }
        let inactive = self.nodes.values().filter(|seen| !seen.health.is_active());
        let mut oldest: Vec<_> = inactive.map(|seen| (seen.heard, seen.member.id)).collect();
        oldest.sort_unstable();
        oldest.truncate(surplus);
        self.inactive -= surplus;
        self.nodes.retain(|id, seen| oldest.binary_search(&(seen.heard, *id)).is_err());
        oldest.into_iter().map(|(_, id)| id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, generation: u32) -> Member {
        Member { id: NodeId::new(id), address: ([10, 0, 0, 1], id as u16).into(), generation }
    }

    #[test]
    fn only_changes_are_told() {
        let mut table = Table::new([member(1, 1)]);
        let inactive = |left| Some(Effect::Inactive { id: NodeId::new(1), left });
        let steps = [
            (1, Health::Failed, None),
            (2, Health::Active, Some(Effect::Active(member(1, 2)))),
            (2, Health::Suspected, None),
            (2, Health::Failed, inactive(false)),
            (2, Health::Failed, None),
            (2, Health::Active, Some(Effect::Active(member(1, 2)))),
            (3, Health::Active, Some(Effect::Active(member(1, 3)))),
            (3, Health::Left, inactive(true)),
        ];
        for (at, (generation, health, effect)) in steps.into_iter().enumerate() {
            let now = Duration::from_secs(at as u64);
            assert_eq!(table.update(now, member(1, generation), health), effect, "step {at}");
            assert_eq!(table.inactive(), usize::from(!health.is_active()), "step {at}");
        }
        let seen = table.get(NodeId::new(1)).expect("everyone ever seen");
        assert_eq!((seen.heard, seen.health), (Duration::from_secs(6), Health::Left));
    }

    #[test]
    fn who_was_heard_longest_ago_is_forgotten_first() {
        let mut table = Table::new((0..MOST_INACTIVE as u64).map(|id| member(id, 1)));
        assert_eq!(table.trim(), []);
        table.hear(NodeId::new(0), Duration::from_secs(9));
        table.update(Duration::from_secs(1), member(9999, 1), Health::Active);
        assert_eq!(table.trim(), [], "an active node takes no room");
        table.update(Duration::from_secs(2), member(9999, 1), Health::Failed);
        assert_eq!(table.trim(), [NodeId::new(1)]);
        assert_eq!((table.inactive(), table.nodes().count()), (MOST_INACTIVE, MOST_INACTIVE));
    }
}
