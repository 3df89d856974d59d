//! `dml snapshot` and `dml restore`: all tables, trainings, studies and models in a directory of plain files, and back into this
//! or another cluster, of any size. Restoring is asking again for what was asked for: what is there already is found by
//! its content, and what is computed again has the same bytes, which is checked.
//!
//! ```text
//! datasets/ID.arrows    a table, as an Arrow stream
//! datasets/ID.json      what it is called
//! trainings/ID.json     what was asked for, and how it went
//! studies/ID.json       the same of a search
//! models/DIGEST.dml     a model, in DML's own format
//! ```
//!
//! Tables and models are named by their content, so a second snapshot into the same directory fetches what is new.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use dml_core::{Digest, training::State};
use dml_net::{
    ClientError,
    client::Body,
    view::{DatasetView, NewModel, NewTraining, Page, StudyView, TrainedView, TrainingView},
};
use http_body_util::BodyExt;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use crate::{
    connect::Session,
    console::{counted, handle},
    failure::Failure,
    source,
};

const DATASETS: &str = "datasets";
const TRAININGS: &str = "trainings";
const STUDIES: &str = "studies";
const MODELS: &str = "models";

/// How many things are listed at a time.
const PAGE: usize = 100;

/// Takes everything that is there.
pub(crate) async fn take(session: &Session<'_>, directory: &Path) -> Result<(), Failure> {
    for part in [DATASETS, TRAININGS, STUDIES, MODELS] {
        fs::create_dir_all(directory.join(part)).map_err(|error| Failure::file(directory, &error))?;
    }
    let client = &session.client;
    // Tables last: one that comes meanwhile does no harm, one that is missing would.
    let studies = all(async |cursor| client.studies(PAGE, cursor.as_deref()).await).await?;
    let trainings = all(async |cursor| client.trainings(PAGE, cursor.as_deref()).await).await?;
    let datasets = all(async |cursor| client.datasets(PAGE, cursor.as_deref()).await).await?;
    for dataset in &datasets {
        let id = dataset.id.to_string();
        let table = directory.join(DATASETS).join(format!("{id}.arrows"));
        if !table.exists() {
            fetch(client.content(&id).await?, &table).await?;
        }
        write(directory, DATASETS, &dataset.id, dataset)?;
    }
    let mut models = BTreeSet::new();
    for training in &trainings {
        for model in training.models.iter().filter(|model| model.state == State::Succeeded) {
            let Some(digest) = model.digest.filter(|digest| models.insert(*digest)) else { continue };
            let file = directory.join(MODELS).join(format!("{digest}.dml"));
            if !file.exists() {
                fetch(client.download(&model.id.to_string(), "native").await?.into(), &file).await?;
            }
        }
        write(directory, TRAININGS, &training.id, training)?;
    }
    for study in &studies {
        write(directory, STUDIES, &study.id, study)?;
    }
    let counts = [datasets.len(), trainings.len(), studies.len(), models.len()].map(|count| count as u64);
    let [datasets, trainings, studies, models] = counts;
    let document = json!({
        "directory": directory, "datasets": datasets, "trainings": trainings, "studies": studies, "models": models,
    });
    session.console.show(&document, || {
        let what = told(datasets, trainings, studies);
        format!("{}: {what}, {}", directory.display(), counted(models, "model"))
    })
}

fn told(datasets: u64, trainings: u64, studies: u64) -> String {
    let mut counts = vec![counted(datasets, "dataset"), counted(trainings, "training")];
    counts.extend((studies > 0).then(|| counted(studies, "study")));
    counts.join(", ")
}

/// Brings back what a snapshot holds, the oldest first, so that names mean what they meant.
pub(crate) async fn restore(session: &Session<'_>, directory: &Path) -> Result<(), Failure> {
    let mut datasets: Vec<DatasetView> = read(&directory.join(DATASETS))?;
    let mut trainings: Vec<TrainingView> = read(&directory.join(TRAININGS))?;
    datasets.sort_by_key(|dataset| (dataset.created_ms, dataset.id));
    trainings.sort_by_key(|training| (training.created_ms, training.id));
    let mut studies: Vec<StudyView> = match directory.join(STUDIES).exists() {
        true => read(&directory.join(STUDIES))?,
        // It is of a version that had none.
        false => Vec::new(),
    };
    studies.sort_by_key(|study| (study.created_ms, study.id));
    // Chunks of long texts may be cut elsewhere than they were: then the same table has another id.
    let mut ids = BTreeMap::new();
    for dataset in &datasets {
        let table = directory.join(DATASETS).join(format!("{}.arrows", dataset.id));
        let name = handle(dataset.name.as_ref(), &dataset.id);
        let uploaded = source::upload(session, &table.to_string_lossy(), Some(&name)).await?;
        ids.insert(dataset.id, uploaded.id);
    }
    let (wanted, left): (Vec<_>, Vec<_>) = trainings
        .iter()
        .filter(|training| training.state != State::Cancelled)
        .partition(|training| ids.contains_key(&training.dataset));
    for training in left {
        left_out(session, "training", training.name.as_ref(), &training.id);
    }
    let mut asked = Vec::new();
    for training in &wanted {
        // All are asked for before any is waited for: workers share them out.
        asked.push(session.client.train(&asked_for(training, &ids)).await?.id);
    }
    let searched = studies.iter().filter(|study| study.state != State::Cancelled);
    let mut sought = Vec::new();
    for study in searched {
        match ids.get(&study.dataset) {
            Some(dataset) => sought.push(session.client.tune(&study.asked(dataset.to_string())).await?.id),
            None => left_out(session, "study", study.name.as_ref(), &study.id),
        }
    }
    let (mut same, mut other) = (0, Vec::new());
    for (before, id) in wanted.iter().zip(asked) {
        let after = session.client.watch(&id.to_string(), |_| {}).await?;
        let digests: BTreeMap<&str, Option<Digest>> =
            after.models.iter().map(|model| (model.name.as_str(), model.digest)).collect();
        for model in before.models.iter().filter(|model| model.state == State::Succeeded) {
            if digests.get(model.name.as_str()) == Some(&model.digest) {
                same += 1;
            } else {
                other.push(format!("{}/{}", handle(after.name.as_ref(), &after.id), model.name));
            }
        }
    }
    for id in &sought {
        session.client.watch_study(&id.to_string(), |_| {}).await?;
    }
    let [datasets, trainings, studies] =
        [datasets.len(), wanted.len(), sought.len()].map(|count| count as u64);
    let document = json!({
        "datasets": datasets, "trainings": trainings, "studies": studies, "models_as_they_were": same,
        "other_models": other,
    });
    session.console.show(&document, || {
        let what = told(datasets, trainings, studies);
        let mut text = format!("restored {what}; {} as they were", counted(same, "model"));
        if !other.is_empty() {
            text.push_str("\nother bytes than in the snapshot, for another version made it: ");
            text.push_str(&other.join(", "));
        }
        text
    })
}

fn left_out(session: &Session<'_>, kind: &str, name: Option<&String>, id: &Digest) {
    let name = handle(name, id);
    session.console.say(&format!("{kind} {name} is left out: its dataset was deleted before the snapshot"));
}

/// What was asked for when a training was created.
fn asked_for(training: &TrainingView, ids: &BTreeMap<Digest, Digest>) -> NewTraining {
    let dataset = ids[&training.dataset].to_string();
    let mut models: Vec<_> = training.models.iter().collect();
    models.sort_by_key(|model| model.place);
    let model = |m: &TrainedView| NewModel { kind: m.kind.clone(), params: m.params.clone() };
    NewTraining {
        task: Some(training.task),
        models: models.into_iter().map(model).collect(),
        features: Some(training.features.clone()),
        validation: Some(training.validation),
        seed: Some(training.seed),
        priority: Some(training.priority),
        name: training.name.clone(),
        ensemble: training.ensemble,
        ..NewTraining::new(dataset, training.target.as_str())
    }
}

/// All pages of a list.
async fn all<T>(
    mut page: impl AsyncFnMut(Option<String>) -> Result<Page<T>, ClientError>,
) -> Result<Vec<T>, Failure> {
    let (mut items, mut cursor) = (Vec::new(), None);
    loop {
        let Page { items: more, next_cursor } = page(cursor).await?;
        items.extend(more);
        match next_cursor {
            Some(next) => cursor = Some(next),
            None => return Ok(items),
        }
    }
}

/// Writes what comes to a file, which is there only when it is whole.
async fn fetch(mut body: Body, path: &Path) -> Result<(), Failure> {
    let part = path.with_extension("part");
    let failed = |error: io::Error| Failure::file(&part, &error);
    let mut file = File::create(&part).map_err(failed)?;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
        if let Ok(piece) = frame.into_data() {
            file.write_all(&piece).map_err(failed)?;
        }
    }
    file.sync_all().and_then(|()| fs::rename(&part, path)).map_err(failed)
}

/// Writes a description; in place of the one of an earlier snapshot.
fn write(directory: &Path, part: &str, id: &Digest, view: &impl Serialize) -> Result<(), Failure> {
    let path = directory.join(part).join(format!("{id}.json"));
    let next = path.with_extension("part");
    let text = serde_json::to_vec_pretty(view).expect("views have string keys");
    fs::write(&next, text)
        .and_then(|()| fs::rename(&next, &path))
        .map_err(|error| Failure::file(&path, &error))
}

/// The descriptions in a directory.
fn read<T: DeserializeOwned>(directory: &Path) -> Result<Vec<T>, Failure> {
    let found = fs::read_dir(directory).map_err(|error| {
        Failure::file(directory, &error).hint("name the directory of a snapshot that `dml snapshot` has made")
    })?;
    let mut views = Vec::new();
    for entry in found {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let text = fs::read(&path).map_err(|error| Failure::file(&path, &error))?;
            let view = serde_json::from_slice(&text).map_err(|error| {
                Failure::failed(format!("{}: {error}", path.display()))
                    .hint("take the snapshot again, or remove this file to go on without it")
            })?;
            views.push(view);
        }
    }
    Ok(views)
}
