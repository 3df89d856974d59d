//! The models of a training in a table, best first.

use comfy_table::{Cell, CellAlignment};
use dml_compute::metrics::{Report, primary, shown};
use dml_core::{Task, training::State};
use dml_net::view::{EnsembleView, NewValidation, TrainedView, TrainingView};
pub(crate) use dml_net::{
    view::report,
    words::{interval, metric},
};
use serde_json::Value as Json;

use crate::console::{Console, counted, handle, number, right};

/// The metric that models are ranked by, in words.
pub(crate) fn headline(metrics: Option<&Json>) -> Option<String> {
    let report = report(metrics)?;
    let name = primary(report.task()?);
    Some(format!("{name} {}", metric(&report, name)))
}

/// The training as a person reads it.
pub(crate) fn render(console: &Console, training: &TrainingView) -> String {
    let (failed, rest): (Vec<_>, Vec<_>) =
        training.models.iter().partition(|model| model.state == State::Failed);
    let mut text = format!("{}\n", title(training));
    if !rest.is_empty() {
        text.push_str(&format!("\n{}\n", table(console, training.task, &rest).trim_fmt()));
    }
    if !failed.is_empty() {
        text.push_str("\nfailed:\n");
        for model in failed {
            text.push_str(&format!(
                "  {}: {}\n",
                model.name,
                model.error.as_deref().unwrap_or("for no reason given")
            ));
        }
    }
    text
}

/// How good the models of an ensemble are together.
pub(crate) fn together(ensemble: &EnsembleView) -> String {
    let name = primary(ensemble.task);
    let quality = ensemble.quality.as_ref().map_or("of unknown quality".into(), |report| {
        let bounds = interval(report, name).map(|bounds| format!(" ({bounds})")).unwrap_or_default();
        format!("{name} {}{bounds}", metric(report, name))
    });
    let errors = ensemble.errors.iter().map(|error| {
        format!("\n  without {}: {}", error.member.as_deref().unwrap_or("a measure"), error.why)
    });
    format!(
        "together, by {}: {} of {} models, {quality}{}",
        ensemble.method.name(),
        ensemble.members_used,
        ensemble.members_total,
        errors.collect::<String>()
    )
}

fn title(training: &TrainingView) -> String {
    let task = match training.task {
        Task::Classification => "classification",
        Task::Regression => "regression",
    };
    let judged = match training.validation {
        NewValidation::Folds(folds) => format!("judged by {folds} folds: mean ± deviation"),
        NewValidation::Holdout(part) => {
            let rows =
                training.models.iter().find_map(|model| report(model.metrics.as_ref())).map(|r| r.rows);
            match rows {
                Some(rows) => format!("judged on {} kept from training", counted(rows, "row")),
                None => format!("to be judged on {} % of the rows", number(part * 100.0)),
            }
        }
    };
    let state = match training.state {
        State::Succeeded => String::new(),
        State::Queued => ", waits".into(),
        State::Running => format!(", {:.0} % done", training.progress * 100.0),
        State::Failed => ", failed".into(),
        State::Cancelled => ", cancelled".into(),
    };
    let name = handle(training.name.as_ref(), &training.id);
    format!("{name}: {task} of {}, {judged}{state}", training.target)
}

fn table(console: &Console, task: Task, models: &[&TrainedView]) -> comfy_table::Table {
    let unfinished = models.iter().any(|model| model.state != State::Succeeded);
    let reports: Vec<Option<Report>> = models.iter().map(|model| report(model.metrics.as_ref())).collect();
    let bounds: Vec<Option<String>> =
        reports.iter().map(|report| interval(report.as_ref()?, primary(task))).collect();
    let bounded = bounds.iter().any(Option::is_some);
    let mut headings = vec!["#", "model"];
    headings.extend(shown(task).iter().map(|(_, heading)| *heading));
    if bounded {
        headings.insert(3, "95 % interval");
    }
    headings.extend(unfinished.then_some("state"));
    let mut table = console.table(&headings);
    for column in table.column_iter_mut().skip(2).take(shown(task).len() + usize::from(bounded)) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for (place, ((model, report), bounds)) in models.iter().zip(&reports).zip(bounds).enumerate() {
        let place = report.as_ref().map_or("".into(), |_| (place + 1).to_string());
        let mut cells = vec![right(place), Cell::new(&model.name)];
        cells.extend(
            shown(task).iter().map(|(name, _)| right(report.as_ref().map_or("".into(), |r| metric(r, name)))),
        );
        if bounded {
            cells.insert(3, right(bounds.unwrap_or_default()));
        }
        cells.extend(unfinished.then(|| Cell::new(state(model))));
        table.add_row(cells);
    }
    table
}

fn state(model: &TrainedView) -> String {
    match model.state {
        State::Queued => "waits".into(),
        State::Running => format!("{:.0} %", model.progress * 100.0),
        State::Succeeded => "done".into(),
        State::Failed => "failed".into(),
        State::Cancelled => "cancelled".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dml_core::Digest;
    use serde_json::json;

    fn trained(name: &str, state: State, metrics: Option<Json>) -> TrainedView {
        TrainedView {
            place: 0,
            id: Digest::of(name.as_bytes()),
            name: name.into(),
            kind: name.into(),
            params: Default::default(),
            state,
            progress: 0.25,
            round: 0,
            rounds: 1,
            units_done: 0,
            units: 1,
            metrics,
            digest: None,
            error: (state == State::Failed).then(|| "class 'x' has one row".into()),
        }
    }

    fn training(
        task: Task,
        state: State,
        validation: NewValidation,
        models: Vec<TrainedView>,
    ) -> TrainingView {
        TrainingView {
            id: Digest::of(b"training"),
            name: Some("t-y".into()),
            state,
            progress: 0.5,
            task,
            dataset: Digest::of(b"dataset"),
            target: "y".into(),
            features: vec!["x".into()],
            validation,
            seed: 0,
            priority: 0,
            created_ms: 0,
            best: None,
            ensemble: None,
            models,
        }
    }

    fn lines(training: &TrainingView) -> Vec<String> {
        render(&Console::new(false), training).lines().map(|line| line.trim_end().to_string()).collect()
    }

    #[test]
    fn the_best_stand_first_and_failures_below() {
        let metrics = json!({"rows": 40, "accuracy": 0.975, "balanced_accuracy": 0.97, "macro_f1": 0.9,
                             "log_loss": 0.12345, "roc_auc": 0.99999});
        let models = vec![
            trained("forest", State::Succeeded, Some(metrics)),
            trained("bayes", State::Succeeded, Some(json!({"rows": 40, "accuracy": 0.5}))),
            trained("tree", State::Failed, None),
        ];
        let holdout = NewValidation::Holdout(0.2);
        assert_eq!(
            lines(&training(Task::Classification, State::Succeeded, holdout, models)),
            [
                "t-y: classification of y, judged on 40 rows kept from training",
                "",
                " #  model   accuracy  balanced  macro F1  log loss  ROC AUC",
                "────────────────────────────────────────────────────────────",
                " 1  forest    0.9750    0.9700    0.9000    0.1235   1.0000",
                " 2  bayes     0.5000         -         -         -        -",
                "",
                "failed:",
                "  tree: class 'x' has one row",
            ]
        );
    }

    #[test]
    fn folds_show_their_deviation_and_interval_and_running_models_their_state() {
        let metrics = json!({"rows": 100, "rmse": 15012.34, "mae": 10.5, "r2": 0.625,
                             "std": {"rmse": 512.0, "mae": 0.25, "r2": 0.0321},
                             "interval": {"rmse": [14000.2, 16024.6], "r2": [0.5, 0.75]}});
        let models =
            vec![trained("ols", State::Succeeded, Some(metrics)), trained("ridge", State::Running, None)];
        let running = training(Task::Regression, State::Running, NewValidation::Folds(5), models);
        let lines = lines(&running);
        assert_eq!(lines[0], "t-y: regression of y, judged by 5 folds: mean ± deviation, 50 % done");
        assert_eq!(
            lines[2],
            " #  model             RMSE       95 % interval             MAE               R²  state"
        );
        assert_eq!(
            lines[4],
            " 1  ols    15012.3 ± 512.0  14000.2 to 16024.6  10.500 ± 0.250  0.6250 ± 0.0321  done"
        );
        assert_eq!(
            lines[5],
            "    ridge                                                                        25 %"
        );
    }

    #[test]
    fn the_headline_is_what_models_are_ranked_by() {
        assert_eq!(headline(Some(&json!({"rows": 1, "accuracy": 0.5}))).as_deref(), Some("accuracy 0.5000"));
        assert_eq!(
            headline(Some(&json!({"rows": 1, "rmse": 2.0, "r2": 0.1}))).as_deref(),
            Some("rmse 2.0000")
        );
        assert_eq!(headline(Some(&json!({"rows": 0}))), None);
        assert_eq!(headline(None), None);
    }
}
