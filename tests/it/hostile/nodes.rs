//! What a db node is told by who is no node: letters and datagrams that are none, requests about what cannot be, blobs
//! under names of others.

use serde_json::json;

use super::Case;

const NOWHERE: &str = "0000000000000000000000000000000000000000000000000000000000000000";

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let refused = [400, 404, 405, 413, 415, 422];
    for body in bodies() {
        let packed = [&(body.len() as u32).to_le_bytes(), body.as_slice()].concat();
        cases.push(
            Case::request("POST /v1/letters", "application/vnd.dml.letters", &packed, &refused).at_db(),
        );
        // Without their length.
        cases.push(Case::request("POST /v1/letters", "application/vnd.dml.letters", &body, &refused).at_db());
        cases.push(Case::json("POST /v1/ask", &body, &refused).at_db());
        // No list of questions has no answers.
        cases.push(Case::json("POST /v1/asks", &body, &[200, 400, 422]).at_db());
    }
    for ask in [
        json!({ "Claim": { "worker": "x", "slots": u64::MAX } }),
        json!({ "Report": { "round": u64::MAX } }),
        json!({ "Renew": { "epoch": u64::MAX } }),
        json!({ "Watch": { "id": NOWHERE, "seen": -1, "wait_ms": 0 } }),
        json!({ "Create": { "body": { "dataset": { "rows": -1 } } } }),
        json!({ "Delete": { "id": "x" } }),
        json!({ "NoSuchRequest": {} }),
    ] {
        cases.push(Case::json("POST /v1/ask", ask.to_string(), &refused).at_db());
    }
    for name in
        [NOWHERE, "x", "..", "%2e%2e%2fmeta", "%00", &"f".repeat(63), &"g".repeat(64), &"0".repeat(65)]
    {
        let line = format!("PUT /v1/blobs/{name}");
        // Bytes under a name that is not theirs.
        cases.push(Case::request(&line, "application/octet-stream", "wrong", &[400, 404]).at_db());
        cases.push(Case::get(&format!("/v1/blobs/{name}"), &[400, 404]).at_db());
    }
    for path in ["/v1/datasets", "/v1/tokens", "/", "/v1/ask", "/v1/letters", "/v1/../v1/nodes"] {
        cases.push(Case::get(path, &[404, 405]).at_db());
    }
    cases
}

/// Bytes that are no letters and no questions.
fn bodies() -> Vec<Vec<u8>> {
    let mut bodies = vec![
        Vec::new(),
        vec![0; 64],
        vec![0xff; 64],
        (0..=255).collect(),
        // MessagePack: arrays, maps and texts that say to be four thousand million long, and a thousand arrays in each other.
        vec![0xdd, 0xff, 0xff, 0xff, 0xff],
        vec![0xdf, 0xff, 0xff, 0xff, 0xff],
        vec![0xdb, 0xff, 0xff, 0xff, 0xff, b'a'],
        vec![0x91; 100_000],
        vec![0xc1],
        b"[[[[[[[[".to_vec(),
        "[".repeat(100_000).into_bytes(),
        b"{\"a\":".repeat(10_000),
        b"null".to_vec(),
        b"\"\"".to_vec(),
        b"1e999".to_vec(),
    ];
    let mut state = 1u64;
    for length in [1, 7, 64, 1000] {
        let noise = (0..length).map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        });
        bodies.push(noise.collect());
    }
    bodies
}
