//! Finding super-nodes without knowing them all: a bounded routing table, and
//! the iterative lookup over many of them (Kademlia, Maymounkov and Mazières
//! 2002).
//!
//! A super-node sits at many seats, so its distance to a key is that of its
//! closest seat. Seats are always derived here from node id and seat count; no
//! position that somebody claims is ever taken over. Whether a node may have
//! that many seats is for the mandate to say: callers verify it first.
//!
//! | file | what it does |
//! |---|---|
//! | `table` | what is known: bounded, by distance around one's own positions |
//! | `standing` | what an entry is worth, and which one makes room |
//! | `lookup` | whom to ask next, until the closest have answered |

mod lookup;
mod standing;
mod table;
#[cfg(test)]
mod tests;

use crate::keyspace::{Key, NodeId, keys};
use crate::placement::MAX_SEATS;

pub use self::lookup::{ALPHA, Lookup, MAX_ANSWER, MAX_ASKED, Step};
pub use self::standing::Standing;
pub use self::table::{Entry, Learned, RoutingTable, TableConfig};

/// A super-node in the keyspace: all of its positions in 36 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Who it is.
    pub node: NodeId,
    /// Seats by its verified mandate; those past [`MAX_SEATS`] do not count.
    pub seats: u32,
}

impl Peer {
    /// Its positions. Each costs a hash, about 0.1 us.
    pub fn positions(&self) -> impl Iterator<Item = Key> {
        let node = self.node;
        (0..self.seats.min(MAX_SEATS)).map(move |index| keys::seat(&node, index))
    }

    /// The seat closest to `target`; `None` for a peer without seats.
    pub fn closest_seat(&self, target: &Key) -> Option<Key> {
        self.positions().min_by_key(|seat| seat.distance(target))
    }
}
