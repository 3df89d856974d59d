//! Successive halving: after each round the best part of the trials goes on, with that much more of learning.

use std::ops::Range;

use dml_core::{Plan, StudySpec};

use super::History;

/// How many rounds a study by halving has, of so many trials whose fits have so many rounds at least: in the last of them
/// trials learn in full, in each before it a `reduction`th of the next; as many as there are trials for and as make a
/// difference.
pub fn rungs(trials: u32, reduction: u32, fit_rounds: u32) -> u32 {
    let (reduction, trials, fit_rounds) =
        (u64::from(reduction.max(2)), u64::from(trials), u64::from(fit_rounds));
    let (mut rungs, mut divisor) = (1, reduction);
    while divisor <= trials && fit_rounds.div_ceil(divisor) < fit_rounds.div_ceil(divisor / reduction) {
        (rungs, divisor) = (rungs + 1, divisor * reduction);
    }
    rungs
}

/// How many rounds a fit has had after a round of the study.
pub(crate) fn part(spec: &StudySpec, round: u32, fit: &Plan) -> u32 {
    let rest = spec.search.rounds.saturating_sub(round + 1);
    let divisor = u64::from(spec.reduction.max(2)).saturating_pow(rest);
    (u64::from(fit.rounds).div_ceil(divisor)).max(1) as u32
}

/// The numbers of the trials that take part in a round, of which a unit has the ones in `share`.
pub(crate) fn rung(
    spec: &StudySpec,
    round: u32,
    history: &History,
    share: impl Fn(usize) -> Range<usize>,
) -> Vec<u32> {
    let mut numbers: Vec<u32> = if round == 0 {
        (0..spec.trials).collect()
    } else {
        let divisor = u64::from(spec.reduction.max(2)).saturating_pow(round);
        let count = u64::from(spec.trials).div_ceil(divisor) as usize;
        let ranked = history.ranked(&spec.metric).into_iter().filter(|trial| trial.score.is_some());
        ranked.take(count).map(|trial| trial.number).collect()
    };
    numbers.sort_unstable();
    let share = share(numbers.len());
    numbers.drain(share).collect()
}
