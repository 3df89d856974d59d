//! The members of an ensemble, as far as they can be had now. All are fetched at once; one that does not come in time is
//! left out, and looked for again beside the answers that follow, which do not wait for it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use dml_compute::Model;
use dml_core::Digest;
use futures_util::future::join_all;

use super::bench::{Benches, Member};
use crate::{
    api::evidence::Family,
    trace::Trace,
    view::{MemberError, Step},
    worker::Worker,
};

/// How long the bytes of a member may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a member is left out before it is looked for again.
const AGAIN: Duration = Duration::from_secs(5);

/// How many lost members are remembered.
const LOST: usize = 10_000;

/// What a worker knows of ensembles.
#[derive(Default)]
pub(crate) struct Ensembles {
    /// Models that did not come: when they were looked for last, and why they did not.
    lost: Mutex<BTreeMap<Digest, (Instant, String)>>,
    pub(super) benches: Benches,
}

impl Ensembles {
    fn lost(&self) -> MutexGuard<'_, BTreeMap<Digest, (Instant, String)>> {
        self.lost.lock().expect("nobody panics while holding it")
    }

    fn is_lost(&self, digest: Digest, why: &str) {
        let mut lost = self.lost();
        if lost.len() >= LOST {
            lost.clear();
        }
        lost.insert(digest, (Instant::now(), why.into()));
    }
}

/// The members that are at hand, and why the others are not.
pub(super) async fn gather(worker: &Worker, family: &Family) -> (Vec<Member>, Vec<MemberError>) {
    let spec = &family.training.spec;
    let each = spec.model_names().into_iter().zip(family.statuses()).enumerate();
    let loaded = each.map(async |(place, (name, status))| {
        let failed = |step, why| MemberError { member: Some(name.clone()), step, why };
        let Some(digest) = status.model else {
            let why = status.error.unwrap_or_else(|| "it is not fitted yet".into());
            return Err(failed(Step::Fit, why));
        };
        let model = load(worker, digest).await.map_err(|why| failed(Step::Load, why))?;
        Ok(Member { place, id: spec.model_id(family.id, place), name: name.clone(), model })
    });
    let (mut members, mut errors) = (Vec::new(), Vec::new());
    for loaded in join_all(loaded).await {
        match loaded {
            Ok(member) => members.push(member),
            Err(error) => errors.push(error),
        }
    }
    (members, errors)
}

async fn load(worker: &Worker, digest: Digest) -> Result<Arc<Model>, String> {
    if let Some(model) = worker.shared.recent.model(&digest) {
        return Ok(model);
    }
    let ensembles = &worker.shared.ensembles;
    let lost = ensembles.lost().get(&digest).cloned();
    let Some((since, why)) = lost else { return fetch(worker, digest).await };
    if since.elapsed() >= AGAIN {
        ensembles.is_lost(digest, &why);
        let worker = worker.clone();
        let looking = async move { fetch(&worker, digest).await.map(drop) };
        tokio::spawn(Trace::new().during(looking));
    }
    Err(why)
}

async fn fetch(worker: &Worker, digest: Digest) -> Result<Arc<Model>, String> {
    let ensembles = &worker.shared.ensembles;
    let fetched = worker.shared.blob_within(digest, PATIENCE).await;
    let fetched = fetched.map_err(|error| error.to_string()).and_then(|bytes| {
        let model = Model::from_bytes(&bytes).map_err(|error| error.to_string())?;
        Ok((Arc::new(model), bytes.len()))
    });
    match fetched {
        Ok((model, bytes)) => {
            ensembles.lost().remove(&digest);
            worker.shared.recent.keep(digest, &model, bytes);
            Ok(model)
        }
        Err(why) => {
            tracing::warn!(model = %digest, why, "a member of an ensemble cannot be had: the others answer");
            ensembles.is_lost(digest, &why);
            Err(why)
        }
    }
}
