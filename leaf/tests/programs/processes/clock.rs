//! A machine whose clock is wrong. The program is given another clock by a
//! library of a few lines that is loaded before its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use canopy_supernode::index::Limits;

use super::daemon::program;
use super::ends::{fails, run};
use super::host::Designated;

/// Moves the wall clock by `SHIFT_S` seconds and leaves other clocks alone.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
int clock_gettime(clockid_t id, struct timespec *now) {
    int (*next)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    int outcome = next(id, now);
    char *shift = getenv("SHIFT_S");
    if (id == CLOCK_REALTIME && shift) now->tv_sec += atol(shift);
    return outcome;
}
"#;

/// Builds the library; `None`: not on this system.
fn shim(base: &Path) -> Option<PathBuf> {
    if !cfg!(target_os = "linux") {
        return None;
    }
    let (source, built) = (base.join("shim.c"), base.join("shim.so"));
    std::fs::write(&source, SHIM).expect("written");
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-o"]).arg(&built).arg(&source);
    let done = cc.arg("-ldl").status();
    done.is_ok_and(|status| status.success()).then_some(built)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_clock_is_said_and_nothing_is_lost() {
    let base = tempfile::tempdir().expect("a directory");
    let Some(shim) = shim(base.path()) else {
        return println!("SKIPPED: needs Linux and a C compiler, `cc`");
    };
    let host = Designated::start(Limits::default()).await;
    let addr = host.addr.to_string();
    let common = ["--peer", &addr, "--operator", &host.operator];
    let home = base.path().join("home");
    let put = run(&home, &[&["put", "n", "kept"][..], &common].concat());
    assert!(put.status.success());
    let reply = run(&home, &[&["get", "n", "--json"][..], &common].concat());
    let value: serde_json::Value = serde_json::from_slice(&reply.stdout).expect("a value");
    let publisher = value["publisher"].as_str().expect("an id").to_owned();

    let shifted = |shift_s: i64, args: &[&str]| {
        let dir = base.path().join(shift_s.to_string());
        let mut command = program(&dir);
        command.args(args).args(common).arg("--data-dir").arg(&dir);
        command.env("LD_PRELOAD", &shim);
        command.env("SHIFT_S", shift_s.to_string());
        tokio::task::spawn_blocking(move || command.output().expect("the program starts"))
    };
    // A minute ahead, records are issued by the super-nodes' clocks; a minute
    // behind, the papers are of the future; a week off, the designation is over,
    // and a week early it is not yet.
    const WEEK: i64 = 7 * 24 * 3600;
    let get = ["get", "n", "--publisher", &publisher];
    let (ahead, behind, late, early) = tokio::join!(
        shifted(60, &["put", "n", "ahead"]),
        shifted(-60, &get),
        shifted(WEEK, &["put", "n", "lost"]),
        shifted(-WEEK, &get),
    );
    let ended = |output: Result<Output, _>| output.expect("it ends");
    let ahead = ended(ahead);
    let told = String::from_utf8_lossy(&ahead.stderr);
    assert!(ahead.status.success(), "{told}");
    assert!(told.contains("this machine's clock is off"), "{told}");
    for output in [behind, late, early].map(ended) {
        fails(&output, 3, "the clock of this machine is");
    }
    let again = run(&home, &[&["get", "n"][..], &common].concat());
    assert_eq!(again.stdout, b"kept");
}
