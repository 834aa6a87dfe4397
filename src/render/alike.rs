//! Tasks that have the same stack and the same labels: one sample each.

use std::collections::HashMap;

use crate::model::{Location, Snapshot, Stack, Task, TaskState};

/// What makes tasks alike: the frames and every label of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key<'a> {
    pub stack: Option<&'a Stack>,
    pub spawned_at: Option<&'a Location>,
    pub method: Option<&'a str>,
    pub state: TaskState,
}

impl<'a> Key<'a> {
    fn of(task: &'a Task) -> Self {
        Self {
            stack: task.stack.as_deref(),
            spawned_at: task.spawned_at.as_deref(),
            method: task.method.as_deref(),
            state: task.state,
        }
    }

    /// Labels in the order of their names, as Go writes them.
    pub fn labels(&self) -> impl Iterator<Item = (&'static str, String)> + use<'a> {
        let method = self.method.map(|method| ("grpc.method", method.to_owned()));
        let state = ("state", self.state.as_str().to_owned());
        let spawned_at = self.spawned_at.map(|place| ("task.spawned_at", place.to_string()));
        method.into_iter().chain([state]).chain(spawned_at)
    }
}

/// How many are alike, and for how long they have waited, all together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    pub count: i64,
    pub wait_ns: i64,
}

impl Sum {
    fn add(&mut self, other: Self) {
        self.count = self.count.saturating_add(other.count);
        self.wait_ns = self.wait_ns.saturating_add(other.wait_ns);
    }
}

/// Sums by key.
pub fn sums(snapshot: &Snapshot) -> HashMap<Key<'_>, Sum> {
    // Tasks share their stacks and places, so that comparing pointers first
    // spares hashing whole stacks 100,000 times.
    type Pointers = (usize, usize, usize, TaskState);
    fn address<T: ?Sized>(shared: Option<&std::sync::Arc<T>>) -> usize {
        shared.map_or(0, |shared| std::sync::Arc::as_ptr(shared).cast::<()>() as usize)
    }
    let mut near: HashMap<Pointers, (&Task, Sum)> = HashMap::new();
    for task in &snapshot.tasks {
        let pointers = (
            address(task.stack.as_ref()),
            address(task.spawned_at.as_ref()),
            address(task.method.as_ref()),
            task.state,
        );
        let waits = matches!(task.state, TaskState::Idle | TaskState::Scheduled);
        let wait_ns = if waits { i64::try_from(task.state_ns).unwrap_or(i64::MAX) } else { 0 };
        near.entry(pointers).or_insert((task, Sum::default())).1.add(Sum { count: 1, wait_ns });
    }
    let mut sums = HashMap::with_capacity(near.len());
    for (task, sum) in near.into_values() {
        sums.entry(Key::of(task)).or_insert_with(Sum::default).add(sum);
    }
    sums
}

/// Most first; the order of equals is fixed too, so that two dumps of one
/// snapshot are the same bytes.
pub fn sorted<'a>(sums: HashMap<Key<'a>, Sum>) -> Vec<(Key<'a>, Sum)> {
    let mut sorted: Vec<_> = sums.into_iter().collect();
    sorted.sort_by(|(a, x), (b, y)| {
        (y.count, y.wait_ns)
            .cmp(&(x.count, x.wait_ns))
            .then_with(|| (a.spawned_at, a.method, a.state).cmp(&(b.spawned_at, b.method, b.state)))
            .then_with(|| frames(a).cmp(frames(b)))
    });
    sorted
}

fn frames<'a>(key: &Key<'a>) -> impl Iterator<Item = (u64, &'a str)> + use<'a> {
    key.stack
        .into_iter()
        .flat_map(|stack| &stack.frames)
        .map(|frame| (frame.address, &*frame.function_full))
}
