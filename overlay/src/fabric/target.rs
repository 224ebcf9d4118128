//! Whom to dial: `ADDR` or `ID@ADDR`.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use canopy_core::contact::Contact;
use canopy_core::keyspace::NodeId;

/// A peer to dial. With an id, only that peer is accepted there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Who must answer; `None`: whoever does.
    pub id: Option<NodeId>,
    /// Where, best first.
    pub addrs: Vec<SocketAddr>,
}

/// Why a text names no peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Not a socket address.
    #[error("{0:?} is no address; write 203.0.113.7:4477, [2001:db8::1]:4477 or host:4477")]
    Addr(String),
    /// The part before `@` is no node id.
    #[error("{0:?} is no node id; write 64 hexadecimal digits before the @")]
    Id(String),
    /// The host name has no address.
    #[error("cannot look up {host:?}: {reason}")]
    Lookup {
        /// The name.
        host: String,
        /// What the resolver said.
        reason: String,
    },
}

impl Target {
    /// The peer `id` at `addr`.
    pub fn peer(id: NodeId, addr: SocketAddr) -> Self {
        Self {
            id: Some(id),
            addrs: vec![addr],
        }
    }

    /// Parses `ADDR` or `ID@ADDR` where `ADDR` may be `host:port`, which is
    /// looked up.
    pub async fn resolve(text: &str) -> Result<Self, TargetError> {
        if let Ok(target) = text.parse() {
            return Ok(target);
        }
        let (id, host) = split(text)?;
        if !host.contains(':') {
            return Err(TargetError::Addr(host.into()));
        }
        let fail = |reason: String| TargetError::Lookup {
            host: host.into(),
            reason,
        };
        let found = tokio::net::lookup_host(host).await;
        let addrs: Vec<_> = found.map_err(|e| fail(e.to_string()))?.take(8).collect();
        match addrs.is_empty() {
            true => Err(fail("the name has no address".into())),
            false => Ok(Self { id, addrs }),
        }
    }
}

fn split(text: &str) -> Result<(Option<NodeId>, &str), TargetError> {
    match text.split_once('@') {
        Some((id, addr)) => {
            let id = id.parse().map_err(|_| TargetError::Id(id.into()))?;
            Ok((Some(id), addr))
        }
        None => Ok((None, text)),
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let (id, addr) = split(text)?;
        let addr = addr.parse().map_err(|_| TargetError::Addr(addr.into()))?;
        Ok(Self {
            id,
            addrs: vec![addr],
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(id) = self.id {
            write!(f, "{id}@")?;
        }
        match self.addrs.first() {
            Some(addr) => write!(f, "{addr}"),
            None => f.write_str("?"),
        }
    }
}

impl From<SocketAddr> for Target {
    fn from(addr: SocketAddr) -> Self {
        Self {
            id: None,
            addrs: vec![addr],
        }
    }
}

impl From<&Contact> for Target {
    fn from(contact: &Contact) -> Self {
        Self {
            id: Some(contact.node_id),
            addrs: contact.addrs.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_print_and_parse_back() {
        let id = NodeId([0xab; 32]);
        let target = Target::peer(id, "127.0.0.1:4477".parse().unwrap());
        assert_eq!(target.to_string().parse(), Ok(target));
        assert!("[::1]:4477".parse::<Target>().unwrap().id.is_none());
        assert!(matches!(
            "x@1.2.3.4:5".parse::<Target>(),
            Err(TargetError::Id(_))
        ));
        assert!(matches!(
            "1.2.3.4".parse::<Target>(),
            Err(TargetError::Addr(_))
        ));
    }
}
