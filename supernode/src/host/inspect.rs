//! What this peer tells others that ask on behalf of an operator: how it fares,
//! and what it remembers. It moves nothing, and keeps nothing that is secret.

use std::sync::{Arc, Weak};
use std::time::Duration;

use canopy_core::election::criteria::{Criterion, Verdict};
use canopy_core::election::race::{End, LevelSummary};
use canopy_core::keyspace::NodeId;
use canopy_core::node::{Core, ElectionRecord, RaceRecord};
use canopy_overlay::calls::Calls;
use canopy_overlay::fabric::Answer;
use canopy_overlay::peer::Handler;
use canopy_proto::wire;
use canopy_proto::wire::refusal::Code;
use canopy_proto::wire::{inspect, inspect_reply, request, response};
use futures_util::future::join_all;

use super::{Host, Inner};

/// Officers that one question is passed on to.
pub(crate) const MAX_OFFICERS: usize = 16;
/// Longest wait for one whom a question is passed on to: less than the asker
/// waits.
const PASSED_ON: Duration = Duration::from_millis(250);

/// Answers the other peers for as long as the host is there.
struct Inspector(Weak<Inner>);

impl Handler for Inspector {
    fn handle(&self, _: NodeId, request: request::Kind) -> Answer {
        let Some(inner) = self.0.upgrade() else {
            return Answer::refuse(Code::Unavailable, "this peer is closing");
        };
        let request::Kind::Inspect(wire::Inspect { what: Some(what) }) = request else {
            return Answer::refuse(Code::Malformed, "this peer does not know what is asked");
        };
        let host = Host { inner };
        // Most ask for figures, and those need nobody's turn.
        if let inspect::What::Figures(_) = what {
            return Answer::Now(told(inspect_reply::What::Figures(host.figures())));
        }
        Answer::later(async move {
            match host.inspect(what).await {
                Some(what) => told(what),
                None => response::Kind::Refusal(wire::Refusal {
                    code: Code::Unavailable.into(),
                    message: "this peer is closing".to_owned(),
                }),
            }
        })
    }
}

fn told(what: inspect_reply::What) -> response::Kind {
    let what = Some(what);
    response::Kind::Inspect(Box::new(wire::InspectReply { what }))
}

impl Host {
    pub(super) fn answer_inspection(&self) {
        let inspector = Inspector(Arc::downgrade(&self.inner));
        self.peer().set_inspector(Box::new(inspector));
    }

    /// Answers as to another peer. `None`: the peer has ended.
    pub async fn inspect(&self, what: inspect::What) -> Option<inspect_reply::What> {
        use inspect_reply::What;
        let peer = self.peer();
        match what {
            inspect::What::Figures(_) => Some(What::Figures(self.figures())),
            inspect::What::Elections(ask) => {
                let term = ask.term;
                let told = peer.look(move |core, _| elections(core, term));
                let mut told = told.await?;
                let officers = ask.officers.iter().take(MAX_OFFICERS);
                let officers = officers.filter_map(|bytes| NodeId::from_slice(bytes));
                let asked = officers.map(|officer| self.elections_of(officer, term));
                for more in join_all(asked).await {
                    told.elections.extend(more);
                }
                Some(What::Elections(told))
            }
            inspect::What::Standing(_) => {
                let told = peer.look(|core, now| standing(core, &core.status(now).verdict));
                told.await.map(What::Standing)
            }
            inspect::What::Paper(ask) => {
                let told = peer.look(move |core, _| paper(core, &ask));
                told.await.map(What::Paper)
            }
            inspect::What::Shards(_) => Some(What::Shards(self.shard_parts().await)),
            inspect::What::Hot(ask) => Some(What::Hot(self.hot(&ask).await)),
            inspect::What::Leaves(ask) => self.leaves(&ask).await.map(What::Leaves),
        }
    }
}

impl Host {
    /// What another remembers of a term, if a session to it is open.
    async fn elections_of(&self, officer: NodeId, term: u64) -> Vec<wire::ElectionRecord> {
        if officer == self.node_id() || self.peer().fabric().session(&officer).is_none() {
            return Vec::new();
        }
        let ask = inspect::What::Elections(wire::ElectionsAsk {
            term,
            officers: Vec::new(),
        });
        let ask = request::Kind::Inspect(wire::Inspect { what: Some(ask) });
        let answer = self.call(officer, ask, PASSED_ON).await;
        let Ok(response::Kind::Inspect(reply)) = answer else {
            return Vec::new();
        };
        let Some(inspect_reply::What::Elections(told)) = reply.what else {
            return Vec::new();
        };
        let mut records = told.elections;
        records.retain(|record| record.officer == officer.0.as_slice());
        records
    }
}

fn elections(core: &Core, term: u64) -> wire::Elections {
    let asked = core.elections().iter();
    let asked = asked.filter(|record| term == 0 || record.term == term);
    wire::Elections {
        elections: asked
            .map(|record| election(core, record, term > 0))
            .collect(),
    }
}

fn election(core: &Core, of: &ElectionRecord, whole: bool) -> wire::ElectionRecord {
    let bytes = |nodes: &[NodeId]| nodes.iter().map(|node| node.to_bytes()).collect();
    let refusals = of.refusals.iter();
    wire::ElectionRecord {
        term: of.term,
        officer: core.node_id().to_bytes(),
        founding: of.founding,
        reason: of.reason.clone(),
        opened_ms: of.opened_ms,
        closed_ms: of.closed_ms.unwrap_or(0),
        places: of.places as u32,
        candidates: bytes(&of.candidates),
        activated: bytes(&of.activated),
        races: of.races.iter().map(|of| race(of, whole)).collect(),
        elected: bytes(&of.elected),
        refusals: refusals
            .map(|(signer, candidate, reason)| wire::SignatureRefused {
                signer: signer.to_bytes(),
                candidate: candidate.to_bytes(),
                reason: reason.clone(),
            })
            .collect(),
        running: of.closed_ms.is_none() && core.election() == Some(of.term),
    }
}

fn race(of: &RaceRecord, whole: bool) -> wire::RaceRecord {
    let levels = of.levels.iter().filter(|_| whole);
    wire::RaceRecord {
        candidate: of.candidate.to_bytes(),
        claim_bps: of.claim_bps,
        floor_bps: of.floor_bps,
        score_bps: of.score_bps,
        carried: of.carried,
        end: match of.end {
            End::Limit => "limit",
            End::Claim => "claim",
            End::Electorate => "electorate",
            End::Levels => "levels",
        }
        .to_owned(),
        level: of.decisive.0,
        jury: of.decisive.1,
        levels: levels.map(level).collect(),
    }
}

fn level(of: &LevelSummary) -> wire::LevelRecord {
    let findings = of.findings.iter();
    wire::LevelRecord {
        level: of.level,
        share_bps: of.share_bps,
        passed: of.passed,
        findings: findings
            .map(|found| wire::JuryFinding {
                jury: found.jury,
                ballots: found.ballots as u32,
                sat_out: found.sat_out as u32,
                median_bps: found.median_bps,
                carried: found.carried,
            })
            .collect(),
    }
}

fn standing(core: &Core, now: &Verdict) -> wire::StandingReport {
    let criteria = |verdict: &Verdict| verdict.items.iter().map(criterion).collect();
    let stood = core.stood();
    wire::StandingReport {
        now: criteria(now),
        elected_ms: stood.map_or(0, |(at, _)| *at),
        then: stood.map_or_else(Vec::new, |(_, verdict)| criteria(verdict)),
    }
}

fn criterion(of: &Criterion) -> wire::CriterionRecord {
    wire::CriterionRecord {
        name: of.name.to_owned(),
        value: of.value.clone(),
        threshold: of.threshold.clone(),
        pass: of.pass,
    }
}

fn paper(core: &Core, ask: &wire::PaperAsk) -> wire::Paper {
    let node = NodeId::from_slice(&ask.node_id);
    let entry = node.and_then(|node| core.roster().get(&node));
    wire::Paper {
        entry: entry.map(|entry| entry.to_wire()),
    }
}
