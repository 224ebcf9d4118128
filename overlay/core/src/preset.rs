//! Every timing of a peer, by the kind of network it lives in, each number with
//! its source. Never read a duration of the protocol from anywhere else: a peer
//! that mixes two presets suspects what is merely far away.

use std::time::Duration;

/// The kind of network that the peers of an overlay share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// One machine: tests and demonstrations. An election ends within seconds.
    Local,
    /// One building or data centre.
    Lan,
    /// The open internet.
    #[default]
    Wan,
}

/// How super-nodes watch each other (SWIM).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gossip {
    /// One member is probed each period. SWIM's protocol period (Das 2002);
    /// memberlist: 1 s on a LAN and locally, 5 s on a WAN.
    pub probe_period: Duration,
    /// How long a direct probe may take before others are asked to probe.
    /// memberlist: 500 ms LAN, 3 s WAN, 200 ms local.
    pub probe_rtt: Duration,
    /// Members asked to probe on one's behalf; memberlist: 3, local 1.
    pub indirect_probes: usize,
    /// A suspect is declared dead after this many probe periods, times log10 of
    /// the number of members where that is above 1; memberlist: 4 LAN, 6 WAN,
    /// 3 local.
    pub suspicion_periods: u32,
    /// Time between rounds of gossip; memberlist: 200 ms LAN, 500 ms WAN,
    /// 100 ms local.
    pub gossip_period: Duration,
    /// Members that each round goes to; memberlist: 3 LAN and local, 4 WAN.
    pub gossip_fanout: usize,
    /// Time between announcements to members believed dead, which is how the
    /// two sides of a healed partition find each other; foca: 65 s LAN,
    /// 125 s WAN.
    pub announce_dead_period: Duration,
    /// How long a dead member is remembered, so that old news cannot bring it
    /// back. Chosen: well past the time that any gossip lives; Serf: 24 h.
    pub forget_dead_after: Duration,
}

/// How peers find each other while nobody serves, and keep their rosters equal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Muster {
    /// Time between two rounds of telling others whom one knows. Chosen: three
    /// rounds fit into the quiet time.
    pub interval: Duration,
    /// The assembly is closed when it has not grown for this long. Chosen: a
    /// peer started by the same script or the same power cut still gets in.
    pub quiet: Duration,
    /// Time between comparisons of rosters. Chosen: a mandate that missed
    /// someone costs that peer one such wait, at 100 bytes a comparison.
    pub roster_interval: Duration,
}

/// The pace of a race, and of those who run it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Election {
    /// How long the traffic of one level lasts. Chosen: some tens of round
    /// trips of this kind of network, so that queues fill and loss shows
    /// (FlashFlow measures 30 s, where one measurement has to do).
    pub level_duration: Duration,
    /// How long officer and jurors wait for an answer beyond the time that the
    /// work takes. Chosen: three round trips of a slow path and one retry.
    pub reply_timeout: Duration,
    /// The next closest super-node takes the term over after this much silence
    /// of the officer. Chosen: longer than one level with its replies, shorter
    /// than a person waits.
    pub officer_timeout: Duration,
    /// Time a candidate must have been up. gtk-gnutella asks an hour of its
    /// ultrapeers; who was up for t will most likely stay for about another t
    /// (Saroiu 2002).
    pub uptime: Duration,
    /// Time between two reports of a super-node to the officer. Chosen: two
    /// reports fall into every sample of the law.
    pub report_interval: Duration,
    /// Time between two samples of how many super-nodes are needed. A need must
    /// last three. Chosen: three samples outlast one failure detection.
    pub sample_interval: Duration,
    /// Rest after a role change, while placement moves and loads settle, before
    /// the same officer acts again. Chosen: about two samples.
    pub settle: Duration,
    /// How long a mandate is valid. Chosen: an officer and its auditors that
    /// vanish leave nobody in office for longer than this; Tor's consensus
    /// lives 3 h, its relays' measurements a day or more.
    pub mandate_lifetime: Duration,
    /// A mandate is renewed when less than this is left. Chosen: a third of the
    /// lifetime, so that a renewal may fail several times.
    pub mandate_renewal: Duration,
    /// The first wait after a demotion. Given: 30 min on a WAN, scaled down
    /// with the rest elsewhere. See [`Backoff`](crate::election::backoff::Backoff).
    pub backoff_first: Duration,
    /// The longest wait after demotions; given: about 17 h on a WAN.
    pub backoff_longest: Duration,
    /// How long a dialled-back address counts as reachable. Chosen: NAT
    /// mappings and leases change within hours, seldom within minutes.
    pub reachable_for: Duration,
    /// How far a candidate's clock may be off. NTP keeps hosts within tens of
    /// milliseconds; mandates and records tolerate 10 s.
    pub clock_offset: Duration,
}

/// How a leaf keeps its homes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Home {
    /// A lost home is replaced after a random part of this. A handshake costs
    /// the accepting side about a millisecond: the jitter has to spread the
    /// leaves of one super-node thin enough (2 500 over 10 s: 250 a second
    /// over all others).
    pub attach_jitter: Duration,
    /// How long an attachment may take before the next super-node is tried.
    pub attach_timeout: Duration,
    /// Longest wait between attempts while no super-node answers; waits double
    /// up to it, with jitter (RFC 8085, section 3.1.1, on backing off).
    pub retry_longest: Duration,
    /// Time between keep-alives of an idle session. NAT mappings of UDP live at
    /// least 2 min by RFC 4787 (REQ-5), 30 s in much of what is deployed
    /// (Richter 2016): 20 s is enough.
    pub keep_alive: Duration,
}

/// All timings of a preset.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timings {
    /// Failure detection among super-nodes.
    pub gossip: Gossip,
    /// Cold start and roster exchange.
    pub muster: Muster,
    /// Races, terms and mandates.
    pub election: Election,
    /// Leaves and their homes.
    pub home: Home,
}

impl Gossip {
    /// How long a new super-node may take to answer the failure detector
    /// before it counts as dead: a few probes, and the suspicion after them.
    pub fn join_grace(&self) -> Duration {
        self.probe_period * (self.suspicion_periods + 4)
    }
}

impl Preset {
    /// The timings of this kind of network.
    pub fn timings(self) -> Timings {
        match self {
            Preset::Local => local(),
            Preset::Lan => lan(),
            Preset::Wan => wan(),
        }
    }
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn local() -> Timings {
    Timings {
        gossip: Gossip {
            // Quicker than memberlist's 1 s: a demonstration shows a failure at once.
            probe_period: ms(300),
            probe_rtt: ms(150),
            indirect_probes: 3,
            suspicion_periods: 3,
            gossip_period: ms(100),
            gossip_fanout: 3,
            announce_dead_period: s(3),
            forget_dead_after: s(600),
        },
        muster: Muster {
            interval: ms(200),
            quiet: ms(700),
            roster_interval: s(1),
        },
        election: Election {
            level_duration: ms(150),
            reply_timeout: ms(500),
            officer_timeout: s(2),
            uptime: s(1),
            report_interval: ms(250),
            sample_interval: ms(500),
            settle: s(1),
            mandate_lifetime: s(600),
            mandate_renewal: s(200),
            // The WAN's 30 min and 17 h, 600 times faster.
            backoff_first: s(3),
            backoff_longest: s(102),
            reachable_for: s(60),
            clock_offset: s(10),
        },
        home: Home {
            attach_jitter: ms(200),
            attach_timeout: s(1),
            retry_longest: s(2),
            keep_alive: s(5),
        },
    }
}

fn lan() -> Timings {
    Timings {
        gossip: Gossip {
            probe_period: s(1),
            probe_rtt: ms(500),
            indirect_probes: 3,
            suspicion_periods: 4,
            gossip_period: ms(200),
            gossip_fanout: 3,
            announce_dead_period: s(65),
            forget_dead_after: s(24 * 3600),
        },
        muster: Muster {
            interval: s(1),
            quiet: s(4),
            roster_interval: s(5),
        },
        election: Election {
            level_duration: ms(500),
            reply_timeout: s(1),
            officer_timeout: s(8),
            uptime: s(30),
            report_interval: s(1),
            sample_interval: s(2),
            settle: s(5),
            mandate_lifetime: s(6 * 3600),
            mandate_renewal: s(2 * 3600),
            // The WAN's 30 min and 17 h, 30 times faster.
            backoff_first: s(60),
            backoff_longest: s(34 * 60),
            reachable_for: s(1800),
            clock_offset: s(10),
        },
        home: Home {
            attach_jitter: s(2),
            attach_timeout: s(3),
            retry_longest: s(15),
            keep_alive: s(15),
        },
    }
}

fn wan() -> Timings {
    Timings {
        gossip: Gossip {
            probe_period: s(5),
            probe_rtt: s(3),
            indirect_probes: 3,
            suspicion_periods: 6,
            gossip_period: ms(500),
            gossip_fanout: 4,
            announce_dead_period: s(125),
            forget_dead_after: s(24 * 3600),
        },
        muster: Muster {
            interval: s(5),
            quiet: s(20),
            roster_interval: s(30),
        },
        election: Election {
            level_duration: s(3),
            reply_timeout: s(3),
            officer_timeout: s(30),
            uptime: s(3600),
            report_interval: s(10),
            sample_interval: s(20),
            settle: s(60),
            mandate_lifetime: s(24 * 3600),
            mandate_renewal: s(8 * 3600),
            backoff_first: s(30 * 60),
            backoff_longest: s(17 * 3600),
            reachable_for: s(4 * 3600),
            clock_offset: s(10),
        },
        home: Home {
            attach_jitter: s(10),
            attach_timeout: s(10),
            retry_longest: s(120),
            keep_alive: s(20),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timings_that_depend_on_each_other_agree() {
        for preset in [Preset::Local, Preset::Lan, Preset::Wan] {
            let Timings {
                gossip,
                muster,
                election,
                home,
            } = preset.timings();
            assert!(gossip.probe_rtt < gossip.probe_period);
            assert!(muster.quiet >= 3 * muster.interval);
            assert!(
                election.officer_timeout > 2 * election.level_duration + election.reply_timeout
            );
            assert!(2 * election.report_interval <= election.sample_interval);
            assert!(3 * election.mandate_renewal <= election.mandate_lifetime);
            assert!(election.backoff_first < election.backoff_longest);
            assert!(home.attach_jitter < home.retry_longest);
        }
    }

    #[test]
    fn an_election_on_one_machine_ends_within_seconds() {
        let t = Preset::Local.timings();
        // Uptime and muster run side by side; then six levels of three juries.
        let start = t.election.uptime.max(t.muster.quiet);
        assert!(start + 18 * t.election.level_duration < Duration::from_secs(5));
    }
}
