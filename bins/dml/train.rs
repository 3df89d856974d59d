//! `dml train`: from a table to a leaderboard.

use dml_core::training::State;
use dml_net::view::{DatasetView, NewEnsemble, NewTraining, NewValidation, TrainingView};

use crate::{
    args::Train,
    connect::{Session, quote},
    console::{ago, handle},
    failure::Failure,
    leaderboard, source, training,
};

pub(crate) async fn run(session: &Session<'_>, options: Train) -> Result<(), Failure> {
    let dataset = source::dataset(session, &options.table).await?;
    let training = session.client.train(&asked_for(&options, &dataset)).await?;
    let name = handle(training.name.as_ref(), &training.id);
    let training = if training.state.is_final() {
        let created = ago(training.created_ms);
        session.console.say(&format!(
            "already trained, {created}: the same table, models and seed give the same result"
        ));
        training
    } else {
        let models = training.models.len();
        let models = if models == 1 { "1 model".into() } else { format!("{models} models") };
        session.console.say(&format!("training {name}: {models} to predict {}", training.target));
        training::watch(session, &training.id.to_string()).await?
    };
    let together = match training.ensemble {
        Some(_) if training.state == State::Succeeded => {
            Some(session.client.evaluate_ensemble(&training.id.to_string()).await?)
        }
        Some(_) | None => None,
    };
    session.console.show(&training, || {
        let together = together.map(|ensemble| format!("\n{}\n", leaderboard::together(&ensemble)));
        format!("\n{}{}", leaderboard::render(session.console, &training), together.unwrap_or_default())
    })?;
    if training.state == State::Succeeded {
        let again = if options.table == "-" { "NEW.csv" } else { &options.table };
        session.console.say(&what_next(session, &training, again));
    }
    training::outcome(&training)
}

fn asked_for(options: &Train, dataset: &DatasetView) -> NewTraining {
    let folds = options.folds.map(NewValidation::Folds);
    NewTraining {
        task: options.task.map(Into::into),
        dataset: dataset.id.to_string(),
        target: options.target.clone(),
        models: options.models.clone(),
        features: (!options.features.is_empty()).then(|| options.features.clone()),
        validation: folds.or(options.holdout.map(NewValidation::Holdout)),
        seed: options.seed,
        priority: options.priority,
        name: options.name.clone(),
        ensemble: options.ensemble.map(|word| NewEnsemble { method: word.into(), min_members: None }),
    }
}

/// What can be done with the best model, as commands that can be copied.
fn what_next(session: &Session<'_>, training: &TrainingView, table: &str) -> String {
    let dml = session.place.dml();
    let (name, table) = (quote(&handle(training.name.as_ref(), &training.id)), quote(table));
    let best = training.models.iter().find(|model| Some(model.id) == training.best);
    let best_name = best.map_or("it", |model| model.name.as_str());
    let steps = [
        (
            format!("predict with the best of them, {best_name}"),
            format!("predict {name} {table} -o predictions.csv"),
        ),
        ("see how good it is, and which columns matter".into(), format!("model show {name}")),
        ("take it away in a file".into(), format!("model download {name}")),
    ];
    let lines = steps.map(|(what, command)| format!("  {what}:\n    {dml} {command}"));
    format!("\nWhat next:\n{}", lines.join("\n"))
}
