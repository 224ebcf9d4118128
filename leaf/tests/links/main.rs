//! Links between leaves: over a relay, directly, through NATs, and past the
//! loss of the relay.

#![allow(missing_docs, reason = "a test")]

#[path = "../common/mod.rs"]
mod common;
mod paths;
