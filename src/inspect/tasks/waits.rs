//! What a chain's last future waits for.

use super::coroutine::{CoState, Scope};
use super::fields::{Route, active};
use super::frames::FrameId;
use super::leaves::{Leaf, Socket};
use super::plan::Node;
use super::trace::{RawDetail, RawWait};
use super::walk::Walker;
use crate::model::{HeldKind, WaitKind};

/// mio's and tokio's bits of `Interest`.
const READABLE: u64 = 1;
const WRITABLE: u64 = 2;
/// `Notify` keeps its count of calls above two bits of state.
const CALLS_SHIFT: u32 = 2;
const NANOS: i128 = 1_000_000_000;

impl Walker<'_, '_> {
    /// Ends the chain at a future of tokio's, if that waits.
    pub(super) fn leaf(&mut self, frame: Option<FrameId>, leaf: &Leaf, at: u64) {
        let outer = self.level;
        if let Some(frame) = frame {
            self.push(frame, Scope::Tokio, None);
        }
        if let Some(wait) = self.wait(leaf, at) {
            self.tip(Some(wait));
        }
        self.level = outer;
    }

    /// Whether a leaf that is not polled has joined a queue before.
    pub(super) fn has_begun(&mut self, leaf: &Leaf, at: u64) -> bool {
        match leaf {
            Leaf::Acquire { semaphore, node, queued, .. } => {
                let flag = self.memory.number(at.wrapping_add(*queued), 1);
                let address = semaphore.follow(self.memory, at);
                let node = at.wrapping_add(*node);
                flag.is_ok_and(|flag| flag == 1)
                    && address.and_then(|at| self.semaphores.get(self.memory, at)).is_some_and(
                        |semaphore| semaphore.queue.contains_key(&node) || semaphore.free == 0,
                    )
            }
            Leaf::Notified { state, states, .. } => {
                active(self.memory, at.wrapping_add(*state), states)
                    .is_some_and(|index| &*states.list[index].name == "Waiting")
            }
            _ => false,
        }
    }

    fn wait(&mut self, leaf: &Leaf, at: u64) -> Option<RawWait> {
        let plain = |kind, resource| Some(RawWait::new(kind, resource));
        match leaf {
            Leaf::Acquire { semaphore, node, lacks, wanted, queued } => {
                let resource = semaphore.follow(self.memory, at)?;
                let mut number = |offset: &u64, size| {
                    self.memory.number(at.wrapping_add(*offset), size).unwrap_or(0)
                };
                let (queued, lacks, wanted) =
                    (number(queued, 1) == 1, number(lacks, 8), number(wanted, 8));
                self.acquire(resource, at.wrapping_add(*node), queued, lacks, wanted)
            }
            Leaf::MpscRecv { channel, waker, senders, sent } => {
                let resource = channel.follow(self.memory, at)?;
                let waits = match waker {
                    Some(waker) => {
                        let place = waker.follow(self.memory, at)?;
                        self.memory.word(place).is_ok_and(|vtable| vtable != 0)
                    }
                    None => true,
                };
                // `recv` itself has nothing else to wait for.
                let by_recv = self.scope() == Some(Scope::MpscSend);
                if !waits && !by_recv {
                    return None;
                }
                let senders = senders.as_ref().and_then(|(chan, senders)| {
                    let chan = chan.follow(self.memory, at)?;
                    senders.read(self.memory, chan)
                });
                let sent = sent.as_ref().and_then(|sent| sent.follow(self.memory, at));
                let mark = self.mark(sent);
                Some(RawWait { senders, mark, ..RawWait::new(WaitKind::MpscRecv, Some(resource)) })
            }
            Leaf::Oneshot { inner } => {
                plain(WaitKind::Oneshot, Some(inner.follow(self.memory, at)?))
            }
            Leaf::Notified { notify, state, states, calls } => {
                let index = active(self.memory, at.wrapping_add(*state), states)?;
                if &*states.list[index].name == "Done" {
                    return None;
                }
                let notify = notify.follow(self.memory, at)?;
                // Below the count: whether anybody waits, or a permit is there.
                let mark = self.mark(calls.map(|calls| notify.wrapping_add(calls))) >> CALLS_SHIFT;
                Some(RawWait { mark, ..self.notified(notify) })
            }
            Leaf::Broadcast { shared, senders, position } => {
                let shared = shared.follow(self.memory, at)?;
                let senders = senders.and_then(|senders| senders.read(self.memory, shared));
                let mark = self.mark(position.map(|position| shared.wrapping_add(position)));
                Some(RawWait { senders, mark, ..RawWait::new(WaitKind::Broadcast, Some(shared)) })
            }
            Leaf::Join { header } => {
                let header = header.follow(self.memory, at)?;
                let joins = Some(header);
                Some(RawWait { joins, ..RawWait::new(WaitKind::Join, Some(header)) })
            }
            Leaf::JoinSet { length } => {
                let length = self.memory.word(at.wrapping_add(*length)).ok()?;
                let detail = RawDetail::Tasks(length);
                (length > 0).then(|| RawWait { detail, ..RawWait::new(WaitKind::Join, None) })
            }
            Leaf::Sleep { deadline } => {
                let deadline = self.instant(at.wrapping_add(*deadline));
                // Moved on by each round of a timer.
                let mark = deadline.map_or(0, |deadline| deadline as u64);
                Some(RawWait { deadline, mark, ..RawWait::new(WaitKind::Sleep, None) })
            }
            Leaf::Socket(socket) => self.socket(socket, at),
            Leaf::Readiness { io, tick, interest } => {
                let io = io.follow(self.memory, at)?;
                let interest = interest.map_or(READABLE, |offset| {
                    self.memory.number(at.wrapping_add(offset), 1).unwrap_or(READABLE)
                });
                let kind = match interest & READABLE {
                    0 if interest & WRITABLE != 0 => WaitKind::SocketWrite,
                    _ => WaitKind::SocketRead,
                };
                let fd = self.descriptor(io);
                let mark = self.mark(tick.map(|tick| io.wrapping_add(tick)));
                Some(RawWait { fd, mark, ..RawWait::new(kind, Some(io)) })
            }
            Leaf::GrpcMessage { direction } => {
                let of = direction.as_ref().and_then(|(offset, variants)| {
                    let which = active(self.memory, at.wrapping_add(*offset), variants)?;
                    Some(&*variants.list[which].name)
                });
                let detail = match of {
                    Some("Request") => RawDetail::Request,
                    Some(_) => RawDetail::Response,
                    None => RawDetail::None,
                };
                Some(RawWait { detail, ..RawWait::new(WaitKind::GrpcMessage, Some(at)) })
            }
        }
    }

    fn acquire(
        &mut self,
        resource: u64,
        node: u64,
        queued: bool,
        lacks: u64,
        wanted: u64,
    ) -> Option<RawWait> {
        let scope = self.scope();
        let (wait, held) = match scope {
            Some(Scope::Mutex) => (WaitKind::Mutex, HeldKind::Mutex),
            Some(Scope::RwLockRead) => (WaitKind::RwLockRead, HeldKind::RwLockRead),
            Some(Scope::RwLockWrite) => (WaitKind::RwLockWrite, HeldKind::RwLockWrite),
            Some(Scope::MpscSend) => (WaitKind::MpscSend, HeldKind::Permit),
            Some(Scope::OnceCell) => (WaitKind::OnceCell, HeldKind::Permit),
            _ => (WaitKind::Semaphore, HeldKind::Permit),
        };
        let mut raw = RawWait::new(wait, Some(resource));
        let semaphore = self.semaphores.get(self.memory, resource)?;
        if wait == WaitKind::MpscSend {
            let sent = self.around(|state| Some((state.sent.as_ref()?, ())));
            raw.mark = self.mark(sent.map(|(sent, ())| sent));
        }
        let after = semaphore.queue.get(&node).copied();
        if after.is_some() || semaphore.cut {
            let last = u32::try_from(semaphore.queue.len()).unwrap_or(u32::MAX).saturating_sub(1);
            raw.ahead = after.filter(|_| !semaphore.cut).map(|after| last.saturating_sub(after));
            raw.queue = Some(semaphore.queue.len() as u64);
            if wait == WaitKind::Semaphore {
                raw.detail = RawDetail::Permits(wanted, semaphore.free);
            }
        } else if queued && lacks == 0 {
            // Handed over, and held from now on. That woke the task; if it is
            // idle all the same, it does not poll this future any more, and
            // waits for something else.
            raw.detail = RawDetail::Granted;
            let outer = self.dormant;
            if self.idle {
                self.dormant = true;
                raw.kind = if outer { wait } else { WaitKind::Unknown };
            }
            self.note(held, resource, None);
            self.dormant = outer;
        }
        Some(raw)
    }

    /// What stands behind a `Notify`: it may be a part of something else.
    fn notified(&mut self, notify: u64) -> RawWait {
        match self.scope() {
            Some(Scope::Watch) => {
                let watched = self.around(|state| Some((state.subject.as_ref()?, state.senders)));
                let Some((shared, senders)) = watched else {
                    return RawWait::new(WaitKind::Watch, Some(notify));
                };
                let senders = senders.and_then(|senders| senders.read(self.memory, shared));
                RawWait { senders, ..RawWait::new(WaitKind::Watch, Some(shared)) }
            }
            Some(Scope::Barrier) => {
                let subject = self.subject();
                RawWait::new(WaitKind::Barrier, subject.or(Some(notify)))
            }
            Some(Scope::Closed) => {
                let detail = RawDetail::Closed;
                RawWait { detail, ..RawWait::new(WaitKind::Notify, Some(notify)) }
            }
            _ => RawWait::new(WaitKind::Notify, Some(notify)),
        }
    }

    fn socket(&mut self, socket: &Socket, at: u64) -> Option<RawWait> {
        let io = socket.io.follow(self.memory, at)?;
        let mut waits = |place: Option<super::tokio::WakerPlace>| {
            place.is_some_and(|place| {
                self.memory.word(io.wrapping_add(place.vtable)).is_ok_and(|vtable| vtable != 0)
            })
        };
        let (reads, writes) = (waits(socket.reader), waits(socket.writer));
        let kind = match (reads, writes) {
            (true, _) => WaitKind::SocketRead,
            (false, true) => WaitKind::SocketWrite,
            (false, false) => return None,
        };
        let fd = self.fd(socket, at);
        let detail = if reads && writes { RawDetail::Either } else { RawDetail::None };
        let mark = self.mark(socket.tick.map(|tick| io.wrapping_add(tick)));
        Some(RawWait { fd, detail, mark, ..RawWait::new(kind, Some(io)) })
    }

    fn fd(&mut self, socket: &Socket, at: u64) -> Option<i32> {
        let fd = self.memory.number(at.wrapping_add(socket.fd?), 4).ok()?;
        i32::try_from(fd).ok()
    }

    /// The descriptor of what the driver knows at `io`, from the functions
    /// around that were called on the socket.
    fn descriptor(&mut self, io: u64) -> Option<i32> {
        let mut level = self.level;
        while let Some(here) = self.trace.levels.get(level as usize) {
            if here.scope == Scope::Other {
                break;
            }
            level = here.parent;
            let Some((node, state, at)) = here.coroutine.clone() else { continue };
            if let Node::Coroutine(coroutine) = &*node
                && let Some((route, socket)) = &coroutine.states[state].socket
                && let Some(evented) = route.follow(self.memory, at)
                && socket.io.follow(self.memory, evented) == Some(io)
            {
                return self.fd(socket, evented);
            }
        }
        None
    }

    /// The outermost of tokio's functions that the chain is in the middle of.
    fn scope(&self) -> Option<Scope> {
        let mut found = None;
        let mut level = self.level;
        while let Some(here) = self.trace.levels.get(level as usize) {
            match here.scope {
                Scope::Other => break,
                Scope::Tokio => {}
                scope => found = Some(scope),
            }
            level = here.parent;
        }
        found
    }

    /// The channel that these functions are about.
    fn subject(&mut self) -> Option<u64> {
        self.around(|state| Some((state.subject.as_ref()?, ()))).map(|(subject, ())| subject)
    }

    /// A counter, where there is one.
    fn mark(&mut self, at: Option<u64>) -> u64 {
        at.and_then(|at| self.memory.word(at).ok()).unwrap_or(0)
    }

    /// Where the nearest of these functions has what is asked for, and what it
    /// says of that.
    fn around<T>(&mut self, of: impl Fn(&CoState) -> Option<(&Route, T)>) -> Option<(u64, T)> {
        let mut level = self.level;
        while let Some(here) = self.trace.levels.get(level as usize) {
            if here.scope == Scope::Other {
                break;
            }
            level = here.parent;
            if let Some((node, state, at)) = here.coroutine.clone()
                && let Node::Coroutine(coroutine) = &*node
                && let Some((route, said)) = of(&coroutine.states[state])
                && let Some(found) = route.follow(self.memory, at)
            {
                return Some((found, said));
            }
        }
        None
    }

    /// A point in time of the monotonic clock, in nanoseconds.
    pub(super) fn instant(&mut self, at: u64) -> Option<i128> {
        let seconds = self.memory.word(at).ok()?.cast_signed();
        let nanos = self.memory.number(at.wrapping_add(8), 4).ok()?;
        (nanos < NANOS as u64).then(|| i128::from(seconds) * NANOS + i128::from(nanos))
    }
}
