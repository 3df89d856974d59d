//! How good some members of an ensemble are together. What each member says of the held-out rows is found out once and
//! kept, so that the quality of another subset, when a member is lost or comes back, costs a sum.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use dml_compute::{
    Model, Scores, WorkError,
    engine::{HeldOut, Judged},
};
use dml_core::{Digest, TrainingSpec};

use crate::{
    trace::carry,
    worker::{BlockingInputs, Worker},
};

/// How many numbers are kept of an ensemble: rows times members times classes.
const NUMBERS: usize = 1 << 20;

/// The most and the fewest rows that are looked at.
const MOST_ROWS: usize = 20_000;
const FEWEST_ROWS: usize = 200;

/// How long an answer waits for the quality; finding it out goes on without it.
const PATIENCE: Duration = Duration::from_secs(5);

/// How soon it is tried again after a failure.
const AGAIN: Duration = Duration::from_secs(5);

/// How many subsets of an ensemble are kept in mind.
const SUBSETS: usize = 1000;

/// How many ensembles are.
const ENSEMBLES: usize = 8;

/// A member that is at hand: its place in the training, its name there, its model.
#[derive(Clone)]
pub(super) struct Member {
    pub(super) place: usize,
    pub(super) id: Digest,
    pub(super) name: String,
    pub(super) model: Arc<Model>,
}

/// What is known of one ensemble.
#[derive(Default)]
pub(super) struct Bench {
    known: Mutex<Known>,
    /// Whose turn it is to find something out.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Known {
    rows: Option<Arc<HeldOut>>,
    scores: BTreeMap<usize, Arc<Scores>>,
    judged: BTreeMap<Vec<usize>, Arc<Judged>>,
    failed: Option<(Instant, String)>,
}

/// The benches of the ensembles that were asked of late.
#[derive(Default)]
pub(super) struct Benches(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    uses: u64,
    /// Each with its last use.
    benches: BTreeMap<Digest, (u64, Arc<Bench>)>,
}

impl Benches {
    /// The bench of a training.
    pub(super) fn of(&self, training: Digest) -> Arc<Bench> {
        let mut kept = self.0.lock().expect("nobody panics while holding it");
        let Kept { uses, benches } = &mut *kept;
        *uses += 1;
        let (used, bench) = benches.entry(training).or_default();
        *used = *uses;
        let bench = bench.clone();
        if benches.len() > ENSEMBLES
            && let Some(oldest) = benches.iter().min_by_key(|(_, (used, _))| *used).map(|(id, _)| *id)
        {
            benches.remove(&oldest);
        }
        bench
    }
}

impl Bench {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("nobody panics while holding it")
    }

    /// How good these members are together, or why that is not known now.
    pub(super) async fn judge(
        self: Arc<Self>,
        worker: &Worker,
        spec: &TrainingSpec,
        members: &[Member],
    ) -> Result<Arc<Judged>, String> {
        let places: Vec<usize> = members.iter().map(|member| member.place).collect();
        let failed_before = match self.told(&places) {
            Some(Err(why)) => return Err(why),
            Some(Ok(judged)) => return Ok(judged),
            None => self.known().failed.is_some(),
        };
        let (worker, spec, members) = (worker.clone(), spec.clone(), members.to_vec());
        let dataset = spec.problem.dataset;
        let finding = tokio::spawn(async move {
            let _turn = self.turn.lock().await;
            if let Some(told) = self.told(&places) {
                return told;
            }
            let (inputs, bench) = (BlockingInputs::new(worker.shared.clone()), self.clone());
            let find = move || bench.find_out(&worker, &spec, &members, &inputs);
            let found = tokio::task::spawn_blocking(carry(find)).await;
            let found = found.map_err(|error| error.to_string()).and_then(|found| {
                found.map_err(|error| format!("the held-out rows cannot be judged: {error}"))
            });
            let mut known = self.known();
            match &found {
                Ok(judged) => {
                    if known.judged.len() >= SUBSETS {
                        known.judged.clear();
                    }
                    known.judged.insert(places, judged.clone());
                    known.failed = None;
                }
                Err(why) => {
                    tracing::warn!(dataset = %dataset, why, "the quality of an ensemble cannot be measured");
                    known.failed = Some((Instant::now(), why.clone()));
                }
            }
            found
        });
        // What failed a while ago is tried again beside the answers, which need not wait for it.
        let patience = if failed_before { Duration::ZERO } else { PATIENCE };
        match tokio::time::timeout(patience, finding).await {
            Ok(found) => found.map_err(|error| error.to_string())?,
            Err(_) => Err("the quality is still being measured: ask again in a moment".into()),
        }
    }

    /// What is known of a subset, if anything: how good it is, or why that could not be found out a moment ago.
    fn told(&self, places: &[usize]) -> Option<Result<Arc<Judged>, String>> {
        let known = self.known();
        if let Some(judged) = known.judged.get(places) {
            return Some(Ok(judged.clone()));
        }
        let failed = known.failed.as_ref().filter(|(at, _)| at.elapsed() < AGAIN);
        failed.map(|(_, why)| Err(why.clone()))
    }

    fn find_out(
        &self,
        worker: &Worker,
        spec: &TrainingSpec,
        members: &[Member],
        inputs: &BlockingInputs,
    ) -> Result<Arc<Judged>, WorkError> {
        let nothing = || WorkError::Input("there is no member to judge".into());
        let (first, ensemble) = (members.first().ok_or_else(nothing)?, spec.ensemble.ok_or_else(nothing)?);
        let rows = self.known().rows.clone();
        let rows = match rows {
            Some(rows) => rows,
            None => {
                let dataset = dml_compute::Inputs::dataset(inputs, spec.problem.dataset)?;
                let each = spec.models.len() * first.model.classes.len().max(1);
                let most = (NUMBERS / each).clamp(FEWEST_ROWS, MOST_ROWS);
                let split = spec.splits()[0];
                let (problem, learned) = (spec.problem.clone(), &first.model.classes);
                let rows = Arc::new(HeldOut::read(dataset, problem, &split, learned, most, inputs)?);
                self.known().rows.insert(rows).clone()
            }
        };
        let mut scores = Vec::new();
        for member in members {
            let known = self.known().scores.get(&member.place).cloned();
            scores.push(match known {
                Some(known) => known,
                None => {
                    let said = rows.scores(worker.shared.engine.registry(), &member.model, inputs)?;
                    self.known().scores.entry(member.place).or_insert(Arc::new(said)).clone()
                }
            });
        }
        let scores: Vec<&Scores> = scores.iter().map(AsRef::as_ref).collect();
        let judged = rows.judge(ensemble.method, &scores);
        let differ = || WorkError::Input("the members are not about the same classes".into());
        judged.map(Arc::new).ok_or_else(differ)
    }
}
