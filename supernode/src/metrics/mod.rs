//! Metrics of one peer, for Prometheus: what can be shown (`catalogue`), and a
//! recorder of its own, so that peers of one process never mix.
//!
//! What the peer counts anyway is read when somebody asks; only latencies and
//! refusals are counted as they happen, by handles that were made before.
//!
//! | file | idea |
//! |---|---|
//! | [`catalogue`] | every metric: name, kind, unit, labels, meaning |
//! | `requests` | what requests are counted by |
//! | `latency` | how long things take, in fixed buckets |
//! | `read` | from a peer to its metrics |
//! | `page` | the catalogue as docs/metrics.md |

pub mod catalogue;
mod latency;
mod page;
mod read;
mod requests;

use std::sync::Arc;

use metrics::{Counter, Histogram, Key, KeyName, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::formatting::{write_help_line, write_type_line};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use parking_lot::Mutex;

use crate::store::Counted;
use catalogue::{Kind, Metric, id};
use latency::Buckets;

pub use page::page;
pub(crate) use read::Reading;
pub use requests::Requests;

/// How the metrics of this crate are told to a recorder.
const ORIGIN: Metadata<'static> = Metadata::new("canopy", Level::INFO, Some(module_path!()));

/// The metrics of one peer. Clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    inner: Arc<Inner>,
}

struct Inner {
    recorder: PrometheusRecorder,
    rendered: PrometheusHandle,
    process: metrics_process::Collector,
    /// Histograms with their labels, in the order in which they were made.
    histograms: Mutex<Vec<(&'static Metric, String, Arc<Buckets>)>>,
    requests: Requests,
    counted: Counted,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Metrics that nothing has been counted for.
    pub fn new() -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        for metric in catalogue::all() {
            let name = KeyName::from_const_str(metric.name);
            match metric.kind {
                Kind::Counter => recorder.describe_counter(name, None, metric.help.into()),
                Kind::Gauge => recorder.describe_gauge(name, None, metric.help.into()),
                // Rendered here.
                Kind::Histogram => {}
            }
        }
        let histograms = Mutex::default();
        let counted = Counted {
            written: counter(&recorder, &id::STORE_WRITTEN, &[]),
            failures: counter(&recorder, &id::STORE_FAILURES, &[]),
            commits: histogram(&histograms, &id::STORE_COMMITS, ""),
        };
        let requests = Requests::new(
            requests::NAMES.map(|name| {
                let label = format!("request=\"{name}\"");
                histogram(&histograms, &id::REQUESTS, &label)
            }),
            requests::CODES.map(|code| counter(&recorder, &id::REFUSALS, &[code])),
        );
        Self {
            inner: Arc::new(Inner {
                rendered: recorder.handle(),
                recorder,
                process: metrics_process::Collector::default(),
                histograms,
                requests,
                counted,
            }),
        }
    }

    /// What requests are counted by.
    pub(crate) fn requests(&self) -> Requests {
        self.inner.requests.clone()
    }

    /// What the store's writes are counted by.
    pub(crate) fn counted(&self) -> Counted {
        self.inner.counted.clone()
    }

    /// Sets a counter to a count that is kept elsewhere. It never goes back.
    /// `values` are those of the metric's labels, in their order.
    pub fn count(&self, metric: &Metric, values: &[&str], count: u64) {
        debug_assert_eq!(metric.kind, Kind::Counter, "{}", metric.name);
        counter(&self.inner.recorder, metric, values).absolute(count);
    }

    /// Sets a gauge. `values` are those of the metric's labels, in their order.
    pub fn set(&self, metric: &Metric, values: &[&str], value: f64) {
        debug_assert_eq!(metric.kind, Kind::Gauge, "{}", metric.name);
        let key = key(metric, values);
        self.inner.recorder.register_gauge(&key, &ORIGIN).set(value);
    }

    /// Everything as text for Prometheus, after what the process itself uses was
    /// read.
    pub fn render(&self) -> String {
        let inner = &self.inner;
        metrics::with_local_recorder(&inner.recorder, || inner.process.collect());
        let mut out = inner.rendered.render();
        let mut before = "";
        for (metric, labels, buckets) in inner.histograms.lock().iter() {
            if metric.name != before {
                write_help_line(&mut out, metric.name, None, None, metric.help);
                write_type_line(&mut out, metric.name, None, None, "histogram");
                before = metric.name;
            }
            buckets.render(metric.name, labels, &mut out);
        }
        out
    }
}

fn counter(recorder: &PrometheusRecorder, metric: &Metric, values: &[&str]) -> Counter {
    recorder.register_counter(&key(metric, values), &ORIGIN)
}

fn histogram(
    all: &Mutex<Vec<(&'static Metric, String, Arc<Buckets>)>>,
    metric: &'static Metric,
    labels: &str,
) -> Histogram {
    let buckets = Arc::new(Buckets::default());
    all.lock()
        .push((metric, labels.to_owned(), Arc::clone(&buckets)));
    Histogram::from_arc(buckets)
}

fn key(metric: &Metric, values: &[&str]) -> Key {
    debug_assert_eq!(metric.labels.len(), values.len(), "{}", metric.name);
    let pair = |(label, value): (&&'static catalogue::Label, &&str)| {
        let known = label.values.is_empty() || label.values.contains(value);
        debug_assert!(known, "{}: {value}", metric.name);
        Label::new(label.name, (*value).to_owned())
    };
    let labels: Vec<Label> = metric.labels.iter().zip(values).map(pair).collect();
    Key::from_parts(metric.name, labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_of_one_process_do_not_mix() {
        let (one, other) = (Metrics::new(), Metrics::new());
        one.set(&id::LEAVES, &[], 7.0);
        one.count(&id::HEDGES, &[], 3);
        let (one, other) = (one.render(), other.render());
        assert!(one.contains("\ncanopy_leaves 7\n"), "{one}");
        assert!(one.contains("\ncanopy_index_hedges_total 3\n"), "{one}");
        assert!(!other.contains("canopy_leaves"), "{other}");
        // The process is one and the same.
        assert!(
            other.contains("\nprocess_resident_memory_bytes "),
            "{other}"
        );
    }

    #[test]
    fn a_name_that_a_user_chose_cannot_break_a_line() {
        let metrics = Metrics::new();
        metrics.set(&id::OVERLAY, &["a\"b\n# c\\", "pure"], 1.0);
        let text = metrics.render();
        let line = r#"canopy_overlay_info{network="a\"b\n# c\\",topology="pure"} 1"#;
        assert!(text.lines().any(|l| l == line), "{text}");
    }

    #[test]
    fn a_counter_that_is_read_late_does_not_go_back() {
        let metrics = Metrics::new();
        metrics.count(&id::HEDGES, &[], 3);
        metrics.count(&id::HEDGES, &[], 2);
        assert!(metrics.render().contains("\ncanopy_index_hedges_total 3\n"));
    }

    #[test]
    fn requests_and_commits_are_there_before_the_first_one() {
        let metrics = Metrics::new();
        metrics.counted().commits.record(0.002);
        let text = metrics.render();
        for wanted in [
            "# TYPE canopy_index_request_duration_seconds histogram\n",
            "\ncanopy_index_request_duration_seconds_count{request=\"offer\"} 0\n",
            "\ncanopy_store_commit_duration_seconds_bucket{le=\"0.0025\"} 1\n",
            "\ncanopy_index_refusals_total{code=\"quota\"} 0\n",
        ] {
            assert!(text.contains(wanted), "{wanted}: {text}");
        }
        let types = text.matches("# TYPE canopy_index_request_duration_seconds ");
        assert_eq!(types.count(), 1);
    }
}
