//! What all pages have in common: head, navigation, and what the browser may do with them.

use std::convert::Infallible;

use axum::{
    extract::{FromRequestParts, OriginalUri},
    http::{HeaderName, header, request::Parts},
    response::{Html, IntoResponse, Response},
};
use maud::{DOCTYPE, Markup, html};

use super::Trouble;
use crate::{client::ClientError, problem::Problem};

/// Style, script and pictures are files of this worker, forms and requests go to it alone, and no other page may show
/// this one inside itself (Content Security Policy, W3C).
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'self'; frame-ancestors 'none'";

const HEADERS: [(HeaderName, &str); 4] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    // Not "no-referrer": browsers would not say either that a form comes from this page, and it would be taken for a foreign one.
    (header::REFERRER_POLICY, "same-origin"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::CACHE_CONTROL, "no-store"),
];

/// The sections, as the navigation names them.
const SECTIONS: [(&str, &str); 10] = [
    ("", "Overview"),
    ("datasets", "Datasets"),
    ("trainings", "Trainings"),
    ("studies", "Studies"),
    ("models", "Models"),
    ("predictions", "Predictions"),
    ("jobs", "Jobs"),
    ("cluster", "Cluster"),
    ("logs", "Log"),
    ("docs", "API"),
];

/// Where pages are. Links are relative to `base`, so that the router may be nested in another.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    /// Where the overview is; ends with a slash.
    pub(super) base: String,
    section: String,
}

impl<S: Send + Sync> FromRequestParts<S> for Frame {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let path = parts.uri.path();
        let whole = parts.extensions.get::<OriginalUri>().map_or(path, |OriginalUri(uri)| uri.path());
        let base = format!("{}/", whole.strip_suffix(path).unwrap_or_default());
        let section = path.split('/').nth(1).unwrap_or_default();
        let section = if section == "train" { "trainings" } else { section };
        Ok(Self { base, section: section.into() })
    }
}

impl Frame {
    /// A page.
    pub(super) fn page(&self, title: &str, main: Markup) -> Response {
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { (title) " · DML" }
                    base href=(self.base);
                    link rel="icon" href="console.svg";
                    link rel="stylesheet" href="console.css";
                    script src="console.js" defer {}
                }
                body {
                    a.skip href="#main" { "To the content" }
                    header {
                        a.brand href=(self.base) { "DML" }
                        nav aria-label="Sections" {
                            @for (path, name) in SECTIONS {
                                @let here = path == self.section;
                                a href={ (self.base) (path) } aria-current=[here.then_some("page")] { (name) }
                            }
                        }
                        a.button href={ (self.base) "#upload" } { "Upload a table" }
                    }
                    main #main tabindex="-1" { (main) }
                }
            }
        };
        (HEADERS, Html(page.into_string())).into_response()
    }

    /// What to answer when the API refuses.
    pub(super) fn trouble(&self) -> impl Fn(ClientError) -> Trouble + '_ {
        |error| {
            let problem = match error {
                ClientError::Problem(problem) => problem,
                ClientError::NoAnswer(_) | ClientError::Garbled(_) => Problem::internal(error.to_string()),
            };
            Trouble { frame: self.clone(), problem }
        }
    }
}

/// A problem in words.
pub(super) fn alert(problem: &Problem) -> Markup {
    html! {
        div.alert role="alert" {
            strong { (problem.title) }
            p { (problem.detail) }
            p.quiet { "code " code { (problem.code) }
                @if let Some(row) = problem.row { ", row " (row) }
                @if let Some(column) = &problem.column { ", column " code { (column) } }
            }
        }
    }
}

/// A link to the page of a list that follows.
pub(super) fn next(path: &str, cursor: Option<&str>) -> Markup {
    html! {
        @if let Some(cursor) = cursor {
            p { a.button.plain href={ (path) "?cursor=" (crate::client::escape(cursor)) } { "Older" } }
        }
    }
}

/// A form with one button, for what cannot be undone: it asks first.
pub(super) fn sure(action: &str, verb: &str, question: &str) -> Markup {
    html! {
        details.sure {
            summary.button.plain { (verb) "…" }
            form method="post" action=(action) {
                p { (question) }
                button.danger { (verb) }
            }
        }
    }
}
