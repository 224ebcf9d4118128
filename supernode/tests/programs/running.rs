//! The program `supernode`: run to its end, or kept running.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value as Json;

/// Longest wait for anything.
pub(crate) const BOUND: Duration = Duration::from_secs(90);

fn supernode(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_supernode"));
    command.env_clear().env("HOME", home).stdin(Stdio::null());
    command
}

fn output(home: &Path, args: &[&str]) -> Output {
    let mut command = supernode(home);
    command.args(args).current_dir(home);
    command.output().expect("the program starts")
}

/// What was printed by a command that succeeded.
pub(crate) fn printed(home: &Path, args: &[&str]) -> String {
    let output = output(home, args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {stderr}");
    String::from_utf8(output.stdout).expect("text")
}

/// Fails with `code`, and one line that holds `wanted`.
pub(crate) fn fails(home: &Path, args: &[&str], code: i32, wanted: &str) {
    let output = output(home, args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with("supernode: "), "{stderr}");
    assert!(stderr.contains(wanted), "{stderr}");
    assert!(output.stdout.is_empty());
}

/// A program that goes on, and the lines of JSON that it prints.
fn follow(home: &Path, args: &[&str]) -> (Child, Receiver<Json>) {
    let mut command = supernode(home);
    command.args(args).current_dir(home).stdout(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let out = BufReader::new(child.stdout.take().expect("piped"));
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in out.lines().map_while(Result::ok) {
            let event = serde_json::from_str(&line).expect("one object a line");
            if sender.send(event).is_err() {
                return;
            }
        }
    });
    (child, lines)
}

fn signal(child: &Child, signal: &str) {
    let pid = child.id().to_string();
    let killed = Command::new("kill").args([signal, &pid]).status();
    assert!(killed.expect("kill").success());
}

/// The first answers of a command that asks again and again, and is then
/// interrupted: it succeeds.
pub(crate) fn watched(home: &Path, args: &[&str], count: usize) -> Vec<Json> {
    let (mut child, lines) = follow(home, args);
    let answer = |_| lines.recv_timeout(BOUND).expect("an answer");
    let answers = (0..count).map(answer).collect();
    signal(&child, "-INT");
    assert!(child.wait().expect("ended").success());
    answers
}

/// A running host, and the lines that it prints.
pub(crate) struct Running {
    child: Child,
    lines: Receiver<Json>,
    pub(crate) node_id: String,
    pub(crate) ready: Json,
}

impl Running {
    pub(crate) fn start(home: &Path, args: &[&str]) -> Self {
        let data = home.join("data");
        let run = ["run", "--json", "--data-dir", data.to_str().expect("text")];
        let (child, lines) = follow(home, &[&run[..], args].concat());
        let ready: Json = lines.recv_timeout(BOUND).expect("ready");
        assert_eq!(ready["event"], "ready", "{ready}");
        let node_id = ready["node_id"].as_str().expect("an id").to_owned();
        Self {
            child,
            lines,
            node_id,
            ready,
        }
    }

    /// The next event called `name`.
    pub(crate) fn event(&self, name: &str) -> Json {
        let until = Instant::now() + BOUND;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let event = self.lines.recv_timeout(left).expect(name);
            if event["event"] == name {
                return event;
            }
        }
    }

    /// Asks it to end by a signal, and waits until it did.
    pub(crate) fn end(mut self, by: &str) {
        signal(&self.child, by);
        // The output ends when the process does.
        let until = Instant::now() + BOUND;
        while let Ok(line) = self
            .lines
            .recv_timeout(until.saturating_duration_since(Instant::now()))
        {
            assert_ne!(line["event"], "ready");
        }
        assert!(self.child.wait().expect("ended").success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes an operator key in `home`; the public key.
pub(crate) fn key(home: &Path, name: &str) -> String {
    printed(home, &["operator-key", name]).trim().to_owned()
}
