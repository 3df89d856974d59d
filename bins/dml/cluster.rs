//! `dml cluster`: the nodes, and the certificates by which they know each other.

use std::{
    fs::{self, File},
    io::Write,
    net::IpAddr,
    path::Path,
};

use comfy_table::Cell;
use dml_net::{
    identity::{ClusterKey, Identity, JoinToken, NotAJoinToken, Party},
    view::{DiskView, NewToken, Role},
};
use program::identity;
use serde_json::json;

use crate::{
    args::{CertifyRole, Page},
    connect::{Session, quote},
    console::{Console, ago, count, right, size},
    failure::Failure,
    listing,
};

pub(crate) async fn show(session: &Session<'_>) -> Result<(), Failure> {
    let nodes = session.client.nodes().await?;
    // Workers of an embedding program need not tell where they are.
    let nowhere = if session.place.is_embedded() { "in this process" } else { "" };
    session.console.show(&json!({ "items": nodes }), || {
        let headings =
            ["node", "role", "address", "state", "data", "lacking", "disk", "busy", "slots", "heard of"];
        let mut table = session.console.table(&headings);
        for node in &nodes {
            let (role, computes) = match node.role {
                Role::Db => ("db", false),
                Role::Worker => ("worker", true),
            };
            let slots = |n: u32| if computes { n.to_string() } else { String::new() };
            table.add_row(vec![
                Cell::new(&node.id),
                Cell::new(role),
                Cell::new(node.address.as_deref().unwrap_or(nowhere)),
                Cell::new(&node.state),
                right(if computes { String::new() } else { node.data.to_string() }),
                right(node.under_replicated.filter(|n| *n > 0).map(count).unwrap_or_default()),
                right(node.disk.map(disk).unwrap_or_default()),
                right(slots(node.busy)),
                right(slots(node.slots)),
                right(format!("{:.1} s ago", node.age_ms as f64 / 1000.0)),
            ]);
        }
        let lacking = nodes.iter().filter_map(|node| node.under_replicated).sum();
        match lacking {
            0 => table.trim_fmt(),
            1 => format!("{}\n\n1 thing lacks copies", table.trim_fmt()),
            _ => format!("{}\n\n{} things lack copies", table.trim_fmt(), count(lacking)),
        }
    })
}

/// How full a disk is.
fn disk(disk: DiskView) -> String {
    let left = size(disk.free);
    if disk.full { format!("full ({left} left)") } else { format!("{left} left") }
}

/// Makes what a cluster needs to know its own: `ca.pem`, `cluster.pem`, `admin.pem`. What is there is left alone.
pub(crate) fn init(console: &Console, out: &Path) -> Result<(), Failure> {
    let key = ClusterKey::generate()?;
    let admin = key.certify(Party::admin(), &[])?;
    fs::create_dir_all(out).map_err(|error| Failure::file(out, &error))?;
    let files =
        [("cluster.pem", key.to_pem()), ("admin.pem", admin.to_pem()), ("ca.pem", key.certificate_pem())];
    let path = |name: &str| out.join(name);
    if let Some((name, _)) = files.iter().find(|(name, _)| path(name).exists()) {
        let why = format!("{} is there already, and would be lost", path(name).display());
        return Err(Failure::failed(why).hint("choose another directory with --out"));
    }
    for (name, text) in &files {
        keep(&path(name), text, *name != "ca.pem").map_err(|error| Failure::file(&path(name), &error))?;
    }
    let shown = |name: &str| quote(&path(name).to_string_lossy());
    let (cluster, name, admin) = (shown("cluster.pem"), admin.party().name(), shown("admin.pem"));
    let files = files.map(|(name, _)| path(name));
    console.show(&json!({ "cluster": key.cluster(), "admin": name, "files": files }), || {
        format!(
            "{cluster} is the key of the cluster: keep it on the machines of its nodes alone
{admin} is the certificate of an administrator, {name}, with its key: keep it as you keep a password
{ca} is the certificate of the cluster: anybody may have it

Start the nodes with the key, wherever they are:
  db --identity {cluster} --listen 0.0.0.0:7301
  worker --identity {cluster} --listen 0.0.0.0:7300 --join ADDRESS-OF-DB
and use the cluster as its administrator:
  dml --cluster https://ADDRESS-OF-WORKER:7300 --identity {admin} cluster",
            ca = shown("ca.pem"),
        )
    })
}

/// Makes a certificate with its key, by the cluster's key.
pub(crate) fn certify(console: &Console, role: CertifyRole, key: &Path, out: &Path) -> Result<(), Failure> {
    let Some(key) = identity::read(key)?.into_key() else {
        let why = format!("{} is not the key of a cluster", key.display());
        return Err(Failure::usage(why).hint("give cluster.pem, which `dml cluster init` wrote"));
    };
    let party = match role {
        CertifyRole::Db => Party::db(),
        CertifyRole::Worker => Party::worker(),
        CertifyRole::Admin => Party::admin(),
    };
    certified(console, &key.certify(party, &[])?, out)
}

/// Makes a token with which a machine joins the cluster, once.
pub(crate) async fn token(
    session: &Session<'_>,
    label: String,
    role: Role,
    expires: String,
) -> Result<(), Failure> {
    let cluster = session.place.cluster_id()?;
    let new = NewToken { label, scope: dml_net::identity::scope(role), expires_in: Some(expires) };
    let made = session.client.create_token(&new).await?;
    let secret = made.secret.clone().ok_or_else(|| Failure::failed("the cluster gave no secret"))?;
    let token = JoinToken { cluster, role, secret }.reveal();
    session.console.show(&json!({ "id": made.id, "token": token, "expires_ms": made.expires_ms }), || {
        session.console.say("this is good once, and not shown again; on the machine that is to join:");
        session.console.say("  dml cluster join TOKEN --at ADDRESS-OF-DB:7301 --out node.pem");
        token.clone()
    })
}

/// Joins a cluster: gets a certificate for this machine.
pub(crate) async fn join(
    console: &Console,
    token: &str,
    at: &str,
    addresses: &[IpAddr],
    out: &Path,
) -> Result<(), Failure> {
    let token: JoinToken = token.parse().map_err(|error: NotAJoinToken| Failure::usage(error.to_string()))?;
    // Before the token is used up.
    nothing_at(out)?;
    let own = dml_net::identity::join(&token, at, addresses).await.map_err(Failure::from)?;
    certified(console, &own, out)
}

fn certified(console: &Console, own: &Identity, out: &Path) -> Result<(), Failure> {
    nothing_at(out)?;
    keep(out, &own.to_pem(), true).map_err(|error| Failure::file(out, &error))?;
    let name = own.party().name();
    console.show(&json!({ "name": name, "file": out }), || {
        let file = quote(&out.to_string_lossy());
        let use_it = match own.party() {
            Party::Db(_) => format!("db --identity {file}"),
            Party::Worker(_) => format!("worker --identity {file}"),
            Party::Admin(_) => {
                format!("dml --cluster https://ADDRESS-OF-WORKER:7300 --identity {file} cluster")
            }
        };
        format!("{file} is the certificate of {name}, with its key: {use_it}")
    })
}

/// What is there is not written over.
fn nothing_at(path: &Path) -> Result<(), Failure> {
    if !path.exists() {
        return Ok(());
    }
    let why = format!("{} is there already, and would be lost", path.display());
    Err(Failure::failed(why).hint("choose another file with --out"))
}

pub(crate) async fn revoke(session: &Session<'_>, node: &str) -> Result<(), Failure> {
    let done = session.client.revoke(node).await?;
    session
        .console
        .show(&done, || format!("{} is not trusted any more: all nodes hear of it within seconds", done.node))
}

pub(crate) async fn revoked(session: &Session<'_>, page: Page) -> Result<(), Failure> {
    let page = session.client.revocations(page.limit.into(), page.cursor.as_deref()).await?;
    listing::show(session.console, &page, &["node", "revoked"], "nobody was revoked", |revocation| {
        vec![Cell::new(&revocation.node), Cell::new(ago(revocation.created_ms))]
    })
}

/// Writes a new file; a secret one can be read by its owner alone.
fn keep(path: &Path, text: &str, secret: bool) -> std::io::Result<()> {
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, if secret { 0o600 } else { 0o644 });
    #[cfg(not(unix))]
    let _ = secret;
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
