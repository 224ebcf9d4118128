//! Which messages have been taken: each for as long as it could come again, and
//! not more than so many.

use std::collections::{HashMap, VecDeque};

/// Messages remembered; when more come, the oldest are forgotten.
pub(crate) const REMEMBERED: usize = 65_536;

/// Sender and id of a message.
pub(crate) type Name = ([u8; 32], [u8; 16]);

#[derive(Debug, Default)]
pub(crate) struct Seen {
    until_ms: HashMap<Name, u64>,
    order: VecDeque<Name>,
}

impl Seen {
    pub(crate) fn contains(&self, name: &Name) -> bool {
        self.until_ms.contains_key(name)
    }

    /// Notes that `name` was taken; it cannot come again after `until_ms`.
    pub(crate) fn insert(&mut self, name: Name, until_ms: u64, now_ms: u64) {
        if self.until_ms.insert(name, until_ms).is_none() {
            self.order.push_back(name);
        }
        while let Some(oldest) = self.order.front() {
            let over = self.until_ms.get(oldest).is_none_or(|at| *at < now_ms);
            if !over && self.order.len() <= REMEMBERED {
                break;
            }
            if let Some(oldest) = self.order.pop_front() {
                self.until_ms.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_is_known_until_it_is_over_or_too_many_came() {
        let mut seen = Seen::default();
        let name = |number: u32| {
            let mut id = [0; 16];
            id[..4].copy_from_slice(&number.to_le_bytes());
            ([7; 32], id)
        };
        seen.insert(name(0), 100, 10);
        seen.insert(name(1), 200, 10);
        assert!(seen.contains(&name(0)) && seen.contains(&name(1)));
        seen.insert(name(2), 300, 101);
        assert!(!seen.contains(&name(0)) && seen.contains(&name(1)));
        for number in 3..REMEMBERED as u32 + 4 {
            seen.insert(name(number), 1000, 101);
        }
        assert!(!seen.contains(&name(2)) && !seen.contains(&name(3)));
        assert!(seen.contains(&name(4)));
        assert_eq!(seen.until_ms.len(), REMEMBERED);
    }
}
