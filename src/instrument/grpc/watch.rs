//! Watches one call's deadline and timeouts with one timer.
//!
//! A message does not touch the timer. When it fires, the watch looks at the
//! cell, which knows since when each side waits, and sleeps for what is left.

use std::future::Future;
use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;

use super::call::Call;
use super::limits::Limits;
use crate::model::{BodyState, Side};
use crate::registry::clock;
use crate::registry::streams::Direction;

/// Ends its call in time, and learns when somebody else has ordered its end.
/// It does not hold the call: whoever has the one has the other.
pub(super) struct Watch {
    timer: Option<Pin<Box<Timer>>>,
}

pin_project! {
    struct Timer {
        #[pin]
        sleep: Sleep,
        rules: Rules,
    }
}

struct Rules {
    deadline: Option<(Instant, Duration)>,
    recv: Option<Duration>,
    send: Option<Duration>,
}

/// A timer that finds a wait a hair short of its limit must not spin.
const SHORTEST: Duration = Duration::from_millis(1);

impl Watch {
    pub(super) fn new(call: &Call, limits: &Limits) -> Self {
        let now = Instant::now();
        let asked = call.cell().timeout().filter(|_| limits.enforce_deadline);
        let deadline = asked
            .or(limits.default_deadline)
            .and_then(|timeout| Some((now.checked_add(timeout)?, timeout)));
        let rules = Rules { deadline, recv: limits.recv_timeout, send: limits.send_timeout };
        // No timer without a rule: most calls then cost no allocation, and the
        // runtime need not have timers at all.
        let timer = rules
            .soonest(now)
            .map(|soonest| Box::pin(Timer { sleep: sleep_until(soonest), rules }));
        Self { timer }
    }

    /// Whether there is a limit to watch.
    pub(super) fn has_limits(&self) -> bool {
        self.timer.is_some()
    }

    /// True once the call is to end; until then wakes the task when it is.
    pub(super) fn poll_stop(&mut self, call: &Call, cx: &mut Context<'_>) -> bool {
        call.wake_ender_by(cx.waker());
        self.poll_limits(call, cx)
    }

    /// The same for a task that the call knows already.
    pub(super) fn poll_limits(&mut self, call: &Call, cx: &mut Context<'_>) -> bool {
        if call.stopped().is_some() {
            return true;
        }
        let Some(timer) = &mut self.timer else { return false };
        let mut timer = timer.as_mut().project();
        while timer.sleep.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            match timer.rules.look(call, now) {
                Ok(next) => timer.sleep.as_mut().reset(next.max(now + SHORTEST)),
                Err(status) => {
                    call.stop(status);
                    return true;
                }
            }
        }
        false
    }
}

impl Rules {
    /// The first instant at which any limit can be hit, if nothing moves.
    fn soonest(&self, now: Instant) -> Option<Instant> {
        [self.recv, self.send]
            .into_iter()
            .flatten()
            .filter_map(|timeout| now.checked_add(timeout))
            .chain(self.deadline.map(|(at, _)| at))
            .min()
    }

    /// Either a limit is hit, or the instant to look again.
    fn look(&self, call: &Call, now: Instant) -> Result<Instant, Status> {
        if let Some((at, timeout)) = self.deadline
            && at <= now
        {
            return Err(Status::deadline_exceeded(format!(
                "the deadline of {timeout:?} passed before the stream ended"
            )));
        }
        let peer = match call.cell().side() {
            Side::Server => "client",
            Side::Client => "server",
        };
        let ticks = clock::now();
        let mut next = self.soonest(now).unwrap_or(now + Duration::from_secs(3600));
        let waits = [
            (self.recv, &call.cell().received, BodyState::Pending, "sent", "recv"),
            (self.send, &call.cell().sent, BodyState::Taken, "taken", "send"),
        ];
        for (timeout, direction, state, verb, which) in waits {
            let Some((timeout, waited)) = timeout.zip(waited(direction, state, ticks)) else {
                continue;
            };
            let Some(left) = timeout.checked_sub(waited).filter(|left| !left.is_zero()) else {
                return Err(Status::deadline_exceeded(format!(
                    "{which} timeout: the {peer} has not {verb} a message for {timeout:?}"
                )));
            };
            next = next.min(now + left);
        }
        Ok(next)
    }
}

/// For how long a direction has been in a state; `None` if it is in another.
fn waited(direction: &Direction, state: BodyState, now: u64) -> Option<Duration> {
    let (is, since) = direction.state();
    (is == state).then(|| Duration::from_nanos(clock::delta_ns(since, now)))
}
