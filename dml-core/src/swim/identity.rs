//! Who a node is to the protocol, and the dice that the protocol throws.

use core::convert::Infallible;

use rand_core::TryRng;

use crate::{member::Member, member::NodeId, rng};

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

/// Random numbers from a seed: the same seed and the same events make the same choices.
#[derive(Debug, Clone)]
pub(super) struct Dice {
    seed: u64,
    thrown: u64,
}

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, thrown: 0 }
    }

    fn throw(&mut self) -> u64 {
        self.thrown += 1;
        rng::draw(self.seed, self.thrown)
    }

    /// A number in 0..n; 0 when n is 0.
    pub(super) fn below(&mut self, n: usize) -> usize {
        self.thrown += 1;
        rng::below(self.seed, self.thrown, n as u64) as usize
    }

    /// Keeps `n` of the things, any of them.
    pub(super) fn keep<T>(&mut self, n: usize, things: &mut alloc::vec::Vec<T>) {
        while things.len() > n {
            let one = self.below(things.len());
            things.swap_remove(one);
        }
    }
}

impl TryRng for Dice {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok((self.throw() >> 32) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.throw())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.throw().to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}
