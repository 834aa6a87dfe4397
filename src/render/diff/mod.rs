//! What came about between two snapshots: groups of tasks, streams and
//! connections that grew, that are new, that are gone.
//!
//! Groups are those of the dashboard and have no part in a process: a place in
//! the program, a method, an address. So snapshots of two processes, or of two
//! days, can be compared as well; who came and who went is only told within one
//! process, where ids mean the same.

mod census;
mod text;

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use serde::Serialize;

use super::json::{Head, TaskGroup};

pub use census::{Census, ConnectionGroup, StreamGroup};
pub use text::text;

use census::Counted;

/// What became of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Became {
    /// There was none of it before.
    New,
    /// There were fewer.
    Grew,
    /// There were more.
    Shrank,
    /// There is none any more.
    Gone,
}

impl Became {
    /// The word used in JSON and text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Grew => "grew",
            Self::Shrank => "shrank",
            Self::Gone => "gone",
        }
    }
}

/// A group that has another size than before.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change<G> {
    /// What became of it.
    pub became: Became,
    /// Its size in the first snapshot.
    pub before: u64,
    /// Its size in the second.
    pub after: u64,
    /// By how much it grew; negative where it shrank.
    pub change: i64,
    /// Which, as in the later of the snapshots that have it.
    pub group: G,
}

/// What became of all of one kind.
#[derive(Clone, Debug, Serialize)]
pub struct Changes<G> {
    /// How many there were.
    pub before: u64,
    /// How many there are.
    pub after: u64,
    /// How many of these there were not before; `null` between two processes.
    pub came: Option<u64>,
    /// How many of those there are not any more; `null` between two processes.
    pub went: Option<u64>,
    /// Groups of another size than before, those beyond the limit included.
    pub changed: u64,
    /// Groups of the same size as before.
    pub unchanged: u64,
    /// The largest changes first.
    pub groups: Vec<Change<G>>,
}

/// Two snapshots compared.
#[derive(Debug, Serialize)]
pub struct Diff {
    /// The first snapshot.
    pub before: Head,
    /// The second.
    pub after: Head,
    /// Both are of one run of one process.
    pub same_process: bool,
    /// From the first to the second by the wall clock; negative if the second
    /// was taken first.
    pub apart_ns: i64,
    /// By place in the program's own code, what is waited for, and method.
    pub tasks: Changes<TaskGroup>,
    /// Live ones, by method, phase and verdict.
    pub streams: Changes<StreamGroup>,
    /// By the server's address and the client's host.
    pub connections: Changes<ConnectionGroup>,
}

impl Diff {
    /// Compares; lists at most `limit` groups of each kind.
    pub fn of(before: Census, after: Census, limit: usize) -> Self {
        let same = before.head.process.boot_id == after.head.process.boot_id;
        let nanos = |census: &Census| i128::from(census.head.taken_at.unix_nanos());
        let apart = nanos(&after) - nanos(&before);
        Self {
            same_process: same,
            apart_ns: i64::try_from(apart).unwrap_or(if apart < 0 { i64::MIN } else { i64::MAX }),
            tasks: changes(before.tasks, after.tasks, same, limit, |group| group.key.clone()),
            streams: changes(before.streams, after.streams, same, limit, StreamGroup::clone),
            connections: changes(
                before.connections,
                after.connections,
                same,
                limit,
                ConnectionGroup::clone,
            ),
            before: before.head,
            after: after.head,
        }
    }
}

fn changes<G, K: Eq + Hash>(
    before: Counted<G>,
    after: Counted<G>,
    same: bool,
    limit: usize,
    key: impl Fn(&G) -> K,
) -> Changes<G> {
    let mut old: HashMap<K, (u64, G)> =
        before.groups.into_iter().map(|(count, group)| (key(&group), (count, group))).collect();
    let mut groups = Vec::new();
    let mut unchanged = 0;
    for (count, group) in after.groups {
        match old.remove(&key(&group)) {
            Some((was, _)) if was == count => unchanged += 1,
            Some((was, _)) => groups.push(change(was, count, group)),
            None => groups.push(change(0, count, group)),
        }
    }
    groups.extend(old.into_values().map(|(was, group)| change(was, 0, group)));
    // What grew before what shrank by as much.
    groups.sort_by_key(|one| (std::cmp::Reverse(one.change.unsigned_abs()), -one.change));
    let changed = groups.len() as u64;
    groups.truncate(limit);
    let without =
        |some: &HashSet<u64>, others: &HashSet<u64>| some.difference(others).count() as u64;
    Changes {
        before: before.ids.len() as u64,
        after: after.ids.len() as u64,
        came: same.then(|| without(&after.ids, &before.ids)),
        went: same.then(|| without(&before.ids, &after.ids)),
        changed,
        unchanged,
        groups,
    }
}

fn change<G>(before: u64, after: u64, group: G) -> Change<G> {
    let became = match (before, after) {
        (0, _) => Became::New,
        (_, 0) => Became::Gone,
        _ if before < after => Became::Grew,
        _ => Became::Shrank,
    };
    Change { became, before, after, change: after.cast_signed() - before.cast_signed(), group }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Snapshot, StreamId, TaskId, Timestamp, VerdictKind, sample};

    fn diff(before: &Snapshot, after: &Snapshot, limit: usize) -> Diff {
        let census = |snapshot| Census::of(snapshot, |_| VerdictKind::Healthy);
        Diff::of(census(before), census(after), limit)
    }

    #[test]
    fn a_snapshot_is_no_different_from_itself() {
        for snapshot in [sample::busy_server(), sample::stuck_server(), sample::empty()] {
            let diff = diff(&snapshot, &snapshot, 9);
            assert!(diff.same_process && diff.apart_ns == 0);
            assert_eq!(
                (diff.tasks.changed, diff.streams.changed, diff.connections.changed),
                (0, 0, 0)
            );
            assert_eq!((diff.tasks.came, diff.tasks.went), (Some(0), Some(0)));
            assert_eq!(diff.tasks.after, snapshot.tasks.len() as u64);
        }
    }

    #[test]
    fn each_group_is_told_with_its_sign() {
        let before = sample::busy_server();
        let mut after = before.clone();
        // One group grows by three, another is gone, and a new stream comes.
        let first = after.tasks[0].clone();
        after.tasks.extend((1..=3).map(|n| {
            let mut more = first.clone();
            more.id = TaskId(900_000 + n);
            more
        }));
        let lost = after.tasks.iter().position(|task| task.state != first.state).unwrap();
        let lost = after.tasks.remove(lost);
        let mut stream = after.streams[0].clone();
        (stream.id, stream.method) = (StreamId(900_000), "/x.Y/Z".into());
        after.streams.push(stream);
        let diff = diff(&before, &after, 9);
        let most = &diff.tasks.groups[0];
        assert_eq!((most.became, most.change), (Became::Grew, 3));
        assert_eq!(most.after - most.before, 3);
        let least = diff.tasks.groups.last().unwrap();
        assert_eq!(least.change, -1);
        assert_eq!(least.group.method, lost.method);
        assert_eq!((diff.tasks.came, diff.tasks.went), (Some(3), Some(1)));
        let stream = &diff.streams.groups[0];
        assert_eq!((stream.became, stream.before, stream.after), (Became::New, 0, 1));
        assert_eq!(&*stream.group.method, "/x.Y/Z");
        assert_eq!(diff.connections.changed, 0);
        // The other way round all signs turn.
        let back = super::tests::diff(&after, &before, 9);
        assert_eq!(back.tasks.groups[0].change, -3);
        assert_eq!(back.streams.groups[0].became, Became::Gone);
    }

    #[test]
    fn another_process_is_compared_by_its_places() {
        let before = sample::busy_server();
        let mut after = before.clone();
        after.process.boot_id = "another".into();
        after.taken_at = Timestamp::from(before.taken_at.minus_ns(5));
        let diff = diff(&before, &after, 9);
        assert!(!diff.same_process);
        assert_eq!(diff.apart_ns, -5);
        assert_eq!((diff.tasks.changed, diff.tasks.came), (0, None));
        let text = text(&diff);
        assert!(text.contains("another process") && text.contains("taken first"), "{text}");
    }

    #[test]
    fn what_is_beyond_the_limit_is_counted() {
        let (before, after) = (sample::empty(), sample::crowd(1_000));
        let all = diff(&before, &after, usize::MAX);
        let few = diff(&before, &after, 2);
        assert_eq!((few.tasks.groups.len(), few.tasks.changed), (2, all.tasks.changed));
        assert_eq!(all.tasks.groups.iter().map(|one| one.change).sum::<i64>(), 1_000);
        assert!(text(&few).contains("more"), "{}", text(&few));
    }
}
