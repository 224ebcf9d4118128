//! What travels in a carrier: one datagram after the other.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | the channel: 1 sessions, 2 relay |
//! | 2 | length of the datagram, big-endian, 1 to 2 048 |
//! | so many | the datagram |

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Bytes before a datagram.
const HEADER: usize = 3;
/// Largest datagram, bytes: QUIC tries up to 1 452, and a relay's frame adds 9.
pub(super) const LARGEST: usize = 2_048;

/// What of the other peer a datagram is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channel {
    /// The socket of its sessions.
    Sessions,
    /// Its relay; on the way back, the links.
    Relay,
}

impl Channel {
    fn number(self) -> u8 {
        match self {
            Self::Sessions => 1,
            Self::Relay => 2,
        }
    }
}

/// Why what came is no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("there is no channel {0}")]
    Channel(u8),
    #[error("a datagram has 1 to {LARGEST} bytes, not {0}")]
    Length(usize),
}

/// The frame for a datagram; `None`: it is empty or too large.
pub(super) fn frame(channel: Channel, datagram: &[u8]) -> Option<Bytes> {
    if datagram.is_empty() || datagram.len() > LARGEST {
        return None;
    }
    let mut out = BytesMut::with_capacity(HEADER + datagram.len());
    out.put_u8(channel.number());
    // Checked: at most 2 048.
    out.put_u16(datagram.len() as u16);
    out.put_slice(datagram);
    Some(out.freeze())
}

/// Takes the next whole frame out of what came; `None`: more must come first.
pub(super) fn take(came: &mut BytesMut) -> Result<Option<(Channel, Bytes)>, Malformed> {
    let Some(header) = came.first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let channel = match header[0] {
        1 => Channel::Sessions,
        2 => Channel::Relay,
        other => return Err(Malformed::Channel(other)),
    };
    let length = usize::from(u16::from_be_bytes([header[1], header[2]]));
    if !(1..=LARGEST).contains(&length) {
        return Err(Malformed::Length(length));
    }
    if came.len() < HEADER + length {
        return Ok(None);
    }
    came.advance(HEADER);
    Ok(Some((channel, came.split_to(length).freeze())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All frames in `bytes`, which come in pieces of `piece`.
    fn read(bytes: &[u8], piece: usize) -> Result<Vec<(Channel, Bytes)>, Malformed> {
        let (mut came, mut frames) = (BytesMut::new(), Vec::new());
        for piece in bytes.chunks(piece) {
            came.extend_from_slice(piece);
            while let Some(frame) = take(&mut came)? {
                frames.push(frame);
            }
        }
        Ok(frames)
    }

    proptest! {
        #[test]
        fn datagrams_come_as_they_were_however_they_are_cut(
            sent in prop::collection::vec(
                (any::<bool>(), prop::collection::vec(any::<u8>(), 1..=LARGEST)),
                0..8,
            ),
            piece in 1usize..4_000,
        ) {
            let channel = |relay| if relay { Channel::Relay } else { Channel::Sessions };
            let sent: Vec<_> = sent
                .into_iter()
                .map(|(relay, datagram)| (channel(relay), Bytes::from(datagram)))
                .collect();
            let bytes: Vec<u8> = sent
                .iter()
                .flat_map(|(channel, datagram)| frame(*channel, datagram).expect("not too large"))
                .collect();
            prop_assert_eq!(read(&bytes, piece), Ok(sent));
        }

        #[test]
        fn anything_else_is_refused_and_never_kept(
            bytes in prop::collection::vec(any::<u8>(), 0..8_000),
        ) {
            let mut came = BytesMut::from(bytes.as_slice());
            while let Ok(Some((_, datagram))) = take(&mut came) {
                prop_assert!((1..=LARGEST).contains(&datagram.len()));
            }
            if take(&mut came) == Ok(None) {
                prop_assert!(came.len() < HEADER + LARGEST);
            }
        }
    }

    #[test]
    fn what_is_out_of_bounds_is_named() {
        assert_eq!(frame(Channel::Relay, &[]), None);
        assert_eq!(frame(Channel::Relay, &[0; LARGEST + 1]), None);
        assert_eq!(read(&[3, 0, 1, 0], 9), Err(Malformed::Channel(3)));
        assert_eq!(read(&[1, 0, 0], 9), Err(Malformed::Length(0)));
        assert_eq!(read(&[1, 8, 1], 9), Err(Malformed::Length(2_049)));
    }
}
