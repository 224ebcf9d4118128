//! Content: files and folders that leaves share by their hash and fetch from one
//! another, piece by piece, each piece proved.
//!
//! | module | what it does |
//! |---|---|
//! | `picker` | whom a fetch asks for which piece next: no socket, no clock |
//! | `turns` | which ask of others is answered next, with which piece: the same |
//! | `layout`, `manifest`, `bits`, `journal` | pieces, folders, what is there, notes of it: bytes in, bytes out |
//! | `tree` | hashes and proofs, by `bao-tree` |
//! | `source`, `store`, `scan`, `kept` | what is on disk: to serve, to be fetched, to be shared, over restarts |
//! | `hub`, `serve`, `pace` | links, and what others ask of this leaf, within its upload limit |
//! | `fetch`, `work`, `progress` | one fetch, and each of those whom it asks |
//! | `share` | what is shared |
//! | `frame` | messages on a stream |
//!
//! Nothing that another leaf says is believed: the size and every piece come with
//! a proof, which is checked before anything is written, and whoever sends a wrong
//! one is asked no more.

mod bits;
mod error;
mod fetch;
mod frame;
mod hub;
mod journal;
mod kept;
mod layout;
mod manifest;
mod pace;
mod picker;
mod progress;
mod scan;
mod serve;
mod share;
mod source;
mod store;
mod tree;
mod turns;
mod work;

pub use error::{FetchError, ShareError};
pub(crate) use fetch::start;
pub use fetch::{Fetch, Fetched};
pub use hub::ContentStats;
pub(crate) use hub::Hub;
pub use layout::{MAX_PIECES, PIECE};
pub use manifest::{MAX_FILES, MAX_MANIFEST};
pub use progress::Progress;
pub use share::{Hashed, Shared};
pub(crate) use share::{any_kept, open, share, shares, unshare};
