//! The HTTP below `object_store`: hyper, and rustls with the authorities that this machine trusts (`SSL_CERT_FILE` names
//! others). A store that falls silent is given up.

use std::{error::Error, fmt, io, time::Duration};

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{
    client::legacy::{
        Client,
        connect::{Connect, HttpConnector as Tcp},
    },
    rt::TokioExecutor,
};
use object_store::{
    ClientOptions,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse,
        HttpResponseBody, HttpService,
    },
};
use tokio::time::timeout;

/// How long it may take to connect.
const CONNECT: Duration = Duration::from_secs(5);

/// How long an answer may keep us waiting, before its beginning and between its pieces.
const SILENCE: Duration = Duration::from_secs(30);

/// How many bytes of a request a store takes each second at least.
const SLOWEST: u64 = 100_000;

/// Why the store gave no answer.
#[derive(Debug)]
pub(super) struct NoAnswer(String);

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for NoAnswer {}

/// Gives `object_store` the client that goes with an endpoint.
#[derive(Debug)]
pub(super) struct Connector(HttpClient);

impl Connector {
    /// With TLS alone, or without it alone: who names an `https` address is never served without.
    pub(super) fn new(tls: bool) -> io::Result<Self> {
        let mut tcp = Tcp::new();
        tcp.set_connect_timeout(Some(CONNECT));
        tcp.set_nodelay(true);
        tcp.enforce_http(!tls);
        if !tls {
            return Ok(Self(client(tcp)));
        }
        let builder = HttpsConnectorBuilder::new().with_native_roots()?;
        Ok(Self(client(builder.https_only().enable_http1().wrap_connector(tcp))))
    }
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(self.0.clone())
    }
}

fn client<C: Connect + Clone + fmt::Debug + Send + Sync + 'static>(connector: C) -> HttpClient {
    HttpClient::new(Http(Client::builder(TokioExecutor::new()).build(connector)))
}

#[derive(Debug)]
struct Http<C>(Client<C, HttpRequestBody>);

#[async_trait]
impl<C: Connect + Clone + fmt::Debug + Send + Sync + 'static> HttpService for Http<C> {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let patience = SILENCE + Duration::from_secs(request.body().content_length() as u64 / SLOWEST);
        let answered = timeout(patience, self.0.request(request)).await;
        let answer = answered.map_err(|_| silent(patience))?.map_err(|error| {
            let kind = if error.is_connect() { HttpErrorKind::Connect } else { HttpErrorKind::Interrupted };
            HttpError::new(kind, NoAnswer(innermost(&error)))
        })?;
        let (head, body) = answer.into_parts();
        Ok(HttpResponse::from_parts(head, HttpResponseBody::new(paced(body))))
    }
}

/// An answer's body, which breaks off when nothing comes for a while.
fn paced(body: Incoming) -> impl hyper::body::Body<Data = bytes::Bytes, Error = HttpError> + Send + Sync {
    let frames = stream::unfold(body, |mut body| async {
        let frame = match timeout(SILENCE, body.frame()).await {
            Ok(frame) => frame?.map_err(|error| {
                HttpError::new(
                    HttpErrorKind::Interrupted,
                    NoAnswer(format!("the answer breaks off: {error}")),
                )
            }),
            Err(_) => Err(silent(SILENCE)),
        };
        Some((frame, body))
    });
    StreamBody::new(frames.fuse())
}

fn silent(patience: Duration) -> HttpError {
    let why = format!("nothing came for {} s", patience.as_secs());
    HttpError::new(HttpErrorKind::Timeout, NoAnswer(why))
}

/// What it comes down to: the outer errors say where it was noticed.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
