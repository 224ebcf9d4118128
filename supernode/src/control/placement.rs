//! Why a super-node has the share of the keyspace that it has, and what would move
//! if it left: from the placement alone, which says the same to every peer.

use std::collections::BTreeMap;

use canopy_core::election::mandate::{BPS_PER_SEAT, MAX_SEATS, MIN_SEATS};
use canopy_core::keyspace::{Key, NodeId};
use canopy_core::placement::{Owners, Placement, R};
use canopy_proto::control as pb;
use tonic::Status;

use super::survey::Member;

/// Keys whose owners are looked for, evenly spaced: shares are good to about a
/// hundredth of themselves. A power of two, at most 65 536.
const SAMPLES: usize = 16_384;
/// Parts told of each kind.
const MAX_PARTS: usize = 100;
/// What an owner has is as it is due, give or take this part of it: seats fall by
/// chance.
const USUAL: f64 = 0.15;

/// Owners of the sampled keys.
fn samples(placement: &Placement) -> impl Iterator<Item = (Key, Owners)> {
    (0..SAMPLES).map(|sample| {
        let mut key = [0; 32];
        let place = (sample * (65_536 / SAMPLES)) as u16;
        key[..2].copy_from_slice(&place.to_be_bytes());
        (Key(key), placement.owner_set(&Key(key)))
    })
}

fn ppm(part: usize, of: usize) -> u32 {
    (part as u64 * 1_000_000 / of.max(1) as u64) as u32
}

/// What is counted over the sampled keys.
#[derive(Default)]
struct Counted {
    /// Copies of all keys.
    copies: usize,
    /// Keys that the super-node owns first, second or third.
    ranks: [usize; R],
    /// Of its keys: those whose owners are all of distinct failure domains.
    spread: usize,
    /// Where the other copies of its keys lie.
    domains: BTreeMap<String, usize>,
    neighbours: BTreeMap<NodeId, usize>,
    /// Who would own keys in its place.
    heirs: BTreeMap<NodeId, usize>,
    moved: usize,
}

impl Counted {
    fn of(node: NodeId, placement: &Placement) -> Self {
        let mut out = Self::default();
        let without = placement.without(&node);
        let domain = |node: &NodeId| {
            let member = placement.get(node);
            member.map_or_else(Default::default, |member| member.domain.clone())
        };
        for (key, owners) in samples(placement) {
            out.copies += owners.len();
            let Some(rank) = owners.iter().position(|owner| *owner == node) else {
                continue;
            };
            out.ranks[rank] += 1;
            let mut domains: Vec<_> = owners.iter().map(domain).collect();
            domains.retain(|domain| !domain.is_empty());
            domains.sort_unstable();
            out.spread += usize::from(domains.windows(2).all(|pair| pair[0] != pair[1]));
            for other in owners.iter().filter(|owner| **owner != node) {
                *out.domains.entry(domain(other).to_string()).or_default() += 1;
                *out.neighbours.entry(*other).or_default() += 1;
            }
            let heirs = without.owner_set(&key);
            let mut moved = false;
            for heir in heirs.iter().filter(|heir| !owners.contains(heir)) {
                *out.heirs.entry(*heir).or_default() += 1;
                moved = true;
            }
            out.moved += usize::from(moved);
        }
        out
    }

    fn keys(&self) -> usize {
        self.ranks.iter().sum()
    }
}

/// The largest first.
fn parts<T>(
    counted: BTreeMap<T, usize>,
    of: usize,
    part: impl Fn(T) -> (String, String),
) -> Vec<pb::PlacementPart> {
    let parts = counted.into_iter().map(|(what, count)| {
        let (node_id, domain) = part(what);
        pb::PlacementPart {
            node_id,
            domain,
            ppm: ppm(count, of),
        }
    });
    let mut parts: Vec<pb::PlacementPart> = parts.collect();
    parts.sort_by_key(|part| std::cmp::Reverse(part.ppm));
    parts.truncate(MAX_PARTS);
    parts
}

/// `ExplainPlacement`.
pub(super) fn explain(
    member: &Member,
    placement: &Placement,
) -> Result<pb::ExplainPlacementReply, Status> {
    let node = member.node;
    let Some(placed) = placement.get(&node).filter(|placed| placed.seats > 0) else {
        return Err(Status::failed_precondition(format!(
            "{node} is {} and owns no keys; ask for one that serves",
            member.state.as_str()
        )));
    };
    let counted = Counted::of(node, placement);
    let total_seats = placement.total_seats();
    let keys = counted.keys();
    let part = |node: NodeId| {
        let domain = placement.get(&node).map(|member| member.domain.to_string());
        (node.to_string(), domain.unwrap_or_default())
    };
    let due_ppm = ppm(placed.seats as usize, total_seats as usize);
    let copies_ppm = ppm(keys, counted.copies);
    Ok(pb::ExplainPlacementReply {
        node_id: node.to_string(),
        domain: placed.domain.to_string(),
        capacity_bps: member.capacity_bps,
        seats: placed.seats,
        seats_why: seats_why(member.capacity_bps, placed.seats),
        total_seats,
        due_ppm,
        copies_ppm,
        keys_ppm: ppm(keys, SAMPLES),
        rank_ppm: counted
            .ranks
            .iter()
            .map(|count| ppm(*count, SAMPLES))
            .collect(),
        why: share_why(node, placement, due_ppm, copies_ppm),
        spread_ppm: ppm(counted.spread, keys),
        domains: parts(counted.domains, keys, |domain| (String::new(), domain)),
        neighbours: parts(counted.neighbours, keys, part),
        moved_ppm: ppm(counted.moved, SAMPLES),
        heirs: parts(counted.heirs, SAMPLES, part),
        copies_without: placement.len().saturating_sub(1).min(R) as u32,
    })
}

fn seats_why(capacity_bps: u64, seats: u32) -> String {
    let rule = format!("one for each {} kbit/s of capacity", BPS_PER_SEAT / 1000);
    match seats {
        MIN_SEATS if capacity_bps < u64::from(MIN_SEATS) * BPS_PER_SEAT => {
            format!("{rule}, but {MIN_SEATS} at least")
        }
        MAX_SEATS if capacity_bps > u64::from(MAX_SEATS) * BPS_PER_SEAT => {
            format!("{rule}, but {MAX_SEATS} at most")
        }
        _ => rule,
    }
}

/// Seats of all who share a failure domain with `node`, itself among them.
fn domain_seats(node: NodeId, placement: &Placement) -> u64 {
    let own = placement.get(&node);
    let domain = own.map_or("", |member| &member.domain);
    let same = placement
        .members()
        .filter(|member| member.node == node || (!domain.is_empty() && *member.domain == *domain));
    same.map(|member| u64::from(member.seats)).sum()
}

/// Why a super-node owns more or less than its seats make due.
fn share_why(node: NodeId, placement: &Placement, due_ppm: u32, has_ppm: u32) -> String {
    let serving = placement.len();
    let total = placement.total_seats();
    let due = f64::from(due_ppm.max(1));
    let off = (f64::from(has_ppm) - due) / due;
    // A key has one copy of three at a super-node, and in a failure domain, at most.
    let over = |seats: u64| seats * R as u64 > total;
    match serving {
        0..=R => format!("{serving} serve, so that each has a copy of every key"),
        _ if off.abs() <= USUAL => "it has what its seats make due".to_owned(),
        _ if off < 0.0 && over(u64::from(placement.get(&node).map_or(0, |m| m.seats))) => {
            "its seats make more than a third due, but it has one copy of a key at most".to_owned()
        }
        _ if off < 0.0 && over(domain_seats(node, placement)) => {
            "its failure domain has more than a third of all seats, but one copy of a key at most"
                .to_owned()
        }
        _ if placement
            .members()
            .any(|member| over(domain_seats(member.node, placement))) =>
        {
            "a strong super-node or failure domain has more seats than it may have copies, and \
             the others share what it cannot take"
                .to_owned()
        }
        _ => "seats fall by chance, and its own fell so; more seats even that out".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use canopy_core::election::mandate::{Basis, seats_for};
    use canopy_core::placement::Member as Placed;

    use super::super::survey::State;
    use super::*;

    fn placement(of: &[(u8, u64, &str)]) -> Placement {
        let members = of.iter().map(|(n, capacity_bps, domain)| Placed {
            node: NodeId([*n; 32]),
            seats: seats_for(*capacity_bps),
            domain: (*domain).into(),
        });
        members.collect()
    }

    fn member(n: u8, capacity_bps: u64) -> Member {
        Member {
            node: NodeId([n; 32]),
            addrs: Vec::new(),
            state: State::Serving,
            basis: Basis::Elected,
            capacity_bps,
            seats: seats_for(capacity_bps),
            domain: "".into(),
            term: 1,
            issued_ms: 0,
            expires_ms: 0,
        }
    }

    const M64: u64 = 64_000_000;

    #[test]
    fn shares_follow_seats_and_what_moves_is_what_it_had() {
        let of: Vec<(u8, u64, &str)> = (1..=10).map(|n| (n, M64, "")).collect();
        let told = explain(&member(3, M64), &placement(&of)).unwrap();
        assert_eq!(
            (told.seats, told.total_seats, told.due_ppm),
            (256, 2560, 100_000)
        );
        assert!((85_000..115_000).contains(&told.copies_ppm), "{told:?}");
        assert_eq!(told.why, "it has what its seats make due");
        // Three copies of each key, each of which somebody else gets.
        assert_eq!(
            told.rank_ppm.iter().sum::<u32>().abs_diff(told.keys_ppm) / 3,
            0
        );
        assert_eq!(told.moved_ppm, told.keys_ppm);
        let heirs: u32 = told.heirs.iter().map(|heir| heir.ppm).sum();
        assert!(told.moved_ppm.abs_diff(heirs) < 10);
        assert_eq!((told.neighbours.len(), told.spread_ppm), (9, 1_000_000));
        let others: u32 = told.neighbours.iter().map(|other| other.ppm).sum();
        assert!(others.abs_diff(2_000_000) < 20);
        assert_eq!(told.copies_without, 3);
        assert!(told.seats_why.contains("250 kbit/s"));
    }

    #[test]
    fn copies_of_a_key_lie_in_other_failure_domains() {
        let domains = ["a", "a", "a", "b", "b", "c", "c", "d"];
        let of: Vec<(u8, u64, &str)> = (1..).zip(domains).map(|(n, d)| (n, M64, d)).collect();
        let told = explain(&member(1, M64), &placement(&of)).unwrap();
        let domains: Vec<&str> = told
            .domains
            .iter()
            .map(|part| part.domain.as_str())
            .collect();
        assert_eq!(told.spread_ppm, 1_000_000);
        assert!(!domains.contains(&"a") && domains.len() == 3, "{domains:?}");
        // Three eighths of all seats lie in a third of the copies at most.
        assert!(told.copies_ppm < told.due_ppm);
    }

    #[test]
    fn why_a_share_is_not_what_seats_make_due() {
        let few = placement(&[(1, M64, ""), (2, M64, ""), (3, 4 * M64, "")]);
        let told = explain(&member(3, 4 * M64), &few).unwrap();
        assert!(told.why.starts_with("3 serve"), "{}", told.why);
        assert_eq!(
            (told.keys_ppm, told.moved_ppm, told.copies_without),
            (1_000_000, 0, 2)
        );

        let mut of: Vec<(u8, u64, &str)> = (1..=5).map(|n| (n, 16_000_000, "")).collect();
        of.push((6, 4 * M64, ""));
        let strong = placement(&of);
        let told = explain(&member(6, 4 * M64), &strong).unwrap();
        assert!(
            told.why.contains("one copy of a key at most"),
            "{}",
            told.why
        );
        let told = explain(&member(1, 16_000_000), &strong).unwrap();
        assert!(
            told.why.contains("share what it cannot take"),
            "{}",
            told.why
        );
    }

    #[test]
    fn limits_of_seats_are_named_and_who_serves_not_has_no_share() {
        assert!(seats_why(1_000_000, MIN_SEATS).contains("16 at least"));
        assert!(seats_why(10_000_000_000, MAX_SEATS).contains("1024 at most"));
        let mut deputy = member(9, M64);
        deputy.state = State::Deputy;
        let refused = explain(&deputy, &placement(&[(1, M64, "")])).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
        assert!(refused.message().contains("deputy"));
    }
}
