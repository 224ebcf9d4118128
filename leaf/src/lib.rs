//! Canopy's SDK: a leaf of the overlay inside an app.
//!
//! A [`Leaf`] is a peer. It finds the super-nodes that peers like it elected,
//! reads and writes signed values, publishes searchable items and finds those
//! of others; and it may be elected itself.
//!
//! ```no_run
//! use canopy_leaf::Leaf;
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let leaf = Leaf::builder().peer("127.0.0.1:4477".parse()?).start().await?;
//!     leaf.put("greeting", "hello").await?;
//!     let value = leaf.get("greeting").await?;
//!     println!("{:?}", value.map(|value| value.data));
//!     leaf.close().await;
//!     Ok(())
//! }
//! ```
//!
//! | module | what is there |
//! |---|---|
//! | [`client`] | requests: signed, hedged, checked |
//! | [`content`] | files and folders, shared and fetched by their hash |
//! | [`routing`] | what super-nodes bring to this leaf: messages, posts |
//! | [`settings`] | what can be set, and the configuration file |
//! | [`data_dir`] | key, port and lock on disk |
//! | [`status`], [`event`] | how a leaf fares, and what happens to it |
//! | [`api`] | the same, for other languages: gRPC on loopback |
//! | [`node`] | the boundary to the peer below |
//! | `cli`, `demo` | the `leaf` program (feature `cli`) |

pub mod api;
mod builder;
#[cfg(feature = "cli")]
pub mod cli;
pub mod client;
pub mod content;
#[cfg(feature = "cli")]
pub mod demo;
mod leaf;
mod links;
#[cfg(feature = "cli")]
mod metrics;
pub mod node;
pub mod peer_node;
mod ping;
pub mod routing;

pub use builder::{Builder, StartError};
pub use canopy_core::identity::Identity;
pub use canopy_core::keyspace::NodeId;
pub use canopy_overlay::fabric::link::{Acceptor, Link, LinkError, Path, RecvStream, SendStream};
pub use canopy_supernode::{data_dir, event, settings, status};
pub use client::{
    ClientStats, Consistency, Error, Hash, Hit, Item, Located, Location, Page, Provider, Query,
    QueryError, SendError, Sent, Stored, Value,
};
pub use content::{ContentStats, Fetch, FetchError, Fetched, Progress, ShareError, Shared};
pub use data_dir::DataDir;
pub use event::{Event, EventKind, Events};
pub use leaf::Leaf;
pub use ping::{Pinged, Pinger};
pub use routing::{
    Ended, Message, Messages, Post, PostError, Posted, SubscribeError, Subscription,
};
pub use settings::{Bandwidth, PeerAddr, Preset, Settings, Stand, Topology};
pub use status::{Role, Status};
