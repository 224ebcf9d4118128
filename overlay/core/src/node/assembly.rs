//! The assembly of peers that know no super-node, as one of them sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use canopy_proto::wire;

use crate::contact::Contact;
use crate::keyspace::{Key, NodeId};
use crate::time::Time;

/// Members of an assembly at most; a mandate names them all.
const MAX_MEMBERS: usize = 256;
/// Members that one who stays outside keeps in mind, and is told of.
pub(super) const TOLD: usize = 8;
/// Peers who have to say that an assembly is full before it is believed.
const SAID_BY: usize = 2;

pub(super) struct Member {
    /// Its place in the assembly.
    pub(super) lot: Key,
    pub(super) contact: Contact,
    pub(super) candidacy: wire::Candidacy,
    pub(super) heard: Time,
}

/// The assembly as this peer sees it.
pub(super) struct State {
    pub(super) members: BTreeMap<NodeId, Member>,
    /// The members by their lots, and of them those who may take the chair: a
    /// chair has to call everybody, so that it must be one whom everybody can
    /// dial, as a candidate is.
    lots: BTreeSet<(Key, NodeId)>,
    chairs: BTreeSet<(Key, NodeId)>,
    /// When a member last came or went, or the chair last showed itself.
    pub(super) settled: Time,
    /// When the first mandate of a founding was endorsed, and for which officer.
    pub(super) endorsed: Option<(NodeId, Time)>,
    /// Who is said to serve and was asked for its mandate, and when.
    pub(super) asked: BTreeMap<NodeId, Time>,
    /// Who says that the assembly is full of lower lots than ours, and up to
    /// which.
    pub(super) full: BTreeMap<NodeId, Key>,
    /// When one who stays outside tries again.
    pub(super) again: Time,
}

impl State {
    pub(super) fn new(now: Time) -> Self {
        Self {
            members: BTreeMap::new(),
            lots: BTreeSet::new(),
            chairs: BTreeSet::new(),
            settled: now,
            endorsed: None,
            asked: BTreeMap::new(),
            full: BTreeMap::new(),
            again: now,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether the assembly is full of others: then this peer waits until
    /// somebody serves, and keeps nothing but a few names to pass on. In a
    /// network of a million most peers do.
    pub(super) fn outside(&self) -> bool {
        self.full.len() >= SAID_BY
    }

    /// The highest lot of a full assembly.
    pub(super) fn limit(&self) -> Option<Key> {
        match self.outside() {
            true => self.full.values().max().copied(),
            false if self.members.len() < MAX_MEMBERS => None,
            false => self.lots.last().map(|(lot, _)| *lot),
        }
    }

    pub(super) fn knows(&self, node: &NodeId) -> bool {
        self.members.contains_key(node)
    }

    pub(super) fn addrs_of(&self, node: &NodeId) -> Option<Vec<SocketAddr>> {
        self.members
            .get(node)
            .map(|member| member.contact.addrs.clone())
    }

    /// The members, ascending, each with its contact.
    pub(super) fn contacts(&self) -> impl Iterator<Item = &Contact> {
        self.members.values().map(|member| &member.contact)
    }

    pub(super) fn insert(&mut self, member: Member) {
        let node = member.contact.node_id;
        self.remove(&node);
        self.lots.insert((member.lot, node));
        if member.candidacy.eligible {
            self.chairs.insert((member.lot, node));
        }
        self.members.insert(node, member);
    }

    pub(super) fn remove(&mut self, node: &NodeId) -> Option<Member> {
        let member = self.members.remove(node)?;
        self.lots.remove(&(member.lot, *node));
        self.chairs.remove(&(member.lot, *node));
        Some(member)
    }

    /// Notes what a member says of itself, as of `heard`.
    pub(super) fn hear(&mut self, node: &NodeId, heard: Time, candidacy: wire::Candidacy) {
        let Some(member) = self.members.get_mut(node) else {
            return;
        };
        if heard < member.heard {
            return;
        }
        member.heard = heard;
        member.candidacy = candidacy;
        let place = (member.lot, *node);
        match candidacy.eligible {
            true => self.chairs.insert(place),
            false => self.chairs.remove(&place),
        };
    }

    pub(super) fn keep(&mut self, keeps: impl Fn(&NodeId, &Member) -> bool) {
        let gone = self
            .members
            .iter()
            .filter(|(node, member)| !keeps(node, member));
        let gone: Vec<NodeId> = gone.map(|(node, _)| *node).collect();
        for node in gone {
            self.remove(&node);
        }
    }

    /// Who takes the chair, in order.
    pub(super) fn chairs(&self) -> impl Iterator<Item = NodeId> {
        self.chairs.iter().map(|(_, node)| *node)
    }

    /// Whether `one` takes the chair before `other` may.
    pub(super) fn comes_before(&self, one: &NodeId, other: &NodeId) -> bool {
        let mut before = self.chairs().take_while(|node| node != other);
        before.any(|node| node == *one)
    }

    pub(super) fn chair(&self) -> Option<NodeId> {
        self.chairs().next()
    }

    /// Who has to go for `node` to come in; an error: it stays outside. A full
    /// assembly keeps those with the lowest lots, so that all peers of a large
    /// network come to one and the same.
    pub(super) fn room(&self, lot: &Key, own: &NodeId) -> Result<Option<NodeId>, Full> {
        if self.outside() {
            let member = self.limit().is_some_and(|limit| *lot <= limit);
            let room = member && self.members.len() <= TOLD;
            return if room { Ok(None) } else { Err(Full) };
        }
        if self.members.len() < MAX_MEMBERS {
            return Ok(None);
        }
        let mut others = self.lots.iter().rev().filter(|(_, other)| other != own);
        match others.next() {
            Some((highest, last)) if lot < highest => Ok(Some(*last)),
            _ => Err(Full),
        }
    }
}

/// The assembly has members enough whose lots are lower.
pub(super) struct Full;

/// The place of a peer in an assembly.
pub(super) fn lot(network: &str, node: &NodeId) -> Key {
    Key::hash("chair", &[network.as_bytes(), &node.0])
}
