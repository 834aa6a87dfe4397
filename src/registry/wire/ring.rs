//! The last few things that happened, in eight bytes each.
//!
//! ```text
//!   63    60 59                36 35                                     0
//!   ┌───────┬────────────────────┬────────────────────────────────────────┐
//!   │ kind+1│ bytes              │ ticks / 65,536, without the upper bits │
//!   └───────┴────────────────────┴────────────────────────────────────────┘
//! ```
//!
//! Bytes are exact below 8 MiB, and cut to a multiple of 256 above. The time
//! is good for some eight days back on a 3 GHz counter, to 22 µs.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::model::{StreamEvent, StreamEventKind};
use crate::registry::clock;

const TIME_BITS: u32 = 36;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;
const TICK_SHIFT: u32 = 16;
const BYTES_MASK: u64 = (1 << 24) - 1;
const COARSE: u64 = 1 << 23;

/// How many are kept.
pub const KEPT: usize = 8;

const KINDS: [StreamEventKind; 8] = [
    StreamEventKind::Send,
    StreamEventKind::Recv,
    StreamEventKind::WindowReceived,
    StreamEventKind::WindowSent,
    StreamEventKind::WindowClosed,
    StreamEventKind::EndSent,
    StreamEventKind::EndReceived,
    StreamEventKind::Reset,
];

/// Packs one event.
pub fn pack(kind: StreamEventKind, bytes: u32, now: u64) -> u64 {
    let bytes = u64::from(bytes);
    let bytes = if bytes < COARSE { bytes } else { COARSE | (bytes >> 8) };
    ((kind as u64 + 1) << 60) | (bytes << TIME_BITS) | ((now >> TICK_SHIFT) & TIME_MASK)
}

/// The inverse; `None` for an empty word. `now` is in ticks.
pub fn unpack(word: u64, now: u64) -> Option<StreamEvent> {
    let kind = *KINDS.get((word >> 60).checked_sub(1)? as usize)?;
    let bytes = (word >> TIME_BITS) & BYTES_MASK;
    let bytes = if bytes & COARSE == 0 { bytes } else { (bytes & !COARSE) << 8 };
    let units = (now >> TICK_SHIFT).wrapping_sub(word & TIME_MASK) & TIME_MASK;
    // Counters of two cores can differ by a hair: then it is from the future.
    let units = if units > TIME_MASK / 2 { 0 } else { units };
    Some(StreamEvent {
        kind,
        ago_ns: clock::ticks_ns(units << TICK_SHIFT),
        bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
    })
}

/// One writer, any readers. A reader may miss an event that is being replaced.
/// Which comes next the owner knows, who counts them anyway.
#[derive(Debug, Default)]
pub struct Ring {
    words: [AtomicU64; KEPT],
}

impl Ring {
    /// Notes the event of that number over the oldest.
    #[inline]
    pub fn note(&self, number: u64, kind: StreamEventKind, bytes: u32, now: u64) {
        self.words[number as usize % KEPT].store(pack(kind, bytes, now), Relaxed);
    }

    /// What is there, in no order. `now` is in ticks.
    pub fn read(&self, now: u64) -> impl Iterator<Item = StreamEvent> {
        self.words.iter().filter_map(move |word| unpack(word.load(Relaxed), now))
    }
}

/// How many are kept of a stream that is logged.
const LOGGED: usize = 256;

/// More of them, while somebody looks.
#[derive(Debug, Default)]
pub struct Log {
    words: VecDeque<u64>,
}

impl Log {
    /// Notes an event over the oldest.
    pub fn push(&mut self, kind: StreamEventKind, bytes: u32, now: u64) {
        if self.words.len() == LOGGED {
            self.words.pop_front();
        }
        self.words.push_back(pack(kind, bytes, now));
    }

    /// What is there, oldest first. `now` is in ticks.
    pub fn read(&self, now: u64) -> impl Iterator<Item = StreamEvent> {
        self.words.iter().filter_map(move |word| unpack(*word, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_survive_the_packing() {
        for (at, kind) in KINDS.into_iter().enumerate() {
            assert_eq!(kind as usize, at);
            for bytes in [0, 5, (1 << 23) - 1, 1 << 23, 3 << 20, 0x7fff_ff00] {
                let event = unpack(pack(kind, bytes, 5 << 40), 5 << 40).unwrap();
                assert_eq!((event.kind, event.bytes, event.ago_ns), (kind, bytes, 0));
            }
        }
        assert_eq!(unpack(0, 1), None);
        let early = unpack(pack(StreamEventKind::Send, 1, 10 << 16), 7 << 16).unwrap();
        assert_eq!(early.ago_ns, 0, "from another core's future");
        let wrapped = unpack(pack(StreamEventKind::Send, 1, u64::MAX), 1 << 16).unwrap();
        assert_eq!(wrapped.ago_ns, clock::ticks_ns(2 << 16));
    }

    #[test]
    fn the_last_few_are_kept() {
        let ring = Ring::default();
        for bytes in 0..20 {
            ring.note(bytes.into(), StreamEventKind::Recv, bytes, 1 << 20);
        }
        let mut kept: Vec<_> = ring.read(1 << 20).map(|event| event.bytes).collect();
        kept.sort_unstable();
        assert_eq!(kept, (12..20).collect::<Vec<_>>());
    }
}
