//! What users write after `--model`: `KIND`, or `KIND:param=value,param=value`.

use dml_core::{Params, Value};
use dml_net::view::NewModel;

/// The model that a text asks for. Whether there is such a kind is for the cluster to say.
pub(crate) fn parse(text: &str) -> Result<NewModel, String> {
    let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
    let kind = kind.trim();
    if kind.is_empty() || kind.contains(['=', ',']) {
        return Err("write KIND or KIND:param=value,param=value, such as ridge:alpha=2.5".into());
    }
    let mut params = Params::default();
    for pair in rest.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (name, value) = match pair.split_once('=').map(|(name, value)| (name.trim(), value.trim())) {
            Some((name, value)) if !name.is_empty() && !value.is_empty() => (name, value),
            _ => return Err(format!("'{pair}' is no parameter: write name=value")),
        };
        let value = Value::parse(value).ok_or_else(|| format!("{value} is not a finite number"))?;
        if params.0.insert(name.into(), value).is_some() {
            return Err(format!("{name} is given twice"));
        }
    }
    Ok(NewModel { kind: kind.into(), params })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_typed_parameters() {
        assert_eq!(parse("ridge"), Ok(NewModel { kind: "ridge".into(), params: Params::default() }));
        assert_eq!(parse("ridge:"), parse("ridge"));
        let model = parse("forest: n=300, rate=0.5,deep=true,rule=sqrt,small=1e-3").unwrap();
        let params: Vec<_> = model.params.0.into_iter().collect();
        let wanted = [
            ("deep", Value::Bool(true)),
            ("n", Value::Int(300)),
            ("rate", Value::Float(0.5)),
            ("rule", Value::Text("sqrt".into())),
            ("small", Value::Float(1e-3)),
        ];
        assert_eq!(params, wanted.map(|(name, value)| (name.to_string(), value)));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, word) in [
            ("", "KIND"),
            (":alpha=1", "KIND"),
            ("alpha=1", "KIND"),
            ("ridge:alpha", "'alpha'"),
            ("ridge:alpha=", "'alpha='"),
            ("ridge:=1", "'=1'"),
            ("ridge:alpha=1,alpha=2", "twice"),
            ("ridge:alpha=inf", "finite"),
            ("ridge:alpha=1e999", "finite"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
