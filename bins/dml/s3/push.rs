//! `dml model push`.

use std::time::Duration;

use bytes::Bytes;
use dml_core::Digest;
use dml_net::{ClientError, view::ModelView};
use serde::Serialize;
use serde_json::json;

use super::{
    bucket::Bucket,
    index::{CARD, Entry, FILE, Index, MODEL},
    url::Url,
};
use crate::{
    connect::Session,
    console::{counted, size},
    failure::Failure,
    progress,
};

const JSON: &str = "application/json";
const BYTES: &str = "application/octet-stream";

/// What has become of a model's files.
#[derive(Debug, Serialize)]
struct Pushed {
    id: Digest,
    name: String,
    url: String,
    /// What was sent.
    sent: Vec<&'static str>,
    /// What was there already.
    there: Vec<&'static str>,
    /// How many bytes were sent.
    bytes: u64,
}

/// Puts a model, or all finished ones of a training, into a bucket.
pub(crate) async fn push(session: &Session<'_>, what: &str, to: &str, all: bool) -> Result<(), Failure> {
    let url = Url::parse(to)?;
    let bucket = Bucket::open(&url)?;
    let asked = model(session, what).await?;
    let training = session.client.training(&asked.training.to_string()).await?;
    let index = Index::of(&training);
    let home = url.below(&index.name)?;
    let wanted = index.models.iter().filter(|entry| all || entry.id == asked.id);
    let wanted: Vec<&Entry> = wanted.collect();
    let bar = progress::push(session.console, wanted.len());
    let mut pushed = Vec::new();
    for entry in wanted {
        bar.set_message(entry.name.clone());
        let model = send(session, &bucket, &home, entry).await?;
        bar.inc(1);
        if !session.console.lively {
            session.console.say(&told(&model));
        }
        pushed.push(model);
    }
    bar.finish_and_clear();
    // Last, so that the models it begins with are there.
    let text = serde_json::to_vec_pretty(&index).expect("its keys are texts");
    let listed = home.below(FILE)?;
    let fresh = !bucket.has(&listed, &Digest::of(&text)).await?;
    if fresh {
        bucket.put(&listed, JSON, text.into()).await?;
    }
    let sent = pushed.iter().map(|model| model.sent.len()).sum::<usize>() + usize::from(fresh);
    let there = pushed.iter().map(|model| model.there.len()).sum::<usize>() + usize::from(!fresh);
    let bytes: u64 = pushed.iter().map(|model| model.bytes).sum();
    let document = json!({
        "url": home.to_string(), "index": listed.to_string(), "training": training.id, "models": pushed,
        "files_sent": sent, "files_there": there, "bytes_sent": bytes,
    });
    session.console.show(&document, || {
        let models = counted(pushed.len() as u64, "model");
        let sent = counted(sent as u64, "file");
        format!("{home}: {models}; {sent} sent ({}), {there} were there already", size(bytes))
    })
}

/// The model that a text names: itself, or the best of a training or of a study.
async fn model(session: &Session<'_>, what: &str) -> Result<ModelView, Failure> {
    let refused = match session.client.model(what).await {
        Err(ClientError::Problem(problem)) => problem,
        answered => return Ok(answered?),
    };
    match session.client.study(what, Duration::ZERO).await {
        Ok(study) => {
            let none = || Failure::failed(format!("the study '{what}' has no models yet: wait for its end"));
            let training = study.training.ok_or_else(none)?;
            Ok(session.client.model(&training.to_string()).await?)
        }
        Err(_) => Err(refused.into()),
    }
}

/// Sends those files of a model that are not there.
async fn send(session: &Session<'_>, bucket: &Bucket, home: &Url, entry: &Entry) -> Result<Pushed, Failure> {
    let id = entry.id.to_string();
    let native = home.below(&entry.path)?;
    let (directory, _) = native.split().expect("a model is below its training");
    let mut pushed = Pushed {
        id: entry.id,
        name: entry.name.clone(),
        url: native.to_string(),
        sent: Vec::new(),
        there: Vec::new(),
        bytes: 0,
    };
    // What its digest says to be there is not even fetched from the cluster.
    if bucket.has(&native, &entry.digest).await? {
        pushed.there.push(MODEL);
    } else {
        let bytes = session.client.download(&id, "native").await?;
        pushed.bytes += bytes.len() as u64;
        bucket.put(&native, BYTES, bytes).await?;
        pushed.sent.push(MODEL);
    }
    let card = ModelView { curves: None, ..session.client.model(&id).await? };
    let card = serde_json::to_vec_pretty(&card).expect("its keys are texts");
    let mut others: Vec<(&'static str, &'static str, Bytes)> = vec![(CARD, JSON, card.into())];
    match session.client.download(&id, "onnx").await {
        Ok(onnx) => others.push(("model.onnx", BYTES, onnx)),
        // Some kinds have no such file.
        Err(ClientError::Problem(problem)) if problem.code == "not-exportable" => {}
        Err(error) => return Err(error.into()),
    }
    for (file, kind, bytes) in others {
        let url = directory.below(file)?;
        if bucket.has(&url, &Digest::of(&bytes)).await? {
            pushed.there.push(file);
        } else {
            pushed.bytes += bytes.len() as u64;
            bucket.put(&url, kind, bytes).await?;
            pushed.sent.push(file);
        }
    }
    Ok(pushed)
}

fn told(model: &Pushed) -> String {
    match model.sent.as_slice() {
        [] => format!("{}: was there already", model.name),
        sent => format!("{}: sent {} ({})", model.name, sent.join(", "), size(model.bytes)),
    }
}
