//! What the store says when it refuses, for people: what, where, and how to mend it. The answers of a store may repeat
//! what was signed, so that no more than their code and message is shown.

use std::error::Error;

use object_store::Error as E;

use super::{connector::NoAnswer, url::Url};
use crate::failure::Failure;

/// How much of a message is shown.
const LONGEST: usize = 300;

/// Whether the store was not reached at all: asking again for something else is of no use.
pub(super) fn is_silence(error: &E) -> bool {
    silence(error).is_some()
}

/// Whether the bucket is there and has no such object.
pub(super) fn is_missing(error: &E) -> bool {
    matches!(error, E::NotFound { .. }) && !error.to_string().contains("NoSuchBucket")
}

/// What the user is told when something could not be done with an object. `endpoint` says where the store is.
pub(super) fn failure(error: &E, url: &Url, endpoint: &str) -> Failure {
    if let Some(why) = silence(error) {
        let hint = match why.contains("certificate") {
            true => "SSL_CERT_FILE names a file with the certificate of an authority to trust",
            false => "is AWS_ENDPOINT_URL right, and does the store run?",
        };
        return Failure::no_answer(format!("the object store at {endpoint} does not answer: {why}"))
            .hint(hint);
    }
    let text = error.to_string();
    let code = element(&text, "Code").unwrap_or_default();
    let bucket = &url.bucket;
    let denied = |what: &str, hint: &str| {
        Failure::failed(format!("the object store at {endpoint} refuses {url}: {what}")).hint(hint)
    };
    match code {
        "NoSuchBucket" => {
            return Failure::not_found(format!("there is no bucket '{bucket}' at {endpoint}"))
                .hint(format!("make it first: `mc mb ALIAS/{bucket}` or `aws s3 mb s3://{bucket}`"));
        }
        "InvalidAccessKeyId" => {
            return denied("it does not know the access key", "look at AWS_ACCESS_KEY_ID");
        }
        "SignatureDoesNotMatch" => {
            return denied(
                "the secret does not belong to the access key",
                "look at AWS_SECRET_ACCESS_KEY, and at AWS_REGION",
            );
        }
        "ExpiredToken" | "InvalidToken" => {
            return denied("the session token is not valid, or not any more", "renew AWS_SESSION_TOKEN");
        }
        "RequestTimeTooSkewed" => {
            return denied("the clocks differ by more than a quarter of an hour", "set this machine's clock");
        }
        "AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException" => {
            return denied("the bucket is in another region", "set AWS_REGION to that of the bucket");
        }
        _ => {}
    }
    if let E::NotFound { .. } = error {
        return Failure::not_found(format!("there is no {url} at {endpoint}"));
    }
    if matches!(error, E::PermissionDenied { .. } | E::Unauthenticated { .. }) {
        let hint = "whoever has AWS_ACCESS_KEY_ID needs s3:GetObject, s3:PutObject and s3:ListBucket there";
        return denied("access denied", hint);
    }
    if text.contains("redirect") {
        let hint = "set AWS_REGION, or AWS_ENDPOINT_URL, to that of the bucket";
        return denied("the bucket is elsewhere", hint);
    }
    let said = element(&text, "Message").map(|message| format!("{code}: {message}"));
    let said = said.unwrap_or_else(|| text.split_once(" - ").map_or(&*text, |(_, why)| why).into());
    let said: String = said.split_whitespace().collect::<Vec<_>>().join(" ");
    let said: String = said.chars().filter(|c| !c.is_control()).take(LONGEST).collect();
    Failure::failed(format!("{url} at {endpoint}: {said}"))
}

fn silence(error: &E) -> Option<String> {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<NoAnswer>() {
            return Some(error.to_string());
        }
        cause = error.source();
    }
    None
}

/// The text of the first element of this name in an answer's XML.
fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    Some(rest.split_once("</")?.0.trim())
}
