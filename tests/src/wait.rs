//! Wait: waits until something is true. The timeout is a safety net, never a measurement: it is far
//! beyond what any machine needs, and says what was waited for.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

/// How long anything may take before a story is given up.
pub const TIMEOUT: Duration = Duration::from_secs(90);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// What a look found.
#[derive(Debug)]
pub enum WaitState<T> {
    /// It is so.
    Done(T),
    /// Not yet; in words, what is there instead.
    NotYet(String),
}

/// Looks again and again until it is so.
///
/// # Errors
/// After [`TIMEOUT`], with what was waited for and what was there instead.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> WaitState<T>) -> Result<T> {
    let end = Instant::now() + TIMEOUT;
    loop {
        match look().await {
            WaitState::Done(value) => return Ok(value),
            WaitState::NotYet(instead) if Instant::now() >= end => {
                bail!("waited {TIMEOUT:?} in vain until {what}; last seen: {instead}")
            }
            WaitState::NotYet(_) => sleep(PAUSE).await,
        }
    }
}

impl<T> WaitState<T> {
    /// `Done` if the condition holds.
    pub fn when(holds: bool, value: T, instead: impl FnOnce() -> String) -> Self {
        if holds { Self::Done(value) } else { Self::NotYet(instead()) }
    }
}
