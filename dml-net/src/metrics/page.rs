//! The text: one family of samples after the other, each with what it means.

use std::fmt::Write;

use axum::{
    http::header,
    response::{IntoResponse, Response},
};

use super::{BOUNDS, Histogram};

/// The names and values that tell the samples of a family apart.
pub(crate) type Labels<'a> = &'a [(&'a str, &'a str)];

/// A page of metrics.
#[derive(Debug, Default)]
pub(crate) struct Page(String);

impl Page {
    /// A number that goes up and down.
    pub(crate) fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.head(name, "gauge", help);
        self.sample(name, &[], value);
    }

    /// A number that only grows; its name ends in `_total`.
    pub(crate) fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, "counter", help);
        self.sample(name, &[], value as f64);
    }

    /// Begins a family of gauges or counters with labels: a [`Page::sample`] of each has to follow.
    pub(crate) fn head(&mut self, name: &str, kind: &str, help: &str) {
        let help = help.replace('\\', r"\\").replace('\n', r"\n");
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    /// A sample of the family that was begun.
    pub(crate) fn sample(&mut self, name: &str, labels: Labels<'_>, value: f64) {
        let labels = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value)));
        let labels = labels.collect::<Vec<_>>().join(",");
        if labels.is_empty() {
            self.line(format_args!("{name} {value}"));
        } else {
            self.line(format_args!("{name}{{{labels}}} {value}"));
        }
    }

    /// A histogram of the family that was begun: what took no longer than each bound, in all, and together.
    pub(crate) fn histogram(&mut self, name: &str, labels: Labels<'_>, histogram: &Histogram) {
        let (bucket, mut sum) = (format!("{name}_bucket"), 0);
        let bounds = BOUNDS.iter().map(f64::to_string).chain(["+Inf".into()]);
        for (bound, count) in bounds.zip(&histogram.buckets) {
            sum += count.get();
            self.sample(&bucket, &[labels, &[("le", &bound)]].concat(), sum as f64);
        }
        self.sample(&format!("{name}_sum"), labels, histogram.seconds());
        self.sample(&format!("{name}_count"), labels, sum as f64);
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{line}").expect("a string takes what is written");
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], self.0).into_response()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_page_is_golden() {
        let mut page = Page::default();
        page.gauge("room_bytes", "A \\ and\na line.", 1.5e9);
        page.head("seen_total", "counter", "Seen.");
        page.sample("seen_total", &[("who", "a \"b\"\\\n"), ("how", "well")], 3.0);
        let took = Histogram::default();
        [0, 500, 501, 40_000_000].iter().for_each(|micros| took.observe(Duration::from_micros(*micros)));
        page.head("took_seconds", "histogram", "Took.");
        page.histogram("took_seconds", &[("what", "x")], &took);
        let head = concat!(
            "# HELP room_bytes A \\\\ and\\na line.\n# TYPE room_bytes gauge\nroom_bytes 1500000000\n",
            "# HELP seen_total Seen.\n# TYPE seen_total counter\n",
            "seen_total{who=\"a \\\"b\\\"\\\\\\n\",how=\"well\"} 3\n",
            "# HELP took_seconds Took.\n# TYPE took_seconds histogram\n",
            "took_seconds_bucket{what=\"x\",le=\"0.0005\"} 2\ntook_seconds_bucket{what=\"x\",le=\"0.001\"} 3\n",
        );
        assert_eq!(page.0.get(..head.len()), Some(head), "{}", page.0);
        let tail = concat!(
            "took_seconds_bucket{what=\"x\",le=\"30\"} 3\ntook_seconds_bucket{what=\"x\",le=\"+Inf\"} 4\n",
            "took_seconds_sum{what=\"x\"} 40.001001\ntook_seconds_count{what=\"x\"} 4\n",
        );
        assert!(page.0.ends_with(tail), "{}", page.0);
    }
}
