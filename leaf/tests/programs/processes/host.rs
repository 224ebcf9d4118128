//! A host that serves by an operator's word: a super-node within a moment, and
//! without an election.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use canopy_leaf::Identity;
use canopy_leaf::settings::{Preset, Settings};
use canopy_supernode::designation::{Designation, Terms};
use canopy_supernode::host::{Host, Setup};
use canopy_supernode::index::Limits;

const CAPACITY: u64 = 20_000_000;

/// A running host.
pub(crate) struct Designated {
    pub(crate) addr: SocketAddr,
    /// The operator's public key, for `--operator`.
    pub(crate) operator: String,
    _host: Host,
}

impl Designated {
    /// Starts a host whose index holds at most `limits`.
    pub(crate) async fn start(limits: Limits) -> Self {
        let operator = Identity::from_secret([1; 32]);
        let identity = Identity::from_secret([2; 32]);
        let terms = Terms {
            network: "canopy".into(),
            node: identity.node_id(),
            capacity_bps: CAPACITY,
            days: 1,
            zone: String::new(),
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_ms = now.expect("after 1970").as_millis() as u64;
        let designation = Designation::sign(&operator, &terms, None, now_ms).expect("valid");
        let settings = Settings {
            operator: Some(operator.node_id()),
            preset: Some(Preset::Local),
            ..Settings::default()
        };
        let setup = Setup {
            settings,
            identity: Some(identity),
            designation: Some(designation.signed().clone()),
            limits,
            ..Setup::default()
        };
        let plan = setup.plan().await.expect("valid");
        let host = Host::start(plan).await.expect("loopback has free ports");
        Self {
            addr: host.peer().local_addr().expect("bound"),
            operator: operator.node_id().to_string(),
            _host: host,
        }
    }
}
