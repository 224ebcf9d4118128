//! Every random choice of a run, from one seed. Each part of the model draws
//! from a stream of its own, so that a change in one leaves the others alone.
//!
//! Whole numbers throughout: what floating-point functions return differs from
//! machine to machine.

use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};

/// A stream of random choices.
pub struct Draw(SmallRng);

impl Draw {
    /// The stream `name` of `seed`.
    pub fn new(seed: u64, name: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes());
        hasher.update(name.as_bytes());
        Self(SmallRng::from_seed(*hasher.finalize().as_bytes()))
    }

    /// A number below `limit`; 0 if that is 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        match limit {
            0 => 0,
            limit => self.0.random_range(0..limit),
        }
    }

    /// An index below `len`; 0 if that is 0.
    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// True in `parts` of a million cases.
    pub fn chance(&mut self, parts: u32) -> bool {
        parts > 0 && self.below(1_000_000) < u64::from(parts)
    }

    /// Any number: a seed for something else.
    pub fn seed(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// One of `weights`, by its weight.
    pub fn weighted(&mut self, weights: &[u32]) -> usize {
        let total = weights.iter().map(|w| u64::from(*w)).sum();
        let mut left = self.below(total);
        for (i, weight) in weights.iter().enumerate() {
            match left.checked_sub(u64::from(*weight)) {
                Some(rest) => left = rest,
                None => return i,
            }
        }
        weights.len().saturating_sub(1)
    }

    /// Up to `count` distinct items of `from`, in random order.
    pub fn some<T: Copy>(&mut self, from: &[T], count: usize) -> Vec<T> {
        let mut all = from.to_vec();
        let count = count.min(all.len());
        for i in 0..count {
            let j = i + self.index(all.len() - i);
            all.swap(i, j);
        }
        all.truncate(count);
        all
    }

    /// A value of a distribution given by equally spaced quantiles, with even
    /// spread between two of them.
    pub fn quantile(&mut self, quantiles: &[u64]) -> u64 {
        let steps = quantiles.len().saturating_sub(1);
        let step = self.index(steps);
        match (quantiles.get(step), quantiles.get(step + 1)) {
            (Some(low), Some(high)) => self.between(*low, *high),
            _ => quantiles.first().copied().unwrap_or(0),
        }
    }
}

/// Ranks by Zipf's law with exponent 1: rank i comes up 1/i times as often as
/// the first.
pub struct Zipf {
    sums: Vec<u64>,
}

impl Zipf {
    /// Over ranks 0 to `count` - 1.
    pub fn new(count: usize) -> Self {
        let mut sum = 0;
        let sums = (1..=count.max(1) as u64).map(|rank| {
            sum += (1 << 32) / rank;
            sum
        });
        Self {
            sums: sums.collect(),
        }
    }

    /// A rank.
    pub fn rank(&self, draw: &mut Draw) -> usize {
        let total = self.sums.last().copied().unwrap_or(1);
        let lot = draw.below(total);
        self.sums.partition_point(|sum| *sum <= lot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_one_seed_differ_and_repeat() {
        let take = |seed, name| {
            let mut draw = Draw::new(seed, name);
            (0..8).map(|_| draw.below(1000)).collect::<Vec<_>>()
        };
        assert_eq!(take(1, "net"), take(1, "net"));
        assert_ne!(take(1, "net"), take(1, "load"));
        assert_ne!(take(1, "net"), take(2, "net"));
    }

    #[test]
    fn the_first_rank_comes_up_as_often_as_zipf_says() {
        let (zipf, mut draw) = (Zipf::new(1000), Draw::new(3, "zipf"));
        let first = (0..100_000).filter(|_| zipf.rank(&mut draw) == 0).count();
        // 1 / H(1000) = 0.1336
        assert!((12_900..13_900).contains(&first), "{first}");
    }

    #[test]
    fn some_are_distinct_and_weights_count() {
        let mut draw = Draw::new(4, "some");
        let mut picked = draw.some(&[1, 2, 3, 4, 5], 4);
        picked.sort_unstable();
        picked.dedup();
        assert_eq!(picked.len(), 4);
        let heavy = (0..1000).filter(|_| draw.weighted(&[1, 9]) == 1).count();
        assert!((850..950).contains(&heavy), "{heavy}");
    }
}
