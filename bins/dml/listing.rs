//! What all lists have in common, and removing what is listed.

use comfy_table::Cell;
use dml_core::record::Kind;
use dml_net::view::Page;
use serde::Serialize;

use crate::{connect::Session, console::Console, failure::Failure};

/// Shows a page of things: a row each.
pub(crate) fn show<T: Serialize>(
    console: &Console,
    page: &Page<T>,
    headings: &[&str],
    none: &str,
    row: impl Fn(&T) -> Vec<Cell>,
) -> Result<(), Failure> {
    if page.items.is_empty() && !console.json {
        console.say(none);
        return Ok(());
    }
    console.show(page, || {
        let mut table = console.table(headings);
        page.items.iter().for_each(|item| {
            table.add_row(row(item));
        });
        table.trim_fmt()
    })?;
    if let Some(cursor) = page.next_cursor.as_ref().filter(|_| !console.json) {
        console.say(&format!("there are more: go on with --cursor {cursor}"));
    }
    Ok(())
}

/// Removes a thing.
pub(crate) async fn remove(session: &Session<'_>, kind: Kind, id: &str) -> Result<(), Failure> {
    session.client.delete(kind, id).await?;
    session
        .console
        .show(&serde_json::json!({ "removed": id }), || format!("removed the {} {id}", kind.name()))
}
