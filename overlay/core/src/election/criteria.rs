//! May this peer stand? The verdict is the AND of the criteria listed, each
//! with value, threshold and result: nothing is enforced that is not shown,
//! and nothing shown that is not enforced.

use std::fmt::Arguments;
use std::time::Duration;

use canopy_proto::{limits, wire};

/// Whether a peer wants to serve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stand {
    /// If it looks like a host that can: not on battery, not metered.
    #[default]
    Auto,
    /// Yes, and at once: willingness and uptime are taken for granted, every
    /// other criterion holds as ever.
    Always,
    /// No.
    Never,
}

/// What is known of a peer that might stand.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// What its user decided.
    pub stand: Stand,
    /// On battery, metered or otherwise only borrowed, as far as it can tell.
    pub frugal: bool,
    /// How the overlay chooses its super-nodes.
    pub topology: wire::Topology,
    /// Networks other than its own, from which it was dialled back lately.
    pub reached_from_networks: usize,
    /// Peers that dialled it back lately.
    pub reached_from_peers: usize,
    /// Networks other than its own that it knows peers in.
    pub known_networks: usize,
    /// How long it has been up.
    pub uptime: Duration,
    /// What its line carries up: last measured, else claimed, bits a second.
    pub uplink_bps: u64,
    /// How far its clock is off the median of its neighbours', milliseconds,
    /// either way.
    pub clock_offset_ms: u64,
    /// The highest wire version it speaks.
    pub version: u32,
    /// How much longer it waits after demotions.
    pub backoff: Duration,
    /// Super-nodes on its address (ip and port on loopback).
    pub same_address: usize,
    /// Super-nodes in its network; see [`prefix`](crate::contact::prefix).
    pub same_prefix: usize,
    /// It serves already.
    pub super_node: bool,
    /// Its operator told it to take no new work.
    pub cordoned: bool,
    /// The network's operator banned it.
    pub banned: bool,
}

/// The thresholds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CriteriaConfig {
    /// Networks that must have dialled back; where fewer are known, that many
    /// peers.
    pub dial_backs: usize,
    /// Time up.
    pub uptime: Duration,
    /// Least uplink, bits a second.
    pub uplink_bps: u64,
    /// Largest clock offset.
    pub clock_offset: Duration,
    /// Least wire version.
    pub version: u32,
    /// Most super-nodes on one address.
    pub per_address: usize,
    /// Most super-nodes in one network.
    pub per_prefix: usize,
}

impl CriteriaConfig {
    /// The usual thresholds with a preset's times. The floor of 5 Mbit/s keeps
    /// some 100 leaves at the 50 kbit/s that busy ones cost; the cap of 16 a
    /// network is a choice, the two an address are given.
    pub fn new(timings: &crate::preset::Election) -> Self {
        Self {
            dial_backs: 2,
            uptime: timings.uptime,
            uplink_bps: 5_000_000,
            clock_offset: timings.clock_offset,
            version: limits::VERSION_MIN,
            per_address: 2,
            per_prefix: 16,
        }
    }
}

/// One criterion, as it was judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Criterion {
    /// Its name, a stable word for APIs: `uptime`, `reachable` ...
    pub name: &'static str,
    /// What was found, with its unit.
    pub value: String,
    /// What it takes, with its unit.
    pub threshold: String,
    /// Whether it is met.
    pub pass: bool,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Every criterion, always all of them, in a fixed order.
    pub items: Vec<Criterion>,
    /// All are met.
    pub eligible: bool,
}

impl Verdict {
    /// The criteria that are not met.
    pub fn failed(&self) -> impl Iterator<Item = &Criterion> {
        self.items.iter().filter(|item| !item.pass)
    }
}

/// Judges `facts`.
pub fn evaluate(facts: &Facts, config: &CriteriaConfig) -> Verdict {
    let mut items = Vec::new();
    judge(facts, config, &mut |name, value, threshold, pass| {
        items.push(Criterion {
            name,
            value: value.to_string(),
            threshold: threshold.to_string(),
            pass,
        });
    });
    Verdict {
        eligible: items.iter().all(|item| item.pass),
        items,
    }
}

/// What [`evaluate`] comes to, without writing it down.
pub fn is_eligible(facts: &Facts, config: &CriteriaConfig) -> bool {
    let mut eligible = true;
    judge(facts, config, &mut |_, _, _, pass| eligible &= pass);
    eligible
}

/// Is told each criterion: its name, what was found, what it takes, and whether it
/// is met.
type Tell<'a> = dyn FnMut(&'static str, Arguments<'_>, Arguments<'_>, bool) + 'a;

fn judge(facts: &Facts, config: &CriteriaConfig, tell: &mut Tell<'_>) {
    own_will(facts, config, tell);
    ability(facts, config, tell);
    caps(facts, config, tell);
}

fn own_will(facts: &Facts, config: &CriteriaConfig, tell: &mut Tell<'_>) {
    let willing = match facts.stand {
        Stand::Always => true,
        Stand::Auto => !facts.frugal,
        Stand::Never => false,
    };
    let elects =
        facts.topology != wire::Topology::Hybrid && facts.topology != wire::Topology::Unspecified;
    tell(
        "willing",
        format_args!("{:?}, frugal: {}", facts.stand, facts.frugal),
        format_args!("Always, or Auto and not frugal"),
        willing,
    );
    tell(
        "topology",
        format_args!("{:?}", facts.topology),
        format_args!("Elected or Pure"),
        elects,
    );
    let hindrances = [
        ("not_serving", facts.super_node),
        ("not_cordoned", facts.cordoned),
        ("not_banned", facts.banned),
    ];
    for (name, hindered) in hindrances {
        let not = !hindered;
        tell(name, format_args!("{not}"), format_args!("true"), not);
    }
    let least = match facts.stand {
        Stand::Always => Duration::ZERO,
        _ => config.uptime,
    };
    tell(
        "uptime",
        format_args!("{} s", facts.uptime.as_secs_f64()),
        format_args!(">= {} s", least.as_secs_f64()),
        facts.uptime >= least,
    );
}

fn ability(facts: &Facts, config: &CriteriaConfig, tell: &mut Tell<'_>) {
    reachable(facts, config, tell);
    tell(
        "uplink",
        format_args!("{} bit/s", facts.uplink_bps),
        format_args!(">= {} bit/s", config.uplink_bps),
        facts.uplink_bps >= config.uplink_bps,
    );
    let offset_ms = u64::try_from(config.clock_offset.as_millis()).unwrap_or(u64::MAX);
    tell(
        "clock",
        format_args!("{} ms off", facts.clock_offset_ms),
        format_args!("<= {offset_ms} ms"),
        facts.clock_offset_ms <= offset_ms,
    );
    tell(
        "version",
        format_args!("{}", facts.version),
        format_args!(">= {}", config.version),
        facts.version >= config.version,
    );
    tell(
        "backoff",
        format_args!("{} s to wait", facts.backoff.as_secs_f64()),
        format_args!("0 s"),
        facts.backoff.is_zero(),
    );
}

/// Dialled back from that many other networks; where there are fewer, networks
/// say nothing and peers are counted. Nobody's own word is enough: it takes at
/// least one.
fn reachable(facts: &Facts, config: &CriteriaConfig, tell: &mut Tell<'_>) {
    let by_network = facts.known_networks >= config.dial_backs;
    let (count, what) = match by_network {
        true => (facts.reached_from_networks, "networks"),
        false => (facts.reached_from_peers, "peers"),
    };
    tell(
        "reachable",
        format_args!("dialled back by {count} {what}"),
        format_args!(">= {}", config.dial_backs),
        count >= config.dial_backs,
    );
}

fn caps(facts: &Facts, config: &CriteriaConfig, tell: &mut Tell<'_>) {
    let caps = [
        ("address_cap", facts.same_address, config.per_address),
        ("prefix_cap", facts.same_prefix, config.per_prefix),
    ];
    for (name, taken, cap) in caps {
        tell(
            name,
            format_args!("{taken} super-nodes there"),
            format_args!("< {cap}"),
            taken < cap,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preset::Preset;
    use proptest::prelude::*;

    fn config() -> CriteriaConfig {
        CriteriaConfig::new(&Preset::Lan.timings().election)
    }

    fn able() -> Facts {
        Facts {
            stand: Stand::Auto,
            frugal: false,
            topology: wire::Topology::Elected,
            reached_from_networks: 2,
            reached_from_peers: 2,
            known_networks: 2,
            uptime: Duration::from_secs(30),
            uplink_bps: 5_000_000,
            clock_offset_ms: 10_000,
            version: limits::VERSION_MIN,
            backoff: Duration::ZERO,
            same_address: 1,
            same_prefix: 15,
            super_node: false,
            cordoned: false,
            banned: false,
        }
    }

    /// Each hindrance alone, and the one criterion that it fails.
    type Hindrance = (&'static str, fn(&mut Facts));
    const HINDRANCES: [Hindrance; 16] = [
        ("willing", |f| f.stand = Stand::Never),
        ("willing", |f| f.frugal = true),
        ("topology", |f| f.topology = wire::Topology::Hybrid),
        ("topology", |f| f.topology = wire::Topology::Unspecified),
        ("reachable", |f| f.reached_from_networks = 1),
        ("reachable", |f| {
            (f.known_networks, f.reached_from_peers) = (1, 1)
        }),
        ("uptime", |f| f.uptime = Duration::from_secs(29)),
        ("uplink", |f| f.uplink_bps -= 1),
        ("clock", |f| f.clock_offset_ms += 1),
        ("version", |f| f.version = 0),
        ("backoff", |f| f.backoff = Duration::from_millis(1)),
        ("address_cap", |f| f.same_address = 2),
        ("prefix_cap", |f| f.same_prefix = 16),
        ("not_serving", |f| f.super_node = true),
        ("not_cordoned", |f| f.cordoned = true),
        ("not_banned", |f| f.banned = true),
    ];

    #[test]
    fn each_criterion_shown_is_enforced() {
        let verdict = evaluate(&able(), &config());
        assert!(
            verdict.eligible,
            "{:?}",
            verdict.failed().collect::<Vec<_>>()
        );
        for (name, hinder) in HINDRANCES {
            let mut facts = able();
            hinder(&mut facts);
            let verdict = evaluate(&facts, &config());
            let failed: Vec<_> = verdict.failed().map(|item| item.name).collect();
            assert_eq!(failed, [name]);
            assert!(!verdict.eligible);
        }
        let names: Vec<_> = verdict.items.iter().map(|item| item.name).collect();
        assert!(names.iter().all(|n| HINDRANCES.iter().any(|(h, _)| h == n)));
    }

    #[test]
    fn standing_always_waives_willingness_and_uptime_alone() {
        for (name, hinder) in HINDRANCES.into_iter().skip(1) {
            let mut facts = able();
            facts.stand = Stand::Always;
            hinder(&mut facts);
            let waived = matches!(name, "willing" | "uptime");
            assert_eq!(evaluate(&facts, &config()).eligible, waived, "{name}");
        }
    }

    proptest! {
        #[test]
        fn the_verdict_is_the_and_of_what_it_lists(hindered in prop::collection::vec(any::<bool>(), 16)) {
            let mut facts = able();
            for ((_, hinder), on) in HINDRANCES.iter().zip(&hindered) {
                if *on { hinder(&mut facts); }
            }
            let verdict = evaluate(&facts, &config());
            prop_assert_eq!(verdict.eligible, verdict.items.iter().all(|item| item.pass));
            prop_assert_eq!(verdict.items.len(), 13);
            prop_assert_eq!(verdict.eligible, !hindered.contains(&true));
            prop_assert_eq!(verdict.eligible, is_eligible(&facts, &config()));
        }
    }
}
