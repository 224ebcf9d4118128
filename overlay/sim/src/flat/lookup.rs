//! An iterative lookup: ask the closest known, learn closer ones, until the k
//! closest have all answered.

use canopy_core::keyspace::Key;

use super::{ALPHA, Contact, K};
use crate::world::PeerId;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Fresh,
    Asked,
    /// It has not answered in time; it may yet.
    Late,
    Answered,
}

struct Candidate {
    distance: Key,
    contact: Contact,
    state: State,
}

/// One lookup.
pub(super) struct Lookup {
    pub(super) target: Key,
    own: PeerId,
    /// By distance.
    candidates: Vec<Candidate>,
    /// Answers since one told of a node closer than all before.
    stalled: usize,
}

impl Lookup {
    /// By the peer `own`, starting from `known`.
    pub(super) fn new(own: PeerId, target: Key, known: Vec<Contact>) -> Self {
        let mut lookup = Self {
            target,
            own,
            candidates: Vec::new(),
            stalled: 0,
        };
        lookup.learn(known);
        lookup
    }

    fn learn(&mut self, contacts: Vec<Contact>) {
        for contact in contacts {
            let distance = contact.key.distance(&self.target);
            let at = self.candidates.partition_point(|c| c.distance < distance);
            let known = self.candidates.get(at);
            if contact.peer == self.own || known.is_some_and(|c| c.distance == distance) {
                continue;
            }
            let candidate = Candidate {
                distance,
                contact,
                state: State::Fresh,
            };
            self.candidates.insert(at, candidate);
        }
    }

    /// The k closest that may still answer.
    fn closest(&mut self) -> impl Iterator<Item = &mut Candidate> {
        let live = self.candidates.iter_mut();
        live.filter(|c| c.state != State::Late).take(K)
    }

    /// Whom to ask now; it counts as asked.
    pub(super) fn next(&mut self) -> Option<Contact> {
        // Once nobody closer turns up, all of the k closest are asked at once.
        let limit = match self.stalled < ALPHA {
            true => ALPHA,
            false => K,
        };
        let under_way = |c: &&Candidate| c.state == State::Asked;
        if self.candidates.iter().filter(under_way).count() >= limit {
            return None;
        }
        let fresh = self.closest().find(|c| c.state == State::Fresh)?;
        fresh.state = State::Asked;
        Some(fresh.contact)
    }

    /// Whether the k closest have all answered.
    pub(super) fn is_done(&mut self) -> bool {
        self.closest().all(|c| c.state == State::Answered)
    }

    /// `peer` answered, in time or late.
    pub(super) fn answered(&mut self, peer: PeerId, closer: Vec<Contact>) {
        let closest = |lookup: &Self| lookup.candidates.first().map(|c| c.distance);
        let before = closest(self);
        self.set(peer, State::Answered);
        self.learn(closer);
        self.stalled = match closest(self) == before {
            true => self.stalled + 1,
            false => 0,
        };
    }

    /// `peer` has not answered in time.
    pub(super) fn late(&mut self, peer: PeerId) {
        self.set(peer, State::Late);
    }

    fn set(&mut self, peer: PeerId, state: State) {
        let mut candidates = self.candidates.iter_mut();
        if let Some(candidate) = candidates.find(|c| c.contact.peer == peer) {
            candidate.state = state;
        }
    }

    /// The k closest that answered, closest first.
    pub(super) fn result(&self) -> Vec<Contact> {
        let answered = self.candidates.iter();
        let answered = answered.filter(|c| c.state == State::Answered);
        answered.take(K).map(|c| c.contact).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contacts(peers: std::ops::Range<u32>) -> Vec<Contact> {
        let contact = |peer: u32| Contact {
            peer,
            key: Key::hash("contact", &[&peer.to_le_bytes()]),
        };
        peers.map(contact).collect()
    }

    #[test]
    fn it_ends_with_the_k_closest_of_all_that_answer() {
        let all = contacts(0..100);
        let target = Key::hash("target", &[]);
        let mut lookup = Lookup::new(1000, target, all[..3].to_vec());
        let mut asked = 0;
        while let Some(contact) = lookup.next() {
            asked += 1;
            match contact.peer % 5 {
                0 => lookup.late(contact.peer),
                _ => lookup.answered(contact.peer, all.clone()),
            }
        }
        assert!(lookup.is_done());
        let mut live: Vec<Contact> = all.into_iter().filter(|c| c.peer % 5 > 0).collect();
        live.sort_by_key(|contact| contact.key.distance(&target));
        live.truncate(K);
        assert_eq!(lookup.result(), live);
        assert!(asked < 40, "{asked}");
    }

    #[test]
    fn three_are_asked_at_once_until_nobody_closer_turns_up() {
        let mut all = contacts(0..60);
        let target = Key::hash("target", &[]);
        all.sort_by_key(|contact| contact.key.distance(&target));
        let mut lookup = Lookup::new(1000, target, all[30..].to_vec());
        let count = |lookup: &mut Lookup| std::iter::from_fn(|| lookup.next()).count();
        assert_eq!(count(&mut lookup), ALPHA);
        lookup.answered(all[30].peer, all[..10].to_vec());
        assert_eq!(count(&mut lookup), 1);
        // Three answers that bring nobody closer than the closest known.
        lookup.answered(all[31].peer, Vec::new());
        lookup.answered(all[32].peer, Vec::new());
        lookup.answered(all[0].peer, Vec::new());
        assert!(count(&mut lookup) > ALPHA);
        lookup.late(all[1].peer);
        lookup.answered(all[1].peer, Vec::new());
        assert!(
            lookup.result().iter().any(|c| c.peer == all[1].peer),
            "a late answer counts"
        );
    }
}
