//! The secret of a token: what its holder shows.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio_rustls::rustls::crypto::GetRandomFailed;

use super::provider;

/// The secret of a token: `dml_` and 64 hexadecimal digits of randomness. It is written where it is meant to be seen, and
/// never in logs or errors.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Secret(String);

/// By this secrets are known, also to programs that look for what was published by mistake.
const PREFIX: &str = "dml_";

/// How many digits follow.
const DIGITS: usize = 64;

impl Secret {
    /// A new one.
    pub(crate) fn random() -> Result<Self, GetRandomFailed> {
        let mut bytes = [0; DIGITS / 2];
        provider().secure_random.fill(&mut bytes)?;
        Ok(Self(bytes.iter().fold(PREFIX.into(), |text, byte| text + &format!("{byte:02x}"))))
    }

    /// The secret itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The text is no secret of a token; what it is stays untold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a token is {PREFIX} and {DIGITS} hexadecimal digits, as `dml token add` prints it")]
pub struct NotASecret;

impl FromStr for Secret {
    type Err = NotASecret;

    fn from_str(text: &str) -> Result<Self, NotASecret> {
        let digits = text.strip_prefix(PREFIX).filter(|digits| digits.len() == DIGITS).ok_or(NotASecret)?;
        let plain = digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        if plain { Ok(Self(text.into())) } else { Err(NotASecret) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_differ_and_are_not_shown_by_accident() {
        let [a, b] = [(); 2].map(|()| Secret::random().expect("the system has randomness"));
        assert_ne!(a, b);
        assert_eq!(a.reveal().parse(), Ok(a.clone()));
        assert!(!format!("{a:?}").contains(&a.reveal()[PREFIX.len()..]));
        let long = format!("{}0", a.reveal());
        for bad in ["", "dml_", "dml_0123", &long, &a.reveal().to_uppercase(), &a.reveal()[1..]] {
            assert_eq!(bad.parse::<Secret>(), Err(NotASecret), "{bad}");
        }
    }
}
