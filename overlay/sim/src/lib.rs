//! Canopy's simulator: the production core, and the production index, of any
//! number of peers in one process, in virtual time over a modelled network.
//! Everything follows from one seed.
//!
//! Nothing of the protocol is modelled here: what decides is the code that
//! ships. Only the world around it is: lines, distances, loss, NATs, clocks,
//! and the people who start and stop peers.
//!
//! | module | what is there |
//! |---|---|
//! | [`scenario`] | what happens, and what must hold nevertheless |
//! | [`run`](mod@run), [`report`] | running it, and what came of it |
//! | `users`, `data` | the production client and index service, in virtual time |
//! | `flat` | a flat Kademlia in place of the core, to compare with |
//! | [`loads`], [`ballots`] | what the overlay costs whom, a race ballot by ballot |
//! | [`picture`] | runs, drawn |
//! | [`cli`] | the program `canopy-sim` |
//! | [`world`] | cores, sessions, messages, measurements, faults |
//! | [`net`] | the network's numbers, each with its source |
//! | [`queue`], [`draw`], [`digest`] | order, chance, and proof that a run is the same run |

pub mod ballots;
pub mod cli;
mod data;
pub mod digest;
pub mod draw;
mod flat;
mod judge;
pub mod loads;
pub mod net;
pub mod picture;
pub mod queue;
pub mod report;
pub mod run;
pub mod scenario;
mod trouble;
mod users;
mod watch;
pub mod world;
