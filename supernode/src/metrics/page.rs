//! The catalogue as a page for people: docs/metrics.md.

use std::fmt::Write;

use super::catalogue::{Kind, Metric, SECTIONS, Unit, all};

const HEAD: &str = "\
# Metrics

What a peer tells Prometheus at `/metrics` of its HTTP port (`--http`). This page is
made from the code, and a test fails where it is not up to date; after a change of
`supernode/src/metrics/catalogue.rs` run

```sh
CANOPY_WRITE_DOCS=1 cargo test --release -p canopy-supernode --test metrics_page
```

Every value of every label is listed: a node has at most SERIES series, whatever
the number of its peers. Counters begin at 0 with the process. Peers of one process
(`leaf demo`) have metrics of their own each, but for those of the process.
";

/// The text of docs/metrics.md.
pub fn page() -> String {
    let series: usize = all().map(Metric::series).sum();
    let mut out = HEAD.replace("SERIES", &series.to_string());
    for section in SECTIONS {
        line(&mut out, format_args!("\n## {}\n", section.title));
        line(
            &mut out,
            format_args!("| metric | kind | in | labels | says |"),
        );
        line(&mut out, format_args!("|---|---|---|---|---|"));
        for metric in section.metrics {
            let (kind, unit) = (kind(metric.kind), unit(metric.unit));
            let (name, labels, help) = (metric.name, labels(metric), metric.help);
            line(
                &mut out,
                format_args!("| `{name}` | {kind} | {unit} | {labels} | {help} |"),
            );
        }
    }
    out
}

fn labels(metric: &Metric) -> String {
    let labels = metric.labels.iter().map(|label| {
        let values: Vec<String> = label
            .values
            .iter()
            .map(|value| format!("`{value}`"))
            .collect();
        match values.is_empty() {
            true => format!("`{}`", label.name),
            false => format!("`{}`: {}", label.name, values.join(", ")),
        }
    });
    labels.collect::<Vec<_>>().join("; ")
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    }
}

fn unit(unit: Unit) -> &'static str {
    match unit {
        Unit::Count => "",
        Unit::Switch => "0 or 1",
        Unit::Ratio => "share of 1",
        Unit::Seconds => "seconds",
        Unit::Bytes => "bytes",
        Unit::BytesPerSecond => "bytes a second",
        Unit::PerSecond => "a second",
    }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // A string takes everything.
    let _ = writeln!(out, "{text}");
}
