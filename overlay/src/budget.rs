//! How many requests may be added to those that were wanted: a token bucket
//! that every operation fills by a tenth of a request, and every retry and
//! every hedge empties by one.
//!
//! Without a bound an overlay that is slow as a whole is asked for several
//! times the work by those who wait for it, and stays slow when the cause is
//! gone: a metastable failure (Bronson et al., HotOS 2021). A bound on the
//! share, not on tries of each operation, is what Finagle (`RetryBudget`) and
//! gRPC (retry throttling, proposal A6) have.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Tokens of one further request; an operation brings one.
const COST: u32 = 10;
/// Most tokens: for the moment in which a super-node died and nobody knows yet.
const FULL: u32 = 32 * COST;
/// Tokens at the start: enough to try all owners of a key and two others. More
/// has to be earned, or many who start together would multiply their requests.
const START: u32 = 5 * COST;

/// See the module. A few instructions a call, shared by all tasks.
#[derive(Debug)]
pub struct RetryBudget {
    tokens: AtomicU32,
}

impl Default for RetryBudget {
    /// Pays for five requests.
    fn default() -> Self {
        Self {
            tokens: AtomicU32::new(START),
        }
    }
}

impl RetryBudget {
    /// An operation begins.
    pub fn earn(&self) {
        let add = |tokens: u32| (tokens < FULL).then_some(tokens + 1);
        // An error says that it is full already.
        let _ = self.tokens.fetch_update(Relaxed, Relaxed, add);
    }

    /// Pays for one further request; false: there must be none now.
    pub fn spend(&self) -> bool {
        let take = |tokens: u32| tokens.checked_sub(COST);
        self.tokens.fetch_update(Relaxed, Relaxed, take).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_of_operations_pays_for_a_request_more() {
        let budget = RetryBudget::default();
        let spent = || std::iter::from_fn(|| budget.spend().then_some(())).count();
        assert_eq!(spent(), 5);
        (0..100).for_each(|_| budget.earn());
        assert_eq!(spent(), 10);
        // What is not spent does not pile up.
        (0..10_000).for_each(|_| budget.earn());
        assert_eq!(spent(), 32);
    }
}
