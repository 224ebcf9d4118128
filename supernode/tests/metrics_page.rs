//! docs/metrics.md is what the code says, and what operators deploy asks for
//! nothing else.

use std::path::{Path, PathBuf};

use canopy_supernode::metrics::{catalogue, page};

fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

#[test]
fn the_page_of_metrics_is_up_to_date() {
    let path = in_repository("docs/metrics.md");
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

#[test]
fn rules_and_dashboard_ask_for_metrics_that_there_are() {
    let names: Vec<&str> = catalogue::all().map(|metric| metric.name).collect();
    for file in ["prometheus/canopy.rules.yml", "grafana/canopy.json"] {
        let text =
            std::fs::read_to_string(in_repository("deploy").join(file)).expect("it is there");
        let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
        let asked = text.split(word).filter(|word| word.starts_with("canopy_"));
        let mut count = 0;
        for name in asked {
            let base = name.strip_suffix("_bucket").unwrap_or(name);
            assert!(names.contains(&base), "{file}: there is no {name}");
            count += 1;
        }
        assert!(count > 20, "{file} asks for {count} metrics");
    }
}
