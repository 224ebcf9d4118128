//! Reads by a client that knows the owners of a key: it asks two of them at once
//! for their own copies. That takes one round trip; whoever asks an owner that asks
//! another waits for two.
//!
//! What two owners agree on is the latest that was acknowledged, or later, because a
//! write is on two of three. One that may lack records, or is no owner, asks others
//! before it answers. Where the owners differ, the read begins anew with one that sorts
//! it out, and brings the latest to those that lack it.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use canopy_core::keyspace::{Key, NodeId};
use canopy_core::record::Record;
use canopy_overlay::calls::Calls;
use canopy_proto::wire;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, sleep_until};

use super::Client;
use super::ask::{Ask, BACK_OFF, Failure, Judgement, of_use};
use super::health::Class;

/// Owners whose copies settle a read.
const AGREE: usize = 2;
/// After ever more reads whose owners it did not know, a client does not try for so
/// many, at most.
const MAX_REST: u32 = 1 << 10;

/// What one owner holds under a key.
pub(super) struct Copy {
    pub(super) records: Vec<Record>,
    /// It owns the key.
    pub(super) owner: bool,
    /// Others were asked, and this is what the read comes to.
    pub(super) whole: bool,
}

/// What the owners agree on, or one of them found.
pub(super) struct Agreed {
    pub(super) records: Vec<Record>,
    /// A further owner was asked because one was slow.
    pub(super) hedged: bool,
}

/// Why the owners' copies do not settle a read.
pub(super) enum Open {
    /// Nobody was asked.
    NotAsked,
    /// The owners answered, or could not be reached.
    Asked,
    /// One refused: the next request has to be paid for.
    Refused,
}

/// Whether a client takes the right ones for owners. One that knows some of many
/// super-nodes mostly does not, and soon stops asking them for copies.
#[derive(Debug, Default)]
pub(super) struct Aim {
    misses: AtomicU32,
    rest: AtomicU32,
}

impl Aim {
    /// Whether to ask those who are taken for owners.
    fn is_tried(&self) -> bool {
        let less = |rest: u32| rest.checked_sub(1);
        self.rest.fetch_update(Relaxed, Relaxed, less).is_err()
    }

    fn hit(&self) {
        self.misses.store(0, Relaxed);
    }

    fn missed(&self) {
        let misses = self.misses.fetch_add(1, Relaxed).min(16);
        self.rest.store((2 << misses).min(MAX_REST), Relaxed);
    }
}

impl<C: Calls> Client<C> {
    /// What two owners of `key` hold alike: nothing only where all of them do.
    /// `request` asks for a copy and `judge` opens it.
    pub(super) async fn copies<J>(
        &self,
        key: &Key,
        request: wire::Get,
        judge: J,
        deadline: Instant,
    ) -> Result<Agreed, Open>
    where
        J: Fn(NodeId, wire::response::Kind) -> Judgement<Copy> + Sync,
    {
        if self.inner.health.many_unsure() || !self.inner.aim.is_tried() {
            return Err(Open::NotAsked);
        }
        let (mut owners, well) = self.owners(key);
        let unsure = |node: &NodeId| self.inner.health.is_unsure(node);
        owners[..well].sort_by_key(unsure);
        let sure = owners[..well].partition_point(|node| !unsure(node));
        if sure < AGREE {
            return Err(Open::NotAsked);
        }
        self.inner.budget.earn();
        let ask = Ask {
            class: Class::Read,
            key,
            request: wire::request::Kind::Get(request),
            judge,
            deadline,
        };
        let begun = Instant::now();
        let mut left = owners.iter().take(well).copied();
        let (mut under_way, mut silent) = (FuturesUnordered::new(), Vec::new());
        for node in left.by_ref().take(AGREE) {
            silent.push(node);
            under_way.push(self.attempt(node, &ask));
        }
        let mut paid = Paid::default();
        let mut hedge_at = begun + self.inner.health.hedge_copies_after();
        let mut agreed: Option<Vec<Record>> = None;
        let (mut answers, mut owes) = (0, false);
        while answers + under_way.len() >= AGREE {
            let (node, outcome) = tokio::select! {
                biased;
                Some(done) = under_way.next() => done,
                () = sleep_until(hedge_at), if left.len() > 0 => {
                    hedge_at = Instant::now() + BACK_OFF;
                    if self.inner.budget.hedge() && let Some(node) = left.next() {
                        self.inner.counters.hedged();
                        paid.hedges.push(node);
                        silent.push(node);
                        under_way.push(self.attempt(node, &ask));
                    }
                    continue;
                }
                else => break,
            };
            silent.retain(|other| *other != node);
            let failed = outcome.is_err();
            let next = match outcome {
                Ok((copy, _)) if copy.whole => {
                    match copy.owner {
                        true => self.inner.health.unsure(&node),
                        false => self.inner.aim.missed(),
                    }
                    let later = |one: &Vec<Record>| is_later(one, &copy.records);
                    if agreed.as_ref().is_some_and(later) {
                        break;
                    }
                    return Ok(self.settled(copy.records, &paid, &silent, begun.elapsed()));
                }
                Ok((copy, _)) => {
                    let same = |one: &Vec<Record>| is_same(one, &copy.records);
                    if !agreed.as_ref().is_none_or(same) {
                        break;
                    }
                    answers += 1;
                    let enough = match copy.records.is_empty() {
                        true => owners.len(),
                        false => AGREE,
                    };
                    if answers >= enough {
                        self.inner.aim.hit();
                        self.inner.health.copied(begun.elapsed());
                        return Ok(self.settled(copy.records, &paid, &silent, begun.elapsed()));
                    }
                    agreed = Some(copy.records);
                    // The last one, where the others have nothing.
                    answers >= AGREE
                }
                Err(Failure::Free(_)) => true,
                Err(Failure::Other(_)) => {
                    let pays = left.len() > 0 && self.inner.budget.retry();
                    paid.retries += u32::from(pays);
                    owes |= !pays;
                    pays
                }
                Err(_) => break,
            };
            if next && let Some(node) = left.next() {
                if failed {
                    self.inner.counters.retried();
                }
                silent.push(node);
                under_way.push(self.attempt(node, &ask));
            }
        }
        Err(match owes {
            true => Open::Refused,
            false => Open::Asked,
        })
    }

    /// A read came to `records` after `took`, and `silent` have not answered; what was
    /// `paid` is given back if it was of use.
    fn settled(
        &self,
        records: Vec<Record>,
        paid: &Paid,
        silent: &[NodeId],
        took: Duration,
    ) -> Agreed {
        let (inner, hedges) = (&self.inner, &paid.hedges);
        inner.counters.ok();
        let of_use = of_use(took, hedges.len() as u32, paid.retries);
        inner.budget.give_back(of_use);
        if hedges.iter().any(|node| !silent.contains(node)) {
            let slow = silent.iter().filter(|node| !hedges.contains(node));
            slow.clone().for_each(|node| inner.health.overtaken(node));
            if slow.count() > 0 {
                inner.counters.overtaken();
            }
        }
        Agreed {
            records,
            hedged: !hedges.is_empty(),
        }
    }
}

/// Requests of one read that the budget has paid for.
#[derive(Default)]
struct Paid {
    hedges: Vec<NodeId>,
    retries: u32,
}

/// Whether both owners hold the very same.
fn is_same(one: &[Record], other: &[Record]) -> bool {
    one.iter()
        .map(|record| &record.signed)
        .eq(other.iter().map(|record| &record.signed))
}

/// Whether what `one` holds is later than what `whole` found. A removal is left out
/// of what was found.
fn is_later(one: &[Record], whole: &[Record]) -> bool {
    let latest = |records: &[Record]| records.iter().map(|record| record.body.sequence).max();
    match one.iter().all(|record| record.body.removed) && whole.is_empty() {
        true => false,
        false => latest(one) > latest(whole),
    }
}

#[cfg(test)]
mod tests {
    use canopy_proto::wire::refusal::Code;

    use super::super::Consistency;
    use super::super::testing::{Mode, Net};
    use super::super::tests::{self, me, value_record};
    use super::*;

    /// The value `n`, as written with this `sequence`.
    fn value(sequence: u64) -> Record {
        value_record(&me(), "n", sequence)
    }

    /// A client and its network of six, with the owners of the value `n`, which
    /// they have.
    fn six() -> (Client<Net>, Net, Vec<NodeId>) {
        let (client, net, owners) = tests::six();
        net.store(&value(7));
        (client, net, owners)
    }

    /// What is read, and who was asked for it.
    async fn read(client: &Client<Net>, net: &Net) -> (u64, Vec<NodeId>) {
        let value = client.get(client.node_id(), "n", Consistency::Quorum).await;
        let sequence = value.unwrap().map_or(0, |value| value.sequence);
        (sequence, net.take_asked())
    }

    #[tokio::test(start_paused = true)]
    async fn the_third_owner_stands_in_for_one_that_is_gone_busy_or_late() {
        for mode in [Mode::Gone, Mode::Refuses(Code::Busy), Mode::Silent] {
            let (client, net, owners) = six();
            net.set(owners[1], mode);
            let begun = Instant::now();
            assert_eq!(read(&client, &net).await, (7, owners));
            assert!(begun.elapsed() < Duration::from_millis(500));
            let stats = client.stats();
            assert_eq!((stats.ok, stats.retried + stats.hedged), (1, 1));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_owner_sorts_out_what_two_do_not_agree_on() {
        let (client, net, owners) = six();
        net.set(owners[1], Mode::Lies(value(6).signed));
        let asked = [&owners[..2], &owners[..1]].concat();
        assert_eq!(read(&client, &net).await, (7, asked));
        assert_eq!(client.stats().retried, 1);
    }

    #[test]
    fn a_copy_in_hand_outweighs_one_who_found_less() {
        let later = [value(7)];
        assert!(is_later(&later, &[]) && is_later(&later, &[value(6)]));
        assert!(!is_later(&later, &[value(7)]) && !is_later(&[], &later));
        let mut removed = [value(7)];
        removed[0].body.removed = true;
        assert!(!is_later(&removed, &[]) && is_later(&removed, &[value(6)]));
    }

    #[tokio::test(start_paused = true)]
    async fn one_busy_owner_does_not_use_the_budget_up() {
        let (client, net, owners) = six();
        net.set(owners[0], Mode::Refuses(Code::Busy));
        let begun = Instant::now();
        for _ in 0..200 {
            assert_eq!(read(&client, &net).await.0, 7);
        }
        assert!(begun.elapsed() < Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_may_lack_records_asks_others_and_is_asked_last() {
        let (client, net, owners) = six();
        net.set(owners[0], Mode::Unsure { owner: true });
        assert_eq!(read(&client, &net).await, (7, owners[..2].to_vec()));
        assert_eq!(read(&client, &net).await, (7, owners[1..].to_vec()));
        assert_eq!(client.stats().retried, 0);
        // Of two, neither could vouch for the other.
        net.set(owners[1], Mode::Unsure { owner: true });
        read(&client, &net).await;
        assert_eq!(read(&client, &net).await.1.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_paid_for_once_nobody_is_left_to_stand_in() {
        let (client, net, owners) = six();
        net.set_all(&Mode::Refuses(Code::Busy));
        let failed = client.get(client.node_id(), "n", Consistency::Quorum).await;
        failed.unwrap_err();
        // One asked without need, and what eight requests at the start are left.
        assert!(net.take_asked().len() <= 1 + AGREE + 8);
        net.set_all(&Mode::Well(Duration::ZERO));
        assert_eq!(read(&client, &net).await, (7, owners[..AGREE].to_vec()));
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_know_the_owners_soon_leaves_them_to_others() {
        let (client, net, _) = six();
        net.set_all(&Mode::Unsure { owner: false });
        let mut asked = 0;
        for _ in 0..100 {
            let (sequence, these) = read(&client, &net).await;
            assert_eq!(sequence, 7);
            asked += these.len();
        }
        assert!((101..=110).contains(&asked), "{asked} requests");
        // Once it knows them, it finds that out.
        net.set_all(&Mode::Well(Duration::ZERO));
        for _ in 0..200 {
            asked = read(&client, &net).await.1.len();
        }
        assert_eq!(asked, AGREE);
    }
}
