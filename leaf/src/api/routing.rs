//! Messages and posts as the API sends and takes them. Streams read from the
//! leaf only as fast as the caller reads from them.

use std::pin::Pin;

use canopy_proto::leaf as pb;
use futures_util::stream::{self, Stream};
use tonic::Status;

use super::convert;
use crate::client::{SendError, Sent};
use crate::routing::{Ended, Messages, PostError, Posted, SubscribeError, Subscription};

/// Messages to one reader.
pub(super) type MessageStream = Pin<Box<dyn Stream<Item = Result<pb::Message, Status>> + Send>>;
/// Posts to one reader.
pub(super) type PostStream = Pin<Box<dyn Stream<Item = Result<pb::Post, Status>> + Send>>;

pub(super) fn sent(sent: Result<Sent, SendError>) -> Result<pb::SendReply, Status> {
    match sent {
        Ok(Sent::Delivered) => Ok(pb::SendReply { kept_until_ms: 0 }),
        Ok(Sent::Kept { until_ms }) => Ok(pb::SendReply {
            kept_until_ms: until_ms,
        }),
        Err(SendError::Overlay(error)) => Err(convert::error(error)),
        Err(error) => {
            let message = error.to_string();
            Err(match error {
                SendError::TooLarge { .. } | SendError::NoSuchPeer(_) => {
                    Status::invalid_argument(message)
                }
                SendError::MailboxFull(_) => Status::resource_exhausted(message),
                SendError::Banned(_) => Status::permission_denied(message),
                SendError::Refused(_) | SendError::Overlay(_) => {
                    Status::failed_precondition(message)
                }
            })
        }
    }
}

pub(super) fn posted(posted: Result<Posted, PostError>) -> Result<pb::BroadcastReply, Status> {
    let posted = posted.map_err(|error| {
        let message = error.to_string();
        match error {
            PostError::Name(_) | PostError::TooLarge { .. } => Status::invalid_argument(message),
            PostError::TooManyTopics => Status::resource_exhausted(message),
            PostError::Refused(_) => Status::failed_precondition(message),
            PostError::Unavailable(_) | PostError::Closed => Status::unavailable(message),
        }
    })?;
    Ok(pb::BroadcastReply {
        reached: posted.reached,
        given_up: posted.given_up,
    })
}

pub(super) fn subscribe_error(error: SubscribeError) -> Status {
    let message = error.to_string();
    match error {
        SubscribeError::Name(_) => Status::invalid_argument(message),
        SubscribeError::TooMany => Status::resource_exhausted(message),
        SubscribeError::Unavailable(_) => Status::unavailable(message),
    }
}

pub(super) fn messages(
    messages: Messages,
) -> impl Stream<Item = Result<pb::Message, Status>> + Send {
    stream::unfold(messages, |mut messages| async move {
        let message = messages.next().await?;
        let message = pb::Message {
            from: message.from.to_string(),
            sent_ms: message.sent_ms,
            data: message.data.into(),
        };
        Some((Ok(message), messages))
    })
}

pub(super) fn posts(
    subscription: Subscription,
) -> impl Stream<Item = Result<pb::Post, Status>> + Send {
    stream::unfold(Some(subscription), |subscription| async move {
        let mut subscription = subscription?;
        match subscription.next().await {
            Ok(post) => {
                let post = pb::Post {
                    publisher: post.publisher.to_string(),
                    sent_ms: post.sent_ms,
                    number: post.number,
                    missed: post.missed,
                    data: post.data.into(),
                };
                Some((Ok(post), Some(subscription)))
            }
            Err(Ended::Closed) => None,
            Err(error) => Some((Err(Status::resource_exhausted(error.to_string())), None)),
        }
    })
}
