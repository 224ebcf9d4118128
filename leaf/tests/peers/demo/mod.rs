//! A small demo, from the first peer to the summary, and what can be seen of it
//! from outside.

mod dashboard;
mod running;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use canopy_leaf::demo::{DemoArgs, Show, run};
use canopy_leaf::settings::Topology;

use running::Demo;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_demo_loses_nothing_when_a_super_node_dies() {
    let folder = tempfile::tempdir().expect("a directory");
    for name in ["red-panda.txt", "blue/whale.md", "木の名前.txt"] {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("below the folder")).expect("made");
        std::fs::write(path, name).expect("written");
    }
    let args = DemoArgs {
        leaves: 8,
        folder: Some(folder.path().to_owned()),
        duration: Duration::from_secs(6),
        kill: 1,
        json: true,
        seed: Some(3),
        topology: Topology::Elected,
        stay: false,
    };
    let mut told = None;
    let demo = run(args, Show::nowhere(), |summary| {
        told = Some(summary.clone())
    });
    let limit = Duration::from_secs(180);
    let summary = tokio::time::timeout(limit, demo).await;
    let summary = summary.expect("in time").expect("it runs");

    assert_eq!(told.map(|told| told.seed), Some(3));
    assert_eq!(summary.lost, Vec::<String>::new());
    assert_eq!((summary.items_published, summary.items_found), (3, 3));
    assert_eq!((summary.requests_failed, summary.killed), (0, 1));
    assert!(summary.requests_ok > 0 && summary.successor_s.is_some());
    // Three serve, one of them dies, and one takes its place.
    assert!(summary.elected.len() >= 4, "{:?}", summary.elected);
    let json = serde_json::to_value(&summary).expect("an object");
    for key in [
        "first_election_s",
        "elected",
        "load_max_over_mean",
        "items_published",
        "items_found",
        "requests_ok",
        "requests_failed",
        "requests_hedged",
        "successor_s",
        "seed",
    ] {
        assert!(!json[key].is_null(), "{key}");
    }
    for key in [
        "node_id",
        "uplink_bps",
        "measured_bps",
        "uplink_rank",
        "seats",
        "load",
    ] {
        assert!(!json["elected"][0][key].is_null(), "elected: {key}");
    }
}

#[test]
fn the_demo_shows_the_metrics_of_a_super_node_while_it_runs() {
    let mut demo = Demo::start(&["--leaves", "5", "--for", "3s", "--kill", "0"]);
    let addr = demo.told("http://", "/metrics");
    let mut stream = TcpStream::connect(&addr).expect("it listens");
    let request = format!("GET /metrics HTTP/1.0\r\nhost: {addr}\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut page = String::new();
    stream.read_to_string(&mut page).expect("an answer");
    for wanted in [
        "canopy_role{role=\"super-node\"} 1",
        "canopy_ready 1",
        "canopy_client_requests_total{outcome=\"failed\"} 0",
    ] {
        assert!(page.lines().any(|line| line == wanted), "{wanted}: {page}");
    }
    // It goes on to its end.
    assert!(!demo.end().is_empty());
}

/// Python with grpcio and grpcio-reflection, which `CANOPY_TEST_PYTHON` names.
#[test]
fn a_client_in_python_drains_a_super_node_and_no_request_fails() {
    let Some(python) = std::env::var_os("CANOPY_TEST_PYTHON") else {
        println!("SKIPPED: CANOPY_TEST_PYTHON names no Python that has grpcio-reflection");
        return;
    };
    let mut demo = Demo::start(&["--leaves", "10", "--for", "20s", "--kill", "0"]);
    let control = demo.told("supernode status --control ", "");
    // From here on super-nodes serve.
    demo.told("http://", "/metrics");
    let client = Path::new(env!("CARGO_MANIFEST_DIR")).join("../supernode/examples/control.py");
    let client = Command::new(python).arg(client).arg(control).output();
    let client = client.expect("Python starts");
    let said = String::from_utf8_lossy(&client.stdout);
    let failed = String::from_utf8_lossy(&client.stderr);
    assert!(client.status.success(), "{said}{failed}");
    for wanted in ["operations a second at", "criteria met: True", "drained "] {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
    let lines = demo.end();
    let whole = |line: &String| line.contains("nothing was lost");
    assert!(lines.iter().any(whole), "{lines:?}");
}
