//! Tables in files: raw little-endian doubles for other programs, and chunks as a worker keeps them for DML.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufWriter, Read, Write},
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
        Dataset, Task,
        dataset::{Chunk, ColumnType},
    },
};

/// The column to predict.
pub(crate) const TARGET: &str = "y";

/// Rows of numbers, one after the other, and what is to be predicted of each.
pub(crate) struct Rows {
    pub(crate) x: Vec<f64>,
    pub(crate) y: Vec<f64>,
}

impl Rows {
    /// As a table, the target last.
    pub(crate) fn batch(&self, task: Task) -> RecordBatch {
        let width = self.x.len() / self.y.len().max(1);
        let column = |column: usize| {
            let values = self.x.iter().skip(column).step_by(width).copied();
            Arc::new(Float64Array::from_iter_values(values)) as ArrayRef
        };
        let (target, y): (_, ArrayRef) = match task {
            Task::Regression => (DataType::Float64, Arc::new(Float64Array::from(self.y.clone()))),
            Task::Classification => {
                let classes = self.y.iter().map(|y| *y as i64);
                (DataType::Int64, Arc::new(Int64Array::from_iter_values(classes)))
            }
        };
        let fields = names(width).into_iter().map(|name| Field::new(name, DataType::Float64, true));
        let fields = fields.chain([Field::new(TARGET, target, true)]).collect::<Vec<_>>();
        let columns = (0..width).map(column).chain([y]).collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("columns are of equal length")
    }

    /// Reads what [`Raw`] wrote.
    pub(crate) fn read(directory: &Path, part: &str) -> io::Result<Self> {
        let numbers = |name: String| -> io::Result<Vec<f64>> {
            let bytes = fs::read(directory.join(name))?;
            Ok(bytes.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect())
        };
        Ok(Self { x: numbers(format!("{part}_x.f64"))?, y: numbers(format!("{part}_y.f64"))? })
    }
}

/// The names of the feature columns.
pub(crate) fn names(width: usize) -> Vec<String> {
    (0..width).map(|column| format!("x{column}")).collect()
}

/// Two files of raw doubles: the features row by row, and the targets.
struct Raw {
    x: BufWriter<File>,
    y: BufWriter<File>,
}

impl Raw {
    fn create(directory: &Path, part: &str) -> io::Result<Self> {
        let file = |name| File::create(directory.join(name)).map(BufWriter::new);
        Ok(Self { x: file(format!("{part}_x.f64"))?, y: file(format!("{part}_y.f64"))? })
    }

    fn push(&mut self, rows: &Rows) -> io::Result<()> {
        rows.x.iter().try_for_each(|value| self.x.write_all(&value.to_le_bytes()))?;
        rows.y.iter().try_for_each(|value| self.y.write_all(&value.to_le_bytes()))
    }

    fn finish(mut self) -> io::Result<()> {
        self.x.flush()?;
        self.y.flush()
    }
}

/// Writes a table of generated rows: `train` as raw numbers and as chunks, and a tenth as many `judge` rows, which
/// follow them.
pub(crate) fn write(
    directory: &Path,
    task: Task,
    count: usize,
    rows: impl Fn(u64, usize) -> Rows,
) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let width = rows(0, 1).x.len();
    let target = if task == Task::Regression { ColumnType::Float } else { ColumnType::Integer };
    let columns = names(width).into_iter().map(|name| (name, ColumnType::Float));
    let mut writer = Writer::create(directory, columns.chain([(TARGET.to_string(), target)]).collect())?;
    let mut train = Raw::create(directory, "train")?;
    let a_chunk = CHUNK_CELLS / (width + 1);
    for first in (0..count).step_by(a_chunk) {
        let rows = rows(first as u64, a_chunk.min(count - first));
        train.push(&rows)?;
        writer.push(&rows.batch(task))?;
    }
    train.finish()?;
    let mut judge = Raw::create(directory, "judge")?;
    judge.push(&rows(count as u64, (count / 10).clamp(1_000, 100_000)))?;
    judge.finish()?;
    writer.finish()
}

/// Writes a dataset: a file a chunk, named by its digest, and its description.
pub(crate) struct Writer<'a> {
    directory: &'a Path,
    statistics: Statistics,
    chunks: Vec<Chunk>,
}

impl<'a> Writer<'a> {
    pub(crate) fn create(directory: &'a Path, columns: Vec<(String, ColumnType)>) -> io::Result<Self> {
        fs::create_dir_all(directory.join("chunks"))?;
        Ok(Self { directory, statistics: Statistics::new(&columns), chunks: Vec::new() })
    }

    pub(crate) fn push(&mut self, batch: &RecordBatch) -> io::Result<()> {
        self.statistics.update(batch);
        let bytes = encode(batch);
        let digest = Digest::of(&bytes);
        self.chunks.push(Chunk { digest, rows: batch.num_rows() as u64, bytes: bytes.len() as u64 });
        fs::write(self.directory.join("chunks").join(digest.to_string()), &bytes)
    }

    pub(crate) fn finish(self) -> io::Result<()> {
        let rows = self.chunks.iter().map(|chunk| chunk.rows).sum();
        let dataset = Dataset { rows, columns: self.statistics.columns(), chunks: self.chunks };
        fs::write(self.directory.join("dataset.json"), serde_json::to_vec(&dataset)?)
    }
}

/// A dataset that was written: its chunks are read from files each time, or are all in memory.
pub(crate) struct Stored {
    pub(crate) dataset: Arc<Dataset>,
    directory: PathBuf,
    kept: BTreeMap<Digest, Arc<[u8]>>,
}

impl Stored {
    pub(crate) fn open(directory: &Path, in_memory: bool) -> Result<Self, Box<dyn std::error::Error>> {
        let dataset: Dataset = serde_json::from_slice(&fs::read(directory.join("dataset.json"))?)?;
        let digests: Vec<Digest> = dataset.chunks.iter().map(|chunk| chunk.digest).collect();
        let mut stored =
            Self { dataset: Arc::new(dataset), directory: directory.join("chunks"), kept: BTreeMap::new() };
        for digest in digests.into_iter().filter(|_| in_memory) {
            let chunk = stored.blob(digest)?;
            stored.kept.insert(digest, chunk);
        }
        Ok(stored)
    }

    /// Keeps the result of a job for those that read it.
    pub(crate) fn keep(&mut self, bytes: Vec<u8>) -> Digest {
        let digest = Digest::of(&bytes);
        self.kept.insert(digest, bytes.into());
        digest
    }
}

impl Inputs for Stored {
    fn dataset(&self, _: Digest) -> Result<Arc<Dataset>, WorkError> {
        Ok(self.dataset.clone())
    }

    fn blob(&self, digest: Digest) -> Result<Arc<[u8]>, WorkError> {
        if let Some(kept) = self.kept.get(&digest) {
            return Ok(kept.clone());
        }
        let bytes = read_file(&self.directory.join(digest.to_string()));
        let bytes = bytes.map_err(|error| WorkError::Unavailable(error.to_string()))?;
        if Digest::of(&bytes) != digest {
            return Err(WorkError::Unavailable(format!("the file of the chunk {digest} has changed")));
        }
        Ok(bytes)
    }
}

/// A file's bytes, read to where they stay.
fn read_file(path: &Path) -> io::Result<Arc<[u8]>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len() as usize;
    let mut bytes: Arc<[u8]> = std::iter::repeat_n(0, length).collect();
    file.read_exact(Arc::get_mut(&mut bytes).expect("nobody else has it yet"))?;
    Ok(bytes)
}
