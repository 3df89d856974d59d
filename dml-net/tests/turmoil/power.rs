//! The power goes everywhere at once, in the midst of writes: what was acknowledged is there afterwards.

use std::{cell::RefCell, rc::Rc, time::Duration};

use dml_net::{
    discover::{Discovery, Fixed},
    link::Link,
};
use dml_store::DiskStore;

use crate::{
    hosts::{Cluster, client, db, for_seeds},
    net::dial,
    training::upload,
    writes::{Promise, everywhere, write},
};

type Promises = Rc<RefCell<Vec<Promise>>>;

/// Writes one thing after the other, and notes what was acknowledged. The first is a table that a user uploads.
async fn write_on(kept: Promises) {
    let everyone = Fixed((0..3).map(db).collect());
    let link = Link::discover(Discovery::new(vec![Box::new(everyone)]), dial());
    let view = upload(&client(1)).await.expect("nothing disturbs it yet");
    let uploaded = Promise::of(&link, view.id, view.replicas).await.expect("it was acknowledged");
    kept.borrow_mut().push(uploaded);
    for n in 0.. {
        match write(&link, format!("datum {n}")).await {
            Ok(promise) => kept.borrow_mut().push(promise),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Lets the power go everywhere in the midst of writes. Gives what was acknowledged until then, and on how many disks
/// each is found afterwards.
fn lose_power(cluster: &mut Cluster, kept: &Promises) -> Vec<(Promise, usize)> {
    let first = 2 + cluster.draw(0, 8) as usize;
    cluster.until("some writes are acknowledged", |_| kept.borrow().len() >= first);
    // It goes during some change to each disk, and with it the machine. Two that are gone may keep the third from
    // writing, so that one goes with them.
    for n in 0..3 {
        cluster.dbs[n].disk.cut_power_after(1 + cluster.draw(1 + n as u64, 30));
    }
    let mut on = vec![0, 1, 2];
    while on.len() > 1 {
        cluster.step();
        let gone: Vec<usize> = on.extract_if(.., |n| cluster.dbs[*n].disk.is_off()).collect();
        gone.into_iter().for_each(|n| cluster.crash(n));
    }
    on.into_iter().for_each(|n| cluster.crash(n));
    let promised = kept.borrow().clone();
    let stores: Vec<DiskStore> = cluster.dbs.iter().filter_map(|db| db.reopened().ok()).collect();
    let copies = |promise: &Promise| stores.iter().filter(|store| promise.is_in(*store)).count();
    promised.into_iter().map(|promise| (promise.clone(), copies(&promise))).collect()
}

fn writing(seed: u64) -> (Cluster, Promises) {
    let mut cluster = Cluster::new(seed, 1);
    cluster.together();
    let kept = Promises::default();
    cluster.start(write_on(kept.clone()));
    (cluster, kept)
}

fn all_lose_power(seed: u64) {
    let (mut cluster, kept) = writing(seed);
    let promised = lose_power(&mut cluster, &kept);
    assert_eq!(promised[0].0.replicas, 3, "seed {seed}");
    for (promise, copies) in &promised {
        assert!(*copies >= promise.replicas as usize, "seed {seed}: {copies} copies are left of {promise:?}");
    }
    (0..3).for_each(|n| cluster.bounce(n));
    cluster.together();
    cluster.until("writing goes on", |_| kept.borrow().len() > promised.len());
    let promised = promised.into_iter().map(|(promise, _)| promise).collect();
    assert_eq!(cluster.ask("all is served", everywhere(promised)), Ok(()), "seed {seed}");
}

#[test]
fn what_was_acknowledged_survives_a_loss_of_power_everywhere() {
    for_seeds(4, all_lose_power);
}

/// That the test before can fail: with disks that do not do what they say, something acknowledged is lost.
#[test]
fn disks_that_lie_about_syncs_are_found_out() {
    let is_lost = |seed| {
        let (mut cluster, kept) = writing(seed);
        cluster.dbs.iter().for_each(|db| db.disk.lie_about_syncs(true));
        lose_power(&mut cluster, &kept).iter().any(|(promise, copies)| *copies < promise.replicas as usize)
    };
    assert!((0..4).any(is_lost));
}
