//! How many requests may be added to those that were wanted: a token bucket
//! that every operation fills by a tenth of a request, and every retry and
//! every hedge empties by one. What turns out to have been of use is given
//! back: then one peer is sick, and not all of them are slow.
//!
//! Without a bound an overlay that is slow as a whole is asked for several
//! times the work by those who wait for it, and stays slow when the cause is
//! gone: a metastable failure (Bronson et al., HotOS 2021). A bound on the
//! share, not on tries of each operation, is what Finagle (`RetryBudget`) and
//! gRPC (retry throttling, proposal A6) have; giving back is the AWS SDKs'.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Tokens of one further request; an operation brings one.
const COST: u32 = 10;
/// Most tokens: for the moment in which a super-node died and nobody knows yet.
const FULL: u32 = 32 * COST;
/// Tokens at the start. More has to be earned, or many who start together would
/// multiply their requests.
const START: u32 = 8 * COST;
/// Tokens that only the retry of something refused may take.
const RESERVE: u32 = 3 * COST;

/// See the module. A few instructions a call, shared by all tasks.
#[derive(Debug)]
pub struct RetryBudget {
    tokens: AtomicU32,
}

impl Default for RetryBudget {
    /// Pays for eight requests, of them five hedges.
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

    /// Pays for the retry of a request that was refused; false: there must be
    /// none now.
    pub fn retry(&self) -> bool {
        self.spend(0)
    }

    /// Pays for a request beside one that is late; false: there must be none
    /// now. Something is left for retries, because to hedge tells less about
    /// whether it is of use.
    pub fn hedge(&self) -> bool {
        self.spend(RESERVE)
    }

    /// Gives back what was paid for `requests`, which were of use.
    pub fn give_back(&self, requests: u32) {
        let more = requests.saturating_mul(COST);
        let add = |tokens: u32| Some(tokens.saturating_add(more).min(FULL));
        // It always adds.
        let _ = self.tokens.fetch_update(Relaxed, Relaxed, add);
    }

    fn spend(&self, leaves: u32) -> bool {
        let take = |tokens: u32| (tokens >= COST + leaves).then(|| tokens - COST);
        self.tokens.fetch_update(Relaxed, Relaxed, take).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(spend: impl Fn() -> bool) -> usize {
        std::iter::from_fn(|| spend().then_some(())).count()
    }

    #[test]
    fn a_tenth_of_operations_pays_for_a_request_more() {
        let budget = RetryBudget::default();
        assert_eq!(count(|| budget.hedge()), 5);
        (0..100).for_each(|_| budget.earn());
        assert_eq!(count(|| budget.hedge()), 10);
        budget.give_back(2);
        assert_eq!(count(|| budget.hedge()), 2);
    }

    #[test]
    fn hedges_leave_something_for_retries() {
        let budget = RetryBudget::default();
        assert_eq!(count(|| budget.hedge()), 5);
        assert_eq!(count(|| budget.retry()), 3);
        assert!(!budget.hedge());
    }

    #[test]
    fn what_is_not_spent_does_not_pile_up() {
        let budget = RetryBudget::default();
        (0..10_000).for_each(|_| budget.earn());
        budget.give_back(u32::MAX);
        assert_eq!(count(|| budget.retry()), 32);
    }
}
