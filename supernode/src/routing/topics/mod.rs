//! Topics: posts signed by their publishers, brought to all who subscribed.
//!
//! A topic's key has three owners. A leaf subscribes at a home; the home asks the
//! owners for the topic's posts. A post goes to one owner, from there to the homes
//! and from them to the leaves, and the acknowledgements come back the same way:
//! a publisher goes on when all have it, or were given up on. All of this is soft
//! state, said again before a lease is over.
//!
//! | file | idea |
//! |---|---|
//! | `posts` | a batch, checked |
//! | `history` | the last posts of a topic |
//! | `owner` | what an owner of a topic does |
//! | `home` | what a home of subscribers does |
//! | `registry` | who subscribed at this home |
//! | `keep` | what is said again, and dropped |

mod history;
mod home;
mod keep;
mod owner;
mod posts;
mod registry;

use std::time::Duration;

pub(super) use keep::keep;
pub(super) use owner::Owned;

pub use posts::{
    Batch, Heard, MAX_POSTS, Stamp, Stamped, heard_from_wire, heard_to_wire, is_topic,
};
pub(super) use registry::Registry;

/// How long a subscription holds unless it is said again.
pub const LEASE: Duration = Duration::from_secs(60);
/// How often a home says it to the owners, and a leaf to its home.
pub const RENEW: Duration = Duration::from_secs(15);
/// How long a leaf waits for an app that does not read its posts, before it ends
/// the subscription.
pub const STALL: Duration = Duration::from_secs(4);
/// How long a leaf may take to take posts.
const PUSH: Duration = Duration::from_secs(6);
/// How long a home may.
const FAN: Duration = Duration::from_secs(8);
/// How long another owner may.
const COPY: Duration = Duration::from_secs(10);
/// How long an owner may, before its publisher tries another.
pub const PUBLISH: Duration = Duration::from_secs(13);
