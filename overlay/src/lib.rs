//! What every Canopy peer shares: the protocol core, the QUIC fabric that
//! carries it, and the driver that joins the two.

pub mod budget;
pub mod calls;
pub mod fabric;
pub mod peer;

pub use canopy_core as core;
