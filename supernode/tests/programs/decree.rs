//! What an operator decrees and plans by commands: signed where the key is, told in
//! tables, refused with an exit code.

use serde_json::Value as Json;

use crate::running::{Running, fails, key, printed};

#[test]
fn an_operator_decrees_and_plans_by_commands() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let operator = key(home, "op.key");
    key(home, "other.key");
    let args = ["--operator-key", "op.key", "--capacity", "50 Mbit/s"];
    let host = Running::start(home, &args);
    host.event("super_node_up");
    let ask = ["--data-dir", "data"];
    let run = |line: &[&str]| printed(home, &[line, &ask].concat());
    let json = |line: &[&str]| -> Json {
        serde_json::from_str(&run(&[line, &["--json"]].concat())).expect("one value")
    };
    let refused = |line: &[&str], code, words| fails(home, &[line, &ask].concat(), code, words);
    let signed = ["--operator-key", "op.key"];
    let by = |line: &[&str]| json(&[line, &signed].concat());

    let peer = "ab".repeat(32);
    let ban = ["ban", "--peer", &peer, "--reason", "spam"];
    assert_eq!(run(&["decrees"]), "nothing is decreed\n");
    let dry = by(&[&ban[..], &["--dry-run"]].concat());
    assert_eq!(
        (&dry["changed"], &dry["decree"]["says"]),
        (&true.into(), &"ban".into())
    );
    assert_eq!(run(&["decrees"]), "nothing is decreed\n");
    assert_eq!(by(&ban)["super_nodes"], 1);
    let told = host.event("decreed");
    assert_eq!(
        (&told["says"], &told["subject"]),
        (&"ban".into(), &format!("peer {peer}").into())
    );
    let listed = json(&["decrees", "peer"]);
    assert_eq!(
        (&listed["operator"], &listed["network"]),
        (&operator.into(), &"canopy".into())
    );
    assert_eq!(listed["decrees"][0]["reason"], "spam");
    let first = listed["decrees"][0]["sequence"].as_u64().unwrap();
    let lifted = by(&["unban", "--peer", &peer]);
    assert!(lifted["decree"]["sequence"].as_u64().unwrap() > first);
    refused(
        &["ban", "--peer", &peer, "--operator-key", "other.key"],
        2,
        "this network's operator",
    );
    let own = host.node_id.clone();
    refused(
        &["ban", "--peer", &own, "--operator-key", "op.key"],
        4,
        "another one",
    );

    let policy = run(&["policy"]);
    assert!(policy.contains("grow          60 %  built in"), "{policy}");
    refused(&["policy", "--grow", "55"], 2, "--operator-key");
    refused(
        &["policy", "--grow", "26", "--operator-key", "op.key"],
        2,
        "smaller",
    );
    by(&["policy", "--grow", "55%"]);
    by(&["policy", "--ratio", "70"]);
    let policy = json(&["policy"]);
    assert_eq!(
        (&policy["set"]["grow_milli"], &policy["set"]["ratio"]),
        (&550.into(), &70.into())
    );

    let id = "cd".repeat(32);
    let planned = [
        "plan",
        "designate",
        "--node",
        &id,
        "--capacity",
        "100 Mbit/s",
    ];
    let plan = json(&planned);
    assert_eq!(plan["plan"]["after"]["super_nodes"], 2);
    let version = plan["plan"]["version"].as_str().unwrap();
    let text = run(&planned);
    assert!(text.contains("EFFECT") && text.lines().all(|line| line.chars().count() <= 80));
    refused(&["apply", version], 2, "--operator-key");
    let applied = by(&["apply", version]);
    assert_eq!(
        (&applied["changed"], &applied["plan"]["version"]),
        (&true.into(), &version.into())
    );
    refused(
        &["apply", version, "--operator-key", "op.key"],
        4,
        "has changed",
    );
    refused(&["apply", "0123"], 4, "supernode plan");
    refused(&["plan", "step-down", "00000000"], 1, "is known here");
    let host_of = json(&["decrees", "host"]);
    assert_eq!(host_of["decrees"][0]["capacity_bps"], 100_000_000);
    by(&["undesignate", &id]);

    refused(&["step-down"], 4, "nobody else serves");
    refused(&["elect"], 4, "stands for election");
    host.end("-TERM");

    // What was decreed is kept.
    let host = Running::start(home, &args);
    host.event("super_node_up");
    assert_eq!(json(&["decrees"])["decrees"].as_array().unwrap().len(), 3);
    host.end("-TERM");
}

#[test]
fn an_overlay_without_an_operator_says_what_it_takes() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    key(home, "op.key");
    let host = Running::start(home, &[]);
    let ban = [
        "ban",
        "--content",
        &"ab".repeat(32),
        "--operator-key",
        "op.key",
        "--data-dir",
        "data",
    ];
    fails(home, &ban, 4, "has no operator key");
    host.end("-TERM");
}
