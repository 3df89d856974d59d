//! A training: several models from one table. It is the parent record of the jobs that make them; [`reconcile`] says
//! which children are missing. Repeating it changes nothing, for a child's name follows from its parent and role.

use alloc::{format, string::String, vec::Vec};

use serde::{Deserialize, Serialize};

use crate::{
    ensemble::{Bag, EnsembleSpec, Method},
    id::Digest,
    job::{Job, JobSpec, Plan, Problem, Work},
    merge::{self, Merge},
    param::Params,
    rng,
    split::Split,
};

/// One of the models asked for.
#[derive(Debug, Clone, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct ModelSpec {
    /// Its kind.
    pub kind: String,
    /// Its parameters, complete.
    pub params: Params,
    /// How its fit is cut.
    pub plan: Plan,
}

/// How the models are judged.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Validation {
    /// By this part of the rows, kept from training.
    Holdout(f64),
    /// By each of so many parts of the rows in turn; the model that is kept learns from all rows.
    Folds(u32),
}

/// What was asked for. It never changes, and the training's id is its digest.
#[derive(Debug, Clone, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct TrainingSpec {
    /// What is learned.
    pub problem: Problem,
    /// The models to train.
    pub models: Vec<ModelSpec>,
    /// How they are judged.
    pub validation: Validation,
    /// The source of everything random.
    pub seed: u64,
    /// How the preparation is cut.
    pub prepare: Plan,
    /// How an evaluation is cut.
    pub evaluate: Plan,
    /// Whether the models predict together, and how.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ensemble: Option<EnsembleSpec>,
}

/// The uses of a training's seed.
const SPLIT: u64 = 0;
const SAMPLE: u64 = 1;
const FIT: u64 = 2;
const BAG: u64 = 3;

impl TrainingSpec {
    /// The training's id.
    pub fn id(&self) -> Digest {
        Digest::of_value(self)
    }

    /// The splits that models are fitted on; the last one's models are kept.
    pub fn splits(&self) -> Vec<Split> {
        let seed = rng::draw(self.seed, SPLIT);
        match self.validation {
            Validation::Holdout(fraction) => alloc::vec![Split::Holdout { seed, fraction }],
            Validation::Folds(folds) => {
                let folds = (0..folds).map(|fold| Split::Fold { seed, folds, fold });
                folds.chain([Split::All]).collect()
            }
        }
    }

    /// The splits by which models are judged.
    pub fn judged_splits(&self) -> Vec<Split> {
        let mut splits = self.splits();
        splits.retain(|split| *split != Split::All);
        splits
    }

    /// The preparation for one of the splits.
    pub(crate) fn preparation(&self, split: Split) -> Work {
        Work::Prepare { problem: self.problem.clone(), split, seed: rng::draw(self.seed, SAMPLE) }
    }

    /// A fit for one of the splits, with what its preparation resulted in.
    pub fn fit(&self, split: Split, prepared: Digest, kind: &str, params: &Params) -> Work {
        Work::Fit {
            problem: self.problem.clone(),
            split,
            prepared,
            kind: kind.into(),
            params: params.clone(),
            seed: rng::draw(self.seed, FIT),
            bag: None,
        }
    }

    /// The fit of one of the models: of a bagged ensemble, on rows of its own.
    fn fit_of(&self, model: usize, split: Split, prepared: Digest) -> Work {
        let ModelSpec { kind, params, .. } = &self.models[model];
        let mut work = self.fit(split, prepared, kind, params);
        let bagged = self.ensemble.is_some_and(|ensemble| ensemble.method == Method::Bagging);
        if let (true, Work::Fit { bag, .. }) = (bagged, &mut work) {
            *bag = Some(Bag(rng::draw(rng::draw(self.seed, BAG), model as u64)));
        }
        work
    }

    fn prepare_role(split: usize) -> String {
        format!("prepare/{split}")
    }

    fn fit_role(model: usize, split: usize) -> String {
        format!("fit/{model}/{split}")
    }

    fn evaluate_role(model: usize) -> String {
        format!("evaluate/{model}")
    }

    /// The id of the model that is kept: that of the job which fits it.
    pub fn model_id(&self, training: Digest, model: usize) -> Digest {
        training.child(&Self::fit_role(model, self.splits().len() - 1))
    }

    /// The ids of all jobs behind one model, preparation included: folds first, the evaluation last.
    pub fn jobs_of(&self, training: Digest, model: usize) -> Vec<Digest> {
        let splits = 0..self.splits().len();
        let prepare = splits.clone().map(Self::prepare_role);
        let fit = splits.map(|split| Self::fit_role(model, split));
        prepare.chain(fit).chain([Self::evaluate_role(model)]).map(|role| training.child(&role)).collect()
    }

    /// What each model is called within its training: its kind, with a number if there are several of the kind.
    pub fn model_names(&self) -> Vec<String> {
        let kind = |m: usize| self.models[m].kind.as_str();
        let nth = |m: usize| (0..=m).filter(|earlier| kind(*earlier) == kind(m)).count();
        (0..self.models.len())
            .map(|m| if nth(m) == 1 { kind(m).into() } else { format!("{}-{}", kind(m), nth(m)) })
            .collect()
    }

    /// The id of the job that judges a model.
    pub fn evaluation_id(&self, training: Digest, model: usize) -> Digest {
        training.child(&Self::evaluate_role(model))
    }
}

/// What a training record holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Training {
    /// What was asked for.
    pub spec: TrainingSpec,
    /// A greater one is served first.
    pub priority: i32,
    /// How many times it was cancelled or taken up again, in turn: odd when it is cancelled.
    pub stops: u64,
}

impl Training {
    /// Whether it was cancelled.
    pub fn is_cancelled(&self) -> bool {
        !self.stops.is_multiple_of(2)
    }
}

impl Merge for Training {
    fn merge(&mut self, other: Self) -> bool {
        let learned = merge::greatest(&mut self.priority, other.priority);
        merge::greatest(&mut self.stops, other.stops) || learned
    }
}

/// The jobs that this training needs now and that are not there.
pub fn reconcile<'a>(spec: &TrainingSpec, job: impl Fn(&Digest) -> Option<&'a Job>) -> Vec<JobSpec> {
    let id = spec.id();
    let splits = spec.splits();
    let result = |role: &str| job(&id.child(role)).and_then(Job::result);
    let mut missing = Vec::new();
    let mut want = |role: String, plan: Plan, work: Work| {
        if job(&id.child(&role)).is_none() {
            missing.push(JobSpec { parent: Some(id), role, work, plan });
        }
    };
    for (s, &split) in splits.iter().enumerate() {
        let role = TrainingSpec::prepare_role(s);
        let prepared = result(&role);
        want(role, spec.prepare, spec.preparation(split));
        let Some(prepared) = prepared else { continue };
        for (m, model) in spec.models.iter().enumerate() {
            let work = spec.fit_of(m, split, prepared);
            want(TrainingSpec::fit_role(m, s), model.plan, work);
        }
    }
    let judged = spec.judged_splits();
    for m in 0..spec.models.len() {
        let models = judged
            .iter()
            .enumerate()
            .map(|(s, &split)| Some((result(&TrainingSpec::fit_role(m, s))?, split)));
        if let Some(models) = models.collect::<Option<Vec<_>>>() {
            let work = Work::Evaluate { problem: spec.problem.clone(), models };
            want(TrainingSpec::evaluate_role(m), spec.evaluate, work);
        }
    }
    missing
}

/// Where a training or a model of it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Nothing of it is being computed yet.
    Queued,
    /// It is being computed.
    Running,
    /// It is finished.
    Succeeded,
    /// It cannot be finished.
    Failed,
    /// Its owner stopped it.
    Cancelled,
}

impl State {
    /// Whether it will not change by itself any more.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// How one model of a training stands: a summary of its jobs.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelStatus {
    /// Queued, running, finished ...
    pub state: State,
    /// How much is done, in thousandths.
    pub permille: u32,
    /// The model's bytes, when they are there.
    pub model: Option<Digest>,
    /// The evaluation's result, when it is there.
    pub report: Option<Digest>,
    /// Why it failed.
    pub error: Option<String>,
}

/// The share of a model's progress that its preparation, its fits and its evaluation make up.
const WEIGHTS: [u32; 3] = [1, 8, 1];

impl Training {
    /// How the model number `model` stands.
    pub fn model_status<'a>(&self, model: usize, job: impl Fn(&Digest) -> Option<&'a Job>) -> ModelStatus {
        let id = self.spec.id();
        let ids = self.spec.jobs_of(id, model);
        let splits = self.spec.splits().len();
        let permille = |ids: &[Digest]| {
            let done =
                ids.iter().filter_map(&job).map(|job| job.progress.permille(&job.spec.plan)).sum::<u32>();
            done / ids.len() as u32
        };
        let (prepare, rest) = ids.split_at(splits);
        let (fit, evaluate) = rest.split_at(splits);
        let parts = [permille(prepare), permille(fit), permille(evaluate)];
        let done = parts.iter().zip(WEIGHTS).map(|(part, weight)| part * weight).sum::<u32>() / 10;
        let error = ids.iter().filter_map(&job).find_map(|job| job.failure.clone());
        let report = job(&self.spec.evaluation_id(id, model)).and_then(Job::result);
        let kept = job(&self.spec.model_id(id, model)).and_then(Job::result);
        let state = match (&error, report, kept) {
            (Some(_), _, _) => State::Failed,
            (None, Some(_), Some(_)) => State::Succeeded,
            _ if self.is_cancelled() => State::Cancelled,
            _ if done > 0 => State::Running,
            _ => State::Queued,
        };
        ModelStatus { state, permille: done, model: kept, report, error }
    }
}

/// Where a training stands, given its models.
pub fn state_of(models: &[ModelStatus]) -> State {
    let any = |state| models.iter().any(|model| model.state == state);
    let all_final = models.iter().all(|model| model.state.is_final());
    match () {
        () if any(State::Cancelled) => State::Cancelled,
        () if all_final && any(State::Succeeded) => State::Succeeded,
        () if all_final => State::Failed,
        () if any(State::Running) || any(State::Succeeded) || any(State::Failed) => State::Running,
        () => State::Queued,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{collections::BTreeMap, string::ToString, vec};
    use proptest::prelude::*;

    const PLAN: Plan = Plan { rounds: 1, units: 1, fold: true };

    fn spec(models: usize, validation: Validation) -> TrainingSpec {
        let problem = Problem {
            task: crate::job::Task::Regression,
            dataset: Digest::of(b"table"),
            target: "y".into(),
            features: vec!["x".into()],
        };
        let kinds = ["tree", "forest", "tree"];
        let model = |m: usize| ModelSpec { kind: kinds[m].into(), params: Params::default(), plan: PLAN };
        let models = (0..models).map(model).collect();
        TrainingSpec { problem, models, validation, seed: 7, prepare: PLAN, evaluate: PLAN, ensemble: None }
    }

    fn specs() -> impl Strategy<Value = TrainingSpec> {
        let validation = prop_oneof![Just(Validation::Holdout(0.2)), (2u32..4).prop_map(Validation::Folds)];
        (1usize..4, validation).prop_map(|(models, validation)| spec(models, validation))
    }

    fn finish(job: &mut Job) {
        job.progress.round = 1;
        job.progress.state = Some(Digest::of_value(&job.spec));
    }

    /// Makes and finishes jobs in an order that the choices say, until nothing is missing.
    fn carry_out(spec: &TrainingSpec, choices: &[usize]) -> BTreeMap<Digest, Job> {
        let mut jobs: BTreeMap<Digest, Job> = BTreeMap::new();
        let mut choices = choices.iter().copied().chain(core::iter::repeat(0));
        loop {
            let mut missing = reconcile(spec, |id| jobs.get(id));
            let mut open: Vec<&mut Job> = jobs.values_mut().filter(|job| job.is_open()).collect();
            if missing.is_empty() && open.is_empty() {
                return jobs;
            }
            let choice = choices.next().expect("there is no end of choices") % (missing.len() + open.len());
            match choice.checked_sub(missing.len()) {
                Some(job) => finish(open[job]),
                None => {
                    let spec = missing.swap_remove(choice);
                    let before = jobs.insert(spec.id(), Job::new(spec));
                    assert_eq!(before, None, "what is there is not missing");
                }
            }
        }
    }

    fn trainings() -> impl Strategy<Value = Training> {
        let spec = spec(1, Validation::Holdout(0.2));
        (-2i32..3, 0u64..4).prop_map(move |(priority, stops)| Training {
            spec: spec.clone(),
            priority,
            stops,
        })
    }

    proptest! {
        #[test]
        fn merge_is_a_join(a in trainings(), b in trainings(), c in trainings()) {
            let merged = |mut a: Training, b: &Training| {
                let before = a.clone();
                assert_eq!(a.merge(b.clone()), a != before, "says whether it learned");
                a
            };
            prop_assert_eq!(merged(a.clone(), &b), merged(b.clone(), &a));
            prop_assert_eq!(merged(merged(a.clone(), &b), &c), merged(a.clone(), &merged(b, &c)));
            prop_assert_eq!(merged(a.clone(), &a), a);
        }

        #[test]
        fn in_whatever_order_children_are_made_they_are_the_same(
            spec in specs(),
            choices in proptest::collection::vec(any::<usize>(), 0..60),
        ) {
            let (all, id) = (carry_out(&spec, &[]), spec.id());
            prop_assert_eq!(&carry_out(&spec, &choices), &all);
            let splits = spec.splits().len();
            prop_assert_eq!(all.len(), splits + spec.models.len() * (splits + 1));
            let behind = (0..spec.models.len()).flat_map(|m| spec.jobs_of(id, m));
            prop_assert_eq!(crate::id::distinct(behind), all.keys().copied().collect::<Vec<_>>());
            prop_assert!(all.values().all(|job| job.spec.parent == Some(id)));
            // A model is judged on what each of its fits, but for the one that learns from all rows, did not see.
            for m in 0..spec.models.len() {
                let Work::Evaluate { models, .. } = &all[&spec.evaluation_id(id, m)].spec.work else {
                    panic!("it evaluates")
                };
                let fits = spec.splits().into_iter().enumerate().filter(|(_, split)| *split != Split::All);
                let fits = fits.map(|(s, split)| (all[&id.child(&TrainingSpec::fit_role(m, s))].result(), split));
                prop_assert_eq!(models.iter().map(|(model, split)| (Some(*model), *split)).collect::<Vec<_>>(), fits.collect::<Vec<_>>());
            }
        }

        #[test]
        fn to_ask_twice_changes_nothing(
            spec in specs(),
            there in proptest::collection::vec(any::<bool>(), 20),
        ) {
            // Also when some are missing of which others are a consequence.
            let jobs = carry_out(&spec, &[]).into_iter().zip(there.into_iter().chain(core::iter::repeat(true)));
            let mut jobs: BTreeMap<_, _> = jobs.filter(|(_, there)| *there).map(|(job, _)| job).collect();
            let missing = reconcile(&spec, |id| jobs.get(id));
            prop_assert_eq!(&missing, &reconcile(&spec, |id| jobs.get(id)));
            for spec in missing {
                prop_assert_eq!(jobs.insert(spec.id(), Job::new(spec)), None);
            }
            prop_assert!(reconcile(&spec, |id| jobs.get(id)).is_empty());
        }
    }

    #[test]
    fn a_model_goes_from_queued_to_succeeded() {
        let training = Training { spec: spec(2, Validation::Folds(2)), priority: 0, stops: 0 };
        let mut jobs = BTreeMap::new();
        let (mut seen, mut least) = (Vec::new(), 0);
        loop {
            let statuses: Vec<_> = (0..2).map(|m| training.model_status(m, |id| jobs.get(id))).collect();
            assert!(statuses[0].permille >= least, "progress does not go back");
            least = statuses[0].permille;
            seen.push(state_of(&statuses));
            let Some(spec) = reconcile(&training.spec, |id| jobs.get(id)).into_iter().next() else { break };
            let id = spec.id();
            jobs.insert(id, Job::new(spec));
            finish(jobs.get_mut(&id).expect("it was just made"));
        }
        assert!(seen.is_sorted());
        seen.dedup();
        assert_eq!((seen, least), (vec![State::Queued, State::Running, State::Succeeded], 1000));
    }

    #[test]
    fn a_training_is_what_its_models_are() {
        let training = |stops| Training { spec: spec(3, Validation::Holdout(0.2)), priority: 0, stops };
        let id = training(0).spec.id();
        let mut jobs = carry_out(&training(0).spec, &[]);
        let state = |jobs: &BTreeMap<Digest, Job>, stops| {
            let training = training(stops);
            state_of(&[0, 1, 2].map(|m| training.model_status(m, |id| jobs.get(id))))
        };
        assert_eq!(
            [state(&jobs, 0), state(&jobs, 1)],
            [State::Succeeded; 2],
            "what is finished cannot be cancelled"
        );
        jobs.remove(&training(0).spec.evaluation_id(id, 1));
        assert_eq!([state(&jobs, 0), state(&jobs, 1)], [State::Running, State::Cancelled]);
        let mut fail = |m| {
            let fit = jobs.get_mut(&training(0).spec.model_id(id, m)).expect("it is there");
            fit.failure = Some("no".to_string());
            state(&jobs, 0)
        };
        assert_eq!([fail(1), fail(0), fail(2)], [State::Succeeded, State::Succeeded, State::Failed]);
    }

    #[test]
    fn models_of_one_kind_are_numbered() {
        let spec = spec(3, Validation::Holdout(0.2));
        assert_eq!(spec.model_names(), ["tree", "forest", "tree-2"]);
        assert_eq!(spec.splits().len(), 1);
    }
}
