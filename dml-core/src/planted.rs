//! Faults of our own making, to see that the simulation ([`crate::sim`]) notices them. Without the feature `planted`
//! there are none, and the compiler removes every trace of them.

/// A fault in the code of a db node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Bug {
    /// A write is acknowledged before it is durable.
    AcknowledgesEarly = 1,
    /// A write is acknowledged after one copy only.
    AcknowledgesOneCopy,
    /// The owner is the holder with the lowest address as text.
    OwnerByText,
    /// The owner is the holder with the highest address.
    OwnerIsHighest,
    /// A merge forgets units of the same round.
    MergeForgetsUnits,
    /// In a merge the lesser round wins.
    LesserRoundWins,
    /// A tombstone gives way to a live copy of an earlier life.
    TombstoneGivesWay,
    /// Leases are granted by the wall clock.
    WallClockLease,
    /// The epoch of a lease is not looked at.
    EpochIgnored,
    /// A round is folded while a unit is missing.
    FoldsIncompleteRound,
    /// Holders that are not there count as copies.
    CountsDeadHolders,
    /// A tombstone is buried without asking anybody.
    BuriesUnasked,
    /// Rows are told apart by their number of changes alone.
    RowWithoutGeneration,
    /// Letters of an earlier life are heard.
    HearsEarlierLives,
    /// A copy is taken although its blobs have not come; this one is in the program around the brain.
    CopyWithoutBlobs,
}

/// All of them.
#[cfg(feature = "planted")]
pub const BUGS: [Bug; 15] = [
    Bug::AcknowledgesEarly,
    Bug::AcknowledgesOneCopy,
    Bug::OwnerByText,
    Bug::OwnerIsHighest,
    Bug::MergeForgetsUnits,
    Bug::LesserRoundWins,
    Bug::TombstoneGivesWay,
    Bug::WallClockLease,
    Bug::EpochIgnored,
    Bug::FoldsIncompleteRound,
    Bug::CountsDeadHolders,
    Bug::BuriesUnasked,
    Bug::RowWithoutGeneration,
    Bug::HearsEarlierLives,
    Bug::CopyWithoutBlobs,
];

#[cfg(feature = "planted")]
static PLANTED: core::sync::atomic::AtomicU8 = core::sync::atomic::AtomicU8::new(0);

/// Plants a fault in all nodes of this process, in place of the one before.
#[cfg(feature = "planted")]
pub fn plant(bug: Option<Bug>) {
    PLANTED.store(bug.map_or(0, |bug| bug as u8), core::sync::atomic::Ordering::SeqCst);
}

/// Whether this fault is planted.
#[cfg(feature = "planted")]
pub(crate) fn is(bug: Bug) -> bool {
    PLANTED.load(core::sync::atomic::Ordering::Relaxed) == bug as u8
}

/// There are no faults.
#[cfg(not(feature = "planted"))]
pub(crate) const fn is(_: Bug) -> bool {
    false
}
