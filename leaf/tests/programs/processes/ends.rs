//! How a process ends, and starts on what it finds in its directory.

use std::net::TcpListener;
use std::path::Path;
use std::process::Output;
use std::time::Instant;

use super::daemon::{Daemon, program};

pub(crate) fn run(dir: &Path, args: &[&str]) -> Output {
    let mut command = program(dir);
    command.args(args).arg("--data-dir").arg(dir);
    command.output().expect("the program starts")
}

/// Fails with `code`, and one line that holds `wanted`.
pub(crate) fn fails(output: &Output, code: i32, wanted: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains(wanted), "{stderr}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asked_to_end_it_leaves_port_and_directory_free_at_once() {
    let base = tempfile::tempdir().expect("a directory");
    let dir = base.path().join("leaf");
    let first = Daemon::start(&dir, &[]).await;
    let (listen, node_id) = (first.listen, first.node_id.clone());
    let asked = Instant::now();
    let status = first.terminate().await;
    assert_eq!(status.code(), Some(0));
    println!("{:>6.1} s to end", asked.elapsed().as_secs_f64());
    let again = Daemon::start(&dir, &[]).await;
    assert_eq!((again.listen, &again.node_id), (listen, &node_id));

    // Neither the directory nor the port can be had twice.
    fails(&run(&dir, &["run"]), 5, "in use");
    let other = base.path().join("other");
    let listen = listen.to_string();
    fails(&run(&other, &["run", "--listen", &listen]), 5, "--listen");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let http = taken.local_addr().expect("bound").to_string();
    fails(&run(&other, &["run", "--http", &http]), 5, "--http");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_roster_is_no_obstacle() {
    let base = tempfile::tempdir().expect("a directory");
    let first = Daemon::start(base.path(), &[]).await;
    let node_id = first.node_id.clone();
    first.terminate().await;
    std::fs::write(base.path().join("roster"), [0xff; 4096]).expect("written");
    let again = Daemon::start(base.path(), &[]).await;
    assert_eq!(again.node_id, node_id);
}

#[test]
fn a_damaged_store_stops_the_start_and_is_left_as_it_is() {
    let base = tempfile::tempdir().expect("a directory");
    let index = base.path().join("index");
    std::fs::create_dir(&index).expect("made");
    for file in ["version", "0.jnl", "lock"] {
        std::fs::write(index.join(file), [0xa5; 100]).expect("written");
    }
    fails(&run(base.path(), &["run"]), 5, "index");
    let left = std::fs::read(index.join("version")).expect("still there");
    assert_eq!(left, [0xa5; 100]);
}

#[test]
fn a_peer_that_does_not_answer_is_said_in_time() {
    let base = tempfile::tempdir().expect("a directory");
    for args in [
        &["get", "n", "--peer", "127.0.0.1:1"][..],
        &["put", "n", "v", "--peer", "127.0.0.1:1"],
        &["search", "panda", "--peer", "127.0.0.1:1"],
    ] {
        let asked = Instant::now();
        fails(&run(base.path(), args), 3, "peer");
        println!("{:>6.1} s to say it", asked.elapsed().as_secs_f64());
    }
}
