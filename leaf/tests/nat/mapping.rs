//! Peers that ask their router for ports: it gives some, by UPnP at any number, by
//! PCP at the same one. Needs `miniupnpd` as well.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::bed::{Leaf, Process, SuperNode, until};
use crate::matrix::tell;
use crate::net::{Nat, Net, Network};

/// What a router understands.
#[derive(Clone, Copy, Debug)]
enum Asked {
    Upnp,
    /// With NAT-PMP.
    Pcp,
}

/// A router that translates as any, and gives ports.
struct Router {
    network: Network,
    _daemon: Process,
}

impl Router {
    fn start(net: &Net, asked: Asked, base: &Path) -> Self {
        let network = net.behind(Nat::Symmetric, &net.internet);
        let table = "table inet ports {
            chain forward { type filter hook forward priority 1; jump given; }
            chain in { type nat hook prerouting priority -99; jump inward; }
            chain out { type nat hook postrouting priority 101; jump outward; }
            chain given {}
            chain inward {}
            chain outward {}
        }";
        net.execute(&network, &["nft", table]);
        let [upnp, pcp] = match asked {
            Asked::Upnp => ["yes", "no"],
            Asked::Pcp => ["no", "yes"],
        };
        let config = format!(
            "ext_ifname=wan\n\
             listening_ip=net\n\
             enable_upnp={upnp}\n\
             enable_natpmp={pcp}\n\
             upnp_table_name=ports\n\
             upnp_nat_table_name=ports\n\
             upnp_forward_chain=given\n\
             upnp_nat_chain=inward\n\
             upnp_nat_postrouting_chain=outward\n\
             uuid=6b1f5d4e-3a52-4c0e-9d7c-0d8a4a8f5a11\n\
             allow 1024-65535 10.0.0.0/8 1024-65535\n\
             deny 0-65535 0.0.0.0/0 0-65535\n"
        );
        let namespace = network.namespace();
        let file = base.join(format!("{namespace}.conf"));
        std::fs::write(&file, config).expect("the directory takes it");
        let mut command = net.command(namespace, "miniupnpd");
        command.arg("-d").arg("-f").arg(&file);
        command.arg("-P").arg(base.join(format!("{namespace}.pid")));
        command.stderr(Stdio::null());
        Self {
            network,
            _daemon: Process::start(command),
        }
    }

    /// How many ports it gives now.
    fn given(&self, net: &Net) -> usize {
        let mut list = net.command(self.network.namespace(), "nft");
        let listed = list
            .args(["list", "chain", "inet", "ports", "inward"])
            .output();
        let listed = listed.expect("it runs").stdout;
        String::from_utf8_lossy(&listed).matches("dnat").count()
    }
}

/// What is missing for these tests; `None`: nothing.
pub(crate) fn missing() -> Option<String> {
    let there = Command::new("miniupnpd").arg("--version").output();
    there.is_err().then(|| "there is no `miniupnpd`".to_owned())
}

/// Two symmetric NATs leave no direct way, unless one gives a port.
pub(crate) fn a_leaf_is_linked_to_at_the_port_that_its_router_gave() {
    let base = tempfile::tempdir().expect("a directory");
    let net = Net::new();
    let hosts = [SuperNode::start(&net, 2, None)];
    let start = |network: &Network, flags: &[&str]| {
        Leaf::start_as(&net, network, base.path(), &hosts, flags)
    };
    let asks: &[&str] = &["--stand", "never", "--port-mapping"];
    let silent: &[&str] = &["--stand", "never"];

    let far = start(&net.behind(Nat::Symmetric, &net.internet), silent);
    for asked in [Asked::Upnp, Asked::Pcp] {
        let router = Router::start(&net, asked, base.path());
        let other = start(&router.network, silent);
        let outcome = other.reach(&net, &far);
        tell("symmetric", "symmetric", &outcome);
        assert!(outcome.direct.is_none(), "there is no way");
        assert_eq!(router.given(&net), 0, "nobody has asked");

        let leaf = start(&router.network, asks);
        let direct = |from: &Leaf, to: &Leaf, what: [&str; 2]| {
            until("the way is direct", || {
                let outcome = from.reach(&net, to);
                outcome
                    .direct
                    .is_some()
                    .then(|| tell(what[0], what[1], &outcome))
            });
        };
        let name = format!("symmetric, {asked:?}");
        direct(&far, &leaf, ["symmetric", &name]);
        direct(&leaf, &far, [&name, "symmetric"]);
        // UDP and TCP of the sessions, UDP of the links.
        assert_eq!(router.given(&net), 3);
        leaf.process.interrupt();
        // By NAT-PMP and PCP it takes back UDP, and TCP ends by itself.
        until("the ports are given back", || {
            (router.given(&net) <= 1).then_some(())
        });
    }
}

/// Only who can be dialled can be elected.
pub(crate) fn who_is_let_in_is_dialled_back() {
    let base = tempfile::tempdir().expect("a directory");
    let net = Net::new();
    let hosts = SuperNode::pair(&net);
    let start = |network: &Network, flags: &[&str]| {
        Leaf::start_as(&net, network, base.path(), &hosts, flags)
    };
    let reachable = |leaf: &Leaf| {
        let status = leaf.status(&net);
        let criteria = status["criteria"].as_array().cloned().unwrap_or_default();
        criteria
            .iter()
            .any(|c| c["name"] == "reachable" && c["pass"] == true)
    };
    let plain = start(&net.behind(Nat::Symmetric, &net.internet), &[]);
    for asked in [Asked::Upnp, Asked::Pcp] {
        let router = Router::start(&net, asked, base.path());
        let begun = Instant::now();
        let leaf = start(&router.network, &["--port-mapping"]);
        until("it is dialled back", || reachable(&leaf).then_some(()));
        println!("dialled back after {:.1?}, by {asked:?}", begun.elapsed());
    }
    assert!(!reachable(&plain), "nobody lets it in");
}

/// Where sessions and relay are reached is what the router gave, both by another
/// number than inside.
pub(crate) fn a_host_serves_and_relays_behind_its_router() {
    let base = tempfile::tempdir().expect("a directory");
    let net = Net::new();
    let open = SuperNode::start(&net, 2, None);
    let router = Router::start(&net, Asked::Upnp, base.path());
    let mut home = SuperNode::start_in(&net, &router.network, 3, true, Some(&open));
    // UDP and TCP of the sessions, UDP of the relay.
    until("the ports are given", || {
        (router.given(&net) == 3).then_some(())
    });

    let hosts = [open];
    let leaves = [0, 1].map(|_| {
        let network = net.behind(Nat::Symmetric, &net.internet);
        Leaf::start(&net, &network, base.path(), &hosts)
    });
    for leaf in &leaves {
        // They know of the other by the one that is open.
        until("two homes", || (leaf.homes(&net) == 2).then_some(()));
    }
    drop(hosts);
    let [a, b] = leaves;
    for leaf in [&a, &b] {
        until("one home", || (leaf.homes(&net) == 1).then_some(()));
    }
    let outcome = a.reach(&net, &b);
    tell("symmetric", "by a home's relay", &outcome);
    assert!(outcome.direct.is_none(), "there is no way");
    assert!(home.relayed() > 0);
}
