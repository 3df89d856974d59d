//! What db nodes store and share: records, each a value that merges, under the id of what it describes.

use alloc::{collections::BTreeMap, string::String, vec::Vec};
use core::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::{
    dataset::Dataset,
    id::Digest,
    job::{Job, Work},
    merge::{self, Merge},
    planted::{self, Bug},
    revocation::Revocation,
    study::Study,
    token::Token,
    training::Training,
};

/// What a record describes, as users list it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A table.
    Dataset,
    /// A training.
    Training,
    /// A search for the best parameters.
    Study,
    /// A fitted model: the finished fit job that a training keeps.
    Model,
    /// A batch prediction.
    Prediction,
    /// Any other job.
    Job,
    /// A token.
    Token,
    /// A certificate that is not trusted any more.
    Revocation,
}

impl Kind {
    /// The word for it in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dataset => "dataset",
            Self::Training => "training",
            Self::Study => "study",
            Self::Model => "model",
            Self::Prediction => "prediction",
            Self::Job => "job",
            Self::Token => "token",
            Self::Revocation => "revocation",
        }
    }
}

impl Kind {
    /// The word for several, as routes have it.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Dataset => "datasets",
            Self::Training => "trainings",
            Self::Study => "studies",
            Self::Model => "models",
            Self::Prediction => "predictions",
            Self::Job => "jobs",
            Self::Token => "tokens",
            Self::Revocation => "revocations",
        }
    }
}

/// The content of a record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Body {
    /// A table.
    Dataset(Dataset),
    /// A training.
    Training(Training),
    /// A study.
    Study(Study),
    /// A job: a child of a training or of a study, or a batch prediction.
    Job(Job),
    /// A token.
    Token(Token),
    /// A certificate that is not trusted any more.
    Revocation(Revocation),
}

impl Body {
    /// The id under which this is stored.
    pub fn id(&self) -> Digest {
        match self {
            Self::Dataset(dataset) => dataset.id(),
            Self::Training(training) => training.spec.id(),
            Self::Study(study) => study.spec.id(),
            Self::Job(job) => job.spec.id(),
            Self::Token(token) => token.id(),
            Self::Revocation(revocation) => revocation.id(),
        }
    }

    /// What it is to users; whether a fit is the model that is kept, only its parent can tell.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Dataset(_) => Kind::Dataset,
            Self::Training(_) => Kind::Training,
            Self::Study(_) => Kind::Study,
            Self::Job(job) => match job.spec.work {
                Work::Predict { .. } => Kind::Prediction,
                Work::Prepare { .. } | Work::Fit { .. } | Work::Evaluate { .. } | Work::Search { .. } => {
                    Kind::Job
                }
            },
            Self::Token(_) => Kind::Token,
            Self::Revocation(_) => Kind::Revocation,
        }
    }

    /// The blobs without which it means nothing.
    pub fn blobs(&self) -> Vec<Digest> {
        match self {
            Self::Dataset(dataset) => dataset.chunks.iter().map(|chunk| chunk.digest).collect(),
            Self::Training(_) | Self::Study(_) | Self::Token(_) | Self::Revocation(_) => Vec::new(),
            Self::Job(job) => {
                let mut blobs = job.spec.work.blobs();
                blobs.extend(job.progress.state);
                blobs.extend(job.progress.units.values());
                blobs
            }
        }
    }
}

/// The names that people gave something, each with the time of the latest naming (milliseconds since 1970). Times are
/// for people: nothing is decided by them but which of two things of one name is meant. The empty name
/// keeps the time of the creation and is no name to anybody.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Names(pub BTreeMap<String, u64>);

impl Names {
    /// The name given last.
    pub fn latest(&self) -> Option<&str> {
        let names = self.0.iter().filter(|(name, _)| !name.is_empty());
        names.max_by_key(|(name, at)| (**at, *name)).map(|(name, _)| name.as_str())
    }

    /// When it was created.
    pub fn since(&self) -> u64 {
        self.0.get("").or_else(|| self.0.values().min()).copied().unwrap_or(0)
    }

    /// When this name was given; none if it was not.
    pub fn given(&self, name: &str) -> Option<u64> {
        self.0.get(name).copied().filter(|_| !name.is_empty())
    }
}

impl Merge for Names {
    /// Names unite; of two times of one name the later stays, but of the creation the earlier.
    fn merge(&mut self, other: Self) -> bool {
        let mut learned = false;
        for (name, at) in other.0 {
            learned |= match self.0.get_mut(&name) {
                Some(mine) if name.is_empty() => merge::least(mine, at),
                Some(mine) => merge::greatest(mine, at),
                None => self.0.insert(name, at).is_none(),
            };
        }
        learned
    }
}

/// A stored record.
///
/// `life` counts creations and deletions in turn: odd while the thing exists, even when it is deleted; the greater
/// count wins a merge. So a deletion wins over every copy that it has seen, an old replica cannot bring the thing back,
/// and its owner can. (A causal-length set; Yu, Rostad 2020, "A low-cost set CRDT based on causal lengths".)
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The version of this format.
    pub v: u8,
    /// Creations and deletions so far.
    pub life: u64,
    /// The names that people gave it.
    pub names: Names,
    /// The content; none when it is deleted.
    pub body: Option<Body>,
}

/// The version of the record format that this code writes.
pub const VERSION: u8 = 1;

impl Record {
    /// A record of something new.
    pub fn new(body: Body) -> Self {
        Self { v: VERSION, life: 1, names: Names::default(), body: Some(body) }
    }

    /// Deletes the thing, if it exists.
    pub fn delete(&mut self) {
        if self.body.take().is_some() {
            self.life += 1;
            self.names = Names::default();
        }
    }

    /// The bytes that are stored and sent.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("records have string keys and finite numbers")
    }

    /// Reads what [`Record::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, NotARecord> {
        // The version first: the rest of another version may look like anything.
        #[derive(Deserialize)]
        struct Versioned {
            v: u8,
        }
        let unreadable = |_| NotARecord::Unreadable;
        match serde_json::from_slice::<Versioned>(bytes).map_err(unreadable)?.v {
            VERSION => serde_json::from_slice(bytes).map_err(unreadable),
            other => Err(NotARecord::Version(other)),
        }
    }
}

/// Why bytes are not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotARecord {
    /// They do not parse.
    #[error("these bytes are not a record")]
    Unreadable,
    /// Another version wrote them.
    #[error("this record has version {0}, and this program reads version {VERSION}: use a newer program")]
    Version(u8),
}

impl Merge for Record {
    fn merge(&mut self, other: Self) -> bool {
        match self.life.cmp(&other.life) {
            Ordering::Less => {
                *self = other;
                true
            }
            Ordering::Greater if planted::is(Bug::TombstoneGivesWay) && self.body.is_none() => {
                *self = other;
                true
            }
            Ordering::Greater => false,
            Ordering::Equal => {
                let learned = self.names.merge(other.names);
                match (&mut self.body, other.body) {
                    (Some(Body::Training(mine)), Some(Body::Training(theirs))) => {
                        mine.merge(theirs) || learned
                    }
                    (Some(Body::Study(mine)), Some(Body::Study(theirs))) => mine.merge(theirs) || learned,
                    (Some(Body::Job(mine)), Some(Body::Job(theirs))) => mine.merge(theirs) || learned,
                    // Datasets, tokens and revocations never change, and an id names one kind of thing.
                    _ => learned,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        job::{JobSpec, Plan, Progress},
        split::Split,
    };
    use alloc::{string::ToString, vec};
    use proptest::prelude::*;

    fn job() -> Job {
        let work = Work::Predict { model: Digest::of(b"model"), dataset: Digest::of(b"data") };
        Job::new(JobSpec {
            parent: None,
            role: "predict".into(),
            work,
            plan: Plan { rounds: 1, units: 4, fold: false },
        })
    }

    fn record() -> impl Strategy<Value = Record> {
        let units = proptest::collection::btree_map(0u32..4, (0u8..3).prop_map(|n| Digest::of(&[n])), 0..4);
        let names = proptest::collection::btree_map("[ab]", 0u64..3, 0..3);
        let failure = proptest::option::of("[xy]");
        (1u64..5, units, names, failure, 1u32..3).prop_map(|(life, units, names, failure, rounds)| {
            let progress = Progress { units, ..Progress::default() };
            // Two specs under one id: what was corrupt somewhere.
            let mut job = job();
            job.spec.plan.rounds = rounds;
            let body = Body::Job(Job { progress, failure, ..job });
            let mut record = Record { life: life / 2 * 2 + 1, names: Names(names), ..Record::new(body) };
            if life.is_multiple_of(2) {
                record.delete();
            }
            record
        })
    }

    fn merged(mut a: Record, b: Record) -> Record {
        a.merge(b);
        a
    }

    fn names() -> impl Strategy<Value = Names> {
        proptest::collection::btree_map("[ab]?", 0u64..4, 0..4).prop_map(Names)
    }

    proptest! {
        #[test]
        fn names_are_a_join(a in names(), b in names(), c in names()) {
            let merged = |mut a: Names, b: &Names| {
                let before = a.clone();
                let learned = a.merge(b.clone());
                assert_eq!(learned, a != before, "says whether it learned");
                a
            };
            prop_assert_eq!(merged(a.clone(), &b), merged(b.clone(), &a));
            prop_assert_eq!(merged(merged(a.clone(), &b), &c), merged(a.clone(), &merged(b.clone(), &c)));
            prop_assert_eq!(merged(a.clone(), &a), a.clone());
            // The time of creation never moves on, and an empty name is none.
            prop_assert!(a.0.get("").is_none_or(|created| merged(a.clone(), &b).since() <= *created));
            prop_assert_ne!(a.latest(), Some(""));
            prop_assert_eq!(a.given(""), None);
        }

        #[test]
        fn merge_is_a_join(a in record(), b in record(), c in record()) {
            prop_assert_eq!(merged(a.clone(), b.clone()), merged(b.clone(), a.clone()));
            prop_assert_eq!(merged(merged(a.clone(), b.clone()), c.clone()), merged(a.clone(), merged(b, c)));
            prop_assert_eq!(merged(a.clone(), a.clone()), a);
        }

        #[test]
        fn bytes_round_trip(a in record()) {
            prop_assert_eq!(Record::from_bytes(&a.to_bytes()), Ok(a));
        }
    }

    #[test]
    fn a_deleted_thing_stays_deleted_until_it_is_made_again() {
        let old = Record::new(Body::Job(job()));
        let mut deleted = old.clone();
        deleted.delete();
        assert_eq!(merged(deleted.clone(), old.clone()).body, None);
        let again = Record { life: deleted.life + 1, ..old };
        assert_eq!(merged(deleted, again.clone()), again);
    }

    #[test]
    fn a_newer_format_is_refused_by_name() {
        let bytes = Record { v: 9, ..Record::new(Body::Job(job())) }.to_bytes();
        assert_eq!(Record::from_bytes(&bytes), Err(NotARecord::Version(9)));
        assert_eq!(Record::from_bytes(br#"{"v":2,"shape":"other"}"#), Err(NotARecord::Version(2)));
        assert_eq!(Record::from_bytes(b"{"), Err(NotARecord::Unreadable));
    }

    #[test]
    fn the_format_of_tokens_is_golden() {
        let token = Token::new("a secret", crate::token::Scope::Write, Some(7));
        let bytes = Record::new(Body::Token(token)).to_bytes();
        let golden = concat!(
            r#"{"v":1,"life":1,"names":{},"body":{"token":{"secret":"0cb1be9166b83c4640d80ce36de982d86eabcf9c143d87"#,
            r#"cec60282cf09de7a99","scope":"write","expires_ms":7}}}"#
        );
        assert_eq!(core::str::from_utf8(&bytes), Ok(golden));
    }

    #[test]
    fn the_format_of_revocations_is_golden() {
        let body = Body::Revocation(Revocation { holder: "worker-0000000000ff".into() });
        let golden = r#"{"v":1,"life":1,"names":{},"body":{"revocation":{"holder":"worker-0000000000ff"}}}"#;
        assert_eq!(core::str::from_utf8(&Record::new(body).to_bytes()), Ok(golden));
    }

    #[test]
    fn the_format_is_golden() {
        let mut job = job();
        job.progress.units.insert(2, Digest::of(b"p"));
        job.spec.work = Work::Evaluate {
            problem: crate::job::Problem {
                task: crate::job::Task::Regression,
                dataset: Digest::of(b"d"),
                target: "y".into(),
                features: vec!["x".into()],
            },
            models: vec![(Digest::of(b"m"), Split::Holdout { seed: 3, fraction: 0.25 })],
        };
        let bytes = Record::new(Body::Job(job)).to_bytes();
        assert_eq!(core::str::from_utf8(&bytes).map(ToString::to_string), Ok(GOLDEN.to_string()));
    }

    const GOLDEN: &str = concat!(
        r#"{"v":1,"life":1,"names":{},"body":{"job":{"spec":{"parent":null,"role":"predict","work":{""#,
        r#"evaluate":{"problem":{"task":"regression","dataset":"d5ede538f628f687e5e0422c7755b503653de"#,
        r#"2dcd7053ca8791afa5d4787d843","target":"y","features":["x"]},"models":[["83d9dab06011479163"#,
        r#"c7c4d5fa735f911bac86729f56aaa115b7eed2eb66e022",{"holdout":{"seed":3,"fraction":0.25}}]]}}"#,
        r#","plan":{"rounds":1,"units":4,"fold":false}},"progress":{"round":0,"state":null,"units":{""#,
        r#"2":"73f291693e31fe77be7bfb78ebc9042b2e2c437c87eca0c122e0e8a0bbfbe625"}},"failure":null}}}"#,
    );
}
