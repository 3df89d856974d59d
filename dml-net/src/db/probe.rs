//! Asking workers whether they are alive. A worker that was killed cannot say so; when it refuses connections or is
//! silent for long, its leases are free at once, not only when they run out. Only a worker that answered before is
//! thought dead: one that cannot be reached from here is left to its leases.

use std::{collections::BTreeMap, net::SocketAddr, sync::Weak, time::Duration};

use dml_core::node::{Request, WorkerSeen};
use tokio::task::JoinSet;

use super::Shell;
use crate::{
    link::exchange::{Question, Silence, exchange},
    peer::Dial,
};

/// How often a worker is asked.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long it may take to answer.
const QUIET: Duration = Duration::from_secs(1);

/// After so many silences it is dead.
const SILENCES: u32 = 3;

/// Who said nothing for so long has no leases any more, or is of another node now.
const CURRENT_MS: u64 = 60_000;

/// A worker that answered, and how often it did not since.
struct Answered {
    address: SocketAddr,
    silences: u32,
}

/// Asks workers until the node is gone.
pub(super) async fn run(shell: Weak<Shell>, dial: Dial) {
    let mut answered: BTreeMap<String, Answered> = BTreeMap::new();
    loop {
        tokio::time::sleep(INTERVAL).await;
        let Some(shell) = shell.upgrade() else { return };
        let Some(workers) = shell.inbox.look(|node| node.workers()).await else { return };
        let current = workers.into_iter().filter(|worker| worker.age_ms < CURRENT_MS);
        let current: Vec<WorkerSeen> = current.filter(|worker| worker.address.is_some()).collect();
        answered.retain(|name, _| current.iter().any(|worker| worker.worker == *name));
        let mut probes = JoinSet::new();
        for worker in current {
            let Some(address) = worker.address else { continue };
            let peer = dial.peer(address);
            probes.spawn(async move {
                let question = Question::get("/healthz");
                (worker.worker, address, exchange(&peer, &question, QUIET).await)
            });
        }
        while let Some(Ok((worker, address, outcome))) = probes.join_next().await {
            if is_dead(&mut answered, &worker, address, outcome.map(|(status, _)| status.is_success())) {
                tracing::warn!(%worker, %address, "a worker does not answer any more: its work goes to others");
                answered.remove(&worker);
                shell.inbox.ask(Request::Leave { worker, dead: true }).await;
            }
        }
    }
}

/// Whether a worker must be thought dead, after this answer or silence.
fn is_dead(
    answered: &mut BTreeMap<String, Answered>,
    worker: &str,
    address: SocketAddr,
    outcome: Result<bool, Silence>,
) -> bool {
    if let Ok(good) = outcome {
        if good {
            answered.insert(worker.into(), Answered { address, silences: 0 });
        }
        return false;
    }
    let Some(known) = answered.get_mut(worker).filter(|known| known.address == address) else { return false };
    known.silences += 1;
    let refused = matches!(&outcome, Err(Silence::Peer(error)) if error.is_refused());
    refused || known.silences >= SILENCES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::PeerError;

    #[test]
    fn only_who_answered_before_can_be_found_dead() {
        let mut answered = BTreeMap::new();
        let at = SocketAddr::from(([127, 0, 0, 1], 7300));
        let refused = || Err(Silence::Peer(PeerError::Refused { address: at.to_string() }));
        let late = || Err(Silence::Late(QUIET));
        assert!(!is_dead(&mut answered, "w", at, refused()), "perhaps it is only unreachable from here");
        assert!(!is_dead(&mut answered, "w", at, Ok(true)));
        assert!(is_dead(&mut answered, "w", at, refused()));
        assert!(
            !is_dead(&mut answered, "w", SocketAddr::from(([127, 0, 0, 1], 9)), refused()),
            "it has moved"
        );
        assert!(!is_dead(&mut answered, "w", at, Ok(true)));
        assert_eq!([(); 3].map(|()| is_dead(&mut answered, "w", at, late())), [false, false, true]);
    }
}
