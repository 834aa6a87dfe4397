//! What is remembered from snapshot to snapshot: how many tasks each place had.

use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, VecDeque};
use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;

use super::growth;
use crate::model::{
    Growing, GrowthPoint, History, Location, Snapshot, Stack, StreamId, Task, TaskId,
};

/// Between two looks: less says nothing about a trend.
const APART_NS: u64 = 10_000_000_000;
/// Looks kept.
const LOOKS: usize = 32;
/// Places kept of each look, largest first: at most 1 MiB in all.
const PLACES: usize = 1_024;
/// Tasks named of a group.
const EXAMPLES: usize = 10;
/// Smaller groups are not followed up.
const MANY: u64 = 100;

/// Sizes of groups over time. Whoever takes snapshots owns one and shows it
/// each of them; it is bounded, and asks nobody for the time.
#[derive(Debug, Default)]
pub struct Trend {
    looks: VecDeque<Look>,
    last: History,
}

#[derive(Debug)]
struct Look {
    at: u64,
    sizes: HashMap<u64, Size>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Size {
    count: u64,
    /// The youngest task's id: whoever has a smaller one was there.
    youngest: u64,
}

struct Group<'a> {
    hash: u64,
    first: &'a Task,
    size: Size,
}

impl Trend {
    /// Takes note of a snapshot with tasks and stacks, and gives what goes
    /// into its [`Snapshot::history`].
    pub fn observe(&mut self, snapshot: &Snapshot) -> History {
        let now = snapshot.taken_at.unix_nanos();
        match self.looks.back() {
            // The clock was set back: what was before cannot be compared.
            Some(last) if last.at > now => *self = Self::default(),
            Some(last) if now - last.at < APART_NS => return aged(&self.last, now - last.at),
            _ => {}
        }
        let (groups, members) = group(&snapshot.tasks);
        let mut growing: Vec<Growing> = groups
            .iter()
            .enumerate()
            .filter(|(_, group)| group.size.count > MANY)
            .filter_map(|(at, group)| self.growing(snapshot, now, group, &members, at))
            .collect();
        growing.sort_by_key(|group| std::cmp::Reverse(group.points.last().map(|last| last.count)));
        let mut sizes: Vec<(u64, Size)> =
            groups.iter().map(|group| (group.hash, group.size)).collect();
        if sizes.len() > PLACES {
            sizes.select_nth_unstable_by_key(PLACES, |(_, size)| std::cmp::Reverse(size.count));
            sizes.truncate(PLACES);
        }
        if self.looks.len() == LOOKS {
            self.looks.pop_front();
        }
        self.looks.push_back(Look { at: now, sizes: sizes.into_iter().collect() });
        self.last = History {
            looks: self.looks.len() as u32,
            span_ns: self.looks.front().map_or(0, |first| now - first.at),
            growing,
        };
        self.last.clone()
    }

    /// The longest row of looks, up to now, in which a group has only grown.
    fn growing(
        &self,
        snapshot: &Snapshot,
        now: u64,
        group: &Group<'_>,
        members: &[u32],
        at: usize,
    ) -> Option<Growing> {
        let mut points = vec![GrowthPoint { ago_ns: 0, count: group.size.count }];
        let mut began = group.size;
        for look in self.looks.iter().rev() {
            match look.sizes.get(&group.hash) {
                Some(size) if size.count < began.count => {
                    began = *size;
                    points.push(GrowthPoint { ago_ns: now - look.at, count: size.count });
                }
                _ => break,
            }
        }
        if points.len() < growth::LOOKS {
            return None;
        }
        points.reverse();
        let live: std::collections::HashSet<StreamId> =
            snapshot.streams.iter().map(|stream| stream.id).collect();
        let tasks = || {
            let own = |&(_, member): &(_, &u32)| *member as usize == at;
            snapshot.tasks.iter().zip(members).filter(own).map(|(task, _)| task)
        };
        Some(Growing {
            function: user_frame(group.first).map(|frame| Arc::clone(&frame.function)),
            place: group.first.place().cloned(),
            spawned_at: group.first.spawned_at.as_deref().cloned(),
            points,
            stayed: tasks().filter(|task| task.id.0 <= began.youngest).count() as u64,
            of_live_streams: tasks()
                .filter(|task| task.stream.is_some_and(|stream| live.contains(&stream)))
                .count() as u64,
            tasks: tasks().map(|task| task.id).take(EXAMPLES).collect::<Vec<TaskId>>(),
        })
    }
}

fn aged(history: &History, by_ns: u64) -> History {
    let mut history = history.clone();
    history.span_ns += by_ns;
    for point in history.growing.iter_mut().flat_map(|group| &mut group.points) {
        point.ago_ns += by_ns;
    }
    history
}

fn user_frame(task: &Task) -> Option<&crate::model::Frame> {
    task.stack.as_deref().and_then(Stack::user_frame)
}

/// Groups by the innermost place of the program's own code and the place of
/// the spawn, and the group of each task.
fn group(tasks: &[Task]) -> (Vec<Group<'_>>, Vec<u32>) {
    let mut groups: Vec<Group<'_>> = Vec::new();
    let mut index: HashMap<u64, usize> = HashMap::new();
    // Stacks and places are shared: hash each once.
    let mut near: HashMap<[usize; 2], usize> = HashMap::new();
    let members = tasks
        .iter()
        .map(|task| {
            let pointers = [
                task.stack.as_ref().map_or(0, |stack| Arc::as_ptr(stack) as usize),
                task.spawned_at.as_ref().map_or(0, |place| Arc::as_ptr(place) as usize),
            ];
            let at = *near.entry(pointers).or_insert_with(|| {
                let hash = hash(task);
                *index.entry(hash).or_insert_with(|| {
                    groups.push(Group { hash, first: task, size: Size::default() });
                    groups.len() - 1
                })
            });
            let size = &mut groups[at].size;
            size.count += 1;
            size.youngest = size.youngest.max(task.id.0);
            at as u32
        })
        .collect();
    (groups, members)
}

/// The same within a process, which is as long as a trend lives.
fn hash(task: &Task) -> u64 {
    let mut hasher = DefaultHasher::new();
    user_frame(task).map(|frame| &*frame.function_full).hash(&mut hasher);
    let place: Option<&Location> = task.place();
    (place, task.spawned_at.as_deref()).hash(&mut hasher);
    hasher.finish()
}
