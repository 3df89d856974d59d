//! What is to be written down. A job with many units is not written whole each time that one of them is done: the
//! units are patches, small records of their own that merge with the job's when the node starts, until it is written
//! whole again.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use super::catalogue::Catalogue;
use crate::{
    id::Digest,
    merge::Merge,
    record::{Body, Record},
};

/// Records to write, and none where one is to go.
pub(super) type Writes = Vec<(Digest, Option<Record>)>;

/// See the module.
#[derive(Default)]
pub(super) struct Journal {
    /// To be written whole.
    whole: BTreeSet<Digest>,
    /// Units that were done.
    units: BTreeMap<Digest, Record>,
    /// The keys of the patches on the disk, by job.
    patches: BTreeMap<Digest, BTreeSet<Digest>>,
}

/// A job with fewer units in a round is written whole each time.
const MANY: u32 = 16;

impl Journal {
    /// Puts what was written down into the catalogue.
    pub(super) fn read(
        &mut self,
        catalogue: &mut Catalogue,
        records: impl IntoIterator<Item = (Digest, Record)>,
    ) {
        let mut patches = Vec::new();
        for (key, record) in records {
            match record.body.as_ref().map(Body::id) {
                Some(id) if id != key => patches.push((key, id, record)),
                Some(_) | None => catalogue.put(key, record),
            }
        }
        for (key, id, record) in patches {
            catalogue.change(id, |job| {
                job.merge(record);
            });
            self.patches.entry(id).or_default().insert(key);
        }
    }

    /// A record has changed, or is to go.
    pub(super) fn mark(&mut self, id: Digest) {
        self.whole.insert(id);
        self.units.remove(&id);
    }

    /// Nothing has changed in a job but that these units of its round are done.
    pub(super) fn mark_units(&mut self, id: Digest, units: &Record) {
        let is_long = matches!(&units.body, Some(Body::Job(job)) if job.spec.plan.units >= MANY);
        if !is_long {
            self.mark(id);
        } else if !self.whole.contains(&id) {
            Merge::merge(&mut self.units, [(id, units.clone())].into());
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.whole.is_empty() && self.units.is_empty()
    }

    /// The records that have changed.
    pub(super) fn changed(&self) -> impl Iterator<Item = Digest> {
        self.whole.iter().chain(self.units.keys()).copied()
    }

    /// What is to be written now.
    pub(super) fn take(&mut self, catalogue: &Catalogue) -> Writes {
        let mut writes = Writes::new();
        for id in core::mem::take(&mut self.whole) {
            let patches = self.patches.remove(&id).into_iter().flatten();
            writes.extend(patches.map(|key| (key, None)));
            writes.push((id, catalogue.get(&id).cloned()));
        }
        for (id, units) in core::mem::take(&mut self.units) {
            let key = id.child(&name(&units));
            self.patches.entry(id).or_default().insert(key);
            writes.push((key, Some(units)));
        }
        writes
    }
}

/// What a patch is called: by all that is in it, so that another one does not take its place.
fn name(units: &Record) -> alloc::string::String {
    alloc::format!("units {}", Digest::of_value(units))
}
