//! What peers' lines carry and how long peers stay, as others measured it.

use crate::draw::Draw;

/// Who can be dialled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Nat {
    /// By anybody.
    #[default]
    Open,
    /// By nobody; its own packets open a path that others may be told of.
    Home,
    /// By nobody, and each destination sees another port.
    Symmetric,
}

/// A class of lines.
pub struct Line {
    /// Peers in a thousand.
    pub share: u32,
    /// Uplink, bits a second.
    pub up_bps: u64,
    /// Downlink, bits a second.
    pub down_bps: u64,
}

/// The classes. Shares: Chawathe et al., "Making Gnutella-like P2P systems
/// scalable" (SIGCOMM 2003), table 1, which they took from the measurements of
/// Saroiu et al. (MMCN 2002): 20 % 1x, 45 % 10x, 30 % 100x, 4.9 % 1 000x and
/// 0.1 % 10 000x. The unit was a modem's; here it is 1 Mbit/s, and the two
/// highest classes, a data centre's, are cut to 1 Gbit/s. Downlinks: home lines
/// are about four times as fast down as up.
pub const PEER_LINES: [Line; 4] = [
    Line {
        share: 200,
        up_bps: 1_000_000,
        down_bps: 10_000_000,
    },
    Line {
        share: 450,
        up_bps: 10_000_000,
        down_bps: 40_000_000,
    },
    Line {
        share: 300,
        up_bps: 100_000_000,
        down_bps: 400_000_000,
    },
    Line {
        share: 50,
        up_bps: 1_000_000_000,
        down_bps: 1_000_000_000,
    },
];

/// Session lengths, in thousandths of their mean, at equally spaced quantiles:
/// Weibull with shape 0.6, which fits most of the peer-to-peer traces that
/// Zhang, Iosup and Epema compare ("The Peer-to-Peer Trace Archive", TU Delft
/// 2010, table 14: shapes 0.55 to 0.69).
const LENGTHS: [u64; 65] = [
    0, 1, 2, 4, 7, 10, 14, 18, 23, 29, 35, 41, 48, 56, 65, 74, 83, 94, 105, 117, 129, 143, 157,
    173, 189, 206, 224, 244, 265, 286, 310, 335, 361, 389, 419, 450, 484, 520, 558, 600, 644, 691,
    741, 796, 855, 919, 988, 1063, 1146, 1236, 1335, 1446, 1569, 1707, 1864, 2043, 2252, 2498,
    2794, 3162, 3637, 4287, 5275, 7148, 19530,
];

/// How long a peer stays, microseconds, where the mean is `mean_us`. Saroiu et
/// al. (MMCN 2002) found a mean of about 2.9 hours; see Gupta et al. 2004.
pub fn session_length_us(draw: &mut Draw, mean_us: u64) -> u64 {
    // A peer that goes at once was never there.
    draw.quantile(&LENGTHS)
        .max(5)
        .saturating_mul(mean_us / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_session_is_about_as_long_as_asked_for() {
        let mut draw = Draw::new(1, "sessions");
        let sum: u64 = (0..100_000)
            .map(|_| session_length_us(&mut draw, 1_000_000))
            .sum();
        let mean = sum / 100_000;
        assert!((900_000..1_150_000).contains(&mean), "{mean}");
    }

    #[test]
    fn line_shares_make_a_thousand() {
        assert_eq!(PEER_LINES.iter().map(|line| line.share).sum::<u32>(), 1000);
    }
}
