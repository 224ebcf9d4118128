//! Links between leaves: over a relay, directly, through NATs, and past the
//! loss of the relay.

#![allow(missing_docs, reason = "a test")]

mod carrier;
#[path = "../common/mod.rs"]
mod common;
mod paths;
