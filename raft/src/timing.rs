//! Timing: heartbeat and election timeouts, as one value whose parts fit together.
//!
//! Promise: with a [`Timing`] that passed [`Timing::check`], one late heartbeat never starts an
//! election, and a call is given up before the election that it could delay. Refused: durations
//! that contradict each other; the error names them.

use std::time::Duration;

/// The durations of an election. A follower starts one after `election_max` plus a random duration
/// between `election_min` and `election_max` without an append from its leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// The time between two heartbeats of a leader.
    pub heartbeat: Duration,
    /// The shortest random wait before an election.
    pub election_min: Duration,
    /// The longest random wait before an election; also the leader's lease.
    pub election_max: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(100),
            election_min: Duration::from_millis(400),
            election_max: Duration::from_millis(600),
        }
    }
}

/// Durations that do not fit together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TimingError {
    /// Too short to be kept by a busy machine.
    #[error("a heartbeat every {heartbeat:?} is too often: at least 10 ms")]
    HeartbeatTooShort {
        /// As given.
        heartbeat: Duration,
    },
    /// A single late heartbeat would start an election.
    #[error(
        "an election after {election_min:?} is too soon for a heartbeat of {heartbeat:?}: at least three times as long"
    )]
    ElectionTooSoon {
        /// As given.
        heartbeat: Duration,
        /// As given.
        election_min: Duration,
    },
    /// The range is too small: two candidates would split the votes again and again.
    #[error(
        "the election range {election_min:?} to {election_max:?} is too narrow: the end must be at least 1.25 times the start"
    )]
    RangeTooNarrow {
        /// As given.
        election_min: Duration,
        /// As given.
        election_max: Duration,
    },
}

impl Timing {
    /// Checks the parts against each other.
    ///
    /// # Errors
    /// [`TimingError`] names the parts that contradict each other.
    pub fn check(&self) -> Result<(), TimingError> {
        let Self { heartbeat, election_min, election_max } = *self;
        if heartbeat < Duration::from_millis(10) {
            return Err(TimingError::HeartbeatTooShort { heartbeat });
        }
        if election_min < heartbeat * 3 {
            return Err(TimingError::ElectionTooSoon { heartbeat, election_min });
        }
        if election_max < election_min + election_min / 4 {
            return Err(TimingError::RangeTooNarrow { election_min, election_max });
        }
        Ok(())
    }

    /// The timeout of a call between replicas: shorter than the election that it could delay.
    pub(crate) fn call_timeout(&self) -> Duration {
        self.election_min * 3 / 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inconsistent_timing_is_rejected_by_name() {
        let ms = Duration::from_millis;
        let timing = |heartbeat, min, max| Timing {
            heartbeat: ms(heartbeat),
            election_min: ms(min),
            election_max: ms(max),
        };
        assert_eq!(Timing::default().check(), Ok(()));
        assert!(matches!(timing(1, 400, 600).check(), Err(TimingError::HeartbeatTooShort { .. })));
        assert!(matches!(timing(200, 400, 600).check(), Err(TimingError::ElectionTooSoon { .. })));
        assert!(matches!(timing(100, 400, 410).check(), Err(TimingError::RangeTooNarrow { .. })));
    }
}
