//! A leaf over HTTP: the metrics of its peer, and those of its own requests.

use canopy_supernode::http::Source;
use canopy_supernode::metrics::catalogue::id;

use crate::leaf::Leaf;

impl Source for Leaf {
    fn metrics(&self) -> String {
        let (metrics, stats) = (self.node().metrics(), self.stats());
        metrics.count(&id::CLIENT_REQUESTS, &["ok"], stats.ok);
        metrics.count(&id::CLIENT_REQUESTS, &["failed"], stats.failed);
        metrics.count(&id::CLIENT_HEDGES, &[], stats.hedged);
        metrics.count(&id::CLIENT_RETRIES, &[], stats.retried);
        metrics.set(&id::CLIENT_KEPT, &[], stats.kept as f64);
        metrics.count(&id::CLIENT_REFRESHES, &[], stats.refreshed);
        let content = self.content_stats();
        metrics.count(&id::CONTENT_SENT, &[], content.uploaded);
        metrics.count(&id::CONTENT_FETCHED, &[], content.downloaded);
        metrics.count(&id::CONTENT_PIECES, &[], content.pieces);
        metrics.count(&id::CONTENT_REFUSED, &[], content.refused);
        metrics.render()
    }

    fn ready(&self) -> Result<(), String> {
        self.node().ready()
    }
}
