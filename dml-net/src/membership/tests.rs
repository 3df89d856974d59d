use super::*;
use crate::{
    Peer,
    discover::Fixed,
    handshake::ClusterId,
    peer::{self, InProcess},
    serve::serve,
};

fn at(n: u8) -> SocketAddr {
    ([10, 0, 0, n], 7301).into()
}

fn member(n: u8, generation: u32) -> Member {
    Member { id: NodeId::new(n.into()), address: at(n), generation }
}

fn seeds(addresses: &[SocketAddr]) -> Discovery {
    Discovery::new(vec![Box::new(Fixed(addresses.to_vec()))])
}

/// A node of this process, and what it was told.
struct Node {
    membership: Membership,
    changes: mpsc::UnboundedReceiver<Change>,
    running: tokio::task::JoinHandle<()>,
}

impl Node {
    /// Starts on the runtime of the test, whose time is simulated.
    fn start(here: &InProcess, me: Member, discovery: Discovery) -> Self {
        let (membership, changes, run) =
            Membership::new(me, Vec::new(), discovery, here.dial(), Settings::default());
        here.insert(me.address, membership.router());
        Self { membership, changes, running: tokio::spawn(run) }
    }

    fn active(&self) -> Vec<u64> {
        let nodes = self.membership.nodes().into_iter();
        nodes.filter(|seen| seen.health.is_active()).map(|seen| seen.member.id.number()).collect()
    }

    /// All that it was told since it was last asked.
    fn told(&mut self) -> Vec<Change> {
        std::iter::from_fn(|| self.changes.try_recv().ok()).collect()
    }

    fn kill(self, here: &InProcess) {
        here.remove(self.membership.me().address);
        self.running.abort();
    }
}

async fn until(what: &str, mut done: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(30), "it took too long until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    start.elapsed()
}

/// A cluster of nodes that all know the first.
async fn cluster(here: &InProcess, size: u8) -> Vec<Node> {
    let start = |n| Node::start(here, member(n, 1), seeds(&[at(1)]));
    let nodes: Vec<Node> = (1..=size).map(start).collect();
    let whole = || nodes.iter().all(|node| node.active().len() == usize::from(size) - 1);
    until("they are one cluster", whole).await;
    nodes
}

#[tokio::test(start_paused = true)]
async fn nodes_find_each_other_through_one_and_notice_who_is_gone() {
    let here = InProcess::default();
    let mut nodes = cluster(&here, 5).await;
    for (n, node) in (1..).zip(&mut nodes) {
        let mut told = node.told();
        told.sort_by_key(|change| matches!(change, Change::Active(member) if member.id.number() > 0));
        assert_eq!(told.len(), 4, "node {n} was told of each once: {told:?}");
    }
    let dead = nodes.remove(0);
    dead.kill(&here);
    let gone = Change::Inactive { id: NodeId::new(1), left: false };
    let mut told = vec![false; 4];
    let hears = || {
        nodes.iter_mut().zip(&mut told).for_each(|(node, told)| *told |= node.told().contains(&gone));
        told.iter().all(|told| *told)
    };
    let time = until("all know of the death", hears).await;
    assert!(time < Duration::from_secs(3), "{time:?}");
    let health = |node: &Node| node.membership.nodes()[0].health;
    assert!(nodes.iter().all(|node| health(node) == Health::Failed), "the table keeps it");

    // It starts again, knowing one of the others.
    let back = Node::start(&here, member(1, 2), seeds(&[at(3)]));
    until("it is back", || back.active().len() == 4 && nodes.iter().all(|node| node.active().contains(&1)))
        .await;
    assert_eq!(nodes[2].told().last(), Some(&Change::Active(member(1, 2))));
}

#[tokio::test(start_paused = true)]
async fn who_leaves_says_so() {
    let here = InProcess::default();
    let mut nodes = cluster(&here, 3).await;
    let mut leaver = nodes.remove(2);
    let start = Instant::now();
    leaver.membership.leave().await;
    assert!(start.elapsed() < Duration::from_millis(100));
    leaver.told();
    assert_eq!(leaver.changes.recv().await, None, "it is told nothing any more");
    let goodbye = Change::Inactive { id: NodeId::new(3), left: true };
    for node in &mut nodes {
        until("the goodbye is heard", || node.told().contains(&goodbye)).await;
    }
    let peer = here.dial().peer(at(3));
    assert!(
        greet(&peer, ClusterId::default()).await.expect("an answer") == Greeting::Stranger,
        "it does not say hello after its goodbye"
    );
    leaver.membership.leave().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_meets_itself_or_strangers_stays_alone() {
    let here = InProcess::default();
    here.insert(at(8), Router::new());
    let discovery = seeds(&[at(1), at(7), at(8), at(9)]);
    let node = Node::start(&here, member(1, 1), discovery.clone());
    // Also reached by another address, as behind a proxy.
    here.insert(at(9), node.membership.router());
    // A copy of its disk.
    let copy = Membership::new(member(1, 2), Vec::new(), seeds(&[]), here.dial(), Settings::default());
    here.insert(at(7), copy.0.router());
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(node.membership.nodes(), []);
    assert!(!discovery.refresh().await.contains(&at(9)), "it knows that it is there itself");
}

#[tokio::test(start_paused = true)]
async fn other_requests_are_signs_of_life_or_death() {
    let here = InProcess::default();
    let nodes = cluster(&here, 2).await;
    let one = &nodes[0].membership;
    // The second falls silent: what it is sent is lost without a refusal.
    nodes[1].running.abort();
    until("it is held for dead", || nodes[0].active().is_empty()).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let age = one.nodes()[0].age;
    assert!(age > Duration::from_secs(60), "{age:?}");
    one.answered(NodeId::new(2));
    tokio::time::sleep(FRESH * 3).await;
    assert!(one.nodes()[0].age <= FRESH * 3);

    let rejoined = Node::start(&here, member(2, 2), seeds(&[at(1)]));
    until("it is back", || nodes[0].active() == [2]).await;
    rejoined.running.abort();
    let start = Instant::now();
    one.refused(NodeId::new(2));
    until("it is held for dead", || nodes[0].active().is_empty()).await;
    assert!(start.elapsed() <= Settings::default().refusal + FRESH, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_refused_datagram_is_evidence() {
    let here = InProcess::default();
    let settings = Settings { suspicion: Duration::from_secs(20), ..Settings::default() };
    let start = |n| {
        let seeds = seeds(&[at(1)]);
        let (membership, _, run) = Membership::new(member(n, 1), Vec::new(), seeds, here.dial(), settings);
        here.insert(at(n), membership.router());
        (membership, tokio::spawn(run))
    };
    let (one, two) = (start(1), start(2));
    let there = || one.0.nodes().iter().any(|seen| seen.health.is_active());
    until("it is there", there).await;
    here.remove(at(2));
    two.1.abort();
    let time = until("it is gone", || !there()).await;
    assert!(time < Duration::from_secs(2), "{time:?}");
}

#[tokio::test]
async fn datagrams_are_small_and_garbage_does_no_harm() {
    let here = InProcess::default();
    let node = Node::start(&here, member(1, 1), seeds(&[]));
    let peer = Peer::router(node.membership.router());
    let post = async |length: usize| {
        let request = Request::post(PATH).body(Body::from(vec![7; length])).expect("a plain path");
        peer.call(request).await.expect("it is here").status()
    };
    assert_eq!(post(LONGEST).await, StatusCode::NO_CONTENT);
    assert_eq!(post(LONGEST + 1).await, StatusCode::PAYLOAD_TOO_LARGE);
    node.running.abort();
    let mut lost = 0;
    for _ in 0..2 * QUEUE {
        lost += usize::from(post(1).await == StatusCode::SERVICE_UNAVAILABLE);
    }
    assert!(lost >= QUEUE, "what nobody takes is lost");
}

/// Nodes with threads of their own, over sockets; the listeners are on the runtime of the test.
struct Served {
    membership: Membership,
    changes: mpsc::UnboundedReceiver<Change>,
    serving: tokio::runtime::Runtime,
}

impl Served {
    fn start(n: u8, generation: u32, port: u16, seed: Option<SocketAddr>) -> Self {
        let serving = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let serving = serving.expect("a runtime");
        let listener = std::net::TcpListener::bind(("127.0.0.1", port)).expect("a free port");
        listener.set_nonblocking(true).expect("a socket can");
        let address = listener.local_addr().expect("it is bound");
        let me = Member { address, ..member(n, generation) };
        let discovery = seeds(seed.as_slice());
        let (membership, changes) =
            Membership::start(me, Vec::new(), discovery, peer::http(), Settings::default());
        let router = membership.router();
        serving.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("within a runtime");
            serve(listener, router, std::future::pending()).await;
        });
        Self { membership, changes, serving }
    }

    fn sees(&self, n: u8) -> Option<Health> {
        let nodes = self.membership.nodes();
        nodes.iter().find(|seen| seen.member.id == NodeId::new(n.into())).map(|seen| seen.health)
    }
}

#[tokio::test]
async fn over_sockets_a_dead_node_is_noticed_and_comes_back() {
    let one = Served::start(1, 1, 0, None);
    let seed = one.membership.me().address;
    let others = [2, 3].map(|n| Served::start(n, 1, 0, Some(seed)));
    let [two, three] = others;
    let whole = || {
        let pairs = [(&one, 2), (&one, 3), (&two, 1), (&two, 3), (&three, 1), (&three, 2)];
        pairs.iter().all(|(node, n)| node.sees(*n) == Some(Health::Active))
    };
    until("they are one cluster", whole).await;
    let port = three.membership.me().address.port();
    drop(three.membership);
    three.serving.shutdown_background();
    let time = until("it is held for dead", || {
        one.sees(3) == Some(Health::Failed) && two.sees(3) == Some(Health::Failed)
    });
    let time = time.await;
    assert!(time < Duration::from_secs(4), "{time:?}");
    // It comes back by itself, knowing nobody: the others go on looking for it.
    let mut three = Served::start(3, 2, port, None);
    let back = || {
        let pairs = [(&one, 3), (&two, 3), (&three, 1), (&three, 2)];
        pairs.iter().all(|(node, n)| node.sees(*n) == Some(Health::Active))
    };
    until("it is back", back).await;
    three.membership.leave().await;
    until("the goodbye is heard", || one.sees(3) == Some(Health::Left) && two.sees(3) == Some(Health::Left))
        .await;
    while three.changes.recv().await.is_some() {}
    for node in [one, two, three] {
        node.serving.shutdown_background();
    }
}

#[tokio::test]
async fn a_runtime_that_stands_still_takes_no_member_with_it() {
    let here = InProcess::default();
    let elsewhere = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let elsewhere = elsewhere.expect("a runtime");
    let start = |n| {
        let (membership, changes) =
            Membership::start(member(n, 1), Vec::new(), seeds(&[at(1)]), here.dial(), Settings::large());
        here.insert(at(n), membership.router());
        (membership, changes)
    };
    let others = {
        let _within = elsewhere.enter();
        [1, 2].map(start)
    };
    let (stalled, _changes) = start(3);
    let sees_two = |node: &Membership| node.nodes().iter().filter(|n| n.health.is_active()).count() == 2;
    until("they are one cluster", || sees_two(&stalled) && others.iter().all(|(node, _)| sees_two(node)))
        .await;
    std::thread::sleep(Duration::from_secs(4));
    for (_, mut changes) in others {
        let told: Vec<_> = std::iter::from_fn(|| changes.try_recv().ok()).collect();
        assert!(told.iter().all(|change| matches!(change, Change::Active(_))), "{told:?}");
    }
    elsewhere.shutdown_background();
}
