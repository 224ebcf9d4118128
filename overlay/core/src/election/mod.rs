//! The rules of the election, as pure functions and small state machines.
//! Nothing here sends a message, reads a clock or rolls a die: whoever runs a
//! term, serves on a jury or audits a mandate asks these modules, and gets the
//! same answer as everybody else.
//!
//! | module | what it decides |
//! |---|---|
//! | [`criteria`] | may this peer stand |
//! | [`law`] | how many super-nodes there should be |
//! | [`backoff`] | how long a demoted peer waits |
//! | [`ballot`] | what one juror measured, and that the juror signed it |
//! | [`jury`] | who measures: the lowest lots, one a network |
//! | [`tally`] | what ballots are worth: the median, and who was far off it |
//! | [`race`] | which level is measured next, and when a race is over |
//! | [`mandate`] | who may serve, and every check of that claim |
//! | [`endorse`] | whose signatures count, as far as the verifier knows |
//! | [`release`] | what ends a mandate early |

pub mod backoff;
pub mod ballot;
pub mod criteria;
pub mod endorse;
pub mod jury;
pub mod law;
pub mod mandate;
pub mod race;
pub mod release;
pub mod tally;

/// Voters of a full jury. The more there are, the smaller the share, the more
/// voters can carry it, and the rarer a corrupt majority. With 30 % of all
/// peers colluding, `tests/liars.rs` finds 0.37 % of mandates over 1.33x the
/// truth and 1.1 % of strong honest candidates kept out; juries of 31 cannot
/// meet both bars, because too many of the honest cannot carry their share of
/// a strong candidate (0.4 and 15 %). A mandate of 63 ballots has about 17 KB.
pub const K: usize = 63;
/// Fewer voters than this measure nothing.
pub const MIN_JURY: usize = 3;
/// Juries drawn independently for each race.
pub const JURIES: u32 = 3;
/// Levels a race may have: shares double, so 40 of them pass any line.
pub const MAX_LEVELS: u32 = 40;
