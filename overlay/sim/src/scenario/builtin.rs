//! The scenarios that the program brings along.

const ALL: [(&str, &str); 28] = [
    ("steady", include_str!("../../scenarios/steady.toml")),
    (
        "cold-start",
        include_str!("../../scenarios/cold-start.toml"),
    ),
    ("crowd", include_str!("../../scenarios/crowd.toml")),
    ("churn", include_str!("../../scenarios/churn.toml")),
    ("chaos", include_str!("../../scenarios/chaos.toml")),
    ("cascade", include_str!("../../scenarios/cascade.toml")),
    ("half-loss", include_str!("../../scenarios/half-loss.toml")),
    (
        "server-lost",
        include_str!("../../scenarios/server-lost.toml"),
    ),
    ("all-loss", include_str!("../../scenarios/all-loss.toml")),
    (
        "restart-all",
        include_str!("../../scenarios/restart-all.toml"),
    ),
    (
        "domain-lost",
        include_str!("../../scenarios/domain-lost.toml"),
    ),
    (
        "growth-storm",
        include_str!("../../scenarios/growth-storm.toml"),
    ),
    ("unhealthy", include_str!("../../scenarios/unhealthy.toml")),
    ("criteria", include_str!("../../scenarios/criteria.toml")),
    (
        "unreachable",
        include_str!("../../scenarios/unreachable.toml"),
    ),
    ("liars", include_str!("../../scenarios/liars.toml")),
    ("sybils", include_str!("../../scenarios/sybils.toml")),
    ("garbage", include_str!("../../scenarios/garbage.toml")),
    (
        "free-riders",
        include_str!("../../scenarios/free-riders.toml"),
    ),
    ("hot-key", include_str!("../../scenarios/hot-key.toml")),
    ("partition", include_str!("../../scenarios/partition.toml")),
    ("bridged", include_str!("../../scenarios/bridged.toml")),
    ("clocks", include_str!("../../scenarios/clocks.toml")),
    (
        "rolling-restart",
        include_str!("../../scenarios/rolling-restart.toml"),
    ),
    (
        "drain-owners",
        include_str!("../../scenarios/drain-owners.toml"),
    ),
    (
        "dead-cache",
        include_str!("../../scenarios/dead-cache.toml"),
    ),
    ("baseline", include_str!("../../scenarios/baseline.toml")),
    (
        "baseline-harsh",
        include_str!("../../scenarios/baseline-harsh.toml"),
    ),
];

/// Their names, in the order of the faults that they show.
pub fn names() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|(name, _)| *name)
}

/// The text of one of them.
pub fn builtin(name: &str) -> Option<&'static str> {
    let found = ALL.iter().find(|(known, _)| *known == name);
    found.map(|(_, text)| *text)
}
