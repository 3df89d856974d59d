//! `dml dataset`.

use comfy_table::Cell;
use dml_compute::table::date_text;
use dml_core::{
    Column, ColumnType,
    dataset::{Count, Summary},
    record::Kind,
};
use dml_net::view::{DatasetView, RowsView};
use serde_json::Value as Json;

use crate::{
    args::DatasetCommand,
    connect::{Session, quote},
    console::{Console, ago, count, counted, handle, number, right, size},
    failure::Failure,
    listing, source,
};

/// How many rows and columns of a table are shown with its description.
const FIRST_ROWS: u64 = 5;
const FIRST_COLUMNS: usize = 12;

/// How many values of a column are named.
const VALUES: usize = 5;

pub(crate) async fn run(session: &Session<'_>, command: DatasetCommand) -> Result<(), Failure> {
    let console = session.console;
    match command {
        DatasetCommand::Add(add) => {
            if add.file != "-" && !std::path::Path::new(&add.file).exists() {
                return Err(Failure::not_found(format!("there is no file '{}'", add.file)));
            }
            let dataset = source::upload(session, &add.file, add.name.as_deref()).await?;
            let name = quote(&handle(dataset.name.as_ref(), &dataset.id));
            let dml = session.place.dml();
            console.show(&dataset, || columns(console, &dataset).trim_fmt())?;
            console.say(&format!("\nWhat next:\n  {dml} train {name} --target COLUMN"));
            Ok(())
        }
        DatasetCommand::Ls(page) => {
            let page = session.client.datasets(page.limit.into(), page.cursor.as_deref()).await?;
            let headings = ["name", "id", "rows", "columns", "size", "created"];
            let hint = format!("no datasets yet: `{} dataset add FILE` adds one", session.place.dml());
            listing::show(console, &page, &headings, &hint, |dataset| {
                vec![
                    Cell::new(dataset.name.as_deref().unwrap_or("")),
                    Cell::new(dataset.id.short()),
                    right(count(dataset.rows)),
                    right(count(dataset.columns.len() as u64)),
                    right(size(dataset.bytes)),
                    Cell::new(ago(dataset.created_ms)),
                ]
            })
        }
        DatasetCommand::Show { dataset } => {
            let dataset = session.client.dataset(&dataset).await?;
            let first = session.client.rows(&dataset.id.to_string(), 0, FIRST_ROWS).await?;
            console.show(&dataset, || describe(console, &dataset, &first))
        }
        DatasetCommand::Rows { dataset, offset, limit } => {
            let dataset = session.client.dataset(&dataset).await?;
            let page = session.client.rows(&dataset.id.to_string(), offset, limit).await?;
            console.show(&page, || rows(console, &dataset.columns, &page))
        }
        DatasetCommand::Rm { dataset } => listing::remove(session, Kind::Dataset, &dataset).await,
    }
}

fn describe(console: &Console, dataset: &DatasetView, first: &RowsView) -> String {
    let DatasetView { id, rows: all, columns: named, bytes, created_ms, .. } = dataset;
    let (name, all, created) = (handle(dataset.name.as_ref(), id), counted(*all, "row"), ago(*created_ms));
    let wide = named.len() as u64;
    let more = wide.saturating_sub(FIRST_COLUMNS as u64);
    let more = if more > 0 { format!(" (without {} more columns)", count(more)) } else { String::new() };
    let shown = rows(console, &named[..named.len().min(FIRST_COLUMNS)], first);
    let wide = counted(wide, "column");
    let (columns, bytes) = (columns(console, dataset).trim_fmt(), size(*bytes));
    format!("{name}: {all}, {wide}, {bytes}, {created}\nid {id}\n\n{columns}\n\nFirst rows{more}:\n{shown}")
}

/// Name, type, blanks and statistics of each column.
fn columns(console: &Console, dataset: &DatasetView) -> comfy_table::Table {
    let mut table = console.table(&["column", "type", "blanks", "values"]);
    for column in &dataset.columns {
        let blanks = if column.nulls == 0 { String::new() } else { count(column.nulls) };
        let cells = [Cell::new(&column.name), Cell::new(column.r#type.name()), right(blanks)];
        table.add_row(cells.into_iter().chain([Cell::new(summary(column))]));
    }
    table
}

fn summary(column: &Column) -> String {
    match &column.summary {
        Summary::Blank => "all blank".into(),
        Summary::Numeric { min, max, mean, std, .. } => match column.r#type {
            ColumnType::Date => format!("{} to {}", date(*min), date(*max)),
            ColumnType::DateTime => format!("{} to {}", date(*min / DAY_MS), date(*max / DAY_MS)),
            ColumnType::Integer | ColumnType::Float | ColumnType::Boolean | ColumnType::Text => {
                let [min, max, mean, std] = [min, max, mean, std].map(|value| number(*value));
                format!("{min} to {max}, mean {mean} ± {std}")
            }
        },
        Summary::Categories { distinct, top } => {
            let few = distinct.is_some_and(|distinct| distinct <= VALUES as u64);
            let named: Vec<String> = top.iter().take(VALUES).map(counted_value).collect();
            let (named, dots) = (named.join(", "), if few { "" } else { ", …" });
            match distinct {
                Some(distinct) => format!("{}: {named}{dots}", counted(*distinct, "value")),
                None => format!("very many values: {named}{dots}"),
            }
        }
    }
}

fn counted_value(Count { value, rows }: &Count) -> String {
    let short: String = value.chars().take(20).collect();
    let dots = if short.len() < value.len() { "…" } else { "" };
    format!("{short}{dots} ({})", count(*rows))
}

const DAY_MS: f64 = 86_400_000.0;

fn date(days: f64) -> String {
    date_text(days.floor() as i64)
}

/// Rows as the API gives them, in a table.
fn rows(console: &Console, columns: &[Column], page: &RowsView) -> String {
    let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
    let mut table = console.table(&names);
    for row in &page.rows {
        table.add_row(columns.iter().map(|column| match row.get(&column.name) {
            None | Some(Json::Null) => Cell::new(""),
            Some(Json::String(text)) => Cell::new(text),
            Some(value @ Json::Number(_)) => right(value),
            Some(value @ (Json::Bool(_) | Json::Array(_) | Json::Object(_))) => Cell::new(value),
        }));
    }
    table.trim_fmt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_summed_up() {
        let column = |r#type, summary| Column { name: "c".into(), r#type, nulls: 0, summary };
        let numeric = Summary::Numeric { min: -1.0, max: 19_782.0, mean: 2.5, std: 0.25, counts: vec![] };
        assert_eq!(summary(&column(ColumnType::Float, numeric.clone())), "-1 to 19782, mean 2.5 ± 0.25");
        assert_eq!(summary(&column(ColumnType::Date, numeric)), "1969-12-31 to 2024-02-29");
        let top = vec![Count { value: "a".repeat(30), rows: 1200 }, Count { value: "b".into(), rows: 1 }];
        let words = Summary::Categories { distinct: Some(2), top };
        assert_eq!(
            summary(&column(ColumnType::Text, words)),
            format!("2 values: {}… (1,200), b (1)", "a".repeat(20))
        );
    }
}
