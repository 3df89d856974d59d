//! Making, finding, watching, cancelling and deleting.
use super::*;

#[test]
fn what_is_answered_is_durable() {
    let mut bench = Bench::new();
    let (body, id) = (Body::Dataset(table(0)), table(0).id());
    let create = || Request::Create { body: body.clone(), name: Some("t".into()) };
    let names = crate::record::Names([("t".into(), 1000), ("".into(), 1000)].into());
    let record = Record { names, ..Record::new(body.clone()) };
    let persist = Effect::Persist { write: 1, records: vec![(id, Some(record))] };
    assert_eq!(bench.send(create()), (1, vec![persist]));
    // The second changes nothing, but what it says is not durable yet either.
    assert_eq!(bench.send(create()), (2, vec![]));
    let created = |new| Response::Created { id, new, replicas: 1 };
    let replies = vec![Effect::Reply(1, created(true)), Effect::Reply(2, created(false))];
    assert_eq!(bench.handle(Event::Persisted(1)), replies);
    assert_eq!(bench.send(create()), (3, vec![Effect::Reply(3, created(false))]));
    assert_eq!(bench.node.deadline(bench.now), None);
}

#[test]
fn a_training_and_its_first_jobs_are_one_write() {
    let mut bench = Bench::new();
    let training = training(&[ONCE], 0);
    let asked = Training { stops: 3, ..training.clone() };
    let create = || Request::Create { body: Body::Training(asked.clone()), name: None };
    assert_eq!(bench.refusal(create()), not_found("dataset", table(0).id()));
    bench.create(Body::Dataset(table(0)), "t");
    let (_, effects) = bench.send(create());
    let [Effect::Persist { write: 2, records }] = effects.as_slice() else { panic!("{effects:?}") };
    let mut ids = vec![training.spec.id(), training.spec.id().child("prepare/0")];
    ids.sort_unstable();
    assert_eq!(records.iter().map(|(id, _)| *id).collect::<Vec<_>>(), ids);
    assert_eq!(bench.node.catalogue.training(&training.spec.id()), Some(&training), "only requests cancel");
}

#[test]
fn only_work_brings_progress_about() {
    let (mut bench, id, spec) = trained(&[ONCE]);
    while bench.step().is_some() {}
    let model = bench.job(spec.model_id(id, 0)).result().expect("it is finished");
    let Body::Job(mut job) = prediction(model, 1) else { panic!("it is a job") };
    (job.progress.round, job.failure) = (1, Some("no".into()));
    let predict = bench.create(Body::Job(job.clone()), "p");
    assert_eq!(bench.job(predict), &Job::new(job.spec));
    let Body::Job(job) = prediction(Digest::of(b"nothing"), 1) else { panic!("it is a job") };
    let create = Request::Create { body: Body::Job(job.clone()), name: None };
    assert_eq!(bench.refusal(create), not_found("model", Digest::of(b"nothing")));
    let orphan = Job::new(JobSpec { parent: Some(Digest::MIN), ..job.spec });
    let create = Request::Create { body: Body::Job(orphan), name: None };
    assert_eq!(bench.refusal(create), not_found("training", Digest::MIN));
}

#[test]
fn names_are_limited_and_none_is_needed() {
    let mut bench = Bench::new();
    let create = |name: Option<String>| Request::Create { body: Body::Dataset(table(0)), name };
    bench.ask(create(None));
    assert_eq!(bench.node.record(&table(0).id()).expect("it is there").names.since(), 1000);
    bench.ask(create(Some(String::new())));
    (1..MAX_NAMES).for_each(|n| drop(bench.ask(create(Some(format!("name {n}"))))));
    assert_eq!(bench.refusal(create(Some("one more".into()))), Refusal::TooManyNames);
    assert!(matches!(bench.ask(create(Some("name 1".into()))), Some(Response::Created { new: false, .. })));
}

#[test]
fn a_text_finds_a_name_then_the_beginning_of_an_id() {
    let (mut bench, id, spec) = trained(&[ONCE, ONCE]);
    while bench.step().is_some() {}
    let find = |kind, text: &str| Request::Find { kind, text: text.into() };
    let found = |id| Some(Response::Found(id));
    assert_eq!(bench.ask(find(Kind::Dataset, "table")), found(table(0).id()));
    assert_eq!(bench.ask(find(Kind::Training, &id.short())), found(id));
    assert_eq!(bench.ask(find(Kind::Model, "first/tree-2")), found(spec.model_id(id, 1)));
    for (kind, what, text) in [
        (Kind::Dataset, "dataset", "first"),
        (Kind::Training, "training", ""),
        (Kind::Model, "model", "/tree"),
        (Kind::Prediction, "prediction", "x"),
        (Kind::Job, "job", "nothing"),
    ] {
        assert_eq!(bench.refusal(find(kind, text)), not_found(what, text));
    }
    // Of two things of one name the one that got it last is meant.
    bench.now += SECOND;
    let later = bench.create(Body::Dataset(table(1)), "table");
    assert_eq!(bench.ask(find(Kind::Dataset, "table")), found(later));
    let ids: Vec<Digest> = (2..40).map(|n| bench.create(Body::Dataset(table(n)), "many")).collect();
    let first = &ids[0].short()[..1];
    let all = bench.node.catalogue.ids().filter(|id| bench.node.catalogue.job(id).is_none());
    let count = all.filter(|other| *other != id && other.short().starts_with(first)).count();
    assert!(count > 1, "of 40 ids two begin alike");
    let refusal = Refusal::Ambiguous { text: first.into(), count };
    assert_eq!(bench.refusal(find(Kind::Dataset, first)), refusal);
}

#[test]
fn pages_show_everything_once_also_what_was_made_at_the_same_time() {
    let mut bench = Bench::new();
    let ids: Vec<Digest> = (0..20)
        .map(|n| {
            bench.now = SECOND * (1 + u32::from(n) / 5);
            bench.create(Body::Dataset(table(n)), "t")
        })
        .collect();
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let list = Request::List { kind: Kind::Dataset, after, limit: 3 };
        let Some(Response::Page { entries, next }) = bench.ask(list) else { panic!("a page") };
        seen.extend(entries.iter().map(|entry| entry.id));
        after = next;
        // What is deleted between two pages is no obstacle.
        if let Some(cursor) = after.filter(|_| seen.len() == 3) {
            bench.ask(Request::Delete { id: cursor.id });
        }
        if after.is_none() {
            break;
        }
    }
    let created = |id: &Digest| ids.iter().position(|other| other == id).expect("it was made") / 5;
    assert!(seen.is_sorted_by_key(|id| core::cmp::Reverse(created(id))), "newest first");
    assert_eq!((crate::id::distinct(seen.clone()).len(), seen.len()), (20, 20));
}

#[test]
fn models_of_many_trainings_have_pages_too() {
    let mut bench = Bench::new();
    bench.create(Body::Dataset(table(0)), "t");
    let mut models = Vec::new();
    for seed in 0..7 {
        // Two trainings a second.
        bench.now = SECOND * (2 + seed as u32 / 2);
        let training = training(&[ONCE, ONCE, ONCE], seed);
        let id = bench.create(Body::Training(training.clone()), "many");
        models.extend((0..3).map(|m| (seed / 2, training.spec.model_id(id, m))));
    }
    while bench.step().is_some() {}
    for limit in [1, 2, 5, 21, 100] {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let list = Request::List { kind: Kind::Model, after, limit };
            let Some(Response::Page { entries, next }) = bench.ask(list) else { panic!("a page") };
            assert!(entries.len() <= limit);
            seen.extend(entries.iter().map(|entry| entry.id));
            after = next;
            if after.is_none() {
                break;
            }
        }
        let mut all = models.clone();
        all.sort_by_key(|(second, id)| (core::cmp::Reverse(*second), *id));
        assert_eq!(seen, all.iter().map(|(_, id)| *id).collect::<Vec<_>>(), "{limit} at a time");
    }
    let whole = |kind| Request::Find { kind, text: models[4].1.to_string() };
    assert_eq!(bench.ask(whole(Kind::Model)), Some(Response::Found(models[4].1)));
    assert_eq!(bench.refusal(whole(Kind::Training)), not_found("training", models[4].1));
}

#[test]
fn who_watches_is_told_of_each_change() {
    let (mut bench, id, _) = trained(&[ONCE]);
    let Some(Response::Family { version, entries }) = bench.ask(watch(id, 0)) else { panic!("a family") };
    assert_eq!((entries.len(), entries[0].id), (2, id));
    let (ticket, effects) = bench.send(watch(id, version));
    assert_eq!((effects, bench.node.deadline(bench.now)), (vec![], Some(bench.now + 30 * SECOND)));
    // Another training is none of its business.
    bench.create(Body::Training(training(&[ONCE], 9)), "other");
    bench.ask(Request::Delete { id: training(&[ONCE], 9).spec.id() });
    let lease = bench.claim(1)[0].lease;
    let answers = bench.answers(done(lease));
    let [(first, Response::Family { version: next, entries }), (_, Response::Done)] = answers.as_slice()
    else {
        panic!("{answers:?}")
    };
    assert_eq!((*first, entries.len()), (ticket, 3));
    assert!(*next > version);
    // In vain, it is told how things are.
    let (ticket, _) = bench.send(watch(id, *next));
    bench.now += 30 * SECOND;
    let told = bench.handle(Event::Tick);
    assert!(
        matches!(&told[..], [Effect::Reply(to, Response::Family { version, .. })] if (to, version) == (&ticket, next))
    );
    // Who is gone is not.
    let (ticket, _) = bench.send(watch(id, *next));
    bench.handle(Event::Gone(ticket));
    let answers = bench.answers(Request::Delete { id });
    assert_eq!(answers, [(ticket + 1, Response::Done)]);
    assert_eq!(bench.refusal(watch(id, *next)), not_found("record", id));
}

#[test]
fn versions_never_come_again() {
    let (mut bench, id, _) = trained(&[ONCE]);
    let version = |bench: &mut Bench| match bench.ask(watch(id, 0)) {
        Some(Response::Family { version, .. }) => version,
        other => panic!("{other:?}"),
    };
    let before = version(&mut bench);
    bench.ask(Request::Delete { id });
    bench.create(Body::Training(training(&[ONCE], 0)), "again");
    let again = version(&mut bench);
    assert!(again > before);
    let records: Vec<_> = bench
        .node
        .catalogue
        .ids()
        .map(|id| (id, bench.node.record(&id).expect("it is there").clone()))
        .collect();
    bench.node = Node::new(Settings::default(), me(2), records);
    let unchanged = version(&mut bench);
    assert!(unchanged > again);
    bench.step();
    assert!(version(&mut bench) > unchanged);
}

#[test]
fn a_deleted_training_takes_its_jobs_along_and_can_be_made_again() {
    let (mut bench, id, spec) = trained(&[ONCE]);
    bench.step();
    let lease = bench.claim(1)[0].lease;
    assert_eq!(bench.ask(Request::Delete { id }), Some(Response::Done));
    assert_eq!(bench.ask(Request::Delete { id }), Some(Response::Done), "twice is once");
    assert_eq!(bench.refusal(Request::Delete { id: Digest::MIN }), not_found("record", Digest::MIN));
    assert_eq!(
        bench.ask(Request::Renew { worker: "w".into(), leases: vec![lease] }),
        Some(Response::Lost(vec![lease]))
    );
    assert_eq!(bench.refusal(done(lease)), not_found("job", lease.slot.job));
    bench.create(Body::Training(training(&[ONCE], 0)), "again");
    let prepare = spec.jobs_of(id, 0)[0];
    assert_eq!(
        [id, prepare].map(|id| bench.node.record(&id).expect("it is there").life),
        [3, 1],
        "a child lives and dies with its root"
    );
    assert_eq!(bench.step().map(|lease| lease.slot.job), Some(prepare));
}

#[test]
fn what_is_in_use_is_not_deleted() {
    let (mut bench, id, spec) = trained(&[ONCE]);
    let delete = |id| Request::Delete { id };
    let by = |by: &str| Refusal::InUse { by: by.into() };
    assert_eq!(bench.refusal(delete(table(0).id())), by("training 'first'"));
    assert_eq!(bench.refusal(delete(spec.jobs_of(id, 0)[0])), by("training 'first'"));
    while bench.step().is_some() {}
    let model = bench.job(spec.model_id(id, 0)).result().expect("it is finished");
    let predict = bench.create(prediction(model, 1), "p");
    assert_eq!(bench.refusal(delete(id)), by("prediction 'p'"));
    assert_eq!(bench.refusal(delete(table(0).id())), by("prediction 'p'"));
    bench.step();
    for id in [table(0).id(), id, predict] {
        assert_eq!(bench.ask(delete(id)), Some(Response::Done));
    }
}

#[test]
fn blobs_go_when_nothing_durable_names_them_and_a_while_after() {
    let (mut bench, id, _) = trained(&[ONCE]);
    let lease = bench.step().expect("there is work");
    bench.send(Request::Delete { id });
    bench.now += 100 * SECOND;
    assert_eq!(bench.handle(Event::Tick), [], "the deletion is not durable yet");
    bench.written();
    assert_eq!(bench.node.deadline(bench.now), Some(bench.now + 60 * SECOND));
    bench.now += 60 * SECOND;
    assert_eq!(bench.handle(Event::Tick), [Effect::Discard(vec![result(&lease.slot)])]);
    assert!(bench.node.deadline(bench.now) > Some(bench.now + 3600 * SECOND), "only to forget the deletion");
}

#[test]
fn a_blob_that_is_named_again_stays() {
    let (mut bench, id, _) = trained(&[ONCE]);
    let first = bench.step().expect("there is work");
    bench.ask(Request::Delete { id });
    bench.now += 59 * SECOND;
    bench.create(Body::Training(training(&[ONCE], 0)), "again");
    assert_eq!(bench.step().map(|lease| lease.slot), Some(first.slot));
    bench.now += 60 * SECOND;
    assert_eq!(bench.handle(Event::Tick), []);
    assert!(bench.node.refers_to(&result(&first.slot)));
}

#[test]
fn a_cancelled_training_rests_until_it_is_made_again() {
    let (mut bench, id, spec) = trained(&[ONCE]);
    let lease = bench.claim(1)[0].lease;
    assert_eq!(bench.ask(Request::Cancel { id }), Some(Response::Done));
    assert_eq!(bench.ask(Request::Cancel { id }), Some(Response::Done));
    assert_eq!(bench.claim(1), []);
    assert_eq!(
        bench.ask(Request::Renew { worker: "w".into(), leases: vec![lease] }),
        Some(Response::Lost(vec![lease]))
    );
    // What was done all the same counts; nothing follows from it.
    assert_eq!(bench.ask(done(lease)), Some(Response::Done));
    assert_eq!(bench.claim(1), []);
    bench.create(Body::Training(training(&[ONCE], 0)), "first");
    while bench.step().is_some() {}
    assert_eq!(bench.refusal(Request::Cancel { id }), Refusal::NotCancellable);
    assert_eq!(bench.refusal(Request::Cancel { id: table(0).id() }), Refusal::NotCancellable);
    assert_eq!(bench.refusal(Request::Cancel { id: Digest::MIN }), not_found("training", Digest::MIN));
    assert!(bench.job(spec.evaluation_id(id, 0)).is_finished());
}
