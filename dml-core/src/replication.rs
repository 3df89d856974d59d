//! Who owns a datum and where its copies go: pure functions of who holds it and who is there. Nothing is elected, so
//! nobody waits for an election.

use alloc::vec::Vec;

use crate::{
    id::Digest,
    member::{Member, NodeId, Place},
    planted::{self, Bug},
};

/// The owner of a datum: of its holders that are active, the one with the lowest address.
pub fn owner<'a>(active_holders: impl IntoIterator<Item = &'a Member>) -> Option<NodeId> {
    if planted::is(Bug::OwnerByText) {
        let text = |member: &&Member| alloc::string::ToString::to_string(&member.address);
        return active_holders.into_iter().min_by_key(text).map(|member| member.id);
    }
    if planted::is(Bug::OwnerIsHighest) {
        return active_holders.into_iter().max_by_key(|member| member.place()).map(|member| member.id);
    }
    active_holders.into_iter().min_by_key(|member| member.place()).map(|member| member.id)
}

/// How many nodes must have a write on their disk before it is acknowledged: as many as were asked for, or all there are.
pub fn wanted_copies(factor: u32, active: usize) -> usize {
    (factor.max(1) as usize).min(active.max(1))
}

/// An active node that lacks the datum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub id: NodeId,
    /// Where it comes in the order of addresses.
    pub place: Place,
    /// How many data it holds or is about to.
    pub load: u64,
}

/// Where the copies go that are missing: to the nodes with the least load. Among equals the datum decides, so that not
/// all data go to the same one. `holders` counts the active nodes that hold it or are about to.
pub fn place(datum: Digest, holders: usize, factor: u32, candidates: &[Candidate]) -> Vec<NodeId> {
    let missing = (factor.max(1) as usize).saturating_sub(holders);
    let mut ranked: Vec<(u64, u64, Place, NodeId)> = candidates
        .iter()
        .map(|candidate| {
            let preference = crate::rng::mix(datum.seed() ^ candidate.id.number());
            (candidate.load, preference, candidate.place, candidate.id)
        })
        .collect();
    ranked.sort_unstable();
    ranked.into_iter().take(missing).map(|(.., id)| id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::{BTreeMap, BTreeSet};
    use proptest::prelude::*;

    fn member(n: u8) -> Member {
        let address = core::net::SocketAddr::from(([10, 0, 0, n], 7301));
        Member { id: NodeId::new(u64::from(n).wrapping_mul(0x9e37)), address, generation: 1 }
    }

    fn candidate(n: u8, load: u64) -> Candidate {
        Candidate { id: member(n).id, place: member(n).place(), load }
    }

    fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
        proptest::collection::btree_map(1u8..40, 0u64..5, 0..12)
            .prop_map(|nodes| nodes.into_iter().map(|(n, load)| candidate(n, load)).collect())
    }

    proptest! {
        #[test]
        fn the_owner_is_the_same_whatever_the_order(mut nodes in proptest::collection::vec(1u8..=255, 1..9)) {
            let first = owner(&nodes.iter().copied().map(member).collect::<Vec<_>>());
            prop_assert_eq!(first, nodes.iter().min().map(|n| member(*n).id));
            nodes.reverse();
            prop_assert_eq!(first, owner(&nodes.iter().copied().map(member).collect::<Vec<_>>()));
        }

        #[test]
        fn copies_are_as_many_as_wanted_and_no_two_on_one_node(
            nodes in candidates(), holders in 0usize..5, factor in 0u32..6, datum: [u8; 4],
        ) {
            let chosen = place(Digest::of(&datum), holders, factor, &nodes);
            let missing = (factor.max(1) as usize).saturating_sub(holders);
            prop_assert_eq!(chosen.len(), missing.min(nodes.len()));
            prop_assert_eq!(chosen.iter().collect::<BTreeSet<_>>().len(), chosen.len());
            // Nobody who was passed over has less to carry.
            let load: BTreeMap<_, _> = nodes.iter().map(|node| (node.id, node.load)).collect();
            let heaviest = chosen.iter().map(|id| load[id]).max().unwrap_or(0);
            for node in nodes.iter().filter(|node| !chosen.is_empty() && !chosen.contains(&node.id)) {
                prop_assert!(node.load >= heaviest);
            }
        }

        #[test]
        fn copies_do_not_depend_on_the_order_of_the_list(mut nodes in candidates(), datum: [u8; 4]) {
            let before = place(Digest::of(&datum), 0, 3, &nodes);
            nodes.reverse();
            prop_assert_eq!(before, place(Digest::of(&datum), 0, 3, &nodes));
        }
    }

    #[test]
    fn among_equals_the_data_spread() {
        let nodes: Vec<Candidate> = (1..=10).map(|n| candidate(n, 0)).collect();
        let mut count: BTreeMap<NodeId, u32> = BTreeMap::new();
        for datum in 0u32..1000 {
            for id in place(Digest::of(&datum.to_le_bytes()), 1, 3, &nodes) {
                *count.entry(id).or_default() += 1;
            }
        }
        assert!(count.len() == 10 && count.values().all(|n| (150..250).contains(n)), "{count:?}");
    }

    #[test]
    fn a_write_waits_for_no_more_nodes_than_there_are() {
        assert_eq!(
            [wanted_copies(3, 1), wanted_copies(3, 5), wanted_copies(0, 5), wanted_copies(2, 0)],
            [1, 3, 1, 1]
        );
    }
}
