//! `/v1/studies`.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    Json,
    extract::{Path, State as Extract},
    http::{HeaderMap, header},
    response::{IntoResponse, Response as HttpResponse},
};
use dml_compute::{
    Domain, Shape,
    engine::shape,
    metrics,
    registry::KindError,
    search::{self, History},
    table,
};
use dml_core::{
    Body, Dataset, Digest, Dimension, Job, Params, Plan, Space, Strategy, Study, StudySpec, Task,
    TrainingSpec, Value,
    node::{Request, Response},
    record::Kind,
    training::State,
};
use futures_util::{StreamExt, stream};

use super::{
    Checked, TOGETHER, ask, check_name, find,
    keys::Key,
    negotiate, trainings, unexpected,
    watched::{self, Told, Watched},
};
use crate::{
    problem::Problem,
    view::{NewSpace, NewStudy, Range, Sought, StudyView, TrialsView},
    worker::Worker,
};

/// How many trials a study has at most, and of those chosen independently how many in a round.
const MAX_TRIALS: u32 = 10_000;
const MAX_ROUND: u32 = 1_000;

/// Of a table with fewer cells than this several trials make a unit, if there are so many that each worker has plenty.
const SMALL_TABLE: u64 = 1 << 18;
const PLENTY: u32 = 128;
const TRIALS_PER_UNIT: u32 = 8;

/// How many kinds are tried at most, and how many values of one parameter: each worker is told them with each unit.
const MAX_SPACES: usize = 100;
const MAX_VALUES: usize = 1_000;

/// How many there are if nobody says.
const TRIALS: u32 = 50;

/// How many trials are chosen at once, and of how many one goes on, if nobody says.
const BATCH: u32 = 4;
const REDUCTION: u32 = 4;

/// How many of the best trials are shown with a study.
const LEADERS: usize = 20;

const CSV: &str = "text/csv";

pub(super) async fn create(
    Extract(worker): Extract<Worker>,
    key: Key,
    Checked(new): Checked<NewStudy>,
) -> Result<HttpResponse, Problem> {
    let dataset_id = find(&worker, Kind::Dataset, &new.dataset).await?;
    let dataset = worker.shared.dataset(dataset_id).await?;
    let spec = specify(&worker, dataset_id, &dataset, &new)?;
    let name = match &new.name {
        Some(name) => check_name(name)?,
        None => format!("{}-tuned", trainings::default_name(&worker, dataset_id, &new.target).await?),
    };
    worker.shared.keys.note(&key, &("study", spec.id(), &name))?;
    let study = Study { spec, priority: new.priority.unwrap_or(0), stops: 0 };
    let request = Request::Create { body: Body::Study(study), name: Some(name) };
    let Response::Created { id, .. } = ask(&worker, request).await? else { return Err(unexpected()) };
    watched::created::<Search>(&worker, id).await
}

/// Checks everything that can be known before the search begins, and fixes how it is cut.
fn specify(worker: &Worker, id: Digest, dataset: &Dataset, new: &NewStudy) -> Result<StudySpec, Problem> {
    let engine = &worker.shared.engine;
    let problem = trainings::check(dataset, id, new.task, &new.target, new.features.as_deref())?;
    let validation = trainings::check_validation(new.validation, dataset.rows)?;
    let task = problem.task;
    let strategy = new.strategy.unwrap_or(Strategy::Tpe);
    let asked = match new.models.as_slice() {
        [] => vec![NewSpace { kind: "gradient_boosting".into(), ..NewSpace::default() }],
        models if models.len() > MAX_SPACES => {
            let detail =
                format!("a study tries at most {MAX_SPACES} kinds, not {}: make several", models.len());
            return Err(Problem::unprocessable("bad-study", detail));
        }
        models => models.to_vec(),
    };
    let shape = shape(dataset, &problem);
    let spaces = asked.into_iter().map(|space| check_space(worker, task, strategy, space, &shape));
    let (spaces, fit_rounds): (Vec<Space>, Vec<u32>) =
        spaces.collect::<Result<Vec<_>, Problem>>()?.into_iter().unzip();
    if let Some(twice) = spaces.iter().enumerate().find(|(s, space)| spaces[..*s].contains(space)) {
        let detail = format!("{} stands there twice with the same space: once is enough", twice.1.kind);
        return Err(Problem::unprocessable("model-twice", detail));
    }
    let size = search::size(&spaces);
    if strategy == Strategy::Grid && size.is_none() {
        let detail = "a grid needs values for each parameter, and there are ranges: list their values, or choose the \
                      strategy random, latin_hypercube or tpe";
        return Err(Problem::unprocessable("grid-of-ranges", detail));
    }
    let trials = match (new.trials, strategy, size) {
        (None, Strategy::Grid, Some(size)) => u32::try_from(size).unwrap_or(u32::MAX),
        (wanted, _, size) => {
            let most = size.map_or(u32::MAX, |size| u32::try_from(size).unwrap_or(u32::MAX));
            wanted.unwrap_or(TRIALS).min(most)
        }
    };
    let bounded = |what: &str, value: u32, (low, high): (u32, u32)| match (low..=high).contains(&value) {
        true => Ok(value),
        false => {
            let detail = format!("{what} is from {low} to {high}, not {value}");
            Err(Problem::unprocessable("bad-study", detail))
        }
    };
    let trials = bounded("trials", trials, (1, MAX_TRIALS))?;
    let batch = bounded("batch", new.batch.unwrap_or(BATCH), (1, MAX_ROUND))?;
    let reduction = bounded("reduction", new.reduction.unwrap_or(REDUCTION), (2, 1_000))?;
    let keep = bounded("keep", new.keep.unwrap_or(1), (1, trainings::MAX_MODELS as u32))?;
    let metric = match &new.metric {
        Some(metric) => metric.clone(),
        None => metrics::primary(task).into(),
    };
    if !metrics::ranking(task).contains(&metric.as_str()) {
        let known = metrics::ranking(task).join(", ");
        let detail = format!("a study of this task goes by one of {known}, not '{metric}'");
        return Err(Problem::unprocessable("metric-unknown", detail));
    }
    let is_small = dataset.rows.saturating_mul(dataset.columns.len() as u64) < SMALL_TABLE;
    let most = if is_small { TRIALS_PER_UNIT } else { 1 };
    let search = match strategy {
        Strategy::Grid | Strategy::Random | Strategy::LatinHypercube => independent(trials, most),
        Strategy::Tpe => {
            let units = trials.min(batch);
            Plan { rounds: trials.div_ceil(units), units, fold: true }
        }
        Strategy::Halving => {
            let fit_rounds = fit_rounds.into_iter().min().unwrap_or(1);
            Plan {
                rounds: search::rungs(trials, reduction, fit_rounds),
                units: trials.min(MAX_ROUND),
                fold: true,
            }
        }
    };
    let training = TrainingSpec {
        problem,
        models: Vec::new(),
        validation,
        seed: new.seed.unwrap_or(0),
        prepare: engine.plan_prepare(dataset),
        evaluate: engine.plan_evaluate(dataset),
        ensemble: None,
    };
    Ok(StudySpec { training, spaces, strategy, trials, reduction, metric, keep, search })
}

/// How trials that do not learn from each other are cut: into one round of units with at most so many each, but that many
/// units are enough.
fn independent(trials: u32, most: u32) -> Plan {
    let each = trials.div_ceil(PLENTY).clamp(1, most).max(trials.div_ceil(MAX_ROUND));
    Plan { rounds: 1, units: trials.div_ceil(each), fold: true }
}

/// A space whose every point is one that the kind takes, and how many rounds its fits have at least.
fn check_space(
    worker: &Worker,
    task: Task,
    strategy: Strategy,
    new: NewSpace,
    shape: &Shape,
) -> Result<(Space, u32), Problem> {
    let engine = &worker.shared.engine;
    let registry = engine.registry();
    let refused = |error: KindError| Problem::unprocessable(error.code(), error.to_string());
    let fixed = registry.check(&new.kind, task, &new.params).map_err(refused)?;
    let learner = registry.get(&new.kind).map_err(refused)?;
    if strategy == Strategy::Halving && !learner.is_gradual() {
        let able: Vec<&str> = registry
            .gradual()
            .into_iter()
            .filter(|kind| kind.tasks.contains(&task))
            .map(|kind| kind.name)
            .collect();
        let detail = format!(
            "{} has no model before it has learned in full, so halving cannot give it up early: take one of {}, or another strategy",
            new.kind,
            able.join(", ")
        );
        return Err(Problem::unprocessable("kind-not-gradual", detail));
    }
    let kind = learner.kind();
    let sought = match new.space.is_empty() {
        true => usual(&new.kind),
        false => new.space,
    };
    if sought.is_empty() {
        let names: Vec<&str> = kind.params.iter().map(|param| param.name).collect();
        let detail = format!(
            "say what of {} is looked for, such as \"space\": {{\"{}\": [...]}}; it has {}",
            new.kind,
            names.first().unwrap_or(&"alpha"),
            names.join(", ")
        );
        return Err(Problem::unprocessable("space-empty", detail));
    }
    let mut dimensions = BTreeMap::new();
    for (name, sought) in sought {
        if new.params.0.contains_key(&name) {
            let detail = format!("{name} of {} is both fixed and looked for: leave one out", new.kind);
            return Err(Problem::unprocessable("param-twice", detail));
        }
        // What the kind does not take is refused here, with what it does.
        let accept = |value: Value| {
            let one = Params(BTreeMap::from([(name.clone(), value)]));
            registry.check(&new.kind, task, &one).map_err(refused)
        };
        let domain = kind.params.iter().find(|param| param.name == name).map(|param| &param.domain);
        let dimension = match sought {
            Sought::Values(values) if values.len() > MAX_VALUES => {
                let detail = format!(
                    "{name} of {} has {} values, and at most {MAX_VALUES} are tried: name a range",
                    new.kind,
                    values.len()
                );
                return Err(Problem::unprocessable("bad-study", detail));
            }
            Sought::Values(values) => {
                let mut checked: Vec<Value> = Vec::new();
                for value in values {
                    let value = accept(value)?.0.remove(&name).ok_or_else(unexpected)?;
                    if !checked.contains(&value) {
                        checked.push(value);
                    }
                }
                if checked.is_empty() {
                    let detail = format!("{name} of {} has no values to try", new.kind);
                    return Err(Problem::unprocessable("space-empty", detail));
                }
                Dimension::Values(checked)
            }
            Sought::Range(range) => {
                let whole = matches!(domain, Some(Domain::Int { .. }));
                check_range(&name, range, whole)?;
                for end in [range.low, range.high] {
                    accept(if whole { Value::Int(end as i64) } else { Value::Float(end) })?;
                }
                let Range { low, high, log } = range;
                match (whole, log) {
                    (false, false) => Dimension::Uniform(low, high),
                    (false, true) => Dimension::Log(low, high),
                    (true, false) => Dimension::Int(low as i64, high as i64),
                    (true, true) => Dimension::LogInt(low as i64, high as i64),
                }
            }
        };
        dimensions.insert(name, dimension);
    }
    let plan = engine.plan_fit(&new.kind, &fixed, shape).map_err(refused)?;
    Ok((Space { kind: new.kind, fixed: new.params, dimensions }, plan.rounds))
}

fn check_range(name: &str, Range { low, high, log }: Range, whole: bool) -> Result<(), Problem> {
    let wrong = match () {
        () if low.partial_cmp(&high).is_none_or(std::cmp::Ordering::is_ge) => "begins at its end or above it",
        () if log && low <= 0.0 => "is of a logarithm, and begins at or below 0",
        () if whole && (low.fract() != 0.0 || high.fract() != 0.0) => {
            "is of whole numbers, and its ends are none"
        }
        () if low.abs().max(high.abs()) > 1e15 => "is too wide",
        () => return Ok(()),
    };
    let detail = format!("the range of {name}, from {low} to {high}, {wrong}");
    Err(Problem::unprocessable("bad-space", detail))
}

/// What is usually looked for of a kind.
fn usual(kind: &str) -> BTreeMap<String, Sought> {
    let range = |low, high, log| Sought::Range(Range { low, high, log });
    let space: Vec<(&str, Sought)> = match kind {
        "gradient_boosting" => vec![
            ("learning_rate", range(0.02, 0.3, true)),
            ("max_leaves", range(4.0, 64.0, true)),
            ("min_samples_leaf", range(2.0, 100.0, true)),
            ("l2_regularization", range(0.01, 30.0, true)),
            ("subsample", range(0.5, 1.0, false)),
            ("max_features", range(0.3, 1.0, false)),
        ],
        "random_forest" | "extra_trees" => {
            vec![("max_depth", range(3.0, 30.0, false)), ("min_samples_leaf", range(1.0, 20.0, true))]
        }
        "decision_tree" => {
            vec![("max_depth", range(1.0, 20.0, false)), ("min_samples_leaf", range(1.0, 100.0, true))]
        }
        "ridge" | "ridge_classifier" | "lasso" => vec![("alpha", range(1e-4, 100.0, true))],
        "elastic_net" => {
            vec![("alpha", range(1e-4, 10.0, true)), ("l1_ratio", range(0.05, 0.95, false))]
        }
        "logistic" | "linear_svm" | "linear_svr" => vec![("C", range(1e-3, 100.0, true))],
        "sgd_classifier" | "sgd_regressor" => vec![("alpha", range(1e-6, 0.1, true))],
        "knn_classifier" | "knn_regressor" => vec![("n_neighbors", range(1.0, 50.0, true))],
        "glm" => vec![("alpha", range(1e-4, 100.0, true)), ("power", range(1.0, 3.0, false))],
        "gaussian_nb" => vec![("var_smoothing", range(1e-9, 1.0, true))],
        "bernoulli_nb" | "multinomial_nb" => vec![("alpha", range(1e-3, 10.0, true))],
        _ => Vec::new(),
    };
    space.into_iter().map(|(name, sought)| (name.into(), sought)).collect()
}

/// A study with its jobs.
pub(super) struct Search {
    id: Digest,
    version: u64,
    name: Option<String>,
    created_ms: u64,
    study: Study,
    jobs: BTreeMap<Digest, (Job, u32)>,
}

impl Search {
    fn job(&self, id: &Digest) -> Option<&Job> {
        self.jobs.get(id).map(|(job, _)| job)
    }

    /// All trials so far: those of the rounds before, and of the round on its way.
    async fn trials(&self, worker: &Worker) -> Result<History, Problem> {
        let Some(search) = self.job(&self.study.spec.search_id(self.id)) else {
            return Ok(History::default());
        };
        let blobs: Vec<Digest> =
            search.progress.state.iter().chain(search.progress.units.values()).copied().collect();
        let fetched = stream::iter(blobs).map(|blob| worker.shared.blob(blob)).buffered(TOGETHER);
        let fetched: Vec<_> = fetched.collect().await;
        let mut history = History::default();
        for bytes in fetched {
            match bytes {
                Ok(bytes) => {
                    let part = History::from_bytes(&bytes);
                    history.add(part.map_err(|error| Problem::internal(error.to_string()))?);
                }
                // The round has ended meanwhile, and its parts are in its result.
                Err(crate::link::LinkError::NoBlob(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(history)
    }

    /// The training of the best, if it is there.
    async fn kept(&self, worker: &Worker, trials: &History) -> Result<Option<Digest>, Problem> {
        let spec = &self.study.spec;
        let dataset = match worker.shared.dataset(spec.training.problem.dataset).await {
            Ok(dataset) => dataset,
            // It was removed after the study had ended.
            Err(crate::link::LinkError::Problem(problem)) if problem.status == 404 => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let Some(training) = worker.shared.engine.best(spec, &dataset, trials) else { return Ok(None) };
        let id = training.id();
        match ask(worker, Request::Watch { id, seen: 0, wait_ms: 0 }).await {
            Ok(_) => Ok(Some(id)),
            Err(problem) if problem.status == 404 => Ok(None),
            Err(problem) => Err(problem),
        }
    }
}

impl Watched for Search {
    const KIND: Kind = Kind::Study;
    // Each view reads what all trials have come to.
    const PAUSE: Duration = Duration::from_millis(300);
    type View = StudyView;

    fn of(told: Told) -> Option<Self> {
        let Told { id, version, name, created_ms, body, jobs, .. } = told;
        let Body::Study(study) = body else { return None };
        Some(Self { id, version, name, created_ms, study, jobs })
    }

    fn version(&self) -> u64 {
        self.version
    }

    fn state(&self) -> State {
        self.study.status(self.id, |id| self.job(id)).state
    }

    async fn view(&self, worker: &Worker) -> Result<StudyView, Problem> {
        let spec = &self.study.spec;
        let status = self.study.status(self.id, |id| self.job(id));
        let trials = self.trials(worker).await?;
        let ranked = trials.ranked(&spec.metric);
        let training = match status.state.is_final() {
            true => self.kept(worker, &trials).await?,
            false => None,
        };
        Ok(StudyView {
            id: self.id,
            name: self.name.clone(),
            state: status.state,
            progress: f64::from(status.permille) / 1000.0,
            task: spec.training.problem.task,
            dataset: spec.training.problem.dataset,
            target: spec.training.problem.target.clone(),
            features: spec.training.problem.features.clone(),
            kinds: spec.spaces.iter().map(|space| space.kind.clone()).collect(),
            models: spec.spaces.iter().map(NewSpace::from).collect(),
            strategy: spec.strategy,
            metric: spec.metric.clone(),
            validation: spec.training.validation.into(),
            seed: spec.training.seed,
            priority: self.study.priority,
            created_ms: self.created_ms,
            trials: spec.trials,
            batch: (spec.strategy == Strategy::Tpe).then_some(spec.search.units),
            reduction: (spec.strategy == Strategy::Halving).then_some(spec.reduction),
            keep: spec.keep,
            done: trials.trials.len() as u32,
            failed: trials.trials.iter().filter(|trial| trial.score.is_none()).count() as u32,
            rounds: trials.trials.iter().map(|trial| u64::from(trial.rounds)).sum(),
            leaders: ranked.into_iter().take(LEADERS).cloned().collect(),
            importance: search::importance(spec, &trials.trials),
            training,
            error: status.error,
        })
    }
}

pub(super) async fn trials(
    Extract(worker): Extract<Worker>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<HttpResponse, Problem> {
    let id = find(&worker, Kind::Study, &id).await?;
    let search = Search::fetch(&worker, id, 0, 0).await?;
    let metric = search.study.spec.metric.clone();
    let trials = search.trials(&worker).await?;
    let ranked = trials.ranked(&metric);
    if negotiate(&headers, &["application/json", CSV])? == CSV {
        let mut csv = Vec::new();
        table::write_csv(&search::table(&metric, &ranked), true, &mut csv);
        return Ok(([(header::CONTENT_TYPE, CSV)], csv).into_response());
    }
    let items = ranked.into_iter().cloned().collect();
    Ok(Json(TrialsView { study: id, metric, items }).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_small_trials_share_units_and_few_do_not() {
        let units = |trials, most| independent(trials, most).units;
        assert_eq!([units(1, 8), units(50, 8), units(128, 8)], [1, 50, 128]);
        assert_eq!(
            [units(1_000, 8), units(1_000, 1), units(10_000, 8), units(10_000, 1)],
            [125, 1_000, 1_000, 1_000]
        );
    }
}
