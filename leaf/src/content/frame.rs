//! Messages on a stream of a link: each after its length.

use std::io;
use std::time::Duration;

use canopy_overlay::fabric::link::{RecvStream, SendStream};
use canopy_proto::Message;
use tokio::time::timeout;

/// Largest message: what a leaf has, one bit a piece, its proof and some peers.
const MAX_FRAME: usize = 64 * 1024;
/// A write that the other side takes nothing of for so long is given up.
pub(super) const SILENCE: Duration = Duration::from_secs(30);

pub(super) async fn write(send: &mut SendStream, message: &impl Message) -> io::Result<()> {
    let data = message.encode_to_vec();
    if data.len() > MAX_FRAME {
        return Err(io::Error::other("a message is over 64 KiB"));
    }
    let framed = [&(data.len() as u32).to_be_bytes()[..], &data].concat();
    write_all(send, &framed).await
}

pub(super) async fn write_all(send: &mut SendStream, data: &[u8]) -> io::Result<()> {
    let written = timeout(SILENCE, send.write_all(data)).await;
    written
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
        .map_err(io::Error::other)
}

/// The next message. `None`: the stream ended between two.
pub(super) async fn read<M: Message + Default>(recv: &mut RecvStream) -> io::Result<Option<M>> {
    let mut length = [0; 4];
    let mut got = 0;
    while got < length.len() {
        let read = recv.read(&mut length[got..]).await;
        match read.map_err(io::Error::other)? {
            None if got == 0 => return Ok(None),
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
            Some(count) => got += count,
        }
    }
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX_FRAME {
        let why = format!("a message of {length} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    let mut data = vec![0; length];
    let whole = timeout(SILENCE, recv.read_exact(&mut data)).await;
    whole
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
        .map_err(io::Error::other)?;
    let message = M::decode(&data[..]);
    let bad = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    message.map(Some).map_err(bad)
}

/// The same, where one has to come within so long.
pub(super) async fn expect<M: Message + Default>(
    recv: &mut RecvStream,
    within: Duration,
) -> io::Result<M> {
    let read = timeout(within, read(recv)).await;
    let read = read.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    read.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}
