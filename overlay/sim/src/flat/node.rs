//! One node: it answers queries, reads and writes values for its user, and keeps
//! its table and its values up. It does no input and output: the world hands it
//! packets and the time, and carries what it wants.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use canopy_core::keyspace::Key;

use super::lookup::Lookup;
use super::message::{Body, Query};
use super::table::{Table, shared_bits};
use super::{Contact, K, Message};
use crate::draw::Draw;
use crate::run::SECOND;
use crate::world::PeerId;

/// After so long without an answer another one is asked, and after so long none
/// is taken any more: libtorrent's short and long timeout.
const LATE_US: u64 = SECOND;
const FORGET_US: u64 = 15 * SECOND;
/// How long a user waits; as Canopy's SDK.
const PATIENCE_US: u64 = 10 * SECOND;
/// Holders that a read hears; Canopy's quorum.
const READ_QUORUM: usize = 2;
/// Buckets are looked at, and values republished, every hour (the paper).
const HOUR_US: u64 = 3600 * SECOND;
/// How often that is checked, and how far republications are spread.
const UPKEEP_US: u64 = HOUR_US / 6;
/// Pause between two tries to join.
const REJOIN_US: u64 = 5 * SECOND;

/// What a user wants.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wish {
    Read(Key),
    Write(Key, u64),
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Stored,
    NotStored,
    Read {
        number: Option<u64>,
        /// Requests sent one because of the other, until the answer.
        hops: u32,
    },
    NotRead,
}

/// What a node wants of the world.
#[derive(Debug)]
pub(crate) enum Output {
    Send(PeerId, Message),
    /// It has found its neighbours.
    Joined,
    /// The wish with this number is done with; whether all that were asked for it
    /// answered in time.
    Ended(u64, Ended, bool),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Late(u64),
    Forget(u64),
    Deadline(u64),
    Republish(Key),
    Upkeep,
    Join,
}

/// A query that is not answered yet.
struct Pending {
    task: u64,
    to: Contact,
    hops: u32,
    late: bool,
}

enum Purpose {
    Join,
    Refresh,
    Read {
        wish: u64,
        holders: usize,
        best: u64,
    },
    Write {
        wish: u64,
        number: u64,
        storing: Option<Storing>,
    },
}

/// A value on its way to the closest.
struct Storing {
    left: usize,
    stored: usize,
    needed: usize,
}

struct Task {
    lookup: Lookup,
    purpose: Purpose,
    prompt: bool,
}

impl Task {
    fn wish(&self) -> Option<u64> {
        match self.purpose {
            Purpose::Read { wish, .. } | Purpose::Write { wish, .. } => Some(wish),
            Purpose::Join | Purpose::Refresh => None,
        }
    }
}

#[derive(Clone, Copy)]
struct Value {
    number: u64,
    republish_at: u64,
}

/// A node of the table.
pub(crate) struct Node {
    me: Contact,
    server: bool,
    draw: Draw,
    bootstraps: Vec<Contact>,
    table: Table,
    values: BTreeMap<Key, Value>,
    tasks: BTreeMap<u64, Task>,
    pending: BTreeMap<u64, Pending>,
    timers: BTreeSet<(u64, Timer)>,
    /// The last number that was given to a task or a query; 0 is no task.
    count: u64,
    outputs: VecDeque<Output>,
}

impl Node {
    pub(crate) fn new(me: Contact, server: bool, seed: u64) -> Self {
        Self {
            me,
            server,
            draw: Draw::new(seed, "kademlia"),
            bootstraps: Vec::new(),
            table: Table::new(me.key),
            values: BTreeMap::new(),
            tasks: BTreeMap::new(),
            pending: BTreeMap::new(),
            timers: BTreeSet::new(),
            count: seed >> 1,
            outputs: VecDeque::new(),
        }
    }

    /// It starts, with the table that it had, and joins.
    pub(crate) fn start(&mut self, now: u64, bootstraps: Vec<Contact>) {
        self.bootstraps = bootstraps;
        self.timers = BTreeSet::from([(now, Timer::Join)]);
        let first = now + self.draw.below(UPKEEP_US);
        self.timers.insert((first, Timer::Upkeep));
    }

    /// It ends; the wishes that come to nothing with it.
    pub(crate) fn stop(&mut self) -> Vec<u64> {
        self.values.clear();
        self.pending.clear();
        self.outputs.clear();
        let tasks = std::mem::take(&mut self.tasks);
        tasks.values().filter_map(Task::wish).collect()
    }

    /// Whether it answers queries.
    pub(crate) fn is_server(&self) -> bool {
        self.server
    }

    /// The number of the value that it holds.
    pub(crate) fn holds(&self, key: &Key) -> Option<u64> {
        self.values.get(key).map(|value| value.number)
    }

    /// What it wants.
    pub(crate) fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When it wants to be woken.
    pub(crate) fn next_timeout(&self) -> Option<u64> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Its user wants something; `wish` is its number.
    pub(crate) fn begin(&mut self, now: u64, wish: u64, what: Wish) {
        let (key, mut purpose) = match what {
            Wish::Read(key) => {
                let (holders, best) = (0, 0);
                let read = Purpose::Read {
                    wish,
                    holders,
                    best,
                };
                (key, read)
            }
            Wish::Write(key, number) => {
                let write = Purpose::Write {
                    wish,
                    number,
                    storing: None,
                };
                (key, write)
            }
        };
        if let (Some(number), Purpose::Read { holders, best, .. }) =
            (self.holds(&key), &mut purpose)
        {
            (*holders, *best) = (1, number);
        }
        let task = self.look(now, key, purpose);
        self.timers
            .insert((now + PATIENCE_US, Timer::Deadline(task)));
    }

    fn number(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    /// Begins a lookup.
    fn look(&mut self, now: u64, target: Key, purpose: Purpose) -> u64 {
        let mut known = self.table.closest(&target, false);
        if known.len() < K {
            known = self.table.closest(&target, true);
        }
        if matches!(purpose, Purpose::Join) {
            known.extend(&self.bootstraps);
        }
        self.table.looks(&target, now);
        let task = self.number();
        let lookup = Lookup::new(self.me.peer, target, known);
        let (prompt, purpose) = (true, purpose);
        self.tasks.insert(
            task,
            Task {
                lookup,
                purpose,
                prompt,
            },
        );
        self.advance(now, task, 0);
        task
    }

    /// Asks whom the lookup wants asked, because of what happened after `hops`
    /// requests; ends it if there is nobody left.
    fn advance(&mut self, now: u64, id: u64, hops: u32) {
        loop {
            let Some(task) = self.tasks.get_mut(&id) else {
                return;
            };
            let Some(contact) = task.lookup.next() else {
                break;
            };
            let target = task.lookup.target;
            let query = match task.purpose {
                Purpose::Read { .. } => Query::FindValue(target),
                _ => Query::FindNode(target),
            };
            let for_user = task.wish().is_some();
            self.ask(now, id, contact, query, for_user, hops + 1);
        }
        let task = self.tasks.get_mut(&id);
        if task.is_some_and(|task| task.lookup.is_done()) {
            self.looked(now, id, hops);
        }
    }

    fn ask(&mut self, now: u64, task: u64, to: Contact, query: Query, for_user: bool, hops: u32) {
        let rpc = self.number();
        let late = false;
        let pending = Pending {
            task,
            to,
            hops,
            late,
        };
        self.pending.insert(rpc, pending);
        self.timers.insert((now + LATE_US, Timer::Late(rpc)));
        self.send(to.peer, for_user, rpc, Body::Query(query));
    }

    fn send(&mut self, to: PeerId, for_user: bool, rpc: u64, body: Body) {
        let message = Message {
            from: self.me,
            server: self.server,
            for_user,
            rpc,
            body,
        };
        self.outputs.push_back(Output::Send(to, message));
    }

    /// A lookup has come to its end.
    fn looked(&mut self, now: u64, id: u64, hops: u32) {
        let Some(task) = self.tasks.get_mut(&id) else {
            return;
        };
        let found = task.lookup.result();
        let target = task.lookup.target;
        match &mut task.purpose {
            Purpose::Refresh => {
                self.tasks.remove(&id);
            }
            Purpose::Join => {
                self.tasks.remove(&id);
                self.joined(now, &found);
            }
            Purpose::Read { holders, best, .. } => {
                let number = (*holders > 0).then_some(*best);
                let ended = match number.is_some() || !found.is_empty() {
                    true => Ended::Read { number, hops },
                    false => Ended::NotRead,
                };
                self.end(id, ended);
            }
            Purpose::Write { number, .. } => {
                let number = *number;
                self.store(now, id, target, number, found);
            }
        }
    }

    fn joined(&mut self, now: u64, found: &[Contact]) {
        let Some(closest) = found.first() else {
            self.timers.insert((now + REJOIN_US, Timer::Join));
            return;
        };
        self.outputs.push_back(Output::Joined);
        // All buckets farther away than the closest neighbour.
        for depth in 0..shared_bits(&self.me.key, &closest.key) {
            self.refresh(now, depth);
        }
    }

    /// Looks for a random key of a bucket.
    fn refresh(&mut self, now: u64, depth: usize) {
        let mut target = self.me.key;
        let first = depth / 8;
        for (at, byte) in target.0.iter_mut().enumerate().skip(first) {
            // Bits of this byte that are random.
            let random = match at == first {
                true => 0x7fu8.checked_shr(depth as u32 % 8).unwrap_or(0),
                false => 0xff,
            };
            *byte = *byte & !random | self.draw.below(256) as u8 & random;
        }
        target.0[first] ^= 0x80 >> (depth % 8);
        self.look(now, target, Purpose::Refresh);
    }

    /// Brings a user's value to the closest that a lookup found.
    fn store(&mut self, now: u64, id: u64, key: Key, number: u64, mut found: Vec<Contact>) {
        let own = self.me.key.distance(&key);
        let farther = |last: &Contact| own < last.key.distance(&key);
        let holds = self.server && (found.len() < K || found.last().is_some_and(farther));
        if holds {
            found.truncate(K - 1);
            self.keep(now, key, number);
        }
        let copies = found.len() + usize::from(holds);
        let begun = Storing {
            left: found.len(),
            stored: usize::from(holds),
            needed: copies / 2 + 1,
        };
        if let Some(Task {
            purpose: Purpose::Write { storing, .. },
            ..
        }) = self.tasks.get_mut(&id)
        {
            *storing = Some(begun);
        }
        for contact in found {
            self.ask(now, id, contact, Query::Store(key, number), true, 0);
        }
        self.tally(id);
    }

    /// Ends a write that is decided.
    fn tally(&mut self, id: u64) {
        let Some(Task {
            purpose: Purpose::Write { storing, .. },
            ..
        }) = self.tasks.get(&id)
        else {
            return;
        };
        match storing {
            Some(storing) if storing.stored >= storing.needed => self.end(id, Ended::Stored),
            Some(storing) if storing.left == 0 => self.end(id, Ended::NotStored),
            _ => {}
        }
    }

    fn end(&mut self, id: u64, ended: Ended) {
        if let Some(task) = self.tasks.remove(&id)
            && let Some(wish) = task.wish()
        {
            let output = Output::Ended(wish, ended, task.prompt);
            self.outputs.push_back(output);
        }
    }

    /// Takes a packet in.
    pub(crate) fn handle(&mut self, now: u64, message: Message) {
        if message.server && self.table.heard(message.from) && self.server {
            self.welcome(now, message.from);
        }
        match message.body {
            Body::Query(query) => {
                let body = self.answer(now, query);
                self.send(message.from.peer, message.for_user, message.rpc, body);
            }
            Body::Nodes { closest, value } => {
                let Some(pending) = self.pending.remove(&message.rpc) else {
                    return;
                };
                self.told(now, pending, closest, value);
            }
            Body::Stored => {
                let Some(pending) = self.pending.remove(&message.rpc) else {
                    return;
                };
                if let Some(storing) = self.storing(pending.task) {
                    storing.stored += 1;
                    storing.left -= usize::from(!pending.late);
                    self.tally(pending.task);
                }
            }
        }
    }

    fn storing(&mut self, id: u64) -> Option<&mut Storing> {
        match &mut self.tasks.get_mut(&id)?.purpose {
            Purpose::Write { storing, .. } => storing.as_mut(),
            _ => None,
        }
    }

    fn answer(&mut self, now: u64, query: Query) -> Body {
        match query {
            Query::FindNode(target) => Body::Nodes {
                closest: self.table.closest(&target, false),
                value: None,
            },
            Query::FindValue(target) => Body::Nodes {
                closest: self.table.closest(&target, false),
                value: self.holds(&target),
            },
            Query::Store(key, number) => {
                self.keep(now, key, number);
                Body::Stored
            }
        }
    }

    fn told(&mut self, now: u64, pending: Pending, closest: Vec<Contact>, value: Option<u64>) {
        let Pending { task: id, hops, .. } = pending;
        let Some(task) = self.tasks.get_mut(&id) else {
            return;
        };
        task.lookup.answered(pending.to.peer, closest);
        if let (Purpose::Read { holders, best, .. }, Some(number)) = (&mut task.purpose, value) {
            *holders += 1;
            *best = number.max(*best);
            if *holders >= READ_QUORUM {
                let number = Some(*best);
                return self.end(id, Ended::Read { number, hops });
            }
        }
        // A write that is being stored looks for nobody any more.
        if self.storing(id).is_none() {
            self.advance(now, id, hops);
        }
    }

    /// Keeps the latest, and counts on whoever brought it for the next hour.
    fn keep(&mut self, now: u64, key: Key, number: u64) {
        let republish_at = now + HOUR_US + self.draw.below(UPKEEP_US);
        let value = self.values.entry(key).or_insert(Value {
            number,
            republish_at,
        });
        value.number = value.number.max(number);
        value.republish_at = republish_at;
        self.timers.insert((republish_at, Timer::Republish(key)));
    }

    /// A newcomer gets the values that it is now among the closest to, from the
    /// closest of those who hold them (section 2.5).
    fn welcome(&mut self, now: u64, newcomer: Contact) {
        let mut due = Vec::new();
        for (key, value) in &self.values {
            let closest = self.table.closest(key, false);
            let own = self.me.key.distance(key);
            let mut others = closest.iter().filter(|other| **other != newcomer);
            if closest.contains(&newcomer) && others.all(|other| own < other.key.distance(key)) {
                due.push((*key, value.number));
            }
        }
        for (key, number) in due {
            self.ask(now, 0, newcomer, Query::Store(key, number), false, 0);
        }
    }

    fn republish(&mut self, now: u64, key: Key) {
        let Some(number) = self.holds(&key) else {
            return;
        };
        let closest = self.table.closest(&key, false);
        let own = self.me.key.distance(&key);
        let nearer = closest
            .iter()
            .filter(|other| other.key.distance(&key) < own);
        // Whoever is not among the closest any more gives its copy away.
        match nearer.count() < K {
            true => self.keep(now, key, number),
            false => drop(self.values.remove(&key)),
        }
        for contact in closest {
            self.ask(now, 0, contact, Query::Store(key, number), false, 0);
        }
    }

    /// Does all that is due.
    pub(crate) fn timeout(&mut self, now: u64) {
        while let Some((at, timer)) = self.timers.first().copied()
            && at <= now
        {
            self.timers.pop_first();
            match timer {
                Timer::Late(rpc) => self.late(now, rpc),
                Timer::Forget(rpc) => drop(self.pending.remove(&rpc)),
                Timer::Deadline(task) => self.give_up(task),
                Timer::Republish(key) => {
                    let due = self.values.get(&key);
                    if due.is_some_and(|value| value.republish_at == at) {
                        self.republish(now, key);
                    }
                }
                Timer::Upkeep => {
                    self.timers.insert((now + UPKEEP_US, Timer::Upkeep));
                    for depth in self.table.idle(now.saturating_sub(HOUR_US)) {
                        self.refresh(now, depth);
                    }
                }
                Timer::Join => {
                    self.look(now, self.me.key, Purpose::Join);
                }
            }
        }
    }

    fn late(&mut self, now: u64, rpc: u64) {
        let Some(pending) = self.pending.get_mut(&rpc) else {
            return;
        };
        pending.late = true;
        let (id, to, hops) = (pending.task, pending.to, pending.hops);
        let forget = now + FORGET_US - LATE_US;
        self.timers.insert((forget, Timer::Forget(rpc)));
        self.table.failed(&to);
        let Some(task) = self.tasks.get_mut(&id) else {
            return;
        };
        task.prompt = false;
        if let Some(storing) = self.storing(id) {
            storing.left -= 1;
            return self.tally(id);
        }
        if let Some(task) = self.tasks.get_mut(&id) {
            task.lookup.late(to.peer);
            self.advance(now, id, hops);
        }
    }

    /// Its user waits no longer.
    fn give_up(&mut self, id: u64) {
        let Some(task) = self.tasks.get(&id) else {
            return;
        };
        let ended = match task.purpose {
            Purpose::Write { .. } => Ended::NotStored,
            _ => Ended::NotRead,
        };
        self.end(id, ended);
    }
}
