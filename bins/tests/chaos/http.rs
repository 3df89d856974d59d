//! The least HTTP client that there can be: one request a connection, and a limit on the whole. It shares no code with
//! what it tests.

use std::{
    io::{BufRead, BufReader, Error, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use serde::de::DeserializeOwned;

/// Sends a request; gives the status and the whole body, or an error if that takes longer than `limit`.
pub(crate) fn send(
    to: SocketAddr,
    method: &str,
    path: &str,
    kind: &str,
    body: &[u8],
    limit: Duration,
) -> Result<(u16, Vec<u8>), Error> {
    let end = Instant::now() + limit;
    let mut stream = TcpStream::connect_timeout(&to, limit)?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(limit))?;
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(&[head.as_bytes(), body].concat())?;
    let mut reader = BufReader::new(Timed { stream, end });
    let status = line(&mut reader)?.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| Error::other("no status"))?;
    let (mut length, mut chunked) = (None, false);
    loop {
        let header = line(&mut reader)?.to_ascii_lowercase();
        let Some((name, value)) = header.split_once(':') else { break };
        match name {
            "content-length" => length = value.trim().parse().ok(),
            "transfer-encoding" => chunked = value.trim() == "chunked",
            _ => {}
        }
    }
    let mut answer = Vec::new();
    if chunked {
        while let Some(mut chunk) = chunk(&mut reader)? {
            answer.append(&mut chunk);
        }
    } else {
        answer = exactly(&mut reader, length.unwrap_or(0))?;
    }
    Ok((status, answer))
}

/// The JSON that a node answers to a request for it.
pub(crate) fn get<T: DeserializeOwned>(from: SocketAddr, path: &str) -> Result<T, Error> {
    json(send(from, "GET", path, "text/plain", &[], LIMIT)?)
}

/// The same for a JSON body.
pub(crate) fn post<T: DeserializeOwned>(to: SocketAddr, path: &str, body: &[u8]) -> Result<T, Error> {
    json(send(to, "POST", path, "application/json", body, LIMIT)?)
}

/// How long those may take.
const LIMIT: Duration = Duration::from_secs(5);

fn json<T: DeserializeOwned>((status, body): (u16, Vec<u8>)) -> Result<T, Error> {
    if status >= 300 {
        return Err(Error::other(format!("{status}: {}", String::from_utf8_lossy(&body))));
    }
    serde_json::from_slice(&body).map_err(Error::other)
}

fn line(reader: &mut impl BufRead) -> Result<String, Error> {
    let mut line = String::new();
    match reader.read_line(&mut line)? {
        0 => Err(Error::other("the answer broke off")),
        _ => Ok(line.trim_end().to_string()),
    }
}

fn chunk(reader: &mut impl BufRead) -> Result<Option<Vec<u8>>, Error> {
    let length = usize::from_str_radix(&line(reader)?, 16).map_err(Error::other)?;
    let chunk = exactly(reader, length)?;
    line(reader)?;
    Ok((length > 0).then_some(chunk))
}

fn exactly(reader: &mut impl BufRead, length: usize) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; length];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// A stream that is read until a moment.
struct Timed {
    stream: TcpStream,
    end: Instant,
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let left = self.end.saturating_duration_since(Instant::now());
        self.stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        self.stream.read(buffer)
    }
}
