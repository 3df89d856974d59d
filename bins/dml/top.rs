//! `dml top`: what the cluster is at, as it moves. Only what the REST API tells, drawn anew each second.

use std::{
    collections::BTreeMap,
    io::{IsTerminal, Read, Write, stdin, stdout},
    time::{Duration, Instant},
};

use comfy_table::Cell;
use crossterm::{
    cursor, queue,
    terminal::{self, Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen},
};
use dml_core::{Digest, training::State};
use dml_net::view::{NodeView, PredictionView, Role, TrainingView};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::{
    args::Top,
    connect::Session,
    console::{count, counted, handle, right},
    failure::Failure,
};

/// How many of the newest trainings and predictions are looked at.
const NEWEST: usize = 50;

/// How many lines of either are shown when nobody looks at a terminal of some height.
const LINES: usize = 20;

/// Between two looks where one frame is all that is wanted.
const GLANCE: Duration = Duration::from_millis(500);

pub(crate) async fn run(session: &Session<'_>, options: &Top) -> Result<(), Failure> {
    let terminal = stdout().is_terminal() && stdin().is_terminal();
    if options.once || session.console.json || !terminal {
        let first = Look::take(session).await?;
        tokio::time::sleep(GLANCE).await;
        let now = Look::take(session).await?;
        let speeds = now.speeds(&first);
        return session.console.show(&now.document(&speeds), || now.draw(session, &speeds, LINES));
    }
    watch(session, Duration::from_secs(options.every.into())).await
}

async fn watch(session: &Session<'_>, every: Duration) -> Result<(), Failure> {
    let mut before = Look::take(session).await?;
    let screen = Screen::enter()?;
    let mut keys = keys();
    let mut due = Instant::now();
    loop {
        tokio::select! {
            key = keys.recv() => match key {
                // Ctrl-C comes as a key here.
                Some(b'q' | b'Q' | 3) | None => return Ok(()),
                Some(_) => {}
            },
            () = tokio::time::sleep_until(due.into()) => {
                // While no worker answers, the last frame stands, with a word about it.
                match Look::take(session).await {
                    Ok(now) => {
                        let rows = terminal::size().map_or(24, |(_, rows)| usize::from(rows));
                        let speeds = now.speeds(&before);
                        screen.show(&now.draw(session, &speeds, rows.saturating_sub(8) / 2), rows)?;
                        before = now;
                    }
                    Err(failure) => screen.show(failure.what(), 24)?,
                }
                due = Instant::now() + every;
            }
        }
    }
}

/// The keys that are pressed, from a thread that waits for them.
fn keys() -> mpsc::Receiver<u8> {
    let (sender, keys) = mpsc::channel(16);
    std::thread::spawn(move || {
        let mut key = [0];
        while let Ok(1) = stdin().lock().read(&mut key) {
            if sender.blocking_send(key[0]).is_err() {
                return;
            }
        }
    });
    keys
}

/// The terminal while it shows frames; it is given back as it was.
struct Screen;

impl Screen {
    fn enter() -> Result<Self, Failure> {
        terminal::enable_raw_mode()?;
        let screen = Self;
        let mut out = stdout().lock();
        queue!(out, EnterAlternateScreen, cursor::Hide)?;
        out.flush()?;
        Ok(screen)
    }

    fn show(&self, frame: &str, rows: usize) -> Result<(), Failure> {
        let mut out = stdout().lock();
        queue!(out, cursor::MoveTo(0, 0))?;
        for line in frame.lines().chain(["", "q ends"]).take(rows) {
            queue!(out, Clear(ClearType::CurrentLine))?;
            write!(out, "{line}\r\n")?;
        }
        queue!(out, Clear(ClearType::FromCursorDown))?;
        Ok(out.flush()?)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let mut out = stdout().lock();
        // A terminal that is gone needs nothing back.
        let _ = queue!(out, cursor::Show, LeaveAlternateScreen);
        let _ = out.flush();
        let _ = terminal::disable_raw_mode();
    }
}

/// The cluster at a moment.
struct Look {
    at: Instant,
    nodes: Vec<NodeView>,
    trainings: Vec<TrainingView>,
    predictions: Vec<PredictionView>,
}

/// Units of work a second, by training or prediction.
type Speeds = BTreeMap<Digest, f64>;

impl Look {
    async fn take(session: &Session<'_>) -> Result<Self, Failure> {
        let client = &session.client;
        let nodes = client.nodes().await?;
        let mut trainings = client.trainings(NEWEST, None).await?.items;
        let mut predictions = client.predictions(NEWEST, None).await?.items;
        // What moves comes first; else the newest.
        trainings.sort_by_key(|training| place(training.state));
        predictions.sort_by_key(|prediction| place(prediction.state));
        Ok(Self { at: Instant::now(), nodes, trainings, predictions })
    }

    /// How many units of each were done.
    fn units(&self) -> BTreeMap<Digest, u64> {
        let trainings = self.trainings.iter().map(|training| (training.id, units(training)));
        let predictions = self.predictions.iter().map(|found| (found.id, u64::from(found.units_done)));
        trainings.chain(predictions).collect()
    }

    fn speeds(&self, before: &Self) -> Speeds {
        let (then, seconds) = (before.units(), self.at.duration_since(before.at).as_secs_f64().max(1e-3));
        let speed = |(id, now): (Digest, u64)| {
            let done = now.saturating_sub(*then.get(&id).unwrap_or(&now));
            (id, done as f64 / seconds)
        };
        self.units().into_iter().map(speed).collect()
    }

    fn of(&self, role: Role) -> impl Iterator<Item = &NodeView> {
        self.nodes.iter().filter(move |node| node.role == role && node.state != "left")
    }

    fn slots(&self) -> (u32, u32) {
        let workers = || self.of(Role::Worker).filter(|node| node.active);
        (workers().map(|node| node.busy).sum(), workers().map(|node| node.slots).sum())
    }

    fn document(&self, speeds: &Speeds) -> Value {
        let (busy, slots) = self.slots();
        let speed = |id| speeds.get(id).copied().unwrap_or(0.0);
        let trainings = self.trainings.iter().map(|training| {
            json!({
                "id": training.id, "name": training.name, "state": training.state, "progress": training.progress,
                "models": training.models.len(), "models_done": done(training), "units_done": units(training),
                "units_per_second": speed(&training.id),
            })
        });
        let predictions = self.predictions.iter().map(|found| {
            json!({
                "id": found.id, "name": found.name, "state": found.state, "progress": found.progress,
                "units_done": found.units_done, "units": found.units, "units_per_second": speed(&found.id),
            })
        });
        json!({
            "nodes": self.nodes, "slots": slots, "busy": busy, "units_per_second": speeds.values().sum::<f64>(),
            "trainings": trainings.collect::<Vec<_>>(), "predictions": predictions.collect::<Vec<_>>(),
        })
    }

    /// The frame: a line that sums up, the nodes, and what they are at, each with at most so many lines.
    fn draw(&self, session: &Session<'_>, speeds: &Speeds, lines: usize) -> String {
        let (busy, slots) = self.slots();
        let active = self.of(Role::Db).filter(|node| node.active).count();
        let workers = self.of(Role::Worker).filter(|node| node.active).count() as u64;
        let head = format!(
            "{active} of {} db nodes, {}, {busy} of {} busy, {:.1} units/s",
            self.of(Role::Db).count(),
            counted(workers, "worker"),
            counted(slots.into(), "slot"),
            speeds.values().sum::<f64>(),
        );
        let mut parts = vec![head, self.draw_nodes(session, lines)];
        if !self.trainings.is_empty() {
            parts.push(self.draw_trainings(session, speeds, lines));
        }
        if self.predictions.iter().any(|prediction| !prediction.state.is_final()) {
            parts.push(self.draw_predictions(session, speeds, lines));
        }
        parts.join("\n\n")
    }

    fn draw_nodes(&self, session: &Session<'_>, lines: usize) -> String {
        let mut table = session.console.table(&["node", "role", "address", "state", "data", "busy", "slots"]);
        let nowhere = if session.place.is_embedded() { "in this process" } else { "" };
        for node in self.nodes.iter().take(lines) {
            let (role, data, busy, slots) = match node.role {
                Role::Db => ("db", count(node.data), String::new(), String::new()),
                Role::Worker => ("worker", String::new(), node.busy.to_string(), node.slots.to_string()),
            };
            table.add_row(vec![
                Cell::new(&node.id),
                Cell::new(role),
                Cell::new(node.address.as_deref().unwrap_or(nowhere)),
                Cell::new(&node.state),
                right(data),
                right(busy),
                right(slots),
            ]);
        }
        more(table.trim_fmt(), self.nodes.len(), lines)
    }

    fn draw_trainings(&self, session: &Session<'_>, speeds: &Speeds, lines: usize) -> String {
        let mut table =
            session.console.table(&["training", "state", "progress", "", "models", "units", "units/s"]);
        for training in self.trainings.iter().take(lines) {
            let speed = speeds.get(&training.id).copied().unwrap_or(0.0);
            table.add_row(vec![
                Cell::new(handle(training.name.as_ref(), &training.id)),
                Cell::new(word(training.state)),
                Cell::new(bar(training.progress)),
                right(format!("{:.0} %", training.progress * 100.0)),
                right(format!("{} of {}", done(training), training.models.len())),
                right(count(units(training))),
                right(format!("{speed:.1}")),
            ]);
        }
        more(table.trim_fmt(), self.trainings.len(), lines)
    }

    fn draw_predictions(&self, session: &Session<'_>, speeds: &Speeds, lines: usize) -> String {
        let mut table = session.console.table(&["prediction", "state", "progress", "", "units", "units/s"]);
        let moving = || self.predictions.iter().filter(|prediction| !prediction.state.is_final());
        for found in moving().take(lines) {
            table.add_row(vec![
                Cell::new(handle(found.name.as_ref(), &found.id)),
                Cell::new(word(found.state)),
                Cell::new(bar(found.progress)),
                right(format!("{:.0} %", found.progress * 100.0)),
                right(format!("{} of {}", found.units_done, found.units)),
                right(format!("{:.1}", speeds.get(&found.id).copied().unwrap_or(0.0))),
            ]);
        }
        more(table.trim_fmt(), moving().count(), lines)
    }
}

fn more(table: String, all: usize, shown: usize) -> String {
    match all.saturating_sub(shown) {
        0 => table,
        rest => format!("{table}\nand {} more", count(rest as u64)),
    }
}

fn place(state: State) -> u8 {
    match state {
        State::Running => 0,
        State::Queued => 1,
        State::Succeeded | State::Failed | State::Cancelled => 2,
    }
}

fn word(state: State) -> &'static str {
    match state {
        State::Queued => "queued",
        State::Running => "running",
        State::Succeeded => "succeeded",
        State::Failed => "failed",
        State::Cancelled => "cancelled",
    }
}

/// How many models of a training are done.
fn done(training: &TrainingView) -> usize {
    training.models.iter().filter(|model| model.state == State::Succeeded).count()
}

/// How many units of its fits are done.
fn units(training: &TrainingView) -> u64 {
    let model = training.models.iter();
    model.map(|model| u64::from(model.round) * u64::from(model.units) + u64::from(model.units_done)).sum()
}

fn bar(part: f64) -> String {
    const WIDTH: usize = 20;
    let full = (part.clamp(0.0, 1.0) * WIDTH as f64).round() as usize;
    "━".repeat(full) + &"─".repeat(WIDTH - full)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_have_one_width() {
        let widths = [-1.0, 0.0, 0.5, 1.0, 2.0, f64::NAN].map(|part| bar(part).chars().count());
        assert_eq!(widths, [20; 6]);
        assert_eq!(bar(0.5), "━━━━━━━━━━──────────");
    }
}
