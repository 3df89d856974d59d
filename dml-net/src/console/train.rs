//! A new training or study: what to predict, with which kinds of models, and how to judge them.

use std::str::FromStr;

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
    view::{DatasetView, NewModel, NewSpace, NewStudy, NewTraining, NewValidation},
};

/// What the models are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aim {
    /// To be trained with the parameters that are given.
    Train,
    /// To be tried with many, for the best to be kept.
    Tune,
}

impl Aim {
    /// The page where the form is, and where it is sent to.
    fn page(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Tune => "tune",
        }
    }

    fn button(self) -> &'static str {
        match self {
            Self::Train => "Start training",
            Self::Tune => "Start searching",
        }
    }
}

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
    show(&client, &frame, Aim::Train, &question, None).await.map_err(frame.trouble())
}

pub(super) async fn tuning(
    Extract(client): Extract<Client>,
    frame: Frame,
    Asked(question): Asked<Question>,
) -> Answer {
    show(&client, &frame, Aim::Tune, &question, None).await.map_err(frame.trouble())
}

async fn show(
    client: &Client,
    frame: &Frame,
    aim: Aim,
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
    let able = |kind: &&Json| does(kind, task) && (aim == Aim::Train || !params(kind).is_empty());
    let kinds: Vec<&Json> = kinds["items"].as_array().into_iter().flatten().filter(able).collect();
    let title = format!("Predict {}", column.name);
    let main = html! {
        h1 { (title) }
        @if let Some(problem) = refused { (frame::alert(problem)) }
        (form(aim, &dataset, &column.name, task, &kinds))
    };
    Ok(frame.page(&title, main))
}

fn does(kind: &Json, task: Task) -> bool {
    kind["tasks"].as_array().is_some_and(|tasks| tasks.iter().any(|known| *known == trainings::task(task)))
}

fn params(kind: &Json) -> &[Json] {
    kind["params"].as_array().map_or(&[], Vec::as_slice)
}

fn form(aim: Aim, dataset: &DatasetView, target: &str, task: Task, kinds: &[&Json]) -> Markup {
    let other = if task == Task::Regression { Task::Classification } else { Task::Regression };
    let other_aim = if aim == Aim::Train { Aim::Tune } else { Aim::Train };
    let id = dataset.id.to_string();
    let here = |aim: Aim, task| {
        format!("{}?dataset={id}&target={}&task={}", aim.page(), escape(target), trainings::task(task))
    };
    html! {
        p { "From the other columns of " a href={ "datasets/" (id) } { (words::name(dataset.name.as_deref(), &dataset.id)) }
            ", as " strong { (trainings::task(task)) } ". "
            a href=(here(aim, other)) { "Make it " (trainings::task(other)) } ", or "
            a href=(here(other_aim, task)) { @match aim {
                Aim::Train => "search for the best parameters",
                Aim::Tune => "train with parameters that you know",
            } } "." }
        form method="post" action=(aim.page()) {
            input type="hidden" name="dataset" value=(id);
            input type="hidden" name="target" value=(target);
            input type="hidden" name="task" value=(trainings::task(task));
            div.actions { button { (aim.button()) } }
            @if aim == Aim::Tune { (search()) }
            fieldset {
                legend { "Models" }
                @for kind in kinds { (choice(aim, kind)) }
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
            div.actions { button { (aim.button()) } }
        }
    }
}

/// How a search goes.
fn search() -> Markup {
    let strategies = [
        ("tpe", "where earlier trials were good (tree-structured Parzen estimator)"),
        ("halving", "many begun, the better ones learned in full (successive halving)"),
        ("random", "at random"),
        ("latin_hypercube", "spread evenly (Latin hypercube)"),
        ("grid", "every combination of listed values"),
    ];
    html! {
        fieldset {
            legend { "Search" }
            label { "Try " select name="strategy" { @for (name, about) in strategies { option value=(name) { (about) } } } }
            label { "Trials " input type="number" name="trials" min="1" max="10000" placeholder="50"; }
            label { "Keep the best " input type="number" name="keep" value="1" min="1" max="1000"; span.quiet { " as trained models" } }
        }
    }
}

/// A kind of model and its parameters.
fn choice(aim: Aim, kind: &Json) -> Markup {
    let name = kind["name"].as_str().unwrap_or_default();
    let params = params(kind);
    let ticked = match aim {
        Aim::Train => kind["default"] == true,
        Aim::Tune => name == "gradient_boosting",
    };
    html! {
        div.kind {
            label { input type="checkbox" name="kind" value=(name) checked[ticked]; " " strong { (name) }
                " " span.quiet { (kind["about"].as_str().unwrap_or_default()) } }
            @if !params.is_empty() {
                details {
                    summary { (words::counted(params.len() as u64, "parameter")) }
                    @if aim == Aim::Tune {
                        p.quiet { "Write " code { "0.1..10" } ", " code { "log:0.1..10" } ", " code { "1,2,5" } " or a value that stays; "
                            "with nothing written, those are looked for that usually matter." }
                    }
                    @for param in params { (parameter(aim, name, param)) }
                }
            }
        }
    }
}

fn parameter(aim: Aim, kind: &str, param: &Json) -> Markup {
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
            @if aim == Aim::Tune && !choices.is_empty() {
                input type="text" name=(field) size="20";
                " " span.quiet { (choices.join(",")) "; " (param["about"].as_str().unwrap_or_default()) }
            } @else if choices.is_empty() {
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
    let begun = async {
        let training = client.train(&asked_for(&fields)?).await?;
        Ok(format!("trainings/{}", training.id))
    };
    answer(&client, &frame, Aim::Train, &Fields(&fields), begun.await).await
}

pub(super) async fn begin_tuning(
    Extract(client): Extract<Client>,
    frame: Frame,
    Form(fields): Form<Vec<(String, String)>>,
) -> Answer {
    let begun = async {
        let study = client.tune(&sought_for(&fields)?).await?;
        Ok(format!("studies/{}", study.id))
    };
    answer(&client, &frame, Aim::Tune, &Fields(&fields), begun.await).await
}

/// On to the page of what has begun; or the form once more, with what was wrong.
async fn answer(
    client: &Client,
    frame: &Frame,
    aim: Aim,
    fields: &Fields<'_>,
    begun: Result<String, ClientError>,
) -> Answer {
    let refused = match begun {
        Ok(page) => return Ok(to(frame, &page)),
        Err(ClientError::Problem(problem)) => problem,
        Err(error) => return Err(frame.trouble()(error)),
    };
    let question = Question {
        dataset: fields.get("dataset").unwrap_or_default().into(),
        target: fields.get("target").map(Into::into),
        task: fields.task().unwrap_or_default(),
    };
    let page = show(client, frame, aim, &question, Some(&refused)).await.map_err(frame.trouble())?;
    let status = axum::http::StatusCode::from_u16(refused.status).unwrap_or_default();
    Ok((status, page).into_response())
}

/// A kind, and what is said of its parameters.
type Chosen<'a> = (&'a str, Vec<(&'a str, &'a str)>);

/// What a form says. What is blank is as good as absent.
struct Fields<'a>(&'a [(String, String)]);

impl<'a> Fields<'a> {
    fn all(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.trim()))
            .filter(|(_, value)| !value.is_empty())
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        self.all().find(|(field, _)| *field == name).map(|(_, value)| value)
    }

    /// The value of a field, if it can be read as `what`.
    fn read<T: FromStr>(&self, name: &str, what: &str) -> Result<Option<T>, Problem> {
        self.get(name).map(|text| text.parse().map_err(|_| Self::wrong(name, what))).transpose()
    }

    fn wrong(name: &str, what: &str) -> Problem {
        Problem::unprocessable("bad-field", format!("'{name}' has to be {what}"))
    }

    /// The kinds that are ticked, each with the parameters that are given.
    fn kinds(&self) -> Result<Vec<Chosen<'a>>, Problem> {
        let params = |kind| {
            let of = move |field: &'a str| field.strip_prefix(kind)?.strip_prefix('.');
            (kind, self.all().filter_map(|(field, value)| Some((of(field)?, value))).collect())
        };
        let kinds: Vec<_> =
            self.all().filter(|(field, _)| *field == "kind").map(|(_, kind)| params(kind)).collect();
        match kinds.is_empty() {
            true => Err(Problem::unprocessable("no-models", "no model is chosen: tick one at least")),
            false => Ok(kinds),
        }
    }

    fn task(&self) -> Result<Option<Task>, Problem> {
        let task = self.get("task").map(|task| serde_json::from_value(task.into()));
        task.transpose().map_err(|_| Self::wrong("task", "regression or classification"))
    }

    fn validation(&self) -> Result<Option<NewValidation>, Problem> {
        let read = |text: &str| match (text.parse(), text.parse()) {
            (Ok(folds), _) => Ok(NewValidation::Folds(folds)),
            (_, Ok(part)) => Ok(NewValidation::Holdout(part)),
            _ => Err(Self::wrong("judge", "a number of folds, or a part of the rows")),
        };
        self.get("judge").map(read).transpose()
    }

    fn seed(&self) -> Result<Option<u64>, Problem> {
        self.read("seed", "a whole number, not negative")
    }
}

/// The training that the fields of the form describe.
fn asked_for(fields: &[(String, String)]) -> Result<NewTraining, Problem> {
    let fields = Fields(fields);
    // What is not finite is for the kind to refuse.
    let value = |value: &str| Value::parse(value).unwrap_or_else(|| Value::Text(value.into()));
    let model = |(kind, params): (&str, Vec<(&str, &str)>)| {
        let params = params.into_iter().map(|(name, it)| (name.to_string(), value(it)));
        NewModel { kind: kind.into(), params: Params(params.collect()) }
    };
    Ok(NewTraining {
        task: fields.task()?,
        models: fields.kinds()?.into_iter().map(model).collect(),
        validation: fields.validation()?,
        seed: fields.seed()?,
        name: fields.get("name").map(Into::into),
        ..NewTraining::new(
            fields.get("dataset").unwrap_or_default(),
            fields.get("target").unwrap_or_default(),
        )
    })
}

/// The study that the fields of the form describe.
fn sought_for(fields: &[(String, String)]) -> Result<NewStudy, Problem> {
    let fields = Fields(fields);
    let mut models = Vec::new();
    for (kind, params) in fields.kinds()? {
        let mut space = NewSpace { kind: kind.into(), ..NewSpace::default() };
        for (name, text) in params {
            let what = |why: String| Problem::unprocessable("bad-field", format!("{name} of {kind}: {why}"));
            if !space.name(name, text.parse().map_err(what)?) {
                return Err(what("it is given twice".into()));
            }
        }
        models.push(space);
    }
    let strategy = fields.get("strategy").map(|name| serde_json::from_value(name.into()));
    Ok(NewStudy {
        task: fields.task()?,
        models,
        strategy: strategy.transpose().map_err(|_| Fields::wrong("strategy", "one of those listed"))?,
        trials: fields.read("trials", "a whole number")?,
        keep: fields.read("keep", "a whole number")?,
        validation: fields.validation()?,
        seed: fields.seed()?,
        name: fields.get("name").map(Into::into),
        ..NewStudy::new(fields.get("dataset").unwrap_or_default(), fields.get("target").unwrap_or_default())
    })
}

#[cfg(test)]
mod tests {
    use dml_core::Strategy;

    use super::*;
    use crate::view::{Range, Sought};

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
    fn a_form_becomes_a_study() {
        let form = fields(&[
            ("dataset", "d"),
            ("target", "y"),
            ("strategy", "latin_hypercube"),
            ("trials", ""),
            ("keep", "3"),
            ("kind", "ridge"),
            ("ridge.alpha", "log:0.1..10"),
            ("ridge.max_iter", "7"),
        ]);
        let new = sought_for(&form).unwrap();
        assert_eq!((new.strategy, new.trials, new.keep), (Some(Strategy::LatinHypercube), None, Some(3)));
        let [ridge] = new.models.as_slice() else { panic!("{new:?}") };
        assert_eq!(ridge.space["alpha"], Sought::Range(Range { low: 0.1, high: 10.0, log: true }));
        assert_eq!(ridge.params.0["max_iter"], Value::Int(7));
        let wrong = sought_for(&fields(&[("kind", "ridge"), ("ridge.alpha", "1..x")])).unwrap_err();
        assert!(wrong.detail.contains("alpha of ridge: '1..x'"), "{wrong}");
        let twice = [("kind", "ridge"), ("ridge.alpha", "1..2"), ("ridge.alpha", "3")];
        assert!(sought_for(&fields(&twice)).unwrap_err().detail.contains("twice"));
    }

    #[test]
    fn what_a_form_lacks_is_said() {
        assert_eq!(asked_for(&fields(&[("dataset", "d")])).unwrap_err().code, "no-models");
        let seed = asked_for(&fields(&[("kind", "ridge"), ("seed", "-1")])).unwrap_err();
        assert!(seed.detail.contains("'seed'"), "{seed}");
    }
}
