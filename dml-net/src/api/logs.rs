//! `/v1/logs`: the last lines of this worker's log, for administrators.

use axum::{Json, extract::State};
use serde::Deserialize;

use super::CheckedQuery;
use crate::{
    logs::{Level, Line},
    problem::Problem,
    view::Page,
    worker::Worker,
};

/// Which lines.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    level: Option<Level>,
    limit: Option<usize>,
}

pub(super) async fn list(
    State(worker): State<Worker>,
    CheckedQuery(which): CheckedQuery<Which>,
) -> Result<Json<Page<Line>>, Problem> {
    let limit = which.limit.unwrap_or(200);
    if !(1..=2000).contains(&limit) {
        return Err(Problem::bad_request("bad-limit", format!("limit is from 1 to 2000, not {limit}")));
    }
    let logs = worker.shared.options.logs.as_ref();
    let items = logs.map(|logs| logs.last(which.level.unwrap_or(Level::Info), limit)).unwrap_or_default();
    Ok(Json(Page { items, next_cursor: None }))
}
