//! What the options of a db node and of a worker have in common.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;
use tracing_subscriber::filter::LevelFilter;

use crate::listen::advertised;

/// Options of every node.
#[derive(Debug, Args)]
pub struct Common {
    /// Where others reach this node, if not where it listens
    #[arg(long, value_name = "ADDR", env = "DML_ADVERTISE", hide_env_values = true, value_parser = advertised)]
    pub advertise: Option<SocketAddr>,
    /// Allow --listen to be reachable from other machines, although there is no authentication yet
    #[arg(long, env = "DML_INSECURE", hide_env_values = true)]
    pub insecure: bool,
    /// What to log: off, error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", env = "DML_LOG", hide_env_values = true, default_value = "info")]
    pub log: LevelFilter,
    /// A TOML file with settings, named like these options
    #[arg(long, value_name = "FILE", env = "DML_CONFIG", hide_env_values = true)]
    pub config: Option<PathBuf>,
}
