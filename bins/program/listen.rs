//! Where a program listens, and when it ends.

use std::net::SocketAddr;

use tokio::net::TcpListener;

/// Why a program does not listen.
#[derive(Debug)]
pub enum ListenError {
    /// Others on the network could reach it, and nothing would tell friend from foe.
    Open(SocketAddr),
    /// The operating system refuses.
    Refused(SocketAddr, std::io::Error),
}

impl std::error::Error for ListenError {}

impl std::fmt::Display for ListenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Open(address) => write!(
                f,
                "{address} can be reached from other machines, and there is no authentication yet: \
                 anyone there could read and delete everything. Listen on 127.0.0.1, or add --insecure if the \
                 network is yours alone"
            ),
            Self::Refused(address, error) => write!(f, "cannot listen on {address}: {error}"),
        }
    }
}

/// Listens on an address. One that others can reach has to be allowed by `insecure`, for there is no authentication.
pub async fn listen(address: SocketAddr, insecure: bool) -> Result<TcpListener, ListenError> {
    if !address.ip().is_loopback() {
        if !insecure {
            return Err(ListenError::Open(address));
        }
        tracing::warn!(%address, "no authentication: whoever reaches this address can read and delete everything");
    }
    TcpListener::bind(address).await.map_err(|error| ListenError::Refused(address, error))
}

/// Where others reach a program: as the user says, or where it listens. One that listens everywhere is reached at the
/// address from which it reaches others.
pub fn reached_at(advertised: Option<SocketAddr>, listens: SocketAddr, others: &[String]) -> SocketAddr {
    if let Some(advertised) = advertised {
        return advertised;
    }
    if !listens.ip().is_unspecified() {
        return listens;
    }
    let others = others.iter().map(|other| other.trim_start_matches("http://"));
    // The last one is an address for documentation: the way to it is the way out, and nothing is sent (RFC 5737).
    let ways =
        others.map(|other| if other.contains(':') { other.to_string() } else { format!("{other}:7301") });
    let ways = ways.chain(["192.0.2.1:9".to_string()]);
    let own = ways.filter_map(|way| {
        let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        socket.connect(way).ok()?;
        socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_unspecified())
    });
    own.map(|ip| SocketAddr::new(ip, listens.port())).next().unwrap_or(listens)
}

/// Ready when the user presses ctrl-c or the system asks the program to end.
pub async fn end() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let Ok(mut terminated) = signal(SignalKind::terminate()) else { return interrupted().await };
        tokio::select! {
            () = interrupted() => {}
            _ = terminated.recv() => {}
        }
    }
    #[cfg(not(unix))]
    interrupted().await;
}

/// Ready when the user presses ctrl-c.
pub async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        // Without the signal there is no ctrl-c to wait for.
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_network_is_opened_on_demand_only() {
        let any = SocketAddr::from(([0, 0, 0, 0], 0));
        let refused = listen(any, false).await.unwrap_err();
        assert!(refused.to_string().contains("--insecure"), "{refused}");
        assert!(listen(any, true).await.is_ok());
        assert!(listen(SocketAddr::from(([127, 0, 0, 1], 0)), false).await.is_ok());
    }
}
