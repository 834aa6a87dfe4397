//! What is found of one task, before it is made readable.

use std::num::NonZeroU32;
use std::rc::Rc;
use std::sync::Arc;

use super::coroutine::Scope;
use super::frames::FrameId;
use super::plan::Node;
use crate::model::{HeldKind, WaitKind};

/// No level.
pub const NO_LEVEL: u32 = u32::MAX;

/// Something on the way from the task's root to where it waits.
pub struct Level {
    /// `NO_LEVEL` for the root.
    pub parent: u32,
    pub frame: FrameId,
    pub scope: Scope,
    /// If it is a coroutine: its plan, its state and where it is.
    pub coroutine: Option<(Rc<Node>, usize, u64)>,
}

/// Where a chain ends.
pub struct Tip {
    pub level: u32,
    pub wait: Option<RawWait>,
    pub dormant: bool,
}

/// What is waited for, before it is made readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawWait {
    pub kind: WaitKind,
    pub resource: Option<u64>,
    /// Header of the task that is joined.
    pub joins: Option<u64>,
    /// Monotonic clock, nanoseconds.
    pub deadline: Option<i128>,
    pub fd: Option<i32>,
    pub queue: Option<u64>,
    pub senders: Option<u64>,
    /// Of a counter that moves on when such a wait ends; 0 for none.
    pub mark: u64,
    /// How many stand before it in a first-come queue.
    pub ahead: Option<u32>,
    pub detail: RawDetail,
}

/// Words that go with a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RawDetail {
    None,
    /// Permits wanted, permits free.
    Permits(u64, u64),
    /// Has been given what it waited for.
    Granted,
    /// Tasks left in a set.
    Tasks(u64),
    /// Waits until the other end is gone.
    Closed,
    /// Waits for readable and writable at once.
    Either,
    /// For a message of a request that this process serves.
    Request,
    /// For a message of a response to a call that it has made.
    Response,
}

impl RawWait {
    pub fn new(kind: WaitKind, resource: Option<u64>) -> Self {
        let (joins, deadline, fd, queue, senders) = (None, None, None, None, None);
        let (mark, ahead, detail) = (0, None, RawDetail::None);
        Self { kind, resource, joins, deadline, fd, queue, senders, mark, ahead, detail }
    }
}

/// A count that no queue reaches: what is more was no count.
pub fn clipped(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Something held, before it is made readable.
#[derive(Clone, Debug)]
pub struct RawHeld {
    pub kind: HeldKind,
    pub resource: u64,
    pub local: Option<Arc<str>>,
    pub level: u32,
    pub dormant: bool,
    /// The compiler keeps a flag that some local of this frame has been moved
    /// away, and it may be this one.
    pub doubtful: bool,
    /// Of a guard for reading: how many such its lock lets out.
    pub most: Option<u32>,
    /// As in [`Held::backlog`](crate::model::Held::backlog).
    pub backlog: Option<NonZeroU32>,
}

/// Locals to look through once the polled chain is known.
pub struct Kept {
    pub level: u32,
    pub coroutine: Rc<Node>,
    pub state: usize,
    pub at: u64,
    pub dormant: bool,
    pub keeper: Option<Arc<str>>,
}

/// What was found of one task.
#[derive(Default)]
pub struct Trace {
    pub levels: Vec<Level>,
    pub tips: Vec<Tip>,
    pub holds: Vec<RawHeld>,
    /// Addresses of lists of tasks that belong to a `LocalSet`.
    pub local_sets: Vec<(u64, super::tokio::OwnedList)>,
    /// A bound ended the walk.
    pub cut: bool,
    /// Addresses of what the polled chain went through.
    pub reached: Vec<u64>,
    /// In the order met.
    pub kept: Vec<Kept>,
    /// What else the chain may lead through, where vtables were merged.
    pub or_one_of: Vec<Arc<str>>,
}

impl Trace {
    pub fn clear(&mut self) {
        self.levels.clear();
        self.tips.clear();
        self.holds.clear();
        self.local_sets.clear();
        self.reached.clear();
        self.kept.clear();
        self.or_one_of.clear();
        self.cut = false;
    }

    /// Frames of a level and of those around it, outermost first, down from
    /// but without `above`.
    pub fn frames(&self, level: u32, above: u32) -> Vec<FrameId> {
        let mut frames = Vec::new();
        let mut at = level;
        while at != above
            && let Some(level) = self.levels.get(at as usize)
        {
            frames.push(level.frame);
            at = level.parent;
        }
        frames.reverse();
        frames
    }
}
