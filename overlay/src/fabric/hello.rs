//! The first frames of a session: who we are, what we speak, which overlay we
//! belong to. Both sides check; the dialler speaks first.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use canopy_core::contact::Contact;
use canopy_core::keyspace::NodeId;
use canopy_proto::{limits, wire};
use prost::Message;
use quinn::{Connection, RecvStream, SendStream};
use wire::refusal::Code;

use super::carrier::stands_for_carrier;
use super::config::FabricConfig;
use super::frame::{Decoder, FrameKind, put_header};
use super::session::canonical;

/// Longest agent text that is sent or kept, bytes.
const MAX_AGENT: usize = 128;

/// What both sides of a session settled on.
#[derive(Clone, Debug)]
pub(super) struct Agreed {
    pub(super) contact: Contact,
    pub(super) version: u32,
    pub(super) observed: Option<SocketAddr>,
    pub(super) clock_offset_ms: i64,
    pub(super) agent: Box<str>,
}

/// Why a hello came to nothing.
#[derive(Debug)]
pub(super) enum HelloError {
    /// The other side says no.
    Refused(wire::Refusal),
    /// We say no.
    Refuse(wire::Refusal),
    /// The connection broke first.
    Broken(quinn::ConnectionError),
    /// The stream ended or was reset.
    Cut,
}

/// A session's stream; the decoder may hold what followed the hello.
pub(super) struct Streams {
    pub(super) send: SendStream,
    pub(super) recv: RecvStream,
    pub(super) decoder: Decoder,
}

/// Milliseconds since 1970.
pub(super) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

/// A refusal with words for people.
pub(super) fn refusal(code: Code, message: impl Into<String>) -> wire::Refusal {
    wire::Refusal {
        code: code.into(),
        message: message.into(),
    }
}

/// Our hello to whom we see at `remote`. By a carrier nothing is seen of where
/// the other one listens.
pub(super) fn ours(config: &FabricConfig, contact: &Contact, remote: SocketAddr) -> wire::Hello {
    let agent = &config.agent;
    let cut = (0..=agent.len().min(MAX_AGENT)).rev();
    let end = cut.into_iter().find(|end| agent.is_char_boundary(*end));
    wire::Hello {
        version_min: limits::VERSION_MIN,
        version_max: limits::VERSION_MAX,
        network: config.network.clone(),
        topology: config.topology.into(),
        contact: Some(contact.signed.clone()),
        observed_addr: match stands_for_carrier(&remote) {
            true => String::new(),
            false => canonical(remote).to_string(),
        },
        clock_ms: unix_ms(),
        agent: agent[..end.unwrap_or(0)].to_owned(),
        operator: config.operator.map(NodeId::to_bytes).unwrap_or_default(),
    }
}

/// Checks the other side's hello against our settings.
pub(super) fn check(
    config: &FabricConfig,
    hello: wire::Hello,
    peer: NodeId,
    rtt: Duration,
) -> Result<Agreed, wire::Refusal> {
    let (min, max) = (limits::VERSION_MIN, limits::VERSION_MAX);
    let version = hello.version_max.min(max);
    if version < hello.version_min.max(min) {
        let (a, b) = (hello.version_min, hello.version_max);
        let text = format!(
            "one side speaks wire versions {min} to {max}, the other {a} to {b}; upgrade the older"
        );
        return Err(refusal(Code::Version, text));
    }
    check_overlay(config, &hello)?;
    // Kept as long as the session: it must not hold on to the datagrams it came in.
    let signed = hello.contact.map(owned).unwrap_or_default();
    let contact = Contact::open(&signed).map_err(|e| refusal(Code::Malformed, e.to_string()))?;
    if contact.node_id != peer {
        return Err(refusal(Code::Malformed, "the contact names another peer"));
    }
    Ok(Agreed {
        contact,
        version,
        observed: hello.observed_addr.parse().ok(),
        clock_offset_ms: clock_offset_ms(hello.clock_ms, unix_ms(), rtt),
        agent: hello.agent.chars().take(MAX_AGENT).collect(),
    })
}

fn owned(signed: wire::Signed) -> wire::Signed {
    wire::Signed {
        body: Bytes::copy_from_slice(&signed.body),
        signer: Bytes::copy_from_slice(&signed.signer),
        signature: Bytes::copy_from_slice(&signed.signature),
    }
}

fn check_overlay(config: &FabricConfig, hello: &wire::Hello) -> Result<(), wire::Refusal> {
    let fail = |what: &str, ours: &str, theirs: &str| {
        let theirs: String = theirs.chars().take(64).collect();
        Err(refusal(
            Code::Network,
            format!("{what} differ: {ours:?} at the peer that refuses, {theirs:?} at the other"),
        ))
    };
    if hello.network != config.network {
        return fail("the networks", &config.network, &hello.network);
    }
    if hello.topology != i32::from(config.topology) {
        let (ours, theirs) = (topology(config.topology), topology(hello.topology()));
        return fail("the topologies", &ours, &theirs);
    }
    let ours = config.operator.map(NodeId::to_bytes).unwrap_or_default();
    if hello.operator != ours {
        let name = |key: &[u8]| match NodeId::from_slice(key) {
            Some(id) => id.to_string(),
            None => "none".to_owned(),
        };
        return fail("the operator keys", &name(&ours), &name(&hello.operator));
    }
    Ok(())
}

/// As people write it.
fn topology(of: wire::Topology) -> String {
    let name = of.as_str_name();
    let name = name.strip_prefix("TOPOLOGY_").unwrap_or(name);
    name.to_lowercase()
}

/// Their clock minus ours: what they read, aged by half a round trip.
fn clock_offset_ms(theirs: u64, ours: u64, rtt: Duration) -> i64 {
    let clamp = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
    let half = i64::try_from(rtt.as_millis() / 2).unwrap_or(0);
    clamp(theirs)
        .saturating_add(half)
        .saturating_sub(clamp(ours))
}

/// The dialler's side: hello out, hello or refusal in.
pub(super) async fn dial(
    config: &FabricConfig,
    contact: &Contact,
    connection: &Connection,
    peer: NodeId,
) -> Result<(Agreed, Streams), HelloError> {
    let (send, recv) = connection.open_bi().await.map_err(HelloError::Broken)?;
    let mut streams = Streams {
        send,
        recv,
        decoder: Decoder::default(),
    };
    let hello = ours(config, contact, connection.remote_address());
    streams.write(FrameKind::Hello, &hello).await?;
    let theirs = streams.read_hello().await?;
    let agreed = check(config, theirs, peer, connection.rtt()).map_err(HelloError::Refuse)?;
    Ok((agreed, streams))
}

/// The listener's side up to the decision: their hello in.
pub(super) async fn accept(
    config: &FabricConfig,
    connection: &Connection,
    peer: NodeId,
) -> Result<(Agreed, Streams), HelloError> {
    let (send, recv) = connection.accept_bi().await.map_err(HelloError::Broken)?;
    let mut streams = Streams {
        send,
        recv,
        decoder: Decoder::default(),
    };
    let theirs = streams.read_hello().await?;
    match check(config, theirs, peer, connection.rtt()) {
        Ok(agreed) => Ok((agreed, streams)),
        Err(no) => {
            streams.refuse(&no).await;
            Err(HelloError::Refuse(no))
        }
    }
}

impl Streams {
    /// Writes one frame.
    pub(super) async fn write(
        &mut self,
        kind: FrameKind,
        message: &impl Message,
    ) -> Result<(), HelloError> {
        let mut out = BytesMut::new();
        put_header(&mut out, kind, 0, message.encoded_len());
        message.encode_raw(&mut out);
        let written = self.send.write_chunk(out.freeze()).await;
        written.map_err(|error| match error {
            quinn::WriteError::ConnectionLost(lost) => HelloError::Broken(lost),
            _ => HelloError::Cut,
        })
    }

    /// Sends a refusal and lets the other side read it, for a second at most.
    pub(super) async fn refuse(&mut self, no: &wire::Refusal) {
        let sent = self.write(FrameKind::Refusal, no).await.is_ok() && self.send.finish().is_ok();
        if sent {
            let _ = tokio::time::timeout(Duration::from_secs(1), self.send.stopped()).await;
        }
    }

    async fn read_hello(&mut self) -> Result<wire::Hello, HelloError> {
        let malformed = |text: String| HelloError::Refuse(refusal(Code::Malformed, text));
        let frame = loop {
            match self.decoder.next() {
                Ok(Some(frame)) => break frame,
                Ok(None) => {}
                Err(error) => return Err(malformed(error.to_string())),
            }
            match self.recv.read_chunk(limits::HELLO, true).await {
                Ok(Some(chunk)) => self.decoder.push(chunk.bytes),
                Err(quinn::ReadError::ConnectionLost(lost)) => {
                    return Err(HelloError::Broken(lost));
                }
                _ => return Err(HelloError::Cut),
            }
        };
        let undecodable = |_| malformed("the first frame cannot be decoded".into());
        match frame.kind {
            FrameKind::Hello => wire::Hello::decode(frame.body).map_err(undecodable),
            FrameKind::Refusal => {
                let refusal = wire::Refusal::decode(frame.body).map_err(undecodable)?;
                Err(HelloError::Refused(refusal))
            }
            _ => Err(malformed("the first frame is no hello".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopy_core::identity::Identity;

    fn config(secret: u8) -> FabricConfig {
        let listen = "127.0.0.1:0".parse().unwrap();
        FabricConfig::new(Identity::from_secret([secret; 32]), listen, "net")
    }

    fn hello(config: &FabricConfig) -> wire::Hello {
        let contact = Contact::sign(&config.identity, &[], "", 1);
        ours(config, &contact, "127.0.0.1:9".parse().unwrap())
    }

    fn code(config: &FabricConfig, hello: wire::Hello, peer: &FabricConfig) -> Result<u32, Code> {
        check(config, hello, peer.identity.node_id(), Duration::ZERO)
            .map(|agreed| agreed.version)
            .map_err(|no| no.code())
    }

    #[test]
    fn peers_of_one_overlay_agree_and_others_are_told_why_not() {
        let (a, b) = (config(1), config(2));
        assert_eq!(code(&a, hello(&b), &b), Ok(1));
        assert_eq!(code(&a, hello(&b), &a), Err(Code::Malformed));

        let newer = |min, max| wire::Hello {
            version_min: min,
            version_max: max,
            ..hello(&b)
        };
        assert_eq!(code(&a, newer(1, 7), &b), Ok(1));
        assert_eq!(code(&a, newer(2, 7), &b), Err(Code::Version));

        let mut other = config(2);
        other.network = "x".repeat(1000);
        assert_eq!(code(&a, hello(&other), &b), Err(Code::Network));
        let mut other = config(2);
        other.operator = Some(a.identity.node_id());
        assert_eq!(code(&a, hello(&other), &b), Err(Code::Network));
        let mut other = config(2);
        other.topology = wire::Topology::Pure;
        assert_eq!(code(&a, hello(&other), &b), Err(Code::Network));
    }

    #[test]
    fn the_clock_offset_allows_for_the_way() {
        let rtt = Duration::from_millis(100);
        assert_eq!(clock_offset_ms(1000, 1050, rtt), 0);
        assert_eq!(clock_offset_ms(11_000, 1050, rtt), 10_000);
        assert_eq!(clock_offset_ms(0, 5000, rtt), -4950);
        assert_eq!(clock_offset_ms(u64::MAX, 0, rtt), i64::MAX);
    }

    #[test]
    fn a_long_agent_is_cut_at_a_character() {
        let mut long = config(1);
        long.agent = "é".repeat(65).to_owned() + "x";
        assert_eq!(hello(&long).agent.len(), 128);
        long.agent = "x".to_owned() + &"é".repeat(100);
        assert_eq!(hello(&long).agent.len(), 127);
    }
}
