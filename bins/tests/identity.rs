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

    // Who watches it without an identity is told what is there.
    for (node, address) in [(DB, one), (WORKER, guarded.worker)] {
        let output = program(node).args(["--check", "--listen", &address.to_string()]).output().unwrap();
        let told = words(&output);
        assert!(!output.status.success() && told.contains("speaks TLS alone"), "{node}: {told}");
    }

    // A node with the certificate of another, and one with that of another cluster.
    let worker = guarded.certify(Party::worker()).to_pem();
    fs::write(guarded.path("worker.pem"), worker).unwrap();
    let output = program(DB)
        .args(["--listen", "127.0.0.1:0", "--data", guarded.path("three").to_str().unwrap(), "--identity"])
        .arg(guarded.path("worker.pem"))
        .output()
        .unwrap();
    assert!(
        !output.status.success() && words(&output).contains("it is that of dml:worker/worker-"),
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
        let worker = dial(guarded.certify(Party::worker())).peer(one);
        assert_eq!(ask(&worker, "GET", "/v1/nodes").await, Ok(200));
        assert_eq!(ask(&worker, "POST", "/v1/letters").await, Ok(403));
        let admin = dial(guarded.certify(Party::admin())).peer(one);
        assert_eq!(ask(&admin, "GET", "/v1/nodes").await, Ok(403));
        let stranger = key(&others.join("cluster.pem")).certify(Party::worker(), &[]).unwrap();
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

/// A node started with the certificate in a file, as somebody who has no other secret.
fn node(guarded: &Guarded, path: &str, name: &str, arguments: &[&str]) -> (Process, SocketAddr) {
    let (identity, data) = (guarded.path(&format!("{name}.pem")), guarded.path(name));
    let (identity, data, join) =
        (identity.to_str().unwrap(), data.to_str().unwrap(), guarded.dbs[0].to_string());
    let mut all = vec!["--identity", identity, "--listen", "127.0.0.1:0", "--join", &join];
    if path == DB {
        all.extend(["--data", data]);
    }
    Process::serve(path, &[&all, arguments].concat(), &guarded.path(&format!("{name}.log")))
}

/// Runs `dml cluster join`.
fn join(token: &str, at: &str, out: &Path) -> Output {
    let arguments = ["cluster", "join", token, "--at", at, "--out", out.to_str().unwrap()];
    program(DML).args(arguments).output().unwrap()
}

impl Guarded {
    /// Makes a token to join with.
    fn join_token(&self, arguments: &[&str]) -> String {
        let made = self.admin(&[&["--json", "cluster", "token"], arguments].concat());
        assert!(made.status.success(), "{}", words(&made));
        let made: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
        made["token"].as_str().unwrap().into()
    }

    /// Waits until the cluster shows so many nodes that are active.
    fn active(&self, count: usize, why: &str) {
        until(PATIENCE, why, || match self.admin(&["--json", "cluster"]) {
            output if words(&output).matches("active\": true").count() == count => Ok(()),
            output => Err(words(&output)),
        });
    }
}

#[test]
fn a_machine_joins_with_a_token_once() {
    let guarded = Guarded::start();
    let at = guarded.dbs[1].to_string();
    let (for_db, for_worker) = (
        guarded.join_token(&["third", "--role", "db"]),
        guarded.join_token(&["fourth", "--role", "worker", "--expires", "10m"]),
    );
    let brief = guarded.join_token(&["brief", "--role", "worker", "--expires", "1s"]);
    let out = |name: &str| guarded.path(&format!("{name}.pem"));
    for (token, name) in [(&for_db, "third"), (&for_worker, "fourth")] {
        let joined = join(token, &at, &out(name));
        assert!(joined.status.success(), "{}", words(&joined));
        assert!(!words(&joined).contains(&token[20..]), "a secret is shown: {}", words(&joined));
    }
    #[cfg(unix)]
    {
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&fs::metadata(out("third")).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }

    // Used twice, also at the other node; too late; as what it is not for; of another cluster; at a node that cannot sign.
    let unused = guarded.join_token(&["unused", "--role", "worker"]);
    let misused = unused.replace("_worker_", "_db_");
    let cluster = unused.split('_').nth(2).unwrap();
    let elsewhere = unused.replace(cluster, &"0".repeat(64));
    std::thread::sleep(Duration::from_millis(1100));
    let refused = "unknown, used or expired";
    for (token, at, told) in [
        (&for_db, &at, refused),
        (&for_db, &guarded.dbs[0].to_string(), refused),
        (&for_worker, &at, refused),
        (&brief, &at, refused),
        (&misused, &at, "this token is for worker, and this takes one for db"),
        (&elsewhere, &at, "not that of such a node of this cluster"),
        (&unused, &guarded.worker.to_string(), "not that of such a node of this cluster"),
        (&guarded.token(&["user", "--scope", "admin"]), &at, "no token to join"),
    ] {
        let output = join(token, at, &out("refused"));
        assert!(!output.status.success() && words(&output).contains(told), "{told}: {}", words(&output));
        assert!(!out("refused").exists());
    }

    // Those who have joined are nodes of the cluster, and keep their names; they cannot let others in.
    let (third, address) = node(&guarded, DB, "third", &[]);
    let (_fourth, _) = node(&guarded, WORKER, "fourth", &["--slots", "1"]);
    guarded.active(5, "those who joined are there");
    let output = join(&unused, &address.to_string(), &out("refused"));
    assert!(words(&output).contains("does not have the cluster's key"), "{}", words(&output));
    let named = key_party(&out("third")).name();
    assert!(words(&guarded.admin(&["cluster"])).contains(&named), "it is called as its certificate says");
    drop(third);
    let (_third, _) = node(&guarded, DB, "third", &[]);
    guarded.active(5, "it is back");
    // What was refused has not used the token up.
    let joined = join(&unused, &at, &out("fifth"));
    assert!(joined.status.success(), "{}", words(&joined));
    // A token to join with is none for users.
    let secret = format!("dml_{}", for_worker.rsplit('_').next().unwrap());
    let output = guarded.with_token(&secret, &["dataset", "ls"]);
    assert!(words(&output).contains("unknown, revoked or expired"), "{}", words(&output));
    let secret = guarded.join_token(&["sixth", "--role", "worker"]);
    let secret = format!("dml_{}", secret.rsplit('_').next().unwrap());
    let output = guarded.with_token(&secret, &["dataset", "ls"]);
    assert!(words(&output).contains("this token is for worker, and this takes read"), "{}", words(&output));
}

fn key_party(file: &Path) -> Party {
    match Credentials::from_pem(&fs::read(file).unwrap()).unwrap() {
        Credentials::Own(own) => own.party(),
        Credentials::Key(_) => panic!("{} is the key of a cluster", file.display()),
    }
}

#[test]
fn whose_certificate_was_revoked_is_refused_everywhere() {
    let guarded = Guarded::start();
    let out = |name: &str| guarded.path(&format!("{name}.pem"));
    for (name, role) in [("third", "db"), ("fourth", "worker"), ("helper", "admin")] {
        let (key, out) = (guarded.path("secrets/cluster.pem"), out(name));
        let arguments = ["cluster", "certify", role, "--key", key.to_str().unwrap(), "--out"];
        let made = program(DML).args(arguments).arg(out).output().unwrap();
        assert!(made.status.success(), "{}", words(&made));
    }
    let (_third, address) = node(&guarded, DB, "third", &[]);
    let (_fourth, at) = node(&guarded, WORKER, "fourth", &["--slots", "1"]);
    guarded.active(5, "all are there");
    let helper = out("helper");
    let as_helper = || guarded.dml(&["--identity", helper.to_str().unwrap(), "model", "ls"]);
    assert!(as_helper().status.success(), "{}", words(&as_helper()));

    for name in ["fourth", "helper", "third"] {
        let revoked = guarded.admin(&["cluster", "revoke", &key_party(&out(name)).name()]);
        assert!(revoked.status.success(), "{}", words(&revoked));
    }
    for (name, told) in [("third", "twelve hexadecimal digits"), ("worker-1", "twelve hexadecimal digits")] {
        let output = guarded.admin(&["cluster", "revoke", name]);
        assert!(!output.status.success() && words(&output).contains(told), "{}", words(&output));
    }
    let listed = guarded.admin(&["cluster", "revoked"]);
    assert!(words(&listed).contains(&key_party(&out("helper")).name()), "{}", words(&listed));
    until(PATIENCE, "the administrator is refused", || match as_helper() {
        output if words(&output).contains("was revoked") => Ok(()),
        output => Err(words(&output)),
    });
    guarded.active(3, "the db node is not counted any more, and the worker not heard of");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        for name in ["third", "fourth"] {
            let Credentials::Own(own) = Credentials::from_pem(&fs::read(out(name)).unwrap()).unwrap() else {
                panic!("{name} has a certificate of its own")
            };
            for db in guarded.dbs {
                let peer = own.dial(Role::Db).unwrap().peer(db);
                assert_eq!(ask(&peer, "GET", "/v1/nodes").await, Ok(403), "{name}");
            }
        }
    });
    // A worker that is told to begin at the node that was revoked turns to the others, and users of the worker that was
    // revoked are told.
    fs::copy(guarded.path("secrets/cluster.pem"), out("fifth")).unwrap();
    let (_fifth, fifth) = node(&guarded, WORKER, "fifth", &["--join", &address.to_string(), "--slots", "1"]);
    guarded.active(4, "the new worker is heard of");
    until(PATIENCE, "the node that was revoked is left alone", || {
        let log = guarded.log("fifth");
        if log.contains(&key_party(&out("third")).name()) { Ok(()) } else { Err(log) }
    });
    let admin = guarded.path("secrets/admin.pem");
    let asked = |worker: SocketAddr| {
        let url = format!("https://{worker}");
        let arguments = ["--cluster", &url, "--identity", admin.to_str().unwrap(), "--json", "cluster"];
        program(DML).args(arguments).output().unwrap()
    };
    assert!(asked(fifth).status.success(), "{}", words(&asked(fifth)));
    let outcome = words(&asked(at));
    assert!(outcome.contains("was revoked"), "{outcome}");
}
