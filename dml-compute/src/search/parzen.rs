//! A tree-structured Parzen estimator (Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization"): the trials
//! so far are split into the few good ones and the others, the density of each is estimated, and of some points drawn
//! near good ones that is tried which is likeliest good rather than not. Kernels are products over the dimensions
//! (Falkner, Klein, Hutter 2018, "BOHB"), so that it learns which values go together.

use std::f64::consts::PI;

use dml_core::{Dimension, Space, StudySpec, rng};

use super::{History, Suggestion, Trial, space};

/// The good ones are so many for each square root of the number of all. This and what follows was chosen by
/// `benches/search`.
const GOOD: f64 = 0.4;
/// Of so many points one is chosen.
const CANDIDATES: u64 = 24;
/// A dimension's kernels are at least so wide, lest it stays where it was lucky, and at most.
const WIDTHS: (f64, f64) = (0.04, 0.3);
/// After few trials they are wider: this divided by the number of all. What is good so far is then good by luck, too.
const EARLY: f64 = 3.0;
/// How wide kernels are for so many deviations of the points: less than Scott's 1.06, which is for one hill.
const NARROWER: f64 = 0.35;
/// How much a kernel says of values that have no order other than its own.
const ELSEWHERE: f64 = 0.2;

/// The densities of good and other trials.
pub(super) struct Estimator<'a> {
    spec: &'a StudySpec,
    good: Vec<Density<'a>>,
    others: Vec<Density<'a>>,
}

/// Where the trials of one space lie.
struct Density<'a> {
    space: &'a Space,
    /// A point a trial, a coordinate a dimension.
    points: Vec<Vec<f64>>,
    /// How wide the kernels of each dimension are.
    widths: Vec<f64>,
    /// The part of all trials that are of this space.
    weight: f64,
    /// The part of the density that is everywhere the same.
    anywhere: f64,
}

impl<'a> Estimator<'a> {
    pub(super) fn new(spec: &'a StudySpec, done: &[Trial]) -> Self {
        let history = History { trials: done.to_vec(), ..History::default() };
        let ranked = history.ranked(&spec.metric);
        let good = (GOOD * (ranked.len() as f64).sqrt()).ceil() as usize;
        let (good, others) = ranked.split_at(good.min(ranked.len()));
        let anywhere = 1.0 / (ranked.len() as f64 + 1.0);
        let (least, most) = WIDTHS;
        let widths = (least.max(EARLY / ranked.len() as f64).min(most), most);
        let densities = |trials: &[&Trial]| {
            let of = |(which, space)| Density::new(spec, which, space, trials, widths, anywhere);
            spec.spaces.iter().enumerate().map(of).collect()
        };
        Self { spec, good: densities(good), others: densities(others) }
    }

    /// The next point to try.
    pub(super) fn suggest(&self, number: u32, seed: u64) -> Suggestion {
        let mut best: Option<(f64, usize, Vec<f64>)> = None;
        for candidate in 0..CANDIDATES {
            let seed = rng::draw(seed, candidate);
            let which = self.draw_space(seed);
            let point = self.good[which].draw(rng::draw(seed, 1));
            let ratio = self.good[which].log(&point) - self.others[which].log(&point);
            if best.as_ref().is_none_or(|(most, ..)| ratio > *most) {
                best = Some((ratio, which, point));
            }
        }
        let (_, which, point) = best.unwrap_or_default();
        let space = &self.spec.spaces[which];
        let sought = space.dimensions.iter().zip(point);
        let mut params = space.fixed.clone();
        params.0.extend(sought.map(|((name, dimension), x)| (name.clone(), space::decode(dimension, x))));
        Suggestion { number, space: which as u32, params }
    }

    fn draw_space(&self, seed: u64) -> usize {
        let mut left = rng::unit(seed, 0);
        for (which, density) in self.good.iter().enumerate() {
            left -= density.weight;
            if left < 0.0 {
                return which;
            }
        }
        self.good.len() - 1
    }
}

impl<'a> Density<'a> {
    fn new(
        spec: &StudySpec,
        which: usize,
        space: &'a Space,
        trials: &[&Trial],
        bounds: (f64, f64),
        anywhere: f64,
    ) -> Self {
        let mine: Vec<_> = trials.iter().filter(|trial| trial.space as usize == which).collect();
        let point = |trial: &&&Trial| {
            let at = |(name, dimension)| space::encode(dimension, trial.params.0.get(name));
            space.dimensions.iter().map(at).collect::<Vec<f64>>()
        };
        let points: Vec<Vec<f64>> = mine.iter().map(point).collect();
        let widths = (0..space.dimensions.len()).map(|d| width(&points, d, bounds)).collect();
        let spaces = spec.spaces.len() as f64;
        // As if one more trial were shared out among all spaces.
        let weight = (mine.len() as f64 + 1.0 / spaces) / (trials.len() as f64 + 1.0);
        let anywhere = if points.is_empty() { 1.0 } else { anywhere };
        Self { space, points, widths, weight, anywhere }
    }

    /// A point from the density: near one of the trials, or anywhere.
    fn draw(&self, seed: u64) -> Vec<f64> {
        let is_anywhere = rng::unit(seed, 0) < self.anywhere;
        let kernel = rng::below(rng::draw(seed, 0), 0, self.points.len() as u64) as usize;
        let dimensions = self.space.dimensions.values().zip(&self.widths).enumerate();
        let coordinate = |(d, (dimension, width)): (usize, (&Dimension, &f64))| {
            let seed = rng::draw(seed, 1 + d as u64);
            let Some(center) = self.points.get(kernel).filter(|_| !is_anywhere).map(|point| point[d]) else {
                return rng::unit(seed, 0);
            };
            match dimension {
                Dimension::Values(_) if rng::unit(seed, 1) >= ELSEWHERE => center,
                Dimension::Values(_) => rng::unit(seed, 0),
                Dimension::Uniform(..) | Dimension::Log(..) | Dimension::Int(..) | Dimension::LogInt(..) => {
                    truncated_normal(seed, center, *width)
                }
            }
        };
        dimensions.map(coordinate).collect()
    }

    /// The logarithm of the density at a point.
    fn log(&self, point: &[f64]) -> f64 {
        let mut sum = 0.0;
        for center in &self.points {
            let dimensions = self.space.dimensions.values().zip(&self.widths);
            let factors =
                dimensions.zip(center.iter().zip(point)).map(
                    |((dimension, width), (c, x))| match dimension {
                        Dimension::Values(values) => {
                            let (n, own) = (values.len() as f64, same_value(*c, *x, values.len()));
                            ELSEWHERE + if own { (1.0 - ELSEWHERE) * n } else { 0.0 }
                        }
                        Dimension::Uniform(..)
                        | Dimension::Log(..)
                        | Dimension::Int(..)
                        | Dimension::LogInt(..) => {
                            let z = (x - c) / width;
                            let inside = phi((1.0 - c) / width) - phi(-c / width);
                            libm::exp(-0.5 * z * z) / (width * (2.0 * PI).sqrt() * inside)
                        }
                    },
                );
            sum += factors.product::<f64>();
        }
        let near = sum / (self.points.len() as f64).max(1.0);
        libm::log(self.weight * (self.anywhere + (1.0 - self.anywhere) * near))
    }
}

fn same_value(a: f64, b: f64, values: usize) -> bool {
    let place = |x: f64| ((x * values as f64) as usize).min(values.saturating_sub(1));
    place(a) == place(b)
}

/// How wide the kernels of a dimension are: Scott's rule (1979, "On optimal and data-based histograms"), within bounds.
fn width(points: &[Vec<f64>], d: usize, (least, most): (f64, f64)) -> f64 {
    let n = points.len() as f64;
    if points.len() < 2 {
        return most;
    }
    let mean = points.iter().map(|point| point[d]).sum::<f64>() / n;
    let variance = points.iter().map(|point| (point[d] - mean) * (point[d] - mean)).sum::<f64>() / (n - 1.0);
    let dimensions = points[0].len() as f64;
    (NARROWER * variance.sqrt() * libm::pow(n, -1.0 / (4.0 + dimensions))).clamp(least, most)
}

/// So often a draw that falls outside is repeated.
const DRAWS: u64 = 32;

/// A draw from a normal distribution, within 0 and 1 (Box and Muller 1958).
fn truncated_normal(seed: u64, mean: f64, deviation: f64) -> f64 {
    let normal = |n: u64| {
        let (u, v) = (1.0 - rng::unit(seed, 2 * n), rng::unit(seed, 2 * n + 1));
        mean + deviation * (-2.0 * libm::log(u)).sqrt() * libm::cos(2.0 * PI * v)
    };
    (0..DRAWS).map(normal).find(|x| (0.0..=1.0).contains(x)).unwrap_or(mean)
}

/// The standard normal distribution function.
fn phi(z: f64) -> f64 {
    0.5 * libm::erfc(-z / std::f64::consts::SQRT_2)
}
