//! What one client has been told, and the next page of what is new to it.

use console_api::instrument::Update;
use console_api::tasks::{Stats, Task as WireTask, TaskUpdate};
use prost::Message;

use super::wire::{self, Figures};
use crate::model::{RuntimeId, Snapshot, StreamId, Task, TaskState};

/// Encoded size that a page does not exceed. The client refuses messages above
/// 4 MiB, and draws its whole list anew after each one: fewer and larger pages
/// fill the screen sooner.
pub(super) const PAGE_BYTES: usize = 3 << 20;

/// Room for what frames the tasks of a page: time, metadata, tags and lengths.
const ENVELOPE_BYTES: usize = 1024;

/// Most that tags, lengths and the map key add to one task and its figures.
const ENTRY_BYTES: usize = 32;

/// Birth times are `taken_at` minus age, so they move when somebody sets the
/// wall clock. Beyond this the client is told the new one, lest ages jump.
const CLOCK_STEP_NS: u64 = 100_000_000;

/// One task as the client knows it. There are no more than the registry holds.
#[derive(Clone, Copy, Debug)]
struct Entry {
    id: u64,
    created_ns: u64,
    polls: u64,
    busy_ns: u64,
    stream: Option<StreamId>,
    state: TaskState,
    named: bool,
}

// 200,000 tasks and eight clients: 100 MB at the very worst.
const _: () = assert!(size_of::<Entry>() <= 64);

/// The account of one client.
///
/// Snapshots are told in sweeps over ascending ids, one page at a time. When
/// the client asks for the next page, it is made from the newest snapshot, even
/// in the middle of a sweep: each task is told as of some recent moment, and
/// nothing older has to be kept for a client that reads slowly.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// What the client knew before this sweep, by id.
    before: Vec<Entry>,
    /// How many of those this sweep has passed.
    passed: usize,
    /// What it knows of the ids this sweep has passed.
    after: Vec<Entry>,
    /// The last id this sweep has passed.
    position: Option<u64>,
    /// Tasks and streams kept out by a bound that it knows of.
    dropped: u64,
    introduced: bool,
}

/// One message for the client.
#[derive(Debug)]
pub(super) struct Page {
    pub update: Update,
    /// It ends a sweep: the client now knows all of the snapshot.
    pub last: bool,
}

impl Ledger {
    /// The next page, of the newest snapshot. Its tasks must be ascending by id.
    pub fn page(&mut self, snapshot: &Snapshot, limit: usize) -> Page {
        let now_ns = snapshot.taken_at.unix_nanos();
        let mut page = Draft::new(limit);
        if self.after.is_empty() {
            self.after.reserve(snapshot.tasks.len());
        }
        let start = match self.position {
            Some(position) => snapshot.tasks.partition_point(|task| task.id.0 <= position),
            None => 0,
        };
        let mut tasks = snapshot.tasks[start..].iter().peekable();
        let last = loop {
            let known = self.before.get(self.passed).copied();
            let task = tasks.peek().copied();
            let told = match (known, task) {
                (None, None) => break true,
                (Some(known), None) => page.ended(known, now_ns),
                (Some(known), Some(task)) if known.id < task.id.0 => page.ended(known, now_ns),
                (Some(known), Some(task)) if known.id == task.id.0 => {
                    page.known(known, task, snapshot, now_ns)
                }
                (_, Some(task)) => page.new_task(task, None, snapshot, now_ns),
            };
            let Some(told) = told else { break false };
            let passed = match told {
                Told::Gone(id) => id,
                Told::Lives(entry) => {
                    self.after.push(entry);
                    tasks.next();
                    entry.id
                }
            };
            self.position = Some(passed);
            if known.is_some_and(|known| known.id == passed) {
                self.passed += 1;
            }
        };
        if last {
            self.before = std::mem::take(&mut self.after);
            self.passed = 0;
            self.position = None;
        }
        let dropped = snapshot.counters.tasks_dropped;
        let update = Update {
            now: Some(wire::timestamp(now_ns)),
            task_update: Some(TaskUpdate {
                new_tasks: page.tasks,
                stats_update: page.stats,
                dropped_events: dropped.saturating_sub(self.dropped),
            }),
            new_metadata: (!self.introduced).then(wire::metadata),
            resource_update: None,
            async_op_update: None,
        };
        self.dropped = dropped;
        self.introduced = true;
        Page { update, last }
    }
}

enum Told {
    Lives(Entry),
    Gone(u64),
}

/// A page being filled. Its methods give `None` when there is no more room.
struct Draft {
    tasks: Vec<WireTask>,
    stats: std::collections::HashMap<u64, Stats>,
    room: usize,
}

impl Draft {
    fn new(limit: usize) -> Self {
        let room = limit.saturating_sub(ENVELOPE_BYTES);
        Self { tasks: Vec::new(), stats: Default::default(), room }
    }

    /// Takes the room for one task; the first always fits, so that a sweep
    /// moves on whatever the limit is.
    fn reserve(&mut self, bytes: usize) -> Option<()> {
        let bytes = bytes + ENTRY_BYTES;
        if self.room < bytes && !self.stats.is_empty() {
            return None;
        }
        self.room = self.room.saturating_sub(bytes);
        Some(())
    }

    fn ended(&mut self, known: Entry, now_ns: u64) -> Option<Told> {
        let stats = wire::stats(&Figures {
            created_ns: known.created_ns,
            // Found gone, so that it ended between two snapshots.
            dropped_ns: Some(now_ns.max(known.created_ns)),
            since_ns: now_ns,
            state: known.state,
            polls: known.polls,
            busy_ns: known.busy_ns,
        });
        self.reserve(stats.encoded_len())?;
        self.stats.insert(known.id, stats);
        Some(Told::Gone(known.id))
    }

    fn known(
        &mut self,
        known: Entry,
        task: &Task,
        snapshot: &Snapshot,
        now_ns: u64,
    ) -> Option<Told> {
        let entry = entry(task, Some(known), now_ns);
        // A stream's task is born before its method is known: it is then
        // introduced once more, and the client replaces what it had.
        if (entry.named, entry.stream) != (known.named, known.stream) {
            return self.new_task(task, Some(known), snapshot, now_ns);
        }
        let moved = (entry.created_ns, entry.polls, entry.state)
            != (known.created_ns, known.polls, known.state)
            // While it runs the client counts on by itself.
            || (entry.state != TaskState::Running && entry.busy_ns != known.busy_ns);
        if moved {
            let stats = wire::stats(&figures(task, &entry, now_ns));
            self.reserve(stats.encoded_len())?;
            self.stats.insert(entry.id, stats);
        }
        Some(Told::Lives(entry))
    }

    fn new_task(
        &mut self,
        task: &Task,
        known: Option<Entry>,
        snapshot: &Snapshot,
        now_ns: u64,
    ) -> Option<Told> {
        let entry = entry(task, known, now_ns);
        let stats = wire::stats(&figures(task, &entry, now_ns));
        let told = wire::task(task, runtime_name(snapshot, task.runtime));
        self.reserve(stats.encoded_len() + told.encoded_len())?;
        // Both in one message: the client forgets a task that comes without.
        self.tasks.push(told);
        self.stats.insert(entry.id, stats);
        Some(Told::Lives(entry))
    }
}

fn entry(task: &Task, known: Option<Entry>, now_ns: u64) -> Entry {
    let created_ns = now_ns.saturating_sub(task.age_ns);
    Entry {
        id: task.id.0,
        created_ns: known
            .map(|known| known.created_ns)
            .filter(|known| known.abs_diff(created_ns) < CLOCK_STEP_NS)
            .unwrap_or(created_ns),
        polls: task.polls,
        busy_ns: task.busy_ns,
        stream: task.stream,
        state: task.state,
        named: task.method.is_some(),
    }
}

fn figures(task: &Task, entry: &Entry, now_ns: u64) -> Figures {
    let current_ns = if task.state == TaskState::Running { task.state_ns } else { 0 };
    Figures {
        created_ns: entry.created_ns,
        dropped_ns: None,
        since_ns: now_ns.saturating_sub(task.state_ns).max(entry.created_ns),
        state: task.state,
        polls: task.polls,
        busy_ns: task.busy_ns.saturating_sub(current_ns),
    }
}

fn runtime_name(snapshot: &Snapshot, id: RuntimeId) -> Option<&str> {
    if snapshot.runtimes.len() < 2 {
        return None;
    }
    snapshot.runtimes.iter().find(|runtime| runtime.id == id).map(|runtime| &*runtime.name)
}
