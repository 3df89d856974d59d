//! The table that learners are timed on: 28 columns of normal noise, and a class that follows from seven of them through
//! slopes, a product, a wave and a threshold. Each number follows from the seed, its row and its column, so that every
//! program that reads the files sees the same table.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema};
use dml::{
    Digest,
    compute::{
        Inputs, WorkError,
        table::{CHUNK_CELLS, Statistics, encode},
    },
    core::{
        Dataset,
        dataset::{Chunk, ColumnType},
        rng,
    },
};

/// How many columns there are beside the target.
pub(crate) const COLUMNS: usize = 28;
/// The name of the column to predict.
pub(crate) const TARGET: &str = "y";

/// Rows of the table: the features row by row, and the class of each row.
pub(crate) struct Rows {
    pub(crate) x: Vec<f64>,
    pub(crate) y: Vec<u8>,
}

/// Some rows, counted from `first`.
pub(crate) fn rows(seed: u64, first: u64, count: usize) -> Rows {
    let mut x = Vec::with_capacity(count * COLUMNS);
    let mut y = Vec::with_capacity(count);
    for row in first..first + count as u64 {
        let seed = rng::draw(seed, row);
        let at = x.len();
        // Two normal numbers at a time (Box and Muller 1958).
        for pair in 0..COLUMNS as u64 / 2 {
            let radius = (-2.0 * rng::unit(seed, 2 * pair).max(1e-300).ln()).sqrt();
            let (sin, cos) = (std::f64::consts::TAU * rng::unit(seed, 2 * pair + 1)).sin_cos();
            x.extend([radius * cos, radius * sin]);
        }
        let x = &x[at..];
        let slope = if x[5] > 0.3 { 0.8 } else { -0.4 };
        let score = x[0] * 1.5 - x[1] + x[2] * x[3] + (x[4] * 2.0).sin() + slope * x[6];
        y.push(u8::from(rng::unit(seed, COLUMNS as u64) < 1.0 / (1.0 + (-score).exp())));
    }
    Rows { x, y }
}

/// The names of the feature columns.
pub(crate) fn names() -> Vec<String> {
    (0..COLUMNS).map(|column| format!("x{column}")).collect()
}

/// Some rows as a batch, the target last.
pub(crate) fn batch(rows: &Rows) -> RecordBatch {
    let column = |column: usize| {
        let values = rows.x.iter().skip(column).step_by(COLUMNS).copied();
        Arc::new(Float64Array::from_iter_values(values)) as ArrayRef
    };
    let y = Arc::new(Int64Array::from_iter_values(rows.y.iter().map(|&y| i64::from(y)))) as ArrayRef;
    let fields = names().into_iter().map(|name| Field::new(name, DataType::Float64, true));
    let fields = fields.chain([Field::new(TARGET, DataType::Int64, true)]).collect::<Vec<_>>();
    let columns = (0..COLUMNS).map(column).chain([y]).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("columns are of equal length")
}

/// A table whose chunks are files, as a worker finds them.
pub(crate) struct Stored {
    pub(crate) dataset: Arc<Dataset>,
    directory: PathBuf,
    /// Results of jobs that other jobs read.
    pub(crate) results: Vec<Arc<[u8]>>,
}

impl Stored {
    /// Writes so many rows into a directory.
    pub(crate) fn write(directory: &Path, seed: u64, count: usize) -> io::Result<Self> {
        let a_chunk = CHUNK_CELLS / (COLUMNS + 1);
        let columns = names().into_iter().map(|name| (name, ColumnType::Float));
        let columns = columns.chain([(TARGET.to_string(), ColumnType::Integer)]).collect::<Vec<_>>();
        let mut statistics = Statistics::new(&columns);
        let mut chunks = Vec::new();
        for first in (0..count).step_by(a_chunk) {
            let batch = batch(&rows(seed, first as u64, a_chunk.min(count - first)));
            statistics.update(&batch);
            let bytes = encode(&batch);
            let digest = Digest::of(&bytes);
            fs::write(directory.join(digest.to_string()), &bytes)?;
            chunks.push(Chunk { digest, rows: batch.num_rows() as u64, bytes: bytes.len() as u64 });
        }
        let dataset = Arc::new(Dataset { rows: count as u64, columns: statistics.columns(), chunks });
        Ok(Self { dataset, directory: directory.into(), results: Vec::new() })
    }
}

impl Inputs for Stored {
    fn dataset(&self, _: Digest) -> Result<Arc<Dataset>, WorkError> {
        Ok(self.dataset.clone())
    }

    fn blob(&self, digest: Digest) -> Result<Arc<[u8]>, WorkError> {
        if let Some(result) = self.results.iter().find(|result| Digest::of(result) == digest) {
            return Ok(result.clone());
        }
        let read = fs::read(self.directory.join(digest.to_string()));
        read.map(Into::into).map_err(|error| WorkError::Unavailable(error.to_string()))
    }
}

/// Writes `x.npy`, `y.npy` and `table.csv` for other programs.
pub(crate) fn write_files(directory: &Path, seed: u64, count: usize) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let rows = rows(seed, 0, count);
    let mut x = npy(&directory.join("x.npy"), "<f8", &format!("({count}, {COLUMNS})"))?;
    rows.x.iter().try_for_each(|value| x.write_all(&value.to_le_bytes()))?;
    x.flush()?;
    let mut y = npy(&directory.join("y.npy"), "|u1", &format!("({count},)"))?;
    y.write_all(&rows.y)?;
    y.flush()?;
    let mut csv = BufWriter::new(File::create(directory.join("table.csv"))?);
    writeln!(csv, "{},{TARGET}", names().join(","))?;
    for (x, y) in rows.x.chunks(COLUMNS).zip(&rows.y) {
        x.iter().try_for_each(|value| write!(csv, "{value},"))?;
        writeln!(csv, "{y}")?;
    }
    csv.flush()
}

/// The header of a file in NumPy's format, version 1.
fn npy(path: &Path, r#type: &str, shape: &str) -> io::Result<BufWriter<File>> {
    let mut header = format!("{{'descr': '{type}', 'fortran_order': False, 'shape': {shape}, }}");
    let filled = (10 + header.len() + 1).next_multiple_of(64) - 11;
    header = format!("{header:filled$}\n");
    let mut file = BufWriter::new(File::create(path)?);
    file.write_all(b"\x93NUMPY\x01\x00")?;
    file.write_all(&(header.len() as u16).to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    Ok(file)
}
