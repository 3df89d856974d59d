//! Where the object store is and who asks: from the environment, under the names that other S3 tools know.

use hyper::Uri;

use crate::failure::Failure;

const KEY: &str = "AWS_ACCESS_KEY_ID";
const SECRET: &str = "AWS_SECRET_ACCESS_KEY";
const TOKEN: &str = "AWS_SESSION_TOKEN";
const ENDPOINTS: [&str; 3] = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"];
const REGIONS: [&str; 2] = ["AWS_REGION", "AWS_DEFAULT_REGION"];

/// What a store has to be told. It has secrets, so it is not for printing.
pub(super) struct Settings {
    pub(super) key: String,
    pub(super) secret: String,
    pub(super) token: Option<String>,
    pub(super) region: String,
    /// The address of the store, without a slash at its end; none for that of Amazon.
    pub(super) endpoint: Option<String>,
}

impl Settings {
    /// Reads the variables that are there; an empty one is none.
    pub(super) fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Failure> {
        let variable = |name: &'static str| {
            let value =
                variable(name).map(|value| value.trim().to_string()).filter(|value| !value.is_empty());
            // Values go into headers. The value is not repeated: it may be a secret.
            match value.as_ref().is_none_or(|value| value.chars().all(|c| c.is_ascii_graphic())) {
                true => Ok(value.map(|value| (name, value))),
                false => Err(Failure::usage(format!("{name} has a character that cannot be part of it"))
                    .hint("are there two lines in it, or a blank?")),
            }
        };
        let first = |names: &[&'static str]| -> Result<_, Failure> {
            for name in names {
                if let Some(found) = variable(name)? {
                    return Ok(Some(found));
                }
            }
            Ok(None)
        };
        let (key, secret) = match (variable(KEY)?, variable(SECRET)?) {
            (Some((_, key)), Some((_, secret))) => (key, secret),
            (key, secret) => {
                let missing = [key.is_none().then_some(KEY), secret.is_none().then_some(SECRET)];
                let missing = missing.into_iter().flatten().collect::<Vec<_>>().join(" and ");
                return Err(Failure::usage(format!("no credentials for the object store: set {missing}"))
                    .hint(format!(
                        "{TOKEN} as well if they are for a time; AWS_ENDPOINT_URL says where the store is"
                    )));
            }
        };
        let endpoint = match first(&ENDPOINTS)? {
            Some((name, endpoint)) => Some(checked(name, &endpoint)?),
            None => None,
        };
        let token = variable(TOKEN)?.map(|(_, token)| token);
        let region = first(&REGIONS)?.map_or_else(|| "us-east-1".into(), |(_, region)| region);
        Ok(Self { key, secret, token, region, endpoint })
    }
}

/// An address that a request can go to.
fn checked(name: &str, endpoint: &str) -> Result<String, Failure> {
    if endpoint.contains('@') {
        let failure = Failure::usage(format!("{name} has a user or a password in it"));
        return Err(failure.hint(format!("those go into {KEY} and {SECRET}")));
    }
    let wrong = || {
        Failure::usage(format!("{name} is '{endpoint}', which is no address of a store"))
            .hint("write https://HOST or http://HOST:PORT")
    };
    let address = endpoint.trim_end_matches('/');
    let uri: Uri = address.parse().map_err(|_| wrong())?;
    let plain = matches!(uri.scheme_str(), Some("http" | "https")) && uri.query().is_none();
    let named = uri.host().is_some_and(|host| !host.is_empty());
    (plain && named && !address.contains('#')).then(|| address.to_string()).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Settings, Failure> {
        let known: BTreeMap<&str, &str> = variables.iter().copied().collect();
        Settings::read(|name| known.get(name).map(ToString::to_string))
    }

    const KEYS: [(&str, &str); 2] = [(KEY, "AKIAEXAMPLE"), (SECRET, "hunter2/+=")];

    #[test]
    fn what_other_tools_know_is_known() {
        let plain = read(&KEYS).map_err(|failure| failure.what().to_string()).unwrap();
        assert_eq!((plain.key.as_str(), plain.secret.as_str()), ("AKIAEXAMPLE", "hunter2/+="));
        assert_eq!((plain.region.as_str(), plain.token, plain.endpoint), ("us-east-1", None, None));
        let more = [
            ("AWS_DEFAULT_REGION", "sa-east-1"),
            ("AWS_REGION", "eu-west-3\n"),
            ("AWS_ENDPOINT", "http://other:1"),
            ("AWS_ENDPOINT_URL", "http://127.0.0.1:9000/"),
            ("AWS_ENDPOINT_URL_S3", " "),
            (TOKEN, "for-a-time"),
        ];
        let full =
            read(&[&KEYS[..], &more[..]].concat()).map_err(|failure| failure.what().to_string()).unwrap();
        assert_eq!((full.region.as_str(), full.token.as_deref()), ("eu-west-3", Some("for-a-time")));
        assert_eq!(full.endpoint.as_deref(), Some("http://127.0.0.1:9000"));
    }

    #[test]
    fn what_is_missing_or_wrong_is_named_and_secrets_are_not_repeated() {
        let with = |name, value| [KEYS[0], KEYS[1], (name, value)];
        for (variables, words) in [
            (&[][..], "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
            (&[(KEY, "a"), (SECRET, "")], "set AWS_SECRET_ACCESS_KEY"),
            (&[(SECRET, "hunter2")], "set AWS_ACCESS_KEY_ID"),
            (&[(KEY, "a"), (SECRET, "hunter2\nhunter2")], "AWS_SECRET_ACCESS_KEY has a character"),
            (&with(TOKEN, "hunter2 hunter2"), "AWS_SESSION_TOKEN has a character"),
            (&with("AWS_REGION", "é"), "AWS_REGION has a character"),
            (&with("AWS_ENDPOINT_URL", "127.0.0.1:9000"), "no address of a store"),
            (&with("AWS_ENDPOINT_URL", "s3://models"), "no address of a store"),
            (&with("AWS_ENDPOINT_URL", "http:///models"), "no address of a store"),
            (&with("AWS_ENDPOINT_URL", "http://store?x=1"), "no address of a store"),
            (&with("AWS_ENDPOINT_URL", "http://a:hunter2@store"), "a password in it"),
        ] {
            let Err(failure) = read(variables) else { panic!("{words}: taken") };
            assert!(failure.what().contains(words), "{words}: {}", failure.what());
            assert!(!format!("{failure:?}").contains("hunter2"), "{failure:?}");
        }
    }
}
