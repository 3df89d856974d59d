//! A network that loses and delays: everything takes longer, and comes to the same.

use std::time::Duration;

use crate::{
    hosts::{Cluster, client, for_seeds},
    training::{train, undisturbed},
};

fn trains_anyway(seed: u64) {
    let mut cluster = Cluster::new(seed, 2);
    let loss = (1 + cluster.draw(0, 4)) as f64 / 1000.0;
    cluster.spoil_network(loss, Duration::from_millis(40));
    cluster.together();
    let essence = cluster.ask("a training ends", train(client(2)));
    assert_eq!(essence.as_ref(), Ok(undisturbed()), "seed {seed}");
    cluster.same_everywhere();
}

#[test]
fn a_training_ends_on_a_bad_network() {
    for_seeds(3, trains_anyway);
}
