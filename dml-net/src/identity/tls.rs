//! The way out: connections over TLS to nodes of a role.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper::Uri;
use hyper_util::{
    client::legacy::connect::{Connected, Connection, HttpConnector},
    rt::TokioIo,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{self, pki_types::ServerName},
};
use tower::{BoxError, Service};

use super::{Revoked, Trust, party, server_name};
use crate::view::Role;

/// Opens connections to nodes of one role of a cluster.
#[derive(Clone)]
pub(crate) struct Tls {
    tcp: HttpConnector,
    tls: TlsConnector,
    name: ServerName<'static>,
    revoked: Revoked,
    /// How long the handshake may take.
    patience: Duration,
}

impl Tls {
    pub(crate) fn new(tcp: HttpConnector, trust: &Trust, to: Role, patience: Duration) -> Self {
        let tls = TlsConnector::from(Arc::clone(&trust.config));
        Self { tcp, tls, name: server_name(to), revoked: trust.revoked.clone(), patience }
    }
}

impl Service<Uri> for Tls {
    type Response = TokioIo<Encrypted>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<TokioIo<Encrypted>, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let (connecting, tls, name) = (self.tcp.call(to), self.tls.clone(), self.name.clone());
        let (revoked, patience) = (self.revoked.clone(), self.patience);
        Box::pin(async move {
            let stream = connecting.await?.into_inner();
            let shaken = tokio::time::timeout(patience, tls.connect(name, stream)).await;
            let shaken = shaken.map_err(|_| "it does not answer in TLS: is it a node without --identity?")?;
            let stream = shaken.map_err(explain)?;
            let server = stream.get_ref().1.peer_certificates().and_then(|chain| party(chain.first()?));
            let server = server.map(|party| party.name());
            let stream = Encrypted { stream, server, revoked };
            stream.trusted()?;
            Ok(TokioIo::new(stream))
        })
    }
}

/// Why a handshake failed, for people.
fn explain(error: io::Error) -> BoxError {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    if let Some(rustls::Error::InvalidCertificate(why)) = cause {
        return format!("its certificate is not that of such a node of this cluster ({why})").into();
    }
    if let Some(rustls::Error::InvalidMessage(_)) = cause {
        return "it does not speak TLS: is it a node without --identity?".into();
    }
    error.into()
}

/// A connection over TLS. It breaks off when the certificate at its other end is revoked.
pub(crate) struct Encrypted {
    stream: TlsStream<TcpStream>,
    /// What the node there is called.
    server: Option<String>,
    revoked: Revoked,
}

impl Encrypted {
    fn trusted(&self) -> io::Result<()> {
        let refused = || io::Error::other("its certificate was revoked");
        let trusted = self.server.as_ref().is_none_or(|server| !self.revoked.has(server));
        trusted.then_some(()).ok_or_else(refused)
    }
}

impl Connection for Encrypted {
    fn connected(&self) -> Connected {
        self.stream.get_ref().0.connected()
    }
}

impl AsyncRead for Encrypted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.trusted()?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Encrypted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.trusted()?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.trusted()?;
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
