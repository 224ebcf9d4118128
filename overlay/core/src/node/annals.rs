//! What this peer remembers of the elections that it ran, so that an operator
//! can be told who was measured, who lost and why. Decides nothing.

use crate::election::race::{End, LevelSummary, Outcome};
use crate::keyspace::NodeId;

/// Elections remembered; the oldest goes first.
const KEPT: usize = 32;
/// Candidates of one that are remembered, in the order of their claims.
const CANDIDATES: usize = 64;
/// Refused signatures of one that are remembered.
const REFUSALS: usize = 16;

/// An election that this peer ran, or runs.
#[derive(Clone, Debug, PartialEq)]
pub struct ElectionRecord {
    /// Its term.
    pub term: u64,
    /// It founded an overlay: the chair of an assembly ran it.
    pub founding: bool,
    /// Why it was opened.
    pub reason: String,
    /// When, milliseconds since 1970.
    pub opened_ms: u64,
    /// When it ended; `None`: it runs, or was broken off.
    pub closed_ms: Option<u64>,
    /// Places to fill, in office and in reserve.
    pub places: usize,
    /// Who stood, in the order in which they would be measured.
    pub candidates: Vec<NodeId>,
    /// Deputies to be called into office, who were measured before.
    pub activated: Vec<NodeId>,
    /// Who was measured, in the order in which that ended.
    pub races: Vec<RaceRecord>,
    /// Who got a mandate.
    pub elected: Vec<NodeId>,
    /// Who did not sign whose paper, and why.
    pub refusals: Vec<(NodeId, NodeId, String)>,
}

/// A race of such an election.
#[derive(Clone, Debug, PartialEq)]
pub struct RaceRecord {
    /// Who was measured.
    pub candidate: NodeId,
    /// What it claimed, bits a second.
    pub claim_bps: u64,
    /// What a super-node has to carry, bits a second.
    pub floor_bps: u64,
    /// What it was found to carry, bits a second.
    pub score_bps: u64,
    /// It carried the floor.
    pub carried: bool,
    /// Why the race ended.
    pub end: End,
    /// Level and jury that the score comes from.
    pub decisive: (u32, u32),
    /// Every level.
    pub levels: Vec<LevelSummary>,
}

impl RaceRecord {
    pub(super) fn of<B>(
        candidate: NodeId,
        claim_bps: u64,
        floor_bps: u64,
        of: &Outcome<B>,
    ) -> Self {
        Self {
            candidate,
            claim_bps,
            floor_bps,
            score_bps: of.score_bps,
            carried: of.elected,
            end: of.end,
            decisive: (of.level, of.jury),
            levels: of.levels.clone(),
        }
    }
}

/// The elections that this peer ran, oldest first.
#[derive(Debug, Default)]
pub(super) struct Annals(Vec<ElectionRecord>);

impl Annals {
    pub(super) fn open(&mut self, mut record: ElectionRecord) {
        record.candidates.truncate(CANDIDATES);
        if self.0.len() >= KEPT {
            self.0.remove(0);
        }
        self.0.push(record);
    }

    /// The one under way: there is one at a time.
    fn last(&mut self, term: u64) -> Option<&mut ElectionRecord> {
        self.0.last_mut().filter(|record| record.term == term)
    }

    pub(super) fn raced(&mut self, term: u64, race: RaceRecord) {
        if let Some(record) = self.last(term) {
            record.races.push(race);
        }
    }

    pub(super) fn refused(&mut self, term: u64, signer: NodeId, candidate: NodeId, why: &str) {
        if let Some(record) = self.last(term)
            && record.refusals.len() < REFUSALS
        {
            record.refusals.push((signer, candidate, why.to_owned()));
        }
    }

    pub(super) fn close(&mut self, term: u64, unix_ms: u64, elected: &[NodeId]) {
        if let Some(record) = self.last(term) {
            record.closed_ms = Some(unix_ms);
            record.elected = elected.to_vec();
        }
    }

    pub(super) fn all(&self) -> &[ElectionRecord] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(term: u64) -> ElectionRecord {
        ElectionRecord {
            term,
            founding: false,
            reason: String::new(),
            opened_ms: 1,
            closed_ms: None,
            places: 1,
            candidates: vec![NodeId([1; 32]); 2 * CANDIDATES],
            activated: Vec::new(),
            races: Vec::new(),
            elected: Vec::new(),
            refusals: Vec::new(),
        }
    }

    #[test]
    fn the_oldest_is_forgotten_and_each_has_its_limits() {
        let mut annals = Annals::default();
        for term in 0..KEPT as u64 + 5 {
            annals.open(opened(term));
            for _ in 0..2 * REFUSALS {
                annals.refused(term, NodeId([2; 32]), NodeId([1; 32]), "no");
            }
            // Of an election that is not under way.
            annals.refused(term + 1, NodeId([2; 32]), NodeId([1; 32]), "no");
        }
        assert_eq!(annals.all().len(), KEPT);
        assert_eq!(annals.all()[0].term, 5);
        let last = annals.all().last().unwrap();
        assert_eq!(
            (last.candidates.len(), last.refusals.len()),
            (CANDIDATES, REFUSALS)
        );
    }
}
