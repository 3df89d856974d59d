//! Tables: CSV, NDJSON, Arrow IPC or Parquet to typed Arrow chunks, with statistics; chunks to bytes and back, and to Parquet; rows in
//! and out as CSV and JSON; and the columns of one table in the types of another.
//!
//! ```
//! # fn main() -> Result<(), dml_compute::table::TableError> {
//! use dml_compute::table::{Importer, Limits};
//!
//! let mut importer = Importer::new(tempfile::tempfile()?, Limits::default());
//! let mut chunks = importer.push(b"name,weight\nTux,23.5\nPin")?; // pieces may be cut anywhere
//! chunks.extend(importer.push(b"gu,NA\n")?);
//! let mut typed = importer.finish()?;
//! chunks.truncate(typed.kept()); // those made early are right, unless the types have turned out to be others
//! for chunk in &mut typed {
//!     chunks.push(chunk?);
//! }
//! assert_eq!(chunks[0].num_rows(), 2);
//! assert_eq!(typed.columns()[1].nulls, 1);
//! # Ok(())
//! # }
//! ```
//!
//! # Types
//! A column has the narrowest type that all its values have:
//! - integer, or else float: `42`, `-0.5`, `1e9`. Whole numbers beyond 64 bits are floats. Codes with a leading zero, as
//!   `00501`, are text. A number that is not finite (`inf`, `1e400`) in a column of numbers is an error.
//! - boolean: `true` and `false` in any case. `yes` and `no` are text; `0` and `1` are integers.
//! - date: `2026-01-31`; or else date-time: `2026-01-31 12:30`, `2026-01-31T12:30:15.250+01:00` (then told in UTC).
//! - text: everything else, mixtures, and columns in which all values are blank.
//!
//! Blank is nothing at all, and one of `NA N/A n/a #N/A <NA> NaN nan -nan NULL null None ?`, exactly so. Blanks and tabs
//! around a value do not count unless it is quoted. In a column of text a quoted value is blank only if it is empty:
//! `"NA"` is the text NA. For all else quotes make no difference, since many programs quote every value.
//!
//! # Lines
//! The first line that is not blank is the header: names that differ, trimmed. The delimiter is the one of `,` `;` tab
//! `|` that stands most often in it, outside quotes; in a tie the first of these. Lines end with LF or CRLF; a byte order
//! mark is skipped, and so are blank lines, in tables of one column too (write `NA` for a blank there). A value in double
//! quotes may hold delimiters, line ends, and quotes written twice. [`Limits`] says what is too long.
//!
//! # Arrow
//! [`ArrowTable`] keeps the types that a file names: integers of all sizes are integers, floats of 32 and 64 bits floats,
//! dictionaries of text are text, timestamps of any unit date-times in UTC (cut to milliseconds), `date64` dates. NaN and
//! empty texts are blank, and infinite numbers are errors, as in CSV. All else is refused by name. [`ParquetTable`] does the
//! same for Parquet.
//!
//! # NDJSON
//! [`NdJson`] takes a JSON object a line, and reads it as CSV with every text quoted: types are found in the same way.
//!
//! Leaves out decimal commas, comments, and what the columns mean.

mod arrow;
mod block;
mod chunks;
mod codec;
mod column;
mod convert;
mod cut;
mod error;
mod import;
mod infer;
mod json;
mod ndjson;
mod number;
mod parquet;
mod records;
mod statistics;
mod value;
mod write;

#[cfg(test)]
mod tests;

pub use self::parquet::{ParquetTable, ParquetWriter, is_parquet};
pub use arrow::{ArrowTable, is_arrow, read_arrow};
pub use chunks::{CHUNK_BYTES, CHUNK_CELLS};
pub use codec::{STREAM_END, decode, decode_shared, encode, stream_part};
pub(crate) use column::{Cell, View};
pub use column::{column_type, data_type};
pub use convert::cast;
pub use error::{Place, TableError};
pub use import::{Importer, Typed, read_rows, read_rows_as, read_table};
pub use json::{from_json_rows, to_json_rows, write_ndjson};
pub use ndjson::{CsvOfLines, NdJson};
pub use statistics::Statistics;
pub use value::date_text;
pub use write::write_csv;

use std::sync::Arc;

use arrow_schema::{Field, Schema, SchemaRef};
use dml_core::ColumnType;

/// How long and wide a table's parts may be. They bound the memory that reading takes; the number of rows is not
/// limited.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Columns.
    pub max_columns: usize,
    /// Bytes in a value.
    pub max_field_bytes: usize,
    /// Bytes in a row, and in a line.
    pub max_record_bytes: usize,
    /// Bytes in the name of a column.
    pub max_name_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_columns: 10_000,
            max_field_bytes: 1 << 20,
            max_record_bytes: 16 << 20,
            max_name_bytes: 1 << 10,
        }
    }
}

/// The Arrow schema of a table with these columns: all of them may have blanks.
fn schema_of(columns: &[(String, ColumnType)]) -> SchemaRef {
    let field = |(name, column): &(String, ColumnType)| Field::new(name, data_type(*column), true);
    Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))
}
