//! The columns of one table in the types of another.

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch};
use dml_core::ColumnType;

use super::{
    chunks::batch,
    column::{Builder, View, data_type},
    error::{Place, TableError},
    import::place,
    schema_of,
};

/// Picks columns by name, in the order asked for, and turns them into the types asked for. Others are left out.
///
/// Values change their type where nothing is lost: whole numbers become floats, and floats that are whole become
/// integers; dates become date-times, and back at midnight; everything becomes text (floats that are whole without
/// their point); texts are read as they would be in a CSV file. A value that does not fit is an error; blanks always fit.
/// Who takes any number had better ask for floats.
pub fn cast(table: &RecordBatch, columns: &[(String, ColumnType)]) -> Result<RecordBatch, TableError> {
    let missing: Vec<_> =
        columns.iter().map(|(name, _)| name).filter(|name| table.column_by_name(name).is_none()).collect();
    if !missing.is_empty() {
        let found = table.schema().fields().iter().map(|field| field.name().clone()).collect();
        return Err(TableError::MissingColumns { missing: missing.into_iter().cloned().collect(), found });
    }
    let picked =
        columns.iter().filter_map(|(name, wanted)| Some((name, *wanted, table.column_by_name(name)?)));
    let arrays =
        picked.map(|(name, wanted, array)| cast_column(name, wanted, array)).collect::<Result<_, _>>()?;
    Ok(batch(&schema_of(columns), arrays, table.num_rows()))
}

fn cast_column(name: &str, wanted: ColumnType, array: &ArrayRef) -> Result<ArrayRef, TableError> {
    if *array.data_type() == data_type(wanted) {
        return Ok(Arc::clone(array));
    }
    let Some(view) = View::of(array) else {
        let place = Place { column: Some(name.to_owned()), ..Place::default() };
        return Err(TableError::UnknownType { place, found: array.data_type().to_string() });
    };
    let mut builder = Builder::new(wanted);
    for row in 0..array.len() {
        let cell = view.cell(row);
        builder.push(cell).map_err(|misfit| {
            let mut text = String::new();
            cell.write(&mut text);
            misfit.error(place(row, name), text, wanted)
        })?;
    }
    Ok(builder.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Limits, read_rows, to_json_rows, value, write_csv};

    fn columns(columns: &[(&str, ColumnType)]) -> Vec<(String, ColumnType)> {
        columns.iter().map(|(name, column)| ((*name).to_owned(), *column)).collect()
    }

    fn table(text: &str) -> RecordBatch {
        read_rows(text.as_bytes(), &Limits::default()).unwrap()
    }

    fn csv(table: &RecordBatch) -> String {
        let mut out = Vec::new();
        write_csv(table, true, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn picks_and_widens() {
        let table = table("i,f,b,t,d,x\n1,2.5,true,abc,2026-01-31,9\n,3.0,,,,\n");
        use ColumnType::{DateTime, Float, Text};
        let wanted = columns(&[("d", DateTime), ("b", Text), ("f", Text), ("i", Float), ("t", Text)]);
        let cast = cast(&table, &wanted).unwrap();
        assert_eq!(csv(&cast), "d,b,f,i,t\n2026-01-31T00:00:00,true,2.5,1.0,abc\n,,3,,\n");
        assert_eq!(cast.schema(), schema_of(&wanted));
    }

    #[test]
    fn narrows_what_loses_nothing() {
        use ColumnType::{Boolean, Date, DateTime, Float, Integer};
        let table = table(
            "i,f,t,d,b,s\n2.0,007,2026-01-31 10:00,2026-01-31T00:00,TRUE,NA\n7,1,,,false,\nNA,x,,,,x\n",
        );
        let first = table.slice(0, 2);
        let wanted =
            [("i", Integer), ("f", Float), ("t", DateTime), ("d", Date), ("b", Boolean), ("s", Float)];
        let cast = cast(&first, &columns(&wanted)).unwrap();
        let rows = "2,7.0,2026-01-31T10:00:00,2026-01-31,true,\n7,1.0,,,false,\n";
        assert_eq!(csv(&cast), format!("i,f,t,d,b,s\n{rows}"));
        assert_eq!(to_json_rows(&cast)[1]["i"], 7);
    }

    #[test]
    fn what_does_not_fit_is_told_with_its_place() {
        use ColumnType::{Boolean, Date, Float, Integer};
        let table = table("i,f,t,d,big\n1,2.5,abc,2026-01-31T10:00,1e30\n2,2.5,inf,,0.5\n");
        let cases = [
            ("f", Integer, "wrong-type", 1, "'2.5' is not a whole number"),
            ("big", Integer, "out-of-range", 1, "out of the range of integer"),
            ("t", Float, "wrong-type", 1, "row 1, column 't': 'abc' is not a number"),
            ("i", Boolean, "wrong-type", 1, "true or false"),
            ("d", Date, "wrong-type", 1, "2026-01-31T10:00:00"),
            ("d", Float, "wrong-type", 1, "is not a number"),
        ];
        for (name, wanted, code, row, words) in cases {
            let error = cast(&table, &columns(&[(name, wanted)])).unwrap_err();
            assert_eq!((error.code(), error.row(), error.column()), (code, Some(row), Some(name)), "{error}");
            assert!(error.to_string().contains(words), "{error}");
        }
        let error = cast(&table.slice(1, 1), &columns(&[("t", Float)])).unwrap_err();
        assert_eq!((error.code(), error.row()), ("not-finite", Some(1)));
        let error =
            cast(&table, &columns(&[("t", ColumnType::Text), ("z", Float), ("y", Float)])).unwrap_err();
        assert_eq!(error.to_string(), "the table lacks 'z', 'y': it has 'i', 'f', 't', 'd', 'big'");
        assert_eq!(error.code(), "missing-column");
    }

    #[test]
    fn other_arrow_types_are_refused() {
        let array: ArrayRef = Arc::new(arrow_array::UInt8Array::from(vec![1]));
        let table = RecordBatch::try_from_iter([("a", array)]).unwrap();
        let error = cast(&table, &columns(&[("a", ColumnType::Float)])).unwrap_err();
        assert_eq!((error.code(), error.column()), ("unknown-type", Some("a")));
        assert!(error.to_string().contains("UInt8"), "{error}");
    }

    #[test]
    fn whole_numbers_keep_their_bits() {
        assert_eq!(value::whole(-9_007_199_254_740_993.0), Some(-9_007_199_254_740_992));
    }
}
