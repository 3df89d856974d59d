//! One answer from those of all nodes.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::{String, ToString},
    vec::Vec,
};
use core::cmp::Reverse;

use super::{Cursor, Entry, Refusal, Request, Response, WorkerSeen};
use crate::{id::Digest, merge::Merge, record::Kind};

/// Puts the answers of all nodes together.
pub(super) fn combine(request: &Request, parts: Vec<Response>) -> Response {
    if let Request::Find { kind, text } = request {
        found(*kind, text, parts)
    } else if let Request::List { limit, .. } = request {
        page(*limit, parts)
    } else if let Request::Workers = request {
        workers(parts)
    } else if let Request::Renew { .. } = request {
        let lost = |part| if let Response::Lost(lost) = part { lost } else { Vec::new() };
        Response::Lost(parts.into_iter().flat_map(lost).collect())
    } else if let Request::Locate { id } = request {
        let found = parts.into_iter().find(|part| matches!(part, Response::Found(_)));
        found.unwrap_or_else(|| not_found("record", &id.to_string()))
    } else {
        let used = parts.into_iter().find(|part| matches!(part, Response::Users(Some(_))));
        used.unwrap_or(Response::Users(None))
    }
}

fn not_found(what: &str, text: &str) -> Response {
    Response::Refused(Refusal::NotFound { what: what.into(), text: text.into() })
}

/// The thing that was given the name last, or the only one whose id begins so.
fn found(kind: Kind, text: &str, parts: Vec<Response>) -> Response {
    let matches =
        parts.into_iter().flat_map(|part| if let Response::Matches(all) = part { all } else { Vec::new() });
    let (mut named, mut begins) = (None, BTreeSet::new());
    for (id, at) in matches {
        match at {
            Some(at) => named = named.max(Some((at, id))),
            None => {
                begins.insert(id);
            }
        }
    }
    match (named, begins.len()) {
        (Some((_, id)), _) => Response::Found(id),
        (None, 0) => not_found(kind.name(), text),
        (None, 1) => Response::Found(begins.pop_first().expect("there is one")),
        (None, count) => Response::Refused(Refusal::Ambiguous { text: text.into(), count }),
    }
}

/// One page from those of all nodes; copies of one thing merge.
fn page(limit: usize, parts: Vec<Response>) -> Response {
    let mut all: BTreeMap<Digest, Entry> = BTreeMap::new();
    let (mut more, mut end) = (false, None);
    for part in parts {
        let Response::Page { entries, next } = part else { continue };
        // Beyond the end of a page that goes on, nothing is known of what that node has.
        if let Some(cursor) = next {
            more = true;
            let place = (Reverse(cursor.created_ms), cursor.id);
            end = Some(end.map_or(place, |end: (Reverse<u64>, Digest)| end.min(place)));
        }
        for entry in entries {
            match all.get_mut(&entry.id) {
                Some(known) => {
                    known.created_ms = known.created_ms.min(entry.created_ms);
                    known.leased = known.leased.max(entry.leased);
                    known.record.merge(entry.record);
                }
                None => {
                    all.insert(entry.id, entry);
                }
            }
        }
    }
    let place = |entry: &Entry| (Reverse(entry.created_ms), entry.id);
    let mut sorted: Vec<Entry> = all.into_values().filter(|entry| entry.record.body.is_some()).collect();
    sorted.sort_by_key(place);
    sorted.retain(|entry| end.is_none_or(|end| place(entry) <= end));
    more |= sorted.len() > limit.max(1);
    sorted.truncate(limit.max(1));
    let cursor = |entry: &Entry| Cursor { created_ms: entry.created_ms, id: entry.id };
    let next = sorted.last().filter(|_| more).map(cursor);
    Response::Page { entries: sorted, next }
}

/// The workers that any node knows: when it was heard of last, and all its leases.
fn workers(parts: Vec<Response>) -> Response {
    let mut all: BTreeMap<String, WorkerSeen> = BTreeMap::new();
    for part in parts {
        let Response::Workers(seen) = part else { continue };
        for seen in seen {
            match all.get_mut(&seen.worker) {
                Some(known) => {
                    known.capacity = known.capacity.max(seen.capacity);
                    known.leases += seen.leases;
                    known.age_ms = known.age_ms.min(seen.age_ms);
                    known.address = known.address.or(seen.address);
                }
                None => {
                    all.insert(seen.worker.clone(), seen);
                }
            }
        }
    }
    Response::Workers(all.into_values().collect())
}
