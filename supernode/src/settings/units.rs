//! Numbers as people write them: `20 Mbit/s`, `30s`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// A rate in bits a second. Written `20 Mbit/s`, `2.5 MB/s` or as plain bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bandwidth(pub u64);

/// Why a text is no rate or duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not a rate.
    #[error(
        "{0:?} is no rate from 1 kbit/s to 1 Tbit/s; write e.g. \"20 Mbit/s\", \"500 kbit/s\", \"2.5 MB/s\" or plain bits a second"
    )]
    Rate(String),
    /// Not a duration.
    #[error("{0:?} is no duration; write e.g. 30s, 5m, 2h or 250ms")]
    Duration(String),
}

impl FromStr for Bandwidth {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let fail = || UnitError::Rate(shortened(text));
        let (number, unit) = split(text).ok_or_else(fail)?;
        let bits = match unit {
            "" | "bit/s" | "bps" => 1.0,
            "kbit/s" | "Kbit/s" | "kbps" => 1e3,
            "Mbit/s" | "mbit/s" | "Mbps" => 1e6,
            "Gbit/s" | "gbit/s" | "Gbps" => 1e9,
            "B/s" => 8.0,
            "kB/s" | "KB/s" => 8e3,
            "MB/s" => 8e6,
            "GB/s" => 8e9,
            // "Mb/s" among them: bits to some and bytes to others.
            _ => return Err(fail()),
        };
        let rate = (number * bits).round();
        // Somebody who writes 20 means 20 Mbit/s: no peer can do with 20 bits.
        if !(1e3..=1e12).contains(&rate) {
            return Err(fail());
        }
        Ok(Self(rate as u64))
    }
}

impl fmt::Display for Bandwidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.0 as f64;
        let (number, unit) = match self.0 {
            0..1_000 => (bits, "bit/s"),
            1_000..1_000_000 => (bits / 1e3, "kbit/s"),
            1_000_000..1_000_000_000 => (bits / 1e6, "Mbit/s"),
            _ => (bits / 1e9, "Gbit/s"),
        };
        // Three digits that mean something, and no ".0".
        let text = match number {
            n if n < 10.0 => format!("{n:.2}"),
            n if n < 100.0 => format!("{n:.1}"),
            n => format!("{n:.0}"),
        };
        let text = match text.contains('.') {
            true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
            false => text,
        };
        f.pad(&format!("{text} {unit}"))
    }
}

impl<'de> Deserialize<'de> for Bandwidth {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Bits(u64),
            Text(String),
        }
        let text = match Form::deserialize(from)? {
            Form::Bits(bits) => bits.to_string(),
            Form::Text(text) => text,
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Reads a duration: a number with `ms`, `s`, `m`, `h` or `d`.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let fail = || UnitError::Duration(shortened(text));
    let (number, unit) = split(text).ok_or_else(fail)?;
    let seconds = match unit {
        "ms" => 1e-3,
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err(fail()),
    };
    Duration::try_from_secs_f64(number * seconds).map_err(|_| fail())
}

/// A non-negative number and what stands behind it.
fn split(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit.trim()))
}

fn shortened(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_in_bits_and_bytes() {
        let bits = |text: &str| text.parse::<Bandwidth>().map(|rate| rate.0);
        assert_eq!(bits("20 Mbit/s"), Ok(20_000_000));
        assert_eq!(bits("500kbit/s"), Ok(500_000));
        assert_eq!(bits("1.5 Gbit/s"), Ok(1_500_000_000));
        assert_eq!(bits("2.5 MB/s"), Ok(20_000_000));
        assert_eq!(bits("9600"), Ok(9_600));
        for wrong in [
            "",
            "fast",
            "20 Mb/s",
            "0",
            "20",
            "-1",
            "1e300 Mbit/s",
            "1.2.3",
            "9999 Gbit/s",
        ] {
            assert!(bits(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn rates_are_printed_as_they_are_read() {
        for text in ["20 Mbit/s", "1.5 Gbit/s", "1 kbit/s", "100 kbit/s"] {
            assert_eq!(
                text.parse::<Bandwidth>().map(|rate| rate.to_string()),
                Ok(text.to_owned())
            );
        }
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse_duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(parse_duration("250 ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("1.5h"), Ok(Duration::from_secs(5400)));
        for wrong in ["30", "s", "5 weeks", "-3s", "9999999999999999999999d"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }
}
