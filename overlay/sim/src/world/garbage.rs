//! Messages that no honest peer sends: cut, altered, repeated, made up.

use bytes::Bytes;
use canopy_core::node::Input;
use canopy_proto::wire::core_message::Kind;
use canopy_proto::wire::{self, CoreMessage};
use prost::Message;

use super::{PeerId, World};
use crate::draw::Draw;

/// Longest run of made-up bytes.
const MAX_NOISE: u64 = 300;

impl World {
    /// Hands one such message to a peer, as if from one that it has a session
    /// with. What cannot be decoded does not get past a real peer's driver, and
    /// not past this one.
    pub fn garble(&mut self, id: PeerId, seed: u64) {
        let mut draw = Draw::new(seed, "garbage");
        let peer = &self.peers[id as usize];
        let Some(core) = peer.core() else { return };
        let others: Vec<PeerId> = peer.sessions.iter().copied().collect();
        let Some(from) = draw.some(&others, 1).first().copied() else {
            return;
        };
        let message = match draw.below(3) {
            0 => Kind::Roster(wire::RosterEntries {
                entries: core.save().0.entries,
                dead: Vec::new(),
            }),
            1 => Kind::Muster(wire::Muster {
                members: vec![wire::MusterEntry {
                    contact: Some(core.contact().signed.clone()),
                    ..Default::default()
                }],
                ..Default::default()
            }),
            _ => Kind::Gossip(Bytes::from(noise(&mut draw))),
        };
        let mut bytes = CoreMessage {
            kind: Some(message),
        }
        .encode_to_vec();
        for _ in 0..draw.below(6) {
            let at = draw.index(bytes.len());
            if let Some(byte) = bytes.get_mut(at) {
                *byte = draw.below(256) as u8;
            }
        }
        if draw.chance(200_000) {
            let keep = draw.index(bytes.len());
            bytes.truncate(keep);
        }
        if draw.chance(100_000) {
            bytes = noise(&mut draw);
        }
        let Ok(message) = CoreMessage::decode(Bytes::from(bytes)) else {
            return;
        };
        self.note(16, id, u64::from(from));
        let from = self.peers[from as usize].node;
        let message = Box::new(message);
        self.tell(id, Input::Message { from, message });
    }
}

fn noise(draw: &mut Draw) -> Vec<u8> {
    (0..draw.below(MAX_NOISE))
        .map(|_| draw.below(256) as u8)
        .collect()
}
