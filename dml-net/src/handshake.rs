//! Who is there? `GET /v1/node` is the one question that works before two nodes know anything of each other.

use std::time::Duration;

use axum::body::Body;
use dml_core::member::Member;
use http_body_util::{BodyExt, Limited};
use hyper::Request;
use serde::{Deserialize, Serialize};

use crate::peer::{Peer, PeerError};

/// The version of what db nodes say to each other. Those of another version leave each other alone.
pub const VERSION: u32 = 1;

/// The path.
pub const PATH: &str = "/v1/node";

/// How long the answer may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// The longest answer, in bytes.
const MAX_BYTES: usize = 4096;

/// What a db node says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`VERSION`].
    pub v: u32,
    /// Its name, its address and its life.
    #[serde(flatten)]
    pub member: Member,
}

impl Hello {
    /// What this node says.
    pub fn new(member: Member) -> Self {
        Self { v: VERSION, member }
    }
}

/// Asks who is there, for a second at most. None is something that answers but is no db node of our version.
pub async fn greet(peer: &Peer) -> Result<Option<Member>, PeerError> {
    let question = async {
        let answer = peer.call(Request::get(PATH).body(Body::empty()).expect("a plain path")).await?;
        if !answer.status().is_success() {
            return Ok(None);
        }
        let bytes = Limited::new(answer.into_body(), MAX_BYTES).collect().await;
        let hello = bytes.ok().and_then(|bytes| serde_json::from_slice::<Hello>(&bytes.to_bytes()).ok());
        Ok(hello.filter(|hello| hello.v == VERSION).map(|hello| hello.member))
    };
    tokio::time::timeout(PATIENCE, question).await.unwrap_or_else(|_| {
        let address = peer.address().unwrap_or("a node of this process").into();
        Err(PeerError::Silent { address, why: "it did not say who it is within a second".into() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{Router, routing::get};
    use dml_core::member::NodeId;

    #[tokio::test(start_paused = true)]
    async fn only_db_nodes_of_our_version_are_heard() {
        let golden = r#"{"v":1,"id":"db-00000000002a","address":"10.0.0.1:7301","generation":3}"#;
        let member = Member { id: NodeId::new(42), address: ([10, 0, 0, 1], 7301).into(), generation: 3 };
        assert_eq!(serde_json::to_string(&Hello::new(member)).expect("plain fields"), golden);
        let says = async |text: String| {
            greet(&Peer::router(Router::new().route(PATH, get(async move || text)))).await.expect("an answer")
        };
        assert_eq!(says(golden.into()).await, Some(member));
        assert_eq!(says(golden.replace("\"v\":1", "\"v\":2")).await, None);
        assert_eq!(says(format!("{golden}{}", " ".repeat(MAX_BYTES))).await, None);
        assert_eq!(says("hello".into()).await, None);
        assert_eq!(greet(&Peer::router(Router::new())).await.expect("an answer"), None);
        let silent = Router::new().route(PATH, get(std::future::pending::<&str>));
        assert!(greet(&Peer::router(silent)).await.is_err());
    }
}
