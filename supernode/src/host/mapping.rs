//! Ports that a router is asked for, by UPnP, NAT-PMP or PCP, so that others reach a
//! peer behind it: those of its sessions, its relay and its links.
//!
//! A router may let others in at any port of its own. So each address that it gives
//! goes to whoever tells others where this peer is. Where `port_mapping` is not set,
//! nothing here runs.

use std::collections::HashSet;
use std::future::pending;
use std::mem::Discriminant;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use canopy_overlay::peer::Peer;
use parking_lot::Mutex;
use portmapper::{Client, Config, ProbeOutput, Protocol};
use tokio::sync::{broadcast, watch};
use tokio::time::{sleep, timeout};

use crate::event::{Event, EventKind, unix_ms};
use crate::relay::RelayService;

/// How long a router that was found may take to give a port.
const GIVEN: Duration = Duration::from_secs(10);
/// Pauses before it is asked again; the last one goes on.
const AGAIN: [Duration; 4] = [
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_secs(120),
    Duration::from_secs(600),
];
/// How long it may take to have a port back.
const RELEASED: Duration = Duration::from_secs(2);

/// Where a router lets in what is for a port, and every change of it.
pub(super) type Mapped = watch::Receiver<Option<SocketAddr>>;

/// The ports of one peer; they are given back with it.
#[derive(Debug)]
pub(super) struct Mapping {
    teller: Teller,
    closing: watch::Sender<bool>,
}

impl Mapping {
    /// Asks for what `peer` needs to be dialled, and tells it what was given.
    pub(super) fn start(
        peer: &Peer,
        relays: watch::Receiver<Option<RelayService>>,
        carriers: bool,
        events: broadcast::Sender<Event>,
    ) -> Option<Self> {
        let local = peer.local_addr().ok()?;
        let teller = Teller {
            port: local.port(),
            events,
            told: Arc::default(),
        };
        if local.ip().is_loopback() {
            teller.warn(Trouble::Loopback);
            return None;
        }
        let mapping = Self {
            teller,
            closing: watch::Sender::new(false),
        };
        let udp = mapping.udp(local.port())?;
        let own = peer.clone();
        tokio::spawn(follow(udp.clone(), move |addr| own.set_mapped(addr)));
        let (teller, closing) = (mapping.teller.clone(), mapping.closing.subscribe());
        if carriers && let Some(tcp) = teller.ask(Protocol::Tcp, local.port(), closing.clone()) {
            tokio::spawn(compare(teller.clone(), udp, tcp));
        }
        tokio::spawn(map_relays(teller, relays, closing));
        Some(mapping)
    }

    /// Asks for a UDP port until what is returned is dropped; `None`: it is no port.
    pub(super) fn udp(&self, port: u16) -> Option<Mapped> {
        self.teller
            .ask(Protocol::Udp, port, self.closing.subscribe())
    }

    /// Gives all ports back.
    pub(super) async fn close(&self) {
        self.closing.send_replace(true);
        // A router that is silent keeps them until their time is over.
        let _ = timeout(RELEASED * 2, self.closing.closed()).await;
    }
}

/// What keeps others from reaching this peer by its router.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    Loopback,
    Silent,
    Refuses,
    Nested(Ipv4Addr),
    Ports { udp: u16, tcp: u16 },
}

impl Trouble {
    fn message(self, port: u16) -> String {
        match self {
            Self::Loopback => {
                "port_mapping: this peer listens on loopback, where no router leads; give --listen 0.0.0.0:PORT".into()
            }
            Self::Silent => format!(
                "port_mapping: no router answers to UPnP, NAT-PMP or PCP; turn one of these on in the settings of the router, or have it forward UDP and TCP of port {port}, and UDP of port {}, to this machine",
                port.saturating_add(1)
            ),
            Self::Refuses => {
                "port_mapping: the router gives no port; allow it to in its settings".into()
            }
            Self::Nested(ip) => format!(
                "port_mapping: the router is behind another NAT itself, at {ip}, so that nobody outside gets in; ask the provider for a public address"
            ),
            Self::Ports { udp, tcp } => format!(
                "port_mapping: the router gave port {udp} for UDP and {tcp} for TCP; they must be the same, or nobody comes by TCP; with NAT-PMP or PCP most routers give the same"
            ),
        }
    }
}

/// Says each kind of trouble once.
#[derive(Clone, Debug)]
struct Teller {
    /// Of the sessions.
    port: u16,
    events: broadcast::Sender<Event>,
    told: Arc<Mutex<HashSet<Discriminant<Trouble>>>>,
}

impl Teller {
    fn warn(&self, trouble: Trouble) {
        if !self.told.lock().insert(std::mem::discriminant(&trouble)) {
            return;
        }
        let message = trouble.message(self.port);
        // Nobody may be reading.
        let _ = self.events.send(Event {
            at_ms: unix_ms(),
            kind: EventKind::Warning { message },
        });
    }

    fn ask(&self, protocol: Protocol, port: u16, closing: watch::Receiver<bool>) -> Option<Mapped> {
        let (told, mapped) = watch::channel(None);
        let port = Port {
            teller: self.clone(),
            protocol,
            port: NonZeroU16::new(port)?,
            told,
            closing,
        };
        tokio::spawn(port.keep());
        Some(mapped)
    }
}

/// One port that is asked for.
struct Port {
    teller: Teller,
    protocol: Protocol,
    port: NonZeroU16,
    told: watch::Sender<Option<SocketAddr>>,
    closing: watch::Receiver<bool>,
}

impl Port {
    /// Has the port mapped until nobody wants it, and gives it back.
    async fn keep(mut self) {
        let mut closing = self.closing.clone();
        let told = self.told.clone();
        let over = async {
            tokio::select! {
                _ = closing.wait_for(|closing| *closing) => {}
                () = told.closed() => {}
            }
        };
        tokio::pin!(over);
        let mut tried = 0;
        loop {
            let found = tokio::select! {
                found = self.find(tried) => found,
                () = &mut over => return,
            };
            match found {
                Some(client) => {
                    let ended = tokio::select! {
                        () = self.watch(&client) => false,
                        () = &mut over => true,
                    };
                    release(client).await;
                    if ended {
                        return;
                    }
                }
                None => self.teller.warn(Trouble::Silent),
            }
            let pause = AGAIN[tried.min(AGAIN.len() - 1)];
            tried += 1;
            tokio::select! {
                () = sleep(pause) => {}
                () = &mut over => return,
            }
        }
    }

    /// Looks for a router, and asks it in one of the ways that it understands,
    /// another one each time. Of several ways the crate takes UPnP for a renewal
    /// where it has not looked for a while, so that it is given one.
    async fn find(&mut self, tried: usize) -> Option<Client> {
        let all = Config {
            protocol: self.protocol,
            ..Config::default()
        };
        let ProbeOutput { upnp, pcp, nat_pmp } = Client::new(all).probe().await.ok()?.ok()?;
        let none = Config {
            enable_upnp: false,
            enable_pcp: false,
            enable_nat_pmp: false,
            protocol: self.protocol,
        };
        let ways = [
            pcp.then(|| Config {
                enable_pcp: true,
                ..none.clone()
            }),
            nat_pmp.then(|| Config {
                enable_nat_pmp: true,
                ..none.clone()
            }),
            upnp.then(|| Config {
                enable_upnp: true,
                ..none.clone()
            }),
        ];
        let ways: Vec<Config> = ways.into_iter().flatten().collect();
        let way = ways.get(tried.checked_rem(ways.len())?)?;
        let client = Client::new(way.clone());
        client.update_local_port(self.port);
        Some(client)
    }

    /// Tells what the router gives, until it gives nothing for a while.
    async fn watch(&mut self, client: &Client) {
        let mut given = client.watch_external_address();
        let mut any = false;
        loop {
            let now = *given.borrow_and_update();
            let outside = now.filter(|addr| is_public(*addr.ip()));
            if let (Some(addr), None) = (now, outside) {
                self.teller.warn(Trouble::Nested(*addr.ip()));
            }
            self.tell(outside.map(SocketAddr::V4));
            any |= now.is_some();
            let changed = given.changed();
            let changed = match now {
                Some(_) => changed.await.is_ok(),
                None => timeout(GIVEN, changed).await.is_ok_and(|c| c.is_ok()),
            };
            if !changed {
                break;
            }
        }
        if !any {
            self.teller.warn(Trouble::Refuses);
        }
    }

    fn tell(&self, addr: Option<SocketAddr>) {
        let news = self.told.send_if_modified(|before| {
            let news = *before != addr;
            *before = addr;
            news
        });
        let (protocol, port) = (self.protocol, self.port);
        match addr {
            Some(outside) if news => {
                tracing::info!(?protocol, port, %outside, "mapping.given");
            }
            None if news => tracing::info!(?protocol, port, "mapping.lost"),
            _ => {}
        }
    }
}

/// Gives a port back.
async fn release(client: Client) {
    client.deactivate();
    // It does one thing after the other: once it has looked for the router again,
    // the port is given back. One that is silent keeps it until its time is over.
    let _ = timeout(RELEASED, client.probe()).await;
}

/// Hands each change on, until there are none any more.
async fn follow(mut mapped: Mapped, tell: impl Fn(Option<SocketAddr>)) {
    loop {
        tell(*mapped.borrow_and_update());
        if mapped.changed().await.is_err() {
            return;
        }
    }
}

/// Warns where others cannot come by carriers, whose TCP port is that of the
/// sessions.
async fn compare(teller: Teller, mut udp: Mapped, mut tcp: Mapped) {
    loop {
        let ports = [&mut udp, &mut tcp].map(|port| port.borrow_and_update().map(|at| at.port()));
        if let [Some(udp), Some(tcp)] = ports
            && udp != tcp
        {
            teller.warn(Trouble::Ports { udp, tcp });
        }
        let changed = tokio::select! {
            changed = udp.changed() => changed,
            changed = tcp.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Asks for the port of the relay, while this peer has one.
async fn map_relays(
    teller: Teller,
    mut relays: watch::Receiver<Option<RelayService>>,
    mut closing: watch::Receiver<bool>,
) {
    loop {
        let relay = relays.borrow_and_update().clone();
        // A relay ends with its last handle: this one is let go at once.
        let relay = relay.and_then(|service| service.relay().cloned());
        let mapped = relay.and_then(|relay| {
            let port = relay.addr().port();
            let mapped = teller.ask(Protocol::Udp, port, closing.clone())?;
            Some(follow(mapped, move |addr| relay.set_mapped(addr)))
        });
        let mapped = async {
            match mapped {
                Some(mapped) => mapped.await,
                None => pending().await,
            }
        };
        tokio::select! {
            changed = relays.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = mapped => return,
            _ = closing.wait_for(|closing| *closing) => return,
        }
    }
}

/// Whether it can be an address of the internet.
fn is_public(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    let of_a_provider = a == 100 && (64..128).contains(&b);
    let inside = ip.is_private() || ip.is_loopback() || ip.is_link_local() || of_a_provider;
    !(inside || ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast())
}

#[cfg(test)]
mod tests {
    use super::super::{Host, Setup};
    use super::*;
    use crate::settings::Settings;

    /// What a host on loopback warns of at its start, and whether it asks for ports.
    async fn start(port_mapping: Option<bool>) -> (Option<String>, bool) {
        let setup = Setup {
            settings: Settings {
                port_mapping,
                ..Settings::default()
            },
            ..Setup::default()
        };
        let plan = setup.plan().await.unwrap();
        let (host, mut events) = Host::start_watched(plan).await.unwrap();
        let asks = host.map_port(4477).is_some();
        host.close().await;
        let warning = std::iter::from_fn(|| events.try_recv().ok());
        let warning = warning.filter_map(|event| match event.kind {
            EventKind::Warning { message } => Some(message),
            _ => None,
        });
        (warning.last(), asks)
    }

    #[tokio::test]
    async fn no_router_is_asked_unless_it_is_set() {
        assert_eq!(start(None).await, (None, false));
        assert_eq!(start(Some(false)).await, (None, false));
    }

    #[tokio::test]
    async fn who_listens_on_loopback_is_told_that_no_router_leads_there() {
        let (warning, asks) = start(Some(true)).await;
        assert!(warning.is_some_and(|w| w.contains("--listen")) && !asks);
    }

    #[test]
    fn a_kind_of_trouble_is_told_once() {
        let (events, mut told) = broadcast::channel(8);
        let teller = Teller {
            port: 4477,
            events,
            told: Arc::default(),
        };
        let inner = Ipv4Addr::new(100, 64, 0, 9);
        for trouble in [Trouble::Silent, Trouble::Silent, Trouble::Nested(inner)] {
            teller.warn(trouble);
        }
        let told: Vec<_> = std::iter::from_fn(|| told.try_recv().ok()).collect();
        let texts: Vec<String> = told.iter().map(|event| event.kind.to_string()).collect();
        assert_eq!(texts.len(), 2);
        assert!(texts[0].contains("4477") && texts[0].contains("4478"));
        assert!(texts[1].contains("100.64.0.9"));
    }

    #[test]
    fn an_address_behind_another_nat_is_none_of_the_internet() {
        let is_public = |text: &str| is_public(text.parse().unwrap());
        for inside in [
            "10.1.2.3",
            "192.168.1.1",
            "172.16.0.1",
            "100.64.0.1",
            "0.0.0.0",
        ] {
            assert!(!is_public(inside), "{inside}");
        }
        for outside in ["11.0.0.2", "100.63.0.1", "100.128.0.1", "172.32.0.1"] {
            assert!(is_public(outside), "{outside}");
        }
    }
}
