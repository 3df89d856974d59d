//! The preparation of a training: statistics of the training rows that merge, from which every model's preprocessing is
//! made ([`crate::pipeline`]), so that the table is read for them once.
//!
//! A unit makes the [`Profile`] of some chunks, the fold merges the profiles in order and checks that there is something
//! to learn. Rows kept for testing and rows whose target is blank do not count.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
};

use arrow_array::RecordBatch;
use dml_core::{ColumnType, Dataset, Split, Task, dataset::MAX_DISTINCT, job::Problem};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

mod moments;
mod sample;
mod values;

use crate::error::WorkError;
pub(crate) use moments::Target;
pub use moments::{Moments, Targets};
use sample::Sample;
pub(crate) use values::{Values, is_number};

/// The greatest number of classes.
pub const MAX_CLASSES: usize = 1000;

/// The longest category in bytes: a column with a longer text is free text, and no feature.
pub const MAX_CATEGORY_BYTES: usize = 256;

/// What is known of the training rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// What is learned.
    pub task: Task,
    /// The column to predict.
    pub target: String,
    /// The target's type.
    pub target_type: ColumnType,
    /// The target in all training rows.
    pub targets: Targets,
    /// The features, in the problem's order.
    pub features: Vec<Feature>,
    /// The code of each label.
    labels: BTreeMap<String, u32>,
    sample: Sample,
}

/// What is known of a feature.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Feature {
    /// The column's name.
    pub name: String,
    /// The column's type.
    pub r#type: ColumnType,
    /// The target in the rows where the feature is blank.
    pub blank: Targets,
    /// What its values are like.
    pub values: FeatureValues,
}

/// What the values of a feature are like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FeatureValues {
    /// A number, a date or an instant.
    Numbers(Moments),
    /// Text or boolean: the target in the rows of each category.
    Categories(BTreeMap<String, Targets>),
    /// Text with more categories than are counted, or with longer ones.
    FreeText,
}

impl Profile {
    /// The profile of no rows. `split` tells about how many there will be, and `seed` chooses the sample.
    pub fn new(dataset: &Dataset, problem: &Problem, split: &Split, seed: u64) -> Result<Self, WorkError> {
        let column = |name: &str| {
            let missing = || WorkError::Input(format!("the dataset has no column '{name}'"));
            dataset.column(name).ok_or_else(missing)
        };
        let target = column(&problem.target)?;
        let target_type = target.r#type;
        let rows = dataset.rows.saturating_sub(target.nulls) as f64 * split.training_share();
        let fits = match problem.task {
            Task::Regression => target_type.is_numeric(),
            Task::Classification => !matches!(target_type, ColumnType::Date | ColumnType::DateTime),
        };
        if !fits {
            let (target, r#type) = (&problem.target, target_type.name());
            return Err(WorkError::Input(match problem.task {
                Task::Regression => {
                    format!("regression needs a numeric target, and '{target}' is {}", r#type)
                }
                Task::Classification => format!("classes cannot be told by '{target}', which is {}", r#type),
            }));
        }
        let targets = match problem.task {
            Task::Regression => Targets::Numbers(Moments::default()),
            Task::Classification => Targets::Classes(BTreeMap::new()),
        };
        let features = problem.features.iter().map(|name| {
            let r#type = column(name)?.r#type;
            let values = match is_number(r#type) {
                true => FeatureValues::Numbers(Moments::default()),
                false => FeatureValues::Categories(BTreeMap::new()),
            };
            Ok(Feature { name: name.clone(), r#type, blank: targets.empty(), values })
        });
        let features = features.collect::<Result<Vec<Feature>, WorkError>>()?;
        let sample = Sample::new(seed, rows, features.iter().map(|feature| is_number(feature.r#type)));
        Ok(Self {
            task: problem.task,
            target: problem.target.clone(),
            target_type,
            features,
            targets,
            labels: BTreeMap::new(),
            sample,
        })
    }

    /// Takes the training rows of a chunk whose first row has the number `first` in the dataset.
    pub fn add(&mut self, batch: &RecordBatch, first: u64, split: &Split) -> Result<(), WorkError> {
        let target = Values::of(batch, &self.target, self.target_type)?;
        let columns = self.features.iter().map(|feature| Values::of(batch, &feature.name, feature.r#type));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let training = (0..batch.num_rows()).filter(|i| !split.is_test(first + *i as u64));
        let mut rows: Vec<usize> = training.collect();
        let mut y = Vec::with_capacity(rows.len());
        match self.task {
            Task::Regression => target.numbers(&rows, |_, value| y.push(value)),
            Task::Classification => y = target.labels(&rows, |label| self.code_of(label).map(f64::from))?,
        }
        let mut blank = y.iter().map(|value| value.is_nan());
        rows.retain(|_| !blank.next().unwrap_or(true));
        y.retain(|value| !value.is_nan());
        self.targets.add(&self.targets.of(&y));
        // A column depends on no other, so each goes through its rows by itself.
        self.features
            .par_iter_mut()
            .zip(&columns)
            .for_each(|(feature, values)| feature.add(values, &rows, &y));
        let task = self.task;
        self.sample.take(first, &rows, &columns, |at| match task {
            Task::Regression => Target::Number(y[at]),
            Task::Classification => Target::Class(y[at] as u32),
        });
        Ok(())
    }

    fn code_of(&mut self, label: &str) -> Result<u32, WorkError> {
        if let Some(code) = self.labels.get(label) {
            return Ok(*code);
        }
        if self.labels.len() >= MAX_CLASSES {
            let target = &self.target;
            return Err(WorkError::Input(format!(
                "the target '{target}' has more than {MAX_CLASSES} classes"
            )));
        }
        let code = self.labels.len() as u32;
        self.labels.insert(label.into(), code);
        Ok(code)
    }

    /// Takes the rows of another part of the same table, which comes after this one.
    pub fn merge(&mut self, other: Self) -> Result<(), WorkError> {
        if self.features.len() != other.features.len() {
            return Err(corrupt("two parts have different features"));
        }
        let mut theirs: Vec<(String, u32)> = other.labels.into_iter().collect();
        theirs.sort_unstable_by_key(|(_, code)| *code);
        let codes = theirs.iter().map(|(label, _)| self.code_of(label)).collect::<Result<Vec<_>, _>>()?;
        self.targets.merge(&other.targets, &codes);
        for (mine, theirs) in self.features.iter_mut().zip(other.features) {
            mine.merge(theirs, &codes);
        }
        self.sample.merge(other.sample, &codes);
        Ok(())
    }

    /// Whether there is something to learn.
    pub fn check(&self) -> Result<(), WorkError> {
        let target = &self.target;
        let refuse = |why: String| Err(WorkError::Input(why));
        if self.rows() == 0 {
            return refuse(format!(
                "there are no training rows: none that is not for testing has a '{target}'"
            ));
        }
        match &self.targets {
            Targets::Numbers(moments) if moments.min == moments.max => {
                refuse(format!("the target '{target}' is {} in every training row", moments.min))
            }
            Targets::Numbers(moments) if !moments.is_finite() => {
                refuse(format!("the values of the target '{target}' are too large to compute with"))
            }
            Targets::Classes(_) if self.labels.len() == 1 => {
                let label = self.labels.keys().next().map_or("", String::as_str);
                refuse(format!("the target '{target}' is '{label}' in every training row"))
            }
            Targets::Numbers(_) | Targets::Classes(_) => Ok(()),
        }
    }

    /// How many training rows there are.
    pub fn rows(&self) -> u64 {
        self.targets.rows()
    }

    /// The classes in their final order: by number if all are whole numbers, else by text. None for regression.
    pub fn classes(&self) -> Vec<String> {
        order_classes(self.labels.keys().cloned().collect())
    }

    /// How many training rows each of [`Profile::classes`] has.
    pub fn class_rows(&self) -> Vec<u64> {
        let mut rows = vec![0; self.labels.len()];
        if let Targets::Classes(by_code) = &self.targets {
            for (code, place) in self.places().into_iter().enumerate() {
                rows[place as usize] = by_code.get(&(code as u32)).copied().unwrap_or(0);
            }
        }
        rows
    }

    /// The place of each code in [`Profile::classes`].
    pub(crate) fn places(&self) -> Vec<u32> {
        let mut places = vec![0; self.labels.len()];
        for (place, label) in self.classes().iter().enumerate() {
            places[self.labels[label] as usize] = place as u32;
        }
        places
    }

    /// The sampled rows.
    pub(crate) fn sample(&self) -> &Sample {
        &self.sample
    }

    /// As it is stored.
    pub fn to_bytes(&self) -> Vec<u8> {
        postcard::to_allocvec(self).expect("a profile is plain data")
    }

    /// From what [`Profile::to_bytes`] gave.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, WorkError> {
        let profile: Self = postcard::from_bytes(bytes).map_err(|error| corrupt(&error.to_string()))?;
        let codes = profile.labels.len() as u32;
        let coded = profile.labels.values().all(|code| *code < codes);
        if coded && profile.sample.is_whole(profile.features.len()) {
            Ok(profile)
        } else {
            Err(corrupt("its parts contradict each other"))
        }
    }
}

/// Each class once, by number if all are whole numbers, else by text.
pub(crate) fn order_classes(classes: BTreeSet<String>) -> Vec<String> {
    let numbers = classes.iter().map(|label| label.parse::<i64>().map(|number| (number, label.clone())));
    match numbers.collect::<Result<BTreeSet<_>, _>>() {
        Ok(numbers) => numbers.into_iter().map(|(_, label)| label).collect(),
        Err(_) => classes.into_iter().collect(),
    }
}

fn corrupt(why: &str) -> WorkError {
    WorkError::Corrupt { what: "a profile of training rows", why: why.into() }
}

impl Feature {
    /// Takes some rows and their targets.
    fn add(&mut self, values: &Values, rows: &[usize], y: &[f64]) {
        match &mut self.values {
            FeatureValues::Numbers(moments) => {
                let mut numbers = Vec::with_capacity(rows.len());
                values.numbers(rows, |_, number| numbers.push(number));
                if numbers.iter().any(|number| number.is_nan()) {
                    let blank = numbers.iter().zip(y).filter(|(number, _)| number.is_nan());
                    self.blank.add(&self.blank.of(&blank.map(|(_, y)| *y).collect::<Vec<_>>()));
                    numbers.retain(|number| !number.is_nan());
                }
                moments.merge(&Moments::of(&numbers));
            }
            FeatureValues::Categories(_) | FeatureValues::FreeText => self.add_texts(values, rows, y),
        }
    }

    fn add_texts(&mut self, values: &Values, rows: &[usize], y: &[f64]) {
        // The targets of each text, in the order in which texts appear.
        let (mut places, mut texts, mut blank) =
            (HashMap::new(), Vec::<(Cow<str>, Vec<f64>)>::new(), Vec::new());
        let mut is_free = matches!(self.values, FeatureValues::FreeText);
        for (row, y) in rows.iter().zip(y) {
            match values.text(*row) {
                None => blank.push(*y),
                Some(_) if is_free => {}
                Some(text) => {
                    let place = *places.entry(text.clone()).or_insert(texts.len());
                    if place == texts.len() {
                        is_free = text.len() > MAX_CATEGORY_BYTES || place == MAX_DISTINCT;
                        texts.push((text, Vec::new()));
                    }
                    texts[place].1.push(*y);
                }
            }
        }
        self.blank.add(&self.blank.of(&blank));
        if let FeatureValues::Categories(categories) = &mut self.values {
            for (text, y) in texts {
                categories
                    .entry(text.into_owned())
                    .or_insert_with(|| self.blank.empty())
                    .add(&self.blank.of(&y));
            }
            if is_free || categories.len() > MAX_DISTINCT {
                self.values = FeatureValues::FreeText;
            }
        }
    }

    fn merge(&mut self, other: Self, codes: &[u32]) {
        self.blank.merge(&other.blank, codes);
        match (&mut self.values, other.values) {
            (FeatureValues::Numbers(mine), FeatureValues::Numbers(theirs)) => mine.merge(&theirs),
            (FeatureValues::Categories(mine), FeatureValues::Categories(theirs)) => {
                for (text, targets) in theirs {
                    mine.entry(text).or_insert_with(|| self.blank.empty()).merge(&targets, codes);
                }
                if mine.len() > MAX_DISTINCT {
                    self.values = FeatureValues::FreeText;
                }
            }
            (mine, _) => *mine = FeatureValues::FreeText,
        }
    }
}

#[cfg(test)]
mod tests;
