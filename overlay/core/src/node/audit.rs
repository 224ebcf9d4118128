//! Serving as auditor: what a super-node, or a member of an assembly, checks
//! before it signs another's paper. It never signs on the officer's word what
//! it can look up itself.

use bytes::Bytes;
use canopy_proto::wire::{self, Topology, core_message::Kind};

use super::Core;
use crate::contact::{self, Contact};
use crate::election::ballot::Ballot;
use crate::election::endorse::OFFICER_RANKS;
use crate::election::mandate::{self, Basis, Mandate};
use crate::election::release;
use crate::keyspace::{NodeId, keys};
use crate::time::Now;

/// How far the term of a paper may lie ahead of the auditor's own: elections
/// that it has not heard of yet.
const MAX_TERMS_UNHEARD: u64 = 64;

impl Core {
    pub(super) fn on_audit_ask(&mut self, now: Now, from: NodeId, ask: &wire::AuditAsk) {
        let body = ask
            .mandate
            .as_ref()
            .map_or(&ask.release, |draft| &draft.body);
        let subject = mandate::subject(body).to_bytes();
        let verdict = match &ask.mandate {
            None => self.audit_release(now, from, &ask.release),
            Some(draft) => self.audit_mandate(now, from, draft),
        };
        let reply = match verdict {
            Ok(endorsement) => wire::AuditReply {
                subject,
                endorsement: Some(endorsement),
                refusal: String::new(),
            },
            Err(refusal) => wire::AuditReply {
                subject,
                endorsement: None,
                refusal,
            },
        };
        self.send(from, Kind::AuditReply(reply));
    }

    fn audit_mandate(
        &mut self,
        now: Now,
        from: NodeId,
        draft: &wire::SignedMandate,
    ) -> Result<wire::Endorsement, String> {
        if !self.may_run(&from) {
            return Err("you are neither a super-node nor of my assembly".into());
        }
        let checked = self.judge(now, false, |context| mandate::audit(draft, context));
        let mandate = checked.map_err(|error| error.to_string())?;
        if mandate.officer != from {
            return Err("another officer's mandate".into());
        }
        if self.decrees.bans().peer(&mandate.candidate) {
            return Err("the operator banned it".into());
        }
        match mandate.basis {
            Basis::Designated => return Err("only the operator signs a designation".into()),
            _ if self.config.topology == Topology::Hybrid => {
                return Err("this network elects nobody".into());
            }
            Basis::Recognised => return Err("strangers are measured, not recognised".into()),
            Basis::Founded => {
                self.check_founding(&mandate)?;
                self.consent_to_founding(now, from)?;
            }
            Basis::Elected if self.host.is_none() => return Err("I am no super-node".into()),
            Basis::Elected => self.check_election(&mandate)?,
        }
        Ok(mandate::endorse(&self.identity, &draft.body))
    }

    /// A founding is ours if most of its assembly is, with its candidate, and
    /// every juror that we know is where its ballot says.
    fn check_founding(&self, mandate: &Mandate) -> Result<(), String> {
        let Some(muster) = &self.muster else {
            return Err("I know a super-node already".into());
        };
        let known = mandate.assembly.iter().filter(|node| muster.knows(node));
        if known.count() <= mandate.assembly.len() / 2 || !muster.knows(&mandate.candidate) {
            return Err("I know too few of this assembly".into());
        }
        for ballot in mandate.ballots.iter().map(|ballot| ballot.ballot()) {
            let contact = muster.contacts().find(|c| c.node_id == ballot.voter);
            check_prefix(ballot, contact)?;
        }
        Ok(())
    }

    /// The officer is due as far as we know, the candidate has a place, and
    /// the jurors among our own leaves are where their ballots say.
    fn check_election(&self, mandate: &Mandate) -> Result<(), String> {
        let next = self.next_term(mandate.term % self.lanes());
        let unheard = MAX_TERMS_UNHEARD.saturating_mul(self.lanes());
        if mandate.term > next.saturating_add(unheard) {
            return Err(format!("term {} is far ahead of {next}", mandate.term));
        }
        let position = keys::election(&self.config.network, mandate.term);
        let nearest = self.placement.nearest(&position, OFFICER_RANKS);
        if nearest.iter().all(|(_, node)| *node != mandate.officer) {
            return Err("you are not due to run this term".into());
        }
        let known = self.roster.get(&mandate.candidate);
        if mandate.deputy && known.is_some_and(|entry| entry.in_office()) {
            return Err("it serves already: nobody is elected from office into reserve".into());
        }
        let raced = mandate.ballots.first().map(|b| b.ballot().term);
        let deputy = known.filter(|entry| entry.in_reserve());
        if raced != Some(mandate.term) && deputy.map(|entry| entry.term) != raced {
            return Err("it was measured in an earlier term, and is no deputy".into());
        }
        let Some(host) = &self.host else {
            return Ok(());
        };
        for ballot in mandate.ballots.iter().map(|ballot| ballot.ballot()) {
            let leaf = host.leaves.get(&ballot.voter);
            check_prefix(ballot, leaf.map(|leaf| &leaf.contact))?;
        }
        let leaf = host
            .leaves
            .get(&mandate.candidate)
            .map(|leaf| &leaf.contact);
        let contact = leaf.or_else(|| known.and_then(|entry| entry.contact()));
        match contact.is_none_or(|contact| self.has_place(contact)) {
            true => Ok(()),
            false => Err("its address or network has its share of super-nodes".into()),
        }
    }

    /// A member of an assembly follows one chair at a time, and none where
    /// somebody serves already.
    fn consent_to_founding(&mut self, now: Now, chair: NodeId) -> Result<(), String> {
        let patience = self.config.timing.election.officer_timeout * 2;
        let Some(muster) = &mut self.muster else {
            return Err("I know a super-node already".into());
        };
        match muster.endorsed {
            Some((other, at)) if other != chair && now.at.since(at) < patience => {
                Err(format!("I follow {other:?} in this founding"))
            }
            _ => {
                muster.endorsed = Some((chair, now.at));
                Ok(())
            }
        }
    }

    fn audit_release(
        &mut self,
        now: Now,
        from: NodeId,
        body: &Bytes,
    ) -> Result<wire::Endorsement, String> {
        if self.host.is_none() || !self.roster.serves(&from) {
            return Err("releases are between super-nodes".into());
        }
        let checked = self.judge(now, false, |context| release::audit(body, context));
        let release = checked.map_err(|error| error.to_string())?;
        let present = self.roster.get(&release.candidate);
        if present.is_none_or(|entry| entry.term != release.term || !entry.in_office()) {
            return Err("not the candidate's present term".into());
        }
        if present.is_some_and(|entry| entry.designated()) {
            return Err("only the operator ends a designation".into());
        }
        // A recall that leaves too few is refused whoever asks.
        if self.placement.len() <= crate::placement::R {
            return Err("too few super-nodes to let one go".into());
        }
        Ok(release::endorse(&self.identity, body))
    }
}

/// Whether the juror votes from where `contact` says that it is.
fn check_prefix(ballot: &Ballot, contact: Option<&Contact>) -> Result<(), String> {
    let addr = contact.and_then(|contact| contact.addrs.first());
    match addr.is_none_or(|addr| contact::prefix(addr) == ballot.voter_prefix) {
        true => Ok(()),
        false => Err(format!(
            "{:?} votes from another network than it is in",
            ballot.voter
        )),
    }
}
