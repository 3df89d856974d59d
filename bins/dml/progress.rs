//! Bars on stderr for whoever looks at it; plain lines for logs.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use dml_core::{Digest, training::State};
use dml_net::view::{TrainedView, TrainingView};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{console::Console, leaderboard};

/// The bar of an upload; it counts bytes. Without a length it tells what has gone and how fast.
pub(crate) fn upload(console: &Console, what: &str) -> ProgressBar {
    let template = "uploading {msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta} left";
    bar(console, template).with_message(what.to_string())
}

/// The bar of models that are pushed; it counts them.
pub(crate) fn push(console: &Console, models: usize) -> ProgressBar {
    let bar = bar(console, "pushing {msg} {bar:30} {pos} of {len} models");
    bar.set_length(models as u64);
    bar
}

/// The bar of a prediction; it counts pieces of the table.
pub(crate) fn prediction(console: &Console, units: u32) -> ProgressBar {
    let bar = bar(console, "predicting {bar:30} {percent}% {eta} left");
    bar.set_length(units.into());
    bar
}

/// The bar of a study; it counts trials.
pub(crate) fn study(console: &Console) -> ProgressBar {
    bar(console, "{pos} of {len} trials {bar:24} {eta} left  {msg}")
}

fn bar(console: &Console, template: &str) -> ProgressBar {
    let target = if console.lively { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    ProgressBar::with_draw_target(None, target).with_style(style(template))
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).expect("our templates are well formed");
    style.progress_chars("━╸─")
}

/// How a training gets on: a bar a model, or a line when one ends.
pub(crate) struct Watch<'a> {
    console: &'a Console,
    bars: MultiProgress,
    models: BTreeMap<Digest, ProgressBar>,
    told: BTreeSet<Digest>,
}

impl<'a> Watch<'a> {
    /// Nothing is shown yet.
    pub(crate) fn new(console: &'a Console) -> Self {
        let target = if console.lively { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self {
            console,
            bars: MultiProgress::with_draw_target(target),
            models: BTreeMap::new(),
            told: BTreeSet::new(),
        }
    }

    /// Shows how the training stands now.
    pub(crate) fn show(&mut self, training: &TrainingView) {
        let width = training.models.iter().map(|model| model.name.chars().count()).max().unwrap_or(0);
        for model in &training.models {
            if self.console.lively {
                self.move_bar(model, width);
            } else if model.state.is_final() && self.told.insert(model.id) {
                self.console.say(&format!("{}: {}", model.name, standing(model)));
            }
        }
    }

    /// Takes the bars away: what follows tells more.
    pub(crate) fn clear(&self) {
        // A terminal that is gone needs no clearing.
        let _ = self.bars.clear();
    }

    fn move_bar(&mut self, model: &TrainedView, width: usize) {
        let bar = self.models.entry(model.id).or_insert_with(|| {
            let style = style("{prefix} {bar:24} {percent:>3}% {wide_msg}");
            let bar = self.bars.add(ProgressBar::new(1000).with_style(style));
            bar.enable_steady_tick(Duration::from_millis(250));
            bar.with_prefix(format!("{:width$}", model.name))
        });
        bar.set_position((model.progress * 1000.0) as u64);
        bar.set_message(standing(model));
        if model.state.is_final() && !bar.is_finished() {
            bar.abandon();
        }
    }
}

/// How a model stands, in a few words.
fn standing(model: &TrainedView) -> String {
    match model.state {
        State::Queued => "waits".into(),
        State::Running if model.rounds > 1 => {
            format!("round {} of {}", (model.round + 1).min(model.rounds), model.rounds)
        }
        State::Running => match (model.units_done, model.units) {
            (done, units) if units > 1 => format!("{done} of {units} parts"),
            _ => String::new(),
        },
        State::Succeeded => leaderboard::headline(model.metrics.as_ref()).unwrap_or_else(|| "done".into()),
        State::Failed => format!("failed: {}", model.error.as_deref().unwrap_or("for no reason given")),
        State::Cancelled => "cancelled".into(),
    }
}
