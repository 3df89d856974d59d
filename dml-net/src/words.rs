//! Numbers, times and metrics as people read them, in the console application and in the browser.

use dml_compute::metrics::Report;

/// A number with five digits or so: enough to compare, few enough to read.
pub fn number(value: f64) -> String {
    if value == 0.0 {
        return "0".into();
    }
    let size = value.abs();
    if !(1e-4..1e15).contains(&size) {
        return format!("{value:.3e}");
    }
    let text = format!("{value:.*}", decimals(value));
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').into(),
        false => text,
    }
}

/// How many decimals make five digits or so; more for numbers that are very small.
pub fn decimals(value: f64) -> usize {
    let size = value.abs();
    if size > 0.0 && size < 1e-3 {
        return (3 - size.log10().floor() as i32).clamp(4, 20) as usize;
    }
    let decimals = [(1e5, 0), (1e3, 1), (1e2, 2), (1e1, 3)].iter().find(|(least, _)| size >= *least);
    decimals.map_or(4, |(_, decimals)| *decimals)
}

/// A count with its digits in groups of three.
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.char_indices() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// `1 row`, `2 rows`.
pub fn counted(value: u64, noun: &str) -> String {
    let things = match (value, noun.strip_suffix('y').filter(|stem| !stem.ends_with(['a', 'e', 'o', 'u']))) {
        (1, _) => noun.into(),
        (_, Some(stem)) => format!("{stem}ies"),
        (_, None) => format!("{noun}s"),
    };
    format!("{} {things}", count(value))
}

/// `1.5 MiB`.
pub fn size(bytes: u64) -> String {
    let units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let (mut number, mut unit) = (bytes as f64, 0);
    while number >= 1024.0 && unit + 1 < units.len() {
        (number, unit) = (number / 1024.0, unit + 1);
    }
    if unit == 0 { counted(bytes, "byte") } else { format!("{number:.1} {}", units[unit]) }
}

/// How long ago that was.
pub fn ago(created_ms: u64) -> String {
    let now = std::time::UNIX_EPOCH.elapsed().map_or(0, |now| now.as_secs());
    span_ago(now.saturating_sub(created_ms / 1000))
}

/// How far ahead the end of something is.
pub fn until(end_ms: u64) -> String {
    let now = std::time::UNIX_EPOCH.elapsed().map_or(0, |now| now.as_secs());
    match (end_ms / 1000).saturating_sub(now) {
        0 => "over".into(),
        left => format!("in {}", span(left)),
    }
}

fn span_ago(seconds: u64) -> String {
    if seconds < 5 { "just now".into() } else { format!("{} ago", span(seconds)) }
}

/// A time span in its greatest unit.
pub fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86400 => format!("{} h", seconds / 3600),
        _ => counted(seconds / 86400, "day"),
    }
}

/// A metric of a report, with its deviation over the folds if there are several.
pub fn metric(report: &Report, name: &str) -> String {
    let Some(value) = report.get(name) else { return "-".into() };
    let decimals = places(name, value);
    match report.std.as_ref().and_then(|std| std.get(name)) {
        Some(deviation) => format!("{value:.decimals$} ± {deviation:.decimals$}"),
        None => format!("{value:.decimals$}"),
    }
}

/// Between which bounds a metric lies with a confidence of 95 %, if that can be told.
pub fn interval(report: &Report, name: &str) -> Option<String> {
    let [low, high] = report.interval.get(name)?;
    let decimals = places(name, report.get(name)?);
    Some(format!("{low:.decimals$} to {high:.decimals$}"))
}

/// How many decimals a metric is shown with.
fn places(name: &str, value: f64) -> usize {
    match name {
        "rmse" | "mae" => decimals(value),
        _ => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let values =
            [0.0, 0.98512345, 1.0, -12.3456, 1234.56789, 15012.345, 1234567.8, 0.5, 1e-9, 1e20, 100.0];
        let texts = values.map(number);
        let wanted = [
            "0", "0.9851", "1", "-12.346", "1234.6", "15012.3", "1234568", "0.5", "1.000e-9", "1.000e20",
            "100",
        ];
        assert_eq!(texts, wanted);
    }

    #[test]
    fn counts_and_spans_read_well() {
        assert_eq!([0, 999, 1000, 1234567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!((counted(1, "row"), counted(344, "row")), ("1 row".to_string(), "344 rows".into()));
        assert_eq!((counted(2, "study"), counted(2, "day")), ("2 studies".to_string(), "2 days".into()));
        let spans = [0, 59, 60, 7200, 86400, 200_000].map(span_ago);
        assert_eq!(spans, ["just now", "59 s ago", "1 min ago", "2 h ago", "1 day ago", "2 days ago"]);
    }

    #[test]
    fn sizes_read_well() {
        assert_eq!([1, 1023, 1536, 3 << 30].map(size), ["1 byte", "1,023 bytes", "1.5 KiB", "3.0 GiB"]);
    }
}
