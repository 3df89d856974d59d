//! The power goes everywhere at once, in the midst of writes: what was acknowledged is there afterwards.

use std::{cell::RefCell, rc::Rc, time::Duration};

use dml_net::{
    discover::{Discovery, Fixed},
    link::Link,
};

use crate::{
    hosts::{Cluster, db},
    net::dial,
    writes::{Promise, everywhere, write},
};

type Promises = Rc<RefCell<Vec<Promise>>>;

/// Writes one thing after the other, and notes what was acknowledged.
async fn write_on(kept: Promises) {
    let everyone = Fixed((0..3).map(db).collect());
    let link = Link::discover(Discovery::new(vec![Box::new(everyone)]), dial());
    for n in 0.. {
        match write(&link, format!("datum {n}")).await {
            Ok(promise) => kept.borrow_mut().push(promise),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

fn all_lose_power(seed: u64) {
    let mut cluster = Cluster::new(seed, 0, |_| ());
    cluster.together();
    let kept = Promises::default();
    let writer = cluster.start(write_on(kept.clone()));
    let first = 2 + cluster.draw(0, 8) as usize;
    cluster.until("some writes are acknowledged", |_| kept.borrow().len() >= first);

    // It goes during some change to each disk, and with it the machine.
    for n in 0..3 {
        cluster.dbs[n].disk.cut_power_after(1 + cluster.draw(1 + n as u64, 30));
    }
    let mut on = vec![0, 1, 2];
    while !on.is_empty() {
        cluster.step();
        let (gone, still): (Vec<_>, Vec<_>) = on.into_iter().partition(|n| cluster.dbs[*n].disk.is_off());
        gone.into_iter().for_each(|n| cluster.crash(n));
        // Two that are gone may keep the third from writing.
        on = if still.len() == 1 {
            cluster.crash(still[0]);
            Vec::new()
        } else {
            still
        };
    }
    let promised = kept.borrow().clone();
    assert!(promised.iter().any(|promise| promise.replicas == 3), "seed {seed}: {promised:?}");
    let stores: Vec<_> = cluster.dbs.iter().map(|db| db.reopened()).collect();
    for promise in &promised {
        let copies = stores.iter().filter(|store| promise.is_in(*store)).count();
        assert!(copies >= promise.replicas as usize, "seed {seed}: {copies} copies are left of {promise:?}");
    }
    drop(stores);

    (0..3).for_each(|n| cluster.bounce(n));
    cluster.together();
    cluster.until("writing goes on", |_| kept.borrow().len() > promised.len());
    assert!(writer.borrow().is_none(), "it goes on for ever");
    let served = cluster.ask("all is served", everywhere(promised));
    assert_eq!(served, Ok(()), "seed {seed}");
}

#[test]
fn what_was_acknowledged_survives_a_loss_of_power_everywhere() {
    (0..4).for_each(all_lose_power);
}
