//! State only grows: every shared value has a merge that is commutative, associative and idempotent (a join of a
//! semilattice; Shapiro et al. 2011, "Conflict-free replicated data types").

use alloc::collections::{BTreeMap, BTreeSet, btree_map::Entry};

/// A value of which several copies may be changed apart and brought together again.
pub trait Merge {
    /// Takes over what the other copy knows. Says whether anything was learned.
    fn merge(&mut self, other: Self) -> bool;
}

/// Keys unite; values under the same key merge.
impl<K: Ord, V: Merge> Merge for BTreeMap<K, V> {
    fn merge(&mut self, other: Self) -> bool {
        let mut learned = false;
        for (key, value) in other {
            learned |= match self.entry(key) {
                Entry::Vacant(place) => {
                    place.insert(value);
                    true
                }
                Entry::Occupied(mut place) => place.get_mut().merge(value),
            };
        }
        learned
    }
}

/// Elements unite.
impl<T: Ord> Merge for BTreeSet<T> {
    fn merge(&mut self, other: Self) -> bool {
        let before = self.len();
        self.extend(other);
        self.len() > before
    }
}

/// Something wins over nothing.
impl<T: Merge> Merge for Option<T> {
    fn merge(&mut self, other: Self) -> bool {
        match (self, other) {
            (_, None) => false,
            (Some(mine), Some(theirs)) => mine.merge(theirs),
            (mine @ None, theirs @ Some(_)) => {
                *mine = theirs;
                true
            }
        }
    }
}

/// The greater of two values.
pub fn greatest<T: PartialOrd>(mine: &mut T, theirs: T) -> bool {
    let learned = theirs > *mine;
    if learned {
        *mine = theirs;
    }
    learned
}

/// The lesser of two values.
pub fn least<T: PartialOrd>(mine: &mut T, theirs: T) -> bool {
    let learned = theirs < *mine;
    if learned {
        *mine = theirs;
    }
    learned
}
