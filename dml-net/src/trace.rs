//! Which request all this is for: the `traceparent` header (W3C Trace Context), taken over from whoever asks, or begun
//! here, and passed on to the nodes that are asked on its behalf. So the lines that one request leaves in the logs of
//! many nodes have the same trace.
//!
//! Letters between db nodes carry none: one of them may be about many requests.

use std::fmt;

use hyper::{
    HeaderMap,
    header::{HeaderName, HeaderValue},
};

use tracing::Instrument;

use crate::db::random;

/// The header.
pub(crate) const HEADER: HeaderName = HeaderName::from_static("traceparent");

/// The trace of a request, and whether those who collect traces are asked to keep it. It is shown as its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trace {
    id: u128,
    flags: u8,
}

tokio::task_local! {
    static CURRENT: Trace;
}

impl Trace {
    /// One that begins here.
    pub(crate) fn new() -> Self {
        let id = u128::from(random()) << 64 | u128::from(random());
        Self { id: id.max(1), flags: 0 }
    }

    /// The one that a request is part of; none if it says nothing, or nothing that can be understood.
    pub(crate) fn received(headers: &HeaderMap) -> Option<Self> {
        let mut parts = headers.get(HEADER)?.to_str().ok()?.split('-');
        let mut part = |length: usize| {
            let text = parts.next().filter(|text| text.len() == length)?;
            let plain = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
            u128::from_str_radix(text, 16).ok().filter(|_| plain)
        };
        let (version, id, parent, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
        // Later versions may say more at the end.
        let is_whole = version > 0 || parts.next().is_none();
        let is_valid = version != 0xff && id != 0 && parent != 0 && is_whole;
        is_valid.then_some(Self { id, flags: flags as u8 })
    }

    /// What is sent with a request that is made on behalf of the current one, if there is one.
    pub(crate) fn to_send() -> Option<HeaderValue> {
        let Self { id, flags } = CURRENT.try_with(|trace| *trace).ok()?;
        let text = format!("00-{id:032x}-{:016x}-{flags:02x}", random().max(1));
        Some(HeaderValue::try_from(text).expect("it has plain letters"))
    }

    /// Does something on behalf of this request.
    pub(crate) async fn during<F: Future>(self, doing: F) -> F::Output {
        CURRENT.scope(self, doing).await
    }
}

/// A function that is to run in a thread of its own, on behalf of the request for which it is made.
pub(crate) fn carry<T>(doing: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let (trace, span) = (CURRENT.try_with(|trace| *trace).ok(), tracing::Span::current());
    move || match trace {
        Some(trace) => CURRENT.sync_scope(trace, || span.in_scope(doing)),
        None => doing(),
    }
}

/// Something that is to go on as a task of its own, on behalf of the request for which it is made.
pub(crate) fn carry_task<F: Future>(doing: F) -> impl Future<Output = F::Output> {
    let (trace, span) = (CURRENT.try_with(|trace| *trace).ok(), tracing::Span::current());
    async move {
        match trace {
            Some(trace) => trace.during(doing.instrument(span)).await,
            None => doing.await,
        }
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(text: &str) -> Option<Trace> {
        Trace::received(&HeaderMap::from_iter([(HEADER, HeaderValue::from_str(text).unwrap())]))
    }

    const ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[tokio::test]
    async fn a_trace_is_passed_on_with_a_new_parent() {
        let trace = received(&format!("00-{ID}-00f067aa0ba902b7-01")).unwrap();
        assert_eq!((trace.to_string(), trace.flags), (ID.into(), 1));
        let sent = trace.during(async { Trace::to_send().unwrap() }).await;
        let text = sent.to_str().unwrap();
        assert_ne!(text, format!("00-{ID}-00f067aa0ba902b7-01"), "whoever asks next is another");
        assert_eq!(received(text), Some(trace));
        let elsewhere = trace.during(async { carry(|| Trace::to_send().is_some()) }).await;
        assert!(std::thread::spawn(elsewhere).join().unwrap(), "also from another thread");
        assert_eq!(Trace::to_send(), None, "nobody asks");
        assert_ne!(Trace::new(), Trace::new());
    }

    #[test]
    fn what_is_no_trace_is_left() {
        assert!(received(&format!("01-{ID}-00f067aa0ba902b7-01-more")).is_some(), "a later version");
        for bad in [
            "",
            "-",
            "00-1-2-3",
            &format!("ff-{ID}-00f067aa0ba902b7-01"),
            &format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            &format!("00-{ID}-0000000000000000-01"),
            &format!("00-{ID}-00f067aa0ba902b7-01-more"),
            &format!("00-{}-00f067aa0ba902b7-01", ID.to_uppercase()),
            &format!("00-+{}-00f067aa0ba902b7-01", &ID[1..]),
        ] {
            assert_eq!(received(bad), None, "{bad}");
        }
    }
}
