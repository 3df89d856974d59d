//! Three db nodes as real processes, and what disks, users and administrators do to them: rotten bits, a broken file, a
//! full disk, nonsense on the inner routes, a planned end, a larger cluster on old data.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "nodes/cluster.rs"]
mod cluster;
#[path = "chaos/facts.rs"]
#[allow(dead_code, reason = "it is shared with the tests of a network")]
mod facts;
#[path = "chaos/http.rs"]
mod http;

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use cluster::{DB, DML, PATIENCE, Process, Three, WORKER, chunks, program, read_back, upload};
use dml_core::Digest;
use dml_net::view::{RoutingView, TrainingView};
use facts::{copies, know_each_other, nodes, really_held, until, until_copied};

/// Tells people, also when the test passes.
fn say(words: &str) {
    let _ = writeln!(std::io::stderr(), "{words}");
}

/// One cluster at a time: two would measure each other.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn get(from: SocketAddr, path: &str) -> (u16, Vec<u8>) {
    http::send(from, "GET", path, "text/plain", &[], PATIENCE).unwrap()
}

/// Trains one small model on the table of this number.
fn train(worker: SocketAddr, number: usize) {
    let body = serde_json::json!({ "dataset": format!("t{number}"), "target": "class", "name": format!("m{number}"),
        "models": [{ "kind": "decision_tree" }] });
    let view: TrainingView = http::post(worker, "/v1/trainings", body.to_string().as_bytes()).unwrap();
    until(PATIENCE, "the training ends", || {
        let view: TrainingView =
            http::get(worker, &format!("/v1/trainings/{}", view.id)).map_err(|error| error.to_string())?;
        match serde_json::to_value(view.state).unwrap().as_str() {
            Some("succeeded") => Ok(()),
            state => Err(format!("it is {state:?}")),
        }
    });
}

#[test]
fn where_nodes_are_is_said_well_or_not_at_all() {
    let _turn = turn();
    for (path, arguments, words) in [
        (DB, ["--join", "a b"], "10.0.0.5:7301"),
        (WORKER, ["--join", "db:port"], "'port' is no port"),
        (DB, ["--join", "0.0.0.0:7301"], "no node can be reached"),
        (DB, ["--advertise", "0.0.0.0:7301"], "leave --advertise out"),
        (WORKER, ["--advertise", "10.0.0.5"], "10.0.0.5:7301"),
    ] {
        let output = program(path).args(arguments).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && told.contains(words), "{arguments:?}: {told}");
    }
    // A node that listens everywhere tells the others an address at which they reach it.
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let start = |name: &str, arguments: &[&str]| {
        let data = path(name);
        let arguments = [&["--data", data.to_str().unwrap()], arguments].concat();
        Process::serve(DB, &arguments, &path(&format!("{name}.log")))
    };
    let (_first, first) = start("first", &["--listen", "127.0.0.1:0"]);
    let join = first.to_string();
    let (_second, second) = start("second", &["--listen", "0.0.0.0:0", "--insecure", "--join", &join]);
    assert!(second.ip().is_loopback(), "{second} is no address on the way to {first}");
    until(PATIENCE, "both know each other by their addresses", || know_each_other(&[first, second]));
}

#[test]
fn nodes_of_another_cluster_are_left_alone() {
    let _turn = turn();
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let start = |name: &str, program: &str, arguments: &[&str]| {
        let arguments = [&["--listen", "127.0.0.1:0"], arguments].concat();
        Process::serve(program, &arguments, &path(&format!("{name}.log")))
    };
    let data = ["ours", "theirs"].map(|name| path(name).to_str().unwrap().to_string());
    let (_ours, ours) = start("ours", DB, &["--data", &data[0]]);
    let join = ours.to_string();
    let theirs = ["--cluster-name", "theirs", "--join", &join];
    let (_theirs, _) = start("theirs", DB, &[&["--data", &data[1]], &theirs[..]].concat());
    let (_worker, worker) = start("worker", WORKER, &theirs);
    for name in ["theirs", "worker"] {
        until(PATIENCE, "it says so", || {
            let log = fs::read_to_string(path(&format!("{name}.log"))).unwrap();
            let told = log.matches("a db node of another cluster answers there").count();
            if told == 1 { Ok(()) } else { Err(format!("{told} times:\n{log}")) }
        });
    }
    assert_eq!(nodes(ours).unwrap().len(), 1);
    assert_eq!(get(worker, "/readyz").0, 503);
}

#[test]
fn a_rotten_blob_is_found_and_mended_by_reading() {
    let _turn = turn();
    let three = Three::start();
    let (uploader, worker) = three.worker(0);
    let tables = [0, 1, 2].map(|n| upload(worker, n, PATIENCE).unwrap());
    drop(uploader);
    until_copied(PATIENCE, three.dbs[0], tables.iter().map(|table| table.id), 3);
    // Each table rots at another node: whichever a worker turns to, one of them is read where it is rotten.
    let rotten: Vec<Digest> = (0..3).map(|n| chunks(three.dbs[0], tables[n].id)[0]).collect();
    let right: Vec<Vec<u8>> = (0..3).map(|n| fs::read(three.blob(n, rotten[n])).unwrap()).collect();
    for n in 0..3 {
        let mut bytes = right[n].clone();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(three.blob(n, rotten[n]), bytes).unwrap();
    }
    let damages = |n: usize| three.log(n).matches("a damaged blob").count();
    // A new worker has nothing at hand.
    let (_reader, worker) = three.worker(1);
    for n in 0..3 {
        read_back(worker, n).unwrap();
        train(worker, n);
    }
    assert!((0..3).map(damages).sum::<usize>() > 0, "no rotten blob was met");
    // What no worker asked for is mended when somebody asks that node.
    for n in 0..3 {
        for _ in 0..2 {
            let (status, bytes) = get(three.dbs[n], &format!("/v1/blobs/{}", rotten[n]));
            assert!(status == 200 && bytes == right[n], "{status} from db node {n}");
        }
        assert_eq!(fs::read(three.blob(n, rotten[n])).unwrap(), right[n], "it was not mended on db node {n}");
        assert_eq!(damages(n), 1, "it is told once:\n{}", three.log(n));
        let aside = three.data[n].join("quarantine").join(rotten[n].to_string());
        assert!(aside.exists(), "the damaged bytes are not kept for people to look at");
    }
    tables.iter().for_each(|table| really_held(three.dbs[0], table.id).unwrap());

    // Another node that asks for this one's copy alone gets none, but the copy is mended for the next time.
    let mut bytes = right[0].clone();
    bytes[0] ^= 1;
    fs::write(three.blob(0, rotten[0]), bytes).unwrap();
    let here = format!("/v1/blobs/{}?here=true", rotten[0]);
    assert_eq!(get(three.dbs[0], &here).0, 404);
    until(PATIENCE, "it is mended", || match get(three.dbs[0], &here) {
        (200, bytes) if bytes == right[0] => Ok(()),
        (status, _) => Err(format!("{status}")),
    });
}

#[test]
fn a_node_with_a_broken_file_says_what_to_do_and_nothing_is_lost() {
    let _turn = turn();
    let mut three = Three::start();
    let (_worker, worker) = three.worker(0);
    let tables: Vec<Digest> = (0..10).map(|n| upload(worker, n, PATIENCE).unwrap().id).collect();
    until_copied(PATIENCE, three.dbs[0], tables.iter().copied(), 3);
    type Damage = (&'static str, fn(&mut Vec<u8>));
    let damages: [Damage; 4] = [
        ("cut in half", |bytes| bytes.truncate(bytes.len() / 2)),
        ("empty", |bytes| bytes.clear()),
        ("no header", |bytes| bytes[..512].fill(0)),
        ("rotten pages", |bytes| bytes.iter_mut().skip(4096).step_by(509).for_each(|byte| *byte ^= 0x55)),
    ];
    for (name, damage) in damages {
        three.kill(2);
        let file = three.data[2].join("records.redb");
        let mut bytes = fs::read(&file).unwrap();
        damage(&mut bytes);
        fs::write(&file, bytes).unwrap();
        let mut command = three.command(2);
        let mut child = Process(command.stderr(Stdio::piped()).spawn().unwrap());
        let start = Instant::now();
        let status = loop {
            if let Some(status) = child.0.try_wait().unwrap() {
                break status;
            }
            assert!(start.elapsed() < PATIENCE, "{name}: it starts on a broken file");
            std::thread::sleep(Duration::from_millis(20));
        };
        let mut told = String::new();
        child.0.stderr.take().unwrap().read_to_string(&mut told).unwrap();
        assert_eq!(status.code(), Some(1), "{name}: {told}");
        assert!(told.contains("records.redb is damaged"), "{name}: {told}");
        assert!(told.contains("move the data directory away"), "{name}: {told}");
        (0..10).for_each(|n| read_back(worker, n).unwrap());
        // As it says.
        fs::rename(&three.data[2], three.path(name)).unwrap();
        three.run(2);
        three.meet();
        until_copied(PATIENCE, three.dbs[2], tables.iter().copied(), 3);
        tables.iter().for_each(|table| really_held(three.dbs[2], *table).unwrap());
    }
}

#[test]
fn a_larger_cluster_on_old_data_has_all_its_copies() {
    let _turn = turn();
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let up = |dbs: &str| {
        let arguments = ["--data", data.to_str().unwrap(), "up", "--listen", "127.0.0.1:0", "--dbs", dbs];
        Process::serve(DML, &arguments, &directory.path().join("up.log"))
    };
    let (mut small, worker) = up("1");
    (0..5).for_each(|n| assert_eq!(upload(worker, n, PATIENCE).unwrap().replicas, Some(1)));
    train(worker, 0);
    small.terminate();
    assert!(small.0.wait().unwrap().success());
    let (_large, worker) = up("3");
    let names = (0..5).map(|n| format!("t{n}")).chain(["m0".into()]);
    for name in names {
        until(PATIENCE, &format!("three copies of {name}"), || {
            let path = format!("/v1/routing/{name}");
            let routing: RoutingView = http::get(worker, &path).map_err(|error| error.to_string())?;
            if routing.copies == 3 { Ok(()) } else { Err(format!("there are {}", routing.copies)) }
        });
    }
    (0..5).for_each(|n| read_back(worker, n).unwrap());
    for other in ["db-2", "db-3"] {
        let blobs = blobs_in(&data.join(other));
        assert!(!blobs.is_empty() && blobs == blobs_in(&data), "{other} has other blobs than the first");
    }
}

/// The names of all blobs in a data directory.
fn blobs_in(data: &Path) -> Vec<String> {
    let shelves = fs::read_dir(data.join("blobs")).unwrap();
    let files = shelves.flat_map(|shelf| fs::read_dir(shelf.unwrap().path()).unwrap());
    let mut names: Vec<String> =
        files.map(|file| file.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// What a node has logged of the end of another.
fn told_gone(three: &Three, n: usize, id: &str) -> Vec<String> {
    let log = three.log(n);
    let lines = log.lines().filter(|line| line.contains("a db node is gone") && line.contains(id));
    lines.map(Into::into).collect()
}

#[test]
fn a_node_that_says_goodbye_has_left_at_once() {
    let _turn = turn();
    let mut three = Three::start();
    let (_worker, worker) = three.worker(0);
    upload(worker, 0, PATIENCE).unwrap();
    for leaver in [2, 0] {
        three.meet();
        let id = nodes(three.dbs[leaver]).unwrap()[0].id.clone();
        let others: Vec<usize> = (0..3).filter(|n| *n != leaver).collect();
        let before: Vec<usize> = others.iter().map(|n| told_gone(&three, *n, &id).len()).collect();
        let start = Instant::now();
        // It may take longer to end than to say goodbye.
        assert!(three.end(leaver).success());
        let ended = start.elapsed();
        for (n, before) in others.iter().zip(before) {
            until(Duration::from_millis(500), "the others know that it left", || {
                let lines = told_gone(&three, *n, &id).split_off(before);
                match lines.as_slice() {
                    [line] if line.contains("left=true") => Ok(()),
                    lines => Err(format!("{lines:?} after it ended in {ended:.1?}")),
                }
            });
        }
        let view = upload(worker, 1 + leaver, Duration::from_secs(3)).unwrap();
        assert_eq!(view.replicas, Some(2), "durable on all that are there");
        read_back(worker, 0).unwrap();
        three.run(leaver);
    }
}

#[test]
fn nonsense_on_inner_routes_is_refused_and_harms_nobody() {
    let _turn = turn();
    let three = Three::start();
    let (_worker, worker) = three.worker(0);
    let view = upload(worker, 0, PATIENCE).unwrap();
    let db = three.dbs[0];
    let post =
        |path: &str, kind: &str, body: &[u8]| http::send(db, "POST", path, kind, body, PATIENCE).unwrap().0;
    let noise: Vec<u8> = (0..4000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let (json, letters) = ("application/json", "application/vnd.dml.letters");
    for body in [&b""[..], b"{", b"null", b"[1]", b"{\"v\":1}", b"[{\"v\":1}]", &noise] {
        let status = post("/v1/letters", letters, body);
        assert!((400..500).contains(&status), "{status} for letters {:?}", String::from_utf8_lossy(body));
        let status = post("/v1/ask", json, body);
        assert!((400..500).contains(&status), "{status} for a question {:?}", String::from_utf8_lossy(body));
        // A datagram that cannot be read is dropped, like one that was lost.
        assert_eq!(post("/v1/swim", "application/octet-stream", body), 204);
    }
    assert_eq!(post("/v1/letters", json, b"[]"), 415);
    let packed =
        |list: &[u8]| post("/v1/letters", letters, &[&(list.len() as u32).to_le_bytes(), list].concat());
    assert_eq!(packed(b"\x90"), 422, "a list, and no letter");
    // As a newer node may write.
    let newer = b"\x83\xa1v\x01\xa4from\xafdb-000000000009\xa7message\xa5sigh!";
    assert_eq!(packed(newer), 204, "a letter of a kind that is not known");
    let counted = http::send(db, "GET", "/metrics", "", b"", PATIENCE).unwrap().1;
    assert!(String::from_utf8_lossy(&counted).contains("\ndml_letters_unknown_total 1\n"));
    assert_eq!(packed(&[0x91; 100_000]), 422, "lists in lists without end");
    assert_eq!(packed(b"\xdd\xff\xff\xff\xff"), 422, "a list that is not there");
    assert_eq!(post("/v1/letters", letters, b"\x02\0\0\0\x90"), 422, "less than was promised");
    assert_eq!(post("/v1/ask", json, "[".repeat(100_000).as_bytes()), 400, "brackets without end");
    assert_eq!(post("/v1/swim", "application/octet-stream", &[7; 17 << 10]), 413);
    for (path, kind, mebibytes) in [("/v1/letters", letters, 256), ("/v1/ask", json, 64)] {
        let start = Instant::now();
        let mut stream = TcpStream::connect(db).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let length = (mebibytes + 1) << 20;
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let blanks = vec![b' '; 1 << 20];
        let _ = (0..=mebibytes).try_for_each(|_| stream.write_all(&blanks));
        let mut answer = [0; 12];
        // It hangs up on who goes on sending, perhaps before the answer is read.
        if stream.read_exact(&mut answer).is_ok() {
            assert_eq!(&answer, b"HTTP/1.1 413", "{path}");
        }
        assert!(start.elapsed() < PATIENCE, "{path}: no answer to a body without end");
    }
    assert_eq!(get(db, "/v1/blobs/GARBAGE").0, 400);

    let unknown = Digest::of(b"nothing has this name");
    let cases = [("%1b%5b31m", 400), ("a%3Cb%3E", 400), ("GARBAGE", 404), (&unknown.to_string(), 404)];
    for (text, expected) in cases {
        let (status, body) = get(worker, &format!("/v1/routing/{text}"));
        let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            (status, problem["status"].as_u64()),
            (expected, Some(expected.into())),
            "{text}: {problem}"
        );
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.len() > 10), "{problem}");
    }
    // All are there, and work.
    know_each_other(&three.dbs).unwrap();
    let after = upload(worker, 1, PATIENCE).unwrap();
    assert_eq!((after.replicas, copies(db, view.id)), (Some(3), Ok(3)));
    read_back(worker, 0).unwrap();
    for n in 0..3 {
        assert!(!three.log(n).contains("panicked"), "{}", three.log(n));
    }
}

/// A file system of its own in memory, of a few MiB.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Result<Self, String> {
        let directory = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=24m,mode=700", "tmpfs"])
            .arg(directory.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Ok(Self(directory)),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().into()),
            Err(error) => Err(format!("`mount`: {error}")),
        }
    }

    fn ballast(&self) -> std::path::PathBuf {
        self.0.path().join("ballast")
    }

    /// Writes until nothing more goes onto it.
    fn fill(&self) {
        let mut file = fs::File::create(self.ballast()).unwrap();
        for size in [1 << 20, 4096, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
    }

    fn make_room(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_stops_nobody_from_reading_and_catches_up() {
    let _turn = turn();
    let disk = match SmallDisk::mount() {
        Ok(disk) => disk,
        Err(why) => {
            say(&format!("full disk: SKIPPED, nothing is tested: no tmpfs can be mounted: {why}"));
            return;
        }
    };
    let three = Three::with_last_at(Some(&disk.0.path().join("db")));
    let (_worker, worker) = three.worker(2);
    let before: Vec<Digest> = (0..5).map(|n| upload(worker, n, PATIENCE).unwrap().id).collect();
    disk.fill();
    let mut acknowledged = vec![];
    for n in 5..7 {
        let start = Instant::now();
        match upload(worker, n, Duration::from_secs(60)) {
            Ok(view) => {
                assert!(view.replicas >= Some(2), "{view:?}");
                acknowledged.push((n, view.id));
            }
            Err(why) => assert!(why.contains("copies") || why.contains("space"), "{why}"),
        }
        let (took, good) = (start.elapsed(), acknowledged.len());
        say(&format!("full disk: upload {n} took {took:.1?}; {good} acknowledged"));
        (0..5).for_each(|n| read_back(worker, n).unwrap());
    }
    assert!(three.log(2).contains("no space left"), "it says nothing of its full disk:\n{}", three.log(2));
    know_each_other(&three.dbs).unwrap();
    disk.make_room();
    let after = upload(worker, 9, PATIENCE).unwrap();
    let all = before.into_iter().chain(acknowledged.iter().map(|(_, id)| *id)).chain([after.id]);
    let all: Vec<Digest> = all.collect();
    until_copied(Duration::from_secs(40), three.dbs[0], all.iter().copied(), 3);
    all.iter().for_each(|id| really_held(three.dbs[0], *id).unwrap());
    acknowledged.iter().for_each(|(n, _)| read_back(worker, *n).unwrap());
    read_back(worker, 9).unwrap();
}
