//! One stream's numbers.
//!
//! Each direction has one writer (the task that polls that body), so a message
//! costs five relaxed stores, and a clock read if it is sent: what comes has the
//! time of the poll that takes it. No read-modify-write. What the
//! numbers mean together is worked out when somebody asks, in `state.rs`.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::methods::Method;
use crate::model::{BodyState, Side, StreamEventKind, StreamId, StreamStatus, TaskId, Traffic};
use crate::registry::clock;
use crate::registry::connections::ConnectionCell;
use crate::registry::endpoints::EndpointCell;
use crate::registry::spans::Seed;
use crate::registry::wire::Wire;
use crate::registry::wire::join::Numbered;
use crate::registry::wire::ring::{Log, Ring};

/// The state in the low bits of a [`Direction`]'s word.
fn body_state(bits: u64) -> BodyState {
    match bits & 7 {
        0 => BodyState::NeverPolled,
        1 => BodyState::Pending,
        2 => BodyState::Taken,
        3 => BodyState::End,
        4 => BodyState::Error,
        _ => BodyState::Dropped,
    }
}

/// One direction of a stream.
#[derive(Debug)]
#[repr(C)]
pub struct Direction {
    /// Ticks of the last change, shifted left by three, and the [`BodyState`]:
    /// one word, so that a reader never pairs a state with another's time.
    state: AtomicU64,
    messages: AtomicU64,
    bytes: AtomicU64,
    last: AtomicU64,
    pub(super) events: Ring,
}

impl Direction {
    fn new(now: u64) -> Self {
        Self {
            state: AtomicU64::new(now << 3),
            messages: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            last: AtomicU64::new(0),
            events: Ring::default(),
        }
    }

    /// State, and the ticks since when.
    pub fn state(&self) -> (BodyState, u64) {
        let word = self.state.load(Relaxed);
        (body_state(word), word >> 3)
    }

    fn set(&self, state: BodyState, now: u64) {
        self.state.store((now << 3) | state as u64, Relaxed);
    }

    /// Somebody asked and must wait. Reads the clock only at the first asking.
    #[inline]
    pub fn pending(&self) {
        if self.state().0 != BodyState::Pending {
            self.set(BodyState::Pending, clock::in_poll());
        }
    }

    /// Bytes were handed over, and with them the ends of so many messages;
    /// `now` is in ticks.
    #[inline]
    pub fn data(&self, bytes: u64, messages: u64, now: u64) {
        self.bytes.store(self.bytes.load(Relaxed) + bytes, Relaxed);
        if messages != 0 {
            self.messages.store(self.messages.load(Relaxed) + messages, Relaxed);
        }
        self.last.store(now, Relaxed);
        self.set(BodyState::Taken, now);
    }

    /// It came to one of its ends; the first counts.
    pub fn finish(&self, state: BodyState) {
        if !self.state().0.is_final() {
            self.set(state, clock::now());
        }
    }

    /// Whole messages so far.
    pub fn messages(&self) -> u64 {
        self.messages.load(Relaxed)
    }

    /// Ticks when bytes last passed; 0 before the first.
    pub fn last(&self) -> u64 {
        self.last.load(Relaxed)
    }

    /// Of a stream that `began` then: what its poll saw has the time of the poll.
    pub(super) fn traffic(&self, began: u64, now: u64) -> Traffic {
        let last = self.last.load(Relaxed);
        let (body, since) = self.state();
        Traffic {
            messages: self.messages.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            last_ago_ns: (last != 0).then(|| clock::delta_ns(last.max(began), now)),
            ended: body == BodyState::End,
            body,
            body_ns: clock::delta_ns(since.max(began), now),
        }
    }
}

/// What is known when a stream begins.
#[derive(Debug)]
pub struct Begin<'a> {
    /// Which end we are.
    pub side: Side,
    /// Path of the request, as the peer wrote it.
    pub path: &'a str,
    /// Its connection, if known.
    pub connection: Option<Arc<ConnectionCell>>,
    /// The server or channel that it is a call of.
    pub endpoint: Option<&'a Arc<EndpointCell>>,
    /// Its span is wanted; what the request told for it.
    pub span: Option<Box<Seed>>,
    /// The peer's name where the connection is not known.
    pub peer: Option<Arc<str>>,
    /// The caller's `grpc-timeout`.
    pub timeout: Option<Duration>,
    /// Metadata that the allow-list let through.
    pub metadata: BTreeMap<Arc<str>, Arc<str>>,
}

/// The lowest bit of a [`StreamCell`]'s life.
const ENDED: u64 = 1;

/// No slot.
const NO_SLOT: u32 = u32::MAX;

/// One stream. Writers are the layer's future and bodies.
///
/// Each open stream has one, so its bytes count, and a test holds them. What
/// few streams have is in [`Rare`]. What each message moves comes first, and lies
/// together: it was not touched for long, and is a cache line at a time away.
#[derive(Debug)]
#[repr(C)]
pub struct StreamCell {
    pub(super) logged: AtomicBool,
    /// A limit makes it wait for a token.
    throttled: AtomicBool,
    /// The response headers are there.
    pub(super) responded: AtomicBool,
    pub(super) side: Side,
    /// [`NO_SLOT`] if there was no room.
    slot: u32,
    /// Shifted left by one, the ticks of its end, and then the lowest bit is
    /// set; before, of the first poll of the handler, or of the call on the
    /// client, which nobody asks for after the end. 0 at first.
    life: AtomicU64,
    /// From the peer to us.
    pub received: Direction,
    /// From us to the peer.
    pub sent: Direction,
    pub(super) id: StreamId,
    pub(super) method: Arc<Method>,
    pub(super) peer: Option<Arc<str>>,
    /// 0 while it is not known.
    pub(super) connection: AtomicU64,
    pub(super) began: u64,
    /// The caller's timeout in nanoseconds, and one more: a timeout can be 0.
    timeout: Option<NonZeroU64>,
    pub(super) task: AtomicU64,
    /// Which HTTP/2 stream of its connection it is; 0 while that is not known.
    pub(super) wire_id: AtomicU32,
    /// Tasks that the scope tracks itself, hooks or not.
    pub(super) tracked: AtomicU32,
    pub(super) outcome: Mutex<Outcome>,
}

/// What is written seldom, most of it at the end.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// The code of its status; the message is rare.
    pub(super) status: Option<i32>,
    /// The connection's frames. They stay with an ended stream.
    pub(super) wire: Option<Arc<Wire>>,
    /// Kept only while the stream lives, so that the ring of ended streams
    /// does not keep closed connections in the list.
    pub(super) connection: Option<Arc<ConnectionCell>>,
    /// Its span is wanted.
    pub(super) span: Option<Box<Seed>>,
    pub(super) rare: Option<Box<Rare>>,
}

/// What most streams do without. Times are in ticks, 0 for never.
#[derive(Debug, Default)]
pub(super) struct Rare {
    /// Of its status.
    message: Option<Arc<str>>,
    cancel_reason: Option<Arc<str>>,
    cancelled: u64,
    /// Since when a limit makes it wait for a token.
    throttled: u64,
    /// More of the last messages, of a stream that is or was logged.
    pub(super) log: Log,
    /// What the allow-list let through.
    metadata: BTreeMap<Arc<str>, Arc<str>>,
}

/// A copy of what an [`Outcome`] tells.
pub(super) struct Told {
    pub(super) status: Option<StreamStatus>,
    pub(super) cancel_reason: Option<Arc<str>>,
    pub(super) cancelled: u64,
    pub(super) throttled: u64,
    pub(super) wire: Option<Arc<Wire>>,
    pub(super) metadata: BTreeMap<Arc<str>, Arc<str>>,
}

impl Outcome {
    pub(super) fn told(&self) -> Told {
        let rare = self.rare.as_deref();
        let message = rare.and_then(|rare| rare.message.as_deref()).unwrap_or_default();
        Told {
            status: self.status.map(|code| StreamStatus::new(code, message)),
            cancel_reason: rare.and_then(|rare| rare.cancel_reason.clone()),
            cancelled: rare.map_or(0, |rare| rare.cancelled),
            throttled: rare.map_or(0, |rare| rare.throttled),
            wire: self.wire.clone(),
            metadata: rare.map_or_else(BTreeMap::new, |rare| rare.metadata.clone()),
        }
    }

    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// Its frames are those of this connection; false if they were another's.
    fn framed_by(&mut self, wire: &Arc<Wire>) -> bool {
        let first = self.wire.is_none();
        if first {
            self.wire = Some(wire.clone());
        }
        first
    }

    /// It is to go, or goes, over a connection that is tapped.
    pub(super) fn is_tapped(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| connection.wire().is_some())
    }
}

impl StreamCell {
    /// `now` is in ticks.
    pub(super) fn new(
        id: StreamId,
        method: Arc<Method>,
        slot: Option<u32>,
        begin: Begin,
        now: u64,
    ) -> Self {
        let peer = begin.connection.as_ref().and_then(|c| c.peer().cloned()).or(begin.peer);
        Self {
            id,
            side: begin.side,
            peer,
            connection: AtomicU64::new(begin.connection.as_ref().map_or(0, |c| c.id().0)),
            wire_id: AtomicU32::new(0),
            slot: slot.unwrap_or(NO_SLOT),
            began: now,
            timeout: begin.timeout.map(|timeout| {
                let ns = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
                NonZeroU64::MIN.saturating_add(ns)
            }),
            received: Direction::new(now),
            sent: Direction::new(now),
            life: AtomicU64::new(0),
            responded: AtomicBool::new(false),
            task: AtomicU64::new(0),
            logged: AtomicBool::new(method.logged()),
            throttled: AtomicBool::new(false),
            tracked: AtomicU32::new(0),
            outcome: Mutex::new(Outcome {
                connection: begin.connection,
                span: begin.span,
                rare: (!begin.metadata.is_empty())
                    .then(|| Box::new(Rare { metadata: begin.metadata, ..Rare::default() })),
                ..Outcome::default()
            }),
            method,
        }
    }

    /// Which.
    pub fn id(&self) -> StreamId {
        self.id
    }

    /// Which end we are.
    pub fn side(&self) -> Side {
        self.side
    }

    /// Its method.
    pub fn method(&self) -> &Arc<Method> {
        &self.method
    }

    /// The other end, if known.
    pub fn peer(&self) -> Option<&Arc<str>> {
        self.peer.as_ref()
    }

    /// The caller's `grpc-timeout`.
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout.map(|more| Duration::from_nanos(more.get() - 1))
    }

    /// Its slot; `None` if there was no room, and then it is in no list.
    pub fn slot(&self) -> Option<u32> {
        (self.slot != NO_SLOT).then_some(self.slot)
    }

    /// The handler (server) or the call (client) is polled for the first
    /// time, or by another task than before.
    pub fn polled_by(&self, task: Option<TaskId>) {
        if self.life.load(Relaxed) == 0 {
            // It may have ended meanwhile: then that stays.
            _ = self.life.compare_exchange(0, clock::now() << 1, Relaxed, Relaxed);
        }
        if let Some(task) = task {
            self.task.store(task.0, Relaxed);
        }
    }

    /// The task that will poll it, known before the first poll.
    pub fn belongs_to(&self, task: TaskId) {
        self.task.store(task.0, Relaxed);
    }

    /// The response headers are there.
    pub fn responded(&self) {
        self.responded.store(true, Relaxed);
    }

    /// Whether they were.
    pub fn has_response(&self) -> bool {
        self.responded.load(Relaxed)
    }

    /// Whether Sends and Recvs are to be logged.
    #[inline]
    pub fn logged(&self) -> bool {
        self.logged.load(Relaxed)
    }

    /// Whether it is over.
    pub fn is_ended(&self) -> bool {
        self.life.load(Relaxed) & ENDED != 0
    }

    /// Ticks of its end; 0 before.
    pub(super) fn ended(&self) -> u64 {
        let life = self.life.load(Relaxed);
        if life & ENDED != 0 { life >> 1 } else { 0 }
    }

    /// Ticks of the first poll; 0 before it, and after the end.
    pub(super) fn polled(&self) -> u64 {
        let life = self.life.load(Relaxed);
        if life & ENDED == 0 { life >> 1 } else { 0 }
    }

    /// It is over. False if it was before; `now` is in ticks.
    pub(super) fn ends(&self, now: u64) -> bool {
        let end = |life| (life & ENDED == 0).then_some((now << 1) | ENDED);
        self.life.fetch_update(Relaxed, Relaxed, end).is_ok()
    }

    /// Notes the final status, whose message the caller has cut and cleaned;
    /// the first counts.
    pub fn status(&self, code: i32, message: &str) {
        let mut outcome = self.outcome();
        if outcome.status.is_none() {
            outcome.status = Some(code);
            if !message.is_empty() {
                outcome.rare().message = Some(message.into());
            }
        }
    }

    /// Notes that it was cancelled, and why; the first reason counts.
    pub fn cancel(&self, reason: &str) {
        let mut outcome = self.outcome();
        let rare = outcome.rare();
        if rare.cancel_reason.is_none() {
            (rare.cancel_reason, rare.cancelled) = (Some(reason.into()), clock::now());
        }
    }

    /// Its connection, while both are alive.
    pub fn connection_cell(&self) -> Option<Arc<ConnectionCell>> {
        self.outcome().connection.clone()
    }

    /// The message of that number in its direction passed whole, of so many
    /// bytes with its prefix; `now` is in ticks.
    #[inline]
    pub fn message(&self, kind: StreamEventKind, number: u64, bytes: u32, now: u64) {
        let direction = match kind {
            StreamEventKind::Recv => &self.received,
            _ => &self.sent,
        };
        direction.events.note(number, kind, bytes, now);
        if self.logged() {
            self.outcome().rare().log.push(kind, bytes, now);
        }
    }

    /// A limit makes it wait for a token, or does no more.
    pub fn throttled(&self, waits: bool) {
        if self.throttled.load(Relaxed) != waits {
            self.throttled.store(waits, Relaxed);
            self.outcome().rare().throttled = if waits { clock::now() } else { 0 };
        }
    }

    /// Server: the service was called for it, next in the row of this
    /// connection's requests.
    pub fn carried_by(self: &Arc<Self>, wire: &Arc<Wire>) {
        if !self.outcome().framed_by(wire) {
            return;
        }
        let this: Arc<dyn Numbered> = self.clone();
        if let Some(id) = wire.called(Some(Arc::downgrade(&this))) {
            self.wire_id.store(id, Relaxed);
        }
    }

    /// Client: the transport gives the request its stream id, the next of this
    /// connection, which need not be the one that it was meant for.
    pub fn dispatched_on(&self, connection: &Arc<ConnectionCell>) {
        // The id is taken in any case: the row of ids must not be cut.
        let Some(wire) = connection.wire() else { return };
        let id = wire.dispatched();
        let mut outcome = self.outcome();
        if outcome.connection.as_ref().is_some_and(|old| old.id() != connection.id())
            || (outcome.connection.is_none() && !self.is_ended())
        {
            connection.stream_began(self.began);
            if let Some(old) = outcome.connection.replace(connection.clone()) {
                old.stream_left();
            }
            self.connection.store(connection.id().0, Relaxed);
        }
        let first = id.is_some() && outcome.framed_by(wire);
        drop(outcome);
        match id {
            Some(id) if first => self.wire_id.store(id, Relaxed),
            Some(id) => wire.unwanted(id),
            None => {}
        }
    }

    /// Whether its connection is known to be gone.
    pub fn connection_closed(&self) -> bool {
        self.outcome().connection.as_ref().is_some_and(|connection| connection.is_closed())
    }

    /// The server's END_STREAM passed: sent by us on a server, and received on
    /// a client.
    pub(super) fn succeeded(&self) -> bool {
        let response = match self.side {
            Side::Server => &self.sent,
            Side::Client => &self.received,
        };
        response.state().0 == BodyState::End
    }

    pub(super) fn outcome(&self) -> MutexGuard<'_, Outcome> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The numbers of its frames go with it.
impl Drop for StreamCell {
    fn drop(&mut self) {
        let id = *self.wire_id.get_mut();
        let outcome = self.outcome.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(wire) = outcome.wire.as_ref().filter(|_| id != 0) {
            wire.unwanted(id);
        }
    }
}

impl Numbered for StreamCell {
    fn number(&self, id: u32) {
        self.wire_id.store(id, Relaxed);
    }
}
