//! The loop around the brain: waits for an event or the deadline, lets the brain decide, does what it says. Writes are
//! grouped: while one is on its way to the disk the next ones gather, and go together.

use std::{
    collections::{BTreeMap, HashMap},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use dml_core::{
    Digest, Member, Node, NodeId, Record,
    node::{Assignment, Effect, Event, Letter, Outcome, Request, Response, Ticket},
};
use dml_store::{Store, StoreError};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

use super::{DbError, MEMBERS, meters::Meters, post::Post};
use crate::membership::Change;

/// How many requests may wait to be looked at; beyond that, askers wait.
const QUEUE: usize = 1024;

/// A blob that was put again so lately is about to be named.
const GRACE: Duration = Duration::from_secs(30);

enum Message {
    Ask(Ticket, Box<Request>, oneshot::Sender<Response>),
    Gone(Ticket),
    Letter(Box<Letter>),
    Change(Change),
    Look(Box<dyn FnOnce(&Node) + Send>),
}

/// Where requests, letters and news go.
pub(super) struct Inbox {
    sender: mpsc::Sender<Message>,
    tickets: AtomicU64,
}

impl Inbox {
    /// Asks the brain; none if it has stopped. Dropping the future withdraws the request if it still waits.
    pub(super) async fn ask(&self, request: Request) -> Option<Response> {
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        self.sender.send(Message::Ask(ticket, Box::new(request), reply)).await.ok()?;
        let mut withdraw = Withdraw { ticket: Some(ticket), sender: self.sender.clone() };
        let answer = answer.await.ok();
        withdraw.ticket = None;
        answer
    }

    /// Hands over a letter of which the blobs are here.
    pub(super) async fn deliver(&self, letter: Letter) {
        // After the end of the loop nobody reads.
        let _ = self.sender.send(Message::Letter(Box::new(letter))).await;
    }

    /// Tells which nodes are there.
    pub(super) async fn tell(&self, change: Change) {
        let _ = self.sender.send(Message::Change(change)).await;
    }

    /// Looks at the brain; none if it has stopped.
    pub(super) async fn look<T: Send + 'static>(
        &self,
        at: impl FnOnce(&Node) -> T + Send + 'static,
    ) -> Option<T> {
        let (tell, told) = oneshot::channel();
        let look = move |node: &Node| {
            // Whoever asked may have gone.
            let _ = tell.send(at(node));
        };
        self.sender.send(Message::Look(Box::new(look))).await.ok()?;
        told.await.ok()
    }
}

/// Tells the brain that nobody waits for the answer any more.
struct Withdraw {
    ticket: Option<Ticket>,
    sender: mpsc::Sender<Message>,
}

impl Drop for Withdraw {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            // With a full queue the request is answered in vain, when its wait is over.
            let _ = self.sender.try_send(Message::Gone(ticket));
        }
    }
}

/// Starts the loop. The watch tells why it ended, if it did because of a failure.
pub(super) fn spawn(
    node: Node,
    store: Arc<dyn Store>,
    post: Option<Post>,
    meters: Arc<Meters>,
) -> (Inbox, watch::Receiver<Option<Arc<DbError>>>) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let (ended, end) = watch::channel(None);
    let shell = Loop {
        node,
        store,
        post,
        meters,
        divergences: 0,
        start: Instant::now(),
        asked: HashMap::new(),
        gathered: Vec::new(),
        members: Arc::default(),
        writing: None,
    };
    tokio::spawn(async move {
        if let Err(error) = shell.run(receiver).await {
            tracing::error!(%error, "the store failed: this db node stops");
            ended.send_replace(Some(Arc::new(error)));
        }
    });
    (Inbox { sender, tickets: AtomicU64::new(1) }, end)
}

struct Loop {
    node: Node,
    store: Arc<dyn Store>,
    post: Option<Post>,
    meters: Arc<Meters>,
    divergences: u64,
    start: Instant,
    asked: HashMap<Ticket, oneshot::Sender<Response>>,
    /// Writes that wait for the one on its way.
    gathered: Vec<(u64, Changes)>,
    /// Who the other db nodes are, as it is to be written down.
    members: Arc<Mutex<Vec<Member>>>,
    /// The write on its way, and the numbers of those that it makes durable.
    writing: Option<(Vec<u64>, Write)>,
}

/// Records to be written, and none where one is to go.
type Changes = Vec<(Digest, Option<Record>)>;

/// A write that is being made durable.
type Write = Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send>>;

impl Loop {
    async fn run(mut self, mut inbox: mpsc::Receiver<Message>) -> Result<(), DbError> {
        loop {
            let deadline = self.node.deadline(self.start.elapsed());
            let sleep = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(self.start + at).await,
                    None => std::future::pending().await,
                }
            };
            let written = async {
                match &mut self.writing {
                    Some((_, write)) => write.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                message = inbox.recv() => {
                    let Some(message) = message else { return self.finish().await };
                    self.take(message);
                    // What else arrives goes into the same write: whoever is about to ask comes first.
                    tokio::task::yield_now().await;
                    for _ in 0..QUEUE {
                        let Ok(message) = inbox.try_recv() else { break };
                        self.take(message);
                    }
                }
                result = written => {
                    result?;
                    let (writes, _) = self.writing.take().expect("it has just ended");
                    writes.into_iter().for_each(|write| self.hear(Event::Persisted(write)));
                }
                () = sleep => self.hear(Event::Tick),
            }
            self.act();
            self.write();
        }
    }

    /// Nobody can ask any more: the last writes are carried out.
    async fn finish(mut self) -> Result<(), DbError> {
        while let Some((_, write)) = self.writing.take() {
            write.await?;
            self.write();
        }
        Ok(())
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Ask(ticket, request, reply) => {
                self.asked.insert(ticket, reply);
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                self.hear(Event::Request { ticket, request: *request, time_ms: now.as_millis() as u64 });
            }
            Message::Gone(ticket) => {
                self.asked.remove(&ticket);
                self.hear(Event::Gone(ticket));
            }
            Message::Letter(letter) => self.hear(Event::Letter(*letter)),
            Message::Change(Change::Active(member)) => {
                if let Some(post) = &self.post {
                    post.connect(member);
                }
                self.hear(Event::Active(member));
            }
            Message::Change(Change::Inactive { id, .. }) => self.hear(Event::Inactive(id)),
            Message::Look(look) => look(&self.node),
        }
    }

    fn hear(&mut self, event: Event) {
        self.node.take(self.start.elapsed(), event);
    }

    /// Does what follows from all that was heard.
    fn act(&mut self) {
        let mut letters: BTreeMap<NodeId, Vec<Letter>> = BTreeMap::new();
        let mut effects = self.node.act();
        while !effects.is_empty() {
            let mut unheard = Vec::new();
            for effect in effects {
                match effect {
                    Effect::Persist { write, records } => self.gathered.push((write, records)),
                    Effect::Reply(ticket, response) => unheard.extend(self.reply(ticket, response)),
                    Effect::Discard(blobs) => self.discard(blobs),
                    Effect::Remember(members) => self.remember(members),
                    Effect::Send { to, letter } => letters.entry(to).or_default().push(letter),
                }
            }
            effects = self.take_back(unheard);
        }
        if let Some(post) = &self.post {
            letters.into_iter().for_each(|(to, letters)| post.send(to, letters));
        }
        if self.node.divergences() > self.divergences {
            self.divergences = self.node.divergences();
            tracing::error!(
                count = self.divergences,
                "two results of the same work differ: a machine computes wrong, or a disk or a learner is at fault"
            );
        }
    }

    /// Answers. Gives the work that nobody waits for any more.
    fn reply(&mut self, ticket: Ticket, response: Response) -> Vec<Assignment> {
        let unheard = match self.asked.remove(&ticket) {
            Some(reply) => reply.send(response).err(),
            None => Some(response),
        };
        if let Some(Response::Work(work)) = unheard { work } else { Vec::new() }
    }

    fn take_back(&mut self, work: Vec<Assignment>) -> Vec<Effect> {
        if work.is_empty() {
            return Vec::new();
        }
        for assignment in work {
            let outcome = Outcome::Released { pause_ms: 0 };
            let request = Request::Report { lease: assignment.lease, outcome };
            self.hear(Event::Request { ticket: 0, request, time_ms: 0 });
        }
        self.node.act()
    }

    /// Starts the next write, if none is on its way. A record that was changed several times is written once.
    fn write(&mut self) {
        if self.writing.is_some() || self.gathered.is_empty() {
            return;
        }
        let gathered = std::mem::take(&mut self.gathered);
        let writes = gathered.iter().map(|(write, _)| *write).collect();
        let mut latest = BTreeMap::new();
        gathered.into_iter().for_each(|(_, records)| latest.extend(records));
        let batch: Vec<_> =
            latest.into_iter().map(|(id, record)| (id, record.map(|record| record.to_bytes()))).collect();
        let write = commit(self.store.clone(), Arc::new(batch), self.meters.clone());
        self.writing = Some((writes, Box::pin(write)));
    }

    /// Writes down who the other db nodes are. A failure is no more than a longer way to them after the next start.
    fn remember(&self, members: Vec<Member>) {
        let (store, latest) = (self.store.clone(), self.members.clone());
        *latest.lock().expect("nobody panics while holding it") = members;
        tokio::task::spawn_blocking(move || {
            // Who comes second writes the same or what is newer.
            let members = latest.lock().expect("nobody panics while holding it");
            let bytes = serde_json::to_vec(&*members).expect("members have no maps");
            if let Err(error) = store.set_setting(MEMBERS, &bytes) {
                tracing::warn!(%error, "who is in the cluster could not be written down");
            }
        });
    }

    /// Removes blobs that nothing refers to. A failure leaves garbage, which the sweep at the next start finds.
    fn discard(&self, blobs: Vec<Digest>) {
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || {
            for blob in blobs {
                if let Err(error) = store.remove_blob(blob, GRACE) {
                    tracing::warn!(%blob, %error, "a blob could not be removed");
                }
            }
        });
    }
}

/// Makes a batch durable. While the disk is full it waits for space: those who ask wait with it, and nothing is lost.
async fn commit(
    store: Arc<dyn Store>,
    batch: Arc<Vec<(Digest, Option<Vec<u8>>)>>,
    meters: Arc<Meters>,
) -> Result<(), StoreError> {
    let start = Instant::now();
    loop {
        let (store, batch) = (store.clone(), batch.clone());
        let done = tokio::task::spawn_blocking(move || store.commit(&batch)).await;
        match done.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic())) {
            Err(error @ StoreError::Full { .. }) => {
                tracing::warn!(%error, "records wait for space");
                tokio::time::sleep(FULL).await;
            }
            done => {
                meters.records.observe(start.elapsed());
                return done;
            }
        }
    }
}

/// How long to wait before a full disk is tried again.
const FULL: Duration = Duration::from_secs(1);
