//! Datasets: the list, one with its columns, and uploads without a script.

use axum::{
    body::Body,
    extract::{Path, State as Extract},
    http::{Request, header},
};
use dml_compute::table::date_text;
use dml_core::{Column, ColumnType, Kind, dataset::Summary};
use maud::{Markup, html};
use serde_json::{Map, Value as Json};

use super::{Answer, Asked, Cursor, PAGE, frame, frame::Frame, to, words};
use crate::{
    client::{Client, escape},
    view::{DatasetView, RoutingView},
};

/// From how many of the first rows the pictures of numbers are drawn.
const LOOKED_AT: u64 = 1000;
/// How many rows are shown.
const SHOWN: usize = 10;
/// How many columns are shown of rows.
const ACROSS: usize = 30;
/// How many bars a picture of numbers has.
const BARS: usize = 24;

pub(super) async fn list(
    Extract(client): Extract<Client>,
    frame: Frame,
    Asked(asked): Asked<Cursor>,
) -> Answer {
    let page = client.datasets(PAGE, asked.cursor.as_deref()).await.map_err(frame.trouble())?;
    let main = html! {
        h1 { "Datasets" }
        (uploader())
        @if page.items.is_empty() { p.quiet { "There are none." } } @else { (table(&page.items)) }
        (frame::next("datasets", page.next_cursor.as_deref()))
    };
    Ok(frame.page("Datasets", main))
}

pub(super) fn table(datasets: &[DatasetView]) -> Markup {
    html! {
        table {
            thead { tr { th { "name" } th.number { "rows" } th.number { "columns" } th.number { "size" } th { "uploaded" } } }
            tbody {
                @for dataset in datasets {
                    tr {
                        td { a href={ "datasets/" (dataset.id) } { (words::name(dataset.name.as_deref(), &dataset.id)) } }
                        td.number { (words::count(dataset.rows)) }
                        td.number { (dataset.columns.len()) }
                        td.number { (words::size(dataset.bytes)) }
                        td { (words::ago(dataset.created_ms)) }
                    }
                }
            }
        }
    }
}

/// Where a table is dropped or chosen.
pub(super) fn uploader() -> Markup {
    html! {
        form #upload.drop method="post" action="datasets" enctype="multipart/form-data" data-upload {
            label for="file" { strong { "Upload a table" } " CSV, Arrow or Parquet, also compressed with gzip or zstd; drop it here, or choose one" }
            input #file type="file" name="file" required;
            button { "Upload" }
            progress hidden max="1" value="0" aria-label="How much is uploaded" {}
            p.quiet role="status" {}
        }
    }
}

/// An upload by a browser without the script: the form goes on to the API as it is.
pub(super) async fn upload(Extract(client): Extract<Client>, frame: Frame, request: Request<Body>) -> Answer {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.unwrap_or("application/octet-stream").to_string();
    let dataset = client.upload_form(&kind, request.into_body()).await.map_err(frame.trouble())?;
    Ok(to(&frame, &format!("datasets/{}", dataset.id)))
}

pub(super) async fn page(Extract(client): Extract<Client>, frame: Frame, Path(id): Path<String>) -> Answer {
    let dataset = client.dataset(&id).await.map_err(frame.trouble())?;
    let rows = client.rows(&id, 0, LOOKED_AT).await.map_err(frame.trouble())?;
    let routing = client.routing(&dataset.id.to_string()).await.ok();
    let name = words::name(dataset.name.as_deref(), &dataset.id);
    Ok(frame.page(&name, show(&dataset, &rows.rows, routing.as_ref())))
}

fn show(dataset: &DatasetView, rows: &[Map<String, Json>], routing: Option<&RoutingView>) -> Markup {
    let id = dataset.id.to_string();
    html! {
        h1 { (words::name(dataset.name.as_deref(), &dataset.id)) }
        p { (words::counted(dataset.rows, "row")) ", " (words::counted(dataset.columns.len() as u64, "column")) ", "
            (words::size(dataset.bytes)) ", uploaded " (words::ago(dataset.created_ms)) ", id " (words::id(&dataset.id))
            @if let Some(routing) = routing {
                ", kept on " (routing.copies) " of " (routing.factor) " nodes"
                @if routing.copies < routing.factor { " " (words::badge("copies are missing", "busy")) }
            }
        }
        div.actions {
            a.button.plain href={ "v1/datasets/" (id) "/content" } download={ (words::name(dataset.name.as_deref(), &dataset.id)) ".csv" } { "Download as CSV" }
            (frame::sure(&format!("datasets/{id}/delete"), "Delete", "The dataset is deleted on all nodes. Models that learned from it stay."))
        }
        h2 { "Columns" }
        p.quiet { "Choose what to predict. Pictures of numbers are drawn from the first " (words::counted(rows.len() as u64, "row")) "." }
        table {
            thead { tr { th { "column" } th { "type" } th.number { "blank" } th { "values" } th { } th { span.hidden { "Train" } } } }
            tbody {
                @for column in &dataset.columns {
                    tr {
                        td { (column.name) }
                        td { (column.r#type.name()) }
                        td.number { @if column.nulls > 0 { (words::percent(column.nulls as f64 / dataset.rows.max(1) as f64)) } }
                        td { (picture(column, rows)) }
                        td { (statistics(column)) }
                        td { a.button.plain href={ "train?dataset=" (id) "&target=" (escape(&column.name)) } { "Predict this" } }
                    }
                }
            }
        }
        h2 { "First rows" }
        (preview(dataset, rows))
    }
}

fn statistics(column: &Column) -> Markup {
    match &column.summary {
        Summary::Blank => html! { span.quiet { "blank in every row" } },
        Summary::Numeric { min, max, .. } if column.r#type == ColumnType::Date => {
            html! { (date_text(*min as i64)) " to " (date_text(*max as i64)) }
        }
        Summary::Numeric { min, max, .. } if column.r#type == ColumnType::DateTime => {
            let day = |ms: f64| date_text((ms / 86_400_000.0).floor() as i64);
            html! { (day(*min)) " to " (day(*max)) }
        }
        Summary::Numeric { min, max, mean, std, .. } => html! {
            (words::number(*min)) " to " (words::number(*max)) ", mean " (words::number(*mean)) " ± " (words::number(*std))
        },
        Summary::Categories { distinct, top } => html! {
            @match distinct { Some(distinct) => (words::counted(*distinct, "value")), None => "very many values" }
            @for count in top.iter().take(3) { ", " q { (count.value.chars().take(40).collect::<String>()) } " " (words::count(count.rows)) }
        },
    }
}

fn picture(column: &Column, rows: &[Map<String, Json>]) -> Markup {
    let label = format!("how values of {} are spread", column.name);
    match &column.summary {
        Summary::Blank => html! {},
        Summary::Categories { top, .. } => {
            let heights: Vec<f64> = top.iter().take(BARS).map(|count| count.rows as f64).collect();
            words::bars(&heights, &label)
        }
        Summary::Numeric { counts, .. } if !counts.is_empty() => {
            words::bars(&counts.iter().map(|count| count.rows as f64).collect::<Vec<_>>(), &label)
        }
        Summary::Numeric { .. } => {
            let values: Vec<f64> = rows.iter().filter_map(|row| row.get(&column.name)?.as_f64()).collect();
            words::bars(&histogram(&values), &label)
        }
    }
}

/// How many values lie in each of so many equal parts of their range.
fn histogram(values: &[f64]) -> Vec<f64> {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let greatest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut bars = vec![0.0; BARS];
    for value in values {
        let part = if greatest > least { (value - least) / (greatest - least) } else { 0.0 };
        bars[((part * BARS as f64) as usize).min(BARS - 1)] += 1.0;
    }
    bars
}

fn preview(dataset: &DatasetView, rows: &[Map<String, Json>]) -> Markup {
    let columns = || dataset.columns.iter().take(ACROSS);
    html! {
        div.wide { table {
            thead { tr { @for column in columns() { th { (column.name) } } } }
            tbody {
                @for row in rows.iter().take(SHOWN) {
                    tr { @for column in columns() { (cell(row.get(&column.name).unwrap_or(&Json::Null))) } }
                }
            }
        } }
        @if dataset.columns.len() > ACROSS { p.quiet { "and " (dataset.columns.len() - ACROSS) " columns more" } }
    }
}

/// A value of a table in a cell.
pub(super) fn cell(value: &Json) -> Markup {
    match value {
        Json::Null => html! { td.quiet { "–" } },
        Json::Number(number) => {
            let text = match number.as_f64() {
                Some(float) if !(number.is_i64() || number.is_u64()) => words::number(float),
                _ => number.to_string(),
            };
            html! { td.number { (text) } }
        }
        Json::String(text) => html! { td { (text.chars().take(80).collect::<String>()) } },
        Json::Bool(_) | Json::Array(_) | Json::Object(_) => html! { td { (value) } },
    }
}

pub(super) async fn delete(Extract(client): Extract<Client>, frame: Frame, Path(id): Path<String>) -> Answer {
    client.delete(Kind::Dataset, &id).await.map_err(frame.trouble())?;
    Ok(to(&frame, "datasets"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_count_every_value_once() {
        let bars = histogram(&(0..100).map(f64::from).collect::<Vec<_>>());
        assert_eq!((bars.len(), bars.iter().sum::<f64>()), (BARS, 100.0));
        assert_eq!(histogram(&[2.0, 2.0])[0], 2.0);
        assert_eq!(histogram(&[]).iter().sum::<f64>(), 0.0);
    }
}
