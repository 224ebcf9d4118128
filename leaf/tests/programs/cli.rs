//! The `leaf` program as a script meets it: exit codes, one line an error, and
//! where settings come from. Nothing here needs another peer.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// The program in a home of its own, with no setting from outside.
fn leaf(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_leaf"));
    command.env_clear().env("HOME", home).stdin(Stdio::null());
    command
}

fn output(home: &Path, args: &[&str]) -> Output {
    leaf(home).args(args).output().expect("the program starts")
}

/// Fails with `code`, and one line that holds `wanted`.
fn fails(output: &Output, code: i32, wanted: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains(wanted), "{stderr}");
    assert!(output.stdout.is_empty());
}

#[test]
fn wrong_input_is_refused_on_one_line_that_says_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    let big = "x".repeat(64 * 1024 + 1);
    for (args, wanted) in [
        (&["run", "--uplink", "fast"][..], "20 Mbit/s"),
        (&["run", "--peer", "nowhere"], "HOST:PORT"),
        (&["run", "--uplnk", "1"], "--uplink"),
        (&["run", "--api", "0.0.0.0:0"], "loopback only"),
        (&["put", "n", &big], "64 KiB"),
        (&["put", "", "x"], "must not be empty"),
        (&["search", " "], "at least one word"),
        (&["search", "ab*"], "too short"),
        (&["get", "n", "--publisher", "me"], "64 hexadecimal digits"),
        (&["put", "n", "x", "--ttl", "31d"], "at most 30d"),
    ] {
        fails(&output(home.path(), args), 2, wanted);
    }
}

#[test]
fn standard_input_is_not_read_without_end() {
    let home = tempfile::tempdir().unwrap();
    let mut child = leaf(home.path())
        .args(["put", "n", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    // The pipe may break while more is written than is read.
    let _ = input.write_all(&vec![b'x'; 1024 * 1024]);
    drop(input);
    fails(&child.wait_with_output().unwrap(), 2, "64 KiB");
}

#[test]
fn no_daemon_is_said_with_the_ways_out() {
    let home = tempfile::tempdir().unwrap();
    fails(&output(home.path(), &["status"]), 3, "leaf run");
    fails(
        &output(home.path(), &["status", "--api", "127.0.0.1:1"]),
        3,
        "127.0.0.1:1",
    );

    // Left behind by a daemon that was killed.
    let data = home.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("api"), "127.0.0.1:1\n").unwrap();
    let data = data.to_str().unwrap();
    fails(
        &output(home.path(), &["get", "n", "--data-dir", data]),
        3,
        "no leaf runs with",
    );
}

#[test]
fn a_damaged_key_stops_the_start_and_stays() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("key"), "damaged").unwrap();
    let run = ["run", "--data-dir", data.to_str().unwrap()];
    fails(&output(home.path(), &run), 5, "restore it from a backup");
    assert_eq!(
        std::fs::read_to_string(data.join("key")).unwrap(),
        "damaged"
    );
}

#[test]
fn a_wrong_key_of_the_configuration_is_named_with_its_line() {
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join("leaf.toml");
    std::fs::write(&config, "zone = \"a\"\nuplnk = 3\n").unwrap();
    let run = ["run", "--config", config.to_str().unwrap()];
    fails(
        &output(home.path(), &run),
        2,
        "line 2: unknown field `uplnk`",
    );
}

/// Each source is given an address where nobody answers, and the error tells
/// which of them was used.
#[test]
fn flags_go_before_the_environment_and_that_before_the_file() {
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join("leaf.toml");
    std::fs::write(&config, "api = \"127.0.0.1:1\"\n").unwrap();
    let status = || {
        let mut command = leaf(home.path());
        command.args(["status", "--config"]).arg(&config);
        command
    };
    fails(&status().output().unwrap(), 3, "127.0.0.1:1;");
    let environment = status().env("CANOPY_API", "127.0.0.1:2").output().unwrap();
    fails(&environment, 3, "127.0.0.1:2;");
    let flag = status()
        .env("CANOPY_API", "127.0.0.1:2")
        .args(["--api", "127.0.0.1:3"])
        .output()
        .unwrap();
    fails(&flag, 3, "127.0.0.1:3;");
    let wrong = status().env("CANOPY_STAND", "perhaps").output().unwrap();
    fails(&wrong, 2, "perhaps");
}

#[test]
fn help_names_the_exit_codes_and_completions_are_printed() {
    let home = tempfile::tempdir().unwrap();
    let help = output(home.path(), &["--help"]);
    assert!(help.status.success());
    assert!(
        String::from_utf8(help.stdout)
            .unwrap()
            .contains("Exit codes:")
    );
    let bash = output(home.path(), &["completions", "bash"]);
    assert!(String::from_utf8(bash.stdout).unwrap().contains("_leaf"));
}
