//! Frames on a session's stream: a nine-byte header and a protobuf body.
//!
//! ```text
//! body length: u32 | kind: u8 | request id: u32 | body      (big endian)
//! ```
//!
//! The decoder takes whatever arrives, in whatever pieces, and either yields
//! frames or says why the session must end. It must never panic, and never
//! hold more than one frame's bytes.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use canopy_proto::limits;

/// Bytes of a frame's header.
pub(super) const HEADER: usize = 9;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum FrameKind {
    /// `wire::Hello`, the first frame of either side.
    Hello = 0,
    /// `wire::Refusal` instead of a hello: the session ends.
    Refusal = 1,
    /// `wire::Request`.
    Request = 2,
    /// `wire::Response` to the request of the same id.
    Response = 3,
    /// `wire::CoreMessage`; the id is 0.
    Notify = 4,
    /// The request of this id is no longer wanted; no body.
    Cancel = 5,
}

impl FrameKind {
    fn from_u8(kind: u8) -> Option<Self> {
        Some(match kind {
            0 => Self::Hello,
            1 => Self::Refusal,
            2 => Self::Request,
            3 => Self::Response,
            4 => Self::Notify,
            5 => Self::Cancel,
            _ => return None,
        })
    }

    /// The largest body, bytes.
    fn limit(self) -> usize {
        match self {
            Self::Hello | Self::Refusal => limits::HELLO,
            Self::Request | Self::Response | Self::Notify => limits::FRAME,
            Self::Cancel => 0,
        }
    }
}

/// A decoded frame. The body shares the buffer that it arrived in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: FrameKind,
    pub(super) id: u32,
    pub(super) body: Bytes,
}

/// Why bytes are no frame. The stream cannot be read any further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    #[error("a frame of unknown kind {0}")]
    Kind(u8),
    #[error("a {kind:?} frame of {size} bytes; the limit is {limit}")]
    TooLarge {
        kind: FrameKind,
        size: usize,
        limit: usize,
    },
}

/// Writes a header; the body must follow.
pub(super) fn put_header(out: &mut BytesMut, kind: FrameKind, id: u32, body: usize) {
    // A body is at most `limits::FRAME`, which its writer checked.
    out.put_u32(body as u32);
    out.put_u8(kind as u8);
    out.put_u32(id);
}

/// Cuts a stream of bytes into frames.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    /// The newest bytes, not yet looked at.
    chunk: Bytes,
    /// The beginning of a frame that more bytes must complete.
    partial: BytesMut,
}

impl Decoder {
    /// Adds bytes. Call only when [`Self::next`] has returned `None`.
    pub(super) fn push(&mut self, chunk: Bytes) {
        debug_assert!(self.chunk.is_empty());
        self.chunk = chunk;
    }

    /// The next complete frame; `None` when more bytes are needed.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        if self.partial.is_empty() && self.chunk.len() >= HEADER {
            // The common case: the whole frame lies in one chunk and is not copied.
            let (kind, id, size) = parse(&self.chunk)?;
            if self.chunk.len() >= HEADER + size {
                self.chunk.advance(HEADER);
                let body = self.chunk.split_to(size);
                return Ok(Some(Frame { kind, id, body }));
            }
        }
        self.assemble()
    }

    fn assemble(&mut self) -> Result<Option<Frame>, FrameError> {
        self.take_up_to(HEADER);
        if self.partial.len() < HEADER {
            return Ok(None);
        }
        let (kind, id, size) = parse(&self.partial)?;
        self.take_up_to(HEADER + size);
        if self.partial.len() < HEADER + size {
            return Ok(None);
        }
        let mut body = std::mem::take(&mut self.partial).freeze();
        body.advance(HEADER);
        Ok(Some(Frame { kind, id, body }))
    }

    /// Moves bytes from the chunk until `partial` holds `total`. It grows by
    /// what has arrived, never by what a header promises.
    fn take_up_to(&mut self, total: usize) {
        let missing = total.saturating_sub(self.partial.len());
        let taken = self.chunk.split_to(missing.min(self.chunk.len()));
        self.partial.extend_from_slice(&taken);
        if self.chunk.is_empty() {
            // Lets go of the datagram's buffer.
            self.chunk = Bytes::new();
        }
    }
}

fn parse(mut header: &[u8]) -> Result<(FrameKind, u32, usize), FrameError> {
    let size = header.get_u32() as usize;
    let kind = header.get_u8();
    let id = header.get_u32();
    let kind = FrameKind::from_u8(kind).ok_or(FrameError::Kind(kind))?;
    let limit = kind.limit();
    if size > limit {
        return Err(FrameError::TooLarge { kind, size, limit });
    }
    Ok((kind, id, size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encode(kind: FrameKind, id: u32, body: &[u8]) -> Vec<u8> {
        let mut out = BytesMut::new();
        put_header(&mut out, kind, id, body.len());
        out.extend_from_slice(body);
        out.to_vec()
    }

    fn decode(bytes: &[u8], piece: usize) -> Result<Vec<Frame>, FrameError> {
        let mut decoder = Decoder::default();
        let mut frames = Vec::new();
        for chunk in bytes.chunks(piece) {
            decoder.push(Bytes::copy_from_slice(chunk));
            while let Some(frame) = decoder.next()? {
                frames.push(frame);
            }
        }
        Ok(frames)
    }

    proptest! {
        #[test]
        fn frames_survive_any_cut(
            bodies in proptest::collection::vec((2u8..5, any::<u32>(), proptest::collection::vec(any::<u8>(), 0..300)), 0..12),
            piece in 1usize..700,
        ) {
            let frames: Vec<Frame> = bodies
                .into_iter()
                .map(|(kind, id, body)| Frame { kind: FrameKind::from_u8(kind).unwrap(), id, body: body.into() })
                .collect();
            let bytes: Vec<u8> = frames.iter().flat_map(|f| encode(f.kind, f.id, &f.body)).collect();
            prop_assert_eq!(decode(&bytes, piece), Ok(frames));
        }

        #[test]
        fn arbitrary_bytes_give_frames_or_an_error(
            bytes in proptest::collection::vec(any::<u8>(), 0..2000),
            piece in 1usize..300,
        ) {
            if let Ok(frames) = decode(&bytes, piece) {
                let decoded: usize = frames.iter().map(|f| f.body.len() + HEADER).sum();
                prop_assert!(decoded <= bytes.len());
            }
        }

        #[test]
        fn a_garbled_header_holds_no_memory_it_did_not_receive(
            size in any::<u32>(), kind in 0u8..6, body in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let mut bytes = size.to_be_bytes().to_vec();
            bytes.push(kind);
            bytes.extend_from_slice(&[0; 4]);
            bytes.extend_from_slice(&body);
            let mut decoder = Decoder::default();
            decoder.push(bytes.into());
            while let Ok(Some(_)) = decoder.next() {}
            prop_assert!(decoder.partial.capacity() <= 1024);
        }
    }

    #[test]
    fn a_frame_over_its_limit_is_refused_by_its_header() {
        let header = encode(FrameKind::Hello, 0, &vec![0; limits::HELLO + 1]);
        assert!(matches!(
            decode(&header[..HEADER], HEADER),
            Err(FrameError::TooLarge { .. })
        ));
        assert_eq!(
            decode(&[0, 0, 0, 0, 9, 0, 0, 0, 0], 9),
            Err(FrameError::Kind(9))
        );
    }
}
