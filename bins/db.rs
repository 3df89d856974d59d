//! One db node: stores data and shares out work.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program talks to its user")]

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::Parser;
use program::{listen, log, settings};
use tracing_subscriber::filter::LevelFilter;

/// A db node of a DML cluster: keeps datasets, models and trainings, and shares out work to workers.
#[derive(Debug, Parser)]
#[command(name = "db", version, after_help = EXAMPLES)]
struct Options {
    /// Where to listen
    #[arg(
        long,
        value_name = "ADDR",
        env = "DML_LISTEN",
        hide_env_values = true,
        default_value = "127.0.0.1:7301"
    )]
    listen: SocketAddr,
    /// Where others reach this node, if not where it listens
    #[arg(long, value_name = "ADDR", env = "DML_ADVERTISE", hide_env_values = true)]
    advertise: Option<SocketAddr>,
    /// The data directory; made if it is not there
    #[arg(long, value_name = "DIR", env = "DML_DATA", hide_env_values = true, default_value = "./.dml-db")]
    data: PathBuf,
    /// Allow --listen to be reachable from other machines, although there is no authentication yet
    #[arg(long, env = "DML_INSECURE", hide_env_values = true)]
    insecure: bool,
    /// What to log: off, error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", env = "DML_LOG", hide_env_values = true, default_value = "info")]
    log: LevelFilter,
    /// A TOML file with settings, named like these options
    #[arg(long, value_name = "FILE", env = "DML_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
}

const EXAMPLES: &str = "Examples:
  db                                      the only db node of a cluster on this machine
  worker                                  a worker that finds it
  dml --cluster http://127.0.0.1:7300 cluster";

#[tokio::main]
async fn main() -> ExitCode {
    let options: Options = settings::parse();
    log::start(options.log);
    match run(options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> Result<(), Box<dyn std::error::Error>> {
    let listener = listen::listen(options.listen, options.insecure).await?;
    let address = listener.local_addr()?;
    let db = dml_net::Db::open(&options.data)?;
    println!("db node {} listens on http://{}", db.id(), options.advertise.unwrap_or(address));
    let failed = db.clone();
    tokio::select! {
        () = dml_net::serve::serve(listener, db.router(), listen::end()) => Ok(()),
        error = failed.failed() => Err(error.to_string().into()),
    }
}
