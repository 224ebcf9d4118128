//! The `supernode` program as an operator runs it: keys, designations, a host
//! that serves, and what it says to wrong input.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use canopy_core::identity::Identity;
use canopy_core::node::Role;
use canopy_supernode::data_dir::DataDir;
use canopy_supernode::designation::{Designation, Holder, Terms};
use canopy_supernode::host::{Host, Setup};
use canopy_supernode::secret;
use canopy_supernode::settings::Settings;
use serde_json::Value as Json;

use crate::running::{BOUND, Running, fails, key, printed};

#[test]
fn a_host_with_the_key_serves_and_keeps_its_designation() {
    let home = tempfile::tempdir().unwrap();
    let operator = key(home.path(), "op.key");
    let args = ["--operator-key", "op.key", "--capacity", "50 Mbit/s"];
    let host = Running::start(home.path(), &args);
    assert_eq!(host.ready["operator"], operator);
    assert_eq!(host.event("role_changed")["to"], "super-node");
    let up = host.event("super_node_up");
    assert_eq!(up["capacity_bps"], 50_000_000);
    assert_eq!(up["node_id"], host.node_id);
    let (first, node_id) = (up["term"].as_u64().unwrap(), host.node_id.clone());
    host.end("-TERM");

    // Kept: not even the key is needed, nor the operator named.
    let host = Running::start(home.path(), &[]);
    assert_eq!(host.node_id, node_id);
    assert_eq!(host.ready["operator"], operator);
    assert_eq!(host.event("super_node_up")["term"], first);
    host.end("-INT");

    // Another capacity is another designation, of a later term.
    let args = ["--operator-key", "op.key", "--capacity", "80 Mbit/s"];
    let host = Running::start(home.path(), &args);
    assert_eq!(host.event("role_changed")["to"], "super-node");
    host.end("-TERM");
    let kept = std::fs::read(home.path().join("data/designation")).unwrap();
    let holder = Holder {
        network: "canopy",
        node: node_id.parse().unwrap(),
        operator: Some(operator.parse().unwrap()),
    };
    // Its own clock: the test's may be a moment behind.
    let kept = Designation::open(&kept, &holder, first * 1000 + 60_000).unwrap();
    assert!(kept.mandate().term > first);
    assert_eq!(kept.mandate().capacity_bps, 80_000_000);
}

#[test]
fn a_designation_signed_elsewhere_makes_a_super_node() {
    let home = tempfile::tempdir().unwrap();
    let operator = key(home.path(), "op.key");
    let host = Running::start(home.path(), &["--network", "mine"]);
    let node = host.node_id.clone();
    assert_eq!(host.ready["operator"], Json::Null);
    host.end("-TERM");
    let line = [
        "designate",
        "--operator-key",
        "op.key",
        "--node",
        &node,
        "--network",
        "mine",
        "--capacity",
        "100 Mbit/s",
        "-o",
        "host.designation",
        "--json",
    ];
    let made: Json = serde_json::from_str(&printed(home.path(), &line)).unwrap();
    assert_eq!(made["operator"], operator);

    let hybrid = ["--network", "mine", "--topology", "hybrid"];
    let given = [&hybrid[..], &["--designation", "host.designation"]].concat();
    let host = Running::start(home.path(), &given);
    assert_eq!(host.event("super_node_up")["term"], made["term"]);
    host.end("-TERM");
}

/// Lays the role down in the data directory's name, as a host does whose store
/// fails.
async fn lay_down(home: &Path, operator: &Identity) {
    let data_dir = Arc::new(DataDir::open(&home.join("data")).expect("a directory"));
    let terms = Terms {
        network: "canopy".into(),
        node: data_dir.identity().expect("a key").node_id(),
        capacity_bps: 50_000_000,
        days: 365,
        zone: String::new(),
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_ms = now.expect("after 1970").as_millis() as u64;
    let designation = Designation::sign(operator, &terms, None, now_ms).expect("valid");
    data_dir
        .keep_designation(&designation.to_bytes())
        .expect("kept");
    let setup = Setup {
        settings: Settings {
            operator: Some(operator.node_id()),
            ..Settings::default()
        },
        data_dir: Some(data_dir),
        designation: Some(designation.signed().clone()),
        ..Setup::default()
    };
    let plan = setup.plan().await.expect("valid");
    let host = Host::start(plan).await.expect("it starts");
    let mut role = host.peer().role();
    assert_eq!(*role.borrow_and_update(), Role::SuperNode);
    host.peer().step_down();
    let left = role.wait_for(|role| *role != Role::SuperNode);
    let left = tokio::time::timeout(BOUND, left).await;
    assert!(left.expect("in time").is_ok());
    host.close().await;
}

#[test]
fn a_host_that_laid_its_role_down_is_designated_anew_by_the_key_only() {
    let home = tempfile::tempdir().unwrap();
    key(home.path(), "op.key");
    let operator = secret::read(&home.path().join("op.key")).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(lay_down(home.path(), &operator));
    drop(runtime);

    let host = Running::start(home.path(), &[]);
    let message = host.event("warning")["message"].to_string();
    assert!(message.contains("supernode designate"), "{message}");
    host.end("-TERM");

    let args = ["--operator-key", "op.key", "--capacity", "50 Mbit/s"];
    let host = Running::start(home.path(), &args);
    let back = |event: &Json| event["from"] == "leaf" && event["to"] == "super-node";
    while !back(&host.event("role_changed")) {}
    host.end("-TERM");
}

#[test]
fn a_key_is_never_replaced_nor_used_when_others_can_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let public = key(home, "op.key");
    let mode = |mode| {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(home.join("op.key"), permissions).unwrap();
    };
    let found = std::fs::metadata(home.join("op.key")).unwrap();
    assert_eq!(found.permissions().mode() & 0o777, 0o600);
    fails(home, &["operator-key", "op.key"], 5, "not replaced");
    let shown = printed(home, &["operator-key", "op.key", "--show"]);
    assert_eq!(shown.trim(), public);
    mode(0o644);
    let run = ["run", "--operator-key", "op.key", "--capacity", "1 Gbit/s"];
    fails(home, &run, 5, "chmod 600 op.key");
    mode(0o600);
    std::fs::write(home.join("op.key"), "damaged").unwrap();
    fails(home, &run, 5, "no key of 64 hexadecimal digits");
}

#[test]
fn a_designation_that_does_not_fit_is_refused_with_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    key(home, "op.key");
    let other = key(home, "other.key");
    let host = Running::start(home, &[]);
    let node = host.node_id.clone();
    host.end("-TERM");
    let designate = |node: &str, network: &str| {
        let line = [
            "designate",
            "--operator-key",
            "op.key",
            "--node",
            node,
            "--network",
            network,
            "--capacity",
            "1 Gbit/s",
            "-o",
            "d",
        ];
        printed(home, &line);
    };
    let with = ["run", "--data-dir", "data", "--designation", "d"];
    designate(&"ab".repeat(32), "canopy");
    fails(home, &with, 2, &format!("--node {node}"));
    designate(&node, "mine");
    fails(home, &with, 2, "--network \"mine\"");
    designate(&node, "canopy");
    let named = [&with[..], &["--operator", &other]].concat();
    fails(home, &named, 2, "correct --operator");
    std::fs::write(home.join("d"), "no designation").unwrap();
    fails(home, &with, 2, "supernode designate");
    fails(
        home,
        &["run", "--data-dir", "data", "--designation", "missing"],
        5,
        "cannot read the designation missing",
    );
    // Nothing of all that was kept.
    assert!(!PathBuf::from(home).join("data/designation").exists());
}

#[test]
fn wrong_input_is_refused_on_one_line_that_says_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let public = key(home, "op.key");
    let other = "ab".repeat(32);
    std::fs::write(home.join("api.toml"), "api = \"127.0.0.1:1\"\n").unwrap();
    let keyed = ["run", "--operator-key", "op.key"];
    for (args, code, wanted) in [
        (&["run", "--uplnk", "1"][..], 2, "--uplink"),
        (&["run", "--capacity", "1 Gbit/s"], 2, "--operator-key"),
        (&["run", "--config", "api.toml"], 2, "no local API"),
        (&["run", "--topology", "hybrid"], 2, "--designation"),
        (
            &["run", "--operator-key", "none"],
            5,
            "cannot use the key file none",
        ),
        (&keyed, 2, "--capacity"),
        (&[&keyed[..], &["--operator", &other]].concat(), 2, &public),
        (&["run", "--data-dir", "op.key"], 5, "--data-dir"),
    ] {
        fails(home, args, code, wanted);
    }
}

#[test]
fn help_names_the_exit_codes_and_completions_are_printed() {
    let home = tempfile::tempdir().unwrap();
    assert!(printed(home.path(), &["--help"]).contains("Exit codes:"));
    assert!(printed(home.path(), &["completions", "bash"]).contains("_supernode"));
}
