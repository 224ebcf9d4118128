//! Messages to one peer: checked, and passed on over one session, or by one
//! more super-node. Nothing is kept here: the answer is the addressee's own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use canopy_core::identity::{Domain, open};
use canopy_core::keyspace::NodeId;
use canopy_overlay::calls::{CallError, Calls};
use canopy_overlay::fabric::Answer;
use canopy_proto::wire::deliver_reply::Outcome;
use canopy_proto::wire::refusal::Code;
use canopy_proto::wire::{self, request, response};
use canopy_proto::{Message as _, limits};

use super::stats::add;
use super::{Inner, refusal};

/// How long an addressee may take to take a message.
pub const TAKE: Duration = Duration::from_secs(5);
/// How long another super-node may take to bring it there.
const PASS_ON: Duration = Duration::from_secs(6);
/// Homes that one message is tried at.
const MAX_HOMES: usize = 8;
/// Longest time that an envelope may be of use, seconds.
pub const MAX_ENVELOPE_TTL_S: u32 = canopy_core::record::MAX_TTL_S;

/// Why an envelope is not taken, for people.
pub type Wrong = &'static str;

/// An envelope whose signature and shape were checked.
#[derive(Clone, Debug)]
pub struct Checked {
    /// Who signed it.
    pub sender: NodeId,
    /// Whom it is for.
    pub to: NodeId,
    /// What was signed.
    pub body: wire::Envelope,
}

impl Checked {
    /// Checks the signature, size and shape of an envelope of `network`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn open(signed: &wire::Signed, network: &str) -> Result<Self, Wrong> {
        if signed.encoded_len() > limits::ENVELOPE {
            return Err("the envelope is over 61 KiB");
        }
        let opened = open::<wire::Envelope>(Domain::Envelope, signed);
        let (sender, body) = opened.map_err(|_| "the envelope is not signed by its sender")?;
        if body.network != network {
            return Err("the envelope is of another network");
        }
        if body.id.len() != 16 || body.ttl_s > MAX_ENVELOPE_TTL_S {
            return Err("the envelope's id is not 16 bytes, or its lifetime is over 30 days");
        }
        let to = NodeId::from_slice(&body.to).ok_or("the addressee is no node id")?;
        Ok(Self { sender, to, body })
    }
}

pub(super) fn told(outcome: Outcome) -> response::Kind {
    response::Kind::Deliver(wire::DeliverReply {
        outcome: outcome.into(),
    })
}

impl<C: Calls> Inner<C> {
    /// A message from `from`: for this peer, or to be passed on.
    pub(super) fn deliver(self: &Arc<Self>, from: NodeId, ask: wire::Deliver) -> Answer {
        let signed = ask.envelope.clone().unwrap_or_default();
        let checked = match Checked::open(&signed, self.calls.network()) {
            Ok(checked) => checked,
            Err(wrong) => {
                add(&self.counters.messages_refused, 1);
                return Answer::refuse(Code::Invalid, wrong);
            }
        };
        if checked.to == self.me() {
            return match self.recipient() {
                Some(recipient) => recipient.handle(from, request::Kind::Deliver(ask)),
                None => Answer::Now(told(Outcome::Deaf)),
            };
        }
        if !self.serves(&self.me()) {
            let why = "this peer is no super-node and passes nothing on";
            return Answer::refuse(Code::NotServing, why);
        }
        // Others' envelopes come from super-nodes only: a replay stays the
        // business of whoever carried it.
        if from != checked.sender && from != self.me() && !self.serves(&from) {
            add(&self.counters.messages_refused, 1);
            return Answer::refuse(Code::Invalid, "send only what you signed yourself");
        }
        if let Some(refused) = self.banned(&[checked.sender, checked.to]) {
            add(&self.counters.messages_refused, 1);
            return refused;
        }
        let size = signed.body.len();
        let turn = self
            .messages
            .enter(checked.sender.0, checked.to.0, size, Instant::now());
        let turn = match turn {
            Ok(turn) => turn,
            Err(why) => {
                add(&self.counters.messages_refused, 1);
                return Answer::refuse(Code::Busy, why);
            }
        };
        let inner = Arc::clone(self);
        Answer::later(async move {
            let _turn = turn;
            let answer = inner.pass_on(checked.to, signed, &ask.homes).await;
            inner.count_message(&answer, size);
            answer
        })
    }

    fn count_message(&self, answer: &response::Kind, size: usize) {
        let counter = match answer {
            response::Kind::Deliver(reply) if reply.outcome() == Outcome::Delivered => {
                add(&self.counters.bytes, size as u64);
                &self.counters.messages_delivered
            }
            response::Kind::Deliver(_) => &self.counters.messages_absent,
            _ => &self.counters.messages_refused,
        };
        add(counter, 1);
    }

    async fn pass_on(
        &self,
        to: NodeId,
        envelope: wire::Signed,
        homes: &[bytes::Bytes],
    ) -> response::Kind {
        let ask = || {
            request::Kind::Deliver(wire::Deliver {
                envelope: Some(envelope.clone()),
                homes: Vec::new(),
            })
        };
        match self.calls.call(to, ask(), TAKE).await {
            Ok(answer @ response::Kind::Deliver(_)) => return answer,
            Ok(_) => return refusal(Code::Malformed, "the addressee's answer makes no sense"),
            Err(CallError::Refused { refusal, .. }) => return response::Kind::Refusal(refusal),
            Err(CallError::Deadline(_)) => {
                return refusal(Code::Deadline, "the addressee did not take it in time");
            }
            Err(CallError::Busy(_)) => {
                return refusal(Code::Busy, "too much is under way to the addressee");
            }
            // No session to it is the common case.
            Err(CallError::Unreachable { .. } | CallError::Malformed(_)) => {}
        }
        let mut last = told(Outcome::Absent);
        for home in homes.iter().take(MAX_HOMES) {
            let home = NodeId::from_slice(home).filter(|home| self.serves(home));
            let Some(home) = home.filter(|home| *home != self.me()) else {
                continue;
            };
            match self.calls.call(home, ask(), PASS_ON).await {
                Ok(response::Kind::Deliver(reply)) if reply.outcome() != Outcome::Absent => {
                    return response::Kind::Deliver(reply);
                }
                Err(CallError::Refused { refusal, .. }) => {
                    last = response::Kind::Refusal(refusal);
                }
                _ => {}
            }
        }
        last
    }
}
