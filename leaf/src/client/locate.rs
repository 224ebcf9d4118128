//! Where a peer is found: its location record, signed by that peer alone.

use std::net::SocketAddr;

use canopy_core::keyspace::{NodeId, keys};
use canopy_core::record::Record;
use canopy_overlay::calls::Calls;
use canopy_proto::wire::record::Payload;

use super::Client;
use super::error::Error;
use super::read::{Consistency, Proof};

/// Where a peer is found. The peer itself signed it; the signature has been
/// checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// Whose it is.
    pub node_id: NodeId,
    /// The super-nodes that others reach it through, first slot first. A
    /// super-node is its own home.
    pub homes: Vec<Located>,
    /// Later sequences replaced earlier ones.
    pub sequence: u64,
    /// When it was published, by that peer's clock, milliseconds since 1970.
    pub issued_ms: u64,
    /// When it ends unless it is published again, milliseconds since 1970.
    pub expires_ms: u64,
}

/// A home in a [`Location`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// Who it is.
    pub node_id: NodeId,
    /// Where it is reached; empty where this peer does not know it.
    pub addrs: Vec<SocketAddr>,
}

impl<C: Calls> Client<C> {
    /// Reads the location of `node`; `addrs` tells where super-nodes are.
    pub(crate) async fn locate(
        &self,
        node: NodeId,
        addrs: impl Fn(&NodeId) -> Vec<SocketAddr>,
    ) -> Result<Option<Location>, Error> {
        let fits = |record: &Record| {
            record.publisher == node && matches!(record.body.payload, Some(Payload::Location(_)))
        };
        let key = keys::location(&node);
        let found = self
            .latest(&key, Consistency::Quorum, Proof::Signature, fits)
            .await?;
        let Some((record, _)) = found else {
            return Ok(None);
        };
        let expires_ms = record.expires_ms();
        let Some(Payload::Location(location)) = record.body.payload else {
            return Ok(None);
        };
        let homes = location.homes.iter();
        let homes: Vec<Located> = homes
            .filter_map(|home| NodeId::from_slice(home))
            .map(|node_id| Located {
                addrs: addrs(&node_id),
                node_id,
            })
            .collect();
        // A location without homes leads nowhere.
        Ok((!homes.is_empty()).then_some(Location {
            node_id: node,
            homes,
            sequence: record.body.sequence,
            issued_ms: record.body.issued_ms,
            expires_ms,
        }))
    }
}
