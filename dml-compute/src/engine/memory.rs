//! How much memory there is to share.

use std::fs;

/// The bytes of memory of this machine, or of the container that this process may not leave; none where the system does
/// not tell.
pub(super) fn total() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| in_kib(&text));
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let limits = limits.iter().filter_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok());
    limits.chain(machine).min()
}

/// What the first line of the system's report says.
fn in_kib(report: &str) -> Option<u64> {
    let words = report.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    words.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_read() {
        assert_eq!(in_kib("MemTotal:       24683960 kB\nMemFree: 1 kB\n"), Some(24_683_960 << 10));
        assert_eq!(in_kib("MemFree: 1 kB"), None);
        assert!(!cfg!(target_os = "linux") || total().is_some_and(|bytes| bytes > 1 << 20));
    }
}
