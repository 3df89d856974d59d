//! The accept loop. Nobody keeps a connection for nothing: heads and bodies of requests have to come in, answers have to
//! be read, and an address has its share of the connections. Web pages of others are turned away ([`Origin`]).

mod crowd;
mod origin;
mod pace;
mod stall;

use std::{
    convert::Infallible,
    future::poll_fn,
    net::{IpAddr, SocketAddr},
    sync::{Arc, LazyLock},
    time::Duration,
};

use axum::{
    Extension, Router,
    body::Body,
    response::{IntoResponse, Response},
};
use hyper::{Request, StatusCode, body::Incoming, header, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};
use tower::ServiceExt;

use self::{
    crowd::{Crowd, Seat},
    pace::Paced,
    stall::Stalling,
};
use crate::{identity::Caller, problem::Problem};

pub use origin::{NotAnOrigin, Origin};

/// What clients may take: time, connections, room.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How long the head of a request may take to arrive; also how long an idle connection is kept.
    pub head: Duration,
    /// How long a body may keep us waiting in all; each kilobyte that comes gives a second back.
    pub body: Duration,
    /// How long a client may leave an answer unread.
    pub unread: Duration,
    /// How many connections there may be.
    pub connections: usize,
    /// How many of them one address may have; this machine may have all.
    pub per_address: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            body: Duration::from_secs(30),
            unread: Duration::from_secs(300),
            connections: 4096,
            per_address: 1024,
        }
    }
}

/// How long requests may go on after the end was asked for.
const DRAIN: Duration = Duration::from_secs(10);

/// The largest head of a request, in bytes.
const MAX_HEAD: usize = 64 << 10;

/// The longest path with its query, in bytes.
const MAX_PATH: usize = 8 << 10;

/// The first byte of a handshake in TLS.
const HANDSHAKE: u8 = 0x16;

/// What is said to somebody for whom there is no connection left. Like a datagram it may get lost.
static FULL: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let detail =
        "there are as many connections as there may be, in all or from this address: try again later";
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too-many-connections", detail);
    bare(&problem, "retry-after: 5\r\n")
});

/// What is said to somebody who does not speak TLS.
static PLAIN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let detail = "this port speaks TLS alone: ask with https://, and say whom to trust (--ca) or who you are (--identity)";
    bare(&Problem::new(StatusCode::BAD_REQUEST, "tls-only", detail), "")
});

/// What is said to somebody who began a request and did not go on.
static LATE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let detail = "the head of this request did not come in time: send it at once";
    bare(&Problem::new(StatusCode::REQUEST_TIMEOUT, "head-too-slow", detail), "")
});

/// A problem as it goes over the wire where there is no request to answer.
fn bare(problem: &Problem, headers: &str) -> Vec<u8> {
    let body = serde_json::to_string(problem).expect("plain fields");
    let (status, title, length) = (problem.status, &problem.title, body.len());
    format!(
        "HTTP/1.1 {status} {title}\r\n{headers}connection: close\r\ncontent-type: application/problem+json\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Serves a router with the usual limits until `end` is ready, then finishes the requests under way.
pub async fn serve(listener: TcpListener, router: Router, end: impl Future<Output = ()>) {
    Server::default().serve(listener, router, end).await;
}

/// How a router is served.
#[derive(Clone, Default)]
pub struct Server {
    /// What clients may take.
    pub limits: Limits,
    /// The servers whose web pages may use it, beside its own.
    pub origins: Vec<Origin>,
    /// Who it is, to whoever connects over TLS; nobody connects without, then.
    pub tls: Option<Arc<ServerConfig>>,
}

impl Server {
    /// Serves a router until `end` is ready, then finishes the requests under way.
    pub async fn serve(self, listener: TcpListener, router: Router, end: impl Future<Output = ()>) {
        let crowd = Crowd::new(self.limits.connections, self.limits.per_address);
        let (server, (tell, ended)) = (Arc::new(self), watch::channel(()));
        let mut connections = JoinSet::new();
        let mut end = std::pin::pin!(end);
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = connections.join_next() => continue,
                () = &mut end => break,
            };
            match accepted {
                Ok((stream, from)) => match crowd.enter(from.ip()) {
                    Some(seat) => {
                        let (server, router, ended) = (server.clone(), router.clone(), ended.clone());
                        connections
                            .spawn(async move { server.connection(stream, router, ended, seat).await });
                    }
                    None => {
                        tracing::debug!(%from, "a connection too many");
                        let _ = stream.try_write(&FULL);
                    }
                },
                Err(error) => {
                    // Out of file descriptors, most likely: others may end soon.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        drop((listener, tell));
        let done = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN, done).await.is_err() {
            tracing::warn!("some requests did not end in time");
        }
    }

    /// One connection, from the beginning to the end.
    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        router: Router,
        ended: watch::Receiver<()>,
        _seat: Seat,
    ) {
        let _ = stream.set_nodelay(true);
        let Ok(to) = stream.local_addr() else { return };
        let Some(tls) = self.tls.clone() else { return self.http(stream, to, router, ended).await };
        let shaken = async {
            // The first byte of whoever speaks TLS; others are told.
            let mut first = [0];
            if stream.peek(&mut first).await? == 1 && first != [HANDSHAKE] {
                let _ = stream.try_write(&PLAIN);
            }
            TlsAcceptor::from(tls).accept(stream).await
        };
        match tokio::time::timeout(self.limits.head, shaken).await {
            Ok(Ok(stream)) => {
                let caller = Caller::of(stream.get_ref().1);
                self.http(stream, to, router.layer(Extension(caller)), ended).await;
            }
            Ok(Err(error)) => tracing::debug!(%error, "somebody came without a certificate that counts"),
            Err(_) => tracing::debug!("somebody did not say who it is in time"),
        }
    }

    async fn http<S>(
        self: Arc<Self>,
        stream: S,
        to: SocketAddr,
        router: Router,
        mut ended: watch::Receiver<()>,
    ) where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let stream = Stalling::new(stream, self.limits.unread);
        let head = self.limits.head;
        let service = service_fn(move |request: Request<Incoming>| {
            let (server, router) = (self.clone(), router.clone());
            async move { Ok::<_, Infallible>(server.answer(router, request, to.ip()).await) }
        });
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(head)
            .max_header_size(MAX_HEAD)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(stream), service);
        let outcome = tokio::select! {
            outcome = poll_fn(|context| Pin::new(&mut connection).poll(context)) => outcome,
            _ = ended.changed() => {
                Pin::new(&mut connection).graceful_shutdown();
                poll_fn(|context| Pin::new(&mut connection).poll(context)).await
            }
        };
        let Err(error) = outcome else { return };
        tracing::debug!(%error, "a connection broke off");
        let parts = connection.into_parts();
        if error.is_timeout() && !parts.read_buf.is_empty() {
            // Whoever has not begun another request need not be told that the connection ends.
            let mut stream = parts.io.into_inner();
            let _ = stream.write_all(&LATE).await;
            let _ = stream.shutdown().await;
        }
    }

    /// Answers a request that came in on the address `to`.
    async fn answer(&self, router: Router, request: Request<Incoming>, to: IpAddr) -> Response<Body> {
        let (head, body) = request.into_parts();
        if head.uri.path_and_query().is_some_and(|path| path.as_str().len() > MAX_PATH) {
            let detail = format!("the path and the query are longer than {MAX_PATH} bytes: shorten them");
            return Problem::new(StatusCode::URI_TOO_LONG, "path-too-long", detail).into_response();
        }
        let page = match origin::check(&self.origins, &head, to) {
            Ok(page) => page,
            Err(problem) => return problem.into_response(),
        };
        if let Some(welcome) = page.and_then(|page| page.welcome(&head)) {
            return welcome;
        }
        let (body, late) = Paced::new(body, self.limits.body);
        let asked = router.oneshot(Request::from_parts(head, Body::new(body)));
        let mut answer = asked.await.unwrap_or_else(|never: Infallible| match never {});
        if late.is_so() {
            answer = late.problem().into_response();
            answer.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
        }
        if let Some(page) = page {
            page.admit(&mut answer);
        }
        answer
    }
}
