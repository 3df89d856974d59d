//! Logs: one line an event, on stderr, so that stdout is free for results.

use std::io::{IsTerminal, stderr};

use clap::ValueEnum;
use tracing_subscriber::{
    Layer,
    filter::{LevelFilter, Targets},
    fmt,
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

/// How events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs: an object a line, with `timestamp`, `level`, `message`, the values, and the request as `span`.
    Json,
}

/// Shows events from `level` on; those of libraries from `warn` on at most, unless everything is asked for.
pub fn start(level: LevelFilter, format: Format) {
    let others = if level == LevelFilter::TRACE { level } else { level.min(LevelFilter::WARN) };
    let ours = ["dml_core", "dml_store", "dml_compute", "dml_net", "program", "dml", "db", "worker"];
    let targets =
        ours.iter().fold(Targets::new().with_default(others), |t, ours| t.with_target(*ours, level));
    let colour = stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let layer = fmt::layer().with_writer(stderr);
    let layer = match format {
        Format::Text => layer.with_ansi(colour).with_target(false).boxed(),
        Format::Json => layer.json().flatten_event(true).with_span_list(false).boxed(),
    };
    // Whoever has set a subscriber before keeps it.
    let _ = tracing_subscriber::registry().with(layer).with(targets).try_init();
}
