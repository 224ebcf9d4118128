//! Leaves behind every kind of NAT reach each other: real processes in network
//! namespaces, with the kernel's own NAT between them and a super-node.
//!
//! Needs root, `ip` and `nft`. Where these are missing it says so and passes,
//! unless `CANOPY_TEST_NAT` is `required`. With the argument `host` this program
//! is the super-node of the test.

#![allow(missing_docs, reason = "a test")]

mod net;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use canopy_leaf::Identity;
use canopy_leaf::settings::{Preset, Settings};
use canopy_supernode::designation::{Designation, Terms};
use canopy_supernode::host::{Host, Setup};
use serde_json::Value as Json;

use net::{Nat, Net};

/// Longest wait for anything.
const BOUND: Duration = Duration::from_secs(60);
const HOST: &str = "203.0.113.1:4477";
const OPERATOR: [u8; 32] = [1; 32];

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("host") {
        return host();
    }
    let required = std::env::var("CANOPY_TEST_NAT").is_ok_and(|value| value == "required");
    match net::missing() {
        Some(missing) if required => {
            eprintln!("the NAT tests are required, and {missing}");
            ExitCode::FAILURE
        }
        Some(missing) => {
            println!("SKIPPED: the NAT tests, because {missing}");
            ExitCode::SUCCESS
        }
        None => {
            matrix();
            ExitCode::SUCCESS
        }
    }
}

/// The super-node, until standard input ends.
fn host() -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let operator = Identity::from_secret(OPERATOR);
        let identity = Identity::from_secret([2; 32]);
        let terms = Terms {
            network: "canopy".into(),
            node: identity.node_id(),
            capacity_bps: 100_000_000,
            days: 1,
            zone: String::new(),
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_ms = now.expect("after 1970").as_millis() as u64;
        let designation = Designation::sign(&operator, &terms, None, now_ms).expect("valid");
        let setup = Setup {
            settings: Settings {
                listen: Some(HOST.parse().expect("an address")),
                operator: Some(operator.node_id()),
                preset: Some(Preset::Local),
                ..Settings::default()
            },
            identity: Some(identity),
            designation: Some(designation.signed().clone()),
            ..Setup::default()
        };
        let plan = setup.plan().await.expect("valid");
        let host = Host::start(plan).await.expect("the port is free");
        println!("ready");
        // The parent holds the other end; it ends with the parent.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        host.close().await;
    });
    ExitCode::SUCCESS
}

/// A process that is killed when this is dropped.
struct Process {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Process {
    fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let lines = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("a line");
        line.trim().to_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A leaf that runs in a namespace of its own.
struct Leaf {
    namespace: String,
    dir: std::path::PathBuf,
    id: String,
    _process: Process,
}

impl Leaf {
    fn start(net: &Net, namespace: &str, base: &Path) -> Self {
        let dir = base.join(namespace);
        let operator = Identity::from_secret(OPERATOR).node_id().to_string();
        let mut command = net.command(namespace, env!("CARGO_BIN_EXE_leaf"));
        command.args(["run", "--json", "--stand", "never", "--preset", "local"]);
        command.args(["--peer", HOST, "--operator", &operator, "--data-dir"]);
        command.arg(&dir).stderr(Stdio::inherit());
        let mut process = Process::start(command);
        let ready: Json = serde_json::from_str(&process.line()).expect("JSON");
        let id = ready["node_id"].as_str().expect("an id").to_owned();
        Self {
            namespace: namespace.to_owned(),
            dir,
            id,
            _process: process,
        }
    }

    /// Pings `other` for about two seconds, or until the way is direct.
    fn ping(&self, net: &Net, other: &Leaf) -> Option<Outcome> {
        let mut command = net.command(&self.namespace, env!("CARGO_BIN_EXE_leaf"));
        command.args([
            "ping",
            &other.id,
            "--json",
            "--count",
            "25",
            "--interval",
            "80ms",
        ]);
        command
            .arg("--data-dir")
            .arg(&self.dir)
            .stderr(Stdio::null());
        let mut process = Process::start(command);
        let mut outcome: Option<Outcome> = None;
        loop {
            let line = process.line();
            let Ok(reply) = serde_json::from_str::<Json>(&line) else {
                return outcome;
            };
            let at = Duration::from_micros(reply["at_us"].as_u64().expect("a number"));
            let outcome = outcome.get_or_insert(Outcome {
                first: at,
                direct: None,
            });
            if reply["path"] == "direct" {
                outcome.direct = Some(at);
                return Some(*outcome);
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Outcome {
    first: Duration,
    direct: Option<Duration>,
}

fn matrix() {
    let base = tempfile::tempdir().expect("a directory");
    let net = Net::new();
    let me = std::env::current_exe().expect("a path");
    let mut host = net.command(net.host(), me.to_str().expect("a text"));
    host.arg("host");
    let mut host = Process::start(host);
    assert_eq!(host.line(), "ready");

    let kinds = [
        Nat::FullCone,
        Nat::AddressRestricted,
        Nat::PortRestricted,
        Nat::Symmetric,
    ];
    // Two of each, so that a kind meets itself.
    let leaves: Vec<[Leaf; 2]> = kinds
        .iter()
        .enumerate()
        .map(|(place, kind)| {
            [0, 1].map(|copy| {
                let namespace = net.add_leaf((place * 2 + copy) as u8, *kind);
                Leaf::start(&net, &namespace, base.path())
            })
        })
        .collect();

    println!(
        "{:<20}{:<20}{:<8}{:>14}{:>14}",
        "from", "to", "path", "first byte", "direct"
    );
    let mut wrong = Vec::new();
    for (i, from) in kinds.iter().enumerate() {
        for (j, to) in kinds.iter().enumerate() {
            let outcome = reach(&net, &leaves[i][0], &leaves[j][1]);
            let direct = outcome.direct;
            println!(
                "{:<20}{:<20}{:<8}{:>11.1} ms{:>14}",
                from.name(),
                to.name(),
                if direct.is_some() { "direct" } else { "relay" },
                outcome.first.as_secs_f64() * 1e3,
                direct.map_or("-".into(), |at| format!("{:.1} ms", at.as_secs_f64() * 1e3)),
            );
            if direct.is_none() && must_be_direct(*from, *to) {
                wrong.push(format!("{} to {}", from.name(), to.name()));
            }
        }
    }
    assert!(wrong.is_empty(), "these should have gone direct: {wrong:?}");
}

/// Reachable to any, and home to home.
fn must_be_direct(from: Nat, to: Nat) -> bool {
    let cone = |nat| nat != Nat::Symmetric;
    from == Nat::FullCone || to == Nat::FullCone || (cone(from) && cone(to))
}

/// Pings until the other is found and answers.
fn reach(net: &Net, from: &Leaf, to: &Leaf) -> Outcome {
    let began = Instant::now();
    loop {
        if let Some(outcome) = from.ping(net, to) {
            return outcome;
        }
        assert!(
            began.elapsed() < BOUND,
            "{} never reached {}",
            from.namespace,
            to.namespace
        );
        std::thread::sleep(Duration::from_millis(200));
    }
}
