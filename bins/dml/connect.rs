//! Where the cluster is: somewhere on the network, or in this process.

use std::path::{Path, PathBuf};

use dml_net::{
    Client, Cluster, cluster,
    handshake::ClusterId,
    identity::{Credentials, NotASecret, Secret, Trust},
};
use program::identity;

use crate::{console::Console, failure::Failure};

/// Where the user wants to work.
pub(crate) struct Place {
    /// The workers of a running cluster.
    pub(crate) cluster: Option<String>,
    /// The certificate of that cluster.
    pub(crate) ca: Option<PathBuf>,
    /// Who the user is, or the cluster that is served.
    pub(crate) identity: Option<PathBuf>,
    /// The token by which the cluster knows the user.
    pub(crate) token: Option<Result<Secret, NotASecret>>,
    /// The data of the cluster in this process.
    pub(crate) data: PathBuf,
}

/// A client, and the cluster in this process if there is one.
pub(crate) struct Session<'a> {
    /// What commands talk to.
    pub(crate) client: Client,
    /// Where output goes.
    pub(crate) console: &'a Console,
    /// Where this is.
    pub(crate) place: &'a Place,
    embedded: Option<Cluster>,
}

impl Place {
    /// Whether the cluster is in this process.
    pub(crate) fn is_embedded(&self) -> bool {
        self.cluster.is_none()
    }

    /// A session with the cluster. One in this process keeps its data on disk; but a command that stores nothing makes
    /// no directory either.
    pub(crate) fn connect<'a>(&'a self, console: &'a Console, writes: bool) -> Result<Session<'a>, Failure> {
        if let Some(addresses) = &self.cluster {
            if addresses.split(',').all(|address| address.trim().is_empty()) {
                return Err(Failure::usage("--cluster names no address: write http://HOST:PORT"));
            }
            return Ok(Session { client: self.client(addresses)?, console, place: self, embedded: None });
        }
        let data = (writes || self.data.exists()).then(|| self.data.clone());
        let cluster = start(cluster::Options { data, ..Default::default() })?;
        Ok(Session { client: cluster.client(), console, place: self, embedded: Some(cluster) })
    }

    /// Which cluster it is, by what the user shows or trusts.
    pub(crate) fn cluster_id(&self) -> Result<ClusterId, Failure> {
        match (&self.identity, &self.ca) {
            (Some(file), _) => match identity::read(file)? {
                Credentials::Own(own) => Ok(own.cluster()),
                Credentials::Key(key) => Ok(key.cluster()),
            },
            (None, Some(file)) => {
                let pem = std::fs::read(file).map_err(|error| Failure::file(file, &error))?;
                Ok(ClusterId::of_pem(&pem)?)
            }
            (None, None) => {
                let why = "only nodes with certificates join with a token: this cluster answers everybody";
                Err(Failure::usage(why)
                    .hint("see `dml cluster init`, and say who you are with --identity FILE"))
            }
        }
    }

    fn client(&self, addresses: &str) -> Result<Client, Failure> {
        let token = self.token.clone().transpose().map_err(|error| Failure::usage(error.to_string()))?;
        let trust = match (&self.identity, &self.ca) {
            (Some(file), _) => match identity::read(file)? {
                Credentials::Own(own) => Trust::identified(&own)?,
                Credentials::Key(_) => {
                    let why = format!("{} is the key of a cluster, and nodes alone need it", file.display());
                    return Err(
                        Failure::usage(why).hint("show the certificate of an administrator: admin.pem")
                    );
                }
            },
            (None, Some(file)) => {
                Trust::cluster(&std::fs::read(file).map_err(|error| Failure::file(file, &error))?)?
            }
            (None, None) if token.is_some() => {
                let why =
                    "a token is shown over TLS alone: say which cluster is trusted with it, with --ca FILE";
                return Err(Failure::usage(why));
            }
            (None, None) => return Ok(Client::http(addresses)?),
        };
        Ok(Client::https(addresses, &trust, token.as_ref())?)
    }

    /// The beginning of a command that works in the same place, as it can be typed.
    pub(crate) fn dml(&self) -> String {
        let program = std::env::args_os().next().map(PathBuf::from).unwrap_or_else(|| "dml".into());
        let here = std::env::current_dir().ok();
        let program =
            here.and_then(|here| program.strip_prefix(here).map(Path::to_path_buf).ok()).unwrap_or(program);
        let mut command = quote(&program.to_string_lossy());
        if let Some(addresses) = &self.cluster {
            command.push_str(&format!(" --cluster {}", quote(addresses)));
            for (option, file) in [("--ca", &self.ca), ("--identity", &self.identity)] {
                if let Some(file) = file {
                    command.push_str(&format!(" {option} {}", quote(&file.to_string_lossy())));
                }
            }
        } else if self.data != Path::new("./.dml") {
            command.push_str(&format!(" --data {}", quote(&self.data.to_string_lossy())));
        }
        command
    }
}

impl Session<'_> {
    /// Ends the cluster in this process; what it was at goes on next time.
    pub(crate) async fn close(self) {
        if let Some(cluster) = self.embedded {
            cluster.stop().await;
        }
    }
}

/// Starts a cluster in this process.
pub(crate) fn start(options: cluster::Options) -> Result<Cluster, Failure> {
    Cluster::start(options).map_err(|error| Failure::failed(error.to_string()))
}

/// A text as one word of a shell.
pub(crate) fn quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.into();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_with_spaces_and_quotes_stay_one_word() {
        assert_eq!(quote("penguins-species/ridge"), "penguins-species/ridge");
        assert_eq!(quote("my table"), "'my table'");
        assert_eq!(quote("it's"), r"'it'\''s'");
        assert_eq!(quote(""), "''");
    }
}
