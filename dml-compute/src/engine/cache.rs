//! What an engine keeps within a budget of memory: preparations and encoded chunks, as the units of an iterative fit read
//! the same ones round after round. Each is named by what it is a function of, so keeping it changes no result.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use dml_core::Digest;

use super::rows::Prepared;
use crate::{error::WorkError, learner::Block};

/// Values by name, in so many bytes. The oldest goes first when the budget is spent.
pub(super) struct Cache {
    budget: usize,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    items: BTreeMap<Digest, (usize, Item)>,
    order: VecDeque<Digest>,
    bytes: usize,
}

#[derive(Clone)]
pub(super) enum Item {
    Block(Arc<Block>),
    Prepared(Arc<Prepared>),
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
        match self.get(name.child("prepared"), item)? {
            Item::Prepared(prepared) => Ok(prepared),
            Item::Block(_) => make().map(Arc::new),
        }
    }

    /// Two threads that miss the same thing at the same time both make it: it is the same.
    pub(super) fn get(
        &self,
        name: Digest,
        make: impl FnOnce() -> Result<(usize, Item), WorkError>,
    ) -> Result<Item, WorkError> {
        if let Some((_, item)) = self.kept().items.get(&name) {
            return Ok(item.clone());
        }
        let (bytes, item) = make()?;
        self.kept().put(name, bytes, item.clone(), self.budget);
        Ok(item)
    }

    /// Each change leaves the value whole, so a panic of another thread does it no harm.
    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn put(&mut self, name: Digest, bytes: usize, item: Item, budget: usize) {
        if bytes > budget || self.items.contains_key(&name) {
            return;
        }
        while self.bytes + bytes > budget {
            let Some(oldest) = self.order.pop_front() else { break };
            if let Some((freed, _)) = self.items.remove(&oldest) {
                self.bytes -= freed;
            }
        }
        self.bytes += bytes;
        self.order.push_back(name);
        self.items.insert(name, (bytes, item));
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
    fn the_cache_keeps_to_its_budget_and_forgets_the_oldest() {
        let cache = Cache::new(3 * block(10).0);
        let name = |i: u32| Digest::of(&i.to_le_bytes());
        for i in 0..10 {
            cache.get(name(i), || Ok(block(10))).unwrap();
            assert!(cache.kept().bytes <= cache.budget);
        }
        let there = (0..10).filter(|i| cache.kept().items.contains_key(&name(*i))).collect::<Vec<_>>();
        assert_eq!(there, [7, 8, 9]);
        cache.get(name(9), || panic!("it is there")).unwrap();
        cache.get(name(10), || Ok(block(1000))).unwrap();
        assert!(!cache.kept().items.contains_key(&name(10)), "what exceeds the budget alone is not kept");
    }
}
