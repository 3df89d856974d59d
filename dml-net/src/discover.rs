//! Where nodes are: discovery gives addresses, nothing more.

use std::{net::SocketAddr, time::Duration};

use async_trait::async_trait;

/// A source of addresses.
#[async_trait]
pub trait Discover: Send + Sync + 'static {
    /// The addresses known now; none while the source fails.
    async fn addresses(&self) -> Vec<SocketAddr>;
}

/// Addresses that were written down.
pub struct Fixed(pub Vec<SocketAddr>);

#[async_trait]
impl Discover for Fixed {
    async fn addresses(&self) -> Vec<SocketAddr> {
        self.0.clone()
    }
}

/// All addresses behind a name, by the system's resolver.
pub struct Dns {
    /// The name.
    pub name: String,
    /// The port, which DNS does not tell.
    pub port: u16,
}

/// How long the resolver may take.
const PATIENCE: Duration = Duration::from_secs(2);

#[async_trait]
impl Discover for Dns {
    async fn addresses(&self) -> Vec<SocketAddr> {
        let found =
            tokio::time::timeout(PATIENCE, tokio::net::lookup_host((self.name.as_str(), self.port))).await;
        let mut addresses: Vec<SocketAddr> = found.ok().and_then(Result::ok).into_iter().flatten().collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }
}

/// The source for what a user wrote after `--join`: `ADDRESS:PORT`, `NAME:PORT`, or either without a port.
pub fn source(join: &str, default_port: u16) -> Box<dyn Discover> {
    let join = join.trim().trim_start_matches("http://").trim_end_matches('/');
    if let Ok(address) = join.parse::<SocketAddr>() {
        return Box::new(Fixed(vec![address]));
    }
    if let Ok(ip) = join.trim_matches(['[', ']']).parse() {
        return Box::new(Fixed(vec![SocketAddr::new(ip, default_port)]));
    }
    let (name, port) = match join.rsplit_once(':') {
        Some((name, port)) => (name, port.parse().unwrap_or(default_port)),
        None => (join, default_port),
    };
    Box::new(Dns { name: name.into(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_and_addresses_are_told_apart() {
        let local = SocketAddr::from(([127, 0, 0, 1], 7301));
        assert_eq!(source("127.0.0.1", 7301).addresses().await, [local]);
        assert_eq!(source("http://127.0.0.1:7301/", 1).addresses().await, [local]);
        assert!(source("localhost:7301", 1).addresses().await.iter().all(|a| a.port() == 7301));
        assert_eq!(source("no-such-host.invalid", 1).addresses().await, []);
    }
}
