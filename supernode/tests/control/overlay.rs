//! Hosts that an operator designates, each with a control plane.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use canopy_core::identity::Identity;
use canopy_core::record::Record;
use canopy_overlay::calls::Calls;
use canopy_proto::control::control_client::ControlClient;
use canopy_proto::wire::record::Payload;
use canopy_proto::wire::{self, request, response};
use canopy_supernode::control::{Control, ControlConfig};
use canopy_supernode::designation::{Designation, Terms};
use canopy_supernode::host::{Host, Setup};
use canopy_supernode::settings::{Bandwidth, PeerAddr, Preset, Settings};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

/// Longest wait for anything.
pub(crate) const BOUND: Duration = Duration::from_secs(60);
/// Pause between two looks at what no event tells.
const LOOK: Duration = Duration::from_millis(50);
/// What each host is designated for, bits a second, and in thousands of seats.
pub(crate) const CAPACITIES: [u64; 3] = [20_000_000, 40_000_000, 60_000_000];

pub(crate) async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUND, what).await.expect("in time")
}

/// Looks until it holds.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let looks = async {
        while !holds().await {
            tokio::time::sleep(LOOK).await;
        }
    };
    let looked = tokio::time::timeout(BOUND, looks).await;
    assert!(looked.is_ok(), "never came true: {what}");
}

pub(crate) fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("after 1970").as_millis() as u64
}

/// A host and its control plane.
pub(crate) struct Manned {
    pub(crate) host: Host,
    pub(crate) channel: Channel,
    pub(crate) client: ControlClient<Channel>,
    close: oneshot::Sender<()>,
    served: JoinHandle<()>,
}

impl Manned {
    pub(crate) async fn by(host: Host) -> Self {
        let control = Control::bind(ControlConfig::default()).await.unwrap();
        let url = format!("http://{}", control.addr());
        let (close, closing) = oneshot::channel::<()>();
        let serving = control.serve(host.clone(), async move {
            let _ = closing.await;
        });
        let served = tokio::spawn(async move { serving.await.unwrap() });
        let channel = Channel::from_shared(url).unwrap().connect().await.unwrap();
        Self {
            host,
            client: ControlClient::new(channel.clone()),
            channel,
            close,
            served,
        }
    }

    /// Closes the control plane, and then the peer.
    pub(crate) async fn close(self) {
        let _ = self.close.send(());
        within(self.served).await.unwrap();
        within(self.host.close()).await;
    }
}

/// A host of the network of `operator`.
pub(crate) async fn host(
    operator: &Identity,
    secret: u8,
    capacity_bps: Option<u64>,
    zone: &str,
    others: &[&Host],
) -> Host {
    let identity = Identity::from_secret([secret; 32]);
    let designation = capacity_bps.map(|capacity_bps| {
        let terms = Terms {
            network: "canopy".into(),
            node: identity.node_id(),
            capacity_bps,
            days: 1,
            zone: zone.to_owned(),
        };
        Designation::sign(operator, &terms, None, unix_ms()).expect("valid")
    });
    let addr = |host: &&Host| -> PeerAddr {
        let addr = host.peer().local_addr().expect("bound");
        addr.to_string().parse().expect("an address")
    };
    let setup = Setup {
        settings: Settings {
            operator: Some(operator.node_id()),
            peers: others.iter().map(addr).collect(),
            preset: Some(Preset::Local),
            uplink: capacity_bps.map(Bandwidth),
            zone: Some(zone.to_owned()),
            ..Settings::default()
        },
        identity: Some(identity),
        designation: designation.map(|made| made.signed().clone()),
        ..Setup::default()
    };
    let plan = setup.plan().await.expect("valid");
    Host::start(plan).await.expect("loopback has free ports")
}

/// Three hosts of different capacity that know of each other.
pub(crate) async fn three(operator: &Identity) -> Vec<Manned> {
    let mut hosts: Vec<Host> = Vec::new();
    for (n, capacity) in (1_u8..).zip(CAPACITIES) {
        let others: Vec<&Host> = hosts.iter().collect();
        let zone = format!("rack-{n}");
        hosts.push(host(operator, n, Some(capacity), &zone, &others).await);
    }
    for host in &hosts {
        until("all know all", async || {
            host.placement().len() == hosts.len()
        })
        .await;
    }
    let mut manned = Vec::new();
    for host in hosts {
        manned.push(Manned::by(host).await);
    }
    manned
}

/// Who publishes what tests write.
pub(crate) fn publisher() -> Identity {
    Identity::from_secret([77; 32])
}

/// Writes `count` values through a host.
pub(crate) async fn write(host: &Host, count: usize) {
    let publisher = publisher();
    let records = (0..count).map(|n| {
        let payload = Payload::Value(wire::Value {
            name: format!("value {n}"),
            data: Bytes::from_static(b"data"),
        });
        let made = Record::sign(&publisher, "canopy", 1, unix_ms(), 3600, payload);
        made.expect("valid").signed
    });
    let put = wire::Put {
        records: records.collect(),
        local: false,
    };
    let ask = request::Kind::Put(put);
    let reply = within(host.call(host.node_id(), ask, BOUND)).await;
    let response::Kind::Put(reply) = reply.expect("answered") else {
        panic!("no reply to a put");
    };
    assert!(
        reply
            .outcomes
            .iter()
            .all(|outcome| outcome.refusal.is_none())
    );
}
