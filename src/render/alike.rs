//! Tasks that have the same stack and the same labels: one sample each.

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::{Location, Snapshot, Stack, Task, TaskState, WaitKind};

/// What makes tasks alike: the frames and every label of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key<'a> {
    pub stack: Option<&'a Stack>,
    pub spawned_at: Option<&'a Location>,
    pub method: Option<&'a str>,
    pub state: TaskState,
    pub wait: Option<WaitKind>,
    /// Where the holder's guard lives: a place, not a task, for there may be as
    /// many of those as there are waiters.
    pub holder: Option<&'a Location>,
}

impl<'a> Key<'a> {
    /// The key of a task.
    pub fn of(task: &'a Task) -> Self {
        Self {
            stack: task.stack.as_deref(),
            spawned_at: task.spawned_at.as_deref(),
            method: task.method.as_deref(),
            state: task.state,
            wait: task.waits_for(),
            holder: task
                .wait
                .as_deref()
                .and_then(|wait| wait.holders.first())
                .and_then(|holder| holder.location.as_ref()),
        }
    }

    /// What the stack may be of as well.
    fn others(&self) -> Option<&'a [Arc<str>]> {
        self.stack.map(|stack| &*stack.or_one_of).filter(|others| !others.is_empty())
    }

    /// What orders keys of equal weight, but for the frames.
    fn rest(&self) -> impl Ord + use<'a> {
        (self.spawned_at, self.method, self.state, self.wait, self.holder, self.others())
    }

    /// Labels in the order of their names, as Go writes them.
    pub fn labels(&self) -> impl Iterator<Item = (&'static str, String)> + use<'a> {
        let labels = [
            self.method.map(|method| ("grpc.method", method.to_owned())),
            self.holder.map(|place| ("holder", place.to_string())),
            // Equal code was merged: the frames name one of several types.
            self.others().map(|others| ("or_one_of", others.join(", "))),
            Some(("state", self.state.as_str().to_owned())),
            self.spawned_at.map(|place| ("task.spawned_at", place.to_string())),
            self.wait.map(|wait| ("wait", wait.as_str().to_owned())),
        ];
        labels.into_iter().flatten()
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

/// How many tasks are alike, and for how long they have waited.
pub fn sums(snapshot: &Snapshot) -> HashMap<Key<'_>, Sum> {
    sum_up(snapshot.tasks.iter().map(|task| {
        let waits = matches!(task.state, TaskState::Idle | TaskState::Scheduled);
        let wait_ns = if waits || task.wait.is_some() { signed(task.waited_ns()) } else { 0 };
        (Key::of(task), Sum { count: 1, wait_ns })
    }))
}

/// Sums by key.
pub fn sum_up<'a>(rows: impl Iterator<Item = (Key<'a>, Sum)>) -> HashMap<Key<'a>, Sum> {
    // Tasks share their stacks and places, so that comparing pointers first
    // spares hashing whole stacks 100,000 times.
    type Near = ([usize; 4], u32, TaskState, Option<WaitKind>);
    fn address<T: ?Sized>(shared: Option<&T>) -> usize {
        shared.map_or(0, |shared| std::ptr::from_ref(shared).cast::<()>() as usize)
    }
    let mut near: HashMap<Near, (Key<'_>, Sum)> = HashMap::new();
    for (key, sum) in rows {
        let pointers = [
            address(key.stack),
            address(key.spawned_at),
            address(key.method),
            address(key.holder.map(|place| &*place.file)),
        ];
        let line = key.holder.map_or(0, |place| place.line);
        let at = (pointers, line, key.state, key.wait);
        near.entry(at).or_insert((key, Sum::default())).1.add(sum);
    }
    let mut sums = HashMap::with_capacity(near.len());
    for (key, sum) in near.into_values() {
        sums.entry(key).or_insert_with(Sum::default).add(sum);
    }
    sums
}

/// `after` minus `before`; what did not change is left out.
pub fn delta<'a>(
    before: HashMap<Key<'a>, Sum>,
    mut after: HashMap<Key<'a>, Sum>,
) -> HashMap<Key<'a>, Sum> {
    for (key, sum) in before {
        let left = after.entry(key).or_default();
        left.count = left.count.saturating_sub(sum.count);
        left.wait_ns = left.wait_ns.saturating_sub(sum.wait_ns);
    }
    after.retain(|_, sum| *sum != Sum::default());
    after
}

/// Nanoseconds as profiles have them.
pub fn signed(ns: u64) -> i64 {
    i64::try_from(ns).unwrap_or(i64::MAX)
}

/// Most first; the order of equals is fixed too, so that two dumps of one
/// snapshot are the same bytes.
pub fn sorted<'a>(sums: HashMap<Key<'a>, Sum>) -> Vec<(Key<'a>, Sum)> {
    let mut sorted: Vec<_> = sums.into_iter().collect();
    sorted.sort_by(|(a, x), (b, y)| {
        (y.count, y.wait_ns)
            .cmp(&(x.count, x.wait_ns))
            .then_with(|| a.rest().cmp(&b.rest()))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::sample;

    #[test]
    fn a_stack_of_merged_code_is_labelled_with_what_else_it_may_be_of() {
        let mut snapshot = sample::stuck_server();
        snapshot.tasks.retain(|task| task.stack.is_some());
        let mut merged = snapshot.tasks[0].stack.as_deref().expect("a stack").clone();
        merged.or_one_of = vec!["app::one".into(), "app::two".into()];
        snapshot.tasks.truncate(1);
        let mut other = snapshot.tasks[0].clone();
        other.stack = Some(Arc::new(merged));
        snapshot.tasks.push(other);
        let sums = sorted(sums(&snapshot));
        assert_eq!(sums.len(), 2, "they are not alike");
        let labels = sums.iter().flat_map(|(key, _)| key.labels());
        let told: Vec<_> = labels.filter(|(name, _)| *name == "or_one_of").collect();
        assert_eq!(told, [("or_one_of", "app::one, app::two".to_owned())]);
        for (key, _) in &sums {
            assert!(key.labels().is_sorted_by_key(|(name, _)| name), "as Go writes them");
        }
    }
}
