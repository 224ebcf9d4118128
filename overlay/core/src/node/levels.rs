//! The levels of a race, as its officer runs it: juries are called level by
//! level until the rules say that it is over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use canopy_proto::wire::{self, core_message::Kind};

use super::annals::RaceRecord;
use super::race::{Elector, Phase, Raced, Sitting};
use super::{Core, Event};
use crate::election::ballot::VerifiedBallot;
use crate::election::jury::{self, Standing, Standings, Voter};
use crate::election::race::{Measure, Race, RaceConfig, Step};
use crate::election::tally;
use crate::keyspace::NodeId;
use crate::time::Now;

impl Core {
    pub(super) fn start_levels(&mut self, now: Now, candidate: NodeId) {
        let floor_bps = self.config.floor_bps;
        let Some((_, run)) = self.run_of(&candidate) else {
            return;
        };
        let Phase::Voters { beacon, .. } = run.phase else {
            return;
        };
        let config = RaceConfig::new(candidate, run.claim_bps, floor_bps);
        let networks: BTreeSet<&Arc<str>> = run
            .voters
            .iter()
            .filter(|(node, _)| **node != candidate)
            .map(|(_, elector)| &elector.prefix)
            .collect();
        let race = Box::new(Race::new(config, networks.len()));
        run.phase = Phase::Levels {
            beacon,
            race,
            sitting: None,
        };
        self.next_level(now, candidate);
    }

    /// Calls the jury that the rules ask for, or ends the race.
    fn next_level(&mut self, now: Now, candidate: NodeId) {
        // All start together, once the slowest summons has arrived.
        let start = now.at + self.config.timing.election.reply_timeout / 6;
        let Some((_, run)) = self.run_of(&candidate) else {
            return;
        };
        let Phase::Levels { race, sitting, .. } = &mut run.phase else {
            return;
        };
        match race.next() {
            Step::Done => self.end_race(now, &candidate),
            Step::Measure(measure) => {
                *sitting = Some(Sitting {
                    measure,
                    start,
                    called: BTreeSet::new(),
                    awaited: BTreeSet::new(),
                    ballots: Vec::new(),
                });
                self.summon(now, candidate);
            }
        }
    }

    /// Calls whoever the lots fall on and was not called to this level yet.
    fn summon(&mut self, now: Now, candidate: NodeId) {
        let timing = self.config.timing.election;
        let officer = self.contact.signed.clone();
        let standings = self.host.as_ref().map(|host| &host.standings);
        let Some(election) = &mut self.election else {
            return;
        };
        let term = election.term;
        // Whoever is measured itself measures nobody.
        let running: Vec<NodeId> = election.runs.keys().copied().collect();
        let Some(run) = election.runs.get_mut(&candidate) else {
            return;
        };
        run.excluded
            .extend(running.into_iter().filter(|node| *node != candidate));
        let Phase::Levels {
            beacon,
            sitting: Some(sitting),
            ..
        } = &mut run.phase
        else {
            return;
        };
        let measure = sitting.measure;
        let mut excluded = absent_at(&run.absent, measure.share_bps);
        excluded.extend(run.excluded.iter().copied());
        let drawn = jury::draw(
            electorate(&run.voters, standings),
            beacon,
            measure.jury,
            &candidate,
            measure.k,
            &excluded,
        );
        let voted: BTreeSet<NodeId> = sitting.ballots.iter().map(|b| b.ballot().voter).collect();
        let called: Vec<NodeId> = drawn
            .iter()
            .copied()
            .filter(|n| !sitting.awaited.contains(n) && !voted.contains(n))
            .collect();
        sitting.awaited.extend(called.iter().copied());
        sitting.called.extend(called.iter().copied());
        let start_in = sitting.start.since(now.at);
        let notice = wire::JuryNotice {
            term,
            beacon: beacon.to_bytes(),
            voters: drawn.iter().map(|node| node.to_bytes()).collect(),
            share_bps: measure.share_bps,
            duration_ms: (timing.level_duration + timing.reply_timeout * 2).as_millis() as u32,
        };
        let mut letters = vec![(candidate, run.via, Kind::JuryNotice(notice))];
        for node in called {
            let Some(elector) = run.voters.get(&node) else {
                continue;
            };
            let summons = wire::Summons {
                term,
                beacon: beacon.to_bytes(),
                candidate: Some(run.candidate.signed.clone()),
                jury: measure.jury,
                level: measure.level,
                share_bps: measure.share_bps,
                duration_ms: timing.level_duration.as_millis() as u32,
                officer: Some(officer.clone()),
                voter_prefix: elector.prefix.to_string(),
                start_in_ms: start_in.as_millis() as u32,
            };
            letters.push((node, elector.via, Kind::Summons(summons)));
        }
        let until = sitting.start.max(now.at) + timing.level_duration + timing.reply_timeout;
        let own = self.node_id();
        for (node, via, kind) in letters {
            match node == own {
                true => self
                    .loopback
                    .push_back(Box::new(wire::CoreMessage { kind: Some(kind) })),
                false => self.send_via(node, via, kind),
            }
        }
        self.race_until(&candidate, until);
    }

    pub(super) fn on_summons_reply(&mut self, now: Now, from: NodeId, reply: wire::SummonsReply) {
        let Some(candidate) = NodeId::from_slice(&reply.candidate) else {
            return;
        };
        let Some(election) = &mut self.election else {
            return;
        };
        let term = election.term;
        let Some(run) = election.runs.get_mut(&candidate) else {
            return;
        };
        let Phase::Levels {
            beacon,
            sitting: Some(sitting),
            ..
        } = &mut run.phase
        else {
            return;
        };
        let current = (sitting.measure.jury, sitting.measure.level);
        let Some(voter) = NodeId::from_slice(&reply.voter) else {
            return;
        };
        // Nobody excuses or speaks for another juror.
        if reply.term != term
            || voter != from
            || (reply.jury, reply.level) != current
            || !sitting.awaited.contains(&voter)
        {
            return;
        }
        if reply.sits_out {
            sitting.awaited.remove(&voter);
            let at = run.absent.entry(voter).or_insert(u64::MAX);
            *at = (*at).min(sitting.measure.share_bps);
            return self.replace_juror(now, candidate);
        }
        let ballot = reply
            .ballot
            .as_ref()
            .and_then(|signed| VerifiedBallot::open(signed).ok());
        let Some(ballot) = ballot else { return };
        let b = ballot.ballot();
        let prefix = run
            .voters
            .get(&voter)
            .map(|elector| elector.prefix.as_ref());
        let fits = b.voter == voter
            && b.term == term
            && b.beacon == *beacon
            && b.candidate == candidate
            && (b.jury, b.level) == current
            && b.network == self.config.network
            && Some(b.voter_prefix.as_str()) == prefix;
        if fits {
            sitting.awaited.remove(&voter);
            sitting.ballots.push(ballot);
            if sitting.awaited.is_empty() {
                self.close_level(now, candidate);
            }
        }
    }

    /// Draws another juror while the level has not started.
    fn replace_juror(&mut self, now: Now, candidate: NodeId) {
        let awaited = |core: &mut Self| match core.run_of(&candidate)?.1.phase {
            Phase::Levels {
                sitting: Some(ref sitting),
                ..
            } => Some((sitting.start, sitting.awaited.is_empty())),
            _ => None,
        };
        let Some((start, nobody)) = awaited(self) else {
            return;
        };
        if start > now.at {
            self.summon(now, candidate);
        }
        let still = awaited(self).is_some_and(|(_, nobody)| nobody);
        if nobody && still {
            self.close_level(now, candidate);
        }
    }

    /// Hands the ballots to the rules.
    fn close_level(&mut self, now: Now, candidate: NodeId) {
        let standings = self.host.as_ref().map(|host| &host.standings);
        let Some(election) = &mut self.election else {
            return;
        };
        let term = election.term;
        let Some(run) = election.runs.get_mut(&candidate) else {
            return;
        };
        let Phase::Levels {
            beacon,
            race,
            sitting,
        } = &mut run.phase
        else {
            return;
        };
        let Some(sitting) = sitting.take() else {
            return;
        };
        let Measure {
            level,
            jury,
            share_bps,
            k,
        } = sitting.measure;
        let silent = sitting.awaited.into_iter();
        run.absent.extend(silent.map(|node| (node, 0)));
        let everybody = jury::draw(
            electorate(&run.voters, standings),
            beacon,
            jury,
            &candidate,
            usize::MAX,
            &BTreeSet::new(),
        );
        let absent = absent_at(&run.absent, share_bps);
        let sat_out = passed_over(&everybody, &sitting.called, &absent, &run.excluded, k);
        let event = Event::Level {
            term,
            candidate,
            level,
            share_bps,
            ballots: sitting.ballots.len(),
            median_bps: tally::median_bps(&sitting.ballots),
        };
        race.ballots(level, jury, sitting.ballots, sat_out);
        self.event(event);
        self.next_level(now, candidate);
    }

    fn end_race(&mut self, now: Now, candidate: &NodeId) {
        let Some(election) = &mut self.election else {
            return;
        };
        let term = election.term;
        let Some(run) = election.runs.remove(candidate) else {
            return;
        };
        if let Phase::Levels { beacon, race, .. } = run.phase
            && let Some(outcome) = race.finish()
        {
            if let Some(host) = &mut self.host {
                for (voter, near) in &outcome.grades {
                    host.standings.note(*voter, *near);
                }
            }
            let score_bps = if outcome.elected {
                outcome.score_bps
            } else {
                0
            };
            let candidate = run.candidate.node_id;
            let floor_bps = self.config.floor_bps;
            let race = RaceRecord::of(candidate, run.claim_bps, floor_bps, &outcome);
            self.annals.raced(term, race);
            let raced = Raced {
                candidate: run.candidate,
                claim_bps: run.claim_bps,
                beacon,
                outcome,
            };
            election.raced.push(raced);
            self.event(Event::Raced {
                term,
                candidate,
                score_bps,
            });
        }
        self.step_at(now.at);
    }

    /// The present phase took too long: go on with what there is.
    pub(super) fn race_overdue(&mut self, now: Now, candidate: NodeId) {
        let Some((_, run)) = self.run_of(&candidate) else {
            return;
        };
        match run.phase {
            Phase::Beacon { .. } => self.call_voters(now, candidate),
            Phase::Voters { .. } => self.start_levels(now, candidate),
            Phase::Levels { .. } => self.close_level(now, candidate),
        }
    }
}

/// Those who may be drawn, each with its standing.
fn electorate<'a>(
    voters: &'a BTreeMap<NodeId, Elector>,
    standings: Option<&'a Standings>,
) -> impl Iterator<Item = Voter> + 'a {
    voters.iter().map(move |(node, elector)| Voter {
        node: *node,
        prefix: elector.prefix.clone(),
        standing: standings.map_or(Standing::FULL, |s| s.of(node)),
    })
}

/// Who is drawn no more where each carries `share_bps`: whoever sat out at more
/// may carry that.
fn absent_at(absent: &BTreeMap<NodeId, u64>, share_bps: u64) -> BTreeSet<NodeId> {
    let absent = absent.iter().filter(|(_, at)| **at <= share_bps);
    absent.map(|(node, _)| *node).collect()
}

/// How many of a jury's lots fell on somebody `absent`, who sat out or was
/// silent at this level or an earlier one, until `k` were called. `everybody` is
/// in the order of the lots, and `excluded` cannot be called. Whoever was absent
/// once is drawn no more at that share, but each of them makes the rest more
/// corrupt at every level that follows. Where some sat out too late to be replaced
/// their lots count, and not those of others that might have been drawn.
fn passed_over(
    everybody: &[NodeId],
    called: &BTreeSet<NodeId>,
    absent: &BTreeSet<NodeId>,
    excluded: &BTreeSet<NodeId>,
    k: usize,
) -> usize {
    let last = everybody.iter().rposition(|node| called.contains(node));
    let (lots, others) = everybody.split_at(last.map_or(0, |last| last + 1));
    let free = |node: &NodeId| !absent.contains(node) && !excluded.contains(node);
    let complete = called.difference(absent).count() >= k || others.iter().any(free);
    let lots = if complete { lots } else { everybody };
    lots.iter().filter(|node| absent.contains(node)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_sat_out_at_an_earlier_level_counts_at_every_later_one() {
        let node = |n: u8| NodeId([n; 32]);
        let everybody: Vec<NodeId> = (1..=9).map(node).collect();
        let set = |nodes: &[u8]| nodes.iter().copied().map(node).collect::<BTreeSet<_>>();
        let none = BTreeSet::new();
        let passed_over = |called: &[u8], absent: &BTreeSet<NodeId>, excluded| {
            passed_over(&everybody, &set(called), absent, excluded, 3)
        };
        // Lots 2 and 4 fell on absent ones, 5 completes the jury; 8 is of another.
        let absent = set(&[2, 4, 8]);
        assert_eq!(passed_over(&[1, 3, 5], &absent, &none), 2);
        // One of them was called and sat out before, another one came in its place.
        assert_eq!(passed_over(&[1, 2, 3, 5], &absent, &none), 2);
        // Two sat out too late: another jury's absent one has nothing to do with it.
        assert_eq!(passed_over(&[1, 2, 3, 4], &absent, &none), 2);
        // One that was called and stayed silent counts as well.
        let absent = set(&[2, 3, 4, 8]);
        assert_eq!(passed_over(&[1, 3, 5], &absent, &none), 3);
        // Nobody is left to complete the jury.
        let running = set(&[6, 7, 9]);
        assert_eq!(passed_over(&[1, 5], &absent, &running), 4);
        assert_eq!(passed_over(&[], &absent, &none), 0);
        assert_eq!(passed_over(&[1, 2, 3], &none, &none), 0);
    }

    #[test]
    fn whoever_sat_out_may_be_called_where_less_is_asked_for() {
        let [thin, silent] = [1, 2].map(|n| NodeId([n; 32]));
        let absent = BTreeMap::from([(thin, 2_000), (silent, 0)]);
        assert_eq!(absent_at(&absent, 2_000), BTreeSet::from([thin, silent]));
        assert_eq!(absent_at(&absent, 1_999), BTreeSet::from([silent]));
    }
}
