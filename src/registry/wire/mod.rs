//! What the frames of a connection show: exact windows, ends, resets, pings.
//!
//! The tap around the socket writes it, one lock for each read or write call;
//! nobody else takes that lock but snapshots, births and ends of streams. The
//! frames' numbers belong to HTTP/2 streams; [`join`] tells which of them is
//! which call. An entry leaves when its HTTP/2 stream is closed and the call's
//! cell is gone.

mod entry;
pub mod frame;
mod ids;
pub mod join;
pub mod ring;
mod state;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::model::{Http2, Side, StreamEvent, StreamWire, TcpInfo};
use crate::registry::clock;
use crate::sys::tcp;
use frame::Frame;
use join::{Numbered, Told};
use state::State;

/// HTTP/2 streams held for one connection at most: open ones, and closed ones
/// whose calls are still listed. Peers may open 2^31 on theirs.
const MAX_STREAMS: usize = 200_000;

/// One tapped connection.
#[derive(Debug)]
pub struct Wire {
    state: Mutex<State>,
    /// The socket, for what the kernel says of it, while it is open.
    socket: Mutex<Option<i32>>,
    /// The last read found nothing: what had come was taken.
    read_all: AtomicBool,
    /// The row of calls and ids is not settled.
    unsettled: AtomicBool,
    gone: AtomicBool,
}

/// Tells frames to the connection under its lock.
pub struct Writer<'a> {
    wire: &'a Wire,
    state: MutexGuard<'a, State>,
    now: u64,
}

impl Writer<'_> {
    /// A frame came from the peer.
    #[inline]
    pub fn received(&mut self, frame: Frame) {
        if !self.state.lost {
            let now = self.at(&frame);
            self.state.received(frame, now);
        }
    }

    /// The kernel took a frame of ours.
    #[inline]
    pub fn sent(&mut self, frame: Frame) {
        if !self.state.lost {
            let now = self.at(&frame);
            self.state.sent(frame, now);
        }
    }

    /// The time of a frame: of a PING a fresh one, since its round trip is told.
    #[inline]
    fn at(&self, frame: &Frame) -> u64 {
        if matches!(frame, Frame::Ping { .. }) { clock::look().max(self.now) } else { self.now }
    }

    /// A reader has lost its place.
    pub fn lost(&mut self) {
        self.state.lost = true;
    }

    /// Done; calls whose numbers have moved are told.
    pub fn finish(mut self) {
        let told = std::mem::take(&mut self.state.told);
        self.wire.unsettled.store(self.state.join.is_open(), Relaxed);
        drop(self.state);
        tell(told);
    }
}

/// Without the lock: the last holder of a call takes it again at its end.
fn tell(told: Vec<Told>) {
    for (call, id) in told {
        call.number(id);
    }
}

impl Wire {
    /// A connection on which nothing has passed yet.
    pub fn new(side: Side) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State::new(side, MAX_STREAMS)),
            socket: Mutex::default(),
            read_all: AtomicBool::new(false),
            unsettled: AtomicBool::new(false),
            gone: AtomicBool::new(false),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Frames are about to be told; `now` is in ticks.
    pub fn writer(&self, now: u64) -> Writer<'_> {
        Writer { wire: self, state: self.state(), now }
    }

    /// Whether the last read found nothing to take.
    pub fn read_all(&self, all: bool) {
        if self.read_all.load(Relaxed) != all {
            self.read_all.store(all, Relaxed);
        }
    }

    /// The service is called for the next request, which is `call`, or one
    /// that is not followed. Its id, as far as is known.
    pub fn called(&self, call: Option<Weak<dyn Numbered>>) -> Option<u32> {
        let mut state = self.state();
        let id = state.join.called(call);
        self.unsettled.store(state.join.is_open(), Relaxed);
        id.filter(|id| state.streams.contains_key(id))
    }

    /// The connection's future waits: h2 has handed over what it had read.
    pub fn calm(&self) {
        if self.unsettled.load(Relaxed) && self.read_all.load(Relaxed) {
            let mut state = self.state();
            if !state.lost {
                state.calm();
            }
            let told = std::mem::take(&mut state.told);
            self.unsettled.store(state.join.is_open(), Relaxed);
            drop(state);
            tell(told);
        }
    }

    /// A client's request is about to be given its id by h2: the next. `None`
    /// if there is no room to keep its numbers, or it cannot be known.
    pub fn dispatched(&self) -> Option<u32> {
        self.state().dispatched()
    }

    /// A client's request that nobody follows is about to be given its id.
    pub fn dispatched_unseen(&self) {
        let mut state = self.state();
        if let Some(id) = state.dispatched() {
            state.unwanted(id);
        }
    }

    /// The call of this stream is not looked at any more.
    pub fn unwanted(&self, id: u32) {
        self.state().unwanted(id);
    }

    /// The socket beneath, from which the kernel's figures are read until
    /// [`gone`](Self::gone).
    pub fn socket(&self, fd: i32) {
        *self.socket.lock().unwrap_or_else(PoisonError::into_inner) = Some(fd);
    }

    /// The socket is about to be closed. After that its number is another's.
    pub fn gone(&self) {
        *self.socket.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.gone.store(true, Relaxed);
        self.state().gone();
    }

    /// Whether the socket is closed.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Relaxed)
    }

    /// A stream as its frames show it, and its last events, to which
    /// `events` is called. `now` is in ticks.
    pub fn stream(&self, id: u32, now: u64, events: &mut Vec<StreamEvent>) -> Option<StreamWire> {
        let state = self.state();
        let entry = state.streams.get(&id)?;
        events.extend(entry.events(now));
        Some(entry.to_model(id, now))
    }

    /// The connection. `now` is in ticks.
    pub fn http2(&self, now: u64) -> Http2 {
        self.state().to_model(now)
    }

    /// What the kernel says now.
    pub fn tcp(&self) -> Option<TcpInfo> {
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        // Read under the lock, so that the socket is open for so long.
        socket.and_then(tcp::info)
    }
}

#[cfg(test)]
mod tests;
