//! The commands that say who is trusted: users by tokens, machines and administrators by certificates.

use std::{net::IpAddr, path::PathBuf};

use clap::{Subcommand, ValueEnum};

use super::Page;

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token, and print its secret: it is never shown again
    #[command(after_help = "Examples:
  dml token add dashboard --scope read
  dml token add alice --scope write --expires 30d")]
    Add {
        /// For whom or what it is
        label: String,
        /// What its holder may do
        #[arg(long)]
        scope: ScopeArg,
        /// For how long: 30d, 12h, 90m or 60s [default: until it is removed]
        #[arg(long, value_name = "TIME")]
        expires: Option<String>,
    },
    /// List tokens, newest first
    Ls(Page),
    /// Remove a token: it is of no use any more, within seconds
    Rm {
        /// Its label or id
        #[arg(value_name = "LABEL-or-ID")]
        which: String,
    },
}

/// What the holder of a token may do.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum ScopeArg {
    /// Look at everything, and predict
    Read,
    /// Also create and delete tables, trainings and predictions
    Write,
    /// Also say who may do what
    Admin,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Make a cluster's key and certificate, and a certificate for its administrator
    Init {
        /// The directory for them; made if it is not there
        #[arg(long, value_name = "DIR", default_value = ".")]
        out: PathBuf,
    },
    /// Make a certificate with its key, by the cluster's key: for another administrator, or a machine without that key
    Certify {
        /// Who is to have it
        role: CertifyRole,
        /// The cluster's key
        #[arg(long, value_name = "FILE", default_value = "cluster.pem")]
        key: PathBuf,
        /// The file for it; one that is there is not written over
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Make a token with which one machine can join the cluster, and print it: it is never shown again
    #[command(after_help = "Example:
  dml --cluster https://10.0.0.7:7300 --identity admin.pem cluster token rack-3 --role worker
  dml cluster join TOKEN --at 10.0.0.5:7301 --out node.pem            on that machine
  worker --identity node.pem --listen 0.0.0.0:7300 --join 10.0.0.5:7301")]
    Token {
        /// For which machine it is, for people
        label: String,
        /// What the machine is to be
        #[arg(long)]
        role: RoleArg,
        /// For how long: 30d, 12h, 90m or 60s
        #[arg(long, value_name = "TIME", default_value = "1h")]
        expires: String,
    },
    /// Join a cluster with a token: get a certificate for this machine
    Join {
        /// The token; - to read it from the environment variable DML_JOIN_TOKEN, where other users cannot see it
        #[arg(value_name = "TOKEN")]
        secret: String,
        /// Where a db node is that has the cluster's key
        #[arg(long, value_name = "HOST:PORT")]
        at: String,
        /// An address of this machine, for programs that compare it with the certificate; may be repeated
        #[arg(long, value_name = "ADDRESS")]
        address: Vec<IpAddr>,
        /// The file for the certificate and its key; one that is there is not written over
        #[arg(long, value_name = "FILE", default_value = "node.pem")]
        out: PathBuf,
    },
    /// Trust a certificate no more, for good: that of a db node, a worker or an administrator
    Revoke {
        /// Its holder, as `dml cluster` shows it, or as `dml cluster init` named the administrator
        #[arg(value_name = "NODE")]
        node: String,
    },
    /// List those whose certificates were revoked, newest first
    Revoked(Page),
}

/// Who gets a certificate.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum CertifyRole {
    /// A db node, which is new
    Db,
    /// A worker
    Worker,
    /// Somebody who may do everything that users can
    Admin,
}

/// What a machine is to be.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum RoleArg {
    /// A db node, which is new
    Db,
    /// A worker
    Worker,
}
