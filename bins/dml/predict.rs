//! `dml predict` and `dml prediction`: rows in, rows with predictions out.

use std::{
    fs::File,
    io::{BufWriter, Write, stdout},
    path::Path,
};

use comfy_table::Cell;
use dml_core::training::State;
use dml_net::view::{NewPrediction, PredictionView};
use http_body_util::BodyExt;

use crate::{
    args::{Page, Predict},
    connect::Session,
    console::{ago, counted, handle},
    csv::JsonRows,
    failure::Failure,
    listing, progress, source,
};

pub(crate) async fn run(session: &Session<'_>, options: Predict) -> Result<(), Failure> {
    // What can be refused is refused before a large table is uploaded.
    let model = session.client.model(&options.model).await?;
    let file = options.output.as_deref().map(create).transpose()?;
    let dataset = source::dataset(session, &options.table).await?;
    let new =
        NewPrediction { model: model.id.to_string(), dataset: dataset.id.to_string(), name: options.name };
    let prediction = finished(session, session.client.predict(&new).await?).await?;
    match (file, session.console.json) {
        (Some(file), json) => {
            copy(session, &prediction, Csv(file)).await?;
            if json {
                session.console.show(&prediction, String::new)?;
            }
        }
        (None, false) => copy(session, &prediction, Csv(BufWriter::new(stdout()))).await?,
        (None, true) => {
            // The prediction as an object that goes on with its rows.
            let mut out = BufWriter::new(stdout());
            let object =
                serde_json::to_string(&prediction).map_err(|error| Failure::failed(error.to_string()))?;
            let open = object.strip_suffix('}').expect("a prediction is an object");
            write!(out, "{open},\"results\":")?;
            copy(session, &prediction, Json { rows: JsonRows::new(out)?, end: "}\n" }).await?;
        }
    }
    let to = options.output.map_or(String::new(), |path| format!(", see {}", path.display()));
    let rows = counted(dataset.rows, "row");
    session.console.say(&format!("predicted {} for {rows} with {}{to}", model.target, model.name));
    Ok(())
}

/// `dml prediction ls`.
pub(crate) async fn list(session: &Session<'_>, page: Page) -> Result<(), Failure> {
    let page = session.client.predictions(page.limit.into(), page.cursor.as_deref()).await?;
    let headings = ["name", "id", "state", "dataset", "created"];
    let hint = format!("no predictions yet: `{} predict MODEL FILE` makes one", session.place.dml());
    listing::show(session.console, &page, &headings, &hint, |prediction| {
        vec![
            Cell::new(prediction.name.as_deref().unwrap_or("")),
            Cell::new(prediction.id.short()),
            Cell::new(state(prediction)),
            Cell::new(prediction.dataset.short()),
            Cell::new(ago(prediction.created_ms)),
        ]
    })
}

/// `dml prediction show`.
pub(crate) async fn show(session: &Session<'_>, id: &str) -> Result<(), Failure> {
    let prediction = session.client.prediction(id, 0).await?;
    session.console.show(&prediction, || {
        let name = handle(prediction.name.as_ref(), &prediction.id);
        let lines = [
            format!("{name}: {}", state(&prediction)),
            format!("  id       {}", prediction.id),
            format!("  model    {}", prediction.model),
            format!("  dataset  {}", prediction.dataset),
            format!("  created  {}", ago(prediction.created_ms)),
        ];
        let error = prediction.error.as_ref().map(|error| format!("  failed   {error}"));
        lines.into_iter().chain(error).collect::<Vec<_>>().join("\n")
    })
}

/// `dml prediction results`.
pub(crate) async fn results(session: &Session<'_>, id: &str, output: Option<&Path>) -> Result<(), Failure> {
    let prediction = session.client.prediction(id, 0).await?;
    match (output.map(create).transpose()?, session.console.json) {
        (Some(file), false) => copy(session, &prediction, Csv(file)).await?,
        (None, false) => copy(session, &prediction, Csv(BufWriter::new(stdout()))).await?,
        (Some(file), true) => {
            copy(session, &prediction, Csv(file)).await?;
            session.console.show(&prediction, String::new)?;
        }
        (None, true) => {
            let rows = JsonRows::new(BufWriter::new(stdout()))?;
            copy(session, &prediction, Json { rows, end: "\n" }).await?;
        }
    }
    if !prediction.state.is_final() {
        session.console.say(&format!("these are the rows so far: the prediction is {}", state(&prediction)));
    }
    Ok(())
}

fn state(prediction: &PredictionView) -> String {
    match prediction.state {
        State::Queued => "waiting".into(),
        State::Running => format!("running, {:.0} %", prediction.progress * 100.0),
        State::Succeeded => "done".into(),
        State::Failed => "failed".into(),
        State::Cancelled => "cancelled".into(),
    }
}

/// Waits until a prediction is finished.
async fn finished(session: &Session<'_>, prediction: PredictionView) -> Result<PredictionView, Failure> {
    let bar = progress::prediction(session.console, prediction.units);
    let id = prediction.id.to_string();
    let told = session.client.watch_prediction(&id, |now| bar.set_position(now.units_done.into()));
    let prediction = told.await?;
    bar.finish_and_clear();
    match prediction.state {
        State::Succeeded | State::Queued | State::Running => Ok(prediction),
        State::Cancelled => Err(Failure::failed("the prediction was cancelled")),
        State::Failed => {
            Err(Failure::failed(prediction.error.unwrap_or_else(|| "the prediction failed".into())))
        }
    }
}

/// Where rows go, in some form.
trait Rows {
    fn piece(&mut self, csv: &[u8]) -> std::io::Result<()>;
    fn end(self) -> std::io::Result<()>;
}

struct Csv<W>(W);

impl<W: Write> Rows for Csv<W> {
    fn piece(&mut self, csv: &[u8]) -> std::io::Result<()> {
        self.0.write_all(csv)
    }

    fn end(mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

struct Json<W> {
    rows: JsonRows<W>,
    end: &'static str,
}

impl<W: Write> Rows for Json<W> {
    fn piece(&mut self, csv: &[u8]) -> std::io::Result<()> {
        self.rows.feed(csv)
    }

    fn end(self) -> std::io::Result<()> {
        let mut out = self.rows.finish()?;
        out.write_all(self.end.as_bytes())?;
        out.flush()
    }
}

/// Copies the predicted rows as they come.
async fn copy(
    session: &Session<'_>,
    prediction: &PredictionView,
    mut rows: impl Rows,
) -> Result<(), Failure> {
    let mut body = session.client.results(&prediction.id.to_string()).await?;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failure::failed(format!("the results break off: {error}")))?;
        if let Ok(piece) = frame.into_data() {
            rows.piece(&piece)?;
        }
    }
    Ok(rows.end()?)
}

fn create(path: &Path) -> Result<BufWriter<File>, Failure> {
    let file = File::create(path).map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
    Ok(BufWriter::new(file))
}
