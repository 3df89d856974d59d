//! The tally of a classification: who was taken for whom, and how sure the model was of it.

use std::collections::BTreeMap;

use ndarray::ArrayView1;
use serde::{Deserialize, Serialize};

use super::{MAX_CONFUSION, Metrics, RocCurve, auc::Roc, interval};

/// Up to so many classes the AUC is computed: each class keeps counts of its own.
const MAX_AUC_CLASSES: usize = 32;

/// A probability counts as at least this in the log-loss.
const LEAST: f64 = 1e-15;

/// Log-losses are summed in units of 2^-40, exactly: in any order, the sum is the same.
const LOSS_UNIT: f64 = (1u64 << 40) as f64;

/// Rows by true and predicted class, their log-loss, and their scores in a few thousand levels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassTally {
    classes: u32,
    rows: u64,
    /// True class, then predicted class.
    confusion: BTreeMap<u32, BTreeMap<u32, u64>>,
    loss: u128,
    /// The squares of the log-losses, in the same units.
    loss_squared: u128,
    /// For two classes, the scores of the second; else those of each class against all others.
    roc: Vec<Roc>,
}

/// The log-loss of a row whose true class was given this probability: it stays finite.
pub(super) fn log_loss(p: f64) -> f64 {
    -libm::log(if p.is_nan() { LEAST } else { p.clamp(LEAST, 1.0) })
}

impl ClassTally {
    /// Nothing seen yet.
    pub fn new(classes: usize) -> Self {
        let curves = match classes {
            2 => 1,
            3..=MAX_AUC_CLASSES => classes,
            _ => 0,
        };
        Self {
            classes: classes as u32,
            rows: 0,
            confusion: BTreeMap::new(),
            loss: 0,
            loss_squared: 0,
            roc: vec![Roc::default(); curves],
        }
    }

    /// Takes the probabilities of a row, and its class.
    pub(super) fn record(&mut self, probabilities: ArrayView1<f64>, class: f64) {
        let classes = (self.classes as usize).min(probabilities.len());
        if !(class >= 0.0 && class < classes as f64) {
            return;
        }
        let class = class as usize;
        self.rows += 1;
        *self
            .confusion
            .entry(class as u32)
            .or_default()
            .entry(most_likely(probabilities) as u32)
            .or_default() += 1;
        let loss = log_loss(probabilities[class]);
        self.loss += (loss * LOSS_UNIT + 0.5) as u128;
        self.loss_squared += (loss * loss * LOSS_UNIT + 0.5) as u128;
        let first = if self.roc.len() == 1 { 1 } else { 0 };
        for (k, roc) in self.roc.iter_mut().enumerate() {
            roc.record(probabilities[first + k], class == first + k);
        }
    }

    pub(super) fn add(&mut self, next: Self) {
        self.rows += next.rows;
        self.loss += next.loss;
        self.loss_squared += next.loss_squared;
        for (truth, row) in next.confusion {
            let mine = self.confusion.entry(truth).or_default();
            row.into_iter().for_each(|(guess, rows)| *mine.entry(guess).or_default() += rows);
        }
        self.roc.iter_mut().zip(next.roc).for_each(|(mine, next)| mine.add(next));
    }

    pub(super) fn metrics(&self) -> Metrics {
        let mut metrics = Metrics { rows: self.rows, ..Metrics::default() };
        if self.classes as usize <= MAX_CONFUSION {
            metrics.confusion = Some(self.matrix());
        }
        if self.rows == 0 {
            return metrics;
        }
        let hits =
            |class: u32| self.confusion.get(&class).and_then(|row| row.get(&class)).copied().unwrap_or(0);
        let (mut actual, mut guessed) = (BTreeMap::new(), BTreeMap::new());
        for (truth, row) in &self.confusion {
            for (guess, rows) in row {
                *actual.entry(*truth).or_insert(0u64) += rows;
                *guessed.entry(*guess).or_insert(0u64) += rows;
            }
        }
        let count = |counts: &BTreeMap<u32, u64>, class: u32| counts.get(&class).copied().unwrap_or(0);
        let right: u64 = actual.keys().map(|class| hits(*class)).sum();
        let rows = self.rows as f64;
        let accuracy = right as f64 / rows;
        metrics.set("accuracy", accuracy);
        metrics.set_interval("accuracy", Some(interval::wilson(accuracy, rows)));
        let recalls: Vec<(f64, f64)> =
            actual.iter().map(|(class, n)| (hits(*class) as f64 / *n as f64, *n as f64)).collect();
        metrics.set("balanced_accuracy", mean(recalls.iter().map(|(recall, _)| *recall)));
        metrics.set_interval("balanced_accuracy", interval::of_shares(&recalls));

        let named = |c: u32| (count(&actual, c) + count(&guessed, c)) as f64;
        let f1 = |c: u32| 2.0 * hits(c) as f64 / named(c);
        let seen: Vec<u32> = (0..self.classes).filter(|c| named(*c) > 0.0).collect();
        let macro_f1 = mean(seen.iter().map(|c| f1(*c)));
        metrics.set("macro_f1", macro_f1);
        // How much a row of each cell of the matrix adds to the sum of the classes' F1, times the rows.
        let slope = |truth: u32, guess: u32| {
            let hit = if truth == guess { 2.0 / named(truth) } else { 0.0 };
            rows * (hit - f1(truth) / named(truth) - f1(guess) / named(guess))
        };
        let cells = self.confusion.iter().flat_map(|(truth, row)| row.iter().map(move |cell| (*truth, cell)));
        let spread = cells.map(|(truth, (guess, n))| *n as f64 * square(slope(truth, *guess))).sum::<f64>();
        let variance = spread / square(seen.len() as f64) / (rows * (rows - 1.0));
        metrics.set_interval("macro_f1", interval::normal("macro_f1", macro_f1, variance));

        let loss = self.loss as f64 / LOSS_UNIT / rows;
        metrics.set("log_loss", loss);
        let variance = (self.loss_squared as f64 / LOSS_UNIT / rows - loss * loss) / (rows - 1.0);
        metrics.set_interval("log_loss", interval::normal("log_loss", loss, variance));

        let areas: Vec<(f64, Option<f64>)> =
            self.roc.iter().filter_map(|roc| Some((roc.area()?, roc.variance()))).collect();
        let area = mean(areas.iter().map(|(area, _)| *area));
        metrics.set("roc_auc", area);
        let errors: Option<Vec<f64>> = areas.iter().map(|(_, variance)| variance.map(f64::sqrt)).collect();
        let variance = errors.map_or(f64::NAN, |errors| square(mean(errors.into_iter())));
        metrics.set_interval("roc_auc", interval::normal("roc_auc", area, variance));
        metrics
    }

    /// The curves of the classes with these labels.
    pub(super) fn curves(&self, labels: &[String]) -> Vec<RocCurve> {
        let first = if self.roc.len() == 1 { 1 } else { 0 };
        let curves = self.roc.iter().zip(labels.iter().skip(first));
        let curve = |(roc, class): (&Roc, &String)| {
            Some(RocCurve { class: class.clone(), auc: roc.area()?, points: roc.points() })
        };
        curves.filter_map(curve).collect()
    }

    fn matrix(&self) -> Vec<Vec<u64>> {
        let cell =
            |truth, guess| self.confusion.get(&truth).and_then(|row| row.get(&guess)).copied().unwrap_or(0);
        (0..self.classes).map(|truth| (0..self.classes).map(|guess| cell(truth, guess)).collect()).collect()
    }
}

/// The class with the greatest probability, the first of equals.
pub(super) fn most_likely(probabilities: ArrayView1<f64>) -> usize {
    let mut best = 0;
    for (class, p) in probabilities.iter().enumerate() {
        if *p > probabilities[best] || probabilities[best].is_nan() {
            best = class;
        }
    }
    best
}

fn square(value: f64) -> f64 {
    value * value
}

/// The mean; NaN of nothing.
fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = values.fold((0.0, 0.0), |(sum, n), v| (sum + v, n + 1.0));
    sum / n
}

#[cfg(test)]
mod tests {
    use ndarray::Array1;
    use proptest::prelude::*;

    use super::*;

    /// Rows of weights that become probabilities, each with a true class.
    fn rows() -> impl Strategy<Value = (usize, Vec<(Vec<f64>, usize)>)> {
        (2usize..5).prop_flat_map(|k| {
            let row = (proptest::collection::vec(0u32..9, k), 0..k).prop_map(|(weights, class)| {
                let sum = f64::from(weights.iter().sum::<u32>() + weights.len() as u32);
                (weights.into_iter().map(|w| f64::from(w + 1) / sum).collect(), class)
            });
            (Just(k), proptest::collection::vec(row, 1..40))
        })
    }

    fn tally(k: usize, rows: &[(Vec<f64>, usize)]) -> ClassTally {
        let mut tally = ClassTally::new(k);
        for (p, class) in rows {
            tally.record(Array1::from_vec(p.clone()).view(), *class as f64);
        }
        tally
    }

    proptest! {
        #[test]
        fn metrics_are_those_of_the_definitions((k, rows) in rows()) {
            let metrics = tally(k, &rows).metrics();
            let n = rows.len() as f64;
            let guess = |p: &[f64]| (0..k).fold(0, |best, c| if p[c] > p[best] { c } else { best });
            let pairs: Vec<(usize, usize)> = rows.iter().map(|(p, class)| (*class, guess(p))).collect();
            let count = |f: &dyn Fn(&(usize, usize)) -> bool| pairs.iter().filter(|pair| f(pair)).count() as f64;
            let (mut recalls, mut f1s) = (vec![], vec![]);
            for c in 0..k {
                let (tp, actual) = (count(&|x| *x == (c, c)), count(&|x| x.0 == c));
                let guessed = count(&|x| x.1 == c);
                if actual > 0.0 { recalls.push(tp / actual); }
                if actual + guessed > 0.0 {
                    let (precision, recall) = (tp / guessed.max(1.0), tp / actual.max(1.0));
                    f1s.push(if tp > 0.0 { 2.0 * precision * recall / (precision + recall) } else { 0.0 });
                }
            }
            let average = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
            let loss = rows.iter().map(|(p, class)| -p[*class].ln()).sum::<f64>() / n;
            for (name, expected) in [
                ("accuracy", count(&|x| x.0 == x.1) / n),
                ("balanced_accuracy", average(&recalls)),
                ("macro_f1", average(&f1s)),
                ("log_loss", loss),
            ] {
                prop_assert!((metrics.get(name).unwrap() - expected).abs() < 1e-9, "{}", name);
            }
            let matrix = metrics.confusion.unwrap();
            prop_assert!((0..k).all(|t| (0..k).all(|g| matrix[t][g] as f64 == count(&|x| *x == (t, g)))));
        }

        #[test]
        fn any_cut_of_the_rows_gives_the_same((k, rows) in rows(), cut in 0usize..40) {
            let (left, right) = rows.split_at(cut.min(rows.len()));
            let (mut forth, mut back) = (tally(k, left), tally(k, right));
            forth.add(tally(k, right));
            back.add(tally(k, left));
            prop_assert_eq!(&forth, &tally(k, &rows));
            prop_assert_eq!(&forth, &back);
        }
    }

    #[test]
    fn what_is_not_defined_is_left_out() {
        let empty = ClassTally::new(3).metrics();
        assert!(empty.rows == 0 && empty.get("accuracy").is_none() && empty.get("roc_auc").is_none());
        let one = tally(2, &[(vec![0.25, 0.75], 1), (vec![0.5, 0.5], 1)]).metrics();
        assert_eq!((one.get("accuracy"), one.get("roc_auc")), (Some(0.5), None));
        assert_eq!(one.get("balanced_accuracy"), Some(0.5));
    }

    #[test]
    fn strange_rows_do_no_harm() {
        let mut tally = ClassTally::new(2);
        for class in [f64::NAN, -1.0, 2.0, f64::INFINITY] {
            tally.record(Array1::from_vec(vec![0.5, 0.5]).view(), class);
        }
        assert_eq!(tally, ClassTally::new(2));
        tally.record(Array1::from_vec(vec![f64::NAN, 0.0]).view(), 1.0);
        tally.record(Array1::from_vec(vec![1.0, 0.0]).view(), 0.0);
        let metrics = tally.metrics();
        assert_eq!(metrics.get("accuracy"), Some(1.0));
        assert!((metrics.get("log_loss").unwrap() - 0.5 * 1e15f64.ln()).abs() < 1e-9);
    }
}
