//! The configuration file: TOML of few keys, where an unknown one is an error.

use std::path::{Path, PathBuf};

use canopy_core::keyspace::NodeId;
use serde::{Deserialize, Deserializer};

use super::Settings;
use crate::data_dir::read_bounded;

/// A file larger than this is no configuration.
const MAX_FILE: u64 = 64 * 1024;

/// Why a configuration file was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read the configuration {path}: {source}; check the path, its owner and mode", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is far too long.
    #[error("{path} is over 64 KiB: no configuration file", path = .0.display())]
    TooLarge(PathBuf),
    /// A key is unknown, or a value is not of its kind.
    #[error("correct the configuration {path}: {reason}", path = .path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Line, key and what is wrong, on one line.
        reason: String,
    },
}

impl Settings {
    /// Reads a configuration file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let failed = |source| ConfigError::Read {
            path: path.to_owned(),
            source,
        };
        let bytes = read_bounded(path, MAX_FILE).map_err(failed)?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(ConfigError::TooLarge(path.to_owned()));
        }
        let text = String::from_utf8(bytes).map_err(|_| "it is no UTF-8 text".to_owned());
        let settings = text.and_then(|text| Self::parse(&text));
        settings.map_err(|reason| ConfigError::Invalid {
            path: path.to_owned(),
            reason,
        })
    }

    fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| {
            let line = error.span().map(|span| {
                text.as_bytes()[..span.start.min(text.len())]
                    .iter()
                    .filter(|byte| **byte == b'\n')
                    .count()
                    + 1
            });
            let message = error.message().replace('\n', " ");
            match line {
                Some(line) => format!("line {line}: {message}"),
                None => message,
            }
        })
    }
}

/// A node id as 64 hexadecimal digits.
pub(super) fn node_id<'de, D: Deserializer<'de>>(from: D) -> Result<Option<NodeId>, D::Error> {
    let text = String::deserialize(from)?;
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::super::{Bandwidth, Stand, Topology};
    use super::*;

    #[test]
    fn every_key_is_read() {
        let text = format!(
            r#"
            listen = "127.0.0.1:4477"
            peers = ["127.0.0.1:4478", "{id}@[::1]:9"]
            data_dir = "/var/lib/canopy"
            stand = "never"
            uplink = "20 Mbit/s"
            upload = "10 Mbit/s"
            carriers = false
            relay_only = true
            port_mapping = true
            api = "127.0.0.1:4480"
            http = "127.0.0.1:9477"
            control = "127.0.0.1:4481"
            control_tls = "/etc/canopy/control.pem"
            control_access = "/etc/canopy/access"
            control_client_ca = "/etc/canopy/operators.pem"
            preset = "lan"
            network = "mine"
            topology = "hybrid"
            zone = "rack-1"
            operator = "{id}"
            "#,
            id = "ab".repeat(32),
        );
        let settings = Settings::parse(&text).unwrap();
        assert_eq!(settings.peers.len(), 2);
        assert_eq!(settings.uplink, Some(Bandwidth(20_000_000)));
        assert_eq!(settings.upload, Some(Bandwidth(10_000_000)));
        assert_eq!(settings.carriers, Some(false));
        assert_eq!(settings.relay_only, Some(true));
        assert_eq!(settings.port_mapping, Some(true));
        assert_eq!(settings.stand, Some(Stand::Never));
        assert_eq!(settings.topology, Some(Topology::Hybrid));
        assert_eq!(settings.http.map(|http| http.port()), Some(9477));
        assert_eq!(settings.operator, Some(NodeId([0xab; 32])));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, wanted) in [
            ("\nuplnk = 3", "line 2: unknown field `uplnk`"),
            ("uplink = \"fast\"", "is no rate"),
            ("peers = [\"nowhere\"]", "is no peer address"),
            ("stand = \"maybe\"", "unknown variant `maybe`"),
            ("operator = \"12\"", "is not 64 hexadecimal digits"),
            ("listen = ", "line 1"),
        ] {
            let error = Settings::parse(text).unwrap_err();
            assert!(error.contains(wanted) && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Settings::read(Path::new("/nonexistent/leaf.toml")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/leaf.toml"));
    }

    #[cfg(unix)]
    #[test]
    fn a_file_without_end_is_not_read_to_its_end() {
        let error = Settings::read(Path::new("/dev/zero")).unwrap_err();
        assert!(matches!(error, ConfigError::TooLarge(_)), "{error}");
    }

    #[test]
    fn later_sources_win_key_by_key() {
        let file = Settings::parse("zone = \"a\"\nuplink = 9600\npeers = [\"h:1\"]").unwrap();
        let flags = Settings::parse("zone = \"b\"").unwrap();
        let settings = flags.over(file);
        assert_eq!(settings.zone.as_deref(), Some("b"));
        assert_eq!(settings.uplink, Some(Bandwidth(9_600)));
        assert_eq!(settings.peers.len(), 1);
    }
}
