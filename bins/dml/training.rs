//! `dml training`, and what `dml train` shares with it.

use comfy_table::Cell;
use dml_core::{record::Kind, training::State};
use dml_net::view::TrainingView;

use crate::{
    args::TrainingCommand,
    connect::{Session, quote},
    console::{ago, handle, right},
    failure::Failure,
    leaderboard, listing,
    progress::Watch,
};

pub(crate) async fn run(session: &Session<'_>, command: TrainingCommand) -> Result<(), Failure> {
    let console = session.console;
    match command {
        TrainingCommand::Ls(page) => {
            let page = session.client.trainings(page.limit.into(), page.cursor.as_deref()).await?;
            let headings = ["name", "id", "state", "models", "best", "created"];
            let hint =
                format!("no trainings yet: `{} train FILE --target COLUMN` makes one", session.place.dml());
            listing::show(console, &page, &headings, &hint, |training| {
                let best = training.models.iter().find(|model| Some(model.id) == training.best);
                let metrics = best.and_then(|model| leaderboard::headline(model.metrics.as_ref()));
                let best = best
                    .map_or("".into(), |model| format!("{}, {}", model.name, metrics.unwrap_or_default()));
                vec![
                    Cell::new(training.name.as_deref().unwrap_or("")),
                    Cell::new(training.id.short()),
                    Cell::new(state(training)),
                    right(training.models.len()),
                    Cell::new(best),
                    Cell::new(ago(training.created_ms)),
                ]
            })
        }
        TrainingCommand::Show { training } => {
            let training = session.client.training(&training).await?;
            console.show(&training, || leaderboard::render(console, &training))
        }
        TrainingCommand::Watch { training } => {
            let training = watch(session, &training).await?;
            console.show(&training, || leaderboard::render(console, &training))?;
            outcome(&training)
        }
        TrainingCommand::Cancel { training } => {
            let training = session.client.cancel(&training).await?;
            console.show(&training, || {
                format!("cancelled {}: what is finished stays", handle(training.name.as_ref(), &training.id))
            })
        }
        TrainingCommand::Rm { training } => listing::remove(session, Kind::Training, &training).await,
    }
}

fn state(training: &TrainingView) -> String {
    match training.state {
        State::Queued => "waits".into(),
        State::Running => format!("running, {:.0} %", training.progress * 100.0),
        State::Succeeded => "done".into(),
        State::Failed => "failed".into(),
        State::Cancelled => "cancelled".into(),
    }
}

/// Shows a training's progress until it ends, or until ctrl-c.
pub(crate) async fn watch(session: &Session<'_>, name: &str) -> Result<TrainingView, Failure> {
    let mut progress = Watch::new(session.console);
    let ended = tokio::select! {
        ended = session.client.watch(name, |training| progress.show(training)) => Some(ended),
        () = program::listen::interrupted() => None,
    };
    progress.clear();
    match ended {
        Some(ended) => Ok(ended?),
        None => {
            let again = format!("{} training watch {}", session.place.dml(), quote(name));
            Err(Failure::interrupted(match session.place.is_embedded() {
                true => format!("stopped. What is computed is kept; it goes on from there with\n  {again}"),
                false => format!("the training goes on in the cluster. Watch it again with\n  {again}"),
            }))
        }
    }
}

/// Whether a training that has ended gave what it was for.
pub(crate) fn outcome(training: &TrainingView) -> Result<(), Failure> {
    match training.state {
        State::Succeeded | State::Running | State::Queued => Ok(()),
        State::Failed => Err(Failure::failed("no model could be trained")),
        State::Cancelled => {
            Err(Failure::failed("the training was cancelled").hint("train the same again to go on"))
        }
    }
}
