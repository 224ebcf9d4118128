//! What keeps a peer from the overlay, in words: who knows no super-node asks
//! here why.

use std::sync::Arc;

use canopy_core::election::criteria::Criterion;
use parking_lot::Mutex;

/// The last reason why nobody could be joined by. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Trouble {
    join: Arc<Mutex<Option<String>>>,
}

impl Trouble {
    /// A given peer could not be joined by.
    pub(super) fn join_failed(&self, message: &str) {
        *self.join.lock() = Some(message.to_owned());
    }

    /// The peer has a home.
    pub(super) fn over(&self) {
        *self.join.lock() = None;
    }

    /// The reason, for people. A wrong clock goes first: with it neither
    /// mandates nor records are valid. How joining went matters only to who is
    /// `alone`, and knows no super-node.
    pub(super) fn in_words(&self, criteria: &[Criterion], alone: bool) -> Option<String> {
        let clock = criteria.iter().find(|item| item.name == "clock");
        match clock.filter(|clock| !clock.pass) {
            Some(clock) => Some(format!(
                "by other peers' clocks, the clock of this machine is {}; set it right",
                clock.value
            )),
            None => self.join.lock().clone().filter(|_| alone),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(pass: bool) -> Criterion {
        Criterion {
            name: "clock",
            value: "60000 ms off".into(),
            threshold: String::new(),
            pass,
        }
    }

    #[test]
    fn a_wrong_clock_is_said_first_and_nothing_when_all_is_well() {
        let trouble = Trouble::default();
        assert_eq!(trouble.in_words(&[clock(true)], true), None);
        trouble.join_failed("127.0.0.1:1: no answer");
        let join = trouble.in_words(&[clock(true)], true);
        assert_eq!(join.as_deref(), Some("127.0.0.1:1: no answer"));
        assert_eq!(trouble.in_words(&[clock(true)], false), None);
        let words = trouble.in_words(&[clock(false)], false).unwrap();
        assert!(words.contains("60000 ms off"), "{words}");
        trouble.over();
        assert_eq!(trouble.in_words(&[], true), None);
    }
}
