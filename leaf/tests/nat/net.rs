//! Namespaces: one for the internet with a super-node's host, and for each leaf
//! a router with NAT and a network behind it.
//!
//! Routers drop what nobody behind them asked for, before it leaves a trace: else
//! the kernel takes it for a conversation of the router's own, and gives the leaf
//! another port.

use std::process::{Command, Stdio};

/// How a router translates and filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nat {
    /// Lets in whatever comes to a port that a leaf uses.
    FullCone,
    /// Lets in what comes from an address that the leaf has sent to.
    AddressRestricted,
    /// Lets in what comes from an address and port that the leaf has sent to:
    /// the usual router at home.
    PortRestricted,
    /// The same, and a port of its own for each that the leaf sends to.
    Symmetric,
}

impl Nat {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::FullCone => "full cone",
            Self::AddressRestricted => "address-restricted",
            Self::PortRestricted => "port-restricted",
            Self::Symmetric => "symmetric",
        }
    }

    /// The router's rules, for a leaf at `leaf`.
    fn rules(self, leaf: &str) -> String {
        let masquerade = match self {
            Self::Symmetric => "masquerade fully-random",
            _ => "masquerade",
        };
        let (seen, remember, inbound) = match self {
            Self::FullCone => (
                "",
                "",
                format!("iifname wan udp dport 1024-65535 dnat to {leaf}"),
            ),
            Self::AddressRestricted => (
                "set seen { type ipv4_addr; flags dynamic,timeout; timeout 2m; }",
                "oifname wan update @seen { ip daddr }",
                format!("iifname wan ip saddr @seen udp dport 1024-65535 dnat to {leaf}"),
            ),
            _ => ("", "", String::new()),
        };
        format!(
            "table ip router {{
                {seen}
                chain in {{ type nat hook prerouting priority -100; {inbound}; }}
                chain out {{ type nat hook postrouting priority 100; oifname wan {masquerade}; }}
                chain pass {{
                    type filter hook forward priority 0;
                    {remember}
                    iifname wan ct state new ct status & dnat == 0 drop
                }}
                chain own {{ type filter hook input priority 0; iifname wan ct state new drop; }}
            }}"
        )
    }
}

/// What keeps this machine from making namespaces; `None`: nothing.
pub(crate) fn missing() -> Option<String> {
    for (program, args) in [("ip", ["-V"].as_slice()), ("nft", &["-v"])] {
        let ran = Command::new(program)
            .args(args)
            .stdout(Stdio::null())
            .status();
        if !ran.is_ok_and(|status| status.success()) {
            return Some(format!("there is no `{program}`"));
        }
    }
    let name = format!("cn{}x", std::process::id());
    let may = try_run("ip", &["netns", "add", &name]);
    let _ = try_run("ip", &["netns", "del", &name]);
    (!may).then(|| "this user may not make network namespaces".to_owned())
}

fn try_run(program: &str, args: &[&str]) -> bool {
    let ran = Command::new(program)
        .args(args)
        .stderr(Stdio::null())
        .status();
    ran.is_ok_and(|status| status.success())
}

fn run(program: &str, args: &[&str]) {
    let ran = Command::new(program).args(args).status();
    let ok = ran.is_ok_and(|status| status.success());
    assert!(ok, "{program} {} failed", args.join(" "));
}

/// All namespaces of one run; they are gone when this is dropped.
pub(crate) struct Net {
    prefix: String,
    wan: String,
    host: String,
    made: std::cell::RefCell<Vec<String>>,
}

impl Net {
    pub(crate) fn new() -> Self {
        let prefix = format!("cn{}", std::process::id());
        let net = Self {
            wan: format!("{prefix}w"),
            host: format!("{prefix}h"),
            prefix,
            made: Default::default(),
        };
        net.make(&net.wan);
        net.make(&net.host);
        net.within(&net.wan, &["link", "add", "wan", "type", "bridge"]);
        net.within(&net.wan, &["link", "set", "wan", "up"]);
        net.plug(&net.host, 0, "203.0.113.1/24");
        net
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// A leaf's namespace, behind a router of that kind.
    pub(crate) fn add_leaf(&self, place: u8, nat: Nat) -> String {
        let router = format!("{}r{place}", self.prefix);
        let leaf = format!("{}l{place}", self.prefix);
        self.make(&router);
        self.make(&leaf);
        self.plug(&router, place + 1, &format!("203.0.113.{}/24", 10 + place));
        self.within(
            &router,
            &[
                "link", "add", "lan", "type", "veth", "peer", "name", "eth0", "netns", &leaf,
            ],
        );
        self.up(&router, "lan", &format!("10.0.{place}.1/24"));
        self.up(&leaf, "eth0", &format!("10.0.{place}.2/24"));
        let gateway = format!("10.0.{place}.1");
        self.within(&leaf, &["route", "add", "default", "via", &gateway]);
        let on = "echo 1 > /proc/sys/net/ipv4/ip_forward";
        let forward = ["netns", "exec", &router, "sh", "-c", on];
        run("ip", &forward);
        let rules = nat.rules(&format!("10.0.{place}.2"));
        run("ip", &["netns", "exec", &router, "nft", &rules]);
        leaf
    }

    /// A program in a namespace.
    pub(crate) fn command(&self, namespace: &str, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace, program]);
        command
    }

    fn make(&self, namespace: &str) {
        run("ip", &["netns", "add", namespace]);
        self.made.borrow_mut().push(namespace.to_owned());
        self.within(namespace, &["link", "set", "lo", "up"]);
    }

    fn within(&self, namespace: &str, args: &[&str]) {
        run("ip", &[&["-n", namespace], args].concat());
    }

    fn up(&self, namespace: &str, device: &str, addr: &str) {
        self.within(namespace, &["addr", "add", addr, "dev", device]);
        self.within(namespace, &["link", "set", device, "up"]);
    }

    /// Joins a namespace to the internet.
    fn plug(&self, namespace: &str, place: u8, addr: &str) {
        let port = format!("port{place}");
        self.within(
            &self.wan,
            &[
                "link", "add", &port, "type", "veth", "peer", "name", "wan", "netns", namespace,
            ],
        );
        self.within(&self.wan, &["link", "set", &port, "master", "wan", "up"]);
        self.up(namespace, "wan", addr);
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for namespace in self.made.borrow().iter() {
            let _ = try_run("ip", &["netns", "del", namespace]);
        }
    }
}
