//! `leaf pipe` and `leaf ping`: links of the daemon, on the command line.

use std::io::{IsTerminal, Read, Write};
use std::process::ExitCode;
use std::time::Duration;

use canopy_proto::leaf as pb;
use canopy_proto::leaf::{link_input, link_output, link_path};
use canopy_supernode::cli::output::{note, print, print_json};
use futures_util::StreamExt;
use futures_util::stream::{self, Stream};
use serde_json::{Value as Json, json};
use tokio::sync::mpsc;

use super::args::{PingArgs, PipeArgs};
use super::backend::Backend;
use super::failure::{Failure, from_status};

/// Bytes of standard input in one message.
const PIECE: usize = 64 * 1024;
/// Messages of standard input that wait for the link.
const READ_AHEAD: usize = 4;

pub(super) async fn pipe(args: PipeArgs) -> Result<ExitCode, Failure> {
    let mut client = Backend::daemon(&args.common).await?;
    let protocol = args.protocol;
    let first = match args.node {
        Some(node) => link_input::What::Open(pb::LinkOpen {
            node_id: node.to_string(),
            protocol,
        }),
        None => link_input::What::Accept(pb::LinkAccept { protocol }),
    };
    let quiet = args.common.json || !std::io::stderr().is_terminal();
    let input = stream::once(async { first }).chain(standard_input());
    let input = input.map(|what| pb::LinkInput { what: Some(what) });
    let call = client.link(input).await;
    let mut output = call.map_err(|status| from_status(&status))?.into_inner();
    let mut out = std::io::stdout();
    let failed = |error: std::io::Error| Failure::local(format!("standard output: {error}"));
    while let Some(message) = output.message().await.map_err(|s| from_status(&s))? {
        match message.what {
            Some(link_output::What::Data(data)) => {
                out.write_all(&data).map_err(failed)?;
                out.flush().map_err(failed)?;
            }
            Some(link_output::What::Up(up)) if !quiet => {
                note(&format!(
                    "linked to {}, {}",
                    up.node_id,
                    words(up.path.as_ref())
                ));
            }
            Some(link_output::What::Path(path)) if !quiet => note(&words(Some(&path))),
            _ => {}
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Standard input to its end; a failure ends it, and is told. A thread reads,
/// because a read cannot be given up.
fn standard_input() -> impl Stream<Item = link_input::What> + Send {
    let (read, input) = mpsc::channel(READ_AHEAD);
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        loop {
            let mut data = vec![0; PIECE];
            match stdin.read(&mut data) {
                Ok(0) => return,
                Ok(count) => {
                    data.truncate(count);
                    if read.blocking_send(link_input::What::Data(data)).is_err() {
                        return;
                    }
                }
                Err(error) => {
                    return note(&format!("standard input ends here: {error}"));
                }
            }
        }
    });
    stream::unfold(input, |mut input| async move {
        let next = input.recv().await?;
        Some((next, input))
    })
}

pub(super) async fn ping(args: PingArgs) -> Result<ExitCode, Failure> {
    let mut client = Backend::daemon(&args.common).await?;
    let interval = u32::try_from(args.interval.as_millis());
    let ask = pb::PingRequest {
        node_id: args.node.to_string(),
        count: args.count,
        interval_ms: interval
            .map_err(|_| Failure::usage("the interval is too long"))?
            .max(1),
    };
    let call = client.ping(ask).await;
    let mut replies = call.map_err(|status| from_status(&status))?.into_inner();
    while let Some(reply) = replies.message().await.map_err(|s| from_status(&s))? {
        let round_trip = Duration::from_micros(reply.round_trip_us);
        match args.common.json {
            true => print_json(&json!({
                "round_trip_us": reply.round_trip_us,
                "path": kind(reply.path.as_ref()),
                "by": by(reply.path.as_ref()),
                "at_us": reply.at_us,
            }))?,
            false => print(&format!("{round_trip:?} {}\n", words(reply.path.as_ref())))?,
        };
    }
    Ok(ExitCode::SUCCESS)
}

fn kind(path: Option<&pb::LinkPath>) -> Json {
    match path.and_then(|path| path.what.as_ref()) {
        Some(link_path::What::Relay(_)) => json!("relay"),
        Some(link_path::What::Direct(_)) => json!("direct"),
        None => Json::Null,
    }
}

fn by(path: Option<&pb::LinkPath>) -> Json {
    match path.and_then(|path| path.what.as_ref()) {
        Some(link_path::What::Relay(by) | link_path::What::Direct(by)) => json!(by),
        None => Json::Null,
    }
}

fn words(path: Option<&pb::LinkPath>) -> String {
    match path.and_then(|path| path.what.as_ref()) {
        Some(link_path::What::Relay(relay)) => format!("over the relay of {relay}"),
        Some(link_path::What::Direct(addr)) => format!("directly at {addr}"),
        None => "by an unknown path".to_owned(),
    }
}
