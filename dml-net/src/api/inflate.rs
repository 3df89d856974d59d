//! Bodies that come compressed, as gzip or zstd: told by their first bytes, decoded as a stream in constant memory, and
//! bounded, so that a small body cannot become a huge one.

use std::io::{self, BufRead, Read};

use axum::{
    body::Bytes,
    http::{HeaderMap, StatusCode, header},
};
use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::{
    FrameDecoder,
    errors::{FrameDecoderError, ReadFrameHeaderError},
};
use tokio::sync::mpsc;

use crate::problem::Problem;

/// How many bytes a compressed table may have when it is decoded.
const MAX_BYTES: u64 = 256 << 30;

/// How many times its size a compressed table may have when it is decoded. Numbers as text shrink to a third, tables
/// with many equal values to a fiftieth.
const MAX_RATIO: u64 = 200;

/// What may come of any body, however small.
const FREE_BYTES: u64 = 16 << 20;

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Gzip,
    Zstd,
}

impl Encoding {
    fn of(first: &[u8]) -> Option<Self> {
        match first {
            [0x1F, 0x8B, ..] => Some(Self::Gzip),
            [0x28, 0xB5, 0x2F, 0xFD, ..] => Some(Self::Zstd),
            // A frame that is to be skipped comes before the others.
            [0x50..=0x5F, 0x2A, 0x4D, 0x18, ..] => Some(Self::Zstd),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// Refuses encodings that are not decoded.
pub(super) fn check(headers: &HeaderMap) -> Result<(), Problem> {
    let encodings = headers.get_all(header::CONTENT_ENCODING).iter();
    let mut named = Vec::new();
    for encodings in encodings {
        let text = encodings.to_str().unwrap_or("?").to_ascii_lowercase();
        named.extend(text.split(',').map(|encoding| encoding.trim().to_owned()));
    }
    named.retain(|encoding| encoding != "identity");
    match named.as_slice() {
        [] => Ok(()),
        [one] if matches!(one.as_str(), "gzip" | "x-gzip" | "zstd") => Ok(()),
        _ => {
            let detail = format!(
                "content-encoding {} is not taken: compress the table with gzip or zstd, once, or not at all",
                named.join(", ")
            );
            Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unknown-encoding", detail))
        }
    }
}

/// A body as it comes in.
pub(super) struct Pieces {
    receiver: mpsc::Receiver<Result<Bytes, Problem>>,
    piece: Bytes,
    received: u64,
    taken: u64,
    /// Why it ended before its end.
    broken: Option<Problem>,
}

impl Pieces {
    fn next(&mut self) -> io::Result<Option<Bytes>> {
        while let Some(piece) = self.receiver.blocking_recv() {
            match piece {
                Ok(piece) if piece.is_empty() => {}
                Ok(piece) => {
                    self.received += piece.len() as u64;
                    return Ok(Some(piece));
                }
                Err(problem) => {
                    self.broken = Some(problem);
                    return Err(io::Error::other("the body broke off"));
                }
            }
        }
        Ok(None)
    }
}

impl BufRead for Pieces {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.piece.is_empty() {
            self.piece = self.next()?.unwrap_or_default();
        }
        Ok(&self.piece)
    }

    fn consume(&mut self, amount: usize) {
        self.taken += amount as u64;
        let _ = self.piece.split_to(amount);
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

/// A body as it is meant: decoded, if it came compressed.
pub(super) struct Inflated {
    source: Source,
    given: u64,
    most: u64,
    failed: Option<Problem>,
}

enum Source {
    Plain(Pieces),
    Gzip(Box<MultiGzDecoder<Pieces>>),
    Zstd(Box<Zstd>),
}

impl Inflated {
    /// Looks at the first bytes. Blocks until they are there, as does reading.
    pub(super) fn of(receiver: mpsc::Receiver<Result<Bytes, Problem>>) -> Result<Self, Problem> {
        Self::with_limit(receiver, MAX_BYTES)
    }

    fn with_limit(receiver: mpsc::Receiver<Result<Bytes, Problem>>, most: u64) -> Result<Self, Problem> {
        let mut pieces = Pieces { receiver, piece: Bytes::new(), received: 0, taken: 0, broken: None };
        let mut first = Vec::new();
        while first.len() < 4 {
            match pieces.next() {
                Ok(Some(piece)) => first.extend_from_slice(&piece),
                Ok(None) => break,
                Err(_) => {
                    return Err(pieces.broken.unwrap_or_else(|| Problem::internal("the body broke off")));
                }
            }
        }
        let encoding = Encoding::of(&first);
        pieces.piece = first.into();
        let source = match encoding {
            None => Source::Plain(pieces),
            Some(Encoding::Gzip) => Source::Gzip(Box::new(MultiGzDecoder::new(pieces))),
            Some(Encoding::Zstd) => Source::Zstd(Box::new(Zstd::new(pieces))),
        };
        Ok(Self { source, given: 0, most, failed: None })
    }

    /// The next bytes; none after the last.
    pub(super) fn next(&mut self, buffer: &mut [u8]) -> Result<usize, Problem> {
        let read = match &mut self.source {
            Source::Plain(pieces) => pieces.read(buffer),
            Source::Gzip(decoder) => decoder.read(buffer),
            Source::Zstd(decoder) => decoder.read(buffer),
        };
        let count = read.map_err(|error| self.problem(&error))?;
        self.given += count as u64;
        self.bound()?;
        Ok(count)
    }

    /// All that is in a body which came whole.
    pub(super) fn whole(body: Bytes, most: usize) -> Result<Bytes, Problem> {
        if Encoding::of(&body).is_none() {
            return Ok(body);
        }
        let (sender, receiver) = mpsc::channel(1);
        sender.try_send(Ok(body)).map_err(|_| Problem::internal("a channel has no room"))?;
        drop(sender);
        let mut inflated = Self::with_limit(receiver, most as u64)?;
        let (mut out, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
        loop {
            match inflated.next(&mut buffer)? {
                0 => return Ok(out.into()),
                count => out.extend_from_slice(&buffer[..count]),
            }
        }
    }

    /// Why it could not be read as a [`Read`].
    pub(super) fn failed(&mut self) -> Option<Problem> {
        self.failed.take()
    }

    fn pieces(&mut self) -> (&mut Pieces, Option<Encoding>) {
        match &mut self.source {
            Source::Plain(pieces) => (pieces, None),
            Source::Gzip(decoder) => (decoder.get_mut(), Some(Encoding::Gzip)),
            Source::Zstd(decoder) => (&mut decoder.pieces, Some(Encoding::Zstd)),
        }
    }

    /// What went wrong with the body: it broke off, or what came does not decode.
    fn problem(&mut self, error: &io::Error) -> Problem {
        let given = self.given;
        let (pieces, encoding) = self.pieces();
        if let Some(problem) = pieces.broken.take() {
            return problem;
        }
        let name = encoding.map_or("body", Encoding::name);
        let (after, ended) = (pieces.taken, pieces.piece.is_empty() && pieces.receiver.is_closed());
        let what = match ended || error.kind() == io::ErrorKind::UnexpectedEof {
            true => "ends too early",
            false => "is damaged",
        };
        let detail = format!(
            "the {name} {what} after {after} compressed bytes, {given} when decoded: compress and send it again"
        );
        Problem::bad_request("bad-compression", detail)
    }

    /// A body that is not compressed has no bound.
    fn bound(&mut self) -> Result<(), Problem> {
        let (given, most) = (self.given, self.most);
        let (pieces, Some(encoding)) = self.pieces() else { return Ok(()) };
        let allowed = most.min(pieces.received.saturating_mul(MAX_RATIO).max(FREE_BYTES));
        if given <= allowed {
            return Ok(());
        }
        let detail = format!(
            "the {} decodes to more than {allowed} bytes, and a compressed table may have {MAX_RATIO} times its size \
             and {most} bytes: send it uncompressed",
            encoding.name()
        );
        Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", detail))
    }
}

impl Read for Inflated {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.next(buffer).map_err(|problem| {
            self.failed = Some(problem);
            io::Error::other("the body cannot be read")
        })
    }
}

/// The frames of a zstd file, one after the other.
struct Zstd {
    pieces: Pieces,
    decoder: FrameDecoder,
    open: bool,
}

impl Zstd {
    fn new(pieces: Pieces) -> Self {
        Self { pieces, decoder: FrameDecoder::new(), open: false }
    }

    /// Begins the next frame; says whether there is one.
    fn begin(&mut self) -> io::Result<bool> {
        while !self.pieces.fill_buf()?.is_empty() {
            match self.decoder.init(&mut self.pieces) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let length = u64::from(length);
                    if io::copy(&mut (&mut self.pieces).take(length), &mut io::sink())? < length {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(false)
    }
}

impl Read for Zstd {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        /// How much is decoded before it is taken.
        const AHEAD: usize = 128 << 10;
        loop {
            if !self.open {
                if !self.begin()? {
                    return Ok(0);
                }
                self.open = true;
            }
            let count = self.decoder.read(buffer)?;
            if count > 0 {
                return Ok(count);
            }
            if self.decoder.is_finished() {
                let (kept, found) =
                    (self.decoder.get_checksum_from_data(), self.decoder.get_calculated_checksum());
                if kept.is_some() && kept != found {
                    return Err(io::Error::other("its checksum is another"));
                }
                self.open = false;
            } else {
                let some = ruzstd::decoding::BlockDecodingStrategy::UptoBytes(AHEAD);
                self.decoder.decode_blocks(&mut self.pieces, some).map_err(io::Error::other)?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        compress_to_vec(bytes, CompressionLevel::Fastest)
    }

    fn inflate(body: &[u8], piece: usize, most: u64) -> Result<Vec<u8>, Problem> {
        let pieces: Vec<_> = body.chunks(piece).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        let (sender, receiver) = mpsc::channel(pieces.len() + 1);
        pieces.into_iter().for_each(|piece| sender.try_send(piece).unwrap());
        drop(sender);
        let mut inflated = Inflated::with_limit(receiver, most)?;
        let (mut out, mut buffer) = (Vec::new(), [0; 777]);
        loop {
            match inflated.next(&mut buffer)? {
                0 => return Ok(out),
                count => out.extend_from_slice(&buffer[..count]),
            }
        }
    }

    fn table() -> Vec<u8> {
        (0..20_000).flat_map(|row: u64| format!("{row},{}\n", row * row % 977).into_bytes()).collect()
    }

    #[test]
    fn what_was_compressed_is_decoded_however_it_is_cut() {
        let table = table();
        let skipped = [&[0x53, 0x2A, 0x4D, 0x18, 3, 0, 0, 0, 1, 2, 3][..], &zstd(&table)].concat();
        let (a, b) = table.split_at(5_000);
        let bodies = [
            table.clone(),
            gzip(&table),
            zstd(&table),
            skipped,
            [gzip(a), gzip(b)].concat(),
            [zstd(a), zstd(b)].concat(),
        ];
        for (case, body) in bodies.iter().enumerate() {
            for piece in [1, 1000, body.len()] {
                assert!(inflate(body, piece, 1 << 30).unwrap() == table, "{case} in pieces of {piece}");
            }
        }
        assert_eq!(inflate(b"", 1, 1).unwrap(), b"");
        assert_eq!(inflate(b"a,", 1, 1).unwrap(), b"a,");
    }

    #[test]
    fn bodies_that_end_early_or_are_damaged_are_told() {
        let table = table();
        for body in [gzip(&table), zstd(&table)] {
            for end in [5, 9, 100, body.len() / 2, body.len() - 1] {
                let problem = inflate(&body[..end], 50, 1 << 30).unwrap_err();
                assert_eq!(
                    (problem.status, problem.code.as_str()),
                    (400, "bad-compression"),
                    "{end}: {problem}"
                );
                assert!(problem.detail.contains("ends too early"), "{end}: {problem}");
            }
            let mut damaged = 0;
            for at in (20..body.len()).step_by(body.len() / 40) {
                let mut body = body.clone();
                body[at] ^= 0x10;
                let Err(problem) = inflate(&body, 4096, 1 << 30) else { continue };
                assert_eq!((problem.status, problem.code.as_str()), (400, "bad-compression"), "{problem}");
                damaged += 1;
            }
            assert!(damaged >= 38, "checksums find what decoders do not: {damaged}");
        }
        let trailing = [&gzip(&table)[..], b"more"].concat();
        assert!(inflate(&trailing, 50, 1 << 30).is_err());
    }

    #[test]
    fn small_bodies_do_not_become_huge() {
        let zeros = vec![b'0'; 64 << 20];
        for body in [gzip(&zeros), zstd(&zeros)] {
            let problem = inflate(&body, 4096, 1 << 30).unwrap_err();
            assert_eq!((problem.status, problem.code.as_str()), (413, "body-too-large"));
            assert!(problem.detail.contains("200 times its size"), "{problem}");
        }
        let problem = inflate(&gzip(&table()), 4096, 1000).unwrap_err();
        assert_eq!(problem.status, 413, "{problem}");
        assert!(inflate(&table(), 4096, 1000).is_ok(), "what is not compressed has no bound");
        let whole = |most| Inflated::whole(gzip(&table()).into(), most);
        assert!(whole(1 << 20).unwrap() == table());
        assert_eq!(whole(1000).unwrap_err().status, 413);
    }

    #[test]
    fn other_encodings_are_refused_by_name() {
        let check_ = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_ENCODING, axum::http::HeaderValue::from_static(value));
            check(&headers)
        };
        assert!(["identity", "gzip", "GZIP", "x-gzip", "zstd"].iter().all(|good| check_(good).is_ok()));
        for bad in ["br", "deflate", "gzip, gzip", "zstd, br"] {
            let problem = check_(bad).unwrap_err();
            assert_eq!((problem.status, problem.code.as_str()), (415, "unknown-encoding"));
            assert!(problem.detail.contains(bad) && problem.detail.contains("gzip or zstd"), "{problem}");
        }
    }
}
