//! Keeps the table up to date: asks discovery for addresses, the db nodes for each other, and silent nodes whether they
//! are back.

use std::{net::SocketAddr, sync::Weak, time::Duration};

use futures_util::future::join_all;
use tokio::time::Instant;

use super::{
    Link, Shared,
    exchange::{Question, exchange},
    table::Node,
};
use crate::{
    addresses::plausible,
    db::REVOKED,
    discover::Discovery,
    handshake::{ClusterId, Greeting, greet},
    identity::Revoked,
    peer::Dial,
    view::{NodeView, Page, Role},
};

/// How often; more often while no node is there, and for some rounds after a new one was found: it knows others, or will
/// soon, and may be gone before the next round.
const EVERY: Duration = Duration::from_secs(5);
const OFTEN: Duration = Duration::from_secs(1);
const ROUNDS: u32 = 10;

/// The least time between two rounds, however many nodes fail.
const LEAST: Duration = Duration::from_millis(200);

/// How long a db node may take to say which others there are. One that takes longer is held for dead.
const PATIENCE: Duration = Duration::from_secs(2);

/// So many nodes are asked for others at a time, until one answers.
const ASKED: usize = 3;

/// So many nodes are probed at a time.
const PROBES: usize = 16;

/// Goes on until the link is dropped.
pub(super) async fn run(shared: Weak<Shared>, discovery: Discovery, dial: Dial) {
    let seed = std::hash::RandomState::new();
    // Each worker has its own order of the nodes, so that not all begin with the same one.
    let rank = |address: SocketAddr| std::hash::BuildHasher::hash_one(&seed, address);
    let mut sources_at = Instant::now();
    let (mut was_alone, mut hurry) = (None, 0);
    loop {
        let Some(link) = shared.upgrade().map(|shared| Link { shared }) else { return };
        let add = |addresses: Vec<SocketAddr>| {
            addresses.into_iter().filter(|address| link.add(*address, &dial, rank(*address))).count()
        };
        let find = async {
            if Instant::now() < sources_at {
                return 0;
            }
            let found = add(discovery.refresh().await);
            sources_at = Instant::now() + discovery.pause();
            found
        };
        let (found, told) = tokio::join!(find, async { add(link.neighbours().await) });
        // Those that were found just now are asked at once.
        let told = if found > 0 { told + add(link.neighbours().await) } else { told };
        hurry = if found + told > 0 { ROUNDS } else { hurry.saturating_sub(1) };
        link.probe(dial.cluster()).await;
        if let Some(revoked) = dial.revoked() {
            link.heed(revoked).await;
        }
        let alone = !link.lock().any_active();
        if alone != was_alone.unwrap_or(!alone) {
            link.tell(alone);
        }
        was_alone = Some(alone);
        if alone {
            sources_at = sources_at.min(Instant::now() + OFTEN);
        }
        let departure = link.shared.departure.clone();
        drop(link);
        tokio::time::sleep(LEAST).await;
        let _ =
            tokio::time::timeout(if alone || hurry > 0 { OFTEN } else { EVERY }, departure.notified()).await;
    }
}

impl Link {
    /// Takes an address into the table; says whether it is new.
    fn add(&self, address: SocketAddr, dial: &Dial, rank: u64) -> bool {
        let mut table = self.lock();
        if table.knows(address) {
            return false;
        }
        tracing::debug!(%address, "the address of a db node");
        table.insert(Some(address), dial.peer(address), rank, Instant::now());
        drop(table);
        self.shared.arrival.notify_waiters();
        true
    }

    fn tell(&self, alone: bool) {
        let known = self.nodes().len();
        if alone {
            tracing::warn!(known, "no db node answers: looking for one");
        } else {
            tracing::info!(known, "a db node answers");
        }
    }

    /// Asks a db node which others there are, and gives the addresses that are new. It is also how a db node that hangs
    /// is found out while it is to answer a request later.
    async fn neighbours(&self) -> Vec<SocketAddr> {
        let nodes = self.lock().in_order();
        for node in nodes.iter().take(ASKED) {
            if let Some(views) = self.list(node).await {
                let now = Instant::now();
                let mut table = self.lock();
                let far = node.address.is_some_and(|address| !address.ip().is_loopback());
                let told = views.iter().filter(|view| view.role == Role::Db).filter_map(|view| {
                    let address: SocketAddr =
                        view.address.as_deref()?.trim_start_matches("http://").parse().ok()?;
                    // What is local to another machine is something else here.
                    let usable = plausible(address) && !(far && address.ip().is_loopback());
                    (usable && table.hearsay(&view.id, address, view.active, now)).then_some(address)
                });
                return told.collect();
            }
        }
        Vec::new()
    }

    /// Hears whose certificates were revoked. All are asked: one whose own was would not say so.
    async fn heed(&self, revoked: &Revoked) {
        let nodes = self.lock().in_order();
        let told = nodes.iter().take(PROBES).map(async |node| {
            let answer = exchange(&node.peer, &Question::get(REVOKED), PATIENCE).await.ok();
            answer.and_then(|(_, bytes)| serde_json::from_slice::<Vec<String>>(&bytes).ok())
        });
        revoked.learn(join_all(told).await.into_iter().flatten().flatten());
    }

    async fn list(&self, node: &Node) -> Option<Vec<NodeView>> {
        let question = Question::get("/v1/nodes");
        match exchange(&node.peer, &question, PATIENCE).await {
            Ok((_, bytes)) => {
                let page = serde_json::from_slice::<Page<NodeView>>(&bytes).ok()?;
                self.answered(node.key, node.address);
                Some(page.items)
            }
            Err(silence) => {
                tracing::debug!(node = node.peer.address(), %silence, "a db node does not answer");
                self.failed(node.key, node.address);
                None
            }
        }
    }

    /// Asks nodes of which nothing was heard lately who they are.
    async fn probe(&self, cluster: ClusterId) {
        let nodes = self.lock().due(Instant::now(), PROBES);
        let probe = async |node: Node| match greet(&node.peer, cluster).await {
            Ok(Greeting::Member(member)) => {
                self.lock().named(node.key, member.id.to_string());
                self.answered(node.key, node.address);
            }
            // Something else is there: a db node that does not say who it is shows by its service that it is one.
            Ok(Greeting::Stranger) => {}
            Ok(Greeting::Foreign) => {
                if self.lock().foreign(node.key) {
                    let node = node.peer.address();
                    tracing::warn!(node, "a db node of another cluster answers there: it is left alone");
                }
                self.failed(node.key, node.address);
            }
            Err(_) => self.failed(node.key, node.address),
        };
        join_all(nodes.into_iter().map(probe)).await;
    }
}
