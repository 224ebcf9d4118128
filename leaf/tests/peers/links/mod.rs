//! Links between leaves: over a relay, directly, through NATs, and past the
//! loss of the relay.

mod carrier;
mod paths;
