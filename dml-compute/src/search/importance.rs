//! What part a parameter has in how the scores of trials differ.

use std::collections::BTreeMap;

use dml_core::{Dimension, StudySpec};

use super::{Trial, space};

/// Into so many groups the values of a range are cut.
const GROUPS: usize = 5;

/// Fewer trials tell nothing.
const LEAST: usize = 10;

/// For each parameter, named `kind.parameter` if there are several spaces: η² of the ranks of the scores among groups of
/// its values, from 0 to 1 (Kruskal and Wallis 1952; Tomczak and Tomczak 2014, "The need to report effect size estimates
/// revisited"). It sees each parameter alone. Without enough finished trials there is none.
pub fn importance(spec: &StudySpec, trials: &[Trial]) -> BTreeMap<String, f64> {
    let mut shares = BTreeMap::new();
    for (which, space) in spec.spaces.iter().enumerate() {
        let whole = |trial: &&Trial| trial.space as usize == which && trial.rounds == trial.of_rounds;
        let scored: Vec<(&Trial, f64)> =
            trials.iter().filter(whole).filter_map(|trial| Some((trial, trial.score?))).collect();
        if scored.len() < LEAST {
            continue;
        }
        let ranks = ranks(&scored.iter().map(|(_, score)| *score).collect::<Vec<_>>());
        for (name, dimension) in &space.dimensions {
            let places: Vec<f64> =
                scored.iter().map(|(trial, _)| space::encode(dimension, trial.params.0.get(name))).collect();
            let title = if spec.spaces.len() == 1 { name.clone() } else { format!("{}.{name}", space.kind) };
            shares.insert(title, share(&groups(dimension, &places), &ranks));
        }
    }
    shares
}

/// The ranks of some numbers, from 1; equal ones have their mean.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut ranks = vec![0.0; values.len()];
    for equal in order.chunk_by(|a, b| values[*a] == values[*b]) {
        let below = values.iter().filter(|value| **value < values[equal[0]]).count() as f64;
        equal.iter().for_each(|place| ranks[*place] = below + (equal.len() as f64 + 1.0) / 2.0);
    }
    ranks
}

/// The group that each trial belongs to: its value, or an equal part of the values in order.
fn groups(dimension: &Dimension, places: &[f64]) -> Vec<usize> {
    match space::values(dimension) {
        Some(values) if values <= GROUPS as u64 => {
            places.iter().map(|place| (place * values as f64) as usize).collect()
        }
        _ => ranks(places)
            .into_iter()
            .map(|rank| ((rank - 1.0) * GROUPS as f64 / places.len() as f64) as usize)
            .collect(),
    }
}

fn share(groups: &[usize], ranks: &[f64]) -> f64 {
    let n = ranks.len() as f64;
    let mut sums: BTreeMap<usize, (f64, f64)> = BTreeMap::new();
    for (group, rank) in groups.iter().zip(ranks) {
        let (sum, count) = sums.entry(*group).or_default();
        (*sum, *count) = (*sum + rank, *count + 1.0);
    }
    let k = sums.len() as f64;
    let mean = (n + 1.0) / 2.0;
    let variance = ranks.iter().map(|rank| (rank - mean) * (rank - mean)).sum::<f64>() / (n - 1.0);
    if variance == 0.0 || n <= k {
        return 0.0;
    }
    let between = sums.values().map(|(sum, count)| count * (sum / count - mean).powi(2)).sum::<f64>();
    let h = between / variance;
    ((h - k + 1.0) / (n - k)).clamp(0.0, 1.0)
}
