//! Where blocks of whole records end, so that they can be read apart from each other.

use std::ops::Range;

use memchr::{memchr, memrchr};

/// About how many bytes a block has: few enough to stay in a core's cache, with the columns that it becomes.
pub(super) const BLOCK_BYTES: usize = 256 << 10;

/// The bytes cut into blocks. What follows the last is a record that has not ended yet.
///
/// The bytes begin where a record does. Quotes decide which line feeds end one, just as they do for
/// [`super::records::Records`]: a stray quote inside a value means nothing.
pub(super) fn blocks(bytes: &[u8], delimiter: u8) -> Vec<Range<usize>> {
    let mut blocks = Vec::new();
    let mut start = 0;
    while let Some(length) = block(&bytes[start..], delimiter) {
        blocks.push(start..start + length);
        start += length;
    }
    blocks
}

fn block(bytes: &[u8], delimiter: u8) -> Option<usize> {
    let window = &bytes[..bytes.len().min(BLOCK_BYTES)];
    if memchr(b'"', window).is_none()
        && let Some(last) = memrchr(b'\n', window)
    {
        return Some(last + 1);
    }
    let (mut at, mut open, mut found) = (0, false, None);
    while let Some(length) = memchr(b'\n', &bytes[at..]) {
        open = leaves_open(&bytes[at..at + length], delimiter, open);
        at += length + 1;
        if found.is_some() && at > BLOCK_BYTES {
            break;
        }
        if !open {
            found = Some(at);
        }
    }
    found
}

/// Whether a quoted value goes on after a line.
fn leaves_open(line: &[u8], delimiter: u8, mut open: bool) -> bool {
    let mut at = 0;
    if !open && memchr(b'"', line).is_none() {
        return false;
    }
    loop {
        if open {
            let Some(length) = memchr(b'"', &line[at..]) else { return true };
            at += length + 1;
            if line.get(at) == Some(&b'"') {
                at += 1;
                continue;
            }
            open = false;
        } else if line.get(at) == Some(&b'"') {
            open = true;
            at += 1;
            continue;
        }
        // What follows a closing quote is text, and so are other quotes in it.
        let Some(length) = memchr(delimiter, &line[at..]) else { return false };
        at += length + 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::table::{Limits, records::Records};

    /// After which bytes no record is open, by the reader itself.
    fn ends(text: &[u8]) -> Vec<usize> {
        let mut head = Records::new(Limits::default());
        head.advance_head(&mut b"a,b\n".as_slice()).unwrap();
        let line_ends = (0..text.len()).filter(|at| text[*at] == b'\n').map(|at| at + 1);
        let closed = |end: &usize| {
            let mut records = head.resumed(0, 0);
            let mut input = &text[..*end];
            // Ragged rows end as well as others; the rest is read anew.
            while !input.is_empty() {
                if records.advance(&mut input).is_err() {
                    records = head.resumed(0, 0);
                }
            }
            records.finish().is_ok()
        };
        line_ends.filter(closed).collect()
    }

    proptest! {
        #[test]
        fn blocks_end_where_records_do(text in "[a,\"\r\n]{0,40}") {
            let text = text.as_bytes();
            let last = blocks(text, b',').last().map(|block| block.end);
            prop_assert_eq!(last, ends(text).last().copied());
        }
    }

    #[test]
    fn large_tables_are_cut_evenly() {
        for row in ["1,2\n", "1,\"2\n\n,\"\n"] {
            let text = row.repeat(1 << 18);
            let blocks = blocks(text.as_bytes(), b',');
            assert!(blocks.iter().all(|block| block.len() <= BLOCK_BYTES && block.len() % row.len() == 0));
            assert_eq!(blocks.len(), text.len().div_ceil(BLOCK_BYTES / row.len() * row.len()));
        }
        let long = format!("\"{}\",1\nopen,\"\n", "x\n".repeat(BLOCK_BYTES));
        assert_eq!(blocks(long.as_bytes(), b',').last(), Some(&(0..long.len() - 7)));
    }
}
