//! `leaf run`: a leaf, its API, and its events on standard output.

use std::future::Future;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;

use canopy_supernode::cli::output::{note, print_event, print_line};
use canopy_supernode::cli::program::interrupted;
use canopy_supernode::http::{Http, Serving};
use serde_json::json;
use tokio::sync::oneshot;

use super::args::RunArgs;
use super::failure::Failure;
use crate::api::Api;
use crate::data_dir::DataDir;
use crate::event::Events;
use crate::leaf::Leaf;
use crate::node::Node;

pub(super) async fn run(args: RunArgs) -> Result<ExitCode, Failure> {
    let mut settings = args.upload.over(args.common.settings()?);
    let control = [
        &settings.control_tls,
        &settings.control_access,
        &settings.control_client_ca,
    ];
    if settings.control.is_some() || control.iter().any(|file| file.is_some()) {
        return Err(Failure::usage(
            "`control` is for `supernode run`: a user's leaf has no control plane; remove it from the configuration",
        ));
    }
    let data_dir = match settings.data_dir.take() {
        Some(path) => DataDir::open(&path)?,
        None => DataDir::open_free(&DataDir::default_path()?)?,
    };
    // Before the peer is there, so that a signal at the start is not lost.
    let closing = interrupted()?;
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let api = Api::bind(settings.api.unwrap_or(any)).await?;
    let http = Http::bind(args.http.over(&settings)).await?;
    let builder = Leaf::builder()
        .settings(settings)
        .open_data_dir(Arc::new(data_dir))
        .process_cpu(true);
    tokio::pin!(closing);
    let (leaf, events) = tokio::select! {
        leaf = builder.start_watched() => leaf?,
        () = &mut closing => return Ok(ExitCode::SUCCESS),
    };
    // Others may measure the way here and fetch, whether this leaf does so or not.
    leaf.hub()
        .map_err(|error| Failure::local(error.to_string()))?;
    let http = http.serve(leaf.clone());
    let out = anstream::stdout();
    serve(leaf, events, (api, http), out, args.common.json, closing).await?;
    Ok(ExitCode::SUCCESS)
}

/// Runs until `closing` resolves, then closes in order: API, peer, traces.
async fn serve<N: Node>(
    leaf: Leaf<N>,
    mut events: Events,
    (api, http): (Api, Serving),
    mut out: impl Write,
    as_json: bool,
    closing: impl Future<Output = ()>,
) -> Result<(), Failure> {
    let addr = api.addr();
    if let Some(data_dir) = leaf.data_dir() {
        data_dir.announce_api(addr)?;
    }
    let (close_api, api_closing) = oneshot::channel::<()>();
    let mut api = tokio::spawn(api.serve(leaf.clone(), async move {
        // An error says that this side is gone, which is the same.
        let _ = api_closing.await;
    }));
    print_ready(&leaf, addr, http.addr(), &mut out, as_json);
    tokio::pin!(closing);
    let mut outcome = Ok(());
    let mut api_ended = false;
    loop {
        tokio::select! {
            () = &mut closing => break,
            ended = &mut api => {
                api_ended = true;
                outcome = match ended {
                    Ok(Err(error)) => Err(error.into()),
                    _ => Err(Failure::local("the API ended by itself")),
                };
                break;
            }
            event = events.next() => match event {
                Some(event) => print_event(&mut out, &event, as_json),
                // The peer closed by itself.
                None => break,
            },
        }
    }
    if !as_json {
        note("closing");
    }
    let _ = close_api.send(());
    if !api_ended {
        // It bounds its own end; how it ended no longer matters.
        let _ = api.await;
    }
    leaf.close().await;
    if let Some(data_dir) = leaf.data_dir() {
        data_dir.withdraw_api();
    }
    outcome
}

fn print_ready<N: Node>(
    leaf: &Leaf<N>,
    api: SocketAddr,
    http: SocketAddr,
    out: &mut impl Write,
    as_json: bool,
) {
    let status = leaf.status();
    if as_json {
        let ready = json!({
            "event": "ready",
            "node_id": status.node_id.to_string(),
            "listen": status.listen.to_string(),
            "api": api.to_string(),
            "http": http.to_string(),
        });
        return print_line(out, &ready.to_string());
    }
    print_line(out, &format!("node    {}", status.node_id));
    print_line(out, &format!("listen  {}", status.listen));
    print_line(out, &format!("api     {api}"));
    print_line(out, &format!("metrics http://{http}/metrics"));
    if let Some(data_dir) = leaf.data_dir() {
        print_line(out, &format!("data    {}", data_dir.path().display()));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use canopy_core::identity::Identity;
    use canopy_proto::leaf as pb;
    use canopy_proto::leaf::leaf_client::LeafClient;
    use canopy_supernode::http::Source;
    use parking_lot::Mutex;

    use super::*;
    use crate::client::testing::Net;
    use crate::event::{Event, EventKind};

    const BOUND: Duration = Duration::from_secs(20);

    /// Output that a test waits for, line by line.
    #[derive(Clone)]
    struct Lines(
        tokio::sync::mpsc::UnboundedSender<String>,
        Arc<Mutex<Vec<u8>>>,
    );

    impl Write for Lines {
        fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
            self.1.lock().extend_from_slice(data);
            Ok(data.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            let text = std::mem::take(&mut *self.1.lock());
            let _ = self.0.send(String::from_utf8(text).unwrap());
            Ok(())
        }
    }

    /// No metrics, and never ready.
    struct Nothing;

    impl Source for Nothing {
        fn metrics(&self) -> String {
            String::new()
        }

        fn ready(&self) -> Result<(), String> {
            Err("nothing is here".into())
        }
    }

    #[tokio::test]
    async fn the_first_line_is_ready_and_events_follow_until_it_closes() {
        let identity = Identity::from_secret([9; 32]);
        let net = Net::new(&identity, 3);
        let leaf = net.leaf(identity, Duration::from_secs(1));
        let api = Api::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let http = Http::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let http = http.serve(Nothing);
        let (sender, mut lines) = tokio::sync::mpsc::unbounded_channel();
        let (close, closing) = oneshot::channel::<()>();
        let out = Lines(sender, Arc::default());
        let events = leaf.events();
        let task = tokio::spawn(async move {
            let closing = async move {
                let _ = closing.await;
            };
            serve(leaf, events, (api, http), out, true, closing).await
        });
        let mut next = async || {
            let line = tokio::time::timeout(BOUND, lines.recv())
                .await
                .unwrap()
                .unwrap();
            serde_json::from_str::<serde_json::Value>(&line).unwrap()
        };
        let ready = next().await;
        assert_eq!(
            (&ready["event"], &ready["listen"]),
            (&json!("ready"), &json!("127.0.0.1:4477"))
        );
        let message = "look".to_owned();
        net.emit(Event {
            at_ms: 5,
            kind: EventKind::Warning { message },
        });
        assert_eq!(
            next().await,
            json!({"event": "warning", "message": "look", "at_ms": 5})
        );

        let url = format!("http://{}", ready["api"].as_str().unwrap());
        let mut client = LeafClient::connect(url).await.unwrap();
        assert!(client.status(pb::StatusRequest {}).await.is_ok());
        close.send(()).unwrap();
        tokio::time::timeout(BOUND, task)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }
}
