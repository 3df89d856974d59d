//! Membership in a simulated network: boots become one cluster, crashes are known to all in time, nobody alive is held
//! for dead, splits heal. Times are those of the simulation, so they are asserted as they are.

mod world;

use std::time::Duration;

use dml_core::{
    Member, NodeId,
    swim::{Effect, Event, Health, Settings, Swim},
};
use world::{Net, World, address, ms, secs};

fn fast() -> Settings {
    Settings::default()
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[test]
fn boots_become_one_cluster() {
    for (n, loss, most) in [(2, 0, 2), (3, 10, 3), (10, 0, 2), (10, 10, 4), (10, 100, 12), (40, 10, 4)] {
        for seed in 0..if n > 10 { 3 } else { 20 } {
            let mut world = World::booted(seed, fast(), Net::losing(loss), n, 3);
            let took = world.until(secs(most), World::agrees);
            assert!(took.is_some(), "{n} nodes, {loss}/1000 lost, seed {seed}: not one cluster in {most} s");
        }
    }
}

#[test]
fn clusters_that_started_apart_merge_at_one_address() {
    for seed in 0..10 {
        let mut world = World::new(seed, fast(), Net::losing(10));
        for n in 0..12 {
            world.start(n, vec![address(if n < 6 { 0 } else { 6 })]);
        }
        world.run(secs(10));
        assert!(
            world.hosts.iter().all(|host| host.swim.as_ref().is_some_and(|swim| swim.nodes().count() == 5))
        );
        world.give(3, Event::Discovered(vec![address(0), address(9)]));
        let took = world.until(secs(3), World::agrees);
        assert!(took.is_some(), "seed {seed}: not one cluster in 3 s");
    }
}

#[test]
fn only_strangers_are_greeted() {
    let mut world = World::joined(1, fast(), Net::CALM, 6);
    (0..6).for_each(|n| world.give(n, Event::Discovered((0..6).map(address).collect())));
    world.run(secs(6));
    let greets = world.greets;
    world.run(secs(60));
    assert_eq!(world.greets, greets, "all are known");
    world.give(0, Event::Discovered((0..10).map(address).collect()));
    world.run(secs(59));
    assert_eq!(world.greets, greets + 4 * 12, "four addresses, every five seconds");
}

/// The median over seeds of when the last knows, and the worst.
fn crashes(n: usize, gone: &[usize], net: Net, seeds: u64) -> (Duration, Duration) {
    let last = |seed| {
        let times = World::joined(seed, fast(), net, n).crash_and_wait(gone, secs(30));
        let times = times.unwrap_or_else(|| panic!("seed {seed}: not all know of the crash after 30 s"));
        assert_eq!(times.len(), gone.len() * (n - gone.len()), "seed {seed}: everybody says it, once");
        *times.last().expect("somebody said it")
    };
    let mut times: Vec<_> = (0..seeds).map(last).collect();
    (median(&mut times), *times.last().expect("seeds"))
}

#[test]
fn a_crash_is_known_to_all() {
    for loss in [0, 10] {
        let (median, worst) = crashes(10, &[5], Net::losing(loss), 40);
        assert!(median <= ms(1300) && worst <= secs(3), "{loss}/1000 lost: {median:?}, worst {worst:?}");
    }
}

#[test]
fn the_news_of_a_death_travels_fast() {
    let spread = |seed| {
        let times =
            World::joined(seed, fast(), Net::CALM, 20).crash_and_wait(&[5], secs(30)).expect("all know");
        times[times.len() - 1] - times[0]
    };
    let mut spreads: Vec<_> = (0..20).map(spread).collect();
    assert!(median(&mut spreads) <= ms(40), "{spreads:?}");
}

#[test]
fn two_and_three_crashes_at_once_are_known_to_all() {
    for gone in [&[2, 5][..], &[1, 5, 9]] {
        let (median, worst) = crashes(10, gone, Net::losing(10), 20);
        assert!(median <= ms(2000) && worst <= secs(3), "{gone:?}: {median:?}, worst {worst:?}");
    }
}

#[test]
fn a_refused_connection_shortens_the_wait() {
    let net = Net { refuses: true, ..Net::losing(10) };
    let (median, worst) = crashes(10, &[5], net, 40);
    assert!(median <= ms(600) && worst <= ms(1600), "{median:?}, worst {worst:?}");
}

#[test]
fn a_false_refusal_kills_nobody() {
    for seed in 0..10 {
        let mut world = World::joined(seed, fast(), Net::losing(10), 10);
        let (start, verdicts) = (world.now, world.verdicts);
        for round in 0..30 {
            let id = world.hosts[round % 9].me.id;
            world.give(9, Event::Refused(id));
            world.run(secs(1));
        }
        assert_eq!(world.false_deaths(start), 0, "seed {seed}");
        assert_eq!(
            world.verdicts, verdicts,
            "seed {seed}: who speaks up in time is not told that it is dead"
        );
    }
}

#[test]
fn a_wall_between_two_nodes_kills_neither() {
    for seed in 0..5 {
        let mut world = World::joined(seed, fast(), Net::losing(5), 8);
        let (start, messages) = (world.now, world.messages);
        world.cuts = [((2, 3), true), ((3, 2), true)].into();
        // One of them tries again and again, as requests do.
        let other = world.hosts[3].me.id;
        for _ in 0..1200 {
            world.give(2, Event::Refused(other));
            world.run(ms(100));
        }
        assert_eq!(world.false_deaths(start), 0, "seed {seed}");
        let rate = (world.messages - messages) / 120 / 8;
        assert!(rate <= 13, "seed {seed}: {rate} messages a second each, where seven are usual");
    }
}

#[test]
fn nobody_alive_is_held_for_dead() {
    // 10 nodes x 1 h x 2 = 20 node-hours, and the same with stalls of up to 300 ms once a minute.
    for pause in [Duration::ZERO, ms(300)] {
        for seed in 0..2 {
            let mut world = World::joined(seed, fast(), Net { pause, ..Net::losing(10) }, 10);
            let start = world.now;
            world.run(secs(3600));
            assert_eq!(world.false_deaths(start), 0, "seed {seed}, pauses {pause:?}");
        }
    }
}

#[test]
fn who_stood_still_does_not_blame_the_others() {
    for seed in 0..10 {
        let mut world = World::joined(seed, fast(), Net::CALM, 5);
        let sleeper = world.hosts[2].me.id;
        world.pause(2, secs(20));
        world.run(secs(19));
        let start = world.now;
        assert!(world.until(secs(7), World::agrees).is_some(), "seed {seed}: awake, and not back");
        let blamed =
            world.said.iter().any(|said| said.at >= start && said.what.is_err() && said.of != sleeper);
        assert!(!blamed, "seed {seed}");
    }
}

#[test]
fn a_split_heals() {
    for (loss, told) in [(0, true), (10, true), (10, false)] {
        for seed in 0..8 {
            let mut world = World::joined(seed, fast(), Net::losing(loss), 10);
            if !told {
                // Then they find each other by memory.
                (0..10).for_each(|n| world.give(n, Event::Discovered(Vec::new())));
            }
            world.side = (0..10).map(|n| u8::from(n < 4)).collect();
            world.run(secs(60));
            assert!(world.sides_agree(), "seed {seed}: each side is a cluster");
            world.side.fill(0);
            let took = world.until(secs(6), World::agrees);
            assert!(took.is_some(), "{loss}/1000 lost, seed {seed}: not healed in 6 s");
        }
    }
}

#[test]
fn who_leaves_is_gone_at_once() {
    for (n, most) in [(2, ms(10)), (10, ms(400)), (100, ms(1000))] {
        let mut world = World::joined(3, fast(), Net::losing(10), n);
        let start = world.now;
        world.give(1, Event::Leave);
        let swim = world.hosts[1].swim.as_mut().expect("it ran");
        assert_eq!(swim.deadline(secs(99)), None);
        assert_eq!(swim.handle(secs(99), Event::Tick), []);
        world.crash(1);
        assert!(world.until(most, World::agrees).is_some(), "{n} nodes: not known to all in {most:?}");
        let gone: Vec<_> = world.said.iter().filter(|said| said.at >= start).map(|said| said.what).collect();
        assert_eq!(gone, vec![Err(true); n - 1], "it is known that it left");
        let seen = world.hosts[0]
            .swim
            .as_ref()
            .and_then(|swim| swim.nodes().find(|seen| seen.member.id == world.hosts[1].me.id));
        assert_eq!(seen.map(|seen| seen.health), Some(Health::Left), "inactive nodes stay in the table");
    }
}

#[test]
fn a_restart_is_a_new_life_and_a_lost_disk_a_new_node() {
    for seed in 0..10 {
        let mut world = World::joined(seed, fast(), Net::losing(10), 10);
        let start = world.now;
        // Faster than anybody could notice.
        world.crash(4);
        world.run(ms(50));
        world.start(4, vec![address(0)]);
        assert!(world.until(secs(3), World::agrees).is_some(), "seed {seed}: the new life is not known");
        let of = world.hosts[4].me.id;
        let said: Vec<_> =
            world.said.iter().filter(|said| said.at >= start && said.of == of && said.by != 4).collect();
        assert_eq!(said.iter().filter(|said| said.what == Ok(2)).count(), 9, "seed {seed}");

        let lost = world.hosts[7].me;
        world.crash(7);
        world.start_as(
            7,
            Member { id: NodeId::new(77), generation: 1, ..lost },
            vec![address(0)],
            Vec::new(),
        );
        assert!(world.until(secs(4), World::agrees).is_some(), "seed {seed}: the lost one lives on");
        let swim = world.hosts[0].swim.as_ref().expect("it runs");
        let health = |id| swim.nodes().find(|seen| seen.member.id == id).map(|seen| seen.health);
        assert_eq!((health(lost.id), health(NodeId::new(77))), (Some(Health::Failed), Some(Health::Active)));
    }
}

#[test]
fn a_node_restarts_into_its_cluster_from_memory() {
    let mut world = World::joined(1, fast(), Net::losing(10), 6);
    let me = Member { generation: 2, ..world.hosts[5].me };
    let known = [0, 3].map(|n| world.hosts[n].me);
    world.crash(5);
    world.run(secs(20));
    world.start_as(5, me, Vec::new(), known.to_vec());
    assert!(world.until(secs(2), World::agrees).is_some());
}

#[test]
fn the_same_seed_is_the_same_history() {
    let history = |seed| {
        let mut world = World::booted(seed, fast(), Net::losing(50), 8, 3);
        world.run(secs(30));
        (
            world.messages,
            world.bytes,
            world.said.iter().map(|said| (said.at, said.by, said.of)).collect::<Vec<_>>(),
        )
    };
    assert_eq!(history(1), history(1));
    assert_ne!(history(1), history(2));
}

#[test]
fn garbage_changes_nothing() {
    let mut world = World::joined(1, fast(), Net::CALM, 4);
    let start = world.now;
    let mut datagram = Vec::new();
    for round in 0..5000u64 {
        let draw = dml_core::rng::draw(9, round);
        if round % 50 == 0 {
            datagram.clear();
        }
        datagram.push(if datagram.is_empty() { 1 } else { draw as u8 });
        world.give((draw % 4) as usize, Event::Datagram(datagram.clone()));
    }
    world.give(0, Event::Datagram(vec![1; 1 << 20]));
    world.run(secs(5));
    assert!(world.agrees());
    assert!(world.said.iter().all(|said| said.at < start), "nobody said anything");
}

#[test]
fn a_node_alone_sleeps() {
    let me = Member { id: NodeId::new(1), address: address(1), generation: 1 };
    let mut alone = Swim::new(me, fast(), 1, []);
    assert_eq!(alone.deadline(Duration::ZERO), None);
    assert_eq!(
        alone.handle(secs(1), Event::Discovered(vec![address(1)])),
        [],
        "its own address is no other node"
    );
    assert_eq!(alone.handle(secs(1), Event::Greeted(me)), []);
    assert_eq!(alone.deadline(secs(2)), None);

    // With somebody to find, it asks every second, later every five.
    assert_eq!(alone.handle(secs(2), Event::Discovered(vec![address(2)])), [Effect::Greet(address(2))]);
    assert_eq!(alone.deadline(secs(2)), Some(secs(3)));
    assert_eq!(alone.handle(secs(3), Event::Tick), [Effect::Greet(address(2))]);
    assert_eq!(alone.handle(ms(3500), Event::Tick), [], "an early call is harmless");
    assert_eq!(alone.handle(secs(100), Event::Tick), [Effect::Greet(address(2))]);
    assert_eq!(alone.deadline(secs(100)), Some(secs(105)));
}

#[test]
fn what_was_heard_when_is_known() {
    let mut world = World::joined(1, fast(), Net::CALM, 3);
    world.run(secs(10));
    let own = world.now;
    let swim = world.hosts[0].swim.as_ref().expect("it runs");
    assert!(
        swim.nodes().all(|seen| seen.health == Health::Active && seen.heard + secs(2) > own),
        "they talk"
    );
    world.crash(1);
    world.run(secs(60));
    let gone = world.hosts[1].me.id;
    let heard = |world: &World| {
        let swim = world.hosts[0].swim.as_ref().expect("it runs");
        swim.nodes().find(|seen| seen.member.id == gone).map(|seen| seen.heard)
    };
    assert!(heard(&world).is_some_and(|heard| heard <= own + ms(10)), "not since it died");
    world.give(0, Event::Answered(gone));
    assert_eq!(heard(&world), Some(world.now));
}
