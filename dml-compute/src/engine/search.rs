//! The trials of a study: each is fitted and judged whole by one unit, a round ends with what all have shown, and the
//! last with the models that are kept.

use std::panic::{AssertUnwindSafe, catch_unwind};

use dml_core::{Dataset, Digest, JobSpec, ModelSpec, Params, Plan, Split, Strategy, StudySpec, TrainingSpec};

use super::{Engine, Inputs, Outcome, evaluate::Judge, finish, shape};
use crate::{
    error::WorkError,
    learner::{Folded, Shape},
    model::Model,
    search::{self, History, Suggestion, Trial},
};

/// A study as the unit of a round sees it.
pub(super) struct Search<'a> {
    pub(super) engine: &'a Engine,
    pub(super) study: &'a StudySpec,
    /// The results of the preparations, a split each.
    pub(super) prepared: &'a [Digest],
    pub(super) dataset: &'a Dataset,
    pub(super) inputs: &'a dyn Inputs,
}

/// How far a fit has come.
struct Fitted {
    model: Model,
    /// With which the fit goes on; none when it is over.
    state: Option<Vec<u8>>,
}

impl Search<'_> {
    /// The trials of one unit, as a [`History`].
    pub(super) fn unit(
        &self,
        plan: &Plan,
        round: u32,
        index: u32,
        history: &History,
    ) -> Result<History, WorkError> {
        let shape = shape(self.dataset, &self.study.training.problem);
        let mut done = History::default();
        for (suggestion, before) in turn(self.study, plan, round, index, history) {
            let states = history.states.get(&suggestion.number);
            let (trial, states) = self.trial(round, &shape, suggestion, before, states)?;
            if !states.is_empty() {
                done.states.insert(trial.number, states);
            }
            done.trials.push(trial);
        }
        Ok(done)
    }

    /// Fits and judges. What is wrong with a trial is said in it, and hinders no other.
    fn trial(
        &self,
        round: u32,
        shape: &Shape,
        suggestion: Suggestion,
        before: Option<&Trial>,
        states: Option<&Vec<Vec<u8>>>,
    ) -> Result<(Trial, Vec<Vec<u8>>), WorkError> {
        let mut trial = untried(self.study, suggestion);
        if let Some(before) = before.filter(|_| states.is_none()) {
            // Its fits ended early: there is no more to be learned.
            return Ok((Trial { rounds: before.of_rounds, ..before.clone() }, Vec::new()));
        }
        let from = before.map_or(0, |before| before.rounds);
        let tried = catch_unwind(AssertUnwindSafe(|| self.learn(round, shape, &mut trial, from, states)));
        match tried {
            Ok(Ok(states)) => return Ok((trial, states)),
            Ok(Err(WorkError::Unavailable(why))) => return Err(WorkError::Unavailable(why)),
            Ok(Err(error)) => trial.error = Some(error.to_string()),
            Err(_) => trial.error = Some("the learner panicked".into()),
        }
        (trial.score, trial.metrics) = (None, Default::default());
        Ok((trial, Vec::new()))
    }

    fn learn(
        &self,
        round: u32,
        shape: &Shape,
        trial: &mut Trial,
        from: u32,
        states: Option<&Vec<Vec<u8>>>,
    ) -> Result<Vec<Vec<u8>>, WorkError> {
        let (engine, training) = (self.engine, &self.study.training);
        let refused = |error: crate::registry::KindError| WorkError::Input(error.to_string());
        let params =
            engine.registry.check(&trial.kind, training.problem.task, &trial.params).map_err(refused)?;
        let plan = engine.plan_fit(&trial.kind, &params, shape).map_err(refused)?;
        let upto = match self.study.strategy {
            Strategy::Halving => search::part(self.study, round, &plan),
            Strategy::Grid | Strategy::Random | Strategy::LatinHypercube | Strategy::Tpe => plan.rounds,
        };
        (trial.rounds, trial.of_rounds) = (upto, plan.rounds);
        let (mut models, mut left) = (Vec::new(), Vec::new());
        for (s, split) in training.judged_splits().into_iter().enumerate() {
            let state = states.and_then(|states| states.get(s));
            let fitted = self.fit((s, split), &trial.kind, &params, plan, from..upto, state.cloned())?;
            models.push((fitted.model, split));
            left.extend(fitted.state);
        }
        if left.len() < models.len() {
            // All must go on for the trial to.
            left.clear();
            trial.rounds = plan.rounds;
        }
        let report =
            Judge::of(&engine.registry, self.dataset, &training.problem, models, self.inputs).report()?;
        trial.score = report.get(&self.study.metric);
        trial.metrics = report.values;
        match trial.score {
            Some(_) => Ok(left),
            None => {
                let why = format!("{} is not defined for the rows that are held back", self.study.metric);
                Err(WorkError::Input(why))
            }
        }
    }

    /// Goes on with a fit for some rounds.
    fn fit(
        &self,
        (s, split): (usize, Split),
        kind: &str,
        params: &Params,
        plan: Plan,
        rounds: std::ops::Range<u32>,
        state: Option<Vec<u8>>,
    ) -> Result<Fitted, WorkError> {
        let lost = || WorkError::Corrupt { what: "a study", why: "a preparation is missing".into() };
        let prepared = *self.prepared.get(s).ok_or_else(lost)?;
        let work = self.study.training.fit(split, prepared, kind, params);
        let job = JobSpec { parent: None, role: "trial".into(), work, plan };
        self.engine.with_fit(&job, self.inputs, |learner, fit, prepared| {
            let mut state = state;
            for round in rounds {
                let units = (0..plan.units).map(|index| learner.unit(fit, round, index, state.as_deref()));
                let units = units.collect::<Result<Vec<_>, _>>()?;
                match learner.fold(fit, round, state.as_deref(), &units)? {
                    Folded::Next(next) => state = Some(next),
                    Folded::Done(learned) => {
                        return Ok(Fitted { model: finish(fit, learner, prepared, learned), state: None });
                    }
                }
            }
            let so_far = state.as_deref().map(|state| learner.so_far(fit, state)).transpose()?.flatten();
            let none = || WorkError::Input(format!("{kind} has no model before its last round"));
            Ok(Fitted { model: finish(fit, learner, prepared, so_far.ok_or_else(none)?), state })
        })
    }
}

/// The trials whose turn it is, each with what is known of it.
fn turn<'h>(
    study: &StudySpec,
    plan: &Plan,
    round: u32,
    index: u32,
    history: &'h History,
) -> Vec<(Suggestion, Option<&'h Trial>)> {
    let first = round.saturating_mul(plan.units);
    match study.strategy {
        // What it chooses depends on what it chose before for the same round.
        Strategy::Tpe => {
            let suggestions = search::suggest(study, &history.trials, first, index.saturating_add(1));
            let mine = suggestions.into_iter().filter(|suggestion| suggestion.number == first + index);
            return mine.map(|suggestion| (suggestion, None)).collect();
        }
        // Each trial stands alone: a unit has its share of all.
        Strategy::Grid | Strategy::Random | Strategy::LatinHypercube => {
            let all = Plan { units: plan.rounds.saturating_mul(plan.units), ..*plan };
            let share = all.share(first.saturating_add(index), study.trials as usize);
            let count = share.len() as u32;
            let suggestions = search::suggest(study, &[], share.start as u32, count);
            return suggestions.into_iter().map(|suggestion| (suggestion, None)).collect();
        }
        Strategy::Halving => {}
    }
    let numbers = search::rung(study, round, history, |count| plan.share(index, count));
    let suggest = |number| {
        if let Ok(place) = history.trials.binary_search_by_key(&number, |trial| trial.number) {
            let trial = &history.trials[place];
            let params = trial.params.clone();
            return Some((Suggestion { number, space: trial.space, params }, Some(trial)));
        }
        search::suggest(study, &[], number, 1).pop().map(|suggestion| (suggestion, None))
    };
    numbers.into_iter().filter_map(suggest).collect()
}

/// What stands in for a unit that kills whoever works on it: its trials, all failed.
pub(super) fn give_up(study: &StudySpec, plan: &Plan, round: u32, index: u32, history: &History) -> History {
    let why = "no worker lived to finish it: it may need more memory than a worker has";
    let trials = turn(study, plan, round, index, history).into_iter();
    let failed = |(suggestion, _)| Trial { error: Some(why.into()), ..untried(study, suggestion) };
    History { trials: trials.map(failed).collect(), ..History::default() }
}

fn untried(study: &StudySpec, suggestion: Suggestion) -> Trial {
    let Suggestion { number, space, params } = suggestion;
    Trial {
        number,
        space,
        kind: study.spaces[space as usize].kind.clone(),
        params,
        score: None,
        metrics: Default::default(),
        rounds: 0,
        of_rounds: 1,
        error: None,
    }
}

/// The end of a round of a study.
pub(super) fn fold(
    study: &StudySpec,
    plan: &Plan,
    round: u32,
    mut history: History,
    partials: &[Vec<u8>],
) -> Result<Outcome, WorkError> {
    let finished = round + 1 >= plan.rounds;
    history.states.clear();
    for partial in partials {
        history.add(History::from_bytes(partial)?);
    }
    let goes_on = if study.strategy == Strategy::Halving && !finished {
        search::rung(study, round + 1, &history, |count| 0..count)
    } else {
        Vec::new()
    };
    history.states.retain(|number, _| goes_on.binary_search(number).is_ok());
    Ok(Outcome { state: history.to_bytes(), finished })
}

impl Engine {
    /// The training that a finished study ends in: the best of its trials, to be kept. None if all have failed.
    pub fn best(&self, study: &StudySpec, dataset: &Dataset, trials: &History) -> Option<TrainingSpec> {
        let shape = shape(dataset, &study.training.problem);
        let task = study.training.problem.task;
        let ranked = trials.ranked(&study.metric).into_iter().filter(|trial| trial.score.is_some());
        let models = ranked.take(study.keep as usize).filter_map(|trial| {
            let params = self.registry.check(&trial.kind, task, &trial.params).ok()?;
            let plan = self.plan_fit(&trial.kind, &params, &shape).ok()?;
            Some(ModelSpec { kind: trial.kind.clone(), params, plan })
        });
        // Two spaces may name the same parameters.
        let mut kept: Vec<ModelSpec> = Vec::new();
        models.for_each(|model| {
            if !kept.contains(&model) {
                kept.push(model);
            }
        });
        (!kept.is_empty()).then(|| TrainingSpec { models: kept, ..study.training.clone() })
    }
}
