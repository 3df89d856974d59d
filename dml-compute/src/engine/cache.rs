//! What an engine keeps within a budget of memory: preparations, encoded chunks, and what learners make of a table, as
//! the units of an iterative fit read the same ones round after round. Each is named by what it is a function of, so
//! keeping it changes no result.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use dml_core::Digest;

use super::rows::Prepared;
use crate::{
    error::WorkError,
    learner::{Block, Kept as Made},
};

/// Values by name, in so many bytes. What was not asked for the longest goes first when the budget is spent; but a chunk
/// never drives out another of its table: as they are read in turn, the one that has waited longest comes next.
pub(super) struct Cache {
    budget: usize,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    items: BTreeMap<Digest, Entry>,
    order: VecDeque<Digest>,
    bytes: usize,
}

struct Entry {
    bytes: usize,
    item: Item,
    /// What the chunk is one of.
    table: Option<Digest>,
}

#[derive(Clone)]
pub(super) enum Item {
    Block(Arc<Block>),
    Prepared(Arc<Prepared>),
    Kept(Made),
}

impl Cache {
    pub(super) fn new(budget: usize) -> Self {
        Self { budget, kept: Mutex::default() }
    }

    /// The preparation of that name, made if it is not there.
    pub(super) fn prepared(
        &self,
        name: Digest,
        make: impl Fn() -> Result<Prepared, WorkError>,
    ) -> Result<Arc<Prepared>, WorkError> {
        let item = || make().map(|prepared| (prepared.bytes(), Item::Prepared(Arc::new(prepared))));
        match self.get(name.child("prepared"), None, item)? {
            Item::Prepared(prepared) => Ok(prepared),
            Item::Block(_) | Item::Kept(_) => make().map(Arc::new),
        }
    }

    /// Two threads that miss the same thing at the same time both make it: it is the same.
    pub(super) fn get(
        &self,
        name: Digest,
        table: Option<Digest>,
        make: impl FnOnce() -> Result<(usize, Item), WorkError>,
    ) -> Result<Item, WorkError> {
        if let Some(item) = self.find(name) {
            return Ok(item);
        }
        let (bytes, item) = make()?;
        self.kept().put(name, Entry { bytes, item: item.clone(), table }, self.budget);
        Ok(item)
    }

    /// What is there under that name.
    pub(super) fn find(&self, name: Digest) -> Option<Item> {
        self.kept().find(name)
    }

    /// Takes a value in if it fits the budget; under a name that is taken, it replaces what is there.
    pub(super) fn put(&self, name: Digest, bytes: usize, item: Item) {
        self.kept().put(name, Entry { bytes, item, table: None }, self.budget);
    }

    /// Drops what is there under that name.
    pub(super) fn remove(&self, name: Digest) {
        self.kept().remove(name);
    }

    /// Each change leaves the value whole, so a panic of another thread does it no harm.
    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn find(&mut self, name: Digest) -> Option<Item> {
        let item = self.items.get(&name)?.item.clone();
        self.order.retain(|other| *other != name);
        self.order.push_back(name);
        Some(item)
    }

    fn put(&mut self, name: Digest, entry: Entry, budget: usize) {
        self.remove(name);
        let mut free = budget.saturating_sub(self.bytes);
        let mut given_up = Vec::new();
        for other in &self.order {
            if free >= entry.bytes {
                break;
            }
            let old = &self.items[other];
            if entry.table.is_none() || old.table != entry.table {
                free += old.bytes;
                given_up.push(*other);
            }
        }
        if free < entry.bytes {
            return;
        }
        given_up.into_iter().for_each(|other| self.remove(other));
        self.bytes += entry.bytes;
        self.order.push_back(name);
        self.items.insert(name, entry);
    }

    fn remove(&mut self, name: Digest) {
        if let Some(entry) = self.items.remove(&name) {
            self.bytes -= entry.bytes;
            self.order.retain(|other| *other != name);
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array1;

    use super::{super::rows::bytes_of, *};

    fn block(rows: u64) -> (usize, Item) {
        let y = Array1::zeros(rows as usize);
        let block = Block { x: ndarray::Array2::zeros((rows as usize, 1)), y, rows: (0..rows).collect() };
        (bytes_of(&block), Item::Block(Arc::new(block)))
    }

    #[test]
    fn what_is_asked_for_stays() {
        let cache = Cache::new(3 * block(10).0);
        let name = |i: u32| Digest::of(&i.to_le_bytes());
        let put = |i| cache.put(name(i), block(10).0, block(10).1);
        (0..3).for_each(put);
        assert!(cache.find(name(0)).is_some());
        put(3);
        let there = (0..4).filter(|i| cache.kept().items.contains_key(&name(*i))).collect::<Vec<_>>();
        assert_eq!(there, [0, 2, 3]);
        put(3);
        assert_eq!(cache.kept().bytes, 3 * block(10).0, "a name is counted once");
        (0..4).for_each(|i| cache.remove(name(i)));
        assert!(cache.kept().bytes == 0 && cache.kept().order.is_empty());
    }

    #[test]
    fn the_cache_keeps_to_its_budget_and_forgets_the_oldest() {
        let cache = Cache::new(3 * block(10).0);
        let name = |i: u32| Digest::of(&i.to_le_bytes());
        for i in 0..10 {
            cache.get(name(i), None, || Ok(block(10))).unwrap();
            assert!(cache.kept().bytes <= cache.budget);
        }
        let there = (0..10).filter(|i| cache.kept().items.contains_key(&name(*i))).collect::<Vec<_>>();
        assert_eq!(there, [7, 8, 9]);
        cache.get(name(9), None, || panic!("it is there")).unwrap();
        cache.get(name(10), None, || Ok(block(1000))).unwrap();
        assert!(!cache.kept().items.contains_key(&name(10)), "what exceeds the budget alone is not kept");
    }

    #[test]
    fn chunks_of_a_great_table_stay_from_round_to_round() {
        let cache = Cache::new(3 * block(10).0);
        let name = |i: u32| Digest::of(&i.to_le_bytes());
        let mut made = Vec::new();
        for _ in 0..2 {
            for i in 0..5 {
                let make = || {
                    made.push(i);
                    Ok(block(10))
                };
                cache.get(name(i), Some(name(100)), make).unwrap();
            }
        }
        assert_eq!(made, [0, 1, 2, 3, 4, 3, 4]);
        cache.get(name(7), Some(name(101)), || Ok(block(20))).unwrap();
        let there = (0..9).filter(|i| cache.kept().items.contains_key(&name(*i))).collect::<Vec<_>>();
        assert_eq!(there, [2, 7], "another table has another turn");
    }
}
