//! Timed measurements of elections: whoever measures a candidate at the same
//! moment shares its line; and those who lie about it.

use std::time::Duration;

use canopy_core::node::{Input, Measured};

use super::{Coming, PeerId, World};

/// The driver's time to open a session to the candidate.
const DIAL_US: u64 = 5_000_000;

/// What a juror measured, for whoever watches: its ballot, before it is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cast {
    /// When it began and was done, microseconds since the start.
    pub(crate) from: u64,
    pub(crate) at: u64,
    pub(crate) juror: PeerId,
    pub(crate) candidate: PeerId,
    /// What was asked of the candidate, and what the ballot counts for, bits a second.
    pub(crate) share_bps: u64,
    pub(crate) goodput_bps: u64,
}

/// One juror's measurement.
pub(super) struct Measurement {
    pub(super) juror: PeerId,
    pub(super) token: u64,
    pub(super) candidate: Option<PeerId>,
    pub(super) share_bps: u64,
    pub(super) from: u64,
    pub(super) lasts: u64,
}

impl World {
    pub(super) fn measure(&mut self, measurement: Measurement) {
        let reached = measurement.candidate.filter(|candidate| {
            let linked = self.sessions.get(measurement.juror, *candidate).is_some();
            linked || self.can_dial(measurement.juror, *candidate)
        });
        let Some(candidate) = reached else {
            let failed = Measurement {
                candidate: None,
                ..measurement
            };
            return self.later(DIAL_US, Coming::MeasureEnd(Box::new(failed)));
        };
        let (juror, from) = (measurement.juror, measurement.from);
        let until = from + measurement.lasts;
        // A conspirator who measures its own spends nothing on it.
        let pretends = self.colludes(juror);
        if !pretends {
            let measured = &mut self.peers[candidate as usize].cold().measured;
            measured.retain(|(_, _, end)| *end + 60_000_000 > from);
            measured.push((juror, from, until));
        }
        self.later(measurement.lasts, Coming::MeasureEnd(Box::new(measurement)));
    }

    fn colludes(&self, id: PeerId) -> bool {
        self.peers[id as usize].spec.colludes
    }

    pub(super) fn measure_end(&mut self, measurement: Measurement) {
        let Measurement {
            juror,
            token,
            share_bps,
            from,
            ..
        } = measurement;
        let result = measurement
            .candidate
            .and_then(|candidate| match self.colludes(juror) {
                true => Some(self.invented(candidate, share_bps)),
                false => self.observed(candidate, &measurement),
            });
        self.note(8, juror, result.map_or(0, |result| result.up_bps));
        if let (Some(candidate), Some(result)) = (measurement.candidate, &result) {
            self.casts.push(Cast {
                from,
                at: self.clock,
                juror,
                candidate,
                share_bps,
                goodput_bps: result.up_bps.min(result.down_bps).min(share_bps),
            });
        }
        self.tell(juror, Input::Measured { token, result });
    }

    /// A conspirator's ballot: all for its own, nothing for others.
    fn invented(&self, candidate: PeerId, share_bps: u64) -> Measured {
        let bps = match self.colludes(candidate) {
            true => share_bps,
            false => 0,
        };
        Measured {
            up_bps: bps,
            down_bps: bps,
            round_trip: Duration::from_millis(20),
            loss_ppm: 0,
        }
    }

    fn observed(&mut self, candidate: PeerId, measurement: &Measurement) -> Option<Measured> {
        let (juror, from) = (measurement.juror, measurement.from);
        let until = from + measurement.lasts;
        let share = measurement.share_bps;
        let voter = self.peers[juror as usize].node;
        let peer = &self.peers[candidate as usize];
        if !peer.online() || self.is_cut(juror, candidate) {
            return None;
        }
        let cold = peer.cold.as_ref()?;
        if cold.permits.get(&voter).is_none_or(|end| *end < from) {
            return None;
        }
        let overlaps = |(_, start, end): &&(PeerId, u64, u64)| *start < until && *end > from;
        let together = cold.measured.iter().filter(overlaps).count().max(1) as u64;
        let (line, own) = (&peer.spec, &self.peers[juror as usize].spec);
        // What both sides' other measurements leave of the juror's line is all
        // of it: a juror measures one candidate at a time.
        let up_bps = share.min(line.up_bps / together).min(own.down_bps);
        let down_bps = share.min(line.down_bps / together).min(own.up_bps);
        let loss_ppm = self.config.net.loss_ppm + line.loss_ppm + own.loss_ppm;
        // Loss costs goodput about as much as it costs packets.
        let kept =
            |bps: u64| bps - bps.saturating_mul(u64::from(loss_ppm.min(1_000_000))) / 1_000_000;
        let bytes = (up_bps + down_bps) / 8 * (measurement.lasts / 1000) / 1000;
        self.measured_bytes += bytes;
        let round_trip = self.one_way(juror, candidate) + self.one_way(candidate, juror);
        Some(Measured {
            up_bps: kept(up_bps),
            down_bps: kept(down_bps),
            round_trip: Duration::from_micros(round_trip),
            loss_ppm,
        })
    }
}
