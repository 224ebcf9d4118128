//! A flat Kademlia to compare with: every peer is a node of one hash table, and
//! nobody serves for others more than anybody else does.
//!
//! It is a baseline, not part of Canopy: it follows Maymounkov and Mazières
//! (IPTPS 2002), and where the paper leaves something open, what deployed tables
//! do. Each choice that is not the paper's is made in its favour:
//!
//! - Requests are single UDP packets, without handshake, encryption or token. A
//!   value too long for one takes its room on the lines, and is lost no more often
//!   than one packet is.
//! - Who cannot be dialled asks and is never asked: BEP 43, and libp2p's client
//!   mode. All others are servers, however thin their lines.
//! - A request unanswered for a second makes room for another one, and a late
//!   answer still counts: libtorrent's short timeout.
//! - A full bucket keeps newcomers in reserve, and asks nobody whether they are
//!   alive (section 4.1 of the paper).
//! - A value is republished every hour by whoever first finds that nobody else
//!   did, straight to the closest it knows, without a lookup (section 2.5).
//! - Reads take the higher of two holders' numbers, as Canopy's do, where BEP 44
//!   walks to the end; a write is acknowledged by a majority of the k it goes to,
//!   as rust-libp2p's `Quorum::Majority`.
//! - Tables survive a restart, and addresses never change. Values do not survive
//!   it, as in libtorrent: otherwise reads found what a node had missed while it
//!   was away, forty times as often with sessions of half an hour. When all
//!   restart at once, all is lost.
//!
//! Not modelled: copies along the path of a read (values change), and the
//! publisher's refresh after a day (runs are shorter).
//!
//! | file | what it does |
//! |---|---|
//! | `message` | what nodes say to each other, and how large that is |
//! | `table` | k-buckets |
//! | `lookup` | whom to ask next |
//! | `node` | one node: its answers, its operations, its upkeep |

mod lookup;
mod message;
mod node;
mod table;

pub(crate) use message::{Contact, Message};
pub(crate) use node::{Ended, Node, Output, Wish};

/// Entries of a bucket, and copies of a value: the paper's k.
pub(crate) const K: usize = 20;
/// Questions of a lookup under way at once: the paper's alpha.
pub(crate) const ALPHA: usize = 3;
