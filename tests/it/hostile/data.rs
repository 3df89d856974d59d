//! Names that are paths, scripts or terminal codes; tables and rows that are none; queries that are nothing.

use std::io::Write;

use super::Case;

/// As they stand in a path.
const NAMES: [&str; 20] = [
    "..%2f..%2fetc%2fpasswd",
    "%2e%2e",
    "%00",
    "%ff%fe",
    "%1b%5b31m",
    "%0d%0aset-cookie%3a%20a",
    "%3Cscript%3Ealert(1)%3C%2Fscript%3E",
    "'%20or%201=1--",
    "%24%7Bjndi%3Aldap%3A%2F%2Fx%7D",
    "%7B%7B7*7%7D%7D",
    "CON",
    "%2e%2e%5c%2e%2e",
    "%F0%9F%92%A9",
    "%E2%80%AE",
    "=cmd%7C'%20%2FC%20calc'!A0",
    "-rf",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "NaN",
    "%25%32%66",
];

const THINGS: [&str; 5] = ["datasets", "trainings", "models", "predictions", "routing"];

pub(super) fn cases(dataset: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    for name in NAMES {
        for thing in THINGS {
            cases.push(Case::get(&format!("/v1/{thing}/{name}"), &[400, 404]));
        }
        cases.push(Case::get(&format!("/datasets/{name}"), &[400, 404]));
        let line = format!("POST /v1/datasets?name={name}");
        // A name that is none is told before the table is looked at; a good one leaves a bad table.
        cases.push(Case::request(&line, "text/csv", "a,a\n1,2\n", &[400, 422]));
    }
    for query in
        ["limit=-1", "limit=1e9", "limit=0", "limit=x", "cursor=x", "cursor=1-2", "what=1", "limit=1&limit=2"]
    {
        cases.push(Case::get(&format!("/v1/datasets?{query}"), &[400]));
    }
    for query in ["offset=-1", "limit=10001", "limit=x", "offset=18446744073709551616", "what=1"] {
        cases.push(Case::get(&format!("/v1/datasets/{dataset}/rows?{query}"), &[400]));
    }
    // Beyond the end there is nothing, which is no error.
    cases.push(Case::get(&format!("/v1/datasets/{dataset}/rows?offset=18446744073709551615"), &[200]));
    for wait in ["-1s", "1h", "s", "1e9s", "%00"] {
        cases.push(Case::get(&format!("/v1/trainings/x?wait={wait}"), &[400, 404]));
    }
    cases.extend(tables());
    cases.extend(bodies());
    cases
}

fn tables() -> Vec<Case> {
    let upload =
        |kind: &str, body: &[u8]| Case::request("POST /v1/datasets", kind, body, &[400, 413, 415, 422]);
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    bomb.write_all(&vec![b'1'; 64 << 20]).expect("memory takes it");
    let bomb = bomb.finish().expect("memory takes it");
    let mut cut = bomb.clone();
    cut.truncate(bomb.len() / 2);
    let arrow = b"ARROW1\0\0\xff\xff\xff\xff\xff\xff\xff\x7f\x10\0\0\0";
    vec![
        upload("text/csv", b""),
        upload("text/csv", b"\0\0\0\0"),
        upload("text/csv", b"\xff\xfea\0,\0b\0\n\0"),
        upload("text/csv", b"\"\"\"\"\"\"\"\"\"\"\"\""),
        upload("text/csv", "\"a\n".repeat(9).as_bytes()),
        upload("text/csv", b"a,b\n1,2\n3\n"),
        upload("text/csv", b"a,b\n1,1e999\n2,3\n"),
        upload("text/csv", format!("a,b\n1,{}\n", "x".repeat(2 << 20)).as_bytes()),
        upload("text/csv", ",".repeat(200_000).as_bytes()),
        upload("text/csv", &bomb),
        upload("text/csv", &cut),
        upload("text/csv", b"\x28\xb5\x2f\xfd\xff\xff\xff\xff"),
        upload("text/csv", b"PAR1\0\0\0\0PAR1"),
        upload("text/csv", b"PK\x03\x04\x14\0\0\0"),
        upload("application/vnd.apache.arrow.stream", arrow),
        upload("application/vnd.apache.arrow.file", b"ARROW1"),
        upload("application/vnd.apache.arrow.stream", b"\xff\xff\xff\xff\xff\xff\xff\xff"),
        upload("multipart/form-data", b"a,b\n1,2\n"),
        upload("multipart/form-data; boundary=x", b"--x\r\n\r\n"),
        upload(
            "multipart/form-data; boundary=x",
            b"--x\r\ncontent-disposition: form-data; name=\"other\"\r\n\r\na\r\n--x--\r\n",
        ),
        upload("application/pdf", b"%PDF-1.7"),
    ]
}

fn bodies() -> Vec<Case> {
    let deep = |open: &str, close: &str| open.repeat(100_000) + &close.repeat(100_000);
    let mut cases = Vec::new();
    for line in ["POST /v1/trainings", "POST /v1/predictions", "POST /v1/tokens"] {
        let mut add = |body: &str| cases.push(Case::json(line, body, &[400, 404, 409, 422]));
        for body in [
            "",
            "null",
            "[]",
            "{}",
            "0",
            "\"\"",
            "{",
            "{\"dataset\":",
            "{\"dataset\":1}",
            "NaN",
            "\u{feff}{}",
        ] {
            add(body);
        }
        add(&deep("[", "]"));
        add(&deep("{\"a\":", "}").replace("}", ""));
        add(&format!("{{\"dataset\":\"{}\"}}", "x".repeat(1 << 20)));
        add(r#"{"dataset":"penguins","target":"\ud800"}"#);
        cases.push(Case::json(line, "x".repeat(40 << 20), &[413, 0]));
        cases.push(Case::request(line, "text/plain", "{}", &[415]));
        cases.push(Case::request(line, "application/x-www-form-urlencoded", "a=b", &[415]));
    }
    cases
}
