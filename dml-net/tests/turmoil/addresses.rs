//! DNS leads astray: a cluster that lost power finds itself again by the addresses that its nodes remember.

use dml_store::Store;

use crate::{
    hosts::{Cluster, db},
    writes::{everywhere, write},
};
use dml_net::link::Link;

/// Where no db node ever was.
const NOBODY: usize = 80;

fn finds_itself_again(seed: u64) {
    let mut cluster = Cluster::new(seed, 0, |_| ());
    cluster.together();
    let kept = |store: &dyn Store| {
        let saved = store.setting("addresses").expect("the disk works").unwrap_or_default();
        let text = String::from_utf8(saved).expect("it is JSON");
        (0..3).filter(|n| text.contains(&db(*n).to_string())).count()
    };
    cluster.until("each remembers the others", |dbs| dbs.iter().all(|db| db.store(kept) >= 2));
    let written =
        cluster.ask("a write", async { write(&Link::new([crate::net::peer(db(0))]), "datum".into()).await });
    let written = written.expect("nothing disturbs it");

    (0..3).for_each(|n| cluster.crash(n));
    for n in 0..3 {
        let machine = &cluster.dbs[n];
        // By turns a name that is not known any more, and one that leads to nobody.
        machine.names.say(&[db(NOBODY)][..seed as usize % 2]);
        // Who was a member is written down too: here the addresses alone must do.
        machine.reopened().set_setting("members", b"[]").expect("the disk works");
        cluster.bounce(n);
    }
    cluster.together();
    assert_eq!(cluster.ask("it is served", everywhere(vec![written])), Ok(()), "seed {seed}");
}

#[test]
fn nodes_find_each_other_when_dns_fails_or_misleads() {
    (0..4).for_each(finds_itself_again);
}
