//! Where others reach a program, as its user says.

use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use dml_net::addresses::plausible;

/// Where others reach a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advertise {
    /// At this address.
    At(SocketAddr),
    /// At the address that it has in this network, which is known where nobody knows the address beforehand.
    In(Network),
}

/// A network: all addresses that begin with so many bits of this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    base: IpAddr,
    bits: u32,
}

impl Network {
    /// Whether an address is in it.
    pub fn has(&self, address: IpAddr) -> bool {
        let number = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => u128::from(u32::from(ip)) << 96,
            IpAddr::V6(ip) => u128::from(ip),
        };
        let differ = number(self.base) ^ number(address);
        self.base.is_ipv4() == address.is_ipv4() && differ.leading_zeros() >= self.bits
    }

    /// The address that it begins with.
    pub fn base(&self) -> IpAddr {
        self.base
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.base, self.bits)
    }
}

impl FromStr for Advertise {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let network =
            text.split_once('/').and_then(|(base, bits)| Some((base.parse().ok()?, bits.parse().ok()?)));
        if let Some((base, bits)) = network {
            let most = if IpAddr::is_ipv4(&base) { 32 } else { 128 };
            if (1..=most).contains(&bits) {
                return Ok(Self::In(Network { base, bits }));
            }
            return Err(format!("a network of such addresses has from 1 to {most} bits: write 10.0.0.0/16"));
        }
        let address: SocketAddr = text.parse().map_err(|_| {
            "it is no address with a port, and no network: write 10.0.0.5:7301, [fd00::5]:7301 or 10.0.0.0/16".to_string()
        })?;
        if plausible(address) {
            return Ok(Self::At(address));
        }
        Err("nobody reaches a program there: write an address of this machine and the port; or leave --advertise out, \
             and it is the address from which others are reached"
            .into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_networks_are_read() {
        let at = SocketAddr::from(([10, 0, 0, 5], 7301));
        assert_eq!("10.0.0.5:7301".parse(), Ok(Advertise::At(at)));
        let Ok(Advertise::In(network)) = "10.77.0.0/16".parse() else { panic!("a network") };
        assert_eq!(network.to_string(), "10.77.0.0/16");
        let has = ["10.77.255.1", "10.78.0.1", "::1"].map(|ip| network.has(ip.parse().unwrap()));
        assert_eq!(has, [true, false, false]);
        let Ok(Advertise::In(network)) = "fd00::/8".parse() else { panic!("a network") };
        assert_eq!(["fd12::1", "fe80::1"].map(|ip| network.has(ip.parse().unwrap())), [true, false]);
    }

    #[test]
    fn nobody_advertises_an_address_that_is_none() {
        let error = |text: &str| text.parse::<Advertise>().unwrap_err();
        for bad in ["0.0.0.0:7301", "[::]:7301", "10.0.0.5:0", "224.0.0.1:7301"] {
            assert!(error(bad).contains("leave --advertise out"), "{bad}");
        }
        for bad in ["10.0.0.5", "10.0.0.0/x", "x/16"] {
            assert!(error(bad).contains("10.0.0.5:7301"), "{bad}");
        }
        assert!(error("10.0.0.0/33").contains("from 1 to 32") && error("fd00::/0").contains("128"));
    }
}
