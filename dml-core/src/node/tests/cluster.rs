//! What nodes that hear each other do for one another.

use alloc::collections::BTreeSet;

use super::{
    net::{Net, member},
    *,
};
use crate::{
    revocation::Revocation,
    token::{Scope, Token},
};

fn both() -> (Body, Body) {
    (Body::Dataset(table(0)), Body::Training(training(&[Plan { rounds: 2, units: 3, fold: true }], 0)))
}

#[test]
fn a_write_is_acknowledged_with_as_many_copies_as_asked_for() {
    for (count, copies) in [(1, 1), (2, 2), (3, 3), (5, 3)] {
        let mut net = Net::new(count);
        let (dataset, training) = both();
        let (id, replicas) = net.create(count, dataset.clone());
        assert_eq!(replicas, copies, "of {count} nodes");
        assert_eq!(net.holders(id).len() as u32, copies);
        assert_eq!(net.owners(id), [net.holders(id)[0]], "the lowest address owns it");
        let (id, replicas) = net.create(1, training);
        assert_eq!((replicas, net.owners(id).len()), (copies, 1));
        assert_eq!(net.create(1, dataset).1, copies, "again is as good as once");
        net.agree(copies as usize);
    }
}

#[test]
fn blobs_stay_while_another_node_is_asked_to_write_what_names_them() {
    let mut net = Net::with(Settings::default(), 2);
    let dataset = both().0;
    let (id, _) = net.create(1, dataset.clone());
    assert_eq!(net.ask(1, Request::Delete { id }), Response::Done);
    let grace = Settings::default().blob_grace;
    let discards = |net: &mut Net| {
        let effects = net.nodes.get_mut(&2).expect("it is there").handle(net.now, Event::Tick);
        effects.iter().any(|effect| matches!(effect, Effect::Discard(_)))
    };
    // Its owner is not there, which nobody has noticed yet.
    net.cut = [1].into();
    net.now += grace - SECOND;
    let ticket = net.send(2, Request::Create { body: dataset, name: None });
    net.now += SECOND + SECOND / 2;
    assert!(!discards(&mut net), "it may have to write them itself");
    net.split(&[1]);
    assert!(matches!(net.replies.get(&ticket), Some(Response::Created { .. })), "{:?}", net.replies);
    net.now += grace * 2;
    assert!(!discards(&mut net), "it has written what names them");
}

#[test]
fn who_expects_others_keeps_the_notes_of_deletions_until_it_has_met_them() {
    for (expects_others, count, kept) in [(false, 1, 0), (true, 1, 1), (true, 2, 0)] {
        let settings = Settings { bury_after: 30 * SECOND, expects_others, ..Settings::default() };
        let mut net = Net::with(settings, count);
        let (id, _) = net.create(1, both().0);
        assert_eq!(net.ask(1, Request::Delete { id }), Response::Done);
        net.pass(10);
        assert_eq!(net.nodes[&1].catalogue.dead().count(), 1, "it is too early");
        net.pass(120);
        assert_eq!(net.nodes[&1].catalogue.dead().count(), kept, "{count} nodes, others: {expects_others}");
    }
}

#[test]
fn a_copy_is_not_acknowledged_to_a_later_life_of_its_sender() {
    for generation in [1, 2] {
        let mut node = Node::new(Settings::default(), member(2, 1), []);
        node.handle(SECOND, Event::Active(member(1, 1)));
        let body = Body::Dataset(table(0));
        let (root, record) = (body.id(), Record::new(body));
        let families = alloc::vec![Family { root, life: record.life, records: alloc::vec![(root, record)] }];
        let message = Message::Copy { batch: 1, families };
        let (from, to) = (NodeId::new(1), NodeId::new(2));
        let letter = Letter { v: 1, from, generation: 1, to, life: 1, floor: 0, message };
        let effects = node.handle(SECOND, Event::Letter(letter));
        let write = effects.iter().find_map(|effect| match effect {
            Effect::Persist { write, .. } => Some(*write),
            Effect::Reply(..) | Effect::Send { .. } | Effect::Discard(_) | Effect::Remember(_) => None,
        });
        // Its disk is slow: meanwhile the sender starts again, and gives its first batch the same number.
        node.handle(SECOND * 2, Event::Active(member(1, generation)));
        let effects = node.handle(SECOND * 3, Event::Persisted(write.expect("a copy is written down")));
        let is_copied = |effect: &Effect| matches!(effect, Effect::Send { letter, .. } if matches!(letter.message, Message::Copied { .. }));
        assert_eq!(effects.iter().any(is_copied), generation == 1, "life {generation}");
    }
}

#[test]
fn a_revocation_is_known_to_every_node_also_to_one_that_comes_later() {
    let mut net = Net::new(5);
    net.split(&[5]);
    let holder = "worker-0000000000ff";
    let (id, replicas) = net.create(2, Body::Revocation(Revocation { holder: holder.into() }));
    assert_eq!(replicas, 3, "nobody waits for all of them");
    net.pass(2);
    assert_eq!(net.holders(id), [1, 2, 3, 4]);
    net.split(&[]);
    net.pass(5);
    for (n, node) in &net.nodes {
        assert_eq!(node.revoked().collect::<Vec<_>>(), [holder], "node {n}");
        assert_eq!(node.tally().under_replicated, 0, "node {n}");
    }
}

#[test]
fn a_token_that_is_good_once_is_used_once_whomever_one_asks() {
    let mut net = Net::new(4);
    let token = |scope| Token::new(if scope == Scope::Db { "a secret" } else { "another" }, scope, None);
    let (id, _) = net.create(1, Body::Token(token(Scope::Db)));
    assert_eq!(net.ask(4, Request::Redeem { id }), Response::Done);
    for n in 1..=4 {
        let again = net.ask(n, Request::Redeem { id });
        assert!(matches!(again, Response::Refused(Refusal::NotFound { .. })), "{again:?}");
    }
    let (id, _) = net.create(1, Body::Token(token(Scope::Write)));
    let user = net.ask(1, Request::Redeem { id });
    assert!(matches!(user, Response::Refused(Refusal::NotFound { .. })), "it is not to join: {user:?}");
    assert!(net.nodes.values().any(|node| node.record(&id).is_some_and(|record| record.body.is_some())));
}

#[test]
fn a_write_counts_the_copy_that_another_node_orders() {
    let mut waited = 0;
    for victim in 1..=3 {
        let mut net = Net::new(4);
        // Dead, and nobody knows.
        net.nodes.remove(&victim);
        let create = Request::Create { body: both().0, name: Some("x".into()) };
        let ticket = net.send(4, create);
        waited += u32::from(!net.replies.contains_key(&ticket));
        // The owner is another node than the one that waits; it puts the missing copy elsewhere.
        net.kill(victim);
        net.pass(2);
        let Some(Response::Created { replicas, .. }) = net.replies.get(&ticket) else {
            panic!("not acknowledged after the death of {victim}: {:?}", net.replies)
        };
        assert_eq!(*replicas, 3);
    }
    assert!(waited > 0, "no copy was on its way to the dead node");
}

#[test]
fn any_node_answers_for_all() {
    let mut net = Net::new(5);
    let (dataset, training) = both();
    let (table, _) = net.create(4, dataset);
    let (id, _) = net.create(5, training);
    assert_eq!(net.work(&[1, 2, 3, 4, 5]), 1 + 8 + 1);
    net.agree(3);
    for n in 1..=5 {
        let Response::Family { entries, .. } = net.ask(n, watch(id, 0)) else { panic!("it is known to {n}") };
        assert_eq!(entries.len(), 4);
        let child = entries[1].id;
        let Response::Family { entries, .. } = net.ask(n, watch(child, 0)) else { panic!("a child, at {n}") };
        assert_eq!(entries[0].id, child);
        let find = Request::Find { kind: Kind::Dataset, text: "x".into() };
        assert_eq!(net.ask(n, find), Response::Found(table));
        let list = Request::List { kind: Kind::Training, after: None, limit: 9 };
        let Response::Page { entries, next: None } = net.ask(n, list) else { panic!("a page") };
        assert_eq!(entries.iter().map(|entry| entry.id).collect::<Vec<_>>(), [id]);
        let unknown = Digest::of(b"nothing");
        assert_eq!(net.ask(n, watch(unknown, 0)), Response::Refused(not_found("record", unknown)));
        let Response::Route(route) = net.ask(n, Request::Route { id: child }) else { panic!("a route") };
        assert_eq!((route.root, route.holders.len(), route.factor), (id, 3, 3));
        assert_eq!(route.owner.map(|owner| owner.number() as u8), Some(net.owners(id)[0]));
    }
}

#[test]
fn work_waits_at_one_node_and_is_found_at_another() {
    let mut net = Net::new(5);
    let (dataset, training) = both();
    net.create(1, dataset);
    let waiting: Vec<Ticket> =
        (1..=5).map(|n| net.send(n, claim(&alloc::format!("w{n}"), 1, 30_000))).collect();
    net.create(5, training);
    let served = |net: &Net| waiting.iter().filter(|ticket| net.replies.contains_key(ticket)).count();
    assert_eq!(served(&net), 1, "there is one piece, and it is given once");
    let Some(Response::Work(work)) = waiting.iter().find_map(|t| net.replies.get(t)).cloned() else {
        panic!("work")
    };
    assert_eq!(net.ask(3, done(work[0].lease)), Response::Done, "whoever hears the result passes it on");
    assert_eq!(served(&net), 4, "the next round has three pieces");
}

#[test]
fn two_of_three_holders_may_die() {
    let mut net = Net::new(5);
    let (dataset, training) = both();
    let (table, _) = net.create(1, dataset);
    let (id, _) = net.create(1, training);
    let mut done_before = 0;
    for _ in 0..2 {
        let owner = net.owners(id)[0];
        let survivor = *net.nodes.keys().find(|n| **n != owner).expect("there are others");
        if let Response::Work(work) = net.ask(survivor, claim("w", 1, 0)) {
            assert_eq!(net.ask(survivor, done(work[0].lease)), Response::Done);
            done_before += 1;
        }
        net.kill(owner);
    }
    net.pass(3);
    net.agree(3);
    assert!(net.holders(table).len() == 3 && net.holders(id).len() == 3);
    let left: Vec<u8> = net.nodes.keys().copied().collect();
    assert_eq!(net.work(&left), 10 - done_before, "what was done is not done again");
    net.agree(3);
}

#[test]
fn the_sides_of_a_partition_work_on_and_merge() {
    let mut net = Net::new(5);
    let (dataset, training) = both();
    net.create(1, dataset);
    let (id, _) = net.create(1, training.clone());
    net.work(&[1]);
    net.split(&[4, 5]);
    let (other, replicas) = net.create(5, Body::Dataset(table(7)));
    assert_eq!(replicas, 2, "on all that are there");
    let (again, _) = net.create(2, Body::Training(super::training(&[ONCE], 3)));
    net.work(&[2, 3]);
    net.pass(5);
    net.split(&[]);
    net.pass(8);
    net.agree(3);
    assert_eq!(net.work(&[1, 2, 3, 4, 5]), 0, "what is finished is not done again");
    for n in 1..=5 {
        for id in [id, other, again] {
            assert!(matches!(net.ask(n, watch(id, 0)), Response::Family { .. }));
        }
    }
}

#[test]
fn both_sides_of_a_partition_may_do_the_same_work() {
    let mut net = Net::new(4);
    let (dataset, training) = both();
    net.create(1, dataset);
    let (id, _) = net.create(1, training);
    let holders = net.holders(id);
    net.split(&holders[..1]);
    let other: Vec<u8> = net.nodes.keys().copied().filter(|n| *n != holders[0]).collect();
    assert_eq!(net.owners(id).len(), 2, "one on each side");
    assert_eq!(net.work(&[holders[0]]), 10);
    assert_eq!(net.work(&other), 10);
    net.split(&[]);
    net.pass(8);
    assert_eq!(net.owners(id).len(), 1);
    net.agree(3);
    assert_eq!(
        net.nodes.values().map(Node::divergences).sum::<u64>(),
        0,
        "the same work has the same result"
    );
}

#[test]
fn what_is_deleted_on_one_side_stays_deleted_and_is_forgotten_in_the_end() {
    let mut net = Net::new(4);
    let (dataset, training) = both();
    let (table, _) = net.create(1, dataset.clone());
    let (id, _) = net.create(1, training.clone());
    assert!(matches!(net.ask(2, Request::Delete { id: table }), Response::Refused(Refusal::InUse { .. })));
    net.work(&[1, 2, 3, 4]);
    let holders = net.holders(id);
    net.split(&holders[..1]);
    let other = *net.nodes.keys().find(|n| **n != holders[0]).expect("there are others");
    assert_eq!(net.ask(other, Request::Delete { id }), Response::Done);
    net.pass(60);
    assert!(net.holders(id).len() >= 3, "somebody is not there who may bring it back");
    net.split(&[]);
    net.pass(10);
    let alive = |net: &Net| net.nodes.values().filter(|node| node.catalogue.body(&id).is_some()).count();
    assert_eq!(alive(&net), 0, "an old replica does not bring it back");
    net.agree(3);
    net.pass(60);
    assert!(net.holders(id).is_empty(), "nobody needs to know any more");
    assert!(net.nodes.values().all(|node| node.routing.holders(&id).is_empty()));
    assert_eq!(net.create(3, training).1, 3, "it can be made again");
    net.agree(3);
}

#[test]
fn a_new_node_hears_of_those_that_were_there_before_it_though_letters_get_lost() {
    let mut net = Net::new(3);
    let gone = net.nodes[&3].me;
    net.kill(3);
    let new = member(4, 1);
    net.nodes.insert(4, Node::new(Settings::default(), new, []));
    // The others know of it before it knows of them: what they say at once is not heard.
    [1, 2].into_iter().for_each(|n| net.handle(n, Event::Active(new)));
    net.run();
    assert_eq!(net.nodes[&4].members().count(), 0);
    [1, 2].into_iter().for_each(|n| net.handle(4, Event::Active(member(n, 1))));
    net.run();
    net.pass(5);
    assert!(net.nodes[&4].members().any(|(member, active)| member == gone && !active));
    // It is not said again and again.
    net.handle(1, Event::Tick);
    let before = net.now;
    while net.now < before + 10 * SECOND {
        net.now += SECOND;
        [1, 2].into_iter().for_each(|n| net.handle(n, Event::Tick));
        let missing = |(_, letter): &(NodeId, Letter)| matches!(letter.message, Message::Missing { .. });
        assert!(!net.letters.iter().any(missing), "{:?}", net.letters);
        net.run();
    }
}

#[test]
fn a_worker_that_is_gone_is_known_everywhere() {
    let mut net = Net::new(3);
    let (dataset, training) = both();
    net.create(1, dataset);
    let (id, _) = net.create(1, training);
    let owner = net.owners(id)[0];
    let other = *net.nodes.keys().find(|n| **n != owner).expect("there are others");
    let Response::Work(work) = net.ask(other, claim("a", 1, 0)) else { panic!("work") };
    let waiting = net.send(owner, claim("b", 1, 30_000));
    let Response::Workers(workers) = net.ask(other, Request::Workers) else { panic!("workers") };
    assert_eq!(
        workers.iter().map(|w| (w.worker.as_str(), w.leases)).collect::<Vec<_>>(),
        [("a", 1), ("b", 0)]
    );
    assert!(!net.replies.contains_key(&waiting));
    net.ask(other, Request::Leave { worker: "a".into(), dead: true });
    let Some(Response::Work(again)) = net.replies.get(&waiting) else { panic!("it is free again") };
    assert_eq!(again[0].lease.slot, work[0].lease.slot);
}

#[test]
fn leases_move_with_the_ownership() {
    let mut net = Net::new(1);
    let (dataset, training) = both();
    net.create(1, dataset);
    let (id, _) = net.create(1, training);
    // The only node is the owner; then one with a lower address comes, and gets a copy.
    let Response::Work(work) = net.ask(1, claim("a", 1, 0)) else { panic!("work") };
    let lower = Member { address: core::net::SocketAddr::from(([9, 0, 0, 1], 7301)), ..member(2, 1) };
    net.nodes.insert(2, Node::new(Settings::default(), lower, []));
    net.meet();
    net.pass(3);
    assert_eq!(net.owners(id), [2]);
    assert_eq!(net.ask(1, claim("b", 1, 0)), Response::Work(vec![]), "its only piece is leased");
    let lease = work[0].lease;
    let renew = Request::Renew { worker: "a".into(), leases: vec![lease] };
    assert_eq!(net.ask(1, renew), Response::Lost(vec![]));
    assert_eq!(net.ask(1, done(lease)), Response::Done);
    net.agree(2);
}

#[test]
fn what_only_the_other_side_holds_is_named_not_denied() {
    let mut net = Net::new(5);
    let (dataset, _) = both();
    let (id, _) = net.create(1, dataset);
    let holders = net.holders(id);
    net.split(&holders);
    let other = *net.nodes.keys().find(|n| !holders.contains(n)).expect("there are others");
    let Response::Refused(refusal) = net.ask(other, watch(id, 0)) else { panic!("it is not here") };
    let Refusal::Unreachable { id: named, nodes } = refusal else { panic!("{refusal}") };
    assert_eq!((named, nodes.matches("db-").count()), (id, 3));
    net.split(&[]);
    assert!(matches!(net.ask(other, watch(id, 0)), Response::Family { .. }));
}

#[test]
fn a_write_with_too_few_copies_says_so_and_is_kept() {
    let mut net = Net::new(2);
    // The second is taken to be there, but hears nothing: its disk is full, say.
    net.cut = [2].into();
    let (dataset, _) = both();
    let ticket = net.send(1, Request::Create { body: dataset.clone(), name: None });
    net.pass(29);
    assert_eq!(net.replies.get(&ticket), None, "other nodes are tried for a while");
    net.pass(2);
    let refused = Response::Refused(Refusal::TooFewCopies { copies: 1, wanted: 2 });
    assert_eq!(net.replies.remove(&ticket), Some(refused));
    net.cut = BTreeSet::new();
    net.pass(11);
    net.agree(2);
    assert_eq!(net.create(1, dataset).1, 2, "asking again is enough");
}

#[test]
fn results_that_contradict_each_other_raise_an_alarm_and_one_wins_everywhere() {
    let mut net = Net::new(2);
    let (dataset, training) = both();
    net.create(1, dataset);
    let (id, _) = net.create(1, training);
    net.split(&[2]);
    for n in [1, 2] {
        let Response::Work(work) = net.ask(n, claim("w", 1, 0)) else { panic!("work") };
        let state = Digest::of(&[n]);
        let wrong = report(work[0].lease, Outcome::State { state, finished: false });
        assert_eq!(net.ask(n, wrong), Response::Done);
    }
    net.split(&[]);
    net.pass(8);
    assert!(net.nodes.values().map(Node::divergences).sum::<u64>() > 0, "somebody computes wrong");
    net.agree(2);
    let prepare = id.child("prepare/0");
    let kept = net.nodes[&1].catalogue.job(&prepare).and_then(Job::result);
    assert_eq!(kept, [1, 2].map(|n| Digest::of(&[n])).into_iter().max());
}

#[test]
fn a_result_finds_its_job_through_a_node_that_has_not_heard_of_it() {
    let (dataset, training) = both();
    let mut net = Net::new(8);
    let (first, second) = (net.create(1, dataset.clone()).0, net.create(1, training.clone()).0);
    let holders = [net.holders(first), net.holders(second)].concat();
    let other = *net.nodes.keys().find(|n| !holders.contains(n)).expect("one holds neither");
    // The same again, but that one misses all letters, though nobody holds it for dead.
    let mut net = Net::new(8);
    net.cut = [other].into();
    net.create(1, dataset);
    let (id, _) = net.create(1, training);
    let at = net.owners(id)[0];
    let Response::Work(work) = net.ask(at, claim("w", 1, 0)) else { panic!("work") };
    net.cut.clear();
    assert!(net.nodes[&other].routing.holders(&id).is_empty());
    assert_eq!(net.ask(other, done(work[0].lease)), Response::Done);
}

#[test]
fn what_lacks_copies_is_counted_by_its_owner_until_it_has_them() {
    let mut net = Net::new(4);
    let (id, _) = net.create(1, both().0);
    let under = |net: &Net| net.nodes.values().map(|node| node.tally().under_replicated).sum::<u64>();
    assert_eq!(under(&net), 0);
    let lost = net.holders(id)[0];
    net.nodes.remove(&lost);
    for n in net.nodes.keys().copied().collect::<Vec<_>>() {
        net.handle(n, Event::Inactive(NodeId::new(u64::from(lost))));
    }
    assert_eq!(under(&net), 1, "the copies are on their way");
    net.run();
    net.pass(2);
    assert_eq!((under(&net), net.holders(id).len()), (0, 3));
    // Where there are fewer nodes than copies are wanted, all that could be had are there.
    net.kill(net.holders(id)[0]);
    net.pass(2);
    assert_eq!((under(&net), net.holders(id).len()), (0, 2));
}
