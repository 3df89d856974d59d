//! How fast tables come in: CSV to typed chunks and their statistics, as a program does it that embeds the library.
//!
//! `cargo bench --bench tables -- csv [rows]` prints the best of five, by the wall clock and by MB/s. The table has 28
//! columns of floats with six digits and a target of 0 and 1; `RAYON_NUM_THREADS` says on how many threads. With
//! `write FILE` it writes that table, so that other readers can be compared.

use std::{fmt::Write as _, fs, io::Cursor, time::Instant};

use dml_compute::table::{Limits, TableError, read_table};

const RUNS: usize = 5;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let rows = |text: Option<&String>| text.map_or(Ok(1_000_000), |text| text.parse());
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] | ["csv", ..] => csv(&table(rows(arguments.get(1))?))?,
        ["write", file, ..] => fs::write(file, table(rows(arguments.get(2))?))?,
        _ => return Err("usage: tables [csv [ROWS] | write FILE [ROWS]]".into()),
    }
    Ok(())
}

#[allow(clippy::print_stdout, reason = "a benchmark reports on its output")]
fn csv(text: &str) -> Result<(), TableError> {
    for run in 1..=RUNS {
        let start = Instant::now();
        let (chunks, _) = read_table(Cursor::new(text), Limits::default())?;
        let rows: usize = chunks.iter().map(|chunk| chunk.num_rows()).sum();
        let (seconds, size) = (start.elapsed().as_secs_f64(), text.len() as f64 / 1e6);
        println!("run {run}: {rows} rows, {size:.0} MB in {seconds:.3} s: {:.0} MB/s", size / seconds);
    }
    Ok(())
}

/// A table of numbers as programs write them: short floats of either sign, and a target.
fn table(rows: usize) -> String {
    let mut state = 1_u64;
    let mut next = move || {
        // Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (2014).
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    };
    let mut text: String = (0..28).map(|column| format!("c{column},")).collect();
    text.push_str("target\n");
    for _ in 0..rows {
        for _ in 0..28 {
            let value = (next() % 4_000_000) as f64 / 1e6 - 2.0;
            write!(text, "{value:.6},").expect("writing to a string");
        }
        text.push_str(if next() % 2 == 0 { "0\n" } else { "1\n" });
    }
    text
}
