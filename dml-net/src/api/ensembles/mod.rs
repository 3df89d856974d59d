//! `/v1/ml-distributed`: ensembles that are fitted by whichever workers there are, and answer with the members that can
//! be had. An answer says which these were, why the others were not, and how good exactly these are together.
//!
//! Nothing is kept here that another worker does not find out by itself: any of them answers the next request.

mod bench;
mod members;
mod order;

use std::sync::Arc;

use arrow_array::RecordBatch;
use axum::{
    Json,
    extract::{Request as HttpRequest, State as Extract},
    http::{HeaderMap, HeaderValue, StatusCode},
    response::{IntoResponse, Response as HttpResponse},
};
use dml_compute::{
    Model, Scores,
    ensemble::{alike, combine},
    model::PredictError,
    table,
};
use dml_core::{Digest, EnsembleSpec, Method, record::Kind};
use serde::Deserialize;

use self::bench::Member;
pub(crate) use self::members::Ensembles;
use super::{
    CheckedQuery, check_name,
    evidence::Family,
    find,
    keys::Key,
    models::{Rows, media_type_of_rows},
    trainings,
    watched::{Wait, Watched, wait_for},
};
use crate::{
    problem::Problem,
    trace::carry,
    view::{EnsemblePredictions, EnsembleView, MemberError, MemberView, Step},
    worker::Worker,
};

/// Tells that not all members took part: how many did, of how many.
const DEGRADED: &str = "dml-degraded";

/// What an ensemble is called that nobody gave a name.
const NAME: &str = "ml-distributed";

/// How long fitting is waited for if nothing else is said.
const FIT: &str = "300s";

/// Which ensemble is meant.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    name: Option<String>,
}

impl Which {
    fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(NAME)
    }
}

/// Fits an ensemble and waits for it. The same request is the same training, so whoever lost the answer sends it again,
/// to any worker.
pub(super) async fn fit(
    Extract(worker): Extract<Worker>,
    CheckedQuery(wait): CheckedQuery<Wait>,
    key: Key,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let until = Wait { wait: wait.wait.or(Some(FIT.into())) }.until()?;
    let new = order::read(request).await?;
    let name = new.name.as_deref().map_or(Ok(NAME.into()), check_name)?;
    let wanted = order::training(&worker, new, &name).await?;
    let id = trainings::start(&worker, &key, &wanted).await?;
    let family: Family = wait_for(&worker, id, until).await?;
    if !family.is_over() && worker.is_stopping() {
        // The client, or the proxy before this worker, asks another.
        return Err(Problem::unavailable("this worker is about to end: ask another"));
    }
    let asked = Asked::of(family.into(), name)?;
    let assembled = asked.assemble(&worker).await?;
    for error in assembled.view.errors.iter().filter(|error| error.step == Step::Fit) {
        let (ensemble, member, why) = (&asked.name, error.member.as_deref(), &error.why);
        tracing::warn!(ensemble, member, why, "a member of an ensemble was not fitted");
    }
    Ok(answer(assembled.view.clone(), &assembled.view))
}

/// Measures the members that there are, together.
pub(super) async fn evaluate(
    Extract(worker): Extract<Worker>,
    CheckedQuery(which): CheckedQuery<Which>,
) -> Result<HttpResponse, Problem> {
    let assembled = Asked::find(&worker, which.name()).await?.assemble(&worker).await?;
    Ok(answer(assembled.view.clone(), &assembled.view))
}

/// Predicts rows with the members that there are.
pub(super) async fn predict(
    Extract(worker): Extract<Worker>,
    CheckedQuery(which): CheckedQuery<Which>,
    headers: HeaderMap,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let kind = media_type_of_rows(&headers)?;
    let asked = Asked::find(&worker, which.name()).await?;
    let (members, errors) = asked.members(&worker).await?;
    let rows = Rows::receive(kind, request).await?;
    let (engine, each) = (worker.shared.engine.clone(), members);
    let scored = move || -> Result<_, Problem> {
        let inputs = each.first().map(|member| member.model.inputs()).unwrap_or_default();
        let batch = rows.read_lenient(&inputs)?;
        let mut scored = Vec::new();
        for member in each {
            let scores = scores(&member.model, engine.registry(), &batch);
            scored.push((member, scores?));
        }
        Ok(scored)
    };
    let scored = tokio::task::spawn_blocking(carry(scored)).await;
    let scored = scored.map_err(|error| Problem::internal(error.to_string()))??;
    let (mut members, mut scores, mut errors) = (Vec::new(), Vec::new(), errors);
    for (member, said) in scored {
        match said {
            Ok(said) => {
                members.push(member);
                scores.push(said);
            }
            Err(why) => {
                tracing::warn!(ensemble = asked.name, member = member.name, why, "a member cannot predict");
                errors.push(MemberError { member: Some(member.name), step: Step::Predict, why });
            }
        }
    }
    asked.enough(members.len(), &errors)?;
    let Assembled { view, members } = asked.judge(&worker, members, errors).await;
    let weights: Vec<f64> = view.members.iter().map(|member| member.weight).collect();
    let each: Vec<&Scores> = scores.iter().collect();
    let together = combine(view.method, &weights, &each);
    let (Some(together), Some(first)) = (together, members.first()) else {
        return Err(Problem::internal("the members of the ensemble do not fit together"));
    };
    let predictions = table::to_json_rows(&first.model.output(&together));
    Ok(answer(EnsemblePredictions { predictions, ensemble: view.clone() }, &view))
}

/// What a member says of rows. Rows that do not fit are the user's fault; all else is the member's.
fn scores(
    model: &Model,
    registry: &dml_compute::Registry,
    batch: &RecordBatch,
) -> Result<Result<Scores, String>, Problem> {
    let said = model.predictor(registry).map_err(PredictError::from);
    match said.and_then(|predictor| predictor.scores(batch)) {
        Ok(scores) => Ok(Ok(scores)),
        Err(PredictError::Model(error)) => Ok(Err(error.to_string())),
        Err(error) => Err(error.into()),
    }
}

fn answer(body: impl serde::Serialize, view: &EnsembleView) -> HttpResponse {
    let mut response = Json(body).into_response();
    if view.members_used < view.members_total {
        let share = format!("{}/{}", view.members_used, view.members_total);
        let share = HeaderValue::try_from(share).expect("digits are plain");
        response.headers_mut().insert(DEGRADED, share);
    }
    response
}

/// An ensemble that was asked for.
struct Asked {
    family: Arc<Family>,
    ensemble: EnsembleSpec,
    name: String,
}

/// The members that an answer is from, and what is told of them.
struct Assembled {
    view: EnsembleView,
    members: Vec<Member>,
}

impl Asked {
    /// The ensemble that was fitted last under this name.
    async fn find(worker: &Worker, name: &str) -> Result<Self, Problem> {
        let turn = match worker.shared.recent.family(name) {
            Ok(family) => return Self::of(family, name.into()),
            Err(turn) => turn,
        };
        let not_fitted = |why: &str| {
            let detail = format!("{why}: POST /v1/ml-distributed/fit first");
            Problem::conflict("not-fitted", detail)
        };
        let id: Digest = match find(worker, Kind::Training, name).await {
            Ok(id) => id,
            Err(problem) if problem.status == 404 => {
                return Err(not_fitted(&format!("no ensemble '{name}' was fitted yet")));
            }
            Err(problem) => return Err(problem),
        };
        let family = Arc::new(Family::fetch(worker, id, 0, 0).await?);
        let asked = Self::of(family.clone(), name.into())?;
        if family.state().is_final() {
            worker.shared.recent.is_family(name, &family, turn);
        } else if family.finished() < asked.least() {
            return Err(not_fitted(&format!("the ensemble '{name}' is still being fitted")));
        }
        Ok(asked)
    }

    fn of(family: Arc<Family>, name: String) -> Result<Self, Problem> {
        let Some(ensemble) = family.training.spec.ensemble else {
            let detail = format!(
                "the training '{name}' is no ensemble: its models predict each by itself, at /v1/models/{name}/predict"
            );
            return Err(Problem::conflict("not-an-ensemble", detail));
        };
        Ok(Self { family, ensemble, name })
    }

    fn least(&self) -> usize {
        self.ensemble.min_members.max(1) as usize
    }

    /// The members that are at hand, if they are enough.
    async fn members(&self, worker: &Worker) -> Result<(Vec<Member>, Vec<MemberError>), Problem> {
        let (members, errors) = members::gather(worker, &self.family).await;
        self.enough(members.len(), &errors)?;
        Ok((members, errors))
    }

    fn enough(&self, members: usize, errors: &[MemberError]) -> Result<(), Problem> {
        if members >= self.least() {
            return Ok(());
        }
        let why = |error: &MemberError| {
            format!("{}: {}", error.member.as_deref().unwrap_or("the ensemble"), error.why)
        };
        let why: Vec<String> = errors.iter().map(why).collect();
        let for_good = self.family.state().is_final() && self.family.finished() < self.least();
        let (status, mend) = match for_good {
            true => (StatusCode::CONFLICT, "the others could not be fitted, so fit other models"),
            false => (StatusCode::SERVICE_UNAVAILABLE, "try again, or fit it again"),
        };
        let detail = format!(
            "{members} of {} members can be had, and the ensemble '{}' takes {}: {mend} ({})",
            self.family.training.spec.models.len(),
            self.name,
            self.least(),
            why.join("; ")
        );
        tracing::error!(ensemble = self.name, members, least = self.least(), "an ensemble cannot answer");
        Err(Problem::new(status, "too-few-members", detail))
    }

    async fn assemble(&self, worker: &Worker) -> Result<Assembled, Problem> {
        let (members, errors) = self.members(worker).await?;
        Ok(self.judge(worker, members, errors).await)
    }

    /// What is told of these members, and how much each counts.
    async fn judge(&self, worker: &Worker, members: Vec<Member>, mut errors: Vec<MemberError>) -> Assembled {
        let spec = &self.family.training.spec;
        let bench = worker.shared.ensembles.benches.of(self.family.id);
        let judged = bench.judge(worker, spec, &members).await;
        let (weights, quality) = match judged {
            Ok(judged) => (judged.weights.clone(), Some(judged.report.clone())),
            Err(mut why) => {
                if self.ensemble.method == Method::Stacking {
                    why.push_str("; until then members count alike");
                }
                errors.push(MemberError { member: None, step: Step::Evaluate, why });
                (alike(members.len()), None)
            }
        };
        let told = members.iter().zip(weights);
        let told =
            told.map(|(member, weight)| MemberView { name: member.name.clone(), model: member.id, weight });
        let view = EnsembleView {
            training: self.family.id,
            name: self.name.clone(),
            dataset: spec.problem.dataset,
            task: spec.problem.task,
            target: spec.problem.target.clone(),
            method: self.ensemble.method,
            members_used: members.len(),
            members_total: spec.models.len(),
            min_members: self.ensemble.min_members,
            members: told.collect(),
            errors,
            quality,
        };
        Assembled { view, members }
    }
}
