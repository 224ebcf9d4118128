//! What a peer does once it is elected: it holds its share of the index, keeps
//! it in three copies, and answers reads, writes and searches. And `supernode`,
//! the program of an operator's host.
//!
//! | module | what it does |
//! |---|---|
//! | [`index`] | what one node holds: versions, quotas, search |
//! | [`service`] | owners, quorums, hedging, repair |
//! | [`heat`] | what is busy: shards, and the heaviest keys, terms, publishers |
//! | [`role`], [`load`] | taking the role up, laying it down, telling how busy it is |
//! | [`routing`] | messages and topics, from leaf to leaf |
//! | [`store`] | records on disk, group commit |
//! | [`relay`] | UDP between leaves, in metered flows |
//! | [`host`] | a whole peer, from settings to a clean end |
//! | [`settings`], [`data_dir`], [`secret`] | what can be set; key, port and lock on disk |
//! | [`metrics`] | the peer in numbers, for Prometheus |
//! | `http` | the port that tells them, and whether all is well (feature `cli`) |
//! | [`status`], [`event`] | how a peer fares, and what happens to it |
//! | [`designation`] | an operator's word that a host serves |
//! | `control` | the operators' gRPC control plane (feature `api`) |
//! | `rpc` | how a gRPC API is served, here and by `leaf` (feature `api`) |
//! | `cli` | the `supernode` program, and what it shares with `leaf` (feature `cli`) |

#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "api")]
pub mod control;
pub mod data_dir;
pub mod designation;
pub mod event;
pub mod heat;
pub mod host;
#[cfg(feature = "cli")]
pub mod http;
pub mod index;
pub mod load;
pub mod metrics;
pub mod relay;
pub mod role;
pub mod routing;
#[cfg(feature = "api")]
pub mod rpc;
pub mod secret;
pub mod service;
pub mod settings;
pub mod status;
pub mod store;
