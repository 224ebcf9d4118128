//! What requests to the index are counted by: which kind took how long, and
//! what was refused.

use std::sync::Arc;
use std::time::Duration;

use canopy_proto::wire::refusal::Code;
use canopy_proto::wire::{request, response};
use metrics::{Counter, Histogram};

/// Kinds of requests; `local` ones come from other super-nodes and are answered
/// from this one's own store.
pub(super) const NAMES: [&str; 7] = [
    "get",
    "put",
    "search",
    "local_get",
    "local_put",
    "local_search",
    "offer",
];

/// Codes of refusals.
pub(super) const CODES: [&str; 11] = [
    "malformed",
    "invalid",
    "quota",
    "busy",
    "unavailable",
    "deadline",
    "not_serving",
    "network",
    "internal",
    "banned",
    "other",
];

/// Handles that are made once, so that a request costs a few atomic adds. Those
/// of the default count nothing. Clones share them.
#[derive(Clone, Debug)]
pub struct Requests(Arc<Handles>);

#[derive(Debug)]
struct Handles {
    took: [Histogram; NAMES.len()],
    refused: [Counter; CODES.len()],
}

/// Which kind a request is; `None`: not the index's, and its time is not noted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestKind(Option<usize>);

impl Default for Requests {
    fn default() -> Self {
        let took = std::array::from_fn(|_| Histogram::noop());
        let refused = std::array::from_fn(|_| Counter::noop());
        Self::new(took, refused)
    }
}

impl Requests {
    /// Each in the order of its names.
    pub(super) fn new(took: [Histogram; NAMES.len()], refused: [Counter; CODES.len()]) -> Self {
        Self(Arc::new(Handles { took, refused }))
    }

    /// To be asked before the request is handed on.
    pub(crate) fn kind(request: &request::Kind) -> RequestKind {
        RequestKind(match request {
            request::Kind::Get(get) if !get.local => Some(0),
            request::Kind::Put(put) if !put.local => Some(1),
            request::Kind::Search(search) if !search.local => Some(2),
            request::Kind::Get(_) => Some(3),
            request::Kind::Put(_) => Some(4),
            request::Kind::Search(_) => Some(5),
            request::Kind::Offer(_) => Some(6),
            request::Kind::Locate(_)
            | request::Kind::Ping(_)
            | request::Kind::Inspect(_)
            | request::Kind::Deliver(_)
            | request::Kind::Posts(_)
            | request::Kind::Subscribe(_)
            | request::Kind::RelayOpen(_)
            | request::Kind::LinkOffer(_) => None,
        })
    }

    /// A request of `kind` was answered with `answer` after `took`.
    pub(crate) fn answered(&self, kind: RequestKind, answer: &response::Kind, took: Duration) {
        if let Some(histogram) = kind.0.and_then(|kind| self.0.took.get(kind)) {
            histogram.record(took.as_secs_f64());
        }
        match answer {
            response::Kind::Refusal(refusal) => self.refused(refusal.code()),
            response::Kind::Put(reply) => {
                let refusals = reply.outcomes.iter().filter_map(|o| o.refusal.as_ref());
                refusals.for_each(|refusal| self.refused(refusal.code()));
            }
            _ => {}
        }
    }

    fn refused(&self, code: Code) {
        let place = match code {
            Code::Malformed => 0,
            Code::Invalid => 1,
            Code::Quota => 2,
            Code::Busy => 3,
            Code::Unavailable => 4,
            Code::Deadline => 5,
            Code::NotServing => 6,
            Code::Network => 7,
            Code::Internal => 8,
            Code::Banned => 9,
            Code::Version | Code::Unspecified => 10,
        };
        self.0.refused[place].increment(1);
    }
}

#[cfg(test)]
mod tests {
    use canopy_proto::wire;

    use super::super::Metrics;
    use super::*;

    fn refusal(code: Code) -> wire::Refusal {
        wire::Refusal {
            code: code.into(),
            message: String::new(),
        }
    }

    #[test]
    fn refused_requests_and_refused_records_count_by_their_code() {
        let metrics = Metrics::new();
        let requests = metrics.requests();
        let put = Requests::kind(&request::Kind::Put(wire::Put::default()));
        let outcome = |code| wire::PutOutcome {
            refusal: Some(refusal(code)),
            superseded_by: 0,
        };
        let reply = wire::PutReply {
            outcomes: vec![
                outcome(Code::Quota),
                wire::PutOutcome::default(),
                outcome(Code::Quota),
            ],
            ..Default::default()
        };
        let took = Duration::from_millis(3);
        requests.answered(put, &response::Kind::Put(reply), took);
        let busy = response::Kind::Refusal(refusal(Code::Busy));
        requests.answered(put, &busy, took);
        let text = metrics.render();
        for wanted in [
            "canopy_index_refusals_total{code=\"quota\"} 2",
            "canopy_index_refusals_total{code=\"busy\"} 1",
            "canopy_index_refusals_total{code=\"invalid\"} 0",
            "canopy_index_request_duration_seconds_count{request=\"put\"} 2",
            "canopy_index_request_duration_seconds_bucket{request=\"put\",le=\"0.0025\"} 0",
            "canopy_index_request_duration_seconds_bucket{request=\"put\",le=\"0.005\"} 2",
        ] {
            assert!(text.lines().any(|line| line == wanted), "{wanted}: {text}");
        }
    }

    #[test]
    fn each_kind_of_request_has_a_name_of_its_own() {
        let local = true;
        let of = |request| Requests::kind(&request).0.map(|kind| NAMES[kind]);
        let get = |local| {
            request::Kind::Get(wire::Get {
                local,
                ..Default::default()
            })
        };
        assert_eq!(of(get(false)), Some("get"));
        assert_eq!(of(get(local)), Some("local_get"));
        let search = wire::Search {
            local,
            ..Default::default()
        };
        assert_eq!(of(request::Kind::Search(search)), Some("local_search"));
        assert_eq!(of(request::Kind::Ping(wire::Ping::default())), None);
    }
}
