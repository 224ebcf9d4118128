//! The processes of the tests: super-nodes and leaves, each in its namespace.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use canopy_leaf::Identity;
use canopy_leaf::settings::{Preset, Settings};
use canopy_supernode::designation::{Designation, Terms};
use canopy_supernode::host::{Host, Setup};
use serde_json::Value as Json;

use crate::net::{Net, Network};

/// Longest wait for anything.
pub(crate) const BOUND: Duration = Duration::from_secs(60);
const PORT: u16 = 4477;
const OPERATOR: [u8; 32] = [1; 32];
/// What each super-node may relay is three quarters of this.
const CAPACITY_BPS: u64 = 1_000_000_000;

/// Waits until `what` is there.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < BOUND, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A super-node at `ADDR` with the secret `NUMBER`, which asks its router for ports if
/// `MAPS` is true, and knows `PEER`, until standard input ends; each line there is
/// answered with the bytes relayed so far.
pub(crate) fn host() -> ExitCode {
    let mut args = std::env::args().skip(2);
    let addr = args.next().expect("an address");
    let number = args.next().expect("a number").parse().expect("a number");
    let maps = args.next().expect("a word").parse().expect("true or false");
    let peers = args.map(|peer| peer.parse().expect("an address")).collect();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let operator = Identity::from_secret(OPERATOR);
        let identity = Identity::from_secret([number; 32]);
        let terms = Terms {
            network: "canopy".into(),
            node: identity.node_id(),
            capacity_bps: CAPACITY_BPS,
            days: 1,
            zone: String::new(),
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_ms = now.expect("after 1970").as_millis() as u64;
        let designation = Designation::sign(&operator, &terms, None, now_ms).expect("valid");
        let setup = Setup {
            settings: Settings {
                listen: Some(addr.parse().expect("an address")),
                peers,
                operator: Some(operator.node_id()),
                preset: Some(Preset::Local),
                port_mapping: Some(maps),
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
        for _ in std::io::stdin().lines().map_while(Result::ok) {
            println!("{}", host.relayed().bytes);
        }
        host.close().await;
    });
    ExitCode::SUCCESS
}

/// A process that is killed when this is dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) input: Option<ChildStdin>,
    pub(crate) output: Option<BufReader<std::process::ChildStdout>>,
}

impl Process {
    pub(crate) fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let output = child.stdout.take().map(BufReader::new);
        let input = child.stdin.take();
        Self {
            child,
            input,
            output,
        }
    }

    /// Asks it to end, as a terminal does.
    pub(crate) fn interrupt(&self) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-INT", &id]).status();
        assert!(sent.is_ok_and(|status| status.success()));
    }

    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        let output = self.output.as_mut().expect("nobody took it");
        output.read_line(&mut line).expect("a line");
        line.trim().to_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A super-node.
pub(crate) struct SuperNode {
    pub(crate) addr: String,
    process: Process,
}

impl SuperNode {
    /// One on the internet.
    pub(crate) fn start(net: &Net, number: u8, peer: Option<&SuperNode>) -> Self {
        Self::start_in(net, &net.internet, number, false, peer)
    }

    pub(crate) fn start_in(
        net: &Net,
        network: &Network,
        number: u8,
        maps: bool,
        peer: Option<&SuperNode>,
    ) -> Self {
        let (namespace, ip) = net.host(network);
        let addr = format!("{ip}:{PORT}");
        let me = std::env::current_exe().expect("a path");
        let mut command = net.command(&namespace, me.to_str().expect("a text"));
        command.args(["host", &addr, &number.to_string(), &maps.to_string()]);
        command.args(peer.map(|peer| &peer.addr));
        let mut process = Process::start(command);
        assert_eq!(process.line(), "ready");
        Self { addr, process }
    }

    /// Two that know each other.
    pub(crate) fn pair(net: &Net) -> [Self; 2] {
        let first = Self::start(net, 2, None);
        let second = Self::start(net, 3, Some(&first));
        [first, second]
    }

    /// Its address without the port.
    pub(crate) fn ip(&self) -> &str {
        self.addr.split(':').next().expect("one")
    }

    /// Bytes relayed so far.
    pub(crate) fn relayed(&mut self) -> u64 {
        let input = self.process.input.as_mut().expect("open");
        writeln!(input).expect("it runs");
        self.process.line().parse().expect("a number")
    }
}

/// A leaf in a namespace of its own.
pub(crate) struct Leaf {
    pub(crate) namespace: String,
    dir: PathBuf,
    pub(crate) id: String,
    pub(crate) process: Process,
}

#[derive(Clone, Copy)]
pub(crate) struct Outcome {
    pub(crate) first: Duration,
    pub(crate) direct: Option<Duration>,
}

impl Leaf {
    /// A leaf in `network` that knows the super-nodes.
    pub(crate) fn start(net: &Net, network: &Network, base: &Path, known: &[SuperNode]) -> Self {
        Self::start_as(net, network, base, known, &["--stand", "never"])
    }

    pub(crate) fn start_as(
        net: &Net,
        network: &Network,
        base: &Path,
        known: &[SuperNode],
        flags: &[&str],
    ) -> Self {
        let (namespace, _) = net.host(network);
        let dir = base.join(&namespace);
        let operator = Identity::from_secret(OPERATOR).node_id().to_string();
        let mut command = net.command(&namespace, env!("CARGO_BIN_EXE_leaf"));
        command
            .args(["run", "--json", "--preset", "local"])
            .args(flags);
        for host in known {
            command.args(["--peer", &host.addr]);
        }
        command.args(["--operator", &operator, "--data-dir"]);
        command.arg(&dir).stderr(Stdio::inherit());
        let mut process = Process::start(command);
        let ready: Json = serde_json::from_str(&process.line()).expect("JSON");
        let id = ready["node_id"].as_str().expect("an id").to_owned();
        Self {
            namespace,
            dir,
            id,
            process,
        }
    }

    /// A command of this leaf.
    pub(crate) fn command(&self, net: &Net, args: &[&str]) -> Command {
        let mut command = net.command(&self.namespace, env!("CARGO_BIN_EXE_leaf"));
        command.args(args).arg("--json").arg("--data-dir");
        command.arg(&self.dir).stderr(Stdio::null());
        command
    }

    /// What it tells of itself.
    pub(crate) fn status(&self, net: &Net) -> Json {
        let told = self.command(net, &["status"]).output().expect("it runs");
        serde_json::from_slice(&told.stdout).unwrap_or_default()
    }

    /// How many homes it has.
    pub(crate) fn homes(&self, net: &Net) -> usize {
        self.status(net)["homes"].as_array().map_or(0, Vec::len)
    }

    /// Pings `other` until it is found and answers.
    pub(crate) fn reach(&self, net: &Net, other: &Leaf) -> Outcome {
        let what = format!("{} to {}", self.namespace, other.namespace);
        until(&what, || self.ping(net, other))
    }

    /// Pings `other` for about two seconds, or until the way is direct.
    fn ping(&self, net: &Net, other: &Leaf) -> Option<Outcome> {
        let ping = ["ping", &other.id, "--count", "25", "--interval", "80ms"];
        let mut process = Process::start(self.command(net, &ping));
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
