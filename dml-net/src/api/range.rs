//! Parts of a download (RFC 9110, section 14), so that one that broke off goes on where it was: `Range` with one range of
//! bytes, `If-Range` and `If-None-Match` with the entity tag. Several ranges at once get the whole, as the standard allows.

use std::ops::Range;

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use dml_core::Digest;

use super::table_body::{self, Form};
use crate::{problem::Problem, worker::Worker};

/// A thing to download.
pub(super) struct Download {
    /// The same tag means the same bytes.
    tag: String,
    head: Vec<(HeaderName, String)>,
}

impl Download {
    pub(super) fn new(tag: &str, head: impl IntoIterator<Item = (HeaderName, String)>) -> Self {
        Self { tag: format!("\"{tag}\""), head: head.into_iter().collect() }
    }

    /// Bytes that are at hand.
    pub(super) fn bytes(self, asked: &HeaderMap, bytes: &Bytes) -> Response {
        let total = bytes.len() as u64;
        match self.wanted(asked) {
            Wanted::Nothing => self.unchanged(),
            Wanted::Whole => self.respond(StatusCode::OK, bytes.clone()),
            Wanted::Part(part) => match part.within(total) {
                None => self.beyond(total),
                Some(range) => {
                    let part = bytes.slice(range.start as usize..range.end as usize);
                    self.part(&range, total, part)
                }
            },
        }
    }

    /// The rows of chunks. How long they are in this form is found out only if somebody wants a part.
    pub(super) async fn rows(
        self,
        asked: &HeaderMap,
        worker: Worker,
        chunks: Vec<Digest>,
        form: Form,
    ) -> Result<Response, Problem> {
        Ok(match self.wanted(asked) {
            Wanted::Nothing => self.unchanged(),
            Wanted::Whole | Wanted::Part(_) if form == Form::Parquet => {
                let whole = table_body::parquet_of(worker, chunks);
                let mut response = self.respond(StatusCode::OK, Body::from_stream(whole));
                response.headers_mut().insert(header::ACCEPT_RANGES, HeaderValue::from_static("none"));
                response
            }
            Wanted::Whole => {
                let rows = table_body::rows_of(worker, chunks, form, 0, 0..u64::MAX);
                self.respond(StatusCode::OK, Body::from_stream(rows))
            }
            Wanted::Part(part) => {
                let lengths = table_body::lengths(&worker, &chunks, form).await?;
                let total = lengths.iter().sum();
                let Some(range) = part.within(total) else { return Ok(self.beyond(total)) };
                let (mut first, mut start) = (0, 0);
                while start + lengths[first] <= range.start {
                    start += lengths[first];
                    first += 1;
                }
                let within = range.start - start..range.end - start;
                let rows = table_body::rows_of(worker, chunks, form, first, within);
                self.part(&range, total, Body::from_stream(rows))
            }
        })
    }

    fn wanted(&self, asked: &HeaderMap) -> Wanted {
        let text = |name| asked.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let same = |tag: &str| tag.trim() == "*" || tag.trim().trim_start_matches("W/") == self.tag;
        if text(header::IF_NONE_MATCH).is_some_and(|tags| tags.split(',').any(same)) {
            return Wanted::Nothing;
        }
        // A date, or the tag of something else: what the client has a part of is no more.
        let other = text(header::IF_RANGE).is_some_and(|tag| tag.trim() != self.tag);
        match text(header::RANGE).and_then(Part::parse).filter(|_| !other) {
            Some(part) => Wanted::Part(part),
            None => Wanted::Whole,
        }
    }

    fn respond(self, status: StatusCode, body: impl Into<Body>) -> Response {
        let mut response = (status, body.into()).into_response();
        let head = self.head.into_iter().chain([
            (header::ETAG, self.tag),
            (header::ACCEPT_RANGES, "bytes".into()),
            (header::VARY, "accept".into()),
        ]);
        for (name, value) in head {
            let value = HeaderValue::try_from(value).expect("tags, types and checked names are plain");
            response.headers_mut().insert(name, value);
        }
        response
    }

    fn part(mut self, range: &Range<u64>, total: u64, body: impl Into<Body>) -> Response {
        let place = format!("bytes {}-{}/{total}", range.start, range.end - 1);
        let length = (range.end - range.start).to_string();
        self.head.extend([(header::CONTENT_RANGE, place), (header::CONTENT_LENGTH, length)]);
        self.respond(StatusCode::PARTIAL_CONTENT, body)
    }

    fn unchanged(self) -> Response {
        let plain = Self { head: Vec::new(), ..self };
        plain.respond(StatusCode::NOT_MODIFIED, Body::empty())
    }

    fn beyond(&self, total: u64) -> Response {
        let detail = format!("there are {total} bytes, and the range begins behind them: ask for less");
        let problem = Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, "bad-range", detail);
        ([(header::CONTENT_RANGE, format!("bytes */{total}"))], problem).into_response()
    }
}

enum Wanted {
    Whole,
    Part(Part),
    /// The client has it already.
    Nothing,
}

/// One range of bytes, as it stands in `Range`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// From here, to there (included) or to the end.
    From(u64, Option<u64>),
    /// So many at the end.
    Last(u64),
}

impl Part {
    /// What cannot be read counts as absent, and so do several ranges.
    fn parse(text: &str) -> Option<Self> {
        let (unit, range) = text.split_once('=')?;
        let (from, to) = range.trim().split_once('-')?;
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return None;
        }
        let number =
            |text: &str| text.trim().bytes().all(|b| b.is_ascii_digit()).then(|| text.trim().parse().ok())?;
        match (from.trim(), to.trim()) {
            ("", last) => number(last).map(Self::Last),
            (from, "") => Some(Self::From(number(from)?, None)),
            (from, to) => {
                let (from, to) = (number(from)?, number(to)?);
                (from <= to).then_some(Self::From(from, Some(to)))
            }
        }
    }

    fn within(self, total: u64) -> Option<Range<u64>> {
        let range = match self {
            Self::From(from, to) => from..to.map_or(total, |to| to.saturating_add(1).min(total)),
            Self::Last(count) => total.saturating_sub(count)..total,
        };
        (range.start < range.end).then_some(range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_standard_says() {
        let within = |text| Part::parse(text).and_then(|part| part.within(10));
        assert_eq!(within("bytes=0-0"), Some(0..1));
        assert_eq!(within("Bytes = 4-"), Some(4..10));
        assert_eq!(within("bytes=4-99"), Some(4..10));
        assert_eq!(within("bytes=-3"), Some(7..10));
        assert_eq!(within("bytes=-99"), Some(0..10));
        for beyond in ["bytes=10-", "bytes=10-12", "bytes=-0"] {
            assert!(Part::parse(beyond).is_some() && within(beyond).is_none(), "{beyond}");
        }
        let unread =
            ["", "bytes", "bytes=", "bytes=-", "bytes=5-4", "bytes=0-1,3-4", "rows=0-1", "bytes=+1-2"];
        for text in unread {
            assert_eq!(Part::parse(text), None, "{text}");
        }
        assert_eq!(Part::parse("bytes=99999999999999999999-"), None);
    }
}
