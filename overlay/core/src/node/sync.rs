//! Keeping rosters equal: by rumour (to a few, at once) and by comparing
//! digests from time to time. Only what this peer verified itself is passed on.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use canopy_proto::wire::{self, core_message::Kind};
use prost::Message;
use rand::RngExt;

use super::host::ASKED;
use super::timers::Timer;
use super::{Core, Role};
use crate::contact::Contact;
use crate::keyspace::{Key, NodeId};
use crate::parts::{Among, Parts};
use crate::roster::{self, Entry};
use crate::time::Now;

/// Super-nodes that a rumour goes to at once...
const FAN_OUT: usize = 8;
/// ...and where they are so many that 94 of 100 hear of it all the same, and the
/// others when they compare. Kermarrec 2003: 1 - e^-f of all.
pub(super) const MANY: usize = 64;
const FAN_OUT_AMONG_MANY: usize = 3;
/// Of so many a leaf is told when it compares; others it learns of by asking for
/// what they own. It lists those that it was told of at every comparison, at 50 bytes
/// each: some 16 bytes a second.
const FILLED: usize = 32;
/// Entries in one message.
pub(super) const BATCH: usize = 12;
/// Super-nodes that a leaf refers a newcomer to.
const REFERRED: usize = 4;
/// Peers that a newcomer compares its first roster with.
const COMPARED: usize = 8;
/// Entries that one comparison among many yields at most: of 15 kB each, what a
/// line of 10 Mbit/s carries in two seconds.
const PORTION: usize = 128;
/// Keys in one digest message.
pub(super) const MAX_KEYS: usize = 5_000;
/// Leaves that are told of a change at once.
pub(super) const MAX_TOLD_LEAVES: usize = 256;

/// What a peer keeps over a restart: the super-nodes it knows, and what the
/// operator decreed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Saved(pub wire::Saved);

impl Saved {
    /// For a file.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.encode_to_vec()
    }

    /// From a file; fails on anything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, prost::DecodeError> {
        wire::Saved::decode(Bytes::copy_from_slice(bytes)).map(Self)
    }

    /// The own contact.
    pub(super) fn contact(&self, own: &NodeId) -> Option<Contact> {
        let entries = self.0.entries.iter();
        let signed = entries.filter_map(|entry| entry.contact.as_ref());
        let mut own = signed.filter(|signed| signed.signer == own.0.as_slice());
        Contact::open(own.next()?).ok()
    }
}

fn without_ballots(entry: &wire::RosterEntry) -> wire::RosterEntry {
    let mut brief = entry.clone();
    brief.mandate = brief.mandate.as_ref().map(roster::brief);
    brief
}

impl Core {
    /// What to keep over a restart.
    pub fn save(&self) -> Saved {
        let entries = self.roster.entries().take(self.config.cache.max(MAX_KEYS));
        Saved(wire::Saved {
            entries: entries.map(|e| e.to_wire()).collect(),
            decrees: self.decrees.signed().cloned().collect(),
        })
    }

    /// Takes in what an earlier run saved: mandates that are still good count
    /// at once, and so do releases; the other addresses are peers to join by.
    pub(super) fn restore(&mut self, now: Now, saved: &Saved) {
        self.restore_decrees(now, &saved.0.decrees);
        self.within = Some(false);
        // Its own mandate last: whom it serves with is known by then.
        let own = self.node_id();
        let is_own = |entry: &&wire::RosterEntry| {
            let contact = entry.contact.as_ref();
            contact.is_some_and(|contact| contact.signer == own.0.as_slice())
        };
        let entries = saved.0.entries.iter().take(MAX_KEYS);
        let others = entries.clone().filter(|entry| !is_own(entry));
        for entry in others.chain(entries.filter(is_own)) {
            let Some(contact) = Contact::given(&entry.contact) else {
                continue;
            };
            let addr = contact.addrs.first().copied();
            if let Some(addr) = addr.filter(|_| self.has_room_for_peers())
                && contact.node_id != own
            {
                self.config.peers.push((Some(contact.node_id), addr));
            }
            match &entry.release {
                Some(release) => self.remember_ended(now, entry, release),
                None if entry.mandate.is_some() => {
                    let _ = self.admit_of(now, entry, Some(contact), true);
                }
                None => {}
            }
        }
        if self.within.take() == Some(true) {
            self.roster_changed(now);
        }
    }

    /// Somebody serves at last: those linked to this peer may not know yet, or
    /// know of others.
    pub(super) fn compare_with_some(&mut self) {
        let linked: Vec<NodeId> = self.links.keys().copied().collect();
        for node in self.pick(linked, COMPARED) {
            let digest = self.digest(true);
            self.send(node, digest);
        }
    }

    /// A leaf that hears of a super-node elsewhere lets its homes know whom to
    /// ask: it keeps nobody's papers itself.
    pub(super) fn tell_homes(&mut self, node: &NodeId, from: NodeId) {
        let Some(entry) = self.roster.get(node).filter(|entry| entry.serves()) else {
            return;
        };
        let entry = entry.brief();
        let homes = self.homes.nodes();
        for home in homes
            .into_iter()
            .filter(|home| *home != from && home != node)
        {
            let entries = vec![entry.clone()];
            let message = wire::RosterEntries {
                entries,
                dead: Vec::new(),
            };
            self.send(home, Kind::Roster(message));
        }
    }

    /// A few super-nodes that news go to at once; not `except`, who told it.
    pub(super) fn confidants(&mut self, except: Option<NodeId>) -> Vec<NodeId> {
        let fan_out = match self.placement.len() > MANY {
            true => FAN_OUT_AMONG_MANY,
            false => FAN_OUT,
        };
        self.some_who_serve(fan_out, except)
    }

    /// Other super-nodes, up to `count` of them drawn by lot; not `except`.
    fn some_who_serve(&mut self, count: usize, except: Option<NodeId>) -> Vec<NodeId> {
        let own = self.node_id();
        let others = |node: &NodeId| *node != own && Some(*node) != except;
        let serving = self.placement.len();
        if serving <= MANY {
            let nodes = self.roster.serving().map(|e| e.node());
            let nodes = nodes.filter(others).collect();
            return self.pick(nodes, count);
        }
        // Drawn without a list of all.
        let mut chosen = Vec::with_capacity(count);
        while chosen.len() < count.min(MANY / 2) {
            let drawn = self.rng.random_range(0..serving);
            let drawn = self.placement.nth(drawn).map(|member| member.node);
            chosen.extend(drawn.filter(|node| others(node) && !chosen.contains(node)));
        }
        chosen
    }

    /// Tells a few super-nodes and all leaves at once.
    pub(super) fn spread(&mut self, entries: Vec<wire::RosterEntry>, except: Option<NodeId>) {
        for node in self.confidants(except) {
            self.send_entries(node, &entries, &[]);
        }
        // Many leaves ask when they compare: they need nobody's papers at once.
        let told = match &self.host {
            Some(host) if host.leaves.len() <= MAX_TOLD_LEAVES => host.leaves.keys(),
            _ => return,
        };
        if entries.is_empty() || self.placement.len() > MANY.min(self.config.cache) {
            return;
        }
        let told: Vec<NodeId> = told.copied().filter(|leaf| Some(*leaf) != except).collect();
        let brief: Vec<wire::RosterEntry> = entries.iter().map(without_ballots).collect();
        for leaf in told {
            self.send_entries(leaf, &brief, &[]);
        }
    }

    /// Sends entries a batch at a time, and with each who is `dead`.
    fn send_entries(&mut self, to: NodeId, entries: &[wire::RosterEntry], dead: &[Bytes]) {
        for batch in entries.chunks(BATCH) {
            let message = wire::RosterEntries {
                entries: batch.to_vec(),
                dead: dead.to_vec(),
            };
            self.send(to, Kind::Roster(message));
        }
    }

    /// Passes on what is known of `node`.
    pub(super) fn spread_node(&mut self, node: &NodeId) {
        self.spread_news(node, *node);
    }

    /// Passes on what is known of `node`, in our own words: what came with it
    /// unverified stops here. Not to `except`, who told it.
    pub(super) fn spread_news(&mut self, node: &NodeId, except: NodeId) {
        if let Some(entry) = self.roster.get(node) {
            let entry = entry.to_wire();
            self.spread(vec![entry], Some(except));
        }
    }

    pub(super) fn digest(&self, want: bool) -> Kind {
        self.digest_of(Among::ALL, want)
    }

    /// What is known of those `among` which two have found that they differ.
    fn digest_of(&self, among: Among, want: bool) -> Kind {
        // A super-node asks for the papers that it lacks, who follows for news of
        // those that it believes dead.
        let (host, follows) = (self.host.is_some(), self.follows());
        let keys = self
            .roster
            .among(among)
            .filter(|entry| {
                let held = !host || entry.mandate().is_some();
                held && !(follows && entry.down)
            })
            .take(MAX_KEYS)
            .map(|entry| wire::RosterKey {
                node_id: entry.node().to_bytes(),
                term: entry.term,
                released: entry.release.is_some(),
                deputy: entry.deputy,
                contact_ms: entry.contact_ms(),
            });
        Kind::RosterDigest(wire::RosterDigest {
            digest: self.roster.digest(!follows).to_bytes(),
            super_nodes: self.placement.len() as u32,
            keys: keys.collect(),
            want,
            leaf: !host,
            decrees: self.decrees_digest(),
            among: among.0,
            ..Default::default()
        })
    }

    /// For another super-node, which most often knows nearly the same.
    pub(super) fn summary(&self) -> wire::RosterDigest {
        let parts = self.roster.parts().filter(|_| self.placement.len() > MANY);
        wire::RosterDigest {
            parts: parts.map_or_else(Bytes::new, Parts::to_bytes),
            digest: self.roster.digest(true).to_bytes(),
            super_nodes: self.placement.len() as u32,
            want: true,
            summary: true,
            decrees: self.decrees_digest(),
            ..Default::default()
        }
    }

    pub(super) fn on_roster_digest(&mut self, now: Now, from: NodeId, theirs: wire::RosterDigest) {
        self.compare_decrees(from, &theirs);
        if theirs.asks_dead {
            self.tell_of_the_dead(from);
        }
        if theirs.summary && self.host.is_none() {
            // It takes this peer for a super-node, or does not know.
            if self.roster.get(&from).is_none() {
                let serving = self.roster.serving().map(Entry::node).collect();
                self.refer(from, serving);
            }
            return self.redirect(from);
        }
        let own = self.roster.digest(self.host.is_some());
        // Two who know the same deputies and nobody who serves have to muster.
        let nobody = self.roster.serving().next().is_none();
        // A leaf listens to a super-node; so does one who was called into office
        // and refuses, because it takes the dead for alive.
        let listens = self.host.is_some() && !self.roster.serves(&from);
        // The digest counts whose papers are here, dead or alive: a leaf that
        // takes one of the dead for alive may have the same.
        let mistaken = listens && self.roster.any_down();
        let same = theirs.digest == own.to_bytes();
        if same && (theirs.summary || !theirs.keys.is_empty()) && !nobody && !mistaken {
            return;
        }
        if theirs.summary {
            let parts = (self.roster.parts(), Parts::from_slice(&theirs.parts));
            let among = match parts {
                (Some(own), Some(theirs)) => own.differing(&theirs),
                _ => Among::ALL,
            };
            let digest = self.digest_of(among, true);
            return self.send(from, digest);
        }
        let among = Among(theirs.among);
        let ready = self.sponsor_lists(&from, &theirs.keys);
        let held: BTreeMap<&[u8], &wire::RosterKey> = theirs
            .keys
            .iter()
            .map(|key| (key.node_id.as_ref(), key))
            .collect();
        let has = |entry: &Entry| {
            let known = held.get(entry.node().0.as_slice());
            known.is_some_and(|key| {
                let paper = (entry.term, !entry.deputy, entry.release.is_some());
                (key.term, !key.deputy, key.released) >= paper
                    && key.contact_ms >= entry.contact_ms()
            })
        };
        // A leaf has no use for the dead (but for who must not come back), nor for more than it may keep.
        let peer = self.roster.get(&from).is_some_and(Entry::in_office);
        let many = self.roster.serving_count() > MANY;
        let most = match (peer, many) {
            (true, true) => PORTION,
            (true, false) => MAX_KEYS,
            (false, _) => self.config.cache,
        };
        let filled = self.config.cache.min(FILLED);
        let all = among == Among::ALL;
        let few = !peer && all && self.roster.len() > self.config.cache.min(MANY);
        let missing = match few {
            true => self.missing_of_few(&from, &theirs.keys, filled),
            false => self.roster.among(among).collect(),
        };
        let missing = missing
            .into_iter()
            .filter(|entry| entry.mandate().is_some() && !has(entry))
            .filter(|entry| peer || !entry.down || entry.release.is_some());
        // Its own mandate it has to be able to show.
        let form = |entry: &Entry| match theirs.leaf && entry.node() != from {
            true => entry.brief(),
            false => entry.to_wire(),
        };
        let mut missing: Vec<&Entry> = missing.collect();
        // Those who signed before those for whom they did.
        missing.sort_by_key(|entry| entry.issued_ms);
        let missing = missing.into_iter().take(most);
        let missing: Vec<wire::RosterEntry> = missing.map(form).collect();
        // A leaf may not know those who signed a release, and its home may never
        // have known the one released: it hears that such serve no more.
        let gone = |key: &&wire::RosterKey| {
            let node = NodeId::from_slice(&key.node_id);
            let entry = node.and_then(|node| self.roster.get(&node));
            !key.released && !key.deputy && entry.is_none_or(|entry| !entry.serves())
        };
        let dead: Vec<Bytes> = match listens {
            true => theirs
                .keys
                .iter()
                .filter(gone)
                .take(most)
                .map(|key| key.node_id.clone())
                .collect(),
            false => Vec::new(),
        };
        if missing.is_empty() && !dead.is_empty() {
            let entries = Vec::new();
            let dead = dead.clone();
            self.send(from, Kind::Roster(wire::RosterEntries { entries, dead }));
        }
        self.send_entries(from, &missing, &dead);
        let unknown: Vec<NodeId> = match self.host.is_some() {
            true => Vec::new(),
            false => self
                .roster
                .among(among)
                .filter(|entry| entry.serves() && !has(entry))
                .map(Entry::node)
                .collect(),
        };
        self.refer(from, unknown);
        if theirs.want {
            let lacks = theirs.super_nodes > 0;
            // A leaf has nothing to give but names that are in what it sent.
            let unheard = |key: &wire::RosterKey| {
                let node = NodeId::from_slice(&key.node_id);
                node.is_some_and(|node| self.roster.get(&node).is_none())
            };
            let listed = theirs.leaf && self.host.is_some() && !theirs.keys.iter().any(unheard);
            if lacks && !listed && ready {
                let digest = self.digest_of(among, false);
                self.send(from, digest);
            }
            if missing.is_empty() && !lacks {
                self.muster_with(now, from);
            }
        }
    }

    /// What a leaf hears of in a large overlay: those that it knows, and up to
    /// `filled` of those who serve and come next after its own key.
    fn missing_of_few(
        &self,
        leaf: &NodeId,
        keys: &[wire::RosterKey],
        filled: usize,
    ) -> Vec<&Entry> {
        let held: BTreeSet<NodeId> = keys
            .iter()
            .filter_map(|key| NodeId::from_slice(&key.node_id))
            .collect();
        let room = filled.saturating_sub(held.len());
        let next = self.roster.after(leaf).filter(|entry| entry.serves());
        let next = next.filter(|entry| !held.contains(&entry.node()));
        let known = held.iter().filter_map(|node| self.roster.get(node));
        known.chain(next.take(room)).collect()
    }

    /// A leaf keeps no papers: it tells a newcomer, or a peer from elsewhere,
    /// who has them.
    fn refer(&mut self, newcomer: NodeId, unknown: Vec<NodeId>) {
        let chosen = self.pick(unknown, REFERRED);
        let known = chosen.iter().filter_map(|node| self.roster.get(node));
        let contacts = known.filter_map(|entry| entry.contact());
        let entries: Vec<wire::RosterEntry> = contacts
            .map(|contact| wire::RosterEntry {
                mandate: None,
                contact: Some(contact.signed.clone()),
                release: None,
            })
            .collect();
        if !entries.is_empty() {
            let dead = Vec::new();
            self.send(
                newcomer,
                Kind::Roster(wire::RosterEntries { entries, dead }),
            );
        }
    }

    pub(super) fn on_seats_ask(&mut self, from: NodeId, ask: &wire::SeatsAsk) {
        let Some(position) = Key::from_slice(&ask.position) else {
            return;
        };
        let count = (ask.count as usize).min(BATCH);
        let entries: Vec<wire::RosterEntry> = self
            .placement
            .closest(&position, count)
            .iter()
            .filter_map(|(_, node)| self.roster.get(node))
            .map(|entry| entry.brief())
            .collect();
        self.send(
            from,
            Kind::Roster(wire::RosterEntries {
                entries,
                dead: Vec::new(),
            }),
        );
    }

    /// A super-node compares its roster with another's, now and then.
    pub(super) fn sync_tick(&mut self, now: Now) {
        if self.host.is_none() {
            return;
        }
        let catching_up = self.ask_sponsors(now);
        let mut asked = self.some_who_serve(ASKED, None);
        let first = self.asks_for_the_dead(&asked);
        if !first {
            asked.truncate(usize::from(!catching_up));
        }
        for node in asked {
            let mut summary = self.summary();
            summary.asks_dead = first;
            self.send(node, Kind::RosterDigest(summary));
        }
        self.call_the_dead(now);
        // Who retires with nobody left looks for those who serve now: it has to
        // hand over what it holds.
        if self.role == Role::Retiring && self.roster.serving().next().is_none() {
            self.timers.at_latest(Timer::Bootstrap, now.at);
        }
        let wait = match catching_up {
            true => self.config.timing.election.report_interval / 4,
            false => self.config.timing.muster.roster_interval,
        };
        let wait = self.jitter(wait);
        self.timers.set(Timer::Sync, now.at + wait);
    }

    /// Super-nodes that did not answer may have been cut off and have founded
    /// an overlay, or be the one that we were cut off from: one of them is
    /// asked now and then.
    fn call_the_dead(&mut self, now: Now) {
        let every = self.config.timing.gossip.announce_dead_period;
        let Some(host) = &mut self.host else { return };
        if now.at.since(host.called) < every {
            return;
        }
        // Whether or not there is anybody to call, so that not all of them begin at
        // once when one dies.
        host.called = now.at;
        if !self.roster.any_down() {
            return;
        }
        let dead = self.roster.entries().filter(|e| e.in_office() && e.down);
        let dead: Vec<NodeId> = dead.map(Entry::node).collect();
        for node in self.pick(dead, 1) {
            let digest = self.digest(true);
            self.send(node, digest);
        }
    }
}

#[cfg(test)]
mod tests;
