//! Five db nodes and three workers as real processes, each on a machine of its own, and what may happen to machines and
//! cables: `kill -9`, cuts, loss, standstill, a new disk. The users notice little, and no work is lost.
//!
//! It needs the right to make network namespaces, `ip` and `iptables`; without them nothing is tested, which is said.
//! `DML_CHAOS_ROUNDS=50` tests longer, and skips nothing; 0 skips all. Timings go to stderr.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "chaos/cluster.rs"]
mod cluster;
#[path = "chaos/facts.rs"]
mod facts;
#[path = "chaos/http.rs"]
mod http;
#[path = "chaos/network.rs"]
mod network;
#[path = "chaos/users.rs"]
mod users;

use std::{
    collections::BTreeSet,
    io::Write,
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    thread::sleep,
    time::{Duration, Instant},
};

use cluster::{Cluster, DBS};
use dml_core::{Digest, Kind, rng};
use dml_net::view::{LeaseView, RoutingView};
use facts::{
    agree, everything, is_done, know_each_other, nodes, really_held, routing, until, until_copied,
    whole_models,
};
use users::{Acknowledged, Dataset, LONG, SHORT, Service, Training, User};

/// How long the nodes may take to know each other after a start or the end of a cut.
const MEETING: Duration = Duration::from_secs(6);

/// How long repair may take.
const REPAIR: Duration = Duration::from_secs(10);

/// The longest that users may wait for a success.
const GAP: Duration = Duration::from_secs(5);

/// How many of the latest datasets are read back each round; in the end all are.
const LATEST: usize = 20;

/// How long a training may go on after the attack.
const TRAINING: Duration = Duration::from_secs(90);

const fn seconds(s: u64) -> Duration {
    Duration::from_secs(s)
}

/// Tells people, also when the test passes.
fn say(words: &str) {
    let _ = writeln!(std::io::stderr(), "chaos: {words}");
}

/// One cluster at a time: two would measure each other.
static TURN: Mutex<()> = Mutex::new(());

/// A cluster whose nodes know each other; none where that cannot be. The turn is over when the cluster is gone: what was
/// bound last is dropped first.
fn cluster(test: &str) -> Option<(MutexGuard<'static, ()>, Cluster)> {
    if rounds() == 0 {
        say(&format!("{test}: SKIPPED, as {ROUNDS} is 0"));
        return None;
    }
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    match Cluster::start() {
        Ok(cluster) => {
            let met = until(seconds(15), "the db nodes meet", || know_each_other(&cluster.dbs()));
            say(&format!("{test}: the nodes know each other {met:.1?} after they answer"));
            Some((turn, cluster))
        }
        Err(why) => {
            assert!(
                std::env::var_os(ROUNDS).is_none(),
                "{ROUNDS} is set, but there can be no network: {why}"
            );
            say(&format!("{test}: SKIPPED, nothing is tested: there can be no network here: {why}"));
            None
        }
    }
}

/// How often db nodes are killed. Whoever sets it wants to be tested: then nothing is skipped.
const ROUNDS: &str = "DML_CHAOS_ROUNDS";

fn rounds() -> u64 {
    std::env::var(ROUNDS).map_or(5, |rounds| rounds.parse().expect("the number of rounds is a number"))
}

/// The ids of what was acknowledged until now.
fn ids(acknowledged: &Acknowledged) -> Vec<Digest> {
    acknowledged.lock().unwrap().iter().map(|dataset| dataset.id).collect()
}

/// Reads back what was acknowledged until now, the latest `most` of it.
#[track_caller]
fn read_back(acknowledged: &Acknowledged, workers: &[SocketAddr], most: usize) {
    let all: Vec<Dataset> = acknowledged.lock().unwrap().clone();
    for (n, dataset) in all.iter().rev().take(most).enumerate() {
        until(GAP, "what was acknowledged can be read", || {
            dataset.read(workers[n % workers.len()], seconds(5))
        });
    }
}

/// In the end all nodes agree, all copies are what they should be, and each upload was told of `copies` or more.
#[track_caller]
fn all_is_well(test: &str, cluster: &Cluster, acknowledged: &Acknowledged, copies: u32) {
    let agreed = until(REPAIR, "all agree", || agree(&cluster.dbs()));
    let all: Vec<Dataset> = acknowledged.lock().unwrap().clone();
    for dataset in &all {
        until(REPAIR, "copies are whole", || really_held(cluster.db(0), dataset.id));
    }
    read_back(acknowledged, &cluster.workers(), usize::MAX);
    let models = whole_models(cluster.worker(0)).unwrap();
    say(&format!(
        "{test}: all {} datasets and {models} models are there and alike; all agree after {agreed:.1?}",
        all.len()
    ));
    let few = all.iter().filter(|dataset| dataset.copies < copies).map(|dataset| dataset.copies);
    let few: Vec<u32> = few.collect();
    assert!(few.is_empty(), "acknowledged with fewer than {copies} copies: {few:?}");
}

/// Tells how a user was served, and checks the gap.
#[track_caller]
fn judge(test: &str, what: &str, service: &Service, limit: Duration) {
    let (good, gap, errors) = (service.good, service.gap, service.errors.len());
    say(&format!(
        "{test}: {good} {what}, {errors} failed, longest time without success {gap:.1?}, {} over a second",
        service.slow.len()
    ));
    service.errors.iter().take(5).for_each(|error| say(&format!("{test}:   {error}")));
    assert!(good > 0 && gap < limit, "{what}: {gap:?} without success: {:?}", service.errors);
}

/// Shortest, middle and longest.
fn spread(mut times: Vec<Duration>) -> String {
    times.sort();
    match times.as_slice() {
        [] => "never".into(),
        sorted => {
            let (first, middle) = (sorted[0], sorted[sorted.len() / 2]);
            format!("{first:.1?} to {:.1?}, half within {middle:.1?}", sorted[sorted.len() - 1])
        }
    }
}

#[test]
fn any_two_db_nodes_are_killed_again_and_again() {
    let test = "two killed";
    let Some((_turn, mut cluster)) = cluster(test) else { return };
    let (directory, workers) = (cluster.path(""), cluster.workers());
    let acknowledged = Acknowledged::default();
    let uploads = User::uploads(workers.clone(), 1, acknowledged.clone());
    let reads = User::reads(workers.clone(), acknowledged.clone());
    let (mut detections, mut repairs, mut meetings, mut trainings) = (vec![], vec![], vec![], vec![]);
    let mut met = 0;
    for round in 0..rounds() {
        let training = Training::start(&SHORT, &directory, &workers, &format!("round-{round}"), round);
        trainings.push((training, round));
        sleep(Duration::from_millis(rng::below(2, round, 1000)));
        let first = rng::below(3, round, DBS as u64) as usize;
        let second = (first + 1 + rng::below(4, round, DBS as u64 - 1) as usize) % DBS;
        met += usize::from(trainings.iter().any(|(training, _)| training.runs()));
        cluster.kill(&[first, second]);
        let killed = Instant::now();
        let alive: Vec<SocketAddr> =
            (0..DBS).filter(|n| ![first, second].contains(n)).map(|n| cluster.db(n)).collect();
        if round % 2 == 0 {
            // They stay away until the others have done without them.
            until(GAP, "the death is known", || know_each_other(&alive));
            detections.push(killed.elapsed());
            let before = ids(&acknowledged);
            until_copied(REPAIR, alive[0], before, 3);
            repairs.push(killed.elapsed());
            read_back(&acknowledged, &workers, LATEST);
        } else {
            sleep(Duration::from_millis(rng::below(5, round, 1500)));
        }
        if round % 3 == 2 {
            // What is lost is lost for good.
            [first, second].into_iter().for_each(|db| cluster.wipe(db));
        }
        let started = Instant::now();
        cluster.run(first);
        cluster.run(second);
        cluster.wait_for(first);
        cluster.wait_for(second);
        until(MEETING, "all know each other", || know_each_other(&cluster.dbs()));
        meetings.push(started.elapsed());
        until_copied(REPAIR, cluster.db(first), ids(&acknowledged), 3);
        read_back(&acknowledged, &workers, LATEST);
    }
    let mut times = vec![];
    for (training, seed) in trainings {
        let (digests, took) = training.end(TRAINING);
        assert_eq!(digests, SHORT.undisturbed(&directory, seed), "round-{seed}");
        times.push(took);
    }
    let (uploads, reads) = (uploads.end(), reads.end());
    all_is_well(test, &cluster, &acknowledged, 3);
    say(&format!("{test}: {} rounds, in {met} of them a training ran; nothing lost", rounds()));
    assert!(met > 0, "no training was met");
    say(&format!("{test}: death known to all after {}", spread(detections)));
    say(&format!("{test}: 3 copies of everything on the other three after {}", spread(repairs)));
    say(&format!("{test}: known again to all after {}", spread(meetings)));
    say(&format!("{test}: trainings ended after {}", spread(times)));
    judge(test, "uploads", &uploads, GAP);
    judge(test, "reads", &reads, GAP);
}

#[test]
fn a_worker_is_killed_while_it_computes() {
    let test = "worker killed";
    let Some((_turn, mut cluster)) = cluster(test) else { return };
    let (directory, workers) = (cluster.path(""), cluster.workers());
    let expected = LONG.undisturbed(&directory, 0);
    let mut moves = vec![];
    let training = Training::start(&LONG, &directory, &workers, "long", 0);
    for victim in 0..2 {
        let address = workers[victim];
        let name = name_of(&cluster, address);
        let witness = workers[2];
        let mut held: Vec<LeaseView> = vec![];
        until(seconds(20), "the victim computes", || {
            held = routing(witness, "long")?.leases;
            held.retain(|lease| lease.worker == name);
            if held.is_empty() { Err("it has no lease".into()) } else { Ok(()) }
        });
        cluster.kill(&[DBS + victim]);
        moves.push(until(seconds(4), "its unit runs elsewhere", || {
            let RoutingView { root, leases: now, .. } = routing(witness, "long")?;
            if now.iter().any(|lease| lease.worker == name) {
                return Err("it still has a lease".into());
            }
            for held in &held {
                // It may have been done in the moment before the kill, or since.
                let leased = now.iter().any(|lease| lease.job == held.job);
                if !leased && !is_done(cluster.db(0), root, held)? {
                    return Err(format!("{held:?} is neither done nor leased: {now:?}"));
                }
            }
            Ok(())
        }));
        assert!(training.runs(), "the training ended before the kill");
        cluster.run(DBS + victim);
        cluster.wait_for(DBS + victim);
    }
    let (digests, took) = training.end(TRAINING);
    assert_eq!(digests, expected);
    say(&format!("{test}: its unit ran elsewhere after {}; training ended after {took:.1?}", spread(moves)));
}

/// What a worker calls itself.
fn name_of(cluster: &Cluster, worker: SocketAddr) -> String {
    let mut name = None;
    until(seconds(5), "the worker is known", || {
        let nodes = nodes(cluster.worker(2)).map_err(|error| error.to_string())?;
        let address = Some(worker.to_string());
        name = nodes
            .into_iter()
            .filter(|node| node.address == address && node.active)
            .map(|node| node.id)
            .next();
        if name.is_some() { Ok(()) } else { Err("not yet".into()) }
    });
    name.unwrap()
}

#[test]
fn both_sides_of_a_partition_go_on_and_unite() {
    let test = "partition";
    let Some((_turn, cluster)) = cluster(test) else { return };
    let (directory, workers) = (cluster.path(""), cluster.workers());
    // Two db nodes with a worker, three with two.
    let (small, large) = ([0, 1, DBS], [2, 3, 4, DBS + 1, DBS + 2]);
    let sides = [(10, &workers[..1]), (20, &workers[1..])];
    let acknowledged = Acknowledged::default();
    let before = User::uploads(workers.clone(), 30, acknowledged.clone());
    let both = Training::start(&LONG, &directory, &workers, "cut", 1);
    sleep(seconds(2));
    let before = before.end();
    cluster.network.cut(&small, &large);
    let start = Instant::now();
    let users = sides.map(|(seed, workers)| {
        let own = Acknowledged::default();
        let uploads = User::uploads(workers.to_vec(), seed, own.clone());
        let reads = User::reads(workers.to_vec(), own.clone());
        // One training of their own, and one that the other side does as well.
        let trainings = [seed, 2]
            .map(|seed| (Training::start(&SHORT, &directory, workers, &format!("side-{seed}"), seed), seed));
        (own, uploads, reads, trainings)
    });
    let cut_known = ["two", "three"].into_iter().zip([&small[..2], &large[..3]]).map(|(side, dbs)| {
        let dbs: Vec<SocketAddr> = dbs.iter().map(|n| cluster.db(*n)).collect();
        until(GAP, &format!("the {side} know that they are alone"), || know_each_other(&dbs));
        start.elapsed()
    });
    say(&format!("{test}: known after {}", spread(cut_known.collect())));
    sleep(seconds(20).saturating_sub(start.elapsed()));
    cluster.network.heal();
    let healed = Instant::now();
    let met = until(MEETING, "all know each other", || know_each_other(&cluster.dbs()));
    let mut served = vec![];
    let mut trainings = vec![];
    for (own, uploads, reads, own_trainings) in users {
        served.push((uploads.end(), reads.end()));
        let mut own = own.lock().unwrap();
        let fewest = own.iter().map(|dataset| dataset.copies).min();
        assert!(fewest >= Some(2), "acknowledged with {fewest:?} copies");
        acknowledged.lock().unwrap().append(&mut own);
        trainings.extend(own_trainings);
    }
    until_copied(REPAIR.saturating_sub(healed.elapsed()), cluster.db(0), ids(&acknowledged), 3);
    let copied = healed.elapsed();
    let expected: BTreeSet<Digest> = ids(&acknowledged).into_iter().collect();
    for db in cluster.dbs() {
        until(REPAIR, "every node knows everything", || {
            let known = everything(db, Kind::Dataset)?;
            let missing = expected.difference(&known).count();
            if missing == 0 { Ok(()) } else { Err(format!("{db} lacks {missing} of {}", expected.len())) }
        });
    }
    for (training, seed) in trainings {
        assert_eq!(training.end(TRAINING).0, SHORT.undisturbed(&directory, seed), "side-{seed}");
    }
    assert_eq!(both.end(TRAINING).0, LONG.undisturbed(&directory, 1));
    all_is_well(test, &cluster, &acknowledged, 2);
    say(&format!(
        "{test}: healed, all know each other after {met:.1?}, 3 copies of all {} after {copied:.1?}",
        expected.len()
    ));
    judge(test, "uploads before", &before, GAP);
    for (side, (uploads, reads)) in ["two", "three"].iter().zip(&served) {
        judge(test, &format!("uploads to the {side}"), uploads, GAP);
        judge(test, &format!("reads from the {side}"), reads, GAP);
    }
}

/// Something that is done to a cluster, and how it is called.
type Attack = (&'static str, fn(&mut Cluster));

#[test]
fn one_way_cuts_loss_and_standstill_leave_no_error() {
    let test = "weak network";
    let Some((_turn, mut cluster)) = cluster(test) else { return };
    let (directory, workers) = (cluster.path(""), cluster.workers());
    let acknowledged = Acknowledged::default();
    let attacks: [Attack; 4] = [
        ("one-way cut", |cluster| {
            cluster.network.cut_one_way(&[0], &[1, 2, DBS]);
            sleep(seconds(6));
            cluster.network.heal();
        }),
        ("20 % loss", |cluster| {
            cluster.network.lose(20);
            sleep(seconds(8));
            cluster.network.heal();
        }),
        ("db node stands still", |cluster| {
            cluster.freeze(0);
            sleep(seconds(5));
            cluster.thaw(0);
        }),
        ("worker stands still", |cluster| {
            cluster.freeze(DBS);
            sleep(seconds(25));
            cluster.thaw(DBS);
        }),
    ];
    let mut trainings = vec![];
    for (seed, (name, attack)) in (100..).zip(attacks) {
        let uploads = User::uploads(workers.clone(), seed, acknowledged.clone());
        let reads = User::reads(workers.clone(), acknowledged.clone());
        sleep(Duration::from_millis(500));
        let training = Training::start(&SHORT, &directory, &workers, &format!("attack-{seed}"), seed);
        sleep(Duration::from_millis(300));
        attack(&mut cluster);
        let met = until(MEETING, "all know each other", || know_each_other(&cluster.dbs()));
        let copied = until_copied(REPAIR, cluster.db(0), ids(&acknowledged), 3);
        say(&format!(
            "{test}: after {name} all know each other after {met:.1?}, 3 copies after {copied:.1?}"
        ));
        // From here on nothing may fail at all.
        let calm = [
            User::uploads(workers.clone(), seed + 1000, acknowledged.clone()),
            User::reads(workers.clone(), acknowledged.clone()),
        ];
        sleep(seconds(1));
        for service in calm.map(User::end) {
            assert_eq!(service.errors, Vec::<String>::new(), "after {name}");
        }
        judge(test, &format!("uploads, {name}"), &uploads.end(), seconds(20));
        judge(test, &format!("reads, {name}"), &reads.end(), seconds(20));
        trainings.push((training, seed));
    }
    for (training, seed) in trainings {
        assert_eq!(training.end(TRAINING).0, SHORT.undisturbed(&directory, seed), "attack-{seed}");
    }
    all_is_well(test, &cluster, &acknowledged, 3);
}

#[test]
fn a_db_node_with_a_new_disk_gets_copies_again() {
    let test = "new disk";
    let Some((_turn, mut cluster)) = cluster(test) else { return };
    let workers = cluster.workers();
    let acknowledged = Acknowledged::default();
    let uploads = User::uploads(workers.clone(), 1, acknowledged.clone());
    sleep(seconds(3));
    for victim in [0, 3] {
        cluster.kill(&[victim]);
        cluster.wipe(victim);
        let killed = Instant::now();
        cluster.run(victim);
        cluster.wait_for(victim);
        until(MEETING, "all know each other", || know_each_other(&cluster.dbs()));
        let met = killed.elapsed();
        until_copied(REPAIR, cluster.db(victim), ids(&acknowledged), 3);
        let copied = killed.elapsed();
        let holds = || nodes(cluster.db(victim)).map_or(0, |nodes| nodes[0].data);
        until(REPAIR, "the new node holds something", || {
            if holds() > 0 { Ok(()) } else { Err("nothing yet".into()) }
        });
        let taken = killed.elapsed();
        say(&format!(
            "{test}: known to all after {met:.1?}, 3 copies of all {} after {copied:.1?}, {} on the new node after {taken:.1?}",
            ids(&acknowledged).len(),
            holds()
        ));
    }
    let uploads = uploads.end();
    all_is_well(test, &cluster, &acknowledged, 3);
    judge(test, "uploads", &uploads, GAP);
}
