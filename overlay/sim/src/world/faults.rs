//! What goes wrong: peers die, networks split, clocks jump, addresses change.

use canopy_core::node::Input;
use canopy_proto::wire::SignedMandate;

use super::{PeerId, Spec, World};

/// Which sides of a split can hear each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Split {
    /// Everybody hears everybody.
    #[default]
    None,
    /// Peers of different sides do not.
    Apart,
    /// Side 0 and all others do; those of the other sides do not hear each
    /// other: a partition that is not the same seen from everywhere.
    Bridged,
}

impl World {
    pub(super) fn is_cut(&self, one: PeerId, other: PeerId) -> bool {
        let (a, b) = (
            self.peers[one as usize].side,
            self.peers[other as usize].side,
        );
        match self.split {
            Split::None => false,
            Split::Apart => a != b,
            Split::Bridged => a != b && a != 0 && b != 0,
        }
    }

    /// Ends a peer: without a word if `silent`, else with an end of its
    /// sessions that the others hear at once.
    pub fn kill(&mut self, id: PeerId, silent: bool) {
        if self.config.flat {
            return self.kill_flat(id);
        }
        let peer = &mut self.peers[id as usize];
        let Some(core) = peer.core.take() else {
            return;
        };
        let saved = core.save();
        let cold = peer.cold();
        cold.saved = Some(saved);
        if let Some(index) = self.data.as_mut().and_then(|data| data.end(id)) {
            cold.index = Some(index);
        }
        peer.timeout_at = u64::MAX;
        peer.homes = 0;
        let others: Vec<PeerId> = peer.sessions.iter().copied().collect();
        self.note(11, id, u64::from(silent));
        for other in others {
            let after = match silent {
                true => self.silence_us(),
                false => self.one_way(id, other),
            };
            self.break_session(id, other, after);
        }
        self.peers[id as usize].sessions.clear();
    }

    /// Forgets what an offline peer had saved: its disk is gone.
    pub fn wipe(&mut self, id: PeerId) {
        if let Some(cold) = &mut self.peers[id as usize].cold {
            cold.saved = None;
            cold.index = None;
            cold.flat = None;
        }
    }

    /// Puts peers on sides, by number, and splits them; `bridged`: side 0 still
    /// hears everybody.
    pub fn split(&mut self, bridged: bool, side: impl Fn(PeerId) -> u8) {
        self.split = match bridged {
            true => Split::Bridged,
            false => Split::Apart,
        };
        for (id, peer) in (0..).zip(&mut self.peers) {
            peer.side = side(id);
        }
        self.note(12, 0, u64::from(bridged));
        for one in 0..self.peers.len() as PeerId {
            let others = self.peers[one as usize].sessions.range(one..);
            let cut: Vec<PeerId> = others
                .copied()
                .filter(|other| self.is_cut(one, *other))
                .collect();
            for other in cut {
                let after = self.silence_us();
                self.break_session(one, other, after);
            }
        }
    }

    /// Ends the split.
    pub fn heal(&mut self) {
        self.split = Split::None;
        self.note(13, 0, 0);
    }

    /// Changes what a peer is like; its core is not told.
    pub fn alter(&mut self, id: PeerId, change: impl FnOnce(&mut Spec)) {
        let spec = &mut self.peers[id as usize].spec;
        change(spec);
        if let Some(data) = &self.data {
            data.set_clock(id, spec.clock_ms);
        }
        self.note(14, id, 0);
    }

    /// A running peer gets another address: it starts anew with what it saved.
    pub fn relocate(&mut self, id: PeerId) {
        self.kill(id, true);
        self.alter(id, |spec| spec.moves += 1);
        self.start(id);
    }

    /// Asks a super-node to hand over and step down.
    pub fn drain(&mut self, id: PeerId) {
        self.note(15, id, 0);
        self.tell(id, Input::StepDown);
    }

    /// Whether the operator named a peer.
    #[cfg(test)]
    pub(crate) fn is_designated(&self, id: PeerId) -> bool {
        self.designations.contains_key(&id)
    }

    /// From its next start on, the peer holds this designation.
    pub fn designate(&mut self, id: PeerId, mandate: SignedMandate) {
        self.designations.insert(id, mandate);
    }
}
