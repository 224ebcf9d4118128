//! Super-nodes by filter and order, a page at a time.

use canopy_proto::control as pb;
use tonic::Status;

use super::convert::{self, BASES};
use super::page::{Order, Page, Value, ValueOf, number, rate, size};
use super::survey::{Picture, Seen, State};

/// Entries of a page that names no size.
const USUAL_PAGE: u32 = 100;
/// Most entries of a page.
pub(super) const MAX_PAGE: u32 = 1000;

/// What to order by, in the words of the API.
const ORDERS: [(&str, ValueOf<Seen>); 10] = [
    ("node_id", |_| number(0u32)),
    ("capacity", |seen| number(seen.member.capacity_bps)),
    ("utilisation", |seen| number(utilisation(seen)?)),
    ("operations", |seen| {
        rate(seen.figures.as_ref()?.figures.operations_per_s)
    }),
    ("records", |seen| {
        let held = seen.figures.as_ref()?.figures.held?;
        number(held.records)
    }),
    ("leaves", |seen| {
        number(seen.figures.as_ref()?.figures.leaves)
    }),
    ("seats", |seen| number(seen.member.seats)),
    ("domain", |seen| {
        Some(Value::Text(seen.member.domain.to_string()))
    }),
    ("term", |seen| number(seen.member.term)),
    ("expires", |seen| number(seen.member.expires_ms)),
];

fn id(seen: &Seen) -> String {
    seen.member.node.to_string()
}

fn utilisation(seen: &Seen) -> Option<u32> {
    let figures = &seen.figures.as_ref()?.figures;
    Some(convert::worst(figures.utilisation.as_ref()?).0)
}

struct Filter {
    domain: Option<String>,
    state: Option<State>,
    basis: Option<&'static str>,
    utilisation_milli: Option<u32>,
}

impl Filter {
    fn of(filter: pb::SuperNodeFilter) -> Result<Self, Status> {
        let state = filter.state.map(|wanted| {
            let known = State::ALL
                .into_iter()
                .find(|state| state.as_str() == wanted);
            known.ok_or_else(|| {
                let names = State::ALL.map(State::as_str).join(", ");
                Status::invalid_argument(format!("filter.state: {wanted:?} is none of {names}"))
            })
        });
        let basis = filter.basis.map(|wanted| {
            let names = BASES.map(convert::basis);
            let known = names.into_iter().find(|name| *name == wanted);
            known.ok_or_else(|| {
                let names = names.join(", ");
                Status::invalid_argument(format!("filter.basis: {wanted:?} is none of {names}"))
            })
        });
        Ok(Self {
            domain: filter.domain,
            state: state.transpose()?,
            basis: basis.transpose()?,
            utilisation_milli: filter.utilisation_milli,
        })
    }

    fn passes(&self, seen: &Seen) -> bool {
        let member = &seen.member;
        let domain = self.domain.as_deref();
        domain.is_none_or(|domain| *member.domain == *domain)
            && self.state.is_none_or(|state| member.state == state)
            && self
                .basis
                .is_none_or(|basis| convert::basis(member.basis) == basis)
            && self
                .utilisation_milli
                .is_none_or(|least| utilisation(seen).is_some_and(|milli| milli >= least))
    }
}

/// What a request asks for, checked before anybody is asked for figures.
pub(super) struct Query {
    page: Page<Seen>,
    filter: Filter,
}

impl Query {
    pub(super) fn of(mut request: pb::ListSuperNodesRequest) -> Result<Self, Status> {
        let size = size(request.page_size, USUAL_PAGE, MAX_PAGE)?;
        let order = Order::of(&ORDERS, id, &request.order_by, request.descending)?;
        Ok(Self {
            page: Page::of(order, &request.page_token, size)?,
            filter: Filter::of(request.filter.take().unwrap_or_default())?,
        })
    }

    pub(super) fn page(&self, picture: &Picture) -> pb::ListSuperNodesReply {
        let passing = picture.seen.iter().filter(|seen| self.filter.passes(seen));
        let cut = self.page.cut(passing);
        let seats = convert::seats(picture);
        let entries = cut.entries.iter();
        pb::ListSuperNodesReply {
            super_nodes: entries
                .map(|seen| convert::super_node(seen, seats))
                .collect(),
            next_page_token: cut.next,
            total: cut.total,
            freshness: Some(convert::freshness(picture)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use canopy_core::election::mandate::Basis;
    use canopy_core::keyspace::NodeId;
    use canopy_proto::wire;
    use tokio::time::Instant;

    use super::super::page::Place;
    use super::super::survey::{Figures, Member};
    use super::*;

    fn seen(n: u8, busy: Option<u32>) -> Seen {
        let figures = busy.map(|connections_milli| Figures {
            figures: Arc::new(wire::Figures {
                utilisation: Some(wire::Utilisation {
                    connections_milli,
                    ..Default::default()
                }),
                ..Default::default()
            }),
            at: Instant::now(),
        });
        Seen {
            member: Member {
                node: NodeId([n; 32]),
                addrs: Vec::new(),
                state: if n == 9 {
                    State::Deputy
                } else {
                    State::Serving
                },
                basis: Basis::Elected,
                capacity_bps: u64::from(n / 2),
                seats: 16,
                domain: Arc::from(if n.is_multiple_of(2) { "even/a" } else { "odd" }),
                term: 1,
                issued_ms: 0,
                expires_ms: 0,
            },
            figures,
            missing: None,
        }
    }

    fn picture() -> Picture {
        let busy = |n: u8| (n != 4).then_some(u32::from(n % 3) * 100);
        Picture {
            survive_milli: 900,
            seen: (1..=9).map(|n| seen(n, busy(n))).collect(),
        }
    }

    fn ids(reply: &pb::ListSuperNodesReply) -> Vec<u8> {
        let first = |node: &pb::SuperNode| u8::from_str_radix(&node.node_id[..2], 16).unwrap();
        reply.super_nodes.iter().map(first).collect()
    }

    /// All pages, one after the other.
    fn pages(mut request: pb::ListSuperNodesRequest) -> Vec<u8> {
        let mut all = Vec::new();
        for _ in 0..20 {
            let reply = Query::of(request.clone()).unwrap().page(&picture());
            all.extend(ids(&reply));
            if reply.next_page_token.is_empty() {
                return all;
            }
            assert_eq!(reply.super_nodes.len(), request.page_size as usize);
            request.page_token = reply.next_page_token;
        }
        panic!("a list without end");
    }

    #[test]
    fn pages_hold_everybody_once_in_order_whatever_the_size() {
        let orders = [
            ("", false, vec![1, 2, 3, 4, 5, 6, 7, 8, 9]),
            ("capacity", true, vec![8, 9, 6, 7, 4, 5, 2, 3, 1]),
            ("utilisation", true, vec![2, 5, 8, 1, 7, 3, 6, 9, 4]),
            ("utilisation", false, vec![3, 6, 9, 1, 7, 2, 5, 8, 4]),
            ("domain", false, vec![2, 4, 6, 8, 1, 3, 5, 7, 9]),
        ];
        for (order, descending, wanted) in orders {
            for page_size in [1, 2, 4, 9, 1000] {
                let request = pb::ListSuperNodesRequest {
                    page_size,
                    order_by: order.to_owned(),
                    descending,
                    ..Default::default()
                };
                assert_eq!(pages(request), wanted, "{order} {descending} {page_size}");
            }
        }
    }

    #[test]
    fn filters_hold_together() {
        let filter = pb::SuperNodeFilter {
            domain: Some("odd".into()),
            state: Some("serving".into()),
            basis: Some("elected".into()),
            utilisation_milli: Some(100),
        };
        let request = pb::ListSuperNodesRequest {
            filter: Some(filter),
            ..Default::default()
        };
        let reply = Query::of(request).unwrap().page(&picture());
        assert_eq!((ids(&reply), reply.total), (vec![1, 5, 7], 3));
    }

    #[test]
    fn what_cannot_be_listed_is_refused_and_says_what_can() {
        let refused = |change: fn(&mut pb::ListSuperNodesRequest)| {
            let mut request = pb::ListSuperNodesRequest::default();
            change(&mut request);
            let status = Query::of(request).err().expect("refused");
            assert_eq!(status.code(), tonic::Code::InvalidArgument);
            status.message().to_owned()
        };
        assert!(refused(|r| r.page_size = 1001).contains("1000"));
        assert!(refused(|r| r.page_size = u32::MAX).contains("several pages"));
        assert!(refused(|r| r.order_by = "size".into()).contains("capacity, utilisation"));
        let filter = |change: fn(&mut pb::SuperNodeFilter)| {
            let mut filter = pb::SuperNodeFilter::default();
            change(&mut filter);
            let request = pb::ListSuperNodesRequest {
                filter: Some(filter),
                ..Default::default()
            };
            let status = Query::of(request).err().expect("refused");
            status.message().to_owned()
        };
        assert!(filter(|f| f.state = Some("up".into())).contains("serving, down"));
        assert!(filter(|f| f.basis = Some("mine".into())).contains("designated"));
        for token in [
            "x",
            "node_id/up",
            "node_id/down/00/n0",
            "node_id/up/zz/é",
            "capacity/up/-/-",
        ] {
            let request = pb::ListSuperNodesRequest {
                page_token: token.to_owned(),
                ..Default::default()
            };
            assert!(Query::of(request).is_err(), "{token}");
        }
        // Of another order.
        let place = Place {
            value: None,
            id: NodeId([1; 32]).to_string(),
        };
        let order = Order::of(&ORDERS, id, "", false).unwrap();
        let request = pb::ListSuperNodesRequest {
            page_token: order.token(&place),
            descending: true,
            ..Default::default()
        };
        assert!(Query::of(request).is_err());
    }
}
