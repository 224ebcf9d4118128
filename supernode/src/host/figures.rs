//! How this peer fares, by its own count.

use std::net::SocketAddr;

use canopy_core::node::Load;
use canopy_proto::wire;

use super::Host;
use crate::service::{IndexStats, of_store};

impl Host {
    /// Says where the control plane of this peer listens.
    pub(crate) fn announce_control(&self, addr: SocketAddr) {
        // There is one a peer, and it stays where it is.
        let _ = self.inner.control.set(addr);
    }

    /// How this peer fares, now.
    pub fn figures(&self) -> wire::Figures {
        let (reach, status) = (&self.inner.reach, self.peer().status());
        let fabric = self.peer().fabric();
        let stats = reach.role.stats();
        let load = *reach.role.load().borrow();
        let rates = reach.role.rates();
        let uptime = self.inner.started.elapsed();
        let failure = reach.role.failure().borrow().clone();
        wire::Figures {
            uptime_us: u64::try_from(uptime.as_micros()).unwrap_or(u64::MAX),
            agent: concat!("canopy/", env!("CARGO_PKG_VERSION")).to_owned(),
            role: status.role.as_str().to_owned(),
            utilisation: stats.map(|_| utilisation(&load)),
            leaves: status.leaves as u32,
            sessions: fabric.session_count() as u32,
            held: stats.map(|stats| wire::Held {
                records: stats.held.records,
                bytes: stats.held.bytes,
                items: stats.held.items,
            }),
            operations: stats.map(|stats| operations(&stats)),
            sent_bytes: fabric.bytes_sent().saturating_sub(fabric.bytes_measuring()),
            operations_per_s: stats.map_or(0.0, |_| rates.operations_per_s),
            sent_bps: stats.map_or(0.0, |_| rates.bps),
            settling: stats.is_some_and(|stats| stats.settling),
            election: status.election.unwrap_or(0),
            failure: failure.map_or_else(String::new, |failure| of_store(&failure).message),
            cordoned: status.cordoned,
            control: self
                .inner
                .control
                .get()
                .map_or_else(String::new, SocketAddr::to_string),
        }
    }
}

fn utilisation(load: &Load) -> wire::Utilisation {
    wire::Utilisation {
        connections_milli: load.connections,
        operations_milli: load.operations,
        bytes_milli: load.bytes,
        memory_milli: load.memory,
        cpu_milli: load.cpu,
    }
}

fn operations(stats: &IndexStats) -> wire::Operations {
    wire::Operations {
        puts_stored: stats.puts_stored,
        puts_refused: stats.puts_refused,
        local_puts: stats.local_puts,
        gets_found: stats.gets_found,
        gets_none: stats.gets_none,
        local_reads: stats.local_reads,
        searches: stats.searches,
        refused: stats.refused,
    }
}
