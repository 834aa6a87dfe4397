//! Tasks: filter and order.

use super::groups::group_of;
use super::page::{Cursor, Page};
use super::term::{Compare, Filter, contains};
use crate::model::{Resource, Snapshot, Stack, StreamId, Task, TaskId, TaskState, Wait, WaitKind};

/// What a task filter may say; part of the answer to a wrong one.
pub const TASK_FILTER: &str = "words that match the place, function, method, peer or state; or state:idle|running|\
    scheduled|waiting|unknown, method:, peer:, place:, spawned:, id:, parent:, stream:, worker:, wait:mutex (or \
    another kind), resource:, holder:TASK, holds:, group:KEY, age:>10s, wait:>1s, busy:>1s, longest:>100ms, polls:>5; -term excludes, \"quotes\" hold blanks";

/// Parses a task filter.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn task_filter(text: &str) -> Result<Filter<Task>, String> {
    Filter::parse(text, |key, value| {
        let part = value.to_owned();
        Ok(match key {
            None => Box::new(move |task| anywhere(task, &part)),
            Some("state") => {
                let state = state(value)?;
                Box::new(move |task: &Task| state.map_or(waits(task), |state| task.state == state))
            }
            Some("method") => Box::new(move |task| {
                task.method.as_deref().is_some_and(|text| contains(text, &part))
            }),
            Some("peer") => {
                Box::new(move |task| task.peer.as_deref().is_some_and(|text| contains(text, &part)))
            }
            Some("place") => Box::new(move |task| {
                task.place().is_some_and(|place| contains(&place.to_string(), &part))
            }),
            Some("spawned") => Box::new(move |task| {
                task.spawned_at.as_deref().is_some_and(|place| contains(&place.to_string(), &part))
            }),
            Some("id") => {
                let id: TaskId = id(value)?;
                Box::new(move |task| task.id == id)
            }
            Some("parent") => {
                let id: TaskId = id(value)?;
                Box::new(move |task| task.parent == Some(id))
            }
            Some("stream") => {
                let id: StreamId = id(value)?;
                Box::new(move |task| task.stream == Some(id))
            }
            Some("worker") => number(value, |task| task.worker.map(u64::from))?,
            Some("polls") => number(value, |task| Some(task.polls))?,
            Some("age") => duration(value, |task| Some(task.age_ns))?,
            Some("wait") => match WaitKind::ALL.into_iter().find(|kind| kind.as_str() == value) {
                Some(kind) => {
                    Box::new(move |task| task.wait.as_ref().is_some_and(|wait| wait.kind == kind))
                }
                None if value.starts_with(|c: char| c.is_ascii_alphabetic()) => {
                    return Err(format!("`{value}` is no kind of wait, as mutex or mpsc_recv is"));
                }
                None => duration(value, |task| waits(task).then(|| task.waited_ns()))?,
            },
            Some("resource") => Box::new(move |task| {
                all_waits(task).any(|wait| wait.resource.is_some_and(|it| is_named(it, &part)))
            }),
            Some("holder") => {
                let id: TaskId = id(value)?;
                Box::new(move |task| {
                    all_waits(task).any(|wait| wait.holders.iter().any(|one| one.task == id))
                })
            }
            Some("holds") => {
                Box::new(move |task| task.holds.iter().any(|held| is_named(held.resource, &part)))
            }
            Some("group") => {
                let key = u64::from_str_radix(value, 16)
                    .map_err(|_| format!("`{value}` is no group's key"))?;
                Box::new(move |task| group_of(task) == key)
            }
            Some("busy") => duration(value, |task| Some(task.busy_ns))?,
            Some("longest") => duration(value, |task| Some(task.longest_poll_ns))?,
            Some(key) if value.starts_with(':') => {
                // `mpsc::recv` is a word with colons.
                let part = format!("{key}:{value}");
                Box::new(move |task| anywhere(task, &part))
            }
            Some(key) => return Err(format!("`{key}:` is not known")),
        })
    })
}

/// Its main wait and those of its branches.
fn all_waits(task: &Task) -> impl Iterator<Item = &Wait> {
    let branches = task.branches.iter().filter_map(|branch| branch.wait.as_ref());
    task.wait.as_ref().into_iter().chain(branches)
}

fn waits(task: &Task) -> bool {
    matches!(task.state, TaskState::Idle | TaskState::Scheduled)
}

fn state(text: &str) -> Result<Option<TaskState>, String> {
    Ok(Some(match text {
        "waiting" => return Ok(None),
        "idle" => TaskState::Idle,
        "running" => TaskState::Running,
        "scheduled" => TaskState::Scheduled,
        "unknown" => TaskState::Unknown,
        _ => return Err(format!("`{text}` is no state")),
    }))
}

pub(super) fn id<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("`{text}` is no id"))
}

type Test = Box<dyn Fn(&Task) -> bool + Send + Sync>;

fn number(text: &str, of: fn(&Task) -> Option<u64>) -> Result<Test, String> {
    let compare = Compare::number(text)?;
    Ok(Box::new(move |task| of(task).is_some_and(|value| compare.holds(value))))
}

fn duration(text: &str, of: fn(&Task) -> Option<u64>) -> Result<Test, String> {
    let compare = Compare::duration(text)?;
    Ok(Box::new(move |task| of(task).is_some_and(|value| compare.holds(value))))
}

fn anywhere(task: &Task, part: &str) -> bool {
    let texts = [task.method.as_deref(), task.peer.as_deref(), Some(task.state.as_str())];
    texts.into_iter().flatten().any(|text| contains(text, part))
        || task.spawned_at.as_deref().is_some_and(|place| contains(&place.to_string(), part))
        || task.stack.as_deref().is_some_and(|stack| in_stack(stack, part))
        || task.branches.iter().any(|branch| in_stack(&branch.stack, part))
        || all_waits(task).any(|wait| {
            let texts = [wait.detail.as_deref(), Some(wait.kind.words())];
            texts.into_iter().flatten().any(|text| contains(text, part))
                || wait.resource.is_some_and(|resource| is_named(resource, part))
        })
}

fn is_named(resource: Resource, part: &str) -> bool {
    contains(&resource.to_string(), part)
}

fn in_stack(stack: &Stack, part: &str) -> bool {
    stack.frames.iter().any(|frame| {
        contains(&frame.function_full, part)
            || frame.location.as_ref().is_some_and(|place| contains(&place.to_string(), part))
    })
}

/// Orders of tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TaskSort {
    /// Smallest id first.
    #[default]
    Id,
    /// Oldest first.
    Age,
    /// Longest in its wait, or else in its state, first.
    Wait,
    /// Most polls first.
    Polls,
    /// Most time inside polls first.
    Busy,
    /// Longest single poll first.
    Longest,
}

impl TaskSort {
    /// The words of `sort=`.
    pub const WORDS: &str = "id, age, wait, polls, busy or longest";

    /// The order by its word.
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "id" => Self::Id,
            "age" => Self::Age,
            "wait" => Self::Wait,
            "polls" => Self::Polls,
            "busy" => Self::Busy,
            "longest" => Self::Longest,
            _ => return None,
        })
    }

    /// Ascending key. Ages become the instants they began at: those stay as
    /// they are from one snapshot to the next.
    fn key(self, snapshot: &Snapshot, task: &Task) -> u64 {
        let since = |ns: u64| snapshot.process.uptime_ns.wrapping_sub(ns) ^ (1 << 63);
        match self {
            Self::Id => 0,
            Self::Age => since(task.age_ns),
            Self::Wait => since(task.waited_ns()),
            Self::Polls => !task.polls,
            Self::Busy => !task.busy_ns,
            Self::Longest => !task.longest_poll_ns,
        }
    }

    /// The number cursors of this order carry.
    pub fn number(self) -> u8 {
        self as u8
    }
}

/// One page of the tasks that match.
pub fn select_tasks(
    snapshot: &Snapshot,
    filter: &Filter<Task>,
    sort: TaskSort,
    after: Option<Cursor>,
    limit: usize,
) -> Page {
    let rows = snapshot
        .tasks
        .iter()
        .enumerate()
        .filter(|(_, task)| filter.matches(task))
        .map(|(index, task)| (sort.key(snapshot, task), task.id.0, index));
    Page::cut(rows, sort.number(), after, limit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::sample;

    fn ids(filter: &str, sort: TaskSort) -> Vec<u64> {
        let snapshot = sample::busy_server();
        let page = select_tasks(&snapshot, &task_filter(filter).unwrap(), sort, None, usize::MAX);
        page.rows.into_iter().map(|index| snapshot.tasks[index].id.0).collect()
    }

    #[test]
    fn filters() {
        for (filter, expected) in [
            ("", vec![10, 11, 12, 13, 20, 40]),
            ("state:running", vec![40]),
            ("state:waiting", vec![10, 11, 12, 13, 20]),
            ("state:waiting age:>10s", vec![10, 11, 12, 13]),
            ("-state:waiting", vec![40]),
            ("method:feed/watch id:11", vec![11]),
            ("WATCH parent:3 -id:10", vec![11, 12, 13]),
            ("thread::sleep", vec![40]),
            ("billing.rs:88", vec![40]),
            ("place:src/billing.rs:88", vec![40]),
            ("stream:2", vec![40]),
            ("parent:10", vec![20]),
            ("wait:>40s polls:>=12", vec![10, 11, 12, 13]),
            ("wait:<1s", vec![20]),
            ("busy:>1s longest:>3s worker:1", vec![40]),
            ("spawned:src/main.rs", vec![40]),
            ("peer:127.0.0.1", vec![10, 11, 12, 13]),
            ("nothing-like-it", vec![]),
        ] {
            assert_eq!(ids(filter, TaskSort::Id), expected, "{filter}");
        }
    }

    #[test]
    fn waits_are_found_by_kind_resource_and_holder() {
        let snapshot = sample::stuck_server();
        for (filter, expected) in [
            ("wait:mutex", vec![17, 23, 24, 31]),
            ("wait:mpsc_recv", vec![32]),
            ("wait:>40s", vec![17, 23, 24, 31, 32]),
            ("wait:>42s", vec![]),
            ("resource:0x7f10", vec![17, 24]),
            ("holder:23", vec![17]),
            ("holds:0x7f10", vec![23]),
            ("chan", vec![32]),
            ("cache::load", vec![31]),
        ] {
            let filter_ = task_filter(filter).unwrap();
            let page = select_tasks(&snapshot, &filter_, TaskSort::Id, None, usize::MAX);
            let ids: Vec<u64> = page.rows.iter().map(|&row| snapshot.tasks[row].id.0).collect();
            assert_eq!(ids, expected, "{filter}");
        }
    }

    #[test]
    fn wrong_filters_say_why() {
        for (filter, why) in [
            ("wait:lock", "no kind of wait"),
            ("holder:x", "no id"),
            ("group:zz", "no group's key"),
            ("state:asleep", "`asleep` is no state"),
            ("colour:red", "`colour:` is not known"),
            ("age:>10", "no duration"),
            ("polls:>many", "no number"),
            ("id:x", "no id"),
            ("\"open", "not closed"),
        ] {
            let error = task_filter(filter).err().unwrap();
            assert!(error.contains(why), "{filter}: {error}");
        }
        assert!(task_filter(&"x ".repeat(33)).is_err());
        assert!(task_filter(&"x".repeat(1001)).is_err());
    }

    #[test]
    fn orders() {
        assert_eq!(ids("", TaskSort::Busy)[0], 40);
        assert_eq!(ids("", TaskSort::Longest)[0], 40);
        assert_eq!(*ids("", TaskSort::Age).last().unwrap(), 20);
        assert_eq!(*ids("", TaskSort::Wait).last().unwrap(), 20);
        assert_eq!(*ids("", TaskSort::Polls).last().unwrap(), 20);
    }
}
