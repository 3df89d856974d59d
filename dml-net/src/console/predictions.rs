//! Predictions of whole tables: the list, and one with its first rows.

use axum::{
    Form,
    extract::{Path, State as Extract},
};
use dml_core::{Kind, training::State};
use http_body_util::BodyExt;
use maud::{Markup, html};

use super::{Answer, Asked, Cursor, PAGE, frame, frame::Frame, to, words};
use crate::{
    client::{Client, ClientError},
    view::{NewPrediction, PredictionView},
};

/// How many of the predicted rows are shown.
const SHOWN: usize = 20;
/// How much of the results is read for that, in bytes.
const LOOKED_AT: usize = 64 << 10;

pub(super) async fn list(
    Extract(client): Extract<Client>,
    frame: Frame,
    Asked(asked): Asked<Cursor>,
) -> Answer {
    let page = client.predictions(PAGE, asked.cursor.as_deref()).await.map_err(frame.trouble())?;
    let main = html! {
        h1 { "Predictions" }
        div #live data-live="3" {
            @if page.items.is_empty() {
                p.quiet { "There are none. Choose a " a href="models" { "model" } " and the dataset to predict." }
            } @else { (table(&page.items)) }
        }
        (frame::next("predictions", page.next_cursor.as_deref()))
    };
    Ok(frame.page("Predictions", main))
}

fn table(predictions: &[PredictionView]) -> Markup {
    html! {
        table {
            thead { tr { th { "name" } th { "dataset" } th { "model" } th { "state" } th { "begun" } } }
            tbody {
                @for prediction in predictions {
                    tr {
                        td { a href={ "predictions/" (prediction.id) } { (words::name(prediction.name.as_deref(), &prediction.id)) } }
                        td { a href={ "datasets/" (prediction.dataset) } { (prediction.dataset.short()) } }
                        td { (words::id(&prediction.model)) }
                        td { (words::state(prediction.state)) @if !prediction.state.is_final() { " " (words::progress(prediction.progress)) } }
                        td { (words::ago(prediction.created_ms)) }
                    }
                }
            }
        }
    }
}

pub(super) async fn begin(
    Extract(client): Extract<Client>,
    frame: Frame,
    Form(new): Form<NewPrediction>,
) -> Answer {
    let prediction = client.predict(&new).await.map_err(frame.trouble())?;
    Ok(to(&frame, &format!("predictions/{}", prediction.id)))
}

pub(super) async fn page(Extract(client): Extract<Client>, frame: Frame, Path(id): Path<String>) -> Answer {
    let prediction = client.prediction(&id, 0).await.map_err(frame.trouble())?;
    let over = prediction.state.is_final();
    let rows = match prediction.state {
        State::Failed => Vec::new(),
        State::Queued | State::Running | State::Succeeded | State::Cancelled => {
            first_rows(&client, &prediction).await.map_err(frame.trouble())?
        }
    };
    let name = words::name(prediction.name.as_deref(), &prediction.id);
    let id = prediction.id.to_string();
    let events = format!("v1/predictions/{id}/events");
    let main = html! {
        h1 { (name) }
        div #live data-live=[(!over).then_some("3")] data-events=[(!over).then_some(&events)] {
            p { (words::state(prediction.state)) " " @if !over { (words::progress(prediction.progress)) " " }
                "of the dataset " a href={ "datasets/" (prediction.dataset) } { (prediction.dataset.short()) }
                " by the model with digest " (words::id(&prediction.model)) ", begun " (words::ago(prediction.created_ms)) }
            @if let Some(error) = &prediction.error { p.bad { (error) } }
            @if !rows.is_empty() {
                h2 { "First rows" }
                pre { (rows.join("\n")) }
            }
        }
        div.actions {
            a.button.plain href={ "v1/predictions/" (id) "/results" } download={ (name) ".csv" } { "Download as CSV" }
            (frame::sure(&format!("predictions/{id}/delete"), "Delete", "The predictions are deleted on all nodes."))
        }
    };
    Ok(frame.page(&name, main))
}

/// The first lines of what is predicted so far.
async fn first_rows(client: &Client, prediction: &PredictionView) -> Result<Vec<String>, ClientError> {
    let mut results = client.results(&prediction.id.to_string()).await?;
    let mut text = Vec::new();
    while text.len() < LOOKED_AT
        && let Some(Ok(frame)) = results.frame().await
    {
        if let Ok(data) = frame.into_data() {
            text.extend_from_slice(&data);
        }
    }
    text.truncate(LOOKED_AT);
    let text = String::from_utf8_lossy(&text);
    Ok(text.lines().take(SHOWN + 1).map(Into::into).collect())
}

pub(super) async fn delete(Extract(client): Extract<Client>, frame: Frame, Path(id): Path<String>) -> Answer {
    client.delete(Kind::Prediction, &id).await.map_err(frame.trouble())?;
    Ok(to(&frame, "predictions"))
}
