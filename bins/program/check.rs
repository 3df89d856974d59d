//! Asking the node of this machine whether it is alive, as `--check` does: a container has no other program for it.

use std::{
    error::Error,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
};

use dml_net::{
    Client,
    identity::{Credentials, Party},
    view::Role,
};

use crate::identity;

/// Asks the node of this role that listens there, over TLS if it has an identity; an error if it is not alive.
pub async fn check(listens: SocketAddr, identity: Option<&Path>, role: Role) -> Result<(), Box<dyn Error>> {
    let address = SocketAddr::new(reachable(listens.ip()), listens.port());
    let client = match identity {
        Some(file) => {
            let own = match identity::read(file)? {
                Credentials::Key(key) => key.certify(Party::worker(), &[])?,
                Credentials::Own(own) => own,
            };
            Client::new([own.dial(role)?.peer(address)])
        }
        None => Client::http(&address.to_string())?,
    };
    Ok(client.alive().await?)
}

/// Who listens everywhere is reached on this machine.
fn reachable(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        IpAddr::V4(_) | IpAddr::V6(_) => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_everywhere_is_asked_on_this_machine() {
        for (listens, asked) in [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("10.0.0.5", "10.0.0.5")] {
            assert_eq!(reachable(listens.parse().unwrap()).to_string(), asked);
        }
    }
}
