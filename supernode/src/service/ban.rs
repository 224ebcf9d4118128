//! What the network's operator banned: not taken in, and not given out.
//!
//! It stays where it lies until it expires, so that a ban that is lifted in time
//! does no harm. Where nothing is banned, nothing here costs anything.

use canopy_core::decree::{Banned, Bans};
use canopy_core::keyspace::{Key, NodeId};
use canopy_core::record::Record;
use canopy_overlay::calls::Calls;
use canopy_proto::wire;

use super::{IndexService, Inner, refuse};

impl<C: Calls> IndexService<C> {
    /// To be called when [`Calls::bans`] has changed.
    pub fn bans_changed(&self) {
        self.inner.bans.store(self.inner.calls.bans());
    }
}

impl<C: Calls> Inner<C> {
    /// Refuses a peer that is banned.
    pub(super) fn admits(&self, peer: &NodeId) -> Result<(), wire::Refusal> {
        match self.bans.load().peer(peer) {
            true => Err(refuse::banned(&Banned::Peer(*peer))),
            false => Ok(()),
        }
    }

    /// Refuses a key under which there is nothing but a banned content.
    pub(super) fn readable(&self, key: &Key) -> Result<(), wire::Refusal> {
        match self.bans.load().key(key) {
            true => Err(refuse::banned_content()),
            false => Ok(()),
        }
    }

    /// Refuses a record that is banned.
    pub(super) fn allows(&self, record: &Record) -> Result<(), wire::Refusal> {
        match self.bans.load().of(record) {
            Some(banned) => Err(refuse::banned(&banned)),
            None => Ok(()),
        }
    }

    /// What of `records` may be given out; a refusal where there are some and all
    /// are banned.
    pub(super) fn shown(
        &self,
        records: Vec<wire::Signed>,
    ) -> Result<Vec<wire::Signed>, wire::Refusal> {
        let bans = self.bans.load();
        if bans.is_empty() {
            return Ok(records);
        }
        let mut why = None;
        let shown: Vec<wire::Signed> = records
            .into_iter()
            .filter(|signed| match of_signed(&bans, signed) {
                None => true,
                Some(banned) => {
                    why = Some(banned);
                    false
                }
            })
            .collect();
        match why.filter(|_| shown.is_empty()) {
            Some(banned) => Err(refuse::banned(&banned)),
            None => Ok(shown),
        }
    }

    /// Leaves out of a page of hits what is banned.
    pub(super) fn sift(&self, reply: &mut wire::SearchReply) {
        let bans = self.bans.load();
        if bans.is_empty() {
            return;
        }
        let before = reply.hits.len();
        reply.hits.retain(|hit| {
            let record = hit.record.as_ref();
            record.is_none_or(|signed| of_signed(&bans, signed).is_none())
        });
        let less = (before - reply.hits.len()) as u64;
        reply.total = reply.total.saturating_sub(less);
    }
}

/// What of a record is banned that this node, or another one, checked.
fn of_signed(bans: &Bans, signed: &wire::Signed) -> Option<Banned> {
    bans.of(&Record::trusted(signed).ok()?)
}
