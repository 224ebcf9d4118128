//! A small demo, from the first peer to the summary.

#![cfg(feature = "cli")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use canopy_leaf::demo::{DemoArgs, Show, run};
use canopy_leaf::settings::Topology;

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
    let folder = tempfile::tempdir().expect("a directory");
    std::fs::write(folder.path().join("panda.txt"), "red").expect("written");
    let mut demo = Command::new(env!("CARGO_BIN_EXE_leaf"));
    demo.args([
        "demo", "--leaves", "5", "--for", "3s", "--kill", "0", "--folder",
    ]);
    demo.arg(folder.path()).env_clear();
    demo.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut demo = demo.spawn().expect("the program starts");
    let mut lines = BufReader::new(demo.stdout.take().expect("piped")).lines();
    let addr = lines.by_ref().map_while(Result::ok).find_map(|line| {
        let (_, rest) = line.split_once("http://")?;
        rest.strip_suffix("/metrics").map(str::to_owned)
    });
    let addr = addr.expect("it says where before it ends");
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
    assert!(lines.map_while(Result::ok).count() > 0);
    assert!(demo.wait().expect("it ends").success());
}
