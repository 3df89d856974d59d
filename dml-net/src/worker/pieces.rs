//! Taking and doing pieces of work.

use std::{
    collections::BTreeMap,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::body::Bytes;
use dml_compute::{WorkError, engine::Outcome as Folded};
use dml_core::{
    Digest,
    lease::{Lease, Piece, Slot},
    node::{Assignment, Claim, Outcome, Request, Response},
};
use tokio::task::JoinSet;

use super::{Shared, inputs::BlockingInputs};
use crate::link::LinkError;

/// How long a claim waits at the db node for work.
const CLAIM_WAIT: Duration = Duration::from_secs(20);

/// The pause after a db node did not answer: doubled each time up to the longest.
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How long a piece rests whose inputs could not be had.
const RETRY: Duration = Duration::from_secs(1);

/// The leases that this worker holds, for the renewals.
type Held = Arc<Mutex<BTreeMap<Slot, (Lease, Duration)>>>;

pub(super) async fn run(shared: Arc<Shared>) {
    let mut stop = shared.stop.subscribe();
    let held = Held::default();
    let renewals = tokio::spawn(renew(shared.clone(), held.clone()));
    let mut work: JoinSet<()> = JoinSet::new();
    let mut pause = PAUSE;
    loop {
        let free = shared.options.slots.saturating_sub(work.len());
        if free == 0 {
            tokio::select! {
                _ = work.join_next() => {}
                _ = stop.wait_for(|stop| *stop) => break,
            }
            continue;
        }
        // A claim is never given up while it waits: what it may just have been granted would rest until the lease
        // runs out. Slots that become free meanwhile are offered by the next claim.
        let request = Request::Claim(Claim {
            worker: shared.options.name.clone(),
            slots: free as u32,
            capacity: shared.options.slots as u32,
            have: shared.cache.datasets(),
            address: shared.options.address,
            wait_ms: if work.is_empty() {
                CLAIM_WAIT.as_millis() as u64
            } else {
                BUSY_WAIT.as_millis() as u64
            },
        });
        let answer = tokio::select! {
            answer = shared.link.ask(&request) => answer,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        match answer {
            Ok(Response::Work(assignments)) => {
                pause = PAUSE;
                for assignment in assignments {
                    work.spawn(carry_out(shared.clone(), held.clone(), assignment));
                }
            }
            Ok(_) | Err(_) => {
                if let Err(error) = answer {
                    tracing::debug!(%error, "no work could be had");
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
        while work.try_join_next().is_some() {}
    }
    while work.join_next().await.is_some() {}
    renewals.abort();
}

/// With work under way, a claim waits less: the slots that become free meanwhile are offered soon.
const BUSY_WAIT: Duration = Duration::from_millis(200);

/// Renews all leases in one request, twice in the life of a lease.
async fn renew(shared: Arc<Shared>, held: Held) {
    loop {
        let leases: Vec<(Lease, Duration)> =
            held.lock().expect("nobody panics while holding it").values().copied().collect();
        let life = leases.iter().map(|(_, life)| *life).min().unwrap_or(Duration::from_secs(20));
        tokio::time::sleep(life / 2).await;
        let leases: Vec<Lease> =
            held.lock().expect("nobody panics while holding it").values().map(|(lease, _)| *lease).collect();
        if leases.is_empty() {
            continue;
        }
        match shared.link.ask(&Request::Renew { worker: shared.options.name.clone(), leases }).await {
            Ok(Response::Lost(lost)) if !lost.is_empty() => {
                tracing::info!(
                    count = lost.len(),
                    "leases were lost: the results will count all the same if they are the first"
                );
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "leases could not be renewed"),
        }
    }
}

/// Does one piece and reports what came of it.
async fn carry_out(shared: Arc<Shared>, held: Held, assignment: Assignment) {
    let lease = assignment.lease;
    let life = Duration::from_millis(assignment.lease_ms.max(2));
    let before = held.lock().expect("nobody panics while holding it").insert(lease.slot, (lease, life));
    if before.is_some() {
        // It is being computed here already, under a lease that the db node has forgotten: the new one keeps it.
        return;
    }
    let outcome = match compute(&shared, assignment).await {
        Ok(outcome) => outcome,
        Err(Undone::Input(why)) => Outcome::Failed(why),
        Err(Undone::Later(why)) => {
            tracing::warn!(job = %lease.slot.job, %why, "a piece of work could not be done now");
            Outcome::Released { pause_ms: RETRY.as_millis() as u64 }
        }
    };
    let lease = held
        .lock()
        .expect("nobody panics while holding it")
        .get(&lease.slot)
        .map_or(lease, |(latest, _)| *latest);
    report(&shared, lease, outcome).await;
    held.lock().expect("nobody panics while holding it").remove(&lease.slot);
}

/// Reports until a db node has heard it, or the worker stops.
async fn report(shared: &Shared, lease: Lease, outcome: Outcome) {
    let request = Request::Report { lease, outcome };
    let mut pause = PAUSE;
    while !*shared.stop.borrow() || pause < LONGEST_PAUSE {
        match shared.link.ask(&request).await {
            Ok(Response::Refused(refusal)) => {
                tracing::debug!(%refusal, "a result was not needed");
                return;
            }
            Ok(_) => return,
            Err(LinkError::Problem(problem)) if problem.status < 500 => {
                tracing::warn!(%problem, "a result was refused");
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "a result could not be reported");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// Why a piece has no result.
enum Undone {
    /// The input is at fault.
    Input(String),
    /// Something could not be had now.
    Later(String),
}

impl From<LinkError> for Undone {
    fn from(error: LinkError) -> Self {
        if let LinkError::Problem(problem) = &error
            && problem.status == 413
        {
            return Self::Input(problem.detail.clone());
        }
        Self::Later(error.to_string())
    }
}

impl From<WorkError> for Undone {
    fn from(error: WorkError) -> Self {
        match error {
            WorkError::Unavailable(why) => Self::Later(why),
            WorkError::Input(_) | WorkError::Corrupt { .. } | _ => Self::Input(error.to_string()),
        }
    }
}

async fn compute(shared: &Arc<Shared>, assignment: Assignment) -> Result<Outcome, Undone> {
    let Assignment { lease, spec, progress, .. } = assignment;
    let round = lease.slot.round;
    let state = match progress.state {
        Some(state) => Some(shared.blob(state).await?),
        None => None,
    };
    let mut partials = Vec::new();
    if lease.slot.piece == Piece::Fold {
        for partial in progress.units.values() {
            partials.push(shared.blob(*partial).await?.to_vec());
        }
    }
    let inputs = BlockingInputs::new(shared.clone());
    let shared_too = shared.clone();
    let compute = move || -> Result<(Vec<u8>, Option<bool>), WorkError> {
        let engine = &shared_too.engine;
        let state = state.as_deref();
        match lease.slot.piece {
            Piece::Unit(index) => Ok((engine.unit(&spec, round, index, state, &inputs)?, None)),
            Piece::Fold => {
                if partials.is_empty() && spec.plan.units == 1 {
                    partials.push(engine.unit(&spec, round, 0, state, &inputs)?);
                }
                let Folded { state, finished } = engine.fold(&spec, round, state, &partials, &inputs)?;
                Ok((state, Some(finished)))
            }
        }
    };
    // A panic is a fault of a learner; it would come again on any worker.
    let guarded = move || std::panic::catch_unwind(AssertUnwindSafe(compute));
    let done =
        tokio::task::spawn_blocking(guarded).await.map_err(|error| Undone::Later(error.to_string()))?;
    let (bytes, finished) = done.unwrap_or_else(|panic| {
        let words =
            panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Err(WorkError::Input(format!("the learner panicked: {}", words.unwrap_or("without words"))))
    })?;
    let digest = keep(shared, bytes.into()).await?;
    Ok(match finished {
        None => Outcome::Partial(digest),
        Some(finished) => Outcome::State { state: digest, finished },
    })
}

/// Hands a result to a db node. While none answers it waits: what was computed is not lost by a db node that restarts.
async fn keep(shared: &Shared, bytes: Bytes) -> Result<Digest, LinkError> {
    let mut pause = PAUSE;
    loop {
        match shared.link.put_blob(bytes.clone()).await {
            Err(LinkError::NoneAnswers(why)) if !*shared.stop.borrow() => {
                tracing::warn!(%why, "a result waits for a db node");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            done => return done,
        }
    }
}
