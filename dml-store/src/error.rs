//! What can go wrong with a store, split by what the caller can do about it.

use std::{
    io::{self, ErrorKind},
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use dml_core::Digest;

/// Why a store did not do what it was asked. Cloneable, since one failed write may have been for many callers.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process has the data directory: stop it, or talk to it.
    #[error("another process uses {}; stop it, or talk to it with --cluster", path.display())]
    InUse {
        /// The data directory.
        path: PathBuf,
    },
    /// The directory holds something else: choose another.
    #[error("{} is not a DML data directory, and not empty; choose another with --data", path.display())]
    NotOurs {
        /// The directory that was to be used.
        path: PathBuf,
    },
    /// The directory was written by a newer program: upgrade.
    #[error("{} was written by a newer DML (format {found}, this one knows {known}); upgrade this program", path.display())]
    Newer {
        /// The data directory.
        path: PathBuf,
        /// The format of the directory.
        found: u32,
        /// The newest format that this program knows.
        known: u32,
    },
    /// Bytes came back other than they were written: fetch another copy.
    #[error("{} is damaged: {what}; {mend}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
        /// What to do about it.
        mend: &'static str,
    },
    /// There is no space left: free some, and go on without a restart.
    #[error("no space left for {}; free some on that disk, or move the data directory to a larger one", path.display())]
    Full {
        /// The file that was to be written.
        path: PathBuf,
    },
    /// The disk or the permissions allow no writing.
    #[error("{} cannot be written: {source}; give this user the right to write there, or choose another directory with --data", path.display())]
    ReadOnly {
        /// The file or directory that was to be written.
        path: PathBuf,
        /// What the operating system says.
        source: Arc<io::Error>,
    },
    /// The bytes offered are not those that the digest names: the sender is at fault.
    #[error("the bytes offered as blob {expected} have the digest {found}; send them again")]
    Mismatch {
        /// The digest that was promised.
        expected: Digest,
        /// The digest of the bytes.
        found: Digest,
    },
    /// Something else went wrong with a file; trying again may help.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: Arc<io::Error>,
    },
    /// The disk did not take what it was given, so nothing that it holds may be promised to anyone: the node must end.
    /// Every write after this one is refused with the same error.
    #[error("{} could not be made durable: {source}; nothing is kept since then: check the disk and start this node again", path.display())]
    Fatal {
        /// The file that could not be synced.
        path: PathBuf,
        /// What the operating system says.
        source: Arc<io::Error>,
    },
}

impl StoreError {
    /// Sorts an error of the operating system by what can be done about it.
    pub(crate) fn io(path: PathBuf, error: io::Error) -> Self {
        let kind = error.kind();
        if matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded) {
            Self::Full { path }
        } else if matches!(kind, ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied) {
            Self::ReadOnly { path, source: Arc::new(error) }
        } else {
            Self::Io { path, source: Arc::new(error) }
        }
    }
}

/// Whether the disk still takes what it is given. A failed fsync may have dropped the data and says so only once
/// (Rebello et al. 2020, "Can applications recover from fsync failures?"), so the first one is remembered.
#[derive(Debug, Default)]
pub(crate) struct Health(OnceLock<StoreError>);

impl Health {
    /// Refuses once a sync has failed.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        self.0.get().map_or(Ok(()), |error| Err(error.clone()))
    }

    /// Takes the outcome of a sync.
    pub(crate) fn synced(
        &self,
        path: impl FnOnce() -> PathBuf,
        outcome: io::Result<()>,
    ) -> Result<(), StoreError> {
        outcome.map_err(|error| {
            self.0.get_or_init(|| StoreError::Fatal { path: path(), source: Arc::new(error) }).clone()
        })
    }
}
