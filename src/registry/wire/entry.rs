//! One HTTP/2 stream's numbers.

use super::ring::Ring;
use crate::model::{StreamEvent, StreamEventKind, StreamWire, WireReset};
use crate::registry::clock;

/// What is seen of a stream; times are in ticks, 0 for never. What each frame
/// moves comes first, and lies together: it was not touched for long.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct Entry {
    /// Between -(2^31 - 1) and 2^31 - 1 (RFC 9113, section 6.9); a peer that
    /// goes beyond is at the bound for us, and soon gone.
    send_window: i32,
    recv_window: i32,
    pub(super) data_sent: u64,
    pub(super) data_received: u64,
    pub(super) last_received: u64,
    pub(super) last_sent: u64,
    pub(super) send_closed: u64,
    pub(super) window_update: u64,
    pub(super) reset_at: u64,
    pub(super) reset_code: u32,
    pub(super) reset_by_peer: bool,
    /// The first HEADERS passed.
    pub(super) opened: bool,
    pub(super) end_sent: bool,
    pub(super) end_received: bool,
    /// We have sent any frame of it.
    pub(super) answered: bool,
    /// A call that we follow has it, or may yet get it.
    pub(super) wanted: bool,
    /// Events so far, modulo 256.
    noted: u8,
    events: Ring,
}

impl Entry {
    /// Its HEADERS pass: the windows are what the settings say.
    pub(super) fn open(&mut self, send_window: u32, recv_window: u32) {
        self.opened = true;
        self.send_window = saturated(send_window.into());
        self.recv_window = saturated(recv_window.into());
    }

    /// The peer may send us so many bytes more, or fewer.
    pub(super) fn shift_recv_window(&mut self, bytes: i64) {
        self.recv_window = saturated(i64::from(self.recv_window) + bytes);
    }

    /// We may send so many bytes more, or fewer.
    pub(super) fn shift_send_window(&mut self, bytes: i64) {
        self.send_window = saturated(i64::from(self.send_window) + bytes);
    }

    pub(super) fn event(&mut self, kind: StreamEventKind, bytes: u32, now: u64) {
        self.events.note(self.noted.into(), kind, bytes, now);
        self.noted = self.noted.wrapping_add(1);
    }

    /// Its last events, in no order. `now` is in ticks.
    pub(super) fn events(&self, now: u64) -> impl Iterator<Item = StreamEvent> {
        self.events.read(now)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.reset_at != 0 || (self.end_sent && self.end_received)
    }

    /// The send window has changed.
    pub(super) fn send_window_changed(&mut self, now: u64) {
        if self.send_window > 0 {
            self.send_closed = 0;
        } else if self.send_closed == 0 {
            self.send_closed = now;
            self.event(StreamEventKind::WindowClosed, 0, now);
        }
    }

    pub(super) fn reset(&mut self, by_peer: bool, code: u32, now: u64) {
        if self.reset_at == 0 {
            (self.reset_at, self.reset_code, self.reset_by_peer) = (now, code, by_peer);
            self.event(StreamEventKind::Reset, code, now);
        }
    }

    pub(super) fn ended(&mut self, by_peer: bool, now: u64) {
        let (flag, kind) = if by_peer {
            (&mut self.end_received, StreamEventKind::EndReceived)
        } else {
            (&mut self.end_sent, StreamEventKind::EndSent)
        };
        if !*flag {
            *flag = true;
            self.event(kind, 0, now);
        }
    }

    pub(super) fn to_model(&self, id: u32, now: u64) -> StreamWire {
        let ago = |ticks: u64| (ticks != 0).then(|| clock::delta_ns(ticks, now));
        StreamWire {
            stream_id: id,
            opened: self.opened,
            send_window: self.send_window.into(),
            recv_window: self.recv_window.into(),
            data_sent: self.data_sent,
            data_received: self.data_received,
            last_received_ago_ns: ago(self.last_received),
            last_sent_ago_ns: ago(self.last_sent),
            window_update_ago_ns: ago(self.window_update),
            send_window_closed_ns: ago(self.send_closed).filter(|_| !self.is_closed()),
            end_sent: self.end_sent,
            end_received: self.end_received,
            reset: ago(self.reset_at).map(|ago_ns| WireReset {
                by_peer: self.reset_by_peer,
                code: self.reset_code,
                ago_ns,
            }),
        }
    }
}

fn saturated(window: i64) -> i32 {
    window.clamp(i32::MIN.into(), i32::MAX.into()) as i32
}
