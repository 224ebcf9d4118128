//! Why somebody was elected, or was not: from what officers remember, from the
//! mandates with their ballots, and from the elected themselves.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use canopy_core::election::mandate;
use canopy_core::election::tally;
use canopy_core::keyspace::NodeId;
use canopy_overlay::calls::Calls;
use canopy_proto::control as pb;
use canopy_proto::wire;
use canopy_proto::wire::{inspect, inspect_reply};
use prost::Message;
use tonic::Status;

use super::convert;
use super::poll::{ask_all, reason};
use super::survey::Member;
use crate::host::{Host, MAX_OFFICERS};

/// Mandates of one term that are explained.
const MAX_MANDATES: usize = 32;
/// Super-nodes asked what they remember.
const MAX_ASKED: usize = 1024;
/// Elections listed where no number is given, and at most.
const LISTED: u32 = 100;
const MAX_LISTED: u32 = 1000;

/// `ListElections`.
pub(super) async fn list(
    host: &Host,
    members: &[Member],
    request: &pb::ListElectionsRequest,
) -> Result<pb::ListElectionsReply, Status> {
    let limit = match request.limit {
        0 => LISTED,
        limit if limit <= MAX_LISTED => limit,
        limit => {
            let why = format!("limit: {limit} is over {MAX_LISTED}");
            return Err(Status::invalid_argument(why));
        }
    };
    let officers = officers(host, members).await?;
    let (mut records, freshness) = remembered(host, members, 0, officers).await?;
    records.sort_by_key(|record| std::cmp::Reverse((record.term, record.opened_ms)));
    records.truncate(limit as usize);
    Ok(pb::ListElectionsReply {
        elections: records.iter().map(election).collect(),
        freshness: Some(freshness),
    })
}

/// `ExplainElection`, of a term.
pub(super) async fn explain(
    host: &Host,
    members: &[Member],
    term: u64,
) -> Result<pb::ExplainElectionReply, Status> {
    let holders = members.iter().filter(|member| member.term == term);
    let holders: Vec<NodeId> = holders.map(|m| m.node).take(MAX_MANDATES).collect();
    let mandates = mandates(host, holders.clone()).await?;
    let officer = mandates
        .first()
        .and_then(|mandate| mandate.officer.parse().ok());
    let officers = officer.into_iter().collect();
    let (records, freshness) = remembered(host, members, term, officers).await?;
    if records.is_empty() && holders.is_empty() {
        return Err(Status::not_found(format!(
            "nobody who was reached remembers an election of term {term}; list them with ListElections"
        )));
    }
    Ok(pb::ExplainElectionReply {
        term,
        elections: records.iter().map(election).collect(),
        mandates,
        freshness: Some(freshness),
    })
}

fn closing() -> Status {
    Status::unavailable("this peer is closing; ask another")
}

/// Who ran elections by the mandates that are kept here, and serves no more or
/// never did.
async fn officers(host: &Host, members: &[Member]) -> Result<Vec<NodeId>, Status> {
    let papers = host.peer().look(|core, _| {
        let papers = core.roster().entries().filter_map(|entry| entry.mandate());
        papers
            .map(|paper| paper.body.clone())
            .collect::<Vec<Bytes>>()
    });
    let papers = papers.await.ok_or_else(closing)?;
    let officer = |body: Bytes| {
        let mandate = wire::Mandate::decode(body).ok()?;
        NodeId::from_slice(&mandate.officer)
    };
    let serves = |node: &NodeId| members.iter().any(|m| m.serves() && m.node == *node);
    let officers: BTreeSet<NodeId> = papers.into_iter().filter_map(officer).collect();
    let others = officers.into_iter().filter(|officer| !serves(officer));
    Ok(others.take(MAX_OFFICERS).collect())
}

/// What the super-nodes, this peer and the `officers` remember of `term`; 0: of
/// all.
async fn remembered(
    host: &Host,
    members: &[Member],
    term: u64,
    officers: Vec<NodeId>,
) -> Result<(Vec<wire::ElectionRecord>, pb::Freshness), Status> {
    let ask = inspect::What::Elections(wire::ElectionsAsk {
        term,
        officers: officers.iter().map(|officer| officer.to_bytes()).collect(),
    });
    let own = host.node_id();
    let serving = members.iter().filter(|member| member.serves());
    let others = serving
        .map(|member| member.node)
        .filter(|node| *node != own);
    let others: Vec<NodeId> = others.take(MAX_ASKED).collect();
    let of = others.len() as u32 + 1;
    let asked = others.into_iter().map(|node| (node, ask.clone()));
    let mut answers = ask_all(host, asked).await;
    let local = host.inspect(ask).await.ok_or_else(closing)?;
    answers.push((own, Ok(local)));
    let mut freshness = pb::Freshness {
        of,
        ..Default::default()
    };
    let mut records: Vec<wire::ElectionRecord> = Vec::new();
    for (node, answer) in answers {
        match answer {
            Ok(inspect_reply::What::Elections(told)) => {
                freshness.reached += 1;
                for record in told.elections {
                    // Nobody speaks for others but for the one who was asked for.
                    let own = record.officer == node.0.as_slice();
                    let passed_on = officers.iter().any(|o| record.officer == o.0.as_slice());
                    let asked = term == 0 || record.term == term;
                    if asked && (own || passed_on) && !records.contains(&record) {
                        records.push(record);
                    }
                }
            }
            Ok(_) => freshness
                .missing
                .push(missing(node, "gave a wrong answer".to_owned())),
            Err(error) => freshness.missing.push(missing(node, reason(error))),
        }
    }
    freshness.missing.truncate(convert::MAX_MISSING);
    Ok((records, freshness))
}

fn missing(node: NodeId, reason: String) -> pb::Missing {
    let node_id = node.to_string();
    pb::Missing { node_id, reason }
}

fn text(node: &Bytes) -> String {
    NodeId::from_slice(node).map_or_else(String::new, |node| node.to_string())
}

fn election(of: &wire::ElectionRecord) -> pb::Election {
    pb::Election {
        term: of.term,
        officer: text(&of.officer),
        founding: of.founding,
        reason: of.reason.clone(),
        opened_ms: of.opened_ms,
        closed_ms: of.closed_ms,
        running: of.running,
        places: of.places,
        contenders: contenders(of),
    }
}

/// Everybody who stood, and deputies that were called into office.
fn contenders(of: &wire::ElectionRecord) -> Vec<pb::Contender> {
    let races: BTreeMap<&Bytes, &wire::RaceRecord> = of
        .races
        .iter()
        .map(|race| (&race.candidate, race))
        .collect();
    let activated = of.activated.iter().map(|node| (node, true));
    let stood = of.candidates.iter().map(|node| (node, false));
    activated
        .chain(stood)
        .map(|(node, activated)| {
            let race = races.get(node).copied();
            let elected = of.elected.contains(node);
            pb::Contender {
                node_id: text(node),
                elected,
                why: why(of, node, activated, race),
                race: race.map(convert_race),
            }
        })
        .collect()
}

/// What became of one who stood, in words.
fn why(
    of: &wire::ElectionRecord,
    node: &Bytes,
    activated: bool,
    race: Option<&wire::RaceRecord>,
) -> String {
    let elected = of.elected.contains(node);
    let refused: Vec<&str> = of
        .refusals
        .iter()
        .filter(|refusal| refusal.candidate == *node)
        .map(|refusal| refusal.reason.as_str())
        .collect();
    let over = of.closed_ms > 0;
    match (activated, race) {
        (true, _) if elected => "called into office from the reserve".to_owned(),
        (true, _) if !refused.is_empty() => refused.join("; "),
        (true, _) => "was to be called into office, and its mandate was not signed".to_owned(),
        (false, None) if over => {
            "not measured: the places were filled before its turn, or its race broke off".to_owned()
        }
        (false, None) => "waits to be measured".to_owned(),
        (false, Some(race)) if elected => {
            format!("elected with a score of {} bit/s", race.score_bps)
        }
        (false, Some(race)) if !race.carried => format!(
            "its score of {} bit/s is below the floor of {} bit/s",
            race.score_bps, race.floor_bps
        ),
        (false, Some(_)) if !refused.is_empty() => refused.join("; "),
        (false, Some(_)) if !over => "measured; the papers are being drawn up".to_owned(),
        (false, Some(race)) => {
            let ahead = |other: &&wire::RaceRecord| {
                of.elected.contains(&other.candidate) && other.score_bps >= race.score_bps
            };
            match of.races.iter().filter(ahead).count() {
                0 => "its mandate was not signed".to_owned(),
                ahead => format!("{ahead} others scored more, for {} places", of.places),
            }
        }
    }
}

fn convert_race(of: &wire::RaceRecord) -> pb::Race {
    let findings = |level: &wire::LevelRecord| {
        let findings = level.findings.iter();
        let finding = |found: &wire::JuryFinding| pb::Finding {
            jury: found.jury,
            ballots: found.ballots,
            sat_out: found.sat_out,
            median_bps: found.median_bps,
            carried: found.carried,
        };
        findings.map(finding).collect()
    };
    let levels = of.levels.iter().map(|level| pb::Level {
        level: level.level,
        share_bps: level.share_bps,
        pass: level.passed,
        findings: findings(level),
    });
    pb::Race {
        claim_bps: of.claim_bps,
        floor_bps: of.floor_bps,
        score_bps: of.score_bps,
        pass: of.carried,
        end: of.end.clone(),
        decisive_level: of.level,
        decisive_jury: of.jury,
        levels: levels.collect(),
    }
}

/// The mandates of `holders`: with ballots from here, else from themselves.
async fn mandates(host: &Host, holders: Vec<NodeId>) -> Result<Vec<pb::Mandate>, Status> {
    let wanted = holders.clone();
    let here = host.peer().look(move |core, _| {
        let paper = |node: &NodeId| Some((*node, core.roster().get(node)?.mandate()?.clone()));
        wanted.iter().filter_map(paper).collect::<Vec<_>>()
    });
    let mut papers: BTreeMap<NodeId, wire::SignedMandate> =
        here.await.ok_or_else(closing)?.into_iter().collect();
    let own = host.node_id();
    let others = || holders.iter().copied().filter(|node| *node != own);
    let whole = |node: &NodeId| papers.get(node).is_some_and(|p| !p.ballots.is_empty());
    let asked: Vec<(NodeId, inspect::What)> = others()
        .filter(|node| !whole(node))
        .map(|node| {
            let node_id = node.to_bytes();
            (node, inspect::What::Paper(wire::PaperAsk { node_id }))
        })
        .collect();
    for (node, answer) in ask_all(host, asked).await {
        if let Ok(inspect_reply::What::Paper(paper)) = answer
            && let Some(mandate) = paper.entry.and_then(|entry| entry.mandate)
        {
            papers.insert(node, mandate);
        }
    }
    let ask = inspect::What::Standing(wire::StandingAsk {});
    let mut standing = ask_all(host, others().map(|node| (node, ask.clone()))).await;
    if holders.contains(&own) {
        let local = host.inspect(ask).await.ok_or_else(closing)?;
        standing.push((own, Ok(local)));
    }
    let standing: BTreeMap<NodeId, wire::StandingReport> = standing
        .into_iter()
        .filter_map(|(node, answer)| match answer {
            Ok(inspect_reply::What::Standing(report)) => Some((node, report)),
            _ => None,
        })
        .collect();
    let known = holders.iter().filter_map(|node| {
        let mandate = mandate_of(papers.get(node)?)?;
        let report = standing.get(node);
        Some(pb::Mandate {
            criteria: report.map_or_else(Vec::new, |report| {
                report.then.iter().map(criterion).collect()
            }),
            criteria_at_ms: report.map_or(0, |report| report.elected_ms),
            ..mandate
        })
        .filter(|mandate| mandate.node_id == node.to_string())
    });
    Ok(known.collect())
}

fn criterion(of: &wire::CriterionRecord) -> pb::Criterion {
    pb::Criterion {
        name: of.name.clone(),
        value: of.value.clone(),
        threshold: of.threshold.clone(),
        pass: of.pass,
    }
}

fn mandate_of(signed: &wire::SignedMandate) -> Option<pb::Mandate> {
    let of = mandate::read(signed).ok()?;
    let signers = signed.endorsements.iter().map(|e| text(&e.signer));
    let ballots = of.ballots.iter().map(|ballot| {
        let of = ballot.ballot();
        pb::Ballot {
            voter: of.voter.to_string(),
            voter_prefix: of.voter_prefix.clone(),
            jury: of.jury,
            level: of.level,
            share_bps: of.share_bps,
            up_bps: of.up_bps,
            down_bps: of.down_bps,
            goodput_bps: of.goodput_bps(),
            round_trip_us: of.round_trip_us,
            loss_ppm: of.loss_ppm,
            issued_ms: of.issued_ms,
        }
    });
    Some(pb::Mandate {
        node_id: of.candidate.to_string(),
        term: of.term,
        basis: convert::basis(of.basis).to_owned(),
        deputy: of.deputy,
        capacity_bps: of.capacity_bps,
        seats: of.seats(),
        issued_ms: of.issued_ms,
        expires_ms: of.expires_ms,
        officer: of.officer.to_string(),
        signers: signers.collect(),
        beacon: of.beacon.to_string(),
        ballots: ballots.collect(),
        median_bps: tally::median_bps(&of.ballots),
        criteria: Vec::new(),
        criteria_at_ms: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u8) -> Bytes {
        NodeId([n; 32]).to_bytes()
    }

    fn race(n: u8, score_bps: u64) -> wire::RaceRecord {
        wire::RaceRecord {
            candidate: node(n),
            floor_bps: 5,
            score_bps,
            carried: score_bps >= 5,
            ..Default::default()
        }
    }

    #[test]
    fn each_who_stood_is_told_what_became_of_it() {
        let refusal = wire::SignatureRefused {
            signer: node(9),
            candidate: node(4),
            reason: "too many on that address".into(),
        };
        let mut record = wire::ElectionRecord {
            closed_ms: 7,
            places: 1,
            candidates: (1..=5).map(node).collect(),
            activated: vec![node(6), node(7)],
            races: vec![race(1, 20), race(2, 10), race(3, 4), race(4, 30)],
            elected: vec![node(1), node(6)],
            refusals: vec![refusal],
            ..Default::default()
        };
        let told = |record: &wire::ElectionRecord| -> Vec<(bool, String)> {
            let all = contenders(record).into_iter();
            all.map(|one| (one.elected, one.why)).collect()
        };
        let words = [
            (true, "from the reserve"),
            (false, "was not signed"),
            (true, "score of 20 bit/s"),
            (false, "1 others scored more, for 1 places"),
            (false, "below the floor of 5"),
            (false, "too many on that address"),
            (false, "before its turn"),
        ];
        let after = told(&record);
        assert_eq!(after.len(), words.len());
        for ((elected, why), (wanted, part)) in after.iter().zip(words) {
            assert!(*elected == wanted && why.contains(part), "{why}");
        }
        (record.closed_ms, record.elected) = (0, Vec::new());
        let during = told(&record);
        assert!(during[3].1.contains("being drawn up"), "{during:?}");
        assert!(during[6].1.contains("waits"), "{during:?}");
    }
}
