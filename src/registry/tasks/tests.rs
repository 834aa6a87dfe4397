//! The task table alone, with ids and ticks made up.

use super::*;
use crate::model::{RuntimeId, Side, TaskState};
use crate::registry::clock;
use crate::registry::streams::{Begin, StreamCell};
use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};

fn tasks(max: usize) -> Tasks {
    Tasks::new(max, Arc::new(Streams::default()))
}

fn stream(streams: &Streams, path: &str) -> Arc<StreamCell> {
    streams.begin(Begin {
        side: Side::Server,
        path,
        connection: None,
        endpoint: None,
        span: None,
        peer: None,
        timeout: None,
        metadata: BTreeMap::new(),
    })
}

fn birth(id: u64) -> Birth {
    Birth { id, parent: 0, parent_cell: CellNumber::NONE, runtime: 1, place: 0, now: clock::now() }
}

#[test]
fn a_life_is_accounted() {
    let tasks = tasks(100);
    tasks.spawned(&Birth { parent: 3, runtime: 2, ..birth(7) });
    let (list, torn) = tasks.snapshot(clock::now());
    assert_eq!((list.len(), torn), (1, 0));
    assert_eq!(list[0].state, TaskState::Scheduled);
    assert_eq!(list[0].parent, Some(TaskId(3)));
    assert_eq!(list[0].runtime, RuntimeId(2));

    let began = clock::now();
    let cell = tasks.polling(7, 5, began);
    let task = tasks.get(TaskId(7), clock::now()).expect("held");
    assert_eq!((task.state, task.worker, task.polls), (TaskState::Running, Some(5), 1));
    assert!(task.busy_ns > 0, "the poll that lasts counts");

    // One poll of some two million ticks.
    tasks.polled(cell, began, began + 2_000_000);
    let task = tasks.get(TaskId(7), began + 3_000_000).expect("held");
    assert_eq!((task.state, task.worker), (TaskState::Idle, None));
    assert_eq!(task.busy_ns, clock::ticks_ns(2_000_000));
    assert_eq!(task.state_ns, clock::ticks_ns(1_000_000));
    assert!(task.longest_poll_ns <= task.busy_ns);
    assert!(task.busy_ns - task.longest_poll_ns < 1_000, "to the microsecond");

    assert!(tasks.ended(7, CellNumber::NONE));
    assert!(tasks.get(TaskId(7), clock::now()).is_none());
    assert_eq!(tasks.totals(), TaskTotals { spawned: 1, ended: 1, dropped: 0, unknown_ended: 0 });
    assert!(!tasks.ended(7, CellNumber::NONE), "a second end is not an end of ours");
    assert_eq!(tasks.totals().ended, 1);
    // What ends before it is born, and something else that ends.
    tasks.unknown_ended();
    tasks.stillborn();
    tasks.unknown_ended();
    assert_eq!(tasks.totals(), TaskTotals { spawned: 2, ended: 2, dropped: 0, unknown_ended: 1 });
}

#[test]
fn a_slot_that_went_to_another_stream_names_nobodys_task() {
    let streams = Arc::new(Streams::default());
    let tasks = Tasks::new(100, streams.clone());
    let first = stream(&streams, "/a.B/First");
    let slot = first.slot().unwrap();
    {
        let _spawning = spawning_for(slot);
        tasks.spawned(&birth(1));
    }
    let (_, cell) = tasks.cells.find(1).unwrap();
    let copied = Copied::read(cell).ok().flatten().unwrap();
    let method = |copied: &Copied| tasks.stream_of(cell, copied).map(|of| of.method.to_string());
    assert_eq!(method(&copied).as_deref(), Some("/a.B/First"));

    // The copied task ends, its stream too, and the slot is taken anew.
    tasks.ended(1, CellNumber::NONE);
    streams.end(&first, None);
    let second = stream(&streams, "/a.B/Second");
    assert_eq!(second.slot(), Some(slot));
    assert_eq!(method(&copied), None, "its stream is not told any more");

    // A task of the new stream is told to be of that one.
    {
        let _spawning = spawning_for(slot);
        tasks.spawned(&birth(2));
    }
    let (list, _) = tasks.snapshot(clock::now());
    assert_eq!(list[0].method.as_deref(), Some("/a.B/Second"));
    assert_eq!(list[0].stream, Some(second.id()));

    // One that is tagged between the copy and the question is of the later stream.
    let (_, cell) = tasks.cells.find(2).unwrap();
    let copied = Copied::read(cell).ok().flatten().unwrap();
    let third = stream(&streams, "/a.B/Third");
    tasks.tag(TaskId(2), third.slot().unwrap());
    let told = tasks.stream_of(cell, &copied).unwrap();
    assert_eq!(&*told.method, "/a.B/Third");
}

#[test]
fn the_bound_holds_and_counts_what_it_drops() {
    let tasks = tasks(1_000);
    for id in 1..=10_000 {
        tasks.spawned(&birth(id));
    }
    let (list, _) = tasks.snapshot(clock::now());
    let totals = tasks.totals();
    assert_eq!(list.len() as u64 + totals.dropped, 10_000);
    assert_eq!(list.len(), 1_000, "all room is used");
    for id in 1..=10_000 {
        tasks.ended(id, CellNumber::NONE);
    }
    assert_eq!(tasks.totals().ended, 1_000);
    // Room again, and every cell of it.
    for id in 20_001..=21_000 {
        tasks.spawned(&birth(id));
    }
    assert_eq!(tasks.snapshot(clock::now()).0.len(), 1_000);
}

#[test]
fn cells_are_reused_so_that_churn_needs_no_more_memory() {
    let tasks = tasks(DEFAULT_MAX_TASKS);
    for id in 1..=1_000_000 {
        tasks.spawned(&birth(id));
        tasks.ended(id, CellNumber::NONE);
    }
    assert_eq!(tasks.totals().dropped, 0);
    assert_eq!(tasks.cells.used().count(), 2_048, "the smallest window is enough");
}

#[test]
fn long_lived_tasks_among_many_short_ones_stay_found() {
    let tasks = tasks(20_000);
    let kept: Vec<u64> = (1..=1_000_000).step_by(64).collect();
    for id in 1..=1_000_000 {
        tasks.spawned(&birth(id));
        if id % 64 != 1 {
            tasks.ended(id, CellNumber::NONE);
        }
    }
    assert_eq!(tasks.totals().dropped, 0);
    assert_eq!(tasks.snapshot(clock::now()).0.len(), kept.len());
    assert!(kept.iter().all(|&id| tasks.cells.find(id).is_some()));
}

#[test]
fn what_ends_while_the_list_is_made_is_not_on_it() {
    let tasks = tasks(100);
    (1..=4).for_each(|id| tasks.spawned(&birth(id)));
    let (mut list, _) = tasks.snapshot(clock::now());
    tasks.ended(2, CellNumber::NONE);
    tasks.ended(3, CellNumber::NONE);
    // One of the cells is another's by now.
    tasks.spawned(&birth(5));
    tasks.keep_live(&mut list);
    assert_eq!(list.iter().map(|task| task.id.0).collect::<Vec<_>>(), [1, 4]);
}

#[test]
fn writers_on_all_threads_and_a_reader_agree() {
    let tasks = tasks(50_000);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0;
            while !stop.load(Ordering::Relaxed) || reads == 0 {
                let (list, _) = tasks.snapshot(clock::now());
                let ids: HashSet<_> = list.iter().map(|task| task.id).collect();
                assert_eq!(ids.len(), list.len(), "no id twice");
                for task in &list {
                    assert_eq!(task.parent, Some(TaskId(task.id.0 + 1)), "no mixed cells");
                }
                reads += 1;
            }
        });
        let writers: Vec<_> = (0..4u64)
            .map(|thread| {
                let tasks = &tasks;
                scope.spawn(move || {
                    for round in 0..200 {
                        let ids = (0..100).map(|n| (round * 100 + n) * 4 + thread + 1);
                        for id in ids.clone() {
                            let parent = id + 1;
                            tasks.spawned(&Birth { parent, ..birth(id) });
                        }
                        for id in ids.clone() {
                            let now = clock::now();
                            let cell = tasks.polling(id, thread as u16, now);
                            tasks.polled(cell, now, clock::now());
                        }
                        for id in ids {
                            tasks.ended(id, CellNumber::NONE);
                        }
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.join().expect("writer");
        }
        stop.store(true, Ordering::Relaxed);
        reader.join().expect("reader");
    });
    let totals = tasks.totals();
    assert_eq!((totals.spawned, totals.ended, totals.dropped), (80_000, 80_000, 0));
    assert!(tasks.snapshot(clock::now()).0.is_empty());
}
