//! Frames between a link's socket and a relay, as UDP payloads.
//!
//! | first byte | then | whole |
//! |---|---|---|
//! | `0x10`, `0x11` data | flow (8), what is relayed | from 9 |
//! | `0x20`, `0x21` bind | flow (8), count (8), proof (16), zeros | 64 |
//! | `0x30`, `0x31` close | flow (8), count (8), proof (16) | 33 |
//! | `0x40`, `0x41` bound | flow (8), count (8), address (16), port (2), proof (16) | 51 |
//! | `0x50`, `0x51` lost | flow (8) | 9 |
//!
//! The last bit of the first byte is the end of the flow: whose frame it is, or
//! to whom the relay speaks. Numbers are big-endian. A proof is a keyed BLAKE3
//! hash of all that is before it, under the key of that end, so the key itself
//! never travels here. Counts grow with each frame of an end: one that somebody
//! recorded is worth nothing later. What the relay answers is never longer than
//! what it was sent, so it amplifies nothing. Data passes through unchanged,
//! its header included.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Bytes before what is relayed.
pub const HEADER: usize = 9;
/// Length of a bind frame: longer than its answer.
pub const BIND: usize = 64;
/// Length of a close frame.
pub const CLOSE: usize = 33;
/// Length of the answer to a bind.
pub const BOUND: usize = 51;

const DATA_KIND: u8 = 0x10;
const BIND_KIND: u8 = 0x20;
const CLOSE_KIND: u8 = 0x30;
const BOUND_KIND: u8 = 0x40;
const LOST_KIND: u8 = 0x50;

const PROOF: usize = 16;
/// Where the proof of a bind or close begins.
const PROVED: usize = HEADER + 8;
/// Where the proof of a bound frame begins.
const BOUND_PROVED: usize = BOUND - PROOF;

/// The name of a flow at its relay: drawn at random, so nobody guesses it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowId(pub u64);

impl fmt::Debug for FlowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// One of the two ends of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Who asked for the flow.
    Opener,
    /// Who was asked for.
    Other,
}

impl Side {
    /// 0 or 1.
    pub fn index(self) -> usize {
        match self {
            Self::Opener => 0,
            Self::Other => 1,
        }
    }

    /// From 0 or 1.
    pub fn from_index(index: u32) -> Option<Self> {
        match index {
            0 => Some(Self::Opener),
            1 => Some(Self::Other),
            _ => None,
        }
    }

    /// The end across.
    pub fn across(self) -> Self {
        match self {
            Self::Opener => Self::Other,
            Self::Other => Self::Opener,
        }
    }
}

/// The secret of one end of a flow: given over a session, proved in frames.
#[derive(Clone, PartialEq, Eq)]
pub struct FlowKey(pub [u8; 32]);

impl fmt::Debug for FlowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FlowKey")
    }
}

impl FlowKey {
    fn proof(&self, of: &[u8]) -> [u8; PROOF] {
        let mut proof = [0; PROOF];
        blake3::Hasher::new_keyed(&self.0)
            .update(of)
            .finalize_xof()
            .fill(&mut proof);
        proof
    }

    /// Whether the bytes at `at` prove those before them. Takes as long
    /// whatever they are.
    fn proves(&self, frame: &[u8], at: usize) -> bool {
        let Some(given) = frame.get(at..at + PROOF) else {
            return false;
        };
        let wanted = self.proof(&frame[..at]);
        let apart = wanted
            .iter()
            .zip(given)
            .fold(0, |sum, (a, b)| sum | (a ^ b));
        std::hint::black_box(apart) == 0
    }
}

/// What a frame is; borrowed from the datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// To be relayed, from the end that the frame names.
    Data,
    /// The end is at the address that this came from.
    Bind {
        /// Higher than in any frame of this end before.
        count: u64,
    },
    /// The end needs the flow no more.
    Close {
        /// As for a bind.
        count: u64,
    },
    /// The relay's answer to a bind.
    Bound {
        /// That of the bind.
        count: u64,
        /// Where the bind came from.
        observed: SocketAddr,
    },
    /// The relay knows the flow, but not this address: bind again.
    Lost,
}

/// A frame: its kind, and which end of which flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it is.
    pub kind: Kind,
    /// The flow that it names; whether it exists is for the reader to say.
    pub flow: FlowId,
    /// Whose frame it is, or to whom.
    pub side: Side,
    /// The whole of it.
    bytes: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Reads a datagram; `None`: it is no frame. Proofs are not checked yet.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let first = *bytes.first()?;
        let kind = match first & 0xfe {
            DATA_KIND if bytes.len() > HEADER => Kind::Data,
            BIND_KIND if bytes.len() == BIND => Kind::Bind {
                count: number(bytes, HEADER)?,
            },
            CLOSE_KIND if bytes.len() == CLOSE => Kind::Close {
                count: number(bytes, HEADER)?,
            },
            BOUND_KIND if bytes.len() == BOUND => Kind::Bound {
                count: number(bytes, HEADER)?,
                observed: address(bytes)?,
            },
            LOST_KIND if bytes.len() == HEADER => Kind::Lost,
            _ => return None,
        };
        let side = Side::from_index(u32::from(first & 1))?;
        let flow = FlowId(number(bytes, 1)?);
        Some(Self {
            kind,
            flow,
            side,
            bytes,
        })
    }

    /// What is relayed; empty where this is no data.
    pub fn payload(&self) -> &'a [u8] {
        match self.kind {
            Kind::Data => &self.bytes[HEADER..],
            _ => &[],
        }
    }

    /// Whether it comes from who has `key`. Data and lost frames prove nothing.
    pub fn proves(&self, key: &FlowKey) -> bool {
        match self.kind {
            Kind::Bind { .. } | Kind::Close { .. } => key.proves(self.bytes, PROVED),
            Kind::Bound { .. } => key.proves(self.bytes, BOUND_PROVED),
            Kind::Data | Kind::Lost => false,
        }
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    let number = bytes.get(at..at + 8)?.try_into().ok()?;
    Some(u64::from_be_bytes(number))
}

fn address(bytes: &[u8]) -> Option<SocketAddr> {
    let ip: [u8; 16] = bytes.get(PROVED..PROVED + 16)?.try_into().ok()?;
    let port: [u8; 2] = bytes.get(PROVED + 16..PROVED + 18)?.try_into().ok()?;
    let ip = IpAddr::V6(Ipv6Addr::from(ip)).to_canonical();
    Some(SocketAddr::new(ip, u16::from_be_bytes(port)))
}

/// The header of data from `side` of `flow`.
pub fn header(flow: FlowId, side: Side) -> [u8; HEADER] {
    start(DATA_KIND, flow, side)
}

/// A bind of `side`.
pub fn bind(flow: FlowId, side: Side, count: u64, key: &FlowKey) -> [u8; BIND] {
    let mut frame = [0; BIND];
    prove(&mut frame, BIND_KIND, flow, side, count, key);
    frame
}

/// A close by `side`.
pub fn close(flow: FlowId, side: Side, count: u64, key: &FlowKey) -> [u8; CLOSE] {
    let mut frame = [0; CLOSE];
    prove(&mut frame, CLOSE_KIND, flow, side, count, key);
    frame
}

/// The answer to the bind `count` of `side` that came from `observed`.
pub fn bound(
    flow: FlowId,
    side: Side,
    count: u64,
    observed: SocketAddr,
    key: &FlowKey,
) -> [u8; BOUND] {
    let mut frame = [0; BOUND];
    frame[..HEADER].copy_from_slice(&start(BOUND_KIND, flow, side));
    frame[HEADER..PROVED].copy_from_slice(&count.to_be_bytes());
    let ip = match observed.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    frame[PROVED..PROVED + 16].copy_from_slice(&ip.octets());
    frame[PROVED + 16..BOUND_PROVED].copy_from_slice(&observed.port().to_be_bytes());
    let proof = key.proof(&frame[..BOUND_PROVED]);
    frame[BOUND_PROVED..].copy_from_slice(&proof);
    frame
}

/// Tells `side` to bind again.
pub fn lost(flow: FlowId, side: Side) -> [u8; HEADER] {
    start(LOST_KIND, flow, side)
}

fn start(kind: u8, flow: FlowId, side: Side) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[0] = kind | side.index() as u8;
    header[1..].copy_from_slice(&flow.0.to_be_bytes());
    header
}

fn prove(frame: &mut [u8], kind: u8, flow: FlowId, side: Side, count: u64, key: &FlowKey) {
    frame[..HEADER].copy_from_slice(&start(kind, flow, side));
    frame[HEADER..PROVED].copy_from_slice(&count.to_be_bytes());
    let proof = key.proof(&frame[..PROVED]);
    frame[PROVED..PROVED + PROOF].copy_from_slice(&proof);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sides() -> impl Strategy<Value = Side> {
        prop_oneof![Just(Side::Opener), Just(Side::Other)]
    }

    fn addrs() -> impl Strategy<Value = SocketAddr> {
        (any::<[u8; 16]>(), any::<u16>()).prop_map(|(ip, port)| {
            SocketAddr::new(IpAddr::V6(Ipv6Addr::from(ip)).to_canonical(), port)
        })
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic_and_prove_nothing(
            bytes in proptest::collection::vec(any::<u8>(), 0..80),
            key in any::<[u8; 32]>(),
        ) {
            if let Some(frame) = Frame::parse(&bytes) {
                prop_assert!(!frame.proves(&FlowKey(key)));
                prop_assert!(frame.payload().len() < bytes.len());
            }
        }

        #[test]
        fn what_is_written_is_read(
            (flow, side, count) in (any::<u64>(), sides(), any::<u64>()),
            observed in addrs(),
            key in any::<[u8; 32]>(),
            payload in proptest::collection::vec(any::<u8>(), 1..1500),
        ) {
            let (flow, key) = (FlowId(flow), FlowKey(key));
            let kinds = [
                (bind(flow, side, count, &key).to_vec(), Kind::Bind { count }),
                (close(flow, side, count, &key).to_vec(), Kind::Close { count }),
                (bound(flow, side, count, observed, &key).to_vec(), Kind::Bound { count, observed }),
            ];
            for (bytes, kind) in kinds {
                let frame = Frame::parse(&bytes).expect("a frame");
                prop_assert_eq!((frame.kind, frame.flow, frame.side), (kind, flow, side));
                prop_assert!(frame.proves(&key));
                prop_assert!(bytes.len() <= BIND);
            }
            let data = [header(flow, side).as_slice(), &payload].concat();
            let frame = Frame::parse(&data).expect("data");
            prop_assert_eq!((frame.kind, frame.flow, frame.side), (Kind::Data, flow, side));
            prop_assert_eq!(frame.payload(), &payload[..]);
            let bytes = lost(flow, side);
            let frame = Frame::parse(&bytes).expect("a lost frame");
            prop_assert_eq!((frame.kind, frame.flow, frame.side), (Kind::Lost, flow, side));
        }

        #[test]
        fn a_frame_that_was_changed_proves_nothing(
            (flow, side, count) in (any::<u64>(), sides(), any::<u64>()),
            key in any::<[u8; 32]>(),
            (at, bit) in (0..PROVED + PROOF, 0..8u32),
        ) {
            let key = FlowKey(key);
            let mut bytes = close(FlowId(flow), side, count, &key);
            bytes[at] ^= 1 << bit;
            let proves = Frame::parse(&bytes).is_some_and(|frame| frame.proves(&key));
            prop_assert!(!proves);
        }
    }
}
