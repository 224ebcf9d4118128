//! Commands that ask a running host's control plane.

use serde_json::Value as Json;

use crate::running::{Running, fails, key, printed, watched};

#[test]
fn a_host_that_runs_here_is_found_and_asked() {
    let home = tempfile::tempdir().unwrap();
    key(home.path(), "op.key");
    let args = ["--operator-key", "op.key", "--capacity", "50 Mbit/s"];
    let host = Running::start(home.path(), &args);
    host.event("super_node_up");
    let control = host.ready["control"].as_str().unwrap().to_owned();
    let json = |line: &[&str]| -> Json {
        serde_json::from_str(&printed(home.path(), line)).expect("one value")
    };
    let status = json(&["status", "--data-dir", "data", "--json"]);
    assert_eq!(status["node_id"], host.node_id);
    assert_eq!(status["counts"]["super_nodes"], 1);
    assert_eq!(status["totals"]["capacity_bps"], 50_000_000);
    let members = json(&["members", "--control", &control, "--sort", "id", "--json"]);
    assert_eq!(members["super_nodes"][0]["node_id"], host.node_id);
    assert_eq!(members["super_nodes"][0]["basis"], "designated");
    let id = &host.node_id[..8];
    let one = json(&["members", id, "--control", &control, "--json"]);
    assert_eq!(one["super_node"]["figures"]["control"], control);

    let table = printed(home.path(), &["members", "--control", &control]);
    assert!(table.starts_with("ID ") && table.contains("1 of 1 super-nodes answered"));
    let shards = json(&["shards", "--control", &control, "--limit", "256", "--json"]);
    assert_eq!(shards["shards"].as_array().unwrap().len(), 256);
    let shard = printed(home.path(), &["shards", "3F", "--control", &control]);
    assert!(shard.contains("3f, a 256th") && shard.contains(&host.node_id[..10]));
    let hot = printed(home.path(), &["hot", "publisher", "--control", &control]);
    assert!(hot.contains("counts halve every 15 s"), "{hot}");
    let leaves = printed(home.path(), &["leaves", "--control", &control]);
    assert!(leaves.starts_with("no leaf has a home there"), "{leaves}");
    let share = ["explain", "--placement", id, "--control", &control];
    let share = printed(home.path(), &share);
    assert!(
        share.contains("200 of 200: one for each 250 kbit/s"),
        "{share}"
    );
    for (line, code, words) in [
        (["shards", "3f0"], 2, "64 hexadecimal digits"),
        (["hot", "peer"], 2, "key, term, publisher"),
    ] {
        let line = [&line[..], &["--control", &control]].concat();
        fails(home.path(), &line, code, words);
    }
    for command in ["status", "members", "hot", "leaves", "decrees"] {
        let line = [command, "--watch=1", "--json", "--control", &control];
        let told = watched(home.path(), &line, 2);
        assert!(told.iter().all(Json::is_object), "{command}: {told:?}");
    }
    // Nothing but text goes into a pipe.
    let text = printed(home.path(), &["status", "--control", &control]);
    assert!(!text.contains('\u{1b}') && text.lines().all(|line| line.chars().count() <= 80));

    let nobody = "0".repeat(64);
    fails(
        home.path(),
        &["members", &nobody, "--control", &control],
        1,
        "is known here",
    );
    fails(
        home.path(),
        &["members", "me", "--control", &control],
        2,
        "is no node id",
    );
    host.end("-TERM");
    fails(
        home.path(),
        &["status", "--control", &control],
        3,
        "no host answers",
    );
    fails(
        home.path(),
        &["status", "--data-dir", "data"],
        3,
        "supernode run",
    );
    fails(home.path(), &["status"], 3, "supernode run");
    // A pipe is no screen.
    fails(home.path(), &["top", "--data-dir", "data"], 2, "terminal");
}

#[test]
fn a_host_does_not_open_its_control_plane_to_other_machines_by_accident() {
    let home = tempfile::tempdir().unwrap();
    let run = ["run", "--data-dir", "data", "--control", "0.0.0.0:0"];
    fails(home.path(), &run, 2, "--control-tls and --control-access");
}
