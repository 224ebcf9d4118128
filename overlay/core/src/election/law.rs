//! How many super-nodes there should be: a pure function of what the reports
//! say. Whole numbers (thousandths) throughout, so that officer and stand-in
//! read the same need from the same reports.

use std::collections::BTreeMap;
use std::sync::Arc;

use canopy_proto::wire::Topology;

use crate::keyspace::NodeId;
use crate::placement;

/// A super-node, as its last report shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SuperNode {
    /// Who it is.
    pub node: NodeId,
    /// Capacity of its mandate, bits a second.
    pub capacity_bps: u64,
    /// Utilisation in its worst dimension, thousandths; above 1000 if overloaded.
    pub utilisation_milli: u32,
    /// Failure domain; empty: unknown, shared with nobody.
    pub domain: Arc<str>,
    /// Leaves at home there.
    pub leaves: u32,
    /// Appointed by the operator, who alone may end that.
    pub designated: bool,
    /// Start of its office, milliseconds since 1970.
    pub since_ms: u64,
}

/// The overlay, as the officer sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overview {
    /// How the overlay chooses its super-nodes.
    pub topology: Topology,
    /// Everyone who serves.
    pub super_nodes: Vec<SuperNode>,
    /// Peers that would pass every criterion.
    pub candidates: usize,
    /// Leaves, each counted once.
    pub leaves: usize,
    /// Deputies in reserve.
    pub deputies: usize,
    /// Role changes under way.
    pub in_flight: usize,
}

/// The thresholds; all thousandths but the counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LawConfig {
    /// Leaves a super-node.
    pub ratio: usize,
    /// How far the ratio may stray.
    pub band_milli: u64,
    /// Grow above this weighted utilisation.
    pub grow_milli: u64,
    /// Grow when the rest would be above this after the loss of the largest
    /// failure domain.
    pub survive_milli: u64,
    /// Shrink below this weighted utilisation.
    pub shrink_milli: u64,
    /// Fewest super-nodes.
    pub fewest: usize,
    /// Most role changes at a time in a small overlay...
    pub max_in_flight: usize,
    /// ...and the share of those who serve that may change in a large one, so
    /// that it grows in step with what it has.
    pub in_flight_milli: u64,
    /// The same share where growth is [urgent](is_urgent): an overlay that lacks
    /// more than it has doubles, so that it is complete after as many rounds as
    /// the logarithm of what it needs.
    pub urgent_milli: u64,
}

impl Default for LawConfig {
    /// The given numbers: 40 leaves a super-node within 20 %, grow above 0.60,
    /// survive at 0.90, shrink below 0.25, never fewer than R, four changes at
    /// a time, or a quarter of those who serve, or as many as serve where twice
    /// as many have to.
    fn default() -> Self {
        Self {
            ratio: 40,
            band_milli: 200,
            grow_milli: 600,
            survive_milli: 900,
            shrink_milli: 250,
            fewest: placement::R,
            max_in_flight: 4,
            in_flight_milli: 250,
            urgent_milli: 1000,
        }
    }
}

/// Why the number should change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Every able peer serves (pure topology).
    Pure,
    /// Fewer than the least number.
    TooFew,
    /// Weighted utilisation above the limit.
    Utilisation,
    /// The loss of the largest failure domain would overload the rest.
    Survival,
    /// More leaves a super-node than the band allows.
    Ratio,
    /// Idle, with fewer leaves a super-node than the band allows.
    Idle,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Reason::Pure => "every able peer serves",
            Reason::TooFew => "too few super-nodes",
            Reason::Utilisation => "super-nodes are busy",
            Reason::Survival => "a lost failure domain would overload the rest",
            Reason::Ratio => "too many leaves a super-node",
            Reason::Idle => "super-nodes are idle",
        })
    }
}

/// What the law asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// That many more; `reasons` in order.
    Grow {
        /// How many to elect now.
        count: usize,
        /// Everything that asks for it.
        reasons: Vec<Reason>,
    },
    /// One fewer: shrinking is never urgent, and each step is looked at anew.
    Shrink {
        /// Who steps down.
        node: NodeId,
        /// Why.
        reason: Reason,
    },
    /// As it is.
    Hold,
}

/// What the overlay needs. Only as many as there are candidates, and room
/// under [`LawConfig::max_in_flight`].
pub fn need(overview: &Overview, config: &LawConfig) -> Need {
    let milli = match is_urgent(overview, config) {
        true => config.urgent_milli,
        false => config.in_flight_milli,
    };
    let share = overview.super_nodes.len() as u64 * milli / 1000;
    let most = config.max_in_flight.max(share as usize);
    let room = most.saturating_sub(overview.in_flight);
    if room == 0 {
        return Need::Hold;
    }
    let able = overview.candidates.min(room);
    match overview.topology {
        Topology::Hybrid | Topology::Unspecified => Need::Hold,
        Topology::Pure if able > 0 => Need::Grow {
            count: able,
            reasons: vec![Reason::Pure],
        },
        Topology::Pure => Need::Hold,
        Topology::Elected => elected(overview, config, able),
    }
}

fn elected(overview: &Overview, config: &LawConfig, able: usize) -> Need {
    let (missing, reasons) = shortage(overview, config);
    if missing == 0 {
        return surplus(overview, config);
    }
    match able.min(missing) {
        0 => Need::Hold,
        count => Need::Grow { count, reasons },
    }
}

/// Whether at least as many more have to serve as do: no flapping comes near
/// that, and each sample waited for is one in which everybody is served badly.
pub fn is_urgent(overview: &Overview, config: &LawConfig) -> bool {
    let serving = overview.super_nodes.len();
    let elects = overview.topology == Topology::Elected && serving >= config.fewest;
    elects && shortage(overview, config).0 >= serving
}

/// How many more it takes, and why.
fn shortage(overview: &Overview, config: &LawConfig) -> (usize, Vec<Reason>) {
    let nodes = &overview.super_nodes;
    let n = nodes.len();
    let mut asks: Vec<(Reason, usize)> = Vec::new();
    if n < config.fewest {
        asks.push((Reason::TooFew, config.fewest - n));
    }
    let milli = utilisation_milli(nodes);
    if n > 0 && milli > config.grow_milli {
        // Enough of about the same kind to bring it back to the limit.
        let due = (n as u64)
            .saturating_mul(milli)
            .div_ceil(config.grow_milli.max(1));
        asks.push((Reason::Utilisation, (due as usize).saturating_sub(n).max(1)));
    }
    if n > 1 && after_largest_loss_milli(nodes).is_some_and(|m| m > config.survive_milli) {
        asks.push((Reason::Survival, 1));
    }
    if overview.leaves > upper(config).saturating_mul(n) {
        let due = overview.leaves.div_ceil(config.ratio.max(1));
        asks.push((Reason::Ratio, due.saturating_sub(n).max(1)));
    }
    let most = asks.iter().map(|(_, count)| *count).max().unwrap_or(0);
    (most, asks.into_iter().map(|(reason, _)| reason).collect())
}

/// One to spare: the weakest of those not designated, of equals the most
/// recently appointed; only if nothing would ask for growth without it.
fn surplus(overview: &Overview, config: &LawConfig) -> Need {
    let nodes = &overview.super_nodes;
    let few_leaves = overview.leaves < lower(config).saturating_mul(nodes.len());
    let idle = utilisation_milli(nodes) < config.shrink_milli;
    if nodes.len() <= config.fewest || !idle || !few_leaves {
        return Need::Hold;
    }
    let weakest = nodes
        .iter()
        .filter(|s| !s.designated)
        .min_by_key(|s| (s.capacity_bps, std::cmp::Reverse(s.since_ms), s.node));
    let Some(node) = weakest.map(|s| s.node) else {
        return Need::Hold;
    };
    let without = Overview {
        super_nodes: shifted(nodes, &node),
        ..overview.clone()
    };
    match shortage(&without, config).0 {
        0 => Need::Shrink {
            node,
            reason: Reason::Idle,
        },
        _ => Need::Hold,
    }
}

/// The others, carrying the load of `node` as well.
fn shifted(nodes: &[SuperNode], node: &NodeId) -> Vec<SuperNode> {
    let mut rest: Vec<SuperNode> = nodes.iter().filter(|s| s.node != *node).cloned().collect();
    let capacity: u128 = rest.iter().map(weight).sum();
    let load: u128 = nodes.iter().map(load).sum();
    let even = load.checked_div(capacity).unwrap_or(u128::MAX);
    for s in &mut rest {
        s.utilisation_milli = u32::try_from(even).unwrap_or(u32::MAX);
    }
    rest
}

/// Utilisation of all together, weighted by capacity, thousandths; 0 for nobody.
pub fn utilisation_milli(nodes: &[SuperNode]) -> u64 {
    let capacity: u128 = nodes.iter().map(weight).sum();
    let load: u128 = nodes.iter().map(load).sum();
    u64::try_from(load.checked_div(capacity).unwrap_or(0)).unwrap_or(u64::MAX)
}

/// Utilisation of the rest, were the failure domain with the most capacity
/// lost and its load spread over them; `None` where nobody would be left,
/// because then no growth in the same domain helps.
pub fn after_largest_loss_milli(nodes: &[SuperNode]) -> Option<u64> {
    let mut domains: BTreeMap<(&str, Option<NodeId>), u128> = BTreeMap::new();
    for s in nodes {
        let alone = s.domain.is_empty().then_some(s.node);
        *domains.entry((&s.domain, alone)).or_default() += weight(s);
    }
    let largest = domains.values().max()?;
    let capacity: u128 = nodes.iter().map(weight).sum();
    let load: u128 = nodes.iter().map(load).sum();
    let left = load.checked_div(capacity - largest)?;
    Some(u64::try_from(left).unwrap_or(u64::MAX))
}

fn weight(s: &SuperNode) -> u128 {
    u128::from(s.capacity_bps.max(1))
}

fn load(s: &SuperNode) -> u128 {
    weight(s) * u128::from(s.utilisation_milli)
}

fn upper(config: &LawConfig) -> usize {
    band(config, 1000 + config.band_milli)
}

fn lower(config: &LawConfig) -> usize {
    band(config, 1000u64.saturating_sub(config.band_milli))
}

fn band(config: &LawConfig, milli: u64) -> usize {
    let leaves = config.ratio as u128 * u128::from(milli) / 1000;
    usize::try_from(leaves).unwrap_or(usize::MAX)
}

/// How many deputies to keep: a tenth of the super-nodes, at least two.
pub fn deputies_wanted(super_nodes: usize) -> usize {
    super_nodes.div_ceil(10).max(2)
}

/// Samples that a need has to persist.
pub const PERSIST: u32 = 3;

/// Lets a need through once it has been the same for [`PERSIST`] samples in a
/// row: growth of any size is one need, shrinking by a certain node another.
#[derive(Clone, Debug, Default)]
pub struct Hysteresis {
    last: Option<Need>,
    times: u32,
}

impl Hysteresis {
    /// Takes one sample; returns what to act on now, at once where it is
    /// [urgent](is_urgent). After it acted, a need has to persist anew.
    pub fn sample(&mut self, need: Need, urgent: bool) -> Need {
        let same = self.last.as_ref().is_some_and(|last| alike(last, &need));
        self.times = if same { self.times + 1 } else { 1 };
        self.last = Some(need.clone());
        if self.times < PERSIST && !urgent {
            return Need::Hold;
        }
        self.last = None;
        self.times = 0;
        need
    }
}

fn alike(a: &Need, b: &Need) -> bool {
    match (a, b) {
        (Need::Grow { .. }, Need::Grow { .. }) => true,
        (a, b) => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn serving(i: u8, utilisation_milli: u32) -> SuperNode {
        SuperNode {
            node: NodeId([i; 32]),
            capacity_bps: 100_000_000,
            utilisation_milli,
            domain: format!("d{i}").into(),
            leaves: 40,
            designated: false,
            since_ms: u64::from(i),
        }
    }

    fn overview(n: u8, utilisation_milli: u32, leaves: usize) -> Overview {
        Overview {
            topology: Topology::Elected,
            super_nodes: (0..n).map(|i| serving(i, utilisation_milli)).collect(),
            candidates: 50,
            leaves,
            deputies: 2,
            in_flight: 0,
        }
    }

    fn ask(overview: &Overview) -> Need {
        need(overview, &LawConfig::default())
    }

    fn grow(count: usize, reason: Reason) -> Need {
        let reasons = vec![reason];
        Need::Grow { count, reasons }
    }

    #[test]
    fn growth_follows_load_survival_ratio_and_the_least_number() {
        assert_eq!(ask(&overview(10, 500, 400)), Need::Hold);
        assert_eq!(ask(&overview(10, 600, 400)), Need::Hold);
        assert_eq!(ask(&overview(10, 601, 400)), grow(1, Reason::Utilisation));
        assert_eq!(ask(&overview(10, 780, 400)), grow(3, Reason::Utilisation));
        assert_eq!(ask(&overview(10, 500, 481)), grow(3, Reason::Ratio));
        assert_eq!(ask(&overview(10, 500, 480)), Need::Hold);
        assert_eq!(ask(&overview(2, 300, 80)), grow(1, Reason::TooFew));
        let mut lopsided = overview(10, 500, 400);
        for s in &mut lopsided.super_nodes[..5] {
            s.domain = "rack".into();
        }
        assert_eq!(ask(&lopsided), grow(1, Reason::Survival));
    }

    #[test]
    fn growth_stops_at_candidates_and_at_changes_in_flight() {
        let mut o = overview(10, 1000, 400);
        assert!(matches!(ask(&o), Need::Grow { count: 4, .. }));
        o.in_flight = 3;
        assert!(matches!(ask(&o), Need::Grow { count: 1, .. }));
        o.in_flight = 4;
        assert_eq!(ask(&o), Need::Hold);
        o.in_flight = 0;
        o.candidates = 0;
        assert_eq!(ask(&o), Need::Hold);
        let large = overview(100, 900, 4_000);
        assert!(matches!(ask(&large), Need::Grow { count: 25, .. }));
    }

    #[test]
    fn an_overlay_that_lacks_more_than_it_has_doubles() {
        let mut o = overview(12, 500, 40_000);
        assert_eq!(ask(&o), grow(12, Reason::Ratio));
        o.in_flight = 5;
        assert_eq!(ask(&o), grow(7, Reason::Ratio));
        // The last step is an ordinary one.
        assert_eq!(ask(&overview(20, 500, 1_200)), grow(5, Reason::Ratio));
    }

    #[test]
    fn half_of_what_is_needed_is_urgent_but_not_a_loss_of_two() {
        let urgent = |o: &Overview| is_urgent(o, &LawConfig::default());
        assert!(urgent(&overview(10, 500, 800)));
        assert!(!urgent(&overview(10, 500, 760)));
        assert!(!urgent(&overview(1, 500, 40)));
    }

    #[test]
    fn only_an_idle_overlay_with_few_leaves_shrinks_by_its_weakest() {
        let mut o = overview(10, 100, 200);
        o.super_nodes[4].capacity_bps = 10_000_000;
        let by = |i: u8| Need::Shrink {
            node: NodeId([i; 32]),
            reason: Reason::Idle,
        };
        assert_eq!(ask(&o), by(4));
        o.super_nodes[4].designated = true;
        assert_eq!(ask(&o), by(9), "of equals the latest appointed");
        assert_eq!(
            ask(&overview(10, 100, 320)),
            Need::Hold,
            "leaves in the band"
        );
        assert_eq!(ask(&overview(10, 250, 200)), Need::Hold, "not idle");
        assert_eq!(ask(&overview(3, 10, 1)), Need::Hold, "never below R");
    }

    #[test]
    fn pure_takes_all_and_hybrid_none() {
        let mut o = overview(10, 100, 400);
        o.topology = Topology::Pure;
        assert_eq!(ask(&o), grow(4, Reason::Pure));
        o.topology = Topology::Hybrid;
        o.super_nodes.clear();
        assert_eq!(ask(&o), Need::Hold);
    }

    #[test]
    fn nobody_serving_asks_for_the_least_number() {
        let need = ask(&overview(0, 0, 0));
        assert_eq!(need, grow(3, Reason::TooFew));
    }

    #[test]
    fn a_need_has_to_persist_three_samples() {
        let mut hysteresis = Hysteresis::default();
        let (few, ratio) = (grow(1, Reason::TooFew), grow(2, Reason::Ratio));
        assert_eq!(hysteresis.sample(few.clone(), false), Need::Hold);
        assert_eq!(hysteresis.sample(ratio.clone(), false), Need::Hold);
        assert_eq!(hysteresis.sample(ratio.clone(), false), ratio);
        assert_eq!(hysteresis.sample(few.clone(), false), Need::Hold);
        assert_eq!(hysteresis.sample(Need::Hold, false), Need::Hold);
        assert_eq!(hysteresis.sample(few.clone(), false), Need::Hold);
        assert_eq!(hysteresis.sample(few.clone(), false), Need::Hold);
        assert_eq!(hysteresis.sample(few.clone(), false), few);
        assert_eq!(hysteresis.sample(few.clone(), true), few, "at once");
    }

    proptest! {
        #[test]
        fn what_shrinks_does_not_grow_at_once(
            milli in prop::collection::vec((0u32..1_200, 1u64..1_000, 0u8..4), 0..30),
            leaves in 0usize..2_000,
        ) {
            let mut o = overview(0, 0, leaves);
            o.super_nodes = milli.iter().enumerate().map(|(i, (milli, capacity, domain))| SuperNode {
                capacity_bps: capacity * 1_000_000,
                domain: format!("d{domain}").into(),
                ..serving(i as u8, *milli)
            }).collect();
            if let Need::Shrink { node, .. } = ask(&o) {
                o.super_nodes = shifted(&o.super_nodes, &node);
                let grows = matches!(ask(&o), Need::Grow { .. });
                prop_assert!(!grows);
                prop_assert!(o.super_nodes.len() >= placement::R);
            }
        }
    }
}
