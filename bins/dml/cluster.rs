//! `dml cluster`: the nodes, and the certificates by which they know each other.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
};

use comfy_table::Cell;
use dml_net::{
    identity::{ClusterKey, Party},
    view::{DiskView, Role},
};
use serde_json::json;

use crate::{
    connect::{Session, quote},
    console::{Console, count, right, size},
    failure::Failure,
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
    let admin = key.certify(Party::Admin, &[])?;
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
    let (cluster, admin) = (shown("cluster.pem"), shown("admin.pem"));
    console.show(&json!({ "cluster": key.cluster(), "files": files.map(|(name, _)| path(name)) }), || {
        format!(
            "{cluster} is the key of the cluster: keep it on the machines of its nodes alone
{admin} is the certificate of an administrator, with its key: keep it as you keep a password
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
