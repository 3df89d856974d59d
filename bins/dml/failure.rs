//! What went wrong, as the user is told: `error: …`, how to mend it, and an exit code that scripts can rely on.

use std::{io, process::ExitCode};

use dml_net::{
    ClientError, Problem,
    client::ClientError as E,
    identity::{IdentityError, JoinError},
    peer::PeerError,
};
use program::identity::NoIdentity;

/// It failed.
const FAILED: u8 = 1;
/// Wrong usage.
const USAGE: u8 = 2;
/// No such thing.
const NOT_FOUND: u8 = 3;
/// The input is at fault.
const INPUT: u8 = 4;
/// No cluster answers, or no object store.
const NO_CLUSTER: u8 = 5;
/// Ended by ctrl-c: what shells show for a program that SIGINT ended.
const INTERRUPTED: u8 = 130;

/// Why a command did not do what it was to do.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    what: String,
    hint: Option<String>,
    problem: Option<Box<Problem>>,
}

impl Failure {
    fn new(code: u8, what: impl Into<String>) -> Self {
        Self { code, what: what.into(), hint: None, problem: None }
    }

    /// It failed.
    pub(crate) fn failed(what: impl Into<String>) -> Self {
        Self::new(FAILED, what)
    }

    /// The command line is wrong in a way that clap does not see.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self::new(USAGE, what)
    }

    /// There is no such thing.
    pub(crate) fn not_found(what: impl Into<String>) -> Self {
        Self::new(NOT_FOUND, what)
    }

    /// The input is at fault.
    pub(crate) fn input(what: impl Into<String>) -> Self {
        Self::new(INPUT, what)
    }

    /// What the command needs on the network does not answer.
    pub(crate) fn no_answer(what: impl Into<String>) -> Self {
        Self::new(NO_CLUSTER, what)
    }

    /// The user pressed ctrl-c.
    pub(crate) fn interrupted(what: impl Into<String>) -> Self {
        Self::new(INTERRUPTED, what)
    }

    /// The reader of our output is gone: nothing is left to be said.
    fn unread() -> Self {
        Self::new(0, "")
    }

    /// The same, with what to do about it.
    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Whether it is that there is no such thing.
    pub(crate) fn is_not_found(&self) -> bool {
        self.code == NOT_FOUND
    }

    /// A file could not be read or written.
    pub(crate) fn file(path: &std::path::Path, error: &io::Error) -> Self {
        let code = if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { FAILED };
        Self::new(code, format!("{}: {error}", path.display()))
    }

    /// What went wrong, in words.
    pub(crate) fn what(&self) -> &str {
        &self.what
    }

    /// Tells the user, on stderr, and gives the code to end with.
    pub(crate) fn report(&self, json: bool) -> ExitCode {
        if !self.what.is_empty() {
            if json {
                eprintln!("{}", self.json());
            } else {
                let label = if self.code == INTERRUPTED { "" } else { "error: " };
                eprintln!("{label}{}", self.what);
                if let Some(hint) = &self.hint {
                    eprintln!("  {hint}");
                }
            }
        }
        ExitCode::from(self.code)
    }

    fn json(&self) -> serde_json::Value {
        match &self.problem {
            Some(problem) => serde_json::json!(problem),
            None => serde_json::json!({ "detail": self.what, "hint": self.hint, "exit_code": self.code }),
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let what = error.to_string();
        match error {
            E::Problem(problem) => Self::from(problem),
            E::NoAnswer(PeerError::Address(_) | PeerError::Untrusted(_) | PeerError::Open(_)) => {
                Self::usage(what)
            }
            E::NoAnswer(_) => Self::new(NO_CLUSTER, what)
                .hint("start one with `dml up`, or leave --cluster out to work in this process"),
            E::Garbled(_) | _ => Self::failed(what),
        }
    }
}

impl From<NoIdentity> for Failure {
    fn from(error: NoIdentity) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<IdentityError> for Failure {
    fn from(error: IdentityError) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<JoinError> for Failure {
    fn from(error: JoinError) -> Self {
        let what = error.to_string();
        match error {
            JoinError::Refused(problem) => Self::from(problem),
            JoinError::Address(_) => Self::usage(what),
            JoinError::Peer(_) => {
                Self::new(NO_CLUSTER, what).hint("say where a db node of that cluster is, with --at")
            }
            JoinError::Identity(error) => Self::from(error),
            JoinError::Garbled | _ => Self::failed(what),
        }
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let code = match problem.status {
            404 => NOT_FOUND,
            400 | 413 | 415 | 422 => INPUT,
            503 => NO_CLUSTER,
            _ => FAILED,
        };
        let what = if problem.detail.is_empty() { problem.title.clone() } else { problem.detail.clone() };
        Self { code, hint: place(&problem), what, problem: Some(Box::new(problem)) }
    }
}

/// Where in a table the problem is, if its words do not say so.
fn place(problem: &Problem) -> Option<String> {
    let row = problem.row.filter(|row| !problem.detail.contains(&row.to_string()));
    let column = problem.column.as_ref().filter(|column| !problem.detail.contains(column.as_str()));
    let parts = [row.map(|row| format!("row {row}")), column.map(|column| format!("column '{column}'"))];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| format!("at {}", parts.join(", ")))
}

/// Output could not be written.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::unread();
        }
        Self::failed(format!("the output cannot be written: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_status(status: u16) -> u8 {
        let problem = Problem { status, ..Problem::not_found("x") };
        Failure::from(ClientError::from(problem)).code
    }

    #[test]
    fn exit_codes_are_those_of_the_manual() {
        let codes = [400, 404, 409, 413, 415, 422, 429, 500, 503].map(of_status);
        assert_eq!(codes, [4, 3, 1, 4, 4, 4, 1, 1, 5]);
        let silent = PeerError::Silent { address: "a:1".into(), why: "refused".into() };
        assert_eq!(Failure::from(ClientError::from(silent)).code, 5);
        assert_eq!(Failure::from(ClientError::from(PeerError::Address("x y".into()))).code, 2);
        assert_eq!(Failure::from(ClientError::Garbled("x".into())).code, 1);
        assert_eq!(Failure::from(io::Error::from(io::ErrorKind::BrokenPipe)).code, 0);
    }

    #[test]
    fn the_place_is_told_once() {
        let told = Problem::bad_request("x", "row 3 has no 'age'").at(Some(3), Some("age"));
        assert_eq!(place(&told), None);
        let untold = Problem::bad_request("x", "not a number").at(Some(3), Some("age"));
        assert_eq!(place(&untold).as_deref(), Some("at row 3, column 'age'"));
    }
}
