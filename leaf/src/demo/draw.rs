//! What the seed decides: lines, keys, who knows whom, whom to kill, what is
//! asked for. Real sockets and schedulers still vary from run to run.

use std::f64::consts::TAU;

use canopy_core::identity::Identity;
use canopy_core::keyspace::Key;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::settings::Bandwidth;

/// Half of all lines send less than this, bits a second.
const MEDIAN_BPS: f64 = 20e6;
/// Spread of the logarithm of a line's rate: two thirds lie within a factor e.
/// Log-normal lines with this median are also what the election's rules were
/// weighed against, there with a slightly wider spread.
const SIGMA: f64 = 1.0;
/// Slower lines than a modem of 2000 or faster ones than one machine can
/// imitate many of are cut off, bits a second.
const SLOWEST_BPS: f64 = 2e6;
const FASTEST_BPS: f64 = 100e6;

/// Everything drawn comes from here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draw {
    seed: u64,
}

impl Draw {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed }
    }

    pub(super) fn seed(&self) -> u64 {
        self.seed
    }

    fn bytes(&self, what: &str, index: u64) -> [u8; 32] {
        let parts: [&[u8]; 3] = [
            what.as_bytes(),
            &self.seed.to_be_bytes(),
            &index.to_be_bytes(),
        ];
        Key::hash("demo", &parts).0
    }

    /// A stream of random numbers for one purpose.
    pub(super) fn stream(&self, what: &str, index: usize) -> StdRng {
        StdRng::from_seed(self.bytes(what, index as u64))
    }

    /// The key of a peer. Whoever knows the seed knows it: good for a demo only.
    pub(super) fn identity(&self, what: &str, index: usize) -> Identity {
        Identity::from_secret(self.bytes(what, index as u64))
    }

    /// What a peer's line sends.
    pub(super) fn uplink(&self, index: usize) -> Bandwidth {
        let mut random = self.stream("uplink", index);
        let (u, v): (f64, f64) = (random.random(), random.random());
        // Box and Muller (1958); 1 - u is never 0.
        let normal = (-2.0 * (1.0 - u).ln()).sqrt() * (TAU * v).cos();
        let bps = MEDIAN_BPS * (SIGMA * normal).exp();
        Bandwidth(bps.clamp(SLOWEST_BPS, FASTEST_BPS) as u64)
    }

    /// The one or two earlier peers that a peer is told of; none for the first.
    pub(super) fn acquaintances(&self, index: usize) -> Vec<usize> {
        if index == 0 {
            return Vec::new();
        }
        let mut random = self.stream("acquaintances", index);
        let mut known = vec![random.random_range(0..index)];
        if random.random::<bool>() {
            known.push(random.random_range(0..index));
        }
        known.dedup();
        known
    }
}

/// 1 for the largest; equal ones share a rank.
pub(super) fn ranks(values: &[Bandwidth]) -> Vec<usize> {
    let rank = |value: &Bandwidth| 1 + values.iter().filter(|other| *other > value).count();
    values.iter().map(rank).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_decides_and_the_spread_is_the_stated_one() {
        let (one, other) = (Draw::new(1), Draw::new(2));
        let lines = |draw: Draw| (0..2_000).map(|i| draw.uplink(i).0).collect::<Vec<_>>();
        assert_eq!(lines(one), lines(one));
        assert_ne!(lines(one), lines(other));
        let mut sorted = lines(one);
        sorted.sort_unstable();
        let at = |part: f64| sorted[(part * 2_000.0) as usize] as f64;
        assert!((0.9..1.1).contains(&(at(0.5) / MEDIAN_BPS)));
        // One sigma above the median.
        assert!((0.85..1.15).contains(&(at(0.841) / (MEDIAN_BPS * SIGMA.exp()))));
        assert_eq!(sorted[0] as f64, SLOWEST_BPS);
        assert_eq!(sorted[1_999] as f64, FASTEST_BPS);
    }

    #[test]
    fn everybody_but_the_first_knows_somebody_earlier() {
        let draw = Draw::new(7);
        assert!(draw.acquaintances(0).is_empty());
        for index in 1..200 {
            let known = draw.acquaintances(index);
            assert!((1..=2).contains(&known.len()));
            assert!(known.iter().all(|other| *other < index));
        }
    }

    #[test]
    fn equal_lines_share_a_rank() {
        let lines = [5, 9, 9, 1].map(Bandwidth);
        assert_eq!(ranks(&lines), [3, 1, 1, 4]);
    }
}
