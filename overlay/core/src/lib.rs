//! Canopy's protocol core: one deterministic state machine a peer.
//!
//! Inputs go in, outputs come out, and the time is an argument. The core names
//! no socket, no clock, no async runtime and no random source of its own, so
//! the code that ships is the code that a simulator steps.
//!
//! | module | what it decides |
//! |---|---|
//! | [`keyspace`] | keys, XOR distance, node ids |
//! | [`identity`] | signing keys and signed messages |
//! | [`contact`] | where a peer is reached, and its failure domain |
//! | [`election`] | the rules: juries, races, mandates, how many serve |
//! | [`roster`] | who holds a verified mandate |
//! | [`swim`] | which super-nodes answer |
//! | [`node`] | the state machine of one peer, made of all these |
//! | [`preset`] | every timing, by the kind of network |
//! | [`placement`] | which super-nodes own a key |
//! | [`kademlia`] | finding super-nodes without knowing them all |
//! | [`record`] | what the index holds, and its checks |
//! | [`memory`] | what many peers of one process need not work out twice |
//! | [`text`] | how text becomes search terms, on both sides |
//! | [`clock`] | how far the own clock is off, by others' |
//! | [`time`] | the `now` that every call is given |

pub mod clock;
pub mod contact;
pub mod decree;
pub mod election;
pub mod identity;
pub mod kademlia;
pub mod keyspace;
pub mod memory;
pub mod node;
mod parts;
pub mod placement;
pub mod preset;
pub mod record;
pub mod roster;
pub mod swim;
pub mod text;
pub mod time;
