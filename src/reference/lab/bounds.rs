//! The upper bound that every fault has.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tonic::Response;

use crate::pb::lab::StuckReply;
use crate::reference::Drain;

const DEFAULT: Duration = Duration::from_secs(10);
const MAX: Duration = Duration::from_secs(600);

/// A duration from a request: 0 means `default`, and `max` is never exceeded.
pub fn millis(ms: u64, default: Duration, max: Duration) -> Duration {
    if ms == 0 { default } else { Duration::from_millis(ms).min(max) }
}

/// Why a fault ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndedBy {
    /// Its time or its bytes were up.
    Bound,
    /// The server shuts down.
    Drain,
    /// What it waited for came.
    Released,
}

/// How long a fault has lasted and may last.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    since: Instant,
    until: Instant,
}

impl Held {
    /// From now, as long as the request says within the bound.
    pub fn new(hold_ms: u64) -> Self {
        let since = Instant::now();
        Self { since, until: since + millis(hold_ms, DEFAULT, MAX) }
    }

    /// What is left of it.
    pub fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// Resolves when the time is up or the server drains, whatever comes first.
    pub async fn over(&self, drain: &Drain) -> EndedBy {
        tokio::select! {
            () = sleep_until(self.until) => EndedBy::Bound,
            () = drain.begun() => EndedBy::Drain,
        }
    }

    /// The reply that says how it went.
    pub fn reply(&self, ended_by: EndedBy, bytes: u64) -> Response<StuckReply> {
        Response::new(StuckReply {
            held_ms: self.since.elapsed().as_millis().try_into().unwrap_or(u64::MAX),
            bytes,
            ended_by: match ended_by {
                EndedBy::Bound => "bound",
                EndedBy::Drain => "drain",
                EndedBy::Released => "released",
            }
            .into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_cannot_exceed_the_bound() {
        for (ms, got) in [(0, DEFAULT), (1, Duration::from_millis(1)), (u64::MAX, MAX)] {
            assert_eq!(millis(ms, DEFAULT, MAX), got);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn time_or_drain_ends_it() {
        let drain = Drain::default();
        assert_eq!(Held::new(50).over(&drain).await, EndedBy::Bound);
        let held = Held::new(600_000);
        drain.begin();
        assert_eq!(held.over(&drain).await, EndedBy::Drain);
    }
}
