//! The programs of Prometheus, where the machine has them.

use std::io::Write;
use std::process::{Command, Stdio};

/// The program `name`; `None`, said aloud, where it is missing.
pub(crate) fn tool(name: &str) -> Option<Command> {
    let mut look = Command::new(name);
    look.arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    match look.status() {
        Ok(status) if status.success() => Some(Command::new(name)),
        outcome => {
            let required = std::env::var_os("CANOPY_TEST_PROMETHEUS").is_some();
            assert!(!required, "{name} cannot be run: {outcome:?}");
            println!("SKIPPED: {name} is not installed (Debian's package prometheus)");
            None
        }
    }
}

/// Runs `command` with `input`: whether it succeeded, and all that it printed.
pub(crate) fn output(command: &mut Command, input: &str) -> (bool, String) {
    command.stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("piped");
    // It may end before it has read all.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    (output.status.success(), said)
}
