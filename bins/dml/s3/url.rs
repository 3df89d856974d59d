//! Where things are in an object store: `s3://BUCKET/PREFIX`.

use std::fmt;

use object_store::path::Path;

use crate::failure::Failure;

/// How long a prefix may be: S3 allows keys of 1024 bytes, and a training's name with what is below it takes some.
const LONGEST: usize = 700;

/// A bucket, and what the keys in it begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Url {
    pub(super) bucket: String,
    pub(super) path: Path,
}

impl Url {
    /// Reads an address as the user wrote it. Keys are taken as they are written: nothing in them is decoded.
    pub(super) fn parse(text: &str) -> Result<Self, Failure> {
        // What comes before an @ may be a password, which is not for showing.
        if text.split("://").nth(1).is_some_and(|rest| rest.split('/').next().unwrap_or(rest).contains('@')) {
            return Err(Failure::usage("an address of an object store has no user and no password in it")
                .hint("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and write s3://BUCKET/PREFIX"));
        }
        let wrong = |why: &str| Failure::usage(format!("'{text}' is no address in an object store: {why}"));
        let Some(rest) = text.strip_prefix("s3://") else {
            let failure = wrong("write s3://BUCKET/PREFIX");
            return Err(match text.split_once("://") {
                Some(("http" | "https", _)) => {
                    failure.hint("where the store itself is, is said by AWS_ENDPOINT_URL=http://HOST:PORT")
                }
                _ => failure,
            });
        };
        let (bucket, path) = rest.split_once('/').unwrap_or((rest, ""));
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        let named = (3..=63).contains(&bucket.len())
            && bucket.chars().all(plain)
            && bucket.starts_with(|c: char| c.is_ascii_alphanumeric())
            && !bucket.contains("..");
        if !named {
            let why = "the name of a bucket has 3 to 63 letters, digits, dots and hyphens";
            return Err(wrong(why).hint("write s3://BUCKET/PREFIX"));
        }
        if path.len() > LONGEST {
            return Err(wrong(&format!("what comes after the bucket is longer than {LONGEST} bytes")));
        }
        let parts = "parts between slashes are neither empty nor . nor .., and have no control characters";
        // `Path` would take a slash at the beginning.
        if path.starts_with('/') || path.chars().any(char::is_control) {
            return Err(wrong(parts));
        }
        let path = Path::parse(path).map_err(|_| wrong(parts))?;
        Ok(Self { bucket: bucket.into(), path })
    }

    /// What is below it. The text may have several parts, but leads nowhere else.
    pub(super) fn below(&self, text: &str) -> Result<Self, Failure> {
        let full = if self.path.is_root() { text.to_string() } else { format!("{}/{text}", self.path) };
        let wrong = |_| Failure::failed(format!("'{text}' cannot be part of a key in {self}"));
        Ok(Self { bucket: self.bucket.clone(), path: Path::parse(full).map_err(wrong)? })
    }

    /// What it is part of, and the last part of it; none for a bucket.
    pub(super) fn split(&self) -> Option<(Self, &str)> {
        let whole = self.path.as_ref();
        let (above, last) = whole.rsplit_once('/').unwrap_or(("", whole));
        let path = Path::parse(above).expect("the beginning of a path is one");
        (!last.is_empty()).then(|| (Self { bucket: self.bucket.clone(), path }, last))
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}", self.bucket)?;
        if self.path.is_root() { Ok(()) } else { write!(f, "/{}", self.path) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_as_they_are_written() {
        for (text, bucket, path, shown) in [
            ("s3://models", "models", "", "s3://models"),
            ("s3://models/", "models", "", "s3://models"),
            ("s3://my.models-2/a/b/", "my.models-2", "a/b", "s3://my.models-2/a/b"),
            ("s3://models/über uns/50%", "models", "über uns/50%", "s3://models/über uns/50%"),
            ("s3://models/a?b#c=d@e", "models", "a?b#c=d@e", "s3://models/a?b#c=d@e"),
        ] {
            let url = Url::parse(text).unwrap();
            let found = (url.bucket.as_str(), url.path.as_ref(), url.to_string());
            assert_eq!(found, (bucket, path, shown.to_string()), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_reason() {
        let long = format!("s3://models/{}", "a".repeat(701));
        for (text, why) in [
            ("models", "write s3://BUCKET/PREFIX"),
            ("S3://models", "write s3://BUCKET/PREFIX"),
            ("file:///tmp", "write s3://BUCKET/PREFIX"),
            ("http://127.0.0.1:9000/models", "write s3://BUCKET/PREFIX"),
            ("s3://", "3 to 63 letters"),
            ("s3://m", "3 to 63 letters"),
            ("s3:///models", "3 to 63 letters"),
            ("s3://mo dels/a", "3 to 63 letters"),
            ("s3://../models", "3 to 63 letters"),
            ("s3://models?x=1", "3 to 63 letters"),
            ("s3://models/a/../b", "neither empty"),
            ("s3://models/./b", "neither empty"),
            ("s3://models//b", "neither empty"),
            ("s3://models/b//", "neither empty"),
            ("s3://models/a\nb", "control characters"),
            ("s3://models/a\u{85}b", "control characters"),
            (&long, "700 bytes"),
        ] {
            let failure = Url::parse(text).unwrap_err();
            assert!(failure.what().contains(why), "{text}: {}", failure.what());
        }
    }

    #[test]
    fn passwords_are_not_repeated() {
        for text in ["s3://key:hunter2@models/a", "https://key:hunter2@127.0.0.1/models"] {
            let failure = format!("{:?}", Url::parse(text).unwrap_err());
            assert!(!failure.contains("hunter2") && failure.contains("AWS_SECRET_ACCESS_KEY"), "{failure}");
        }
    }

    #[test]
    fn what_is_below_stays_below() {
        let url = Url::parse("s3://models/prefix").unwrap();
        let below = url.below("birds, 2026 #1/model.dml").unwrap();
        assert_eq!(below.to_string(), "s3://models/prefix/birds, 2026 #1/model.dml");
        let (above, last) = below.split().unwrap();
        assert_eq!((above.to_string().as_str(), last), ("s3://models/prefix/birds, 2026 #1", "model.dml"));
        for text in ["../other", "a//b", "a/../../b", ".", "a\u{0}b"] {
            assert!(url.below(text).is_err(), "{text:?}");
        }
        let bucket = Url::parse("s3://models").unwrap();
        assert!(bucket.split().is_none());
        assert_eq!(bucket.below("a").unwrap().to_string(), "s3://models/a");
        assert_eq!(bucket.below("a").unwrap().split(), Some((bucket, "a")));
    }
}
