//! The table of the db nodes that a worker has ever known, those that do not answer included. It decides whom to ask
//! first, and says what is known of each; it asks nobody itself.

use std::{cmp::Reverse, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{sync::Notify, time::Instant};

use crate::peer::Peer;

/// How many db nodes are known; those that have been silent for longest are forgotten first.
const MOST: usize = 256;

/// So many silent nodes are tried at a time, when no other is left.
const SILENT: usize = 8;

/// What others say of a node counts if it has not answered this worker for so long.
const HEARSAY: Duration = Duration::from_secs(10);

/// How soon after an answer a node is asked whether it is still there, if nothing else is asked of it.
const IDLE: Duration = Duration::from_secs(30);

/// The same after failures: from the first to the last.
const AGAIN: Duration = Duration::from_secs(1);
const SELDOM: Duration = Duration::from_secs(60);

/// A db node as somebody is about to ask it.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) key: u64,
    pub(super) address: Option<SocketAddr>,
    pub(super) peer: Peer,
    /// Notified when the node failed and there is another: who waits for an answer should turn to that one.
    pub(super) given_up: Arc<Notify>,
    /// Whether it answered when it was last asked.
    pub(super) active: bool,
}

struct Row {
    node: Node,
    id: Option<String>,
    /// Whether it was last found to be of another cluster.
    foreign: bool,
    /// Whether anybody has said anything of it yet.
    heard_of: bool,
    /// When it last answered.
    answered: Option<Instant>,
    /// When it was put into the table.
    since: Instant,
    /// The later it did its last service, the greater.
    served: u64,
    /// Settles the order of nodes that did none.
    rank: u64,
    /// Failures since its last answer.
    failures: u32,
    probe_at: Instant,
}

/// See the module.
#[derive(Default)]
pub(super) struct Table {
    rows: Vec<Row>,
    keys: u64,
    services: u64,
}

impl Table {
    /// Puts a node into the table.
    pub(super) fn insert(&mut self, address: Option<SocketAddr>, peer: Peer, rank: u64, now: Instant) -> u64 {
        self.keys += 1;
        let given_up = Arc::default();
        let node = Node { key: self.keys, address, peer, given_up, active: false };
        self.rows.push(Row {
            node,
            id: None,
            foreign: false,
            heard_of: false,
            answered: None,
            since: now,
            served: 0,
            rank,
            failures: 0,
            probe_at: now,
        });
        if self.rows.len() > MOST {
            self.forget();
        }
        self.keys
    }

    pub(super) fn knows(&self, address: SocketAddr) -> bool {
        self.rows.iter().any(|row| row.node.address == Some(address))
    }

    /// The nodes in the order in which to ask them: the one that was of service last, the others that are there, those
    /// of which nothing is known, and some of those that failed.
    pub(super) fn in_order(&self) -> Vec<Node> {
        let place = |row: &&Row| {
            let class = if row.node.active {
                0
            } else if row.heard_of {
                2
            } else {
                1
            };
            (class, Reverse(row.served), row.rank)
        };
        let mut rows: Vec<&Row> = self.rows.iter().filter(|row| !row.foreign).collect();
        rows.sort_by_key(place);
        let silent = |row: &Row| row.heard_of && !row.node.active;
        let first_silent = rows.iter().position(|row| silent(row)).unwrap_or(rows.len());
        rows.truncate(first_silent + SILENT);
        rows.into_iter().map(|row| row.node.clone()).collect()
    }

    pub(super) fn any_active(&self) -> bool {
        self.rows.iter().any(|row| row.node.active)
    }

    /// A node answered; says whether that is news.
    pub(super) fn answered(&mut self, key: u64, now: Instant) -> bool {
        let Some(row) = self.row(key) else { return false };
        let news = !row.node.active;
        row.node.active = true;
        row.heard_of = true;
        row.answered = Some(now);
        row.failures = 0;
        row.probe_at = now + IDLE;
        news
    }

    /// A node did what it was asked for: it will be asked first the next time.
    pub(super) fn served(&mut self, key: u64) {
        self.services += 1;
        let services = self.services;
        if let Some(row) = self.row(key) {
            row.served = services;
        }
    }

    /// A node did not answer. Who waits for it is told, if there is another to turn to.
    pub(super) fn failed(&mut self, key: u64, now: Instant) {
        let others = self.rows.iter().any(|row| row.node.key != key && row.node.active);
        let Some(row) = self.row(key) else { return };
        row.node.active = false;
        row.heard_of = true;
        row.probe_at = now + (AGAIN * 2u32.saturating_pow(row.failures.min(10))).min(SELDOM);
        row.failures = row.failures.saturating_add(1);
        if others {
            row.node.given_up.notify_waiters();
        }
    }

    /// The node has said its name.
    pub(super) fn named(&mut self, key: u64, id: String) {
        if let Some(row) = self.row(key) {
            row.id = Some(id);
            row.foreign = false;
        }
    }

    /// The node has said that it is of another cluster: it is not asked for anything. Tells whether that is news.
    pub(super) fn foreign(&mut self, key: u64) -> bool {
        self.row(key).is_some_and(|row| !std::mem::replace(&mut row.foreign, true))
    }

    /// A db node says of another that it is there, or is not. Says whether the address ought to be in the table and is
    /// not: an active node that is in it by another address, perhaps the only one that works from here, is enough.
    pub(super) fn hearsay(&mut self, id: &str, address: SocketAddr, active: bool, now: Instant) -> bool {
        let Some(row) = self.rows.iter_mut().find(|row| row.node.address == Some(address)) else {
            return !self.rows.iter().any(|row| row.node.active && row.id.as_deref() == Some(id));
        };
        let fresh = row.answered.is_some_and(|at| now < at + HEARSAY);
        if active && !row.node.active {
            // It may be there for others and not for us.
            row.probe_at = row.probe_at.min(now + AGAIN);
        } else if !active && !fresh {
            row.node.active = false;
            row.heard_of = true;
        }
        false
    }

    /// The nodes that should be asked whether they are there. They are not named again for some time.
    pub(super) fn due(&mut self, now: Instant, most: usize) -> Vec<Node> {
        let due =
            self.rows.iter_mut().filter(|row| row.probe_at <= now || row.id.is_none() && row.node.active);
        let mut probed = Vec::new();
        for row in due.take(most) {
            row.probe_at = now + AGAIN;
            probed.push(row.node.clone());
        }
        probed
    }

    /// All nodes: where, whether they answered last time, how long ago they did. One that is known by several addresses
    /// is told once.
    pub(super) fn all(&self, now: Instant) -> Vec<(Option<String>, bool, Duration)> {
        let better = |row: &Row, than: &Row| {
            (row.node.active, row.answered, Reverse(row.node.key))
                > (than.node.active, than.answered, Reverse(than.node.key))
        };
        let twice = |row: &&Row| {
            let same = |other: &&Row| row.id.is_some() && row.id == other.id;
            !self.rows.iter().filter(same).any(|other| better(other, row))
        };
        let tell = |row: &Row| {
            let age = now.saturating_duration_since(row.answered.unwrap_or(row.since));
            (row.node.peer.address().map(Into::into), row.node.active, age)
        };
        self.rows.iter().filter(twice).map(tell).collect()
    }

    fn row(&mut self, key: u64) -> Option<&mut Row> {
        self.rows.iter_mut().find(|row| row.node.key == key)
    }

    fn forget(&mut self) {
        let last = self.rows.len() - 1;
        let oldest =
            self.rows[..last].iter().enumerate().min_by_key(|(_, row)| (row.node.active, row.answered));
        if let Some((at, _)) = oldest {
            self.rows.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;

    fn at(n: u16) -> SocketAddr {
        ([10, 0, 0, 1], n).into()
    }

    fn table(nodes: u16, now: Instant) -> (Table, Vec<u64>) {
        let mut table = Table::default();
        let put = |n| table.insert(Some(at(n)), Peer::router(Router::new()), n.into(), now);
        let keys = (0..nodes).map(put).collect();
        (table, keys)
    }

    fn order(table: &Table) -> Vec<u16> {
        table.in_order().iter().map(|node| node.address.expect("it has one").port()).collect()
    }

    #[test]
    fn who_was_of_service_last_is_asked_first_and_who_failed_last() {
        let now = Instant::now();
        let (mut table, keys) = table(4, now);
        assert_eq!(order(&table), [0, 1, 2, 3]);
        table.answered(keys[2], now);
        table.served(keys[2]);
        table.answered(keys[3], now);
        assert_eq!(order(&table), [2, 3, 0, 1]);
        table.failed(keys[2], now);
        table.failed(keys[0], now);
        assert_eq!(order(&table), [3, 1, 2, 0]);
        assert!(table.answered(keys[2], now), "it has come back");
        assert!(!table.answered(keys[2], now));
        assert_eq!(order(&table), [2, 3, 1, 0]);
    }

    #[test]
    fn nodes_of_another_cluster_are_not_asked() {
        let now = Instant::now();
        let (mut table, keys) = table(2, now);
        assert!(table.foreign(keys[0]));
        assert!(!table.foreign(keys[0]), "it is told once");
        assert_eq!(order(&table), [1]);
        table.named(keys[0], "db-a".into());
        assert_eq!(order(&table), [0, 1], "another node has its address now");
    }

    #[test]
    fn of_many_silent_nodes_some_are_tried() {
        let now = Instant::now();
        let (mut table, keys) = table(30, now);
        keys.iter().for_each(|key| table.failed(*key, now));
        assert_eq!(table.in_order().len(), SILENT);
        assert_eq!(table.all(now).len(), 30, "but all are remembered");
    }

    #[test]
    fn hearsay_counts_unless_we_know_better() {
        let now = Instant::now();
        let (mut table, keys) = table(2, now);
        table.answered(keys[0], now);
        table.named(keys[0], "db-a".into());
        assert!(!table.hearsay("db-a", at(0), false, now));
        assert!(table.all(now)[0].1, "it has just answered");
        assert!(!table.hearsay("db-a", at(0), false, now + HEARSAY));
        assert!(!table.all(now)[0].1);
        assert!(table.hearsay("db-c", at(7), true, now), "that one is not known");
        assert!(table.hearsay("db-a", at(8), true, now), "it has moved, or can be had there");
        table.answered(keys[0], now);
        assert!(!table.hearsay("db-a", at(8), true, now), "it can be had already");
    }

    #[test]
    fn silent_nodes_are_probed_ever_more_seldom() {
        let now = Instant::now();
        let (mut table, keys) = table(1, now);
        let probed = |table: &mut Table, after: u64| table.due(now + Duration::from_secs(after), 9).len();
        assert_eq!(probed(&mut table, 0), 1);
        assert_eq!(probed(&mut table, 0), 0);
        (0..20).for_each(|_| table.failed(keys[0], now));
        assert_eq!((probed(&mut table, 59), probed(&mut table, 60)), (0, 1));
        table.failed(keys[0], now + Duration::from_secs(60));
        table.hearsay("db-a", at(0), true, now + Duration::from_secs(61));
        assert_eq!(probed(&mut table, 62), 1, "others have seen it");
        table.answered(keys[0], now + Duration::from_secs(62));
        assert_eq!(probed(&mut table, 62), 1, "its name is not known");
        table.named(keys[0], "db-a".into());
        table.answered(keys[0], now + Duration::from_secs(62));
        assert_eq!((probed(&mut table, 91), probed(&mut table, 92)), (0, 1));
    }

    #[test]
    fn a_node_with_two_addresses_is_told_once_and_the_table_is_bounded() {
        let now = Instant::now();
        let (mut table, keys) = table(2, now);
        keys.iter().for_each(|key| table.named(*key, "db-a".into()));
        assert_eq!(table.all(now).len(), 1);
        table.answered(keys[1], now);
        assert!(table.all(now)[0].1);
        for n in 0..2 * MOST as u16 {
            table.insert(Some(at(100 + n)), Peer::router(Router::new()), 0, now);
        }
        assert_eq!(table.rows.len(), MOST);
        assert!(table.knows(at(1)) && !table.knows(at(0)) && table.knows(at(99 + 2 * MOST as u16)));
    }
}
