//! What nodes of different versions say to each other during an upgrade: `wire.ndjson` has a line of each kind. Lines are
//! added, and none is changed: a field that comes in has a default, and is not written while it has it.

use super::*;

const LINES: &str = include_str!("wire.ndjson");

/// All that is said.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Said {
    Request(alloc::boxed::Box<Request>),
    Response(Response),
    Message(Message),
}

#[test]
fn what_nodes_have_ever_said_is_understood_and_said_so_again() {
    for line in LINES.lines() {
        let said: Said = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!(serde_json::to_string(&said).expect("they have string keys"), line);
    }
}

#[test]
fn each_kind_of_what_nodes_say_has_its_line() {
    for (place, kinds) in [
        (r#"{"request":"#, kinds::<Request>()),
        (r#""outcome":"#, kinds::<Outcome>()),
        (r#"{"response":"#, kinds::<Response>()),
        (r#""refused":"#, kinds::<Refusal>()),
        (r#"{"message":"#, kinds::<Message>()),
    ] {
        assert!(kinds.len() > 3, "{place} {kinds:?}");
        for kind in kinds {
            let said = [format!(r#"{place}"{kind}""#), format!(r#"{place}{{"{kind}""#)];
            assert!(said.iter().any(|said| LINES.contains(said.as_str())), "{place} {kind}");
        }
    }
}

/// The kinds that there are, which serde names to whoever comes with another.
fn kinds<T: core::fmt::Debug + serde::de::DeserializeOwned>() -> Vec<String> {
    let error = serde_json::from_str::<T>(r#""?""#).expect_err("there is no such kind").to_string();
    error.split('`').skip(3).step_by(2).map(String::from).collect()
}
