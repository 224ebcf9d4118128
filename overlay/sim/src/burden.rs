//! What the overlay cost its peers while users used it: whose line was how busy,
//! and with what.

use std::collections::BTreeMap;

use crate::world::{PeerId, World};

/// What had been sent and served at a moment.
#[derive(Clone, Debug)]
pub(crate) struct Burden {
    at: u64,
    /// Of each peer: bytes sent, requests served.
    peers: Vec<(u64, u64)>,
    for_users: u64,
    measured: u64,
}

impl Burden {
    /// As of now.
    pub(crate) fn of(world: &World) -> Self {
        let peers = world.peers().iter().map(|peer| (peer.sent, peer.served));
        Self {
            at: world.clock(),
            peers: peers.collect(),
            for_users: world.traffic().for_users,
            measured: world.measured_bytes(),
        }
    }

    /// Figures of the time since `self` was taken, over all peers that there were
    /// then, whether they ran or not.
    pub(crate) fn until(&self, now: &Self, world: &World) -> BTreeMap<String, f64> {
        let micros = now.at.saturating_sub(self.at).max(1);
        let grown = self.peers.iter().zip(&now.peers);
        let grown = grown.map(|(then, now)| (now.0 - then.0, now.1 - then.1));
        let grown: Vec<(u64, u64)> = grown.collect();
        let mut by_line: Vec<(u64, PeerId, u64)> = (0..)
            .zip(&grown)
            .map(|(id, (sent, _))| {
                let line = world.peer(id).spec.up_bps.max(1);
                // Millionths.
                let could = u128::from(line) * u128::from(micros);
                let used = u128::from(*sent) * 8_000_000 * 1_000_000 / could.max(1);
                (line, id, u64::try_from(used).unwrap_or(u64::MAX))
            })
            .collect();
        by_line.sort_unstable();
        let weakest = &by_line[..by_line.len().div_ceil(10)];
        let mean = weakest.iter().map(|(.., used)| used).sum::<u64>() / weakest.len().max(1) as u64;
        let most = by_line.iter().map(|(.., used)| *used).max().unwrap_or(0);
        let sent: u64 = grown.iter().map(|(sent, _)| sent).sum();
        let served = grown.iter().map(|(_, served)| *served).max().unwrap_or(0);
        let for_users = now.for_users - self.for_users;
        let each = |bytes: u64| bytes as f64 * 1e6 / micros as f64 / grown.len().max(1) as f64;
        let figures = [
            ("weakest_uplink_use_milli", mean as f64 / 1e3),
            ("busiest_uplink_use_milli", most as f64 / 1e3),
            ("sent_bytes_a_second_a_peer", each(sent)),
            (
                "maintenance_bytes_a_second_a_peer",
                each(sent.saturating_sub(for_users)),
            ),
            (
                "measurement_bytes_a_second_a_peer",
                each(now.measured - self.measured),
            ),
            (
                "busiest_peer_requests_a_second",
                served as f64 * 1e6 / micros as f64,
            ),
        ];
        figures.map(|(name, value)| (name.to_owned(), value)).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::NetConfig;
    use crate::scenario::{Scenario, Topology};
    use crate::world::WorldConfig;

    #[test]
    fn the_weakest_tenth_is_that_of_the_thinnest_lines() {
        let scenario = Scenario::find("steady").expect("a built-in scenario");
        let mut world = World::new(
            WorldConfig {
                net: NetConfig::default(),
                timing: scenario.timing(),
                topology: Topology::Flat.into(),
                ratio: 40,
                cache: 200,
                max_leaves: 100,
                floor_bps: 0,
                bootstraps: 1,
                operator: None,
                peers: 20,
                flat: true,
            },
            1,
        );
        for id in 0..20u64 {
            let up_bps = match id {
                7 | 9 => 8_000,
                _ => 8_000_000,
            };
            world.add(|spec| spec.up_bps = up_bps);
        }
        let before = Burden {
            at: 5_000_000,
            peers: vec![(1_000, 10); 20],
            for_users: 100,
            measured: 0,
        };
        // In ten seconds, peer 7 fills a half of its line, 9 a tenth, 3 a fifth.
        let mut after = Burden {
            at: 15_000_000,
            for_users: 1_001_100,
            measured: 4_000,
            ..before.clone()
        };
        after.peers[7] = (6_000, 10);
        after.peers[9] = (2_000, 10);
        after.peers[3] = (2_001_000, 60);
        let figures = before.until(&after, &world);
        assert_eq!(figures["weakest_uplink_use_milli"], 300.0);
        assert_eq!(figures["busiest_uplink_use_milli"], 500.0);
        assert_eq!(figures["busiest_peer_requests_a_second"], 5.0);
        assert_eq!(figures["sent_bytes_a_second_a_peer"], 10_030.0);
        assert_eq!(figures["maintenance_bytes_a_second_a_peer"], 5_025.0);
        assert_eq!(figures["measurement_bytes_a_second_a_peer"], 20.0);
    }
}
