use std::collections::BTreeMap;

use dml_core::{Dimension, Plan, Space, Task, TrainingSpec, Validation, Value, job::Problem};
use proptest::{prop_assert, prop_assert_eq, proptest};

use super::*;

fn dimensions(all: &[(&str, Dimension)]) -> BTreeMap<String, Dimension> {
    all.iter().map(|(name, dimension)| (name.to_string(), dimension.clone())).collect()
}

fn space(kind: &str, all: &[(&str, Dimension)]) -> Space {
    let fixed = Params([("fixed".to_string(), Value::Bool(true))].into());
    Space { kind: kind.into(), fixed, dimensions: dimensions(all) }
}

fn ints(values: &[i64]) -> Dimension {
    Dimension::Values(values.iter().map(|value| Value::Int(*value)).collect())
}

fn study(strategy: Strategy, trials: u32, spaces: Vec<Space>) -> StudySpec {
    let plan = Plan { rounds: trials.div_ceil(4), units: 4, fold: true };
    let problem = Problem {
        task: Task::Regression,
        dataset: Digest::of(b"table"),
        target: "y".into(),
        features: vec!["x".into()],
    };
    StudySpec {
        training: TrainingSpec {
            problem,
            models: Vec::new(),
            validation: Validation::Holdout(0.2),
            seed: 3,
            prepare: plan,
            evaluate: plan,
            ensemble: None,
        },
        spaces,
        strategy,
        trials,
        reduction: 3,
        metric: "rmse".into(),
        keep: 1,
        search: plan,
    }
}

fn finite() -> Vec<Space> {
    let colours = Dimension::Values(["red", "blue"].map(|word| Value::Text(word.into())).to_vec());
    let first = space("first", &[("a", ints(&[1, 2, 4])), ("b", Dimension::Int(-1, 2)), ("c", colours)]);
    vec![first, space("second", &[("d", Dimension::LogInt(1, 5))])]
}

fn mixed() -> Vec<Space> {
    let all =
        [("x", Dimension::Uniform(-5.0, 5.0)), ("y", Dimension::Log(1e-3, 10.0)), ("n", ints(&[0, 1, 2]))];
    vec![space("mixed", &all)]
}

/// A trial with the score of its distance from a point.
fn tried(spec: &StudySpec, suggestion: Suggestion) -> Trial {
    let params = &suggestion.params;
    let (x, y) = (params.float("x"), libm::log10(params.float("y")));
    let score = (x - 2.0).powi(2) + (y + 1.0).powi(2) + (params.int("n") as f64 - 1.0).abs();
    Trial {
        number: suggestion.number,
        space: suggestion.space,
        kind: spec.spaces[suggestion.space as usize].kind.clone(),
        params: suggestion.params,
        score: Some(score),
        metrics: BTreeMap::new(),
        rounds: 1,
        of_rounds: 1,
        error: None,
    }
}

/// All trials of a study that is made a batch at a time.
fn carry_out(spec: &StudySpec) -> Vec<Trial> {
    let mut done = Vec::new();
    for round in 0..spec.search.rounds {
        let batch = suggest(spec, &done, round * spec.search.units, spec.search.units);
        done.extend(batch.into_iter().map(|suggestion| tried(spec, suggestion)).collect::<Vec<_>>());
    }
    done
}

#[test]
fn every_strategy_covers_a_space_that_has_an_end_once() {
    let size = size(&finite()).unwrap() as u32;
    assert_eq!(size, 3 * 4 * 2 + 5);
    for strategy in
        [Strategy::Grid, Strategy::Random, Strategy::LatinHypercube, Strategy::Tpe, Strategy::Halving]
    {
        let spec = study(strategy, size, finite());
        let names: BTreeSet<Digest> = carry_out(&spec).iter().map(|trial| trial.id(spec.id())).collect();
        assert_eq!(names.len(), size as usize, "{strategy:?}");
        let beyond = study(strategy, size + 8, finite());
        assert_eq!(carry_out(&beyond).len(), size as usize, "{strategy:?} has nothing more to try");
    }
    let grid = suggest(&study(Strategy::Grid, size, finite()), &[], 0, 3);
    let words: Vec<_> =
        grid.iter().map(|it| (it.params.int("a"), it.params.int("b"), it.params.text("c"))).collect();
    assert_eq!(words, [(1, -1, "red"), (1, -1, "blue"), (1, 0, "red")], "the last changes fastest");
    assert!(grid.iter().all(|it| it.params.bool("fixed")));
}

#[test]
fn what_is_suggested_follows_from_the_trials_before() {
    for strategy in [Strategy::Random, Strategy::LatinHypercube, Strategy::Tpe] {
        let spec = study(strategy, 40, mixed());
        let done = carry_out(&spec);
        assert_eq!(done, carry_out(&spec), "{strategy:?}");
        // A unit that is asked for its own trial finds the one that the whole batch has.
        for n in 0..40 {
            let (first, within) = (n / 4 * 4, n % 4);
            let alone = suggest(&spec, &done[..first as usize], first, within + 1).pop().unwrap();
            assert_eq!(alone.params, done[n as usize].params, "{strategy:?} {n}");
        }
        let other = StudySpec { training: TrainingSpec { seed: 4, ..spec.training.clone() }, ..spec };
        assert_ne!(carry_out(&other)[0].params, done[0].params, "another seed, other trials");
    }
}

#[test]
fn a_latin_hypercube_has_a_trial_in_each_part_of_each_dimension() {
    for (strategy, trials) in [(Strategy::LatinHypercube, 20), (Strategy::Tpe, STARTUP)] {
        let spec = study(strategy, trials, mixed());
        let done = carry_out(&spec);
        for (name, dimension) in &spec.spaces[0].dimensions {
            if matches!(dimension, Dimension::Values(_)) {
                continue;
            }
            let at = |trial: &Trial| space::encode(dimension, trial.params.0.get(name));
            let parts: BTreeSet<u32> =
                done.iter().map(|trial| (at(trial) * f64::from(trials)) as u32).collect();
            assert_eq!(parts, (0..trials).collect(), "{strategy:?} {name}");
        }
    }
}

#[test]
fn the_parzen_estimator_finds_what_random_points_do_not() {
    let least = |strategy| {
        let bests = (0..5).map(|seed| {
            let spec = study(strategy, 60, mixed());
            let spec = StudySpec { training: TrainingSpec { seed, ..spec.training.clone() }, ..spec };
            carry_out(&spec).into_iter().filter_map(|trial| trial.score).fold(f64::INFINITY, f64::min)
        });
        bests.sum::<f64>()
    };
    let (tpe, random) = (least(Strategy::Tpe), least(Strategy::Random));
    assert!(tpe < random / 3.0, "{tpe} against {random}");
}

#[test]
fn trials_are_ranked_and_those_that_failed_come_last() {
    let spec = study(Strategy::Random, 6, mixed());
    let mut done = carry_out(&spec);
    let scores = [Some(2.0), None, Some(1.0), Some(2.0), Some(0.5), Some(9.0)];
    done.iter_mut().zip(scores).for_each(|(trial, score)| trial.score = score);
    // This one has learned half of what the others have.
    (done[4].rounds, done[4].of_rounds) = (1, 2);
    let history = History { trials: done, ..History::default() };
    let order = |metric| history.ranked(metric).iter().map(|trial| trial.number).collect::<Vec<_>>();
    assert_eq!(order("rmse"), [2, 0, 3, 5, 4, 1]);
    assert_eq!(order("accuracy"), [5, 0, 3, 2, 4, 1]);
}

#[test]
fn a_third_goes_on_and_learns_three_times_as_much() {
    assert_eq!([rungs(27, 3, 100), rungs(27, 3, 8), rungs(2, 3, 8), rungs(64, 4, 8)], [4, 3, 1, 3]);
    assert_eq!(rungs(1000, 2, 1), 1, "what learns in one round cannot be given up early");
    let plan = Plan { rounds: 3, units: 4, fold: true };
    let spec = StudySpec { search: plan, ..study(Strategy::Halving, 9, mixed()) };
    let fit = Plan::sequential(18);
    assert_eq!([0, 1, 2].map(|round| part(&spec, round, &fit)), [2, 6, 18]);
    let trials = suggest(&spec, &[], 0, 9).into_iter().map(|suggestion| tried(&spec, suggestion)).collect();
    let history = History { trials, ..History::default() };
    let all = |round| rung(&spec, round, &history, |count| 0..count);
    let mut best: Vec<u32> = history.ranked("rmse").iter().take(3).map(|trial| trial.number).collect();
    assert_eq!((all(0).len(), all(2)), (9, vec![best[0]]));
    best.sort_unstable();
    assert_eq!(all(1), best);
    let shares: Vec<u32> =
        (0..4).flat_map(|unit| rung(&spec, 0, &history, |count| plan.share(unit, count))).collect();
    assert_eq!(shares, (0..9).collect::<Vec<_>>(), "each is in one unit");
}

#[test]
fn importance_is_that_of_the_parameter_which_the_score_follows() {
    let spec = study(Strategy::Random, 60, mixed());
    let mut done = carry_out(&spec);
    done.iter_mut().for_each(|trial| trial.score = Some(trial.params.float("x")));
    let shares = importance(&spec, &done);
    assert!(shares["x"] > 0.8 && shares["y"] < 0.2 && shares["n"] < 0.2, "{shares:?}");
    assert!(importance(&spec, &done[..5]).is_empty(), "five trials tell nothing");
    done.iter_mut().for_each(|trial| trial.score = Some(1.0));
    assert!(importance(&spec, &done).values().all(|share| *share == 0.0));
}

#[test]
fn a_history_that_is_cut_or_changed_is_refused() {
    let spec = study(Strategy::Random, 4, mixed());
    let mut history = History { trials: carry_out(&spec), ..History::default() };
    history.states.insert(2, vec![vec![1, 2, 3]]);
    let bytes = history.to_bytes();
    assert_eq!(History::from_bytes(&bytes).unwrap(), history);
    for end in 0..bytes.len() {
        assert!(History::from_bytes(&bytes[..end]).is_err(), "cut to {end}");
    }
    history.trials.swap(0, 1);
    assert!(History::from_bytes(&history.to_bytes()).unwrap_err().to_string().contains("order"));
}

proptest! {
    #[test]
    fn values_lie_in_their_dimension(x in 0.0..=1.0f64, low in -1000i64..1000, width in 1i64..1000) {
        let (from, to) = (low as f64, (low + width) as f64);
        let above = 2000.0 + from;
        for dimension in [
            Dimension::Uniform(from, to),
            Dimension::Log(above, above + width as f64),
            Dimension::Int(low, low + width),
            Dimension::LogInt(low + 1001, low + 1001 + width),
            ints(&[1, 2, 3]),
        ] {
            let value = space::decode(&dimension, x);
            let inside = match (&dimension, &value) {
                (Dimension::Uniform(a, b) | Dimension::Log(a, b), Value::Float(v)) => (a..=b).contains(&v),
                (Dimension::Int(a, b) | Dimension::LogInt(a, b), Value::Int(v)) => (a..=b).contains(&v),
                (Dimension::Values(values), v) => values.contains(v),
                _ => false,
            };
            prop_assert!(inside, "{dimension:?} {value:?}");
            let again = space::decode(&dimension, space::encode(&dimension, Some(&value)));
            match (&value, &again) {
                (Value::Float(a), Value::Float(b)) => prop_assert!((a - b).abs() <= 1e-9 * a.abs().max(1.0)),
                (a, b) => prop_assert_eq!(a, b),
            }
        }
    }
}
