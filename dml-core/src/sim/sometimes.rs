//! Hard cases that a good simulation reaches: a test fails if over all its seeds one of them never came up, for then it
//! proves nothing about it.

/// A hard case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sometimes {
    /// Both sides of a partition finished units of the same round.
    BothSidesFinished,
    /// The owner of a job died while workers held leases on it.
    OwnerDiedWithLeases,
    /// A node with a tombstone was sent a live copy, or the other way round.
    TombstoneMetLiveCopy,
    /// A copy was sent to a second node, as the first had not taken it.
    CopyReplanned,
    /// A copy arrived a second time after the thing was buried.
    LateDuplicateAfterBurial,
    /// A letter was for an earlier life of its receiver, or from an earlier life of its sender.
    LetterOfEarlierLife,
    /// A merge learned from both sides.
    MergedBothWays,
    /// A disk was full while a write waited.
    FullWhileWriting,
    /// A tombstone was buried.
    Buried,
    /// A disk was lost, and with it the copies on it.
    DiskLost,
    /// A node died while writes were on their way.
    DiedWhileWriting,
    /// A node came back with a record that the others had got further with.
    OldReplicaReturned,
    /// A node that lacks a thing had a question about it answered by another.
    RoutedOn,
    /// Work was handed out by another node than the one that was asked.
    WorkFromElsewhere,
    /// Two nodes handed out the same piece: neither knew of the other.
    TwoOwners,
    /// A result came after the piece was done.
    ResultNotNeeded,
    /// A lease was lost while its worker was busy.
    LeaseLost,
    /// A corrupt blob was noticed and fetched again.
    BlobMended,
    /// A letter waited for the blobs that it names.
    LetterWaitedForBlobs,
    /// A letter was dropped, as its blobs did not come.
    BlobsDidNotCome,
    /// Wrong bytes were refused.
    WrongBytesRefused,
    /// A deleted thing was made again.
    MadeAgain,
    /// A cancelled training was taken up again.
    TakenUpAgain,
    /// A frozen node found letters of its sleep.
    LettersAfterSleep,
    /// A write was acknowledged with as many copies as are wanted, in the midst of faults.
    FullyCopied,
    /// A write was acknowledged with fewer copies, as fewer nodes were there.
    FewerCopies,
    /// A request was refused, as those who have the thing were not there.
    Unreachable,
    /// A node took in several events before it acted.
    ActedOnMany,
}

/// All hard cases.
pub const SOMETIMES: [Sometimes; 28] = [
    Sometimes::BothSidesFinished,
    Sometimes::OwnerDiedWithLeases,
    Sometimes::TombstoneMetLiveCopy,
    Sometimes::CopyReplanned,
    Sometimes::LateDuplicateAfterBurial,
    Sometimes::LetterOfEarlierLife,
    Sometimes::MergedBothWays,
    Sometimes::FullWhileWriting,
    Sometimes::Buried,
    Sometimes::DiskLost,
    Sometimes::DiedWhileWriting,
    Sometimes::OldReplicaReturned,
    Sometimes::RoutedOn,
    Sometimes::WorkFromElsewhere,
    Sometimes::TwoOwners,
    Sometimes::ResultNotNeeded,
    Sometimes::LeaseLost,
    Sometimes::BlobMended,
    Sometimes::LetterWaitedForBlobs,
    Sometimes::BlobsDidNotCome,
    Sometimes::WrongBytesRefused,
    Sometimes::MadeAgain,
    Sometimes::TakenUpAgain,
    Sometimes::LettersAfterSleep,
    Sometimes::FullyCopied,
    Sometimes::FewerCopies,
    Sometimes::Unreachable,
    Sometimes::ActedOnMany,
];
