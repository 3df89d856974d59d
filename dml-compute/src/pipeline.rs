//! How the columns of a table become the matrix that a learner sees. It is fitted on the training rows' [`Profile`] and
//! travels inside the model, so that a raw table can be predicted.
//!
//! | column | [`Encoding::Dense`] | [`Encoding::Codes`] |
//! |---|---|---|
//! | number, date (days), instant (ms) | (value - mean) / standard deviation; blank: 0, which is the mean | the number; blank: NaN |
//! | text, boolean | one column a category, 1 where it is the row's; blank is a category if there were blanks in training | the category's place in the order of the mean target; blank: NaN |
//! | beyond the 64 (dense) or 254 (codes) most frequent categories | share the column `(other)` | share one place |
//! | category not seen in training | as the `(other)` ones; if there are none, 0 in all columns | as the others; if there are none, NaN |
//! | constant or blank in all training rows, free text, more distinct texts than half the rows | ignored | ignored |
//!
//! [`Encoding::Counts`] is as dense, but leaves numbers as they are, with 0 for a blank, and refuses negative ones.
//!
//! The mean target of a category is drawn towards that of all rows as if ten more rows had it (Micci-Barreca 2001, "A
//! preprocessing scheme for high-cardinality categorical attributes"); a class counts as its place among the classes. As
//! only the order of categories matters to trees, this finds the best split for regression and two classes (Breiman et
//! al. 1984, section 4.2.2). A blank in a dense column leaves no trace of its own.

use std::collections::BTreeMap;

use arrow_array::RecordBatch;
use dml_core::ColumnType;
use ndarray::Array2;
use serde::{Deserialize, Serialize};

use crate::{
    error::WorkError,
    learner::Encoding,
    prepare::{Feature, FeatureValues, Profile, Targets, Values},
};

/// How many categories have a column of their own.
pub const MAX_ONE_HOT: usize = 64;

/// How many categories have a code of their own.
pub const MAX_CODES: usize = 254;

/// A text column with more distinct values than this, and than half its rows, names its rows and tells nothing of others.
pub const MIN_IDENTIFIERS: usize = 50;

/// How many rows are encoded together.
const PANEL_ROWS: usize = 256;

/// How many rows' weight the overall mean has in the mean target of a category.
const SMOOTHING: f64 = 10.0;

/// The encoding of each feature.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pipeline {
    columns: Vec<Encoded>,
}

/// The encoding of one feature.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Encoded {
    /// The column's name.
    pub name: String,
    /// The column's type.
    pub r#type: ColumnType,
    /// What becomes of its values.
    pub code: Code,
}

/// What becomes of the values of a feature.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// No column.
    Ignored {
        /// Why not.
        reason: String,
    },
    /// One column: (value - mean) / std; 0 for a blank.
    Standard {
        /// The mean of the training rows.
        mean: f64,
        /// Their standard deviation.
        std: f64,
    },
    /// One column: the number as it is; NaN for a blank.
    Number,
    /// A column a category, then `(other)`, then `(blank)`.
    OneHot {
        /// The categories in text order.
        categories: Vec<String>,
        /// Whether there is a column for all other categories.
        other: bool,
        /// Whether there is a column for blanks.
        blank: bool,
    },
    /// One column: the place of the category; NaN for a blank.
    Places {
        /// The categories in text order.
        categories: Vec<String>,
        /// The place of each.
        places: Vec<u32>,
        /// The place of all other categories.
        other: Option<u32>,
    },
}

impl Pipeline {
    /// The encoding that these training rows ask for.
    pub fn new(profile: &Profile, encoding: Encoding) -> Result<Self, WorkError> {
        if encoding == Encoding::Counts {
            check_counts(profile)?;
        }
        let fitted = Fitted { encoding, all: &profile.targets, places: &profile.places() };
        let columns = profile.features.iter().map(|feature| Encoded {
            name: feature.name.clone(),
            r#type: feature.r#type,
            code: fitted.code(feature),
        });
        let pipeline = Self { columns: columns.collect() };
        if pipeline.width() > 0 {
            return Ok(pipeline);
        }
        let mut why: Vec<String> = pipeline.ignored().map(|(name, why)| format!("'{name}' {why}")).collect();
        let more = why.len().saturating_sub(5);
        why.truncate(5);
        if more > 0 {
            why.push(format!("and {more} more"));
        }
        Err(WorkError::Input(format!("no feature can be learned from: {}", why.join("; "))))
    }

    /// The encoding of each feature, in the problem's order.
    pub fn columns(&self) -> &[Encoded] {
        &self.columns
    }

    /// How many encoded columns there are.
    pub fn width(&self) -> usize {
        self.columns.iter().map(|column| column.code.width()).sum()
    }

    /// The names of the encoded columns: `bill_length_mm`, `island=Biscoe`, `island=(other)`, `sex=(blank)`.
    pub fn names(&self) -> Vec<String> {
        self.columns.iter().flat_map(Encoded::names).collect()
    }

    /// Which feature an encoded column comes from; the number of features for a column that is not there.
    pub fn source(&self, encoded: usize) -> usize {
        let mut end = 0;
        let ends = self.columns.iter().map(|column| {
            end += column.code.width();
            end
        });
        ends.take_while(|end| *end <= encoded).count()
    }

    /// The features that are not used, and why.
    pub fn ignored(&self) -> impl Iterator<Item = (&str, &str)> {
        self.columns.iter().filter_map(|column| match &column.code {
            Code::Ignored { reason } => Some((column.name.as_str(), reason.as_str())),
            Code::Standard { .. } | Code::Number | Code::OneHot { .. } | Code::Places { .. } => None,
        })
    }

    /// The matrix of all rows of a batch. Its columns are found by name and must have the training table's types; others
    /// may stand beside them, in any order.
    pub fn encode(&self, batch: &RecordBatch) -> Result<Array2<f64>, WorkError> {
        self.encode_rows(batch, &(0..batch.num_rows()).collect::<Vec<_>>())
    }

    /// The matrix of some rows of a batch.
    pub(crate) fn encode_rows(&self, batch: &RecordBatch, rows: &[usize]) -> Result<Array2<f64>, WorkError> {
        let columns = self.columns.iter().enumerate().map(|(at, column)| match column.code {
            Code::Ignored { .. } => Ok(None),
            Code::Standard { .. } | Code::Number | Code::OneHot { .. } | Code::Places { .. } => {
                Values::near(batch, at, &column.name, column.r#type).map(Some)
            }
        });
        Ok(self.encode_values(&columns.collect::<Result<Vec<_>, _>>()?, rows))
    }

    /// Whether a batch has all columns, those that are ignored too, in their types.
    pub(crate) fn fits(&self, batch: &RecordBatch) -> bool {
        let fits =
            |(at, column): (usize, &Encoded)| Values::near(batch, at, &column.name, column.r#type).is_ok();
        self.columns.iter().enumerate().all(fits)
    }

    /// The matrix of the profile's sampled rows.
    pub(crate) fn encode_sample(&self, profile: &Profile) -> Array2<f64> {
        let sample = profile.sample();
        let columns: Vec<_> =
            (0..self.columns.len()).map(|i| Some(Values::Sampled(sample.cells(i)))).collect();
        self.encode_values(&columns, &(0..sample.rows().len()).collect::<Vec<_>>())
    }

    fn encode_values(&self, columns: &[Option<Values>], rows: &[usize]) -> Array2<f64> {
        let width = self.width();
        let mut x = Array2::zeros((rows.len(), width));
        let Some(cells) = x.as_slice_mut().filter(|_| width > 0) else { return x };
        // Rows are written column by column, so many at a time that they stay near.
        for (rows, cells) in rows.chunks(PANEL_ROWS).zip(cells.chunks_mut(PANEL_ROWS * width)) {
            let mut start = 0;
            for (column, values) in self.columns.iter().zip(columns) {
                if let Some(values) = values {
                    column.code.write(values, rows, |row, offset, value| {
                        cells[row * width + start + offset] = value;
                    });
                }
                start += column.code.width();
            }
        }
        x
    }
}

impl Encoded {
    fn names(&self) -> Vec<String> {
        match &self.code {
            Code::Ignored { .. } => Vec::new(),
            Code::Standard { .. } | Code::Number | Code::Places { .. } => vec![self.name.clone()],
            Code::OneHot { categories, other, blank } => {
                let extra = [("(other)", *other), ("(blank)", *blank)];
                let extra = extra.iter().filter(|(_, there)| *there).map(|(name, _)| *name);
                let values = categories.iter().map(String::as_str).chain(extra);
                values.map(|value| format!("{}={value}", self.name)).collect()
            }
        }
    }
}

impl Code {
    /// How many encoded columns it takes.
    pub fn width(&self) -> usize {
        match self {
            Self::Ignored { .. } => 0,
            Self::Standard { .. } | Self::Number | Self::Places { .. } => 1,
            Self::OneHot { categories, other, blank } => {
                categories.len() + usize::from(*other) + usize::from(*blank)
            }
        }
    }

    /// Sets what is not 0 of the encoded columns of at most [`PANEL_ROWS`] rows: the place among the rows, that among the columns, and the value.
    fn write(&self, values: &Values, rows: &[usize], mut set: impl FnMut(usize, usize, f64)) {
        match self {
            Self::Ignored { .. } => {}
            Self::Standard { mean, std } => {
                let mut numbers = [0.0; PANEL_ROWS];
                let numbers = &mut numbers[..rows.len()];
                values.numbers(rows, |row, value| numbers[row] = value);
                for value in numbers.iter_mut() {
                    *value = if value.is_nan() { 0.0 } else { (*value - mean) / std };
                }
                numbers.iter().enumerate().for_each(|(row, value)| set(row, 0, *value));
            }
            Self::Number => values.numbers(rows, |row, value| set(row, 0, value)),
            Self::OneHot { categories, other, blank } => {
                for (row, at) in rows.iter().enumerate() {
                    let place = match values.text(*at) {
                        Some(text) => find(categories, &text).or(other.then_some(categories.len())),
                        None => blank.then_some(categories.len() + usize::from(*other)),
                    };
                    if let Some(place) = place {
                        set(row, place, 1.0);
                    }
                }
            }
            Self::Places { categories, places, other } => {
                let known = |text: &str| find(categories, text).and_then(|i| places.get(i).copied());
                for (row, at) in rows.iter().enumerate() {
                    let place = values.text(*at).and_then(|text| known(&text).or(*other));
                    set(row, 0, place.map_or(f64::NAN, f64::from));
                }
            }
        }
    }
}

fn find(categories: &[String], text: &str) -> Option<usize> {
    categories.binary_search_by(|category| category.as_str().cmp(text)).ok()
}

/// Counts are not negative.
fn check_counts(profile: &Profile) -> Result<(), WorkError> {
    for feature in &profile.features {
        if let FeatureValues::Numbers(moments) = &feature.values
            && moments.min < 0.0
        {
            let (name, least) = (&feature.name, moments.min);
            return Err(WorkError::Input(format!(
                "the column '{name}' has negative numbers, the least is {least}, and this kind takes counts: leave the \
                 column out of the features, or choose another kind, as gaussian_nb"
            )));
        }
    }
    Ok(())
}

/// What the encoding of a feature depends on, beside the feature.
struct Fitted<'a> {
    encoding: Encoding,
    all: &'a Targets,
    places: &'a [u32],
}

impl Fitted<'_> {
    fn code(&self, feature: &Feature) -> Code {
        let ignored = |reason: &str| Code::Ignored { reason: reason.into() };
        let blanks = feature.blank.rows() > 0;
        match &feature.values {
            FeatureValues::FreeText => ignored("is free text"),
            FeatureValues::Numbers(moments) if moments.count == 0 => ignored("is blank"),
            FeatureValues::Categories(categories) if categories.is_empty() => ignored("is blank"),
            FeatureValues::Numbers(moments) => {
                let std = moments.std();
                match self.encoding {
                    Encoding::Codes if std == 0.0 && !blanks => ignored("is constant"),
                    Encoding::Codes => Code::Number,
                    Encoding::Dense | Encoding::Counts if std == 0.0 => ignored("is constant"),
                    Encoding::Dense | Encoding::Counts if !moments.is_finite() => {
                        ignored("is too large to compute with")
                    }
                    // The number as it is, and 0 for a blank.
                    Encoding::Counts => Code::Standard { mean: 0.0, std: 1.0 },
                    Encoding::Dense => Code::Standard { mean: moments.mean, std },
                }
            }
            FeatureValues::Categories(categories) => {
                let rows: u64 = categories.values().map(Targets::rows).sum();
                let distinct = categories.len();
                if distinct > MIN_IDENTIFIERS && distinct as u64 * 2 > rows {
                    return ignored("has a value of its own in most rows");
                }
                if distinct == 1 && !blanks {
                    return ignored("is constant");
                }
                match self.encoding {
                    Encoding::Dense | Encoding::Counts => {
                        let (kept, rest) = most_frequent(categories, MAX_ONE_HOT);
                        let categories = kept.into_keys().cloned().collect();
                        Code::OneHot { categories, other: !rest.is_empty(), blank: blanks }
                    }
                    Encoding::Codes => self.places(categories),
                }
            }
        }
    }

    /// Places by mean target, ties in text order with the others last.
    fn places(&self, categories: &BTreeMap<String, Targets>) -> Code {
        let (kept, rest) = most_frequent(categories, MAX_CODES);
        let mut pooled = self.all.empty();
        let same: Vec<u32> = (0..self.places.len() as u32).collect();
        rest.values().for_each(|targets| pooled.merge(targets, &same));
        let means = kept.values().copied().chain((!rest.is_empty()).then_some(&pooled)).map(|t| self.mean(t));
        let means: Vec<f64> = means.collect();
        let mut order: Vec<usize> = (0..means.len()).collect();
        order.sort_by(|a, b| means[*a].total_cmp(&means[*b]));
        let mut places = vec![0; order.len()];
        order.iter().enumerate().for_each(|(place, i)| places[*i] = place as u32);
        let other = if rest.is_empty() { None } else { places.pop() };
        Code::Places { categories: kept.into_keys().cloned().collect(), places, other }
    }

    fn mean(&self, targets: &Targets) -> f64 {
        let rows = targets.rows() as f64;
        (targets.mean(self.places) * rows + self.all.mean(self.places) * SMOOTHING) / (rows + SMOOTHING)
    }
}

type ByText<'a> = BTreeMap<&'a String, &'a Targets>;

/// The categories with the most rows, ties in text order, and the rest.
fn most_frequent(categories: &BTreeMap<String, Targets>, most: usize) -> (ByText<'_>, ByText<'_>) {
    let mut all: Vec<_> = categories.iter().collect();
    all.sort_by_key(|(_, targets)| std::cmp::Reverse(targets.rows()));
    let rest = all.split_off(most.min(all.len()));
    (all.into_iter().collect(), rest.into_iter().collect())
}

#[cfg(test)]
mod tests;
