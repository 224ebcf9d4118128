//! The control plane of real hosts on loopback: what it says is what they count.

#![cfg(feature = "api")]
#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

mod access;
mod act;
mod certificates;
mod enact;
mod explain;
mod leaves;
mod overlay;
mod overview;
mod rebalance;
mod views;
mod watch;
