//! `dml tune` and `dml study`: searches for the best parameters.

use std::time::Duration;

use comfy_table::Cell;
use dml_compute::{plot, search::Trial};
use dml_core::{record::Kind, training::State};
use dml_net::view::{DatasetView, NewSpace, NewStudy, NewValidation, StudyView};

use crate::{
    args::{StudyCommand, Tune},
    connect::{Session, quote},
    console::{Console, ago, counted, handle, number, right},
    failure::Failure,
    leaderboard, listing,
    model::save,
    progress, source,
    space_spec::ParamSpec,
    training,
};

/// How many trials are shown.
const SHOWN: usize = 10;

pub(crate) async fn tune(session: &Session<'_>, options: Tune) -> Result<(), Failure> {
    let dataset = source::dataset(session, &options.table).await?;
    let study = session.client.tune(&asked_for(&options, &dataset)?).await?;
    let name = handle(study.name.as_ref(), &study.id);
    let study = if study.state.is_final() {
        let created = ago(study.created_ms);
        session.console.say(&format!(
            "already searched, {created}: the same table, space and seed give the same trials"
        ));
        study
    } else {
        let (trials, kinds) = (counted(study.trials.into(), "trial"), study.kinds.join(" and "));
        session.console.say(&format!("tuning {name}: {trials} of {kinds} to predict {}", study.target));
        watch(session, &study.id.to_string()).await?
    };
    let console = session.console;
    let kept = match study.training.filter(|_| study.state == State::Succeeded) {
        Some(training) => Some(training::watch(session, &training.to_string()).await?),
        None => None,
    };
    console.show(&study, || {
        let best =
            kept.as_ref().map_or(String::new(), |kept| format!("\n{}", leaderboard::render(console, kept)));
        format!("\n{}{best}", render(console, &study))
    })?;
    if let Some(kept) = &kept {
        let again = if options.table == "-" { "NEW.csv" } else { &options.table };
        let (dml, name) = (session.place.dml(), quote(&handle(kept.name.as_ref(), &kept.id)));
        console.say(&format!(
            "\nWhat next:\n  predict with the best:\n    {dml} predict {name} {} -o predictions.csv\n  see all trials:\n    \
             {dml} study trials {name}",
            quote(again)
        ));
    }
    outcome(&study)
}

fn asked_for(options: &Tune, dataset: &DatasetView) -> Result<NewStudy, Failure> {
    let folds = options.folds.map(NewValidation::Folds);
    Ok(NewStudy {
        task: options.task.map(Into::into),
        dataset: dataset.id.to_string(),
        target: options.target.clone(),
        models: spaces(&options.kinds, &options.params)?,
        features: (!options.features.is_empty()).then(|| options.features.clone()),
        strategy: Some(options.strategy.into()),
        trials: options.trials,
        metric: options.metric.clone(),
        validation: folds.or(options.holdout.map(NewValidation::Holdout)),
        batch: options.batch,
        reduction: options.reduction,
        // All of them are as many as a training takes.
        keep: Some(options.keep.min(MOST_KEPT)),
        seed: options.seed,
        priority: options.priority,
        name: options.name.clone(),
    })
}

/// The most models that a training has.
const MOST_KEPT: u32 = 1000;

/// The kinds with what is tried of each.
fn spaces(kinds: &[String], params: &[ParamSpec]) -> Result<Vec<NewSpace>, Failure> {
    let boosting = ["gradient_boosting".to_string()];
    let kinds = if kinds.is_empty() { &boosting[..] } else { kinds };
    if let Some(param) =
        params.iter().find(|param| param.kind.as_ref().is_some_and(|kind| !kinds.contains(kind)))
    {
        let kind = param.kind.as_deref().unwrap_or_default();
        return Err(Failure::usage(format!(
            "{}.{} is of a kind that is not tried: add --kind {kind}",
            kind, param.name
        )));
    }
    let space = |kind: &String| {
        let mut space = NewSpace { kind: kind.clone(), ..NewSpace::default() };
        for param in params.iter().filter(|param| param.kind.as_ref().is_none_or(|of| of == kind)) {
            if !space.name(&param.name, param.tried.clone()) {
                return Err(Failure::usage(format!("--param {} is given twice", param.name)));
            }
        }
        Ok(space)
    };
    kinds.iter().map(space).collect()
}

pub(crate) async fn run(session: &Session<'_>, command: StudyCommand) -> Result<(), Failure> {
    let console = session.console;
    match command {
        StudyCommand::Ls(page) => {
            let page = session.client.studies(page.limit.into(), page.cursor.as_deref()).await?;
            let headings = ["name", "id", "state", "trials", "best", "created"];
            let hint =
                format!("no studies yet: `{} tune FILE --target COLUMN` makes one", session.place.dml());
            listing::show(console, &page, &headings, &hint, |study| {
                let best = study.leaders.first().and_then(|trial| trial.score);
                vec![
                    Cell::new(study.name.as_deref().unwrap_or("")),
                    Cell::new(study.id.short()),
                    Cell::new(state(study)),
                    right(format!("{} of {}", study.done, study.trials)),
                    Cell::new(best.map_or("".into(), |best| format!("{} {}", study.metric, shown(best)))),
                    Cell::new(ago(study.created_ms)),
                ]
            })
        }
        StudyCommand::Show { study, plot } => {
            let study = session.client.study(&study, Duration::ZERO).await?;
            match plot {
                Some(path) if path.as_os_str() == "-" => {
                    return console.bytes(picture(session, &study).await?.as_bytes());
                }
                Some(path) => {
                    save(&path, picture(session, &study).await?.as_bytes())?;
                    console.say(&format!("drawn: {}", path.display()));
                }
                None => {}
            }
            console.show(&study, || render(console, &study))
        }
        StudyCommand::Trials { study, output } => {
            if console.json {
                let trials = session.client.trials(&study).await?;
                return console.show(&trials, String::new);
            }
            let csv = session.client.trials_csv(&study).await?;
            match output {
                None => console.bytes(&csv),
                Some(file) => {
                    save(&file, &csv)?;
                    console.say(&format!("wrote {}", file.display()));
                    Ok(())
                }
            }
        }
        StudyCommand::Watch { study } => {
            let study = watch(session, &study).await?;
            console.show(&study, || render(console, &study))?;
            outcome(&study)
        }
        StudyCommand::Cancel { study } => {
            let study = session.client.cancel_study(&study).await?;
            console.show(&study, || {
                format!("cancelled {}: what is finished stays", handle(study.name.as_ref(), &study.id))
            })
        }
        StudyCommand::Rm { study } => listing::remove(session, Kind::Study, &study).await,
    }
}

/// All trials, as SVG.
async fn picture(session: &Session<'_>, study: &StudyView) -> Result<String, Failure> {
    let trials = session.client.trials(&study.id.to_string()).await?;
    let name = handle(study.name.as_ref(), &study.id);
    let drawn = plot::draw_study(&name, &trials.metric, &trials.items, &study.importance);
    drawn.ok_or_else(|| Failure::failed(format!("{name} has no two trials yet that can be drawn")))
}

/// Shows a study's progress until it ends, or until ctrl-c.
async fn watch(session: &Session<'_>, name: &str) -> Result<StudyView, Failure> {
    let bar = progress::study(session.console);
    let mut told = 0;
    let show = |study: &StudyView| {
        bar.set_length(study.trials.into());
        bar.set_position(study.done.into());
        let best = study.leaders.first().and_then(|trial| trial.score);
        let best = best.map_or("".into(), |best| format!("best {} {}", study.metric, shown(best)));
        bar.set_message(best.clone());
        // Without a terminal a line for each tenth.
        let tenth = u64::from(study.done) * 10 / u64::from(study.trials.max(1));
        if !session.console.lively && tenth > told {
            told = tenth;
            session.console.say(&format!("{} of {} trials, {best}", study.done, study.trials));
        }
    };
    let ended = tokio::select! {
        ended = session.client.watch_study(name, show) => Some(ended.map_err(Failure::from)),
        () = program::listen::interrupted() => None,
    };
    bar.finish_and_clear();
    ended.unwrap_or_else(|| {
        let again = format!("{} study watch {}", session.place.dml(), quote(name));
        Err(Failure::interrupted(match session.place.is_embedded() {
            true => format!("stopped. What is computed is kept; it goes on from there with\n  {again}"),
            false => format!("the study goes on in the cluster. Watch it again with\n  {again}"),
        }))
    })
}

fn outcome(study: &StudyView) -> Result<(), Failure> {
    match study.state {
        State::Succeeded if study.leaders.iter().all(|trial| trial.score.is_none()) => {
            let why =
                study.leaders.first().and_then(|trial| trial.error.as_deref()).unwrap_or("no reason given");
            Err(Failure::failed(format!("every trial failed: {why}")))
        }
        State::Succeeded | State::Running | State::Queued => Ok(()),
        State::Failed => Err(Failure::failed(format!(
            "the study failed: {}",
            study.error.as_deref().unwrap_or("no reason given")
        ))),
        State::Cancelled => {
            Err(Failure::failed("the study was cancelled").hint("tune the same again to go on"))
        }
    }
}

fn state(study: &StudyView) -> String {
    match study.state {
        State::Queued => "waits".into(),
        State::Running => format!("running, {:.0} %", study.progress * 100.0),
        State::Succeeded => "done".into(),
        State::Failed => "failed".into(),
        State::Cancelled => "cancelled".into(),
    }
}

/// The study as a person reads it.
fn render(console: &Console, study: &StudyView) -> String {
    let name = handle(study.name.as_ref(), &study.id);
    let mut text = format!(
        "{name}: {} of {} by {}, {}\n",
        counted(study.done.into(), "trial"),
        study.trials,
        study.strategy.name(),
        state(study)
    );
    let leaders: Vec<&Trial> =
        study.leaders.iter().filter(|trial| trial.score.is_some()).take(SHOWN).collect();
    if !leaders.is_empty() {
        let several = study.kinds.len() > 1;
        let mut headings = vec!["#", "trial", &study.metric];
        headings.extend(several.then_some("kind"));
        headings.push("parameters");
        let mut table = console.table(&headings);
        for (place, trial) in leaders.iter().enumerate() {
            let mut cells = vec![right(place + 1), right(trial.number)];
            cells.push(right(trial.score.map_or("".into(), shown)));
            cells.extend(several.then(|| Cell::new(&trial.kind)));
            let params = trial.params.0.iter().map(|(name, value)| format!("{name}={}", short(value)));
            cells.push(Cell::new(params.collect::<Vec<_>>().join(" ")));
            table.add_row(cells);
        }
        text.push_str(&format!("\n{}\n", table.trim_fmt()));
    }
    let mut shares: Vec<_> = study.importance.iter().filter(|(_, share)| **share >= 0.01).collect();
    shares.sort_by(|a, b| b.1.total_cmp(a.1));
    if !shares.is_empty() {
        let shares = shares.into_iter().map(|(name, share)| format!("{name} {:.0} %", share * 100.0));
        text.push_str(&format!("\nwhat matters: {}\n", shares.collect::<Vec<_>>().join(", ")));
    }
    if study.failed > 0 {
        let failed = study.leaders.iter().find_map(|trial| trial.error.as_deref());
        let why = failed.map_or(String::new(), |why| format!(": {why}"));
        text.push_str(&format!("\n{} failed{why}\n", counted(study.failed.into(), "trial")));
    }
    text
}

fn shown(score: f64) -> String {
    number((score * 1e5).round() / 1e5)
}

/// A value with as many digits as tell it apart.
fn short(value: &dml_core::Value) -> String {
    match value {
        dml_core::Value::Float(value) => {
            format!("{:.4}", value).trim_end_matches('0').trim_end_matches('.').to_string()
        }
        dml_core::Value::Bool(_) | dml_core::Value::Int(_) | dml_core::Value::Text(_) => value.to_string(),
    }
}
