//! Canopy's simulator: the production core, and the production index, of any
//! number of peers in one process, in virtual time over a modelled network.
//! Everything follows from one seed.
//!
//! Nothing of the protocol is modelled here: what decides is the code that
//! ships. Only the world around it is: lines, distances, loss, NATs, clocks,
//! and the people who start and stop peers.
//!
//! | module | what is there |
//! |---|---|
//! | [`world`] | cores, sessions, messages, measurements, faults |
//! | [`net`] | the network's numbers, each with its source |
//! | [`queue`], [`draw`], [`digest`] | order, chance, and proof that a run is the same run |

pub mod digest;
pub mod draw;
pub mod net;
pub mod queue;
pub mod world;
