//! The super-nodes and deputies that a peer knows: one verified mandate each,
//! with the contact of its holder and what is known of its health.
//!
//! Nothing gets in here unverified, and nobody is a super-node who is not here.

use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::net::SocketAddr;
use std::sync::Arc;

use canopy_proto::wire;

use crate::contact::Contact;
use crate::election::endorse::{Authorities, ENDORSEMENTS, Held, OFFICER_RANKS};
use crate::election::mandate::{Basis, VerifiedMandate};
use crate::keyspace::{Key, NodeId, keys};
use crate::memory;
use crate::parts::{Among, PARTS, Parts};
use crate::placement::{Member, Placement};

/// A super-node or deputy.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    candidate: NodeId,
    /// Term of its mandate.
    pub term: u64,
    /// How the mandate came about.
    pub basis: Basis,
    /// Elected capacity, bits a second.
    pub capacity_bps: u64,
    /// Seats.
    pub seats: u32,
    /// When the mandate was issued, milliseconds since 1970.
    pub issued_ms: u64,
    /// When it ends, milliseconds since 1970.
    pub expires_ms: u64,
    /// Failure domain.
    pub domain: Arc<str>,
    /// In reserve: does not serve.
    pub deputy: bool,
    /// Believed dead; it may come back.
    pub down: bool,
    /// The operator banned its holder, or withdrew the designation.
    pub barred: bool,
    /// What ended the mandate early.
    pub release: Option<wire::SignedRelease>,
    contact: Option<Contact>,
    mandate: Option<Arc<wire::SignedMandate>>,
    /// Summary that two peers compare to see whether they know the same.
    fingerprint: Key,
}

impl Entry {
    fn new(verified: &VerifiedMandate) -> Self {
        let mandate = verified.mandate();
        Self {
            candidate: mandate.candidate,
            term: mandate.term,
            basis: mandate.basis,
            capacity_bps: mandate.capacity_bps,
            seats: mandate.seats(),
            issued_ms: mandate.issued_ms,
            expires_ms: mandate.expires_ms,
            domain: mandate.domain.as_str().into(),
            deputy: mandate.deputy,
            down: false,
            barred: false,
            release: None,
            contact: None,
            mandate: Some(verified.signed().clone()),
            fingerprint: Key::default(),
        }
    }

    /// Who it is.
    pub fn node(&self) -> NodeId {
        self.candidate
    }

    /// Holds a mandate that was not ended: it is owed its place as a
    /// super-node, dead or alive.
    pub fn in_office(&self) -> bool {
        !self.deputy && self.release.is_none() && !self.barred
    }

    /// Elected in reserve, and may be called into office.
    pub fn in_reserve(&self) -> bool {
        self.deputy && self.release.is_none() && !self.barred
    }

    /// Serves, as far as this peer knows.
    pub fn serves(&self) -> bool {
        self.in_office() && !self.down
    }

    /// Named by the operator; elections leave it alone.
    pub fn designated(&self) -> bool {
        self.basis == Basis::Designated
    }

    /// Where it can be reached, best first.
    pub fn addrs(&self) -> &[SocketAddr] {
        self.contact.as_ref().map_or(&[], |contact| &contact.addrs)
    }

    /// Its contact, if known.
    pub fn contact(&self) -> Option<&Contact> {
        self.contact.as_ref()
    }

    /// When its contact was signed, milliseconds since 1970; 0 where none is known.
    pub fn contact_ms(&self) -> u64 {
        self.contact.as_ref().map_or(0, |contact| contact.issued_ms)
    }

    /// The mandate as it came, if this peer keeps it.
    pub fn mandate(&self) -> Option<&wire::SignedMandate> {
        self.mandate.as_deref()
    }

    /// What another peer needs to check and reach it.
    pub fn to_wire(&self) -> wire::RosterEntry {
        wire::RosterEntry {
            mandate: self.mandate.as_deref().cloned(),
            contact: self.contact.as_ref().map(|contact| contact.signed.clone()),
            release: self.release.clone(),
        }
    }

    /// The same for a leaf, which has no use for ballots.
    pub fn brief(&self) -> wire::RosterEntry {
        let mandate = self.mandate.as_deref();
        wire::RosterEntry {
            mandate: mandate.map(brief),
            contact: self.contact.as_ref().map(|contact| contact.signed.clone()),
            release: self.release.clone(),
        }
    }

    /// What placement needs.
    pub fn member(&self) -> Member {
        Member {
            node: self.candidate,
            seats: self.seats,
            domain: self.domain.clone(),
        }
    }

    /// By what equal entries are found among those that other peers have: some
    /// that are not equal may share it.
    pub(crate) fn likeness(&self) -> (NodeId, u64, u64, usize, [bool; 3]) {
        let contact = self.contact_ms();
        let paper = self.mandate.as_ref();
        let paper = paper.map_or(0, |paper| Arc::as_ptr(paper) as usize);
        let flags = [self.deputy, self.down, self.release.is_some()];
        (self.candidate, self.term, contact, paper, flags)
    }

    /// Whether an entry of the same likeness is equal; that of one paper in one
    /// place is seen without reading the paper.
    pub(crate) fn same(&self, other: &Self) -> bool {
        let counts = |entry: &Self| (entry.capacity_bps, entry.seats, entry.barred);
        let times = |entry: &Self| (entry.issued_ms, entry.expires_ms);
        self.likeness() == other.likeness()
            && self.basis == other.basis
            && counts(self) == counts(other)
            && times(self) == times(other)
            && self.domain == other.domain
            && self.release == other.release
            && self.contact == other.contact
    }

    /// Brings its summary up to date.
    fn sum(&mut self) {
        let contact = self.contact_ms();
        self.fingerprint = Key::hash(
            "roster entry",
            &[
                &self.candidate.0,
                &self.term.to_le_bytes(),
                &[u8::from(self.deputy), u8::from(self.release.is_some())],
                &contact.to_le_bytes(),
            ],
        );
    }
}

/// A mandate as a leaf gets it: who signed, not what for.
pub(crate) fn brief(mandate: &wire::SignedMandate) -> wire::SignedMandate {
    let signers = mandate.endorsements.iter().take(ENDORSEMENTS);
    wire::SignedMandate {
        body: mandate.body.clone(),
        endorsements: signers.cloned().collect(),
        ..Default::default()
    }
}

/// All entries, by node.
#[derive(Clone, Debug)]
pub struct Roster {
    own: NodeId,
    /// Shared where many peers live in one process.
    entries: BTreeMap<NodeId, Arc<Entry>>,
    /// How many entries there are of each term.
    terms: BTreeMap<u64, usize>,
    max_term: u64,
    /// See [`Roster::next_expiry`].
    expires_ms: u64,
    version: u64,
    sums: Sums,
    /// Of entries with a mandate to pass on, where they are many.
    parts: Option<Box<Parts>>,
    /// Whose entry changed since that was last asked.
    changed: BTreeSet<NodeId>,
}

/// What is told of all entries together, kept up to date with each.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    /// Of entries with a mandate to pass on.
    papers: Key,
    /// Of entries not believed dead.
    alive: Key,
    serving: usize,
    /// Those believed dead.
    down: usize,
}

impl Sums {
    fn of(entry: &Entry) -> Self {
        let fingerprint = entry.fingerprint;
        let counted = |counts: bool| if counts { fingerprint } else { Key::default() };
        Self {
            papers: counted(entry.mandate.is_some()),
            alive: counted(!entry.down),
            serving: usize::from(entry.serves()),
            down: usize::from(entry.down),
        }
    }
}

impl Roster {
    /// Nobody is known.
    pub fn new(own: NodeId) -> Self {
        Self {
            own,
            entries: BTreeMap::new(),
            terms: BTreeMap::new(),
            max_term: 0,
            expires_ms: u64::MAX,
            version: 0,
            sums: Sums::default(),
            parts: None,
            changed: BTreeSet::new(),
        }
    }

    /// Takes in a verified mandate. False where a later one is known: terms
    /// only go up, and in one term a full mandate replaces a deputy's. The
    /// paper of an entry that was kept without it is put back in its place.
    /// `contact` is its holder's, taken in where it is newer than the one known.
    pub fn insert(&mut self, verified: &VerifiedMandate, contact: Option<&Contact>) -> bool {
        let mandate = verified.mandate();
        if let Some(old) = self.entries.get(&mandate.candidate) {
            let same = mandate.term == old.term && mandate.deputy == old.deputy;
            if same && old.mandate.is_none() {
                let paper = verified.signed().clone();
                self.edit(&mandate.candidate, |entry| entry.mandate = Some(paper));
                return true;
            }
            // Two sides of a partition may have given it both in one term.
            let office = old.deputy && !mandate.deputy && old.release.is_none();
            if mandate.term < old.term || (mandate.term == old.term && !office) {
                return false;
            }
        }
        let old = self.remove(&mandate.candidate);
        let known = old.as_ref().and_then(|old| old.contact.as_ref());
        let both = [contact, known].into_iter().flatten();
        let mut entry = Entry::new(verified);
        entry.contact = both.max_by_key(|contact| contact.issued_ms).cloned();
        entry.sum();
        self.count(&mandate.candidate, Sums::default(), Sums::of(&entry));
        self.expires_ms = self.expires_ms.min(entry.expires_ms);
        self.changed.insert(mandate.candidate);
        self.entries
            .insert(mandate.candidate, memory::entry(Arc::new(entry)));
        *self.terms.entry(mandate.term).or_default() += 1;
        self.max_term = self.max_term.max(mandate.term);
        self.version += 1;
        if self.parts.is_none() && self.entries.len() > PARTS {
            self.parts = Some(Box::new(self.parts_afresh()));
        }
        true
    }

    /// Notes a verified release. False if it ends nothing: it has to name the
    /// present term, because one of a term to come would end what nobody gave.
    pub fn release(&mut self, node: &NodeId, term: u64, release: wire::SignedRelease) -> bool {
        let ends = |entry: &Entry| entry.term == term && entry.release.is_none();
        let found = self.entries.get(node).is_some_and(|entry| ends(entry));
        found && self.edit(node, |entry| entry.release = Some(release))
    }

    /// Notes a contact. True if it is newer than the one known.
    pub fn contact(&mut self, contact: Contact) -> bool {
        let node = contact.node_id;
        let known = self.entries.get(&node).map(|entry| {
            let known = entry.contact.as_ref();
            known.map_or(0, |old| old.issued_ms)
        });
        let newer = known.is_some_and(|issued_ms| contact.issued_ms > issued_ms);
        newer && self.edit(&node, |entry| entry.contact = Some(contact))
    }

    /// Marks a node dead or alive. True if that changed something.
    pub fn set_down(&mut self, node: &NodeId, down: bool) -> bool {
        let known = self.entries.get(node);
        known.is_some_and(|entry| entry.down != down) && self.edit(node, |entry| entry.down = down)
    }

    /// Marks whether the operator lets a node serve. True if that changed
    /// something.
    pub fn set_barred(&mut self, node: &NodeId, barred: bool) -> bool {
        let known = self.entries.get(node);
        let changes = known.is_some_and(|entry| entry.barred != barred);
        changes && self.edit(node, |entry| entry.barred = barred)
    }

    /// Changes an entry; false if there is none.
    fn edit(&mut self, node: &NodeId, change: impl FnOnce(&mut Entry)) -> bool {
        let Some(entry) = self.entries.get_mut(node) else {
            return false;
        };
        let before = Sums::of(entry);
        let changed = Arc::make_mut(entry);
        change(changed);
        changed.sum();
        let after = Sums::of(entry);
        *entry = memory::entry(entry.clone());
        self.count(node, before, after);
        self.changed.insert(*node);
        true
    }

    fn count(&mut self, node: &NodeId, before: Sums, after: Sums) {
        if let Some(parts) = &mut self.parts {
            parts.toggle(node, &before.papers);
            parts.toggle(node, &after.papers);
        }
        let sums = &mut self.sums;
        sums.papers = sums.papers.distance(&before.papers).distance(&after.papers);
        sums.alive = sums.alive.distance(&before.alive).distance(&after.alive);
        sums.serving = sums.serving + after.serving - before.serving;
        sums.down = sums.down + after.down - before.down;
    }

    /// Whose entry changed since this was last asked.
    pub fn take_changed(&mut self) -> BTreeSet<NodeId> {
        std::mem::take(&mut self.changed)
    }

    fn remove(&mut self, node: &NodeId) -> Option<Arc<Entry>> {
        let entry = self.entries.remove(node)?;
        self.version += 1;
        self.count(node, Sums::of(&entry), Sums::default());
        self.changed.insert(*node);
        if let btree_map::Entry::Occupied(mut same) = self.terms.entry(entry.term) {
            *same.get_mut() -= 1;
            if *same.get() == 0 {
                same.remove();
            }
        }
        Some(entry)
    }

    /// Drops expired entries; returns who served until now.
    pub fn expire(&mut self, now_ms: u64) -> Vec<NodeId> {
        if now_ms < self.expires_ms {
            return Vec::new();
        }
        let over = self.entries().filter(|entry| entry.expires_ms <= now_ms);
        let mut over: Vec<NodeId> = over.map(Entry::node).collect();
        over.retain(|node| self.remove(node).is_some_and(|entry| entry.serves()));
        let next = self.entries.values().map(|entry| entry.expires_ms).min();
        self.expires_ms = next.unwrap_or(u64::MAX);
        over
    }

    /// No entry expires before this, milliseconds since 1970; it is when the next one
    /// does, unless that one has gone since.
    pub fn next_expiry(&self) -> Option<u64> {
        Some(self.expires_ms).filter(|_| !self.is_empty())
    }

    /// How many entries there are, in office or not.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nobody is known.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Keeps at most `limit` entries, of those who serve and then of the others
    /// the nearest to us, and forgets the mandates themselves: a leaf has no
    /// use for more. `keep` always stays.
    pub fn trim(&mut self, limit: usize, keep: &[NodeId]) -> Vec<NodeId> {
        let dropped = match self.entries.len() > limit {
            true => self.farthest(limit, keep),
            false => Vec::new(),
        };
        self.parts = None;
        for node in &dropped {
            self.remove(node);
        }
        let own = self.own;
        let papers = self
            .entries
            .iter()
            .filter(|(node, entry)| **node != own && entry.mandate.is_some());
        let papers: Vec<NodeId> = papers.map(|(node, _)| *node).collect();
        for node in papers {
            self.edit(&node, |entry| entry.mandate = None);
        }
        dropped
    }

    /// All but the `limit` that [`Roster::trim`] keeps.
    fn farthest(&self, limit: usize, keep: &[NodeId]) -> Vec<NodeId> {
        let mut by_distance: Vec<_> = self.entries.keys().copied().collect();
        by_distance.sort_by_cached_key(|node| {
            let asked = keep.contains(node) || *node == self.own;
            (!asked, !self.serves(node), self.own_distance(node))
        });
        by_distance.split_off(limit)
    }

    fn own_distance(&self, node: &NodeId) -> Key {
        Key(self.own.0).distance(&Key(node.0))
    }

    /// The entry of `node`.
    pub fn get(&self, node: &NodeId) -> Option<&Entry> {
        self.entries.get(node).map(Arc::as_ref)
    }

    /// Every entry.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values().map(Arc::as_ref)
    }

    /// The entries among these, in order.
    pub(crate) fn among(&self, among: Among) -> impl Iterator<Item = &Entry> {
        let ranges = among.ranges().flat_map(|range| self.entries.range(range));
        ranges.map(|(_, entry)| entry.as_ref())
    }

    /// Every entry, those whose keys come next after `node` first.
    pub fn after(&self, node: &NodeId) -> impl Iterator<Item = &Entry> {
        let next = self.entries.range(*node..);
        let all = next.chain(self.entries.range(..*node));
        all.map(|(_, entry)| entry.as_ref())
    }

    /// Whether anybody is believed dead.
    pub fn any_down(&self) -> bool {
        self.sums.down > 0
    }

    /// Grows whenever an entry comes, goes, or gets another term.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Super-nodes that serve, as far as known.
    pub fn serving(&self) -> impl Iterator<Item = &Entry> {
        self.entries().filter(|entry| entry.serves())
    }

    /// Whether `node` serves.
    pub fn serves(&self, node: &NodeId) -> bool {
        self.entries.get(node).is_some_and(|entry| entry.serves())
    }

    /// The terms known of a candidate.
    pub fn held(&self, node: &NodeId) -> Held {
        let entry = self.entries.get(node);
        Held {
            mandate: entry.map(|entry| entry.term),
            released: entry
                .filter(|entry| entry.release.is_some())
                .map(|entry| entry.term),
        }
    }

    /// The highest term of any entry.
    pub fn max_term(&self) -> u64 {
        self.max_term
    }

    /// The highest term of an entry that is congruent to `lane`, of `lanes`.
    pub fn last_term(&self, lane: u64, lanes: u64) -> Option<u64> {
        let mut terms = self.terms.keys().rev();
        terms.find(|term| **term % lanes == lane).copied()
    }

    /// Order-independent summary of all entries that can be passed on; for one
    /// who keeps no papers, of those not believed dead.
    pub fn digest(&self, papers: bool) -> Key {
        match papers {
            true => self.sums.papers,
            false => self.sums.alive,
        }
    }

    /// The same a part at a time, of the entries that can be passed on, where they
    /// are many.
    pub(crate) fn parts(&self) -> Option<&Parts> {
        self.parts.as_deref()
    }

    /// The same, counted from the first entry on.
    pub(crate) fn parts_afresh(&self) -> Parts {
        let mut parts = Parts::default();
        for entry in self.entries() {
            parts.toggle(&entry.node(), &Sums::of(entry).papers);
        }
        parts
    }

    /// How many serve, as far as known.
    pub fn serving_count(&self) -> usize {
        self.sums.serving
    }
}

/// A roster, and the placement of those in it who serve: they decide. The
/// signature of one who is believed dead, or whose mandate was ended early,
/// still counts until that mandate expires: it may have signed before.
pub struct Known<'a> {
    /// Whose mandates are held.
    pub roster: &'a Roster,
    /// Where those sit who serve.
    pub placement: &'a Placement,
}

impl Authorities for Known<'_> {
    fn count(&self) -> usize {
        self.roster.serving_count()
    }

    fn contains(&self, node: &NodeId) -> bool {
        self.roster.get(node).is_some_and(|entry| !entry.deputy)
    }

    fn verifier(&self) -> Option<NodeId> {
        let own = self.roster.own;
        self.roster.serves(&own).then_some(own)
    }

    fn rank(&self, network: &str, term: u64, node: &NodeId) -> Option<usize> {
        let position = keys::election(network, term);
        let ranked = self.placement.nearest(&position, OFFICER_RANKS);
        if let Some(rank) = ranked.iter().position(|(_, closest)| closest == node) {
            return Some(rank);
        }
        // It does not serve any more: its place is where it would be.
        let entry = self.roster.get(node)?;
        let seats = (0..entry.seats).map(|i| keys::seat(&entry.candidate, i));
        let own = seats.map(|seat| position.distance(&seat)).min();
        let closer = |seat: &Key| Some(position.distance(seat)) < own;
        Some(ranked.iter().filter(|(seat, _)| closer(seat)).count())
    }
}

/// Knows nobody: how a newcomer looks at its first roster.
pub struct Nobody;

impl Authorities for Nobody {
    fn count(&self) -> usize {
        0
    }

    fn contains(&self, _: &NodeId) -> bool {
        false
    }

    fn rank(&self, _: &str, _: u64, _: &NodeId) -> Option<usize> {
        None
    }
}
