//! Every metric that a peer has: name, kind, unit, labels, meaning. What is not
//! here cannot be shown, and docs/metrics.md is made from it.
//!
//! The values of each label are written down as well, so that the number of
//! series is known beforehand and never follows the number of peers.

use super::latency::BOUNDS;

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, from 0 at the start of the peer.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by size, in fixed buckets.
    Histogram,
}

/// What a metric is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    Count,
    /// 0 or 1.
    Switch,
    /// A share: 1 is all of it.
    Ratio,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// Bytes a second.
    BytesPerSecond,
    /// Things a second.
    PerSecond,
}

/// One label of a metric, with all values that it can take.
#[derive(Debug, PartialEq, Eq)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// What it can be; empty: one value, which the peer was started with.
    pub values: &'static [&'static str],
}

/// One metric.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// What it is counted in.
    pub unit: Unit,
    /// Its labels.
    pub labels: &'static [&'static Label],
    /// What it says, in one line.
    pub help: &'static str,
}

impl Metric {
    /// Most series of it on one peer.
    pub fn series(&self) -> usize {
        let labelled: usize = self.labels.iter().map(|l| l.values.len().max(1)).product();
        match self.kind {
            // Buckets, the last one, sum and count.
            Kind::Histogram => labelled * (BOUNDS.len() + 3),
            Kind::Counter | Kind::Gauge => labelled,
        }
    }
}

/// Metrics that belong together.
#[derive(Debug)]
pub struct Section {
    /// What they are about.
    pub title: &'static str,
    /// They.
    pub metrics: &'static [&'static Metric],
}

/// Every metric.
pub fn all() -> impl Iterator<Item = &'static Metric> {
    SECTIONS.iter().flat_map(|section| section.metrics).copied()
}

const VERSION: Label = one("version");
const NETWORK: Label = one("network");
const TOPOLOGY: Label = one("topology");
const ROLE: Label = label(
    "role",
    &["leaf", "candidate", "deputy", "super-node", "retiring"],
);
const CRITERION: Label = label(
    "criterion",
    &[
        "willing",
        "topology",
        "not_serving",
        "not_cordoned",
        "not_banned",
        "uptime",
        "reachable",
        "uplink",
        "clock",
        "version",
        "backoff",
        "address_cap",
        "prefix_cap",
    ],
);
const DIMENSION: Label = label(
    "dimension",
    &["connections", "operations", "bytes", "memory", "cpu"],
);
const DIRECTION: Label = label("direction", &["inbound", "outbound"]);
const PURPOSE: Label = label("purpose", &["traffic", "measurement"]);
const OPERATION: Label = label(
    "operation",
    &["get", "put", "search", "local_read", "local_put"],
);
const DONE: Label = label("outcome", &["found", "none", "stored", "refused", "done"]);
const REQUEST: Label = label("request", &super::requests::NAMES);
const CODE: Label = label("code", &super::requests::CODES);
const MEASURED: Label = label("outcome", &["done", "failed"]);
const REACHED: Label = label("outcome", &["reached", "failed"]);
const RACED: Label = label("outcome", &["carried", "failed"]);
const COMPLETE: Label = label("outcome", &["complete", "incomplete"]);
const CARRIED: Label = label("outcome", &["delivered", "absent", "refused"]);
const STEP: Label = label("step", &["taken", "pushed"]);
const RELAY_REFUSED: Label = label("reason", &crate::relay::Refused::NAMES);
const RELAY_DROPPED: Label = label("reason", &crate::relay::Dropped::NAMES);
const ANSWERED: Label = label("outcome", &["ok", "failed"]);

const fn one(name: &'static str) -> Label {
    label(name, &[])
}

const fn label(name: &'static str, values: &'static [&'static str]) -> Label {
    Label { name, values }
}

macro_rules! catalogue {
    ($($section:literal { $($id:ident: $kind:ident $unit:ident $name:literal [$($label:ident),*] $help:literal;)* })*) => {
        /// Each metric under a name of its own.
        pub mod id {
            use super::*;
            $($(#[doc = $help] pub const $id: Metric = Metric {
                name: $name,
                kind: Kind::$kind,
                unit: Unit::$unit,
                labels: &[$(&$label),*],
                help: $help,
            };)*)*
        }

        /// The catalogue.
        pub const SECTIONS: &[Section] = &[$(Section {
            title: $section,
            metrics: &[$(&id::$id),*],
        }),*];
    };
}

catalogue! {
    "The peer" {
        BUILD: Gauge Switch "canopy_build_info" [VERSION]
            "Always 1; the version of this program.";
        OVERLAY: Gauge Switch "canopy_overlay_info" [NETWORK, TOPOLOGY]
            "Always 1; the overlay that this peer is part of.";
        READY: Gauge Switch "canopy_ready" []
            "Whether this peer has joined: it has a home or serves, as /readyz says.";
        ROLE_IS: Gauge Switch "canopy_role" [ROLE]
            "1 for the role that this peer has, 0 for the others.";
        ROLE_CHANGES: Counter Count "canopy_role_changes_total" []
            "Changes of this peer's role.";
        CRITERION_MET: Gauge Switch "canopy_criterion_met" [CRITERION]
            "Whether this peer meets a criterion of candidacy; a candidate meets them all.";
        CAPACITY: Gauge BytesPerSecond "canopy_capacity_bytes_per_second" []
            "What this peer was elected with, or measured at last; 0: never measured.";
    }
    "Load" {
        LOAD: Gauge Ratio "canopy_load_ratio" [DIMENSION]
            "Share of its limit that a super-node uses, as it reports to the election; 0 while it serves nothing.";
        SESSIONS: Gauge Count "canopy_sessions" []
            "Open sessions to other peers.";
        SESSIONS_LIMIT: Gauge Count "canopy_sessions_limit" []
            "Sessions that count as full use.";
        SESSIONS_OPENED: Counter Count "canopy_sessions_opened_total" [DIRECTION]
            "Sessions opened, by who dialled; a session that replaces one counts again.";
        SESSIONS_CLOSED: Counter Count "canopy_sessions_closed_total" []
            "Peers whose last session ended.";
        CARRIERS: Gauge Count "canopy_carriers" []
            "Carriers to other peers, open now: TCP connections that carry sessions and flows where UDP does not get through.";
        CARRIERS_OPENED: Counter Count "canopy_carriers_opened_total" [DIRECTION]
            "Carriers opened, by who did.";
        CARRIERS_REFUSED: Counter Count "canopy_carriers_refused_total" []
            "TCP connections turned away: at a limit, too slow, or no peer of an overlay.";
        CARRIER_BYTES: Counter Bytes "canopy_carrier_bytes_total" [DIRECTION]
            "Bytes of datagrams that carriers brought and took, without any header.";
        CARRIER_DROPPED: Counter Count "canopy_carrier_dropped_packets_total" []
            "Datagrams lost because a carrier's queue was full, or it had ended.";
        LEAVES: Gauge Count "canopy_leaves" []
            "Leaves that have this super-node as a home.";
        SENT: Counter Bytes "canopy_sent_bytes_total" [PURPOSE]
            "Bytes sent, headers of IP and UDP included; measurement: what only measured a line.";
        LINE_LIMIT: Gauge BytesPerSecond "canopy_line_limit_bytes_per_second" []
            "Bytes a second that count as full use: the uplink that was set, else the capacity; 0: not known.";
        OPERATIONS_LIMIT: Gauge PerSecond "canopy_index_operations_limit_per_second" []
            "Index operations a second that count as full use.";
        PROCESSORS: Gauge Count "canopy_processors" []
            "Processors that this process may use: full use of the dimension cpu.";
    }
    "The relay" {
        RELAY_FLOWS: Gauge Count "canopy_relay_flows" []
            "Flows between two leaves that this super-node relays.";
        RELAY_FLOWS_LIMIT: Gauge Count "canopy_relay_flows_limit" []
            "Most flows that there may be.";
        RELAY_LIMIT: Gauge BytesPerSecond "canopy_relay_limit_bytes_per_second" []
            "What all flows together may carry; 0: no limit.";
        RELAY_OPENED: Counter Count "canopy_relay_flows_opened_total" []
            "Flows opened.";
        RELAY_REFUSED_FLOWS: Counter Count "canopy_relay_flows_refused_total" [RELAY_REFUSED]
            "Flows refused: there are as many as there may be (full), the asker has as many as it may (yours), the line or the processor is busy, or the peer is cordoned or has no relay (closed).";
        RELAY_PACKETS: Counter Count "canopy_relay_packets_total" []
            "Datagrams forwarded.";
        RELAY_BYTES: Counter Bytes "canopy_relay_bytes_total" []
            "Bytes forwarded, as leaves sent them, without any header.";
        RELAY_SENT: Counter Bytes "canopy_relay_sent_bytes_total" []
            "Bytes that relaying sent, headers of IP and UDP included.";
        RELAY_DROPPED_PACKETS: Counter Count "canopy_relay_dropped_packets_total" [RELAY_DROPPED]
            "Datagrams not forwarded: no frame (malformed), no such flow (unknown), from an address that is not bound (stray), to an end that is not bound (unbound), over a limit (limited), a bind without proof (forged), or not taken by the system (failed).";
    }
    "The overlay as this peer sees it" {
        SUPER_NODES: Gauge Count "canopy_super_nodes" []
            "Super-nodes that serve.";
        SUPER_NODES_UP: Counter Count "canopy_super_nodes_up_total" []
            "Times that a super-node came into service.";
        SUPER_NODES_DOWN: Counter Count "canopy_super_nodes_down_total" []
            "Times that a super-node left service, whatever the reason.";
        SEATS: Gauge Count "canopy_seats" []
            "Seats of this peer in the placement: its share of the keys; 0 while it does not serve.";
        PLACEMENT_SEATS: Gauge Count "canopy_placement_seats" []
            "Seats of all super-nodes in the placement.";
        HOMES: Gauge Count "canopy_homes" []
            "Super-nodes that this leaf keeps a session to: two when all is well; 0 for a super-node.";
        ASSEMBLY: Gauge Count "canopy_assembly_peers" []
            "Peers that this one gathers with while it knows no super-node.";
    }
    "Elections" {
        ELECTIONS_OPENED: Counter Count "canopy_elections_opened_total" []
            "Elections that this peer opened, as returning officer or chair.";
        ELECTIONS_CLOSED: Counter Count "canopy_elections_closed_total" []
            "Elections of this peer that ended.";
        LEVELS: Counter Count "canopy_race_levels_total" []
            "Levels measured in races that this peer ran.";
        BALLOTS: Counter Count "canopy_ballots_total" []
            "Ballots that came in for races that this peer ran.";
        RACES: Counter Count "canopy_races_total" [RACED]
            "Races that this peer ran; failed: the candidate carried less than a super-node must.";
        MANDATES: Counter Count "canopy_mandates_total" []
            "Mandates that elections of this peer gave out.";
        MANDATES_REFUSED: Counter Count "canopy_mandates_refused_total" []
            "Mandates from others that were not valid.";
        MEASUREMENTS: Counter Count "canopy_measurements_total" [MEASURED]
            "Lines that this peer measured as a juror.";
        DIAL_BACKS: Counter Count "canopy_dial_backs_total" [REACHED]
            "Candidates that this peer dialled back.";
    }
    "Messages of the protocol" {
        MESSAGES: Counter Count "canopy_messages_total" []
            "Messages of other peers.";
        MESSAGES_DROPPED: Counter Count "canopy_messages_dropped_total" []
            "Messages dropped because too many waited.";
        MESSAGES_WAITING: Gauge Count "canopy_messages_waiting" []
            "Messages that wait.";
        DIALS_FAILED: Counter Count "canopy_dials_failed_total" []
            "Peers that could not be reached when the protocol asked for it.";
    }
    "The index" {
        OPERATIONS: Counter Count "canopy_index_operations_total" [OPERATION, DONE]
            "Operations of the index: gets found or none, records put that a quorum stored or refused, searches done, and what other super-nodes read or stored here (local).";
        REFUSALS: Counter Count "canopy_index_refusals_total" [CODE]
            "Requests refused, and records refused within a put, by the code that was answered; quota: the publisher has too much here.";
        REQUESTS: Histogram Seconds "canopy_index_request_duration_seconds" [REQUEST]
            "Time from the arrival of a request to its answer; a request that was cancelled does not count.";
        HEDGES: Counter Count "canopy_index_hedges_total" []
            "Requests for which a second owner was asked because the first was slow.";
        RECORDS: Gauge Count "canopy_index_records" []
            "Records held, removals included.";
        RECORDS_LIMIT: Gauge Count "canopy_index_records_limit" []
            "Most records that may be held.";
        BYTES: Gauge Bytes "canopy_index_bytes" []
            "Encoded size of the records held.";
        BYTES_LIMIT: Gauge Bytes "canopy_index_limit_bytes" []
            "Most bytes of records that may be held.";
        ITEMS: Gauge Count "canopy_index_items" []
            "Searchable items held.";
        LETTERS: Gauge Count "canopy_index_letters" []
            "Messages held for peers that were not there when they were sent.";
        FULL_TERMS: Counter Count "canopy_index_full_terms_total" []
            "Times that an item was not entered under a term because the term was full.";
    }
    "Replication and repair" {
        SETTLING: Gauge Switch "canopy_index_settling" []
            "Whether this super-node may still lack records of ranges that it newly owns.";
        REPAIRED: Counter Count "canopy_repair_records_sent_total" []
            "Records sent to an owner that lacked them.";
        REPAIRS: Counter Count "canopy_repair_passes_total" [COMPLETE]
            "Passes over all records held; incomplete: not all owners confirmed theirs, and it is tried again.";
        UNCONFIRMED: Gauge Count "canopy_repair_unconfirmed_records" []
            "Records whose owners had not all confirmed a copy at the end of the last pass.";
    }
    "Messages and topics" {
        ROUTED_MESSAGES: Counter Count "canopy_routed_messages_total" [CARRIED]
            "Messages from leaf to leaf that this super-node was asked to pass on; absent: the addressee was not there, or took none; refused: forged, over a limit, or not taken in time.";
        ROUTED_POSTS: Counter Count "canopy_routed_posts_total" [STEP]
            "Posts to topics; taken: from their publishers; pushed: to a subscribing leaf, each time.";
        GIVEN_UP: Counter Count "canopy_routed_subscribers_given_up_total" []
            "Subscribing leaves that did not take posts in time, each time.";
        ROUTED_BYTES: Counter Bytes "canopy_routed_bytes_total" []
            "Bytes of messages delivered and of posts pushed.";
        TOPICS: Gauge Count "canopy_topics" []
            "Topics that this super-node looks after and has subscribers or recent posts of.";
        TOPIC_HISTORY: Gauge Bytes "canopy_topic_history_bytes" []
            "Recent posts that are kept for subscribers who lost their home.";
        SUBSCRIPTIONS: Gauge Count "canopy_topic_subscriptions" []
            "Subscriptions of leaves at this super-node.";
    }
    "The store on disk" {
        STORE_DISK: Gauge Bytes "canopy_store_disk_bytes" []
            "What the store takes on disk.";
        STORE_WAITING: Gauge Bytes "canopy_store_waiting_bytes" []
            "Bytes that wait to be written.";
        STORE_WAITING_LIMIT: Gauge Bytes "canopy_store_waiting_limit_bytes" []
            "Bytes that may wait; past it writes are refused as busy.";
        STORE_WRITTEN: Counter Bytes "canopy_store_written_bytes_total" []
            "Bytes of records and removals written.";
        STORE_COMMITS: Histogram Seconds "canopy_store_commit_duration_seconds" []
            "Time of one group commit: its writes and one sync to disk.";
        STORE_FAILURES: Counter Count "canopy_store_failures_total" []
            "Group commits that failed; after the first one the store takes no more writes.";
    }
    "Requests of this leaf (`leaf run` only)" {
        CLIENT_REQUESTS: Counter Count "canopy_client_requests_total" [ANSWERED]
            "Requests of this leaf to super-nodes; failed: given up or refused.";
        CLIENT_HEDGES: Counter Count "canopy_client_hedges_total" []
            "Second super-nodes that were asked because the first was slow.";
        CLIENT_RETRIES: Counter Count "canopy_client_retries_total" []
            "Further attempts after a failed or refused one.";
        CLIENT_KEPT: Gauge Count "canopy_client_kept_records" []
            "Records that this leaf keeps published.";
        CLIENT_REFRESHES: Counter Count "canopy_client_refreshes_total" []
            "Refreshes of such records.";
    }
    "Content of this leaf (`leaf run` only)" {
        CONTENT_SENT: Counter Bytes "canopy_content_sent_bytes_total" []
            "Bytes of pieces that were sent to other leaves, proofs included.";
        CONTENT_FETCHED: Counter Bytes "canopy_content_fetched_bytes_total" []
            "Bytes of pieces that came from other leaves, proofs included.";
        CONTENT_PIECES: Counter Count "canopy_content_pieces_total" []
            "Pieces that came and are on disk.";
        CONTENT_REFUSED: Counter Count "canopy_content_refused_total" []
            "Pieces and sizes whose proof did not hold; who sent one is asked no more in that fetch.";
    }
    "The process" {
        PROCESS_CPU: Counter Seconds "process_cpu_seconds_total" []
            "Processor time used, in whole seconds.";
        PROCESS_OPEN_FDS: Gauge Count "process_open_fds" []
            "Open file descriptors.";
        PROCESS_MAX_FDS: Gauge Count "process_max_fds" []
            "Most file descriptors that may be open.";
        PROCESS_VIRTUAL: Gauge Bytes "process_virtual_memory_bytes" []
            "Virtual memory.";
        PROCESS_VIRTUAL_MAX: Gauge Bytes "process_virtual_memory_max_bytes" []
            "Most virtual memory; 0: no limit.";
        PROCESS_RESIDENT: Gauge Bytes "process_resident_memory_bytes" []
            "Resident memory.";
        PROCESS_START: Gauge Seconds "process_start_time_seconds" []
            "When the process started, seconds since 1970.";
        PROCESS_THREADS: Gauge Count "process_threads" []
            "Threads.";
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_say_kind_and_unit() {
        for metric in all() {
            let name = metric.name;
            let known = name.starts_with("canopy_") || name.starts_with("process_");
            assert!(known, "{name}");
            let total = name.ends_with("_total");
            assert_eq!(total, metric.kind == Kind::Counter, "{name}");
            let base = name.strip_suffix("_total").unwrap_or(name);
            let suffix = match metric.unit {
                Unit::Count | Unit::Switch => continue,
                Unit::Ratio => "_ratio",
                Unit::Seconds => "_seconds",
                Unit::Bytes => "_bytes",
                Unit::BytesPerSecond => "_bytes_per_second",
                Unit::PerSecond => "_per_second",
            };
            assert!(base.ends_with(suffix), "{name} should end with {suffix}");
        }
    }

    #[test]
    fn a_name_stands_for_one_metric_and_a_label_for_no_peer() {
        let names: BTreeSet<&str> = all().map(|metric| metric.name).collect();
        assert_eq!(names.len(), all().count());
        for metric in all() {
            for label in metric.labels {
                let told = ["version", "network", "topology"].contains(&label.name);
                assert!(told || !label.values.is_empty(), "{}", metric.name);
            }
        }
    }
}
