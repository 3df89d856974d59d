//! Who a node is to the protocol, and how the protocol throws dice.

use core::convert::Infallible;

use rand_core::TryRng;

use crate::{
    dice::Dice,
    member::{Member, NodeId},
};

/// A member, and how often it has taken up its name again in this life because the others held it for dead.
///
/// To the protocol the name is the address, so that a new node at an old address is another member, and a ping for the
/// dead one is no concern of its.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) member: Member,
    pub(super) renewal: u32,
}

impl Identity {
    pub(super) fn new(member: Member) -> Self {
        Self { member, renewal: 0 }
    }

    fn rank(&self) -> (u32, u32) {
        (self.member.generation, self.renewal)
    }
}

/// Where a member is reached says nothing about who it is; a life has one address. The receiver of a datagram is
/// therefore written without it.
impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.member.id == other.member.id && self.rank() == other.rank()
    }
}

impl Eq for Identity {}

impl foca::Identity for Identity {
    type Addr = NodeId;

    fn renew(&self) -> Option<Self> {
        let renewal = self.renewal.checked_add(1)?;
        Some(Self { renewal, ..self.clone() })
    }

    fn addr(&self) -> NodeId {
        self.member.id
    }

    fn win_addr_conflict(&self, other: &Self) -> bool {
        self.rank() > other.rank()
    }
}

impl TryRng for Dice {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok((self.number() >> 32) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.number())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.number().to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}
