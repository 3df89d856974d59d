//! The kernel under decision trees, random forests and gradient boosting: features cut into at most 255 bins, integer
//! sums a bin, best splits from those sums.
//!
//! Histograms follow LightGBM (Ke et al. 2017, "LightGBM: A Highly Efficient Gradient Boosting Decision Tree"): bytes
//! for values, leaf-wise growth, and the sibling's histogram by subtraction. Unlike there, all sums are of integers:
//! they are exact, so that they are the same in any order, on any number of threads, and over any split of the rows.
//! What each tree learns (gradients, targets, classes) is told by `sums`.
//!
//! `grow` makes a tree on one machine; `sprout` and `shard` make the same one where each unit has a shard of the rows.

pub(crate) mod binned;
pub mod bins;
pub(crate) mod boost;
pub(crate) mod cart;
pub mod ensemble;
pub(crate) mod forest;
pub(crate) mod grow;
pub(crate) mod histogram;
pub(crate) mod judge;
mod leaves;
pub(crate) mod logistic;
pub(crate) mod objective;
pub(crate) mod packed;
pub(crate) mod part;
pub(crate) mod shard;
pub(crate) mod split;
pub(crate) mod sprout;
pub(crate) mod stepped;
pub(crate) mod stop;
pub(crate) mod sums;
pub mod tree;
mod walk;

pub use bins::Bins;
pub use ensemble::Ensemble;
pub use forest::Forest;
pub use tree::{Node, Tree};
