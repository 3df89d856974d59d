//! Nearest neighbours as nodes. Distances are the very bits that the learners compute, so that rows equally near come in the
//! same order.
//!
//! A distance for each row asked and each row known is in memory at a time, several times over: some thousand rows asked
//! at once are plenty.

use super::graph::{Attribute::Int, Graph, Type, Value};

impl Graph {
    /// The squared distances of the nearest known rows and their numbers, nearest first, both `[N, count]`. `known` has
    /// the known rows one after the other. Squares are summed up in `lanes` features side by side; then come the lanes in
    /// pairs, and last the features left over.
    pub fn nearest(
        &mut self,
        x: Value,
        known: &[f64],
        width: usize,
        lanes: usize,
        count: usize,
    ) -> (Value, Value) {
        let squares: Vec<Value> = (0..width).map(|feature| self.squares(x, known, width, feature)).collect();
        let (whole, rest) = squares.split_at(width / lanes * lanes);
        let lane = |first: usize| whole.iter().skip(first).step_by(lanes).copied().collect::<Vec<_>>();
        let mut sums: Vec<Value> = (0..lanes).filter_map(|first| self.add_up(&lane(first))).collect();
        while sums.len() > 1 {
            sums = sums.chunks(2).filter_map(|pair| self.add_up(pair)).collect();
        }
        sums.extend(self.add_up(rest));
        let zero = self.doubles(&[1, 1], &[0.0]);
        let distances = self.add_up(&sums).unwrap_or(zero);
        let most = self.doubles(&[], &[f64::MAX]);
        let distances = self.node("Min", &[distances, most], &[]);
        let count = self.integers(&[1], &[count as i64]);
        self.pair("TopK", &[distances, count], &[("axis", Int(1)), ("largest", Int(0)), ("sorted", Int(1))])
    }

    /// How much each of `count` neighbours counts, `[N, count]` or `[1, count]`, summing to 1: all the same, or by the
    /// inverse of its distance. Where some are at the very place, these alone count.
    pub fn shares(&mut self, distances: Value, count: usize, by_distance: bool) -> Value {
        if !by_distance {
            return self.doubles(&[1, count], &vec![1.0 / count as f64; count]);
        }
        let zero = self.doubles(&[], &[0.0]);
        let here = self.node("Equal", &[distances, zero], &[]);
        let here = self.node("Cast", &[here], &[("to", Int(Type::Double as i64))]);
        let some = self.total(here);
        let some = self.node("Greater", &[some, zero], &[]);
        let roots = self.node("Sqrt", &[distances], &[]);
        let inverses = self.node("Reciprocal", &[roots], &[]);
        let weights = self.node("Where", &[some, here, inverses], &[]);
        let all = self.total(weights);
        self.node("Div", &[weights, all], &[])
    }

    /// The weighted sums, `[N, 1]`, of these numbers, one a known row.
    pub fn mean_of(&mut self, rows: Value, shares: Value, numbers: &[f64]) -> Value {
        let numbers = self.doubles(&[numbers.len()], numbers);
        let near = self.node("Gather", &[numbers, rows], &[("axis", Int(0))]);
        let weighted = self.node("Mul", &[near, shares], &[]);
        self.total(weighted)
    }

    /// The shares of the classes, `[N, classes]`, given the class of each known row.
    pub fn votes(&mut self, rows: Value, shares: Value, of: &[i64], classes: usize) -> Value {
        let of = self.integers(&[of.len()], of);
        let near = self.node("Gather", &[of, rows], &[("axis", Int(0))]);
        let axis = self.integers(&[1], &[2]);
        let (near, shares) =
            (self.node("Unsqueeze", &[near, axis], &[]), self.node("Unsqueeze", &[shares, axis], &[]));
        let all: Vec<i64> = (0..classes as i64).collect();
        let all = self.integers(&[1, 1, classes], &all);
        let hit = self.node("Equal", &[near, all], &[]);
        let hit = self.node("Cast", &[hit], &[("to", Int(Type::Double as i64))]);
        let votes = self.node("Mul", &[hit, shares], &[]);
        self.sum(votes, 1)
    }

    /// The squared differences in one feature, `[N, known rows]`.
    fn squares(&mut self, x: Value, known: &[f64], width: usize, feature: usize) -> Value {
        let column: Vec<f64> = known.iter().skip(feature).step_by(width).copied().collect();
        let known = self.doubles(&[1, column.len()], &column);
        let place = self.integers(&[1], &[feature as i64]);
        let asked = self.node("Gather", &[x, place], &[("axis", Int(1))]);
        let differences = self.node("Sub", &[asked, known], &[]);
        self.node("Mul", &[differences, differences], &[])
    }

    /// The sum of each row, `[N, 1]`.
    fn total(&mut self, values: Value) -> Value {
        let axis = self.integers(&[1], &[1]);
        self.node("ReduceSum", &[values, axis], &[("keepdims", Int(1))])
    }

    /// One after the other.
    fn add_up(&mut self, values: &[Value]) -> Option<Value> {
        let (first, rest) = values.split_first()?;
        Some(rest.iter().fold(*first, |sum, value| self.node("Add", &[sum, *value], &[])))
    }
}
