//! HTTP that is none, or means two things (RFC 9112, sections 6 and 11).

use super::Case;

pub(super) fn cases() -> Vec<Case> {
    let head = "POST /v1/trainings HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n";
    let refused = [400, 408, 0];
    let mut cases = vec![
        Case::raw("nothing", b"\r\n\r\n\r\n\r\n", &refused),
        Case::raw("noise", (0..=255).collect::<Vec<u8>>(), &refused),
        Case::raw("zeros", vec![0; 4096], &refused),
        Case::raw("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", &refused),
        Case::raw("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", &refused),
        Case::raw("HTTP/0.9", b"GET /\r\n", &refused),
        Case::raw("HTTP/9.9", b"GET / HTTP/9.9\r\nhost: localhost\r\n\r\n", &[400, 505, 0]),
        Case::raw("no version", b"GET /healthz\r\nhost: localhost\r\n\r\n", &refused),
        Case::raw("half a head", b"GET /healthz HTTP/1.1\r\nhost: loc", &refused),
        Case::raw("a null in a header", b"GET / HTTP/1.1\r\nhost: localhost\r\nx: a\0b\r\n\r\n", &refused),
        Case::raw("a space before the colon", b"GET / HTTP/1.1\r\nhost : localhost\r\n\r\n", &refused),
        Case::raw("a folded header", b"GET / HTTP/1.1\r\nhost: localhost\r\nx: a\r\n b\r\n\r\n", &[400, 200, 0]),
        Case::raw("a method that is none", b"\x01\x02 / HTTP/1.1\r\nhost: localhost\r\n\r\n", &refused),
        Case::raw("a bare line feed", b"GET /healthz HTTP/1.1\nhost: localhost\nconnection: close\n\n", &[400, 200, 0]),
        Case::raw("an unknown method", b"BREW / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", &[405]),
        Case::raw("a proxy", b"CONNECT other:80 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", &[400, 404, 405]),
        Case::raw("another server", b"GET http://elsewhere/v1/nodes HTTP/1.1\r\nhost: elsewhere\r\nconnection: close\r\n\r\n", &[400, 403, 200]),
        Case::raw("another host", b"GET / HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n", &[403]),
        Case::raw("a foreign page", b"POST /v1/trainings HTTP/1.1\r\nhost: localhost\r\norigin: https://evil.example\r\nconnection: close\r\n\r\n", &[403]),
        Case::raw("many headers", many_headers(200), &[431]),
        Case::raw("a long header", format!("GET / HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "a".repeat(1 << 20)), &[431, 0]),
        Case::raw("a long path", format!("GET /{} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", "a".repeat(20_000)), &[414]),
        Case::raw("a body that does not come", format!("{head}content-length: 100\r\n\r\n"), &[408, 0]),
        Case::raw("two lengths", format!("{head}content-length: 2\r\ncontent-length: 3\r\n\r\n{{}}"), &refused),
        Case::raw("a length and chunks", format!("{head}content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"), &[400, 422, 0]),
        Case::raw("chunks twice", format!("{head}transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n"), &[400, 422, 501, 0]),
        Case::raw("chunks of another kind", format!("{head}transfer-encoding: gzip\r\n\r\n{{}}"), &[400, 408, 501, 0]),
        Case::raw("an unending upload", format!("POST /v1/datasets HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\na,b\n", u64::MAX), &[400, 408, 431, 0]),
    ];
    for length in ["-1", "1e3", "0x10", "99999999999999999999", "abc", "1 2", "+5"] {
        cases.push(Case::raw(
            format!("content-length: {length}"),
            format!("{head}content-length: {length}\r\n\r\n{{}}"),
            &refused,
        ));
    }
    for size in ["ffffffffffffffff", "-1", "zz", "1;x=\0", "10000000000000000"] {
        let bytes = format!("{head}transfer-encoding: chunked\r\n\r\n{size}\r\n{{}}\r\n0\r\n\r\n");
        cases.push(Case::raw(format!("a chunk of {size}"), bytes, &refused));
    }
    cases
}

fn many_headers(count: usize) -> String {
    let headers: String = (0..count).map(|n| format!("x-{n}: y\r\n")).collect();
    format!("GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n")
}
