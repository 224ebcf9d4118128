//! The papers that follow from an election (mandates, recalls): drawn up, signed
//! by auditors or the assembly, and published.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use canopy_proto::wire::{self, core_message::Kind};

use super::race::Raced;
use super::running::Runner;
use super::{Core, Event};
use crate::election::mandate::{self, Basis, Mandate};
use crate::election::release::{self, Release};
use crate::identity::{Domain, verify_bytes};
use crate::keyspace::NodeId;
use crate::time::Now;

/// Auditors asked at once; two have to sign.
const AUDITORS: usize = 4;

/// A body that others have to sign.
pub(super) struct Paper {
    /// Body, ballots, and the signatures so far; of a release without ballots.
    pub(super) signed: wire::SignedMandate,
    candidate: NodeId,
    contact: Option<wire::Signed>,
    is_release: bool,
    done: bool,
}

impl Paper {
    fn mandate(mandate: Mandate, contact: Option<wire::Signed>) -> Self {
        Self {
            signed: mandate.draft(),
            candidate: mandate.candidate,
            contact,
            is_release: false,
            done: false,
        }
    }

    pub(super) fn release(release: &Release) -> Self {
        Self {
            signed: wire::SignedMandate {
                body: release.encode(),
                ..Default::default()
            },
            candidate: release.candidate,
            contact: None,
            is_release: true,
            done: false,
        }
    }

    fn domain(&self) -> Domain {
        if self.is_release {
            Domain::Release
        } else {
            Domain::Mandate
        }
    }
}

impl Core {
    /// A mandate for each of `raced`: for office, and then for the reserve.
    pub(super) fn papers_for(&self, now: Now, raced: Vec<Raced>) -> Vec<Paper> {
        let Some(election) = &self.election else {
            return Vec::new();
        };
        let (wanted, term) = (election.wanted, election.term);
        let (basis, assembly) = match &election.runner {
            Runner::Chair { electorate } => {
                let mut members: Vec<NodeId> = electorate.iter().map(|c| c.node_id).collect();
                members.sort_unstable();
                (Basis::Founded, members)
            }
            Runner::Officer { .. } => (Basis::Elected, Vec::new()),
        };
        let lifetime = self.config.timing.election.mandate_lifetime.as_millis() as u64;
        raced
            .into_iter()
            .zip(election.papers.len()..)
            // Another officer may have called it into office meanwhile.
            .filter(|(raced, place)| {
                let known = self.roster.get(&raced.candidate.node_id);
                *place < wanted || known.is_none_or(|entry| !entry.in_office())
            })
            .map(|(raced, place)| {
                let mandate = Mandate {
                    network: self.config.network.clone(),
                    term,
                    candidate: raced.candidate.node_id,
                    basis,
                    capacity_bps: raced.outcome.score_bps,
                    issued_ms: now.unix_ms,
                    expires_ms: now.unix_ms.saturating_add(lifetime),
                    beacon: raced.beacon,
                    ballots: raced.outcome.decisive,
                    officer: self.node_id(),
                    assembly: assembly.clone(),
                    domain: raced.candidate.domain(),
                    deputy: place >= wanted,
                };
                Paper::mandate(mandate, Some(raced.candidate.signed.clone()))
            })
            .collect()
    }

    /// A deputy's mandate without the reserve: the same ballots, signed anew in
    /// this term.
    pub(super) fn activation(&self, now: Now, node: &NodeId) -> Option<Paper> {
        let term = self.election.as_ref()?.term;
        let entry = self.roster.get(node)?;
        let signed = entry.mandate()?;
        let deputy = self
            .judge(now, false, |context| mandate::audit(signed, context))
            .ok()?;
        let mandate = Mandate {
            term,
            basis: Basis::Elected,
            officer: self.node_id(),
            assembly: Vec::new(),
            deputy: false,
            issued_ms: now.unix_ms,
            ..deputy
        };
        Some(Paper::mandate(
            mandate,
            entry.contact().map(|contact| contact.signed.clone()),
        ))
    }

    /// The last papers: when all are signed, they are published.
    pub(super) fn file(&mut self, now: Now, papers: Vec<Paper>) {
        self.ask_to_sign(papers);
        let Some(election) = &mut self.election else {
            return;
        };
        if election.papers.is_empty() {
            return self.close_election(now);
        }
        election.drawn_up = true;
        let patience = self.config.timing.election.reply_timeout * 4;
        self.step_at(now.at + patience);
        self.issue(now, false);
    }

    /// Signs papers and asks the others to.
    pub(super) fn ask_to_sign(&mut self, mut papers: Vec<Paper>) {
        let own = self.node_id();
        for paper in &mut papers {
            // Who runs may be a candidate itself; then it signs nothing here.
            if paper.candidate != own {
                paper.signed.endorsements.push(match paper.is_release {
                    true => release::endorse(&self.identity, &paper.signed.body),
                    false => mandate::endorse(&self.identity, &paper.signed.body),
                });
            }
        }
        let Some(election) = &self.election else {
            return;
        };
        let auditors: Vec<NodeId> = match &election.runner {
            Runner::Chair { electorate } => electorate
                .iter()
                .map(|c| c.node_id)
                .filter(|node| *node != own)
                .collect(),
            Runner::Officer { .. } => self.auditors(election.term),
        };
        for paper in &papers {
            for auditor in auditors.iter().filter(|node| **node != paper.candidate) {
                let mut ask = wire::AuditAsk::default();
                match paper.is_release {
                    true => ask.release = paper.signed.body.clone(),
                    false => {
                        ask.mandate = Some(wire::SignedMandate {
                            endorsements: Vec::new(),
                            ..paper.signed.clone()
                        })
                    }
                }
                self.send(*auditor, Kind::AuditAsk(ask));
            }
        }
        if let Some(election) = &mut self.election {
            election.papers.extend(papers);
        }
    }

    /// The super-nodes that audit this officer's papers.
    pub(super) fn auditors(&self, term: u64) -> Vec<NodeId> {
        let position = crate::keyspace::keys::election(&self.config.network, term);
        let own = self.node_id();
        let ranked = self.placement.closest(&position, AUDITORS + 1);
        ranked
            .into_iter()
            .map(|(_, node)| node)
            .filter(|node| *node != own)
            .take(AUDITORS)
            .collect()
    }

    pub(super) fn on_audit_reply(&mut self, now: Now, from: NodeId, reply: wire::AuditReply) {
        let Some(election) = &mut self.election else {
            return;
        };
        let subject =
            |paper: &&mut Paper| mandate::subject(&paper.signed.body).to_bytes() == reply.subject;
        let Some(paper) = election.papers.iter_mut().find(subject) else {
            return;
        };
        let Some(endorsement) = reply.endorsement else {
            let reason = format!(
                "{from:?} did not sign: {}",
                reply.refusal.chars().take(200).collect::<String>()
            );
            let candidate = Some(paper.candidate);
            let (term, refused) = (election.term, paper.candidate);
            self.annals.refused(term, from, refused, &reason);
            return self.event(Event::MandateRefused { candidate, reason });
        };
        let signed_before = paper
            .signed
            .endorsements
            .iter()
            .any(|e| e.signer == endorsement.signer);
        let genuine = endorsement.signer == from.0.as_slice()
            && verify_bytes(
                paper.domain(),
                &from,
                &paper.signed.body,
                &endorsement.signature,
            )
            .is_ok();
        if genuine && !signed_before {
            paper.signed.endorsements.push(endorsement);
            self.issue(now, false);
        }
    }

    /// Publishes every paper that has all the signatures it needs; those of a
    /// founding together, for nobody signs one who knows a super-node already.
    /// `overdue`: no more signatures are waited for.
    pub(super) fn issue(&mut self, now: Now, overdue: bool) {
        let Some(election) = &self.election else {
            return;
        };
        let mut ready = Vec::new();
        for (index, paper) in election.papers.iter().enumerate() {
            let needed = election.signers_needed().unwrap_or_else(|| {
                self.judge(now, false, |context| context.required(&paper.candidate))
            });
            if !paper.done && paper.signed.endorsements.len() >= needed.max(1) {
                ready.push(index);
            }
        }
        let all = election.drawn_up && ready.len() == election.papers.len();
        if election.founding() && !all && !overdue {
            return;
        }
        for index in ready {
            self.publish(now, index);
        }
        let done = self
            .election
            .as_ref()
            .is_some_and(|e| e.papers.iter().all(|paper| paper.done));
        if done {
            self.close_election(now);
        }
    }

    fn publish(&mut self, now: Now, index: usize) {
        let Some(paper) = self.election.as_mut().and_then(|e| e.papers.get_mut(index)) else {
            return;
        };
        paper.done = true;
        let signed = paper.signed.clone();
        let (candidate, is_release, contact) =
            (paper.candidate, paper.is_release, paper.contact.clone());
        if is_release {
            let release = release::sealed(signed.body, signed.endorsements);
            if self.admit_release(now, None, &release).is_some() {
                self.spread_node(&candidate);
                if let Some(entry) = self.roster.get(&candidate).map(|entry| entry.to_wire()) {
                    let entries = wire::RosterEntries {
                        entries: vec![entry],
                        dead: Vec::new(),
                    };
                    self.send(candidate, Kind::Roster(entries));
                }
            }
            return;
        }
        let entry = wire::RosterEntry {
            mandate: Some(signed),
            contact,
            release: None,
        };
        if let Err(error) = self.admit(now, &entry, false) {
            let reason = format!("our own officer's paper: {error}");
            return self.event(Event::MandateRefused {
                candidate: Some(candidate),
                reason,
            });
        }
        let Some(election) = &mut self.election else {
            return;
        };
        election.elected.push(candidate);
        let elected: BTreeSet<NodeId> = election.papers.iter().map(|p| p.candidate).collect();
        // A mandate is large and an assembly may be: its members are told whom to
        // ask for it, or the chair's line would carry it hundreds of times.
        let told: Vec<(NodeId, Vec<SocketAddr>)> = match &election.runner {
            Runner::Chair { electorate } => electorate
                .iter()
                .map(|member| (member.node_id, member.addrs.clone()))
                .collect(),
            Runner::Officer { .. } => vec![(candidate, self.addrs_of(&candidate))],
        };
        let own = self.node_id();
        let name = wire::RosterEntry {
            contact: entry.contact.clone(),
            ..Default::default()
        };
        for (node, addrs) in told.into_iter().filter(|(node, _)| *node != own) {
            let entry = match elected.contains(&node) {
                true => &entry,
                false => &name,
            };
            let message = wire::RosterEntries {
                entries: vec![entry.clone()],
                dead: Vec::new(),
            };
            self.send_to(node, addrs, Kind::Roster(message));
        }
        self.spread(vec![entry], Some(candidate));
    }
}
