//! The largest encoded size of every kind of message, in bytes.
//!
//! A frame over its kind's limit is refused before it is read into memory.

use crate::wire::{core_message, request};

/// Lowest wire version this build speaks.
pub const VERSION_MIN: u32 = 1;
/// Highest wire version this build speaks.
pub const VERSION_MAX: u32 = 1;

/// Data of a value.
pub const VALUE: usize = 64 * 1024;
/// A signed record: the value, its names and its signature.
pub const RECORD: usize = VALUE + 2 * 1024;
/// The hello of either side.
pub const HELLO: usize = 4 * 1024;
/// Any frame at all.
pub const FRAME: usize = 1024 * 1024;
/// A mandate with the ballots of 63 jurors, and the signatures of 256 founders.
pub const MANDATE: usize = 64 * 1024;
/// A signed decree of the operator.
pub const DECREE: usize = 2 * 1024;

/// A message to one peer, before it is sealed.
pub const MESSAGE: usize = 60 * 1024;
/// A signed envelope: the sealed message, names and signature.
pub const ENVELOPE: usize = MESSAGE + 1024;
/// Data of one post to a topic.
pub const POST: usize = 32 * 1024;
/// Name of a topic.
pub const TOPIC: usize = 256;
/// Encoded posts of one request.
pub const POSTS: usize = 256 * 1024;

/// The largest encoded [`request::Kind`], by kind.
pub fn request(kind: &request::Kind) -> usize {
    match kind {
        request::Kind::Put(_) => FRAME,
        request::Kind::Get(_) => 256,
        request::Kind::Search(_) => 16 * 1024,
        request::Kind::Offer(_) => 256 * 1024,
        request::Kind::Locate(_) => 256,
        request::Kind::Inspect(_) => 1024,
        request::Kind::Ping(_) => 64 * 1024,
        request::Kind::Deliver(_) => ENVELOPE + 512,
        // Room for the homes that a copy names.
        request::Kind::Posts(_) => POSTS + 64 * 1024,
        request::Kind::Subscribe(_) => 128 * 1024,
        request::Kind::RelayOpen(_) => 1024,
        request::Kind::LinkOffer(_) => 2 * 1024,
    }
}

/// The largest encoded [`core_message::Kind`], by kind.
pub fn core(kind: &core_message::Kind) -> usize {
    use core_message::Kind as K;
    match kind {
        K::Gossip(_) => 16 * 1024,
        K::RosterDigest(_) => 256 * 1024,
        K::Roster(_) => FRAME,
        K::Muster(_) => 256 * 1024,
        K::Decrees(_) | K::DecreeKeys(_) => 256 * 1024,
        K::Redirect(_) => FRAME,
        K::LoadReport(_) => 32 * 1024,
        K::Voters(_) => 64 * 1024,
        K::AuditAsk(_) => MANDATE,
        K::Forward(_) => 128 * 1024,
        K::JuryNotice(_) => 4 * 1024,
        K::Attach(_)
        | K::Attached(_)
        | K::Standing(_)
        | K::DialBackAsk(_)
        | K::DialBackResult(_)
        | K::BeaconAsk(_)
        | K::BeaconShare(_)
        | K::VotersAsk(_)
        | K::Summons(_)
        | K::SummonsReply(_)
        | K::AuditReply(_)
        | K::SeatsAsk(_)
        | K::HomeLost(_) => 4 * 1024,
    }
}
