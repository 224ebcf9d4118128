//! Prometheus reads the metrics of real peers: their text is clean, their series
//! do not grow with the overlay, and queries and rules answer.
//!
//! Needs `promtool` and `prometheus` (Debian's package `prometheus`). Where they
//! are missing, the tests that need them say so and pass, unless
//! `CANOPY_TEST_PROMETHEUS` is set.

mod server;
mod tools;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use canopy_leaf::{Identity, Leaf};
use canopy_supernode::host::Host;
use canopy_supernode::http::{Http, Serving, Source};

use crate::common::{BOUND, host, leaf, until};
use serde_json::{Value as Json, json};
use server::Prometheus;
use tools::{output, tool};

/// Pause between two rounds of work.
const PAUSE: Duration = Duration::from_millis(200);

/// Hosts that serve by an operator's word, and leaves that use them.
struct Overlay {
    operator: Identity,
    hosts: Vec<Host>,
    leaves: Vec<Leaf>,
}

impl Overlay {
    async fn start(hosts: u8, leaves: usize) -> Self {
        let operator = Identity::from_secret([1; 32]);
        let mut overlay = Self {
            operator,
            hosts: Vec::new(),
            leaves: Vec::new(),
        };
        for n in 0..hosts {
            let others: Vec<&Host> = overlay.hosts.iter().collect();
            let next = host(&overlay.operator, n + 2, &others, false).await;
            overlay.hosts.push(next);
        }
        overlay.grow(leaves).await;
        overlay
    }

    /// Starts leaves until there are `leaves`, and waits until each has joined
    /// and each host counts all of them together with the others.
    async fn grow(&mut self, leaves: usize) {
        while self.leaves.len() < leaves {
            let next = leaf(&self.hosts[0], &self.operator).await;
            self.leaves.push(next);
        }
        let hosts = self.hosts.len();
        until(async || {
            let homed: usize = self.hosts.iter().map(|h| h.status().leaves as usize).sum();
            let known = |host: &Host| host.status().super_nodes.len() == hosts;
            let all = self.hosts.iter().all(known) && homed >= leaves;
            let ready = self.leaves.iter().all(|leaf| leaf.ready().is_ok());
            (all && ready).then_some(())
        })
        .await;
    }

    /// Has the hosts do something of each kind.
    async fn work(&self) {
        for (i, leaf) in self.leaves.iter().enumerate() {
            leaf.put(&format!("n{i}"), "value").await.expect("stored");
            let found = leaf.get(&format!("n{i}")).await.expect("an answer");
            assert!(found.is_some());
        }
    }

    async fn close(self) {
        for leaf in &self.leaves {
            leaf.close().await;
        }
        for host in &self.hosts {
            host.close().await;
        }
    }
}

/// The names of all series, with their labels.
fn series(of: &impl Source) -> BTreeSet<String> {
    let page = of.metrics();
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    let names = lines.filter_map(|line| line.rsplit_once(' '));
    names.map(|(name, _)| name.to_owned()).collect()
}

/// The value of one series.
fn value(of: &impl Source, series: &str) -> f64 {
    let page = of.metrics();
    let mut pairs = page.lines().filter_map(|line| line.rsplit_once(' '));
    let found = pairs.find(|(name, _)| *name == series);
    let (_, value) = found.expect(series);
    value.parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_series_of_a_node_do_not_grow_with_its_peers() {
    let mut overlay = Overlay::start(3, 5).await;
    overlay.work().await;
    let few = (series(&overlay.hosts[0]), series(&overlay.leaves[0]));
    overlay.grow(20).await;
    overlay.work().await;
    let many = (series(&overlay.hosts[0]), series(&overlay.leaves[0]));
    println!(
        "{} series of a host, {} of a leaf",
        many.0.len(),
        many.1.len()
    );
    assert_eq!(few, many);
    assert!(few.0.len() > 100 && few.1.len() > few.0.len());
    overlay.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_host_did_stays_counted_when_it_lays_its_role_down() {
    let overlay = Overlay::start(3, 2).await;
    overlay.work().await;
    let host = &overlay.hosts[2];
    let held = r#"canopy_index_operations_total{operation="local_put",outcome="done"}"#;
    let before = until(async || Some(value(host, held)).filter(|n| *n > 0.0)).await;
    host.peer().step_down();
    // It hands over first.
    until(async || host.index_stats().is_none().then_some(())).await;
    assert!(value(host, held) >= before);
    for gone in [
        "canopy_index_records",
        "canopy_store_disk_bytes",
        "canopy_load_ratio{dimension=\"bytes\"}",
        "canopy_role{role=\"super-node\"}",
    ] {
        assert_eq!(value(host, gone), 0.0, "{gone}");
    }
    overlay.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promtool_has_nothing_to_say_about_the_metrics() {
    let Some(mut check) = tool("promtool") else {
        return;
    };
    let overlay = Overlay::start(1, 1).await;
    overlay.work().await;
    check.args(["check", "metrics"]);
    for page in [
        overlay.hosts[0].metrics().render(),
        overlay.leaves[0].metrics(),
    ] {
        let (ok, said) = output(&mut check, &page);
        assert!(ok && said.is_empty(), "{said}");
    }
    overlay.close().await;
}

#[test]
fn promtool_takes_the_rules_and_they_fire_when_they_should() {
    for args in [
        &["check", "config", "prometheus.yml"][..],
        &["check", "rules", "--lint=all", "canopy.rules.yml"],
        &["test", "rules", "canopy.test.yml"],
    ] {
        let Some(mut promtool) = tool("promtool") else {
            return;
        };
        promtool.current_dir(deployed()).args(args);
        let (ok, said) = output(&mut promtool, "");
        assert!(ok, "{args:?}: {said}");
    }
}

#[test]
fn every_query_of_the_dashboard_is_one_that_prometheus_takes() {
    let Some(mut promtool) = tool("promtool") else {
        return;
    };
    let file = deployed().join("../grafana/canopy.json");
    let text = std::fs::read_to_string(file).expect("it is there");
    let dashboard: Json = serde_json::from_str(&text).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels
        .iter()
        .filter_map(|panel| panel["targets"].as_array());
    // As recording rules: promtool reads no single queries.
    let rules: Vec<Json> = targets
        .flatten()
        .enumerate()
        .map(|(i, target)| {
            let query = target["expr"].as_str().expect("a query");
            // What Grafana fills in.
            let query = query.replace("$__rate_interval", "1m");
            let query = query.replace("$job", "canopy");
            assert!(!query.contains('$'), "{query}");
            json!({ "record": format!("query_{i}"), "expr": query })
        })
        .collect();
    assert!(rules.len() > 20, "{} queries", rules.len());
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("rules.yml");
    let rules = json!({ "groups": [{ "name": "dashboard", "rules": rules }] });
    // JSON is YAML.
    std::fs::write(&file, rules.to_string()).expect("written");
    promtool.args(["check", "rules"]).arg(&file);
    let (ok, said) = output(&mut promtool, "");
    assert!(ok, "{said}");
}

/// What operators deploy for Prometheus.
fn deployed() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy/prometheus")
}

async fn open(source: impl Source) -> Serving {
    let http = Http::bind(([127, 0, 0, 1], 0).into()).await;
    http.expect("loopback has free ports").serve(source)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_prometheus_tells_how_evenly_the_work_is_shared() {
    if tool("prometheus").is_none() {
        return;
    }
    let overlay = Overlay::start(3, 4).await;
    let mut ports = Vec::new();
    for host in &overlay.hosts {
        ports.push(open(host.clone()).await);
    }
    for leaf in &overlay.leaves {
        ports.push(open(leaf.clone()).await);
    }
    let prometheus = Prometheus::start(&deployed(), &ports).await;
    let all = prometheus.until("sum(up)", |up| up == ports.len() as f64);
    all.await;

    // Work goes on until each host had its part in it; of three equal ones, the
    // first to do anything does three times its share.
    let imbalance = async {
        let told = |value: f64| (1.0..2.0).contains(&value);
        prometheus
            .until("canopy:imbalance:max_over_mean", told)
            .await
    };
    let work = async {
        loop {
            overlay.work().await;
            tokio::time::sleep(PAUSE).await;
        }
    };
    let imbalance = tokio::select! {
        told = tokio::time::timeout(BOUND, imbalance) => told.expect("in time"),
        () = work => 0.0,
    };
    println!("the busiest host does {imbalance:.2} times its share");

    // What Prometheus says is what the hosts themselves counted.
    let counted = || -> u64 {
        let stats = overlay.hosts.iter().filter_map(Host::index_stats);
        stats.map(|stats| stats.operations() - stats.refused).sum()
    };
    let sum = "sum(canopy_index_operations_total)";
    let same = prometheus.until(sum, |told| told == counted() as f64);
    tokio::time::timeout(BOUND, same).await.expect("in time");
    let roles = r#"sum(canopy_role{role="super-node"})"#;
    assert_eq!(prometheus.query(roles).await, Some(3.0));
    let p99 = "max(canopy:request_duration:p99)";
    let p99 = prometheus.until(p99, |seconds| seconds > 0.0).await;
    assert!(p99 <= 5.0, "{p99}");
    overlay.close().await;
}
