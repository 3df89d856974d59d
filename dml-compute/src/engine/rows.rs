//! The training rows of a fit, read and encoded chunk by chunk, so that memory holds a chunk at a time and what the
//! [`Cache`] has room for.

use std::{collections::BTreeMap, sync::Arc};

use dml_core::{Bag, Dataset, Digest, Split, Task, job::Problem};
use ndarray::Array1;

use super::{
    Inputs,
    cache::{Cache, Item},
};
use crate::{
    error::WorkError,
    learner::{Block, Encoding, Kept, Rows},
    pipeline::Pipeline,
    prepare::{Moments, Profile, Target, Targets, Values},
    table,
};

/// A profile and the pipeline that follows from it.
pub(super) struct Prepared {
    pub(super) profile: Profile,
    pub(super) pipeline: Pipeline,
    pub(super) classes: Vec<String>,
    places: BTreeMap<String, u32>,
    sample: Block,
}

impl Prepared {
    pub(super) fn new(bytes: &[u8], encoding: Encoding) -> Result<Self, WorkError> {
        let profile = Profile::from_bytes(bytes)?;
        let pipeline = Pipeline::new(&profile, encoding)?;
        let classes = profile.classes();
        let places = classes.iter().cloned().zip(0..).collect();
        let by_code = profile.places();
        let sampled = profile.sample();
        let y = sampled.targets().iter().map(|target| match *target {
            Target::Number(value) => value,
            Target::Class(code) => by_code.get(code as usize).map_or(f64::NAN, |place| f64::from(*place)),
        });
        let sample =
            Block { x: pipeline.encode_sample(&profile), y: y.collect(), rows: sampled.rows().to_vec() };
        Ok(Self { profile, pipeline, classes, places, sample })
    }

    /// About how much memory it takes.
    pub(super) fn bytes(&self) -> usize {
        bytes_of(&self.sample) * 3
    }
}

/// The rows that one fit learns from.
pub(super) struct TrainingRows<'a> {
    pub(super) dataset: Arc<Dataset>,
    pub(super) problem: &'a Problem,
    pub(super) split: Split,
    /// The part of the training rows that it learns from; all if none.
    pub(super) bag: Option<Bag>,
    pub(super) prepared: Arc<Prepared>,
    /// Names what the blocks are a function of, beside the chunk.
    pub(super) name: Digest,
    pub(super) inputs: &'a dyn Inputs,
    pub(super) cache: &'a Cache,
}

impl TrainingRows<'_> {
    fn read(&self, chunk: usize) -> Result<Block, WorkError> {
        let problem = self.problem;
        let column = self.dataset.column(&problem.target);
        let r#type = column.map_or(self.prepared.profile.target_type, |column| column.r#type);
        let batch = read_chunk(&self.dataset, chunk, self.inputs)?;
        let target = Values::of(&batch, &problem.target, r#type)?;
        let first = self.dataset.first_row(chunk);
        let learned = |row: u64| !self.split.is_test(row) && self.bag.is_none_or(|bag: Bag| bag.holds(row));
        let mut kept: Vec<usize> = (0..batch.num_rows()).filter(|i| learned(first + *i as u64)).collect();
        let mut y = Vec::with_capacity(kept.len());
        match problem.task {
            Task::Regression => target.numbers(&kept, |_, value| y.push(value)),
            Task::Classification => y = target.labels(&kept, |label| self.place(label))?,
        }
        if y.iter().any(|y| y.is_nan()) {
            let mut there = y.iter().map(|y| !y.is_nan());
            kept.retain(|_| there.next().unwrap_or(false));
            y.retain(|y| !y.is_nan());
        }
        let rows = kept.iter().map(|i| first + *i as u64).collect();
        let x = self.prepared.pipeline.encode_rows(&batch, &kept)?;
        Ok(Block { x, y: Array1::from_vec(y), rows })
    }

    /// The name in the cache of a chunk's rows.
    fn block_name(&self, chunk: usize) -> Digest {
        self.name.child(&format!("block/{chunk}"))
    }

    /// The name in the cache of what a learner names so.
    fn kept(&self, name: Digest) -> Digest {
        Digest::of_value(&(self.name, "kept", name))
    }

    fn place(&self, label: &str) -> Result<f64, WorkError> {
        let what = "a profile of training rows";
        let unknown = || WorkError::Corrupt { what, why: format!("it lacks the class '{label}'") };
        self.prepared.places.get(label).map(|place| f64::from(*place)).ok_or_else(unknown)
    }
}

impl Rows for TrainingRows<'_> {
    fn chunks(&self) -> usize {
        self.dataset.chunks.len()
    }

    fn block(&self, chunk: usize) -> Result<Arc<Block>, WorkError> {
        let make = || self.read(chunk).map(|block| (bytes_of(&block), Item::Block(Arc::new(block))));
        match self.cache.get(self.block_name(chunk), Some(self.name), make)? {
            Item::Block(block) => Ok(block),
            Item::Prepared(_) | Item::Kept(_) => self.read(chunk).map(Arc::new),
        }
    }

    fn block_once(&self, chunk: usize) -> Result<Arc<Block>, WorkError> {
        match self.cache.find(self.block_name(chunk)) {
            Some(Item::Block(block)) => Ok(block),
            Some(Item::Prepared(_) | Item::Kept(_)) | None => self.read(chunk).map(Arc::new),
        }
    }

    fn sample(&self) -> Result<Block, WorkError> {
        Ok(self.prepared.sample.clone())
    }

    fn width(&self) -> usize {
        self.prepared.pipeline.width()
    }

    fn class_rows(&self) -> Vec<u64> {
        self.prepared.profile.class_rows()
    }

    fn target(&self) -> Option<Moments> {
        match &self.prepared.profile.targets {
            Targets::Numbers(moments) => Some(*moments),
            Targets::Classes(_) => None,
        }
    }

    fn recall(&self, name: Digest) -> Option<Kept> {
        match self.cache.find(self.kept(name))? {
            Item::Kept(value) => Some(value),
            Item::Block(_) | Item::Prepared(_) => None,
        }
    }

    fn keep(&self, name: Digest, bytes: usize, value: Kept) {
        self.cache.put(self.kept(name), bytes, Item::Kept(value));
    }

    fn forget(&self, name: Digest) {
        self.cache.remove(self.kept(name));
    }
}

/// One chunk of a table.
pub(super) fn read_chunk(
    dataset: &Dataset,
    chunk: usize,
    inputs: &dyn Inputs,
) -> Result<arrow_array::RecordBatch, WorkError> {
    let missing = || WorkError::Input(format!("the dataset has no chunk {chunk}"));
    let place = dataset.chunks.get(chunk).ok_or_else(missing)?;
    let batch = table::decode_shared(inputs.blob(place.digest)?)?;
    if batch.num_rows() as u64 != place.rows {
        let why = format!("it has {} rows instead of {}", batch.num_rows(), place.rows);
        return Err(WorkError::Corrupt { what: "a chunk of a dataset", why });
    }
    Ok(batch)
}

pub(super) fn bytes_of(block: &Block) -> usize {
    (block.x.len() + 2 * block.y.len()) * size_of::<f64>() + size_of::<Block>()
}
