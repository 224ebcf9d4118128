//! From a peer to its metrics: reads what is counted anyway.

use canopy_core::node::Load;
use canopy_overlay::calls::Calls;
use canopy_overlay::peer::{Peer, PeerStats};

use super::Metrics;
use super::catalogue::{Metric, id};
use crate::relay::{Dropped, Refused};
use crate::role::SuperNodeRole;
use crate::routing::TopicsHeld;
use crate::service::IndexStats;
use crate::settings::Topology;
use crate::status::Role;
use crate::store::MAX_WAITING;

/// Where the numbers come from.
pub(crate) struct Reading<'a> {
    pub(crate) peer: &'a Peer,
    pub(crate) role: &'a SuperNodeRole,
    pub(crate) topology: Topology,
    /// Whether the peer has joined.
    pub(crate) ready: bool,
    pub(crate) is: Role,
    /// What it holds in memory for topics.
    pub(crate) topics: TopicsHeld,
}

impl Metrics {
    /// Brings everything up to date.
    pub(crate) fn read(&self, from: &Reading<'_>) {
        self.read_peer(from);
        self.read_load(from);
        self.read_relay(from.role);
        self.read_overlay(from);
        self.read_driver(&from.peer.stats());
        self.read_index(&from.role.totals());
        self.read_holdings(from.role);
        self.read_routing(from);
    }

    fn gauge(&self, metric: &Metric, value: impl Into<f64>) {
        self.set(metric, &[], value.into());
    }

    fn whole(&self, metric: &Metric, value: u64) {
        // Exact up to 2^53.
        self.set(metric, &[], value as f64);
    }

    fn counter(&self, metric: &Metric, count: u64) {
        self.count(metric, &[], count);
    }

    fn read_peer(&self, from: &Reading<'_>) {
        self.set(&id::BUILD, &[env!("CARGO_PKG_VERSION")], 1.0);
        let overlay = [from.peer.network(), from.topology.as_str()];
        self.set(&id::OVERLAY, &overlay, 1.0);
        self.gauge(&id::READY, from.ready);
        for role in [
            Role::Leaf,
            Role::Candidate,
            Role::Deputy,
            Role::SuperNode,
            Role::Retiring,
        ] {
            let is = f64::from(from.is == role);
            self.set(&id::ROLE_IS, &[role.as_str()], is);
        }
        let status = from.peer.status();
        for item in &status.verdict.items {
            self.set(&id::CRITERION_MET, &[item.name], f64::from(item.pass));
        }
        self.gauge(&id::CAPACITY, bytes(status.capacity_bps));
    }

    fn read_load(&self, from: &Reading<'_>) {
        let serves = from.role.index().is_some();
        let load = match serves {
            true => *from.role.load().borrow(),
            false => Load::default(),
        };
        for (dimension, milli) in [
            ("connections", load.connections),
            ("operations", load.operations),
            ("bytes", load.bytes),
            ("memory", load.memory),
            ("cpu", load.cpu),
        ] {
            let ratio = f64::from(milli) / 1000.0;
            self.set(&id::LOAD, &[dimension], ratio);
        }
        let limits = from.role.limits();
        self.whole(&id::SESSIONS_LIMIT, limits.sessions as u64);
        self.whole(&id::OPERATIONS_LIMIT, limits.operations_per_s);
        self.gauge(&id::LINE_LIMIT, bytes(limits.bps));
        self.whole(&id::PROCESSORS, crate::load::processors() as u64);

        let fabric = from.peer.fabric();
        self.whole(&id::SESSIONS, fabric.session_count() as u64);
        let measuring = fabric.bytes_measuring();
        let traffic = fabric.bytes_sent().saturating_sub(measuring);
        self.count(&id::SENT, &["traffic"], traffic);
        self.count(&id::SENT, &["measurement"], measuring);
        let carriers = fabric.carriers();
        self.whole(&id::CARRIERS, carriers.open as u64);
        self.count(&id::CARRIERS_OPENED, &["inbound"], carriers.accepted);
        self.count(&id::CARRIERS_OPENED, &["outbound"], carriers.opened);
        self.counter(&id::CARRIERS_REFUSED, carriers.refused);
        self.count(&id::CARRIER_BYTES, &["inbound"], carriers.received);
        self.count(&id::CARRIER_BYTES, &["outbound"], carriers.sent);
        self.counter(&id::CARRIER_DROPPED, carriers.dropped);
        self.whole(&id::LEAVES, from.peer.status().leaves as u64);
    }

    fn read_relay(&self, role: &SuperNodeRole) {
        let (stats, limits) = (role.relayed(), role.relay_limits());
        self.whole(&id::RELAY_FLOWS, stats.flows);
        self.whole(&id::RELAY_FLOWS_LIMIT, limits.flows as u64);
        self.gauge(&id::RELAY_LIMIT, bytes(limits.total_bps.unwrap_or(0)));
        self.counter(&id::RELAY_OPENED, stats.opened);
        self.counter(&id::RELAY_PACKETS, stats.packets);
        self.counter(&id::RELAY_BYTES, stats.bytes);
        self.counter(&id::RELAY_SENT, stats.sent);
        for (reason, count) in Refused::NAMES.iter().zip(stats.refused) {
            self.count(&id::RELAY_REFUSED_FLOWS, &[reason], count);
        }
        for (reason, count) in Dropped::NAMES.iter().zip(stats.dropped) {
            self.count(&id::RELAY_DROPPED_PACKETS, &[reason], count);
        }
    }

    fn read_overlay(&self, from: &Reading<'_>) {
        let (status, placement) = (from.peer.status(), from.peer.placement());
        self.whole(&id::SUPER_NODES, status.super_nodes.len() as u64);
        self.whole(&id::HOMES, status.homes.len() as u64);
        self.whole(&id::ASSEMBLY, status.assembly as u64);
        let own = placement.get(&from.peer.node_id());
        self.gauge(&id::SEATS, own.map_or(0, |member| member.seats));
        let all = placement.members().map(|member| u64::from(member.seats));
        self.whole(&id::PLACEMENT_SEATS, all.sum());
    }

    fn read_driver(&self, stats: &PeerStats) {
        self.count(&id::SESSIONS_OPENED, &["inbound"], stats.sessions_inbound);
        self.count(&id::SESSIONS_OPENED, &["outbound"], stats.sessions_outbound);
        self.count(&id::MEASUREMENTS, &["done"], stats.measured);
        self.count(&id::MEASUREMENTS, &["failed"], stats.measurements_failed);
        self.count(&id::DIAL_BACKS, &["reached"], stats.dial_backs_reached);
        self.count(&id::DIAL_BACKS, &["failed"], stats.dial_backs_failed);
        self.count(&id::RACES, &["carried"], stats.races_carried);
        self.count(&id::RACES, &["failed"], stats.races_failed);
        for (metric, count) in [
            (&id::ROLE_CHANGES, stats.role_changes),
            (&id::SESSIONS_CLOSED, stats.sessions_closed),
            (&id::SUPER_NODES_UP, stats.super_nodes_up),
            (&id::SUPER_NODES_DOWN, stats.super_nodes_down),
            (&id::ELECTIONS_OPENED, stats.elections_opened),
            (&id::ELECTIONS_CLOSED, stats.elections_closed),
            (&id::LEVELS, stats.levels),
            (&id::BALLOTS, stats.ballots),
            (&id::MANDATES, stats.mandates_given),
            (&id::MANDATES_REFUSED, stats.mandates_refused),
            (&id::MESSAGES, stats.messages),
            (&id::MESSAGES_DROPPED, stats.messages_dropped),
            (&id::DIALS_FAILED, stats.dials_failed),
        ] {
            self.counter(metric, count);
        }
        self.whole(&id::MESSAGES_WAITING, stats.messages_waiting);
    }

    fn read_index(&self, stats: &IndexStats) {
        for (operation, outcome, count) in [
            ("get", "found", stats.gets_found),
            ("get", "none", stats.gets_none),
            ("put", "stored", stats.puts_stored),
            ("put", "refused", stats.puts_refused),
            ("search", "done", stats.searches),
            ("local_read", "done", stats.local_reads),
            ("local_put", "done", stats.local_puts),
        ] {
            self.count(&id::OPERATIONS, &[operation, outcome], count);
        }
        let passes = stats.repairs_complete;
        self.count(&id::REPAIRS, &["complete"], passes);
        self.count(&id::REPAIRS, &["incomplete"], stats.repairs_incomplete);
        self.counter(&id::HEDGES, stats.hedged);
        self.counter(&id::REPAIRED, stats.repaired);
        self.counter(&id::FULL_TERMS, stats.held.full_terms);
        self.whole(&id::UNCONFIRMED, stats.unconfirmed);
        self.gauge(&id::SETTLING, stats.settling);
        self.whole(&id::RECORDS, stats.held.records);
        self.whole(&id::BYTES, stats.held.bytes);
        self.whole(&id::ITEMS, stats.held.items);
        self.whole(&id::LETTERS, stats.held.letters);
    }

    fn read_routing(&self, from: &Reading<'_>) {
        let stats = from.role.carried();
        for (outcome, count) in [
            ("delivered", stats.messages_delivered),
            ("absent", stats.messages_absent),
            ("refused", stats.messages_refused),
        ] {
            self.count(&id::ROUTED_MESSAGES, &[outcome], count);
        }
        self.count(&id::ROUTED_POSTS, &["taken"], stats.posts_taken);
        self.count(&id::ROUTED_POSTS, &["pushed"], stats.posts_pushed);
        self.counter(&id::GIVEN_UP, stats.posts_given_up);
        self.counter(&id::ROUTED_BYTES, stats.bytes);
        self.whole(&id::TOPICS, from.topics.topics);
        self.whole(&id::TOPIC_HISTORY, from.topics.history_bytes);
        self.whole(&id::SUBSCRIPTIONS, from.topics.subscriptions);
    }

    /// What an index may hold, and its store.
    fn read_holdings(&self, role: &SuperNodeRole) {
        let limits = role.index_limits();
        self.whole(&id::RECORDS_LIMIT, limits.records);
        self.whole(&id::BYTES_LIMIT, limits.bytes);
        let index = role.index();
        let store = index.as_ref().map(|index| index.store());
        let disk = store.map_or(Some(0), |store| store.disk_bytes());
        if let Some(disk) = disk {
            self.whole(&id::STORE_DISK, disk);
        }
        self.whole(&id::STORE_WAITING, store.map_or(0, |s| s.waiting_bytes()));
        self.whole(&id::STORE_WAITING_LIMIT, MAX_WAITING as u64);
    }
}

/// From bits a second.
fn bytes(bps: u64) -> f64 {
    bps as f64 / 8.0
}
