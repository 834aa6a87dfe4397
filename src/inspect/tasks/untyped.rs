//! Tasks of a program whose types are not known (`debug = 1`, line tables
//! only, or nothing but symbols): found one by one, by what their headers look
//! like.
//!
//! ```text
//! Header (repr C)        Vtable
//!   state ── flags, refs   poll ─▶ a function whose name has the future's type
//!   queue_next             6 more functions
//!   vtable ──────────────▶ offsets of trailer, scheduler, id (and spawn place)
//!   owner_id
//! ```
//!
//! Every word of the heap that points at a task's vtable is looked at. What is
//! left behind in freed memory tells so itself: a task gives up its memory only
//! when it has finished and nobody refers to it, and both stand in its state.
//! What was never on a list (`spawn_blocking`, a cell on the stack before it was
//! moved to the heap) has no owner. A living task has an id, an owner, and a
//! scheduler whose count of references is not zero.
//!
//! No list is walked, so nothing tells how many there should have been: tasks
//! in memory that could not be read are missing without being counted.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::fields::Types;
use super::frames::Frames;
use super::search::{Sweep, sweep};
use super::tokio::{Offsets, state};
use super::{Limits, Owner, Roots, TaskRead, TasksRead};
use crate::inspect::image::Cached;
use crate::model::{Location, Missing, Reason, Stack, TaskId, TaskState};

/// Read at once; a search in larger pieces would not count as a need, and
/// regions that nobody needs are left out of later images of this process.
const PIECE: usize = 128 * 1024;
/// The clock is looked at once in so many pieces.
const CLOCK: u32 = 16;
/// Words that look like vtables and are none: a bound on what is remembered.
const REMEMBERED: usize = 1 << 20;
/// The functions of a vtable lie this close together, in bytes.
const CODE: u64 = 1 << 31;
/// Words of a vtable before the offsets.
const FUNCTIONS: u64 = 7;
/// Offsets to scheduler and id: behind a header and before any future.
const HEAD: u64 = 4096;
/// The largest future.
const CELL: u64 = 1 << 32;
/// Counts of references and ids beyond are none.
const COUNT: u64 = 1 << 40;
/// Bytes of a path in a `Location`, and the last line of a file.
const PATH: u64 = 4096;
const LINES: u64 = 10_000_000;

/// What tasks with one vtable have in common.
struct Kind {
    scheduler: u64,
    id: u64,
    spawned_at: Option<u64>,
    flavor: &'static str,
    stack: Option<Arc<Stack>>,
}

struct Reader<'r, 'a> {
    types: Types<'a>,
    frames: Frames,
    bias: u64,
    polls: &'r [u64],
    kinds: HashMap<u64, Option<Rc<Kind>>>,
    places: HashMap<u64, Option<Arc<Location>>>,
    most: usize,
    /// Beyond `most`.
    left_out: u64,
    read: TasksRead,
    owners: BTreeMap<u64, Owner>,
}

/// Reads every task that is found in writable memory.
pub fn read(
    memory: &mut Cached<'_>,
    types: Types<'_>,
    bias: u64,
    roots: &Roots,
    limits: &Limits,
) -> TasksRead {
    let begun = Instant::now();
    let polls = types.layouts.task_polls();
    let mut reader = Reader {
        types,
        frames: Frames::default(),
        bias,
        polls: &polls,
        kinds: HashMap::new(),
        places: HashMap::new(),
        most: limits.tasks,
        left_out: 0,
        read: TasksRead::default(),
        owners: BTreeMap::new(),
    };
    let mut ticks = 0_u32;
    let mut late = || {
        ticks = ticks.wrapping_add(1);
        ticks.is_multiple_of(CLOCK) && limits.deadline.is_some_and(|end| Instant::now() > end)
    };
    let range = Sweep { polls: &polls, bias, bound: limits.search_bytes, piece: PIECE };
    let searched = sweep(memory, &range, &mut late, &mut |memory, word, place| {
        reader.word(memory, word, place);
    });
    reader.read.searched = Some(begun.elapsed());
    reader.finish(memory, roots, searched.left)
}

impl Reader<'_, '_> {
    fn word(&mut self, memory: &mut Cached<'_>, word: u64, place: u64) -> Option<()> {
        let kind = match self.kinds.get(&word) {
            Some(known) => known.clone(),
            None => {
                let kind = self.kind(memory, word).map(Rc::new);
                if kind.is_some() || self.kinds.len() < REMEMBERED {
                    self.kinds.insert(word, kind.clone());
                }
                kind
            }
        }?;
        let header = place.checked_sub(Offsets::UNTYPED.vtable)?;
        let (owner, task) = self.task(memory, &kind, header)?;
        if self.read.tasks.len() >= self.most {
            self.left_out += 1;
            return None;
        }
        let flavor = kind.flavor;
        let id = header.checked_add(Offsets::UNTYPED.owner_id);
        let id = id.and_then(|at| memory.word(at).ok()).unwrap_or(0);
        let new = || Owner { address: owner, id, flavor, alive: 0, read: 0, counted: false };
        self.owners.entry(owner).or_insert_with(new);
        self.read.tasks.push(task);
        Some(())
    }

    /// What is at an address, if it is a task's vtable.
    fn kind(&mut self, memory: &mut Cached<'_>, at: u64) -> Option<Kind> {
        let mut word = |offset: u64| memory.word(at.checked_add(offset)?).ok();
        let poll = word(Offsets::UNTYPED.poll)?;
        let linked = poll.wrapping_sub(self.bias);
        self.polls.binary_search(&linked).ok()?;
        for function in 1..FUNCTIONS {
            if word(function * 8)?.abs_diff(poll) > CODE {
                return None;
            }
        }
        let trailer = word(Offsets::UNTYPED.trailer_offset)?;
        let scheduler = word(Offsets::UNTYPED.scheduler_offset)?;
        let id = word(Offsets::UNTYPED.id_offset)?;
        let header = Offsets::UNTYPED.owner_id + 8;
        let in_order = header <= scheduler && scheduler < id && id < trailer;
        if !in_order || id >= HEAD || trailer >= CELL || (trailer | scheduler | id) % 8 != 0 {
            return None;
        }
        // With `tokio_unstable` there is one more field, behind the id.
        let spawned_at =
            Offsets::UNTYPED.spawn_location_offset.and_then(word).filter(|&next| next == id + 8);
        let types = self.types.layouts.task(linked);
        let mut names: Vec<Arc<str>> = Vec::new();
        for task in types.iter() {
            let name = match self.types.polled(task.future) {
                Some(polled) => polled.function.clone(),
                None => self.types.get(task.future)?.name.clone(),
            };
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let scheduler_name = self.types.get(types.first()?.scheduler)?.name.clone();
        Some(Kind {
            scheduler,
            id,
            spawned_at,
            flavor: flavor(&scheduler_name),
            stack: self.stack(&names),
        })
    }

    /// The future's own frame, and what it may be as well where the linker
    /// merged functions.
    fn stack(&mut self, names: &[Arc<str>]) -> Option<Arc<Stack>> {
        let (name, others) = names.split_first()?;
        let frame = self.frames.frame(name, None);
        Some(self.frames.stack(&[frame], false, others))
    }

    /// The task at a header, and its scheduler; `None` if there is none, or
    /// none that lives.
    fn task(
        &mut self,
        memory: &mut Cached<'_>,
        kind: &Kind,
        header: u64,
    ) -> Option<(u64, TaskRead)> {
        let mut word = |offset: u64| memory.word(header.checked_add(offset)?).ok();
        let bits = word(Offsets::UNTYPED.state)?;
        let owner = word(Offsets::UNTYPED.owner_id)?;
        let (id, scheduler) = (word(kind.id)?, word(kind.scheduler)?);
        let refers = (1..COUNT).contains(&(bits / state::REF_ONE));
        if !refers || bits & state::COMPLETE != 0 {
            return None;
        }
        if !(1..COUNT).contains(&owner) || !(1..COUNT).contains(&id) {
            return None;
        }
        if scheduler == 0 || !scheduler.is_multiple_of(8) {
            return None;
        }
        let spawned_at = kind.spawned_at.and_then(&mut word);
        // All schedulers are an `Arc`: a count of references comes first.
        if !(1..COUNT).contains(&memory.word(scheduler).ok()?) {
            return None;
        }
        let state = state::of(bits);
        let task = TaskRead {
            id: TaskId(id),
            owner: scheduler,
            state,
            spawned_at: spawned_at.and_then(|at| self.place(memory, at)),
            wakers: (state == TaskState::Idle).then(|| state::wakers(bits)),
            joinable: Some(state::joinable(bits)),
            // Of one that runs, the thread has the stack.
            stack: kind.stack.clone().filter(|_| state != TaskState::Running),
            wait: None,
            branches: Box::default(),
            holds: Box::default(),
        };
        Some((scheduler, task))
    }

    fn place(&mut self, memory: &mut Cached<'_>, at: u64) -> Option<Arc<Location>> {
        if let Some(place) = self.places.get(&at) {
            return place.clone();
        }
        let place = location(memory, at).map(Arc::new);
        self.places.insert(at, place.clone());
        place
    }

    fn finish(self, memory: &mut Cached<'_>, roots: &Roots, unsearched: u64) -> TasksRead {
        let Self { mut read, mut owners, left_out, .. } = self;
        read.tasks.sort_by_cached_key(|task| task.id);
        // Ids are given once in a process: a second header is a copy of bytes.
        read.tasks.dedup_by_key(|task| task.id);
        for task in &read.tasks {
            if let Some(owner) = owners.get_mut(&task.owner) {
                owner.alive += 1;
                owner.read += 1;
            }
        }
        // A `Handle` is an enum with a pointer to the scheduler.
        for &handle in &roots.handles {
            let words = [0, 8].map(|offset| memory.word(handle.wrapping_add(offset)).ok());
            let owner = words.into_iter().flatten().find(|word| owners.contains_key(word));
            read.handles.push(owner);
        }
        read.owners = owners.into_values().filter(|owner| owner.read > 0).collect();
        let mut miss = |reason, count, detail: &str| {
            read.missing.push(Missing { reason, count, detail: detail.to_owned() });
        };
        let detail = "no types in the debug information: tasks are searched for in memory, with \
                      names and states, no await points; build with `debug = \"full\"`, or give \
                      the program's layout file";
        miss(Reason::TypesOnly, read.tasks.len() as u64, detail);
        if unsearched > 0 {
            let detail = "bytes of heap not searched for tasks: the time or the bound was over";
            miss(Reason::BoundReached, unsearched, detail);
        }
        if left_out > 0 {
            miss(Reason::BoundReached, left_out, "tasks left out: more than the bound");
        }
        read
    }
}

fn flavor(scheduler: &str) -> &'static str {
    if scheduler.contains("::multi_thread") {
        "multi_thread"
    } else if scheduler.contains("::current_thread::") {
        "current_thread"
    } else if scheduler.contains("::task::local::") {
        "local_set"
    } else {
        "runtime"
    }
}

/// A `core::panic::Location`, if what is there cannot be anything else: the
/// pointer and the length of a path, line, column.
fn location(memory: &mut Cached<'_>, at: u64) -> Option<Location> {
    let mut number = |offset: u64, size| memory.number(at.checked_add(offset)?, size).ok();
    let (pointer, length) = (number(0, 8)?, number(8, 8)?);
    let (line, column) = (number(16, 4)?, number(20, 4)?);
    if !(1..=PATH).contains(&length) || !(1..=LINES).contains(&line) {
        return None;
    }
    let mut bytes = vec![0; length as usize];
    memory.read(pointer, &mut bytes).ok()?;
    // Newer compilers put a nul behind it.
    let text = std::str::from_utf8(&bytes).ok()?.trim_end_matches('\0');
    if !text.ends_with(".rs") || text.contains(char::is_control) {
        return None;
    }
    Some(Location { file: text.into(), line: line as u32, column: column as u32 })
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use proptest::prelude::*;

    use super::*;
    use crate::debuginfo::layout::{Detail, Layouts, Polled, Shape, TaskType, Type, TypeId};
    use crate::error::Result;
    use crate::inspect::image::{Fault, Memory};

    /// Where the vtable, the scheduler and the first cell are.
    const POLL: u64 = 0x10_1000;
    const VTABLE: u64 = 0x20_0000;
    const SCHEDULER: u64 = 0x7f00_0000_0000;
    const HEAP: u64 = SCHEDULER + 0x100;

    /// One task function, known by name.
    struct Names;

    impl Layouts for Names {
        fn detail(&self) -> Detail {
            Detail::Names
        }
        fn find(&mut self, _: &str) -> Option<TypeId> {
            None
        }
        fn ty(&mut self, id: TypeId) -> Result<Arc<Type>> {
            let name = ["app::watch", "Arc<tokio::runtime::scheduler::multi_thread::Handle>"];
            Ok(Arc::new(Type { name: name[id.0 as usize].into(), size: 0, shape: Shape::Opaque }))
        }
        fn task_polls(&mut self) -> Arc<[u64]> {
            [POLL].into()
        }
        fn task(&mut self, poll: u64) -> Arc<[TaskType]> {
            assert_eq!(poll, POLL);
            [TaskType { future: TypeId(0), scheduler: TypeId(1), cell: None }].into()
        }
        fn behind(&mut self, _: u64) -> Vec<TypeId> {
            Vec::new()
        }
        fn polled(&mut self, _: TypeId) -> Option<Arc<Polled>> {
            None
        }
        fn context(&mut self) -> Option<(i64, TypeId)> {
            None
        }
    }

    /// Words at two places: constants, and a heap.
    struct Words {
        constants: Vec<u64>,
        heap: Vec<u64>,
        writable: Range<u64>,
    }

    impl Memory for Words {
        fn read(&mut self, address: u64, to: &mut [u8]) -> std::result::Result<(), Fault> {
            for (index, byte) in to.iter_mut().enumerate() {
                let at = address.wrapping_add(index as u64);
                let word = |words: &[u64], base: u64| {
                    let offset = at.checked_sub(base)?;
                    Some(words.get(offset as usize / 8)?.to_le_bytes()[offset as usize % 8])
                };
                let found = word(&self.constants, VTABLE).or_else(|| word(&self.heap, SCHEDULER));
                *byte = found.ok_or(Fault { address: at })?;
            }
            Ok(())
        }

        fn writable(&self) -> &[Range<u64>] {
            std::slice::from_ref(&self.writable)
        }
    }

    /// Heap words of so many live tasks, each of 32 words.
    fn memory(tasks: u64) -> Words {
        let mut constants: Vec<u64> = (0..7).map(|index| POLL + index * 16).collect();
        constants.extend([128, 32, 40, 0]);
        // The pages around are there as well.
        constants.resize(2048, 0);
        let mut heap = vec![1 + tasks];
        heap.resize((HEAP - SCHEDULER) as usize / 8, 0);
        for id in 1..=tasks {
            let mut cell = vec![2 * state::REF_ONE, 0, VTABLE, 7, SCHEDULER, id];
            cell.resize(32, 0);
            heap.extend(cell);
        }
        heap.resize(heap.len().next_multiple_of(2048), 0);
        let end = SCHEDULER + heap.len() as u64 * 8;
        Words { constants, heap, writable: SCHEDULER..end }
    }

    fn read_words(mut words: Words, limits: &Limits) -> TasksRead {
        let mut layouts = Names;
        let mut memory = Cached::new(&mut words, u64::MAX).unwrap();
        super::read(&mut memory, Types::new(&mut layouts), 0, &Roots::default(), limits)
    }

    /// Index of a field of the n-th cell in the heap's words.
    fn field(cell: usize, word: usize) -> usize {
        (HEAP - SCHEDULER) as usize / 8 + cell * 32 + word
    }

    #[test]
    fn living_tasks_are_found_with_name_and_state() {
        let mut words = memory(4);
        words.heap[field(1, 0)] |= state::NOTIFIED;
        words.heap[field(2, 0)] |= state::RUNNING;
        let read = read_words(words, &Limits::default());
        let states: Vec<_> = read.tasks.iter().map(|task| (task.id.0, task.state)).collect();
        let expected = [TaskState::Idle, TaskState::Scheduled, TaskState::Running, TaskState::Idle];
        assert_eq!(states, (1..).zip(expected).collect::<Vec<_>>());
        let stack = read.tasks[0].stack.as_ref().unwrap();
        assert_eq!(&*stack.frames[0].function_full, "app::watch");
        assert!(read.tasks[2].stack.is_none());
        let owner = &read.owners[..];
        assert_eq!(
            (owner[0].address, owner[0].flavor, owner[0].read),
            (SCHEDULER, "multi_thread", 4)
        );
        assert_eq!((read.missing[0].reason, read.missing[0].count), (Reason::TypesOnly, 4));
    }

    #[test]
    fn what_is_left_of_a_task_is_none() {
        for (word, value) in [
            // Finished, of nobody, never on a list, without an id, of no runtime.
            (0, (2 * state::REF_ONE) | state::COMPLETE),
            (0, state::NOTIFIED),
            (3, 0),
            (5, 0),
            (4, SCHEDULER + 8),
            (4, 0x10),
            // A free list's pointer.
            (0, 0xdead_beef_dead_beef),
        ] {
            let mut words = memory(2);
            words.heap[field(0, word)] = value;
            let read = read_words(words, &Limits::default());
            let ids: Vec<u64> = read.tasks.iter().map(|task| task.id.0).collect();
            assert_eq!(ids, [2], "{word} {value:#x}");
        }
    }

    #[test]
    fn bounds_are_counted() {
        let limits = Limits { tasks: 3, ..Limits::default() };
        let read = read_words(memory(5), &limits);
        assert_eq!(read.tasks.len(), 3);
        assert_eq!((read.missing[1].reason, read.missing[1].count), (Reason::BoundReached, 2));
        let limits = Limits { search_bytes: 8, ..Limits::default() };
        let words = Words { writable: HEAP..HEAP + 8, ..memory(5) };
        assert_eq!(read_words(words, &limits).missing.len(), 1);
        let late = Limits { search_bytes: 0, ..Limits::default() };
        let read = read_words(memory(5), &late);
        assert_eq!((read.tasks.len(), read.missing[1].count), (0, 16384));
    }

    proptest! {
        /// Whatever the words are, an id is told once and its owner is there.
        #[test]
        fn any_words_are_read(
            hits in prop::collection::vec((0_usize..200, any::<u64>(), 0_u8..4), 0..40),
        ) {
            let mut words = memory(5);
            for (at, value, how) in hits {
                words.heap[at] = match how {
                    0 => value,
                    1 => VTABLE + value % 128,
                    2 => value % 256,
                    _ => SCHEDULER + value % 4096,
                };
            }
            let read = read_words(words, &Limits::default());
            prop_assert!(read.tasks.is_sorted_by(|one, other| one.id < other.id));
            let listed: u64 = read.owners.iter().map(|owner| owner.read).sum();
            prop_assert_eq!(listed, read.tasks.len() as u64);
        }
    }
}
