//! What the operating system knows of the process, under the names that Prometheus' own libraries use.

use std::fs;

use super::Page;

/// Memory, open files and the version; where the system does not tell, that is left out.
pub(crate) fn process(page: &mut Page) {
    if let Some(bytes) = fs::read_to_string("/proc/self/status").ok().and_then(|text| resident(&text)) {
        page.gauge("process_resident_memory_bytes", "Memory of the process.", bytes as f64);
    }
    if let Ok(files) = fs::read_dir("/proc/self/fd") {
        page.gauge("process_open_fds", "Files and connections that are open.", files.count() as f64);
    }
    page.head("dml_build_info", "gauge", "The version that runs; always 1.");
    page.sample("dml_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
}

/// The resident memory in the system's report on a process.
fn resident(report: &str) -> Option<u64> {
    let words = report.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    words.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_read() {
        assert_eq!(resident("VmPeak:\t 9 kB\nVmRSS:\t   12345 kB\n"), Some(12_345 << 10));
        assert_eq!(resident("VmPeak:\t 9 kB\n"), None);
    }
}
