//! One task's futures: the chain that it polls, and what it keeps beside it.
//!
//! Two ways to look at a value. *Polled*: the task polls it, so what is found
//! waiting below is what the task waits for. *Kept*: a live local that is not
//! awaited; its guards count, and a future in it that has begun and that the
//! polled chain never reached is dormant.

use std::num::NonZeroU32;
use std::rc::Rc;
use std::sync::Arc;

use super::Limits;
use super::coroutine::{CoStage, Coroutine, Scope};
use super::fields::active;
use super::frames::FrameId;
use super::hash::NumberMap;
use super::holds::Hold;
use super::plan::{Manner, Node, Part, Plans};
use super::semaphores::Semaphores;
use super::tokio::MESSAGE_SHIFT;
use super::trace::{Kept, Level, NO_LEVEL, RawHeld, RawWait, Tip, Trace, clipped};
use crate::debuginfo::layout::{Layouts, MERGED, TypeId};
use crate::inspect::image::Cached;
use crate::model::{HeldKind, WaitKind};

/// Values looked at for one task: a hostile image must not hold us up.
pub(super) const STEPS: u32 = 100_000;

/// Names of types.
type Names = Rc<[Arc<str>]>;

/// What a vtable says of the value behind it.
#[derive(Clone)]
pub struct Behind {
    ty: TypeId,
    /// Names of the types of which it may be as well.
    others: Names,
}

impl Behind {
    fn of(layouts: &mut dyn Layouts, vtable: u64) -> Option<Self> {
        let types = layouts.behind(vtable);
        if let [ty] = types[..] {
            return Some(Self { ty, others: Rc::default() });
        }
        // A type that nobody polls is no rival to one that is polled.
        let polls = |&ty: &TypeId| Some((ty, layouts.polled(ty)?.function.clone()));
        let mut polled = types.iter().filter_map(polls);
        let ty = polled.next().map_or_else(|| types.first().copied(), |(ty, _)| Some(ty))?;
        let mut others: Vec<_> = polled.map(|(_, function)| function).collect();
        if types.len() > MERGED {
            others.truncate(MERGED);
            others.push("others".into());
        }
        Some(Self { ty, others: others.into() })
    }
}

/// What all tasks of one reading share.
pub struct Walker<'w, 'a> {
    pub memory: &'w mut Cached<'a>,
    pub plans: &'w mut Plans<'a>,
    pub semaphores: &'w mut Semaphores,
    pub bias: u64,
    pub limits: &'w Limits,
    pub trace: &'w mut Trace,
    pub behind: &'w mut NumberMap<u64, Option<Behind>>,
    /// The level that is being looked at.
    pub level: u32,
    pub depth: u32,
    pub steps: u32,
    /// What is polled now is not polled by the task any more.
    pub dormant: bool,
    /// The task has not been woken since its last poll.
    pub idle: bool,
    /// Not owned by what is looked at: its owner tells what it holds.
    pub(super) borrowed: bool,
    pub(super) doubtful: bool,
    pub(super) local: Option<Arc<str>>,
    /// The local that keeps what is dormant.
    pub(super) keeper: Option<Arc<str>>,
    /// How many of the addresses reached are in order.
    pub(super) sorted: usize,
}

impl<'w, 'a> Walker<'w, 'a> {
    #[allow(clippy::too_many_arguments)] // the parts of one reading
    pub fn new(
        memory: &'w mut Cached<'a>,
        plans: &'w mut Plans<'a>,
        semaphores: &'w mut Semaphores,
        bias: u64,
        limits: &'w Limits,
        trace: &'w mut Trace,
        behind: &'w mut NumberMap<u64, Option<Behind>>,
    ) -> Self {
        trace.clear();
        Self {
            memory,
            plans,
            semaphores,
            bias,
            limits,
            trace,
            behind,
            level: NO_LEVEL,
            depth: 0,
            steps: 0,
            dormant: false,
            idle: true,
            borrowed: false,
            doubtful: false,
            local: None,
            keeper: None,
            sorted: 0,
        }
    }

    /// Walks a task's future. `idle`: it has not been woken since its last poll.
    pub fn task(&mut self, future: TypeId, at: u64, idle: bool) {
        self.idle = idle;
        let node = self.plans.node(future);
        self.poll(&node, at);
        self.sort_reached();
        // Locals of dormant futures come behind those that led to them.
        let mut next = 0;
        while next < self.trace.kept.len() {
            self.keep_locals(next);
            next += 1;
            self.sort_reached();
        }
    }

    /// Looks at a value that is polled. What each kind of value needs is in a
    /// function of its own: this one is on the stack once a level, and without
    /// optimisation it would have room for all of them at once.
    pub(super) fn poll(&mut self, node: &Rc<Node>, at: u64) {
        if !self.enter() {
            return;
        }
        match &**node {
            Node::Skip => {}
            Node::Leaf { frame, leaf, also } => {
                if let Some(hold) = also {
                    self.hold(hold, at);
                }
                self.trace.reached.push(at);
                self.leaf(*frame, leaf, at);
            }
            Node::Hold(hold) => self.hold(hold, at),
            Node::Coroutine(coroutine) => self.poll_coroutine(node, coroutine, at),
            Node::Future { frame, scope, manner, inside } => {
                self.poll_future(*frame, *scope, *manner, inside, at);
            }
            Node::Timeout { frame, deadline, parts } => {
                self.poll_timeout(*frame, *deadline, parts, at);
            }
            Node::Parts(parts) => self.poll_parts(parts, at),
            Node::Enum { variants, parts } => {
                if let Some(active) = active(self.memory, at, variants) {
                    self.poll_parts(&parts[active], at);
                }
            }
            Node::Pointer { owns, to } => self.poll_pointer(*to, *owns, at),
            Node::Dyn { owns, data, vtable } => self.poll_dyn(*data, *vtable, *owns, at),
            Node::Slice { data, length, of, stride } => {
                let elements = self.elements(at, *data, *length, *stride);
                self.poll_each(*of, elements);
            }
            Node::Array { of, count, stride } => {
                let elements = self.array(at, *count, *stride);
                self.poll_each(*of, elements);
            }
            Node::Unordered { frame, head, next, future } => {
                self.poll_unordered(*frame, (*head, *next), future, at);
            }
            Node::Select { disabled, size, futures, branches } => {
                self.poll_select((*disabled, *size), *futures, branches, at);
            }
            Node::LocalSet { owned, parts } => {
                self.local_set(owned, at);
                self.poll_parts(parts, at);
            }
        }
        self.leave();
    }

    fn poll_future(
        &mut self,
        frame: FrameId,
        scope: Scope,
        manner: Manner,
        inside: &Rc<Node>,
        at: u64,
    ) {
        self.trace.reached.push(at);
        let before = self.trace.tips.len();
        let outer = self.push(frame, scope, None);
        match &**inside {
            Node::Parts(parts) if manner == Manner::Alternates => {
                self.poll_item_or_stream(parts, at);
            }
            _ => self.poll(inside, at),
        }
        self.settle(manner, inside, before);
        self.level = outer;
    }

    fn poll_timeout(
        &mut self,
        frame: Option<FrameId>,
        deadline: Option<u64>,
        parts: &[Part],
        at: u64,
    ) {
        self.trace.reached.push(at);
        let before = self.trace.tips.len();
        let outer = self.level;
        if let Some(frame) = frame {
            self.push(frame, Scope::Tokio, None);
        }
        self.poll_parts(parts, at);
        if self.trace.tips.len() == before {
            self.tip(Some(RawWait::new(WaitKind::Unknown, None)));
        }
        let deadline = deadline.and_then(|offset| self.instant(at.wrapping_add(offset)));
        for tip in &mut self.trace.tips[before..] {
            if let Some(wait) = &mut tip.wait {
                wait.deadline = wait.deadline.or(deadline);
            }
        }
        self.level = outer;
    }

    fn poll_pointer(&mut self, to: TypeId, owns: bool, at: u64) {
        if let Some(target) = self.target(at) {
            let node = self.plans.node(to);
            self.poll_behind(&node, target, owns);
        }
    }

    fn poll_dyn(&mut self, data: u64, vtable: u64, owns: bool, at: u64) {
        let Some((node, target, others)) = self.behind(at, data, vtable) else { return };
        let room = self.limits.list.saturating_sub(self.trace.or_one_of.len());
        self.trace.or_one_of.extend(others.iter().take(room).cloned());
        self.poll_behind(&node, target, owns);
    }

    pub(super) fn poll_parts(&mut self, parts: &[Part], at: u64) {
        for part in parts {
            let node = self.plans.node(part.ty);
            let outer = self.local.replace(part.name.clone());
            self.poll(&node, at.wrapping_add(part.offset));
            self.local = outer;
        }
    }

    fn poll_behind(&mut self, node: &Rc<Node>, target: u64, owns: bool) {
        self.trace.reached.push(target);
        let outer = self.borrowed;
        self.borrowed |= !owns;
        self.poll(node, target);
        self.borrowed = outer;
    }

    fn poll_coroutine(&mut self, node: &Rc<Node>, coroutine: &Coroutine, at: u64) {
        let Some(index) = active(self.memory, at, &coroutine.variants) else { return };
        let state = &coroutine.states[index];
        self.trace.reached.push(at);
        if state.stage == CoStage::Done {
            return;
        }
        let before = self.trace.tips.len();
        let outer = self.push(state.frame, coroutine.scope, Some((node.clone(), index, at)));
        if !state.locals.is_empty() {
            let (level, dormant) = (self.level, self.dormant);
            let coroutine = node.clone();
            let keeper = self.keeper.clone();
            self.trace.kept.push(Kept { level, coroutine, state: index, at, dormant, keeper });
        }
        if state.stage == CoStage::Unresumed {
            self.tip(None);
        } else if coroutine.scope == Scope::Yield {
            self.tip(Some(RawWait::new(WaitKind::Yield, None)));
        } else {
            if let Some(awaitee) = &state.awaitee {
                self.poll_parts(std::slice::from_ref(awaitee), at);
            }
            if self.trace.tips.len() == before {
                self.tip(Some(RawWait::new(WaitKind::Unknown, None)));
            }
        }
        self.level = outer;
    }

    /// Ends a hand-written future, given what was found in it.
    fn settle(&mut self, manner: Manner, inside: &Node, before: usize) {
        let found = self.trace.tips.len() - before;
        if found == 0 {
            let ends = matches!(manner, Manner::Combines | Manner::Alternates);
            let is_done = ends && !matches!(inside, Node::Skip);
            if !is_done {
                self.tip(Some(RawWait::new(WaitKind::Unknown, None)));
            }
        } else if found > 1 && manner != Manner::Waits {
            self.drop_unknown(before);
        }
    }

    /// Of several places where a library's future may wait, those that say
    /// nothing and are of no code of the program's are left out.
    fn drop_unknown(&mut self, before: usize) {
        let known = |wait: Option<RawWait>| wait.is_some_and(|wait| wait.kind != WaitKind::Unknown);
        if !self.trace.tips[before..].iter().any(|tip| known(tip.wait)) {
            return;
        }
        let new = self.trace.tips.split_off(before);
        for tip in new {
            let frames = self.trace.frames(tip.level, self.level);
            let begun = tip.wait.is_some();
            if known(tip.wait)
                || begun && frames.iter().any(|&frame| self.plans.frames.is_user(frame))
            {
                self.trace.tips.push(tip);
            }
        }
    }

    /// Notes something held.
    pub fn hold(&mut self, hold: &Hold, at: u64) {
        if self.borrowed || self.trace.holds.len() >= self.limits.list {
            return;
        }
        let Some(resource) = hold.route.follow(self.memory, at) else { return };
        if let Some((offset, size)) = hold.permits
            && self.memory.number(at.wrapping_add(offset), size).is_ok_and(|permits| permits == 0)
        {
            return;
        }
        let messages = if hold.counts { self.memory.word(resource).ok() } else { None };
        let messages = messages.map(|word| clipped(word >> MESSAGE_SHIFT));
        self.note(hold.kind, resource, messages.and_then(NonZeroU32::new));
        if let (Some(most), Some(held)) = (hold.most, self.trace.holds.last_mut()) {
            let most = self.memory.number(resource.wrapping_add_signed(most), 4).ok();
            held.most = most.and_then(|most| u32::try_from(most).ok());
        }
    }

    pub fn note(&mut self, kind: HeldKind, resource: u64, backlog: Option<NonZeroU32>) {
        let named = |local: &&Arc<str>| !local.is_empty() && !local.starts_with("__");
        let keeper = self.keeper.as_ref().filter(|_| self.dormant);
        // What has no name of its own is named after what keeps its future.
        let local = self.local.as_ref().filter(named).or_else(|| keeper.filter(named)).cloned();
        let (level, dormant) = (self.level, self.dormant);
        // A once cell's function gives its permit on when the initialiser has
        // ended, so there is a flag; while it awaits that one, it has it.
        let here = self.trace.levels.get(level as usize);
        let doubtful = self.doubtful && here.is_none_or(|here| here.scope != Scope::OnceCell);
        let most = None;
        let held = RawHeld { kind, resource, local, level, dormant, doubtful, most, backlog };
        self.trace.holds.push(held);
    }

    /// Ends a chain here.
    pub fn tip(&mut self, wait: Option<RawWait>) {
        if self.trace.tips.len() >= self.limits.branches {
            self.trace.cut = true;
            return;
        }
        self.trace.tips.push(Tip { level: self.level, wait, dormant: self.dormant });
    }

    /// Goes one level inward and returns the one it came from.
    pub fn push(
        &mut self,
        frame: FrameId,
        scope: Scope,
        coroutine: Option<(Rc<Node>, usize, u64)>,
    ) -> u32 {
        let outer = self.level;
        if self.trace.levels.len() >= self.limits.frames {
            self.trace.cut = true;
            return outer;
        }
        self.level = self.trace.levels.len() as u32;
        self.trace.levels.push(Level { parent: outer, frame, scope, coroutine });
        outer
    }

    pub(super) fn enter(&mut self) -> bool {
        self.steps += 1;
        if self.depth >= self.limits.depth || self.steps > STEPS {
            self.trace.cut = true;
            return false;
        }
        self.depth += 1;
        true
    }

    pub(super) fn leave(&mut self) {
        self.depth -= 1;
    }

    fn sort_reached(&mut self) {
        self.trace.reached.sort_unstable();
        self.sorted = self.trace.reached.len();
    }

    pub(super) fn is_reached(&self, at: u64) -> bool {
        let (sorted, fresh) = self.trace.reached.split_at(self.sorted);
        sorted.binary_search(&at).is_ok() || fresh.contains(&at)
    }

    pub(super) fn target(&mut self, at: u64) -> Option<u64> {
        self.memory.word(at).ok().filter(|&target| target != 0)
    }

    /// What a fat pointer to a `dyn` points at;
    /// and, where equal vtables were merged, what it may be as well.
    pub(super) fn behind(
        &mut self,
        at: u64,
        data: u64,
        vtable: u64,
    ) -> Option<(Rc<Node>, u64, Names)> {
        let target = self.target(at.wrapping_add(data))?;
        let vtable = self.target(at.wrapping_add(vtable))?.wrapping_sub(self.bias);
        let layouts = &mut *self.plans.types.layouts;
        let Behind { ty, others } =
            self.behind.entry(vtable).or_insert_with(|| Behind::of(layouts, vtable)).clone()?;
        Some((self.plans.node(ty), target, others))
    }

    pub(super) fn local_set(&mut self, owned: &super::tokio::OwnedList, at: u64) {
        if let Some(address) = owned.route.follow(self.memory, at) {
            self.trace.local_sets.push((address, owned.clone()));
        }
    }
}
