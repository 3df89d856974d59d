//! HTTP as plain as can be: the client shares the machine with what it measures, so it should cost next to nothing.

use std::net::SocketAddr;

use dml::core::{Body, node::Request};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use crate::Failure;

/// A connection that is kept open.
pub(crate) struct Connection(BufReader<TcpStream>);

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self, Failure> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Asks the brain of a db node.
    pub(crate) async fn ask<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T, Failure> {
        let bytes = self.send("POST", "/v1/ask", &serde_json::to_vec(request)?).await?;
        let text = || String::from_utf8_lossy(&bytes).into_owned();
        serde_json::from_slice(&bytes).map_err(|error| format!("{error}: {}", text()).into())
    }

    /// Creates something, durably.
    pub(crate) async fn create(&mut self, body: Body) -> Result<(), Failure> {
        let answer: Value = self.ask(&Request::Create { body, name: None }).await?;
        if answer["created"].is_object() { Ok(()) } else { Err(answer.to_string().into()) }
    }

    /// Sends JSON and gives the body of the answer; an error unless the answer is one of success.
    pub(crate) async fn send(&mut self, method: &str, path: &str, body: &[u8]) -> Result<Vec<u8>, Failure> {
        self.send_as("application/json", method, path, body).await
    }

    /// The same with a body of another type.
    pub(crate) async fn send_as(
        &mut self,
        content_type: &str,
        method: &str,
        path: &str,
        body: &[u8],
    ) -> Result<Vec<u8>, Failure> {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        self.0.get_mut().write_all(&[head.as_bytes(), body].concat()).await?;
        let status: u16 = self.line().await?.split(' ').nth(1).unwrap_or_default().parse()?;
        let mut length = if status == 204 { Some(0) } else { None };
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                break;
            }
            if let Some(text) = line.strip_prefix("content-length:") {
                length = Some(text.trim().parse()?);
            }
        }
        let mut bytes = vec![0; length.ok_or("an answer of unknown length")?];
        self.0.read_exact(&mut bytes).await?;
        if status < 300 {
            Ok(bytes)
        } else {
            Err(format!("{status}: {}", String::from_utf8_lossy(&bytes)).into())
        }
    }

    async fn line(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        if self.0.read_line(&mut line).await? == 0 {
            return Err("the connection was closed".into());
        }
        Ok(line.trim_end().to_ascii_lowercase())
    }
}
