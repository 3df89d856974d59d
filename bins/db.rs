//! One db node: stores data and shares out work.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program talks to its user")]

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc};

use clap::Parser;
use dml_net::{
    Db,
    db::{self, KEEP_FREE},
    discover::Place,
    identity::{Credentials, Identity, Party},
    serve::Server,
    view::Role,
};
use dml_store::DiskStore;
use program::{check, identity, listen, log, node, settings};

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
    /// Where other db nodes are: an address, or a DNS name that stands for all of them; may be repeated
    #[arg(
        long,
        value_name = "ADDR-or-NAME",
        env = "DML_JOIN",
        hide_env_values = true,
        value_delimiter = ','
    )]
    join: Vec<Place>,
    /// How many nodes keep each thing; all but one of them may fail
    #[arg(long, value_name = "N", env = "DML_REPLICATION", hide_env_values = true, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=16))]
    replication: u32,
    /// The data directory; made if it is not there
    #[arg(long, value_name = "DIR", env = "DML_DATA", hide_env_values = true, default_value = "./.dml-db")]
    data: PathBuf,
    /// With less room than this on its disk the node takes no uploads any more
    #[arg(long, value_name = "MIB", env = "DML_KEEP_FREE", hide_env_values = true, default_value_t = KEEP_FREE >> 20, value_parser = clap::value_parser!(u64).range(..=1 << 40))]
    keep_free: u64,
    #[command(flatten)]
    node: node::Common,
}

const EXAMPLES: &str = "Examples:
  db                                      the first or only db node of a cluster, for this machine alone
  db --listen 127.0.0.1:7302 --data ./db2 --join 127.0.0.1:7301
                                          another one that copies what the first has
  db --listen 0.0.0.0:7301 --join tasks.db --insecure
                                          one of all that answer to a DNS name, on a network of your own
  worker                                  a worker that finds it
  dml --cluster http://127.0.0.1:7300 cluster";

#[tokio::main]
async fn main() -> ExitCode {
    let options: Options = settings::parse();
    log::start(options.node.log, options.node.log_format);
    match run(options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> Result<(), Box<dyn std::error::Error>> {
    let node = options.node;
    if node.check {
        return check::check(options.listen, node.identity.as_deref(), Role::Db).await;
    }
    let listener = listen::listen(options.listen, node.identity.is_some(), node.insecure).await?;
    let address = listen::reached_at(node.advertise, listener.local_addr()?, &options.join)?;
    let sources = options.join.iter().map(Place::source).collect();
    let settings = db::Settings { replication: options.replication, ..Default::default() };
    let store = Arc::new(DiskStore::open(&options.data).map_err(db::DbError::from)?);
    let credentials = node.identity.map(|file| identity::read(&file)).transpose()?;
    if let Some(Credentials::Own(own)) = &credentials
        && let Party::Db(id) = own.party()
    {
        db::become_node(&*store, id)?;
    }
    let party = Party::Db(db::node_id(&*store)?);
    let own = |credentials: &Credentials| identity::of_node(credentials, party, address);
    let identity = credentials.as_ref().map(own).transpose()?;
    let key = credentials.and_then(Credentials::into_key).map(Arc::new);
    let dials = identity::dials(identity.as_ref(), &node.cluster_name)?;
    let network = Some(db::Network::new(dials, address, sources));
    let tls = identity.as_ref().map(Identity::accept).transpose()?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let keep_free = options.keep_free << 20;
    let db = Db::start(store, db::Options { settings, network, identity, keep_free, key })?;
    println!("db node {} listens on {scheme}://{address}", db.id());
    let server = Server { origins: node.origins.allow_origin, tls, ..Default::default() };
    let (failed, leaving) = (db.clone(), db.clone());
    let end = async move {
        listen::end().await;
        leaving.leave().await;
    };
    tokio::select! {
        () = server.serve(listener, db.router(), end) => Ok(()),
        error = failed.failed() => Err(error.to_string().into()),
    }
}
