//! The db nodes of a cluster: who they are, where they are, and the order from which ownership follows.

use alloc::{format, string::String};
use core::{fmt, net::SocketAddr, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The name of a db node: random, made once, kept on its disk. Written `db-` and twelve hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u64);

impl NodeId {
    /// The name from a random number, of which 48 bits count.
    pub const fn new(random: u64) -> Self {
        Self(random & ((1 << 48) - 1))
    }

    /// The number behind the name.
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "db-{:012x}", self.0)
    }
}

/// The text is not the name of a db node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a db node is called db- and twelve hexadecimal digits")]
pub struct NotANode;

impl FromStr for NodeId {
    type Err = NotANode;

    fn from_str(text: &str) -> Result<Self, NotANode> {
        let digits = text.strip_prefix("db-").filter(|digits| digits.len() == 12).ok_or(NotANode)?;
        let plain = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        u64::from_str_radix(digits, 16).ok().filter(|_| plain).map(Self).ok_or(NotANode)
    }
}

impl Serialize for NodeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for NodeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(|error: NotANode| de::Error::custom(format!("{error}")))
    }
}

/// A db node in one of its lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its name. A node that lost its disk has another.
    pub id: NodeId,
    /// Where the others reach it.
    pub address: SocketAddr,
    /// How many times it has started, this time included.
    pub generation: u32,
}

impl Member {
    /// Its place in the order of ownership: by address as a number, IPv4 mapped into IPv6, then by port; so 10.0.0.9
    /// comes before 10.0.0.10. Two nodes that claim one address are told apart by name.
    pub fn place(&self) -> Place {
        let ip = match self.address.ip() {
            core::net::IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            core::net::IpAddr::V6(ip) => ip,
        };
        Place(ip.octets(), self.address.port(), self.id)
    }
}

/// See [`Member::place`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place([u8; 16], u16, NodeId);

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{string::ToString, vec::Vec};

    fn at(address: &str, id: u64) -> Member {
        Member { id: NodeId::new(id), address: address.parse().expect("an address"), generation: 1 }
    }

    #[test]
    fn the_order_is_that_of_numbers_not_of_text() {
        let ordered = [
            at("10.0.0.9:7301", 9),
            at("[::ffff:10.0.0.10]:80", 3),
            at("10.0.0.10:7301", 1),
            at("10.0.0.10:7301", 2),
            at("10.0.0.10:10000", 0),
            at("[fd00::1]:1", 0),
        ];
        let places: Vec<Place> = ordered.iter().map(Member::place).collect();
        assert!(places.is_sorted_by(|a, b| a < b), "{places:?}");
    }

    #[test]
    fn names_round_trip_and_refuse_garbage() {
        let id = NodeId::new(0xabc_0000_0001_0203);
        assert_eq!((id.to_string().as_str(), id.to_string().parse()), ("db-000000010203", Ok(id)));
        for bad in ["", "db-", "db-00000001020", "db-+00000010203", "db-00000001020é", "ab-000000010203"] {
            assert_eq!(bad.parse::<NodeId>(), Err(NotANode), "{bad}");
        }
    }
}
