//! What reads bytes from strangers. No bytes may make it panic, take for ever, or take more memory than they should.

use std::{collections::VecDeque, time::Duration};

use axum::{Router, body::Body};
use dml_compute::{
    Engine, Model, Registry,
    table::{ArrowTable, Importer, Limits, decode, encode, from_json_rows, read_rows, write_csv},
};
use dml_core::{
    ColumnType, Digest, Member, Node, NodeId,
    node::{Effect, Event, Letter, Request, Settings},
    record::Record,
    swim::{self, Swim},
};
use dml_net::{
    Db, Peer, Worker,
    identity::{Credentials, JoinToken, Party, Secret},
    link::Link,
    view::{DatasetView, TrainingView},
    worker,
};

/// A CSV file. What comes of it is written, and read as the same rows.
pub(crate) fn csv(bytes: &[u8]) {
    let mut importer =
        Importer::new(tempfile::tempfile().expect("there is room for a file"), Limits::default());
    let (first, second) = bytes.split_at(bytes.len() / 2);
    let mut chunks = Vec::new();
    for piece in [first, second] {
        let Ok(more) = importer.push(piece) else { return };
        chunks.extend(more);
    }
    let Ok(mut table) = importer.finish() else { return };
    chunks.truncate(table.kept());
    chunks.extend(table.by_ref().map(|chunk| chunk.expect("its types are known")));
    assert_eq!(chunks.iter().map(|chunk| chunk.num_rows() as u64).sum::<u64>(), table.rows());
    assert_eq!(table.columns().len(), table.types().len());
    let mut text = Vec::new();
    write_csv(&chunks[0], true, &mut text);
    let again = read_rows(&text, &Limits::default()).expect("what was written is read");
    assert_eq!(again.num_rows(), chunks[0].num_rows());
}

/// An Arrow file or stream. What comes of it is a chunk that is read again.
pub(crate) fn arrow(bytes: &[u8]) {
    let Ok(mut table) = ArrowTable::new(bytes, Limits::default()) else { return };
    for chunk in table.by_ref().take(4) {
        let Ok(chunk) = chunk else { return };
        assert_eq!(decode(&encode(&chunk)).expect("what was written is read"), chunk);
    }
    assert_eq!(table.columns().len(), table.types().len());
}

/// A chunk of a stored table.
pub(crate) fn chunk(bytes: &[u8]) {
    if let Ok(rows) = decode(bytes) {
        write_csv(&rows, true, &mut Vec::new());
    }
}

/// A model; its seal is put right, so that what is behind it is reached. It predicts, or says why not.
pub(crate) fn model(bytes: &[u8]) {
    let _ = Model::from_bytes(bytes);
    let mut sealed = bytes[..bytes.len().saturating_sub(32)].to_vec();
    let seal = Digest::of(&sealed);
    sealed.extend(seal.as_bytes());
    let Ok(model) = Model::from_bytes(&sealed) else { return };
    let registry = Registry::default();
    let _ = model.to_json(&registry);
    let inputs = model.inputs();
    let Some((name, _)) = inputs.first() else { return };
    let row = [(name.clone(), serde_json::Value::Null)].into_iter().collect();
    if let Ok(rows) = from_json_rows(&[row], &inputs) {
        let _ = model.predict(&registry, &rows);
    }
}

/// A record, as it is stored and sent. What is read is written as the same.
pub(crate) fn record(bytes: &[u8]) {
    if let Ok(record) = Record::from_bytes(bytes) {
        assert_eq!(Record::from_bytes(&record.to_bytes()), Ok(record));
    }
}

/// A member of a cluster that is only thought of.
pub(crate) fn member(n: u8) -> Member {
    Member { id: NodeId::new(n.into()), address: ([10, 0, 0, n], 7301).into(), generation: 1 }
}

/// The brain of a db node that knows another.
pub(crate) fn brain(me: u8, other: u8) -> Node {
    let mut node = Node::new(Settings::default(), member(me), []);
    drive(&mut node, Event::Active(member(other)));
    node
}

/// Hands an event to a brain and does what it says; gives the letters that it sends.
pub(crate) fn drive(node: &mut Node, event: Event) -> Vec<Letter> {
    let (mut events, mut letters) = (VecDeque::from([event]), Vec::new());
    for second in 1..1000 {
        let Some(event) = events.pop_front() else { return letters };
        for effect in node.handle(Duration::from_secs(second), event) {
            match effect {
                Effect::Persist { write, .. } => events.push_back(Event::Persisted(write)),
                Effect::Send { letter, .. } => letters.push(letter),
                Effect::Reply(..) | Effect::Discard(_) | Effect::Remember(_) => {}
            }
        }
    }
    panic!("one event keeps the brain busy for ever");
}

/// Letters of another db node, put right as to who writes to whom. Whatever they say, the brain goes on.
pub(crate) fn letters(bytes: &[u8]) {
    let Ok(letters) = rmp_serde::from_slice::<Vec<Letter>>(bytes) else { return };
    let written = rmp_serde::to_vec_named(&letters).expect("letters are written to memory");
    assert!(rmp_serde::from_slice::<Vec<Letter>>(&written).is_ok(), "what was written is read");
    let (me, them) = (member(1), member(2));
    let mut node = brain(1, 2);
    for letter in letters {
        let (from, generation, to, life) = (them.id, them.generation, me.id, me.generation);
        drive(&mut node, Event::Letter(Letter { from, generation, to, life, ..letter }));
    }
    drive(&mut node, Event::Tick);
}

/// What a worker asks of a db node. Whatever it is, the brain goes on.
pub(crate) fn ask(bytes: &[u8]) {
    let Ok(request) = serde_json::from_slice::<Request>(bytes) else { return };
    let mut node = brain(1, 2);
    for ticket in 1..3 {
        drive(&mut node, Event::Request { ticket, request: request.clone(), time_ms: 7 });
    }
    drive(&mut node, Event::Tick);
}

/// A datagram of the membership.
pub(crate) fn datagram(bytes: &[u8]) {
    let mut swim = Swim::new(member(1), swim::Settings::default(), 1, [member(3)]);
    let known = swim::sender(bytes).is_some();
    swim.handle(Duration::ZERO, swim::Event::Greeted(member(2)));
    let effects = swim.handle(Duration::from_secs(1), swim::Event::Datagram(bytes.to_vec()));
    swim.handle(Duration::from_secs(9), swim::Event::Tick);
    assert!(known || !effects.iter().any(|effect| matches!(effect, swim::Effect::Active(_))));
}

/// What says who somebody is: files of certificates and keys, tokens.
pub(crate) fn identity(bytes: &[u8]) {
    if let Ok(Credentials::Own(own)) = Credentials::from_pem(bytes) {
        let _ = own.accept();
        assert!(Credentials::from_pem(own.to_pem().as_bytes()).is_ok(), "what was written is read");
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = (text.parse::<Secret>(), text.parse::<Party>());
    if let Ok(token) = text.parse::<JoinToken>() {
        assert_eq!(token.reveal().parse(), Ok(token));
    }
}

/// The files of a snapshot that are not tables or models.
pub(crate) fn snapshot(bytes: &[u8]) {
    if let Ok(dataset) = serde_json::from_slice::<DatasetView>(bytes) {
        let written = serde_json::to_vec(&dataset).expect("views have string keys");
        assert!(serde_json::from_slice::<DatasetView>(&written).is_ok(), "what was written is read");
    }
    if let Ok(training) = serde_json::from_slice::<TrainingView>(bytes) {
        let written = serde_json::to_vec(&training).expect("views have string keys");
        assert!(serde_json::from_slice::<TrainingView>(&written).is_ok(), "what was written is read");
    }
}

thread_local! {
    /// A worker that computes nothing, for a db node in memory.
    static USERS: (tokio::runtime::Runtime, Router) = {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("the system has room for a runtime");
        let router = runtime.block_on(async {
            let db = Db::in_memory().expect("memory does not fail");
            let engine = Engine::new(Registry::default());
            Worker::new(Link::new([Peer::router(db.router())]), engine, worker::Options::default()).router()
        });
        (runtime, router)
    };
}

/// JSON from a user, at every route that takes some. It is done or refused, and never the worker's fault.
pub(crate) fn request(bytes: &[u8]) {
    let columns = [("n", ColumnType::Float), ("c", ColumnType::Text), ("d", ColumnType::Date)];
    if let Ok(rows) = serde_json::from_slice::<Vec<serde_json::Map<String, serde_json::Value>>>(bytes) {
        let _ = from_json_rows(&rows, &columns.map(|(name, kind)| (name.to_string(), kind)));
    }
    USERS.with(|(runtime, router)| {
        for path in ["trainings", "predictions", "models/none/predict", "tokens", "revocations"] {
            let request =
                hyper::Request::post(format!("/v1/{path}")).header("content-type", "application/json");
            let request = request.body(Body::from(bytes.to_vec())).expect("a plain path");
            let answer = runtime.block_on(Peer::router(router.clone()).call(request)).expect("it is here");
            assert!(answer.status() != 500, "{path} answers with {}", answer.status());
        }
    });
}
