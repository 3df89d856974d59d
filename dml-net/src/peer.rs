//! A node that one can send HTTP requests to. An axum `Router` in the same process and an address on the network are
//! the same thing to whoever asks, so the cluster in one process runs the code of the cluster on many.

use axum::{Router, body::Body};
use hyper::{Request, Response, Uri, body::Incoming, http::uri};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use std::time::Duration;
use tower::{Service, ServiceExt, util::BoxCloneSyncService};

/// Why a peer gave no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// The address is not of the form `http://HOST:PORT`.
    #[error("'{0}' is not the address of a node: write http://HOST:PORT")]
    Address(String),
    /// It cannot be reached, or hung up.
    #[error("{address} does not answer: {why}")]
    Silent {
        /// Where it should be.
        address: String,
        /// What happened.
        why: String,
    },
}

type Answer = Result<Response<Body>, PeerError>;

/// A node that answers HTTP requests.
#[derive(Clone)]
pub struct Peer {
    address: Option<String>,
    service: BoxCloneSyncService<Request<Body>, Response<Body>, PeerError>,
}

impl Peer {
    /// A node of this process.
    pub fn router(router: Router) -> Self {
        let service = router.into_service::<Body>().map_err(|never| match never {});
        Self { address: None, service: BoxCloneSyncService::new(service) }
    }

    /// A node at `http://HOST:PORT` (or `HOST:PORT`).
    pub fn http(address: &str) -> Result<Self, PeerError> {
        let bad = || PeerError::Address(address.into());
        let full = if address.contains("://") { address.to_string() } else { format!("http://{address}") };
        let base: Uri = full.trim_end_matches('/').parse().map_err(|_| bad())?;
        let plain =
            base.scheme_str() == Some("http") && matches!(base.path(), "" | "/") && base.query().is_none();
        let authority = base.authority().filter(|_| plain).ok_or_else(bad)?.clone();
        let authority = match authority.port() {
            Some(_) => authority,
            None => format!("{authority}:7300").parse().map_err(|_| bad())?,
        };
        let service = Http { client: client(), authority };
        Ok(Self { address: Some(full), service: BoxCloneSyncService::new(service) })
    }

    /// Where it is; none if it is in this process.
    pub fn address(&self) -> Option<&str> {
        self.address.as_deref()
    }

    /// Sends a request whose URI is a path, and gives the answer as soon as its head is there.
    pub async fn call(&self, request: Request<Body>) -> Answer {
        self.service.clone().oneshot(request).await
    }
}

/// The connection pool: idle connections are closed before the server's own time runs out, so that a request is
/// never sent on one that the server is about to close.
fn client() -> Client<HttpConnector, Body> {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(Duration::from_secs(3)));
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(Duration::from_secs(20))
        .pool_max_idle_per_host(8)
        .build(connector)
}

#[derive(Clone)]
struct Http {
    client: Client<HttpConnector, Body>,
    authority: uri::Authority,
}

impl Service<Request<Body>> for Http {
    type Response = Response<Body>;
    type Error = PeerError;
    type Future = std::pin::Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), PeerError>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let path =
            request.uri().path_and_query().cloned().unwrap_or_else(|| uri::PathAndQuery::from_static("/"));
        let uri =
            Uri::builder().scheme("http").authority(self.authority.clone()).path_and_query(path).build();
        *request.uri_mut() = uri.expect("scheme, authority and path make a URI");
        let (client, address) = (self.client.clone(), self.authority.to_string());
        Box::pin(async move {
            let answer: Result<Response<Incoming>, _> = client.request(request).await;
            answer.map(|response| response.map(Body::new)).map_err(|error| {
                let cause =
                    std::iter::successors(Some(&error as &dyn std::error::Error), |e| e.source()).last();
                let why = cause.map(ToString::to_string).unwrap_or_default();
                PeerError::Silent { address, why }
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked() {
        for good in ["http://127.0.0.1:7300", "127.0.0.1:7300", "http://localhost/", "[::1]:7300"] {
            assert!(Peer::http(good).is_ok(), "{good}");
        }
        for bad in ["", "https://a:1", "ftp://a", "http://", "http://a/path", "a b", "http://a:1?x=1"] {
            assert!(Peer::http(bad).is_err(), "{bad}");
        }
    }
}
