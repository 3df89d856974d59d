//! What the options of a db node and of a worker have in common.

use std::path::PathBuf;

use clap::Args;
use tracing_subscriber::filter::LevelFilter;

use dml_net::serve::Origin;

use crate::{advertise::Advertise, log::Format};

/// Options of every node.
#[derive(Debug, Args)]
pub struct Common {
    /// Where others reach this node, if not where it listens: an address, or the network in which it has one
    #[arg(long, value_name = "ADDR-or-NETWORK", env = "DML_ADVERTISE", hide_env_values = true)]
    pub advertise: Option<Advertise>,
    /// Who this node is: the cluster's key, as `dml cluster init` writes it, or a certificate with its key; it speaks TLS then
    #[arg(long, value_name = "FILE", env = "DML_IDENTITY", hide_env_values = true)]
    pub identity: Option<PathBuf>,
    /// Allow --listen to be reachable from other machines without --identity
    #[arg(long, env = "DML_INSECURE", hide_env_values = true)]
    pub insecure: bool,
    /// The name of the cluster, without --identity; nodes leave those of a cluster of another name alone
    #[arg(
        long,
        value_name = "NAME",
        env = "DML_CLUSTER_NAME",
        hide_env_values = true,
        default_value = "dml"
    )]
    pub cluster_name: String,
    /// Whose web pages may use this server.
    #[command(flatten)]
    pub origins: Origins,
    /// What to log: off, error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", env = "DML_LOG", hide_env_values = true, default_value = "info")]
    pub log: LevelFilter,
    /// How to log: for people or for programs
    #[arg(
        long,
        value_name = "FORMAT",
        env = "DML_LOG_FORMAT",
        hide_env_values = true,
        value_enum,
        default_value = "text"
    )]
    pub log_format: Format,
    /// Ask the node that listens at --listen whether it is alive, say so by the exit code, and do nothing else
    #[arg(long)]
    pub check: bool,
    /// A TOML file with settings, named like these options
    #[arg(long, value_name = "FILE", env = "DML_CONFIG", hide_env_values = true)]
    pub config: Option<PathBuf>,
}

/// Whose web pages may use a server.
#[derive(Debug, Args)]
pub struct Origins {
    /// A web server whose pages may use this one, as https://HOST or http://HOST:PORT; may be repeated
    #[arg(
        long,
        value_name = "ORIGIN",
        env = "DML_ALLOW_ORIGIN",
        hide_env_values = true,
        value_delimiter = ','
    )]
    pub allow_origin: Vec<Origin>,
}
