//! What the traffic measured.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tonic::{Code, Status};

use super::{CallResult, Ending};

/// gRPC has the codes 0 to 16.
const CODES: usize = 17;

/// Counters shared by all callers of a run.
#[derive(Debug, Default)]
pub struct Stats {
    started: AtomicU64,
    complete: AtomicU64,
    abandoned: AtomicU64,
    failed: [AtomicU64; CODES],
    sent: AtomicU64,
    received: AtomicU64,
    last_error: Mutex<Option<String>>,
    /// Of unary calls and of messages that are answered.
    pub latencies: Latencies,
}

impl Stats {
    pub(super) fn begin(&self) {
        self.started.fetch_add(1, Relaxed);
    }

    pub(super) fn end(&self, result: CallResult) {
        match result {
            Ok(Ending::Complete) => self.complete.fetch_add(1, Relaxed),
            Ok(Ending::Abandoned) => self.abandoned.fetch_add(1, Relaxed),
            Err(status) => {
                *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some(describe(&status));
                self.failed[code_index(status.code())].fetch_add(1, Relaxed)
            }
        };
    }

    pub(super) fn sent(&self, messages: u64) {
        self.sent.fetch_add(messages, Relaxed);
    }

    pub(super) fn received(&self, messages: u64) {
        self.received.fetch_add(messages, Relaxed);
    }

    /// Calls begun.
    pub fn calls_started(&self) -> u64 {
        self.started.load(Relaxed)
    }

    /// Calls that ended well.
    pub fn calls_complete(&self) -> u64 {
        self.complete.load(Relaxed)
    }

    /// Calls that the client left.
    pub fn calls_abandoned(&self) -> u64 {
        self.abandoned.load(Relaxed)
    }

    /// Calls that failed, by code.
    pub fn calls_failed(&self) -> Vec<(Code, u64)> {
        (0..)
            .map(Code::from_i32)
            .zip(self.failed.iter().map(|count| count.load(Relaxed)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    /// Messages sent and received.
    pub fn messages(&self) -> (u64, u64) {
        (self.sent.load(Relaxed), self.received.load(Relaxed))
    }

    /// The last failure, in words.
    pub fn last_error(&self) -> Option<String> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn code_index(code: Code) -> usize {
    usize::try_from(i32::from(code)).unwrap_or(0).min(CODES - 1)
}

/// tonic's own words for transport errors hide the cause in the source chain.
fn describe(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut next = std::error::Error::source(status);
    while let Some(error) = next {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        next = error.source();
    }
    text
}

/// Sixteen steps for each doubling: a quantile is right to about 6 %.
const STEPS_LOG2: u32 = 4;
const STEPS: usize = 1 << STEPS_LOG2;
const BUCKETS: usize = (64 - STEPS_LOG2 as usize + 1) * STEPS;

/// A histogram of durations.
#[derive(Debug)]
pub struct Latencies(Box<[AtomicU64; BUCKETS]>);

impl Default for Latencies {
    fn default() -> Self {
        Self(Box::new([const { AtomicU64::new(0) }; BUCKETS]))
    }
}

impl Latencies {
    pub(super) fn record(&self, latency: Duration) {
        let ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.0[bucket(ns)].fetch_add(1, Relaxed);
    }

    /// How many were recorded.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|count| count.load(Relaxed)).sum()
    }

    /// The duration that a share `q` (0 to 1) stays within, in nanoseconds.
    pub fn quantile_ns(&self, q: f64) -> Option<u64> {
        let counts: Vec<u64> = self.0.iter().map(|count| count.load(Relaxed)).collect();
        let total: u64 = counts.iter().sum();
        let rank = (total as f64 * q).ceil().max(1.0) as u64;
        let mut seen = 0;
        counts.iter().enumerate().find_map(|(bucket, count)| {
            seen += count;
            (seen >= rank).then(|| upper_bound(bucket))
        })
    }
}

/// Small values have a bucket each; above, the top bits choose.
fn bucket(ns: u64) -> usize {
    if ns < STEPS as u64 {
        return ns as usize;
    }
    let shift = ns.ilog2() - STEPS_LOG2;
    (shift as usize + 1) * STEPS + (ns >> shift) as usize - STEPS
}

/// The largest value of a bucket.
fn upper_bound(bucket: usize) -> u64 {
    if bucket < STEPS {
        return bucket as u64;
    }
    let shift = bucket / STEPS - 1;
    let lower = ((bucket % STEPS + STEPS) as u64) << shift;
    lower + ((1_u64 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_bucket_holds_its_values(ns in any::<u64>()) {
            let bucket = bucket(ns);
            let upper = upper_bound(bucket);
            prop_assert!(upper >= ns);
            prop_assert!(bucket == 0 || upper_bound(bucket - 1) < ns);
            prop_assert!(upper - ns <= ns / STEPS as u64);
        }
    }

    #[test]
    fn quantiles() {
        let latencies = Latencies::default();
        assert_eq!(latencies.quantile_ns(0.5), None);
        for ms in 1..=100 {
            latencies.record(Duration::from_millis(ms));
        }
        let near = |q, ms: u64| {
            let got = latencies.quantile_ns(q).unwrap() as f64 / 1e6;
            assert!((got / ms as f64 - 1.0).abs() < 0.07, "{q}: {got} ms, not {ms}");
        };
        near(0.5, 50);
        near(0.99, 99);
        near(1.0, 100);
    }

    #[test]
    fn every_code_has_its_counter() {
        let stats = Stats::default();
        for code in 1..CODES as i32 {
            stats.end(Err(Status::new(Code::from_i32(code), "x")));
        }
        let failed = stats.calls_failed();
        assert_eq!(failed.len(), CODES - 1);
        assert!(failed.iter().all(|(_, count)| *count == 1));
        assert_eq!(failed[0].0, Code::Cancelled);
    }
}
