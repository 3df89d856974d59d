//! `dml model pull`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use dml_compute::Model;
use dml_core::Digest;
use serde::Deserialize;
use serde_json::json;

use super::{
    bucket::Bucket,
    index::{CARD, Entry, FILE, Index, is_plain},
    url::Url,
};
use crate::{
    console::{Console, size},
    failure::Failure,
    model::file_name,
};

/// How many trainings are named to who has named none.
const SHOWN: usize = 20;

/// A model that was found: where it is, what it is called, and which bytes it has, if that is known.
struct Found {
    url: Url,
    name: String,
    digest: Option<Digest>,
}

/// What of a card matters here.
#[derive(Deserialize)]
struct Card {
    name: String,
    digest: Digest,
}

/// Brings a model back as a file, if it is the one that was pushed.
pub(crate) async fn pull(console: &Console, from: &str, output: Option<PathBuf>) -> Result<(), Failure> {
    let url = Url::parse(from)?;
    let bucket = Bucket::open(&url)?;
    let found = find(&bucket, &url).await?;
    let bytes = bucket.get(&found.url).await?.ok_or_else(|| missing(&bucket, &found))?;
    check(&found, &bytes)?;
    let path = output.unwrap_or_else(|| format!("{}.dml", file_name(&found.name)).into());
    if path.as_os_str() == "-" {
        return console.bytes(&bytes);
    }
    save(&path, &bytes)?;
    let digest = Digest::of(&bytes);
    let document = json!({
        "url": found.url.to_string(), "name": found.name, "file": path, "bytes": bytes.len(), "digest": digest,
    });
    console.show(&document, || format!("{}: {}, {}", path.display(), found.name, size(bytes.len() as u64)))
}

/// The model that an address means: its own file, the best of a training, or one of a training by its name.
async fn find(bucket: &Bucket, url: &Url) -> Result<Found, Failure> {
    if url.path.as_ref().ends_with(".dml") {
        return by_key(bucket, url).await;
    }
    if let Some(index) = index(bucket, url).await? {
        let best = index.models.first().ok_or_else(|| bucket.nothing(url))?;
        return listed(url, &index, best);
    }
    if let Some((above, last)) = url.split()
        && let Some(index) = index(bucket, &above).await?
    {
        let model = index.find(last).ok_or_else(|| {
            let names: Vec<&str> = index.models.iter().map(|entry| entry.name.as_str()).collect();
            bucket.nothing(url).hint(format!("{above} has {}", names.join(", ")))
        })?;
        return listed(&above, &index, model);
    }
    let below = bucket.below(url).await?;
    Err(match below.as_slice() {
        [] => bucket.nothing(url),
        some => {
            let more = if some.len() > SHOWN { ", …" } else { "" };
            let some = some[..some.len().min(SHOWN)].join(", ");
            bucket.nothing(url).hint(format!("name one of those below: {some}{more}"))
        }
    })
}

async fn index(bucket: &Bucket, url: &Url) -> Result<Option<Index>, Failure> {
    let url = url.below(FILE)?;
    let bytes = bucket.get(&url).await?;
    bytes.map(|bytes| Index::read(&bytes, &url)).transpose()
}

fn listed(home: &Url, index: &Index, entry: &Entry) -> Result<Found, Failure> {
    let name = format!("{}/{}", index.name, entry.name);
    Ok(Found { url: home.below(&entry.path)?, name, digest: Some(entry.digest) })
}

/// A model by its own key; the card beside it says which bytes it has.
async fn by_key(bucket: &Bucket, url: &Url) -> Result<Found, Failure> {
    let (above, last) = url.split().expect("it has a name");
    let card = bucket.get(&above.below(CARD)?).await?;
    let card: Option<Card> = card.and_then(|card| serde_json::from_slice(&card).ok());
    let card = card.filter(|card| is_plain(&card.name));
    let name = card.as_ref().map_or_else(|| last.trim_end_matches(".dml").into(), |card| card.name.clone());
    Ok(Found { url: url.clone(), name, digest: card.map(|card| card.digest) })
}

fn missing(bucket: &Bucket, found: &Found) -> Failure {
    let failure = bucket.nothing(&found.url);
    match found.digest {
        Some(_) => failure.hint("the index knows it, but it was not pushed: `dml model push --all` does"),
        None => failure,
    }
}

/// Refuses bytes that are not those that were pushed.
fn check(found: &Found, bytes: &[u8]) -> Result<(), Failure> {
    let url = &found.url;
    let wrong = match found.digest {
        Some(digest) if digest == Digest::of(bytes) => return Ok(()),
        Some(digest) => format!("{url} is not the model that was pushed: its blake3 is not {digest}"),
        // Nobody says what it should be; but a model is sealed.
        None => match Model::from_bytes(bytes) {
            Ok(_) => return Ok(()),
            Err(error) => format!("{url}: {error}"),
        },
    };
    Err(Failure::input(wrong).hint("it was damaged or replaced since: remove it there, and push it again"))
}

/// Writes a file that is there whole or not at all.
fn save(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let part = path.with_added_extension("part");
    let saved = fs::write(&part, bytes).and_then(|()| fs::rename(&part, path));
    saved.map_err(|error| {
        // It may not have come into being.
        let _ = fs::remove_file(&part);
        Failure::file(path, &error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_were_not_pushed_are_refused() {
        let url = Url::parse("s3://models/birds/logistic-012345678901/model.dml").unwrap();
        let found = |digest| Found { url: url.clone(), name: "birds/logistic".into(), digest };
        assert!(check(&found(Some(Digest::of(b"model"))), b"model").is_ok());
        for bytes in [&b"mode"[..], b"modeL", b""] {
            let failure = check(&found(Some(Digest::of(b"model"))), bytes).unwrap_err();
            assert!(failure.what().contains("not the model that was pushed"), "{}", failure.what());
            assert!(check(&found(None), bytes).is_err(), "it has no seal either");
        }
    }

    #[test]
    fn a_file_is_there_whole_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("birds.dml");
        save(&path, b"model").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"model");
        let blocked = directory.path().join("blocked");
        fs::create_dir(&blocked).unwrap();
        assert!(save(&blocked, b"model").is_err());
        let left: Vec<_> =
            fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "{left:?}");
    }
}
