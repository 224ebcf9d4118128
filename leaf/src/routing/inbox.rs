//! Messages to this peer, on their way to the app: checked, opened, each once.
//!
//! A message counts as delivered when the app has taken it from its stream, so
//! that one who does not read is not sent more than a little.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use canopy_core::keyspace::NodeId;
use canopy_overlay::calls::Calls;
use canopy_overlay::fabric::Answer;
use canopy_proto::wire::deliver_reply::Outcome;
use canopy_proto::wire::refusal::Code;
use canopy_proto::wire::{self, response};
use canopy_supernode::routing::Checked;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::seen::{Name, Seen};
use crate::client::{Client, unseal};

/// Messages that wait for the app; 60 KiB each at most.
const WAITING: usize = 64;
/// How far two clocks may be apart, milliseconds, and how long a message is on
/// its way at most.
const SLACK_MS: u64 = 600_000;

/// A message to this peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who sent it; its signature has been checked.
    pub from: NodeId,
    /// When, by the sender's clock, milliseconds since 1970.
    pub sent_ms: u64,
    /// What was sent.
    pub data: Bytes,
}

/// The messages to this peer, as they come. Dropped, this peer takes none.
#[derive(Debug)]
pub struct Messages {
    waiting: mpsc::Receiver<Waiting>,
    inbox: Arc<Inbox>,
}

/// A message that the app has not taken yet.
#[derive(Debug)]
struct Waiting {
    message: Message,
    name: Name,
    until_ms: u64,
    now_ms: u64,
    taken: oneshot::Sender<()>,
}

#[derive(Debug, Default)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    /// Somebody has begun to listen.
    pub(super) listening: tokio::sync::Notify,
}

#[derive(Debug, Default)]
struct State {
    listener: Option<mpsc::Sender<Waiting>>,
    waiting: HashSet<Name>,
    seen: Seen,
}

impl Messages {
    /// The next message. `None`: the leaf was closed, or somebody else listens
    /// in this one's place now.
    pub async fn next(&mut self) -> Option<Message> {
        let next = self.waiting.recv().await?;
        let mut state = self.inbox.state.lock();
        state.waiting.remove(&next.name);
        state.seen.insert(next.name, next.until_ms, next.now_ms);
        drop(state);
        // The sender may have given up; it finds out when it tries again.
        let _ = next.taken.send(());
        Some(next.message)
    }
}

impl Inbox {
    /// Messages go to whoever listened last.
    pub(crate) fn listen(self: &Arc<Self>) -> Messages {
        let (listener, waiting) = mpsc::channel(WAITING);
        let mut state = self.state.lock();
        state.listener = Some(listener);
        state.waiting.clear();
        drop(state);
        self.listening.notify_one();
        Messages {
            waiting,
            inbox: Arc::clone(self),
        }
    }

    /// No more messages: the leaf closes.
    pub(crate) fn close(&self) {
        self.state.lock().listener = None;
    }

    /// Whether anybody takes messages.
    pub(super) fn is_wanted(&self) -> bool {
        let state = self.state.lock();
        let listener = state.listener.as_ref();
        listener.is_some_and(|listener| !listener.is_closed())
    }

    /// Takes a message that a super-node brings.
    pub(crate) fn deliver<C: Calls>(&self, client: &Client<C>, ask: &wire::Deliver) -> Answer {
        let Some(signed) = &ask.envelope else {
            return Answer::refuse(Code::Malformed, "there is no envelope");
        };
        let taken = match self.offer(client, signed) {
            Ok(taken) => taken,
            Err(Refused::Wrong(why)) => return Answer::refuse(Code::Invalid, why),
            Err(Refused::Had) => return told(Outcome::Delivered),
            Err(Refused::Deaf) => return told(Outcome::Deaf),
        };
        Answer::later(async move {
            let outcome = match taken.await {
                Ok(()) => Outcome::Delivered,
                Err(_) => Outcome::Deaf,
            };
            response::Kind::Deliver(reply(outcome))
        })
    }

    /// Has a message wait for the app; what is returned resolves when it is
    /// taken.
    pub(super) fn offer<C: Calls>(
        &self,
        client: &Client<C>,
        signed: &wire::Signed,
    ) -> Result<oneshot::Receiver<()>, Refused> {
        let checked = Checked::open(signed, client.network()).map_err(Refused::Wrong)?;
        if checked.to != client.node_id() {
            return Err(Refused::Wrong("the message is for another peer"));
        }
        let (from, body) = (checked.sender, checked.body);
        let now_ms = client.common_ms();
        let until_ms = until_ms(&body);
        if until_ms < now_ms || body.sent_ms > now_ms.saturating_add(SLACK_MS) {
            let why = "the message is over, or from the future; check the clocks";
            return Err(Refused::Wrong(why));
        }
        let id = body.id.as_ref().try_into();
        let name = (
            from.0,
            id.map_err(|_| Refused::Wrong("the id is not 16 bytes"))?,
        );
        if self.state.lock().seen.contains(&name) {
            return Err(Refused::Had);
        }
        let data = unseal(client.identity(), &from, &body.sealed);
        let data = data.ok_or(Refused::Wrong("the message is not sealed to this peer"))?;
        let (taken, told) = oneshot::channel();
        let sent_ms = body.sent_ms;
        let message = Message {
            from,
            sent_ms,
            data,
        };
        let mut state = self.state.lock();
        let Some(listener) = state.listener.clone() else {
            return Err(Refused::Deaf);
        };
        if !state.waiting.insert(name) {
            // It waits already; who sent it first hears when it is taken.
            return Err(Refused::Deaf);
        }
        let waiting = Waiting {
            message,
            name,
            until_ms,
            now_ms,
            taken,
        };
        if listener.try_send(waiting).is_err() {
            state.waiting.remove(&name);
            return Err(Refused::Deaf);
        }
        Ok(told)
    }
}

pub(super) enum Refused {
    /// It is not a message that this peer could take.
    Wrong(&'static str),
    /// It was taken before.
    Had,
    /// Nobody listens, or too much waits.
    Deaf,
}

/// After this no copy of the message is taken any more.
fn until_ms(body: &wire::Envelope) -> u64 {
    let lifetime_ms = u64::from(body.ttl_s) * 1000;
    body.sent_ms.saturating_add(lifetime_ms.max(SLACK_MS))
}

fn reply(outcome: Outcome) -> wire::DeliverReply {
    wire::DeliverReply {
        outcome: outcome.into(),
    }
}

fn told(outcome: Outcome) -> Answer {
    Answer::Now(response::Kind::Deliver(reply(outcome)))
}

#[cfg(test)]
mod tests {
    use canopy_core::identity::{Domain, Identity};
    use canopy_proto::wire::request;

    use super::super::Arrivals;
    use super::*;
    use crate::client::seal;
    use crate::client::testing::{NETWORK, NOW, Net};

    fn identity(secret: u8) -> Identity {
        Identity::from_secret([secret; 32])
    }

    fn envelope(from: &Identity, to: &Identity, id: u8, sent_ms: u64) -> wire::Envelope {
        wire::Envelope {
            network: NETWORK.into(),
            to: to.node_id().to_bytes(),
            id: Bytes::from(vec![id; 16]),
            sent_ms,
            ttl_s: 60,
            sealed: seal(&from.node_id(), &to.node_id(), b"hello").unwrap(),
        }
    }

    fn deliver(by: &Identity, envelope: &wire::Envelope) -> request::Kind {
        request::Kind::Deliver(wire::Deliver {
            envelope: Some(by.sign(Domain::Envelope, envelope)),
            homes: Vec::new(),
        })
    }

    async fn outcome(answer: Answer) -> Result<Outcome, Code> {
        let answer = match answer {
            Answer::Now(answer) => answer,
            Answer::Later(answer) => answer.await,
        };
        match answer {
            response::Kind::Deliver(reply) => Ok(reply.outcome()),
            response::Kind::Refusal(refusal) => Err(refusal.code()),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_message_is_taken_once_and_told_as_delivered_each_time() {
        let (a, b) = (identity(1), identity(2));
        let leaf = Net::new(&b, 3).leaf(b.clone(), std::time::Duration::from_secs(1));
        let arrivals = Arrivals::new(leaf.node().clone(), leaf.client().clone());
        let recipient = arrivals.recipient();
        let hand = |request| outcome(recipient.handle(a.node_id(), request));
        let first = deliver(&a, &envelope(&a, &b, 1, NOW));
        assert_eq!(hand(first.clone()).await, Ok(Outcome::Deaf));

        let mut messages = arrivals.inbox.listen();
        let (taken, message) = tokio::join!(hand(first.clone()), messages.next());
        assert_eq!(taken, Ok(Outcome::Delivered));
        let message = message.unwrap();
        assert_eq!(
            (message.from, &message.data[..]),
            (a.node_id(), &b"hello"[..])
        );
        assert_eq!(hand(first).await, Ok(Outcome::Delivered));
        let next = deliver(&a, &envelope(&a, &b, 2, NOW));
        let (_, message) = tokio::join!(hand(next), messages.next());
        assert!(message.is_some());
        drop(messages);
        let deaf = deliver(&a, &envelope(&a, &b, 3, NOW));
        assert_eq!(hand(deaf).await, Ok(Outcome::Deaf));
    }

    #[tokio::test]
    async fn what_is_forged_old_or_not_for_this_peer_never_reaches_the_app() {
        let (a, b, c) = (identity(1), identity(2), identity(3));
        let leaf = Net::new(&b, 3).leaf(b.clone(), std::time::Duration::from_secs(1));
        let arrivals = Arrivals::new(leaf.node().clone(), leaf.client().clone());
        let recipient = arrivals.recipient();
        let mut messages = arrivals.inbox.listen();
        let good = envelope(&a, &b, 1, NOW);
        let changed = |change: &dyn Fn(&mut wire::Envelope)| {
            let mut changed = good.clone();
            change(&mut changed);
            changed
        };
        let mut forged = a.sign(Domain::Envelope, &good);
        forged.signer = c.node_id().to_bytes();
        let forged = request::Kind::Deliver(wire::Deliver {
            envelope: Some(forged),
            homes: Vec::new(),
        });
        let bad = [
            // Somebody else's box under an own name.
            deliver(&c, &good),
            deliver(&a, &envelope(&a, &c, 1, NOW)),
            deliver(&a, &envelope(&a, &b, 1, NOW - SLACK_MS - 1)),
            deliver(&a, &envelope(&a, &b, 1, NOW + SLACK_MS + 60_000)),
            deliver(&a, &changed(&|e| e.network = "other".into())),
            deliver(&a, &changed(&|e| e.id = Bytes::from_static(b"short"))),
            deliver(&a, &changed(&|e| e.sealed = Bytes::from_static(b"no box"))),
            forged,
        ];
        for (place, bad) in bad.into_iter().enumerate() {
            let told = outcome(recipient.handle(a.node_id(), bad)).await;
            assert_eq!(told, Err(Code::Invalid), "{place}");
        }
        let good = deliver(&a, &good);
        let hand = outcome(recipient.handle(a.node_id(), good));
        let (told, message) = tokio::join!(hand, messages.next());
        assert_eq!((told, message.is_some()), (Ok(Outcome::Delivered), true));
    }
}
