//! Decrees through the control plane: taken from the operator alone, known at every
//! host, and obeyed.

use bytes::Bytes;
use canopy_core::decree::{Banned, Decree, Order, Policy};
use canopy_core::identity::Identity;
use canopy_core::keyspace::keys;
use canopy_core::record::Record;
use canopy_overlay::calls::{CallError, Calls};
use canopy_proto::control as pb;
use canopy_proto::wire::record::Payload;
use canopy_proto::wire::refusal::Code as Refused;
use canopy_proto::wire::{self, request, response};
use canopy_supernode::designation::{DAY_MS, Designation, Terms};
use canopy_supernode::host::Host;
use canopy_supernode::status::Role;
use prost::Message;
use tonic::Code;

use crate::overlay::{BOUND, Manned, host, publisher, three, unix_ms, until, within, write};

/// An operator, and the sequence of what it decreed last.
pub(crate) struct Desk(pub(crate) Identity, pub(crate) u64);

impl Desk {
    pub(crate) fn signed(&mut self, order: Order) -> wire::Signed {
        self.1 += 1;
        let now_ms = unix_ms();
        let decree = Decree {
            network: "canopy".into(),
            sequence: self.1,
            issued_ms: now_ms,
            expires_ms: now_ms + DAY_MS,
            order,
        };
        decree.sign(&self.0)
    }

    pub(crate) async fn decree(&mut self, through: &Manned, order: Order) -> pb::EnactReply {
        let signed = self.signed(order);
        enact(through, &signed, false).await.expect("it counts")
    }
}

async fn enact(
    through: &Manned,
    signed: &wire::Signed,
    dry_run: bool,
) -> Result<pb::EnactReply, tonic::Status> {
    let request = pb::EnactRequest {
        decree: signed.encode_to_vec(),
        dry_run,
        caller: "ada".into(),
    };
    let mut client = through.client.clone();
    let reply = within(client.enact(request)).await;
    reply.map(tonic::Response::into_inner)
}

fn ban(what: Banned) -> Order {
    let reason = "a test".into();
    Order::Ban { what, reason }
}

async fn all_have(all: &[Manned], sequence: u64) {
    for one in all {
        until("every host has it", async || {
            let decrees = one.host.peer().look(move |core, _| {
                let mut all = core.decrees().decrees();
                all.any(|decree| decree.sequence == sequence)
            });
            decrees.await == Some(true)
        })
        .await;
    }
}

async fn get(host: &Host, key: canopy_core::keyspace::Key) -> Result<usize, Refused> {
    let get = wire::Get {
        key: key.to_bytes(),
        ..Default::default()
    };
    let ask = request::Kind::Get(get);
    match within(host.call(host.node_id(), ask, BOUND)).await {
        Ok(response::Kind::Get(reply)) => Ok(reply.records.len()),
        Err(CallError::Refused { refusal, .. }) => Err(refusal.code()),
        other => panic!("{other:?}"),
    }
}

async fn found(host: &Host, term: &str) -> usize {
    let search = wire::Search {
        terms: vec![term.into()],
        ..Default::default()
    };
    let ask = request::Kind::Search(search);
    match within(host.call(host.node_id(), ask, BOUND)).await {
        Ok(response::Kind::Search(reply)) => reply.hits.len(),
        other => panic!("{other:?}"),
    }
}

async fn put(host: &Host, by: &Identity, sequence: u64, payload: Payload) -> Option<wire::Refusal> {
    let record = Record::sign(by, "canopy", sequence, unix_ms(), 3600, payload).expect("valid");
    let put = wire::Put {
        records: vec![record.signed],
        local: false,
    };
    let ask = request::Kind::Put(put);
    match within(host.call(host.node_id(), ask, BOUND)).await {
        Ok(response::Kind::Put(reply)) => reply.outcomes[0].refusal.clone(),
        other => panic!("{other:?}"),
    }
}

fn value(name: &str, data: &'static [u8]) -> Payload {
    Payload::Value(wire::Value {
        name: name.into(),
        data: Bytes::from_static(data),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_banned_is_stored_or_served_until_the_ban_is_lifted() {
    let mut desk = Desk(Identity::from_secret([51; 32]), 100);
    let all = three(&desk.0).await;
    write(&all[0].host, 20).await;
    let by = publisher();
    let item = Payload::Item(wire::Item {
        name: "panda".into(),
        content: Bytes::copy_from_slice(blake3::hash(b"bamboo").as_bytes()),
        terms: vec!["panda".into()],
        ..Default::default()
    });
    let other = Identity::from_secret([52; 32]);
    assert_eq!(put(&all[0].host, &by, 1, item.clone()).await, None);
    assert_eq!(
        put(&all[0].host, &other, 1, value("", b"bamboo")).await,
        None
    );
    let named = keys::value(&by.node_id(), "value 7");
    let hashed = keys::content_value(b"bamboo");
    for one in &all {
        assert_eq!(get(&one.host, named).await, Ok(1));
        assert_eq!(get(&one.host, hashed).await, Ok(1));
        assert_eq!(found(&one.host, "panda").await, 1);
    }

    // A publisher: at every host, whoever was told.
    let what = Banned::Publisher(by.node_id());
    let dry = desk.signed(ban(what));
    assert!(enact(&all[1], &dry, true).await.unwrap().changed);
    let mut events = all[1].host.events();
    let reply = desk.decree(&all[1], ban(what)).await;
    assert!(reply.changed && reply.super_nodes == 3);
    all_have(&all, desk.1).await;
    let told = async {
        let (mut operated, mut decreed) = (false, false);
        while !(operated && decreed) {
            let words = events.recv().await.unwrap().kind.to_string();
            operated |= words == format!("ban {what} by ada");
            decreed |= words == format!("decreed: ban {what}");
        }
    };
    within(told).await;
    for one in &all {
        until("reads say why", async || {
            get(&one.host, named).await == Err(Refused::Banned)
        })
        .await;
        assert_eq!(found(&one.host, "panda").await, 0);
        let refused = put(&one.host, &by, 2, value("new", b"x")).await.unwrap();
        assert_eq!(refused.code(), Refused::Banned);
        assert!(refused.message.contains("operator"), "{}", refused.message);
        assert_eq!(get(&one.host, hashed).await, Ok(1), "others' are served");
    }

    // Content: whoever published it.
    let hash = *blake3::hash(b"bamboo").as_bytes();
    desk.decree(&all[0], ban(Banned::Content(hash))).await;
    all_have(&all, desk.1).await;
    for one in &all {
        until("reads say why", async || {
            get(&one.host, hashed).await == Err(Refused::Banned)
        })
        .await;
        for payload in [
            value("", b"bamboo"),
            value("alias", b"bamboo"),
            item.clone(),
        ] {
            let refused = put(&one.host, &other, 3, payload).await.unwrap();
            assert_eq!(refused.code(), Refused::Banned);
        }
        let good = value(&one.host.node_id().short(), b"y");
        assert_eq!(put(&one.host, &other, 3, good).await, None);
    }

    // Lifted, all is there again.
    for what in [what, Banned::Content(hash)] {
        desk.decree(&all[2], Order::Unban(what)).await;
    }
    all_have(&all, desk.1).await;
    for one in &all {
        until("it is served again", async || {
            get(&one.host, named).await == Ok(1)
                && get(&one.host, hashed).await == Ok(1)
                && found(&one.host, "panda").await == 1
        })
        .await;
    }
    for one in all {
        one.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_banned_peer_gets_no_session_and_a_host_serves_by_decree() {
    let mut desk = Desk(Identity::from_secret([53; 32]), 100);
    let all = three(&desk.0).await;
    let hosts: Vec<&Host> = all.iter().map(|one| &one.host).collect();
    let leaf = Manned::by(host(&desk.0, 60, None, "", &hosts).await).await;
    let id = leaf.host.node_id();
    until("it has homes", async || leaf.host.status().homes.len() == 2).await;

    // It may be designated through any host, and hears of it from its home.
    let terms = Terms {
        network: "canopy".into(),
        node: id,
        capacity_bps: 30_000_000,
        days: 1,
        zone: "rack-9".into(),
    };
    let made = Designation::sign(&desk.0, &terms, None, unix_ms()).unwrap();
    let mandate = Box::new(made.signed().clone());
    let reply = desk
        .decree(&all[0], Order::Designate { host: id, mandate })
        .await;
    assert_eq!(reply.decree.unwrap().capacity_bps, 30_000_000);
    until("it serves", async || {
        leaf.host.role() == Role::SuperNode && all.iter().all(|one| one.host.placement().len() == 4)
    })
    .await;
    desk.decree(&all[1], Order::Undesignate(id)).await;
    until("it serves no more", async || {
        leaf.host.role() != Role::SuperNode && all.iter().all(|one| one.host.placement().len() == 3)
    })
    .await;
    until("it has homes", async || leaf.host.status().homes.len() == 2).await;

    desk.decree(&all[2], ban(Banned::Peer(id))).await;
    until("nobody has a session to it", async || {
        let open = |one: &Manned| one.host.peer().fabric().session(&id).is_some();
        !all.iter().any(open) && leaf.host.status().homes.is_empty()
    })
    .await;
    let ping = request::Kind::Ping(wire::Ping::default());
    let node = all[0].host.node_id();
    let refused = within(leaf.host.call(node, ping, BOUND)).await.unwrap_err();
    assert!(refused.to_string().contains("banned"), "{refused}");

    desk.decree(&all[0], Order::Unban(Banned::Peer(id))).await;
    until("it has homes again", async || {
        leaf.host.status().homes.len() == 2
    })
    .await;
    leaf.close().await;
    for one in all {
        one.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_operator_decrees_and_every_refusal_says_what_to_do() {
    let mut desk = Desk(Identity::from_secret([54; 32]), 100);
    let all = three(&desk.0).await;
    let refused = async |signed: &wire::Signed| {
        let status = enact(&all[0], signed, false).await.unwrap_err();
        (status.code(), status.message().to_owned())
    };
    let what = Banned::Content([1; 32]);
    let forged = Desk(Identity::from_secret([55; 32]), 7).signed(ban(what));
    let (code, message) = refused(&forged).await;
    assert_eq!(code, Code::PermissionDenied);
    assert!(message.contains("operator's key"), "{message}");
    let mut claimed = forged;
    claimed.signer = desk.0.node_id().to_bytes();
    assert_eq!(refused(&claimed).await.0, Code::PermissionDenied);
    assert_eq!(
        refused(&wire::Signed::default()).await.0,
        Code::InvalidArgument
    );
    let own = ban(Banned::Peer(all[0].host.node_id()));
    let own = refused(&desk.signed(own)).await;
    assert_eq!(own.0, Code::FailedPrecondition);

    let early = desk.signed(ban(what));
    let late = desk.signed(Order::Unban(what));
    assert!(enact(&all[0], &late, false).await.unwrap().changed);
    assert!(
        !enact(&all[0], &late, false).await.unwrap().changed,
        "again"
    );
    let (code, message) = refused(&early).await;
    assert_eq!(code, Code::Aborted);
    assert!(message.contains("higher sequence"), "{message}");

    // A policy is what elections go by, everywhere.
    let policy = Policy {
        ratio: Some(70),
        per_address: Some(5),
        ..Policy::default()
    };
    desk.decree(&all[1], Order::Policy(policy)).await;
    all_have(&all, desk.1).await;
    for one in &all {
        let mut client = one.client.clone();
        let reply = client.get_policy(pb::GetPolicyRequest {}).await.unwrap();
        let reply = reply.into_inner();
        let in_force = reply.in_force.unwrap();
        assert_eq!((in_force.ratio, in_force.grow_milli), (Some(70), Some(600)));
        assert_eq!(reply.set.unwrap().grow_milli, None);
        let listed = client.list_decrees(pb::ListDecreesRequest::default());
        let listed = listed.await.unwrap().into_inner();
        assert_eq!(listed.decrees.len(), 2);
        assert_eq!(listed.operator, desk.0.node_id().to_string());
    }
    let mut client = all[0].client.clone();
    let kind = "everything".to_owned();
    let wrong = client.list_decrees(pb::ListDecreesRequest { kind }).await;
    assert_eq!(wrong.unwrap_err().code(), Code::InvalidArgument);

    // Three are left: none may go without force, and nobody stands for election.
    let request = pb::StepDownRequest::default();
    let stays = client.step_down(request).await.unwrap_err();
    assert_eq!(stays.code(), Code::FailedPrecondition);
    let mut reasons = Vec::new();
    for one in &all {
        let call = pb::CallElectionRequest::default();
        let status = one.client.clone().call_election(call).await.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition);
        reasons.push(status.message().to_owned());
    }
    let count = |what: &str| reasons.iter().filter(|why| why.contains(what)).count();
    assert_eq!(
        (count("stands for election"), count("ask its control")),
        (1, 2)
    );
    let huge = pb::CallElectionRequest {
        places: 17,
        ..Default::default()
    };
    let huge = client.call_election(huge).await.unwrap_err();
    assert_eq!(huge.code(), Code::InvalidArgument);
    let forced = pb::StepDownRequest {
        force: true,
        ..Default::default()
    };
    let reply = client.step_down(forced).await.unwrap().into_inner();
    assert!(reply.changed);
    until("it serves no more", async || {
        all[0].host.role() != Role::SuperNode && all[1].host.placement().len() == 2
    })
    .await;
    let listed = client.list_decrees(pb::ListDecreesRequest::default()).await;
    assert_eq!(listed.unwrap_err().code(), Code::FailedPrecondition);
    for one in all {
        one.close().await;
    }
}
