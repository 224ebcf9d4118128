//! Which session is the current one of each peer, and how many each address has.
//!
//! The rule for two sessions to one peer must come out the same on both sides:
//! each keeps the one that the lower node id dialled, if both were opened
//! within [`SIMULTANEOUS`]; otherwise the newer, because the peer would not
//! have dialled had it not lost the older.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use canopy_core::keyspace::NodeId;
use parking_lot::RwLock;

use super::session::Session;

/// Dials from both sides cross within this.
const SIMULTANEOUS: Duration = Duration::from_secs(5);

/// See the module.
pub(super) struct Registry {
    me: NodeId,
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    sessions: HashMap<NodeId, Session>,
    addresses: HashMap<IpAddr, usize>,
    closed: bool,
}

/// What became of a new session.
pub(super) enum Entered {
    /// It is the current one; the session it replaced, if any.
    Current(Option<Session>),
    /// The one in place stays.
    Loses(Session),
    /// The fabric is closed.
    Closed,
}

impl Registry {
    pub(super) fn new(me: NodeId) -> Self {
        Self {
            me,
            state: RwLock::default(),
        }
    }

    pub(super) fn get(&self, peer: &NodeId) -> Option<Session> {
        self.state.read().sessions.get(peer).cloned()
    }

    pub(super) fn all(&self) -> Vec<Session> {
        self.state.read().sessions.values().cloned().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.state.read().sessions.len()
    }

    /// Makes `session` its peer's current one, unless the one in place wins.
    pub(super) fn enter(&self, session: &Session) -> Entered {
        let mut state = self.state.write();
        if state.closed {
            return Entered::Closed;
        }
        let peer = session.peer();
        if let Some(old) = state.sessions.get(&peer) {
            let alive = old.close_reason().is_none();
            let (held, new) = (Contender::of(old), Contender::of(session));
            if alive && !prefers_new(self.me, peer, held, new) {
                return Entered::Loses(old.clone());
            }
        }
        Entered::Current(state.sessions.insert(peer, session.clone()))
    }

    /// Removes `session`; false when another has its place.
    pub(super) fn leave(&self, session: &Session) -> bool {
        let mut state = self.state.write();
        let peer = session.peer();
        let current = state.sessions.get(&peer);
        let same = current.is_some_and(|s| std::sync::Arc::ptr_eq(&s.0, &session.0));
        if same {
            state.sessions.remove(&peer);
        }
        same
    }

    /// Takes no further session; those that are open.
    pub(super) fn close(&self) -> Vec<Session> {
        let mut state = self.state.write();
        state.closed = true;
        state.sessions.values().cloned().collect()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state.read().closed
    }

    /// Counts an inbound connection from `addr`, if fewer than `most` are open.
    pub(super) fn admit(&self, addr: IpAddr, most: usize) -> bool {
        let mut state = self.state.write();
        let count = state.addresses.entry(addr).or_default();
        if *count >= most {
            return false;
        }
        *count += 1;
        true
    }

    /// An inbound connection from `addr` ended.
    pub(super) fn release(&self, addr: IpAddr) {
        let mut state = self.state.write();
        if let Some(count) = state.addresses.get_mut(&addr) {
            *count -= 1;
            if *count == 0 {
                state.addresses.remove(&addr);
            }
        }
    }
}

/// One of two sessions between the same peers.
#[derive(Clone, Copy)]
struct Contender {
    /// Whether the other side dialled it.
    inbound: bool,
    age: Duration,
}

impl Contender {
    fn of(session: &Session) -> Self {
        Self {
            inbound: session.inbound(),
            age: session.age(),
        }
    }
}

/// The rule of the module.
fn prefers_new(me: NodeId, peer: NodeId, old: Contender, new: Contender) -> bool {
    let crossed = old.inbound != new.inbound && old.age < SIMULTANEOUS;
    let peer_dialled_new = new.inbound;
    !crossed || (peer_dialled_new == (peer < me))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOW: NodeId = NodeId([1; 32]);
    const HIGH: NodeId = NodeId([2; 32]);

    fn contender(inbound: bool, seconds: u64) -> Contender {
        Contender {
            inbound,
            age: Duration::from_secs(seconds),
        }
    }

    #[test]
    fn crossing_dials_leave_what_the_lower_id_dialled_on_both_sides() {
        // Each side may see either one first.
        for own_first in [true, false] {
            let (old, new) = (contender(!own_first, 0), contender(own_first, 0));
            let low_keeps_own = prefers_new(LOW, HIGH, old, new) != own_first;
            let high_keeps_own = prefers_new(HIGH, LOW, old, new) != own_first;
            assert!(low_keeps_own && !high_keeps_own);
        }
    }

    #[test]
    fn a_peer_that_dials_again_has_lost_its_session() {
        for me in [LOW, HIGH] {
            let peer = if me == LOW { HIGH } else { LOW };
            assert!(prefers_new(
                me,
                peer,
                contender(true, 0),
                contender(true, 0)
            ));
            let late = SIMULTANEOUS.as_secs();
            assert!(prefers_new(
                me,
                peer,
                contender(false, late),
                contender(true, 0)
            ));
        }
    }
}
