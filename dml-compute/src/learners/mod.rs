//! The kinds of models that come with DML: one learner a file.

pub mod decision_tree;
pub mod gaussian_nb;
pub mod gradient_boosting;
pub mod gram;
pub mod linear;
pub mod linfa_linear;
pub mod logistic;
pub mod random_forest;
pub mod ridge;
pub mod symmetric;
pub mod trees;

#[cfg(test)]
pub(crate) mod testing;
