//! Leaves and super-nodes in one process, on loopback.

#![allow(missing_docs, reason = "a test")]

mod common;
#[cfg(feature = "cli")]
mod demo;
mod links;
mod locate;
mod operator;
#[cfg(all(unix, feature = "cli"))]
mod prometheus;
mod routing;
mod share;
