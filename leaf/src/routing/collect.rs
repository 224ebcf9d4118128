//! Collects the messages that were kept for this peer: when the app begins to
//! listen, when there are new homes, and now and then.

use std::sync::Weak;
use std::time::Duration;

use canopy_core::record::Record;
use canopy_proto::wire;
use canopy_proto::wire::record::Payload;

use super::Arrivals;
use super::inbox::Refused;
use crate::node::Node;

/// A message is kept although this peer is there when it did not take it in
/// time: so it looks now and then.
const LOOK: Duration = Duration::from_secs(60);
/// After a failure.
const AGAIN: Duration = Duration::from_secs(5);
/// Looks at one time: a full mailbox and more.
const ROUNDS: usize = 32;

/// Runs until the leaf is gone.
pub(super) async fn collect<N: Node>(arrivals: Weak<Arrivals<N>>) {
    let Some(first) = arrivals.upgrade() else {
        return;
    };
    let inbox = first.inbox.clone();
    let mut homes = first.node.homes();
    drop(first);
    let mut pause = LOOK;
    loop {
        tokio::select! {
            () = inbox.listening.notified() => {}
            told = homes.changed() => if told.is_err() { return },
            () = tokio::time::sleep(pause) => {}
        }
        let Some(arrivals) = arrivals.upgrade() else {
            return;
        };
        pause = LOOK.mul_f64(rand::random_range(0.75..1.25));
        for _ in 0..ROUNDS {
            if !inbox.is_wanted() {
                break;
            }
            match arrivals.client.letters().await {
                Ok(letters) if letters.is_empty() => break,
                Ok(letters) => {
                    if !arrivals.take_letters(&letters).await {
                        break;
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "letters: the mailbox cannot be read");
                    pause = AGAIN;
                    break;
                }
            }
        }
    }
}

impl<N: Node> Arrivals<N> {
    /// Hands letters to the app, and removes those that it took; false: it takes
    /// no more now.
    async fn take_letters(&self, letters: &[Record]) -> bool {
        let mut done = Vec::with_capacity(letters.len());
        let mut all = true;
        for letter in letters {
            let Some(Payload::Letter(wire::Letter {
                envelope: Some(envelope),
                ..
            })) = &letter.body.payload
            else {
                continue;
            };
            let taken = match self.inbox.offer(&self.client, envelope) {
                Ok(taken) => taken.await.is_ok(),
                // Nobody else can make use of it.
                Err(Refused::Wrong(_) | Refused::Had) => true,
                Err(Refused::Deaf) => false,
            };
            if !taken {
                all = false;
                break;
            }
            done.push(letter.clone());
        }
        self.client.remove_letters(&done).await;
        all
    }
}
