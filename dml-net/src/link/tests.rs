use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Request as HttpRequest},
    routing::{get, post, put},
};
use dml_core::{
    lease::{Lease, Piece, Slot},
    member::{Member, NodeId},
    node::Outcome,
};
use futures_util::{future::join_all, stream};
use http_body_util::BodyExt;

use super::*;
use crate::{
    discover::Fixed,
    handshake::{self, ClusterId, Hello},
    peer::{self, InProcess},
    serve::serve,
    view::{NodeView, Page, Role},
};

fn at(n: u8) -> SocketAddr {
    ([10, 0, 0, n], 7301).into()
}

/// A db node that answers every question with its number, and questions that may wait never. It can be made to hang.
#[derive(Clone, Default)]
struct Stub {
    n: u8,
    hangs: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    /// The others that it knows, and whether they are there.
    others: Arc<Mutex<Vec<(u8, bool)>>>,
}

fn word(n: u8) -> Response {
    Response::Found(Digest::of(&[n]))
}

impl Stub {
    fn new(n: u8) -> Self {
        Self { n, ..Self::default() }
    }

    fn router(&self) -> Router {
        let (this, that, third) = (self.clone(), self.clone(), self.clone());
        Router::new()
            .route("/v1/ask", post(async move |Json(request): Json<Request>| this.answer(&request).await))
            .route("/v1/nodes", get(async move || that.list().await))
            .route(handshake::PATH, get(async move || third.hello().await))
    }

    async fn hang(&self) {
        if self.hangs.load(Relaxed) {
            std::future::pending::<()>().await;
        }
    }

    async fn answer(&self, request: &Request) -> Json<Response> {
        self.asked.fetch_add(1, Relaxed);
        self.hang().await;
        if let Request::Watch { wait_ms: 1.., .. } = request
            && self.n == 1
        {
            std::future::pending::<()>().await;
        }
        Json(word(self.n))
    }

    async fn list(&self) -> Json<Page<NodeView>> {
        self.hang().await;
        let view = |(n, active): (u8, bool)| NodeView {
            id: NodeId::new(n.into()).to_string(),
            role: Role::Db,
            address: Some(format!("http://{}", at(n))),
            active,
            state: if active { "active" } else { "failed" }.into(),
            slots: 0,
            busy: 0,
            data: 0,
            age_ms: 0,
            under_replicated: None,
            pieces: None,
            repeated: None,
            disk: None,
        };
        let others = self.others.lock().expect("no panic").clone();
        Json(Page { items: others.into_iter().map(view).collect(), next_cursor: None })
    }

    async fn hello(&self) -> Json<Hello> {
        self.hang().await;
        let me = Member { id: NodeId::new(self.n.into()), address: at(self.n), generation: 1 };
        Json(Hello::new(ClusterId::default(), me))
    }
}

fn stubs<const N: usize>() -> (InProcess, [Stub; N]) {
    let here = InProcess::default();
    let stubs = std::array::from_fn(|n| Stub::new(n as u8 + 1));
    stubs.iter().for_each(|stub: &Stub| here.insert(at(stub.n), stub.router()));
    (here, stubs)
}

fn watch(wait_ms: u64) -> Request {
    Request::Watch { id: Digest::of(b"x"), seen: 0, wait_ms }
}

fn joined(here: &InProcess, addresses: &[u8]) -> Link {
    let fixed = Fixed(addresses.iter().map(|n| at(*n)).collect());
    Link::discover(Discovery::new(vec![Box::new(fixed)]), here.dial())
}

/// Which node answered, and how long it took.
async fn ask(link: &Link, wait_ms: u64) -> (Option<u8>, Duration) {
    let start = Instant::now();
    let answer = link.ask(&watch(wait_ms)).await;
    let who = answer.ok().and_then(|answer| (0..10).find(|n| word(*n) == answer));
    (who, start.elapsed())
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("it took too long until {what}");
}

fn activity(link: &Link) -> Vec<bool> {
    let mut nodes = link.nodes();
    nodes.sort();
    nodes.into_iter().map(|(_, active, _)| active).collect()
}

#[tokio::test(start_paused = true)]
async fn a_node_that_hangs_holds_nobody_up() {
    let (here, [one, two]) = stubs();
    let link = Link::new([here.dial().peer(at(1)), here.dial().peer(at(2))]);
    assert_eq!(ask(&link, 0).await, (Some(1), Duration::ZERO));
    one.hangs.store(true, Relaxed);
    let (who, time) = ask(&link, 0).await;
    assert!(who == Some(2) && time <= QUIET, "{who:?} after {time:?}");
    assert_eq!(ask(&link, 0).await, (Some(2), Duration::ZERO), "the first is not asked again");
    assert_eq!((one.asked.load(Relaxed), two.asked.load(Relaxed)), (2, 2));
    assert_eq!(activity(&link), [false, true]);
}

#[tokio::test(start_paused = true)]
async fn while_all_are_dead_a_request_waits_for_one_that_returns() {
    let (here, [one, two]) = stubs();
    let link = Link::new([here.dial().peer(at(1)), here.dial().peer(at(2))]);
    [1, 2].into_iter().for_each(|n| here.remove(at(n)));
    let (who, time) = ask(&link, 0).await;
    assert!(who.is_none() && time > PATIENCE - MAX_PAUSE && time <= PATIENCE, "{time:?}");
    assert!(link.ask(&Request::Workers).await.is_err(), "nobody is there");
    let returning = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        here.insert(at(2), two.router());
    };
    let ((who, time), ()) = tokio::join!(ask(&link, 0), returning);
    assert!(who == Some(2) && time <= Duration::from_secs(5) + MAX_PAUSE, "{who:?} after {time:?}");
    assert_eq!(one.asked.load(Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn nodes_are_learned_from_nodes_and_stay_in_the_table() {
    let (here, [one, two, three]) = stubs();
    let link = joined(&here, &[1]);
    *one.others.lock().expect("no panic") = vec![(2, true)];
    until("two are known", || activity(&link) == [true, true]).await;
    here.remove(at(1));
    assert_eq!(ask(&link, 0).await.0, Some(2), "the node that was named in no setting");
    until("the first is in the table as inactive", || activity(&link) == [false, true]).await;
    *two.others.lock().expect("no panic") = vec![(1, false), (3, true)];
    until("the third is known", || activity(&link) == [false, true, true]).await;
    here.insert(at(1), one.router());
    until("the first is back", || activity(&link) == [true, true, true]).await;
    here.remove(at(3));
    until("its absence is noticed, idle as it is", || activity(&link) == [true, true, false]).await;
    drop((three, link));
}

#[tokio::test(start_paused = true)]
async fn the_others_are_known_before_the_first_can_die() {
    let (here, [one, two, _three]) = stubs();
    *one.others.lock().expect("no panic") = vec![(2, true)];
    let link = joined(&here, &[1]);
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(link.nodes().len(), 2, "the first is asked as soon as it is found");
    tokio::time::sleep(Duration::from_secs(5)).await;
    for node in [one, two] {
        node.others.lock().expect("no panic").push((3, true));
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(link.nodes().len(), 3, "a young cluster grows");
}

#[tokio::test(start_paused = true)]
async fn a_link_begins_without_nodes() {
    let (here, [one]) = stubs();
    here.remove(at(1));
    let link = joined(&here, &[1]);
    assert!(link.ask(&Request::Workers).await.is_err(), "nobody is there yet");
    here.insert(at(1), one.router());
    let (who, time) = ask(&link, 0).await;
    assert!(who == Some(1) && time <= MAX_PAUSE, "{who:?} after {time:?}");
    let weak = Arc::downgrade(&link.shared);
    drop(link);
    until("nobody holds the link", || weak.upgrade().is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn a_long_poll_moves_on_when_its_node_hangs_or_is_gone() {
    for gone in [false, true] {
        let (here, [one, _two]) = stubs();
        let link = joined(&here, &[1, 2]);
        until("both are known", || activity(&link) == [true, true]).await;
        // The second goes for a moment: the first is the one in use.
        here.remove(at(2));
        assert_eq!(ask(&link, 0).await.0, Some(1));
        here.insert(at(2), Stub::new(2).router());
        until("both are there", || activity(&link) == [true, true]).await;
        let fault = async {
            tokio::time::sleep(Duration::from_secs(30)).await;
            assert_eq!(one.asked.load(Relaxed), 2, "it is there that the question waits");
            if gone {
                here.remove(at(1));
            } else {
                one.hangs.store(true, Relaxed);
            }
        };
        let ((who, time), ()) = tokio::join!(ask(&link, 300_000), fault);
        let most = Duration::from_secs(30) + if gone { Duration::ZERO } else { Duration::from_secs(8) };
        assert!(who == Some(2) && time <= most, "{who:?} after {time:?}");
    }
}

/// A db node as a process: with its runtime go its listener and its connections.
struct Process(Option<tokio::runtime::Runtime>, SocketAddr);

impl Process {
    fn start(stub: &Stub, address: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let listener = std::net::TcpListener::bind(address).expect("a free port");
        listener.set_nonblocking(true).expect("a socket can");
        let address = listener.local_addr().expect("it is bound");
        let router = stub.router();
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("within a runtime");
            serve(listener, router, std::future::pending()).await;
        });
        Self(Some(runtime), address)
    }

    fn kill(&mut self) {
        self.0.take().expect("it lives").shutdown_background();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

#[tokio::test]
async fn over_sockets_the_next_node_answers_at_once() {
    let (one, two) = (Stub::new(1), Stub::new(2));
    let (mut first, mut second) = (Process::start(&one, "127.0.0.1:0"), Process::start(&two, "127.0.0.1:0"));
    let dial = peer::http();
    let link = Link::new([dial.peer(first.1), dial.peer(second.1)]);
    let killing = async {
        while one.asked.load(Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        first.kill();
    };
    let ((who, time), ()) = tokio::join!(ask(&link, 300_000), killing);
    assert!(who == Some(2) && time < Duration::from_secs(2), "killed in a long poll: {who:?} after {time:?}");
    second.kill();
    let address = first.1.to_string();
    let returning = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        first = Process::start(&one, &address);
    };
    let ((who, time), ()) = tokio::join!(ask(&link, 0), returning);
    assert!(who == Some(1) && time < Duration::from_secs(3), "all were dead: {who:?} after {time:?}");
}

#[tokio::test]
async fn over_sockets_a_node_that_accepts_and_does_not_answer_is_left() {
    let hole = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let good = Process::start(&Stub::new(2), "127.0.0.1:0");
    let dial = peer::http();
    let link = Link::new([dial.peer(hole.local_addr().expect("it is bound")), dial.peer(good.1)]);
    let (who, time) = ask(&link, 0).await;
    let margin = Duration::from_secs(2);
    assert!(who == Some(2) && time >= QUIET && time < QUIET + margin, "{who:?} after {time:?}");
    // A large body gets stuck in the socket's buffers.
    let hung = Link::new([dial.peer(hole.local_addr().expect("it is bound"))]);
    let start = Instant::now();
    let node = hung.next(&BTreeSet::new()).expect("there is one");
    let body = Bytes::from(vec![0; 64 << 20]);
    let question = Question::post("/", BYTES, body);
    let silence = hung.attempt(&node, &question, Duration::from_millis(300)).await;
    assert!(matches!(silence, Err(Silence::Late(_))) && start.elapsed() < margin, "{silence:?}");
}

#[tokio::test(start_paused = true)]
async fn blobs_may_take_their_time_but_must_move() {
    let second = Duration::from_secs(1);
    let slow = move |parts: usize| {
        Body::from_stream(stream::unfold(0, move |n| async move {
            tokio::time::sleep(second * if n < parts { 2 } else { 1000 }).await;
            (n < 9).then(|| (Ok::<_, std::io::Error>(Bytes::from(vec![n as u8; 10])), n + 1))
        }))
    };
    let blob: Vec<u8> = (0..9).flat_map(|n| [n; 10]).collect();
    let digest = Digest::of(&blob);
    let stuck = Router::new().route("/v1/blobs/{digest}", get(async move || slow(5)));
    let steady = async |body: Body| {
        let mut body = body;
        let mut length = 0;
        while let Some(Ok(frame)) = body.frame().await {
            length += frame.into_data().map_or(0, |data| data.len());
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        format!("{length}")
    };
    let late = async move || {
        tokio::time::sleep(second * 2).await;
        slow(99)
    };
    let moving = Router::new().route("/v1/blobs/{digest}", get(late).put(steady));
    let link = Link::new([Peer::router(stuck), Peer::router(moving)]);
    let start = Instant::now();
    assert_eq!(link.blob(digest).await.expect("the second has it"), blob);
    // Five parts and a silence at the first, then a late head, nine parts and the end at the other.
    assert_eq!(start.elapsed(), second * 10 + QUIET + second * 22);
    let large = vec![7; 20 * (256 << 10)];
    assert_eq!(link.put_blob(large.clone()).await.expect("it moves"), Digest::of(&large));
}

/// A node that answers requests for blobs with a problem, and counts them.
fn troubled(problem: Problem) -> (Peer, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let answer = async move |_: HttpRequest| {
        counted.fetch_add(1, Relaxed);
        problem
    };
    (Peer::router(Router::new().route("/v1/blobs/{digest}", get(answer.clone()).put(answer))), count)
}

#[tokio::test(start_paused = true)]
async fn what_one_node_cannot_do_another_may() {
    let blob = Bytes::from_static(b"a blob");
    let digest = Digest::of(&blob);
    let kept = blob.clone();
    let keeps = get(
        async move |Path(asked): Path<String>| {
            if asked == digest.to_string() { Ok(kept) } else { Err(Problem::not_found("not here")) }
        },
    );
    let good = Peer::router(Router::new().route("/v1/blobs/{digest}", put(async || "").merge(keeps)));
    let (lacks, _) = troubled(Problem::not_found("not here"));
    let (full, _) = troubled(Problem::new(StatusCode::INSUFFICIENT_STORAGE, "disk-full", "no space"));
    let (alone, _) = troubled(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "no-answer", "cut off"));
    let stranger = Peer::router(Router::new());
    for trouble in [&lacks, &full, &alone, &stranger] {
        let link = Link::new([trouble.clone(), good.clone()]);
        assert_eq!(link.blob(digest).await.expect("the other has it"), blob);
        let link = Link::new([trouble.clone(), good.clone()]);
        assert_eq!(
            link.put_blob(blob.clone()).await.ok(),
            (!std::ptr::eq(trouble, &lacks)).then_some(digest)
        );
    }
    let link = Link::new([lacks.clone(), good.clone()]);
    let start = Instant::now();
    let nowhere = link.blob(Digest::of(b"another")).await;
    assert!(matches!(nowhere, Err(LinkError::NoBlob(_))), "{nowhere:?}");
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_node_had_is_asked_for_again() {
    let here = InProcess::default();
    let blob = Bytes::from_static(b"a blob");
    let copy = blob.clone();
    here.insert(at(1), Router::new().route("/v1/blobs/{digest}", get(async move || copy)));
    let asked = Arc::new(AtomicUsize::new(0));
    let copied = blob.clone();
    // The copy arrives between the first question and the second.
    let repaired = async move || match asked.fetch_add(1, Relaxed) {
        0 => Err(Problem::not_found("not here yet")),
        _ => Ok(copied),
    };
    here.insert(at(2), Router::new().route("/v1/blobs/{digest}", get(repaired)));
    let link = Link::new([here.dial().peer(at(1)), here.dial().peer(at(2))]);
    assert_eq!(link.blob(Digest::of(&blob)).await.expect("the first has it"), blob);
    here.remove(at(1));
    assert_eq!(link.blob(Digest::of(&blob)).await.expect("the second has it by now"), blob);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_final_and_a_busy_node_is_asked_again() {
    let (good, asked) = troubled(Problem::new(StatusCode::OK, "", ""));
    let (refuses, refused) = troubled(Problem::bad_request("digest-mismatch", "no"));
    let link = Link::new([refuses, good.clone()]);
    let refusal = link.put_blob("x").await;
    assert!(matches!(&refusal, Err(LinkError::Problem(problem)) if problem.status == 400), "{refusal:?}");
    assert_eq!((refused.load(Relaxed), asked.load(Relaxed)), (1, 0));

    let (busy, asked) = troubled(Problem::unavailable("starting"));
    let start = Instant::now();
    let given_up = Link::new([busy]).put_blob("x").await;
    assert!(matches!(&given_up, Err(LinkError::Problem(problem)) if problem.status == 503), "{given_up:?}");
    assert!(start.elapsed() <= PATIENCE && asked.load(Relaxed) > 10);

    let (full, asked) = troubled(Problem::new(StatusCode::INSUFFICIENT_STORAGE, "disk-full", "no space"));
    let full = Link::new([full]).put_blob("x").await;
    assert!(matches!(&full, Err(LinkError::Problem(problem)) if problem.status == 507), "{full:?}");
    assert_eq!(asked.load(Relaxed), 1);
}

#[tokio::test]
async fn reports_go_together_and_what_could_not_be_done_goes_again_by_itself() {
    let (groups, singles) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (all, each) = (groups.clone(), singles.clone());
    let is_odd = |request: &Request| {
        let Request::Report { lease, .. } = request else { panic!("only reports go together") };
        lease.epoch % 2 == 1
    };
    let together = async move |Json(requests): Json<Vec<Request>>| {
        all.fetch_add(1, Relaxed);
        let answer = |request| if is_odd(request) { Err(Problem::unavailable("busy")) } else { Ok(word(0)) };
        Json::<Answers>(requests.iter().map(answer).collect())
    };
    let alone = async move |Json(request): Json<Request>| {
        each.fetch_add(1, Relaxed);
        assert!(is_odd(&request), "an answer was not taken");
        Json(word(1))
    };
    let router = Router::new().route("/v1/asks", post(together)).route("/v1/ask", post(alone));
    let link = Link::new([Peer::router(router)]);
    let report = |epoch: u64| {
        let slot = Slot { job: Digest::of(b"job"), round: 0, piece: Piece::Unit(0) };
        let lease = Lease { slot, root: slot.job, epoch };
        Request::Report { lease, outcome: Outcome::Released { pause_ms: 0 } }
    };
    let asks = (0..100).map(async |epoch| link.ask(&report(epoch)).await.unwrap());
    let answers = join_all(asks).await;
    assert!(answers.iter().enumerate().all(|(i, answer)| *answer == word((i % 2) as u8)));
    assert_eq!(singles.load(Relaxed), 50);
    assert!(groups.load(Relaxed) < 10, "{} requests", groups.load(Relaxed));
}
