//! Where people and programs look into the demo while it runs: the dashboard and
//! the metrics of a super-node.

use std::net::Ipv4Addr;

use canopy_core::keyspace::NodeId;
use canopy_supernode::http::{Http, Serving};

use super::fleet::{Fleet, Mate};
use super::show::{BOLD, Show};

/// The HTTP port that is open, and whose it is.
#[derive(Debug, Default)]
pub(super) struct Doors(Option<(NodeId, Serving)>);

impl Doors {
    /// Opens the port of `mate`, in place of the one before, and says where.
    pub(super) async fn open(&mut self, mate: &Mate, fleet: &Fleet, show: &Show) {
        let http = match Http::bind((Ipv4Addr::LOCALHOST, 0).into()).await {
            Ok(http) => http,
            Err(error) => return tracing::warn!(%error, "demo.http"),
        };
        let serving = http.show(mate.leaf.node().clone()).serve(mate.leaf.clone());
        let (name, addr) = (fleet.name(&mate.id()), serving.addr());
        show.line(format!(
            "  {BOLD}dashboard{BOLD:#} of the overlay, by {name}: http://{addr}/"
        ));
        show.line(format!("  metrics of {name}: http://{addr}/metrics"));
        show.line(format!(
            "  on a terminal: supernode top --control {}",
            mate.control
        ));
        self.0 = Some((mate.id(), serving));
    }

    /// Whether they still lead to a peer that lives.
    pub(super) fn lead_somewhere(&self, fleet: &Fleet) -> bool {
        let open = self.0.as_ref();
        let mate = open.and_then(|(node, _)| fleet.by_id(node));
        mate.is_some_and(Mate::alive)
    }
}
