//! A file with settings: TOML whose keys are the long options, `listen = "127.0.0.1:7300"`. They become defaults, so
//! that an option on the command line wins, then the environment, then the file.

use std::{ffi::OsString, path::PathBuf};

use clap::{ArgAction, Command, CommandFactory, FromArgMatches, builder::OsStr, error::ErrorKind};
use toml::{Table, Value};

/// Parses the command line, with the environment and the file that `--config` names. Ends the process with code 2, as
/// clap does, if there is a mistake.
pub fn parse<P: CommandFactory + FromArgMatches>() -> P {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let environment = std::env::var_os("DML_CONFIG").filter(|file| !file.is_empty());
    match parse_from(&arguments, environment) {
        Ok(program) => program,
        Err(error) => error.exit(),
    }
}

fn parse_from<P: CommandFactory + FromArgMatches>(
    arguments: &[OsString],
    environment: Option<OsString>,
) -> Result<P, clap::Error> {
    let mut command = P::command();
    if let Some(file) = named(arguments).or(environment) {
        let file = PathBuf::from(file);
        let fail = |command: &mut Command, why: String| {
            let message = format!("the settings in {} cannot be used: {why}", file.display());
            command.error(ErrorKind::InvalidValue, message)
        };
        let table = std::fs::read_to_string(&file).map_err(|error| error.to_string());
        let table = table.and_then(|text| text.parse::<Table>().map_err(|error| error.to_string()));
        let table = table.map_err(|why| fail(&mut command, why))?;
        command = with_defaults(command, &table).map_err(|why| fail(&mut P::command(), why))?;
    }
    let mut matches = command.try_get_matches_from_mut(arguments)?;
    P::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
}

/// The file after `--config`.
fn named(arguments: &[OsString]) -> Option<OsString> {
    let mut arguments = arguments.iter().skip(1).take_while(|argument| *argument != "--");
    while let Some(argument) = arguments.next() {
        if argument == "--config" {
            return arguments.next().cloned();
        }
        if let Some(file) = argument.to_str().and_then(|argument| argument.strip_prefix("--config=")) {
            return Some(file.into());
        }
    }
    None
}

/// The command with the settings as defaults of the options of those names, of all subcommands that have them.
fn with_defaults(mut command: Command, table: &Table) -> Result<Command, String> {
    for (key, value) in table {
        if key == "config" || !has(&command, key) {
            return Err(format!("there is no option '{key}'"));
        }
        let values = match value {
            Value::Array(values) => {
                values.iter().map(|value| text(key, value)).collect::<Result<Vec<_>, _>>()?
            }
            Value::String(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Boolean(_)
            | Value::Datetime(_)
            | Value::Table(_) => vec![text(key, value)?],
        };
        command = apply(command, key, &values)?;
    }
    Ok(command)
}

fn text(key: &str, value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Float(number) => Ok(number.to_string()),
        Value::Boolean(switch) => Ok(switch.to_string()),
        Value::Datetime(_) | Value::Array(_) | Value::Table(_) => {
            Err(format!("'{key}' has to be a text, a number, true or false, or a list of these"))
        }
    }
}

fn has(command: &Command, key: &str) -> bool {
    command.get_arguments().any(|argument| argument.get_long() == Some(key))
        || command.get_subcommands().any(|command| has(command, key))
}

fn apply(mut command: Command, key: &str, values: &[String]) -> Result<Command, String> {
    let found = command.get_arguments().find(|argument| argument.get_long() == Some(key));
    if let Some((id, action)) =
        found.map(|argument| (argument.get_id().clone(), argument.get_action().clone()))
    {
        if values.len() != 1 && !matches!(action, ArgAction::Append) {
            return Err(format!("'{key}' has one value"));
        }
        let defaults: Vec<OsStr> = values.iter().map(OsStr::from).collect();
        command = command.mut_arg(id, |argument| argument.required(false).default_values(defaults));
    }
    let names: Vec<String> = command.get_subcommands().map(|command| command.get_name().into()).collect();
    for name in names {
        let mut failure = None;
        command = command.mut_subcommand(name, |inner| match apply(inner.clone(), key, values) {
            Ok(applied) => applied,
            Err(error) => {
                failure = Some(error);
                inner
            }
        });
        if let Some(failure) = failure {
            return Err(failure);
        }
    }
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args, Parser, Subcommand};

    #[derive(Debug, Parser)]
    struct Program {
        #[arg(long)]
        config: Option<PathBuf>,
        #[arg(long, global = true, default_value = "./.dml")]
        data: PathBuf,
        #[arg(long, global = true)]
        json: bool,
        #[command(subcommand)]
        command: Task,
    }

    #[derive(Debug, Subcommand)]
    enum Task {
        Up(Up),
    }

    #[derive(Debug, Args)]
    struct Up {
        #[arg(long)]
        workers: usize,
        #[arg(long)]
        join: Vec<String>,
    }

    fn parsed(file: &str, arguments: &[&str]) -> Result<Program, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("dml.toml");
        std::fs::write(&path, file).unwrap();
        let config = format!("--config={}", path.display());
        let arguments = ["dml", &config].into_iter().chain(arguments.iter().copied()).map(OsString::from);
        parse_from(&arguments.collect::<Vec<_>>(), None).map_err(|error| error.to_string())
    }

    #[test]
    fn the_file_gives_defaults_and_the_command_line_wins() {
        let file = "data = 'elsewhere'\njson = true\nworkers = 3\njoin = ['a', 'b']";
        let program = parsed(file, &["up"]).unwrap();
        let Task::Up(up) = program.command;
        assert_eq!((program.data, program.json), (PathBuf::from("elsewhere"), true));
        assert_eq!((up.workers, up.join), (3, vec!["a".to_string(), "b".into()]));
        let Task::Up(up) = parsed(file, &["up", "--workers", "5", "--join", "c"]).unwrap().command;
        assert_eq!((up.workers, up.join), (5, vec!["c".to_string()]));
        let program = parsed(file, &["--data", "here", "up"]).unwrap();
        assert_eq!(program.data, PathBuf::from("here"));
        let program = parsed(file, &["up", "--data", "here"]).unwrap();
        assert_eq!(program.data, PathBuf::from("here"));
    }

    #[test]
    fn mistakes_in_the_file_are_told() {
        for (file, word) in [
            ("wrokers = 3", "wrokers"),
            ("workers = [1, 2]", "one value"),
            ("workers = 'many'", "many"),
            ("workers = { a = 1 }", "list of these"),
            ("workers", "cannot be used"),
        ] {
            let error = parsed(file, &["up"]).unwrap_err();
            assert!(error.contains(word), "{file}: {error}");
        }
    }
}
