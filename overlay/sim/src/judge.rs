//! What the scenario expects of a whole run, and how its users were served.

use std::collections::BTreeMap;

use canopy_core::node::Role;

use crate::net::Nat;
use crate::run::{Run, SECOND};
use crate::users::RECKONINGS;

/// Pause between two looks for what was not found.
const RECKON_AGAIN: u64 = 10 * SECOND;
/// Requests are given up after ten seconds; so long the last ones are waited for.
const LAST_ANSWERS: u64 = 15 * SECOND;
/// Lost values that are named.
const NAMED: usize = 5;

impl Run<'_> {
    /// What the scenario expects of the whole.
    pub(crate) fn judge(&mut self) {
        let expect = self.scenario.expect.clone();
        let over = |limit: Option<u64>, value: u64| limit.filter(|limit| value > *limit);
        if let Some(limit) = over(expect.role_losses, self.watch.role_losses) {
            let how = format!("{} did, {limit} may", self.watch.role_losses);
            self.watch.broke("running super-nodes keep their role", how);
        }
        if let Some(limit) = over(expect.role_changes, self.watch.role_changes) {
            let how = format!("{}, {limit} may be", self.watch.role_changes);
            self.watch.broke("roles change seldom", how);
        }
        let homed = self.watch.homed_milli();
        if homed < expect.homed_milli {
            let how = format!("{homed} of 1000 looks, not {}", expect.homed_milli);
            self.watch.broke("leaves have homes", how);
        }
        let serving = self.world.with_role(Role::SuperNode);
        let bad = serving.iter().filter(|id| {
            let spec = &self.world.peer(**id).spec;
            spec.drops || spec.nat != Nat::Open
        });
        let bad = (bad.count() * 1000 / serving.len().max(1)) as u64;
        if let Some(limit) = over(expect.bad_milli, bad) {
            let how = format!("{bad} of 1000 who serve do not, {limit} may");
            self.watch.broke("those who serve can", how);
        }
        let (overrated, rated) = (self.watch.overrated, self.watch.rated);
        let limit = expect.overrated_milli;
        if let Some(milli) = limit.filter(|milli| !by_chance(overrated, rated, *milli)) {
            let how = format!("{overrated} of {rated} do not; of 1000, {milli} may");
            self.watch.broke("mandates tell the truth", how);
        }
    }

    /// Users begin.
    pub(crate) fn begin_use(&mut self) {
        let now = self.world.clock();
        self.loads.begin(&self.world);
        if let Some(users) = &mut self.users {
            users.begin(now);
        }
    }

    /// Users rest, and look for all that was ever acknowledged to them. `quiet`:
    /// from then on they should have been served.
    pub(crate) fn end_use(&mut self, quiet: u64) {
        self.loads.end(&self.world);
        if let Some(users) = &mut self.users {
            users.rest();
        }
        self.answers();
        for _ in 0..RECKONINGS {
            let mut at = 0;
            loop {
                let (Some(users), world) = (&mut self.users, &mut self.world) else {
                    return;
                };
                if !users.reckon(world, &mut at) {
                    break;
                }
                self.go_to(self.world.clock() + SECOND / 10);
            }
            self.answers();
            let left = self.users.as_ref().map(|users| users.lost(&self.world));
            if left.is_none_or(|(lost, gone)| lost.is_empty() && gone == 0) {
                break;
            }
            self.go_to(self.world.clock() + RECKON_AGAIN);
        }
        self.judge_use(quiet);
    }

    /// Waits for what is under way.
    fn answers(&mut self) {
        let until = self.world.clock() + LAST_ANSWERS;
        while self.users.as_ref().is_some_and(|users| users.busy()) && self.world.clock() < until {
            self.go_to(self.world.clock() + SECOND / 10);
        }
    }

    /// Of a thousand operations, how many were answered by whom they were asked of
    /// first: not repeated, nor overtaken by a hedge.
    fn first_try_milli(&self) -> u64 {
        let stats = self.world.data().map(|data| data.stats());
        let counted = stats.map(|stats| (stats.ok + stats.failed, stats.retried + stats.overtaken));
        let told = self.users.as_ref().map(|u| (u.ok + u.failed, u.again));
        let (all, again) = counted.or(told).unwrap_or_default();
        (all.saturating_sub(again) * 1000)
            .checked_div(all)
            .unwrap_or(1000)
    }

    fn judge_use(&mut self, quiet: u64) {
        let Some(users) = &self.users else { return };
        let expect = &self.scenario.expect;
        let mut broken: Vec<(&'static str, String)> = Vec::new();
        let (lost, gone) = users.lost(&self.world);
        self.gone = gone;
        if !lost.is_empty() {
            let named: Vec<String> = lost.iter().take(NAMED).map(usize::to_string).collect();
            let how = format!("{} values, of them {}", lost.len(), named.join(", "));
            broken.push(("what was acknowledged is found again", how));
        }
        if let Some(ok) = users.ok_milli(quiet)
            && ok < expect.ok_milli
        {
            let how = format!("{ok} of 1000 operations, not {}", expect.ok_milli);
            broken.push(("users are served", how));
        }
        let first = self.first_try_milli();
        if first < expect.first_try_milli {
            let how = format!("{first} of 1000 operations, not {}", expect.first_try_milli);
            broken.push(("the first try is enough", how));
        }
        let most = self.loads.imbalance_milli();
        if let Some(limit) = expect.imbalance_milli.filter(|limit| most > *limit) {
            let how = format!("{most} thousandths of the mean, {limit} may be");
            broken.push(("work follows capacity", how));
        }
        for (what, how) in broken {
            self.watch.broke(what, how);
        }
    }

    /// Figures of how users were served.
    pub(crate) fn used(&mut self) -> BTreeMap<String, f64> {
        let (first, most) = (self.first_try_milli(), self.loads.imbalance_milli());
        let gone = self.gone;
        let stats = self.world.data().map(|data| data.stats());
        let Some(users) = &mut self.users else {
            return BTreeMap::new();
        };
        let stats = stats.unwrap_or_default();
        let figures = [
            ("operations_ok", users.ok as f64),
            ("operations_failed", users.failed as f64),
            ("operations_that_nobody_could_begin", users.unasked as f64),
            ("reads_that_missed_a_write", users.stale as f64),
            ("operations_hedged", stats.hedged as f64),
            ("operations_overtaken", stats.overtaken as f64),
            ("operations_retried", (stats.retried + users.again) as f64),
            ("first_try_milli", first as f64),
            ("read_p50_ms", users.read_ms(50)),
            ("read_p99_ms", users.read_ms(99)),
            ("hops_p50", users.read_hops(50)),
            ("hops_p99", users.read_hops(99)),
            ("load_max_over_mean", most as f64 / 1000.0),
            ("values_gone_with_two_of_their_owners", gone as f64),
        ];
        figures.map(|(name, value)| (name.to_owned(), value)).into()
    }
}

/// Whether `hits` or more of `draws` come about in at least one of a hundred
/// tries where each draw hits with a chance of `milli` thousandths.
fn by_chance(hits: u64, draws: u64, milli: u64) -> bool {
    let chance = milli as f64 / 1000.0;
    // Of exactly `hit` hits, from none on; the rest is what is asked.
    let mut exactly = (1.0 - chance).powf(draws as f64);
    let mut rest = 1.0;
    for hit in 0..hits {
        rest -= exactly;
        let left = draws.saturating_sub(hit) as f64;
        exactly *= left / (hit + 1) as f64 * chance / (1.0 - chance);
    }
    rest >= 0.01
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_about_by_chance_is_no_violation_and_more_is() {
        // Binomial, 0.5 %: of 67 draws two or more hit in 4.5 %, three in 0.5 %.
        assert!(by_chance(0, 0, 5));
        assert!(by_chance(2, 67, 5));
        assert!(!by_chance(3, 67, 5));
        // Of 3 000, 15 are expected; 26 or more come about in 0.6 %.
        assert!(by_chance(24, 3_000, 5));
        assert!(!by_chance(26, 3_000, 5));
        assert!(!by_chance(1, 67, 0));
    }
}
