//! Claims, leases and results.
use super::*;

/// A bench with a prediction of so many units.
fn predicting(units: u32) -> (Bench, Digest) {
    let (mut bench, id, spec) = trained(&[ONCE]);
    while bench.step().is_some() {}
    let model = bench.job(spec.model_id(id, 0)).result().expect("it is finished");
    let predict = bench.create(prediction(model, units), "p");
    (bench, predict)
}

fn pieces(work: &[Assignment]) -> Vec<Piece> {
    work.iter().map(|assignment| assignment.lease.slot.piece).collect()
}

#[test]
fn a_claim_waits_for_work_and_for_no_longer_than_it_says() {
    let mut bench = Bench::new();
    bench.create(Body::Dataset(table(0)), "t");
    let (first, effects) = bench.send(claim("a", 2, 5000));
    assert_eq!((effects, bench.node.deadline(bench.now)), (vec![], Some(bench.now + 5 * SECOND)));
    let (gone, _) = bench.send(claim("b", 2, 5000));
    bench.handle(Event::Gone(gone));
    let answers = bench.answers(Request::Create { body: Body::Training(training(&[ONCE], 0)), name: None });
    let [(to, Response::Work(work)), (_, Response::Created { new: true, .. })] = answers.as_slice() else {
        panic!("{answers:?}")
    };
    assert_eq!((*to, pieces(work)), (first, vec![Piece::Fold]));
    assert_eq!(work[0].lease_ms, 20_000);
    let (second, _) = bench.send(claim("a", 1, u64::MAX));
    assert_eq!(bench.node.deadline(bench.now), Some(bench.now + 20 * SECOND), "the lease of the first");
    bench.ask(Request::Renew { worker: "w".into(), leases: vec![work[0].lease] });
    bench.now += 15 * SECOND;
    bench.ask(Request::Renew { worker: "w".into(), leases: vec![work[0].lease] });
    bench.now += 15 * SECOND;
    let none = Effect::Reply(second, Response::Work(Vec::new()));
    assert_eq!(bench.handle(Event::Tick), [none], "no claim waits longer than the settings allow");
}

#[test]
fn a_round_has_its_units_then_its_fold() {
    let plan = Plan { rounds: 2, units: 3, fold: true };
    let (mut bench, id, spec) = trained(&[plan]);
    bench.step();
    let fit = spec.model_id(id, 0);
    for round in 0..2 {
        let mut work = bench.claim(1);
        bench.ask(done(work[0].lease));
        work.extend(bench.claim(9));
        assert_eq!(pieces(&work), [0, 1, 2].map(Piece::Unit));
        assert!(work.iter().all(|w| w.lease.slot.round == round && w.progress.units.is_empty()));
        assert!(work.iter().all(|w| w.progress.state == bench.job(fit).progress.state));
        work.iter().rev().for_each(|w| drop(bench.ask(done(w.lease))));
        let fold = bench.claim(9);
        assert_eq!(pieces(&fold), [Piece::Fold]);
        let partials = work.iter().map(|w| result(&w.lease.slot));
        assert_eq!(
            fold[0].progress.units.values().copied().collect::<Vec<_>>(),
            partials.collect::<Vec<_>>()
        );
        assert_eq!(bench.ask(done(fold[0].lease)), Some(Response::Done));
    }
    assert_eq!(bench.job(fit).progress.round, 2);
    assert_eq!(
        bench.claim(9).iter().map(|w| w.lease.slot.job).collect::<Vec<_>>(),
        [spec.evaluation_id(id, 0)]
    );
}

#[test]
fn units_go_to_who_had_them_in_the_round_before() {
    let plan = Plan { rounds: 4, units: 3, fold: true };
    let (mut bench, ..) = trained(&[plan]);
    bench.step();
    let take = |bench: &mut Bench, worker: &str, slots| {
        let Some(Response::Work(work)) = bench.ask(claim(worker, slots, 0)) else { panic!("no answer") };
        let pieces = pieces(&work);
        work.iter().for_each(|w| drop(bench.ask(done(w.lease))));
        pieces
    };
    for (worker, slots, units) in [("a", 1, vec![0]), ("b", 1, vec![1]), ("a", 1, vec![2])] {
        assert_eq!(take(&mut bench, worker, slots), units.into_iter().map(Piece::Unit).collect::<Vec<_>>());
    }
    assert_eq!(take(&mut bench, "a", 9), [Piece::Fold]);
    // The first to come gets its own, and one that is new nothing but what it would go without.
    assert_eq!(take(&mut bench, "b", 9), [Piece::Unit(1)]);
    assert_eq!(take(&mut bench, "c", 9), [Piece::Unit(0)]);
    assert_eq!(take(&mut bench, "a", 9), [Piece::Unit(2)]);
    assert_eq!(take(&mut bench, "b", 1), [Piece::Fold]);
    // Who has left is not waited for.
    bench.ask(Request::Leave { worker: "a".into(), dead: false });
    assert_eq!(take(&mut bench, "b", 9), [1, 2].map(Piece::Unit));
    assert_eq!(take(&mut bench, "b", 9), [Piece::Unit(0)]);
}

#[test]
fn a_fold_may_say_that_the_job_is_finished() {
    let (mut bench, id, spec) = trained(&[Plan { rounds: 50, units: 1, fold: true }]);
    bench.step();
    let lease = bench.claim(1)[0].lease;
    let state = Digest::of(b"model");
    bench.ask(report(lease, Outcome::State { state, finished: true }));
    assert_eq!(bench.job(spec.model_id(id, 0)).result(), Some(state));
}

#[test]
fn only_what_is_over_is_refused() {
    let plan = Plan { rounds: 2, units: 2, fold: true };
    let (mut bench, id, spec) = trained(&[plan]);
    let first = bench.step().expect("there is work");
    let stale = |slot| Refusal::StaleLease { slot };
    assert_eq!(bench.refusal(done(first)), stale(first.slot), "a job that is finished");
    let leases: Vec<Lease> = bench.claim(2).iter().map(|w| w.lease).collect();
    let slot = leases[0].slot;
    let anybody = |slot| Lease { slot, root: id, epoch: 0 };
    let no_unit = anybody(Slot { piece: Piece::Unit(2), ..slot });
    let ahead = anybody(Slot { round: 1, ..slot });
    let fold = anybody(Slot { piece: Piece::Fold, ..slot });
    for lease in [no_unit, ahead] {
        assert_eq!(bench.refusal(done(lease)), stale(lease.slot));
        assert_eq!(bench.refusal(report(lease, Outcome::Failed("no".into()))), stale(lease.slot));
    }
    let state = Outcome::State { state: Digest::MIN, finished: false };
    assert_eq!(bench.refusal(report(leases[0], state)), stale(slot), "a state is of a fold");
    assert_eq!(bench.refusal(report(fold, Outcome::Partial(Digest::MIN))), stale(fold.slot));
    assert_eq!(bench.ask(done(anybody(slot))), Some(Response::Done), "from whoever brings it");
    assert_eq!(bench.ask(done(leases[0])), Some(Response::Done), "twice is once");
    let no = Outcome::Failed("no".into());
    assert_eq!(bench.refusal(report(leases[0], no)), stale(slot), "what was done can be done");
    // Who folds has all partials, even if this node has forgotten one.
    assert_eq!(bench.ask(done(fold)), Some(Response::Done));
    assert_eq!(bench.job(spec.model_id(id, 0)).progress.round, 1);
    assert_eq!(bench.refusal(done(leases[1])), stale(leases[1].slot), "a round that is over");
    assert_eq!(
        bench.ask(Request::Renew { worker: "w".into(), leases: leases.clone() }),
        Some(Response::Lost(leases))
    );
}

#[test]
fn a_lease_runs_out_and_its_piece_is_given_to_who_waits() {
    let (mut bench, _) = predicting(1);
    let lease = bench.claim(1)[0].lease;
    let (ticket, _) = bench.send(claim("b", 1, 30_000));
    bench.now += 10 * SECOND;
    assert_eq!(
        bench.ask(Request::Renew { worker: "w".into(), leases: vec![lease] }),
        Some(Response::Lost(vec![]))
    );
    bench.now += 20 * SECOND;
    assert_eq!(bench.node.deadline(bench.now), Some(bench.now));
    let effects = bench.handle(Event::Tick);
    let [Effect::Reply(to, Response::Work(work))] = effects.as_slice() else { panic!("{effects:?}") };
    assert_eq!((*to, work[0].lease.slot), (ticket, lease.slot));
    assert!(work[0].lease.epoch > lease.epoch);
    assert_eq!(
        bench.ask(Request::Renew { worker: "w".into(), leases: vec![lease] }),
        Some(Response::Lost(vec![lease]))
    );
    // The first one's result counts all the same, and the job is finished with it.
    assert_eq!(bench.ask(done(lease)), Some(Response::Done));
    assert_eq!(
        bench.ask(Request::Renew { worker: "w".into(), leases: vec![work[0].lease] }),
        Some(Response::Lost(vec![work[0].lease]))
    );
}

#[test]
fn a_piece_that_kills_its_workers_ends_its_job() {
    let (mut bench, predict) = predicting(2);
    for _ in 0..MAX_LOST {
        assert_eq!(pieces(&bench.claim(1)), [Piece::Unit(0)]);
        bench.now += 20 * SECOND;
        bench.handle(Event::Tick);
    }
    let failure = bench.job(predict).failure.clone().expect("it was given up");
    assert!(failure.contains("5 times"), "{failure}");
    assert_eq!((bench.claim(2), bench.node.deadline(bench.now)), (vec![], None));
}

#[test]
fn a_trial_is_given_up_before_its_study_is() {
    let mut bench = Bench::new();
    bench.create(Body::Dataset(table(0)), "table");
    let training = training(&[], 0).spec;
    let (strategy, metric, search) = (study::Strategy::Random, "rmse".into(), ONCE);
    let spec = StudySpec {
        training,
        spaces: Vec::new(),
        strategy,
        trials: 1,
        reduction: 4,
        metric,
        keep: 1,
        search,
    };
    let study = bench.create(Body::Study(Study { spec: spec.clone(), priority: 0, stops: 0 }), "study");
    bench.step().expect("the preparation");
    for lost in 0..2 * MAX_LOST {
        let work = bench.claim(1);
        assert_eq!((work[0].lost, work[0].spec.work.can_give_up()), (lost, true));
        bench.now += 20 * SECOND;
        bench.handle(Event::Tick);
    }
    let failure = bench.job(spec.search_id(study)).failure.clone().expect("it was given up");
    assert!(failure.contains("10 times"), "{failure}");
}

#[test]
fn a_piece_handed_back_rests_for_its_pause_but_not_for_ever() {
    let (mut bench, _) = predicting(1);
    for (pause_ms, rest) in [(0, 0), (3000, 3), (u64::MAX, 20)] {
        let lease = bench.claim(1)[0].lease;
        let (ticket, _) = bench.send(claim("b", 1, 25_000));
        let back = Request::Report { lease, outcome: Outcome::Released { pause_ms } };
        let (_, mut effects) = bench.send(back);
        if rest > 0 {
            assert_eq!(bench.node.deadline(bench.now), Some(bench.now + rest * SECOND));
            bench.now += rest * SECOND;
            effects = bench.handle(Event::Tick);
        }
        let work = effects.iter().find_map(|effect| match effect {
            Effect::Reply(to, Response::Work(work)) if *to == ticket => work.first(),
            Effect::Persist { .. }
            | Effect::Reply(..)
            | Effect::Discard(_)
            | Effect::Send { .. }
            | Effect::Remember(_) => None,
        });
        let next = work.expect("it is free again").lease;
        bench.send(report(next, Outcome::Released { pause_ms: 0 }));
    }
}

#[test]
fn a_worker_that_leaves_frees_what_it_holds_and_gets_no_more() {
    let (mut bench, _) = predicting(2);
    bench.claim(2);
    let (own, _) = bench.send(claim("w", 1, 30_000));
    let (other, _) = bench.send(claim("b", 1, 30_000));
    let answers = bench.answers(Request::Leave { worker: "w".into(), dead: false });
    let [(_, Response::Done), (a, Response::Work(none)), (b, Response::Work(work))] = answers.as_slice()
    else {
        panic!("{answers:?}")
    };
    assert_eq!((*a, none.len(), *b, pieces(work)), (own, 0, other, vec![Piece::Unit(0)]));
    let Some(Response::Workers(workers)) = bench.ask(Request::Workers) else { panic!("workers") };
    assert_eq!(
        workers,
        [WorkerSeen { worker: "b".into(), capacity: 4, leases: 1, age_ms: 0, address: None }]
    );
}

#[test]
fn a_worker_is_heard_of_when_it_renews_and_forgotten_when_it_does_not() {
    let (mut bench, _) = predicting(1);
    let lease = bench.claim(1)[0].lease;
    let seen = |bench: &mut Bench| match bench.ask(Request::Workers) {
        Some(Response::Workers(workers)) => workers.iter().map(|w| (w.leases, w.age_ms)).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    bench.now += 15 * SECOND;
    assert_eq!(seen(&mut bench), [(1, 15_000)]);
    bench.ask(Request::Renew { worker: "w".into(), leases: vec![lease] });
    bench.now += SECOND;
    assert_eq!(seen(&mut bench), [(1, 1000)]);
    bench.now += Settings::default().forget_worker;
    bench.handle(Event::Tick);
    assert_eq!(seen(&mut bench), []);
}

#[test]
fn a_model_that_fails_stops_its_own_jobs_alone() {
    let (mut bench, id, _) = trained(&[ONCE, ONCE]);
    bench.step();
    let work = bench.claim(2);
    bench.ask(report(work[0].lease, Outcome::Failed("singular".into())));
    bench.ask(done(work[1].lease));
    while bench.step().is_some() {}
    let job = |id: &Digest| bench.node.catalogue.job(id);
    let training = bench.node.catalogue.training(&id).expect("it is there");
    let states: Vec<_> = (0..2).map(|m| training.model_status(m, job).state).collect();
    assert!(
        states.contains(&crate::training::State::Failed)
            && states.contains(&crate::training::State::Succeeded),
        "{states:?}"
    );
    assert_eq!(bench.refusal(Request::Cancel { id }), Refusal::NotCancellable);
}

#[test]
fn a_failed_preparation_leaves_nothing_to_do() {
    let mut bench = Bench::new();
    bench.create(Body::Dataset(table(0)), "t");
    let mut folds = training(&[ONCE, ONCE], 0);
    folds.spec.validation = Validation::Folds(3);
    bench.create(Body::Training(folds), "f");
    let work = bench.claim(9);
    assert_eq!(work.len(), 4);
    bench.ask(report(work[1].lease, Outcome::Failed("a blank target".into())));
    assert_eq!(bench.claim(9), []);
    let rest = vec![work[0].lease, work[2].lease, work[3].lease];
    assert_eq!(
        bench.ask(Request::Renew { worker: "w".into(), leases: rest.clone() }),
        Some(Response::Lost(rest))
    );
    // Nothing needs the table any more.
    assert_eq!(bench.ask(Request::Delete { id: table(0).id() }), Some(Response::Done));
}

#[test]
fn jobs_take_turns_the_urgent_first_and_the_near_among_equals() {
    let mut bench = Bench::new();
    for n in [0, 1] {
        bench.create(Body::Dataset(table(n)), "t");
    }
    let many = Plan { rounds: 1, units: 9, fold: true };
    let make = |bench: &mut Bench, dataset: u8, priority| {
        let mut training = training(&[ONCE], 5);
        (training.priority, training.spec.prepare) = (priority, many);
        training.spec.problem.dataset = table(dataset).id();
        bench.create(Body::Training(training), "t").child("prepare/0")
    };
    let [near, far] = [1, 0].map(|dataset| make(&mut bench, dataset, 0));
    let next = |bench: &mut Bench| {
        let have = vec![Digest::MIN, table(1).id()];
        let claim = Claim { worker: "w".into(), slots: 4, capacity: 4, have, wait_ms: 0, address: None };
        match bench.ask(Request::Claim(claim)) {
            Some(Response::Work(work)) => work.iter().map(|w| w.lease.slot.job).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(next(&mut bench), [near, far, near, far]);
    // A training that is asked for again more urgently goes first.
    make(&mut bench, 0, 7);
    assert_eq!(next(&mut bench), [far; 4]);
}

#[test]
fn thousands_of_jobs_go_to_as_many_claims() {
    let mut bench = Bench::new();
    bench.create(Body::Dataset(table(0)), "t");
    let jobs = 2000;
    for seed in 0..jobs {
        let body = Body::Training(training(&[ONCE], seed));
        let event =
            Event::Request { ticket: 0, request: Request::Create { body, name: None }, time_ms: seed };
        bench.node.handle(bench.now, event);
    }
    bench.node.handle(bench.now, Event::Persisted(u64::MAX - 1));
    let mut given = 0;
    for ticket in 1..=jobs + 200 {
        let request = claim("w", 1, 30_000);
        let effects = bench.node.handle(bench.now, Event::Request { ticket, request, time_ms: 0 });
        given += effects
            .iter()
            .filter(|e| matches!(e, Effect::Reply(_, Response::Work(w)) if w.len() == 1))
            .count();
    }
    assert_eq!((given as u64, bench.node.claims.len()), (jobs, 200));
    check(&bench.node);
}

/// What happens, with which thing or worker.
fn happenings() -> impl Strategy<Value = Vec<(u8, usize)>> {
    proptest::collection::vec((0u8..13, 0usize..8), 0..80)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Whatever happens in whatever order, what [`check`] says is true after each event.
    #[test]
    fn the_node_stays_consistent(happenings in happenings()) {
        let mut bench = Bench::new();
        let mut leases = Vec::new();
        let plans = [ONCE, Plan { rounds: 2, units: 3, fold: true }];
        for (what, which) in happenings {
            let spec = training(&plans[..1 + which % 2], 0).spec;
            let lease = leases.get(which % leases.len().max(1)).copied();
            let request = match (what, lease) {
                (0, _) => Request::Create { body: Body::Dataset(table(0)), name: Some(format!("{which}")) },
                (1, _) => Request::Create { body: Body::Training(training(&plans[..1 + which % 2], 0)), name: None },
                (2, _) => {
                    let model = bench.node.catalogue.job(&spec.model_id(spec.id(), 0)).and_then(Job::result);
                    Request::Create { body: prediction(model.unwrap_or(Digest::MIN), 2), name: None }
                }
                (3, _) if which < 3 => Request::Cancel { id: spec.id() },
                (4, _) if which < 3 => Request::Delete { id: if which == 2 { table(0).id() } else { spec.id() } },
                (5, Some(lease)) => Request::Renew { worker: "w".into(), leases: vec![lease] },
                (6, Some(lease)) => report(lease, Outcome::Released { pause_ms: 1000 * which as u64 }),
                (7, Some(lease)) if which == 0 => report(lease, Outcome::Failed("no".into())),
                (8, _) if which == 0 => Request::Leave { worker: "w".into(), dead: false },
                (9, _) => {
                    bench.now += 4 * which as u32 * SECOND;
                    bench.handle(Event::Tick);
                    prop_assert!(bench.node.deadline(bench.now).is_none_or(|at| at > bench.now));
                    continue;
                }
                (10, _) if which < 4 => {
                    bench.written();
                    continue;
                }
                (11, _) => claim("w", 3, 0),
                (_, Some(lease)) => done(lease),
                (_, None) => claim("w", 2, 10_000),
            };
            let (_, effects) = bench.send(request);
            for effect in effects {
                if let Effect::Reply(_, Response::Work(work)) = effect {
                    leases.extend(work.iter().map(|w| w.lease));
                }
            }
        }
    }
}

#[test]
fn units_of_a_long_job_are_written_one_by_one_and_read_again() {
    let plan = Plan { rounds: 2, units: 40, fold: true };
    let (mut bench, id, spec) = trained(&[plan]);
    bench.step();
    let fit = spec.model_id(id, 0);
    let all = |node: &Node| {
        node.catalogue.ids().map(|id| (id, node.record(&id).expect("it is there").clone())).collect()
    };
    let mut disk: alloc::collections::BTreeMap<Digest, Record> = all(&bench.node);
    let mut largest = 0;
    for step in 0..90 {
        let Some(work) = bench.claim(1).pop() else { break };
        let (_, effects) = bench.send(done(work.lease));
        for effect in effects {
            if let Effect::Persist { records, .. } = effect {
                let size =
                    records.iter().filter_map(|(_, record)| Some(record.as_ref()?.to_bytes().len())).sum();
                largest = if work.lease.slot.piece == Piece::Fold { largest } else { largest.max(size) };
                for (key, record) in records {
                    match record {
                        Some(record) => disk.insert(key, record),
                        None => disk.remove(&key),
                    };
                }
            }
        }
        bench.written();
        if step == 25 {
            assert!(disk.len() > 26, "each unit is a record of its own");
        }
        if step % 7 == 0 {
            // A crash at any moment: what was written is what there was.
            let again = Node::new(Settings::default(), me(2), disk.clone());
            assert_eq!(again.catalogue.indices()[0], bench.node.catalogue.indices()[0]);
            assert_eq!(again.catalogue.job(&fit), bench.node.catalogue.job(&fit));
            bench = Bench { node: again, ..bench };
        }
    }
    assert!(bench.job(spec.model_id(id, 0)).is_finished());
    assert_eq!(disk, all(&bench.node), "nothing is left over");
    assert!(largest < 6000, "{largest} bytes");
}

#[test]
fn what_was_done_is_counted() {
    let (mut bench, predict) = predicting(2);
    let before = bench.node.tally();
    let work = bench.claim(2);
    let held = bench.node.tally();
    assert_eq!((held.leases, held.jobs_ready + held.jobs_busy), (2, 1));
    bench.ask(done(work[0].lease));
    bench.ask(done(work[0].lease));
    bench.now += 20 * SECOND;
    bench.handle(Event::Tick);
    let lost = bench.node.tally();
    assert_eq!((lost.leases, lost.jobs_ready, lost.jobs_busy), (0, 1, 0));
    let again = bench.claim(2);
    bench.ask(done(again[0].lease));
    assert!(bench.job(predict).is_finished());
    let expected = Done {
        pieces: before.done.pieces + 2,
        repeated: before.done.repeated + 1,
        jobs_finished: before.done.jobs_finished + 1,
        leases_granted: before.done.leases_granted + 3,
        leases_lost: before.done.leases_lost + 1,
        ..before.done
    };
    assert_eq!(bench.node.tally().done, expected);
    assert_eq!((bench.node.tally().jobs_ready, bench.node.tally().jobs_busy), (0, 0));
}
