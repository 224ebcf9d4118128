//! The demo as a program that runs.

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, Stdio};

/// A demo under way, with what it prints.
pub(crate) struct Demo {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    _folder: tempfile::TempDir,
}

impl Demo {
    pub(crate) fn start(args: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a directory");
        std::fs::write(folder.path().join("panda.txt"), "red").expect("written");
        let mut demo = Command::new(env!("CARGO_BIN_EXE_leaf"));
        demo.arg("demo").args(args).arg("--folder");
        demo.arg(folder.path()).env_clear();
        demo.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = demo.spawn().expect("the program starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self {
            child,
            lines,
            _folder: folder,
        }
    }

    /// What the next line has between `before` and `after`.
    pub(crate) fn told(&mut self, before: &str, after: &str) -> String {
        let told = self.lines.by_ref().map_while(Result::ok).find_map(|line| {
            let (_, rest) = line.split_once(before)?;
            rest.strip_suffix(after).map(str::to_owned)
        });
        told.expect("it says so before it ends")
    }

    /// What it prints until its end, which is a good one.
    pub(crate) fn end(mut self) -> Vec<String> {
        let lines = self.lines.map_while(Result::ok).collect();
        assert!(self.child.wait().expect("it ends").success());
        lines
    }

    /// Interrupts one that stays up.
    pub(crate) fn interrupt(self) -> Vec<String> {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-INT", &pid]).status();
        assert!(sent.expect("there is such a program").success());
        self.end()
    }
}
