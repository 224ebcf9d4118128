//! Several index services in one process.

#![allow(missing_docs, reason = "a test")]

mod common;
mod quorum;
mod repair;
