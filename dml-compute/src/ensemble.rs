//! The predictions of an ensemble's members brought together. Members come in the order of the training that they are of,
//! and sums go in that order, so any subset of them says the same wherever it is asked.

use dml_core::Method;
use ndarray::{Array1, Array2};

use crate::{learner::Scores, model::likeliest};

/// Members that count alike.
pub fn alike(members: usize) -> Vec<f64> {
    vec![1.0 / members.max(1) as f64; members]
}

/// What members say together of the rows that each of them scored; none if there is no member, or if they are not about
/// the same. A member counts by its weight; the weights sum to 1.
///
/// Votes come back as shares, so that of two classes with as many votes the first one wins.
pub fn combine(method: Method, weights: &[f64], members: &[&Scores]) -> Option<Scores> {
    if members.is_empty() || members.len() != weights.len() {
        return None;
    }
    let each = || members.iter().zip(weights);
    match members.first()? {
        Scores::Values(first) => {
            let mut sum = Array1::zeros(first.len());
            for (member, weight) in each() {
                let Scores::Values(values) = member else { return None };
                (values.len() == sum.len()).then(|| sum.scaled_add(*weight, values))?;
            }
            Some(Scores::Values(sum))
        }
        Scores::Probabilities(first) => {
            let mut sum = Array2::zeros(first.dim());
            for (member, weight) in each() {
                let Scores::Probabilities(p) = member else { return None };
                if p.dim() != sum.dim() {
                    return None;
                }
                if method == Method::Voting {
                    for (mut row, p) in sum.rows_mut().into_iter().zip(p.rows()) {
                        if let Some(votes) = row.get_mut(likeliest(p)) {
                            *votes += weight;
                        }
                    }
                } else {
                    sum.scaled_add(*weight, p);
                }
            }
            Some(Scores::Probabilities(sum))
        }
    }
}

/// The weights with which members come nearest to the truth on the rows chosen, by squares: none is negative and they sum
/// to 1, so that nothing is promised beyond what members say (Breiman 1996; van der Laan, Polley, Hubbard 2007, "Super
/// learner", section 3). Of a classifier the squares are those of Brier (1950). Rows without a truth (NaN) are left out.
pub fn stack(members: &[&Scores], truth: &Array1<f64>, chosen: impl Fn(usize) -> bool) -> Vec<f64> {
    let mut products = Array2::<f64>::zeros((members.len(), members.len()));
    let (mut errors, mut rows) = (vec![0.0; members.len()], 0u64);
    for (row, truth) in truth.iter().enumerate().filter(|(row, truth)| chosen(*row) && !truth.is_nan()) {
        for output in 0..members.first().map_or(0, |scores| outputs(scores)) {
            for (error, scores) in errors.iter_mut().zip(members) {
                *error = error_of(scores, row, output, *truth);
            }
            for (i, a) in errors.iter().enumerate() {
                for (j, b) in errors.iter().enumerate() {
                    products[(i, j)] += a * b;
                }
            }
        }
        rows += 1;
    }
    let weights = alike(members.len());
    if rows == 0 || products.iter().any(|product| !product.is_finite()) {
        return weights;
    }
    least(&products, weights)
}

fn outputs(scores: &Scores) -> usize {
    match scores {
        Scores::Values(_) => 1,
        Scores::Probabilities(p) => p.ncols(),
    }
}

fn error_of(scores: &Scores, row: usize, output: usize, truth: f64) -> f64 {
    match scores {
        Scores::Values(values) => values.get(row).map_or(f64::NAN, |value| value - truth),
        Scores::Probabilities(p) => {
            let wanted = if output as f64 == truth { 1.0 } else { 0.0 };
            p.get((row, output)).map_or(f64::NAN, |p| p - wanted)
        }
    }
}

/// How often every pair of weights is looked at, at most.
const SWEEPS: usize = 1000;

/// The weights w that make wᵀEw least, begun from those given: two at a time, one gives to the other what is best for
/// both. As long as w sums to 1, that is the sum of squared errors of the weighted mean.
fn least(products: &Array2<f64>, mut weights: Vec<f64>) -> Vec<f64> {
    let members = weights.len();
    for _ in 0..SWEEPS {
        let mut moved = 0.0_f64;
        for i in 0..members {
            for j in i + 1..members {
                let slope = |of: usize| (0..members).map(|k| products[(of, k)] * weights[k]).sum::<f64>();
                let curve = products[(i, i)] + products[(j, j)] - 2.0 * products[(i, j)];
                if curve <= 0.0 {
                    continue;
                }
                let step = ((slope(j) - slope(i)) / curve).clamp(-weights[i], weights[j]);
                weights[i] += step;
                weights[j] -= step;
                moved = moved.max(step.abs());
            }
        }
        if moved < 1e-9 {
            break;
        }
    }
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight.max(0.0) / sum).collect()
}

#[cfg(test)]
mod tests {
    use dml_core::rng;
    use ndarray::array;
    use proptest::prelude::*;

    use super::*;

    fn values(values: Vec<f64>) -> Scores {
        Scores::Values(Array1::from_vec(values))
    }

    fn numbers(scores: Option<Scores>) -> Array1<f64> {
        let Some(Scores::Values(values)) = scores else { panic!("it is of numbers") };
        values
    }

    fn shares(scores: Option<Scores>) -> Array2<f64> {
        let Some(Scores::Probabilities(p)) = scores else { panic!("it is of classes") };
        p
    }

    #[test]
    fn members_are_averaged_or_vote() {
        let (a, b, c) = (values(vec![1.0, 2.0]), values(vec![3.0, 2.0]), values(vec![8.0, 2.0]));
        for method in [Method::Averaging, Method::Bagging, Method::Voting] {
            assert_eq!(numbers(combine(method, &[0.25, 0.25, 0.5], &[&a, &b, &c])), array![5.0, 2.0]);
        }
        let sure = Scores::Probabilities(array![[0.0, 1.0], [0.5, 0.5]]);
        let leans = Scores::Probabilities(array![[0.6, 0.4], [0.1, 0.9]]);
        let mean = shares(combine(Method::Averaging, &alike(2), &[&sure, &leans]));
        assert_eq!(mean, array![[0.3, 0.7], [0.3, 0.7]]);
        let votes = shares(combine(Method::Voting, &alike(2), &[&sure, &leans]));
        assert_eq!(votes, array![[0.5, 0.5], [0.5, 0.5]]);
        assert_eq!(likeliest(votes.row(0)), 0, "of equals the first");
    }

    #[test]
    fn what_does_not_fit_together_is_not_brought_together() {
        let (one, two) = (values(vec![1.0]), values(vec![1.0, 2.0]));
        let classes = Scores::Probabilities(array![[1.0]]);
        for (weights, members) in [
            (vec![], vec![]),
            (vec![1.0], vec![&one, &one]),
            (alike(2), vec![&one, &two]),
            (alike(2), vec![&one, &classes]),
            (alike(2), vec![&classes, &one]),
        ] {
            assert_eq!(combine(Method::Averaging, &weights, &members), None);
        }
    }

    fn square(scores: &Scores, truth: &Array1<f64>, rows: std::ops::Range<usize>) -> f64 {
        rows.flat_map(|row| (0..outputs(scores)).map(move |output| (row, output)))
            .map(|(row, output)| error_of(scores, row, output, truth[row]))
            .map(|error| error * error)
            .sum()
    }

    /// Two members that err on opposite sides, one that is noise, and one that is fair: together they are better than each.
    #[test]
    fn stacking_beats_its_best_member_on_rows_it_has_not_seen() {
        let noise = |seed, row: usize| rng::unit(seed, row as u64) - 0.5;
        let truth = Array1::from_shape_fn(400, |row| 10.0 * noise(1, row));
        let member = |seed, bias: f64, scale: f64| {
            values((0..400).map(|row| truth[row] + bias + scale * noise(seed, row)).collect())
        };
        let members = [member(2, 1.0, 1.0), member(3, -1.0, 1.0), member(4, 0.0, 20.0), member(5, 0.3, 2.0)];
        let all: Vec<&Scores> = members.iter().collect();
        let weights = stack(&all, &truth, |row| row < 200);
        assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-12 && weights.iter().all(|w| *w >= 0.0));
        assert!(weights[2] < 0.02, "noise does not count: {weights:?}");
        let stacked = combine(Method::Stacking, &weights, &all).unwrap();
        let best =
            members.iter().map(|member| square(member, &truth, 200..400)).fold(f64::INFINITY, f64::min);
        assert!(square(&stacked, &truth, 200..400) < 0.8 * best, "{weights:?}");
    }

    #[test]
    fn without_rows_members_count_alike() {
        let (a, b) = (values(vec![1.0]), values(vec![2.0]));
        assert_eq!(stack(&[&a, &b], &array![1.0], |_| false), [0.5, 0.5]);
        assert_eq!(stack(&[&a, &b], &array![f64::NAN], |_| true), [0.5, 0.5]);
        assert_eq!(stack(&[&a, &b], &array![1.0], |_| true), [1.0, 0.0]);
    }

    proptest! {
        /// Also with members that are equal, always wrong, or right: on the rows that it learned from, no member alone is better.
        #[test]
        fn no_member_is_better_where_the_weights_were_learned(
            seed in any::<u64>(), members in 1usize..6, classes in 0usize..4, same in any::<bool>(),
        ) {
            let draw = |member: usize, at: usize| {
                let member = if same && member == 1 { 0 } else { member };
                rng::unit(rng::draw(seed, member as u64), at as u64)
            };
            let rows = 30;
            let score = |member: usize| match classes {
                0 => values((0..rows).map(|row| draw(member, row)).collect()),
                classes => {
                    let mut p = Array2::from_shape_fn((rows, classes), |(r, c)| draw(member, r * classes + c) + 1e-3);
                    p.rows_mut().into_iter().for_each(|mut row| { let sum = row.sum(); row /= sum; });
                    Scores::Probabilities(p)
                }
            };
            let truth = Array1::from_shape_fn(rows, |row| {
                if classes == 0 { draw(9, row) } else { rng::below(seed, row as u64, classes as u64) as f64 }
            });
            let members: Vec<Scores> = (0..members).map(score).collect();
            let members: Vec<&Scores> = members.iter().collect();
            let weights = stack(&members, &truth, |_| true);
            let stacked = combine(Method::Stacking, &weights, &members).unwrap();
            let together = square(&stacked, &truth, 0..rows);
            for member in &members {
                prop_assert!(together <= square(member, &truth, 0..rows) + 1e-6, "{weights:?}");
            }
            prop_assert_eq!(weights, stack(&members, &truth, |_| true));
        }
    }
}
