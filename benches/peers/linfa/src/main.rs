//! linfa's side of the comparison: `linfa-peer CASE DIRECTORY SAID` fits a case on raw doubles, prints one line of JSON
//! and writes what the model says of the judging rows into the file SAID.

use std::{env, error::Error, fs, io, path::Path, time::Instant};

use linfa::{Dataset, traits::Fit};
use linfa_bayes::{GaussianNb, NaiveBayes};
use linfa_logistic::LogisticRegression;
use ndarray::{Array1, Array2};

/// How many columns the table has beside the target.
const COLUMNS: usize = 28;

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = env::args().skip(1).collect();
    let [case, directory, out] = &words[..] else { return Err("say: linfa-peer CASE DIRECTORY SAID".into()) };
    let directory = Path::new(directory);
    let (seconds, peak, said) = match case.as_str() {
        "gaussian_nb" => {
            let (x, y) = read(&directory.join("binary"), "train")?;
            let rows = Dataset::new(x, y.mapv(|y| y as usize));
            let start = Instant::now();
            let model = GaussianNb::params().var_smoothing(1e-9).fit(&rows)?;
            let (seconds, peak) = (start.elapsed().as_secs_f64(), peak_mib());
            let (judge, _) = read(&directory.join("binary"), "judge")?;
            let (p, classes) = model.predict_proba(judge.view());
            let second = classes.iter().position(|class| **class == 1).ok_or("the model has no class 1")?;
            (seconds, peak, p.column(second).to_vec())
        }
        "logistic" => {
            let (x, y) = read(&directory.join("binary"), "train")?;
            let rows = Dataset::new(x, y.mapv(|y| y as usize));
            let start = Instant::now();
            let model = LogisticRegression::default().alpha(1.0).max_iterations(100).fit(&rows)?;
            let (seconds, peak) = (start.elapsed().as_secs_f64(), peak_mib());
            // Probabilities are of the class that the model calls positive.
            let positive = model.labels().pos.class == 1;
            let p = model.predict_probabilities(rows.records());
            (seconds, peak, p.mapv(|p| if positive { p } else { 1.0 - p }).to_vec())
        }
        _ => return Err(format!("linfa has no case '{case}' here").into()),
    };
    fs::write(out, said.into_iter().flat_map(f64::to_le_bytes).collect::<Vec<u8>>())?;
    println!("{{\"seconds\": {seconds}, \"peak_mib\": {peak}}}");
    Ok(())
}

/// Raw doubles: the features row by row, and the targets.
fn read(directory: &Path, part: &str) -> Result<(Array2<f64>, Array1<f64>), Box<dyn Error>> {
    let numbers = |name: String| -> io::Result<Vec<f64>> {
        let bytes = fs::read(directory.join(name))?;
        Ok(bytes.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect())
    };
    let (x, y) = (numbers(format!("{part}_x.f64"))?, numbers(format!("{part}_y.f64"))?);
    Ok((Array2::from_shape_vec((y.len(), COLUMNS), x)?, y.into()))
}

/// The most memory that the process has held.
fn peak_mib() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .map(|kib| kib.trim().trim_end_matches(" kB"));
    kib.and_then(|kib| kib.parse::<f64>().ok()).map_or(0.0, |kib| kib / 1024.0)
}
