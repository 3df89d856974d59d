//! The last lines of the log of the worker that serves the page.

use axum::extract::State as Extract;
use maud::html;
use serde::Deserialize;

use super::{Answer, Asked, frame::Frame, words};
use crate::{client::Client, logs::Level};

/// How many lines are shown.
const LINES: usize = 200;

/// What is shown.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Wanted {
    level: Option<Level>,
}

pub(super) async fn page(
    Extract(client): Extract<Client>,
    frame: Frame,
    Asked(wanted): Asked<Wanted>,
) -> Answer {
    let level = wanted.level.unwrap_or(Level::Info);
    let lines = client.logs(level, LINES).await.map_err(frame.trouble())?;
    let main = html! {
        h1 { "Log" }
        p.quiet { "The last lines of the process that serves this page, newest first. Other nodes have their own; all of them go to stderr." }
        div.actions {
            @for other in Level::ALL {
                a.button.plain href={ "logs?level=" (other.name()) } aria-current=[(other == level).then_some("true")] {
                    (other.name()) @if other != Level::Error { " and worse" }
                }
            }
        }
        div #live data-live="3" {
            @if lines.is_empty() {
                p.quiet { "There are none that are so bad, or this program does not keep its log." }
            } @else {
                div.wide { table {
                    thead { tr { th { "when" } th { "level" } th { "from" } th { "what" } } }
                    tbody {
                        @for line in &lines {
                            tr {
                                td { (words::ago(line.time_ms)) }
                                td { (words::badge(line.level.name(), match line.level {
                                    Level::Error => "bad", Level::Warn => "busy", Level::Info | Level::Debug => "idle" })) }
                                td { code { (line.target) } }
                                td { (line.text) }
                            }
                        }
                    }
                } }
            }
        }
    };
    Ok(frame.page("Log", main))
}
