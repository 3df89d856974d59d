//! `dml explain`: where something is, who owns it, who works on it, and why it waits.

use std::time::Duration;

use comfy_table::Cell;
use dml_core::training::State;
use dml_net::view::{HolderView, LeaseView, NodeView, Role, RoutingView};
use serde_json::json;

use crate::{
    connect::Session,
    console::{Console, counted, right},
    failure::Failure,
};

pub(crate) async fn run(session: &Session<'_>, text: &str) -> Result<(), Failure> {
    let routing = session.client.routing(text).await?;
    let nodes = session.client.nodes().await?;
    let standing = standing(session, &routing, &nodes).await;
    session.console.show(&json!({ "routing": routing, "standing": standing }), || {
        let mut lines = vec![format!("{text} is {}", routing.id)];
        if routing.root != routing.id {
            lines.push(format!("part of {}, which is kept and moved as one", routing.root));
        }
        lines.push(standing.clone());
        lines.push(copies(&routing));
        lines.push(holders(session.console, &routing));
        if !routing.leases.is_empty() {
            lines.push(leases(session.console, &routing.leases));
        }
        lines.join("\n\n")
    })
}

/// What happens to it, in a sentence.
async fn standing(session: &Session<'_>, routing: &RoutingView, nodes: &[NodeView]) -> String {
    let id = routing.root.to_string();
    let (what, state, progress) = if let Ok(training) = session.client.training(&id).await {
        ("training", training.state, training.progress)
    } else if let Ok(study) = session.client.study(&id, Duration::ZERO).await {
        ("study", study.state, study.progress)
    } else if let Ok(prediction) = session.client.prediction(&id, 0).await {
        ("prediction", prediction.state, prediction.progress)
    } else if routing.holders.iter().any(|holder| holder.deleted) {
        return "It was deleted; what is kept is the note of that.".into();
    } else {
        return "It is a dataset: it never changes, and nothing is to be done about it.".into();
    };
    match state {
        State::Succeeded => format!("The {what} is done."),
        State::Failed => format!("The {what} has failed: `dml {what} show` says why."),
        State::Cancelled => format!("The {what} was cancelled: create it again to take it up again."),
        State::Queued | State::Running => {
            format!("The {what} is {:.0} % done. {}", progress * 100.0, waiting(routing, nodes))
        }
    }
}

/// Why it is not done yet.
fn waiting(routing: &RoutingView, nodes: &[NodeView]) -> String {
    if routing.owner.is_none() {
        return "No node that holds it is there: it goes on as soon as one is back.".into();
    }
    let workers: Vec<&NodeView> =
        nodes.iter().filter(|node| node.role == Role::Worker && node.active).collect();
    let slots: u32 = workers.iter().map(|worker| worker.slots).sum();
    let busy: u32 = workers.iter().map(|worker| worker.busy).sum();
    match routing.leases.len() as u64 {
        0 if workers.is_empty() => "It waits for a worker: none is there.".into(),
        0 if busy >= slots => {
            format!("It waits for its turn: all {} are busy.", counted(slots.into(), "slot"))
        }
        0 => "Its next pieces are about to be handed out.".into(),
        pieces => format!("Workers have {} of it in their hands.", counted(pieces, "piece")),
    }
}

fn copies(routing: &RoutingView) -> String {
    let RoutingView { copies, factor, .. } = routing;
    let owner = match &routing.owner {
        Some(owner) => format!("{owner} owns it: of the holders that are there, it has the lowest address."),
        None => "Nobody owns it: no holder is there.".into(),
    };
    let copies = match copies >= factor {
        true => format!("It is on {}, and {factor} are wanted.", counted((*copies).into(), "node")),
        false => format!(
            "It is on {} only, and {factor} are wanted: more are made as soon as there are nodes for them.",
            counted((*copies).into(), "node")
        ),
    };
    format!("{owner} {copies}")
}

fn holders(console: &Console, routing: &RoutingView) -> String {
    let mut table = console.table(&["holder", "address", "state", ""]);
    for holder in &routing.holders {
        let HolderView { node, address, active, deleted } = holder;
        let role = if routing.owner.as_ref() == Some(node) { "owner" } else { "" };
        table.add_row(vec![
            Cell::new(node),
            Cell::new(address.as_deref().unwrap_or("")),
            Cell::new(if *active { "active" } else { "not there" }),
            Cell::new(if *deleted { "deleted" } else { role }),
        ]);
    }
    table.trim_fmt()
}

fn leases(console: &Console, leases: &[LeaseView]) -> String {
    let mut table = console.table(&["worker", "job", "round", "unit", "lease ends"]);
    for lease in leases {
        table.add_row(vec![
            Cell::new(&lease.worker),
            Cell::new(lease.job.short()),
            right(lease.round),
            right(lease.unit.map_or("fold".into(), |unit| unit.to_string())),
            right(format!("in {:.0} s", lease.left_ms as f64 / 1000.0)),
        ]);
    }
    table.trim_fmt()
}
