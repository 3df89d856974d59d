//! Taking and doing pieces of work.

use std::{
    collections::BTreeMap,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::body::Bytes;
use dml_compute::{Engine, WorkError, engine::Outcome as Folded, search::History};
use dml_core::{
    Body, Digest, Parent, StudySpec, Training, Work,
    lease::{Lease, MAX_LOST, Piece, Slot},
    node::{Assignment, Claim, Outcome, Request, Response},
};
use tokio::{task::JoinSet, time::Instant};
use tracing::Instrument;

use super::{Shared, inputs::BlockingInputs};
use crate::{
    link::LinkError,
    trace::{Trace, carry},
};

/// How long a claim waits at the db node for work.
const CLAIM_WAIT: Duration = Duration::from_secs(20);

/// The pause after a db node did not answer: doubled each time up to the longest.
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How long a piece rests whose inputs could not be had.
const RETRY: Duration = Duration::from_secs(1);

/// How many times a result is handed over again that the db nodes have lost before it was reported.
const REPUTS: u32 = 3;

/// The leases that this worker holds, for the renewals.
type Held = Arc<Mutex<BTreeMap<Slot, (Lease, Duration)>>>;

pub(super) async fn run(shared: Arc<Shared>) {
    let mut stop = shared.stop.subscribe();
    let held = Held::default();
    // In a set, so that they end with this future, also when it is dropped: leases of what nobody does would live on.
    let mut renewals = JoinSet::new();
    renewals.spawn(renew(shared.clone(), held.clone()));
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
                    let Slot { job, round, .. } = assignment.lease.slot;
                    let trace = Trace::new();
                    let span = tracing::info_span!("piece", %trace, %job, round);
                    let doing = carry_out(shared.clone(), held.clone(), assignment);
                    work.spawn(trace.during(doing.instrument(span)));
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
    let (meters, start) = (&shared.meters, Instant::now());
    meters.started.add(1);
    let (outcome, bytes, counter) = match compute(&shared, assignment).await {
        Ok((outcome, bytes)) => (outcome, Some(bytes), &meters.done),
        Err(Undone::Input(why)) => (Outcome::Failed(why), None, &meters.failed),
        Err(Undone::Later(why)) => {
            tracing::warn!(%why, "a piece of work could not be done now");
            (Outcome::Released { pause_ms: RETRY.as_millis() as u64 }, None, &meters.returned)
        }
    };
    hand_in(&shared, &held, lease, outcome, bytes).await;
    meters.took.observe(start.elapsed());
    counter.add(1);
    held.lock().expect("nobody panics while holding it").remove(&lease.slot);
}

/// Reports what came of a piece. If no db node takes it, the piece is free again at once.
async fn hand_in(shared: &Shared, held: &Held, lease: Lease, outcome: Outcome, bytes: Option<Bytes>) {
    let latest = || {
        let held = held.lock().expect("nobody panics while holding it");
        held.get(&lease.slot).map_or(lease, |(latest, _)| *latest)
    };
    if let Err(refused) = report(shared, latest(), outcome, bytes).await {
        tracing::warn!(%refused, "a result was refused: its piece is handed back");
        if let Err(error) = report(shared, latest(), Outcome::Released { pause_ms: 0 }, None).await {
            tracing::warn!(%error, "a piece could not be handed back: its lease will run out");
        }
    }
}

/// Reports until a db node has heard it, or the worker stops; an error if they do not take it. The bytes of the result
/// are kept until then, for the node that had them may be gone.
async fn report(
    shared: &Shared,
    lease: Lease,
    outcome: Outcome,
    bytes: Option<Bytes>,
) -> Result<(), LinkError> {
    let request = Request::Report { lease, outcome };
    let (mut pause, mut reputs) = (PAUSE, 0);
    while !*shared.stop.borrow() || pause < LONGEST_PAUSE {
        match shared.link.ask(&request).await {
            Ok(Response::Refused(refusal)) => {
                tracing::debug!(%refusal, "a result was not needed");
                return Ok(());
            }
            Ok(_) => return Ok(()),
            Err(LinkError::Problem(problem)) if problem.status < 500 => match &bytes {
                Some(bytes) if problem.code == "blob-missing" && reputs < REPUTS => {
                    tracing::info!(%problem, "a result is handed over again");
                    reputs += 1;
                    keep(shared, bytes.clone()).await?;
                }
                Some(_) | None => return Err(problem.into()),
            },
            Err(error) => {
                tracing::warn!(%error, "a result could not be reported");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
    Ok(())
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

/// Computes a piece and hands its result to a db node; gives the bytes too.
async fn compute(shared: &Arc<Shared>, assignment: Assignment) -> Result<(Outcome, Bytes), Undone> {
    let Assignment { lease, spec, progress, lost, .. } = assignment;
    let round = lease.slot.round;
    let has_more = spec.plan.rounds > 1;
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
    let search = match (&spec.work, lease.slot.piece) {
        (Work::Search { study, .. }, Piece::Fold) => spec.parent.map(|parent| (parent, study.clone())),
        _ => None,
    };
    let shared_too = shared.clone();
    let compute = move || -> Result<(Vec<u8>, Option<bool>), WorkError> {
        let engine = &shared_too.engine;
        let state = state.as_deref();
        let unit = |index| {
            if lost >= MAX_LOST && spec.work.can_give_up() {
                return Engine::give_up(&spec, round, index, state);
            }
            engine.unit(&spec, round, index, state, &inputs)
        };
        match lease.slot.piece {
            Piece::Unit(index) => Ok((unit(index)?, None)),
            Piece::Fold => {
                if partials.is_empty() && spec.plan.units == 1 {
                    partials.push(unit(0)?);
                }
                let Folded { state, finished } = engine.fold(&spec, round, state, &partials, &inputs)?;
                Ok((state, Some(finished)))
            }
        }
    };
    // A panic is a fault of a learner; it would come again on any worker.
    let guarded = move || std::panic::catch_unwind(AssertUnwindSafe(compute));
    let done = tokio::task::spawn_blocking(carry(guarded))
        .await
        .map_err(|error| Undone::Later(error.to_string()))?;
    let (bytes, finished) = done.unwrap_or_else(|panic| {
        let words =
            panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Err(WorkError::Input(format!("the learner panicked: {}", words.unwrap_or("without words"))))
    })?;
    if let Some((id, study)) = search.filter(|_| finished == Some(true)) {
        train_best(shared, id, &study, &bytes).await?;
    }
    let bytes = Bytes::from(bytes);
    let digest = keep(shared, bytes.clone()).await?;
    if has_more {
        // The next round begins with it, perhaps here.
        shared.cache.keep_blob(digest, &bytes.as_ref().into());
    }
    let outcome = match finished {
        None => Outcome::Partial(digest),
        Some(finished) => Outcome::State { state: digest, finished },
    };
    Ok((outcome, bytes))
}

/// Creates the training in which a study ends. It is there before the study counts as finished; should this worker die in
/// between, the next one creates the same.
async fn train_best(shared: &Shared, id: Digest, study: &StudySpec, trials: &[u8]) -> Result<(), Undone> {
    let dataset = shared.dataset(study.training.problem.dataset).await?;
    let trials = History::from_bytes(trials)?;
    let Some(spec) = shared.engine.best(study, &dataset, &trials) else { return Ok(()) };
    let watch = Request::Watch { id, seen: 0, wait_ms: 0 };
    let Response::Family { entries, .. } = shared.link.ask(&watch).await? else {
        return Err(Undone::Later("the study could not be had".into()));
    };
    let root = entries.into_iter().next().map(|entry| entry.record);
    let name = root.as_ref().and_then(|root| root.names.latest().map(String::from));
    let priority = root.and_then(|root| Some(Parent::of(root.body.as_ref()?)?.priority()));
    let training = Training { spec, priority: priority.unwrap_or(0), stops: 0 };
    let created = shared.link.ask(&Request::Create { body: Body::Training(training), name }).await?;
    if let Response::Refused(refusal) = created { Err(Undone::Later(refusal.to_string())) } else { Ok(()) }
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

#[cfg(test)]
mod tests {
    use axum::{
        Json, Router,
        extract::Path,
        http::StatusCode,
        routing::{post, put},
    };

    use super::*;
    use crate::{
        link::Link,
        peer::Peer,
        problem::Problem,
        worker::{Options, Worker},
    };

    /// A db node that loses blobs: it keeps none of the first few, and remembers all that it was told.
    #[derive(Default)]
    struct Stub {
        loses: u32,
        puts: u32,
        kept: Vec<String>,
        reports: Vec<Outcome>,
        refuses: bool,
    }

    type Node = Arc<Mutex<Stub>>;

    fn put_blob(node: &Node, digest: String) -> StatusCode {
        let mut node = node.lock().unwrap();
        node.puts += 1;
        if node.puts > node.loses {
            node.kept.push(digest);
        }
        StatusCode::NO_CONTENT
    }

    fn ask(node: &Node, request: &Request) -> Result<Json<Response>, Problem> {
        let Request::Report { outcome, .. } = request else { panic!("only reports are sent: {request:?}") };
        let mut node = node.lock().unwrap();
        node.reports.push(outcome.clone());
        let named = request.blobs();
        if node.refuses && !named.is_empty() {
            return Err(Problem::bad_request("bad-request", "this node takes no result"));
        }
        match named.iter().find(|blob| !node.kept.contains(&blob.to_string())) {
            Some(blob) => Err(Problem::conflict("blob-missing", format!("blob {blob} is not here"))),
            None => Ok(Json(Response::Done)),
        }
    }

    /// Hands a result to such a node, and tells what it has seen. The first put is that of the computation.
    async fn handed_in(loses: u32, refuses: bool) -> (u32, Vec<Outcome>) {
        let node = Node::new(Mutex::new(Stub { loses, refuses, ..Stub::default() }));
        let (this, that) = (node.clone(), node.clone());
        let router = Router::new()
            .route("/v1/ask", post(async move |Json(request): Json<Request>| ask(&this, &request)))
            .route(
                "/v1/blobs/{digest}",
                put(async move |Path(digest): Path<String>| put_blob(&that, digest)),
            );
        let link = Link::new([Peer::router(router)]);
        let worker =
            Worker::new(link, dml_compute::Engine::new(dml_compute::Registry::default()), Options::default());
        let bytes = Bytes::from_static(b"partial");
        let digest = keep(&worker.shared, bytes.clone()).await.unwrap();
        let slot = Slot { job: Digest::of(b"job"), round: 0, piece: Piece::Unit(0) };
        let lease = Lease { slot, root: slot.job, epoch: 1 };
        hand_in(&worker.shared, &Held::default(), lease, Outcome::Partial(digest), Some(bytes)).await;
        let seen = node.lock().unwrap();
        (seen.puts, seen.reports.clone())
    }

    fn partial() -> Outcome {
        Outcome::Partial(Digest::of(b"partial"))
    }

    const FREE: Outcome = Outcome::Released { pause_ms: 0 };

    #[tokio::test]
    async fn a_result_that_the_db_nodes_lost_is_handed_over_again() {
        assert_eq!(handed_in(0, false).await, (1, vec![partial()]));
        assert_eq!(handed_in(1, false).await, (2, vec![partial(); 2]));
        assert_eq!(handed_in(3, false).await, (4, vec![partial(); 4]));
    }

    #[tokio::test]
    async fn a_piece_whose_result_nobody_takes_is_free_at_once() {
        let lost = vec![partial(), partial(), partial(), partial(), FREE];
        assert_eq!(handed_in(u32::MAX, false).await, (4, lost));
        assert_eq!(handed_in(0, true).await, (1, vec![partial(), FREE]));
    }
}
