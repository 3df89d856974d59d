//! A dataset: typed columns over immutable chunks, each chunk a blob. Its id is the digest of this description, so
//! the same table uploaded twice is the same dataset.

use alloc::{string::String, vec::Vec};

use serde::{Deserialize, Serialize};

use crate::id::Digest;

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum ColumnType {
    /// 64-bit whole numbers.
    Integer,
    /// 64-bit floating-point numbers, always finite.
    Float,
    /// True or false.
    Boolean,
    /// Text: a category, or free text.
    Text,
    /// Days, without a time of day.
    Date,
    /// Instants in milliseconds, UTC unless the text said otherwise.
    DateTime,
}

impl ColumnType {
    /// Whether the column is a number that can be computed with as it is.
    pub fn is_numeric(self) -> bool {
        matches!(self, Self::Integer | Self::Float)
    }

    /// The word for it in messages and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Integer => "integer",
            Self::Float => "float",
            Self::Boolean => "boolean",
            Self::Text => "text",
            Self::Date => "date",
            Self::DateTime => "datetime",
        }
    }
}

/// A value of a text or boolean column and how many rows hold it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Count {
    /// The value.
    pub value: String,
    /// In how many rows it stands.
    pub rows: u64,
}

/// Statistics of a column over all its values that are not blank.
#[derive(Debug, Clone, PartialEq, PartialOrd, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Summary {
    /// All values are blank.
    Blank,
    /// A number; for dates days, for datetimes milliseconds, since 1970-01-01.
    Numeric {
        /// The smallest value.
        min: f64,
        /// The greatest value.
        max: f64,
        /// The mean.
        mean: f64,
        /// The population standard deviation.
        std: f64,
        /// Every distinct value with its count, ascending, when there are at most [`MAX_COUNTS`]; else empty.
        counts: Vec<Count>,
    },
    /// A text or a boolean.
    Categories {
        /// How many distinct values there are; absent beyond [`MAX_DISTINCT`].
        distinct: Option<u64>,
        /// The most frequent values, most frequent first (at most [`MAX_COUNTS`]), ties in text order.
        top: Vec<Count>,
    },
}

/// How many distinct values a summary names.
pub const MAX_COUNTS: usize = 64;

/// Up to how many distinct values a column's are counted.
pub const MAX_DISTINCT: usize = 10_000;

/// A column of a dataset.
#[derive(Debug, Clone, PartialEq, PartialOrd, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Column {
    /// Its name in the header.
    pub name: String,
    /// What it holds.
    pub r#type: ColumnType,
    /// How many of its values are blank.
    pub nulls: u64,
    /// Its statistics.
    pub summary: Summary,
}

/// A run of rows, stored as one blob.
#[derive(Debug, Clone, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct Chunk {
    /// The blob: an Arrow IPC stream with one record batch.
    pub digest: Digest,
    /// How many rows it holds.
    pub rows: u64,
    /// The blob's size.
    pub bytes: u64,
}

/// A table: what a dataset record holds, and what its id is the digest of.
#[derive(Debug, Clone, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct Dataset {
    /// Rows in all.
    pub rows: u64,
    /// Columns in the order of the header.
    pub columns: Vec<Column>,
    /// The rows, in order.
    pub chunks: Vec<Chunk>,
}

impl Dataset {
    /// The dataset's id.
    pub fn id(&self) -> Digest {
        Digest::of_value(self)
    }

    /// The column of that name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The number of the first row of a chunk.
    pub fn first_row(&self, chunk: usize) -> u64 {
        self.chunks.iter().take(chunk).map(|chunk| chunk.rows).sum()
    }

    /// The size of all chunks in bytes.
    pub fn bytes(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.bytes).sum()
    }
}
