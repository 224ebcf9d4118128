//! How a leaf that is elected among many comes to know all who serve.
//!
//! It knew a few of them, and most mandates are signed by others. As a leaf it
//! followed whomever both of its homes vouched for. So it takes what one of those
//! homes sends and the other one lists too, until it has caught up; before that it
//! runs no election, because it may take itself for the officer.

use std::collections::BTreeMap;

use canopy_proto::wire::{self, core_message::Kind};

use super::Core;
use super::homes::HOMES;
use super::roster::named_in;
use super::sync::MAX_KEYS;
use crate::keyspace::NodeId;
use crate::time::{Now, Time};

/// Who knows no more than so many super-nodes knows them all: a leaf is told of 32
/// among many, and may not believe all of it.
const FEW: usize = 16;
/// A newcomer gives up after so many times the silence of an officer that the
/// others bear: one of the two may be gone, or know of none that the other knows.
const PATIENCE: u32 = 10;

/// The former homes of a newcomer, and whom they list.
#[derive(Default)]
pub(super) struct Sponsors {
    homes: Vec<NodeId>,
    since: Time,
    /// Term of each, and which homes list it, a bit each.
    listed: BTreeMap<NodeId, (u64, u8)>,
    /// Which homes have listed whom they know.
    heard: u8,
    /// Whose turn it is to be asked.
    turn: usize,
}

/// All sponsors, a bit each.
const ALL: u8 = (1 << HOMES) - 1;

impl Sponsors {
    /// Of a newcomer with these homes; among few it needs none, nor can it have
    /// any without two homes.
    pub(super) fn new(now: Time, serving: usize, homes: Vec<NodeId>) -> Self {
        let needed = serving > FEW && homes.len() == HOMES;
        Self {
            homes: if needed { homes } else { Vec::new() },
            since: now,
            ..Self::default()
        }
    }

    /// Notes whom `home` lists.
    fn list(&mut self, home: &NodeId, keys: &[wire::RosterKey]) {
        let Some(place) = self.homes.iter().position(|one| one == home) else {
            return;
        };
        self.heard |= 1 << place;
        let keys = keys.iter().filter(|key| !key.released).take(MAX_KEYS);
        for key in keys {
            let Some(node) = NodeId::from_slice(&key.node_id) else {
                continue;
            };
            let room = self.listed.len() < MAX_KEYS;
            let listed = match room {
                true => Some(self.listed.entry(node).or_insert((key.term, 0))),
                false => self.listed.get_mut(&node),
            };
            match listed {
                Some((term, by)) if *term == key.term => *by |= 1 << place,
                Some(listed) if listed.0 < key.term => *listed = (key.term, 1 << place),
                _ => {}
            }
        }
    }

    /// Whether all of them list `node` with this term.
    fn vouch_for(&self, node: &NodeId, term: u64) -> bool {
        self.listed.get(node) == Some(&(term, ALL))
    }
}

impl Core {
    /// Whether this super-node is new among many and does not know them all yet.
    pub(super) fn is_catching_up(&self) -> bool {
        let host = self.host.as_ref();
        host.is_some_and(|host| !host.sponsors.homes.is_empty())
    }

    /// Asks both sponsors whom they list.
    pub(super) fn begin_catching_up(&mut self) {
        let homes = self.host.as_ref().map(|host| host.sponsors.homes.clone());
        for home in homes.unwrap_or_default() {
            let summary = Kind::RosterDigest(self.summary());
            self.send(home, summary);
        }
    }

    /// Asks one of its sponsors what else it has; false where it needs none, which
    /// is so once it has the papers of all whom they vouch for.
    pub(super) fn ask_sponsors(&mut self, now: Now) -> bool {
        let patience = self.config.timing.election.officer_timeout * PATIENCE;
        let roster = &self.roster;
        let Some(host) = &mut self.host else {
            return false;
        };
        let sponsors = &mut host.sponsors;
        let lacks = |(node, (term, by)): (&NodeId, &(u64, u8))| {
            let held = roster.get(node);
            let held = held.is_some_and(|e| e.term >= *term && e.mandate().is_some());
            *by == ALL && !held
        };
        let complete = sponsors.heard == ALL && !sponsors.listed.iter().any(lacks);
        if complete || now.at.since(sponsors.since) >= patience {
            *sponsors = Sponsors::default();
        }
        sponsors.turn += 1;
        let Some(home) = sponsors.homes.get(sponsors.turn % HOMES).copied() else {
            return false;
        };
        let summary = Kind::RosterDigest(self.summary());
        self.send(home, summary);
        true
    }

    /// `from` lists whom it knows: a sponsor vouches for them. False while the other
    /// one has not done so: what came now would be refused.
    pub(super) fn sponsor_lists(&mut self, from: &NodeId, keys: &[wire::RosterKey]) -> bool {
        let Some(host) = &mut self.host else {
            return true;
        };
        let sponsors = &mut host.sponsors;
        sponsors.list(from, keys);
        sponsors.homes.is_empty() || sponsors.heard == ALL
    }

    /// Whether `from`, a sponsor, sends the paper of one whom all sponsors list.
    pub(super) fn is_sponsored(&self, from: &NodeId, mandate: &wire::SignedMandate) -> bool {
        let sponsors = self.host.as_ref().map(|host| &host.sponsors);
        let Some(sponsors) = sponsors.filter(|sponsors| sponsors.homes.contains(from)) else {
            return false;
        };
        named_in(mandate).is_some_and(|(node, term)| sponsors.vouch_for(&node, term))
    }

    /// One of our leaves was elected: among many it may know nobody who signed for
    /// it, and its homes vouch for them.
    pub(super) fn tell_elected_leaf(&mut self, candidate: &NodeId) {
        let host = self.host.as_ref();
        let ours = host.is_some_and(|host| host.leaves.contains_key(candidate));
        if !ours || self.roster.serving_count() <= FEW {
            return;
        }
        if let Some(entry) = self.roster.get(candidate).map(|entry| entry.to_wire()) {
            let message = wire::RosterEntries {
                entries: vec![entry],
                dead: Vec::new(),
            };
            self.send(*candidate, Kind::Roster(message));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(of: &[(u8, u64)]) -> Vec<wire::RosterKey> {
        let key = |(node, term): &(u8, u64)| wire::RosterKey {
            node_id: NodeId([*node; 32]).to_bytes(),
            term: *term,
            ..Default::default()
        };
        of.iter().map(key).collect()
    }

    #[test]
    fn a_newcomer_takes_whom_both_of_its_former_homes_list_with_the_same_term() {
        let [one, other, stranger] = [1, 2, 3].map(|n| NodeId([n; 32]));
        let mut sponsors = Sponsors::new(Time(0), FEW + 1, vec![one, other]);
        sponsors.list(&one, &keys(&[(5, 7), (6, 7)]));
        sponsors.list(&stranger, &keys(&[(5, 7)]));
        assert!(!sponsors.vouch_for(&NodeId([5; 32]), 7));
        sponsors.list(&other, &keys(&[(5, 7), (6, 9)]));
        assert!(sponsors.vouch_for(&NodeId([5; 32]), 7));
        assert_eq!(sponsors.heard, ALL);
        assert!(
            [7, 9]
                .iter()
                .all(|term| !sponsors.vouch_for(&NodeId([6; 32]), *term))
        );
        // The first one hears of the later term, too.
        sponsors.list(&one, &keys(&[(6, 9)]));
        assert!(sponsors.vouch_for(&NodeId([6; 32]), 9));
    }

    #[test]
    fn among_few_or_without_two_homes_there_are_no_sponsors() {
        let homes = [1, 2].map(|n| NodeId([n; 32]));
        assert!(Sponsors::new(Time(0), FEW, homes.to_vec()).homes.is_empty());
        assert!(
            Sponsors::new(Time(0), 100, homes[..1].to_vec())
                .homes
                .is_empty()
        );
    }
}
