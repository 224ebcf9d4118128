//! What the operator decreed, spread to every super-node and obeyed.
//!
//! News go to a few super-nodes at once; the rest hear of them when rosters are
//! compared, where a hash tells whether there is anything to send. Only what this
//! peer verified itself is taken or passed on. A leaf is told of the policy and
//! of what concerns itself.

use std::collections::BTreeMap;

use bytes::Bytes;
use canopy_proto::wire::{self, core_message::Kind};

use super::sync::MAX_TOLD_LEAVES;
use super::timers::Timer;
use super::{Core, Event, Output, Role};
use crate::decree::{
    Banned, Decree, DecreeError, MAX_DECREES, Order, Policy, Rank, Register, Subject,
    VerifiedDecree,
};
use crate::election::criteria::CriteriaConfig;
use crate::election::law::LawConfig;
use crate::keyspace::{Key, NodeId};
use crate::roster::Entry;
use crate::time::Now;

/// Decrees in one message.
const BATCH: usize = 64;
/// Super-nodes that a new one asks for what it lacks.
const ASKED: usize = 3;

impl Core {
    /// What the operator decreed, as far as this peer knows: all of it where it
    /// serves, else what concerns it.
    pub fn decrees(&self) -> &Register {
        &self.decrees
    }

    /// The law of how many super-nodes there should be, by the operator's policy
    /// where there is one.
    pub fn overlay_law(&self) -> LawConfig {
        self.law_by(&self.decrees.policy())
    }

    /// What that law would be by another policy.
    pub fn law_by(&self, policy: &Policy) -> LawConfig {
        policy.law(self.config.law())
    }

    /// What candidates are judged by, the operator's policy included.
    pub fn overlay_criteria(&self) -> CriteriaConfig {
        let built_in = CriteriaConfig {
            uplink_bps: self.config.floor_bps,
            ..CriteriaConfig::new(&self.config.timing.election)
        };
        self.decrees.policy().criteria(built_in)
    }

    /// The network's operator key, where it has one.
    pub fn operator(&self) -> Option<NodeId> {
        self.config.operator
    }

    /// Judges a decree as this peer does, and says whether it is news.
    ///
    /// # Errors
    /// Why it does not count.
    pub fn judge_decree(&self, now: Now, signed: &wire::Signed) -> Result<bool, DecreeError> {
        self.decrees.would_take(&self.verify_decree(now, signed)?)
    }

    fn verify_decree(
        &self,
        now: Now,
        signed: &wire::Signed,
    ) -> Result<VerifiedDecree, DecreeError> {
        let (network, operator) = (&self.config.network, self.config.operator);
        VerifiedDecree::open(signed, network, operator, now.unix_ms)
    }

    /// The operator decreed through this peer.
    pub(super) fn decreed_here(&mut self, now: Now, signed: wire::Signed) {
        let Ok(verified) = self.verify_decree(now, &signed) else {
            return;
        };
        let subject = verified.decree().order.subject();
        let own = self.node_id();
        if self.host.is_none() {
            // It is for super-nodes to keep.
            for home in self.homes.nodes() {
                self.send_decrees(home, std::slice::from_ref(&signed));
            }
            if !subject.concerns(&own) {
                return;
            }
        }
        if self.take_decree(now, verified) {
            self.spread_decrees(&[(subject, signed)], None);
        }
    }

    pub(super) fn on_decrees(&mut self, now: Now, from: NodeId, decrees: wire::Decrees) {
        let own = self.node_id();
        let mut news = Vec::new();
        for signed in decrees.decrees.into_iter().take(BATCH) {
            // What is known costs no signature check.
            let known = Decree::decode(&signed.body).is_ok_and(|decree| {
                let subject = decree.order.subject();
                let held = self.decrees.get(&subject);
                held.is_some_and(|held| held.sequence > decree.sequence || *held == decree)
            });
            if known {
                continue;
            }
            let Ok(verified) = self.verify_decree(now, &signed) else {
                continue;
            };
            let subject = verified.decree().order.subject();
            let concerns = self.host.is_some() || subject.concerns(&own);
            if concerns && self.take_decree(now, verified) {
                news.push((subject, signed));
            }
        }
        if !news.is_empty() {
            self.spread_decrees(&news, Some(from));
        }
    }

    /// Puts a decree into force; false if it was already.
    fn take_decree(&mut self, now: Now, verified: VerifiedDecree) -> bool {
        let decree = verified.decree().clone();
        if !matches!(self.decrees.take(verified), Ok(true)) {
            return false;
        }
        self.event(Event::Decreed {
            subject: decree.order.subject(),
            says: decree.order.as_str(),
            sequence: decree.sequence,
        });
        self.outputs.push_back(Output::Save);
        self.timers.at_latest(Timer::Expiry, now.at);
        self.obey(now, &decree);
        true
    }

    fn obey(&mut self, now: Now, decree: &Decree) {
        match &decree.order {
            Order::Ban { what, .. } | Order::Unban(what) => self.bans_changed(now, what),
            Order::Designate { host, mandate } => {
                if *host == self.node_id() {
                    self.designated(now, wire::SignedMandate::clone(mandate));
                }
            }
            Order::Undesignate(host) => self.bar(now, host),
            Order::Policy(_) => {
                self.timers.at_latest(Timer::Candidacy, now.at);
                self.timers.at_latest(Timer::Report, now.at);
            }
        }
    }

    fn bans_changed(&mut self, now: Now, what: &Banned) {
        if let Banned::Peer(node) = what {
            // It is told before it is let go.
            let signed = self.decrees.signed_for(node);
            if self.links.contains_key(node) {
                self.send_decrees(*node, &signed);
            }
            self.bar(now, node);
            if let Some(host) = &mut self.host {
                host.leaves.remove(node);
                host.reports.remove(node);
            }
        }
        let bans = self.decrees.bans().clone();
        self.outputs.push_back(Output::Bans(bans));
    }

    /// Looks anew whether `node` may serve.
    fn bar(&mut self, now: Now, node: &NodeId) {
        let served = self.roster.serves(node);
        let voids = |entry: &Entry| {
            let (basis, issued_ms) = (entry.basis, entry.issued_ms);
            self.decrees.voids_parts(node, basis, issued_ms)
        };
        let barred = self.roster.get(node).is_some_and(voids);
        if *node == self.node_id() {
            let office = matches!(self.role, Role::SuperNode | Role::Deputy);
            if barred && office {
                self.step_down(now, "the operator withdrew its word");
            }
            self.timers.at_latest(Timer::Candidacy, now.at);
        }
        if !self.roster.set_barred(node, barred) {
            return;
        }
        if served && !self.roster.serves(node) {
            let reason = "the operator withdrew its word";
            self.event(Event::SuperNodeDown {
                node: *node,
                reason,
            });
        }
        self.roster_changed(now);
    }

    /// Whether `from` is banned, so that what it says counts for nothing: it is
    /// told why where it wants to join.
    pub(super) fn turns_away(&mut self, from: NodeId, kind: &Kind) -> bool {
        if !self.decrees.bans().peer(&from) || from == self.node_id() {
            return false;
        }
        if matches!(
            kind,
            Kind::Attach(_) | Kind::RosterDigest(_) | Kind::Muster(_)
        ) {
            let signed = self.decrees.signed_for(&from);
            self.send_decrees(from, &signed);
        }
        true
    }

    pub(super) fn expire_decrees(&mut self, now: Now) {
        let over = self.decrees.expire(now.unix_ms);
        for decree in &over {
            match &decree.order {
                Order::Ban { what, .. } => self.bans_changed(now, what),
                Order::Undesignate(host) => self.bar(now, host),
                _ => {}
            }
        }
        if !over.is_empty() {
            self.outputs.push_back(Output::Save);
        }
    }

    /// Puts back what an earlier run saved, checked anew.
    pub(super) fn restore_decrees(&mut self, now: Now, saved: &[wire::Signed]) {
        for signed in saved.iter().take(MAX_DECREES) {
            if let Ok(verified) = self.verify_decree(now, signed) {
                let _ = self.decrees.take(verified);
            }
        }
        if !self.decrees.bans().is_empty() {
            let bans = self.decrees.bans().clone();
            self.outputs.push_back(Output::Bans(bans));
        }
    }

    /// Takes up what the operator decreed of this host in an earlier run.
    pub(super) fn designated_before(&mut self, now: Now) {
        let own = Subject::Host(self.node_id());
        let order = self.decrees.get(&own).map(|decree| decree.order.clone());
        if let Some(Order::Designate { mandate, .. }) = order {
            self.designated(now, *mandate);
        }
    }

    /// Tells a few super-nodes, and the leaves that are concerned.
    fn spread_decrees(&mut self, news: &[(Subject, wire::Signed)], except: Option<NodeId>) {
        let Some(host) = &self.host else { return };
        let leaves = host.leaves.keys().filter(|leaf| Some(**leaf) != except);
        let leaves: Vec<NodeId> = match news.iter().any(|(s, _)| *s == Subject::Policy) {
            true => leaves.copied().take(MAX_TOLD_LEAVES).collect(),
            false => leaves
                .filter(|leaf| news.iter().any(|(s, _)| s.concerns(leaf)))
                .copied()
                .collect(),
        };
        let signed: Vec<wire::Signed> = news.iter().map(|(_, s)| s.clone()).collect();
        for node in self.confidants(except) {
            self.send_decrees(node, &signed);
        }
        for leaf in leaves {
            let concerning = news.iter().filter(|(s, _)| s.concerns(&leaf));
            let signed: Vec<wire::Signed> = concerning.map(|(_, s)| s.clone()).collect();
            self.send_decrees(leaf, &signed);
        }
    }

    fn send_decrees(&mut self, to: NodeId, signed: &[wire::Signed]) {
        for batch in signed.chunks(BATCH) {
            let decrees = batch.to_vec();
            self.send(to, Kind::Decrees(wire::Decrees { decrees }));
        }
    }

    /// What goes with a digest of the roster.
    pub(super) fn decrees_digest(&self) -> Bytes {
        let digest = match self.host.is_some() {
            true => self.decrees.digest(),
            false => self.decrees.digest_for(&self.node_id()),
        };
        encoded(digest)
    }

    /// Another sent its digest: if it knows other decrees, they are compared.
    pub(super) fn compare_decrees(&mut self, from: NodeId, theirs: &wire::RosterDigest) {
        if self.host.is_none() || self.config.operator.is_none() {
            return;
        }
        let own = match theirs.leaf {
            true => self.decrees.digest_for(&from),
            false => self.decrees.digest(),
        };
        if theirs.decrees == encoded(own) {
            return;
        }
        match theirs.leaf {
            true => {
                let signed = self.decrees.signed_for(&from);
                self.send_decrees(from, &signed);
            }
            false => self.send_decree_keys(from, true),
        }
    }

    /// A new super-node asks a few others what is in force.
    pub(super) fn ask_for_decrees(&mut self) {
        if self.config.operator.is_none() {
            return;
        }
        for node in self.confidants(None).into_iter().take(ASKED) {
            self.send_decree_keys(node, true);
        }
    }

    fn send_decree_keys(&mut self, to: NodeId, want: bool) {
        let ranks = self.decrees.ranks();
        let keys = ranks.map(|(subject, (sequence, tie), _)| wire::DecreeKey {
            subject: subject.to_bytes(),
            sequence,
            tie,
        });
        let keys = keys.collect();
        self.send(to, Kind::DecreeKeys(wire::DecreeKeys { keys, want }));
    }

    pub(super) fn on_decree_keys(&mut self, from: NodeId, theirs: &wire::DecreeKeys) {
        if self.host.is_none() || theirs.keys.len() > MAX_DECREES {
            return;
        }
        let keys = theirs.keys.iter();
        let mut held: BTreeMap<&[u8], Rank> = keys
            .map(|key| (key.subject.as_ref(), (key.sequence, key.tie)))
            .collect();
        let mut missing = Vec::new();
        for (subject, rank, signed) in self.decrees.ranks() {
            match held.get(subject.0.as_slice()) {
                Some(theirs) if *theirs > rank => continue,
                Some(theirs) if *theirs == rank => {}
                _ => missing.push(signed.clone()),
            }
            held.remove(subject.0.as_slice());
        }
        // What is left is unknown here, or later than what is known.
        if theirs.want && !held.is_empty() {
            self.send_decree_keys(from, false);
        }
        self.send_decrees(from, &missing);
    }
}

fn encoded(digest: Key) -> Bytes {
    match digest == Key::default() {
        true => Bytes::new(),
        false => digest.to_bytes(),
    }
}
