//! `dml model`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use comfy_table::{Cell, ContentArrangement, Table, presets};
use dml_compute::{
    metrics::{Confusion, Permutation, Report, shown},
    plot,
};
use dml_core::{Params, Task};
use dml_net::{Problem, view::ModelView};
use serde_json::{Value as Json, json};

use crate::{
    args::{Format, ModelCommand},
    chart,
    connect::Session,
    console::{Console, ago, counted, number, right, size},
    failure::Failure,
    leaderboard, listing, s3,
};

/// How many columns are shown by importance.
const IMPORTANT: usize = 20;

/// Up to how many classes the confusion matrix is shown.
const CLASSES: usize = 12;

pub(crate) async fn run(session: &Session<'_>, command: ModelCommand) -> Result<(), Failure> {
    let console = session.console;
    match command {
        ModelCommand::Ls(page) => {
            let page = session.client.models(page.limit.into(), page.cursor.as_deref()).await?;
            let hint =
                format!("no models yet: `{} train FILE --target COLUMN` makes some", session.place.dml());
            listing::show(console, &page, &["name", "id", "predicts", "quality", "created"], &hint, |model| {
                vec![
                    Cell::new(&model.name),
                    Cell::new(model.id.short()),
                    Cell::new(&model.target),
                    Cell::new(leaderboard::headline(model.metrics.as_ref()).unwrap_or_default()),
                    Cell::new(ago(model.created_ms)),
                ]
            })
        }
        ModelCommand::Show { model, plot } => {
            let model = session.client.model(&model).await?;
            match plot {
                Some(path) if path.as_os_str() == "-" => console.bytes(picture(&model)?.as_bytes()),
                Some(path) => {
                    save(&path, picture(&model)?.as_bytes())?;
                    console.say(&format!("drawn: {}", path.display()));
                    console.show(&model, || describe(console, &model))
                }
                None => console.show(&model, || describe(console, &model)),
            }
        }
        ModelCommand::Download { model, format, output } => download(session, &model, format, output).await,
        ModelCommand::Push { what, to, all } => s3::push(session, &what, &to, all).await,
        ModelCommand::Pull { from, output } => s3::pull(console, &from, output).await,
        ModelCommand::Kinds { kind } => kinds(session, kind.as_deref()).await,
    }
}

/// How good a model is, as SVG.
fn picture(model: &ModelView) -> Result<String, Failure> {
    let report = leaderboard::report(model.metrics.as_ref()).unwrap_or_default();
    let title = format!("{} on {} that it has not seen", model.name, counted(report.rows, "row"));
    let drawn = plot::draw(&title, &report, &model.curves.clone().unwrap_or_default());
    let nothing = || Failure::failed(format!("{}: its evaluation holds nothing to draw", model.name));
    drawn.ok_or_else(nothing)
}

/// Writes a file that the user named.
pub(crate) fn save(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    fs::write(path, bytes).map_err(|error| Failure::failed(format!("{}: {error}", path.display())))
}

fn describe(console: &Console, model: &ModelView) -> String {
    let mut text = format!("{}\n", model.name);
    let task = match model.task {
        Task::Regression => "regression",
        Task::Classification => "classification",
    };
    let classes = model.classes.as_ref().map_or(String::new(), |classes| format!(": {}", classes.join(", ")));
    let features = model.features.iter().flatten();
    let features: Vec<String> = features.map(|f| format!("{} ({})", f.name, f.r#type.name())).collect();
    let facts = [
        ("predicts", format!("{} ({task}{classes})", model.target)),
        ("from", features.join(", ")),
        ("kind", model.kind.clone()),
        ("parameters", parameters(&model.params)),
        ("created", ago(model.created_ms)),
        ("id", model.id.to_string()),
        ("bytes", format!("blake3 {}", model.digest)),
    ];
    let facts = facts.into_iter().filter(|(_, fact)| !fact.is_empty());
    text.push_str(&plain(facts.map(|(name, fact)| vec![Cell::new(name), Cell::new(fact)])));
    if let Some(report) = leaderboard::report(model.metrics.as_ref()) {
        text.push_str(&format!(
            "\n\nHow good it is, on {} that it has not seen\n",
            counted(report.rows, "row")
        ));
        text.push_str(&quality(model.task, &report));
        if let Some(confusion) = report.confusion.filter(|confusion| confusion.labels.len() <= CLASSES) {
            text.push_str("\n\nWhat is true (down) and what it predicts (across), in rows\n");
            text.push_str(&matrix(console, &confusion));
        }
    }
    if let Some(importance) = &model.importance {
        text.push_str("\n\nHow much each column matters\n");
        text.push_str(&bars(importance.iter().map(|(name, part)| (name.as_str(), *part)).collect()));
    }
    if let Some(permutation) = &model.permutation {
        text.push_str(&format!(
            "\n\nWhat is lost without each column: {} when its values are mixed up, on {}\n",
            if permutation.metric == "rmse" { "RMSE gained" } else { "accuracy lost" },
            counted(permutation.rows, "row")
        ));
        text.push_str(&losses(permutation));
    }
    text
}

fn parameters(params: &Params) -> String {
    params.0.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(", ")
}

fn quality(task: Task, report: &Report) -> String {
    let known = shown(task).iter().map(|(name, _)| *name);
    let others =
        report.values.keys().map(String::as_str).filter(|name| known.clone().all(|known| known != *name));
    let names: Vec<&str> = known.clone().filter(|name| report.get(name).is_some()).chain(others).collect();
    let line = |name| {
        let bounds = leaderboard::interval(report, name).map(|bounds| format!("95 %: {bounds}"));
        let cells = [name.to_string(), leaderboard::metric(report, name), bounds.unwrap_or_default()];
        cells.map(Cell::new).to_vec()
    };
    plain(names.into_iter().map(line))
}

fn matrix(console: &Console, confusion: &Confusion) -> String {
    let headings: Vec<&str> = [""].into_iter().chain(confusion.labels.iter().map(String::as_str)).collect();
    let mut table = console.table(&headings);
    for (label, row) in confusion.labels.iter().zip(&confusion.matrix) {
        table.add_row([Cell::new(label)].into_iter().chain(row.iter().map(right)));
    }
    table.trim_fmt()
}

fn bars(mut parts: Vec<(&str, f64)>) -> String {
    parts.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(b.0)));
    let greatest = parts.first().map_or(1.0, |(_, part)| *part).max(f64::MIN_POSITIVE);
    let line = |(name, part): &(&str, f64)| {
        vec![
            Cell::new(name),
            right(format!("{:.1} %", part * 100.0)),
            Cell::new(chart::bar(part / greatest, 30)),
        ]
    };
    let mut text = plain(parts.iter().take(IMPORTANT).map(line));
    if parts.len() > IMPORTANT {
        text.push_str(&format!("\n  and {} more", parts.len() - IMPORTANT));
    }
    text
}

/// The columns that are missed most.
fn losses(permutation: &Permutation) -> String {
    let mut worse: Vec<(&String, f64)> = permutation.worse.iter().map(|(name, by)| (name, *by)).collect();
    worse.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(b.0)));
    let greatest = worse.first().map_or(1.0, |(_, by)| *by).max(f64::MIN_POSITIVE);
    let line = |(name, by): &(&String, f64)| {
        vec![Cell::new(name), right(number(*by)), Cell::new(chart::bar(by / greatest, 30))]
    };
    let mut text = plain(worse.iter().take(IMPORTANT).map(line));
    if worse.len() > IMPORTANT {
        text.push_str(&format!("\n  and {} more", worse.len() - IMPORTANT));
    }
    text
}

/// Cells in columns, indented, without lines.
fn plain(rows: impl IntoIterator<Item = Vec<Cell>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.add_rows(rows);
    let lines = table.lines().map(|line| format!(" {}", line.trim_end()));
    lines.collect::<Vec<_>>().join("\n")
}

async fn download(
    session: &Session<'_>,
    model: &str,
    format: Format,
    output: Option<PathBuf>,
) -> Result<(), Failure> {
    let model = session.client.model(model).await?;
    let (word, extension) = format.words();
    let bytes = session.client.download(&model.id.to_string(), word).await?;
    let path = output.unwrap_or_else(|| format!("{}.{extension}", file_name(&model.name)).into());
    if path.as_os_str() == "-" {
        return session.console.bytes(&bytes);
    }
    save(&path, &bytes)?;
    let document = json!({ "model": model.id, "format": word, "file": path, "bytes": bytes.len() });
    session.console.show(&document, || format!("{}: {}", path.display(), size(bytes.len() as u64)))
}

/// A name as that of a file: what might be a path or confuse a shell becomes `-`.
pub(crate) fn file_name(name: &str) -> String {
    let plain = |c: char| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    name.chars().map(plain).collect::<String>().trim_start_matches('.').into()
}

async fn kinds(session: &Session<'_>, only: Option<&str>) -> Result<(), Failure> {
    let mut kinds = session.client.kinds().await?;
    let all = kinds["items"].as_array().cloned().unwrap_or_default();
    if let Some(name) = only {
        let kind: Vec<Json> = all.iter().filter(|kind| kind["name"] == name).cloned().collect();
        if kind.is_empty() {
            let known: Vec<&str> = all.iter().filter_map(|kind| kind["name"].as_str()).collect();
            let detail = format!("there is no kind '{name}'; there are {}", known.join(", "));
            return Err(Problem::not_found(detail).into());
        }
        kinds["items"] = Json::Array(kind);
    }
    session.console.show(&kinds, || {
        let text = kinds["items"].as_array().into_iter().flatten().map(kind_text);
        text.collect::<Vec<_>>().join("\n\n")
    })
}

fn kind_text(kind: &Json) -> String {
    let tasks: Vec<&str> = kind["tasks"].as_array().into_iter().flatten().filter_map(Json::as_str).collect();
    let default = if kind["default"] == true { "; trained by default" } else { "" };
    let word = |field: &str| kind[field].as_str().unwrap_or_default().to_string();
    let mut text = format!("{} ({}{default})\n  {}", word("name"), tasks.join(", "), word("about"));
    let params = kind["params"].as_array().filter(|params| !params.is_empty());
    if let Some(params) = params {
        let row = |param: &Json| {
            let about = param["about"].as_str().unwrap_or_default();
            let name = param["name"].as_str().unwrap_or_default();
            vec![
                Cell::new(name),
                Cell::new(format!("= {}", bare(&param["default"]))),
                Cell::new(range(param)),
                Cell::new(about),
            ]
        };
        text.push_str(&format!("\n{}", plain(params.iter().map(row))));
    }
    text
}

/// The values that a parameter may take.
fn range(param: &Json) -> String {
    match param["choices"].as_array() {
        Some(choices) => choices.iter().map(bare).collect::<Vec<_>>().join(" | "),
        None if param["type"] == "bool" => "true | false".into(),
        None => {
            let whole = if param["type"] == "int" { "whole, " } else { "" };
            format!("{whole}{} to {}", bare(&param["min"]), bare(&param["max"]))
        }
    }
}

/// A value without quotes; numbers that are very large or very small with an exponent.
fn bare(value: &Json) -> String {
    match value.as_f64() {
        Some(number) if number != 0.0 && !(1e-3..1e6).contains(&number.abs()) => format!("{number:e}"),
        Some(number) => number.to_string(),
        None => value.as_str().map_or_else(|| value.to_string(), Into::into),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_saved_in_the_current_directory() {
        assert_eq!(file_name("penguins-species/random_forest-2"), "penguins-species-random_forest-2");
        assert_eq!(file_name("../../etc/x y"), "-..-etc-x-y");
    }

    #[test]
    fn what_matters_most_stands_first() {
        let text = bars(vec![("a", 0.1), ("b", 0.6), ("c", 0.3)]);
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        assert_eq!(lines[0], format!("b  60.0 %  {}", "█".repeat(30)));
        assert_eq!(lines[1], format!("c  30.0 %  {}", "█".repeat(15)));
        assert_eq!(lines[2], "a  10.0 %  █████");
        assert!(bars((0..30).map(|_| ("x", 0.0)).collect()).ends_with("and 10 more"));
    }

    #[test]
    fn what_is_missed_most_stands_first() {
        let worse = [("a", 0.125), ("b", 0.25), ("c", -0.01)].map(|(name, by)| (name.to_string(), by));
        let text = losses(&Permutation { metric: "accuracy".into(), rows: 8, worse: worse.into() });
        let lines: Vec<String> = text.lines().map(|line| line.trim().to_string()).collect();
        assert_eq!(lines[0], format!("b   0.25  {}", "█".repeat(30)));
        assert_eq!(lines[1], format!("a  0.125  {}", "█".repeat(15)));
        assert_eq!(lines[2], "c  -0.01");
    }

    #[test]
    fn kinds_tell_ranges_and_defaults() {
        let kind = json!({"name": "ridge", "about": "Least squares.", "tasks": ["regression"], "default": true, "params": [
            {"name": "alpha", "about": "How strong.", "type": "float", "default": 1.0, "min": 0.0, "max": 1e6},
            {"name": "deep", "about": "Or not.", "type": "bool", "default": false},
            {"name": "rule", "about": "Which.", "type": "choice", "default": "a", "choices": ["a", "b"]},
            {"name": "n", "about": "How many.", "type": "int", "default": 3, "min": 1, "max": 9},
        ]});
        let text = kind_text(&kind);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "ridge (regression; trained by default)");
        assert_eq!(lines[1], "  Least squares.");
        assert_eq!(lines[2], "  alpha  = 1      0 to 1e6       How strong.");
        assert_eq!(lines[3], "  deep   = false  true | false   Or not.");
        assert_eq!(lines[4], "  rule   = a      a | b          Which.");
        assert_eq!(lines[5], "  n      = 3      whole, 1 to 9  How many.");
    }
}
