//! What the units and folds of every job compute. An [`Engine`] knows the kinds of models; the tables, models and
//! profiles that a job names come through [`Inputs`]. A unit and a fold are functions: the same job, round, index, state
//! and inputs give the same bytes wherever and whenever they run.
//!
//! | work | partial | result |
//! |---|---|---|
//! | prepare | a [`Profile`] | the merged profile |
//! | fit | the kind's own | a [`Model`] in its native format |
//! | evaluate | a tally of each model's test rows | an [`Evaluation`] as JSON |
//! | search | trials of a study, as a [`History`] | all trials |
//! | predict | the predictions for some chunks, as a chunk | the partials in order |

use dml_core::{Bag, Dataset, Digest, JobSpec, Params, Plan, Split, Work, job::Problem};
use rayon::prelude::*;

mod cache;
mod evaluate;
mod held_out;
mod inputs;
mod memory;
mod permute;
mod problem;
mod rows;
mod search;
#[cfg(test)]
mod tests;

use crate::{
    error::WorkError,
    learner::{Fit, Folded, Scores, Shape},
    model::{self, Model, PredictError},
    prepare::Profile,
    registry::{AnyLearner, KindError, Registry},
    search::History,
    table,
};
use cache::Cache;
pub use evaluate::Evaluation;
use evaluate::Judge;
pub use held_out::{HeldOut, Judged};
pub use inputs::{Inputs, MemoryInputs};
pub use problem::{MIN_ROWS, ProblemError, check_problem, shape, suggested_task};
use rows::{Prepared, TrainingRows, read_chunk};
use search::Search;

/// How a fold ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The state that the next round begins with, or the job's result.
    pub state: Vec<u8>,
    /// Whether it is the result: the job is finished, also when rounds are left.
    pub finished: bool,
}

/// Encoded rows of running fits are kept in this part of the machine's memory, within bounds: several workers and other
/// programs want theirs.
const CACHE_PART: u64 = 32;
const CACHE_BYTES: (usize, usize) = (64 << 20, 512 << 20);

/// About how many cells a unit reads that only looks at each: a second of work, or less.
const CELLS_PER_UNIT: u64 = 1 << 22;

/// About how many cells a unit reads that predicts.
const CELLS_PER_PREDICTION: u64 = 1 << 20;

/// Computes units and folds. It may be used by many threads at once.
pub struct Engine {
    registry: Registry,
    cache: Cache,
}

impl Engine {
    /// An engine for these kinds. It keeps encoded rows of running fits in a 32nd of the machine's memory, in at most
    /// 512 MiB: see [`Engine::with_cache_bytes`].
    pub fn new(registry: Registry) -> Self {
        let (least, most) = CACHE_BYTES;
        let share = memory::total().map_or(least, |bytes| (bytes / CACHE_PART).min(most as u64) as usize);
        Self { registry, cache: Cache::new(share.max(least)) }
    }

    /// Keeps the encoded rows of running fits in so much memory; with 0 they are read anew each round.
    pub fn with_cache_bytes(self, bytes: usize) -> Self {
        Self { cache: Cache::new(bytes), ..self }
    }

    /// The kinds that it knows.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// How the preparation of a dataset is cut.
    pub fn plan_prepare(&self, dataset: &Dataset) -> Plan {
        over_cells(dataset, CELLS_PER_UNIT)
    }

    /// How a fit is cut. The parameters are complete: see [`Registry::check`].
    pub fn plan_fit(&self, kind: &str, params: &Params, shape: &Shape) -> Result<Plan, KindError> {
        Ok(self.registry.get(kind)?.plan(params, shape))
    }

    /// How an evaluation on a dataset is cut.
    pub fn plan_evaluate(&self, dataset: &Dataset) -> Plan {
        over_cells(dataset, CELLS_PER_PREDICTION)
    }

    /// How the prediction of a dataset is cut.
    pub fn plan_predict(&self, dataset: &Dataset) -> Plan {
        Plan { fold: false, ..over_cells(dataset, CELLS_PER_PREDICTION) }
    }

    /// One unit of a round. The state is that of the round before; none in the first.
    pub fn unit(
        &self,
        job: &JobSpec,
        round: u32,
        index: u32,
        state: Option<&[u8]>,
        inputs: &dyn Inputs,
    ) -> Result<Vec<u8>, WorkError> {
        let dataset = inputs.dataset(job.work.dataset())?;
        let chunks = job.plan.share(index, dataset.chunks.len());
        match &job.work {
            Work::Prepare { problem, split, seed } => {
                let nothing = Profile::new(&dataset, problem, split, *seed)?;
                let parts = chunks.into_par_iter().map(|chunk| {
                    let mut part = nothing.clone();
                    part.add(&read_chunk(&dataset, chunk, inputs)?, dataset.first_row(chunk), split)?;
                    Ok(part)
                });
                let parts: Vec<Result<Profile, WorkError>> = parts.collect();
                let mut profile = nothing;
                for part in parts {
                    profile.merge(part?)?;
                }
                Ok(profile.to_bytes())
            }
            Work::Fit { .. } => {
                self.with_fit(job, inputs, |learner, fit, _| learner.unit(fit, round, index, state))
            }
            Work::Evaluate { problem, models } => {
                Judge::new(&self.registry, &dataset, problem, models, inputs)?.unit(chunks)
            }
            Work::Search { study, prepared } => {
                let search = Search { engine: self, study, prepared, dataset: &dataset, inputs };
                Ok(search.unit(&job.plan, round, index, &so_far(state)?)?.to_bytes())
            }
            Work::Predict { model, .. } => {
                let model = Model::from_bytes(&inputs.blob(*model)?)?;
                let predictor = model.predictor(&self.registry)?;
                let parts = chunks.map(|chunk| {
                    let scores = predictor.scores(&read_chunk(&dataset, chunk, inputs)?);
                    scores.map_err(|error| in_table(error, dataset.first_row(chunk)))
                });
                let parts = parts.collect::<Result<Vec<Scores>, WorkError>>()?;
                Ok(table::encode(&model.output(&model::join(model.task, model.classes.len(), parts))))
            }
        }
    }

    /// What stands in for a unit that kills whoever works on it, where the job [can do without](Work::can_give_up).
    pub fn give_up(
        job: &JobSpec,
        round: u32,
        index: u32,
        state: Option<&[u8]>,
    ) -> Result<Vec<u8>, WorkError> {
        let Work::Search { study, .. } = &job.work else {
            return Err(WorkError::Corrupt { what: "a job", why: "it cannot do without a unit".into() });
        };
        Ok(search::give_up(study, &job.plan, round, index, &so_far(state)?).to_bytes())
    }

    /// The end of a round: the partials of all its units, in index order. After the last round it is always finished.
    pub fn fold(
        &self,
        job: &JobSpec,
        round: u32,
        state: Option<&[u8]>,
        partials: &[Vec<u8>],
        inputs: &dyn Inputs,
    ) -> Result<Outcome, WorkError> {
        if partials.len() != job.plan.units as usize {
            let why = format!("it has {} parts instead of {}", partials.len(), job.plan.units);
            return Err(WorkError::Corrupt { what: "a round of units", why });
        }
        let done = |state| Outcome { state, finished: true };
        match &job.work {
            Work::Prepare { .. } => {
                let mut parts = partials.iter().map(|bytes| Profile::from_bytes(bytes));
                let nothing =
                    || WorkError::Corrupt { what: "a round of units", why: "it has no parts".into() };
                let mut profile = parts.next().ok_or_else(nothing)??;
                for part in parts {
                    profile.merge(part?)?;
                }
                profile.check()?;
                Ok(done(profile.to_bytes()))
            }
            Work::Fit { .. } => self.with_fit(job, inputs, |learner, fit, prepared| {
                match learner.fold(fit, round, state, partials)? {
                    Folded::Next(state) if round + 1 < job.plan.rounds => {
                        Ok(Outcome { state, finished: false })
                    }
                    Folded::Next(_) => {
                        let why = format!("the last round of {} gave no model", learner.kind().name);
                        Err(WorkError::Corrupt { what: "a fit", why })
                    }
                    Folded::Done(learned) => Ok(done(finish(fit, learner, prepared, learned).to_bytes())),
                }
            }),
            Work::Evaluate { problem, models } => {
                let dataset = inputs.dataset(problem.dataset)?;
                Judge::new(&self.registry, &dataset, problem, models, inputs)?.fold(partials).map(done)
            }
            Work::Search { study, .. } => search::fold(study, &job.plan, round, so_far(state)?, partials),
            Work::Predict { .. } => {
                Err(WorkError::Corrupt { what: "a plan", why: "predictions are not folded".into() })
            }
        }
    }

    /// The whole job on one machine, unit after unit: what every cluster's result is equal to, bit for bit. Predictions
    /// are the units' chunks one after the other.
    pub fn run(&self, job: &JobSpec, inputs: &dyn Inputs) -> Result<Vec<u8>, WorkError> {
        let mut state: Option<Vec<u8>> = None;
        for round in 0..job.plan.rounds {
            let partials = (0..job.plan.units)
                .map(|index| self.unit(job, round, index, state.as_deref(), inputs))
                .collect::<Result<Vec<_>, _>>()?;
            if !job.plan.fold {
                return Ok(partials.concat());
            }
            let outcome = self.fold(job, round, state.as_deref(), &partials, inputs)?;
            if outcome.finished {
                return Ok(outcome.state);
            }
            state = Some(outcome.state);
        }
        Err(WorkError::Corrupt { what: "a plan", why: "it has no rounds".into() })
    }

    /// Runs a part of a fit with all that it needs.
    fn with_fit<T>(
        &self,
        job: &JobSpec,
        inputs: &dyn Inputs,
        part: impl FnOnce(&dyn AnyLearner, &Fit, &Prepared) -> Result<T, WorkError>,
    ) -> Result<T, WorkError> {
        let Work::Fit { problem, split, prepared, kind, params, seed, bag } = &job.work else {
            return Err(WorkError::Corrupt { what: "a job", why: "it is no fit".into() });
        };
        let learner = self.registry.get(kind).map_err(unknown)?;
        let encoding = learner.kind().encoding;
        let name = name_of(problem, split, prepared, word(encoding), *bag);
        let prepared = self.cache.prepared(name, || Prepared::new(&inputs.blob(*prepared)?, encoding))?;
        let rows = TrainingRows {
            dataset: inputs.dataset(problem.dataset)?,
            problem,
            split: *split,
            bag: *bag,
            prepared: prepared.clone(),
            name,
            inputs,
            cache: &self.cache,
        };
        let classes = prepared.classes.len();
        let fit = Fit { task: problem.task, classes, params, seed: *seed, plan: job.plan, rows: &rows };
        part(learner, &fit, &prepared)
    }
}

/// The trials of the rounds before.
fn so_far(state: Option<&[u8]>) -> Result<History, WorkError> {
    state.map_or_else(|| Ok(History::default()), History::from_bytes)
}

/// A worker may lack a kind that another has: the job is not to blame.
fn unknown(error: KindError) -> WorkError {
    WorkError::Unavailable(error.to_string())
}

/// What the encoded rows of a fit are a function of.
fn name_of(problem: &Problem, split: &Split, prepared: &Digest, encoding: &str, bag: Option<Bag>) -> Digest {
    Digest::of_value(&(problem, split, prepared, encoding, bag))
}

fn word(encoding: crate::Encoding) -> &'static str {
    match encoding {
        crate::Encoding::Dense => "dense",
        crate::Encoding::Counts => "counts",
        crate::Encoding::Codes => "codes",
    }
}

fn finish(fit: &Fit, learner: &dyn AnyLearner, prepared: &Prepared, learned: Vec<u8>) -> Model {
    let profile = &prepared.profile;
    Model {
        task: fit.task,
        target: profile.target.clone(),
        classes: prepared.classes.clone(),
        kind: learner.kind().name.into(),
        params: fit.params.clone(),
        seed: fit.seed,
        rows: profile.rows(),
        features: profile.features.iter().map(|feature| (feature.name.clone(), feature.r#type)).collect(),
        pipeline: prepared.pipeline.clone(),
        learner: learned,
    }
}

fn over_cells(dataset: &Dataset, cells: u64) -> Plan {
    let rows = cells / (dataset.columns.len() as u64).max(1);
    Plan::over_chunks(1, dataset.rows, dataset.chunks.len(), rows)
}

/// Rows are counted from the first of the chunk, `first` rows into the table.
fn in_table(error: PredictError, first: u64) -> WorkError {
    match error {
        PredictError::Table(error) if first > 0 && error.row().is_some() => {
            WorkError::Input(format!("after the first {first} rows of the table: {error}"))
        }
        PredictError::Table(error) => WorkError::Input(error.to_string()),
        PredictError::Model(error) => error,
    }
}
