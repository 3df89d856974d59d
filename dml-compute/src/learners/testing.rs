//! What the tests of learners share: a table in memory, and the for-loop over rounds and units that every cluster run
//! is compared with. States, partials and models pass through bytes on the way, as they do between workers.

use std::{ops::Range, sync::Arc};

use dml_core::{Params, Plan, Task, Value, rng};
use ndarray::{Array1, Array2, ArrayView1, Axis};

use crate::{
    error::WorkError,
    learner::{Block, Fit, Folded, Learner, Rows, Scores, Shape},
    learners::trees::cart::mean,
    prepare::Moments,
};

/// A block cut into chunks of equal size.
pub(crate) struct Table<'a> {
    block: &'a Block,
    chunks: usize,
    classes: usize,
}

impl<'a> Table<'a> {
    pub(crate) fn new(block: &'a Block, chunks: usize, classes: usize) -> Self {
        Self { block, chunks: chunks.max(1), classes }
    }

    pub(crate) fn shape(&self) -> Shape {
        let (rows, columns) = self.block.x.dim();
        Shape { rows: rows as u64, columns, chunks: self.chunks, classes: self.classes }
    }
}

impl Rows for Table<'_> {
    fn chunks(&self) -> usize {
        self.chunks
    }

    fn block(&self, chunk: usize) -> Result<Arc<Block>, WorkError> {
        let at = |i: usize| i * self.block.rows.len() / self.chunks;
        Ok(Arc::new(part(self.block, at(chunk)..at(chunk + 1))))
    }

    fn sample(&self) -> Result<Block, WorkError> {
        Ok(self.block.clone())
    }

    fn width(&self) -> usize {
        self.block.x.ncols()
    }

    fn class_rows(&self) -> Vec<u64> {
        let rows = |class| self.block.y.iter().filter(|y| **y as usize == class).count() as u64;
        (0..self.classes).map(rows).collect()
    }

    fn target(&self) -> Option<Moments> {
        let y = self.block.y.as_slice()?;
        let fold = |first, pick: fn(f64, f64) -> f64| y.iter().copied().fold(first, pick);
        let (min, max) = (fold(f64::INFINITY, f64::min), fold(f64::NEG_INFINITY, f64::max));
        let moments = Moments { count: y.len() as u64, mean: mean(y), m2: 0.0, min, max };
        (self.classes == 0).then_some(moments)
    }
}

/// Rows numbered from 0, with the values that `row` gives for each number: features and target.
pub(crate) fn block(rows: usize, row: impl Fn(u64) -> (Vec<f64>, f64)) -> Block {
    let (x, y): (Vec<_>, Vec<_>) = (0..rows as u64).map(row).unzip();
    let width = x.first().map_or(0, Vec::len);
    let x = Array2::from_shape_vec((rows, width), x.concat()).expect("rows have equal widths");
    Block { x, y: Array1::from_vec(y), rows: (0..rows as u64).collect() }
}

/// A number in [-1, 1) that follows from the row and the column.
pub(crate) fn noise(row: u64, column: u64) -> f64 {
    rng::unit(rng::draw(77, column), row) * 2.0 - 1.0
}

/// Parameters from pairs.
pub(crate) fn params(given: &[(&str, Value)]) -> Params {
    Params(given.iter().map(|(name, value)| ((*name).to_string(), value.clone())).collect())
}

/// The model that the for-loop gives, with the learner's own plan.
pub(crate) fn run<L: Learner>(
    learner: &L,
    block: &Block,
    given: &Params,
    task: Task,
    classes: usize,
) -> Result<L::Model, WorkError> {
    run_cut(learner, block, given, task, classes, 3, None)
}

/// The model that the for-loop gives over so many chunks, with another plan if one is given.
pub(crate) fn run_cut<L: Learner>(
    learner: &L,
    block: &Block,
    given: &Params,
    task: Task,
    classes: usize,
    chunks: usize,
    plan: Option<Plan>,
) -> Result<L::Model, WorkError> {
    let table = Table::new(block, chunks, classes);
    let params = learner.kind().check(given).expect("the test's parameters are valid");
    let plan = plan.unwrap_or_else(|| learner.plan(&params, &table.shape()));
    let fit = Fit { task, classes, params: &params, seed: 2024, plan, rows: &table };
    let mut state = through_bytes(&learner.start(&fit)?);
    for round in 0..plan.rounds {
        let partials = (0..plan.units)
            .map(|index| learner.unit(&fit, round, index, &state).map(|partial| through_bytes(&partial)))
            .collect::<Result<Vec<_>, _>>()?;
        match learner.fold(&fit, round, state, partials)? {
            Folded::Next(next) => state = through_bytes(&next),
            Folded::Done(model) => return Ok(through_bytes(&model)),
        }
    }
    panic!("the last of {} rounds gave no model", plan.rounds)
}

/// The value that another process would read.
pub(crate) fn through_bytes<T: serde::Serialize + serde::de::DeserializeOwned>(value: &T) -> T {
    postcard::from_bytes(&postcard::to_allocvec(value).expect("values can be written"))
        .expect("and read again")
}

/// The probabilities of a classifier.
pub(crate) fn probabilities(scores: Scores) -> Array2<f64> {
    match scores {
        Scores::Probabilities(p) => p,
        Scores::Values(_) => panic!("a classifier gives probabilities"),
    }
}

/// The numbers of a regression.
pub(crate) fn values(scores: Scores) -> Array1<f64> {
    match scores {
        Scores::Values(v) => v,
        Scores::Probabilities(_) => panic!("a regression gives values"),
    }
}

/// The share of rows whose most probable class is theirs.
pub(crate) fn accuracy(p: &Array2<f64>, y: &Array1<f64>) -> f64 {
    let hit = |(p, &y): (ArrayView1<f64>, &f64)| p.iter().all(|&q| q <= p[y as usize]);
    p.rows().into_iter().zip(y).filter(|&pair| hit(pair)).count() as f64 / y.len() as f64
}

/// Two numbers and whether their signs differ.
pub(crate) fn xor(row: u64) -> (Vec<f64>, f64) {
    let (a, b) = (noise(row, 0), noise(row, 1));
    (vec![a, b], f64::from((a > 0.0) != (b > 0.0)))
}

/// Three classes by the distance from the origin, a feature that is noise, and one row in ten mislabelled.
pub(crate) fn rings(row: u64) -> (Vec<f64>, f64) {
    let (a, b) = (noise(row, 0), noise(row, 1));
    let class = ((a * a + b * b) * 2.5).floor().min(2.0);
    let class = if noise(row, 3) > 0.8 { (class + 1.0) % 3.0 } else { class };
    (vec![a, b, noise(row, 2)], class)
}

/// The first and the second half of the rows.
pub(crate) fn halves(all: &Block) -> (Block, Block) {
    let n = all.rows.len() / 2;
    (part(all, 0..n), part(all, n..2 * n))
}

/// Some neighbouring rows.
fn part(all: &Block, rows: Range<usize>) -> Block {
    let chosen = rows.clone().collect::<Vec<_>>();
    Block {
        x: all.x.select(Axis(0), &chosen),
        y: all.y.select(Axis(0), &chosen),
        rows: all.rows[rows].to_vec(),
    }
}
