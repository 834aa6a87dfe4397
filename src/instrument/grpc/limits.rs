//! The remedies against streams that hang or flood: their settings.

use std::num::NonZeroU32;
use std::time::Duration;

/// What is enforced on every stream. The default enforces the deadline that
/// the caller asked for and nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Enforce `grpc-timeout` over the whole stream. tonic's own deadline
    /// stops at the response headers. Default: true.
    pub enforce_deadline: bool,
    /// The deadline of calls that ask for none. Default: none.
    pub default_deadline: Option<Duration>,
    /// The longest wait for the next message (or the end) from the peer, while
    /// our side waits for it. Default: none, since a stream may be idle by design.
    pub recv_timeout: Option<Duration>,
    /// The longest wait for the transport to take the next message, which it
    /// does not while the peer's window is closed. Default: none.
    pub send_timeout: Option<Duration>,
    /// Token buckets; a call must pass all of them. Default: none.
    pub rates: Vec<RateLimit>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            enforce_deadline: true,
            default_deadline: None,
            recv_timeout: None,
            send_timeout: None,
            rates: Vec::new(),
        }
    }
}

impl Limits {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`enforce_deadline`](Self::enforce_deadline).
    pub fn enforce_deadline(mut self, on: bool) -> Self {
        self.enforce_deadline = on;
        self
    }

    /// Sets [`default_deadline`](Self::default_deadline).
    pub fn default_deadline(mut self, deadline: Duration) -> Self {
        self.default_deadline = Some(deadline);
        self
    }

    /// Sets [`recv_timeout`](Self::recv_timeout).
    pub fn recv_timeout(mut self, timeout: Duration) -> Self {
        self.recv_timeout = Some(timeout);
        self
    }

    /// Sets [`send_timeout`](Self::send_timeout).
    pub fn send_timeout(mut self, timeout: Duration) -> Self {
        self.send_timeout = Some(timeout);
        self
    }

    /// Adds a token bucket.
    pub fn rate(mut self, rate: RateLimit) -> Self {
        self.rates.push(rate);
        self
    }
}

/// A token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// What costs a token.
    pub unit: RateUnit,
    /// Who shares the bucket.
    pub per: RatePer,
    /// Tokens that come back in a second.
    pub per_second: NonZeroU32,
    /// Tokens that a rested bucket holds.
    pub burst: NonZeroU32,
    /// What happens to those who find it empty.
    pub exceeded: Exceeded,
}

/// What costs a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateUnit {
    /// A new stream (call).
    Streams,
    /// A message from the peer.
    Messages,
}

/// Who shares a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RatePer {
    /// All streams of a connection. Only where the accept loop is ours
    /// (`Profiler::serve`): a layer sees no connections, and such a
    /// bucket does nothing there.
    Connection,
    /// All streams of a method, whoever calls it.
    Method,
}

/// What happens when a bucket is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exceeded {
    /// The stream ends with `RESOURCE_EXHAUSTED`.
    Reject,
    /// It waits for its token. A stream whose messages wait is not read, so
    /// HTTP/2 flow control slows its sender down.
    Delay,
}
