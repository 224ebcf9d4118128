//! How evenly work is spread over capacities, and what the loss of a failure
//! domain would mean. Pure functions of plain numbers.

use std::collections::BTreeMap;

/// What one super-node carries of something.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Part {
    /// Bits a second that it was elected for.
    pub(super) capacity_bps: u64,
    /// How much it carries, in any unit.
    pub(super) load: f64,
}

/// How evenly parts follow capacity; see the message of this name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Imbalance {
    pub(super) max_over_mean: f64,
    pub(super) p99_over_p50: Option<f64>,
    pub(super) gini: f64,
}

/// `None` where nobody carries anything: nothing is neither even nor uneven.
pub(super) fn imbalance(parts: &[Part]) -> Option<Imbalance> {
    let capacity: f64 = parts.iter().map(|part| weight(part.capacity_bps)).sum();
    let load: f64 = parts.iter().map(|part| part.load).sum();
    if load <= 0.0 {
        return None;
    }
    let mean = load / capacity;
    let mut shares: Vec<f64> = parts
        .iter()
        .map(|part| part.load / weight(part.capacity_bps) / mean)
        .collect();
    shares.sort_by(f64::total_cmp);
    let median = quantile(&shares, 0.5);
    Some(Imbalance {
        max_over_mean: shares.last().copied().unwrap_or(0.0),
        p99_over_p50: (median > 0.0).then(|| quantile(&shares, 0.99) / median),
        gini: gini(&shares),
    })
}

/// The smallest value that is not below `of` of the sorted `values`.
fn quantile(values: &[f64], of: f64) -> f64 {
    let rank = (values.len() as f64 * of).ceil() as usize;
    let value = values.get(rank.saturating_sub(1).min(values.len().saturating_sub(1)));
    value.copied().unwrap_or(0.0)
}

/// Half the mean difference of all pairs, over the mean; of sorted values.
fn gini(sorted: &[f64]) -> f64 {
    let (count, sum) = (sorted.len() as f64, sorted.iter().sum::<f64>());
    if sum <= 0.0 {
        return 0.0;
    }
    let ranked = sorted.iter().zip(1..);
    let weighted: f64 = ranked.map(|(value, rank)| value * f64::from(rank)).sum();
    (2.0 * weighted / (count * sum) - (count + 1.0) / count).max(0.0)
}

fn weight(capacity_bps: u64) -> f64 {
    capacity_bps.max(1) as f64
}

/// A super-node whose loss is looked at.
#[derive(Clone, Debug)]
pub(super) struct Tenant<'a> {
    /// Empty: it shares its domain with nobody.
    pub(super) domain: &'a str,
    pub(super) capacity_bps: u64,
    /// Thousandths.
    pub(super) utilisation_milli: u32,
}

/// What the loss of a failure domain would mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Loss {
    pub(super) domain: String,
    pub(super) super_nodes: u32,
    pub(super) capacity_bps: u64,
    /// Mean utilisation of the rest with its load, thousandths; `None`: nobody
    /// would be left.
    pub(super) rest_milli: Option<u64>,
    /// Super-nodes that would be left.
    pub(super) left: u32,
}

/// The loss of each failure domain, the worst first.
pub(super) fn losses(tenants: &[Tenant<'_>]) -> Vec<Loss> {
    // Those without a domain are each their own.
    let mut domains: BTreeMap<(&str, usize), (u32, u128)> = BTreeMap::new();
    let (mut capacity, mut load) = (0_u128, 0_u128);
    for (index, tenant) in tenants.iter().enumerate() {
        let weight = u128::from(tenant.capacity_bps.max(1));
        let own = if tenant.domain.is_empty() { index } else { 0 };
        let sums = domains.entry((tenant.domain, own)).or_default();
        *sums = (sums.0 + 1, sums.1 + weight);
        capacity += weight;
        load += weight * u128::from(tenant.utilisation_milli);
    }
    let all = u32::try_from(tenants.len()).unwrap_or(u32::MAX);
    let mut losses: Vec<Loss> = domains
        .into_iter()
        .map(|((domain, _), (super_nodes, lost))| Loss {
            domain: domain.to_owned(),
            super_nodes,
            capacity_bps: u64::try_from(lost).unwrap_or(u64::MAX),
            rest_milli: load
                .checked_div(capacity - lost)
                .map(|milli| u64::try_from(milli).unwrap_or(u64::MAX)),
            left: all - super_nodes,
        })
        .collect();
    losses.sort_by_key(|loss| {
        let rest = loss.rest_milli.unwrap_or(u64::MAX);
        (
            std::cmp::Reverse((rest, loss.capacity_bps)),
            loss.domain.clone(),
        )
    });
    losses
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use canopy_core::election::law;
    use canopy_core::keyspace::NodeId;
    use proptest::prelude::*;

    use super::*;

    fn parts(all: &[(u64, f64)]) -> Vec<Part> {
        let part = |(capacity_bps, load): &(u64, f64)| Part {
            capacity_bps: *capacity_bps,
            load: *load,
        };
        all.iter().map(part).collect()
    }

    #[test]
    fn load_in_proportion_to_capacity_is_even() {
        let even = imbalance(&parts(&[(10, 1.0), (20, 2.0), (40, 4.0)])).unwrap();
        assert!((even.max_over_mean - 1.0).abs() < 1e-9);
        assert!((even.p99_over_p50.unwrap() - 1.0).abs() < 1e-9);
        assert!(even.gini < 1e-9);
    }

    #[test]
    fn one_that_carries_all_of_four_shows() {
        let all = imbalance(&parts(&[(10, 0.0), (10, 8.0), (10, 0.0), (10, 0.0)])).unwrap();
        assert_eq!((all.max_over_mean, all.p99_over_p50), (4.0, None));
        assert!((all.gini - 0.75).abs() < 1e-9);
        assert_eq!(imbalance(&parts(&[(10, 0.0)])), None);
        assert_eq!(imbalance(&[]), None);
    }

    fn tenants(all: &[(&'static str, u64, u32)]) -> Vec<Tenant<'static>> {
        let tenant =
            |(domain, capacity_bps, utilisation_milli): &(&'static str, u64, u32)| Tenant {
                domain,
                capacity_bps: *capacity_bps,
                utilisation_milli: *utilisation_milli,
            };
        all.iter().map(tenant).collect()
    }

    #[test]
    fn the_worst_loss_comes_first_and_the_last_domain_leaves_nobody() {
        let losses = losses(&tenants(&[
            ("a", 10, 500),
            ("a", 10, 500),
            ("b", 20, 500),
            ("", 20, 500),
        ]));
        let rest: Vec<_> = losses
            .iter()
            .map(|l| (l.domain.as_str(), l.rest_milli, l.left))
            .collect();
        assert_eq!(
            rest,
            [("", Some(750), 3), ("a", Some(750), 2), ("b", Some(750), 3)]
        );
        assert_eq!(super::losses(&tenants(&[("a", 10, 1)]))[0].rest_milli, None);
    }

    proptest! {
        #[test]
        fn gini_is_half_the_mean_difference_of_all_pairs(loads in prop::collection::vec(0.0..100.0_f64, 1..20)) {
            let all: Vec<Part> = loads.iter().map(|load| Part { capacity_bps: 5, load: *load }).collect();
            let sum: f64 = loads.iter().sum();
            prop_assume!(sum > 1e-6);
            let pairs: f64 = loads.iter().flat_map(|a| loads.iter().map(move |b| (a - b).abs())).sum();
            let naive = pairs / (2.0 * loads.len() as f64 * sum);
            prop_assert!((imbalance(&all).unwrap().gini - naive).abs() < 1e-6);
        }

        /// The election's law looks at the largest domain only; it must see the
        /// same there.
        #[test]
        fn the_largest_loss_is_the_law_s(all in prop::collection::vec((0..4_usize, 1..1000_u64, 0..2000_u32), 1..12)) {
            const DOMAINS: [&str; 4] = ["", "a", "b", "c"];
            let tenants: Vec<Tenant<'_>> = all.iter().map(|(domain, capacity_bps, utilisation_milli)| Tenant {
                domain: DOMAINS[*domain],
                capacity_bps: *capacity_bps,
                utilisation_milli: *utilisation_milli,
            }).collect();
            let nodes: Vec<law::SuperNode> = tenants.iter().zip(0..).map(|(tenant, n)| law::SuperNode {
                node: NodeId([n; 32]),
                capacity_bps: tenant.capacity_bps,
                utilisation_milli: tenant.utilisation_milli,
                domain: Arc::from(tenant.domain),
                leaves: 0,
                designated: false,
                since_ms: 0,
            }).collect();
            prop_assert_eq!(losses(&tenants)[0].rest_milli, law::after_largest_loss_milli(&nodes));
        }
    }
}
