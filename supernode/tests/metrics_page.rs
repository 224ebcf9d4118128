//! docs/metrics.md is what the code says.

use std::path::Path;

use canopy_supernode::metrics::page;

#[test]
fn the_page_of_metrics_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let made = page();
    if std::env::var_os("CANOPY_WRITE_DOCS").is_some() {
        std::fs::write(&path, &made).expect("written");
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        there == made,
        "docs/metrics.md is out of date; run CANOPY_WRITE_DOCS=1 cargo test --release -p canopy-supernode --test metrics_page"
    );
}
