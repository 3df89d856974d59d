//! The table that a command works on: a file, stdin, or a dataset that is there already.

use std::{
    fs::File,
    io::{IsTerminal, Read, stdin},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use dml_net::{client::Piece, view::DatasetView};
use futures_util::{Stream, stream};
use indicatif::ProgressBar;
use tokio::sync::mpsc;

use crate::{
    connect::Session,
    console::{count, counted, handle},
    failure::Failure,
    progress,
};

/// How much is read from the disk at a time.
const PIECE: usize = 256 << 10;

/// How many pieces wait for the network.
const AHEAD: usize = 4;

/// The dataset that the user means: a file is uploaded under its name, `-` is stdin, all else names a dataset.
pub(crate) async fn dataset(session: &Session<'_>, table: &str) -> Result<DatasetView, Failure> {
    if table == "-" || Path::new(table).exists() {
        return upload(session, table, None).await;
    }
    let found = session.client.dataset(table).await.map_err(Failure::from);
    found.map_err(|failure| match failure.is_not_found() {
        true => Failure::not_found(format!("there is no file '{table}', and no dataset of that name"))
            .hint(format!("`{} dataset ls` lists datasets", session.place.dml())),
        false => failure,
    })
}

/// Uploads a file, or stdin if it is `-`, as it is read: memory stays small whatever its size.
pub(crate) async fn upload(
    session: &Session<'_>,
    file: &str,
    name: Option<&str>,
) -> Result<DatasetView, Failure> {
    let path = Path::new(file);
    let bar = progress::upload(session.console, if file == "-" { "stdin" } else { file });
    let (input, stem): (Box<dyn Read + Send>, _) = if file == "-" {
        if stdin().is_terminal() {
            session.console.say("reading the table from the terminal: end it with ctrl-d");
        }
        (Box::new(stdin()), "stdin".into())
    } else {
        let opened = File::open(path).and_then(|input| Ok((input.metadata()?, input)));
        let (metadata, input) = opened.map_err(|error| Failure::file(path, &error))?;
        if metadata.is_dir() {
            return Err(Failure::failed(format!("{file} is a directory, not a table")));
        }
        if metadata.is_file() {
            bar.set_length(metadata.len());
        }
        (Box::new(input), stem(path))
    };
    let uploaded =
        session.client.upload(name.unwrap_or(&stem), content_type(path), pieces(input, bar.clone())).await;
    bar.finish_and_clear();
    let dataset = uploaded?;
    let DatasetView { rows, columns, .. } = &dataset;
    let columns = count(columns.len() as u64);
    let what = handle(dataset.name.as_ref(), &dataset.id);
    session.console.say(&format!("dataset {what}: {}, {columns} columns", counted(*rows, "row")));
    Ok(dataset)
}

/// The file's name without its endings: `houses` of `houses.csv.gz`.
fn stem(path: &Path) -> String {
    unpacked(path).file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Without the ending that says how it is compressed. The cluster sees that in the first bytes, and decodes it.
fn unpacked(path: &Path) -> PathBuf {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("gz" | "zst" | "zstd") => path.with_extension(""),
        _ => path.to_owned(),
    }
}

/// What the file says it is; the cluster looks at the bytes themselves.
fn content_type(path: &Path) -> &'static str {
    match unpacked(path).extension().and_then(|extension| extension.to_str()) {
        Some("arrow" | "feather" | "ipc") => "application/vnd.apache.arrow.file",
        Some("arrows") => "application/vnd.apache.arrow.stream",
        Some("ndjson" | "jsonl") => "application/x-ndjson",
        Some("parquet") => "application/vnd.apache.parquet",
        _ => "text/csv",
    }
}

/// What is read, in pieces. A thread of its own reads, since a pipe may keep it waiting for ever.
fn pieces(mut input: Box<dyn Read + Send>, bar: ProgressBar) -> impl Stream<Item = Piece> + Send + 'static {
    let (sender, receiver) = mpsc::channel::<Piece>(AHEAD);
    std::thread::spawn(move || {
        let mut buffer = vec![0; PIECE];
        loop {
            let piece = match input.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => Ok(Bytes::copy_from_slice(&buffer[..read])),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let last = piece.is_err();
            bar.inc(piece.as_ref().map_or(0, |piece| piece.len() as u64));
            if sender.blocking_send(piece).is_err() || last {
                break;
            }
        }
    });
    stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_formats_are_those_of_the_file_inside() {
        for (file, name, format) in [
            ("a/houses.csv", "houses", "text/csv"),
            ("a/houses.csv.gz", "houses", "text/csv"),
            ("houses.2026.csv.zst", "houses.2026", "text/csv"),
            ("houses.arrow.gz", "houses", "application/vnd.apache.arrow.file"),
            ("houses.jsonl.gz", "houses", "application/x-ndjson"),
            ("houses", "houses", "text/csv"),
        ] {
            assert_eq!(
                (stem(Path::new(file)).as_str(), content_type(Path::new(file))),
                (name, format),
                "{file}"
            );
        }
    }
}
