//! `dml cluster`: the nodes.

use comfy_table::Cell;
use dml_net::view::Role;
use serde_json::json;

use crate::{connect::Session, console::right, failure::Failure};

pub(crate) async fn show(session: &Session<'_>) -> Result<(), Failure> {
    let nodes = session.client.nodes().await?;
    // Workers of an embedding program need not tell where they are.
    let nowhere = if session.place.is_embedded() { "in this process" } else { "" };
    session.console.show(&json!({ "items": nodes }), || {
        let mut table =
            session.console.table(&["node", "role", "address", "state", "data", "busy", "slots", "heard of"]);
        for node in &nodes {
            let (role, computes) = match node.role {
                Role::Db => ("db", false),
                Role::Worker => ("worker", true),
            };
            let slots = |n: u32| if computes { n.to_string() } else { String::new() };
            table.add_row(vec![
                Cell::new(&node.id),
                Cell::new(role),
                Cell::new(node.address.as_deref().unwrap_or(nowhere)),
                Cell::new(&node.state),
                right(if computes { String::new() } else { node.data.to_string() }),
                right(slots(node.busy)),
                right(slots(node.slots)),
                right(format!("{:.1} s ago", node.age_ms as f64 / 1000.0)),
            ]);
        }
        table.trim_fmt()
    })
}
