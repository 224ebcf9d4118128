//! Load and events as streams: they agree with what peers count, can be resumed,
//! and end with the control plane.

use canopy_core::identity::Identity;
use canopy_proto::control as pb;
use pb::watch_events_reply::What;
use tonic::{Code, Streaming};

use crate::overlay::{Manned, host, three, until, within, write};

async fn watch(
    of: &Manned,
    log: u64,
    revision: u64,
) -> (pb::History, Streaming<pb::WatchEventsReply>) {
    let request = pb::WatchEventsRequest {
        log,
        revision,
        history_only: false,
    };
    let reply = of.client.clone().watch_events(request).await;
    let mut stream = reply.unwrap().into_inner();
    let first = within(stream.message()).await.unwrap().unwrap();
    match first.what {
        Some(What::History(history)) => (history, stream),
        other => panic!("{other:?}"),
    }
}

async fn event(of: &mut Streaming<pb::WatchEventsReply>) -> pb::Event {
    let next = within(of.message()).await.unwrap().unwrap();
    match next.what {
        Some(What::Event(event)) => event,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_numbered_and_a_reader_goes_on_after_any_of_them() {
    let operator = Identity::from_secret([3; 32]);
    let one = Manned::by(host(&operator, 1, Some(20_000_000), "", &[]).await).await;
    let (history, mut stream) = watch(&one, 0, 0).await;
    assert!(!history.gone);
    let other = host(&operator, 2, Some(20_000_000), "", &[&one.host]).await;
    let id = other.status().node_id.to_string();
    let up = loop {
        let event = event(&mut stream).await;
        if event.name == "super_node_up" && event.json.contains(&id) {
            break event;
        }
    };
    assert!(up.text.starts_with("super-node up"), "{}", up.text);
    other.abort();
    let down = loop {
        let event = event(&mut stream).await;
        if event.name == "super_node_down" {
            break event;
        }
    };
    // The same again, from the one on.
    let (history, mut resumed) = watch(&one, history.log, up.revision).await;
    assert!(!history.gone && history.latest >= down.revision);
    let mut last = up.revision;
    while last < down.revision {
        let event = event(&mut resumed).await;
        assert_eq!(event.revision, last + 1);
        last = event.revision;
    }
    // Of another log: everything from the oldest on, and it is said.
    let (history, mut foreign) = watch(&one, history.log + 1, 1_000_000).await;
    assert!(history.gone);
    assert_eq!(event(&mut foreign).await.revision, history.oldest);
    let ahead = pb::WatchEventsRequest {
        revision: 1_000_000,
        ..Default::default()
    };
    let refused = one.client.clone().watch_events(ahead).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange);
    assert!(refused.message().contains("the latest is"));
    let only = pb::WatchEventsRequest {
        history_only: true,
        ..Default::default()
    };
    let mut all = one
        .client
        .clone()
        .watch_events(only)
        .await
        .unwrap()
        .into_inner();
    let mut count = 0;
    while within(all.message()).await.unwrap().is_some() {
        count += 1;
    }
    assert!(count > 2);
    let closing = tokio::spawn(one.close());
    while let Some(reply) = within(stream.message()).await.unwrap() {
        assert!(reply.what.is_some());
    }
    drop((resumed, foreign));
    within(closing).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_is_watched_and_agrees_with_what_peers_count() {
    let all = three(&Identity::from_secret([2; 32])).await;
    let request = pb::WatchLoadRequest { interval_ms: 500 };
    let mut stream = all[2]
        .client
        .clone()
        .watch_load(request)
        .await
        .unwrap()
        .into_inner();
    let id = all[1].host.status().node_id.to_string();
    let of = |sample: &pb::LoadSample| {
        assert_eq!(sample.super_nodes.len(), 3);
        let mut all = sample.super_nodes.iter();
        all.find(|one| one.node_id == id).unwrap().clone()
    };
    let first = within(stream.message()).await.unwrap().unwrap();
    let before = of(&first).operations;
    write(&all[0].host, 500).await;
    let (mut last, mut seen) = (first.at_ms, 0.0);
    until("what was done is seen", async || {
        let sample = within(stream.message()).await.unwrap().unwrap();
        let one = of(&sample);
        seen += one.operations_per_s * (sample.at_ms - last) as f64 / 1e3;
        last = sample.at_ms;
        let done = one.operations - before;
        // Rates are over the time between figures, not between samples.
        let near = (0.5 * done as f64..2.0 * done as f64).contains(&seen);
        done >= 500 && near && one.operations == all[1].host.index_stats().unwrap().operations()
    })
    .await;
    for interval_ms in [1, 499, 3_600_001] {
        let request = pb::WatchLoadRequest { interval_ms };
        let refused = all[0].client.clone().watch_load(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
    drop(stream);
    for one in all {
        one.close().await;
    }
}
