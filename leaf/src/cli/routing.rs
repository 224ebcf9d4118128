//! The commands of messages and topics: send, listen, broadcast, subscribe.

use std::io::Read;
use std::pin::{Pin, pin};
use std::process::ExitCode;

use canopy_proto::leaf as pb;
use canopy_proto::leaf::leaf_server::Leaf as _;
use canopy_supernode::cli::output::{note, print, print_json};
use canopy_supernode::cli::program::interrupted;
use futures_util::stream::{Stream, StreamExt};
use serde_json::{Value as Json, json};
use tonic::{Request, Status};

use super::args::{BroadcastArgs, ListenArgs, SendArgs, SubscribeArgs};
use super::backend::Backend;
use super::failure::{Failure, from_status};
use crate::client::MAX_MESSAGE;
use crate::node::unix_ms;
use crate::routing::MAX_POST;

/// What a stream of the API brings.
type Incoming<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

pub(super) async fn send(args: SendArgs) -> Result<ExitCode, Failure> {
    let data = read(&args.message, MAX_MESSAGE)?;
    let to = args.to.to_string();
    let mut backend = Backend::find(&args.common).await?;
    let sent = backend.send(pb::SendRequest { to, data }).await;
    backend.close().await;
    let until_ms = sent?.kept_until_ms;
    match (args.common.json, until_ms) {
        (true, _) => print_json(&json!({
            "to": args.to.to_string(),
            "delivered": until_ms == 0,
            "kept_until_ms": until_ms,
        })),
        (false, 0) => print(&format!("delivered to {}\n", args.to)),
        (false, _) => {
            let days = until_ms.saturating_sub(unix_ms()) as f64 / 86_400_000.0;
            print(&format!(
                "{} is not there; kept for {days:.0} days\n",
                args.to
            ))
        }
    }
}

pub(super) async fn broadcast(args: BroadcastArgs) -> Result<ExitCode, Failure> {
    let data = read(&args.message, MAX_POST)?;
    let topic = args.topic.clone();
    let mut backend = Backend::find(&args.common).await?;
    let posted = backend.broadcast(pb::BroadcastRequest { topic, data });
    let posted = posted.await;
    backend.close().await;
    let pb::BroadcastReply { reached, given_up } = posted?;
    if args.common.json {
        let posted = json!({ "topic": args.topic, "reached": reached, "given_up": given_up });
        return print_json(&posted);
    }
    print(&format!("{reached} subscriber(s) have it\n"))?;
    if given_up > 0 {
        note(&format!("{given_up} subscriber(s) did not take it in time"));
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn listen(args: ListenArgs) -> Result<ExitCode, Failure> {
    let closing = interrupted()?;
    let mut backend = Backend::find(&args.common).await?;
    let incoming: Result<Incoming<pb::Message>, Status> = match &mut backend {
        Backend::Daemon(client) => {
            let reply = client.messages(pb::MessagesRequest {}).await;
            reply.map(|reply| reply.into_inner().boxed())
        }
        Backend::Joined(service, leaf) => {
            note(&format!("listening as {}", leaf.node_id()));
            let reply = service.messages(Request::new(pb::MessagesRequest {}));
            reply.await.map(|reply| reply.into_inner())
        }
    };
    let show = |message: pb::Message| match args.common.json {
        true => {
            let mut json = json!({ "from": message.from, "sent_ms": message.sent_ms });
            add_data(&mut json, &message.data);
            print_json(&json)
        }
        false => print(&line(&message.from, &message.data)),
    };
    let outcome = follow(incoming, args.count, closing, show).await;
    backend.close().await;
    outcome
}

pub(super) async fn subscribe(args: SubscribeArgs) -> Result<ExitCode, Failure> {
    let closing = interrupted()?;
    let topic = args.topic.clone();
    let ask = pb::SubscribeRequest { topic };
    let mut backend = Backend::find(&args.common).await?;
    let incoming: Result<Incoming<pb::Post>, Status> = match &mut backend {
        Backend::Daemon(client) => {
            let reply = client.subscribe(ask).await;
            reply.map(|reply| reply.into_inner().boxed())
        }
        Backend::Joined(service, _) => {
            let reply = service.subscribe(Request::new(ask)).await;
            reply.map(|reply| reply.into_inner())
        }
    };
    if incoming.is_ok() {
        note(&format!("subscribed to {:?}", args.topic));
    }
    let show = |post: pb::Post| match args.common.json {
        true => {
            let mut json = json!({
                "publisher": post.publisher,
                "sent_ms": post.sent_ms,
                "number": post.number,
                "missed": post.missed,
            });
            add_data(&mut json, &post.data);
            print_json(&json)
        }
        false => print(&line(&post.publisher, &post.data)),
    };
    let outcome = follow(incoming, args.count, closing, show).await;
    backend.close().await;
    outcome
}

/// Shows what comes until it ends, `count` have come, or the user has enough.
async fn follow<T>(
    incoming: Result<Incoming<T>, Status>,
    count: Option<u64>,
    closing: impl Future<Output = ()>,
    show: impl Fn(T) -> Result<ExitCode, Failure>,
) -> Result<ExitCode, Failure> {
    let mut incoming = incoming.map_err(|status| from_status(&status))?;
    let mut closing = pin!(closing);
    let mut seen = 0;
    while count.is_none_or(|count| seen < count) {
        let next = tokio::select! {
            next = incoming.next() => next,
            () = &mut closing => break,
        };
        match next {
            Some(Ok(next)) => show(next)?,
            Some(Err(status)) => return Err(from_status(&status)),
            None => {
                let why = "the stream ended: the leaf closed, or somebody else listens there now";
                return Err(Failure::unreachable(why));
            }
        };
        seen += 1;
    }
    Ok(ExitCode::SUCCESS)
}

/// The message itself, or what standard input says.
fn read(message: &str, limit: usize) -> Result<Vec<u8>, Failure> {
    let mut data = Vec::new();
    match message {
        "-" => {
            let input = std::io::stdin().lock();
            input.take(limit as u64 + 1).read_to_end(&mut data)?;
        }
        message => data.extend_from_slice(message.as_bytes()),
    }
    if data.len() > limit {
        let limit = limit / 1024;
        return Err(Failure::usage(format!(
            "that is over {limit} KiB; split it, or put it as a value and send its name"
        )));
    }
    Ok(data)
}

fn add_data(json: &mut Json, data: &[u8]) {
    match std::str::from_utf8(data) {
        Ok(text) => json["data"] = text.into(),
        // JSON has no bytes.
        Err(_) => json["data_hex"] = super::commands::to_hex(data).into(),
    }
}

/// On one line, and nothing in it that a terminal would obey.
fn line(from: &str, data: &[u8]) -> String {
    let text = String::from_utf8_lossy(data);
    let text: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    format!("{}  {text}\n", from.get(..10).unwrap_or(from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_cannot_speak_to_the_terminal() {
        assert_eq!(
            line("0123456789abcdef", b"a\x1b[2J\nb"),
            "0123456789  a [2J b\n"
        );
    }

    #[test]
    fn bytes_that_are_no_text_are_digits_in_json() {
        let mut json = json!({});
        add_data(&mut json, &[0xff]);
        assert_eq!(json, json!({ "data_hex": "ff" }));
    }

    #[test]
    fn what_is_too_long_is_refused_before_it_is_sent() {
        assert!(read("hello", 5).is_ok());
        assert!(read("hello!", 5).is_err());
    }
}
