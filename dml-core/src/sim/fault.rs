//! What can go wrong.

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A message gets lost.
    Loss,
    /// A message takes seconds.
    Delay,
    /// A message is overtaken by others.
    Reorder,
    /// A message arrives twice.
    Duplicate,
    /// A message arrives again after minutes.
    LateDuplicate,
    /// A line is cut in one direction.
    OneWayCut,
    /// The network falls into two parts, workers and clients included.
    Partition,
    /// A line is cut and mended again and again.
    Flapping,
    /// A db node dies, and stays away for a while.
    Crash,
    /// A db node dies while it writes: of the writes on their way a prefix reaches the disk.
    CrashInPersist,
    /// A db node dies while it writes: the write under way is torn, and undone at the next start.
    TornWrite,
    /// A db node starts again at once.
    Restart,
    /// A db node loses its disk, and comes back under another name.
    DiskLoss,
    /// A db node does nothing for a while, then finds everything at once.
    Pause,
    /// All that a db node hears and says takes long.
    SlowNode,
    /// A wall clock is wrong from the beginning.
    ClockOffset,
    /// A monotonic clock runs too fast or too slow.
    ClockDrift,
    /// A wall clock jumps.
    ClockJump,
    /// A disk is full for a while.
    DiskFull,
    /// A disk is slow for a while.
    SlowDisk,
    /// A blob is corrupt on one disk.
    BitRot,
    /// Some nodes believe for a moment that another is dead.
    FalseDeath,
    /// One node believes for long that another is dead, and nobody else does.
    Disagreement,
    /// A worker sends bytes that are not those of the digest.
    WrongBytes,
    /// A worker dies.
    WorkerKilled,
    /// A worker does nothing for a while.
    WorkerStalled,
    /// A worker says goodbye.
    WorkerLeft,
    /// A client goes away before it is answered.
    ClientGone,
    /// A blob that one db node fetches from another does not come.
    FetchFails,
    /// Name resolution finds nothing.
    DnsEmpty,
    /// Name resolution finds addresses of earlier times.
    DnsStale,
    /// Name resolution finds addresses of others.
    DnsWrong,
}

/// All kinds.
pub const FAULTS: [Fault; 32] = [
    Fault::Loss,
    Fault::Delay,
    Fault::Reorder,
    Fault::Duplicate,
    Fault::LateDuplicate,
    Fault::OneWayCut,
    Fault::Partition,
    Fault::Flapping,
    Fault::Crash,
    Fault::CrashInPersist,
    Fault::TornWrite,
    Fault::Restart,
    Fault::DiskLoss,
    Fault::Pause,
    Fault::SlowNode,
    Fault::ClockOffset,
    Fault::ClockDrift,
    Fault::ClockJump,
    Fault::DiskFull,
    Fault::SlowDisk,
    Fault::BitRot,
    Fault::FalseDeath,
    Fault::Disagreement,
    Fault::WrongBytes,
    Fault::WorkerKilled,
    Fault::WorkerStalled,
    Fault::WorkerLeft,
    Fault::ClientGone,
    Fault::FetchFails,
    Fault::DnsEmpty,
    Fault::DnsStale,
    Fault::DnsWrong,
];

impl Fault {
    /// Whether leases are no worse for it: workers and wall clocks may do what they like.
    pub(super) fn is_harmless(self) -> bool {
        matches!(
            self,
            Self::ClockOffset
                | Self::ClockDrift
                | Self::ClockJump
                | Self::WrongBytes
                | Self::WorkerKilled
                | Self::WorkerStalled
                | Self::WorkerLeft
                | Self::ClientGone
                | Self::BitRot
        )
    }
}
