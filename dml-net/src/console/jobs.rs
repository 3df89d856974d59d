//! What the cluster works on: trainings and predictions that are not finished, how far each job is, who has which piece
//! of it; and what was worked on in vain.

use axum::extract::State as Extract;
use dml_core::Digest;
use futures_util::{StreamExt, stream};
use maud::{Markup, html};

use super::{Answer, frame::Frame, words};
use crate::{
    client::Client,
    view::{LeaseView, NodeView, PredictionView, Role, TrainingView},
};

/// How many of the newest trainings and predictions are looked at.
const NEWEST: usize = 100;

/// How many of those that are not finished are shown.
const SHOWN: usize = 20;

/// How many leases of one are shown.
const LEASES: usize = 50;

pub(super) async fn page(Extract(client): Extract<Client>, frame: Frame) -> Answer {
    let (nodes, trainings, predictions) =
        tokio::try_join!(client.nodes(), client.trainings(NEWEST, None), client.predictions(NEWEST, None))
            .map_err(frame.trouble())?;
    let (mut trainings, mut predictions) = (trainings.items, predictions.items);
    trainings.retain(|training| !training.state.is_final());
    predictions.retain(|prediction| !prediction.state.is_final());
    let all = trainings.len() + predictions.len();
    trainings.truncate(SHOWN);
    predictions.truncate(SHOWN);
    let ids = trainings.iter().map(|t| t.id).chain(predictions.iter().map(|p| p.id));
    // Where something is gone meanwhile, nobody works on it.
    let held = stream::iter(ids.collect::<Vec<_>>()).map(|id| {
        let client = client.clone();
        async move { client.routing(&id.to_string()).await.map(|routing| routing.leases).unwrap_or_default() }
    });
    let held: Vec<Vec<LeaseView>> = held.buffered(8).collect().await;
    let main = html! {
        h1 { "Jobs" }
        div #live data-live="2" {
            (figures(&nodes, held.iter().map(Vec::len).sum()))
            @if all == 0 { p.quiet { "Nothing is waiting, and nothing is worked on." } }
            @for (training, leases) in trainings.iter().zip(&held) { (a_training(training, leases)) }
            @for (prediction, leases) in predictions.iter().zip(&held[trainings.len()..]) { (a_prediction(prediction, leases)) }
            @if all > trainings.len() + predictions.len() {
                p.quiet { "and " (all - trainings.len() - predictions.len()) " more that are not finished" }
            }
        }
    };
    Ok(frame.page("Jobs", main))
}

/// What is in hand, what came of it so far, and how much of that was in vain.
fn figures(nodes: &[NodeView], leases: usize) -> Markup {
    let sum = |of: fn(&NodeView) -> Option<u64>| nodes.iter().filter_map(of).sum::<u64>();
    let (pieces, repeated) = (sum(|node| node.pieces), sum(|node| node.repeated));
    let slots: u32 = nodes.iter().filter(|n| n.role == Role::Worker && n.active).map(|n| n.slots).sum();
    html! {
        ul.figures {
            li { strong { (words::count(leases as u64)) } " pieces in hand, " (words::counted(slots.into(), "slot")) }
            li { strong { (words::count(pieces)) } " results since the db nodes started" }
            li { strong { (words::count(repeated)) } " of work done twice"
                @if pieces > 0 { " (" (words::percent(repeated as f64 / (pieces + repeated) as f64)) ")" } }
        }
    }
}

fn a_training(training: &TrainingView, leases: &[LeaseView]) -> Markup {
    let name = |job: &Digest| {
        let model = training.models.iter().find(|model| model.id == *job);
        model.map_or("preparation or evaluation", |model| model.name.as_str()).to_string()
    };
    let models = training.models.iter().filter(|model| !model.state.is_final());
    html! {
        h2 { a href={ "trainings/" (training.id) } { (words::name(training.name.as_deref(), &training.id)) } " "
            (words::state(training.state)) " " (words::progress(training.progress)) }
        table {
            thead { tr { th { "model" } th { "state" } th.number { "round" } th.number { "units of this round" } } }
            tbody {
                @for model in models {
                    tr { td { (model.name) } td { (words::state(model.state)) }
                        td.number { (model.round) " of " (model.rounds) } td.number { (model.units_done) " of " (model.units) } }
                }
            }
        }
        (held(leases, name))
    }
}

fn a_prediction(prediction: &PredictionView, leases: &[LeaseView]) -> Markup {
    html! {
        h2 { a href={ "predictions/" (prediction.id) } { (words::name(prediction.name.as_deref(), &prediction.id)) } " "
            (words::state(prediction.state)) " " (words::progress(prediction.progress)) }
        p { (prediction.units_done) " of " (words::counted(prediction.units.into(), "unit")) " of the table are predicted." }
        (held(leases, |_| "prediction".into()))
    }
}

/// Who has what.
pub(super) fn held(leases: &[LeaseView], name: impl Fn(&Digest) -> String) -> Markup {
    html! {
        @if leases.is_empty() { p.quiet { "No worker has a piece of it at the moment." } } @else {
            table {
                thead { tr { th { "worker" } th { "job" } th { "piece" } th.number { "lease runs out in" } } }
                tbody {
                    @for lease in leases.iter().take(LEASES) {
                        tr {
                            td { (lease.worker) }
                            td { (name(&lease.job)) }
                            td { "round " (lease.round) ", " @match lease.unit { Some(unit) => { "unit " (unit) } None => "the end of the round" } }
                            td.number { (words::span(lease.left_ms / 1000)) }
                        }
                    }
                }
            }
            @if leases.len() > LEASES { p.quiet { "and " (leases.len() - LEASES) " more pieces" } }
        }
    }
}
