//! What users and apps may get wrong: each is said in one line, by its code,
//! and nothing is lost.

use std::path::Path;
use std::process::Output;

use canopy_proto::leaf as pb;
use canopy_supernode::index::Limits;
use tonic::{Code, Status};

use super::daemon::{Daemon, within};
use super::ends::{fails, run};
use super::host::Designated;

/// Records that one publisher may have, its location among them.
const QUOTA: u64 = 5;

/// An error with this code, whose message holds `wanted`.
fn refused<T: std::fmt::Debug>(outcome: Result<T, Status>, code: Code, wanted: &str) {
    let status = outcome.expect_err(wanted);
    assert_eq!(status.code(), code, "{status}");
    assert!(status.message().contains(wanted), "{status}");
}

/// Runs a command beside whatever else goes on.
async fn aside(dir: &Path, args: &[&str]) -> Output {
    let (dir, args) = (dir.to_owned(), args.join("\n"));
    let command = move || run(&dir, &args.split('\n').collect::<Vec<_>>());
    let done = tokio::task::spawn_blocking(command);
    done.await.expect("the command ends")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_over_a_limit_is_refused_by_api_and_commands() {
    let base = tempfile::tempdir().expect("a directory");
    let limits = Limits {
        publisher_records: QUOTA,
        ..Limits::default()
    };
    let host = Designated::start(limits).await;
    let args = ["--operator", &host.operator];
    let leaf = Daemon::start_with(base.path(), &[host.addr], &args).await;
    let node_id = leaf.node_id.clone();
    let located = within(async || {
        let (mut client, node_id) = (leaf.client.clone(), node_id.clone());
        let reply = client.locate(pb::LocateRequest { node_id }).await;
        reply.ok()?.into_inner().location
    });
    located.await.expect("its location is published");
    for i in 1..QUOTA - 1 {
        let stored = leaf.put(&format!("n{i}"), "kept").await;
        stored.expect("stored");
    }

    let big = "x".repeat(64 * 1024 + 1);
    let outcome = leaf.put("big", &big).await;
    refused(outcome, Code::InvalidArgument, "the limit is 65536");
    fails(&run(base.path(), &["put", "big", &big]), 2, "64 KiB");
    let many: Vec<String> = (0..1000).map(|i| i.to_string()).collect();
    let many = many.join(" ");
    for (query, wanted) in [(" ", "at least one word"), (&many, "use fewer")] {
        refused(leaf.search(query).await, Code::InvalidArgument, wanted);
        fails(&run(base.path(), &["search", query]), 2, wanted);
    }
    one_wrong_item_is_its_own_failure(&leaf, &big).await;

    let outcome = leaf.put("one more", "x").await;
    refused(outcome, Code::ResourceExhausted, "the most allowed");
    let more = run(base.path(), &["put", "one more", "x"]);
    fails(&more, 4, "the most allowed");
    // What is there stays, and can be renewed.
    leaf.put("n2", "renewed").await.expect("replaced");
    for (name, value) in [("n1", "kept"), ("n2", "renewed"), ("n3", "kept")] {
        let found = leaf.get(&leaf.node_id, name).await.expect("an answer");
        assert_eq!(found.as_deref(), Some(value), "{name}");
    }
    let found = leaf.search("panda").await.expect("an answer");
    assert_eq!(found, ["panda.txt"]);
}

/// Publishes one good item between wrong ones.
async fn one_wrong_item_is_its_own_failure(leaf: &Daemon, big: &str) {
    let item = |name: &str, text: &str, content: &str| pb::Item {
        name: name.into(),
        text: text.into(),
        content: content.into(),
        ..pb::Item::default()
    };
    let items = vec![
        item("big", &big.repeat(2), ""),
        item("panda.txt", "", ""),
        item("hash", "", "12"),
        item("", "word", ""),
        item("?", "", ""),
    ];
    let publish = pb::PublishRequest { items, ttl_s: 0 };
    let reply = leaf.client.clone().publish(publish).await;
    let outcomes = reply.expect("an answer").into_inner().outcomes;
    let codes: Vec<_> = outcomes.iter().map(|o| Code::from(o.code)).collect();
    let wrong = Code::InvalidArgument;
    assert_eq!(
        codes,
        [wrong, Code::Ok, wrong, wrong, wrong],
        "{outcomes:?}"
    );
    for (at, wanted) in [(0, "67584"), (2, "BLAKE3"), (3, "name"), (4, "term")] {
        let error = &outcomes[at].error;
        assert!(error.contains(wanted), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_overlay_is_named_by_daemon_and_commands() {
    let base = tempfile::tempdir().expect("a directory");
    let host = Designated::start(Limits::default()).await;
    let (addr, operator) = (host.addr.to_string(), host.operator.as_str());
    let kept = ["put", "n", "kept", "--peer", &addr, "--operator", operator];
    let home = base.path().join("home");
    assert!(run(&home, &kept).status.success());

    let cases = [
        (["--network", "other"], "the networks differ: \"canopy\""),
        (["--topology", "pure"], "the topologies differ: \"elected\""),
    ];
    for (number, (args, wanted)) in cases.into_iter().enumerate() {
        let args = [&args[..], &["--operator", operator]].concat();
        let dir = base.path().join(format!("daemon{number}"));
        let mut stranger = Daemon::start_with(&dir, &[host.addr], &args).await;
        let message = stranger.event("warning").await["message"].to_string();
        assert!(message.replace('\\', "").contains(wanted), "{message}");
    }
    let get = |args: [&'static str; 2]| {
        let dir = base.path().join(args[1]);
        let common = ["get", "n", "--peer", &addr, "--operator", operator];
        let args: Vec<String> = [&common[..], &args]
            .concat()
            .iter()
            .map(ToString::to_string)
            .collect();
        async move { aside(&dir, &args.iter().map(String::as_str).collect::<Vec<_>>()).await }
    };
    let [network, topology] = cases;
    let (first, second) = tokio::join!(get(network.0), get(topology.0));
    fails(&first, 3, network.1);
    fails(&second, 3, topology.1);

    let again = ["get", "n", "--peer", &addr, "--operator", operator];
    assert_eq!(run(&home, &again).stdout, b"kept");
}

#[test]
fn a_data_directory_that_cannot_be_written_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let base = tempfile::tempdir().expect("a directory");
    let file = base.path().join("file");
    std::fs::write(&file, "mine").expect("written");
    for dir in [file.clone(), file.join("below")] {
        fails(&run(&dir, &["run"]), 5, "--data-dir");
    }
    assert_eq!(std::fs::read(&file).expect("still there"), b"mine");

    let locked = base.path().join("locked");
    std::fs::create_dir(&locked).expect("made");
    std::fs::set_permissions(&locked, PermissionsExt::from_mode(0o500)).expect("its owner's");
    if std::fs::write(locked.join("probe"), "").is_ok() {
        return println!("SKIPPED: this user may write everywhere (root)");
    }
    for dir in [locked.clone(), locked.join("below")] {
        fails(&run(&dir, &["run"]), 5, "check its owner, mode");
    }
}
