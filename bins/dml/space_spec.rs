//! What users write after `--param` of `dml tune`: `NAME=VALUES`, or `KIND.NAME=VALUES`.

use dml_net::view::Tried;

/// A parameter and what is to be tried of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ParamSpec {
    /// The kind that it is of; every kind that is tried if none is named.
    pub(crate) kind: Option<String>,
    pub(crate) name: String,
    pub(crate) tried: Tried,
}

const HOW: &str =
    "write NAME=A..B, NAME=log:A..B, NAME=A,B,C or NAME=VALUE, such as learning_rate=log:0.01..0.3";

/// The parameter that a text asks for. Whether there is such a one is for the cluster to say.
pub(crate) fn parse(text: &str) -> Result<ParamSpec, String> {
    let (name, tried) = text.split_once('=').ok_or(HOW)?;
    let (kind, name) = match name.trim().split_once('.') {
        Some((kind, name)) => (Some(kind.trim().to_string()), name.trim()),
        None => (None, name.trim()),
    };
    if name.is_empty() || kind.as_ref().is_some_and(String::is_empty) {
        return Err(HOW.into());
    }
    let tried = tried.parse().map_err(|why| format!("of {name}, {why}"))?;
    Ok(ParamSpec { kind, name: name.into(), tried })
}

/// How many models are kept.
pub(crate) fn parse_keep(text: &str) -> Result<u32, String> {
    match (text, text.parse()) {
        ("best", _) => Ok(1),
        ("all", _) => Ok(u32::MAX),
        (_, Ok(count)) if count > 0 => Ok(count),
        _ => Err("write best, all, or how many, such as 3".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_of_one_kind_or_of_all() {
        let of_one = parse("ridge.alpha=log:1e-3..1").unwrap();
        assert_eq!((of_one.kind.as_deref(), of_one.name.as_str()), (Some("ridge"), "alpha"));
        assert_eq!(of_one.tried, "log:1e-3..1".parse().unwrap());
        assert_eq!(parse("alpha=1").unwrap().kind, None);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, word) in [
            ("", "NAME"),
            ("alpha", "NAME"),
            ("=1", "NAME"),
            (".alpha=1", "NAME"),
            ("alpha=", "of alpha, a value is missing"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
        assert_eq!((parse_keep("best"), parse_keep("3"), parse_keep("all")), (Ok(1), Ok(3), Ok(u32::MAX)));
        assert!(parse_keep("0").is_err() && parse_keep("few").is_err());
    }
}
