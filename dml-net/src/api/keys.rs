//! `Idempotency-Key` on requests that create something (draft-ietf-httpapi-idempotency-key-header). What is created is
//! named after its content, so a repeated request does its work once with or without a key, on both sides of a split too.
//! What a key adds is that it is noticed when a client uses one for two different things by mistake; and that a token,
//! whose secret is random, is not made twice. A worker notices what it has seen itself, of late.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Mutex,
};

use axum::{
    extract::FromRequestParts,
    http::{header, request::Parts},
};
use dml_core::Digest;
use serde::Serialize;

use crate::problem::Problem;

const HEADER: &str = "idempotency-key";

/// The key of a request, as that of its user; none if there is none.
pub(super) struct Key(Option<Digest>);

impl<S: Send + Sync> FromRequestParts<S> for Key {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Some(value) = parts.headers.get(HEADER) else { return Ok(Self(None)) };
        let plain = |text: &&str| !text.is_empty() && text.len() <= 255;
        let text = value.to_str().ok().map(|text| text.trim().trim_matches('"')).filter(plain);
        let text = text.ok_or_else(|| {
            let detail = "an Idempotency-Key has 1 to 255 printable ASCII characters: a UUID does well";
            Problem::bad_request("bad-idempotency-key", detail)
        })?;
        // Users do not share keys.
        let user = parts.headers.get(header::AUTHORIZATION).map(|shown| shown.as_bytes());
        Ok(Self(Some(Digest::of_value(&(text, user)))))
    }
}

/// What was created with which key, of late.
#[derive(Default)]
pub(crate) struct Keys(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    made: BTreeMap<Digest, Digest>,
    order: VecDeque<Digest>,
}

impl Keys {
    /// How many keys are remembered; a megabyte or so.
    const MOST: usize = 10_000;

    /// Notes what a key is for, and says whether that was noted before; refuses if it was for something else.
    pub(super) fn note(&self, key: &Key, what: &impl Serialize) -> Result<bool, Problem> {
        let Some(key) = key.0 else { return Ok(false) };
        let what = Digest::of_value(what);
        let mut kept = self.0.lock().expect("nobody panics while holding it");
        match kept.made.get(&key) {
            Some(known) if *known == what => Ok(true),
            Some(_) => {
                let detail = "this Idempotency-Key came with another request before: use a new one for each thing that is to be \
                              created";
                Err(Problem::unprocessable("idempotency-key-reused", detail))
            }
            None => {
                kept.made.insert(key, what);
                kept.order.push_back(key);
                if kept.order.len() > Self::MOST
                    && let Some(oldest) = kept.order.pop_front()
                {
                    kept.made.remove(&oldest);
                }
                Ok(false)
            }
        }
    }

    /// Forgets a key: nothing came of its request.
    pub(super) fn forget(&self, key: &Key) {
        let Some(key) = key.0 else { return };
        let mut kept = self.0.lock().expect("nobody panics while holding it");
        kept.made.remove(&key);
        kept.order.retain(|known| *known != key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_keys_are_forgotten() {
        let keys = Keys::default();
        let key = |n: usize| Key(Some(Digest::of_value(&n)));
        for n in 0..=Keys::MOST {
            assert!(!keys.note(&key(n), &"a").unwrap());
        }
        assert!(keys.note(&key(1), &"a").unwrap());
        assert_eq!(keys.note(&key(1), &"b").unwrap_err().code, "idempotency-key-reused");
        assert!(!keys.note(&key(0), &"b").unwrap(), "it was the oldest");
        keys.forget(&key(0));
        assert!(!keys.note(&key(0), &"c").unwrap());
        assert!(!keys.note(&Key(None), &"a").unwrap() && !keys.note(&Key(None), &"b").unwrap());
    }
}
