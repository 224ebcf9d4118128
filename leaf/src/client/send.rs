//! Messages to one peer: sealed, signed, and brought to one of its homes.

use std::time::Duration;

use bytes::Bytes;
use canopy_core::identity::Domain;
use canopy_core::keyspace::NodeId;
use canopy_overlay::calls::{CallError, Calls};
use canopy_proto::limits;
use canopy_proto::wire::deliver_reply::Outcome;
use canopy_proto::wire::refusal::Code;
use canopy_proto::wire::{self, request, response};
use canopy_supernode::routing::TAKE;
use tokio::time::Instant;

use super::Client;
use super::error::{Error, is_verdict};
use super::letters::LETTER_TTL;
use super::seal::seal;

/// Longest message, bytes.
pub const MAX_MESSAGE: usize = limits::MESSAGE;
/// How long one super-node may take: longer than it lets the addressee take.
const ATTEMPT: Duration = Duration::from_secs(TAKE.as_secs() + 2);
/// Homes of another that are remembered.
const REMEMBERED: usize = 1024;
/// How long they are.
const FRESH: Duration = Duration::from_secs(30);

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The addressee's app has it.
    Delivered,
    /// The addressee was not there, or took no messages; the overlay keeps it
    /// until it does.
    Kept {
        /// When it is dropped unless it was collected, milliseconds since 1970.
        until_ms: u64,
    },
}

/// Why a message was not delivered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The message is too large; nothing was sent.
    #[error(
        "the message is {size} bytes, the limit is {MAX_MESSAGE}; split it, or put it and send its hash"
    )]
    TooLarge {
        /// Its size, bytes.
        size: usize,
    },
    /// The id is no public key, so nobody has it; nothing was sent.
    #[error("no peer can have the id {0}; check it")]
    NoSuchPeer(NodeId),
    /// The addressee is not there, and too much waits for it already, of this
    /// sender or in all.
    #[error("the addressee is not there, and its mailbox is full: {0}")]
    MailboxFull(String),
    /// The network's operator banned this peer or the addressee.
    #[error("{0}")]
    Banned(String),
    /// A super-node or the addressee refused the message; the same one will be
    /// refused again.
    #[error("the message was refused: {0}")]
    Refused(String),
    /// It could not be found out where the addressee is, or not be kept for it.
    #[error(transparent)]
    Overlay(#[from] Error),
}

/// Homes of other peers, as they were read last.
#[derive(Debug, Default)]
pub(super) struct Whereabouts(parking_lot::Mutex<std::collections::HashMap<NodeId, Known>>);

#[derive(Clone, Debug)]
struct Known {
    homes: Vec<NodeId>,
    until: Instant,
}

/// What a try over all homes came to.
enum Tried {
    Delivered,
    /// Some home answered that it is not there, or takes nothing.
    Absent,
    /// No home could be asked.
    Unreached,
    Banned(String),
    Refused(String),
}

impl<C: Calls> Client<C> {
    /// Sends `message` to `to`; resolves when it is known what became of it.
    /// `own` are the super-nodes that this peer leans on: one of them passes the
    /// message on where no home of `to` can be reached.
    pub(crate) async fn send_message(
        &self,
        to: NodeId,
        message: &[u8],
        own: &[NodeId],
    ) -> Result<Sent, SendError> {
        if message.len() > MAX_MESSAGE {
            let size = message.len();
            return Err(SendError::TooLarge { size });
        }
        let id = Bytes::copy_from_slice(&rand::random::<[u8; 16]>());
        let envelope = self.envelope(to, id.clone(), message)?;
        if self.send_online(to, &envelope, own).await? {
            return Ok(Sent::Delivered);
        }
        // Under the same id, so that a copy that arrived after all is known.
        match self.keep_letter(to, id, envelope).await {
            Ok(until_ms) => Ok(Sent::Kept { until_ms }),
            Err(Error::Refused {
                code: Code::Quota,
                message,
                ..
            }) => Err(SendError::MailboxFull(message)),
            Err(Error::Refused {
                code: Code::Banned,
                message,
                ..
            }) => Err(SendError::Banned(message)),
            Err(error) => Err(error.into()),
        }
    }

    fn envelope(&self, to: NodeId, id: Bytes, message: &[u8]) -> Result<wire::Signed, SendError> {
        let me = self.node_id();
        let sealed = seal(&me, &to, message).ok_or(SendError::NoSuchPeer(to))?;
        let body = wire::Envelope {
            network: self.inner.calls.network().to_owned(),
            to: to.to_bytes(),
            id,
            sent_ms: self.common_ms(),
            ttl_s: LETTER_TTL.as_secs() as u32,
            sealed,
        };
        Ok(self.inner.identity.sign(Domain::Envelope, &body))
    }

    /// False: it is not there, or takes no messages.
    async fn send_online(
        &self,
        to: NodeId,
        envelope: &wire::Signed,
        own: &[NodeId],
    ) -> Result<bool, SendError> {
        let deadline = self.deadline();
        for fresh in [false, true] {
            let (homes, known) = self.homes_of(to, fresh).await?;
            match self.try_homes(&homes, envelope, own, deadline).await {
                Tried::Delivered => return Ok(true),
                Tried::Banned(why) => return Err(SendError::Banned(why)),
                Tried::Refused(why) => return Err(SendError::Refused(why)),
                // It may have moved since.
                Tried::Absent | Tried::Unreached if known && Instant::now() < deadline => {}
                Tried::Absent | Tried::Unreached => break,
            }
        }
        self.inner.whereabouts.0.lock().remove(&to);
        Ok(false)
    }

    /// The homes of `to`, and whether they are only remembered.
    async fn homes_of(&self, to: NodeId, fresh: bool) -> Result<(Vec<NodeId>, bool), Error> {
        let me = self.node_id();
        if to == me || self.inner.calls.placement().get(&to).is_some() {
            return Ok((vec![to], false));
        }
        let known = self.inner.whereabouts.0.lock().get(&to).cloned();
        if let Some(known) = known.filter(|known| !fresh && Instant::now() < known.until) {
            return Ok((known.homes, true));
        }
        let found = self.locate(to, |_| Vec::new()).await?;
        let homes = found.map_or_else(Vec::new, |location| location.homes);
        let homes: Vec<NodeId> = homes.into_iter().map(|home| home.node_id).collect();
        let until = Instant::now() + FRESH;
        let mut all = self.inner.whereabouts.0.lock();
        if all.len() >= REMEMBERED {
            all.retain(|_, known| Instant::now() < known.until);
        }
        if all.len() < REMEMBERED && !homes.is_empty() {
            let homes = homes.clone();
            all.insert(to, Known { homes, until });
        }
        Ok((homes, false))
    }

    /// Straight to each home; and, where none can be reached, over an own one. Homes
    /// that could not be reached lately come last.
    async fn try_homes(
        &self,
        homes: &[NodeId],
        envelope: &wire::Signed,
        own: &[NodeId],
        deadline: Instant,
    ) -> Tried {
        let well = |home: &NodeId| !self.inner.health.penalised(home);
        let (well, ill): (Vec<NodeId>, Vec<NodeId>) = homes.iter().copied().partition(well);
        let tried = self.hand_to_each(&well, envelope, deadline).await;
        if homes.is_empty() || !matches!(tried, Tried::Unreached) {
            return tried;
        }
        for through in own {
            match self.hand_to(*through, envelope, homes, deadline).await {
                Tried::Unreached => {}
                certain => return certain,
            }
        }
        self.hand_to_each(&ill, envelope, deadline).await
    }

    async fn hand_to_each(
        &self,
        homes: &[NodeId],
        envelope: &wire::Signed,
        deadline: Instant,
    ) -> Tried {
        let mut tried = Tried::Unreached;
        for home in homes {
            tried = match self.hand_to(*home, envelope, &[], deadline).await {
                Tried::Unreached => tried,
                Tried::Absent => Tried::Absent,
                certain => return certain,
            };
        }
        tried
    }

    async fn hand_to(
        &self,
        node: NodeId,
        envelope: &wire::Signed,
        homes: &[NodeId],
        deadline: Instant,
    ) -> Tried {
        let ask = request::Kind::Deliver(wire::Deliver {
            envelope: Some(envelope.clone()),
            homes: homes.iter().map(|home| home.to_bytes()).collect(),
        });
        let left = deadline.saturating_duration_since(Instant::now());
        match self.inner.calls.call(node, ask, left.min(ATTEMPT)).await {
            Ok(response::Kind::Deliver(reply)) => match reply.outcome() {
                Outcome::Delivered => Tried::Delivered,
                Outcome::Absent | Outcome::Deaf | Outcome::Unspecified => Tried::Absent,
            },
            Err(CallError::Refused { refusal, .. }) if refusal.code() == Code::Banned => {
                Tried::Banned(refusal.message)
            }
            Err(CallError::Refused { refusal, .. }) if is_verdict(refusal.code()) => {
                Tried::Refused(refusal.message)
            }
            // Over a rate, or slow: it may be there all the same.
            Err(CallError::Refused { .. }) => Tried::Absent,
            Err(error) => {
                tracing::debug!(%error, "send: a home cannot be asked");
                self.inner.health.silent(&node);
                Tried::Unreached
            }
            Ok(_) => Tried::Unreached,
        }
    }
}
