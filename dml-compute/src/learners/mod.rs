//! The kinds of models that come with DML: one learner a file.

pub mod bernoulli_nb;
pub mod coordinate;
pub mod counts;
pub mod decision_tree;
pub mod descent;
pub mod elastic_net;
pub mod extra_trees;
pub mod gaussian_nb;
pub mod glm;
pub mod gradient_boosting;
pub mod gram;
pub mod knn_classifier;
pub mod knn_regressor;
pub mod lasso;
pub mod linear;
pub mod linear_svm;
pub mod linear_svr;
pub mod linfa_linear;
pub mod logistic;
pub mod multinomial_nb;
pub mod neighbors;
pub mod panel;
pub mod random_forest;
pub mod ridge;
pub mod ridge_classifier;
pub mod sgd_classifier;
pub mod sgd_regressor;
pub mod softmax;
pub mod symmetric;
pub mod trees;
pub mod walk;

#[cfg(test)]
mod golden;
#[cfg(test)]
mod oracles;
#[cfg(test)]
pub(crate) mod testing;
