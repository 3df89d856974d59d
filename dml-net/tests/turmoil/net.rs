//! The HTTP code on turmoil's network: how connections are opened and served, and how time passes.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::Router;
use dml_net::peer::{self, Dial, Peer};
use hyper::{Uri, server::conn::http1};
use hyper_util::{
    client::legacy::connect::{Connect, Connected, Connection},
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
    time::Instant,
};
use turmoil::net::{TcpListener, TcpStream};

/// How long it may take to connect, as over TCP.
const CONNECT: Duration = Duration::from_secs(1);

/// How long the head of a request may take.
const HEAD: Duration = Duration::from_secs(30);

/// Dials over the simulated network.
pub(crate) fn dial() -> Dial {
    peer::over(connector())
}

/// The node at this address.
pub(crate) fn peer(address: SocketAddr) -> Peer {
    Peer::with_connector(&address.to_string(), connector()).expect("an address and a port are enough")
}

fn connector() -> impl Connect + Clone + Send + Sync + 'static {
    tower::service_fn(|uri| Box::pin(connect(uri)))
}

async fn connect(uri: Uri) -> io::Result<TokioIo<Client>> {
    let address = uri.authority().and_then(|authority| authority.as_str().parse().ok());
    let address: SocketAddr = address.ok_or(io::ErrorKind::InvalidInput)?;
    // Only the host's own thread is part of the simulation, and a thread that computes may be the one that asks.
    let connecting = tokio::spawn(async move {
        let end = Instant::now() + CONNECT;
        match tokio::time::timeout_at(end, TcpStream::connect(address)).await {
            // That is how turmoil tells that the network has swallowed the request. A real one says nothing.
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                tokio::time::sleep_until(end).await;
                Err(io::ErrorKind::TimedOut.into())
            }
            Ok(connected) => connected,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    });
    Ok(TokioIo::new(Client(connecting.await.map_err(io::Error::other)??)))
}

/// A connection that a client has opened.
struct Client(TcpStream);

impl Connection for Client {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Client {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Client {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// Serves a router on this host for ever.
pub(crate) async fn serve(port: u16, router: Router) -> turmoil::Result {
    let listener = TcpListener::bind(("0.0.0.0", port)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone()));
        // Connections break off as they like.
        tokio::spawn(async move { drop(connection.await) });
    }
}

/// How much real time a simulated millisecond takes at most.
const PULSE: Duration = Duration::from_micros(100);

/// Lets time pass on a host of which threads wait for the network. Simulated time stands still while a thread may block;
/// that suits a disk, but for a thread that waits for an answer the answer would never come.
pub(crate) async fn pass_time() {
    let pulse = Arc::new(Notify::new());
    let awaited = Arc::downgrade(&pulse);
    std::thread::spawn(move || {
        while let Some(pulse) = awaited.upgrade() {
            pulse.notify_one();
            drop(pulse);
            std::thread::sleep(PULSE);
        }
    });
    loop {
        let before = Instant::now();
        pulse.notified().await;
        if Instant::now() == before {
            tokio::time::advance(Duration::from_millis(1)).await;
        }
    }
}
