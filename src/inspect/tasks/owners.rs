//! Runtimes and `LocalSet`s: found from handles, threads, tasks and, if asked,
//! by a search of the heap; and the lists of tasks that they own.

use std::collections::{HashMap, HashSet, VecDeque};

use super::fields::{Types, active};
use super::tokio::{Lists, Offsets, OwnedList, SCHEDULER_HANDLE};
use crate::debuginfo::layout::{Shape, TypeId};
use crate::inspect::image::Cached;

/// Shards of one list; tokio makes four times as many as workers, rounded up.
const SHARDS: u64 = 1 << 16;
/// Nesting of types on the way to a scheduler's handle.
const DEPTH: u32 = 12;

/// A list of tasks that was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Where it is.
    pub address: u64,
    pub flavor: &'static str,
    /// Its id, which its tasks know.
    pub id: u64,
    /// Alive by its own count.
    pub count: Option<u64>,
    /// Addresses of the pointers to the first tasks.
    pub heads: Vec<u64>,
}

/// All lists found so far.
#[derive(Default)]
pub struct Owners {
    pub found: Vec<Found>,
    addresses: HashSet<u64>,
    /// By the type of scheduler.
    lists: HashMap<TypeId, Option<OwnedList>>,
}

impl Owners {
    /// How the tasks of a type of scheduler are listed.
    pub fn list(&mut self, types: &mut Types<'_>, scheduler: TypeId) -> Option<OwnedList> {
        self.lists.entry(scheduler).or_insert_with(|| OwnedList::find(types, scheduler)).clone()
    }

    /// Adds the list of a scheduler value at `at`, unless it is known; where it is.
    pub fn scheduler(
        &mut self,
        memory: &mut Cached<'_>,
        types: &mut Types<'_>,
        scheduler: TypeId,
        at: u64,
    ) -> Option<u64> {
        let list = self.list(types, scheduler)?;
        let address = list.route.follow(memory, at)?;
        self.add(memory, address, &list);
        Some(address)
    }

    /// A list at `address`; whether it is new.
    pub fn add(&mut self, memory: &mut Cached<'_>, address: u64, list: &OwnedList) -> bool {
        if !self.addresses.contains(&address)
            && let Some(found) = read(memory, address, list)
        {
            self.addresses.insert(address);
            self.found.push(found);
            return true;
        }
        false
    }

    /// The scheduler of a `Handle`, a thread's `Context`, or anything else
    /// that has one by value; where its list is.
    pub fn handle(
        &mut self,
        memory: &mut Cached<'_>,
        types: &mut Types<'_>,
        ty: TypeId,
        at: u64,
    ) -> Option<u64> {
        let (scheduler, at) = scheduler_in(memory, types, ty, at)?;
        self.scheduler(memory, types, scheduler, at)
    }
}

/// What a thread's `Context` says it polls.
pub fn current_task(
    memory: &mut Cached<'_>,
    types: &mut Types<'_>,
    context: TypeId,
    at: u64,
) -> Option<u64> {
    let (_, context) = types
        .within(context, "tokio::runtime::context::Context")
        .map_or((0, context), |found| found);
    let (offset, cell) = types.path(context, &["current_task_id"])?;
    // `Cell<Option<Id>>`: ids are never zero.
    let (word, _) = types.unwrapped(cell)?;
    memory.word(at.checked_add(offset)?.checked_add(word)?).ok().filter(|&id| id != 0)
}

/// The payload of the active variant of a `scheduler::Handle` within a value.
fn scheduler_in(
    memory: &mut Cached<'_>,
    types: &mut Types<'_>,
    ty: TypeId,
    at: u64,
) -> Option<(TypeId, u64)> {
    let mut next = VecDeque::from([(ty, at, 0)]);
    let mut seen = HashSet::new();
    while let Some((id, at, depth)) = next.pop_front() {
        if depth > DEPTH || !seen.insert(id) {
            continue;
        }
        let ty = types.get(id)?;
        match &ty.shape {
            Shape::Struct(members) => next.extend(
                members.iter().map(|member| (member.ty, at.wrapping_add(member.offset), depth + 1)),
            ),
            Shape::Enum(variants) => {
                let Some(index) = active(memory, at, variants) else { continue };
                let variant = variants.list.get(index)?;
                let payload = at.wrapping_add(variant.offset);
                if &*ty.name == SCHEDULER_HANDLE {
                    return Some((variant.payload, payload));
                }
                next.push_back((variant.payload, payload, depth + 1));
            }
            _ => {}
        }
    }
    None
}

fn read(memory: &mut Cached<'_>, address: u64, list: &OwnedList) -> Option<Found> {
    let word =
        |memory: &mut Cached<'_>, offset: u64| memory.word(address.checked_add(offset)?).ok();
    let id = word(memory, list.id).filter(|&id| id != 0)?;
    let count = match list.count {
        Some(offset) => Some(word(memory, offset)?),
        None => None,
    };
    let heads = match list.lists {
        Lists::One { head } => vec![address.checked_add(head)?],
        Lists::Sharded { pointer, length, stride, head } => {
            let data = word(memory, pointer)?;
            let length = word(memory, length)?;
            if length > SHARDS || !length.is_power_of_two() {
                return None;
            }
            let shard =
                |index: u64| data.checked_add(index.checked_mul(stride)?)?.checked_add(head);
            (0..length).map(shard).collect::<Option<Vec<_>>>()?
        }
    };
    Some(Found { address, flavor: list.flavor, id, count, heads })
}

/// A way through a list of tasks, as they were spawned: the shards take tasks
/// in turn, and so neighbours on the heap come near each other.
///
/// A list that leads in a circle ends before it has gone around three times;
/// until then it gives its tasks again.
pub struct Walk {
    id: u64,
    shards: Vec<Shard>,
    turn: usize,
    /// Pointers that led to no task of this list, or in a circle.
    pub broken: u64,
}

/// Finds circles as Brent does: it compares with where it was at the last
/// power of two of its steps.
struct Shard {
    next: u64,
    before: u64,
    steps: u64,
}

impl Walk {
    /// Begins at the heads.
    pub fn new(memory: &mut Cached<'_>, found: &Found) -> Self {
        let heads: Vec<_> = found.heads.iter().map(|&head| memory.word(head)).collect();
        let broken = heads.iter().filter(|head| head.is_err()).count() as u64;
        let begin = |next| Shard { next, before: 0, steps: 0 };
        let shards = heads.into_iter().flatten().filter(|&next| next != 0).map(begin).collect();
        Self { id: found.id, shards, turn: 0, broken }
    }

    /// The next task's header.
    pub fn next(&mut self, memory: &mut Cached<'_>, offsets: &Offsets) -> Option<u64> {
        loop {
            if self.shards.is_empty() {
                return None;
            }
            let turn = self.turn % self.shards.len();
            let shard = &mut self.shards[turn];
            let header = shard.next;
            let next = next(memory, offsets, self.id, header).filter(|_| header != shard.before);
            shard.steps += 1;
            if shard.steps.is_power_of_two() {
                shard.before = header;
            }
            let there = next.is_some();
            self.broken += u64::from(!there);
            match next {
                Some(next) if next != 0 => {
                    shard.next = next;
                    self.turn = turn + 1;
                }
                _ => {
                    self.shards.remove(turn);
                    self.turn = turn;
                }
            }
            if there {
                return Some(header);
            }
        }
    }
}

/// The task after this one, if this is one of the list.
fn next(memory: &mut Cached<'_>, offsets: &Offsets, id: u64, header: u64) -> Option<u64> {
    let owner = memory.word(header.checked_add(offsets.owner_id)?).ok()?;
    if owner != id {
        return None;
    }
    let vtable = memory.word(header.checked_add(offsets.vtable)?).ok()?;
    let trailer = memory.word(vtable.checked_add(offsets.trailer_offset)?).ok()?;
    memory.word(header.checked_add(trailer)?.checked_add(offsets.next)?).ok()
}
