//! How many connections there are, in all and from each address.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex},
};

/// The connections of a server; clones count together.
#[derive(Clone)]
pub(super) struct Crowd {
    most: usize,
    most_of_one: usize,
    seats: Arc<Mutex<BTreeMap<IpAddr, usize>>>,
}

/// The place of one connection, free again when it is dropped.
pub(super) struct Seat {
    crowd: Crowd,
    address: IpAddr,
}

impl Crowd {
    pub(super) fn new(most: usize, most_of_one: usize) -> Self {
        Self { most, most_of_one, seats: Arc::default() }
    }

    /// A place for a connection from this address, if there is one.
    pub(super) fn enter(&self, address: IpAddr) -> Option<Seat> {
        let mut seats = self.seats.lock().expect("nobody panics while holding it");
        let (all, of_one) = (seats.values().sum::<usize>(), seats.get(&address).copied().unwrap_or(0));
        // Whoever is on this machine can use it up in other ways, too.
        if all >= self.most || of_one >= self.most_of_one && !address.is_loopback() {
            return None;
        }
        *seats.entry(address).or_default() += 1;
        Some(Seat { crowd: self.clone(), address })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.crowd.seats.lock().expect("nobody panics while holding it");
        if let Some(count) = seats.get_mut(&self.address) {
            *count -= 1;
        }
        seats.retain(|_, count| *count > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_more_than_its_share_and_what_is_given_back_is_free() {
        let [near, far, farther] =
            ["127.0.0.1", "192.0.2.1", "2001:db8::1"].map(|ip| ip.parse().expect("an address"));
        let crowd = Crowd::new(5, 2);
        let mut taken: Vec<Seat> = [far, far].map(|ip| crowd.enter(ip).expect("there is room")).into();
        assert!(crowd.enter(far).is_none(), "it has its share");
        taken.extend([near, near, near].map(|ip| crowd.enter(ip).expect("this machine may have all")));
        assert!(crowd.enter(farther).is_none() && crowd.enter(near).is_none(), "all are taken");
        drop(taken.pop());
        taken.push(crowd.enter(farther).expect("one is free again"));
        drop(taken);
        assert!(crowd.seats.lock().expect("nobody panicked").is_empty(), "it remembers who has gone");
    }
}
