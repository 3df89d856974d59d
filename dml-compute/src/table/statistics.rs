//! Statistics of a table's columns, gathered chunk by chunk in the order of its rows.
//!
//! Mean and deviation by Welford's recurrence ("Note on a method for calculating corrected sums of squares and
//! products", Technometrics 4, 1962), so that they neither cancel nor depend on how rows are cut into chunks.

use std::collections::BTreeMap;

use arrow_array::{Array, RecordBatch};
use dml_core::{
    Column, ColumnType, Summary,
    dataset::{Count, MAX_COUNTS, MAX_DISTINCT},
};

use rayon::prelude::*;

use super::{column::View, value};

/// How many bytes the distinct texts of a whole table may take while they are counted, shared evenly by its columns.
const COUNTED_BYTES: usize = 64 << 20;

/// What counting a text costs beside its bytes.
const COUNT_BYTES: usize = 64;

/// The statistics of the rows seen so far.
///
/// A column of text is counted until it has more than [`MAX_DISTINCT`] values, or its values take more than their share
/// of 64 MiB; after that neither their number nor the most frequent are known.
#[derive(Debug)]
pub struct Statistics {
    columns: Vec<(String, ColumnType, Tally)>,
}

#[derive(Debug, Default)]
struct Tally {
    values: u64,
    nulls: u64,
    min: f64,
    max: f64,
    mean: f64,
    squares: f64,
    /// Counts of numbers by their ordered bits, ascending; none if there are too many.
    numbers: Option<Vec<(i64, u64)>>,
    /// Counts of texts; none if there are too many.
    texts: Option<BTreeMap<String, u64>>,
    /// How many bytes further texts may take.
    room: usize,
}

impl Statistics {
    /// No rows yet, of a table with these columns.
    pub fn new(columns: &[(String, ColumnType)]) -> Self {
        let room = COUNTED_BYTES / columns.len().max(1);
        let tally =
            || Tally { numbers: Some(Vec::new()), texts: Some(BTreeMap::new()), room, ..Tally::default() };
        Self { columns: columns.iter().map(|(name, column)| (name.clone(), *column, tally())).collect() }
    }

    /// The next rows: a batch with these very columns.
    pub fn update(&mut self, batch: &RecordBatch) {
        let columns = self.columns.par_iter_mut().zip(batch.columns());
        columns.for_each(|((_, _, tally), array)| tally.update(array));
    }

    /// The columns with the statistics of the rows so far.
    pub fn columns(&self) -> Vec<Column> {
        let column = |(name, column, tally): &(String, ColumnType, Tally)| Column {
            name: name.clone(),
            r#type: *column,
            nulls: tally.nulls,
            summary: tally.summary(*column),
        };
        self.columns.iter().map(column).collect()
    }
}

impl Tally {
    /// The next values: one after the other, since what the mean is rounded to depends on their order.
    fn update(&mut self, array: &dyn Array) {
        match View::of(array) {
            Some(View::Integer(array)) => self.add(array, |tally, value| tally.number(value as f64, value)),
            Some(View::Float(array)) => {
                self.add(array, |tally, value| tally.number(value + 0.0, ordered(value)));
            }
            Some(View::Boolean(array)) => {
                self.add(array, |tally, value| tally.text(if value { "true" } else { "false" }));
            }
            Some(View::Text(array)) => self.add(array, Self::text),
            Some(View::Date(array)) => self.add(array, |tally, days| tally.number(days.into(), days.into())),
            Some(View::DateTime(array)) => self.add(array, |tally, ms| tally.number(ms as f64, ms)),
            None => {}
        }
    }

    fn add<T>(&mut self, values: impl IntoIterator<Item = Option<T>>, count: impl Fn(&mut Self, T)) {
        for value in values {
            match value {
                Some(value) => count(self, value),
                None => self.nulls += 1,
            }
        }
    }

    fn number(&mut self, value: f64, key: i64) {
        if self.values == 0 {
            (self.min, self.max) = (value, value);
        }
        self.values += 1;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        let share = 1.0 / self.values as f64;
        let delta = value - self.mean;
        self.mean += delta * share;
        self.squares += delta * (value - self.mean);
        let Some(counts) = &mut self.numbers else { return };
        match counts.binary_search_by_key(&key, |count| count.0) {
            Ok(at) => counts[at].1 += 1,
            Err(_) if counts.len() == MAX_COUNTS => self.numbers = None,
            Err(at) => counts.insert(at, (key, 1)),
        }
    }

    fn text(&mut self, text: &str) {
        self.values += 1;
        let Some(counts) = &mut self.texts else { return };
        if let Some(count) = counts.get_mut(text) {
            *count += 1;
            return;
        }
        match self.room.checked_sub(text.len() + COUNT_BYTES) {
            Some(room) if counts.len() < MAX_DISTINCT => {
                self.room = room;
                counts.insert(text.to_owned(), 1);
            }
            Some(_) | None => self.texts = None,
        }
    }

    fn summary(&self, column: ColumnType) -> Summary {
        if self.values == 0 {
            return Summary::Blank;
        }
        match column {
            ColumnType::Boolean | ColumnType::Text => self.categories(),
            ColumnType::Integer | ColumnType::Float | ColumnType::Date | ColumnType::DateTime => {
                self.numeric(column)
            }
        }
    }

    /// Sums of numbers near the end of the range overflow; what is told stays finite.
    fn numeric(&self, column: ColumnType) -> Summary {
        let std = (self.squares / self.values as f64).max(0.0).sqrt();
        let count = |(key, rows): &(i64, u64)| Count { value: written(*key, column), rows: *rows };
        Summary::Numeric {
            min: self.min,
            max: self.max,
            mean: if self.mean.is_finite() { self.mean } else { self.min / 2.0 + self.max / 2.0 },
            std: if self.squares.is_finite() { std } else { f64::MAX },
            counts: self.numbers.iter().flatten().map(count).collect(),
        }
    }

    fn categories(&self) -> Summary {
        let Some(counts) = &self.texts else {
            return Summary::Categories { distinct: None, top: Vec::new() };
        };
        let mut top: Vec<_> = counts.iter().collect();
        top.sort_by_key(|(_, rows)| std::cmp::Reverse(**rows));
        top.truncate(MAX_COUNTS);
        let top = top.into_iter().map(|(value, rows)| Count { value: value.clone(), rows: *rows }).collect();
        Summary::Categories { distinct: Some(counts.len() as u64), top }
    }
}

/// The bits of a number as an integer of the same order. The two zeros are one, here and in all that is told.
fn ordered(value: f64) -> i64 {
    flip((value + 0.0).to_bits() as i64)
}

/// Makes bits of floats ascend with their values, and is its own inverse.
fn flip(bits: i64) -> i64 {
    if bits < 0 { bits ^ i64::MAX } else { bits }
}

fn written(key: i64, column: ColumnType) -> String {
    let mut text = String::new();
    match column {
        ColumnType::Float => value::write_float(f64::from_bits(flip(key) as u64), &mut text),
        ColumnType::Date => value::write_date(key, &mut text),
        ColumnType::DateTime => value::write_date_time(key, &mut text),
        ColumnType::Integer | ColumnType::Boolean | ColumnType::Text => text = key.to_string(),
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, Float64Array, StringArray};
    use proptest::prelude::*;

    use super::*;

    fn of(column: ColumnType, arrays: Vec<ArrayRef>) -> Column {
        let mut statistics = Statistics::new(&[("c".into(), column)]);
        for array in arrays {
            statistics.update(&RecordBatch::try_from_iter([("c", array)]).unwrap());
        }
        statistics.columns().remove(0)
    }

    fn floats(values: &[f64]) -> ArrayRef {
        Arc::new(Float64Array::from(values.to_vec()))
    }

    #[test]
    fn stays_finite_at_the_end_of_the_range() {
        let column = of(ColumnType::Float, vec![floats(&[f64::MAX, -f64::MAX, f64::MAX])]);
        let Summary::Numeric { min, max, mean, std, counts } = column.summary else { panic!("{column:?}") };
        assert_eq!((min, max, std), (-f64::MAX, f64::MAX, f64::MAX));
        assert!(mean.is_finite());
        assert_eq!(counts[0], Count { value: "-1.7976931348623157e308".into(), rows: 1 });
        assert_eq!(counts[1].rows, 2);
    }

    #[test]
    fn stops_counting_where_it_says() {
        let texts =
            |n: usize| Arc::new(StringArray::from_iter_values((0..n).map(|i| format!("{i:05}")))) as ArrayRef;
        let all = of(ColumnType::Text, vec![texts(MAX_DISTINCT)]).summary;
        let Summary::Categories { distinct: Some(10_000), top } = all else { panic!("{all:?}") };
        assert_eq!((top.len(), top[63].value.as_str()), (MAX_COUNTS, "00063"));
        let beyond = of(ColumnType::Text, vec![texts(MAX_DISTINCT), texts(MAX_DISTINCT + 1)]).summary;
        assert_eq!(beyond, Summary::Categories { distinct: None, top: vec![] });
        let long =
            Arc::new(StringArray::from_iter_values((0..70).map(|i| format!("{i}{}", "x".repeat(1 << 20)))));
        assert_eq!(
            of(ColumnType::Text, vec![long]).summary,
            Summary::Categories { distinct: None, top: vec![] }
        );
        let numbers: Vec<_> = (0..=MAX_COUNTS).map(|i| i as f64).collect();
        let counts = |values: &[f64]| match of(ColumnType::Float, vec![floats(values)]).summary {
            Summary::Numeric { counts, .. } => counts.len(),
            Summary::Blank | Summary::Categories { .. } => panic!("a number"),
        };
        assert_eq!((counts(&numbers[1..]), counts(&numbers)), (MAX_COUNTS, 0));
    }

    #[test]
    fn the_most_frequent_come_first_and_ties_in_the_order_of_texts() {
        let array = Arc::new(StringArray::from(vec![Some("b"), Some("a"), None, Some("c"), Some("c")]));
        let column = of(ColumnType::Text, vec![array]);
        let count = |value: &str, rows| Count { value: value.into(), rows };
        let top = vec![count("c", 2), count("a", 1), count("b", 1)];
        assert_eq!((column.nulls, column.summary), (1, Summary::Categories { distinct: Some(3), top }));
        assert_eq!(of(ColumnType::Text, vec![]).summary, Summary::Blank);
    }

    proptest! {
        #[test]
        fn agrees_with_sums_however_rows_are_cut(
            values in prop::collection::vec(-1000_i32..1000, 1..200),
            cut in 0_usize..200,
        ) {
            let values: Vec<f64> = values.into_iter().map(|v| f64::from(v) / 8.0).collect();
            let (a, b) = values.split_at(cut.min(values.len()));
            let whole = of(ColumnType::Float, vec![floats(&values)]);
            prop_assert_eq!(&whole, &of(ColumnType::Float, vec![floats(a), floats(b)]));
            let Summary::Numeric { min, max, mean, std, counts } = whole.summary else { panic!("a number") };
            // Eighths of small integers add without rounding.
            let n = values.len() as f64;
            let exact = values.iter().sum::<f64>() / n;
            let variance = values.iter().map(|v| v * v).sum::<f64>() / n - exact * exact;
            prop_assert!((mean - exact).abs() < 1e-9 && (std * std - variance).abs() < 1e-7);
            prop_assert_eq!(min, values.iter().copied().fold(f64::INFINITY, f64::min));
            prop_assert_eq!(max, values.iter().copied().fold(f64::NEG_INFINITY, f64::max));
            if !counts.is_empty() {
                prop_assert_eq!(counts.iter().map(|count| count.rows).sum::<u64>(), values.len() as u64);
                let read: Vec<f64> = counts.iter().map(|count| count.value.parse().unwrap()).collect();
                prop_assert!(read.windows(2).all(|pair| pair[0] < pair[1]));
            }
        }
    }
}
