//! Tasks that are alike, for a page and a person: by the innermost place of
//! the program's own code, and by what they wait for.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;

use super::page::{Cursor, Page};
use super::term::Filter;
use crate::model::{Location, Snapshot, Stack, Task, WaitKind};
use crate::render::json::{StateCounts, TaskGroup};

/// Ids named per group; the rest are one filter away.
const EXAMPLES: usize = 10;

/// Orders of groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupSort {
    /// Most tasks first.
    #[default]
    Count,
    /// The one with the oldest task first.
    Age,
    /// The one with the longest wait first.
    Wait,
    /// Most time inside polls first.
    Busy,
    /// Longest single poll first.
    Longest,
}

impl GroupSort {
    /// The words of `sort=` together with `group=stack`.
    pub const WORDS: &str = "count, age, wait, busy or longest";

    /// The order by its word.
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "count" => Self::Count,
            "age" => Self::Age,
            "wait" => Self::Wait,
            "busy" => Self::Busy,
            "longest" => Self::Longest,
            _ => return None,
        })
    }

    /// The number cursors of this order carry; apart from those of tasks.
    pub fn number(self) -> u8 {
        0x40 + self as u8
    }

    fn key(self, group: &TaskGroup) -> u64 {
        !match self {
            Self::Count => group.count,
            Self::Age => group.oldest_ns,
            Self::Wait => group.longest_wait_ns,
            Self::Busy => group.busy_ns,
            Self::Longest => group.longest_poll_ns,
        }
    }
}

/// One page of groups.
pub struct GroupsPage {
    /// Tasks in all groups.
    pub matched: u64,
    /// Groups on all pages.
    pub total: u64,
    /// Where the next page begins.
    pub next: Option<Cursor>,
    /// This page's groups.
    pub groups: Vec<TaskGroup>,
}

#[derive(PartialEq, Eq, Hash)]
struct Key<'a> {
    function: Option<&'a str>,
    place: Option<&'a Location>,
    spawned_at: Option<&'a Location>,
    method: Option<&'a str>,
    wait: Option<WaitKind>,
}

/// Groups the tasks that match.
pub fn group_tasks(
    snapshot: &Snapshot,
    filter: &Filter<Task>,
    sort: GroupSort,
    after: Option<Cursor>,
    limit: usize,
) -> GroupsPage {
    let mut index: HashMap<Key<'_>, usize> = HashMap::new();
    // By shared pointers first: see `alike::sums`.
    let mut near: HashMap<([usize; 3], Option<WaitKind>), usize> = HashMap::new();
    let mut groups: Vec<(u64, TaskGroup)> = Vec::new();
    let mut matched = 0;
    for task in snapshot.tasks.iter().filter(|task| filter.matches(task)) {
        matched += 1;
        let pointers = [
            task.stack.as_ref().map_or(0, |stack| Arc::as_ptr(stack) as usize),
            task.spawned_at.as_ref().map_or(0, |place| Arc::as_ptr(place) as usize),
            task.method.as_ref().map_or(0, |method| Arc::as_ptr(method).cast::<u8>() as usize),
        ];
        let at = *near.entry((pointers, task.waits_for())).or_insert_with(|| {
            let key = key(task);
            let hash = hash(&key);
            *index.entry(key).or_insert_with(|| {
                groups.push((hash, begin(hash, task)));
                groups.len() - 1
            })
        });
        add(&mut groups[at].1, task);
    }
    let total = groups.len() as u64;
    let rows = groups.iter().enumerate().map(|(at, (hash, group))| (sort.key(group), *hash, at));
    let page = Page::cut(rows, sort.number(), after, limit);
    let mut groups: Vec<_> = groups.into_iter().map(|(_, group)| Some(group)).collect();
    let groups = page.rows.iter().filter_map(|&at| groups[at].take()).collect();
    GroupsPage { matched, total, next: page.next, groups }
}

fn key(task: &Task) -> Key<'_> {
    Key {
        function: task
            .stack
            .as_deref()
            .and_then(Stack::user_frame)
            .map(|frame| &*frame.function_full),
        place: task.place(),
        spawned_at: task.spawned_at.as_deref(),
        method: task.method.as_deref(),
        wait: task.waits_for(),
    }
}

/// The group of a task, as its `key` has it.
pub fn group_of(task: &Task) -> u64 {
    hash(&key(task))
}

/// The same within a process, which is as long as a cursor lives.
fn hash(key: &Key<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

fn begin(hash: u64, task: &Task) -> TaskGroup {
    let stack = task.stack.as_deref();
    TaskGroup {
        key: format!("{hash:016x}"),
        function: stack.and_then(Stack::user_frame).map(|frame| Arc::clone(&frame.function)),
        place: task.place().cloned(),
        waiting_in: stack
            .and_then(|stack| stack.frames.first())
            .map(|frame| Arc::clone(&frame.function)),
        spawned_at: task.spawned_at.as_deref().cloned(),
        method: task.method.clone(),
        wait: task.waits_for(),
        resource: task.wait.as_ref().and_then(|wait| wait.resource),
        holder: task.wait.as_ref().and_then(|wait| wait.holders.first()).map(|one| one.task),
        count: 0,
        states: StateCounts::default(),
        oldest_ns: 0,
        longest_state_ns: 0,
        longest_wait_ns: 0,
        busy_ns: 0,
        polls: 0,
        longest_poll_ns: 0,
        example_ids: Vec::new(),
        stack: task.stack.clone(),
    }
}

fn add(group: &mut TaskGroup, task: &Task) {
    group.count += 1;
    group.states.add(task.state);
    group.oldest_ns = group.oldest_ns.max(task.age_ns);
    group.longest_state_ns = group.longest_state_ns.max(task.state_ns);
    group.longest_wait_ns = group.longest_wait_ns.max(task.waited_ns());
    // Only what all members have in common.
    let wait = task.wait.as_ref();
    if wait.and_then(|wait| wait.resource) != group.resource {
        group.resource = None;
    }
    if wait.and_then(|wait| wait.holders.first()).map(|one| one.task) != group.holder {
        group.holder = None;
    }
    group.busy_ns = group.busy_ns.saturating_add(task.busy_ns);
    group.polls = group.polls.saturating_add(task.polls);
    group.longest_poll_ns = group.longest_poll_ns.max(task.longest_poll_ns);
    // Tasks come by id, which is by age.
    if group.example_ids.len() < EXAMPLES {
        group.example_ids.push(task.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{TaskId, sample};
    use crate::render::select::task_filter;

    fn groups(snapshot: &Snapshot, filter: &str, sort: GroupSort) -> GroupsPage {
        group_tasks(snapshot, &task_filter(filter).unwrap(), sort, None, usize::MAX)
    }

    #[test]
    fn every_task_is_in_one_group() {
        let page = groups(&sample::crowd(1_000), "", GroupSort::Count);
        assert_eq!(page.matched, 1_000);
        assert_eq!(page.groups.iter().map(|group| group.count).sum::<u64>(), 1_000);
        assert_eq!(page.total as usize, page.groups.len());
        assert!(page.groups.iter().all(|group| group.example_ids.len() <= 10));
    }

    #[test]
    fn a_blocked_task_stands_at_its_own_code() {
        let page = groups(&sample::busy_server(), "state:running", GroupSort::Count);
        let group = &page.groups[0];
        assert_eq!(group.function.as_deref(), Some("billing::charge_card"));
        assert_eq!(group.place.as_ref().unwrap().to_string(), "src/billing.rs:88");
        assert_eq!(group.waiting_in.as_deref(), Some("clock_nanosleep"));
        assert_eq!(group.states, StateCounts { running: 1, ..StateCounts::default() });
    }

    #[test]
    fn tasks_that_wait_for_one_thing_tell_it_and_its_holder() {
        let mut snapshot = sample::stuck_server();
        let mut more = snapshot.tasks[0].clone();
        (more.id, more.wait.as_mut().unwrap().wait_ns) = (TaskId(99), 60 * sample::SECOND);
        snapshot.tasks.push(more);
        let page = groups(&snapshot, "", GroupSort::Wait);
        let first = &page.groups[0];
        assert_eq!((first.count, first.wait), (2, Some(WaitKind::Mutex)));
        assert_eq!(first.longest_wait_ns, 60 * sample::SECOND);
        assert_eq!((first.resource, first.holder), (sample::resource("0x7f10"), Some(TaskId(23))));
        let members = groups(&snapshot, &format!("group:{}", first.key), GroupSort::Wait);
        assert_eq!((members.matched, members.total), (2, 1));
        // Another lock, the same place.
        snapshot.tasks[0].wait.as_mut().unwrap().resource = sample::resource("0x7f11");
        let page = groups(&snapshot, "", GroupSort::Wait);
        assert_eq!((page.groups[0].count, &page.groups[0].resource), (2, &None));
    }

    #[test]
    fn keys_and_pages_hold_across_snapshots() {
        let first = groups(&sample::crowd(1_000), "", GroupSort::Count);
        let mut keys = Vec::new();
        let mut after = None;
        loop {
            // A new snapshot with new allocations each time.
            let page = group_tasks(
                &sample::crowd(1_000),
                &task_filter("").unwrap(),
                GroupSort::Count,
                after,
                3,
            );
            keys.extend(page.groups.into_iter().map(|group| group.key));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(keys, first.groups.into_iter().map(|group| group.key).collect::<Vec<_>>());
    }
}
