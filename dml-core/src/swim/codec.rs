//! What membership datagrams look like: a version byte, a header, what the sender has heard of members, a check.
//!
//! ```text
//! datagram  version:1  header  [count:2  member*]  check:4
//! header    kind:1  from:identity  incarnation:varint  to:name  what the kind needs
//! identity  name  address:4 or 16  port:2
//! name      id:6  generation:varint  renewal:varint, doubled, plus one if the address is IPv6
//! member    identity  incarnation:varint, times four, plus 0 alive, 1 suspected, 2 gone
//! ```
//! Numbers are big-endian; a varint has seven bits in a byte, the lowest first. A member over IPv4 is 15 bytes. Anything
//! else is refused as a whole: the check is there because one wrong bit in a generation would lock its owner out.

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytes::{Buf, BufMut};
use foca::{Header, Incarnation, Member as Update, Message, State};

use super::identity::Identity;
use crate::{
    member::{Member, NodeId},
    rng,
};

/// No datagram is longer.
pub(super) const LONGEST: usize = 16 * 1024;
/// The bytes around what the protocol writes.
pub(super) const ENVELOPE: usize = 1 + 4;
const VERSION: u8 = 1;
/// The incarnation of a member that said goodbye; one that was found dead has a lower one.
pub(super) const GOODBYE: Incarnation = Incarnation::MAX;

const PING: u8 = 0;
const ACK: u8 = 1;
const PING_REQ: u8 = 2;
const INDIRECT_PING: u8 = 3;
const INDIRECT_ACK: u8 = 4;
const FORWARDED_ACK: u8 = 5;
const ANNOUNCE: u8 = 6;
const FEED: u8 = 7;
const GOSSIP: u8 = 8;
const TURN_UNDEAD: u8 = 9;

/// These bytes are no membership datagram, or do not fit into one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Garbled {
    #[error("the membership datagram has another version")]
    Version,
    #[error("the membership datagram was changed on the way")]
    Check,
    #[error("the membership datagram ends too early")]
    Short,
    #[error("the membership datagram is too long")]
    Long,
    #[error("the membership datagram holds a number or a kind that does not exist")]
    Value,
}

/// A datagram that was read to its end and found good.
pub(super) struct Letter<'a> {
    /// Who sent it.
    pub(super) from: Identity,
    /// What the protocol wrote.
    pub(super) body: &'a [u8],
}

/// Puts what the protocol wrote into its envelope.
pub(super) fn seal(body: &[u8]) -> Vec<u8> {
    let mut datagram = Vec::with_capacity(body.len() + ENVELOPE);
    datagram.push(VERSION);
    datagram.extend_from_slice(body);
    datagram.extend_from_slice(&check(body).to_be_bytes());
    datagram
}

/// Takes a datagram out of its envelope, having read all of it.
pub(super) fn open(datagram: &[u8]) -> Result<Letter<'_>, Garbled> {
    if datagram.len() > LONGEST {
        return Err(Garbled::Long);
    }
    let (&version, rest) = datagram.split_first().ok_or(Garbled::Short)?;
    if version != VERSION {
        return Err(Garbled::Version);
    }
    let (body, sum) = rest.split_last_chunk::<4>().ok_or(Garbled::Short)?;
    if check(body).to_be_bytes() != *sum {
        return Err(Garbled::Check);
    }
    let mut left = body;
    let header = read_header(&mut left)?;
    if carries_news(&header.message) {
        for _ in 0..take::<2>(&mut left).map(u16::from_be_bytes)? {
            read_update(&mut left)?;
        }
    }
    if left.is_empty() { Ok(Letter { from: header.src, body }) } else { Err(Garbled::Long) }
}

/// Whether the protocol tells somebody that it is held for dead.
pub(super) fn turns_undead(body: &[u8]) -> bool {
    body.first() == Some(&TURN_UNDEAD)
}

/// The datagram of this header with this news.
pub(super) fn letter(header: &Header<Identity>, news: &[Update<Identity>]) -> Vec<u8> {
    seal(&write(header, news))
}

fn write(header: &Header<Identity>, news: &[Update<Identity>]) -> Vec<u8> {
    let mut body = Vec::new();
    write_header(&mut body, header);
    if carries_news(&header.message) {
        body.put_u16(news.len() as u16);
        news.iter().for_each(|news| write_update(&mut body, news));
    }
    body
}

fn carries_news(message: &Message<Identity>) -> bool {
    !matches!(message, Message::Announce | Message::TurnUndead)
}

fn check(body: &[u8]) -> u32 {
    let words = body.chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    });
    words.fold(body.len() as u64, |sum, word| rng::mix(sum ^ word)) as u32
}

/// The format as foca wants it.
pub(super) struct Codec;

impl foca::Codec<Identity> for Codec {
    type Error = Garbled;

    fn encode_header(&mut self, header: &Header<Identity>, buf: impl BufMut) -> Result<(), Garbled> {
        if matches!(header.message, Message::Broadcast) {
            return Err(Garbled::Value);
        }
        let mut bytes = Vec::with_capacity(64);
        write_header(&mut bytes, header);
        put_whole(buf, &bytes)
    }

    fn decode_header(&mut self, buf: impl Buf) -> Result<Header<Identity>, Garbled> {
        read_header(buf)
    }

    fn encode_member(&mut self, update: &Update<Identity>, buf: impl BufMut) -> Result<(), Garbled> {
        let mut bytes = Vec::with_capacity(32);
        write_update(&mut bytes, update);
        put_whole(buf, &bytes)
    }

    fn decode_member(&mut self, buf: impl Buf) -> Result<Update<Identity>, Garbled> {
        read_update(buf)
    }
}

fn put_whole(mut buf: impl BufMut, bytes: &[u8]) -> Result<(), Garbled> {
    if buf.remaining_mut() < bytes.len() {
        return Err(Garbled::Long);
    }
    buf.put_slice(bytes);
    Ok(())
}

fn write_header(bytes: &mut Vec<u8>, header: &Header<Identity>) {
    let (kind, third, number) = match &header.message {
        Message::Ping(number) => (PING, None, Some(number)),
        Message::Ack(number) => (ACK, None, Some(number)),
        Message::PingReq { target, probe_number } => (PING_REQ, Some(target), Some(probe_number)),
        Message::IndirectPing { origin, probe_number } => (INDIRECT_PING, Some(origin), Some(probe_number)),
        Message::IndirectAck { target, probe_number } => (INDIRECT_ACK, Some(target), Some(probe_number)),
        Message::ForwardedAck { origin, probe_number } => (FORWARDED_ACK, Some(origin), Some(probe_number)),
        Message::Announce => (ANNOUNCE, None, None),
        Message::Feed => (FEED, None, None),
        // We have no broadcasts: the codec refuses them before.
        Message::Gossip | Message::Broadcast => (GOSSIP, None, None),
        Message::TurnUndead => (TURN_UNDEAD, None, None),
    };
    bytes.push(kind);
    write_identity(bytes, &header.src);
    write_varint(bytes, u64::from(header.src_incarnation));
    write_name(bytes, &header.dst, false);
    if let Some(third) = third {
        write_identity(bytes, third);
    }
    bytes.extend(number);
}

fn read_header(mut buf: impl Buf) -> Result<Header<Identity>, Garbled> {
    let kind = read_byte(&mut buf)?;
    let src = read_identity(&mut buf)?;
    let src_incarnation = read_varint(&mut buf)?.try_into().map_err(|_| Garbled::Value)?;
    let (dst, false) = read_name(&mut buf)? else { return Err(Garbled::Value) };
    let message = match kind {
        PING => Message::Ping(read_byte(&mut buf)?),
        ACK => Message::Ack(read_byte(&mut buf)?),
        PING_REQ => Message::PingReq { target: read_identity(&mut buf)?, probe_number: read_byte(&mut buf)? },
        INDIRECT_PING => {
            Message::IndirectPing { origin: read_identity(&mut buf)?, probe_number: read_byte(&mut buf)? }
        }
        INDIRECT_ACK => {
            Message::IndirectAck { target: read_identity(&mut buf)?, probe_number: read_byte(&mut buf)? }
        }
        FORWARDED_ACK => {
            Message::ForwardedAck { origin: read_identity(&mut buf)?, probe_number: read_byte(&mut buf)? }
        }
        ANNOUNCE => Message::Announce,
        FEED => Message::Feed,
        GOSSIP => Message::Gossip,
        TURN_UNDEAD => Message::TurnUndead,
        _ => return Err(Garbled::Value),
    };
    Ok(Header { src, src_incarnation, dst, message })
}

fn write_update(bytes: &mut Vec<u8>, update: &Update<Identity>) {
    let state = match update.state() {
        State::Alive => 0,
        State::Suspect => 1,
        State::Down => 2,
    };
    write_identity(bytes, update.id());
    write_varint(bytes, u64::from(update.incarnation()) << 2 | state);
}

fn read_update(mut buf: impl Buf) -> Result<Update<Identity>, Garbled> {
    let identity = read_identity(&mut buf)?;
    let number = read_varint(&mut buf)?;
    let state = match number & 3 {
        0 => State::Alive,
        1 => State::Suspect,
        2 => State::Down,
        _ => return Err(Garbled::Value),
    };
    Ok(Update::new(identity, (number >> 2).try_into().map_err(|_| Garbled::Value)?, state))
}

fn write_identity(bytes: &mut Vec<u8>, identity: &Identity) {
    write_name(bytes, identity, identity.member.address.is_ipv6());
    match identity.member.address.ip() {
        IpAddr::V4(ip) => bytes.extend_from_slice(&ip.octets()),
        IpAddr::V6(ip) => bytes.extend_from_slice(&ip.octets()),
    }
    bytes.put_u16(identity.member.address.port());
}

fn read_identity(mut buf: impl Buf) -> Result<Identity, Garbled> {
    let (mut identity, v6) = read_name(&mut buf)?;
    let ip = if v6 { IpAddr::from(take::<16>(&mut buf)?) } else { IpAddr::from(take::<4>(&mut buf)?) };
    identity.member.address = SocketAddr::new(ip, u16::from_be_bytes(take(&mut buf)?));
    Ok(identity)
}

fn write_name(bytes: &mut Vec<u8>, identity: &Identity, v6: bool) {
    bytes.extend_from_slice(&identity.member.id.number().to_be_bytes()[2..]);
    write_varint(bytes, u64::from(identity.member.generation));
    write_varint(bytes, u64::from(identity.renewal) << 1 | u64::from(v6));
}

/// The identity without its address, and whether that is IPv6.
fn read_name(mut buf: impl Buf) -> Result<(Identity, bool), Garbled> {
    let mut number = [0; 8];
    number[2..].copy_from_slice(&take::<6>(&mut buf)?);
    let id = NodeId::new(u64::from_be_bytes(number));
    let generation = read_varint(&mut buf)?.try_into().map_err(|_| Garbled::Value)?;
    let renewal = read_varint(&mut buf)?;
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let member = Member { id, address, generation };
    Ok((
        Identity { member, renewal: (renewal >> 1).try_into().map_err(|_| Garbled::Value)? },
        renewal & 1 == 1,
    ))
}

fn write_varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// A number has one spelling: the last byte of a longer one is not zero.
fn read_varint(mut buf: impl Buf) -> Result<u64, Garbled> {
    let mut number = 0;
    for place in 0..5 {
        let byte = read_byte(&mut buf)?;
        number |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return if byte == 0 && place > 0 { Err(Garbled::Value) } else { Ok(number) };
        }
    }
    Err(Garbled::Value)
}

fn read_byte(buf: impl Buf) -> Result<u8, Garbled> {
    take(buf).map(|[byte]| byte)
}

fn take<const N: usize>(mut buf: impl Buf) -> Result<[u8; N], Garbled> {
    let mut bytes = [0; N];
    buf.try_copy_to_slice(&mut bytes).map_err(|_| Garbled::Short)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::{super::tests::message, *};
    use alloc::vec;
    use proptest::prelude::*;

    fn identity() -> impl Strategy<Value = Identity> {
        (any::<u64>(), any::<SocketAddr>(), any::<u32>(), any::<u32>()).prop_map(
            |(id, at, generation, renewal)| {
                let address = SocketAddr::new(at.ip(), at.port());
                Identity { member: Member { id: NodeId::new(id), address, generation }, renewal }
            },
        )
    }

    fn update() -> impl Strategy<Value = Update<Identity>> {
        let state = prop_oneof![Just(State::Alive), Just(State::Suspect), Just(State::Down)];
        (identity(), any::<u16>(), state)
            .prop_map(|(identity, incarnation, state)| Update::new(identity, incarnation, state))
    }

    fn body() -> impl Strategy<Value = (Header<Identity>, Vec<Update<Identity>>, Vec<u8>)> {
        let header = (identity(), any::<u16>(), identity(), message(identity()));
        (header, prop::collection::vec(update(), 0..20)).prop_map(
            |((src, src_incarnation, dst, message), updates)| {
                let header = Header { src, src_incarnation, dst, message };
                let bytes = write(&header, &updates);
                (header, updates, bytes)
            },
        )
    }

    proptest! {
        #[test]
        fn what_was_written_is_read((header, updates, body) in body()) {
            let datagram = seal(&body);
            let letter = open(&datagram).expect("our own");
            prop_assert_eq!(letter.from.member, header.src.member);
            prop_assert_eq!(letter.body, body.as_slice());
            let mut left = letter.body;
            prop_assert_eq!(read_header(&mut left).expect("our own"), header.clone());
            if left.remaining() > 0 {
                prop_assert_eq!(left.get_u16() as usize, updates.len());
                for update in updates {
                    let read = read_update(&mut left).expect("our own");
                    prop_assert_eq!((read.id().member, &read), (update.id().member, &update));
                }
            }
        }

        #[test]
        fn arbitrary_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(open(&bytes).is_err());
            // Also with the right version and check the format refuses, and never panics.
            let _ = open(&seal(&bytes));
        }

        #[test]
        fn a_cut_datagram_is_refused((_, _, body) in body(), keep in any::<prop::sample::Index>()) {
            let datagram = seal(&body);
            prop_assert!(open(&datagram[..keep.index(datagram.len())]).is_err());
            prop_assert!(open(&seal(&body[..keep.index(body.len())])).is_err());
        }

        #[test]
        fn one_wrong_bit_is_refused((_, _, body) in body(), bit in any::<prop::sample::Index>()) {
            let mut datagram = seal(&body);
            let bit = bit.index(datagram.len() * 8);
            datagram[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(open(&datagram).is_err());
        }

        #[test]
        fn more_bytes_are_refused((_, _, mut body) in body(), more in prop::collection::vec(any::<u8>(), 1..40)) {
            body.extend(more);
            prop_assert!(open(&seal(&body)).is_err());
        }
    }

    #[test]
    fn the_format_is_golden() {
        let member = |id, address: &str, generation| Member {
            id: NodeId::new(id),
            address: address.parse().expect("an address"),
            generation,
        };
        let from = Identity { member: member(0x0102_0304_0506, "10.0.0.9:7301", 3), renewal: 0 };
        let to = Identity { member: member(0xa1a2_a3a4_a5a6, "10.0.0.10:7301", 300), renewal: 1 };
        let news = Update::new(Identity::new(member(7, "[fd00::1]:80", 1)), 33, State::Suspect);
        let header = Header { src: from.clone(), src_incarnation: 0, dst: to, message: Message::Ping(42) };
        let datagram = letter(&header, &[news]);
        let golden = [
            vec![1, PING, 1, 2, 3, 4, 5, 6, 3, 0, 10, 0, 0, 9, 0x1c, 0x85, 0],
            vec![0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xac, 0x02, 2, 42],
            vec![
                0, 1, 0, 0, 0, 0, 0, 7, 1, 1, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 80, 0x85,
                0x01,
            ],
            vec![124, 202, 55, 76],
        ];
        assert_eq!(datagram, golden.concat());
        assert_eq!(open(&datagram).expect("our own").from.member, from.member);
        assert_eq!(open(&[2; 40]).err(), Some(Garbled::Version));
        assert_eq!(open(&vec![1; LONGEST + 1]).err(), Some(Garbled::Long));
    }
}
