//! Every refusal the index gives, with its code.

use canopy_core::decree::Banned;
use canopy_core::record::RecordError;
use canopy_overlay::calls::CallError;
use canopy_proto::wire;
use canopy_proto::wire::refusal::Code;

use crate::index::{Refused, SearchError};
use crate::store::StoreError;

fn refusal(code: Code, message: impl Into<String>) -> wire::Refusal {
    wire::Refusal {
        code: code.into(),
        message: message.into(),
    }
}

pub(super) fn malformed(message: &str) -> wire::Refusal {
    refusal(Code::Malformed, message)
}

pub(super) fn unavailable(message: impl Into<String>) -> wire::Refusal {
    refusal(Code::Unavailable, message)
}

pub(super) fn banned(what: &Banned) -> wire::Refusal {
    let message = format!(
        "the operator of this network banned {what}; nothing of it is stored or served: ask the operator to lift the ban"
    );
    refusal(Code::Banned, message)
}

pub(super) fn banned_content() -> wire::Refusal {
    refusal(
        Code::Banned,
        "the operator of this network banned this content; it is not served: ask the operator to lift the ban",
    )
}

pub(super) fn not_serving() -> wire::Refusal {
    refusal(
        Code::NotServing,
        "local writes are taken from super-nodes only; send it without `local`",
    )
}

pub(super) fn not_yours() -> wire::Refusal {
    refusal(Code::Invalid, "letters are told to their addressee only")
}

pub(super) fn leaving() -> wire::Refusal {
    refusal(
        Code::NotServing,
        "this super-node is leaving and hands its records over; ask their other owners",
    )
}

pub(super) fn superseded(sequence: u64) -> wire::Refusal {
    let message = format!("a later sequence, {sequence}, is in place; publish with a higher one");
    refusal(Code::Invalid, message)
}

pub(super) fn of_record(error: &RecordError) -> wire::Refusal {
    let code = match error {
        RecordError::Network(_) => Code::Network,
        RecordError::TooLarge { .. } | RecordError::Shape(_) => Code::Malformed,
        _ => Code::Invalid,
    };
    refusal(code, error.to_string())
}

pub(super) fn of_index(error: &Refused) -> wire::Refusal {
    let code = match error {
        Refused::Store(error) => return of_store(error),
        Refused::Expired | Refused::SharedRemoval => Code::Invalid,
        Refused::PublisherRecords(_) | Refused::PublisherBytes(_) | Refused::MailboxFull(_) => {
            Code::Quota
        }
        Refused::Full | Refused::TermsFull(_) | Refused::ProvidersFull => Code::Busy,
    };
    refusal(code, error.to_string())
}

pub(crate) fn of_store(error: &StoreError) -> wire::Refusal {
    let code = match error {
        StoreError::Busy => Code::Busy,
        _ => Code::Internal,
    };
    // The path is nobody else's business.
    let message = match error {
        StoreError::Busy => "the disk is too slow for the writes that wait; try again later",
        StoreError::Full(_) => "this super-node's disk is full; its operator must free space",
        _ => "this super-node's store failed",
    };
    refusal(code, message)
}

pub(super) fn of_search(error: &SearchError) -> wire::Refusal {
    refusal(Code::Malformed, error.to_string())
}

pub(super) fn of_call(error: &CallError) -> wire::Refusal {
    match error {
        CallError::Refused { refusal, .. } => refusal.clone(),
        CallError::Deadline(_) => refusal(Code::Deadline, error.to_string()),
        CallError::Busy(_) => refusal(Code::Busy, error.to_string()),
        _ => refusal(Code::Unavailable, error.to_string()),
    }
}
