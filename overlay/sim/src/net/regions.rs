//! Where peers live, and how far regions are from each other.
//!
//! Source: IBM Cloud VPC, "Network latency", average inter-region round trips of
//! 17 Aug to 15 Sep 2024 (cloud.ibm.com/docs/vpc, network-latency dashboards).
//! The shares of peers a region are chosen.

/// A region: its name, and how many of a hundred peers live there.
pub struct Region {
    /// Its city.
    pub name: &'static str,
    /// Percent of all peers.
    pub share: u32,
}

const fn region(name: &'static str, share: u32) -> Region {
    Region { name, share }
}

/// All regions.
pub const REGIONS: [Region; 10] = [
    region("Dallas", 12),
    region("Toronto", 4),
    region("Washington", 14),
    region("Frankfurt", 16),
    region("London", 10),
    region("Madrid", 8),
    region("Osaka", 6),
    region("Sydney", 4),
    region("Tokyo", 14),
    region("Sao Paulo", 12),
];

/// Round trips in milliseconds, in the order of [`REGIONS`]. Within a region the
/// distance is that between cities, chosen.
const ROUND_TRIP_MS: [[u32; 10]; 10] = [
    [8, 34, 31, 123, 113, 117, 150, 185, 143, 145],
    [34, 8, 19, 92, 82, 109, 169, 215, 161, 130],
    [31, 19, 8, 91, 76, 88, 173, 214, 166, 118],
    [123, 92, 91, 8, 13, 29, 232, 250, 228, 197],
    [113, 82, 76, 13, 8, 27, 244, 261, 242, 187],
    [117, 109, 88, 29, 27, 8, 259, 275, 256, 207],
    [150, 169, 173, 232, 244, 259, 8, 122, 9, 292],
    [185, 215, 214, 250, 261, 275, 122, 8, 115, 327],
    [143, 161, 166, 228, 242, 256, 9, 115, 8, 284],
    [145, 130, 118, 197, 187, 207, 292, 327, 284, 8],
];

/// The round trip between two regions' exchanges, microseconds.
pub fn round_trip_us(one: u8, other: u8) -> u64 {
    let row = ROUND_TRIP_MS[usize::from(one) % REGIONS.len()];
    u64::from(row[usize::from(other) % REGIONS.len()]) * 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_symmetric_and_the_shares_make_a_hundred() {
        for one in 0..10 {
            for other in 0..10 {
                assert_eq!(round_trip_us(one, other), round_trip_us(other, one));
            }
        }
        assert_eq!(REGIONS.iter().map(|r| r.share).sum::<u32>(), 100);
    }
}
