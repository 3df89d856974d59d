//! The routing table: which node holds which datum. Each node is the only writer of its own row, so rows never conflict.
//! A row is a stream of changes of which only the latest of each datum is kept (as in CouchDB's changes feed): whoever
//! has it up to a version is given what came later, and whoever has nothing is given the stream from its beginning.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use serde::{Deserialize, Serialize};

use crate::{
    id::Digest,
    member::NodeId,
    planted::{self, Bug},
};

/// How far a row has come. A node that starts again begins a new row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version {
    /// The life of the node that writes the row.
    pub generation: u32,
    /// The number of the last change.
    pub change: u64,
}

/// What a node has of a datum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Held {
    /// The datum.
    Alive,
    /// The note that it was deleted.
    Dead,
    /// Nothing any more.
    Gone,
}

/// One change of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Of this datum.
    pub datum: Digest,
    /// What the node has of it now.
    pub held: Held,
}

/// The row that this node writes.
#[derive(Debug)]
pub struct OwnRow {
    generation: u32,
    last: u64,
    held: BTreeMap<Digest, (Held, u64)>,
    changes: BTreeMap<u64, Digest>,
    /// Numbers of the changes by which something went.
    gone: BTreeSet<u64>,
    /// Readers that have come less far than this have missed that something went, and start anew.
    floor: u64,
}

/// How many data that went are remembered for readers who lag behind.
const MAX_GONE: usize = 65_536;

impl OwnRow {
    /// The row of a node in this life.
    pub fn new(generation: u32) -> Self {
        let (held, changes, gone) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        Self { generation, last: 0, held, changes, gone, floor: 0 }
    }

    /// How far the row has come.
    pub fn version(&self) -> Version {
        Version { generation: self.generation, change: self.last }
    }

    /// Notes what is held of a datum now. Says whether that is new.
    pub fn set(&mut self, datum: Digest, held: Held) -> bool {
        match self.held.get(&datum) {
            Some((before, _)) if *before == held => return false,
            None if held == Held::Gone => return false,
            Some((_, change)) => {
                self.changes.remove(change);
                self.gone.remove(change);
            }
            None => {}
        }
        self.last += 1;
        self.changes.insert(self.last, datum);
        self.held.insert(datum, (held, self.last));
        if held == Held::Gone {
            self.gone.insert(self.last);
            self.forget();
        }
        true
    }

    fn forget(&mut self) {
        while self.gone.len() > MAX_GONE
            && let Some(oldest) = self.gone.pop_first()
        {
            self.floor = oldest;
            if let Some(datum) = self.changes.remove(&oldest) {
                self.held.remove(&datum);
            }
        }
    }

    /// At most `limit` changes that come after `since`, the version to which they lead, and that from which they do:
    /// none if the reader has to start anew.
    pub fn since(&self, since: Option<Version>, limit: usize) -> (Option<Version>, Vec<Change>, Version) {
        let known = since.filter(|v| {
            (v.generation == self.generation || planted::is(Bug::RowWithoutGeneration))
                && v.change >= self.floor
                && v.change <= self.last
        });
        let from = known.map_or(0, |version| version.change);
        let page = self.changes.range(from + 1..).take(limit.max(1));
        let mut last = self.last;
        let mut changes = Vec::new();
        for (number, datum) in page {
            changes.push(Change { datum: *datum, held: self.held[datum].0 });
            last = *number;
        }
        if changes.len() < limit.max(1) {
            last = self.last;
        }
        (known, changes, Version { generation: self.generation, change: last })
    }
}

/// What became of changes that arrived.
#[derive(Debug, PartialEq, Eq)]
pub enum Applied {
    /// They were news about these data.
    News(Vec<Digest>),
    /// All of it was known.
    Old,
    /// Something before them is missing: what is known leads to this version.
    Gap(Option<Version>),
}

/// All rows, the own one included.
#[derive(Debug, Default)]
pub struct Routing {
    rows: BTreeMap<NodeId, Row>,
    holders: BTreeMap<Digest, Vec<(NodeId, Held)>>,
}

#[derive(Debug, Default)]
struct Row {
    version: Option<Version>,
    count: u64,
}

impl Routing {
    /// Who holds a datum, whether active or not, and what of it.
    pub fn holders(&self, datum: &Digest) -> &[(NodeId, Held)] {
        self.holders.get(datum).map_or(&[], Vec::as_slice)
    }

    /// What a node holds of a datum.
    pub fn held(&self, node: NodeId, datum: &Digest) -> Option<Held> {
        self.holders(datum).iter().find(|(holder, _)| *holder == node).map(|(_, held)| *held)
    }

    /// All data that any node holds.
    pub fn data(&self) -> impl Iterator<Item = &Digest> {
        self.holders.keys()
    }

    /// How many data a node holds.
    pub fn load(&self, node: NodeId) -> u64 {
        self.rows.get(&node).map_or(0, |row| row.count)
    }

    /// How far the row of a node is known.
    pub fn version(&self, node: NodeId) -> Option<Version> {
        self.rows.get(&node)?.version
    }

    /// Takes over a change of the own row.
    pub fn set(&mut self, node: NodeId, change: Change) {
        let holders = self.holders.entry(change.datum).or_default();
        let row = self.rows.entry(node).or_default();
        let known = holders.iter_mut().find(|(holder, _)| *holder == node);
        match (known, change.held) {
            (Some(_), Held::Gone) => {
                holders.retain(|(holder, _)| *holder != node);
                row.count -= 1;
            }
            (Some((_, held)), _) => *held = change.held,
            (None, Held::Gone) => {}
            (None, _) => {
                holders.push((node, change.held));
                row.count += 1;
            }
        }
        if holders.is_empty() {
            self.holders.remove(&change.datum);
        }
    }

    /// Takes over changes of another node's row, which lead from `since` to `version`.
    pub fn apply(
        &mut self,
        node: NodeId,
        since: Option<Version>,
        changes: &[Change],
        version: Version,
    ) -> Applied {
        let ageless = |known: Version| Version { generation: version.generation, ..known };
        let known = self
            .version(node)
            .map(|known| if planted::is(Bug::RowWithoutGeneration) { ageless(known) } else { known });
        // Also a row from its beginning may be late.
        if known >= Some(version) {
            return Applied::Old;
        }
        let mut news = match since {
            // It starts anew: only what is in it is held.
            None => self.forget(node),
            Some(since)
                if known >= Some(since) && known.is_some_and(|k| k.generation == since.generation) =>
            {
                Vec::new()
            }
            Some(_) => return Applied::Gap(known),
        };
        for change in changes {
            self.set(node, *change);
            news.push(change.datum);
        }
        self.rows.entry(node).or_default().version = Some(version);
        Applied::News(news)
    }

    /// Forgets the row of a node. Gives what it held.
    pub fn forget(&mut self, node: NodeId) -> Vec<Digest> {
        self.rows.remove(&node);
        let held =
            self.holders.iter().filter(|(_, holders)| holders.iter().any(|(holder, _)| *holder == node));
        let held: Vec<Digest> = held.map(|(datum, _)| *datum).collect();
        for datum in &held {
            if let Some(holders) = self.holders.get_mut(datum) {
                holders.retain(|(holder, _)| *holder != node);
                if holders.is_empty() {
                    self.holders.remove(datum);
                }
            }
        }
        held
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(n: u8) -> Digest {
        Digest::of(&[n])
    }

    fn held() -> impl Strategy<Value = Held> {
        prop_oneof![Just(Held::Alive), Just(Held::Dead), Just(Held::Gone)]
    }

    const NODE: NodeId = NodeId::new(7);

    fn known(routing: &Routing) -> BTreeMap<Digest, Held> {
        routing.data().map(|datum| (*datum, routing.held(NODE, datum).expect("somebody holds it"))).collect()
    }

    proptest! {
        /// A reader that is told anything, in pages of any size, with letters lost, repeated and reordered, ends with what
        /// the writer has, as soon as it is told what it asks for.
        #[test]
        fn readers_catch_up(
            changes in proptest::collection::vec((0u8..6, held()), 0..40),
            pages in proptest::collection::vec((0usize..3, 1usize..4, 0usize..5), 0..30),
        ) {
            let (mut row, mut truth, mut reader) = (OwnRow::new(1), Routing::default(), Routing::default());
            let mut sent = Vec::new();
            let mut steps = changes.into_iter();
            for (count, limit, letter) in pages {
                for (n, held) in steps.by_ref().take(count) {
                    row.set(id(n), held);
                    truth.set(NODE, Change { datum: id(n), held });
                }
                let reads_from = if letter == 0 { None } else { reader.version(NODE) };
                sent.push(row.since(reads_from, limit));
                let (since, changes, version) = &sent[letter % sent.len()];
                reader.apply(NODE, *since, changes, *version);
            }
            for (n, held) in steps {
                row.set(id(n), held);
                truth.set(NODE, Change { datum: id(n), held });
            }
            while reader.version(NODE) != Some(row.version()) {
                let (since, changes, version) = row.since(reader.version(NODE), 2);
                prop_assert_ne!(reader.apply(NODE, since, &changes, version), Applied::Old);
            }
            prop_assert_eq!(known(&reader), known(&truth));
            prop_assert_eq!(reader.load(NODE), known(&truth).len() as u64);
        }
    }

    #[test]
    fn a_gap_is_noticed_and_a_new_life_starts_anew() {
        let mut row = OwnRow::new(1);
        [1, 2, 3].into_iter().for_each(|n| assert!(row.set(id(n), Held::Alive)));
        assert!(!row.set(id(3), Held::Alive));
        let mut reader = Routing::default();
        let first = Version { generation: 1, change: 1 };
        let (since, changes, version) = row.since(Some(first), 9);
        assert_eq!(reader.apply(NODE, since, &changes, version), Applied::Gap(None));
        let (since, changes, version) = row.since(None, 9);
        assert_eq!(
            reader.apply(NODE, since, &changes, version),
            Applied::News(changes.iter().map(|c| c.datum).collect())
        );
        let mut again = OwnRow::new(2);
        again.set(id(9), Held::Alive);
        let (since, changes, version) = again.since(reader.version(NODE), 9);
        assert_eq!(since, None);
        reader.apply(NODE, since, &changes, version);
        assert_eq!(known(&reader), [(id(9), Held::Alive)].into());
        let (since, changes, version) = row.since(None, 9);
        assert_eq!(reader.apply(NODE, since, &changes, version), Applied::Old, "an earlier life is over");
    }

    #[test]
    fn what_went_is_forgotten_in_the_end_and_readers_who_missed_it_start_anew() {
        let mut row = OwnRow::new(1);
        row.set(id(0), Held::Alive);
        let early = row.version();
        for n in 0..=MAX_GONE as u32 {
            let datum = Digest::of(&n.to_le_bytes());
            row.set(datum, Held::Alive);
            row.set(datum, Held::Gone);
        }
        assert!(row.held.len() <= MAX_GONE + 1);
        assert_eq!(row.since(Some(early), 9).0, None);
        assert_eq!(row.since(Some(row.version()), 9), (Some(row.version()), Vec::new(), row.version()));
    }
}
