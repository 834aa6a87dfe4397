//! Runtimes and `LocalSet`s: found from handles, threads, tasks and, if asked,
//! by a search of the heap; and the lists of tasks that they own.

use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};

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

/// A way through a list of tasks, the last spawned first: each shard is in this
/// order, and the next task is that of the highest id. So neighbours on the
/// heap come near each other, and nobody has to sort what was read.
///
/// A list that leads in a circle ends before it has gone around three times;
/// until then it gives its tasks again.
pub struct Walk {
    id: u64,
    shards: Vec<Shard>,
    /// The ids that their next tasks have, with their indexes.
    next: BinaryHeap<(u64, usize)>,
    /// Pointers that led to no task of this list, or in a circle.
    pub broken: u64,
    /// Tasks that have ended and are half off the list, which counts them still.
    ///
    /// Off it goes in steps: the task before it is linked to the one behind,
    /// then that one to the one before, then the count goes down. A thread that
    /// wants to write while the image is taken waits, most often at the first
    /// touch of a page, and so between the first two of these again and again.
    pub leaving: u64,
}

/// Finds circles as Brent does: it compares with where it was at the last
/// power of two of its steps.
struct Shard {
    /// The next task's header and what is behind it.
    header: u64,
    links: Links,
    before: u64,
    steps: u64,
}

/// What a task of a list says.
struct Links {
    id: u64,
    /// The task after it; 0 at the end.
    next: u64,
    /// The task before it; 0 at the start, or if that is not known.
    prev: u64,
}

impl Walk {
    /// Begins at the heads.
    pub fn new(memory: &mut Cached<'_>, offsets: &Offsets, found: &Found) -> Self {
        let mut walk = Self {
            id: found.id,
            shards: Vec::new(),
            next: BinaryHeap::new(),
            broken: 0,
            leaving: 0,
        };
        for &head in &found.heads {
            match memory.word(head) {
                Ok(0) => {}
                Ok(header) => walk.begin(memory, offsets, header),
                Err(_) => walk.broken += 1,
            }
        }
        walk
    }

    fn begin(&mut self, memory: &mut Cached<'_>, offsets: &Offsets, header: u64) {
        let Some(links) = links(memory, offsets, self.id, header) else {
            self.broken += 1;
            return;
        };
        self.leaving += u64::from(leaves(memory, offsets, self.id, 0, header, &links));
        self.next.push((links.id, self.shards.len()));
        self.shards.push(Shard { header, links, before: 0, steps: 0 });
    }

    /// The next task's header.
    pub fn next(&mut self, memory: &mut Cached<'_>, offsets: &Offsets) -> Option<u64> {
        let (_, index) = self.next.pop()?;
        let shard = &mut self.shards[index];
        let header = shard.header;
        shard.steps += 1;
        if shard.steps.is_power_of_two() {
            shard.before = header;
        }
        let next = shard.links.next;
        if next != 0 {
            let links = links(memory, offsets, self.id, next).filter(|_| next != shard.before);
            match links {
                Some(links) => {
                    let leaving = leaves(memory, offsets, self.id, header, next, &links);
                    self.leaving += u64::from(leaving);
                    self.next.push((links.id, index));
                    (shard.header, shard.links) = (next, links);
                }
                None => self.broken += 1,
            }
        }
        Some(header)
    }
}

/// What a task says, if it is one of the list.
fn links(memory: &mut Cached<'_>, offsets: &Offsets, id: u64, header: u64) -> Option<Links> {
    let owner = memory.word(header.checked_add(offsets.owner_id)?).ok()?;
    if owner != id {
        return None;
    }
    let vtable = memory.word(header.checked_add(offsets.vtable)?).ok()?;
    let trailer = memory.word(vtable.checked_add(offsets.trailer_offset)?).ok()?;
    let trailer = header.checked_add(trailer)?;
    let next = memory.word(trailer.checked_add(offsets.next)?).ok()?;
    let prev = match offsets.prev {
        Some(prev) => memory.word(trailer.checked_add(prev)?).ok()?,
        None => 0,
    };
    let offset = memory.word(vtable.checked_add(offsets.id_offset)?).ok()?;
    let id = memory.word(header.checked_add(offset)?).ok()?;
    Some(Links { id, next, prev })
}

/// Whether a task is about to leave the list from between these two: the
/// second still points back at it, and it at the second.
fn leaves(
    memory: &mut Cached<'_>,
    offsets: &Offsets,
    id: u64,
    first: u64,
    second: u64,
    of_second: &Links,
) -> bool {
    let between = of_second.prev;
    if between == 0 || between == first || between == second {
        return false;
    }
    links(memory, offsets, id, between)
        .is_some_and(|between| between.next == second && between.prev == first)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::ops::Range;

    use super::*;
    use crate::inspect::image::{Fault, Memory};

    /// Words by their addresses.
    #[derive(Default)]
    struct Words(HashMap<u64, u64>);

    impl Memory for Words {
        fn read(&mut self, address: u64, to: &mut [u8]) -> Result<(), Fault> {
            for (word, at) in to.chunks_exact_mut(8).zip((address..).step_by(8)) {
                let value = self.0.get(&at).copied().unwrap_or(0);
                word.copy_from_slice(&value.to_le_bytes());
            }
            Ok(())
        }

        fn writable(&self) -> &[Range<u64>] {
            &[]
        }
    }

    const OFFSETS: Offsets = Offsets {
        owner_id: 8,
        vtable: 0,
        trailer_offset: 0,
        id_offset: 8,
        next: 0,
        prev: Some(8),
        ..Offsets::UNTYPED
    };
    const VTABLE: u64 = 0x100;
    const HEAD: u64 = 0x200;
    const LIST: u64 = 7;

    fn header(task: u64) -> u64 {
        0x1000 * task
    }

    /// Tasks of these ids, linked both ways in this order.
    fn list(ids: &[u64]) -> Words {
        let mut words = Words::default();
        // A task: vtable, owner, id; then its trailer, next and prev.
        words.0.extend([(VTABLE, 24), (VTABLE + 8, 16)]);
        words.0.insert(HEAD, header(ids[0]));
        for (index, &id) in ids.iter().enumerate() {
            let at = header(id);
            let beside = |index: Option<usize>| {
                index.and_then(|index| ids.get(index)).map_or(0, |&id| header(id))
            };
            let (next, prev) = (beside(Some(index + 1)), beside(index.checked_sub(1)));
            words.0.extend([(at, VTABLE), (at + 8, LIST), (at + 16, id)]);
            words.0.extend([(at + 24, next), (at + 32, prev)]);
        }
        words
    }

    fn walk(words: &mut Words) -> (Vec<u64>, u64, u64) {
        let mut memory = Cached::new(words, u64::MAX).unwrap();
        let found = Found { address: HEAD, flavor: "", id: LIST, count: None, heads: vec![HEAD] };
        let mut walk = Walk::new(&mut memory, &OFFSETS, &found);
        let mut ids = Vec::new();
        while let Some(at) = walk.next(&mut memory, &OFFSETS) {
            ids.push(at / 0x1000);
        }
        (ids, walk.leaving, walk.broken)
    }

    #[test]
    fn a_task_half_off_the_list_is_counted_and_not_told() {
        let whole = [9, 7, 5, 3];
        assert_eq!(walk(&mut list(&whole)), (whole.to_vec(), 0, 0));
        // From the middle: 9 is linked to 5, which still points back at 7.
        let mut words = list(&whole);
        words.0.insert(header(9) + 24, header(5));
        assert_eq!(walk(&mut words), (vec![9, 5, 3], 1, 0));
        // From the start.
        let mut words = list(&whole);
        words.0.insert(HEAD, header(7));
        assert_eq!(walk(&mut words), (vec![7, 5, 3], 1, 0));
        // What merely points somewhere is nobody who leaves.
        let mut words = list(&whole);
        words.0.insert(header(5) + 32, header(3));
        assert_eq!(walk(&mut words), (whole.to_vec(), 0, 0));
    }
}
