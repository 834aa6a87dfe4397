//! The reading itself: roots, lists, tasks, holders.

use std::sync::Arc;
use std::time::Instant;

use super::cells::Kinds;
use super::fields::Types;
use super::hash::NumberMap;
use super::holders;
use super::owners::{self, Owners};
use super::plan::Plans;
use super::render::Render;
use super::search;
use super::semaphores::Semaphores;
use super::tokio::{BatchSemaphore, Offsets, state};
use super::trace::Trace;
use super::untyped;
use super::walk::{Behind, Walker};
use super::{Limits, Owner, Roots, TaskRead, TasksRead};
use crate::debuginfo::layout::{Detail, Layouts};
use crate::error::{Error, Result};
use crate::inspect::image::{Cached, Image};
use crate::model::{Missing, Reason, TaskId, TaskState};
use crate::sys::{room, thread};

/// How often the clock is looked at: once in so many tasks.
const CLOCK: u64 = 64;

/// Room made for tasks on the word of a runtime's own count.
const RESERVED: u64 = 1 << 20;

/// Reads every task that the roots lead to.
///
/// What cannot be read is named in [`TasksRead::missing`]; an image of
/// nonsense gives no tasks, in bounded time.
///
/// # Errors
/// `Io` if there is no memory to read with; whatever else happens, what is
/// found is better than nothing.
pub fn read(
    image: &mut Image,
    layouts: &mut dyn Layouts,
    roots: &Roots,
    limits: &Limits,
) -> Result<TasksRead> {
    let detail = layouts.detail();
    let mut types = Types::new(layouts);
    let offsets = match detail {
        Detail::Nothing => None,
        Detail::Names | Detail::Full => Offsets::find(&mut types),
    };
    let mut memory = Cached::new(image.memory.as_mut(), limits.bytes)
        .map_err(|error| Error::io("no memory for reading an image", error))?;
    let Some(offsets) = offsets else {
        if !types.layouts.task_polls().is_empty() {
            return Ok(untyped::read(&mut memory, types, image.bias, roots, limits));
        }
        let reason = match detail {
            Detail::Nothing => Reason::NoDebugInfo,
            Detail::Names | Detail::Full => Reason::TypesOnly,
        };
        let detail = "the program's debug information knows no tasks of tokio's: \
                      build it with `debug = \"full\"`, or give its layout file";
        let missing = Missing { reason, count: 0, detail: detail.into() };
        return Ok(TasksRead { missing: vec![missing], ..TasksRead::default() });
    };
    let semaphores = BatchSemaphore::find(&mut types);
    let mut reader = Reader {
        offsets,
        bias: image.bias,
        limits,
        detail,
        plans: Plans::new(types),
        kinds: Kinds::default(),
        semaphores: Semaphores::new(semaphores, limits.list),
        owners: Owners::default(),
        render: Render::new(roots),
        trace: Trace::default(),
        behind: NumberMap::default(),
        headers: NumberMap::default(),
        claims: holders::Claims::default(),
        read: TasksRead::default(),
        lost: Lost::default(),
    };
    reader.roots(&mut memory, image.threads.as_slice(), roots);
    reader.all(&mut memory, roots.search);
    Ok(reader.finish(&mut memory))
}

/// What was lost, and to which bound.
#[derive(Default)]
struct Lost {
    tasks: u64,
    broken: u64,
    cut: u64,
    unknown: u64,
    unsearched: u64,
    timeout: bool,
}

struct Reader<'a> {
    offsets: Offsets,
    bias: u64,
    limits: &'a Limits,
    detail: Detail,
    plans: Plans<'a>,
    kinds: Kinds,
    semaphores: Semaphores,
    owners: Owners,
    render: Render,
    trace: Trace,
    behind: NumberMap<u64, Option<Behind>>,
    /// Ids of tasks that have been joined, by header.
    headers: NumberMap<u64, Option<u64>>,
    claims: holders::Claims,
    read: TasksRead,
    lost: Lost,
}

impl<'a> Reader<'a> {
    fn roots(
        &mut self,
        memory: &mut Cached<'a>,
        threads: &[crate::inspect::image::ImageThread],
        roots: &Roots,
    ) {
        let types = &mut self.plans.types;
        if let Some(handle) = types.layouts.find("tokio::runtime::handle::Handle") {
            for &at in &roots.handles {
                let owner = self.owners.handle(memory, types, handle, at);
                self.read.handles.push(owner);
            }
        }
        if let Some((offset, context)) = types.layouts.context() {
            for thread in threads {
                let at = thread.thread_pointer.wrapping_add_signed(offset);
                self.owners.handle(memory, types, context, at);
                if let Some(task) = owners::current_task(memory, types, context, at) {
                    self.read.polling.push((thread.tid, TaskId(task)));
                }
            }
        }
        self.read.strays = search::again(memory, types, &mut self.owners, &roots.strays);
    }

    /// Searches for what the roots did not lead to.
    fn search(&mut self, memory: &mut Cached<'a>) {
        let begun = Instant::now();
        let deadline = self.limits.deadline;
        let searched = search::search(
            memory,
            &mut self.plans.types,
            &self.offsets,
            self.bias,
            &mut self.owners,
            self.limits.search_bytes,
            &mut || deadline.is_some_and(|deadline| Instant::now() > deadline),
        );
        self.lost.unsearched = searched.left;
        self.read.strays.extend(searched.strays);
        self.read.searched = Some(begun.elapsed());
    }

    /// Reads the tasks of all owners; tasks lead to further owners.
    fn all(&mut self, memory: &mut Cached<'a>, mut search: bool) {
        let mut next = 0;
        loop {
            // What the roots lead to comes first: the search may take the
            // rest of the time.
            let Some(found) = self.owners.found.get(next).cloned() else {
                if std::mem::take(&mut search) && !self.is_late() {
                    self.search(memory);
                    continue;
                }
                break;
            };
            next += 1;
            let mut walk = owners::Walk::new(memory, &self.offsets, &found);
            let room = self.limits.tasks.saturating_sub(self.read.tasks.len()) as u64;
            let expected = found.count.unwrap_or(0).min(room).min(RESERVED) as usize;
            // Without room for all of them it grows as it must.
            let _ = room::reserve(&mut self.read.tasks, expected);
            let first = self.read.tasks.len();
            let mut seen = 0;
            while seen < room
                && !(seen.is_multiple_of(CLOCK) && self.is_late())
                && let Some(header) = walk.next(memory, &self.offsets)
            {
                self.task(memory, found.address, header);
                seen += 1;
                thread::give_way();
            }
            // By id: the walk gives the highest first.
            self.read.tasks[first..].reverse();
            // They have ended, and are none of the tasks.
            seen += walk.leaving;
            self.lost.broken += walk.broken;
            let alive = found.count.unwrap_or(seen);
            self.lost.tasks += alive.saturating_sub(seen + walk.broken.min(alive));
            self.read.owners.push(Owner {
                address: found.address,
                id: found.id,
                flavor: found.flavor,
                alive,
                read: seen,
                counted: true,
            });
        }
    }

    fn is_late(&mut self) -> bool {
        self.lost.timeout |= self.limits.deadline.is_some_and(|deadline| Instant::now() > deadline);
        self.lost.timeout
    }

    fn task(&mut self, memory: &mut Cached<'a>, owner: u64, header: u64) -> Option<()> {
        let bits = memory.word(header.checked_add(self.offsets.state)?).ok()?;
        if bits & state::COMPLETE != 0 {
            return None;
        }
        let vtable = memory.word(header.checked_add(self.offsets.vtable)?).ok()?;
        let kind = self.kinds.get(memory, &mut self.plans, &self.offsets, self.bias, vtable)?;
        let id = memory.word(header.checked_add(kind.id)?).ok()?;
        let spawned_at = kind.spawned_at.and_then(|offset| {
            let at = memory.word(header.checked_add(offset)?).ok()?;
            self.kinds.place(memory, &mut self.plans.types, at)
        });
        let state = state::of(bits);
        let mut task = TaskRead {
            id: TaskId(id),
            owner,
            state,
            spawned_at,
            wakers: (state == TaskState::Idle).then(|| state::wakers(bits)),
            joinable: Some(state::joinable(bits)),
            stack: None,
            wait: None,
            branches: Box::default(),
            holds: Box::default(),
        };
        if state != TaskState::Running {
            self.stack(memory, header, &kind, &mut task);
        }
        self.read.tasks.push(task);
        Some(())
    }

    fn stack(
        &mut self,
        memory: &mut Cached<'a>,
        header: u64,
        kind: &super::cells::Kind,
        task: &mut TaskRead,
    ) {
        // Merged functions: those stay whose cell fits and whose future is there.
        let mut there = kind.futures.iter().filter(|future| future.is_there(memory, header));
        let Some(future) = there.next() else {
            self.lost.unknown += 1;
            return;
        };
        let mut or_one_of: Vec<Arc<str>> = there.map(|future| future.name.clone()).collect();
        if self.detail == Detail::Names {
            let frame = self.plans.frames.frame(&future.name, None);
            task.stack = Some(self.plans.frames.stack(&[frame], false, &[]));
            return;
        }
        let mut walker = Walker::new(
            memory,
            &mut self.plans,
            &mut self.semaphores,
            self.bias,
            self.limits,
            &mut self.trace,
            &mut self.behind,
        );
        walker.task(future.ty, header.wrapping_add(future.at), task.state == TaskState::Idle);
        self.lost.cut += u64::from(self.trace.cut);
        for (address, list) in std::mem::take(&mut self.trace.local_sets) {
            self.owners.add(memory, address, &list);
        }
        for tip in &self.trace.tips {
            if let Some(header) = tip.wait.and_then(|wait| wait.joins)
                && !self.headers.contains_key(&header)
            {
                let id = self.id_of(memory, header);
                self.headers.insert(header, id);
            }
        }
        for other in self.trace.or_one_of.drain(..) {
            if !or_one_of.contains(&other) {
                or_one_of.push(other);
            }
        }
        self.claims.note(task.id, &self.trace.holds, &self.trace.tips);
        let headers = &self.headers;
        let joins = |header: u64| headers.get(&header).copied().flatten();
        self.render.task(&mut self.plans.frames, &self.trace, task, &or_one_of, joins);
    }

    /// The id of the task at a header that another task joins.
    fn id_of(&self, memory: &mut Cached<'a>, header: u64) -> Option<u64> {
        let vtable = memory.word(header.checked_add(self.offsets.vtable)?).ok()?;
        let offset = memory.word(vtable.checked_add(self.offsets.id_offset)?).ok()?;
        memory.word(header.checked_add(offset)?).ok()
    }

    fn finish(mut self, memory: &mut Cached<'a>) -> TasksRead {
        let mut read = self.read;
        if !read.tasks.is_sorted_by_key(|task| task.id) {
            // A task is large and its id small.
            read.tasks.sort_by_cached_key(|task| task.id);
        }
        // A list that leads in a circle tells a task more than once.
        read.tasks.dedup_by_key(|task| task.id);
        read.owners.sort_by_key(|owner| owner.address);
        self.claims.settle(memory, &mut self.semaphores, &mut read.tasks);
        let mut miss = |reason, count, detail: &str| {
            if count > 0 {
                read.missing.push(Missing { reason, count, detail: detail.to_owned() });
            }
        };
        let lost = self.lost;
        let why = if lost.timeout {
            "tasks left out: the time for reading was over"
        } else {
            "tasks left out: a bound on tasks or bytes was reached"
        };
        miss(Reason::BoundReached, lost.tasks, why);
        let exhausted = u64::from(memory.exhausted());
        miss(Reason::BoundReached, exhausted, "as many bytes were copied as are allowed");
        miss(Reason::BoundReached, lost.cut, "tasks with a chain cut short by a bound");
        miss(
            Reason::BoundReached,
            lost.unsearched,
            "bytes of heap not searched for runtimes: the time or the bound was over",
        );
        miss(Reason::Torn, lost.broken, "lists of tasks that ended in something else");
        miss(Reason::NoAwaitChain, lost.unknown, "tasks of a type that is not known");
        if self.detail == Detail::Names {
            let count = read.tasks.len() as u64;
            let detail = "debug information without types: names and states, no await points";
            miss(Reason::TypesOnly, count, detail);
        }
        read
    }
}
