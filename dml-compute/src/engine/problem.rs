//! Early refusals: what the columns' statistics already tell of a training that cannot succeed, said before any work is
//! planned. What only the rows tell (a class that the split leaves no training row of) is for [`crate::prepare`].

use dml_core::{Column, ColumnType, Dataset, Summary, Task, job::Problem};

use crate::{
    learner::Shape,
    prepare::MAX_CLASSES,
    registry::{did_you_mean, nearest},
};

/// The fewest rows with a target that a training takes.
pub const MIN_ROWS: u64 = 10;

/// Why a training is refused, by what its user can do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProblemError {
    /// The dataset has no such column to predict.
    #[error("there is no column '{target}' to predict; the columns are {known}{}", did_you_mean(near))]
    TargetMissing {
        /// The column asked for.
        target: String,
        /// What there is.
        known: String,
        /// What may have been meant.
        near: Option<String>,
    },
    /// The target is blank in every row.
    #[error("the target '{target}' is blank in every row")]
    TargetBlank {
        /// The column.
        target: String,
    },
    /// The target has one value.
    #[error("the target '{target}' is {value} in every row: there is nothing to learn")]
    TargetConstant {
        /// The column.
        target: String,
        /// Its value.
        value: String,
    },
    /// Regression needs a number.
    #[error("the target '{target}' is {type_name}, and regression needs a number{advice}")]
    TargetNotNumeric {
        /// The column.
        target: String,
        /// Its type.
        type_name: &'static str,
        /// What to do instead.
        advice: &'static str,
    },
    /// A date or an instant is neither a number nor a class.
    #[error("the target '{target}' is {type_name}, which can be neither a class nor a number to predict")]
    TargetNotClasses {
        /// The column.
        target: String,
        /// Its type.
        type_name: &'static str,
    },
    /// There are too few rows for so many classes.
    #[error("the target '{target}' has {classes} distinct values in {rows} rows: too many classes{advice}")]
    TooManyClasses {
        /// The column.
        target: String,
        /// How many there are.
        classes: String,
        /// In how many rows.
        rows: u64,
        /// What to do instead.
        advice: &'static str,
    },
    /// A class cannot be both learned and tested.
    #[error(
        "the class '{class}' of '{target}' has only one row: add rows of that class, or leave that row out"
    )]
    ClassWithOneRow {
        /// The column.
        target: String,
        /// The class.
        class: String,
    },
    /// Nothing to predict from.
    #[error("there is no column to predict '{target}' from")]
    NoFeatures {
        /// The target.
        target: String,
    },
    /// The dataset has no such column to predict from.
    #[error("there is no column '{feature}' to predict from; the columns are {known}{}", did_you_mean(near))]
    FeatureMissing {
        /// The column asked for.
        feature: String,
        /// What there is.
        known: String,
        /// What may have been meant.
        near: Option<String>,
    },
    /// A column cannot be predicted from itself.
    #[error("the target '{target}' is among the features")]
    TargetAmongFeatures {
        /// The column.
        target: String,
    },
    /// Too little to learn from.
    #[error("only {rows} rows have a '{target}': a training needs {MIN_ROWS}")]
    TooFewRows {
        /// The target.
        target: String,
        /// How many rows have one.
        rows: u64,
    },
}

impl ProblemError {
    /// The stable word for it in answers of the API.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TargetMissing { .. } => "target-missing",
            Self::TargetBlank { .. } => "target-blank",
            Self::TargetConstant { .. } => "target-constant",
            Self::TargetNotNumeric { .. } => "target-not-numeric",
            Self::TargetNotClasses { .. } => "target-not-classes",
            Self::TooManyClasses { .. } => "too-many-classes",
            Self::ClassWithOneRow { .. } => "class-with-one-row",
            Self::NoFeatures { .. } => "no-features",
            Self::FeatureMissing { .. } => "feature-missing",
            Self::TargetAmongFeatures { .. } => "target-among-features",
            Self::TooFewRows { .. } => "too-few-rows",
        }
    }

    /// The column at fault.
    pub fn column(&self) -> &str {
        match self {
            Self::FeatureMissing { feature, .. } => feature,
            Self::TargetMissing { target, .. }
            | Self::TargetBlank { target }
            | Self::TargetConstant { target, .. }
            | Self::TargetNotNumeric { target, .. }
            | Self::TargetNotClasses { target, .. }
            | Self::TooManyClasses { target, .. }
            | Self::ClassWithOneRow { target, .. }
            | Self::NoFeatures { target }
            | Self::TargetAmongFeatures { target }
            | Self::TooFewRows { target, .. } => target,
        }
    }
}

/// What a target's type suggests: numbers are to be estimated, all else to be told apart.
pub fn suggested_task(target: ColumnType) -> Task {
    match target {
        ColumnType::Text | ColumnType::Boolean => Task::Classification,
        ColumnType::Integer | ColumnType::Float | ColumnType::Date | ColumnType::DateTime => Task::Regression,
    }
}

/// What is to be learned, if the columns' statistics allow it. Without named features, all columns but the target are.
pub fn check_problem(
    dataset: &Dataset,
    task: Task,
    target: &str,
    features: Option<&[String]>,
) -> Result<Problem, ProblemError> {
    let Some(column) = dataset.column(target) else {
        let (known, near) = columns(dataset, target);
        return Err(ProblemError::TargetMissing { target: target.into(), known, near });
    };
    let chosen = |column: &&Column| match features {
        None => column.name != target,
        Some(names) => names.contains(&column.name),
    };
    if let Some(names) = features {
        if names.iter().any(|name| name == target) {
            return Err(ProblemError::TargetAmongFeatures { target: target.into() });
        }
        if let Some(feature) = names.iter().find(|name| dataset.column(name).is_none()) {
            let (known, near) = columns(dataset, feature);
            return Err(ProblemError::FeatureMissing { feature: feature.clone(), known, near });
        }
    }
    let features: Vec<String> =
        dataset.columns.iter().filter(chosen).map(|column| column.name.clone()).collect();
    if features.is_empty() {
        return Err(ProblemError::NoFeatures { target: target.into() });
    }
    check_target(column, task, dataset.rows - column.nulls.min(dataset.rows))?;
    Ok(Problem { task, dataset: dataset.id(), target: target.into(), features })
}

fn check_target(column: &Column, task: Task, rows: u64) -> Result<(), ProblemError> {
    let target = column.name.clone();
    let type_name = column.r#type.name();
    let counts = match &column.summary {
        Summary::Blank => return Err(ProblemError::TargetBlank { target }),
        Summary::Numeric { counts, .. } => counts,
        Summary::Categories { top, .. } => top,
    };
    match (task, column.r#type) {
        (Task::Regression, ColumnType::Integer | ColumnType::Float) => {}
        (Task::Regression, ColumnType::Boolean | ColumnType::Text) => {
            let advice = "; use classification for it";
            return Err(ProblemError::TargetNotNumeric { target, type_name, advice });
        }
        (Task::Regression, ColumnType::Date | ColumnType::DateTime) => {
            let advice = "; write it as a number, of days for instance";
            return Err(ProblemError::TargetNotNumeric { target, type_name, advice });
        }
        (Task::Classification, ColumnType::Date | ColumnType::DateTime) => {
            return Err(ProblemError::TargetNotClasses { target, type_name });
        }
        (Task::Classification, _) => {}
    }
    if let [only] = counts.as_slice() {
        return Err(ProblemError::TargetConstant { target, value: only.value.clone() });
    }
    if rows < MIN_ROWS {
        return Err(ProblemError::TooFewRows { target, rows });
    }
    if task == Task::Regression {
        return Ok(());
    }
    let (classes, known) = classes(column);
    let numeric = column.r#type.is_numeric();
    let real = column.r#type == ColumnType::Float && counts.is_empty();
    if classes > MAX_CLASSES as u64 || known && classes * 2 > rows || real {
        let advice = if numeric { "; use regression to predict a number" } else { "" };
        let classes =
            if known { classes.to_string() } else { format!("more than {}", dml_core::dataset::MAX_COUNTS) };
        return Err(ProblemError::TooManyClasses { target, classes, rows, advice });
    }
    match counts.iter().find(|count| count.rows == 1) {
        Some(count) => Err(ProblemError::ClassWithOneRow { target, class: count.value.clone() }),
        None => Ok(()),
    }
}

/// How many classes a target has at most, and whether that is their number.
fn classes(column: &Column) -> (u64, bool) {
    match &column.summary {
        Summary::Blank => (0, true),
        Summary::Categories { distinct: Some(distinct), .. } => (*distinct, true),
        Summary::Categories { distinct: None, .. } => (dml_core::dataset::MAX_DISTINCT as u64 + 1, false),
        Summary::Numeric { counts, .. } if !counts.is_empty() => (counts.len() as u64, true),
        Summary::Numeric { min, max, .. } => ((max - min + 1.0).clamp(0.0, MAX_CLASSES as f64) as u64, false),
    }
}

/// What is known of a problem's table before it is read.
pub fn shape(dataset: &Dataset, problem: &Problem) -> Shape {
    let classes = match problem.task {
        Task::Regression => 0,
        Task::Classification => dataset
            .column(&problem.target)
            .map_or(0, |column| classes(column).0.min(MAX_CLASSES as u64) as usize),
    };
    Shape { rows: dataset.rows, columns: problem.features.len(), chunks: dataset.chunks.len(), classes }
}

/// The columns there are, and the one that may have been meant.
fn columns(dataset: &Dataset, name: &str) -> (String, Option<String>) {
    let names = || dataset.columns.iter().map(|column| column.name.as_str());
    let mut known: Vec<&str> = names().take(20).collect();
    let more = format!("{} more", dataset.columns.len().saturating_sub(20));
    if dataset.columns.len() > known.len() {
        known.push(&more);
    }
    (known.join(", "), nearest(name, names()).map(Into::into))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dml_core::dataset::Count;

    fn counts(all: &[(&str, u64)]) -> Vec<Count> {
        all.iter().map(|(value, rows)| Count { value: (*value).into(), rows: *rows }).collect()
    }

    fn text(all: &[(&str, u64)]) -> Summary {
        Summary::Categories { distinct: Some(all.len() as u64), top: counts(all) }
    }

    fn number(all: &[(&str, u64)]) -> Summary {
        Summary::Numeric { min: 0.0, max: 99.0, mean: 5.0, std: 1.0, counts: counts(all) }
    }

    fn dataset(rows: u64) -> Dataset {
        let column =
            |name: &str, r#type, nulls, summary| Column { name: name.into(), r#type, nulls, summary };
        let columns = vec![
            column("id", ColumnType::Text, 0, Summary::Categories { distinct: None, top: Vec::new() }),
            column("price", ColumnType::Float, 0, number(&[])),
            column("rooms", ColumnType::Integer, 0, number(&[("2", 9), ("10", rows - 9)])),
            column("colour", ColumnType::Text, 0, text(&[("red", 11), ("green", 9)])),
            column("odd", ColumnType::Text, 0, text(&[("a", 19), ("b", 1)])),
            column("same", ColumnType::Integer, 0, number(&[("7", rows)])),
            column("nothing", ColumnType::Text, rows, Summary::Blank),
            column("day", ColumnType::Date, 0, number(&[])),
            column("few", ColumnType::Text, rows - 3, text(&[("a", 2), ("b", 1)])),
        ];
        Dataset { rows, columns, chunks: Vec::new() }
    }

    fn refusal(task: Task, target: &str, features: Option<&[&str]>) -> (&'static str, String) {
        let features = features.map(|names| names.iter().map(|name| (*name).to_string()).collect::<Vec<_>>());
        let error = check_problem(&dataset(20), task, target, features.as_deref()).unwrap_err();
        assert_eq!(error.column(), target);
        (error.code(), error.to_string())
    }

    #[test]
    fn each_refusal_has_its_word() {
        use Task::{Classification, Regression};
        for (task, target, code) in [
            (Regression, "pric", "target-missing"),
            (Regression, "nothing", "target-blank"),
            (Regression, "same", "target-constant"),
            (Classification, "same", "target-constant"),
            (Regression, "colour", "target-not-numeric"),
            (Regression, "day", "target-not-numeric"),
            (Classification, "day", "target-not-classes"),
            (Classification, "id", "too-many-classes"),
            (Classification, "price", "too-many-classes"),
            (Classification, "odd", "class-with-one-row"),
            (Classification, "few", "too-few-rows"),
        ] {
            assert_eq!(refusal(task, target, None).0, code, "{target}");
        }
        assert!(refusal(Regression, "pric", None).1.ends_with("Did you mean 'price'?"));
        assert!(refusal(Classification, "odd", None).1.contains("'b'"));
        assert_eq!(refusal(Regression, "price", Some(&[])).0, "no-features");
        assert_eq!(refusal(Regression, "price", Some(&["price"])).0, "target-among-features");
        let names = ["prise".to_string()];
        let error = check_problem(&dataset(20), Regression, "price", Some(&names)).unwrap_err();
        assert_eq!((error.code(), error.column()), ("feature-missing", "prise"));
    }

    #[test]
    fn features_are_in_the_datasets_order_and_without_the_target() {
        let table = dataset(20);
        let names = ["colour".to_string(), "price".to_string(), "colour".to_string()];
        let problem = check_problem(&table, Task::Classification, "rooms", Some(&names)).unwrap();
        assert_eq!(problem.features, ["price", "colour"]);
        assert_eq!(shape(&table, &problem).classes, 2);
        let problem = check_problem(&table, Task::Regression, "price", None).unwrap();
        assert_eq!(problem.features.len(), table.columns.len() - 1);
        assert_eq!((problem.dataset, shape(&table, &problem).classes), (table.id(), 0));
    }
}
