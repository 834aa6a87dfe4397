//! Token buckets (governor) and waiting for them.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::time::{Sleep, sleep};
use tonic::Status;

use super::limits::{Exceeded, RateLimit, RatePer, RateUnit};

/// One bucket and its rule.
#[derive(Clone)]
pub(super) struct Bucket {
    rule: RateLimit,
    limiter: Arc<DefaultDirectRateLimiter>,
}

impl Bucket {
    fn new(rule: RateLimit) -> Self {
        let quota = Quota::per_second(rule.per_second).allow_burst(rule.burst);
        Self { rule, limiter: Arc::new(RateLimiter::direct(quota)) }
    }
}

/// The buckets of one connection.
pub(super) fn for_connection(rules: &[RateLimit]) -> Vec<Bucket> {
    let rules = rules.iter().filter(|rule| rule.per == RatePer::Connection);
    rules.copied().map(Bucket::new).collect()
}

/// The buckets of all methods. Names are interned and bounded by the registry,
/// so this map is bounded as well.
#[derive(Default)]
pub(super) struct MethodBuckets {
    by_method: Mutex<HashMap<Arc<str>, Vec<Bucket>>>,
}

impl MethodBuckets {
    pub(super) fn get(&self, method: &Arc<str>, rules: &[RateLimit]) -> Vec<Bucket> {
        if !rules.iter().any(|rule| rule.per == RatePer::Method) {
            return Vec::new();
        }
        let mut map = self.by_method.lock().unwrap_or_else(PoisonError::into_inner);
        map.entry(method.clone())
            .or_insert_with(|| {
                let rules = rules.iter().filter(|rule| rule.per == RatePer::Method);
                rules.copied().map(Bucket::new).collect()
            })
            .clone()
    }
}

/// Takes tokens for one call, waiting where the rule says so.
#[derive(Default)]
pub(super) struct Throttle {
    buckets: Vec<Bucket>,
    /// Tokens still to be taken from every bucket.
    owed: u64,
    /// Of the token at hand, buckets that were paid already.
    paid: usize,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl Throttle {
    /// `None` if no bucket counts this unit. Boxed, since most calls have none.
    pub(super) fn new<'a>(
        unit: RateUnit,
        buckets: impl Iterator<Item = &'a Bucket>,
    ) -> Option<Box<Self>> {
        let buckets: Vec<_> = buckets.filter(|bucket| bucket.rule.unit == unit).cloned().collect();
        (!buckets.is_empty()).then(|| Box::new(Self { buckets, ..Self::default() }))
    }

    /// So many tokens more are owed.
    pub(super) fn owe(&mut self, tokens: u64) {
        self.owed += tokens;
    }

    /// Pays what is owed.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` where a bucket that rejects is empty.
    pub(super) fn poll_pay(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        loop {
            if let Some(sleep) = &mut self.waiting {
                ready!(sleep.as_mut().poll(cx));
                self.waiting = None;
            }
            if self.owed == 0 {
                return Poll::Ready(Ok(()));
            }
            let Some(bucket) = self.buckets.get(self.paid) else {
                self.paid = 0;
                self.owed -= 1;
                continue;
            };
            match bucket.limiter.check() {
                Ok(()) => self.paid += 1,
                Err(until) if bucket.rule.exceeded == Exceeded::Delay => {
                    let wait = until.wait_time_from(DefaultClock::default().now());
                    self.waiting = Some(Box::pin(sleep(wait)));
                }
                Err(_) => return Poll::Ready(Err(exhausted(&bucket.rule))),
            }
        }
    }
}

fn exhausted(rule: &RateLimit) -> Status {
    let unit = match rule.unit {
        RateUnit::Streams => "streams",
        RateUnit::Messages => "messages",
    };
    let per = match rule.per {
        RatePer::Connection => "connection",
        RatePer::Method => "method",
    };
    Status::resource_exhausted(format!(
        "more than {} {unit} a second on this {per} (burst {})",
        rule.per_second, rule.burst
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;
    use std::task::Waker;

    fn rule(exceeded: Exceeded) -> RateLimit {
        RateLimit {
            unit: RateUnit::Messages,
            per: RatePer::Method,
            per_second: NonZeroU32::new(10).unwrap(),
            burst: NonZeroU32::new(3).unwrap(),
            exceeded,
        }
    }

    #[tokio::test]
    async fn a_burst_passes_and_the_next_waits_or_fails() {
        let mut cx = Context::from_waker(Waker::noop());
        for exceeded in [Exceeded::Reject, Exceeded::Delay] {
            let all = MethodBuckets::default();
            let buckets = all.get(&"/a/b".into(), &[rule(exceeded)]);
            assert!(Throttle::new(RateUnit::Streams, buckets.iter()).is_none());
            let mut throttle = Throttle::new(RateUnit::Messages, buckets.iter()).unwrap();
            throttle.owe(3);
            assert!(matches!(throttle.poll_pay(&mut cx), Poll::Ready(Ok(()))));
            // The same method shares the bucket, another does not.
            let shared = all.get(&"/a/b".into(), &[rule(exceeded)]);
            let mut second = Throttle::new(RateUnit::Messages, shared.iter()).unwrap();
            second.owe(1);
            match (exceeded, second.poll_pay(&mut cx)) {
                (Exceeded::Reject, Poll::Ready(Err(status))) => {
                    assert_eq!(status.code(), tonic::Code::ResourceExhausted);
                }
                (Exceeded::Delay, Poll::Pending) => {
                    std::future::poll_fn(|cx| second.poll_pay(cx)).await.unwrap();
                }
                (_, other) => panic!("{exceeded:?}: {other:?}"),
            }
            let other = all.get(&"/a/c".into(), &[rule(exceeded)]);
            let mut third = Throttle::new(RateUnit::Messages, other.iter()).unwrap();
            third.owe(1);
            assert!(matches!(third.poll_pay(&mut cx), Poll::Ready(Ok(()))));
        }
    }
}
