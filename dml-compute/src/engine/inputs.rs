//! What a job reads beside its own description.

use std::{collections::BTreeMap, sync::Arc};

use arrow_array::RecordBatch;
use dml_core::{Chunk, Dataset, Digest, dataset::Column};

use crate::{error::WorkError, table};

/// Where a job's inputs come from: a store, or the network.
pub trait Inputs: Sync {
    /// The description of a dataset.
    fn dataset(&self, id: Digest) -> Result<Arc<Dataset>, WorkError>;

    /// The bytes of that name, checked against it.
    fn blob(&self, digest: Digest) -> Result<Arc<[u8]>, WorkError>;
}

/// Inputs in memory, for programs that run an [`Engine`](super::Engine) without a store.
///
/// ```
/// use dml_compute::{Engine, MemoryInputs, Model, Registry, engine::{check_problem, shape}, table::{Limits, read_table}};
/// use dml_core::{JobSpec, Params, Split, Task, Work};
///
/// let lines = (0..40).map(|x| format!("{x},{}\n", 2 * x + 1)).collect::<String>();
/// let (chunks, columns) = read_table(std::io::Cursor::new(format!("x,y\n{lines}")), Limits::default())?;
/// let mut inputs = MemoryInputs::default();
/// let dataset = inputs.put_table(&chunks, columns);
///
/// let engine = Engine::new(Registry::default());
/// let problem = check_problem(&dataset, Task::Regression, "y", None)?;
/// let split = Split::All;
/// let work = Work::Prepare { problem: problem.clone(), split, seed: 0 };
/// let prepare = JobSpec { parent: None, role: "prepare".into(), work, plan: engine.plan_prepare(&dataset) };
/// let prepared = inputs.put(engine.run(&prepare, &inputs)?);
///
/// let params = engine.registry().check("ridge", problem.task, &Params::default())?;
/// let plan = engine.plan_fit("ridge", &params, &shape(&dataset, &problem))?;
/// let work = Work::Fit { problem, split, prepared, kind: "ridge".into(), params, seed: 0, bag: None };
/// let model = engine.run(&JobSpec { parent: None, role: "fit".into(), work, plan }, &inputs)?;
/// let predictions = Model::from_bytes(&model)?.predictor(engine.registry())?.scores(&chunks[0])?;
/// # let dml_compute::Scores::Values(predictions) = predictions else { panic!("a regression says numbers") };
/// # assert!((predictions[20] - 41.0).abs() < 0.5, "{predictions}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct MemoryInputs {
    datasets: BTreeMap<Digest, Arc<Dataset>>,
    blobs: BTreeMap<Digest, Arc<[u8]>>,
}

impl MemoryInputs {
    /// Adds bytes, such as the result of a job that others read: their name.
    pub fn put(&mut self, bytes: impl Into<Arc<[u8]>>) -> Digest {
        let bytes = bytes.into();
        let digest = Digest::of(&bytes);
        self.blobs.insert(digest, bytes);
        digest
    }

    /// Adds a table, in chunks as they are here, with its columns, as [`read_table`](table::read_table) gives both: its
    /// description.
    pub fn put_table(&mut self, chunks: &[RecordBatch], columns: Vec<Column>) -> Arc<Dataset> {
        let chunks = chunks.iter().map(|chunk| {
            let bytes = table::encode(chunk);
            let (rows, size) = (chunk.num_rows() as u64, bytes.len() as u64);
            Chunk { digest: self.put(bytes), rows, bytes: size }
        });
        let chunks = chunks.collect::<Vec<_>>();
        let rows = chunks.iter().map(|chunk| chunk.rows).sum();
        let dataset = Arc::new(Dataset { rows, columns, chunks });
        self.datasets.insert(dataset.id(), dataset.clone());
        dataset
    }
}

impl Inputs for MemoryInputs {
    fn dataset(&self, id: Digest) -> Result<Arc<Dataset>, WorkError> {
        self.datasets.get(&id).cloned().ok_or_else(|| WorkError::Unavailable(format!("no dataset {id}")))
    }

    fn blob(&self, digest: Digest) -> Result<Arc<[u8]>, WorkError> {
        self.blobs.get(&digest).cloned().ok_or_else(|| WorkError::Unavailable(format!("no blob {digest}")))
    }
}
