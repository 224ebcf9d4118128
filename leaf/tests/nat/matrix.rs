//! Who reaches whom, and how.

use std::path::Path;
use std::time::Instant;

use serde_json::Value as Json;

use crate::bed::{Leaf, Outcome, Process, SuperNode, until};
use crate::net::{Nat, Net, Network};

/// Where a leaf stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// On the internet itself.
    Reachable,
    Behind(Nat),
    /// Behind a home router, which is behind its provider's.
    Carrier,
}

const PLACES: [Place; 7] = [
    Place::Reachable,
    Place::Behind(Nat::FullCone),
    Place::Behind(Nat::AddressRestricted),
    Place::Behind(Nat::PortRestricted),
    Place::Behind(Nat::Symmetric),
    Place::Carrier,
    Place::Behind(Nat::NoUdp),
];

impl Place {
    fn name(self) -> &'static str {
        match self {
            Self::Reachable => "reachable",
            Self::Behind(Nat::FullCone) => "full cone",
            Self::Behind(Nat::AddressRestricted) => "address-restricted",
            Self::Behind(Nat::PortRestricted) => "port-restricted",
            Self::Behind(Nat::Symmetric) => "symmetric",
            Self::Behind(Nat::Hairpin) => "hairpin",
            Self::Behind(Nat::NoUdp) => "UDP blocked",
            Self::Carrier => "two layers",
        }
    }

    fn leaf(self, net: &Net, base: &Path, known: &[SuperNode]) -> Leaf {
        let internet = &net.internet;
        match self {
            Self::Reachable => Leaf::start(net, internet, base, known),
            Self::Behind(nat) => Leaf::start(net, &net.behind(nat, internet), base, known),
            Self::Carrier => {
                let carrier = net.behind(Nat::PortRestricted, internet);
                let home = net.behind(Nat::PortRestricted, &carrier);
                Leaf::start(net, &home, base, known)
            }
        }
    }

    /// Whether there can be no way but the relay.
    fn never_goes_direct(self, to: Self) -> bool {
        let blocked = Self::Behind(Nat::NoUdp);
        self == blocked || to == blocked
    }

    /// Whoever can be reached with any, and homes with homes.
    fn must_go_direct(self, to: Self) -> bool {
        if self.never_goes_direct(to) {
            return false;
        }
        let open = |place| matches!(place, Self::Reachable | Self::Behind(Nat::FullCone));
        let symmetric = Self::Behind(Nat::Symmetric);
        open(self) || open(to) || (self != symmetric && to != symmetric)
    }
}

pub(crate) fn tell(from: &str, to: &str, outcome: &Outcome) {
    let ms = |time: std::time::Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);
    println!(
        "{from:<20}{to:<20}{:<8}{:>14}{:>14}",
        if outcome.direct.is_some() {
            "direct"
        } else {
            "relay"
        },
        ms(outcome.first),
        outcome.direct.map_or("-".into(), ms),
    );
}

pub(crate) fn every_pair_connects() {
    let base = tempfile::tempdir().expect("a directory");
    let net = Net::new();
    let hosts = [SuperNode::start(&net, 2, None)];
    // Two of each, so that a kind meets itself.
    let leaves = PLACES.map(|place| [0, 1].map(|_| place.leaf(&net, base.path(), &hosts)));

    println!(
        "{:<20}{:<20}{:<8}{:>14}{:>14}",
        "from", "to", "path", "first byte", "direct"
    );
    let mut wrong = Vec::new();
    for (from, at) in PLACES.iter().zip(&leaves) {
        for (to, there) in PLACES.iter().zip(&leaves) {
            let outcome = at[0].reach(&net, &there[1]);
            tell(from.name(), to.name(), &outcome);
            if outcome.direct.is_none() && from.must_go_direct(*to) {
                wrong.push(format!("{} to {}", from.name(), to.name()));
            }
            // Bytes came back over the relay, by a carrier.
            assert!(outcome.direct.is_none() || !from.never_goes_direct(*to));
        }
    }
    assert!(wrong.is_empty(), "these should have gone direct: {wrong:?}");
}

/// Leaves of one network go direct within it, and those of two homes behind one
/// provider by its router, where that lets them; else by the relay.
pub(crate) fn leaves_of_one_network_find_each_other() {
    let base = tempfile::tempdir().expect("a directory");
    let net = Net::new();
    let hosts = [SuperNode::start(&net, 2, None)];
    let start = |network: &Network| Leaf::start(&net, network, base.path(), &hosts);
    let pair = |nat| {
        let provider = net.behind(nat, &net.internet);
        [0, 1].map(|_| start(&net.behind(Nat::PortRestricted, &provider)))
    };

    let home = net.behind(Nat::Symmetric, &net.internet);
    let [a, b] = [0, 1].map(|_| start(&home));
    let outcome = a.reach(&net, &b);
    tell("one home", "the same", &outcome);
    assert!(outcome.direct.is_some(), "within one home");

    let [a, b] = pair(Nat::Hairpin);
    let outcome = a.reach(&net, &b);
    tell("one provider", "with hairpin", &outcome);
    assert!(outcome.direct.is_some(), "by a provider's router");

    let [a, b] = pair(Nat::PortRestricted);
    let outcome = a.reach(&net, &b);
    tell("one provider", "without hairpin", &outcome);
    assert!(outcome.direct.is_none(), "there is no way");
}

/// Two leaves whose networks let them reach one super-node each, and not the same.
pub(crate) fn a_message_crosses_two_super_nodes_where_it_must() {
    let base = tempfile::tempdir().expect("a directory");
    let net = Net::new();
    let hosts = SuperNode::pair(&net);
    let leaf = |other: &SuperNode| {
        let network = net.behind(Nat::PortRestricted, &net.internet);
        net.block(&network, other.ip());
        Leaf::start(&net, &network, base.path(), &hosts)
    };
    let (a, b) = (leaf(&hosts[1]), leaf(&hosts[0]));
    let mut listens = Process::start(b.command(&net, &["listen"]));
    let send = |text: &str| {
        let begun = Instant::now();
        let sent = a.command(&net, &["send", &b.id, text]).output();
        let sent: Json = serde_json::from_slice(&sent.expect("it runs").stdout).ok()?;
        (sent["delivered"] == true).then(|| begun.elapsed())
    };
    // Until it listens, and is found.
    let first = until("the message is taken", || send("first"));
    let second = send("second").expect("it is taken too");
    println!("a message over two super-nodes: {first:.1?}, and again {second:.1?}");
    let mut heard = "first".to_owned();
    while heard == "first" {
        let message: Json = serde_json::from_str(&listens.line()).expect("JSON");
        assert_eq!(message["from"].as_str(), Some(a.id.as_str()));
        heard = message["data"].as_str().expect("a text").to_owned();
    }
    assert_eq!(heard, "second");
}
