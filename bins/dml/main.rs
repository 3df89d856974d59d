//! The console application: uploads tables, trains models, predicts, and takes models away; on a cluster somewhere
//! else, or on one in this very process.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a console application talks to its user")]

mod args;
mod chart;
mod cluster;
mod connect;
mod console;
mod csv;
mod dataset;
mod explain;
mod failure;
mod leaderboard;
mod listing;
mod manual;
mod model;
mod model_spec;
mod offline;
mod predict;
mod progress;
mod s3;
mod snapshot;
mod source;
mod space_spec;
mod study;
mod token;
mod top;
mod train;
mod training;
mod up;
mod welcome;

use std::{process::ExitCode, sync::Arc};

use clap::CommandFactory;
use dml_net::{logs::Logs, view::Role};
use program::{listen, log, settings};
use tracing_subscriber::filter::LevelFilter;

use args::{Args, ClusterCommand, Command, ModelCommand, PredictionCommand, RoleArg};
use connect::Session;
use console::Console;
use failure::Failure;

fn main() -> ExitCode {
    let args: Args = settings::parse();
    let level = match args.verbose {
        0 => LevelFilter::ERROR,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let logs = log::start(level, log::Format::Text);
    let console = Console::new(args.json);
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            return Failure::failed(format!("no threads can be started: {error}")).report(args.json);
        }
    };
    let outcome = runtime.block_on(run(args, &console, logs));
    // A read of the terminal that is under way would hold the process up.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(console.json),
    }
}

async fn run(args: Args, console: &Console, logs: Arc<Logs>) -> Result<(), Failure> {
    let Args { cluster, ca, identity, token, data, command, .. } = args;
    let place = connect::Place { cluster, ca, identity, token, data };
    let Some(command) = command else { return welcome::show(console, &place) };
    match command {
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "dml", &mut script);
            console.bytes(&script)
        }
        Command::Man { directory } => manual::write(console, &directory),
        Command::Cluster { command: Some(ClusterCommand::Init { out }) } => cluster::init(console, &out),
        Command::Cluster { command: Some(ClusterCommand::Certify { role, key, out }) } => {
            cluster::certify(console, role, &key, &out)
        }
        Command::Cluster { command: Some(ClusterCommand::Join { secret, at, address, out }) } => {
            let hidden = || std::env::var("DML_JOIN_TOKEN").unwrap_or_default();
            let token = if secret == "-" { hidden() } else { secret };
            cluster::join(console, &token, &at, &address, &out).await
        }
        // Of a cluster these want nothing.
        Command::Predict(options) if offline::is_file(&options.model) => offline::run(console, &options),
        Command::Model { command: ModelCommand::Pull { from, output } } => {
            s3::pull(console, &from, output).await
        }
        Command::Up(options) => up::run(console, &place, options, logs).await,
        Command::Train(_)
        | Command::Tune(_)
        | Command::Predict(_)
        | Command::Dataset { .. }
        | Command::Training { .. }
        | Command::Study { .. }
        | Command::Model { .. }
        | Command::Prediction { .. }
        | Command::Cluster { .. }
        | Command::Snapshot { .. }
        | Command::Restore { .. }
        | Command::Token { .. }
        | Command::Top(_)
        | Command::Explain { .. } => {
            let session = place.connect(console, command.writes())?;
            let outcome = tokio::select! {
                biased;
                outcome = on_cluster(&session, command) => outcome,
                () = listen::interrupted() => Err(Failure::interrupted("interrupted")),
            };
            session.close().await;
            outcome
        }
    }
}

async fn on_cluster(session: &Session<'_>, command: Command) -> Result<(), Failure> {
    match command {
        Command::Train(options) => train::run(session, options).await,
        Command::Tune(options) => study::tune(session, options).await,
        Command::Predict(options) => predict::run(session, options).await,
        Command::Dataset { command } => dataset::run(session, command).await,
        Command::Training { command } => training::run(session, command).await,
        Command::Study { command } => study::run(session, command).await,
        Command::Model { command } => model::run(session, command).await,
        Command::Prediction { command } => match command {
            PredictionCommand::Ls(page) => predict::list(session, page).await,
            PredictionCommand::Show { prediction } => predict::show(session, &prediction).await,
            PredictionCommand::Results { prediction, output } => {
                predict::results(session, &prediction, output.as_deref()).await
            }
        },
        Command::Cluster { command } => match command {
            Some(ClusterCommand::Token { label, role, expires }) => {
                let role = match role {
                    RoleArg::Db => Role::Db,
                    RoleArg::Worker => Role::Worker,
                };
                cluster::token(session, label, role, expires).await
            }
            Some(ClusterCommand::Revoke { node }) => cluster::revoke(session, &node).await,
            Some(ClusterCommand::Revoked(page)) => cluster::revoked(session, page).await,
            Some(
                ClusterCommand::Init { .. } | ClusterCommand::Certify { .. } | ClusterCommand::Join { .. },
            )
            | None => cluster::show(session).await,
        },
        Command::Snapshot { directory } => snapshot::take(session, &directory).await,
        Command::Restore { directory } => snapshot::restore(session, &directory).await,
        Command::Token { command } => token::run(session, command).await,
        Command::Explain { id } => explain::run(session, &id).await,
        Command::Top(options) => top::run(session, &options).await,
        Command::Up(_) | Command::Completions { .. } | Command::Man { .. } => Ok(()),
    }
}
