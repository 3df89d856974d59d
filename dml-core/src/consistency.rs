//! Telling whether two nodes hold the same without sending it: digests of families, and of all families whose ids begin
//! with the same byte. Sums of digests (by XOR) need no order and are mended in place.

use alloc::{collections::BTreeMap, vec::Vec};

use crate::{
    id::{Digest, Digester},
    record::Record,
};

/// By the first byte of the ids, the digest of all families; parts with nothing in them are left out.
pub type Summary = Vec<(u8, Digest)>;

/// The digest of a family: of all its records, in whatever order.
pub fn family<'a>(records: impl IntoIterator<Item = (Digest, &'a Record)>) -> Digest {
    sum(records.into_iter().map(|(id, record)| {
        let mut digester = Digester::default();
        digester.update(id.as_bytes());
        digester.update(&record.to_bytes());
        digester.finish()
    }))
}

/// The digests of families in sums that are mended in place: a family that comes or goes costs the same however many
/// there are.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sums(BTreeMap<u8, (u64, Digest)>);

impl Sums {
    /// A family with its digest is among them now.
    pub fn insert(&mut self, root: &Digest, digest: &Digest) {
        let (count, total) = self.0.entry(part(root)).or_insert((0, Digest::from_bytes([0; 32])));
        (*count, *total) = (*count + 1, sum([*total, named(root, digest)]));
    }

    /// It is not any more. It must have been, with that digest.
    pub fn remove(&mut self, root: &Digest, digest: &Digest) {
        let Some((count, total)) = self.0.get_mut(&part(root)) else { return };
        (*count, *total) = (*count - 1, sum([*total, named(root, digest)]));
        if *count == 0 {
            self.0.remove(&part(root));
        }
    }

    /// What is to be told of them.
    pub fn summary(&self) -> Summary {
        self.0.iter().map(|(part, (_, total))| (*part, *total)).collect()
    }
}

fn named(root: &Digest, digest: &Digest) -> Digest {
    let mut digester = Digester::default();
    digester.update(root.as_bytes());
    digester.update(digest.as_bytes());
    digester.finish()
}

/// The part of the summary that a family is in.
pub fn part(root: &Digest) -> u8 {
    root.as_bytes()[0]
}

/// The parts in which two summaries differ.
pub fn differing(mine: &Summary, theirs: &Summary) -> Vec<u8> {
    let (mine, theirs): (BTreeMap<_, _>, BTreeMap<_, _>) =
        (mine.iter().copied().collect(), theirs.iter().copied().collect());
    (0..=u8::MAX).filter(|part| mine.get(part) != theirs.get(part)).collect()
}

fn sum(digests: impl IntoIterator<Item = Digest>) -> Digest {
    let mut total = [0; 32];
    for digest in digests {
        total.iter_mut().zip(digest.as_bytes()).for_each(|(sum, byte)| *sum ^= byte);
    }
    Digest::from_bytes(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{dataset::Dataset, record::Body};
    use proptest::prelude::*;

    fn id(n: u16) -> Digest {
        Digest::of(&n.to_le_bytes())
    }

    proptest! {
        #[test]
        fn exactly_the_parts_that_differ_are_named(
            common in proptest::collection::btree_map(0u16..500, 0u16..9, 0..40),
            mine in proptest::collection::btree_map(0u16..500, 9u16..12, 0..6),
            theirs in proptest::collection::btree_map(0u16..500, 12u16..15, 0..6),
        ) {
            let with = |own: &BTreeMap<u16, u16>| {
                let mut all = common.clone();
                all.extend(own);
                all
            };
            let sums = |all: &BTreeMap<u16, u16>| {
                let mut sums = Sums::default();
                all.iter().rev().for_each(|(root, value)| sums.insert(&id(*root), &id(*value)));
                sums
            };
            let summed = |all: &BTreeMap<u16, u16>| sums(all).summary();
            // What comes and goes leaves no trace.
            let mut mended = sums(&with(&mine));
            mine.iter().for_each(|(root, value)| mended.remove(&id(*root), &id(*value)));
            for (root, value) in common.iter().filter(|(root, _)| mine.contains_key(root)) {
                mended.insert(&id(*root), &id(*value));
            }
            prop_assert_eq!(mended, sums(&common));
            let different = mine.keys().chain(theirs.keys()).map(|root| part(&id(*root)));
            let parts: alloc::collections::BTreeSet<u8> = different.collect();
            prop_assert_eq!(differing(&summed(&with(&mine)), &summed(&with(&theirs))), parts.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_family_is_told_by_all_that_is_in_it() {
        let record =
            |rows| Record::new(Body::Dataset(Dataset { rows, columns: Vec::new(), chunks: Vec::new() }));
        let (a, b) = (record(1), record(2));
        let both = family([(id(1), &a), (id(2), &b)]);
        assert_eq!(both, family([(id(2), &b), (id(1), &a)]));
        for other in
            [family([(id(1), &a)]), family([(id(1), &b), (id(2), &a)]), family([(id(3), &a), (id(2), &b)])]
        {
            assert_ne!(both, other);
        }
    }
}
