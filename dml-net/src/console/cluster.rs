//! The nodes of the cluster, as the db node that was asked sees them.

use axum::extract::State as Extract;
use maud::{Markup, html};
use serde::Deserialize;

use super::{Answer, Asked, frame::Frame, words};
use crate::{
    client::Client,
    view::{NodeView, Role},
};

/// How many nodes are shown at a time.
const NODES: usize = 50;

/// Which part of the nodes.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Part {
    from: Option<usize>,
}

pub(super) async fn page(Extract(client): Extract<Client>, frame: Frame, Asked(part): Asked<Part>) -> Answer {
    let nodes = client.nodes().await.map_err(frame.trouble())?;
    let from = part.from.unwrap_or(0).min(nodes.len());
    let shown = &nodes[from..nodes.len().min(from + NODES)];
    let main = html! {
        h1 { "Cluster" }
        p.quiet { "As the db node sees it that this worker asked. While a network is split, each side shows its own nodes as active." }
        div #live data-live="2" {
            (warning(&nodes))
            (table(shown))
        }
        @if shown.len() < nodes.len() {
            p { "Nodes " (from + 1) " to " (from + shown.len()) " of " (nodes.len()) " "
                @if from > 0 { a.button.plain href={ "cluster?from=" (from.saturating_sub(NODES)) } { "Before" } " " }
                @if from + shown.len() < nodes.len() { a.button.plain href={ "cluster?from=" (from + NODES) } { "Next" } }
            }
        }
    };
    Ok(frame.page("Cluster", main))
}

/// Who does not answer that did, and what that means.
pub(super) fn warning(nodes: &[NodeView]) -> Markup {
    let silent: Vec<&NodeView> =
        nodes.iter().filter(|node| node.role == Role::Db && !node.active && node.state != "left").collect();
    let dbs = nodes.iter().filter(|node| node.role == Role::Db && node.state != "left").count();
    let workers = nodes.iter().any(|node| node.role == Role::Worker && node.active);
    html! {
        @if !silent.is_empty() {
            div.alert role="alert" {
                strong { "No answer from " (silent.len()) " of " (dbs) " db nodes" }
                p { "They are down, or the network is split. Work goes on with those that answer, and all merges when they come back. What was acknowledged is on
                     several nodes, and is lost only with all of them." }
            }
        }
        @if !workers {
            div.alert role="alert" { strong { "No worker takes work" } p { "Trainings wait until one joins: " code { "worker --join ADDRESS" } } }
        }
    }
}

fn table(nodes: &[NodeView]) -> Markup {
    html! {
        table {
            thead { tr { th { "node" } th { "role" } th { "address" } th { "state" } th.number { "load" } th.number { "heard of" } } }
            tbody {
                @for node in nodes {
                    tr {
                        td { code { (node.id.chars().take(24).collect::<String>()) } }
                        td { (match node.role { Role::Db => "db node", Role::Worker => "worker" }) }
                        td { (node.address.as_deref().unwrap_or("in this process")) }
                        td { (words::badge(&node.state, match node.state.as_str() {
                            "active" => "good", "suspected" => "busy", "left" => "idle", _ => "bad" })) }
                        td.number { (match node.role {
                            Role::Db => words::counted(node.data, "thing"),
                            Role::Worker => format!("{} of {} slots", node.busy, node.slots),
                        }) }
                        td.number { (if node.age_ms < 1000 { "now".into() } else { format!("{} ago", words::span(node.age_ms / 1000)) }) }
                    }
                }
            }
        }
    }
}
