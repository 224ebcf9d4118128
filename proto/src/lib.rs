//! Canopy's wire messages, generated from the `.proto` files beside this crate,
//! and the size limit of each kind.
//!
//! Nothing here decides anything: types and numbers only.

/// Peer to peer, version 1.
pub mod wire {
    #[allow(missing_docs, clippy::all)]
    mod generated {
        include!(concat!(env!("OUT_DIR"), "/canopy.wire.v1.rs"));
    }
    pub use generated::*;
}

/// The local gRPC API of a leaf, `canopy.leaf.v1`.
#[cfg(feature = "leaf")]
pub mod leaf {
    #[allow(missing_docs, clippy::all)]
    mod generated {
        tonic::include_proto!("canopy.leaf.v1");
    }
    pub use generated::*;

    /// Encoded file descriptor set, for gRPC reflection.
    pub const DESCRIPTOR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/leaf_descriptor.bin"));
}

/// The gRPC API of a super-node's operator, `canopy.control.v1`.
#[cfg(feature = "control")]
pub mod control {
    #[allow(missing_docs, clippy::all)]
    mod generated {
        tonic::include_proto!("canopy.control.v1");
    }
    pub use generated::*;

    /// Encoded file descriptor set, for gRPC reflection.
    pub const DESCRIPTOR: &[u8] =
        include_bytes!(concat!(env!("OUT_DIR"), "/control_descriptor.bin"));
}

pub mod limits;

pub use prost::Message;
