//! Where a program listens, and when it ends.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};

use dml_net::discover::Place;
use tokio::net::TcpListener;

use crate::advertise::{Advertise, Network};

/// Why a program does not listen.
#[derive(Debug)]
pub enum ListenError {
    /// Others on the network could reach it, and nothing would tell friend from foe.
    Open(SocketAddr),
    /// It listens everywhere, and no address of its own is found.
    Nowhere(SocketAddr),
    /// It has no address in the network in which it is to be reached.
    Elsewhere(Network),
    /// The operating system refuses.
    Refused(SocketAddr, std::io::Error),
}

impl std::error::Error for ListenError {}

impl std::fmt::Display for ListenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Open(address) => write!(
                f,
                "{address} can be reached from other machines: anyone there could read and delete everything. Give the \
                 cluster certificates (`dml cluster init`) and this program --identity FILE; or listen on 127.0.0.1; or \
                 add --insecure if the network is yours alone"
            ),
            Self::Nowhere(address) => write!(
                f,
                "{address} is every address of this machine, and none is found at which others reach it: say one with \
                 --advertise ADDRESS:PORT"
            ),
            Self::Elsewhere(network) => {
                write!(f, "this machine has no address in {network}: say another one with --advertise")
            }
            Self::Refused(address, error) => write!(f, "cannot listen on {address}: {error}"),
        }
    }
}

/// Listens on an address. One that others can reach has to be allowed by `insecure`, unless the program is `guarded`: it
/// shows who it is, and answers those whom it knows.
pub async fn listen(address: SocketAddr, guarded: bool, insecure: bool) -> Result<TcpListener, ListenError> {
    if !guarded && !address.ip().is_loopback() {
        if !insecure {
            return Err(ListenError::Open(address));
        }
        tracing::warn!(%address, "no authentication: whoever reaches this address can read and delete everything");
    }
    #[cfg(unix)]
    crate::files::open_as_many_as_may_be();
    TcpListener::bind(address).await.map_err(|error| ListenError::Refused(address, error))
}

/// Where others reach a program: as the user says, or where it listens. One that listens everywhere is reached at the
/// address from which it reaches others.
pub fn reached_at(
    advertised: Option<Advertise>,
    listens: SocketAddr,
    others: &[Place],
) -> Result<SocketAddr, ListenError> {
    match advertised {
        Some(Advertise::At(address)) => return Ok(address),
        Some(Advertise::In(network)) => {
            // Nothing is sent to the first address of the network, which need not be there.
            let inside = SocketAddr::new(network.base(), 9).to_string();
            let ip = way_to(&inside, listens).filter(|ip| network.has(*ip));
            return ip.map(|ip| SocketAddr::new(ip, listens.port())).ok_or(ListenError::Elsewhere(network));
        }
        None => {}
    }
    if !listens.ip().is_unspecified() {
        return Ok(listens);
    }
    let own = others.iter().find_map(|other| way_to(&other.to_string(), listens));
    // Else by the ways out, to addresses for documentation: nothing is sent there (RFC 5737, RFC 3849).
    let own = own.or_else(|| ["192.0.2.1:9", "[2001:db8::1]:9"].iter().find_map(|out| way_to(out, listens)));
    let ip = own.ok_or(ListenError::Nowhere(listens))?;
    Ok(SocketAddr::new(ip, listens.port()))
}

/// The own address on the way to another one, if a socket that listens there can be reached at it.
fn way_to(other: &str, listens: SocketAddr) -> Option<IpAddr> {
    let others = other.to_socket_addrs().ok()?.filter(|other| listens.is_ipv6() || other.is_ipv4());
    others.into_iter().find_map(|other| {
        let any: IpAddr =
            if other.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect(other).ok()?;
        socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_unspecified())
    })
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
        let refused = listen(any, false, false).await.unwrap_err();
        assert!(refused.to_string().contains("--insecure"), "{refused}");
        assert!(listen(any, false, true).await.is_ok() && listen(any, true, false).await.is_ok());
        assert!(listen(SocketAddr::from(([127, 0, 0, 1], 0)), false, false).await.is_ok());
    }

    #[test]
    fn a_program_that_listens_everywhere_is_reached_by_the_way_to_others() {
        let any = SocketAddr::from(([0, 0, 0, 0], 7301));
        let local = SocketAddr::from(([127, 0, 0, 1], 7301));
        let others = ["127.0.0.9:1"].map(|place| place.parse().unwrap());
        assert_eq!(reached_at(None, any, &others).unwrap(), local);
        let named = ["no-such-host.invalid", "localhost"].map(|place| place.parse().unwrap());
        assert_eq!(reached_at(None, any, &named).unwrap(), local, "the first that leads anywhere");
        // Without a network there is no way out, which is said.
        if let Ok(address) = reached_at(None, any, &[]) {
            assert!(dml_net::addresses::plausible(address), "{address}");
        }
        let advertised = SocketAddr::from(([10, 0, 0, 5], 1));
        assert_eq!(reached_at(Some(Advertise::At(advertised)), any, &others).unwrap(), advertised);
        assert_eq!(reached_at("127.0.0.0/8".parse().ok(), any, &[]).unwrap(), local);
        let elsewhere = reached_at("203.0.113.0/24".parse().ok(), any, &others).unwrap_err();
        assert!(elsewhere.to_string().contains("203.0.113.0/24"), "{elsewhere}");
        assert_eq!(reached_at(None, local, &[]).unwrap(), local);
    }
}
