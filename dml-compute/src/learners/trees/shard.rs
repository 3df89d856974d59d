//! One shard of the rows at work: it parts its rows as the trees on their way ask, and sums up what they want to know.
//!
//! What a shard knows from round to round (what the trees add up to for its rows, where its rows are in the trees on
//! their way, sums by bin of open nodes) follows from the state and its rows. Where it is not there, it is made again.

use std::{collections::BTreeMap, ops::Range};

use dml_core::rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{
    Bins, Ensemble, Tree,
    binned::Binned,
    boost::{add, choice, chosen, drawn, farthest, limits, tree_seed},
    grow::{Grower, Grown, Limits},
    histogram::Histogram,
    judge::Scratch,
    objective::{Derived, Objective, Reach},
    packed::Packed,
    part::part,
    split::Split,
    sprout::{Fork, Sprout},
    stepped::training_sums,
    stop::{HeldBack, Tally, is_done},
    sums::add_all,
};
use crate::{error::WorkError, learner::Fit};

/// How many numbers the histograms of open nodes may hold together (32 MiB); beyond it they are made anew.
const MAX_KEPT: usize = 1 << 22;

/// What all shards know of the iteration on its way.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Iteration {
    /// The trees of the iteration before, as they came to be.
    before: Vec<Sprout>,
    /// The trees on their way.
    now: Vec<Sprout>,
    /// How far the derivatives that they are grown from reach.
    greatest: Vec<Reach>,
}

/// What a shard tells of its rows in a round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// In the first round of an iteration: how far derivatives reach, an output each.
    greatest: Vec<Reach>,
    /// The same: the sums over all rows, a tree each.
    totals: Vec<Vec<i64>>,
    /// The same, with early stopping: the loss on the rows that are held back.
    tally: Option<Tally>,
    /// The sums by bin of all nodes that are wanted, tree by tree.
    histograms: Packed,
}

/// What a shard keeps.
pub(crate) struct Shard<S> {
    /// What base and trees add up to for each row, row-major: before the trees on their way.
    sums: Vec<f64>,
    growing: Vec<Growing<S>>,
}

/// The rows of a shard in a tree on its way.
struct Growing<S> {
    sums: S,
    /// The rows that the tree learns from, node by node.
    rows: Vec<u32>,
    /// Where the rows of each node are.
    ranges: Vec<Range<usize>>,
    /// Those of nodes that may be split.
    histograms: BTreeMap<usize, Histogram>,
}

/// What a round works with beside its own part.
pub(crate) struct Common<'a> {
    pub(crate) fit: &'a Fit<'a>,
    pub(crate) bins: &'a Bins,
    pub(crate) objective: &'a Objective,
    pub(crate) ensemble: &'a Ensemble,
    /// How far derivatives reach in this iteration.
    pub(crate) reach: &'a [Reach],
}

/// How a round of all shards ended.
pub(crate) enum Round {
    /// Trees are on their way.
    Growing,
    /// The trees of the iteration, and how far derivatives reach with them.
    Grown(Vec<Tree>, Vec<Reach>),
    /// The loss no longer falls.
    Stopped,
}

impl Common<'_> {
    fn seed(&self) -> u64 {
        let iteration = self.ensemble.trees().len() / self.objective.trees().max(1);
        rng::draw(self.fit.seed, iteration as u64)
    }
}

impl Iteration {
    /// The one that follows from these trees.
    pub(crate) fn next(common: &Common, before: Vec<Sprout>) -> Self {
        let trees = 0..common.objective.trees();
        let now = trees.map(|k| Sprout::new(tree_seed(common.seed(), k))).collect();
        Self { before, now, greatest: Vec::new() }
    }

    /// The trees on their way, which are done.
    pub(crate) fn into_trees(self) -> Vec<Sprout> {
        self.now
    }

    fn is_new(&self) -> bool {
        self.now.iter().all(Sprout::is_new)
    }

    fn check<S: Derived>(&self, common: &Common) -> Result<(), WorkError> {
        let channels = S::CHANNELS;
        let trees = common.objective.trees();
        let sprouts = || self.before.iter().chain(&self.now);
        let fits = self.now.len() == trees && (self.before.is_empty() || self.before.len() == trees);
        let reaches = common.reach.len() == common.objective.outputs;
        if fits && reaches && sprouts().all(|sprout| sprout.is_sound(common.bins, channels)) {
            return Ok(());
        }
        Err(WorkError::Corrupt {
            what: "the state of the boosting",
            why: "its trees contradict each other".into(),
        })
    }

    /// The part of a shard in a round. `kept` is what the shard was after the round before, if that is here.
    pub(crate) fn look<S: Derived>(
        &self,
        common: &Common,
        table: &Binned,
        kept: Option<Shard<S>>,
    ) -> Result<(Seen, Shard<S>), WorkError> {
        self.check::<S>(common)?;
        let Common { fit, bins, objective, ensemble, reach } = *common;
        let mut shard = match kept {
            Some(mut shard) if shard.fits(table, objective) => {
                if self.is_new() {
                    shard.take_trees(common, table, &self.before);
                }
                shard
            }
            _ => Shard { sums: training_sums(ensemble, bins, table), growing: Vec::new() },
        };
        let mut seen =
            Seen { greatest: Vec::new(), totals: Vec::new(), tally: None, histograms: Packed::default() };
        if shard.growing.is_empty() {
            let held_back = HeldBack::of(fit, table);
            seen.greatest = shard.begin(common, table, held_back.as_ref());
            if self.is_new() {
                let tally = |held: HeldBack| held.tally(objective, &table.y, &shard.sums, reach);
                seen.tally = held_back.map(tally);
            } else {
                seen.greatest.clear();
            }
        }
        for (sprout, growing) in self.now.iter().zip(&mut shard.growing) {
            growing.follow(sprout, bins, table);
            if self.is_new() {
                seen.totals.push(growing.total(table));
            }
            for bud in sprout.wanted() {
                if let Some(histogram) = growing.histograms.get(&bud) {
                    S::pack(histogram.cells(), &mut seen.histograms.0);
                }
            }
        }
        Ok((seen, shard))
    }

    /// The end of a round: what all shards have seen.
    pub(crate) fn fold<S: Derived>(
        &mut self,
        common: &Common,
        losses: &mut Vec<f64>,
        seen: &[Seen],
    ) -> Result<Round, WorkError> {
        self.check::<S>(common)?;
        let Common { fit, bins, objective, reach, .. } = *common;
        let limits = limits(fit, objective);
        let is_new = self.is_new();
        if is_new {
            let stop = self.note_loss(common, losses, seen)?;
            if stop || self.now.is_empty() {
                return Ok(Round::Stopped);
            }
        }
        let wanted: Vec<(usize, usize)> = self
            .now
            .iter()
            .enumerate()
            .flat_map(|(k, sprout)| sprout.wanted().map(move |bud| (k, bud)))
            .collect();
        let table = Binned::empty(bins);
        let histograms = added::<S>(&table, wanted.len(), seen).ok_or_else(mismatch)?;
        if is_new {
            self.set_roots::<S>(objective, &limits, seen)?;
        }
        let sums: Vec<S> = (0..objective.trees())
            .map(|k| drawn(fit, S::derive(objective, k, reach[k], &[], &[]).0))
            .collect();
        let judge = |scratch: &mut Scratch, ((k, bud), histogram): (&(usize, usize), Histogram)| {
            let choice = choice(fit, bins.width(), 0);
            let grower = Grower { bins, table: &table, sums: &sums[*k], limits, choice, threads: true };
            self.now[*k].judge(&grower, *bud, histogram, scratch)
        };
        let judged = wanted.par_iter().zip(histograms.into_par_iter());
        let forks: Vec<Option<Fork>> = judged.map_init(|| Scratch::new(&table, &sums[0]), judge).collect();
        for (&(k, bud), fork) in wanted.iter().zip(forks) {
            self.now[k].learn(bud, fork);
        }
        let trees = self.now.iter_mut().zip(&sums).map(|(sprout, sums)| sprout.grow(sums, bins, &limits));
        // All of them go on as far as they can.
        let trees: Vec<Option<Tree>> = trees.collect();
        Ok(match trees.into_iter().collect::<Option<Vec<Tree>>>() {
            None => Round::Growing,
            Some(trees) => {
                let reach = objective.next_reach(&self.greatest, farthest(&trees));
                Round::Grown(trees, reach)
            }
        })
    }

    /// Notes the loss with the trees so far, and says whether it no longer falls.
    fn note_loss(&self, common: &Common, losses: &mut Vec<f64>, seen: &[Seen]) -> Result<bool, WorkError> {
        let tallies = seen.iter().filter_map(|seen| seen.tally.as_ref());
        let tally = tallies.cloned().reduce(|mut all, more| {
            all.add(&more);
            all
        });
        let Some(tally) = tally else { return Ok(false) };
        if !tally.tells() {
            return Err(WorkError::Input(
                "early stopping holds back all rows or none; change validation_fraction, or take more rows"
                    .into(),
            ));
        }
        losses.push(tally.mean(common.objective, common.reach));
        Ok(is_done(common.fit.params, losses))
    }

    fn set_roots<S: Derived>(
        &mut self,
        objective: &Objective,
        limits: &Limits,
        seen: &[Seen],
    ) -> Result<(), WorkError> {
        self.greatest = vec![Reach::default(); objective.outputs];
        let mut totals = vec![vec![0; S::CHANNELS]; self.now.len()];
        for seen in seen {
            if seen.greatest.len() != self.greatest.len() || seen.totals.len() != totals.len() {
                return Err(mismatch());
            }
            self.greatest.iter_mut().zip(&seen.greatest).for_each(|(to, from)| *to = to.or(*from));
            for (to, from) in totals.iter_mut().zip(&seen.totals) {
                add_all(to, from, 1);
            }
        }
        for (sprout, total) in self.now.iter_mut().zip(&totals) {
            sprout.set_root(total, limits, S::count(total));
        }
        Ok(())
    }
}

fn mismatch() -> WorkError {
    WorkError::Corrupt {
        what: "a part of a fit",
        why: "it is not about the nodes that were asked for".into(),
    }
}

/// The histograms of so many nodes over all shards.
fn added<S: Derived>(table: &Binned, nodes: usize, seen: &[Seen]) -> Option<Vec<Histogram>> {
    let mut sums = vec![Histogram::empty(table, S::CHANNELS); nodes];
    for seen in seen {
        let mut bytes = &seen.histograms.0[..];
        for sum in &mut sums {
            bytes = S::unpack(bytes, sum.cells_mut())?;
        }
        if !bytes.is_empty() {
            return None;
        }
    }
    Some(sums)
}

impl<S: Derived> Shard<S> {
    /// About how much memory it takes.
    pub(crate) fn bytes(&self) -> usize {
        let growing = |growing: &Growing<S>| {
            let histograms = growing.histograms.values().map(Histogram::size).sum::<usize>();
            growing.rows.len() * 4 + (growing.sums.words().len() + histograms) * 8
        };
        self.sums.len() * 8 + self.growing.iter().map(growing).sum::<usize>()
    }

    fn fits(&self, table: &Binned, objective: &Objective) -> bool {
        self.sums.len() == table.rows() * objective.outputs
    }

    /// Adds the trees that were on their way to the sums.
    fn take_trees(&mut self, common: &Common, table: &Binned, sprouts: &[Sprout]) {
        let trees = common.ensemble.trees();
        let trees = &trees[trees.len().saturating_sub(sprouts.len())..];
        let growing = std::mem::take(&mut self.growing);
        for (k, ((mut growing, sprout), tree)) in growing.into_iter().zip(sprouts).zip(trees).enumerate() {
            growing.follow(sprout, common.bins, table);
            let leaves = sprout.leaves.iter().map(|&bud| growing.ranges[bud as usize].clone());
            let leaves = leaves.collect();
            let grown = Grown { tree: tree.clone(), rows: growing.rows, leaves };
            add(&mut self.sums, (common.objective.outputs, k), common.bins, table, &grown);
        }
    }

    /// Begins the trees of an iteration: how far derivatives reach.
    fn begin(&mut self, common: &Common, table: &Binned, held_back: Option<&HeldBack>) -> Vec<Reach> {
        let objective = common.objective;
        let rows = chosen(common.fit, table, held_back, common.seed());
        let expected = objective.expected(&self.sums);
        let expected = expected.as_deref().unwrap_or(&self.sums);
        let begin = |k| {
            let (sums, greatest) = S::derive(objective, k, common.reach[k], &table.y, expected);
            (
                Growing {
                    sums,
                    rows: rows.clone(),
                    ranges: std::iter::once(0..rows.len()).collect(),
                    histograms: BTreeMap::new(),
                },
                greatest,
            )
        };
        let (growing, greatest) = (0..objective.trees()).map(begin).unzip();
        self.growing = growing;
        greatest
    }
}

impl<S: Derived> Growing<S> {
    /// Parts rows as the tree has come to be, and sums up what it wants to know.
    fn follow(&mut self, sprout: &Sprout, bins: &Bins, table: &Binned) {
        if self.ranges.len() == 1 && sprout.buds[0].is_wanted {
            self.histograms.insert(0, Histogram::of(table, &self.sums, &self.rows, true));
        }
        let mut forks: Vec<(usize, usize)> = sprout
            .buds
            .iter()
            .enumerate()
            .filter_map(|(bud, node)| node.left.map(|left| (left as usize, bud)))
            .filter(|(left, _)| *left >= self.ranges.len())
            .collect();
        forks.sort_unstable();
        let mut room = Vec::new();
        for (left, bud) in forks {
            if let Some(fork) = &sprout.buds[bud].fork {
                self.part(bud, fork, bins, table, &mut room);
            }
            let parent = self.histograms.remove(&bud);
            let wanted = [left, left + 1].map(|child| sprout.buds[child].is_wanted);
            self.sum_up(left, wanted, parent, table);
        }
        self.histograms.retain(|&bud, _| {
            let node = &sprout.buds[bud];
            node.is_wanted || node.fork.is_some() && node.left.is_none()
        });
        let mut kept = self.histograms.values().map(Histogram::size).sum::<usize>();
        while kept > MAX_KEPT
            && let Some(entry) =
                self.histograms.first_entry().filter(|entry| !sprout.buds[*entry.key()].is_wanted)
        {
            kept -= entry.remove().size();
        }
    }

    /// Parts the rows of a node between its children, which come to stand behind all others.
    fn part(&mut self, bud: usize, fork: &Fork, bins: &Bins, table: &Binned, room: &mut Vec<u32>) {
        let range = self.ranges[bud].clone();
        let split = Split {
            feature: fork.feature as usize,
            bin: usize::from(fork.bin),
            missing_left: Some(fork.missing_left),
            gain: 0.0,
        };
        let rows = &mut self.rows[range.clone()];
        room.resize(rows.len().max(room.len()), 0);
        let count = part(table, rows, &split, bins.missing(split.feature), room, true);
        let middle = range.start + count;
        self.ranges.extend([range.start..middle, middle..range.end]);
    }

    /// Sums up the rows of two siblings, of which one or both are wanted: the larger is the parent less the smaller.
    fn sum_up(&mut self, left: usize, wanted: [bool; 2], parent: Option<Histogram>, table: &Binned) {
        let of = |bud: usize| Histogram::of(table, &self.sums, &self.rows[self.ranges[bud].clone()], true);
        let small = usize::from(self.ranges[left].len() > self.ranges[left + 1].len());
        let large = 1 - small;
        match parent {
            Some(mut parent) if wanted[large] => {
                let histogram = of(left + small);
                parent.subtract(&histogram);
                self.histograms.insert(left + large, parent);
                if wanted[small] {
                    self.histograms.insert(left + small, histogram);
                }
            }
            _ => {
                for child in (0..2).filter(|&child| wanted[child]) {
                    let histogram = of(left + child);
                    self.histograms.insert(left + child, histogram);
                }
            }
        }
    }

    /// The sums over all rows.
    fn total(&self, table: &Binned) -> Vec<i64> {
        let mut total = vec![0; S::CHANNELS];
        match self.histograms.get(&0) {
            Some(histogram) if table.width > 0 => {
                for cell in histogram.feature(table, 0).chunks_exact(S::CHANNELS) {
                    add_all(&mut total, cell, 1);
                }
            }
            _ => {
                let words = self.sums.words();
                self.rows.iter().for_each(|&row| S::add(words[row as usize], 1, &mut total));
            }
        }
        total
    }
}
