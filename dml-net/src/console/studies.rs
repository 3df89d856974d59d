//! Studies: the list, and one as it moves: its best trials, what matters, and where the best is kept.

use axum::{
    extract::{Path, State as Extract},
    http::header,
    response::IntoResponse,
};
use dml_compute::{plot, search::Trial};
use dml_core::{Kind, Value};
use maud::{Markup, html};
use std::time::Duration;

use super::{Answer, Asked, Cursor, PAGE, frame, frame::Frame, to, trainings, words};
use crate::{
    client::{Client, ClientError},
    problem::Problem,
    view::{NewSpace, NewValidation, StudyView},
};

pub(super) async fn list(
    Extract(client): Extract<Client>,
    frame: Frame,
    Asked(asked): Asked<Cursor>,
) -> Answer {
    let page = client.studies(PAGE, asked.cursor.as_deref()).await.map_err(frame.trouble())?;
    let main = html! {
        h1 { "Studies" }
        p.quiet { "Searches for the parameters with which models are best. The pages of " a href="datasets" { "datasets" } " begin them, and "
            code { "dml tune FILE --target COLUMN" } "." }
        div #live data-live="3" {
            @if page.items.is_empty() { p.quiet { "There are none." } } @else { (table(&page.items)) }
        }
        (frame::next("studies", page.next_cursor.as_deref()))
    };
    Ok(frame.page("Studies", main))
}

fn table(studies: &[StudyView]) -> Markup {
    html! {
        table {
            thead { tr { th { "name" } th { "predicts" } th { "state" } th.number { "trials" } th { "best so far" } th { "begun" } } }
            tbody {
                @for study in studies {
                    tr {
                        td { a href={ "studies/" (study.id) } { (words::name(study.name.as_deref(), &study.id)) } }
                        td { (study.target) " " span.quiet { "(" (trainings::task(study.task)) ")" } }
                        td { (words::state(study.state)) @if !study.state.is_final() { " " (words::progress(study.progress)) } }
                        td.number { (study.done) " of " (study.trials) }
                        td { @if let Some(score) = best(study) { (study.metric) " " (words::number(score)) } }
                        td { (words::ago(study.created_ms)) }
                    }
                }
            }
        }
    }
}

fn best(study: &StudyView) -> Option<f64> {
    study.leaders.first()?.score
}

pub(super) async fn page(Extract(client): Extract<Client>, frame: Frame, Path(id): Path<String>) -> Answer {
    let study = client.study(&id, Duration::ZERO).await.map_err(frame.trouble())?;
    let name = words::name(study.name.as_deref(), &study.id);
    Ok(frame.page(&name, show(&study)))
}

fn show(study: &StudyView) -> Markup {
    let id = study.id.to_string();
    let over = study.state.is_final();
    let events = format!("v1/studies/{id}/events");
    let judged = match study.validation {
        NewValidation::Folds(folds) => format!("judged by {folds} folds"),
        NewValidation::Holdout(part) => format!("judged on {} of the rows", words::percent(part)),
    };
    html! {
        h1 { (words::name(study.name.as_deref(), &study.id)) }
        div #live data-live=[(!over).then_some("3")] data-events=[(!over).then_some(&events)] {
            p { (words::state(study.state)) " " @if !over { (words::progress(study.progress)) " " }
                (study.done) " of " (words::counted(study.trials.into(), "trial")) " of " (study.kinds.join(" and ")) " by " (study.strategy.name())
                ", to predict " strong { (study.target) } " from " a href={ "datasets/" (study.dataset) } { "this dataset" }
                ", " (judged) ", seed " (study.seed) ", begun " (words::ago(study.created_ms)) ", id " (words::id(&study.id)) }
            @if let Some(error) = &study.error { p.bad { (error) } }
            @if let Some(training) = study.training {
                p { "The best of them are kept: " a href={ "trainings/" (training) } { "the training with their models" } "." }
            }
            h2 { "Best trials" }
            @if study.leaders.is_empty() { p.quiet { "None is finished yet." } } @else { (leaders(study)) }
            @if study.failed > 0 { p.bad { (words::counted(study.failed.into(), "trial")) " failed." } }
            @if study.done > study.failed + 1 {
                h2 { "All trials" }
                p { a href={ "studies/" (id) "/plot.svg" } {
                    img.plot src={ "studies/" (id) "/plot.svg?done=" (study.done) } alt="Each trial as a line through its parameters to its score, and what part each parameter has in it";
                } }
            }
            h2 { "What is tried" }
            table {
                thead { tr { th { "kind" } th { "parameter" } th { "values" } } }
                tbody { @for space in &study.models { (tried(space)) } }
            }
            @if !over {
                form method="post" action={ "studies/" (id) "/cancel" } { button.plain { "Cancel what is left" } }
            }
        }
        div.actions {
            a href={ "v1/studies/" (id) "/trials" } { "All trials as JSON" }
            (frame::sure(&format!("studies/{id}/delete"), "Delete", "The study is deleted on all nodes. The training of the best stays."))
        }
    }
}

fn leaders(study: &StudyView) -> Markup {
    html! {
        div.wide { table {
            thead { tr { th.number { "#" } th.number { "trial" } th.number { (study.metric) } th { "kind" } th { "parameters" } th.number { "learned" } } }
            tbody {
                @for (place, trial) in study.leaders.iter().enumerate() {
                    tr {
                        td.number { (place + 1) }
                        td.number { (trial.number) }
                        td.number { @if let Some(score) = trial.score { (words::number(score)) } }
                        td { (trial.kind) }
                        td { (params(trial)) @if let Some(error) = &trial.error { p.bad { (error) } } }
                        td.number { (words::percent(f64::from(trial.rounds) / f64::from(trial.of_rounds.max(1)))) }
                    }
                }
            }
        } }
    }
}

fn tried(space: &NewSpace) -> Markup {
    let fixed = space.params.0.iter().map(|(name, value)| (name, value.to_string()));
    let sought = space.space.iter().map(|(name, sought)| (name, sought.to_string()));
    html! {
        @for (name, values) in sought.chain(fixed) { tr { td { (space.kind) } td { code { (name) } } td { (values) } } }
    }
}

fn params(trial: &Trial) -> String {
    let value = |value: &Value| match value {
        Value::Float(value) => words::number(*value),
        Value::Bool(_) | Value::Int(_) | Value::Text(_) => value.to_string(),
    };
    trial.params.0.iter().map(|(name, it)| format!("{name} {}", value(it))).collect::<Vec<_>>().join(", ")
}

pub(super) async fn plot(Extract(client): Extract<Client>, frame: Frame, Path(id): Path<String>) -> Answer {
    let study = client.study(&id, Duration::ZERO).await.map_err(frame.trouble())?;
    let trials = client.trials(&id).await.map_err(frame.trouble())?;
    let title = words::name(study.name.as_deref(), &study.id);
    let picture = plot::draw_study(&title, &trials.metric, &trials.items, &study.importance);
    let missing = || ClientError::Problem(Problem::not_found("there is nothing to draw of this study yet"));
    let picture = picture.ok_or_else(missing).map_err(frame.trouble())?;
    Ok(([(header::CONTENT_TYPE, "image/svg+xml")], picture).into_response())
}

pub(super) async fn cancel(Extract(client): Extract<Client>, frame: Frame, Path(id): Path<String>) -> Answer {
    let study = client.cancel_study(&id).await.map_err(frame.trouble())?;
    Ok(to(&frame, &format!("studies/{}", study.id)))
}

pub(super) async fn delete(Extract(client): Extract<Client>, frame: Frame, Path(id): Path<String>) -> Answer {
    client.delete(Kind::Study, &id).await.map_err(frame.trouble())?;
    Ok(to(&frame, "studies"))
}
