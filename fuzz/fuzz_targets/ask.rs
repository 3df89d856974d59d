#![no_main]

#[path = "../entries.rs"]
#[allow(dead_code, reason = "the rest is for other targets")]
mod entries;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| entries::ask(bytes));
