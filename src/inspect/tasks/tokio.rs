//! tokio's private types, mirrored: all that is known of them by name is here.
//!
//! Layouts are not written down but looked up, so that tokio 1.40 and 1.54
//! are read alike; a field that is not found turns off what needs it.

use super::fields::{Route, Types};
use crate::debuginfo::layout::TypeId;
use crate::inspect::image::Cached;

/// Bits of `Header.state` (tokio `runtime/task/state.rs`).
pub mod state {
    use crate::model::TaskState;

    /// A worker polls it.
    pub const RUNNING: u64 = 0b1;
    /// It has finished; its output may still be there.
    pub const COMPLETE: u64 = 0b10;
    /// Woken: it is, or will be, in a run queue.
    pub const NOTIFIED: u64 = 0b100;
    /// Its join handle is there, and counts as a reference.
    pub const JOIN_INTEREST: u64 = 0b1000;
    /// Reference counts begin here.
    pub const REF_ONE: u64 = 1 << 6;

    /// What a task that has not finished does.
    pub fn of(bits: u64) -> TaskState {
        if bits & RUNNING != 0 {
            TaskState::Running
        } else if bits & NOTIFIED != 0 {
            TaskState::Scheduled
        } else {
            TaskState::Idle
        }
    }

    /// References to an idle task besides the list's and the join handle's: its
    /// wakers and abort handles. On the way out, a join handle may count as one.
    pub fn wakers(bits: u64) -> u64 {
        let join_handle = u64::from(bits & JOIN_INTEREST != 0);
        (bits / REF_ONE).saturating_sub(1 + join_handle)
    }

    /// Whether its join handle is there, which can abort it.
    pub fn joinable(bits: u64) -> bool {
        bits & JOIN_INTEREST != 0
    }
}

/// `batch_semaphore` keeps a flag below the number of permits.
pub const PERMIT_SHIFT: u32 = 1;
/// An unbounded channel keeps another below the number of its messages.
pub const MESSAGE_SHIFT: u32 = 1;
/// `RwLock`'s permits, all of them free, unless it was made with fewer.
pub const RWLOCK_PERMITS: u32 = u32::MAX >> 3;

pub const STAGE: &str = "tokio::runtime::task::core::Stage<";
pub const SCHEDULER_HANDLE: &str = "tokio::runtime::scheduler::Handle";
pub const RWLOCK: &str = "tokio::sync::rwlock::RwLock<";
pub const SEMAPHORE: &str = "tokio::sync::batch_semaphore::Semaphore";
pub const CHAN: &str = "tokio::sync::mpsc::chan::Chan<";
pub const ONESHOT: &str = "tokio::sync::oneshot::Inner<";
pub const WATCH: &str = "tokio::sync::watch::Shared<";
pub const BROADCAST: &str = "tokio::sync::broadcast::Shared<";
pub const POLL_EVENTED: &str = "tokio::io::poll_evented::PollEvented<";
pub const SCHEDULED_IO: &str = "tokio::runtime::io::scheduled_io::ScheduledIo";
pub const LOCAL_SET: &str = "tokio::task::local::LocalSet";
const OWNED_TASKS: &str = "tokio::runtime::task::list::OwnedTasks<";
const LOCAL_OWNED_TASKS: &str = "tokio::runtime::task::list::LocalOwnedTasks<";
const LINKED_LIST: &str = "tokio::util::linked_list::LinkedList<";

/// Offsets in the types that every task has.
#[derive(Clone, Copy, Debug)]
pub struct Offsets {
    /// In `Header`.
    pub state: u64,
    pub vtable: u64,
    pub owner_id: u64,
    /// In `Vtable`.
    pub poll: u64,
    pub trailer_offset: u64,
    pub scheduler_offset: u64,
    pub id_offset: u64,
    /// With `tokio_unstable` only.
    pub spawn_location_offset: Option<u64>,
    /// In `Trailer`: the next task of the list.
    pub next: u64,
    /// The one before it.
    pub prev: Option<u64>,
}

impl Offsets {
    /// What they are where no types are known: of tokio 1.13 to 1.54 at least.
    ///
    /// `Header` is `repr(C)`. `Vtable` is not, but has only words, which the
    /// compiler leaves in their order: seven functions, then offsets. Whoever
    /// uses these checks what is there.
    pub const UNTYPED: Self = Self {
        state: 0,
        vtable: 16,
        owner_id: 24,
        poll: 0,
        trailer_offset: 7 * 8,
        scheduler_offset: 8 * 8,
        id_offset: 9 * 8,
        spawn_location_offset: Some(10 * 8),
        // `Trailer` is not `repr(C)`.
        next: 0,
        prev: None,
    };

    /// `None` if the program has no tokio tasks, or none that is known.
    pub fn find(types: &mut Types<'_>) -> Option<Self> {
        let header = types.layouts.find("tokio::runtime::task::core::Header")?;
        let vtable = types.layouts.find("tokio::runtime::task::raw::Vtable")?;
        let trailer = types.layouts.find("tokio::runtime::task::core::Trailer")?;
        let mut offset = |id, path: &[&str]| types.path(id, path).map(|(offset, _)| offset);
        Some(Self {
            state: offset(header, &["state"])?,
            vtable: offset(header, &["vtable"])?,
            owner_id: offset(header, &["owner_id"])?,
            poll: offset(vtable, &["poll"])?,
            trailer_offset: offset(vtable, &["trailer_offset"])?,
            scheduler_offset: offset(vtable, &["scheduler_offset"])?,
            id_offset: offset(vtable, &["id_offset"])?,
            spawn_location_offset: offset(vtable, &["spawn_location_offset"]),
            next: offset(trailer, &["owned", "next"])?,
            prev: offset(trailer, &["owned", "prev"]),
        })
    }
}

/// Where a scheduler keeps its tasks.
#[derive(Clone, Debug)]
pub struct OwnedList {
    /// To the list of lists or the only list.
    pub route: Route,
    /// Of its id, from there.
    pub id: u64,
    /// Its own count; `LocalSet` keeps none.
    pub count: Option<u64>,
    pub lists: Lists,
    pub flavor: &'static str,
}

/// Where the heads of the linked lists are.
#[derive(Clone, Debug)]
pub enum Lists {
    /// One: from the start of the list of tasks.
    One { head: u64 },
    /// A boxed slice of them.
    Sharded { pointer: u64, length: u64, stride: u64, head: u64 },
}

impl OwnedList {
    /// From a scheduler's handle, an `Arc` of one, or a `LocalSet`.
    pub fn find(types: &mut Types<'_>, scheduler: TypeId) -> Option<Self> {
        let route = types.route(scheduler, &[OWNED_TASKS, LOCAL_OWNED_TASKS], 2)?;
        let owned = route.ty;
        let name = types.get(owned)?.name.clone();
        let id = types.path(owned, &["id"])?.0;
        let count = types.path(owned, &["list", "count"]).map(|(offset, _)| offset);
        let lists = match types.path(owned, &["list", "lists"]) {
            Some((offset, slice)) => {
                let of = types.member(slice, "data_ptr")?;
                let length = types.member(slice, "length")?;
                let shard = types.target(of.ty)?;
                let (list, list_type) = types.within(shard, LINKED_LIST)?;
                Lists::Sharded {
                    pointer: offset + of.offset,
                    length: offset + length.offset,
                    stride: types.get(shard)?.size,
                    head: list + types.path(list_type, &["head"])?.0,
                }
            }
            None => {
                let (list, list_type) = types.within(owned, LINKED_LIST)?;
                Lists::One { head: list + types.path(list_type, &["head"])?.0 }
            }
        };
        let flavor = if name.starts_with(LOCAL_OWNED_TASKS) {
            "local_set"
        } else if name.contains("current_thread") {
            "current_thread"
        } else {
            "multi_thread"
        };
        Some(Self { route, id, count, lists, flavor })
    }
}

/// A list of waiters, with its nodes linked through themselves.
#[derive(Clone, Copy, Debug)]
pub struct Waiters {
    /// Of the list's first node, from what holds the list.
    pub head: u64,
    /// Of the next node, from a node.
    pub next: u64,
}

impl Waiters {
    /// Of the first list within a type.
    pub fn find(types: &mut Types<'_>, holder: TypeId) -> Option<Self> {
        let (list, list_type) = types.within(holder, LINKED_LIST)?;
        let (head, head_type) = types.path(list_type, &["head"])?;
        let node = types.pointee(head_type)?;
        let (pointers, pointers_type) =
            types.within(node, "tokio::util::linked_list::Pointers<")?;
        let next = types.path(pointers_type, &["next"])?.0;
        Some(Self { head: list + head, next: pointers + next })
    }
}

/// The semaphore under mutexes, rwlocks, semaphores and bounded channels.
#[derive(Clone, Copy, Debug)]
pub struct BatchSemaphore {
    pub permits: u64,
    pub waiters: Waiters,
}

impl BatchSemaphore {
    pub fn find(types: &mut Types<'_>) -> Option<Self> {
        let semaphore = types.layouts.find(SEMAPHORE)?;
        Some(Self {
            permits: types.path(semaphore, &["permits"])?.0,
            waiters: Waiters::find(types, semaphore)?,
        })
    }
}

/// The identity of a channel is where its semaphore is: the one address that
/// a waiting sender, a waiting receiver and the ends at rest all know.
pub fn channel(types: &mut Types<'_>, from: TypeId) -> Option<Route> {
    let route = types.route(from, &[CHAN], 2)?;
    let (offset, semaphore) = types.path(route.ty, &["semaphore"])?;
    let inner = types.within(semaphore, SEMAPHORE).map_or(0, |(inner, _)| inner);
    Some(route.then(offset + inner, semaphore))
}

/// How many messages were ever sent through a channel: while that stands
/// still, nobody who waits to send or to receive has got through.
pub fn sent(types: &mut Types<'_>, from: TypeId) -> Option<Route> {
    let route = types.route(from, &[CHAN], 2)?;
    let (offset, number) = types.path(route.ty, &["tx", "tail_position"])?;
    Some(route.then(offset, number))
}

/// Where a channel counts its sending ends.
#[derive(Clone, Copy, Debug)]
pub struct Senders {
    strong: u64,
    /// In tokio versions that have weak ones of such a channel.
    weak: Option<u64>,
}

impl Senders {
    /// In what the ends of a channel share.
    pub fn find(
        types: &mut Types<'_>,
        shared: TypeId,
        strong: &str,
        weak: Option<&str>,
    ) -> Option<Self> {
        let mut offset = |name| types.path(shared, &[name]).map(|(offset, _)| offset);
        Some(Self { strong: offset(strong)?, weak: weak.and_then(offset) })
    }

    /// How many there are, unless weak ones may become more.
    pub fn read(&self, memory: &mut Cached<'_>, shared: u64) -> Option<u64> {
        let mut count = |offset| memory.word(shared.wrapping_add(offset)).ok();
        let none_weak = match self.weak {
            Some(weak) => count(weak)? == 0,
            None => true,
        };
        count(self.strong).filter(|_| none_weak)
    }
}

/// Where a waker is, as its data pointer; null or `None` if nobody waits.
pub fn waker(types: &mut Types<'_>, from: TypeId, path: &[&str]) -> Option<WakerPlace> {
    let (offset, holder) = types.path(from, path)?;
    let (waker, raw) = types.within(holder, "core::task::wake::RawWaker")?;
    let vtable = types.member(raw, "vtable")?;
    Some(WakerPlace { vtable: offset + waker + vtable.offset })
}

/// Where an `Option<Waker>` is: its vtable is null for `None`.
#[derive(Clone, Copy, Debug)]
pub struct WakerPlace {
    pub vtable: u64,
}
