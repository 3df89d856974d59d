//! The REST API for people: what `/openapi.json` says, on a page.

use axum::extract::State as Extract;
use maud::{Markup, html};
use serde_json::Value as Json;

use super::{Answer, frame::Frame};
use crate::client::Client;

pub(super) async fn page(Extract(client): Extract<Client>, frame: Frame) -> Answer {
    let api = client.openapi().await.map_err(frame.trouble())?;
    let paths = api["paths"].as_object().into_iter().flatten();
    let main = html! {
        h1 { "REST API" }
        p { (text(&api["info"]["description"])) " For machines it is described at " a href="openapi.json" { "openapi.json" } "." }
        @for (path, methods) in paths {
            @for (method, operation) in methods.as_object().into_iter().flatten() { (show(path, method, operation)) }
        }
    };
    Ok(frame.page("REST API", main))
}

fn show(path: &str, method: &str, operation: &Json) -> Markup {
    let parameters =
        || operation["parameters"].as_array().into_iter().flatten().filter(|one| one["in"] == "query");
    let kinds =
        |part: &Json| part["content"].as_object().map(|content| content.keys().cloned().collect::<Vec<_>>());
    let answers =
        operation["responses"].as_object().into_iter().flatten().filter(|(status, _)| *status != "default");
    html! {
        details.operation {
            summary { code { strong { (method.to_uppercase()) } " " (path) } " " span.quiet { (text(&operation["summary"])) } }
            p { (text(&operation["description"])) }
            table { tbody {
                @for parameter in parameters() {
                    tr { th scope="row" { code { "?" (text(&parameter["name"])) "=" } } td { (text(&parameter["description"])) } }
                }
                @if let Some(kinds) = kinds(&operation["requestBody"]) { tr { th scope="row" { "takes" } td { (kinds.join(", ")) } } }
                @for (status, answer) in answers {
                    tr { th scope="row" { (status) } td { (text(&answer["description"])) @if let Some(kinds) = kinds(answer) { " As " (kinds.join(", ")) "." } } }
                }
            } }
        }
    }
}

fn text(value: &Json) -> &str {
    value.as_str().unwrap_or_default()
}
