//! What tests of what is printed share.

use canopy_proto::control as pb;
use unicode_width::UnicodeWidthStr;

use super::super::table::WIDTH;

/// An answer that one of two super-nodes is missing from.
pub(super) fn partial() -> Option<pb::Freshness> {
    Some(pb::Freshness {
        reached: 1,
        of: 2,
        oldest_ms: 312,
        missing: vec![pb::Missing {
            node_id: "b".repeat(64),
            reason: "did not answer in time".into(),
        }],
    })
}

/// As a file or a pipe gets it, which is compared with what is pinned.
pub(super) fn pinned(text: &str, golden: &str) {
    let plain = anstream::adapter::strip_str(text).to_string();
    assert!(plain.lines().all(|line| line.width() <= WIDTH), "{plain}");
    assert_eq!(plain, golden);
}
