//! People who use the overlay: they write values and read each other's, through
//! the production client, and remember what was acknowledged to them.

use std::time::Duration;

use bytes::Bytes;
use canopy_core::keyspace::{Key, keys};
use canopy_core::node::Role;
use canopy_leaf::client::Consistency;
use tokio::time::Instant;

use crate::data::counted;
use crate::draw::{Draw, Zipf};
use crate::flat::{Ended, Wish};
use crate::run::SECOND;
use crate::world::{PeerId, World, micros};

/// How long what they write lasts.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// Tries to meet a user that runs and has a home.
const TRIES: usize = 16;
/// Reads of the reckoning under way at once...
const AT_ONCE: usize = 64;
/// ...and how often what was not found is looked for.
pub(crate) const RECKONINGS: usize = 5;

/// What they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UsersConfig {
    /// How many peers have somebody who uses them.
    pub count: u32,
    /// What all of them do in a second.
    pub operations_per_s: u32,
    /// Values that there are.
    pub keys: u32,
    /// Of a hundred operations, so many are writes.
    #[serde(default = "ten")]
    pub writes_percent: u32,
    /// Keys are read by Zipf's law, not all alike.
    #[serde(default)]
    pub zipf: bool,
    /// Of a hundred reads, so many are of one and the same key.
    #[serde(default)]
    pub hot_percent: u32,
    /// How long a value is, bytes.
    #[serde(default = "eight")]
    pub value_bytes: usize,
}

/// What a value's number takes.
const NUMBER: usize = size_of::<u64>();

fn eight() -> usize {
    NUMBER
}

fn ten() -> u32 {
    10
}

/// What came of an operation.
#[derive(Debug)]
pub(crate) struct Done {
    key: usize,
    outcome: Outcome,
    /// What a read must find at least, what a write wrote.
    number: u64,
    begun_us: u64,
    took_us: u64,
    /// A read of the reckoning.
    last: bool,
    /// Some request was not answered in time, as far as that is told here: the
    /// production client counts for itself.
    again: bool,
}

impl Done {
    fn begun(key: usize, number: u64, begun_us: u64, outcome: Outcome, last: bool) -> Self {
        Self {
            key,
            outcome,
            number,
            begun_us,
            took_us: 0,
            last,
            again: false,
        }
    }

    /// What came of a wish to a node of the flat table; none: the node ended.
    pub(crate) fn ended(self, ended: Option<Ended>, prompt: bool, clock: u64) -> Self {
        let outcome = match (ended, self.outcome) {
            (Some(Ended::Stored), _) => Outcome::Stored,
            (Some(Ended::Read { number, hops }), _) => Outcome::Read(number, hops),
            (Some(Ended::NotStored | Ended::NotRead) | None, outcome) => outcome,
        };
        Self {
            outcome,
            took_us: clock - self.begun_us,
            again: !prompt,
            ..self
        }
    }
}

#[derive(Debug)]
enum Outcome {
    Stored,
    NotStored,
    /// What was found, and after how many requests sent one because of the other.
    Read(Option<u64>, u32),
    NotRead,
}

/// One value.
#[derive(Clone, Copy, Debug, Default)]
struct Value {
    /// Who writes it.
    owner: PeerId,
    /// The latest number that was written, and that was acknowledged.
    written: u64,
    acknowledged: u64,
    writing: bool,
    /// The reckoning has found it.
    found: bool,
}

/// How the operations of ten seconds fared.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    ok: u64,
    failed: u64,
    unasked: u64,
}

/// All users.
pub(crate) struct Users {
    config: UsersConfig,
    people: Vec<PeerId>,
    values: Vec<Value>,
    zipf: Option<Zipf>,
    draw: Draw,
    /// When the next one does something; none: nobody does now.
    next: Option<u64>,
    slots: Vec<Slot>,
    /// Microseconds of each read that was answered.
    took: Vec<u32>,
    /// Requests of each, sent one because of the other.
    hops: Vec<u32>,
    pub(crate) ok: u64,
    pub(crate) failed: u64,
    /// Those that nobody could begin, for want of a super-node.
    pub(crate) unasked: u64,
    /// Reads that found less than was acknowledged before they began.
    pub(crate) stale: u64,
    /// Operations for which some request was not answered in time.
    pub(crate) again: u64,
    under_way: usize,
}

/// Hops that are told apart.
const MOST_HOPS: usize = 8;
const SLOT_US: u64 = 10 * SECOND;

impl Users {
    pub(crate) fn new(config: UsersConfig, peers: u32, seed: u64) -> Self {
        let mut draw = Draw::new(seed, "users");
        let all: Vec<PeerId> = (0..peers).collect();
        let people = draw.some(&all, config.count as usize);
        let value = |_| Value {
            owner: people.get(draw.index(people.len())).copied().unwrap_or(0),
            ..Value::default()
        };
        let values: Vec<Value> = (0..config.keys).map(value).collect();
        Self {
            zipf: config.zipf.then(|| Zipf::new(values.len())),
            config,
            people,
            values,
            draw,
            next: None,
            slots: Vec::new(),
            took: Vec::new(),
            hops: Vec::new(),
            again: 0,
            ok: 0,
            failed: 0,
            unasked: 0,
            stale: 0,
            under_way: 0,
        }
    }

    /// They begin.
    pub(crate) fn begin(&mut self, at: u64) {
        self.next = Some(at);
    }

    /// They do nothing more.
    pub(crate) fn rest(&mut self) {
        self.next = None;
    }

    /// When one of them does something next.
    pub(crate) fn next(&self) -> Option<u64> {
        self.next
    }

    /// Whether something is under way.
    pub(crate) fn busy(&self) -> bool {
        self.under_way > 0
    }

    /// Does all that is due, and takes in what is done.
    pub(crate) fn act(&mut self, world: &mut World) {
        for done in world.take_done() {
            self.take(done);
        }
        while let Some(at) = self.next.filter(|at| *at <= world.clock()) {
            let mean = SECOND / u64::from(self.config.operations_per_s.max(1));
            self.next = Some(at + self.draw.between(mean / 2, mean * 3 / 2).max(1));
            self.operate(world);
        }
    }

    fn operate(&mut self, world: &mut World) {
        let writes = self.draw.chance(self.config.writes_percent * 10_000);
        let hot = self.draw.chance(self.config.hot_percent * 10_000);
        let key = match &self.zipf {
            _ if hot && !writes => 0,
            Some(zipf) if !writes => zipf.rank(&mut self.draw),
            _ => self.draw.index(self.values.len()),
        };
        let Some(value) = self.values.get(key).copied() else {
            return;
        };
        // What nobody has written yet is written first.
        let writes = writes || value.acknowledged == 0;
        let user = match writes {
            true => Some(value.owner),
            false => self.somebody(world),
        };
        let Some(user) = user.filter(|id| well(world, *id)) else {
            return;
        };
        if !ready(world, user) {
            self.unasked += 1;
            self.slot(world.clock()).unasked += 1;
        } else if writes {
            self.write(world, key, value);
        } else {
            self.read(world, user, key, false);
        }
    }

    fn slot(&mut self, at: u64) -> &mut Slot {
        let slot = usize::try_from(at / SLOT_US).unwrap_or(0);
        if self.slots.len() <= slot {
            self.slots.resize(slot + 1, Slot::default());
        }
        &mut self.slots[slot]
    }

    /// A user whose peer runs and has a home; one without a home if none is found.
    fn somebody(&mut self, world: &World) -> Option<PeerId> {
        let mut homeless = None;
        for _ in 0..TRIES {
            let id = *self.people.get(self.draw.index(self.people.len()))?;
            if ready(world, id) {
                return Some(id);
            }
            homeless = homeless.or(well(world, id).then_some(id));
        }
        homeless
    }

    fn write(&mut self, world: &mut World, key: usize, value: Value) {
        if value.writing {
            return;
        }
        let client = world.client(value.owner);
        let number = value.written + 1;
        self.values[key].written = number;
        self.values[key].writing = true;
        self.under_way += 1;
        let begun_us = world.clock();
        let Some(client) = client else {
            let wish = Wish::Write(name(world, value.owner, key), number);
            let outcome = Outcome::NotStored;
            let begun = Done::begun(key, number, begun_us, outcome, false);
            return world.wish_flat(value.owner, wish, begun);
        };
        let mut data = number.to_be_bytes().to_vec();
        data.resize(self.config.value_bytes.max(NUMBER), 0);
        let wish = async move {
            let (begun, name) = (Instant::now(), key.to_string());
            let put = client.put(&name, Bytes::from(data), Some(LIFETIME));
            let outcome = put.await.map_or(Outcome::NotStored, |_| Outcome::Stored);
            Done {
                took_us: micros(begun.elapsed()),
                ..Done::begun(key, number, begun_us, outcome, false)
            }
        };
        if let Some(data) = world.data() {
            data.begin(wish);
        }
    }

    fn read(&mut self, world: &mut World, reader: PeerId, key: usize, last: bool) {
        let value = self.values[key];
        let owner = world.peer(value.owner).node;
        let client = world.client(reader);
        self.under_way += 1;
        let (number, begun_us) = (value.acknowledged, world.clock());
        let Some(client) = client else {
            let wish = Wish::Read(name(world, value.owner, key));
            let begun = Done::begun(key, number, begun_us, Outcome::NotRead, last);
            return world.wish_flat(reader, wish, begun);
        };
        let wish = async move {
            let begun = Instant::now();
            let name = key.to_string();
            let read = client.get(owner, &name, Consistency::Quorum);
            let (read, hops) = counted(read).await;
            let outcome = match read {
                Ok(found) => Outcome::Read(found.and_then(|found| number_of(&found.data)), hops),
                Err(_) => Outcome::NotRead,
            };
            Done {
                took_us: micros(begun.elapsed()),
                ..Done::begun(key, number, begun_us, outcome, last)
            }
        };
        if let Some(data) = world.data() {
            data.begin(wish);
        }
    }

    fn take(&mut self, done: Done) {
        self.under_way = self.under_way.saturating_sub(1);
        let value = &mut self.values[done.key];
        let good = match done.outcome {
            Outcome::Stored => {
                value.acknowledged = done.number;
                true
            }
            Outcome::Read(found, _) => found.unwrap_or(0) >= done.number,
            Outcome::NotStored | Outcome::NotRead => false,
        };
        if matches!(done.outcome, Outcome::Stored | Outcome::NotStored) {
            value.writing = false;
        }
        if done.last {
            value.found |= good;
            return;
        }
        self.again += u64::from(done.again);
        self.ok += u64::from(good);
        self.failed += u64::from(!good);
        let slot = self.slot(done.begun_us);
        slot.ok += u64::from(good);
        slot.failed += u64::from(!good);
        if let Outcome::Read(_, hops) = done.outcome {
            self.stale += u64::from(!good);
            self.hops.push(hops);
            self.took.push(done.took_us.min(u64::from(u32::MAX)) as u32);
        }
    }

    /// Of a thousand operations that users wanted from `from` on, how many
    /// succeeded; those that nobody could begin did not.
    pub(crate) fn ok_milli(&self, from: u64) -> Option<u64> {
        let first = (from.div_ceil(SLOT_US)) as usize;
        let slots = self.slots.iter().skip(first);
        let (ok, failed) = slots.fold((0, 0), |(ok, failed), slot| {
            (ok + slot.ok, failed + slot.failed + slot.unasked)
        });
        (ok * 1000).checked_div(ok + failed)
    }

    /// Slots of ten seconds from the first operation on: when each begins,
    /// seconds since the start, how many operations were answered, and how many
    /// were not.
    pub(crate) fn course(&self) -> Vec<(f64, u64, u64)> {
        let slots = self.begun().map(|(at, slot)| (at, slot.ok, slot.failed));
        slots.collect()
    }

    /// The same slots: how many operations nobody could begin, for want of a
    /// super-node.
    pub(crate) fn unasked_course(&self) -> Vec<u64> {
        self.begun().map(|(_, slot)| slot.unasked).collect()
    }

    fn begun(&self) -> impl Iterator<Item = (f64, &Slot)> {
        let slots = (0u32..).map(|i| f64::from(i) * 10.0).zip(&self.slots);
        slots.skip_while(|(_, slot)| slot.ok + slot.failed + slot.unasked == 0)
    }

    /// The time under which `percent` of reads stayed, milliseconds.
    pub(crate) fn read_ms(&mut self, percent: usize) -> f64 {
        f64::from(quantile(&mut self.took, percent)) / 1000.0
    }

    /// Requests sent one because of the other that `percent` of reads did with.
    pub(crate) fn read_hops(&mut self, percent: usize) -> f64 {
        f64::from(quantile(&mut self.hops, percent))
    }

    /// The time under which each percent of reads stayed, milliseconds: 101
    /// values; none without reads.
    pub(crate) fn read_percentiles_ms(&mut self) -> Vec<f64> {
        match self.took.is_empty() {
            true => Vec::new(),
            false => (0..=100).map(|percent| self.read_ms(percent)).collect(),
        }
    }

    /// Reads that took no hop, one, two, and so on; the last: so many or more.
    pub(crate) fn hops(&self) -> Vec<u64> {
        let mut reads = vec![0; MOST_HOPS + 1];
        for hops in &self.hops {
            reads[(*hops as usize).min(MOST_HOPS)] += 1;
        }
        reads
    }

    /// Has somebody read what was acknowledged and is not found yet, a few at a
    /// time; false: all were tried.
    pub(crate) fn reckon(&mut self, world: &mut World, from: &mut usize) -> bool {
        while self.under_way < AT_ONCE {
            let rest = self.values.get(*from..).unwrap_or_default();
            let next = rest.iter().position(|v| v.acknowledged > 0 && !v.found);
            let Some(next) = next else {
                *from = self.values.len();
                return false;
            };
            let key = *from + next;
            *from = key + 1;
            if let Some(reader) = self.somebody(world).filter(|id| ready(world, *id)) {
                self.read(world, reader, key, true);
            }
        }
        true
    }

    /// What was acknowledged and is not found: lost while it should not be, and
    /// gone with the peers that had it.
    pub(crate) fn lost(&self, world: &World) -> (Vec<usize>, u64) {
        let (mut lost, mut gone) = (Vec::new(), 0);
        for (key, value) in self.values.iter().enumerate() {
            if value.acknowledged == 0 || value.found {
                continue;
            }
            let id = name(world, value.owner, key);
            if world.config.flat {
                match held(world, &id, value.acknowledged) {
                    true => lost.push(key),
                    false => gone += 1,
                }
                continue;
            }
            let away = (0..world.peers().len() as PeerId)
                .filter_map(|id| world.peer(id).disk())
                .filter(|index| index.version(&id).is_some())
                .count();
            match away {
                // Two of its three owners are away with it.
                2.. => gone += 1,
                _ => lost.push(key),
            }
        }
        (lost, gone)
    }
}

/// Whether a user can expect to be served: whose own line is broken cannot.
fn well(world: &World, id: PeerId) -> bool {
    let peer = world.peer(id);
    let broken = peer.spec.lag_us > 0 || peer.spec.loss_ppm > 0 || peer.spec.drops;
    !broken && peer.online()
}

/// Whether one such has somebody to ask.
fn ready(world: &World, id: PeerId) -> bool {
    let peer = world.peer(id);
    well(world, id) && (peer.homes > 0 || peer.role == Role::SuperNode)
}

/// Where a value lives in the keyspace.
fn name(world: &World, owner: PeerId, key: usize) -> Key {
    keys::value(&world.peer(owner).node, &key.to_string())
}

/// Whether any node of the flat table that runs holds the value.
fn held(world: &World, key: &Key, number: u64) -> bool {
    let holds = |id: PeerId| world.peer(id).holds(key).is_some_and(|held| held >= number);
    world.online().any(holds)
}

fn quantile(all: &mut [u32], percent: usize) -> u32 {
    all.sort_unstable();
    let at = (all.len() * percent / 100).min(all.len().saturating_sub(1));
    all.get(at).copied().unwrap_or(0)
}

fn number_of(data: &[u8]) -> Option<u64> {
    data.first_chunk().copied().map(u64::from_be_bytes)
}
