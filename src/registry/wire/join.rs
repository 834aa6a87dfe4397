//! Which HTTP/2 stream is which call, on a server.
//!
//! h2 hands requests over in the order of their HEADERS, and hyper calls the
//! service for each before it asks for the next. So the ids that the tap reads
//! and the calls that the service takes are the same row, but for the streams
//! that h2 keeps to itself: refused above SETTINGS_MAX_CONCURRENT_STREAMS (RST
//! REFUSED_STREAM), too large (answered 431), malformed (RST PROTOCOL_ERROR),
//! or above a GOAWAY of ours (ignored).
//!
//! How many those are is exact: when the connection has read all that came and
//! waits for more ("calm"), every other id has its call. Which they are, the
//! frames that we write for them tell. Until both are known the row is open
//! and the numbers of its calls can still move; then it is settled.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Weak};

/// A call that can be told its stream id, and told anew.
pub trait Numbered: fmt::Debug + Send + Sync {
    /// Its HTTP/2 stream id; 0 if it is not known after all.
    fn number(&self, id: u32);
}

/// What our first frame for a stream says of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Answer {
    /// There was none.
    #[default]
    None,
    /// The service has had it.
    Ours,
    /// As h2 answers what it keeps to itself, and as a call may end too.
    Maybe,
    /// As only h2 answers what it keeps to itself.
    Kept,
}

struct Waiting {
    id: u32,
    answer: Answer,
}

/// The row that is not settled yet.
#[derive(Default)]
pub struct Join {
    ids: VecDeque<Waiting>,
    /// In the order in which the service was called; `None` for what is no gRPC.
    calls: VecDeque<Option<Weak<dyn Numbered>>>,
    /// Where in `ids` the next call finds its own.
    next: usize,
    /// Nothing can be told any more.
    off: bool,
}

impl fmt::Debug for Join {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Join")
            .field("ids", &self.ids.len())
            .field("calls", &self.calls.len())
            .field("off", &self.off)
            .finish()
    }
}

/// Ids that wait for their call at most. h2 takes at once what comes, so only
/// what lies in one read and in a queue of 431 answers waits.
const LIMIT: usize = 16_384;

/// A call and its number, to be told outside of the lock.
pub type Told = (Arc<dyn Numbered>, u32);

impl Join {
    /// A request's header block is complete.
    pub fn arrived(&mut self, id: u32) {
        if self.ids.len() >= LIMIT {
            self.give_up();
        }
        if !self.off {
            self.ids.push_back(Waiting { id, answer: Answer::None });
        }
    }

    /// The service is called. The id, as far as is known now.
    pub fn called(&mut self, call: Option<Weak<dyn Numbered>>) -> Option<u32> {
        if self.off {
            return None;
        }
        self.calls.push_back(call);
        if self.calls.len() > LIMIT {
            self.give_up();
            return None;
        }
        self.take_next()
    }

    fn take_next(&mut self) -> Option<u32> {
        while let Some(waiting) = self.ids.get(self.next) {
            self.next += 1;
            if waiting.answer != Answer::Kept {
                return Some(waiting.id);
            }
        }
        None
    }

    /// Our first frame for a stream passed.
    pub fn answered(&mut self, id: u32, answer: Answer, told: &mut Vec<Told>) {
        // Ids only ever grow.
        let Ok(at) = self.ids.binary_search_by_key(&id, |waiting| waiting.id) else { return };
        if self.ids[at].answer != Answer::None {
            return;
        }
        if answer == Answer::Kept {
            self.keep(at, told);
        } else {
            self.ids[at].answer = answer;
        }
    }

    /// The id at this place has no call: those behind it move up.
    fn keep(&mut self, at: usize, told: &mut Vec<Told>) {
        self.ids[at].answer = Answer::Kept;
        if at >= self.next {
            return;
        }
        let before = self.ids.iter().take(at).filter(|id| id.answer != Answer::Kept).count();
        let ids = self.ids.iter().skip(at).filter(|id| id.answer != Answer::Kept);
        let ids = ids.map(|waiting| waiting.id).chain(std::iter::repeat(0));
        for (call, id) in self.calls.iter().skip(before).zip(ids) {
            if let Some(call) = call.as_ref().and_then(Weak::upgrade) {
                told.push((call, id));
            }
        }
        self.take_next();
    }

    /// How many ids have no call.
    fn excess(&self) -> usize {
        let kept = self.ids.iter().filter(|id| id.answer == Answer::Kept).count();
        (self.ids.len() - kept).saturating_sub(self.calls.len())
    }

    /// The connection has read all there was, and called for all it hands
    /// over. `last` is what our GOAWAY, if there was one, still serves.
    /// Once the row is settled, `settled` is called with each id and whether a
    /// call that we follow has it.
    pub fn calm(
        &mut self,
        last: Option<u32>,
        told: &mut Vec<Told>,
        mut settled: impl FnMut(u32, bool),
    ) {
        let mut excess = self.excess();
        // Those that only a count can tell.
        for at in 0..self.ids.len() {
            if excess == 0 {
                break;
            }
            let waiting = &self.ids[at];
            let ignored = last.is_some_and(|last| waiting.id > last);
            if waiting.answer == Answer::Maybe || (ignored && waiting.answer == Answer::None) {
                self.keep(at, told);
                excess -= 1;
            }
        }
        if excess > 0 {
            return;
        }
        self.next = 0;
        let mut calls = self.calls.drain(..);
        for waiting in self.ids.drain(..) {
            let joined =
                waiting.answer != Answer::Kept && calls.next().is_some_and(|c| c.is_some());
            settled(waiting.id, joined);
        }
    }

    /// The row is open.
    pub fn is_open(&self) -> bool {
        !self.ids.is_empty() || !self.calls.is_empty()
    }

    fn give_up(&mut self) {
        self.off = true;
        self.ids.clear();
        self.calls.clear();
        self.next = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    #[derive(Debug, Default)]
    struct Call(AtomicU32);

    impl Numbered for Call {
        fn number(&self, id: u32) {
            self.0.store(id, Relaxed);
        }
    }

    #[derive(Default)]
    struct Row {
        join: Join,
        calls: Vec<Arc<Call>>,
    }

    impl Row {
        fn with(ids: &[u32], calls: usize) -> Self {
            let mut row = Self::default();
            ids.iter().for_each(|id| row.join.arrived(*id));
            (0..calls).for_each(|_| row.call());
            row
        }

        fn call(&mut self) {
            let call = Arc::new(Call::default());
            let weak: Arc<dyn Numbered> = call.clone();
            let id = self.join.called(Some(Arc::downgrade(&weak)));
            call.number(id.unwrap_or(0));
            self.calls.push(call);
        }

        fn answered(&mut self, id: u32, answer: Answer) {
            let mut told = Vec::new();
            self.join.answered(id, answer, &mut told);
            told.into_iter().for_each(|(call, id)| call.number(id));
        }

        /// The settled ids that have a call.
        fn calm(&mut self, last: Option<u32>) -> Vec<u32> {
            let (mut told, mut joined) = (Vec::new(), Vec::new());
            self.join.calm(last, &mut told, |id, has| joined.extend(has.then_some(id)));
            told.into_iter().for_each(|(call, id)| call.number(id));
            joined
        }

        fn numbers(&self) -> Vec<u32> {
            self.calls.iter().map(|call| call.0.load(Relaxed)).collect()
        }
    }

    #[test]
    fn calls_take_ids_in_their_order() {
        let mut row = Row::with(&[1, 3, 5], 3);
        assert_eq!(row.numbers(), [1, 3, 5]);
        assert_eq!(row.calm(None), [1, 3, 5]);
        assert!(!row.join.is_open());
        // What comes later touches settled ones no more.
        row.answered(3, Answer::Kept);
        assert_eq!(row.numbers(), [1, 3, 5]);
    }

    #[test]
    fn a_refused_stream_shifts_those_behind_it() {
        let mut row = Row::with(&[1, 3, 5, 7], 3);
        assert_eq!(row.numbers(), [1, 3, 5]);
        assert!(row.calm(None).is_empty(), "one has no call, and which is not known");
        row.answered(3, Answer::Kept);
        assert_eq!(row.numbers(), [1, 5, 7]);
        row.answered(7, Answer::Maybe);
        assert_eq!(row.calm(None), [1, 5, 7], "a reset of a call that was handed over");
    }

    #[test]
    fn one_refused_before_its_turn_is_passed_over() {
        let mut row = Row::with(&[1, 3, 5], 1);
        row.answered(3, Answer::Kept);
        row.call();
        assert_eq!((row.numbers(), row.calm(None)), (vec![1, 5], vec![1, 5]));
    }

    #[test]
    fn a_malformed_one_is_told_by_the_count() {
        let mut row = Row::with(&[1, 3, 5], 2);
        row.answered(1, Answer::Maybe);
        assert_eq!(row.numbers(), [1, 3], "it may have been a call");
        assert_eq!(row.calm(None), [3, 5]);
        assert_eq!(row.numbers(), [3, 5]);
        // With a call for each, the same answer is a call's.
        let mut row = Row::with(&[1, 3], 2);
        row.answered(1, Answer::Maybe);
        assert_eq!(row.calm(None), [1, 3]);
    }

    #[test]
    fn those_above_a_goaway_of_ours_are_ignored() {
        let mut row = Row::with(&[1, 3, 5], 2);
        assert_eq!(row.calm(Some(3)), [1, 3]);
    }

    #[test]
    fn a_row_that_never_settles_is_given_up() {
        let mut row = Row::default();
        (0..=LIMIT as u32).for_each(|id| row.join.arrived(id * 2 + 1));
        row.call();
        assert_eq!(row.numbers(), [0]);
        assert!(!row.join.is_open());
    }
}
