//! The location record against a network in memory, on tokio's paused clock.

use std::collections::BTreeSet;
use std::sync::Arc;

use canopy_core::placement::{Member, Placement};
use canopy_overlay::calls::CallError;

use super::*;

const SPREAD: Duration = Duration::from_secs(10);
const MINUTE: Duration = Duration::from_secs(60);
const NOW: u64 = 1_800_000_000_000;

fn node(n: u8) -> NodeId {
    NodeId([n; 32])
}

fn me() -> Identity {
    Identity::from_secret([9; 32])
}

/// Nodes 1 to 5, which share one store and remember each write.
#[derive(Clone)]
struct Net {
    begun: Instant,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    dead: BTreeSet<NodeId>,
    /// Who was asked, and what the record then said.
    asked: Vec<(NodeId, Record)>,
    stored: Vec<(NodeId, Record)>,
    /// What every answer says is in place.
    claim: u64,
    /// The peer's clock minus those of the others, milliseconds.
    off: i64,
}

impl Calls for Net {
    fn node_id(&self) -> NodeId {
        me().node_id()
    }

    fn network(&self) -> &str {
        "net"
    }

    fn placement(&self) -> Placement {
        (1..=5).fold(Placement::empty(), |placement, n| {
            placement.with(Member {
                node: node(n),
                seats: 8,
                domain: "".into(),
            })
        })
    }

    fn now_ms(&self) -> u64 {
        self.true_ms().saturating_add_signed(self.state.lock().off)
    }

    async fn call(
        &self,
        node: NodeId,
        request: request::Kind,
        _: Duration,
    ) -> Result<response::Kind, CallError> {
        let request::Kind::Put(put) = request else {
            panic!("only writes are sent");
        };
        let opened = Record::open(&put.records[0], "net", self.true_ms());
        let mut state = self.state.lock();
        let Ok(record) = opened else {
            let refusal = wire::Refusal {
                message: opened.unwrap_err().to_string(),
                ..wire::Refusal::default()
            };
            return Ok(response::Kind::Put(wire::PutReply {
                outcomes: vec![wire::PutOutcome {
                    refusal: Some(refusal),
                    superseded_by: 0,
                }],
                utilisation_milli: 0,
                clock_ms: self.true_ms(),
            }));
        };
        state.asked.push((node, record.clone()));
        if state.dead.contains(&node) {
            let reason = "dead".into();
            return Err(CallError::Unreachable { peer: node, reason });
        }
        let superseded_by = match state.claim > record.body.sequence {
            true => state.claim,
            false => 0,
        };
        if superseded_by == 0 {
            state.stored.push((node, record));
        }
        let outcome = wire::PutOutcome {
            refusal: None,
            superseded_by,
        };
        Ok(response::Kind::Put(wire::PutReply {
            outcomes: vec![outcome],
            utilisation_milli: 0,
            clock_ms: self.true_ms(),
        }))
    }
}

impl Net {
    /// What the clocks of the others show.
    fn true_ms(&self) -> u64 {
        NOW + self.begun.elapsed().as_millis() as u64
    }
}

/// A peer, and what its locator does.
struct Running {
    net: Net,
    role: watch::Sender<Role>,
    homes: watch::Sender<Vec<NodeId>>,
    locator: Locator,
}

fn start() -> Running {
    let net = Net {
        begun: Instant::now(),
        state: Arc::default(),
    };
    let (role, homes) = (watch::Sender::new(Role::Leaf), watch::Sender::default());
    let whereabouts = Whereabouts {
        role: role.subscribe(),
        homes: homes.subscribe(),
    };
    let locator = Locator::start(net.clone(), me(), whereabouts, SPREAD);
    Running {
        net,
        role,
        homes,
        locator,
    }
}

impl Running {
    fn at(&self, homes: &[u8]) {
        let homes = homes.iter().map(|n| node(*n)).collect();
        self.homes.send_replace(homes);
    }

    fn stored(&self) -> Vec<Record> {
        let state = self.net.state.lock();
        state.stored.iter().map(|(_, r)| r.clone()).collect()
    }

    /// The homes in the latest record.
    fn told(&self) -> Vec<NodeId> {
        let record = self.stored().pop().unwrap();
        let Some(Payload::Location(location)) = record.body.payload else {
            panic!("no location");
        };
        let homes = location.homes.iter();
        homes.map(|h| NodeId::from_slice(h).unwrap()).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_published_soon_and_again_before_it_ends() {
    let peer = start();
    tokio::time::sleep(MINUTE).await;
    assert_eq!(peer.stored().len(), 0);
    peer.at(&[1, 2]);
    tokio::time::sleep(SPREAD).await;
    assert_eq!(peer.told(), [node(1), node(2)]);
    for _ in 0..24 * 60 {
        tokio::time::sleep(MINUTE).await;
        let last = peer.stored().pop().unwrap();
        assert!(last.expires_ms() > peer.net.now_ms());
    }
    let count = peer.stored().len();
    assert!((48..=61).contains(&count), "{count} writes in a day");
}

#[tokio::test(start_paused = true)]
async fn it_follows_the_homes_and_outlives_their_loss() {
    let peer = start();
    peer.at(&[1, 2]);
    tokio::time::sleep(SPREAD).await;
    peer.net.state.lock().dead.insert(node(1));
    peer.at(&[]);
    tokio::time::sleep(SPREAD * 2).await;
    assert_eq!(peer.stored().len(), 1);
    // Two changes in a moment are one write, through a home that lives.
    peer.at(&[2]);
    peer.at(&[1, 3]);
    tokio::time::sleep(SPREAD).await;
    assert_eq!(peer.told(), [node(1), node(3)]);
    let through: Vec<NodeId> = peer.net.state.lock().asked.iter().map(|a| a.0).collect();
    assert_eq!(through, [node(1), node(1), node(3)]);
    let sequences: Vec<u64> = peer.stored().iter().map(|r| r.body.sequence).collect();
    assert!(sequences.is_sorted_by(|a, b| a < b));
}

#[tokio::test(start_paused = true)]
async fn a_super_node_is_its_own_home() {
    let peer = start();
    peer.at(&[1, 2]);
    tokio::time::sleep(SPREAD).await;
    peer.role.send_replace(Role::SuperNode);
    tokio::time::sleep(SPREAD).await;
    assert_eq!(peer.told(), [me().node_id()]);
    // It hands over, and is found until it has homes.
    peer.role.send_replace(Role::Retiring);
    peer.at(&[]);
    tokio::time::sleep(SPREAD).await;
    assert_eq!(peer.told(), [me().node_id()]);
    peer.role.send_replace(Role::Leaf);
    peer.at(&[3]);
    tokio::time::sleep(SPREAD).await;
    assert_eq!(peer.told(), [node(3)]);
}

#[tokio::test(start_paused = true)]
async fn while_nobody_answers_it_asks_ever_more_seldom() {
    let peer = start();
    peer.net.state.lock().dead = (1..=5).map(node).collect();
    peer.at(&[1, 2]);
    tokio::time::sleep(MINUTE * 60).await;
    let asked = peer.net.state.lock().asked.len();
    // Five at most a round, one round in two and a half minutes at most.
    assert!((10..=5 * 32).contains(&asked), "{asked} asked");
    peer.net.state.lock().dead.clear();
    tokio::time::sleep(BACK_OFF_MAX).await;
    assert_eq!(peer.told(), [node(1), node(2)]);
}

#[tokio::test(start_paused = true)]
async fn a_later_sequence_in_place_is_overtaken_and_a_made_up_one_is_not() {
    let peer = start();
    peer.net.state.lock().claim = NOW + 5 * 60_000;
    peer.at(&[1]);
    tokio::time::sleep(SPREAD).await;
    let sequence = peer.stored()[0].body.sequence;
    assert_eq!(sequence, NOW + 5 * 60_000 + 1);

    peer.net.state.lock().claim = u64::MAX;
    peer.at(&[2]);
    tokio::time::sleep(SPREAD).await;
    assert_eq!(peer.stored().len(), 1);
    peer.net.state.lock().claim = 0;
    tokio::time::sleep(BACK_OFF_MAX).await;
    assert_eq!(peer.told(), [node(2)]);
    assert!(peer.stored()[1].body.sequence < NOW + MAX_AHEAD_MS);
}

#[tokio::test(start_paused = true)]
async fn a_peer_whose_clock_is_wrong_is_found_too() {
    // An hour ahead would be the future, two hours behind long over.
    for off in [3_600_000, -7_200_000] {
        let peer = start();
        peer.net.state.lock().off = off;
        peer.at(&[1, 2]);
        tokio::time::sleep(SPREAD).await;
        assert_eq!(peer.told(), [node(1), node(2)], "{off}");
        for _ in 0..3 * 60 {
            tokio::time::sleep(MINUTE).await;
            let last = peer.stored().pop().unwrap();
            assert!(last.expires_ms() > peer.net.true_ms(), "{off}");
        }
        let count = peer.stored().len();
        assert!((6..=8).contains(&count), "{count} writes in three hours");
    }
}

#[tokio::test(start_paused = true)]
async fn a_goodbye_takes_it_back_and_a_power_cut_does_not() {
    let peer = start();
    // Nothing was published, so there is nothing to wait for.
    peer.locator.close().await;
    assert_eq!(peer.net.state.lock().asked.len(), 0);

    for goodbye in [true, false] {
        let peer = start();
        peer.at(&[1, 2]);
        tokio::time::sleep(SPREAD).await;
        match goodbye {
            true => peer.locator.close().await,
            false => peer.locator.abort(),
        }
        tokio::time::sleep(MINUTE * 60).await;
        let removals: Vec<bool> = peer.stored().iter().map(|r| r.body.removed).collect();
        let expected: &[bool] = if goodbye { &[false, true] } else { &[false] };
        assert_eq!(removals, expected);
    }
}
