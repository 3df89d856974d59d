//! The network splits: both sides go on, and come to the same when it heals.

use dml_net::link::Link;

use crate::{
    hosts::{Cluster, db, for_seeds},
    net::peer,
    writes::{Promise, everywhere, write},
};

/// Writes so many things to these db nodes and no others.
async fn write_to(dbs: Vec<usize>, name: &'static str, count: usize) -> Vec<Promise> {
    let link = Link::new(dbs.iter().map(|n| peer(db(*n))));
    let mut promises = Vec::new();
    while promises.len() < count {
        let written = write(&link, format!("{name} {}", promises.len())).await;
        promises.extend(written.ok());
    }
    promises
}

fn splits_and_heals(seed: u64) {
    let mut cluster = Cluster::new(seed, 0);
    cluster.together();
    let before = cluster.ask("writes before", write_to(vec![0, 1, 2], "before", 3));
    assert!(before.iter().all(|promise| promise.replicas == 3), "seed {seed}: {before:?}");

    let alone = cluster.draw(0, 3) as usize;
    let others: Vec<usize> = (0..3).filter(|n| *n != alone).collect();
    for other in &others {
        cluster.sim.partition(db(alone).ip(), db(*other).ip());
    }
    cluster.until("the split is seen", |dbs| {
        dbs[alone].sees() == 0 && others.iter().all(|other| dbs[*other].sees() == 1)
    });
    let here = cluster.ask("writes of one", write_to(vec![alone], "here", 4));
    assert!(here.iter().all(|promise| promise.replicas == 1), "seed {seed}: {here:?}");
    let there = cluster.ask("writes of two", write_to(others.clone(), "there", 4));
    assert!(there.iter().all(|promise| promise.replicas == 2), "seed {seed}: {there:?}");
    // The same thing under two names, from both sides.
    let both = cluster.ask("the same of one", write_to(vec![alone], "both", 1));
    cluster.ask("the same of two", write_to(others.clone(), "both", 1));

    for other in &others {
        cluster.sim.repair(db(alone).ip(), db(*other).ip());
    }
    cluster.together();
    let all: Vec<Promise> = [before, here, there, both].concat();
    let count = all.len();
    cluster.until("everyone has everything", |dbs| dbs.iter().all(|db| db.records().len() == count));
    cluster.same_everywhere();
    assert_eq!(cluster.ask("all is served", everywhere(all)), Ok(()), "seed {seed}");
}

#[test]
fn both_sides_of_a_split_go_on_and_unite() {
    for_seeds(4, splits_and_heals);
}
