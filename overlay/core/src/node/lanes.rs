//! Who may run which election. A large overlay elects in several lanes side by
//! side, each with terms, officers, super-nodes and candidates of its own, or
//! it could not grow faster than one officer can measure.
//!
//! A term belongs to the lane that it is congruent to, and a super-node to the
//! lane of its mandate's term: whom a lane elects it also watches, renews and
//! recalls. Twice as many lanes split each in two, by the next bit of the term.

use super::Core;
use crate::keyspace::{NodeId, keys};
use crate::roster::Entry;

/// Super-nodes of a lane, before it is split in two twice as many. Chosen: an
/// officer can measure about as many candidates in one election, so that an
/// overlay which lacks most of what it needs can double in each.
const LANE: usize = 16;
/// The officer of a term, and its stand-ins.
pub const OFFICERS: usize = 3;

/// How many elections may be under way side by side where so many serve: a power
/// of two.
pub fn lanes(super_nodes: usize) -> u64 {
    1 << (super_nodes / LANE).max(1).ilog2()
}

impl Core {
    pub(super) fn lanes(&self) -> u64 {
        lanes(self.placement.len())
    }

    /// The lane of a super-node, or of this peer before it is one.
    pub(super) fn lane_of(&self, node: &NodeId) -> u64 {
        let term = self.roster.get(node).map_or(0, |entry| entry.term);
        term % self.lanes()
    }

    /// Super-nodes and deputies of a lane, dead ones too.
    pub(super) fn in_lane(&self, lane: u64) -> impl Iterator<Item = &Entry> {
        let host = self.host.as_ref();
        let members = host.and_then(|host| host.turns.members(self.versions(), lane));
        let lanes = self.lanes();
        // Where it is not known who they are, all are looked through.
        let all = members.is_none().then(|| self.roster.entries());
        let all = all.into_iter().flatten();
        let all = all.filter(move |entry| entry.term % lanes == lane);
        let members = members.into_iter().flatten();
        members.filter_map(|node| self.roster.get(node)).chain(all)
    }

    /// The versions of placement and roster.
    pub(super) fn versions(&self) -> (u64, u64) {
        (self.placement.version(), self.roster.version())
    }

    /// The term that the next election of a lane has.
    pub(super) fn next_term(&self, lane: u64) -> u64 {
        let lanes = self.lanes();
        let last = match lanes {
            1 => self.roster.max_term(),
            _ => self.roster.last_term(lane, lanes).unwrap_or(lane),
        };
        last.saturating_add(lanes)
    }

    /// The super-nodes that may run `term`, in order.
    pub(super) fn officers(&self, term: u64) -> Vec<NodeId> {
        let position = keys::election(&self.config.network, term);
        let nearest = self.placement.nearest(&position, OFFICERS);
        nearest.iter().map(|(_, node)| *node).collect()
    }

    /// Those who may run the next election of this peer's own lane.
    pub(super) fn own_officers(&self) -> Vec<NodeId> {
        self.officers(self.next_term(self.lane_of(&self.node_id())))
    }
}

#[cfg(test)]
mod tests {
    use canopy_proto::wire::{self, core_message::Kind};

    use super::super::running::Runner;
    use super::super::tests::{contact_of, core, designation, identity, now_at};
    use super::super::{Core, Output};
    use super::*;

    fn serves(core: &mut Core, other: u8) {
        let entry = wire::RosterEntry {
            mandate: Some(designation(other, &identity(99))),
            contact: Some(contact_of(other).signed.clone()),
            release: None,
        };
        core.admit(now_at(0), &entry, false).expect("designated");
    }

    /// A super-node among forty.
    fn one_of_forty(own: u8) -> Core {
        let mut core = core(own, true, None);
        for other in (1..=40).filter(|other| *other != own) {
            serves(&mut core, other);
        }
        core
    }

    #[test]
    fn who_is_kept_of_a_lane_are_those_of_the_roster_whatever_changes() {
        let some = one_of_forty(1);
        let officer = some.officers(some.next_term(0))[0];
        let own = (1..=40).find(|own| identity(*own).node_id() == officer);
        let mut core = one_of_forty(own.expect("one of forty"));
        let same = |core: &Core| {
            for lane in 0..core.lanes() {
                let kept: Vec<&Entry> = core.in_lane(lane).collect();
                let all = core.roster.entries();
                let all = all.filter(|entry| entry.term % core.lanes() == lane);
                assert_eq!(kept, all.collect::<Vec<_>>());
            }
        };
        let kept = |core: &Core| {
            let of = core.versions();
            let turns = core.host.as_ref().map(|host| &host.turns);
            turns.is_some_and(|turns| turns.members(of, 0).is_some())
        };
        core.report_tick(now_at(1));
        assert!(kept(&core));
        same(&core);
        let other = identity(if own == Some(5) { 6 } else { 5 }).node_id();
        core.member_down(now_at(2), other);
        assert!(!kept(&core));
        same(&core);
        serves(&mut core, 41);
        same(&core);
        core.report_tick(now_at(3));
        same(&core);
    }

    /// One of forty, in an election of the other lane than its own.
    fn officer() -> (Core, u64) {
        let mut core = one_of_forty(1);
        assert_eq!((core.lanes(), core.lane_of(&core.node_id())), (2, 1));
        let term = core.next_term(0);
        let runner = Runner::Officer {
            activate: Vec::new(),
            deputies: 0,
        };
        core.open_election(now_at(1), runner, term, Vec::new(), 1, String::new());
        (core, term)
    }

    #[test]
    fn whoever_runs_an_election_of_another_lane_tells_the_stand_ins_there() {
        let (mut core, term) = officer();
        while core.poll().is_some() {}
        core.report_tick(now_at(2));
        let told: Vec<NodeId> = std::iter::from_fn(|| core.poll())
            .filter_map(|output| match output {
                Output::Send { node, message, .. } => match message.kind {
                    Some(Kind::LoadReport(report)) if report.term == term => Some(node),
                    _ => None,
                },
                _ => None,
            })
            .collect();
        let own = core.node_id();
        assert_ne!(core.own_officers(), core.officers(term));
        let officers = core.own_officers().into_iter().chain(core.officers(term));
        let missed: Vec<NodeId> = officers
            .filter(|node| *node != own && !told.contains(node))
            .collect();
        assert!(missed.is_empty(), "{missed:?}");
    }
}
