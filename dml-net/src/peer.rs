//! A node that one can send HTTP requests to. An axum `Router` in the same process and an address on the network are
//! the same thing to whoever asks, so the cluster in one process runs the code of the cluster on many.

use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, SocketAddrV6},
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, body::Body};
use hyper::{
    HeaderMap, Request, Response, Uri,
    body::Incoming,
    header::{HeaderValue, IntoHeaderName},
    http::uri,
};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{Connect, HttpConnector},
    },
    rt::{TokioExecutor, TokioTimer},
};
use tokio::sync::watch;
use tower::{Service, ServiceExt, service_fn, util::BoxCloneSyncService};

use crate::{
    handshake::{self, ClusterId},
    identity::{Revoked, Tls, Trust},
    view::Role,
};

/// Why a peer gave no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// The address is not of the form `http://HOST:PORT`.
    #[error(
        "'{0}' is not the address of a node: write http://HOST:PORT, or https:// if the cluster has certificates"
    )]
    Address(String),
    /// The address is to be reached over TLS, and nobody has said which cluster is there.
    #[error("'{0}' is reached over TLS: say whom to trust, with --ca FILE or --identity FILE")]
    Untrusted(String),
    /// What is secret would be sent for all to read.
    #[error("'{0}' is reached without TLS, where others may listen: write https://HOST:PORT")]
    Open(String),
    /// It cannot be reached, or hung up.
    #[error("{address} does not answer: {why}")]
    Silent {
        /// Where it should be.
        address: String,
        /// What happened.
        why: String,
    },
    /// The machine answers, but no process listens there.
    #[error("{address} does not answer: the connection was refused")]
    Refused {
        /// Where it should be.
        address: String,
    },
}

impl PeerError {
    /// Whether a connection was refused: the process is gone. Other silence may be that of the network.
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }
}

type Answer = Result<Response<Body>, PeerError>;

/// A node that answers HTTP requests.
#[derive(Clone)]
pub struct Peer {
    address: Option<String>,
    /// What it is told in every request.
    headers: HeaderMap,
    service: BoxCloneSyncService<Request<Body>, Response<Body>, PeerError>,
}

impl Peer {
    /// A node of this process.
    pub fn router(router: Router) -> Self {
        let service = router.into_service::<Body>().map_err(|never| match never {});
        Self { address: None, headers: HeaderMap::new(), service: BoxCloneSyncService::new(service) }
    }

    /// A node at `http://HOST:PORT` (or `HOST:PORT`).
    pub fn http(address: &str) -> Result<Self, PeerError> {
        if address.starts_with("https://") {
            return Err(PeerError::Untrusted(address.into()));
        }
        Self::with_connector(address, connector(CONNECT))
    }

    /// A worker at `https://HOST:PORT` (or `HOST:PORT`).
    pub fn https(address: &str, trust: &Trust) -> Result<Self, PeerError> {
        if address.starts_with("http://") {
            return Err(PeerError::Open(address.into()));
        }
        let plain = format!("http://{}", address.trim_start_matches("https://"));
        let peer = Self::with_connector(&plain, Tls::new(connector(CONNECT), trust, Role::Worker, CONNECT))?;
        Ok(Self { address: Some(plain.replacen("http", "https", 1)), ..peer })
    }

    /// A node at `http://HOST:PORT`, over any network: the connector opens its connections.
    pub fn with_connector<C>(address: &str, connector: C) -> Result<Self, PeerError>
    where
        C: Connect + Clone + Send + Sync + 'static,
    {
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
        let service = Http { client: client(connector), authority };
        let service = BoxCloneSyncService::new(service);
        Ok(Self { address: Some(full), headers: HeaderMap::new(), service })
    }

    fn dialled<S>(address: SocketAddr, service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = PeerError>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        let (address, service) = (Some(format!("http://{address}")), BoxCloneSyncService::new(service));
        Self { address, headers: HeaderMap::new(), service }
    }

    /// The same peer, told this in every request.
    pub fn telling(mut self, name: impl IntoHeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Where it is; none if it is in this process.
    pub fn address(&self) -> Option<&str> {
        self.address.as_deref()
    }

    /// Sends a request whose URI is a path, and gives the answer as soon as its head is there.
    pub async fn call(&self, mut request: Request<Body>) -> Answer {
        request.headers_mut().extend(self.headers.clone());
        self.service.clone().oneshot(request).await
    }
}

/// How an address becomes a peer, in the name of a cluster: see [`http`], [`over`] and [`InProcess::dial`].
#[derive(Clone)]
pub struct Dial {
    cluster: ClusterId,
    /// Whom it does not trust any more.
    revoked: Option<Revoked>,
    connect: Arc<dyn Fn(SocketAddr) -> Peer + Send + Sync>,
}

impl Dial {
    fn new(connect: impl Fn(SocketAddr) -> Peer + Send + Sync + 'static) -> Self {
        Self { cluster: ClusterId::default(), revoked: None, connect: Arc::new(connect) }
    }

    /// The same in the name of another cluster than the default one.
    pub fn of(self, cluster: ClusterId) -> Self {
        Self { cluster, ..self }
    }

    /// The cluster to which peers are told that we belong.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Whom it does not trust any more; none if it looks at nobody's certificate.
    pub(crate) fn revoked(&self) -> Option<&Revoked> {
        self.revoked.as_ref()
    }

    /// The node at an address.
    pub fn peer(&self, address: SocketAddr) -> Peer {
        let cluster = self.cluster.to_string().parse().expect("hexadecimal digits are a header");
        (self.connect)(address).telling(handshake::CLUSTER, cluster)
    }
}

/// Dials over TCP. All peers of one dial share a pool of connections, which live on the runtime that opened them.
pub fn http() -> Dial {
    over(connector(DIAL))
}

/// Dials nodes of a role over TLS.
pub fn https(trust: &Trust, to: Role) -> Dial {
    let dial = over(Tls::new(connector(DIAL), trust, to, DIAL));
    Dial { revoked: Some(trust.revoked().clone()), ..dial }
}

/// Dials over any network: the connector opens the connections.
pub fn over<C>(connector: C) -> Dial
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let client = client(connector);
    Dial::new(move |address| {
        let authority = authority(address);
        Peer::dialled(address, Http { client: client.clone(), authority })
    })
}

/// The address as part of a URI, which has no word for the scope of an IPv6 address.
fn authority(address: SocketAddr) -> uri::Authority {
    let plain = match address {
        SocketAddr::V4(_) => address,
        SocketAddr::V6(v6) => SocketAddrV6::new(*v6.ip(), v6.port(), 0, 0).into(),
    };
    plain.to_string().parse().expect("an address and a port make an authority")
}

/// The nodes of a cluster in one process, under addresses that need not exist. Dialling one that is not there is like
/// dialling a machine on which no process listens.
///
/// The dials do not keep it alive: once every clone is dropped they reach nobody.
#[derive(Clone, Default)]
pub struct InProcess {
    nodes: Arc<Mutex<BTreeMap<SocketAddr, Here>>>,
}

/// A node and its life: when the sender is dropped, the requests under way break off.
struct Here(Router, watch::Sender<()>);

impl InProcess {
    /// Puts a node at an address, in place of any other there.
    pub fn insert(&self, address: SocketAddr, router: Router) {
        self.lock().insert(address, Here(router, watch::Sender::new(())));
    }

    /// Takes a node away, as if its process had been killed: requests under way break off.
    pub fn remove(&self, address: SocketAddr) {
        self.lock().remove(&address);
    }

    /// Dials the nodes of this process.
    pub fn dial(&self) -> Dial {
        let nodes = Arc::downgrade(&self.nodes);
        Dial::new(move |address| {
            let nodes = nodes.clone();
            let service = service_fn(move |request| {
                let found = nodes.upgrade().and_then(|nodes| Self { nodes }.find(address));
                async move {
                    let refused = || PeerError::Refused { address: address.to_string() };
                    let (router, mut life) = found.ok_or_else(refused)?;
                    tokio::select! {
                        answer = router.oneshot(request) => answer.map_err(|never| match never {}),
                        _ = life.changed() => {
                            Err(PeerError::Silent { address: address.to_string(), why: "it is gone".into() })
                        }
                    }
                }
            });
            Peer::dialled(address, service)
        })
    }

    fn find(&self, address: SocketAddr) -> Option<(Router, watch::Receiver<()>)> {
        self.lock().get(&address).map(|Here(router, life)| (router.clone(), life.subscribe()))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<SocketAddr, Here>> {
        self.nodes.lock().expect("nobody panics while holding it")
    }
}

/// How long it may take to connect to the one address that a user has named.
const CONNECT: Duration = Duration::from_secs(3);

/// The same where there are other nodes to turn to.
const DIAL: Duration = Duration::from_secs(1);

/// TCP. A machine that vanished while a request waits there is found out in about six seconds.
fn connector(patience: Duration) -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(patience));
    connector.set_nodelay(true);
    connector.set_keepalive(Some(Duration::from_secs(3)));
    connector.set_keepalive_interval(Some(Duration::from_secs(1)));
    connector.set_keepalive_retries(Some(3));
    connector
}

/// The connection pool: idle connections are closed before the server's own time runs out, so that a request is
/// never sent on one that the server is about to close.
fn client<C: Connect + Clone>(connector: C) -> Client<C, Body> {
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(Duration::from_secs(8))
        .pool_max_idle_per_host(8)
        .build(connector)
}

#[derive(Clone)]
struct Http<C> {
    client: Client<C, Body>,
    authority: uri::Authority,
}

impl<C: Connect + Clone + Send + Sync + 'static> Service<Request<Body>> for Http<C> {
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
            answer.map(|response| response.map(Body::new)).map_err(|error| silence(address, &error))
        })
    }
}

fn silence(address: String, error: &hyper_util::client::legacy::Error) -> PeerError {
    let causes =
        std::iter::successors(Some(error as &(dyn std::error::Error + 'static)), |error| error.source());
    let refused = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|io| io.kind() == io::ErrorKind::ConnectionRefused)
    };
    if error.is_connect() && causes.clone().any(refused) {
        return PeerError::Refused { address };
    }
    let why = causes.last().map(ToString::to_string).unwrap_or_default();
    PeerError::Silent { address, why }
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

    fn get(path: &str) -> Request<Body> {
        Request::get(path).body(Body::empty()).expect("a plain path")
    }

    #[tokio::test]
    async fn a_closed_port_refuses_and_a_silent_one_does_not() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let hangs_up = tokio::spawn(async move { drop(listener.accept().await) });
        let dial = http();
        let error = dial.peer(address).call(get("/")).await.expect_err("it hung up");
        assert!(!error.is_refused(), "{error}");
        hangs_up.await.expect("it has accepted");
        let error = dial.peer(address).call(get("/")).await.expect_err("nobody listens");
        assert!(error.is_refused(), "{error}");
        let error = Peer::http(&address.to_string()).expect("an address").call(get("/")).await;
        assert!(error.expect_err("nobody listens").is_refused());
    }

    #[tokio::test]
    async fn nodes_of_this_process_come_and_go() {
        let here = InProcess::default();
        let address = SocketAddr::from(([10, 0, 0, 1], 7301));
        let peer = here.dial().peer(address);
        assert_eq!(peer.address(), Some("http://10.0.0.1:7301"));
        assert!(peer.call(get("/")).await.expect_err("nobody is there").is_refused());
        let router = || {
            let wait = async || {
                std::future::pending::<()>().await;
                ""
            };
            Router::new()
                .route("/", axum::routing::get(async || "here"))
                .route("/wait", axum::routing::get(wait))
        };
        here.insert(address, router());
        assert!(peer.call(get("/")).await.expect("it is there").status().is_success());
        let waiting = tokio::spawn({
            let peer = peer.clone();
            async move { peer.call(get("/wait")).await }
        });
        tokio::task::yield_now().await;
        here.remove(address);
        let error = waiting.await.expect("no panic").expect_err("the node is gone");
        assert!(!error.is_refused(), "{error}");
        here.insert(address, router());
        assert!(peer.call(get("/")).await.is_ok(), "it has come back");
        drop(here);
        assert!(peer.call(get("/")).await.expect_err("the cluster is gone").is_refused());
    }

    #[test]
    fn a_scope_is_no_part_of_a_uri() {
        let address: SocketAddr = "[fe80::1%3]:7301".parse().expect("an address");
        assert_eq!(authority(address).as_str(), "[fe80::1]:7301");
    }
}
