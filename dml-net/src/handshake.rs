//! Who is there, and of which cluster? `GET /v1/node` is the one question that works before two nodes know anything of
//! each other. All other requests between nodes name the cluster; those of another one are refused.

use std::{fmt, str::FromStr, time::Duration};

use axum::{
    body::Body,
    extract::{Request, State},
    http::StatusCode,
    middleware::Next,
    response::{IntoResponse, Response},
};
use dml_core::{Digest, id::NotADigest, member::Member};
use http_body_util::{BodyExt, Limited};
use serde::{Deserialize, Serialize};
use tokio_rustls::rustls::pki_types::{CertificateDer, pem::PemObject};

use crate::{identity::IdentityError, peer::PeerError, problem::Problem};

/// The version of what db nodes say to each other. Those of another version leave each other alone.
pub const VERSION: u32 = 4;

/// The path.
pub const PATH: &str = "/v1/node";

/// The header that names the cluster of whoever asks.
pub const CLUSTER: &str = "dml-cluster";

/// How long the answer may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// The longest answer, in bytes.
const MAX_BYTES: usize = 4096;

/// Which cluster a node is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClusterId(Digest);

impl ClusterId {
    /// The cluster of this name. Anybody can say it: it keeps apart those who mean to be apart.
    pub fn named(name: &str) -> Self {
        Self(Digest::of_value(&("dml cluster", name)))
    }

    /// The cluster whose certificate is in this PEM file.
    pub fn of_pem(pem: &[u8]) -> Result<Self, IdentityError> {
        Ok(Self::of_certificate(&CertificateDer::from_pem_slice(pem)?))
    }

    /// The cluster with this certificate, which nobody else can say and prove.
    pub fn of_certificate(der: &[u8]) -> Self {
        Self(Digest::of(der))
    }
}

impl Default for ClusterId {
    fn default() -> Self {
        Self::named("dml")
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for ClusterId {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        text.parse().map(Self)
    }
}

/// What a db node says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`VERSION`].
    pub v: u32,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its name, its address and its life.
    #[serde(flatten)]
    pub member: Member,
}

impl Hello {
    /// What this node says.
    pub fn new(cluster: ClusterId, member: Member) -> Self {
        Self { v: VERSION, cluster, member }
    }
}

/// Who answers at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Greeting {
    /// A db node of our cluster.
    Member(Member),
    /// A db node of another cluster.
    Foreign,
    /// No db node of our version.
    Stranger,
}

/// Asks who is there, for a second at most.
pub async fn greet(peer: &crate::Peer, cluster: ClusterId) -> Result<Greeting, PeerError> {
    let question = async {
        let answer = peer.call(Request::get(PATH).body(Body::empty()).expect("a plain path")).await?;
        if !answer.status().is_success() {
            return Ok(Greeting::Stranger);
        }
        let bytes = Limited::new(answer.into_body(), MAX_BYTES).collect().await;
        let hello = bytes.ok().and_then(|bytes| serde_json::from_slice::<Hello>(&bytes.to_bytes()).ok());
        Ok(match hello.filter(|hello| hello.v == VERSION) {
            Some(hello) if hello.cluster == cluster => Greeting::Member(hello.member),
            Some(_) => Greeting::Foreign,
            None => Greeting::Stranger,
        })
    };
    tokio::time::timeout(PATIENCE, question).await.unwrap_or_else(|_| {
        let address = peer.address().unwrap_or("a node of this process").into();
        Err(PeerError::Silent { address, why: "it did not say who it is within a second".into() })
    })
}

/// Lets nobody of another cluster ask anything but who is there. People may leave the cluster unnamed.
pub(crate) async fn same_cluster(State(cluster): State<ClusterId>, request: Request, next: Next) -> Response {
    let theirs = request.headers().get(CLUSTER);
    let same = theirs.is_none_or(|theirs| theirs.as_bytes() == cluster.to_string().as_bytes());
    if same || request.uri().path() == PATH {
        return next.run(request).await;
    }
    let detail = format!("this db node is of the cluster {cluster}: join one of your own");
    Problem::new(StatusCode::FORBIDDEN, FOREIGN, detail).into_response()
}

/// The code of the problem that a node of another cluster is told.
pub(crate) const FOREIGN: &str = "other-cluster";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Peer;
    use axum::{Router, middleware, routing::get};
    use dml_core::member::NodeId;

    #[tokio::test(start_paused = true)]
    async fn only_db_nodes_of_our_version_and_cluster_are_heard() {
        let golden = concat!(
            r#"{"v":4,"cluster":"8542b9b0beb631a7b77f6146fb68ae353574cb4558c15658a3a71a1dc51754f6","#,
            r#""id":"db-00000000002a","address":"10.0.0.1:7301","generation":3}"#
        );
        let member = Member { id: NodeId::new(42), address: ([10, 0, 0, 1], 7301).into(), generation: 3 };
        let ours = ClusterId::default();
        assert_eq!(serde_json::to_string(&Hello::new(ours, member)).expect("plain fields"), golden);
        let says = async |text: String| {
            let peer = Peer::router(Router::new().route(PATH, get(async move || text)));
            greet(&peer, ours).await.expect("an answer")
        };
        assert_eq!(says(golden.into()).await, Greeting::Member(member));
        let others = ClusterId::named("others").to_string();
        assert_eq!(says(golden.replace(&ours.to_string(), &others)).await, Greeting::Foreign);
        assert_eq!(says(golden.replace("\"v\":4", "\"v\":5")).await, Greeting::Stranger);
        assert_eq!(says(format!("{golden}{}", " ".repeat(MAX_BYTES))).await, Greeting::Stranger);
        assert_eq!(says("hello".into()).await, Greeting::Stranger);
        assert_eq!(greet(&Peer::router(Router::new()), ours).await.expect("an answer"), Greeting::Stranger);
        let silent = Router::new().route(PATH, get(std::future::pending::<&str>));
        assert!(greet(&Peer::router(silent), ours).await.is_err());
    }

    #[tokio::test]
    async fn who_is_of_another_cluster_is_refused() {
        let ours = ClusterId::named("ours");
        let router = Router::new().route("/v1/ask", get(async || "yes")).route(PATH, get(async || "me"));
        let peer = Peer::router(router.layer(middleware::from_fn_with_state(ours, same_cluster)));
        for (cluster, path, status) in [
            (Some(ours), "/v1/ask", 200),
            (None, "/v1/ask", 200),
            (Some(ClusterId::default()), "/v1/ask", 403),
            (Some(ClusterId::default()), PATH, 200),
        ] {
            let mut request = Request::get(path);
            if let Some(cluster) = cluster {
                request = request.header(CLUSTER, cluster.to_string());
            }
            let answer = peer.call(request.body(Body::empty()).expect("a plain path")).await;
            assert_eq!(answer.expect("an answer").status(), status, "{cluster:?} {path}");
        }
    }
}
