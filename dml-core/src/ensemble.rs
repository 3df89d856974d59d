//! Ensembles: a training whose models predict together. Each member is fitted and judged like any other model, by
//! whichever workers take its jobs; a member that cannot be fitted is a member less. How members are brought together is
//! for who predicts: what is kept here is what was asked for.

use serde::{Deserialize, Serialize};

use crate::rng;

/// How the predictions of members become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// The mean of members that each learn from their own half of the training rows (subagging: Bühlmann and Yu 2002,
    /// "Analyzing bagging").
    Bagging,
    /// The class that most members name; of numbers, the mean.
    Voting,
    /// The mean of numbers, or of the probabilities of each class.
    Averaging,
    /// A mean whose weights are learned on rows that no member learned from (Wolpert 1992, "Stacked generalization";
    /// Breiman 1996, "Stacked regressions").
    Stacking,
}

impl Method {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bagging => "bagging",
            Self::Voting => "voting",
            Self::Averaging => "averaging",
            Self::Stacking => "stacking",
        }
    }
}

/// What makes a training an ensemble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EnsembleSpec {
    /// How members are brought together.
    pub method: Method,
    /// With fewer members than these it does not predict.
    pub min_members: u32,
}

/// Which part of the training rows a member of a bagged ensemble learns from: about half of them, without repetition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bag(pub u64);

impl Bag {
    /// Whether the row with this number is among them.
    pub fn holds(self, row: u64) -> bool {
        rng::draw(self.0, row) >> 63 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bag_holds_about_half_of_the_rows_and_none_is_like_another() {
        let held = |seed| (0..10_000).filter(|row| Bag(seed).holds(*row)).collect::<alloc::vec::Vec<u64>>();
        let (a, b) = (held(1), held(2));
        let both = a.iter().filter(|row| Bag(2).holds(**row)).count();
        assert!((4_800..5_200).contains(&a.len()) && (4_800..5_200).contains(&b.len()));
        assert!((2_300..2_700).contains(&both), "{both}");
    }
}
