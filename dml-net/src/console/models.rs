//! Models: the list, and one: how good it is, what it looks at, where it comes from, what it says of a row.

use std::collections::BTreeMap;

use axum::{
    Form,
    extract::{Path, State as Extract},
    http::header,
    response::IntoResponse,
};
use dml_compute::{metrics::Permutation, plot};
use dml_core::ColumnType;
use maud::{Markup, html};
use serde_json::{Map, Value as Json};

use super::{Answer, Asked, Cursor, PAGE, datasets::cell, frame, frame::Frame, trainings, words};
use crate::{
    client::{Client, ClientError},
    problem::Problem,
    view::{DatasetView, FeatureView, ModelView, PredictedRows, RowsToPredict, report},
};

/// How many columns are told to matter.
const IMPORTANT: usize = 20;

pub(super) async fn list(
    Extract(client): Extract<Client>,
    frame: Frame,
    Asked(asked): Asked<Cursor>,
) -> Answer {
    let page = client.models(PAGE, asked.cursor.as_deref()).await.map_err(frame.trouble())?;
    let main = html! {
        h1 { "Models" }
        @if page.items.is_empty() { p.quiet { "There are none that are finished." } } @else {
            table {
                thead { tr { th { "name" } th { "predicts" } th { "how good" } th { "digest" } th { "begun" } } }
                tbody {
                    @for model in &page.items {
                        tr {
                            td { a href={ "models/" (model.id) } { (model.name) } }
                            td { (model.target) " " span.quiet { "(" (trainings::task(model.task)) ")" } }
                            td { @if let Some(report) = report(model.metrics.as_ref()) {
                                @let name = dml_compute::metrics::primary(model.task);
                                (name) " " (words::metric(&report, name))
                            } }
                            td { (words::id(&model.digest)) }
                            td { (words::ago(model.created_ms)) }
                        }
                    }
                }
            }
        }
        (frame::next("models", page.next_cursor.as_deref()))
    };
    Ok(frame.page("Models", main))
}

pub(super) async fn page(Extract(client): Extract<Client>, frame: Frame, Path(id): Path<String>) -> Answer {
    let model = client.model(&id).await.map_err(frame.trouble())?;
    let row = first_row(&client, &model).await;
    let tables = fitting(&client, &model).await.map_err(frame.trouble())?;
    Ok(frame.page(&model.name, show(&model, &row, None, &tables)))
}

/// The datasets that have every column that the model wants, of the newest.
async fn fitting(client: &Client, model: &ModelView) -> Result<Vec<DatasetView>, ClientError> {
    let mut tables = client.datasets(100, None).await?.items;
    let has = |table: &DatasetView, name: &str| table.columns.iter().any(|column| column.name == name);
    tables.retain(|table| model.features.iter().flatten().all(|feature| has(table, &feature.name)));
    Ok(tables)
}

/// What the form is filled with: the first row that the model could learn from, if that is still there.
async fn first_row(client: &Client, model: &ModelView) -> BTreeMap<String, String> {
    let rows = client.rows(&model.dataset.to_string(), 0, 1).await;
    let row = rows.ok().and_then(|page| page.rows.into_iter().next()).unwrap_or_default();
    let text = |value: Json| value.as_str().map_or_else(|| value.to_string(), Into::into);
    row.into_iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| (name, text(value))).collect()
}

type Said = Result<PredictedRows, Problem>;

fn show(
    model: &ModelView,
    row: &BTreeMap<String, String>,
    said: Option<&Said>,
    tables: &[DatasetView],
) -> Markup {
    let id = model.id.to_string();
    let drawn =
        model.curves.as_ref().is_some_and(|curves| !curves.roc.is_empty() || !curves.predicted.is_empty());
    html! {
        h1 { (model.name) }
        p { (model.kind) " for " (trainings::task(model.task)) " of " strong { (model.target) } ", from the training "
            a href={ "trainings/" (model.training) } { (model.training.short()) } " of the dataset "
            a href={ "datasets/" (model.dataset) } { (model.dataset.short()) } ", " (words::ago(model.created_ms))
            ", digest " (words::id(&model.digest)) }
        div.actions {
            @for (format, name) in [("native", "DML"), ("onnx", "ONNX"), ("json", "JSON")] {
                a.button.plain href={ "v1/models/" (id) "/download?format=" (format) } download { "Download as " (name) }
            }
        }
        @if let Some(report) = report(model.metrics.as_ref()) {
            h2 { "How good it is" }
            p.quiet { "On " (words::counted(report.rows, "row")) " that it has not seen." }
            table { tbody {
                @for name in report.values.keys() {
                    tr { th scope="row" { (name) } td.number { (words::metric(&report, name)) }
                        td.quiet { @if let Some([low, high]) = report.interval.get(name) { "95 %: " (words::number(*low)) " to " (words::number(*high)) } } }
                }
            } }
            @if drawn { img.plot src={ "models/" (id) "/plot.svg" } alt={ "Pictures of how good " (model.name) " is" }; }
        }
        (matters(model))
        h2 { "Try it" }
        (form(&id, model.features.as_deref().unwrap_or_default(), row, said))
        @if !tables.is_empty() {
            h2 { "Predict a whole table" }
            form.inline method="post" action="predictions" {
                input type="hidden" name="model" value=(id);
                label { "Dataset " select name="dataset" {
                    @for table in tables { option value=(table.id) { (words::name(table.name.as_deref(), &table.id)) } }
                } }
                button { "Predict" }
            }
        }
        h2 { "Parameters" }
        @if model.params.0.is_empty() { p.quiet { "It has none." } } @else {
            table { tbody { @for (name, value) in &model.params.0 { tr { th scope="row" { (name) } td { (value) } } } } }
        }
    }
}

/// Which columns it looks at, and which it misses.
fn matters(model: &ModelView) -> Markup {
    let parts = model.importance.as_ref().map(sorted);
    html! {
        @if let Some(Permutation { metric, rows, worse }) = &model.permutation {
            h2 { "Which columns matter" }
            p.quiet { (if metric == "rmse" { "The RMSE gained" } else { "The accuracy lost" }) " when the values of a column are mixed up, on "
                (words::counted(*rows, "row")) " that it has not seen." }
            (columns(&sorted(worse), words::number))
        }
        @if let Some(parts) = &parts {
            h2 { "What it was built from" }
            p.quiet { "The part that each column has in what the model gained while it learned." }
            (columns(parts, words::percent))
        }
    }
}

fn sorted(parts: &BTreeMap<String, f64>) -> Vec<(&str, f64)> {
    let mut parts: Vec<(&str, f64)> = parts.iter().map(|(name, part)| (name.as_str(), *part)).collect();
    parts.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(b.0)));
    parts
}

fn columns(parts: &[(&str, f64)], text: fn(f64) -> String) -> Markup {
    let greatest = parts.first().map_or(1.0, |(_, part)| *part).max(f64::MIN_POSITIVE);
    html! {
        table { tbody {
            @for (name, part) in parts.iter().take(IMPORTANT) {
                tr { th scope="row" { (name) } td.number { (text(*part)) } td { (words::bar(part / greatest)) } }
            }
        } }
        @if parts.len() > IMPORTANT { p.quiet { "and " (parts.len() - IMPORTANT) " more" } }
    }
}

fn form(id: &str, features: &[FeatureView], row: &BTreeMap<String, String>, said: Option<&Said>) -> Markup {
    html! {
        form id="try" method="post" action={ "models/" (id) "#try" } {
            p.quiet { "A blank field is a value that is not known. Filled in is the first row of the dataset." }
            div.fields {
                @for feature in features {
                    label { (feature.name) " " span.quiet { (feature.r#type.name()) }
                        input type="text" name=(feature.name) value=(row.get(&feature.name).map_or("", String::as_str)); }
                }
            }
            div.actions { button { "Predict" } }
            @match said {
                Some(Ok(said)) => div.answer role="status" { (answer(said)) }
                Some(Err(problem)) => (frame::alert(problem))
                None => {}
            }
        }
    }
}

fn answer(said: &PredictedRows) -> Markup {
    let Some(row) = said.predictions.first() else { return html! {} };
    html! {
        table {
            thead { tr { @for name in row.keys() { th { (name.trim_start_matches("probability_")) } } } }
            tbody { tr { @for value in row.values() { (cell(value)) } } }
        }
    }
}

/// The page again, with what the model says of the row in the form.
pub(super) async fn r#try(
    Extract(client): Extract<Client>,
    frame: Frame,
    Path(id): Path<String>,
    Form(fields): Form<BTreeMap<String, String>>,
) -> Answer {
    let model = client.model(&id).await.map_err(frame.trouble())?;
    let tables = fitting(&client, &model).await.map_err(frame.trouble())?;
    let said = match row_of(model.features.as_deref().unwrap_or_default(), &fields) {
        Ok(row) => match client.predict_rows(&id, &RowsToPredict { rows: vec![row] }).await {
            Ok(said) => Ok(said),
            Err(ClientError::Problem(problem)) => Err(problem),
            Err(error) => return Err(frame.trouble()(error)),
        },
        Err(problem) => Err(problem),
    };
    Ok(frame.page(&model.name, show(&model, &fields, Some(&said), &tables)))
}

/// The fields as values of the columns' types.
fn row_of(features: &[FeatureView], fields: &BTreeMap<String, String>) -> Result<Map<String, Json>, Problem> {
    let value = |feature: &FeatureView| {
        let text = fields.get(&feature.name).map_or("", |text| text.trim());
        let wrong = || {
            let detail = format!(
                "'{text}' is no {}: mend '{}' or leave it blank",
                feature.r#type.name(),
                feature.name
            );
            Problem::unprocessable("bad-field", detail).at(None, Some(&feature.name))
        };
        let value = match feature.r#type {
            _ if text.is_empty() => Json::Null,
            ColumnType::Integer | ColumnType::Float => {
                let number: f64 = text.parse().map_err(|_| wrong())?;
                serde_json::Number::from_f64(number).map(Json::Number).ok_or_else(wrong)?
            }
            ColumnType::Boolean => Json::Bool(text.parse().map_err(|_| wrong())?),
            ColumnType::Text | ColumnType::Date | ColumnType::DateTime => text.into(),
        };
        Ok((feature.name.clone(), value))
    };
    features.iter().map(value).collect()
}

pub(super) async fn plot(Extract(client): Extract<Client>, frame: Frame, Path(id): Path<String>) -> Answer {
    let model = client.model(&id).await.map_err(frame.trouble())?;
    let report = report(model.metrics.as_ref()).unwrap_or_default();
    let picture = plot::draw(&model.name, &report, &model.curves.unwrap_or_default());
    let missing = || ClientError::Problem(Problem::not_found("there is nothing to draw of this model"));
    let picture = picture.ok_or_else(missing).map_err(frame.trouble())?;
    Ok(([(header::CONTENT_TYPE, "image/svg+xml")], picture).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_become_values_of_their_columns() {
        let feature = |name: &str, r#type| FeatureView { name: name.into(), r#type };
        let features = [
            feature("age", ColumnType::Float),
            feature("sex", ColumnType::Text),
            feature("on", ColumnType::Boolean),
            feature("rest", ColumnType::Integer),
        ];
        let fields = |age: &str| {
            [("age", age), ("sex", "f"), ("on", "true")].map(|(n, v)| (n.to_string(), v.to_string())).into()
        };
        let row = row_of(&features, &fields("4.5")).unwrap();
        assert_eq!(Json::Object(row), serde_json::json!({"age": 4.5, "sex": "f", "on": true, "rest": null}));
        let problem = row_of(&features, &fields("old")).unwrap_err();
        assert_eq!(problem.column.as_deref(), Some("age"));
        assert!(row_of(&features, &fields("inf")).is_err());
    }
}
