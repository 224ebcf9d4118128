//! Namespaces: networks, and what is plugged into them. The internet is one; each
//! router has one behind it, and may itself stand behind another router.
//!
//! Routers drop what nobody behind them asked for, before it leaves a trace: else
//! the kernel takes it for a conversation of the router's own, and gives the leaf
//! another port.

use std::cell::{Cell, RefCell};
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
    /// Lets in whatever comes to a port that is in use, from its own side too.
    Hairpin,
    /// As at home, but lets no UDP pass in either direction.
    NoUdp,
}

impl Nat {
    /// The rules of a router at `wan`, for the networks behind it: the first host
    /// in them is `first`.
    fn rules(self, wan: &str, inside: &str, first: &str) -> String {
        let masquerade = match self {
            Self::Symmetric => "masquerade fully-random",
            _ => "masquerade",
        };
        let (table, remember, inbound, outbound) = match self {
            Self::FullCone => (
                "",
                "",
                format!("iifname wan udp dport 1024-65535 dnat to {first}"),
                String::new(),
            ),
            Self::AddressRestricted => (
                "set seen { type ipv4_addr; flags dynamic,timeout; timeout 2m; }",
                "oifname wan update @seen { ip daddr }",
                format!("iifname wan ip saddr @seen udp dport 1024-65535 dnat to {first}"),
                String::new(),
            ),
            Self::Hairpin => (
                "map inside { type inet_service : ipv4_addr . inet_service; \
                 flags dynamic,timeout; timeout 2m; }",
                "oifname wan meta l4proto udp update @inside \
                 { udp sport : ip saddr . udp sport }",
                format!("ip daddr {wan} udp dport 1024-65535 dnat ip to udp dport map @inside"),
                format!("ip saddr {inside} ip daddr {inside} ct status dnat snat to {wan};"),
            ),
            Self::NoUdp => ("", "meta l4proto udp drop", String::new(), String::new()),
            Self::PortRestricted | Self::Symmetric => ("", "", String::new(), String::new()),
        };
        format!(
            "table ip router {{
                {table}
                chain in {{ type nat hook prerouting priority -100; {inbound}; }}
                chain out {{
                    type nat hook postrouting priority 100;
                    {outbound}
                    oifname wan {masquerade};
                }}
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

/// A network: a bridge in the namespace of its router, or the internet's own.
pub(crate) struct Network {
    namespace: String,
    /// The first three bytes of its addresses.
    prefix: String,
    /// Whether its first address is a router, who leads out of it.
    routed: bool,
    plugged: Cell<u8>,
}

/// All namespaces of one run; they are gone when this is dropped.
pub(crate) struct Net {
    name: String,
    made: RefCell<Vec<String>>,
    pub(crate) internet: Network,
}

impl Net {
    pub(crate) fn new() -> Self {
        thread_local! { static NETS: Cell<u8> = const { Cell::new(0) } }
        let number = NETS.replace(NETS.get() + 1);
        let name = format!("cn{}{}", std::process::id(), (b'a' + number) as char);
        let net = Self {
            internet: Network {
                namespace: format!("{name}0"),
                // Not a reserved one: a router that has such an address gives no ports.
                prefix: "11.0.0".into(),
                routed: false,
                plugged: Cell::new(0),
            },
            name,
            made: RefCell::default(),
        };
        let internet = net.make();
        assert_eq!(internet, net.internet.namespace);
        net.bridge(&internet);
        net
    }

    /// A namespace within `network`; its name, and its address.
    pub(crate) fn host(&self, network: &Network) -> (String, String) {
        let namespace = self.make();
        let address = self.plug(&namespace, network);
        (namespace, address)
    }

    /// A network behind a router of that kind, which stands in `outside`.
    pub(crate) fn behind(&self, nat: Nat, outside: &Network) -> Network {
        let (router, wan) = self.host(outside);
        let carrier = outside.routed || nat == Nat::Hairpin;
        let number = self.made.borrow().len();
        let network = Network {
            prefix: match carrier {
                true => format!("100.64.{number}"),
                false => format!("10.0.{number}"),
            },
            namespace: router,
            routed: true,
            plugged: Cell::new(1),
        };
        self.bridge(&network.namespace);
        let own = format!("{}.1/24", network.prefix);
        self.within(&network.namespace, &["addr", "add", &own, "dev", "net"]);
        let on = "echo 1 > /proc/sys/net/ipv4/ip_forward";
        self.execute(&network, &["sh", "-c", on]);
        let (inside, first) = (
            format!("{}.0/24", network.prefix),
            format!("{}.2", network.prefix),
        );
        self.execute(&network, &["nft", &nat.rules(&wan, &inside, &first)]);
        network
    }

    /// Gives the router of `network` another address outside; what it translated
    /// before is lost.
    pub(crate) fn move_router(&self, network: &Network, outside: &Network) {
        let address = format!("{}/24", outside.next());
        let router = &network.namespace;
        self.within(router, &["addr", "flush", "dev", "wan"]);
        self.within(router, &["addr", "add", &address, "dev", "wan"]);
    }

    /// Lets nothing through to `address` any more.
    pub(crate) fn block(&self, network: &Network, address: &str) {
        let rule = format!("insert rule ip router pass ip daddr {address} drop");
        self.execute(network, &["nft", &rule]);
    }

    /// A program in a namespace.
    pub(crate) fn command(&self, namespace: &str, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace, program]);
        command
    }

    /// Has the router of `network` do something.
    pub(crate) fn execute(&self, network: &Network, command: &[&str]) {
        run(
            "ip",
            &[&["netns", "exec", &network.namespace], command].concat(),
        );
    }

    fn make(&self) -> String {
        let mut made = self.made.borrow_mut();
        let namespace = format!("{}{}", self.name, made.len());
        run("ip", &["netns", "add", &namespace]);
        made.push(namespace.clone());
        self.within(&namespace, &["link", "set", "lo", "up"]);
        namespace
    }

    fn bridge(&self, namespace: &str) {
        self.within(namespace, &["link", "add", "net", "type", "bridge"]);
        self.within(namespace, &["link", "set", "net", "up"]);
    }

    fn within(&self, namespace: &str, args: &[&str]) {
        run("ip", &[&["-n", namespace], args].concat());
    }

    /// Joins a namespace to a network, by a device `wan`; its address.
    fn plug(&self, namespace: &str, network: &Network) -> String {
        let address = network.next();
        let port = format!("port{}", network.plugged.get());
        let (at, bridge) = (&network.namespace, "net");
        self.within(
            at,
            &[
                "link", "add", &port, "type", "veth", "peer", "name", "wan", "netns", namespace,
            ],
        );
        self.within(at, &["link", "set", &port, "master", bridge, "up"]);
        let masked = format!("{address}/24");
        self.within(namespace, &["addr", "add", &masked, "dev", "wan"]);
        self.within(namespace, &["link", "set", "wan", "up"]);
        if network.routed {
            let gateway = format!("{}.1", network.prefix);
            self.within(namespace, &["route", "add", "default", "via", &gateway]);
        }
        address
    }
}

impl Network {
    /// Where its router is.
    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// An address that nobody has.
    fn next(&self) -> String {
        self.plugged.set(self.plugged.get() + 1);
        format!("{}.{}", self.prefix, self.plugged.get())
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for namespace in self.made.borrow().iter() {
            let _ = try_run("ip", &["netns", "del", namespace]);
        }
    }
}
