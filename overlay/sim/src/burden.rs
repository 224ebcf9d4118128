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
