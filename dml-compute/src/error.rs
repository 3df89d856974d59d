//! Why a unit of work could not be done, split by what the caller can do about it.

/// Why a unit or a fold gave no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkError {
    /// The input is at fault: the same on every worker, so the job fails with these words.
    #[error("{0}")]
    Input(String),
    /// A blob or a record could not be had just now: try elsewhere, or later.
    #[error("{0}")]
    Unavailable(String),
    /// Stored bytes are not what they should be.
    #[error("{what} cannot be read: {why}")]
    Corrupt {
        /// Which bytes.
        what: &'static str,
        /// What is wrong with them.
        why: String,
    },
}
