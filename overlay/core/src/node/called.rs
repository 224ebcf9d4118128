//! Elections that an operator calls, whatever the law asks for.
//!
//! Only the returning officer of a lane's next term opens one: nobody else would
//! have its mandates signed.

use super::{Core, Role};
use crate::keyspace::NodeId;
use crate::time::Now;

/// Super-nodes that one call elects at most.
pub const MAX_CALLED: usize = 16;

/// The election that a call would open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Callable {
    /// Its lane.
    lane: u64,
    /// Its term.
    pub term: u64,
    /// Who stands.
    pub candidates: usize,
    /// Who is in reserve, and called into office first.
    pub deputies: usize,
}

/// Why no election can be called here and now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallRefused {
    /// Not the returning officer.
    #[error("the next election is {0}'s to run; ask its control plane")]
    Officer(NodeId),
    /// It serves nobody.
    #[error("this peer serves nobody, so it runs no elections; ask one that serves")]
    Leaf,
    /// One is under way.
    #[error("this peer runs the election of term {0} now; call again when it is over")]
    Running(u64),
    /// Nobody could be elected.
    #[error(
        "no leaf stands for election and no deputy is in reserve; see `leaf status` of one that should for the criteria that it does not meet"
    )]
    Nobody,
}

impl Core {
    /// The election that a call would open here now.
    ///
    /// # Errors
    /// None can be called here.
    pub fn callable(&self, _now: Now) -> Result<Callable, CallRefused> {
        if self.role != Role::SuperNode {
            return Err(CallRefused::Leaf);
        }
        if let Some(election) = &self.election {
            return Err(CallRefused::Running(election.term));
        }
        let own = self.node_id();
        let officer = |lane| self.officers(self.next_term(lane)).first().copied();
        let mut lanes = 0..self.lanes();
        let Some(lane) = lanes.find(|lane| officer(*lane) == Some(own)) else {
            return Err(CallRefused::Officer(officer(0).unwrap_or(own)));
        };
        let term = self.next_term(lane);
        let callable = Callable {
            lane,
            term,
            candidates: self.candidates(term).len(),
            deputies: self.deputies(lane).count(),
        };
        match callable.candidates + callable.deputies {
            0 => Err(CallRefused::Nobody),
            _ => Ok(callable),
        }
    }

    pub(super) fn call_election(&mut self, now: Now, places: usize) {
        if let Ok(callable) = self.callable(now) {
            let places = places.clamp(1, MAX_CALLED);
            let reason = "called by an operator".to_owned();
            self.grow(now, callable.lane, places, reason);
        }
    }
}
