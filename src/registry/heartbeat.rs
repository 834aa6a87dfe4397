//! One connection's application heartbeat, as its two ends write it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::clock;
use crate::model::Heartbeat;

/// Beats of a connection. Times are in ticks, 0 is never.
///
/// Who asks notes each beat and its answer. Who answers notes what comes: the
/// next beat is due an interval later, and from then on it is missing.
#[derive(Debug, Default)]
pub struct Beats {
    /// 0 while none runs.
    interval_ns: AtomicU64,
    /// We answer; else we ask.
    answers: AtomicBool,
    /// When the beat without an answer was sent.
    asked: AtomicU64,
    /// When an answer, or a beat of the peer's, last came.
    came: AtomicU64,
    rtt_ns: AtomicU64,
}

impl Beats {
    /// We have sent a beat; the next follows after `interval`.
    pub fn asked(&self, interval: Duration) {
        self.runs(interval, false);
        self.asked.store(clock::now(), Relaxed);
    }

    /// Its answer has come.
    pub fn answered(&self) {
        let now = clock::now();
        let asked = self.asked.swap(0, Relaxed);
        if asked != 0 {
            self.rtt_ns.store(clock::delta_ns(asked, now).max(1), Relaxed);
            self.came.store(now, Relaxed);
        }
    }

    /// The peer has sent a beat; its next is due after `interval`.
    pub fn came(&self, interval: Duration) {
        self.runs(interval, true);
        self.came.store(clock::now(), Relaxed);
    }

    /// The heartbeat has ended, for whatever reason.
    pub fn ended(&self) {
        self.interval_ns.store(0, Relaxed);
        self.asked.store(0, Relaxed);
    }

    fn runs(&self, interval: Duration, answers: bool) {
        let ns = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX).max(1);
        self.answers.store(answers, Relaxed);
        self.interval_ns.store(ns, Relaxed);
    }

    /// Where it stands; `None` while none runs.
    pub fn to_model(&self, now: u64) -> Option<Heartbeat> {
        let interval_ns = self.interval_ns.load(Relaxed);
        if interval_ns == 0 {
            return None;
        }
        let ago = |ticks: &AtomicU64| {
            let ticks = ticks.load(Relaxed);
            (ticks != 0).then(|| clock::delta_ns(ticks, now))
        };
        let answered_ago_ns = ago(&self.came);
        let late = || answered_ago_ns?.checked_sub(interval_ns).filter(|late| *late > 0);
        Some(Heartbeat {
            interval_ns,
            outstanding_ns: if self.answers.load(Relaxed) { late() } else { ago(&self.asked) },
            rtt_ns: Some(self.rtt_ns.load(Relaxed)).filter(|rtt| *rtt > 0),
            answered_ago_ns,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// `ms` milliseconds from now, in ticks.
    fn later(ms: u64) -> u64 {
        let from = clock::now();
        let mut to = from + 1;
        while clock::delta_ns(from, to) < ms * 1_000_000 {
            to += (to - from).max(1);
        }
        to
    }

    #[test]
    fn who_asks_misses_the_answer_at_once() {
        let beats = Beats::default();
        assert_eq!(beats.to_model(clock::now()), None);
        beats.asked(MS * 100);
        let beat = beats.to_model(later(50)).unwrap();
        assert!(beat.outstanding_ns.unwrap() >= 50_000_000 && beat.answered_ago_ns.is_none());
        beats.answered();
        let beat = beats.to_model(later(500)).unwrap();
        assert!(beat.outstanding_ns.is_none() && beat.rtt_ns.is_some());
        assert!(beat.answered_ago_ns.unwrap() >= 500_000_000);
        // An answer that nobody asked for changes nothing.
        beats.answered();
        assert_eq!(beats.to_model(later(0)).unwrap().rtt_ns, beat.rtt_ns);
        beats.ended();
        assert_eq!(beats.to_model(clock::now()), None);
    }

    #[test]
    fn who_answers_misses_the_next_beat_once_it_is_due() {
        let beats = Beats::default();
        beats.came(MS * 10_000);
        let beat = beats.to_model(later(50)).unwrap();
        assert_eq!((beat.outstanding_ns, beat.interval_ns), (None, 10_000_000_000));
        beats.came(MS * 20);
        let beat = beats.to_model(later(100)).unwrap();
        assert!(beat.outstanding_ns.unwrap() >= 80_000_000, "{beat:?}");
    }
}
