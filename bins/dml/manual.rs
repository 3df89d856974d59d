//! `dml man`: the help of every command as manual pages.

use std::{fs, path::Path};

use clap::{Command, CommandFactory};

use crate::{args::Args, console::Console, failure::Failure};

/// Writes `dml.1`, `dml-train.1`, `dml-model-show.1` and so on.
pub(crate) fn write(console: &Console, directory: &Path) -> Result<(), Failure> {
    fs::create_dir_all(directory).map_err(|error| Failure::file(directory, &error))?;
    let mut files = Vec::new();
    // The words that the command line itself has for each command, such as its usage, are there once it is built.
    let mut command = Args::command();
    command.build();
    pages(command, directory, &mut files)?;
    console.show(&serde_json::json!({ "files": files }), || files.join("\n"))
}

fn pages(command: Command, directory: &Path, files: &mut Vec<String>) -> Result<(), Failure> {
    for command in command.get_subcommands().filter(|command| !command.is_hide_set()) {
        pages(command.clone(), directory, files)?;
    }
    let page = clap_mangen::Man::new(command);
    let path = directory.join(page.get_filename());
    let mut text = Vec::new();
    page.render(&mut text)?;
    fs::write(&path, text).map_err(|error| Failure::file(&path, &error))?;
    files.push(path.display().to_string());
    Ok(())
}
