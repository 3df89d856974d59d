//! The last lines of a process's log, for whoever looks at a worker from outside. What writes the log keeps them here; they
//! are gone with the process.

use std::{
    collections::VecDeque,
    sync::Mutex,
    time::{SystemTime, UNIX_EPOCH},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How bad it is, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Somebody should look at it.
    Error,
    /// Somebody may want to look at it.
    Warn,
    /// What happens.
    Info,
    /// Every request, and more.
    Debug,
}

impl Level {
    /// All of them, worst first.
    pub const ALL: [Self; 4] = [Self::Error, Self::Warn, Self::Info, Self::Debug];

    /// Its word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Line {
    /// When, as milliseconds since 1970.
    pub time_ms: u64,
    /// How bad it is.
    pub level: Level,
    /// The part of the program.
    pub target: String,
    /// What happened, with its values.
    pub text: String,
}

/// The last lines of each level, so that a crowd of small things does not push out what is bad.
#[derive(Debug, Default)]
pub struct Logs([Mutex<VecDeque<Line>>; 4]);

/// How many lines of a level are kept.
const LINES: usize = 500;

/// How long a line may be, in bytes.
const LENGTH: usize = 2000;

impl Logs {
    /// Keeps a line, and lets the oldest of its level go.
    pub fn keep(&self, level: Level, target: &str, mut text: String) {
        let time_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as u64);
        if text.len() > LENGTH {
            text.truncate(text.floor_char_boundary(LENGTH));
            text.push('…');
        }
        let mut lines = self.0[level as usize].lock().expect("nobody panics while holding it");
        if lines.len() == LINES {
            lines.pop_front();
        }
        lines.push_back(Line { time_ms, level, target: target.into(), text });
    }

    /// The last lines that are at least so bad, newest first.
    pub fn last(&self, level: Level, count: usize) -> Vec<Line> {
        let mut found = Vec::new();
        for lines in &self.0[..=level as usize] {
            let lines = lines.lock().expect("nobody panics while holding it");
            found.extend(lines.iter().rev().take(count).cloned());
        }
        found.sort_by_key(|line| std::cmp::Reverse(line.time_ms));
        found.truncate(count);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_bad_outlasts_what_is_not() {
        let logs = Logs::default();
        logs.keep(Level::Error, "dml_net", "the disk is full".into());
        for n in 0..3 * LINES {
            logs.keep(Level::Info, "dml_net", format!("{n}"));
        }
        assert_eq!(logs.last(Level::Info, 10_000).len(), LINES + 1);
        assert_eq!(logs.last(Level::Warn, 10).len(), 1);
        assert_eq!(logs.last(Level::Info, 2).len(), 2);
        logs.keep(Level::Warn, "dml_net", "é".repeat(LENGTH));
        assert!(logs.last(Level::Warn, 1)[0].text.len() <= LENGTH + 3);
    }
}
