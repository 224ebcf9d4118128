//! Where another peer is reached: `ADDR` or `ID@ADDR`.

use std::fmt;
use std::str::FromStr;

use canopy_core::keyspace::NodeId;
use serde::{Deserialize, Deserializer};

/// A peer to join by. With an id, whoever else answers there is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAddr {
    /// Who has to answer there; absent: anybody of the network.
    pub id: Option<NodeId>,
    /// `HOST:PORT`; a name is looked up at the start.
    pub addr: String,
}

/// Why a text is no peer's address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no peer address; write HOST:PORT or NODE_ID@HOST:PORT, e.g. 127.0.0.1:4477")]
pub struct PeerAddrError(pub String);

impl FromStr for PeerAddr {
    type Err = PeerAddrError;

    fn from_str(text: &str) -> Result<Self, PeerAddrError> {
        let fail = || PeerAddrError(text.chars().take(160).collect());
        let (id, addr) = match text.split_once('@') {
            Some((id, addr)) => (Some(id.parse().map_err(|_| fail())?), addr),
            None => (None, text),
        };
        let (host, port) = addr.rsplit_once(':').ok_or_else(fail)?;
        let port: u16 = port.parse().map_err(|_| fail())?;
        // An IPv6 address needs brackets, or its last group reads as a port.
        let bracketed = host.starts_with('[') && host.ends_with(']');
        let odd = |c: char| !(c.is_alphanumeric() || c == '.' || c == '-' || c == '_');
        if port == 0 || host.is_empty() || (!bracketed && host.contains(odd)) {
            return Err(fail());
        }
        if bracketed && addr.parse::<std::net::SocketAddr>().is_err() {
            return Err(fail());
        }
        let addr = addr.to_owned();
        Ok(Self { id, addr })
    }
}

impl fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.id {
            Some(id) => write!(f, "{id}@{}", self.addr),
            None => f.write_str(&self.addr),
        }
    }
}

impl<'de> Deserialize<'de> for PeerAddr {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_with_and_without_an_id() {
        let id = "ab".repeat(32);
        for text in [
            "127.0.0.1:4477".to_owned(),
            "[::1]:4477".to_owned(),
            "seed.example.org:4477".to_owned(),
            format!("{id}@127.0.0.1:1"),
        ] {
            let addr: PeerAddr = text.parse().unwrap();
            assert_eq!(addr.to_string(), text);
        }
        let long = "a".repeat(9999);
        for wrong in [
            "",
            "host",
            "host:0",
            "host:99999",
            "::1:4477",
            "x@host:1",
            ":80",
            "[zz]:1",
            "a b:1",
            &long,
        ] {
            assert!(wrong.parse::<PeerAddr>().is_err(), "{wrong}");
        }
    }
}
