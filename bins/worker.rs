//! One worker: serves users and computes.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program talks to its user")]

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use clap::Parser;
use dml_compute::{Engine, Registry};
use dml_net::{
    Worker, addresses,
    discover::{Discovery, Place},
    identity::{Identity, Party},
    link::Link,
    logs::Logs,
    serve::Server,
    view::Role,
    worker,
};
use program::{check, identity, listen, log, node, settings};

/// A worker of a DML cluster: serves the REST API and computes; it keeps nothing that matters.
#[derive(Debug, Parser)]
#[command(name = "worker", version, after_help = EXAMPLES)]
struct Options {
    /// Where to listen
    #[arg(
        long,
        value_name = "ADDR",
        env = "DML_LISTEN",
        hide_env_values = true,
        default_value = "127.0.0.1:7300"
    )]
    listen: SocketAddr,
    /// Where db nodes are: an address, or a DNS name that stands for all of them; may be repeated
    #[arg(
        long,
        value_name = "ADDR-or-NAME",
        env = "DML_JOIN",
        hide_env_values = true,
        value_delimiter = ',',
        default_value = "127.0.0.1:7301"
    )]
    join: Vec<Place>,
    /// Remember in this file where db nodes answered, for a start while DNS fails [default: no file]
    #[arg(long, value_name = "FILE", env = "DML_CACHE", hide_env_values = true)]
    cache: Option<PathBuf>,
    /// How many pieces of work to compute at a time [default: one a core]
    #[arg(long, value_name = "N", env = "DML_SLOTS", hide_env_values = true, value_parser = clap::value_parser!(u16).range(1..))]
    slots: Option<u16>,
    #[command(flatten)]
    node: node::Common,
}

const EXAMPLES: &str = "Examples:
  worker                                  for the db node on this machine
  worker --listen 127.0.0.1:7310 --slots 2
  worker --join 10.0.0.5:7301 --join 10.0.0.6:7301
  worker --join tasks.db                  every db node behind a DNS name
  worker --join tasks.db --cache db-nodes.json
                                          also if DNS fails at the next start";

/// How long work under way may go on after the end was asked for; what is not finished then goes to others.
const PATIENCE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let options: Options = settings::parse();
    let logs = log::start(options.node.log, options.node.log_format);
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(run(options, logs));
    // What is still being computed has been handed back: nobody waits for it.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options, logs: Arc<Logs>) -> Result<(), Box<dyn std::error::Error>> {
    let node = options.node;
    if node.check {
        return check::check(options.listen, node.identity.as_deref(), Role::Worker).await;
    }
    let listener = listen::listen(options.listen, node.identity.is_some(), node.insecure).await?;
    let address = listen::reached_at(node.advertise, listener.local_addr()?, &options.join)?;
    let credentials = node.identity.map(|file| identity::read(&file)).transpose()?;
    let own = |credentials| identity::of_node(credentials, Party::worker(), address);
    let identity = credentials.as_ref().map(own).transpose()?;
    let dial = identity::dials(identity.as_ref(), &node.cluster_name)?();
    let link = Link::discover(discovery(&options.join, options.cache)?, dial);
    let tls = identity.as_ref().map(Identity::accept).transpose()?;
    let mut settings = worker::Options {
        address: Some(address),
        guarded: tls.is_some(),
        logs: Some(logs),
        ..Default::default()
    };
    if let Some(identity) = &identity {
        settings.name = identity.party().name();
    }
    if let Some(slots) = options.slots {
        settings.slots = slots.into();
    }
    let worker = Worker::new(link, Engine::new(Registry::default()), settings);
    let router = worker.router();
    let scheme = if tls.is_some() { "https" } else { "http" };
    println!("worker listens on {scheme}://{address}");
    let server = Server { origins: node.origins.allow_origin, tls, ..Default::default() };
    let computing = tokio::spawn({
        let worker = worker.clone();
        async move { worker.run().await }
    });
    let end = async {
        listen::end().await;
        worker.stop(PATIENCE).await;
    };
    server.serve(listener, router, end).await;
    computing.abort();
    Ok(())
}

/// Where db nodes are said to be, and where some have been.
fn discovery(join: &[Place], cache: Option<PathBuf>) -> Result<Discovery, String> {
    let sources = join.iter().map(Place::source).collect();
    let Some(file) = cache else { return Ok(Discovery::new(sources)) };
    let saved = addresses::read(&file)
        .map_err(|error| format!("the addresses in {} cannot be read: {error}", file.display()))?;
    let save = move |bytes: &[u8]| addresses::replace(&file, bytes);
    Ok(Discovery::with_cache(sources, saved.as_deref(), Box::new(save)))
}
