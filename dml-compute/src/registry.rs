//! The kinds of models by name. A [`Learner`]'s states, partials and models are its own types; behind [`AnyLearner`] they
//! are bytes (postcard), so that jobs of any kind are computed, stored and sent alike.

use std::collections::BTreeMap;

use dml_core::{Params, Plan, Task};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    error::WorkError,
    kind::{Kind, ParamError},
    learner::{Fit, Folded, Learner, Predict, Shape},
    learners,
};

/// A learner whose values are bytes.
pub trait AnyLearner: Send + Sync {
    /// Its name, tasks, parameters and properties.
    fn kind(&self) -> Kind;

    /// How a fit on such a table is cut.
    fn plan(&self, params: &Params, shape: &Shape) -> Plan;

    /// One unit of a round. Without a state it is the first round's.
    fn unit(&self, fit: &Fit, round: u32, index: u32, state: Option<&[u8]>) -> Result<Vec<u8>, WorkError>;

    /// The end of a round: the partials of all its units, in index order.
    fn fold(
        &self,
        fit: &Fit,
        round: u32,
        state: Option<&[u8]>,
        partials: &[Vec<u8>],
    ) -> Result<Folded<Vec<u8>, Vec<u8>>, WorkError>;

    /// The model if the fit ended with this state: see [`Learner::so_far`].
    fn so_far(&self, fit: &Fit, state: &[u8]) -> Result<Option<Vec<u8>>, WorkError>;

    /// Whether a fit has a model after each round: see [`Learner::is_gradual`].
    fn is_gradual(&self) -> bool;

    /// The model that a fold gave.
    fn load(&self, model: &[u8]) -> Result<Box<dyn AnyModel>, WorkError>;
}

/// A model that is ready to predict.
pub trait AnyModel: Predict {
    /// All that it consists of, to be read.
    fn json(&self) -> Result<serde_json::Value, WorkError>;
}

/// Why a kind or its parameters were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KindError {
    /// There is no such kind.
    #[error("unknown kind '{name}'; there are {known}{}", did_you_mean(near))]
    Unknown {
        /// What was written.
        name: String,
        /// What there is.
        known: String,
        /// What may have been meant.
        near: Option<String>,
    },
    /// The kind cannot do the task.
    #[error("{kind} does no {task}; kinds that do are {known}")]
    Task {
        /// The kind.
        kind: &'static str,
        /// The task.
        task: &'static str,
        /// What there is for it.
        known: String,
    },
    /// A parameter is at fault.
    #[error(transparent)]
    Param(#[from] ParamError),
    /// A kind of this name is there already.
    #[error("there is a kind '{0}' already")]
    Taken(&'static str),
}

impl KindError {
    /// The stable word for it in answers of the API.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unknown { .. } => "kind-unknown",
            Self::Task { .. } => "kind-task",
            Self::Param(ParamError::Unknown { .. }) => "param-unknown",
            Self::Param(ParamError::Value { .. }) => "param-value",
            Self::Taken(_) => "kind-taken",
        }
    }
}

/// The kinds that can be trained.
pub struct Registry {
    learners: BTreeMap<&'static str, Box<dyn AnyLearner>>,
}

impl Default for Registry {
    /// The kinds that come with DML.
    fn default() -> Self {
        let mut registry = Self::empty();
        let built_in: [Box<dyn AnyLearner>; 21] = [
            Box::new(Erased(learners::linear::Linear)),
            Box::new(Erased(learners::ridge::Ridge)),
            Box::new(Erased(learners::lasso::Lasso)),
            Box::new(Erased(learners::elastic_net::ElasticNet)),
            Box::new(Erased(learners::glm::GLM)),
            Box::new(Erased(learners::linear_svr::LINEAR_SVR)),
            Box::new(Erased(learners::ridge_classifier::RidgeClassifier)),
            Box::new(Erased(learners::linear_svm::LINEAR_SVM)),
            Box::new(Erased(learners::bernoulli_nb::BernoulliNb)),
            Box::new(Erased(learners::multinomial_nb::MultinomialNb)),
            Box::new(Erased(learners::sgd_classifier::SGD_CLASSIFIER)),
            Box::new(Erased(learners::sgd_regressor::SGD_REGRESSOR)),
            Box::new(Erased(learners::knn_classifier::KnnClassifier)),
            Box::new(Erased(learners::knn_regressor::KnnRegressor)),
            Box::new(Erased(learners::logistic::LOGISTIC)),
            Box::new(Erased(learners::gaussian_nb::GaussianNb)),
            Box::new(Erased(learners::linfa_linear::LinfaLinear)),
            Box::new(Erased(learners::decision_tree::DecisionTree)),
            Box::new(Erased(learners::random_forest::RANDOM_FOREST)),
            Box::new(Erased(learners::extra_trees::EXTRA_TREES)),
            Box::new(Erased(learners::gradient_boosting::GradientBoosting)),
        ];
        registry.learners.extend(built_in.into_iter().map(|learner| (learner.kind().name, learner)));
        registry
    }
}

impl Registry {
    /// No kinds at all: a start for those who want none but their own.
    pub fn empty() -> Self {
        Self { learners: BTreeMap::new() }
    }

    /// The kinds whose fits can be given up early: see [`Learner::is_gradual`].
    pub fn gradual(&self) -> Vec<Kind> {
        self.learners.values().filter(|learner| learner.is_gradual()).map(|learner| learner.kind()).collect()
    }

    /// Adds a kind of one's own, whose name must be new.
    pub fn add(&mut self, learner: impl Learner) -> Result<(), KindError> {
        let name = learner.kind().name;
        if self.learners.contains_key(name) {
            return Err(KindError::Taken(name));
        }
        self.learners.insert(name, Box::new(Erased(learner)));
        Ok(())
    }

    /// The learner of that name.
    pub fn get(&self, name: &str) -> Result<&dyn AnyLearner, KindError> {
        let unknown = || KindError::Unknown {
            name: name.into(),
            known: list(self.kinds().iter()),
            near: nearest(name, self.learners.keys().copied()).map(Into::into),
        };
        self.learners.get(name).map(Box::as_ref).ok_or_else(unknown)
    }

    /// All kinds: those trained by default first, then by name.
    pub fn kinds(&self) -> Vec<Kind> {
        let mut kinds: Vec<Kind> = self.learners.values().map(|learner| learner.kind()).collect();
        kinds.sort_by_key(|kind| !kind.default);
        kinds
    }

    /// The kinds that are trained when none is named.
    pub fn defaults(&self, task: Task) -> Vec<Kind> {
        self.kinds().into_iter().filter(|kind| kind.default && kind.tasks.contains(&task)).collect()
    }

    /// The complete parameters of a kind, if it can do the task and they are valid.
    pub fn check(&self, kind: &str, task: Task, params: &Params) -> Result<Params, KindError> {
        let kind = self.get(kind)?.kind();
        if !kind.tasks.contains(&task) {
            let task_name = match task {
                Task::Regression => "regression",
                Task::Classification => "classification",
            };
            let known = list(self.kinds().iter().filter(|kind| kind.tasks.contains(&task)));
            return Err(KindError::Task { kind: kind.name, task: task_name, known });
        }
        Ok(kind.check(params)?)
    }
}

fn list<'a>(kinds: impl Iterator<Item = &'a Kind>) -> String {
    kinds.map(|kind| kind.name).collect::<Vec<_>>().join(", ")
}

/// A question to add to a message.
pub(crate) fn did_you_mean(near: &Option<String>) -> String {
    near.as_ref().map_or_else(String::new, |near| format!(". Did you mean '{near}'?"))
}

/// The candidate that is fewest edits away, letter case aside, if that is at most a third of the word's letters.
pub(crate) fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<char> = word.chars().take(100).flat_map(char::to_lowercase).collect();
    let within = word.len().div_ceil(3);
    let distances = candidates.take(10_000).map(|candidate| (edits(&word, candidate), candidate));
    distances.filter(|(distance, _)| *distance <= within).min().map(|(_, candidate)| candidate)
}

/// How many letters must be put in, left out or changed (Levenshtein 1966), by Wagner and Fischer's table (1974).
fn edits(word: &[char], other: &str) -> usize {
    let mut row: Vec<usize> = (0..=word.len()).collect();
    for (i, b) in other.chars().take(100).flat_map(char::to_lowercase).enumerate() {
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for (j, a) in word.iter().enumerate() {
            let change = corner + usize::from(*a != b);
            corner = row[j + 1];
            row[j + 1] = change.min(corner + 1).min(row[j] + 1);
        }
    }
    row[word.len()]
}

/// A learner behind bytes.
struct Erased<L>(L);

impl<L: Learner> Erased<L> {
    fn state(&self, fit: &Fit, state: Option<&[u8]>) -> Result<L::State, WorkError> {
        state.map_or_else(|| self.0.start(fit), |bytes| read("the state of a fit", bytes))
    }
}

impl<L: Learner> AnyLearner for Erased<L> {
    fn kind(&self) -> Kind {
        self.0.kind()
    }

    fn plan(&self, params: &Params, shape: &Shape) -> Plan {
        self.0.plan(params, shape)
    }

    fn unit(&self, fit: &Fit, round: u32, index: u32, state: Option<&[u8]>) -> Result<Vec<u8>, WorkError> {
        write(&self.0.unit(fit, round, index, &self.state(fit, state)?)?)
    }

    fn fold(
        &self,
        fit: &Fit,
        round: u32,
        state: Option<&[u8]>,
        partials: &[Vec<u8>],
    ) -> Result<Folded<Vec<u8>, Vec<u8>>, WorkError> {
        let partials =
            partials.iter().map(|bytes| read("a part of a fit", bytes)).collect::<Result<_, _>>()?;
        Ok(match self.0.fold(fit, round, self.state(fit, state)?, partials)? {
            Folded::Next(state) => Folded::Next(write(&state)?),
            Folded::Done(model) => Folded::Done(write(&model)?),
        })
    }

    fn so_far(&self, fit: &Fit, state: &[u8]) -> Result<Option<Vec<u8>>, WorkError> {
        self.0.so_far(fit, self.state(fit, Some(state))?).as_ref().map(write).transpose()
    }

    fn is_gradual(&self) -> bool {
        self.0.is_gradual()
    }

    fn load(&self, model: &[u8]) -> Result<Box<dyn AnyModel>, WorkError> {
        Ok(Box::new(read::<L::Model>("the learner's part of a model", model)?))
    }
}

impl<M: Predict + Serialize> AnyModel for M {
    fn json(&self) -> Result<serde_json::Value, WorkError> {
        let unreadable =
            |error: serde_json::Error| WorkError::Corrupt { what: "a model", why: error.to_string() };
        serde_json::to_value(self).map_err(unreadable)
    }
}

fn write<T: Serialize>(value: &T) -> Result<Vec<u8>, WorkError> {
    let unwritable = |error: postcard::Error| WorkError::Corrupt { what: "a result", why: error.to_string() };
    postcard::to_allocvec(value).map_err(unwritable)
}

/// The value, and nothing after it.
fn read<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, WorkError> {
    let (value, rest) = postcard::take_from_bytes(bytes)
        .map_err(|error| WorkError::Corrupt { what, why: error.to_string() })?;
    match rest.len() {
        0 => Ok(value),
        extra => Err(WorkError::Corrupt { what, why: format!("{extra} bytes follow it") }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_come_first_and_names_are_unique() {
        let mut registry = Registry::default();
        let kinds = registry.kinds();
        assert!(kinds.is_sorted_by_key(|kind| (!kind.default, kind.name)));
        assert_eq!(kinds.len(), 21);
        assert_eq!(registry.add(learners::linear::Linear), Err(KindError::Taken("linear")));
        for task in [Task::Regression, Task::Classification] {
            assert!(registry.defaults(task).len() >= 4);
        }
    }

    #[test]
    fn a_wrong_name_task_or_parameter_is_told_of() {
        let registry = Registry::default();
        let refusal = |kind, task, params: &Params| {
            registry.check(kind, task, params).map_err(|error| (error.code(), error.to_string())).unwrap_err()
        };
        let (code, text) = refusal("randomforest", Task::Regression, &Params::default());
        assert_eq!(code, "kind-unknown");
        assert!(text.starts_with("unknown kind 'randomforest'; there are decision_tree, "), "{text}");
        assert!(text.ends_with(". Did you mean 'random_forest'?"), "{text}");
        assert!(refusal("xyz", Task::Regression, &Params::default()).1.ends_with("sgd_regressor"));
        assert_eq!(refusal("logistic", Task::Regression, &Params::default()).0, "kind-task");
        let wrong = Params([("no_such".into(), dml_core::Value::Int(1))].into());
        assert_eq!(refusal("random_forest", Task::Regression, &wrong).0, "param-unknown");
    }

    #[test]
    fn distances_are_those_of_the_textbook() {
        let distance = |a: &str, b| edits(&a.chars().collect::<Vec<_>>(), b);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!((distance("", "abc"), distance("abc", ""), distance("abc", "ABC")), (3, 3, 0));
        assert_eq!(nearest("speceis", ["sex", "species", "island"].into_iter()), Some("species"));
        assert_eq!(nearest("q", ["sex"].into_iter()), None);
    }
}
