//! What the README and the book tell people to type is typed: every block of shell commands of a page runs in a directory
//! that has nothing but `data/`, with the programs of this build, in the order of the page. What begins a server
//! (`… &`, `dml up`) goes on until the page ends. Addresses with ports as the pages have them are moved to ports that are
//! free here. A block that cannot run here says so to its reader, as `sh no-run`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeMap,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// How many blocks may stand there that nobody has tried.
const MOST_UNTRIED: usize = 12;

/// Of `$URL` a page says that it is the address of a worker, and of `$OTHER` that it is that of another cluster.
const PRELUDE: &str = r#"
set -euo pipefail
trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT
reached() {
    for _ in $(seq 600); do (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return || sleep 0.1; done
    echo "nothing listens on port $1" >&2
    exit 1
}
# From a checkout, what a page has compiled is there already.
cargo() { while [ "$1" != -- ]; do shift; done; shift; dml "$@"; }
curl() { command curl --fail --silent --show-error "$@"; }
# In the background it takes the place of its shell, which is what ends with the block.
dml() { [ "$BASHPID" = $$ ] || exec env DML_LISTEN=127.0.0.1:@7300 "$PROGRAMS/dml" "$@"; DML_LISTEN=127.0.0.1:@7300 "$PROGRAMS/dml" "$@"; }
db() { DML_LISTEN=127.0.0.1:@7301 exec "$PROGRAMS/db" "$@"; }
worker() { DML_LISTEN=127.0.0.1:@7300 DML_JOIN=127.0.0.1:@7301 exec "$PROGRAMS/worker" "$@"; }
"#;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// The blocks of shell commands of a page: what stands behind the three ticks, and the lines.
fn blocks(page: &str) -> Vec<(String, Vec<String>)> {
    let text = fs::read_to_string(root().join(page)).unwrap();
    let (mut found, mut open) = (Vec::new(), None);
    for line in text.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(info)) => open = Some((info.to_string(), Vec::new())),
            (Some(_), Some(_)) => found.extend(open.take()),
            (Some((_, lines)), None) => lines.push(line.to_string()),
            (None, None) => {}
        }
    }
    found.retain(|(info, _)| info.split_whitespace().next() == Some("sh"));
    found
}

/// A command without the remark behind it; two blanks tell that from an address with a `#`.
fn command(line: &str) -> &str {
    line.split("  #").next().unwrap().split(" # ").next().unwrap().trim_end()
}

/// A line as the script has it: servers go to the background, and are waited for.
fn typed(line: &str) -> String {
    let command = command(line);
    let serves = command.starts_with("dml up");
    let Some(server) = command.strip_suffix('&').or(serves.then_some(command)) else {
        return line.into();
    };
    let port = server.split_once("--listen 127.0.0.1:").map(|(_, rest)| rest.split(' ').next().unwrap());
    let port = port.unwrap_or(if command.starts_with("db") { "7301" } else { "7300" });
    format!("{server} & reached @{port}")
}

/// Types what a page says.
fn run(page: &str) {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    fs::create_dir(&data).unwrap();
    let house = "house_pricing/other/one_prediction_house_pricing_test.json";
    fs::create_dir_all(data.join(house).parent().unwrap()).unwrap();
    for table in ["penguins.csv", "houses.csv", house] {
        fs::copy(root().join("data").join(table), data.join(table)).unwrap();
    }
    let blocks = blocks(page);
    let lines: Vec<String> =
        blocks.into_iter().filter(|(info, _)| info == "sh").flat_map(|(_, lines)| lines).collect();
    assert!(!lines.is_empty(), "{page} has nothing to type");
    let mut script = PRELUDE.to_string();
    for (name, port) in [("URL", 7398), ("OTHER", 7399)] {
        if lines.iter().any(|line| line.contains(&format!("${name}"))) {
            script += &format!("dml --data {name} up --listen 127.0.0.1:@{port} & reached @{port}\n");
            script += &format!("{name}=http://127.0.0.1:@{port}\n");
        }
    }
    script += &lines.iter().map(|line| typed(line) + "\n").collect::<String>();
    let script = moved(&script.replace("127.0.0.1:73", "127.0.0.1:@73"));
    let log = directory.path().join("log");
    let out = fs::File::create(&log).unwrap();
    let mut bash = Command::new("timeout");
    bash.args(["900", "bash", "-x", "-c", &script]).current_dir(&directory).stdin(Stdio::null());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("DML_")) {
        bash.env_remove(name);
    }
    bash.env("PROGRAMS", Path::new(env!("CARGO_BIN_EXE_dml")).parent().unwrap());
    let status = bash.stdout(out.try_clone().unwrap()).stderr(out).status().unwrap();
    let told = fs::read_to_string(&log).unwrap_or_default();
    let last: Vec<&str> = told.lines().rev().take(40).collect();
    let last: Vec<&str> = last.into_iter().rev().collect();
    assert!(status.success(), "{page} does not do what it says: {status}\n{}", last.join("\n"));
}

/// The script with a free port for each that is marked.
fn moved(script: &str) -> String {
    let mut held: BTreeMap<String, TcpListener> = BTreeMap::new();
    let mut parts = script.split('@');
    let mut text = parts.next().unwrap().to_string();
    for part in parts {
        let port: String = part.chars().take_while(char::is_ascii_digit).collect();
        if port.len() != 4 || !port.starts_with("73") {
            text = text + "@" + part;
            continue;
        }
        let listener = held.entry(port).or_insert_with(|| TcpListener::bind("127.0.0.1:0").unwrap());
        text += &(listener.local_addr().unwrap().port().to_string() + &part[4..]);
    }
    text
}

#[test]
fn the_readme() {
    run("README.md");
}

#[test]
fn the_quick_starts() {
    for page in ["docs/quick-start.md", "docs/quick-start.es.md", "docs/quick-start.pt.md"] {
        run(page);
    }
}

#[test]
fn the_book() {
    let mut untried = Vec::new();
    let mut pages: Vec<String> = fs::read_dir(root().join("docs"))
        .unwrap()
        .map(|entry| format!("docs/{}", entry.unwrap().file_name().display()))
        .filter(|page| page.ends_with(".md"))
        .collect();
    pages.extend(["README.md".into(), "clients/python/README.md".into()]);
    pages.sort();
    for page in pages {
        let blocks = blocks(&page);
        untried.extend(blocks.iter().filter(|(info, _)| info != "sh").map(|(info, lines)| {
            assert_eq!(info, "sh no-run", "{page}");
            format!("{page}: {}", lines[0])
        }));
        let elsewhere = page == "README.md" || page.contains("quick-start");
        if !elsewhere && blocks.iter().any(|(info, _)| info == "sh") {
            run(&page);
        }
    }
    assert!(untried.len() <= MOST_UNTRIED, "too much is not tried:\n{}", untried.join("\n"));
}

#[test]
fn lines_become_a_script() {
    assert_eq!(typed("dml up       # until ctrl-c"), "dml up & reached @7300");
    assert_eq!(typed("db --data db1 &     # a node"), "db --data db1  & reached @7301");
    assert_eq!(
        typed("worker --listen 127.0.0.1:7311 --join x &"),
        "worker --listen 127.0.0.1:7311 --join x  & reached @7311"
    );
    assert_eq!(typed("dml model kinds  # all"), "dml model kinds  # all");
    let moved = moved("a@7300 b@7301 c@7300 d@e");
    let ports: Vec<&str> = moved.split(['a', 'b', 'c', ' ']).filter(|text| !text.is_empty()).collect();
    assert!(ports[0] == ports[2] && ports[0] != ports[1] && ports[3] == "d@e", "{moved}");
}
