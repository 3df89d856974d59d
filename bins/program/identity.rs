//! Who a program is, by the file that says so.

use std::{net::SocketAddr, path::Path};

use dml_net::{
    handshake::ClusterId,
    identity::{Credentials, Identity, IdentityError, Party, Trust},
    peer::{self, Dial},
    view::Role,
};

/// Why a program is nobody.
#[derive(Debug)]
pub enum NoIdentity {
    /// The file cannot be read.
    Unreadable(std::io::Error),
    /// It does not hold an identity.
    Unusable(IdentityError),
    /// It holds that of somebody else.
    Other {
        /// Whose it is.
        is: Party,
        /// Who needs one.
        wanted: Party,
    },
}

impl std::error::Error for NoIdentity {}

impl std::fmt::Display for NoIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the file of --identity cannot be used: ")?;
        match self {
            Self::Unreadable(error) => error.fmt(f),
            Self::Unusable(error) => error.fmt(f),
            Self::Other { is, wanted } => {
                let wanted = wanted.name();
                write!(
                    f,
                    "it is that of {is}, and this is {wanted}; give the cluster's key, which `dml cluster init` writes \
                     to cluster.pem, or a certificate of its own, which `dml cluster join` gets; a db node with a \
                     certificate begins with an empty data directory"
                )
            }
        }
    }
}

impl From<IdentityError> for NoIdentity {
    fn from(error: IdentityError) -> Self {
        Self::Unusable(error)
    }
}

/// What a file holds.
pub fn read(file: &Path) -> Result<Credentials, NoIdentity> {
    Ok(Credentials::from_pem(&std::fs::read(file).map_err(NoIdentity::Unreadable)?)?)
}

/// This node's own identity: with the cluster's key it certifies itself, anew at each start; else it has to have a
/// certificate as such a node already.
pub fn of_node(credentials: &Credentials, party: Party, address: SocketAddr) -> Result<Identity, NoIdentity> {
    match credentials {
        Credentials::Key(key) => Ok(key.certify(party, &[address.ip()])?),
        Credentials::Own(own) => match (own.party(), party) {
            (Party::Worker(_), Party::Worker(_)) => Ok(own.clone()),
            (theirs, ours) if theirs == ours => Ok(own.clone()),
            (theirs, _) => Err(NoIdentity::Other { is: theirs, wanted: party }),
        },
    }
}

/// How a node reaches db nodes: as who it is, or, if it is nobody, in the name of a cluster. Each call of what is given
/// makes a dial with connections of its own.
pub fn dials(
    identity: Option<&Identity>,
    cluster_name: &str,
) -> Result<Box<dyn Fn() -> Dial + Send + Sync>, NoIdentity> {
    let Some(identity) = identity else {
        let cluster = ClusterId::named(cluster_name);
        return Ok(Box::new(move || peer::http().of(cluster)));
    };
    let (trust, cluster) = (Trust::identified(identity)?, identity.cluster());
    Ok(Box::new(move || peer::https(&trust, Role::Db).of(cluster)))
}
