//! The modelled network: how far peers are from each other, what their lines
//! carry, who can be dialled, and what goes wrong on the way.

mod lines;
mod regions;
mod sessions;

pub use lines::{Line, Nat, PEER_LINES, session_length_us};
pub use regions::{REGIONS, round_trip_us};
pub(crate) use sessions::{Sessions, SpreadMap, State};

/// What kind of network the peers share, and its troubles. Parts are millionths.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetConfig {
    /// Peers are spread over the world's regions; otherwise all share a
    /// building.
    pub wide: bool,
    /// Share of peers behind a NAT at home, which nobody can dial.
    pub home_nat_ppm: u32,
    /// Share of peers behind a symmetric NAT.
    pub symmetric_nat_ppm: u32,
    /// Packets lost on the way; the transport repeats them, so that it costs time.
    pub loss_ppm: u32,
    /// Messages that never arrive although their session lives: worse than the
    /// transport allows, to see whether the core bears it.
    pub drop_ppm: u32,
    /// Messages that arrive twice.
    pub twice_ppm: u32,
    /// Messages that are overtaken by later ones.
    pub reorder_ppm: u32,
    /// Address prefixes (failure domains) that the peers are spread over; 0:
    /// as many as peers, up to 40 000.
    pub prefixes: u32,
    /// Zone labels that the peers are spread over; 0: none is named.
    pub zones: u32,
    /// Every peer has this line, bits a second each way; 0: as measured, see
    /// [`PEER_LINES`].
    pub line_bps: u64,
}

impl Default for NetConfig {
    fn default() -> Self {
        Self {
            wide: true,
            home_nat_ppm: 370_000,
            symmetric_nat_ppm: 80_000,
            loss_ppm: 1_000,
            drop_ppm: 0,
            twice_ppm: 0,
            reorder_ppm: 0,
            prefixes: 0,
            zones: 0,
            line_bps: 0,
        }
    }
}
