//! Trainings: the list, and one as it moves: its models, how good they are, and who works on them.

use axum::extract::{Path, State as Extract};
use dml_compute::metrics::{Report, primary, shown};
use dml_core::{Kind, Task, training::State};
use maud::{Markup, html};

use super::{Answer, Asked, Cursor, PAGE, frame, frame::Frame, jobs, to, words};
use crate::{
    client::Client,
    view::{EnsembleView, NewValidation, RoutingView, TrainedView, TrainingView, report},
};

pub(super) async fn list(
    Extract(client): Extract<Client>,
    frame: Frame,
    Asked(asked): Asked<Cursor>,
) -> Answer {
    let page = client.trainings(PAGE, asked.cursor.as_deref()).await.map_err(frame.trouble())?;
    let main = html! {
        h1 { "Trainings" }
        div #live data-live="3" {
            @if page.items.is_empty() {
                p.quiet { "There are none. Choose a " a href="datasets" { "dataset" } " and the column to predict." }
            } @else { (table(&page.items)) }
        }
        (frame::next("trainings", page.next_cursor.as_deref()))
    };
    Ok(frame.page("Trainings", main))
}

pub(super) fn table(trainings: &[TrainingView]) -> Markup {
    html! {
        table {
            thead { tr { th { "name" } th { "predicts" } th { "state" } th { "best so far" } th { "begun" } } }
            tbody {
                @for training in trainings {
                    tr {
                        td { a href={ "trainings/" (training.id) } { (words::name(training.name.as_deref(), &training.id)) } }
                        td { (training.target) " " span.quiet { "(" (task(training.task)) ")" } }
                        td { (words::state(training.state)) @if !training.state.is_final() { " " (words::progress(training.progress)) } }
                        td { @if let Some((best, report)) = best(training) {
                            a href={ "models/" (best.id) } { (best.name) } ", "
                            (primary(training.task)) " " (words::metric(&report, primary(training.task)))
                        } }
                        td { (words::ago(training.created_ms)) }
                    }
                }
            }
        }
    }
}

fn best(training: &TrainingView) -> Option<(&TrainedView, Report)> {
    let model = training.models.first()?;
    Some((model, report(model.metrics.as_ref())?))
}

pub(super) fn task(task: Task) -> &'static str {
    match task {
        Task::Classification => "classification",
        Task::Regression => "regression",
    }
}

pub(super) async fn page(Extract(client): Extract<Client>, frame: Frame, Path(id): Path<String>) -> Answer {
    let training = client.training(&id).await.map_err(frame.trouble())?;
    let routing = match training.state.is_final() {
        true => None,
        false => client.routing(&training.id.to_string()).await.ok(),
    };
    let together = match training.ensemble {
        Some(_) if training.state == State::Succeeded => {
            client.evaluate_ensemble(&training.id.to_string()).await.ok()
        }
        Some(_) | None => None,
    };
    let name = words::name(training.name.as_deref(), &training.id);
    Ok(frame.page(&name, show(&training, routing.as_ref(), together.as_ref())))
}

fn show(training: &TrainingView, routing: Option<&RoutingView>, together: Option<&EnsembleView>) -> Markup {
    let id = training.id.to_string();
    let over = training.state.is_final();
    let events = format!("v1/trainings/{id}/events");
    html! {
        h1 { (words::name(training.name.as_deref(), &training.id)) }
        div #live data-live=[(!over).then_some("3")] data-events=[(!over).then_some(&events)] {
            p { (words::state(training.state)) " " @if !over { (words::progress(training.progress)) " " }
                (task(training.task)) " of " strong { (training.target) } " from "
                a href={ "datasets/" (training.dataset) } { (words::counted(training.features.len() as u64, "column")) }
                ", " (judged(training)) ", seed " (training.seed) ", begun " (words::ago(training.created_ms)) ", id " (words::id(&training.id))
                @if let Some(ensemble) = &training.ensemble { " " (words::badge(&format!("ensemble by {}", ensemble.method.name()), "idle")) } }
            @if let Some(together) = together { (ensemble(together)) }
            h2 { "Leaderboard" }
            (leaderboard(training))
            @if let Some(routing) = routing { (work(training, routing)) }
            @if !over {
                form method="post" action={ "trainings/" (id) "/cancel" } { button.plain { "Cancel what is left" } }
            }
        }
        div.actions {
            (frame::sure(&format!("trainings/{id}/delete"), "Delete", "The training and its models are deleted on all nodes."))
        }
    }
}

/// How good the models are together, and which could not be had.
fn ensemble(together: &EnsembleView) -> Markup {
    let main = primary(together.task);
    html! {
        p { "Together " strong { (together.members_used) " of " (together.members_total) } " models"
            @if let Some(quality) = &together.quality {
                " have " (main) " " strong { (words::metric(quality, main)) }
                @if let Some(bounds) = crate::words::interval(quality, main) { " (95 %: " (bounds) ")" }
            } @else { " are of a quality that could not be measured" }
            "." }
        @for error in &together.errors {
            p.bad { (error.member.as_deref().unwrap_or("The measure")) ": " (error.why) }
        }
    }
}

fn judged(training: &TrainingView) -> String {
    match training.validation {
        NewValidation::Folds(folds) => format!("judged by {folds} folds (mean ± deviation)"),
        NewValidation::Holdout(part) => {
            format!("judged on {} of the rows, kept from training", words::percent(part))
        }
    }
}

fn leaderboard(training: &TrainingView) -> Markup {
    let main = primary(training.task);
    let reports: Vec<Option<Report>> =
        training.models.iter().map(|model| report(model.metrics.as_ref())).collect();
    let bounds = reports.iter().flatten().filter_map(|report| report.interval.get(main));
    let scale =
        bounds.fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], [l, h]| [low.min(*l), high.max(*h)]);
    html! {
        div.wide { table {
            thead { tr {
                th.number { "#" } th { "model" }
                @for (_, heading) in shown(training.task) { th.number { (heading) } }
                th { (main) ", 95 % interval" } th { "state" }
            } }
            tbody {
                @for (place, (model, report)) in training.models.iter().zip(&reports).enumerate() {
                    tr {
                        td.number { @if report.is_some() { (place + 1) } }
                        td { @if model.state == State::Succeeded { a href={ "models/" (model.id) } { (model.name) } } @else { (model.name) } }
                        @for (name, _) in shown(training.task) {
                            td.number { @if let Some(report) = report { (words::metric(report, name)) } }
                        }
                        td { @if let Some(report) = report { (interval(report, main, scale)) } }
                        td { (words::state(model.state))
                            @if model.state == State::Running { " " (words::progress(model.progress)) }
                            @if let Some(error) = &model.error { p.bad { (error) } } }
                    }
                }
            }
        } }
    }
}

/// Where a metric lies with a confidence of 95 %, on a scale that all models share.
fn interval(report: &Report, name: &str, [least, greatest]: [f64; 2]) -> Markup {
    let (Some([low, high]), Some(value)) = (report.interval.get(name), report.get(name)) else {
        return html! {};
    };
    let place = |value: f64| 4.0 + (value - least) / (greatest - least).max(f64::MIN_POSITIVE) * 192.0;
    let at = |value| format!("{:.1}", place(value));
    html! {
        svg.interval viewBox="0 0 200 12" width="200" height="12" role="img"
            aria-label={ (words::number(*low)) " to " (words::number(*high)) } {
            title { (words::number(*low)) " to " (words::number(*high)) }
            line x1=(at(*low)) x2=(at(*high)) y1="6" y2="6" {}
            circle cx=(at(value)) cy="6" r="4" {}
        }
    }
}

/// Rounds and units, and who has them.
fn work(training: &TrainingView, routing: &RoutingView) -> Markup {
    html! {
        h2 { "Work under way" }
        table {
            thead { tr { th { "model" } th.number { "round" } th.number { "units of this round" } } }
            tbody {
                @for model in training.models.iter().filter(|model| !model.state.is_final()) {
                    tr { td { (model.name) } td.number { (model.round) " of " (model.rounds) } td.number { (model.units_done) " of " (model.units) } }
                }
            }
        }
        (jobs::held(&routing.leases, |job| {
            let model = training.models.iter().find(|model| model.id == *job);
            model.map_or("preparation or evaluation", |model| model.name.as_str()).to_string()
        }))
    }
}

pub(super) async fn cancel(Extract(client): Extract<Client>, frame: Frame, Path(id): Path<String>) -> Answer {
    let training = client.cancel(&id).await.map_err(frame.trouble())?;
    Ok(to(&frame, &format!("trainings/{}", training.id)))
}

pub(super) async fn delete(Extract(client): Extract<Client>, frame: Frame, Path(id): Path<String>) -> Answer {
    client.delete(Kind::Training, &id).await.map_err(frame.trouble())?;
    Ok(to(&frame, "trainings"))
}
