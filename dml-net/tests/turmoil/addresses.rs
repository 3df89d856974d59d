//! DNS leads astray: a cluster that lost power finds itself again by the addresses that its nodes remember.

use dml_net::link::Link;
use dml_store::Store;

use crate::{
    hosts::{Cluster, db, for_seeds},
    net::peer,
    writes::{Promise, everywhere, write},
};

/// Under what name a node keeps the addresses of others.
const ADDRESSES: &str = "addresses";

/// Where no db node ever was.
const NOBODY: usize = 80;

/// A cluster that has just lost power everywhere, and of which no node is told where the others are. What was written to
/// it before comes too.
fn led_astray(seed: u64) -> (Cluster, Promise) {
    let mut cluster = Cluster::new(seed, 0);
    cluster.together();
    let kept = |store: &dyn Store| {
        let saved = store.setting(ADDRESSES).expect("the disk works").unwrap_or_default();
        let text = String::from_utf8(saved).expect("it is JSON");
        (0..3).filter(|n| text.contains(&db(*n).to_string())).count()
    };
    cluster.until("each remembers the others", |dbs| dbs.iter().all(|db| db.store(kept) >= 2));
    let written = cluster.ask("a write", async {
        let link = Link::new([peer(db(0))]);
        write(&link, "datum".into()).await.expect("nothing disturbs it")
    });
    for n in 0..3 {
        cluster.crash(n);
        // By turns a name that is not known any more, and one that leads to nobody.
        cluster.dbs[n].names.say(&[db(NOBODY)][..seed as usize % 2]);
        // Who was a member is written down too, but may have moved: here the addresses must do.
        cluster.forget(n, "members");
    }
    (cluster, written)
}

fn finds_itself_again(seed: u64) {
    let (mut cluster, written) = led_astray(seed);
    (0..3).for_each(|n| cluster.bounce(n));
    cluster.together();
    assert_eq!(cluster.ask("it is served", everywhere(vec![written])), Ok(()), "seed {seed}");
}

#[test]
fn nodes_find_each_other_when_dns_fails_or_misleads() {
    for_seeds(4, finds_itself_again);
}

/// That it was by the addresses.
#[test]
fn nodes_that_forgot_all_addresses_stay_alone() {
    let (mut cluster, _) = led_astray(0);
    (0..3).for_each(|n| {
        cluster.forget(n, ADDRESSES);
        cluster.bounce(n);
    });
    (0..20_000).for_each(|_| cluster.step());
    assert!(cluster.dbs.iter().all(|db| db.sees() == 0));
}
