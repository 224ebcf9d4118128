//! Real endpoints on loopback.

#![allow(missing_docs, reason = "a test")]

mod carrier;
mod limits;
mod links;
mod measure;
mod sessions;
mod support;
