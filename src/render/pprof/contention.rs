//! The waits in progress as Go's `block` and `mutex` profiles.
//!
//! Go adds up every contention since the start. tokio keeps no such count and
//! has no hook to keep one, so these profiles hold the waits of this instant
//! and say so: as many as there are, and how long each has lasted so far.

use std::collections::HashMap;

use super::builder::{Builder, Type};
use super::goroutine::{coverage, locations};
use crate::model::{Snapshot, Task, TaskState, WaitKind};
use crate::render::alike::{self, Key, Sum, signed};

const TYPES: [Type; 2] = [("contentions", "count"), ("delay", "nanoseconds")];
const NOTE: &str = "waits in progress at this instant, not added up since the start: tokio does \
                    not count contention that has passed";

/// In the place of a holder's stack.
pub const UNSEEN: &str = "holder not seen";

/// Whose stacks are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contention {
    /// Those that wait, for whatever another task must do.
    Block,
    /// Those that hold the locks and permits that others wait for.
    Mutex,
}

/// `block` and `mutex`: how many wait now, and for how long altogether.
pub fn contention(which: Contention, snapshot: &Snapshot) -> Vec<u8> {
    render(snapshot, sums(which, snapshot), 0)
}

/// `seconds=N`: `after` minus `before`.
pub fn contention_delta(which: Contention, before: &Snapshot, after: &Snapshot) -> Vec<u8> {
    let duration = after.taken_at.unix_nanos().saturating_sub(before.taken_at.unix_nanos());
    render(after, alike::delta(sums(which, before), sums(which, after)), duration)
}

/// Keys and sums, most first.
pub fn contentions(which: Contention, snapshot: &Snapshot) -> Vec<(Key<'_>, Sum)> {
    alike::sorted(sums(which, snapshot))
}

fn render(snapshot: &Snapshot, sums: HashMap<Key<'_>, Sum>, duration_ns: u64) -> Vec<u8> {
    let mut builder = Builder::new(&snapshot.process, &TYPES, ("contentions", "count"), 1);
    builder.time(snapshot.taken_at.unix_nanos(), duration_ns);
    builder.comment(NOTE);
    coverage(&mut builder, snapshot);
    for (key, sum) in alike::sorted(sums) {
        let locations = locations(&mut builder, &key, UNSEEN);
        builder.sample(locations, vec![sum.count, sum.wait_ns], key.labels());
    }
    builder.finish()
}

fn sums(which: Contention, snapshot: &Snapshot) -> HashMap<Key<'_>, Sum> {
    let waiting = snapshot.tasks.iter().filter_map(|task| Some((task, task.waits_for()?)));
    match which {
        Contention::Block => alike::sum_up(
            waiting.filter(|(_, kind)| blocks(*kind)).map(|(task, _)| (Key::of(task), sum(task))),
        ),
        Contention::Mutex => alike::sum_up(
            waiting
                .filter(|(_, kind)| locks(*kind))
                .map(|(task, kind)| (holder(snapshot, task, kind), sum(task))),
        ),
    }
}

fn sum(task: &Task) -> Sum {
    Sum { count: 1, wait_ns: signed(task.waited_ns()) }
}

/// What another task must do, as against time, sockets and peers.
fn blocks(kind: WaitKind) -> bool {
    !matches!(
        kind,
        WaitKind::Sleep
            | WaitKind::SocketRead
            | WaitKind::SocketWrite
            | WaitKind::GrpcMessage
            | WaitKind::Yield
            | WaitKind::Unknown
    )
}

fn locks(kind: WaitKind) -> bool {
    matches!(
        kind,
        WaitKind::Mutex | WaitKind::RwLockRead | WaitKind::RwLockWrite | WaitKind::Semaphore
    )
}

/// The holder as it is now, if it was seen.
fn holder<'a>(snapshot: &'a Snapshot, waiting: &'a Task, kind: WaitKind) -> Key<'a> {
    let first = waiting.wait.as_ref().and_then(|wait| wait.holders.first());
    let task = first.and_then(|holder| {
        let at = snapshot.tasks.binary_search_by_key(&holder.task, |task| task.id).ok()?;
        Some(&snapshot.tasks[at])
    });
    let unseen = Key {
        stack: None,
        spawned_at: None,
        method: None,
        state: TaskState::Unknown,
        wait: None,
        holder: None,
    };
    Key {
        wait: Some(kind),
        holder: first.and_then(|holder| holder.location.as_ref()),
        ..task.map_or(unseen, Key::of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::sample;
    use crate::pb::profile::Profile;
    use crate::render::pprof::decode;

    /// Innermost function of the program's own code and the values, by sample.
    fn seen(profile: &Profile) -> Vec<(&str, i64, i64)> {
        let text = |index: i64| &*profile.string_table[index as usize];
        let samples = profile.sample.iter().map(|sample| {
            let names = sample.location_id.iter().map(|&id| {
                let function = profile.location[id as usize - 1].line[0].function_id;
                text(profile.function[function as usize - 1].name)
            });
            let own = names.into_iter().find(|name| !name.starts_with("tokio::")).unwrap();
            (own, sample.value[0], sample.value[1] / sample::SECOND as i64)
        });
        samples.collect()
    }

    #[test]
    fn block_shows_those_that_wait_and_mutex_those_that_hold() {
        let snapshot = sample::stuck_server();
        let block = decode(&contention(Contention::Block, &snapshot));
        let mut waiting = seen(&block);
        waiting.sort_unstable();
        assert_eq!(
            waiting,
            [
                ("audit::write", 1, 41),
                ("audit::write", 1, 41),
                ("cache::refresh", 1, 41),
                ("feed::watch", 1, 41),
                ("ledger::post", 1, 41)
            ]
        );
        let mutex = decode(&contention(Contention::Mutex, &snapshot));
        let mut holding = seen(&mutex);
        holding.sort_unstable();
        // 17 and 23 hold; who holds the locks of 24 and 31 was not told.
        assert_eq!(
            holding,
            [("audit::write", 1, 41), ("holder not seen", 2, 82), ("ledger::post", 1, 41)]
        );
        for profile in [block, mutex] {
            let text = |index: i64| &*profile.string_table[index as usize];
            assert_eq!(text(profile.default_sample_type), "delay");
            assert!(text(profile.comment[0]).starts_with("waits in progress"));
        }
    }

    #[test]
    fn sleeping_is_no_contention() {
        let mut snapshot = sample::empty();
        let sleep = sample::waiting(1, "app::tick", ("app", 3), WaitKind::Sleep, "");
        snapshot.tasks.push(sleep);
        for which in [Contention::Block, Contention::Mutex] {
            assert!(decode(&contention(which, &snapshot)).sample.is_empty(), "{which:?}");
        }
    }
}
