//! What elections go by where the operator wants it otherwise than built in.

use canopy_proto::wire;

use crate::election::criteria::CriteriaConfig;
use crate::election::law::LawConfig;

/// Most leaves a super-node that a policy may ask for.
const MAX_RATIO: u32 = 100_000;
/// Most super-nodes on one address or in one network that a policy may allow.
const MAX_CAP: u32 = 10_000;

/// Why a policy cannot be obeyed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A number is out of its range.
    #[error("the policy's {what} is {value}; give {least} to {most}")]
    Range {
        /// Which.
        what: &'static str,
        /// What it says.
        value: u32,
        /// Smallest that is allowed.
        least: u32,
        /// Largest that is allowed.
        most: u32,
    },
    /// The number of super-nodes would never come to rest.
    #[error(
        "the policy shrinks below {shrink} and grows above {grow} thousandths; the first has to be smaller by 50 at least"
    )]
    Bands {
        /// Shrink below this.
        shrink: u64,
        /// Grow above this.
        grow: u64,
    },
}

/// The numbers that an operator may set; absent ones are as built in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Leaves a super-node.
    pub ratio: Option<u32>,
    /// How far the ratio may stray, thousandths.
    pub band_milli: Option<u32>,
    /// Grow above this weighted utilisation, thousandths.
    pub grow_milli: Option<u32>,
    /// Shrink below this weighted utilisation, thousandths.
    pub shrink_milli: Option<u32>,
    /// What the rest may carry after the loss of the largest failure domain,
    /// thousandths.
    pub survive_milli: Option<u32>,
    /// Super-nodes on one address.
    pub per_address: Option<u32>,
    /// Super-nodes in one network.
    pub per_prefix: Option<u32>,
}

impl Policy {
    /// Whether the law could be obeyed.
    ///
    /// # Errors
    /// A number is out of range, or two contradict each other.
    pub fn check(&self) -> Result<(), PolicyError> {
        let ranges = [
            ("ratio", self.ratio, 1, MAX_RATIO),
            ("band", self.band_milli, 0, 900),
            ("growth limit", self.grow_milli, 50, 1000),
            ("shrink limit", self.shrink_milli, 0, 950),
            ("survival limit", self.survive_milli, 50, 1000),
            ("cap per address", self.per_address, 1, MAX_CAP),
            ("cap per network", self.per_prefix, 1, MAX_CAP),
        ];
        for (what, value, least, most) in ranges {
            if let Some(value) = value.filter(|value| !(least..=most).contains(value)) {
                return Err(PolicyError::Range {
                    what,
                    value,
                    least,
                    most,
                });
            }
        }
        let law = self.law(LawConfig::default());
        match law.shrink_milli + 50 > law.grow_milli {
            true => Err(PolicyError::Bands {
                shrink: law.shrink_milli,
                grow: law.grow_milli,
            }),
            false => Ok(()),
        }
    }

    /// The law with what this sets.
    pub fn law(&self, built_in: LawConfig) -> LawConfig {
        let over = |set: Option<u32>, built_in| set.map_or(built_in, u64::from);
        LawConfig {
            ratio: self.ratio.map_or(built_in.ratio, |ratio| ratio as usize),
            band_milli: over(self.band_milli, built_in.band_milli),
            grow_milli: over(self.grow_milli, built_in.grow_milli),
            shrink_milli: over(self.shrink_milli, built_in.shrink_milli),
            survive_milli: over(self.survive_milli, built_in.survive_milli),
            ..built_in
        }
    }

    /// The criteria of candidates with what this sets.
    pub fn criteria(&self, built_in: CriteriaConfig) -> CriteriaConfig {
        let over = |set: Option<u32>, built_in| set.map_or(built_in, |cap| cap as usize);
        CriteriaConfig {
            per_address: over(self.per_address, built_in.per_address),
            per_prefix: over(self.per_prefix, built_in.per_prefix),
            ..built_in
        }
    }

    pub(super) fn to_wire(self) -> wire::Policy {
        wire::Policy {
            ratio: self.ratio,
            band_milli: self.band_milli,
            grow_milli: self.grow_milli,
            shrink_milli: self.shrink_milli,
            survive_milli: self.survive_milli,
            per_address: self.per_address,
            per_prefix: self.per_prefix,
        }
    }

    pub(super) fn of_wire(wire: &wire::Policy) -> Result<Self, PolicyError> {
        let policy = Self {
            ratio: wire.ratio,
            band_milli: wire.band_milli,
            grow_milli: wire.grow_milli,
            shrink_milli: wire.shrink_milli,
            survive_milli: wire.survive_milli,
            per_address: wire.per_address,
            per_prefix: wire.per_prefix,
        };
        policy.check()?;
        Ok(policy)
    }
}
