//! Small writes to db nodes, and whether they are kept.

use axum::body::Body as HttpBody;
use dml_core::{
    Body, Chunk, Dataset, Digest, Record,
    node::{Request, Response},
};
use dml_net::{
    link::{Link, LinkError},
    peer::Peer,
};
use dml_store::Store;
use http_body_util::BodyExt;

use crate::{hosts::db, net::peer};

/// What was acknowledged: a record, the bytes that it names, and on how many nodes they were said to be.
#[derive(Clone, Debug)]
pub(crate) struct Promise {
    pub(crate) dataset: Dataset,
    pub(crate) chunks: Vec<Vec<u8>>,
    pub(crate) replicas: u32,
}

/// Writes two blobs and a record that names them.
pub(crate) async fn write(link: &Link, text: String) -> Result<Promise, LinkError> {
    let chunks = vec![text.clone().into_bytes(), text.repeat(700).into_bytes()];
    let mut dataset = Dataset { rows: 2, columns: Vec::new(), chunks: Vec::new() };
    for chunk in &chunks {
        let digest = link.put_blob(chunk.clone()).await?;
        dataset.chunks.push(Chunk { digest, rows: 1, bytes: chunk.len() as u64 });
    }
    let request = Request::Create { body: Body::Dataset(dataset.clone()), name: Some(text) };
    let Response::Created { replicas, .. } = link.ask(&request).await? else {
        return Err(LinkError::Garbled("no word of what was created"));
    };
    Ok(Promise { dataset, chunks, replicas })
}

impl Promise {
    /// The dataset of this id, as it can be read now.
    pub(crate) async fn of(link: &Link, id: Digest, replicas: Option<u32>) -> Result<Self, LinkError> {
        let garbled = LinkError::Garbled("no dataset");
        let watch = Request::Watch { id, seen: 0, wait_ms: 0 };
        let Response::Family { entries, .. } = link.ask(&watch).await? else { return Err(garbled) };
        let body = entries.into_iter().next().and_then(|entry| entry.record.body);
        let Some(Body::Dataset(dataset)) = body else { return Err(garbled) };
        let mut chunks = Vec::new();
        for chunk in &dataset.chunks {
            chunks.push(link.blob(chunk.digest).await?.to_vec());
        }
        Ok(Self { dataset, chunks, replicas: replicas.unwrap_or(0) })
    }

    /// Whether a store keeps it, byte for byte. What a store refuses to read is not kept.
    pub(crate) fn is_in(&self, store: &impl Store) -> bool {
        let records = store.records().unwrap_or_default();
        let id = self.dataset.id();
        let record = records.iter().find(|(key, _)| *key == id);
        let body = record.and_then(|(_, bytes)| Record::from_bytes(bytes).expect("it is ours").body);
        let blob = |chunk: &Vec<u8>| store.blob(Digest::of(chunk)).ok().flatten();
        body == Some(Body::Dataset(self.dataset.clone()))
            && self.chunks.iter().all(|chunk| blob(chunk).as_ref() == Some(chunk))
    }

    /// Whether the db node number `n` answers with it, of its own bytes; else what is wrong.
    pub(crate) async fn is_served_by(&self, n: usize) -> Result<(), String> {
        let peer = peer(db(n));
        for chunk in &self.chunks {
            let digest = Digest::of(chunk);
            let found = bytes_of(&peer, &format!("/v1/blobs/{digest}?here=true")).await?;
            if found != *chunk {
                return Err(format!("{digest} is {} bytes at {n}", found.len()));
            }
        }
        let watch = Request::Watch { id: self.dataset.id(), seen: 0, wait_ms: 0 };
        let answer = Link::new([peer]).ask(&watch).await.map_err(|error| format!("at {n}: {error}"))?;
        let Response::Family { entries, .. } = answer else { return Err(format!("{answer:?} at {n}")) };
        let body = entries.into_iter().next().and_then(|entry| entry.record.body);
        if body == Some(Body::Dataset(self.dataset.clone())) {
            Ok(())
        } else {
            Err(format!("{body:?} at {n}"))
        }
    }
}

async fn bytes_of(peer: &Peer, path: &str) -> Result<Vec<u8>, String> {
    let request = hyper::Request::get(path).body(HttpBody::empty()).expect("a plain path");
    let answer = peer.call(request).await.map_err(|error| error.to_string())?;
    let status = answer.status();
    let body = answer.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
    if status.is_success() { Ok(body.into()) } else { Err(format!("{path}: {status}")) }
}

/// Whether every db node serves all of these, of its own; else the first that does not.
pub(crate) async fn everywhere(promises: Vec<Promise>) -> Result<(), String> {
    for promise in promises {
        for n in 0..3 {
            promise.is_served_by(n).await?;
        }
    }
    Ok(())
}
