//! The error of gradient boosting on the rows of a table that it has not seen, as a function of its parameters.

use std::{collections::BTreeMap, error::Error, fs::File, path::Path};

use dml::{
    Digest, Registry,
    compute::{
        Engine, MemoryInputs,
        engine::check_problem,
        search::History,
        table::{Limits, read_table},
    },
    core::{Dimension, JobSpec, Params, Plan, Space, Task, TrainingSpec, Validation, Value, Work},
};

use super::study;

/// What is looked for; the same in `rival.py`.
pub(crate) fn dimensions() -> BTreeMap<String, Dimension> {
    let dimensions = [
        ("learning_rate", Dimension::Log(0.01, 0.5)),
        ("max_leaves", Dimension::LogInt(4, 128)),
        ("min_samples_leaf", Dimension::LogInt(1, 100)),
        ("l2_regularization", Dimension::Log(0.001, 100.0)),
        ("max_features", Dimension::Uniform(0.3, 1.0)),
    ];
    dimensions.map(|(name, dimension)| (name.to_string(), dimension)).into()
}

/// A table that is fitted again and again.
pub(crate) struct Table {
    engine: Engine,
    inputs: MemoryInputs,
    training: TrainingSpec,
    prepared: Digest,
}

impl Table {
    pub(crate) fn read(csv: &Path, target: &str) -> Result<Self, Box<dyn Error>> {
        let (batches, columns) = read_table(File::open(csv)?, Limits::default())?;
        let mut inputs = MemoryInputs::default();
        let dataset = inputs.put_table(&batches, columns);
        let engine = Engine::new(Registry::default());
        let problem = check_problem(&dataset, Task::Regression, target, None)?;
        let training = TrainingSpec {
            problem: problem.clone(),
            models: Vec::new(),
            validation: Validation::Holdout(0.25),
            seed: 0,
            prepare: engine.plan_prepare(&dataset),
            evaluate: engine.plan_evaluate(&dataset),
            ensemble: None,
        };
        let split = training.judged_splits()[0];
        let prepare = Work::Prepare { problem, split, seed: training.seed };
        let profile = engine.run(&job(training.prepare, prepare), &inputs)?;
        let prepared = inputs.put(profile);
        Ok(Self { engine, inputs, training, prepared })
    }

    /// The root mean squared error of one trial with these parameters.
    pub(crate) fn error(&self, params: &Params) -> Result<f64, Box<dyn Error>> {
        let mut fixed = params.clone();
        fixed.0.insert("n_estimators".into(), Value::Int(50));
        let space = Space { kind: "gradient_boosting".into(), fixed, dimensions: BTreeMap::new() };
        let alone = Plan { rounds: 1, units: 1, fold: true };
        let study = study(self.training.clone(), space, 1, alone);
        let work = Work::Search { study, prepared: vec![self.prepared] };
        let history = History::from_bytes(&self.engine.run(&job(alone, work), &self.inputs)?)?;
        let trial = history.trials.first().ok_or("there is no trial")?;
        trial.score.ok_or_else(|| trial.error.clone().unwrap_or_default().into())
    }
}

fn job(plan: Plan, work: Work) -> JobSpec {
    JobSpec { parent: None, role: "bench".into(), work, plan }
}
