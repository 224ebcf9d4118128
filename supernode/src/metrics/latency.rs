//! How long things take, in buckets that are there from the start.
//!
//! The exporter's own histogram keeps each sample until somebody reads it: an
//! allocation now and then, and memory without bound where nobody does. Here one
//! sample is two atomic adds.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use metrics::HistogramFn;

/// Upper bounds of the buckets, seconds: from an answer out of memory to a
/// request that was given up. Above the last one there is one more bucket.
pub(super) const BOUNDS: [f64; 17] = [
    0.000_01, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1,
    0.25, 0.5, 1.0, 2.5, 5.0,
];

/// One histogram.
#[derive(Debug, Default)]
pub(super) struct Buckets {
    /// How many fell into each bucket, not into those below.
    counts: [AtomicU64; BOUNDS.len() + 1],
    sum_ns: AtomicU64,
}

impl HistogramFn for Buckets {
    fn record(&self, seconds: f64) {
        let bucket = BOUNDS.partition_point(|bound| *bound < seconds);
        self.counts[bucket].fetch_add(1, Relaxed);
        // Saturates; what is not a number counts as nothing.
        self.sum_ns.fetch_add((seconds * 1e9) as u64, Relaxed);
    }
}

impl Buckets {
    /// Appends the lines of the histogram `name`; `labels` are `a="b"`, with
    /// commas between them.
    pub(super) fn render(&self, name: &str, labels: &str, out: &mut String) {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut count = 0;
        for (i, bucket) in self.counts.iter().enumerate() {
            count += bucket.load(Relaxed);
            let bound = BOUNDS.get(i).copied().unwrap_or(f64::INFINITY);
            let bound = match bound.is_finite() {
                true => bound.to_string(),
                false => "+Inf".to_owned(),
            };
            line(
                out,
                format_args!("{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}"),
            );
        }
        let braced = match labels.is_empty() {
            true => String::new(),
            false => format!("{{{labels}}}"),
        };
        let sum = self.sum_ns.load(Relaxed) as f64 / 1e9;
        line(out, format_args!("{name}_sum{braced} {sum}"));
        line(out, format_args!("{name}_count{braced} {count}"));
    }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // A string takes everything.
    let _ = writeln!(out, "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(buckets: &Buckets, labels: &str) -> Vec<String> {
        let mut out = String::new();
        buckets.render("x_seconds", labels, &mut out);
        out.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_sample_counts_in_its_bucket_and_all_above() {
        let buckets = Buckets::default();
        for seconds in [0.000_01, 0.002, 0.002, 60.0] {
            buckets.record(seconds);
        }
        let lines = rendered(&buckets, "");
        for wanted in [
            "x_seconds_bucket{le=\"0.00001\"} 1",
            "x_seconds_bucket{le=\"0.001\"} 1",
            "x_seconds_bucket{le=\"0.0025\"} 3",
            "x_seconds_bucket{le=\"5\"} 3",
            "x_seconds_bucket{le=\"+Inf\"} 4",
            "x_seconds_sum 60.00401",
            "x_seconds_count 4",
        ] {
            assert!(
                lines.iter().any(|line| line == wanted),
                "{wanted}: {lines:#?}"
            );
        }
        assert_eq!(lines.len(), BOUNDS.len() + 3);
    }

    #[test]
    fn labels_stand_before_the_bound() {
        let lines = rendered(&Buckets::default(), "request=\"get\"");
        assert_eq!(
            lines[0],
            "x_seconds_bucket{request=\"get\",le=\"0.00001\"} 0"
        );
        assert_eq!(lines.last().unwrap(), "x_seconds_count{request=\"get\"} 0");
    }

    #[test]
    fn what_is_no_time_is_counted_and_adds_nothing() {
        let buckets = Buckets::default();
        buckets.record(f64::NAN);
        buckets.record(-1.0);
        assert!(rendered(&buckets, "").contains(&"x_seconds_sum 0".to_owned()));
        assert!(rendered(&buckets, "").contains(&"x_seconds_count 2".to_owned()));
    }
}
