//! What the verdicts on live streams were, for their spans to tell.

use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

use crate::analyze::Judge;
use crate::model::{Snapshot, StreamId, Verdict, VerdictKind};

/// Changes kept of one stream; later ones are counted.
const KEPT: usize = 32;

/// Streams with notes at once; further ones get none.
const STREAMS: usize = 100_000;

/// A stream's verdict has changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    /// When it was seen.
    pub at: SystemTime,
    /// When the stream came to a standstill.
    pub since: SystemTime,
    /// What it became: an alarm, or one no more.
    pub verdict: Verdict,
}

/// The notes on one stream.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Told {
    /// Oldest first.
    pub notes: Vec<Note>,
    /// Changes that found no room.
    pub dropped: u32,
}

/// The notes on all live streams that have any.
#[derive(Debug, Default)]
pub struct Notes {
    streams: HashMap<StreamId, Entry>,
    looks: u64,
}

#[derive(Debug)]
struct Entry {
    told: Told,
    now: VerdictKind,
    /// The last look that saw it alive.
    seen: u64,
}

impl Notes {
    /// Looks at the verdict on each live stream.
    pub fn look(&mut self, shot: &Snapshot) {
        self.looks += 1;
        let judge = Judge::new(shot);
        let mut live = HashSet::with_capacity(shot.streams.len());
        for stream in &shot.streams {
            live.insert(stream.id);
            let (kind, _) = judge.kind(stream);
            let room = self.streams.len() < STREAMS;
            let entry = match self.streams.get_mut(&stream.id) {
                Some(entry) => entry,
                None if kind.is_alarm() && room => self.streams.entry(stream.id).or_insert(Entry {
                    told: Told::default(),
                    now: VerdictKind::Healthy,
                    seen: 0,
                }),
                None => continue,
            };
            entry.seen = self.looks;
            let changed = if kind.is_alarm() { kind != entry.now } else { entry.now.is_alarm() };
            if !changed {
                continue;
            }
            entry.now = kind;
            if entry.told.notes.len() == KEPT {
                entry.told.dropped += 1;
                continue;
            }
            let verdict = judge.verdict(stream);
            entry.told.notes.push(Note {
                at: shot.taken_at.minus_ns(0),
                since: shot.taken_at.minus_ns(verdict.since_ns),
                verdict,
            });
        }
        // Of one that ended, the span is made at this look or the next; those
        // whose spans were dropped are forgotten.
        let looks = self.looks;
        self.streams.retain(|id, entry| live.contains(id) || looks - entry.seen <= FORGET_AFTER);
    }

    /// What was noted of a stream that has ended.
    pub fn take(&mut self, id: StreamId) -> Told {
        self.streams.remove(&id).map(|entry| entry.told).unwrap_or_default()
    }
}

/// Looks after which a stream that is neither alive nor taken is forgotten:
/// longer than a receiver that hangs may hold the queue up.
const FORGET_AFTER: u64 = 60;
