//! The HTTP port of a host: what it says is what the host did.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use canopy_supernode::metrics::catalogue::{self, Kind};

use crate::running::{BOUND, Running, fails, key};
use crate::visitor::{Visitor, value};

/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// The answer to a GET: status and body.
fn get(host: &Running, path: &str) -> (u16, String) {
    let addr = host.ready["http"].as_str().expect("an address");
    let mut stream = TcpStream::connect(addr).expect("it listens");
    stream.set_read_timeout(Some(BOUND)).expect("a time-out");
    let request = format!("GET {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    (status.expect("a status"), body.to_owned())
}

/// Every series with its value.
pub(crate) fn series(host: &Running) -> BTreeMap<String, f64> {
    let (status, page) = get(host, "/metrics");
    assert_eq!(status, 200);
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.filter_map(|line| line.rsplit_once(' '));
    pairs
        .map(|(name, value)| (name.to_owned(), value.parse().expect("a number")))
        .collect()
}

fn until_ready(host: &Running) {
    let until = Instant::now() + BOUND;
    while get(host, "/readyz").0 != 200 {
        assert!(Instant::now() < until, "ready in time");
        std::thread::sleep(LOOK);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_host_did_is_what_its_metrics_say() {
    let home = tempfile::tempdir().expect("a directory");
    key(home.path(), "op.key");
    let args = ["--operator-key", "op.key", "--capacity", "80 Mbit/s"];
    let host = Running::start(home.path(), &args);
    until_ready(&host);
    let visitor = Visitor::at(&host).await;
    let before = series(&host);
    let record = visitor.record(1, value("n", vec![7; 100]));
    let good = record.signed.clone();
    let mut forged = visitor.record(2, value("m", vec![7; 100])).signed;
    forged.signature = vec![0; 64].into();
    let outcomes = visitor.put(vec![good, forged]).await;
    assert!(outcomes[0].refusal.is_none() && outcomes[1].refusal.is_some());
    for _ in 0..5 {
        assert!(visitor.get(&record).await.is_some());
    }
    let after = series(&host);
    let grew = |name: &str| after[name] - before[name];
    for (name, by) in [
        (
            r#"canopy_index_operations_total{operation="put",outcome="stored"}"#,
            1.0,
        ),
        (
            r#"canopy_index_operations_total{operation="put",outcome="refused"}"#,
            1.0,
        ),
        (
            r#"canopy_index_operations_total{operation="get",outcome="found"}"#,
            5.0,
        ),
        (r#"canopy_index_refusals_total{code="invalid"}"#, 1.0),
        (
            r#"canopy_index_request_duration_seconds_count{request="get"}"#,
            5.0,
        ),
        (
            r#"canopy_index_request_duration_seconds_count{request="put"}"#,
            1.0,
        ),
        ("canopy_store_commit_duration_seconds_count", 1.0),
        ("canopy_store_failures_total", 0.0),
        ("canopy_index_records", 1.0),
    ] {
        // A record may be told of beside those: that of the host's location.
        match name.contains("store_commit") || name == "canopy_index_records" {
            true => assert!(grew(name) >= by, "{name}: {}", grew(name)),
            false => assert_eq!(grew(name), by, "{name}"),
        }
    }
    assert_eq!(after[r#"canopy_role{role="super-node"}"#], 1.0);
    assert_eq!(after[r#"canopy_role{role="leaf"}"#], 0.0);
    assert_eq!(after["canopy_ready"], 1.0);
    assert_eq!(after["canopy_capacity_bytes_per_second"], 1e7);
    assert_eq!(after["canopy_super_nodes"], 1.0);
    assert!(after["canopy_seats"] > 0.0);
    assert_eq!(after["canopy_seats"], after["canopy_placement_seats"]);
    assert!(after["canopy_store_disk_bytes"] > 0.0);
    assert!(after["canopy_sessions"] >= 1.0);
    host.end("-TERM");
}

#[test]
fn a_host_shows_all_of_the_catalogue_and_nothing_else() {
    let home = tempfile::tempdir().expect("a directory");
    key(home.path(), "op.key");
    let args = ["--operator-key", "op.key", "--capacity", "80 Mbit/s"];
    let host = Running::start(home.path(), &args);
    let shown = series(&host);
    shown.keys().for_each(|series| is_labelled_as_said(series));
    let shown: BTreeSet<String> = shown
        .into_keys()
        .map(|series| series.split('{').next().unwrap_or_default().to_owned())
        .collect();
    // A host has no requests of its own, and shares and fetches nothing.
    let of_leaves = ["canopy_client_", "canopy_content_"];
    let metrics = catalogue::all().filter(|m| !of_leaves.iter().any(|of| m.name.starts_with(of)));
    let names = metrics.flat_map(|metric| match metric.kind {
        Kind::Histogram => ["_bucket", "_sum", "_count"].map(|end| format!("{}{end}", metric.name)),
        Kind::Counter | Kind::Gauge => [""; 3].map(|_| metric.name.to_owned()),
    });
    assert_eq!(shown, names.collect());
    host.end("-TERM");
}

/// Each label of `name{label="value",...}` is in the catalogue, and its value too.
fn is_labelled_as_said(series: &str) {
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    let name = ["_bucket", "_sum", "_count"]
        .iter()
        .find_map(|end| name.strip_suffix(end))
        .filter(|base| base.ends_with("_seconds"))
        .unwrap_or(name);
    let mut all = catalogue::all();
    let metric = all.find(|metric| metric.name == name).expect(name);
    for label in labels
        .trim_end_matches('}')
        .split(',')
        .filter(|l| !l.is_empty())
    {
        let (label, value) = label.split_once('=').expect("a value");
        let value = value.trim_matches('"');
        if label == "le" {
            continue;
        }
        let said = metric.labels.iter().find(|said| said.name == label);
        let values = said.expect(series).values;
        assert!(values.is_empty() || values.contains(&value), "{series}");
    }
}

#[test]
fn a_host_that_has_not_joined_lives_and_is_not_ready() {
    let home = tempfile::tempdir().expect("a directory");
    let host = Running::start(home.path(), &["--peer", "127.0.0.1:1"]);
    assert_eq!(get(&host, "/healthz"), (200, "ok\n".to_owned()));
    let (status, reason) = get(&host, "/readyz");
    assert_eq!(status, 503, "{reason}");
    assert!(reason.len() > 10 && reason.ends_with('\n'), "{reason}");
    assert_eq!(series(&host)["canopy_ready"], 0.0);
    host.end("-TERM");
}

#[test]
fn a_port_that_is_taken_stops_the_start_and_is_named() {
    let home = tempfile::tempdir().expect("a directory");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = taken.local_addr().expect("bound").to_string();
    let line = ["run", "--data-dir", "data", "--http", &addr];
    fails(home.path(), &line, 5, "--http");
    let config = format!("http = {addr:?}\n");
    std::fs::write(home.path().join("host.toml"), config).expect("written");
    let line = ["run", "--data-dir", "data", "--config", "host.toml"];
    fails(home.path(), &line, 5, &addr);
    let line = ["run", "--data-dir", "data", "--http", "localhost"];
    fails(home.path(), &line, 2, "--http");
}
