//! Letters that are well-formed and make no sense: whoever writes them, the node goes on.

use alloc::{collections::BTreeMap, vec, vec::Vec};

use proptest::prelude::*;

use super::*;

const ME: u64 = 1;

fn me() -> Member {
    Member { id: NodeId::new(ME), address: ([10, 0, 0, ME as u8], 7301).into(), generation: 2 }
}

fn identity() -> impl Strategy<Value = Identity> {
    (ME..6, 1..4u32, 0..3u32).prop_map(|(id, generation, renewal)| {
        let address = ([10, 0, 0, id as u8], 7301).into();
        Identity { member: Member { id: NodeId::new(id), address, generation }, renewal }
    })
}

fn update() -> impl Strategy<Value = Update<Identity>> {
    let state = prop_oneof![Just(State::Alive), Just(State::Suspect), Just(State::Down)];
    let incarnation = prop_oneof![0..4u16, Just(u16::MAX - 1), Just(u16::MAX)];
    (identity(), incarnation, state).prop_map(|(id, incarnation, state)| Update::new(id, incarnation, state))
}

/// Any message about such a member.
pub(super) fn message(about: impl Strategy<Value = Identity>) -> impl Strategy<Value = Message<Identity>> {
    (0..10u8, about, 0..3u8).prop_map(|(kind, other, probe_number)| match kind {
        0 => Message::Ping(probe_number),
        1 => Message::Ack(probe_number),
        2 => Message::PingReq { target: other, probe_number },
        3 => Message::IndirectPing { origin: other, probe_number },
        4 => Message::IndirectAck { target: other, probe_number },
        5 => Message::ForwardedAck { origin: other, probe_number },
        6 => Message::Announce,
        7 => Message::Feed,
        8 => Message::Gossip,
        _ => Message::TurnUndead,
    })
}

fn letter() -> impl Strategy<Value = Event> {
    // Most are for this node, in whatever renewal.
    let to_me = (0..3u32).prop_map(|renewal| Identity { renewal, ..Identity::new(me()) });
    let to = prop_oneof![4 => to_me, 1 => identity()];
    let header = (identity(), 0..3u16, to, message(identity()));
    (header, prop::collection::vec(update(), 0..4)).prop_map(
        |((src, src_incarnation, dst, message), updates)| {
            Event::Datagram(codec::letter(&Header { src, src_incarnation, dst, message }, &updates))
        },
    )
}

fn event() -> impl Strategy<Value = Event> {
    let member = || identity().prop_map(|identity| identity.member);
    prop_oneof![
        8 => letter(),
        2 => Just(Event::Tick),
        1 => member().prop_map(Event::Greeted),
        1 => member().prop_map(|member| Event::Refused(member.id)),
        1 => member().prop_map(|member| Event::Answered(member.id)),
        1 => member().prop_map(|member| Event::Discovered(vec![member.address])),
    ]
}

/// What is said of the others makes sense: whoever is gone was there, whoever is new was not, or is another life.
fn follow(active: &mut BTreeMap<NodeId, Member>, effect: &Effect) {
    match effect {
        Effect::Active(member) => {
            assert_ne!(member.id, NodeId::new(ME));
            assert!(active.insert(member.id, *member).is_none_or(|was| was.generation < member.generation));
        }
        Effect::Inactive { id, .. } => assert!(active.remove(id).is_some()),
        Effect::Send { to, datagram } => {
            assert_ne!(to.id, NodeId::new(ME));
            assert!(codec::open(datagram).is_ok());
        }
        Effect::Greet(address) => assert_ne!(*address, ([10, 0, 0, ME as u8], 7301).into()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn whatever_is_said_the_node_goes_on(events in prop::collection::vec((event(), 0..400u64), 1..60), seed in any::<u64>()) {
        let mut swim = Swim::new(me(), Settings::default(), seed, []);
        let (mut now, mut active) = (Duration::ZERO, BTreeMap::new());
        for (event, later) in events {
            now += Duration::from_millis(later);
            swim.handle(now, event).iter().for_each(|effect| follow(&mut active, effect));
            prop_assert!(swim.deadline(now).is_none_or(|at| at >= now));
            prop_assert!(swim.nodes().all(|seen| seen.member.id != me().id), "everyone but this node");
            let table = swim.nodes().filter(|seen| seen.health.is_active()).map(|seen| seen.member);
            prop_assert_eq!(table.collect::<Vec<_>>(), active.values().copied().collect::<Vec<_>>());
        }
    }
}

#[test]
fn those_that_were_forgotten_take_no_room() {
    let mut swim = Swim::new(me(), Settings::default(), 1, []);
    let at =
        |id: u64| Member { id: NodeId::new(id), address: ([10, 0, 0, 2], id as u16).into(), generation: 1 };
    let (src, dst) = (Identity::new(at(2)), Identity::new(me()));
    for round in 1..=50u64 {
        let gone = (0..100).map(|n| Update::new(Identity::new(at(round * 100 + n)), 0, State::Down));
        let header =
            Header { src: src.clone(), src_incarnation: 0, dst: dst.clone(), message: Message::Gossip };
        let datagram = codec::letter(&header, &gone.collect::<Vec<_>>());
        swim.handle(Duration::from_millis(round), Event::Datagram(datagram));
    }
    let held = swim.protocol.iter_membership_state().count();
    assert_eq!((swim.nodes().count(), held), (table::MOST_INACTIVE + 1, table::MOST_INACTIVE + 1));
}
