//! Peers that the network's operator banned: no session is opened to them, and
//! none is left.

use std::sync::Arc;
use std::time::Duration;

use canopy_core::decree::Bans;
use canopy_core::keyspace::NodeId;
use canopy_proto::wire;
use wire::refusal::Code;

use super::hello::refusal;
use super::{Fabric, Inner, Session};

/// What a banned peer, and whoever dials one, is told.
const BANNED: &str = "banned by the operator of this network; ask its operator to lift the ban";
/// How long what was told the peer before has to get through.
const FAREWELL: Duration = Duration::from_millis(250);

impl Fabric {
    /// From now on these have no session, in either direction.
    pub fn set_bans(&self, bans: Arc<Bans>) {
        // First, so that a session which opens meanwhile finds itself banned.
        self.inner.bans.store(Arc::clone(&bans));
        for session in bans.peers().filter_map(|peer| self.session(peer)) {
            tokio::spawn(expel(session));
        }
    }
}

impl Inner {
    /// Why `peer` gets no session, if it is banned.
    pub(super) fn banned(&self, peer: &NodeId) -> Option<wire::Refusal> {
        let banned = self.bans.load().peer(peer);
        banned.then(|| refusal(Code::Banned, BANNED))
    }
}

pub(super) async fn expel(session: Session) {
    // It may be hearing just now that it is banned, and lays its role down.
    let ended = tokio::time::timeout(FAREWELL, session.closed()).await;
    if ended.is_err() {
        session.close(BANNED);
    }
}
