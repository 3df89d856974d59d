//! The records of a node with their indices: by name, by kind and age, by parent, and the blobs they refer to.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::cmp::Reverse;

use super::{Cursor, Entry, Node, Refusal, Response, Ticket, copies::Learned};
use crate::{
    id::Digest,
    job::Job,
    merge::Merge,
    parent::{self, Parent},
    planted::{self, Bug},
    record::{Body, Kind, Names, Record},
    routing::Held,
    schedule::Standing,
    study::Study,
    training::Training,
};

/// How many names one thing may have.
pub const MAX_NAMES: usize = 64;

/// Records and their indices. Every change goes through [`Catalogue::put`], which keeps the indices true.
#[derive(Default)]
pub(super) struct Catalogue {
    records: BTreeMap<Digest, Record>,
    /// The jobs of each training and study.
    children: BTreeMap<Digest, BTreeSet<Digest>>,
    /// What users list, newest first.
    listed: BTreeSet<(Kind, Reverse<u64>, Digest)>,
    /// How many records refer to a blob.
    refs: BTreeMap<Digest, u32>,
    unreferred: Vec<Digest>,
    /// What was deleted.
    dead: BTreeSet<Digest>,
}

impl Catalogue {
    pub(super) fn get(&self, id: &Digest) -> Option<&Record> {
        self.records.get(id)
    }

    pub(super) fn body(&self, id: &Digest) -> Option<&Body> {
        self.records.get(id)?.body.as_ref()
    }

    pub(super) fn job(&self, id: &Digest) -> Option<&Job> {
        match self.body(id)? {
            Body::Job(job) => Some(job),
            Body::Dataset(_) | Body::Training(_) | Body::Study(_) | Body::Token(_) | Body::Revocation(_) => {
                None
            }
        }
    }

    pub(super) fn training(&self, id: &Digest) -> Option<&Training> {
        match self.body(id)? {
            Body::Training(training) => Some(training),
            Body::Dataset(_) | Body::Study(_) | Body::Job(_) | Body::Token(_) | Body::Revocation(_) => None,
        }
    }

    /// What has jobs below it, if this has.
    pub(super) fn parent(&self, id: &Digest) -> Option<Parent<'_>> {
        Parent::of(self.body(id)?)
    }

    /// The things that are not part of others, deleted ones included.
    pub(super) fn roots(&self) -> impl Iterator<Item = Digest> {
        let is_root = |record: &Record| record.body.as_ref().and_then(parent).is_none();
        self.records.iter().filter(move |(_, record)| is_root(record)).map(|(id, _)| *id)
    }

    /// The notes of deletions: things and lives.
    pub(super) fn dead(&self) -> impl Iterator<Item = (Digest, u64)> {
        self.dead.iter().filter_map(|id| Some((*id, self.records.get(id)?.life)))
    }

    /// How many bytes the blobs of a dataset have; of other things that is not known.
    pub(super) fn bytes(&self, id: &Digest) -> u64 {
        match self.body(id) {
            Some(Body::Dataset(dataset)) => dataset.chunks.iter().map(|chunk| chunk.bytes).sum(),
            Some(
                Body::Training(_) | Body::Study(_) | Body::Job(_) | Body::Token(_) | Body::Revocation(_),
            )
            | None => 0,
        }
    }

    /// Whose certificates are not trusted any more.
    pub(super) fn revoked(&self) -> impl Iterator<Item = &str> {
        let things = self.of_kind(Kind::Revocation).into_iter();
        things.filter_map(|(_, id, _)| {
            if let Some(Body::Revocation(revocation)) = self.body(&id) {
                Some(&*revocation.holder)
            } else {
                None
            }
        })
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = Digest> {
        self.records.keys().copied()
    }

    /// Stores a record in place of what was under its id.
    pub(super) fn put(&mut self, id: Digest, record: Record) {
        if let Some(old) = self.records.remove(&id) {
            self.unlink(id, &old);
        }
        self.link(id, &record);
        self.records.insert(id, record);
    }

    /// Forgets a record.
    pub(super) fn remove(&mut self, id: Digest) {
        if let Some(old) = self.records.remove(&id) {
            self.unlink(id, &old);
        }
    }

    /// Changes a record in place.
    pub(super) fn change(&mut self, id: Digest, change: impl FnOnce(&mut Record)) {
        if let Some(mut record) = self.records.remove(&id) {
            self.unlink(id, &record);
            change(&mut record);
            self.link(id, &record);
            self.records.insert(id, record);
        }
    }

    /// Adds units of the same round to a job that stays open, in place: a job with many of them is not looked through
    /// for each. None if the record brings anything else.
    pub(super) fn add_units(&mut self, id: Digest, record: &Record) -> Option<Learned> {
        let (Some(mine), Some(Body::Job(theirs))) = (self.records.get_mut(&id), &record.body) else {
            return None;
        };
        let is_plain = mine.life == record.life && record.names.0.is_empty() && theirs.failure.is_none();
        let Some(Body::Job(job)) = mine.body.as_mut().filter(|_| is_plain) else { return None };
        if job.spec != theirs.spec {
            return None;
        }
        let is_same =
            |unit: &u32, partial: &Digest| job.progress.units.get(unit).is_none_or(|mine| mine == partial);
        let news = &theirs.progress;
        let fits = (job.progress.round, job.progress.state) == (news.round, news.state)
            && news.units.iter().all(|(unit, partial)| is_same(unit, partial));
        if !fits || planted::is(Bug::MergeForgetsUnits) {
            return None;
        }
        let mut learned = Learned::Nothing;
        let was_foldable = job.progress.is_foldable(&job.spec.plan);
        for (unit, partial) in &news.units {
            if job.progress.units.insert(*unit, *partial).is_none() {
                *self.refs.entry(*partial).or_default() += 1;
                learned = Learned::Units;
            }
        }
        let closes = !job.is_open() || was_foldable != job.progress.is_foldable(&job.spec.plan);
        Some(if closes && learned == Learned::Units { Learned::More } else { learned })
    }

    fn link(&mut self, id: Digest, record: &Record) {
        let Some(body) = &record.body else {
            self.dead.insert(id);
            return;
        };
        for blob in body.blobs() {
            *self.refs.entry(blob).or_default() += 1;
        }
        if let Some(parent) = parent(body) {
            self.children.entry(parent).or_default().insert(id);
        }
        self.listed.insert((body.kind(), Reverse(record.names.since()), id));
    }

    fn unlink(&mut self, id: Digest, record: &Record) {
        let Some(body) = &record.body else {
            self.dead.remove(&id);
            return;
        };
        for blob in body.blobs() {
            let left = self.refs.get_mut(&blob).expect("every reference was counted");
            *left -= 1;
            if *left == 0 {
                self.refs.remove(&blob);
                self.unreferred.push(blob);
            }
        }
        if let Some(parent) = parent(body)
            && let Some(children) = self.children.get_mut(&parent)
        {
            children.remove(&id);
            if children.is_empty() {
                self.children.remove(&parent);
            }
        }
        self.listed.remove(&(body.kind(), Reverse(record.names.since()), id));
    }

    /// All indices, and the same made anew from the records.
    #[cfg(test)]
    pub(super) fn indices(&self) -> [impl PartialEq + core::fmt::Debug + use<>; 2] {
        let mut anew = Self::default();
        self.records.iter().for_each(|(id, record)| anew.put(*id, record.clone()));
        [self, &anew].map(|it| (it.refs.clone(), it.children.clone(), it.listed.clone(), it.dead.clone()))
    }

    pub(super) fn refers_to(&self, blob: &Digest) -> bool {
        self.refs.contains_key(blob)
    }

    /// The blobs that lost their last reference since the last call.
    pub(super) fn take_unreferred(&mut self) -> BTreeSet<Digest> {
        core::mem::take(&mut self.unreferred)
            .into_iter()
            .filter(|blob| !self.refs.contains_key(blob))
            .collect()
    }

    /// The training that a job is part of, or the thing itself.
    pub(super) fn root(&self, id: Digest) -> Digest {
        self.body(&id).and_then(parent).unwrap_or(id)
    }

    /// The id and those of the children.
    pub(super) fn family(&self, root: Digest) -> Vec<Digest> {
        let children = self.children.get(&root).into_iter().flatten().copied();
        core::iter::once(root).chain(children).collect()
    }

    /// The jobs of a training or study that are wanted: those behind what can still be had, unless it was cancelled.
    pub(super) fn wanted(&self, id: Digest) -> BTreeSet<Digest> {
        let jobs = self.children.get(&id).into_iter().flatten().copied();
        self.parent(&id).map_or_else(BTreeSet::new, |parent| parent.wanted(id, jobs, |job| self.job(job)))
    }

    /// A job's place in the order of service; it has its age and urgency from its parent.
    pub(super) fn standing(&self, id: Digest, job: &Job) -> Standing {
        let root = self.root(id);
        Standing {
            priority: self.parent(&root).map_or(0, Parent::priority),
            created_ms: self.get(&root).map_or(0, |record| record.names.since()),
            dataset: job.spec.work.dataset(),
        }
    }

    /// What of this kind a text may name: things that were given this name, and when, and those whose id begins so.
    pub(super) fn find(&self, kind: Kind, text: &str) -> Vec<(Digest, Option<u64>)> {
        // A whole id is no name: nothing needs to be looked through.
        if let Ok(id) = text.parse::<Digest>() {
            return self.is_of(kind, id).then_some((id, None)).into_iter().collect();
        }
        let things = self.of_kind(kind);
        let named =
            things.iter().filter_map(|(created, id, name)| Some((*id, Some(name.get(text)?.max(*created)))));
        let begins = |id: &Digest| !text.is_empty() && id.to_string().starts_with(text);
        let by_id = things.iter().map(|(_, id, _)| *id).filter(begins).map(|id| (id, None));
        named.chain(by_id).collect()
    }

    /// Whether users know something of this kind by this id.
    fn is_of(&self, kind: Kind, id: Digest) -> bool {
        if kind != Kind::Model {
            return self.body(&id).is_some_and(|body| body.kind() == kind);
        }
        let parent = self.job(&id).and_then(|job| job.spec.parent);
        parent.is_some_and(|parent| self.kept(parent).any(|model| model == id))
    }

    /// The fits that a training keeps and that are there.
    fn kept(&self, training: Digest) -> impl Iterator<Item = Digest> {
        let spec = self.training(&training).map(|training| &training.spec);
        let models = spec
            .into_iter()
            .flat_map(move |spec| (0..spec.models.len()).map(move |m| spec.model_id(training, m)));
        models.filter(|model| self.job(model).is_some_and(|job| job.result().is_some()))
    }

    /// At most so many things of a kind, newest first, from behind this one on. It costs by how many they are, not by how
    /// many there are.
    fn newest(&self, kind: Kind, after: Option<Cursor>, count: usize) -> Vec<Cursor> {
        let behind = |thing: &Cursor| after.is_none_or(|after| age(thing) > age(&after));
        let listed = if kind == Kind::Model { Kind::Training } else { kind };
        // Models have the age of their training, so those of a moment are sorted among themselves.
        let since = Reverse(after.map_or(u64::MAX, |after| after.created_ms));
        let id = after.filter(|_| kind != Kind::Model).map_or(Digest::MIN, |after| after.id);
        let from = self.listed.range((listed, since, id)..).take_while(|(kind, _, _)| *kind == listed);
        let mut found: Vec<Cursor> = Vec::new();
        let mut sorted = 0;
        for &(_, Reverse(created_ms), id) in from {
            if found.last().is_some_and(|last| last.created_ms != created_ms) {
                found[sorted..].sort_by_key(age);
                sorted = found.len();
                if sorted >= count {
                    break;
                }
            }
            if kind == Kind::Model {
                found.extend(self.kept(id).map(|id| Cursor { created_ms, id }).filter(behind));
            } else {
                found.extend(Some(Cursor { created_ms, id }).filter(behind));
                if found.len() >= count {
                    break;
                }
            }
        }
        found[sorted..].sort_by_key(age);
        found.truncate(count);
        found
    }

    /// Everything of a kind, newest first.
    fn of_kind(&self, kind: Kind) -> Vec<(u64, Digest, Naming<'_>)> {
        if kind == Kind::Model {
            return self.models();
        }
        let from = (kind, Reverse(u64::MAX), Digest::MIN);
        let listed = self.listed.range(from..).take_while(|(k, _, _)| *k == kind);
        listed
            .filter_map(|(_, Reverse(created), id)| {
                Some((*created, *id, Naming::Given(&self.get(id)?.names)))
            })
            .collect()
    }

    /// The fits that trainings keep, as soon as they are there. A model is named after its training and its kind.
    fn models(&self) -> Vec<(u64, Digest, Naming<'_>)> {
        let mut models = Vec::new();
        let from = (Kind::Training, Reverse(u64::MAX), Digest::MIN);
        for (_, Reverse(created), id) in
            self.listed.range(from..).take_while(|(k, _, _)| *k == Kind::Training)
        {
            let (Some(record), Some(training)) = (self.get(id), self.training(id)) else { continue };
            for (m, name) in training.spec.model_names().into_iter().enumerate() {
                let job = training.spec.model_id(*id, m);
                if self.job(&job).is_some_and(|job| job.result().is_some()) {
                    models.push((*created, job, Naming::Model(&record.names, name)));
                }
            }
        }
        models
    }
}

/// What lists are sorted by.
fn age(thing: &Cursor) -> (Reverse<u64>, Digest) {
    (Reverse(thing.created_ms), thing.id)
}

/// The names of something.
enum Naming<'a> {
    Given(&'a Names),
    Model(&'a Names, String),
}

impl Naming<'_> {
    /// When it was given this name; none if it was not.
    fn get(&self, text: &str) -> Option<u64> {
        match self {
            Self::Given(names) => names.given(text),
            Self::Model(names, model) => {
                let training = text.strip_suffix(model.as_str())?.strip_suffix('/')?;
                names.given(training)
            }
        }
    }
}

fn parent(body: &Body) -> Option<Digest> {
    match body {
        Body::Job(job) => job.spec.parent,
        Body::Dataset(_) | Body::Training(_) | Body::Study(_) | Body::Token(_) | Body::Revocation(_) => None,
    }
}

/// What was asked for, without what only work and requests may bring about.
fn as_asked(body: Body) -> Body {
    match body {
        Body::Dataset(_) | Body::Token(_) | Body::Revocation(_) => body,
        Body::Training(training) => Body::Training(Training { stops: 0, ..training }),
        Body::Study(study) => Body::Study(Study { stops: 0, ..study }),
        Body::Job(job) => Body::Job(Job::new(job.spec)),
    }
}

/// The requests about records.
impl Node {
    pub(super) fn create(&mut self, ticket: Ticket, body: Body, name: Option<String>, time_ms: u64) {
        let body = as_asked(body);
        let id = body.id();
        if let Some(refusal) = self.lacks(&body) {
            return self.answer(ticket, Response::Refused(refusal));
        }
        let old = self.catalogue.get(&id);
        let new = old.is_none_or(|old| old.body.is_none());
        let mut record = Record::new(body);
        // What is new keeps the time of its creation, with or without a name.
        let names = name.filter(|name| !name.is_empty()).into_iter().chain(new.then(String::new));
        record.names.0.extend(names.map(|name| (name, time_ms)));
        let mut merged = match old {
            Some(old) if new => Record { life: old.life + 1, ..record },
            Some(old) => {
                let mut merged = old.clone();
                merged.merge(Record { life: old.life, ..record });
                merged
            }
            None => record,
        };
        if merged.names.0.len() > MAX_NAMES {
            return self.answer(ticket, Response::Refused(Refusal::TooManyNames));
        }
        if let Some(body) = &mut merged.body
            && Parent::of(body).is_some_and(Parent::is_cancelled)
        {
            parent::stop_or_go_on(body);
        }
        if self.catalogue.get(&id) != Some(&merged) {
            self.catalogue.put(id, merged);
            self.changed(id);
        }
        self.await_copies(ticket, Response::Created { id, new, replicas: 1 }, id);
    }

    /// What must be there before this can be worked on, and is not: it may just have been deleted.
    fn lacks(&self, body: &Body) -> Option<Refusal> {
        let missing = |what: &str, id: &Digest| Refusal::NotFound { what: what.into(), text: id.to_string() };
        let dataset = |id: &Digest| {
            let here = matches!(self.catalogue.body(id), Some(Body::Dataset(_)));
            let there = self.routing.holders(id).iter().any(|(_, held)| *held == Held::Alive);
            (!here && (!there || self.catalogue.get(id).is_some())).then(|| missing(Kind::Dataset.name(), id))
        };
        match body {
            Body::Dataset(_) | Body::Token(_) | Body::Revocation(_) => None,
            Body::Training(_) | Body::Study(_) => {
                Parent::of(body).and_then(|parent| dataset(&parent.dataset()))
            }
            Body::Job(job) => {
                let parent = job.spec.parent.filter(|parent| self.catalogue.parent(parent).is_none());
                let parent = parent.map(|parent| missing(Kind::Training.name(), &parent));
                let inputs = job.spec.work.blobs();
                // A model of another node is known by its bytes alone, which have come along.
                let input = inputs.iter().find(|blob| self.is_alone() && !self.catalogue.refers_to(blob));
                let model = input.map(|blob| missing(Kind::Model.name(), blob));
                parent.or(model).or_else(|| dataset(&job.spec.work.dataset()))
            }
        }
    }

    pub(super) fn list(&self, kind: Kind, after: Option<Cursor>, limit: usize) -> Response {
        let limit = limit.max(1);
        // One more than wanted tells whether there is a next page.
        let mut page = self.catalogue.newest(kind, after, limit.saturating_add(1));
        let more = page.len() > limit;
        page.truncate(limit);
        let next = page.last().copied().filter(|_| more);
        let entry = |at: Cursor| Some(Entry { created_ms: at.created_ms, ..self.entry(at.id)? });
        Response::Page { entries: page.into_iter().filter_map(entry).collect(), next }
    }

    pub(super) fn cancel(&mut self, ticket: Ticket, id: Digest) {
        let refusal = match self.catalogue.body(&id) {
            Some(body) if Parent::of(body).is_some_and(Parent::is_cancelled) => None,
            Some(body) if Parent::of(body).is_some() && self.is_unfinished(id) => {
                self.catalogue.change(id, |record| record.body.iter_mut().for_each(parent::stop_or_go_on));
                self.changed(id);
                None
            }
            Some(_) => Some(Refusal::NotCancellable),
            None => Some(Refusal::NotFound { what: "training".into(), text: id.to_string() }),
        };
        match refusal {
            Some(refusal) => self.answer(ticket, Response::Refused(refusal)),
            None => self.await_copies(ticket, Response::Done, id),
        }
    }

    pub(super) fn delete(&mut self, ticket: Ticket, id: Digest) {
        let Some(body) = self.catalogue.body(&id) else {
            return match self.catalogue.get(&id) {
                // Deleting twice is deleting once: the first answer may have been lost.
                Some(_) => self.await_copies(ticket, Response::Done, id),
                None => {
                    let refusal = Refusal::NotFound { what: "record".into(), text: id.to_string() };
                    self.answer(ticket, Response::Refused(refusal));
                }
            };
        };
        let root = self.catalogue.root(id);
        if root != id && self.catalogue.parent(&root).is_some() {
            return self.answer(ticket, Response::Refused(Refusal::InUse { by: self.title(root) }));
        }
        let needs: Vec<Digest> = match body {
            Body::Dataset(_) => alloc::vec![id],
            // A prediction that is not finished needs the model.
            Body::Training(training) => {
                let models = 0..training.spec.models.len();
                models.filter_map(|m| self.catalogue.job(&training.spec.model_id(id, m))?.result()).collect()
            }
            Body::Study(_) | Body::Job(_) | Body::Token(_) | Body::Revocation(_) => Vec::new(),
        };
        self.delete_unless_used(ticket, id, needs);
    }

    /// Deletes what nothing uses.
    pub(super) fn delete_now(&mut self, ticket: Ticket, id: Digest) {
        if self.catalogue.body(&id).is_some() {
            self.drop_children(id);
            self.close(id);
            self.catalogue.change(id, Record::delete);
            self.note(id, None);
        }
        self.await_copies(ticket, Response::Done, id);
    }

    /// Deletes a token that is good once, unless it has been used.
    pub(super) fn redeem(&mut self, ticket: Ticket, id: Digest) {
        let good = matches!(self.catalogue.body(&id), Some(Body::Token(token)) if token.scope.is_to_join());
        if good {
            return self.delete_now(ticket, id);
        }
        let refusal = Refusal::NotFound { what: Kind::Token.name().into(), text: id.to_string() };
        self.answer(ticket, Response::Refused(refusal));
    }

    /// Something unfinished, outside the family of `id`, that needs one of these.
    pub(super) fn user_of(&self, id: Digest, needs: &[Digest]) -> Option<String> {
        self.catalogue.ids().filter(|user| self.catalogue.root(*user) != id).find_map(|user| {
            let used: Vec<Digest> = match self.catalogue.body(&user)? {
                Body::Dataset(_) | Body::Token(_) | Body::Revocation(_) => return None,
                body @ (Body::Training(_) | Body::Study(_)) => {
                    Parent::of(body).map(Parent::dataset).into_iter().collect()
                }
                Body::Job(job) if job.spec.parent.is_none() => {
                    job.spec.work.blobs().into_iter().chain([job.spec.work.dataset()]).collect()
                }
                Body::Job(_) => return None,
            };
            let in_use = used.iter().any(|used| needs.contains(used)) && self.is_unfinished(user);
            in_use.then(|| self.title(user))
        })
    }

    /// What a thing is and what it is called.
    fn title(&self, id: Digest) -> String {
        let record = self.catalogue.get(&id);
        let kind = record.and_then(|record| record.body.as_ref()).map_or("record", |body| body.kind().name());
        match record.and_then(|record| record.names.latest()) {
            Some(name) => format!("{kind} '{name}'"),
            None => format!("{kind} {}", id.short()),
        }
    }

    fn is_unfinished(&self, id: Digest) -> bool {
        match self.catalogue.body(&id) {
            Some(body @ (Body::Training(_) | Body::Study(_))) => {
                Parent::of(body).is_some_and(|parent| parent.is_unfinished(id, |job| self.catalogue.job(job)))
            }
            Some(Body::Job(job)) => job.is_open(),
            Some(Body::Dataset(_) | Body::Token(_) | Body::Revocation(_)) | None => false,
        }
    }
}
