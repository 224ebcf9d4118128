//! Where others reach this peer: as they see it, and as its router says.
//!
//! A router that lets in what is for this peer may do so at any port, so that its
//! word goes before what is put together of an address that others see and the
//! port listened on. Others know the contact that came with the hello; who has
//! moved since tells its homes, and those who are to dial it.

use std::net::SocketAddr;

use canopy_proto::wire;

use super::timers::Timer;
use super::{Core, Output};
use crate::contact::Contact;
use crate::keyspace::NodeId;
use crate::time::Now;

/// Addresses that others see us at, kept at most.
const MAX_OBSERVED: usize = 4;

/// What is known of the own addresses, besides the configured ones.
#[derive(Default)]
pub(super) struct State {
    observed: Vec<SocketAddr>,
    mapped: Option<SocketAddr>,
    /// A router changed the contact since the start.
    moved: bool,
}

impl State {
    #[cfg(test)]
    pub(super) fn check_bounds(&self) {
        assert!(self.observed.len() <= MAX_OBSERVED);
    }
}

impl Core {
    /// A peer told us which address it sees us at.
    pub(super) fn observed(&mut self, now: Now, observed: SocketAddr) {
        let ip = observed.ip().to_canonical();
        let addr = SocketAddr::new(ip, self.config.port);
        let full = self.addresses.observed.len() >= MAX_OBSERVED;
        if self.config.port == 0
            || self.addresses.observed.contains(&addr)
            || full
            || !self.config.addrs.is_empty()
        {
            return;
        }
        self.addresses.observed.push(addr);
        self.tell_contact(now);
    }

    /// The router lets others in at `addr`, or nowhere any more.
    pub(super) fn mapped(&mut self, now: Now, addr: Option<SocketAddr>) {
        if self.addresses.mapped == addr {
            return;
        }
        self.addresses.mapped = addr;
        self.addresses.moved = true;
        self.tell_contact(now);
        self.attach_anew(now);
        let candidacy = self.own_candidacy(now);
        self.muster_standing(now, candidacy);
        self.timers.at_latest(Timer::Candidacy, now.at);
    }

    /// Best first.
    fn own_addrs(&self) -> Vec<SocketAddr> {
        let State {
            observed, mapped, ..
        } = &self.addresses;
        let known = match self.config.addrs.as_slice() {
            [] => observed,
            configured => configured,
        };
        // At another port of the router's address others get nowhere.
        let elsewhere = |addr: &SocketAddr| mapped.is_none_or(|at| at.ip() != addr.ip());
        let known = known.iter().copied().filter(elsewhere);
        mapped.iter().copied().chain(known).collect()
    }

    fn tell_contact(&mut self, now: Now) {
        let addrs = self.own_addrs();
        if addrs == self.contact.addrs {
            return;
        }
        self.candidacy.moved();
        self.sign_contact(now, addrs, now.unix_ms);
    }

    /// The others had declared this super-node dead, and the failure detector has
    /// taken another name because of that: the contact tells it to those who learn
    /// of this peer from now on. Now and then only: who hears of an epoch yet to come
    /// contradicts at once whatever is said.
    pub(super) fn back_from_the_dead(&mut self, now: Now) {
        let rest = self.config.timing.gossip.probe_period;
        let (issued_ms, follows) = (self.contact.issued_ms, self.follows());
        let Some(host) = self.host.as_mut().filter(|_| !follows) else {
            return;
        };
        let epoch = host.swim.epoch();
        let rested = host.came_back.is_none_or(|at| now.at.since(at) >= rest);
        if epoch > issued_ms && rested {
            host.came_back = Some(now.at);
            self.sign_contact(now, self.contact.addrs.clone(), epoch);
        }
    }

    /// Others have a later contact of this peer than it has itself: its clock was
    /// set back, or its disk is gone. Nobody would believe an earlier one.
    pub(super) fn outdated(&mut self, now: Now, issued_ms: u64) {
        let later = issued_ms.saturating_add(1);
        self.sign_contact(now, self.contact.addrs.clone(), later);
    }

    /// Signs a contact of `least_ms`, or of later: later than the last one, or nobody
    /// takes it for news, and no earlier than what the failure detector is known by,
    /// which goes by it from now on.
    fn sign_contact(&mut self, now: Now, addrs: Vec<SocketAddr>, least_ms: u64) {
        let last = self.contact.issued_ms.saturating_add(1);
        let epoch = self.host.as_ref().map_or(0, |host| host.swim.epoch());
        let issued_ms = least_ms.max(last).max(epoch);
        self.contact = Contact::sign(&self.identity, &addrs, &self.config.zone, issued_ms);
        self.outputs
            .push_back(Output::Contact(self.contact.clone()));
        self.roster_contact(now, self.contact.clone());
        if self.host.is_some() {
            let own = self.node_id();
            self.spread_node(&own);
        }
        let active = !self.follows();
        if let Some(host) = self.host.as_mut().filter(|_| active) {
            let effects = host.swim.rename(now.at, issued_ms);
            self.swim_effects(now, effects);
        }
    }

    /// Where this peer is, for one whose session may be older than that.
    pub(super) fn moved_contact(&self) -> Option<wire::Signed> {
        self.addresses.moved.then(|| self.contact.signed.clone())
    }

    /// A peer with a session is reached elsewhere now.
    pub(super) fn link_moved(&mut self, now: Now, from: NodeId, contact: Contact) {
        let Some(link) = self.links.get_mut(&from) else {
            return;
        };
        if contact.node_id == from && contact.issued_ms > link.contact.issued_ms {
            link.contact = contact.clone();
            self.roster_contact(now, contact);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use canopy_proto::wire::core_message::Kind;

    use super::super::tests::{contact_of, core, identity, now_at};
    use super::super::{Config, Input};
    use super::*;

    const OUTSIDE: &str = "11.0.0.2:31000";

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// A peer that does not know its address.
    fn unaware(i: u8) -> Core {
        let config = Config {
            addrs: Vec::new(),
            ..core(i, false, None).config
        };
        Core::new(config, identity(i), 1, now_at(0), None)
    }

    /// What `input` has `core` send, and to whom.
    fn sent(core: &mut Core, ms: u64, input: Input) -> Vec<(NodeId, Kind)> {
        while core.poll().is_some() {}
        core.handle(now_at(ms), input);
        core.timeout(now_at(ms));
        let outputs = std::iter::from_fn(|| core.poll());
        let sent = outputs.filter_map(|output| match output {
            Output::Send { node, message, .. } => Some((node, message.kind?)),
            _ => None,
        });
        sent.collect()
    }

    fn up(contact: Contact, observed: &str) -> Input {
        Input::SessionUp {
            contact,
            inbound: false,
            observed: Some(at(observed)),
            round_trip: Duration::ZERO,
            clock_offset_ms: 0,
        }
    }

    fn asks(sent: Vec<(NodeId, Kind)>) -> Vec<wire::DialBackAsk> {
        let asks = sent.into_iter().filter_map(|(_, kind)| match kind {
            Kind::DialBackAsk(ask) => Some(ask),
            _ => None,
        });
        asks.collect()
    }

    #[test]
    fn the_address_that_the_router_gave_goes_before_the_one_that_others_see() {
        let mut core = unaware(1);
        sent(&mut core, 1, up(contact_of(2), "11.0.0.2:999"));
        assert_eq!(core.contact().addrs, [at("11.0.0.2:1001")]);
        let before = core.contact().issued_ms;

        core.handle(now_at(1), Input::Mapped(Some(at(OUTSIDE))));
        assert_eq!(core.contact().addrs, [at(OUTSIDE)]);
        assert!(core.contact().issued_ms > before);
        let told = std::iter::from_fn(|| core.poll());
        let told = told.filter(|o| matches!(o, Output::Contact(c) if c.addrs == [at(OUTSIDE)]));
        assert_eq!(told.count(), 1);

        sent(&mut core, 2, up(contact_of(3), "12.0.0.2:999"));
        assert_eq!(core.contact().addrs, [at(OUTSIDE), at("12.0.0.2:1001")]);
        core.handle(now_at(3), Input::Mapped(None));
        let seen = [at("11.0.0.2:1001"), at("12.0.0.2:1001")];
        assert_eq!(core.contact().addrs, seen);
    }

    #[test]
    fn who_is_asked_to_dial_back_dials_where_the_router_lets_it_in() {
        let (mut asker, mut asked) = (unaware(1), core(2, false, None));
        let before = asker.contact().clone();
        sent(&mut asker, 1, up(asked.contact().clone(), "11.0.0.2:999"));
        sent(&mut asked, 1, up(before, "127.0.0.1:1"));
        // The session is older than what the router gave.
        let mapped = sent(&mut asker, 2, Input::Mapped(Some(at(OUTSIDE))));
        let mut told = asks(mapped);
        for ms in (1_000..).step_by(1_000).take(60) {
            told.extend(asks(sent(&mut asker, ms, Input::Cordon(false))));
        }
        let ask = told.into_iter().find(|ask| ask.addr == OUTSIDE);
        let ask = ask.expect("it asks");
        let dialled = |core: &mut Core, ask: wire::DialBackAsk| {
            while core.poll().is_some() {}
            core.on_dial_back_ask(now_at(3), identity(1).node_id(), &ask);
            let mut outputs = std::iter::from_fn(|| core.poll());
            outputs.find_map(|output| match output {
                Output::DialBack { addr, .. } => Some(addr),
                _ => None,
            })
        };
        let bare = wire::DialBackAsk {
            contact: None,
            ..ask.clone()
        };
        assert_eq!(dialled(&mut asked, bare), None);
        let of_another = wire::DialBackAsk {
            contact: Some(contact_of(3).signed.clone()),
            ..ask.clone()
        };
        assert_eq!(dialled(&mut asked, of_another), None);
        assert_eq!(dialled(&mut asked, ask), Some(at(OUTSIDE)));
    }

    #[test]
    fn homes_learn_where_a_leaf_has_moved() {
        let (mut leaf, mut home) = (unaware(1), core(2, true, None));
        let before = leaf.contact().clone();
        sent(&mut home, 1, up(before, "127.0.0.1:1"));
        let (own, at_home) = (leaf.node_id(), home.node_id());
        leaf.attach(now_at(1), 0, at_home);
        for ms in 2..4 {
            let mapped = Input::Mapped(Some(at(OUTSIDE)).filter(|_| ms == 2));
            let told = sent(&mut leaf, ms, mapped);
            let told = told.into_iter().filter(|(node, _)| *node == at_home);
            for (_, kind) in told {
                let message = wire::CoreMessage { kind: Some(kind) };
                let message = Box::new(message);
                home.handle(now_at(ms), Input::Message { from: own, message });
            }
            let hosted = &home.host.as_ref().unwrap().leaves[&own];
            assert_eq!(hosted.contact, *leaf.contact());
        }
        assert!(leaf.contact().addrs.is_empty());
    }

    #[test]
    fn who_was_given_nothing_by_a_router_tells_no_contact_anew() {
        let mut core = unaware(1);
        let mut told = asks(sent(&mut core, 1, up(contact_of(2), "11.0.0.2:999")));
        for ms in (1_000..).step_by(1_000).take(60) {
            told.extend(asks(sent(&mut core, ms, Input::Mapped(None))));
        }
        assert!(!told.is_empty());
        assert!(told.iter().all(|ask| ask.contact.is_none()));
    }

    #[test]
    fn one_whose_clock_was_set_back_signs_a_later_contact_than_others_have() {
        let mut core = core(1, true, None);
        let addrs = core.contact().addrs.clone();
        let later = core.contact().issued_ms + 10_000;
        let others = Contact::sign(&identity(1), &addrs, "", later);
        core.roster_contact(now_at(1), others);
        assert_eq!(core.contact().issued_ms, later + 1);
        let own = core.roster().get(&core.node_id());
        assert_eq!(own.map(|entry| entry.contact_ms()), Some(later + 1));
        let epoch = core.host.as_ref().map(|host| host.swim.epoch());
        assert_eq!(epoch, Some(later + 1));
    }

    #[test]
    fn a_new_contact_is_no_earlier_than_what_the_failure_detector_is_known_by() {
        let mut core = core(1, true, None);
        let later = core.contact().issued_ms + 10_000;
        let host = core.host.as_mut().expect("it serves");
        host.swim.rename(now_at(0).at, later);
        core.mapped(now_at(1), Some(at(OUTSIDE)));
        let epoch = core.host.as_ref().map(|host| host.swim.epoch());
        assert_eq!((core.contact().issued_ms, epoch), (later, Some(later)));
    }
}
