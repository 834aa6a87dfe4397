//! What the frames of one connection add up to (RFC 9113, sections 5 and 6.9).

use std::collections::HashMap;
use std::collections::VecDeque;
use std::collections::hash_map::Entry as Slot;

use super::entry::Entry;
use super::frame::{DEFAULT_WINDOW, Frame, INITIAL_WINDOW_SIZE, MAX_CONCURRENT_STREAMS};
use super::ids::IdHash;
use super::join::{Answer, Join, Told};
use crate::model::{Goaway, Http2, Side, StreamEventKind};
use crate::registry::clock;

/// SETTINGS of ours that the peer may leave unacknowledged before we stop to
/// count them; h2 sends the next only after the answer.
const MAX_UNACKNOWLEDGED: usize = 16;

/// PINGs of ours in flight that are told apart.
const MAX_PINGS: usize = 4;

/// Error code REFUSED_STREAM: no application has seen the stream.
const REFUSED_STREAM: u32 = 7;
/// Error code PROTOCOL_ERROR.
const PROTOCOL_ERROR: u32 = 1;

/// One connection.
#[derive(Debug)]
pub(super) struct State {
    side: Side,
    pub(super) streams: HashMap<u32, Box<Entry>, IdHash>,
    bound: usize,
    pub(super) join: Join,
    pub(super) told: Vec<Told>,
    /// Client: what h2 gives the next request.
    pub(super) next_id: u32,
    /// Client: frames came with ids that we had not counted to.
    uncounted: bool,
    /// Client: entries that nobody wants and whose HEADERS have not passed.
    abandoned: usize,
    /// The highest id whose HEADERS have passed.
    highest: u32,
    /// The stream whose opening header block is not complete.
    opening: u32,
    open: u64,
    send_window: i64,
    recv_window: i64,
    send_closed: u64,
    recv_closed: u64,
    peer_initial: u32,
    local_initial: u32,
    peer_max: Option<u32>,
    local_max: Option<u32>,
    /// INITIAL_WINDOW_SIZE of our SETTINGS that is being sent.
    sending: Option<u32>,
    unacknowledged: VecDeque<Option<u32>>,
    pings: [Option<(u64, u64)>; MAX_PINGS],
    ping_rtt: u64,
    ping_answered: u64,
    pings_sent: u64,
    last_received: u64,
    goaway: Option<(Goaway, u64)>,
    /// The last stream that our GOAWAY still serves.
    serves: Option<u32>,
    resets_received: u64,
    resets_sent: u64,
    pub(super) lost: bool,
    pub(super) gone: bool,
    pub(super) untracked: u64,
}

impl State {
    pub(super) fn new(side: Side, bound: usize) -> Self {
        let window = i64::from(DEFAULT_WINDOW);
        Self {
            side,
            streams: HashMap::default(),
            bound,
            join: Join::default(),
            told: Vec::new(),
            next_id: 1,
            uncounted: false,
            abandoned: 0,
            highest: 0,
            opening: 0,
            open: 0,
            send_window: window,
            recv_window: window,
            send_closed: 0,
            recv_closed: 0,
            peer_initial: DEFAULT_WINDOW,
            local_initial: DEFAULT_WINDOW,
            peer_max: None,
            local_max: None,
            sending: None,
            unacknowledged: VecDeque::new(),
            pings: [None; MAX_PINGS],
            ping_rtt: 0,
            ping_answered: 0,
            pings_sent: 0,
            last_received: 0,
            goaway: None,
            serves: None,
            resets_received: 0,
            resets_sent: 0,
            lost: false,
            gone: false,
            untracked: 0,
        }
    }

    /// A frame came from the peer.
    pub(super) fn received(&mut self, frame: Frame, now: u64) {
        self.last_received = now;
        match frame {
            Frame::Data { id, bytes, end } => {
                self.recv_window -= i64::from(bytes);
                if self.recv_window <= 0 && self.recv_closed == 0 {
                    self.recv_closed = now;
                }
                if let Some(entry) = self.streams.get_mut(&id) {
                    entry.shift_recv_window(-i64::from(bytes));
                    entry.data_received += u64::from(bytes);
                    entry.last_received = now;
                    if end {
                        entry.ended(true, now);
                        self.closed(id);
                    }
                }
            }
            Frame::Headers { id, end_stream, complete, .. } => {
                if self.side == Side::Server && id % 2 == 1 && id > self.highest {
                    self.open(id, now);
                    self.opening = id;
                }
                if let Some(entry) = self.streams.get_mut(&id) {
                    entry.last_received = now;
                    if end_stream {
                        entry.ended(true, now);
                        self.closed(id);
                    }
                }
                if complete {
                    self.block_complete(id);
                }
            }
            Frame::Continuation { id, complete: true } => self.block_complete(id),
            Frame::Reset { id, code } => {
                self.resets_received += 1;
                if let Some(entry) = self.streams.get_mut(&id) {
                    entry.last_received = now;
                }
                self.reset(id, true, code, now);
            }
            Frame::Setting { key: INITIAL_WINDOW_SIZE, value } => {
                let delta = i64::from(value) - i64::from(self.peer_initial);
                self.peer_initial = value;
                for entry in self.streams.values_mut().filter(|entry| !entry.is_closed()) {
                    entry.shift_send_window(delta);
                    entry.send_window_changed(now);
                }
            }
            Frame::Setting { key: MAX_CONCURRENT_STREAMS, value } => self.peer_max = Some(value),
            Frame::SettingsAck => {
                if let Some(Some(value)) = self.unacknowledged.pop_front() {
                    let delta = i64::from(value) - i64::from(self.local_initial);
                    self.local_initial = value;
                    for entry in self.streams.values_mut().filter(|entry| !entry.is_closed()) {
                        entry.shift_recv_window(delta);
                    }
                }
            }
            Frame::WindowUpdate { id: 0, increment } => {
                self.send_window += i64::from(increment);
                if self.send_window > 0 {
                    self.send_closed = 0;
                }
            }
            Frame::WindowUpdate { id, increment } => {
                if let Some(entry) = self.streams.get_mut(&id) {
                    entry.shift_send_window(increment.into());
                    entry.last_received = now;
                    entry.window_update = now;
                    entry.event(StreamEventKind::WindowReceived, increment, now);
                    entry.send_window_changed(now);
                }
            }
            Frame::Ping { ack: true, payload } => {
                let sent = self.pings.iter_mut().find(|ping| ping.is_some_and(|p| p.0 == payload));
                if let Some((_, at)) = sent.and_then(Option::take) {
                    self.ping_rtt = now.saturating_sub(at).max(1);
                    self.ping_answered = now;
                }
            }
            Frame::Goaway { last, code } => self.goaway(true, last, code, now),
            Frame::Ping { .. }
            | Frame::Setting { .. }
            | Frame::SettingsEnd
            | Frame::Continuation { .. }
            | Frame::Other => {}
        }
    }

    /// The kernel took a frame of ours.
    pub(super) fn sent(&mut self, frame: Frame, now: u64) {
        match frame {
            Frame::Data { id, bytes, end } => {
                self.send_window -= i64::from(bytes);
                if self.send_window <= 0 && self.send_closed == 0 {
                    self.send_closed = now;
                }
                if let Some(entry) = self.streams.get_mut(&id) {
                    entry.data_sent += u64::from(bytes);
                    entry.last_sent = now;
                    if bytes > 0 {
                        entry.shift_send_window(-i64::from(bytes));
                        entry.send_window_changed(now);
                    }
                    if end {
                        entry.ended(false, now);
                        self.closed(id);
                    }
                }
            }
            Frame::Headers { id, end_stream, first, .. } => {
                if self.side == Side::Client && id % 2 == 1 && id > self.highest {
                    self.open(id, now);
                }
                // :status 200 to 500 of the static table (RFC 7541, appendix
                // A) are one byte; 431, which only h2 itself answers, is not.
                let known = (0x88..=0x8e).contains(&first);
                self.answered(
                    id,
                    match (end_stream, known) {
                        (true, false) => Answer::Kept,
                        _ => Answer::Ours,
                    },
                );
                if let Some(entry) = self.streams.get_mut(&id) {
                    entry.last_sent = now;
                    if end_stream {
                        entry.ended(false, now);
                        self.closed(id);
                    }
                }
            }
            Frame::Reset { id, code } => {
                self.resets_sent += 1;
                self.answered(
                    id,
                    match code {
                        REFUSED_STREAM => Answer::Kept,
                        PROTOCOL_ERROR => Answer::Maybe,
                        _ => Answer::Ours,
                    },
                );
                if let Some(entry) = self.streams.get_mut(&id) {
                    entry.last_sent = now;
                }
                self.reset(id, false, code, now);
            }
            Frame::Setting { key: INITIAL_WINDOW_SIZE, value } => self.sending = Some(value),
            Frame::Setting { key: MAX_CONCURRENT_STREAMS, value } => self.local_max = Some(value),
            Frame::SettingsEnd => {
                if self.unacknowledged.len() < MAX_UNACKNOWLEDGED {
                    self.unacknowledged.push_back(self.sending.take());
                } else {
                    self.lost = true;
                }
            }
            Frame::WindowUpdate { id: 0, increment } => {
                self.recv_window += i64::from(increment);
                if self.recv_window > 0 {
                    self.recv_closed = 0;
                }
            }
            Frame::WindowUpdate { id, increment } => {
                if let Some(entry) = self.streams.get_mut(&id) {
                    entry.shift_recv_window(increment.into());
                    entry.last_sent = now;
                    entry.event(StreamEventKind::WindowSent, increment, now);
                }
            }
            Frame::Ping { ack: false, payload } => {
                self.pings_sent += 1;
                if let Some(free) = self.pings.iter_mut().find(|ping| ping.is_none()) {
                    *free = Some((payload, now));
                }
            }
            Frame::Goaway { last, code } => {
                self.serves = Some(self.serves.map_or(last, |serves| serves.min(last)));
                self.goaway(false, last, code, now);
            }
            Frame::Ping { .. }
            | Frame::Setting { .. }
            | Frame::SettingsAck
            | Frame::Continuation { .. }
            | Frame::Other => {}
        }
    }

    fn open(&mut self, id: u32, now: u64) {
        self.highest = id;
        if self.abandoned > 0 {
            // Requests given up while they waited for a slot: h2 opens in
            // order, so what is below will never open.
            self.streams.retain(|&at, entry| entry.opened || entry.wanted || at >= id);
            let rest = self.streams.values().filter(|entry| !entry.opened && !entry.wanted);
            self.abandoned = rest.count();
        }
        let full = self.streams.len() >= self.bound;
        let entry = match self.streams.entry(id) {
            // A client's call has its number before its HEADERS pass.
            Slot::Occupied(entry) => entry.into_mut(),
            // One that was never numbered: our count is not h2's any more.
            Slot::Vacant(_) if self.side == Side::Client && id >= self.next_id => {
                self.uncounted = true;
                self.untracked += 1;
                return;
            }
            Slot::Vacant(_) if full => {
                self.untracked += 1;
                return;
            }
            Slot::Vacant(slot) => slot.insert(Box::default()),
        };
        entry.wanted |= self.side == Side::Server;
        entry.open(self.peer_initial, self.local_initial);
        entry.send_window_changed(now);
        self.open += 1;
    }

    fn block_complete(&mut self, id: u32) {
        if self.opening == id && id != 0 {
            self.opening = 0;
            self.join.arrived(id);
        }
    }

    fn answered(&mut self, id: u32, answer: Answer) {
        if self.side == Side::Server
            && self.join.is_open()
            && self.streams.get(&id).is_none_or(|entry| !entry.answered)
        {
            self.join.answered(id, answer, &mut self.told);
        }
        if let Some(entry) = self.streams.get_mut(&id) {
            entry.answered = true;
        }
    }

    fn reset(&mut self, id: u32, by_peer: bool, code: u32, now: u64) {
        let Some(entry) = self.streams.get_mut(&id) else { return };
        if !entry.is_closed() && entry.opened {
            self.open = self.open.saturating_sub(1);
        }
        entry.reset(by_peer, code, now);
        self.forget_closed(id);
    }

    /// One of its ends has come; it may have been the second.
    fn closed(&mut self, id: u32) {
        let Some(entry) = self.streams.get(&id) else { return };
        if entry.end_sent && entry.end_received && entry.reset_at == 0 {
            if entry.opened {
                self.open = self.open.saturating_sub(1);
            }
            self.forget_closed(id);
        }
    }

    fn forget_closed(&mut self, id: u32) {
        if self.streams.get(&id).is_some_and(|entry| !entry.wanted) {
            self.streams.remove(&id);
        }
    }

    /// Nobody looks at this stream any more. One whose HEADERS are still to
    /// come stays: its frames must find it.
    pub(super) fn unwanted(&mut self, id: u32) {
        if let Slot::Occupied(mut slot) = self.streams.entry(id) {
            slot.get_mut().wanted = false;
            let never = !slot.get().opened && id < self.highest;
            if self.gone || self.lost || never || slot.get().is_closed() {
                slot.remove();
            } else if !slot.get().opened {
                self.abandoned += 1;
            }
        }
    }

    /// Client: a request takes its id, before its HEADERS pass.
    pub(super) fn dispatched(&mut self) -> Option<u32> {
        let id = self.next_id;
        self.next_id = id.checked_add(2).filter(|next| *next <= 0x7fff_ffff)?;
        if self.lost || self.gone || self.uncounted {
            return None;
        }
        if self.streams.len() >= self.bound {
            self.untracked += 1;
            return None;
        }
        self.streams.entry(id).or_default().wanted = true;
        Some(id)
    }

    /// The socket is closed. Entries stay for the calls that show them.
    pub(super) fn gone(&mut self) {
        self.gone = true;
        self.open = 0;
        self.join = Join::default();
        self.streams.retain(|_, entry| entry.wanted);
    }

    /// Everything that came was read, and every request handed over.
    pub(super) fn calm(&mut self) {
        let (mut join, mut told) = (std::mem::take(&mut self.join), std::mem::take(&mut self.told));
        join.calm(self.serves, &mut told, |id, joined| {
            if !joined {
                self.unwanted(id);
            }
        });
        (self.join, self.told) = (join, told);
    }

    fn goaway(&mut self, by_peer: bool, last_stream_id: u32, code: u32, now: u64) {
        self.goaway = Some((Goaway { by_peer, code, last_stream_id, ago_ns: 0 }, now));
    }

    pub(super) fn to_model(&self, now: u64) -> Http2 {
        let ago = |ticks: u64| (ticks != 0).then(|| clock::delta_ns(ticks, now));
        let oldest = self.pings.iter().flatten().map(|(_, at)| *at).min();
        Http2 {
            send_window: self.send_window,
            recv_window: self.recv_window,
            send_window_closed_ns: ago(self.send_closed),
            recv_window_closed_ns: ago(self.recv_closed),
            peer_initial_window: self.peer_initial,
            local_initial_window: self.local_initial,
            peer_max_streams: self.peer_max,
            local_max_streams: self.local_max,
            open_streams: self.open,
            ping_outstanding_ns: oldest.and_then(ago),
            ping_rtt_ns: (self.ping_rtt != 0).then(|| clock::ticks_ns(self.ping_rtt)),
            ping_answered_ago_ns: ago(self.ping_answered),
            pings_sent: self.pings_sent,
            last_received_ago_ns: ago(self.last_received),
            goaway: self
                .goaway
                .clone()
                .map(|(goaway, at)| Goaway { ago_ns: clock::delta_ns(at, now), ..goaway }),
            resets_received: self.resets_received,
            resets_sent: self.resets_sent,
            lost: self.lost,
            untracked: self.untracked,
        }
    }
}
