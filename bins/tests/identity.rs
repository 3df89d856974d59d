//! A cluster with certificates, as real processes: who is let in, and who is not.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "nodes/cluster.rs"]
#[allow(dead_code, reason = "it is shared with the tests of nodes")]
mod cluster;
#[path = "chaos/facts.rs"]
#[allow(dead_code, reason = "it is shared with the tests of a network")]
mod facts;
#[path = "chaos/http.rs"]
#[allow(dead_code, reason = "it is shared with the tests of a network")]
mod http;

use std::{
    fs,
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use axum::body::Body;
use cluster::{DB, DML, PATIENCE, Process, WORKER, program, table};
use dml_net::{
    Peer,
    identity::{ClusterKey, Credentials, Identity, Party, Trust},
    peer,
    view::{Role, TokenView},
};
use facts::until;

/// Tells people, also when the test passes.
fn say(words: &str) {
    let _ = writeln!(std::io::stderr(), "{words}");
}

/// Two db nodes and a worker with certificates of their own cluster.
struct Guarded {
    directory: tempfile::TempDir,
    dbs: [SocketAddr; 2],
    worker: SocketAddr,
    _processes: [Process; 3],
}

impl Guarded {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).to_str().unwrap().to_string();
        let made = program(DML).args(["cluster", "init", "--out", &path("secrets")]).output().unwrap();
        assert!(made.status.success(), "{}", words(&made));
        let key = path("secrets/cluster.pem");
        let serve = |path: &str, name: &str, arguments: &[&str]| {
            let arguments = [&["--identity", &key, "--listen", "127.0.0.1:0"], arguments].concat();
            Process::serve(path, &arguments, &directory.path().join(format!("{name}.log")))
        };
        let (first, one) = serve(DB, "one", &["--data", &path("one")]);
        let join = one.to_string();
        let (second, two) = serve(DB, "two", &["--data", &path("two"), "--join", &join]);
        let (third, worker) = serve(WORKER, "worker", &["--slots", "1", "--join", &join]);
        let guarded = Self { dbs: [one, two], worker, _processes: [first, second, third], directory };
        until(PATIENCE, "all know each other", || match guarded.admin(&["--json", "cluster"]) {
            output if words(&output).matches("active\": true").count() >= 3 => Ok(()),
            output => Err(words(&output)),
        });
        guarded
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs `dml` against the worker.
    fn dml(&self, arguments: &[&str]) -> Output {
        let url = format!("https://{}", self.worker);
        program(DML).args(["--cluster", &url]).args(arguments).output().unwrap()
    }

    /// The same, as somebody with a token.
    fn with_token(&self, token: &str, arguments: &[&str]) -> Output {
        let ca = self.path("secrets/ca.pem");
        let url = format!("https://{}", self.worker);
        let arguments = [&["--cluster", &url, "--ca", ca.to_str().unwrap()], arguments].concat();
        program(DML).args(arguments).env("DML_TOKEN", token).output().unwrap()
    }

    /// Makes a token; gives its secret.
    fn token(&self, arguments: &[&str]) -> String {
        let made = self.admin(&[&["--json", "token", "add"], arguments].concat());
        assert!(made.status.success(), "{}", words(&made));
        let view: TokenView = serde_json::from_slice(&made.stdout).unwrap();
        view.secret.unwrap().reveal().into()
    }

    fn log(&self, name: &str) -> String {
        fs::read_to_string(self.path(&format!("{name}.log"))).unwrap()
    }

    fn admin(&self, arguments: &[&str]) -> Output {
        let identity = self.path("secrets/admin.pem");
        self.dml(&[&["--identity", identity.to_str().unwrap()], arguments].concat())
    }

    /// A certificate that the cluster's key makes.
    fn certify(&self, party: Party) -> Identity {
        key(&self.path("secrets/cluster.pem")).certify(party, &[]).unwrap()
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        for name in ["one", "two", "worker"].into_iter().filter(|_| std::thread::panicking()) {
            say(&format!("the log of {name}:\n{}", self.log(name)));
        }
    }
}

fn key(file: &Path) -> ClusterKey {
    match Credentials::from_pem(&fs::read(file).unwrap()).unwrap() {
        Credentials::Key(key) => *key,
        Credentials::Own(own) => panic!("{} is that of {}", file.display(), own.party()),
    }
}

/// All that a program said.
fn words(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// Asks a node, as somebody; gives the status, or why there is none.
async fn ask(peer: &Peer, method: &str, path: &str) -> Result<u16, String> {
    let request = hyper::Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
    peer.call(request).await.map(|answer| answer.status().as_u16()).map_err(|error| error.to_string())
}

#[test]
fn a_cluster_with_certificates_answers_its_own() {
    let guarded = Guarded::start();
    let [one, _] = guarded.dbs;
    let csv = guarded.path("t.csv");
    fs::write(&csv, table(1)).unwrap();
    let csv = csv.to_str().unwrap();
    let train = ["train", csv, "--target", "class", "--model", "decision_tree"];
    let trained = guarded.admin(&train);
    assert!(trained.status.success(), "{}", words(&trained));
    let shown = guarded.admin(&["--json", "explain", "t-class"]);
    assert!(words(&shown).contains("\"copies\": 2"), "{}", words(&shown));

    // The secrets are not written over, and not for everybody to read.
    let secrets = guarded.path("secrets");
    let again = program(DML).args(["cluster", "init", "--out", secrets.to_str().unwrap()]).output().unwrap();
    assert!(
        again.status.code() == Some(1) && words(&again).contains("is there already"),
        "{}",
        words(&again)
    );
    #[cfg(unix)]
    for (name, expected) in [("cluster.pem", 0o600), ("admin.pem", 0o600), ("ca.pem", 0o644)] {
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&fs::metadata(secrets.join(name)).unwrap().permissions());
        assert_eq!(mode & 0o777, expected, "{name}");
    }

    // Users who are unknown, or know another cluster.
    let others = guarded.path("others");
    let made = program(DML).args(["cluster", "init", "--out", others.to_str().unwrap()]).output().unwrap();
    assert!(made.status.success(), "{}", words(&made));
    let file = |directory: &Path, name: &str| directory.join(name).to_str().unwrap().to_string();
    for (option, file, code, told) in [
        ("--ca", file(&secrets, "ca.pem"), 1, "show a token"),
        ("--ca", file(&others, "ca.pem"), 5, "not that of such a node of this cluster"),
        ("--identity", file(&others, "admin.pem"), 5, "not that of such a node of this cluster"),
        ("--identity", file(&secrets, "cluster.pem"), 2, "admin.pem"),
        ("--identity", file(&secrets, "ca.pem"), 2, "no certificates and key"),
    ] {
        let output = guarded.dml(&[option, &file, "model", "ls"]);
        assert_eq!(output.status.code(), Some(code), "{option} {file}: {}", words(&output));
        assert!(words(&output).contains(told), "{option} {file}: {}", words(&output));
    }
    let untrusting = guarded.dml(&["model", "ls"]);
    assert!(
        untrusting.status.code() == Some(2) && words(&untrusting).contains("--ca FILE"),
        "{}",
        words(&untrusting)
    );

    // Who watches a node asks it in its own way.
    let key_file = file(&secrets, "cluster.pem");
    for (node, address) in [(DB, one), (WORKER, guarded.worker)] {
        let mut check = program(node);
        check.args(["--check", "--identity", &key_file, "--listen", &address.to_string()]);
        let output = check.output().unwrap();
        assert!(output.status.success(), "{node}: {}", words(&output));
    }

    // A node with the certificate of another, and one with that of another cluster.
    let worker = guarded.certify(Party::Worker).to_pem();
    fs::write(guarded.path("worker.pem"), worker).unwrap();
    let output = program(DB)
        .args(["--listen", "127.0.0.1:0", "--data", guarded.path("three").to_str().unwrap(), "--identity"])
        .arg(guarded.path("worker.pem"))
        .output()
        .unwrap();
    assert!(
        !output.status.success() && words(&output).contains("it is that of dml:worker"),
        "{}",
        words(&output)
    );
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        // A browser is told to ask its user for the token.
        let trust = Trust::cluster(&fs::read(secrets.join("ca.pem")).unwrap()).unwrap();
        let request = hyper::Request::get("/").header("accept", "text/html").body(Body::empty()).unwrap();
        let answer = peer::https(&trust, Role::Worker).peer(guarded.worker).call(request).await.unwrap();
        assert_eq!(answer.status(), 401);
        assert!(answer.headers()["www-authenticate"].to_str().unwrap().starts_with("Basic "));
        let dial = |identity: Identity| identity.dial(Role::Db).unwrap();
        let worker = dial(guarded.certify(Party::Worker)).peer(one);
        assert_eq!(ask(&worker, "GET", "/v1/nodes").await, Ok(200));
        assert_eq!(ask(&worker, "POST", "/v1/letters").await, Ok(403));
        let admin = dial(guarded.certify(Party::Admin)).peer(one);
        assert_eq!(ask(&admin, "GET", "/v1/nodes").await, Ok(403));
        let stranger = key(&others.join("cluster.pem")).certify(Party::Worker, &[]).unwrap();
        let why = ask(&dial(stranger).peer(one), "GET", "/v1/nodes").await.unwrap_err();
        assert!(why.contains("not that of such a node of this cluster"), "{why}");
        let plain = Peer::http(&one.to_string()).unwrap();
        assert_eq!(ask(&plain, "GET", "/v1/nodes").await, Ok(400), "it speaks TLS alone");
    });
}

#[test]
fn tokens_let_users_do_what_they_are_for_until_they_are_revoked() {
    let guarded = Guarded::start();
    let csv = guarded.path("t.csv");
    fs::write(&csv, table(1)).unwrap();
    let add = ["dataset", "add", csv.to_str().unwrap()];
    let reader = guarded.token(&["reader", "--scope", "read"]);
    let writer = guarded.token(&["writer", "--scope", "write"]);
    let admin = guarded.token(&["helper", "--scope", "admin"]);
    let brief = guarded.token(&["brief", "--scope", "admin", "--expires", "1s"]);
    std::thread::sleep(Duration::from_millis(1100));
    let unknown = format!("dml_{}", "0".repeat(64));
    let (ls, tokens) = (["dataset", "ls"], ["token", "ls"]);
    let refused = "unknown, revoked or expired";
    for (who, token, arguments, code, told) in [
        ("writer", &writer, &add[..], 0, "60 rows"),
        ("reader", &reader, &ls, 0, "t"),
        ("reader", &reader, &["dataset", "rm", "t"], 1, "this token is for read, and this takes write"),
        ("reader", &reader, &add, 1, "this token is for read, and this takes write"),
        ("writer", &writer, &tokens, 1, "this token is for write, and this takes admin"),
        ("helper", &admin, &tokens, 0, "reader"),
        ("one whose token has expired", &brief, &ls, 1, refused),
        ("a stranger", &unknown, &ls, 1, refused),
        ("one who mistypes", &reader[1..].to_string(), &ls, 2, "a token is dml_"),
    ] {
        let output = guarded.with_token(token, arguments);
        assert_eq!(output.status.code(), Some(code), "{who}: {}", words(&output));
        assert!(words(&output).contains(told), "{who}: {}", words(&output));
        assert!(!words(&output).contains(&token[4..]), "{who} sees a secret: {}", words(&output));
    }

    // Who has a token shows it to nobody who could not be trusted with it.
    let url = format!("http://{}", guarded.worker);
    let plain =
        program(DML).args(["--cluster", &url, "dataset", "ls"]).env("DML_TOKEN", &reader).output().unwrap();
    assert!(plain.status.code() == Some(2) && words(&plain).contains("over TLS alone"), "{}", words(&plain));
    let open = program(DML)
        .args(["--data", guarded.path("open").to_str().unwrap(), "token", "ls"])
        .output()
        .unwrap();
    assert!(open.status.code() == Some(1) && words(&open).contains("answers everybody"), "{}", words(&open));

    let removed = guarded.with_token(&admin, &["token", "rm", "reader"]);
    assert!(removed.status.success(), "{}", words(&removed));
    until(PATIENCE, "the token is of no use", || match guarded.with_token(&reader, &ls) {
        output if words(&output).contains(refused) => Ok(()),
        output => Err(words(&output)),
    });
    assert!(guarded.with_token(&writer, &ls).status.success(), "another token still is");
    let told = guarded.log("one") + &guarded.log("two") + &guarded.log("worker");
    for secret in [reader, writer, admin, brief] {
        assert!(!told.contains(&secret[4..]), "a log has a secret:\n{told}");
    }
}
