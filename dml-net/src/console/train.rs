//! A new training: what to predict, with which kinds of models, and how to judge them.

use axum::{
    Form,
    extract::State as Extract,
    response::{IntoResponse, Response},
};
use dml_compute::engine::suggested_task;
use dml_core::{Params, Task, Value};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::Value as Json;

use super::{Answer, Asked, frame, frame::Frame, to, trainings, words};
use crate::{
    client::{Client, ClientError, escape},
    problem::Problem,
    view::{DatasetView, NewModel, NewTraining, NewValidation},
};

/// What is to be trained on what.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Question {
    #[serde(default)]
    dataset: String,
    target: Option<String>,
    task: Option<Task>,
}

pub(super) async fn page(
    Extract(client): Extract<Client>,
    frame: Frame,
    Asked(question): Asked<Question>,
) -> Answer {
    show(&client, &frame, &question, None).await.map_err(frame.trouble())
}

async fn show(
    client: &Client,
    frame: &Frame,
    question: &Question,
    refused: Option<&Problem>,
) -> Result<Response, ClientError> {
    let dataset = client.dataset(&question.dataset).await?;
    let Some(column) = dataset.columns.iter().find(|column| Some(&column.name) == question.target.as_ref())
    else {
        return Ok(to(frame, &format!("datasets/{}", dataset.id)));
    };
    let kinds = client.kinds().await?;
    let task = question.task.unwrap_or_else(|| suggested_task(column.r#type));
    let kinds: Vec<&Json> =
        kinds["items"].as_array().into_iter().flatten().filter(|kind| does(kind, task)).collect();
    let title = format!("Predict {}", column.name);
    let main = html! {
        h1 { (title) }
        @if let Some(problem) = refused { (frame::alert(problem)) }
        (form(&dataset, &column.name, task, &kinds))
    };
    Ok(frame.page(&title, main))
}

fn does(kind: &Json, task: Task) -> bool {
    kind["tasks"].as_array().is_some_and(|tasks| tasks.iter().any(|known| *known == trainings::task(task)))
}

fn form(dataset: &DatasetView, target: &str, task: Task, kinds: &[&Json]) -> Markup {
    let other = if task == Task::Regression { Task::Classification } else { Task::Regression };
    let id = dataset.id.to_string();
    html! {
        p { "From the other columns of " a href={ "datasets/" (id) } { (words::name(dataset.name.as_deref(), &dataset.id)) }
            ", as " strong { (trainings::task(task)) } ". "
            a href={ "train?dataset=" (id) "&target=" (escape(target)) "&task=" (trainings::task(other)) } { "Make it " (trainings::task(other)) } "." }
        form method="post" action="train" {
            input type="hidden" name="dataset" value=(id);
            input type="hidden" name="target" value=(target);
            input type="hidden" name="task" value=(trainings::task(task));
            div.actions { button { "Start training" } }
            fieldset {
                legend { "Models" }
                @for kind in kinds { (choice(kind)) }
            }
            fieldset {
                legend { "More" }
                label { "Judge them " select name="judge" {
                    @for percent in [10, 20, 30, 50] {
                        option value={ "0." (percent / 10) } selected[percent == 20] { "on " (percent) " % of the rows, kept from training" }
                    }
                    @for folds in [3, 5, 10] { option value=(folds) { "on each of " (folds) " parts in turn (cross-validation)" } }
                } }
                label { "Seed " input type="number" name="seed" value="0" min="0"; span.quiet { " the same seed gives the same models, to the byte" } }
                label { "Name " input type="text" name="name" maxlength="200" placeholder="after the dataset and the column"; }
            }
            div.actions { button { "Start training" } }
        }
    }
}

/// A kind of model and its parameters.
fn choice(kind: &Json) -> Markup {
    let name = kind["name"].as_str().unwrap_or_default();
    let params: Vec<&Json> = kind["params"].as_array().into_iter().flatten().collect();
    html! {
        div.kind {
            label { input type="checkbox" name="kind" value=(name) checked[kind["default"] == true]; " " strong { (name) }
                " " span.quiet { (kind["about"].as_str().unwrap_or_default()) } }
            @if !params.is_empty() {
                details {
                    summary { (words::counted(params.len() as u64, "parameter")) }
                    @for param in params { (parameter(name, param)) }
                }
            }
        }
    }
}

fn parameter(kind: &str, param: &Json) -> Markup {
    let name = param["name"].as_str().unwrap_or_default();
    let field = format!("{kind}.{name}");
    let text = |value: &Json| value.as_str().map_or_else(|| value.to_string(), Into::into);
    let choices: Vec<String> = match param["choices"].as_array() {
        Some(choices) => choices.iter().map(text).collect(),
        None if param["type"] == "bool" => vec!["true".into(), "false".into()],
        None => Vec::new(),
    };
    let default = text(&param["default"]);
    html! {
        label.parameter {
            code { (name) } " "
            @if choices.is_empty() {
                input type="text" inputmode="decimal" name=(field) placeholder=(default) size="10";
                " " span.quiet { (text(&param["min"])) " to " (text(&param["max"])) "; " (param["about"].as_str().unwrap_or_default()) }
            } @else {
                select name=(field) { @for choice in &choices { option selected[*choice == default] { (choice) } } }
                " " span.quiet { (param["about"].as_str().unwrap_or_default()) }
            }
        }
    }
}

pub(super) async fn begin(
    Extract(client): Extract<Client>,
    frame: Frame,
    Form(fields): Form<Vec<(String, String)>>,
) -> Answer {
    let refused = match asked_for(&fields) {
        Ok(new) => match client.train(&new).await {
            Ok(training) => return Ok(to(&frame, &format!("trainings/{}", training.id))),
            Err(ClientError::Problem(problem)) => problem,
            Err(error) => return Err(frame.trouble()(error)),
        },
        Err(problem) => problem,
    };
    let field = |name: &str| fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.clone());
    let task = field("task").and_then(|task| serde_json::from_value(task.into()).ok());
    let question = Question { dataset: field("dataset").unwrap_or_default(), target: field("target"), task };
    let page = show(&client, &frame, &question, Some(&refused)).await.map_err(frame.trouble())?;
    let status = axum::http::StatusCode::from_u16(refused.status).unwrap_or_default();
    Ok((status, page).into_response())
}

/// The training that the fields of the form describe.
fn asked_for(fields: &[(String, String)]) -> Result<NewTraining, Problem> {
    let field = |name: &str| {
        let found = fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.trim());
        found.filter(|value| !value.is_empty())
    };
    let wrong =
        |name: &str, what: &str| Problem::unprocessable("bad-field", format!("'{name}' has to be {what}"));
    let mut models = Vec::new();
    for (_, kind) in fields.iter().filter(|(field, _)| field == "kind") {
        let params = fields.iter().filter_map(|(field, value)| {
            let name = field.strip_prefix(kind.as_str())?.strip_prefix('.')?;
            let value = value.trim();
            let text = || Value::Text(value.into());
            // What is not finite is for the kind to refuse.
            (!value.is_empty()).then(|| (name.to_string(), Value::parse(value).unwrap_or_else(text)))
        });
        models.push(NewModel { kind: kind.clone(), params: Params(params.collect()) });
    }
    if models.is_empty() {
        return Err(Problem::unprocessable("no-models", "no model is chosen: tick one at least"));
    }
    let validation = field("judge").map(|text| match (text.parse(), text.parse()) {
        (Ok(folds), _) => Ok(NewValidation::Folds(folds)),
        (_, Ok(part)) => Ok(NewValidation::Holdout(part)),
        _ => Err(wrong("judge", "a number of folds, or a part of the rows")),
    });
    let seed =
        field("seed").map(|text| text.parse().map_err(|_| wrong("seed", "a whole number, not negative")));
    let task = field("task").map(|task| serde_json::from_value(task.into()));
    Ok(NewTraining {
        task: task.transpose().map_err(|_| wrong("task", "regression or classification"))?,
        models,
        validation: validation.transpose()?,
        seed: seed.transpose()?,
        name: field("name").map(Into::into),
        ..NewTraining::new(field("dataset").unwrap_or_default(), field("target").unwrap_or_default())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(all: &[(&str, &str)]) -> Vec<(String, String)> {
        all.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    #[test]
    fn a_form_becomes_a_training() {
        let form = fields(&[
            ("dataset", "d"),
            ("target", "y"),
            ("task", "regression"),
            ("kind", "ridge"),
            ("kind", "random_forest"),
            ("ridge.alpha", "0.5"),
            ("random_forest.n_estimators", "30"),
            ("random_forest.max_depth", " "),
            ("lasso.alpha", "9"),
            ("judge", "4"),
            ("seed", "7"),
            ("name", ""),
        ]);
        let new = asked_for(&form).unwrap();
        assert_eq!((new.dataset.as_str(), new.target.as_str(), new.task), ("d", "y", Some(Task::Regression)));
        assert_eq!(new.models.len(), 2);
        assert_eq!(new.models[0].params.0["alpha"], Value::Float(0.5));
        assert_eq!(new.models[1].params.0.len(), 1, "what is blank has its default");
        assert_eq!((new.validation, new.seed, new.name), (Some(NewValidation::Folds(4)), Some(7), None));
    }

    #[test]
    fn what_a_form_lacks_is_said() {
        assert_eq!(asked_for(&fields(&[("dataset", "d")])).unwrap_err().code, "no-models");
        let seed = asked_for(&fields(&[("kind", "ridge"), ("seed", "-1")])).unwrap_err();
        assert!(seed.detail.contains("'seed'"), "{seed}");
    }
}
