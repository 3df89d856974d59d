//! Rows as JSON objects: what people predict by hand, and what they look at.

use arrow_array::RecordBatch;
use dml_core::ColumnType;
use serde_json::{Map, Number, Value};

use super::{
    chunks::batch,
    column::{Builder, Cell, Misfit, View},
    error::{Place, TableError},
    import::place,
    schema_of,
};

/// Rows in the types of known columns.
///
/// A column that a row does not name, or gives as null, is blank there. Values may be of another type where nothing is
/// lost, as in [`super::cast`]: dates come as texts, and numbers may. A key that names no column is an error, and so is a
/// row that names none.
pub fn from_json_rows(
    rows: &[Map<String, Value>],
    columns: &[(String, ColumnType)],
) -> Result<RecordBatch, TableError> {
    let known = || columns.iter().map(|(name, _)| name.clone()).collect();
    let mut builders: Vec<_> = columns.iter().map(|(_, column)| Builder::new(*column)).collect();
    for (i, row) in rows.iter().enumerate() {
        let mut named = 0;
        for ((name, wanted), builder) in columns.iter().zip(&mut builders) {
            let value = row.get(name);
            named += usize::from(value.is_some());
            push(builder, value.unwrap_or(&Value::Null))
                .map_err(|misfit| misfit.error(place(i, name), told(value), *wanted))?;
        }
        if named < row.len() {
            let unknown = row.keys().find(|key| columns.iter().all(|(name, _)| name != *key));
            let place = place(i, unknown.map_or("", String::as_str));
            return Err(TableError::UnknownColumn { place, known: known() });
        }
        if named == 0 && !columns.is_empty() {
            let place = Place { column: None, ..place(i, "") };
            return Err(TableError::EmptyRow { place, known: known() });
        }
    }
    let arrays = builders.iter_mut().map(Builder::finish).collect();
    Ok(batch(&schema_of(columns), arrays, rows.len()))
}

fn push(builder: &mut Builder, value: &Value) -> Result<(), Misfit> {
    match value {
        Value::Null => {
            builder.push_blank();
            Ok(())
        }
        Value::Bool(value) => builder.push(Cell::Boolean(*value)),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => builder.push(Cell::Integer(whole)),
            (None, Some(number)) => builder.push(Cell::Float(number)),
            (None, None) => Err(Misfit::NotFinite),
        },
        Value::String(text) => builder.push(Cell::Text(text)),
        Value::Array(_) | Value::Object(_) => Err(Misfit::WrongType),
    }
}

/// A value as an error tells it: lists and objects only by what they are.
fn told(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "null".into(),
        Some(Value::Bool(value)) => value.to_string(),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(_)) => "a list".into(),
        Some(Value::Object(_)) => "an object".into(),
    }
}

/// Rows as objects: dates and date-times as texts, blanks as null. A column of a type that tables do not hold is all
/// null; [`super::decode`] lets none through.
pub fn to_json_rows(table: &RecordBatch) -> Vec<Map<String, Value>> {
    let schema = table.schema();
    let views: Vec<_> = table.columns().iter().map(|array| View::of(array)).collect();
    let cell = |view: &Option<View>, row| view.as_ref().map_or(Value::Null, |view| json(view.cell(row)));
    let names = || schema.fields().iter().map(|field| field.name().clone());
    (0..table.num_rows()).map(|row| names().zip(views.iter().map(|view| cell(view, row))).collect()).collect()
}

/// Rows as a JSON object a line, the columns in their order; values as in [`to_json_rows`].
pub fn write_ndjson(table: &RecordBatch, out: &mut Vec<u8>) {
    let schema = table.schema();
    let views: Vec<_> = table.columns().iter().map(|array| View::of(array)).collect();
    let key = |(at, name): (usize, &str)| format!("{}{}:", if at > 0 { "," } else { "" }, Value::from(name));
    let keys: Vec<String> =
        schema.fields().iter().map(|field| field.name().as_str()).enumerate().map(key).collect();
    for row in 0..table.num_rows() {
        out.push(b'{');
        for (key, view) in keys.iter().zip(&views) {
            out.extend_from_slice(key.as_bytes());
            let cell = view.as_ref().map_or(Cell::Blank, |view| view.cell(row));
            if let Cell::Integer(value) = cell {
                out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
            } else if let Cell::Float(value) = cell
                && value.is_finite()
            {
                out.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
            } else {
                serde_json::to_writer(&mut *out, &json(cell)).expect("writing to memory");
            }
        }
        out.extend_from_slice(b"}\n");
    }
}

fn json(cell: Cell) -> Value {
    match cell {
        Cell::Blank => Value::Null,
        Cell::Integer(value) => value.into(),
        Cell::Float(value) => Number::from_f64(value).map_or(Value::Null, Value::Number),
        Cell::Boolean(value) => value.into(),
        Cell::Text(text) => text.into(),
        Cell::Date(_) | Cell::DateTime(_) => {
            let mut text = String::new();
            cell.write(&mut text);
            text.into()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn columns() -> Vec<(String, ColumnType)> {
        use ColumnType::{Boolean, Date, DateTime, Float, Integer, Text};
        let types = [("i", Integer), ("f", Float), ("b", Boolean), ("t", Text), ("d", Date), ("m", DateTime)];
        types.into_iter().map(|(name, column)| (name.to_owned(), column)).collect()
    }

    fn rows(value: Value) -> Vec<Map<String, Value>> {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn rows_come_back_as_they_were() {
        let value = json!([
            {"i": i64::MIN, "f": 0.1, "b": true, "t": "NA", "d": "2026-01-31", "m": "2026-01-31T12:00:00.250"},
            {"i": null, "f": null, "b": null, "t": null, "d": null, "m": null},
        ]);
        let table = from_json_rows(&rows(value.clone()), &columns()).unwrap();
        assert_eq!(to_json_rows(&table), rows(value));
        assert_eq!(from_json_rows(&[], &columns()).unwrap().num_rows(), 0);
    }

    #[test]
    fn values_are_turned_where_nothing_is_lost() {
        let given = json!([{"i": 2.0, "f": 3, "b": "TRUE", "t": 5}, {"i": "7", "f": " 1e3 ", "t": 2.5}, {"t": true, "f": ""}]);
        let told = to_json_rows(&from_json_rows(&rows(given), &columns()).unwrap());
        assert_eq!(
            (&told[0]["i"], &told[0]["f"], &told[0]["b"], &told[0]["t"]),
            (&json!(2), &json!(3.0), &json!(true), &json!("5"))
        );
        assert_eq!((&told[1]["i"], &told[1]["f"], &told[1]["t"]), (&json!(7), &json!(1000.0), &json!("2.5")));
        assert_eq!(
            (&told[2]["t"], &told[2]["f"], &told[2]["i"]),
            (&json!("true"), &Value::Null, &Value::Null)
        );
    }

    #[test]
    fn bad_rows_are_told_with_their_place() {
        let cases = [
            (json!({"f": "abc"}), "wrong-type", Some("f"), "'abc' is not a number"),
            (json!({"i": 2.5}), "wrong-type", Some("i"), "'2.5' is not a whole number"),
            (json!({"i": u64::MAX}), "out-of-range", Some("i"), "18446744073709551615 is out of the range"),
            (json!({"f": "1e400"}), "not-finite", Some("f"), "1e400 is not a finite number"),
            (json!({"t": [1, 2]}), "wrong-type", Some("t"), "'a list' is not text"),
            (json!({"f": {}}), "wrong-type", Some("f"), "'an object'"),
            (json!({"f": true}), "wrong-type", Some("f"), "'true'"),
            (json!({"d": "31.1.2026"}), "wrong-type", Some("d"), "one like 2026-01-31"),
            (json!({"i": 1, "weihgt": 2}), "unknown-column", Some("weihgt"), "it has 'i', 'f'"),
            (json!({}), "empty-row", None, "row 2 has none of the columns"),
        ];
        for (row, code, column, words) in cases {
            let error = from_json_rows(&rows(json!([{"i": 1}, row])), &columns()).unwrap_err();
            assert_eq!((error.code(), error.row(), error.column()), (code, Some(2), column), "{error}");
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}
