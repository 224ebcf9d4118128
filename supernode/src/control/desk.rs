//! What all share who look at the overlay through one host, by whatever way: the
//! surveys and the log. However many look, the others are asked once.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::hot::HotSurvey;
use super::log::Log;
use super::shards::ShardSurvey;
use super::survey::Survey;
use crate::host::Host;

/// Surveys and log of a host.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(super) survey: Survey,
    pub(super) shards: ShardSurvey,
    pub(super) hot: HotSurvey,
    pub(super) log: Arc<Log>,
}

/// Where a host keeps its desk for as long as anybody looks.
#[derive(Debug, Default)]
pub(crate) struct Place(Mutex<Weak<Desk>>);

impl Desk {
    /// The desk of `host`; set up by the first who looks, gone with the last. Call
    /// within a tokio runtime.
    pub(super) fn of(host: &Host) -> Arc<Self> {
        let mut place = host.desk().0.lock();
        if let Some(desk) = place.upgrade() {
            return desk;
        }
        let desk = Arc::new(Self {
            survey: Survey::new(host.clone()),
            shards: ShardSurvey::new(host.clone()),
            hot: HotSurvey::new(host),
            log: Log::of(host.events()),
        });
        *place = Arc::downgrade(&desk);
        desk
    }
}
