//! The first page: how the cluster is, what goes on, and where to begin.

use axum::extract::State as Extract;
use maud::{Markup, html};

use super::{Answer, cluster, datasets, frame::Frame, trainings};
use crate::{
    client::Client,
    view::{DatasetView, NodeView, Role, TrainingView},
};

/// How many of the newest things are shown.
const NEWEST: usize = 8;

pub(super) async fn page(Extract(client): Extract<Client>, frame: Frame) -> Answer {
    let nodes = client.nodes().await.map_err(frame.trouble())?;
    let trainings = client.trainings(NEWEST, None).await.map_err(frame.trouble())?.items;
    let datasets = client.datasets(NEWEST, None).await.map_err(frame.trouble())?.items;
    Ok(frame.page("Overview", show(&nodes, &trainings, &datasets)))
}

fn show(nodes: &[NodeView], trainings: &[TrainingView], datasets: &[DatasetView]) -> Markup {
    let of = |role: Role| nodes.iter().filter(move |node| node.role == role);
    let there = |role| of(role).filter(|node| node.active).count();
    let workers = there(Role::Worker);
    let slots: u32 = of(Role::Worker).filter(|node| node.active).map(|node| node.slots).sum();
    let busy: u32 = of(Role::Worker).filter(|node| node.active).map(|node| node.busy).sum();
    html! {
        h1 { "Overview" }
        div #live data-live="3" {
            (cluster::warning(nodes))
            ul.figures {
                li { a href="cluster" { strong { (there(Role::Db)) " of " (of(Role::Db).count()) } " db nodes answer" } }
                li { a href="cluster" { strong { (workers) } @if workers == 1 { " worker" } @else { " workers" } } }
                li { a href="trainings" { strong { (busy) " of " (slots) } " slots at work" } }
            }
            @if !trainings.is_empty() {
                h2 { "Newest trainings" }
                (trainings::table(trainings))
            }
            @if !datasets.is_empty() {
                h2 { "Newest datasets" }
                (datasets::table(datasets))
            }
        }
        (datasets::uploader())
        @if datasets.is_empty() {
            p.quiet { "Nothing is here yet. Upload a table, choose the column to predict, and a set of models is trained on it." }
        }
    }
}
