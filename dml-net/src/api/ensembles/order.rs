//! What is to be fitted: the body of the request, and what takes the place of all that it leaves out.

use axum::{
    body::Body as HttpBody,
    extract::{FromRequest, Request as HttpRequest},
};
use dml_core::{
    Body, Digest, Method, Task,
    node::{Request, Response},
    record::Kind,
};
use http_body_util::BodyExt;
use tokio::runtime::Handle;

use crate::{
    api::{
        Checked, MAX_BODY, ask, datasets, find,
        table_body::Incoming,
        trainings::{MAX_MEMBERS, task_of},
        unexpected,
    },
    problem::Problem,
    trace::carry,
    view::{NewEnsemble, NewFit, NewModel, NewTraining, NewValidation},
    worker::Worker,
};

/// House sales in Windsor, Canada, 1987 (Anglin, Gencay 1996): see data/README.md.
const HOUSES: &str = include_str!("../../../../data/houses.csv");

/// What the table is called, and what is learned from it.
const HOUSES_NAME: &str = "houses";
const HOUSES_TARGET: &str = "price";

/// How many members there are if nothing else is said.
const MEMBERS: u32 = 5;

/// Weak learners that err in different ways.
const REGRESSORS: [&str; 5] = ["ridge", "decision_tree", "knn_regressor", "linear_svr", "elastic_net"];
const CLASSIFIERS: [&str; 5] = ["logistic", "decision_tree", "knn_classifier", "gaussian_nb", "linear_svm"];

/// What each member of a bagged ensemble is: deep enough to err in its own way.
const BAGGED: &str = "decision_tree";

/// The body; none is as good as `{}`.
pub(super) async fn read(request: HttpRequest) -> Result<NewFit, Problem> {
    let (head, body) = request.into_parts();
    let body = http_body_util::Limited::new(body, MAX_BODY).collect().await;
    let body = body.map_err(|error| {
        Problem::bad_request("upload-truncated", format!("the body cannot be read: {error}"))
    })?;
    let body = body.to_bytes();
    if body.trim_ascii().is_empty() {
        return Ok(NewFit::default());
    }
    let request = HttpRequest::from_parts(head, HttpBody::from(body));
    let Checked(new) = Checked::<NewFit>::from_request(request, &()).await?;
    Ok(new)
}

/// The training that is asked for.
pub(super) async fn training(worker: &Worker, new: NewFit, name: &str) -> Result<NewTraining, Problem> {
    let (dataset, target) = match (&new.dataset, &new.target) {
        (Some(dataset), Some(target)) => (find(worker, Kind::Dataset, dataset).await?, target.clone()),
        (None, target) => (houses(worker).await?, target.clone().unwrap_or_else(|| HOUSES_TARGET.into())),
        (Some(dataset), None) => {
            let detail =
                format!("the target is missing: name the column of '{dataset}' that is to be predicted");
            return Err(Problem::unprocessable("bad-ensemble", detail));
        }
    };
    let described = worker.shared.dataset(dataset).await?;
    let task = task_of(&described, new.task, &target);
    let method = new.method.unwrap_or(Method::Averaging);
    Ok(NewTraining {
        task: new.task,
        models: members(new.models, new.members, method, task)?,
        features: new.features,
        validation: new.holdout.map(NewValidation::Holdout),
        seed: new.seed,
        name: Some(name.into()),
        ensemble: Some(NewEnsemble { method, min_members: new.min_members }),
        ..NewTraining::new(dataset.to_string(), target)
    })
}

fn members(
    models: Vec<NewModel>,
    count: Option<u32>,
    method: Method,
    task: Task,
) -> Result<Vec<NewModel>, Problem> {
    let wrong = |detail: String| Err(Problem::unprocessable("bad-ensemble", detail));
    let model = |kind: &str| NewModel { kind: kind.into(), ..NewModel::default() };
    let known = match task {
        Task::Regression => REGRESSORS,
        Task::Classification => CLASSIFIERS,
    };
    let asked = count.unwrap_or(MEMBERS);
    match (method, models.as_slice()) {
        (_, [_, _, ..]) if count.is_none_or(|count| count as usize == models.len()) => Ok(models),
        (_, [_, _, ..]) => {
            wrong(format!("there are {} models and {asked} members: leave `members` out", models.len()))
        }
        (Method::Bagging, one) if (2..=MAX_MEMBERS).contains(&(asked as usize)) => {
            let one = one.first().cloned().unwrap_or_else(|| model(BAGGED));
            Ok(vec![one; asked as usize])
        }
        (Method::Bagging, _) => wrong(format!("members are from 2 to {MAX_MEMBERS}, not {asked}")),
        (_, [one]) => wrong(format!("{} alone is no ensemble: name more models, or bag it", one.kind)),
        (_, []) if (2..=known.len()).contains(&(asked as usize)) => {
            Ok(known[..asked as usize].iter().map(|kind| model(kind)).collect())
        }
        (_, []) => wrong(format!(
            "without `models` there are from 2 to {} members of different kinds, not {asked}: name the models, or bag one",
            known.len()
        )),
    }
}

/// The table of houses, which is uploaded if it is not there. What others call `houses` keeps its name.
async fn houses(worker: &Worker) -> Result<Digest, Problem> {
    let (importer, runtime) = (worker.clone(), Handle::current());
    let incoming = Incoming::of(HOUSES.into());
    let import = carry(move || datasets::import(&importer, &runtime, incoming));
    let import = tokio::task::spawn_blocking(import).await;
    let dataset = import.map_err(|error| Problem::internal(error.to_string()))??;
    let id = dataset.id();
    match ask(worker, Request::Watch { id, seen: 0, wait_ms: 0 }).await {
        Ok(_) => return Ok(id),
        Err(problem) if problem.status == 404 => {}
        Err(problem) => return Err(problem),
    }
    let name = match find(worker, Kind::Dataset, HOUSES_NAME).await {
        Err(problem) if problem.status == 404 => Some(HOUSES_NAME.into()),
        Err(problem) => return Err(problem),
        Ok(_) => None,
    };
    let Response::Created { id, .. } =
        ask(worker, Request::Create { body: Body::Dataset(dataset), name }).await?
    else {
        return Err(unexpected());
    };
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(models: &[&str], count: Option<u32>, method: Method, task: Task) -> Result<Vec<String>, String> {
        let models = models.iter().map(|kind| NewModel { kind: (*kind).into(), ..NewModel::default() });
        let members = members(models.collect(), count, method, task).map_err(|problem| problem.detail)?;
        Ok(members.into_iter().map(|model| model.kind).collect())
    }

    #[test]
    fn members_follow_from_what_is_said() {
        use Method::{Averaging, Bagging};
        let regression = |models: &[&str], count, method| kinds(models, count, method, Task::Regression);
        assert_eq!(regression(&[], None, Averaging).unwrap(), REGRESSORS);
        assert_eq!(regression(&[], Some(2), Averaging).unwrap(), ["ridge", "decision_tree"]);
        assert_eq!(kinds(&[], None, Averaging, Task::Classification).unwrap(), CLASSIFIERS);
        assert_eq!(regression(&[], Some(3), Bagging).unwrap(), ["decision_tree"; 3]);
        assert_eq!(regression(&["ridge"], None, Bagging).unwrap(), ["ridge"; 5]);
        assert_eq!(regression(&["ridge", "lasso"], None, Bagging).unwrap(), ["ridge", "lasso"]);
        for (models, count, method) in [
            (&["ridge"][..], None, Averaging),
            (&["ridge", "lasso"], Some(3), Averaging),
            (&[], Some(6), Averaging),
            (&[], Some(1), Averaging),
            (&[], Some(1), Bagging),
        ] {
            assert!(regression(models, count, method).unwrap_err().len() > 20);
        }
    }

    #[test]
    fn the_kinds_are_there_and_do_the_task() {
        let registry = dml_compute::Registry::default();
        for (task, kinds) in [(Task::Regression, REGRESSORS), (Task::Classification, CLASSIFIERS)] {
            assert!(
                kinds
                    .iter()
                    .chain([&BAGGED])
                    .all(|kind| { registry.check(kind, task, &dml_core::Params::default()).is_ok() })
            );
        }
    }
}
