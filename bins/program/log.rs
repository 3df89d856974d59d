//! Logs: one line an event, on stderr, so that stdout is free for results.

use std::{
    fmt::{Debug, Write},
    io::{IsTerminal, stderr},
    sync::Arc,
};

use clap::ValueEnum;
use dml_net::logs::{Level, Logs};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    Layer,
    filter::{LevelFilter, Targets},
    fmt,
    layer::{Context, SubscriberExt},
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

/// Shows events from `level` on; those of libraries from `warn` on at most, unless everything is asked for. The last lines
/// are kept, those from `info` on in any case.
pub fn start(level: LevelFilter, format: Format) -> Arc<Logs> {
    let colour = stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let layer = fmt::layer().with_writer(stderr);
    let layer = match format {
        Format::Text => layer.with_ansi(colour).with_target(false).boxed(),
        Format::Json => layer.json().flatten_event(true).with_span_list(false).boxed(),
    };
    let logs = Arc::new(Logs::default());
    let kept = Keep(logs.clone()).with_filter(targets(level.clamp(LevelFilter::INFO, LevelFilter::DEBUG)));
    // Whoever has set a subscriber before keeps it.
    let _ = tracing_subscriber::registry().with(layer.with_filter(targets(level))).with(kept).try_init();
    logs
}

fn targets(level: LevelFilter) -> Targets {
    let others = if level == LevelFilter::TRACE { level } else { level.min(LevelFilter::WARN) };
    let ours = ["dml_core", "dml_store", "dml_compute", "dml_net", "program", "dml", "db", "worker"];
    ours.iter().fold(Targets::new().with_default(others), |targets, ours| targets.with_target(*ours, level))
}

/// Keeps events as lines.
struct Keep(Arc<Logs>);

impl<S: Subscriber> Layer<S> for Keep {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let meta = event.metadata();
        let level = match *meta.level() {
            tracing::Level::ERROR => Level::Error,
            tracing::Level::WARN => Level::Warn,
            tracing::Level::INFO => Level::Info,
            tracing::Level::DEBUG | tracing::Level::TRACE => Level::Debug,
        };
        let mut words = Words::default();
        event.record(&mut words);
        self.0.keep(level, meta.target(), words.message + &words.values);
    }
}

/// The message of an event, and its values behind it.
#[derive(Default)]
struct Words {
    message: String,
    values: String,
}

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // A text can always be written to.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.values, " {name}={value:?}"),
        };
    }
}
