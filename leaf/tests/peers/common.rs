//! Hosts that an operator designates, and leaves that use them, on loopback.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use canopy_leaf::settings::{Bandwidth, Preset, Settings, Stand};
use canopy_leaf::{Builder, Identity, Leaf, PeerAddr};
use canopy_proto::wire::{self, inspect, inspect_reply};
use canopy_supernode::designation::{Designation, Terms};
use canopy_supernode::host::{Host, Setup};

pub(crate) const BOUND: Duration = Duration::from_secs(90);
pub(crate) const UPLINK: u64 = 20_000_000;

/// Pause between two looks at what no event tells.
const LOOK: Duration = Duration::from_millis(50);

pub(crate) fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("after 1970").as_millis() as u64
}

pub(crate) async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUND, what).await.expect("in time")
}

/// Looks until there is something.
pub(crate) async fn until<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    within(async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(LOOK).await;
        }
    })
    .await
}

/// What gave a host most to do, of a kind: each with its count of late.
pub(crate) async fn hot(host: &Host, kind: &str) -> Vec<(Vec<u8>, f64)> {
    let ask = wire::HotAsk {
        kind: kind.to_owned(),
        limit: 10,
    };
    let told = within(host.inspect(inspect::What::Hot(ask))).await;
    let Some(inspect_reply::What::Hot(hot)) = told else {
        panic!("{told:?}")
    };
    let entries = hot.entries.iter();
    entries.map(|e| (e.id.to_vec(), e.count)).collect()
}

fn addr(host: &Host) -> PeerAddr {
    let addr = host.peer().local_addr().expect("bound").to_string();
    addr.parse().expect("an address")
}

/// A host designated by the operator, with a port of its own, that joins by
/// `others`.
pub(crate) async fn host(
    operator: &Identity,
    secret: u8,
    others: &[&Host],
    process_cpu: bool,
) -> Host {
    let setup = Setup {
        process_cpu,
        ..setup(operator, secret, others, "")
    };
    started(setup).await
}

/// The same in a zone.
pub(crate) async fn host_in(operator: &Identity, secret: u8, others: &[&Host], zone: &str) -> Host {
    started(setup(operator, secret, others, zone)).await
}

async fn started(setup: Setup) -> Host {
    let plan = setup.plan().await.expect("valid");
    Host::start(plan).await.expect("loopback has free ports")
}

fn setup(operator: &Identity, secret: u8, others: &[&Host], zone: &str) -> Setup {
    let identity = Identity::from_secret([secret; 32]);
    let terms = Terms {
        network: "canopy".into(),
        node: identity.node_id(),
        capacity_bps: UPLINK,
        days: 1,
        zone: zone.to_owned(),
    };
    let designation = Designation::sign(operator, &terms, None, unix_ms()).expect("valid");
    Setup {
        settings: Settings {
            zone: (!zone.is_empty()).then(|| zone.to_owned()),
            operator: Some(operator.node_id()),
            peers: others.iter().map(|host| addr(host)).collect(),
            preset: Some(Preset::Local),
            uplink: Some(Bandwidth(UPLINK)),
            ..Settings::default()
        },
        identity: Some(identity),
        designation: Some(designation.signed().clone()),
        ..Setup::default()
    }
}

pub(crate) async fn leaf(host: &Host, operator: &Identity) -> Leaf {
    leaf_as(host, operator, Identity::from_secret(rand::random())).await
}

pub(crate) async fn leaf_as(host: &Host, operator: &Identity, identity: Identity) -> Leaf {
    let builder = builder(host, operator).identity(identity);
    builder.start().await.expect("it starts")
}

pub(crate) fn builder(host: &Host, operator: &Identity) -> Builder {
    let builder = Leaf::builder().peer(addr(host)).stand(Stand::Never);
    builder.operator(operator.node_id())
}
