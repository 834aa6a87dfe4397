//! The task table alone, with ids and ticks made up.

use super::*;
use crate::model::{RuntimeId, Side, TaskState};
use crate::registry::clock;
use crate::registry::streams::{Begin, StreamCell};
use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

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
    Birth { id, parent: 0, parent_cell: NONE, runtime: 1, place: None, now: clock::now() }
}

/// A poll begins on a worker that does not know where the task is.
fn polling(tasks: &Tasks, id: u64, worker: u16, began: u64) -> Poll {
    Poll { task: id, cell: tasks.polling(id, worker, began, [NONE; 2]), worker, began }
}

fn ended(tasks: &Tasks, id: u64) -> bool {
    tasks.ended(id, NONE, [NONE; 2])
}

/// The cell is this task's.
fn has(tasks: &Tasks, cell: u32, id: u64) -> bool {
    tasks.cells.table.get(cell).is_some_and(|cell| cell.holds(id))
}

#[test]
fn a_life_is_accounted() {
    let tasks = tasks(100);
    tasks.spawned(&Birth { parent: 3, runtime: 2, ..birth(7) }, NONE);
    let (list, torn) = tasks.snapshot(clock::now());
    assert_eq!((list.len(), torn), (1, 0));
    assert_eq!(list[0].state, TaskState::Scheduled);
    assert_eq!(list[0].parent, Some(TaskId(3)));
    assert_eq!(list[0].runtime, RuntimeId(2));

    let began = clock::now();
    let poll = polling(&tasks, 7, 5, began);
    let task = tasks.get(TaskId(7), clock::now()).expect("held");
    assert_eq!((task.state, task.worker, task.polls), (TaskState::Running, Some(5), 1));
    assert!(task.busy_ns > 0, "the poll that lasts counts");

    // One poll of some two million ticks.
    tasks.polled(&poll, began + 2_000_000);
    let task = tasks.get(TaskId(7), began + 3_000_000).expect("held");
    assert_eq!((task.state, task.worker), (TaskState::Idle, None));
    assert_eq!(task.busy_ns, clock::ticks_ns(2_000_000));
    assert_eq!(task.state_ns, clock::ticks_ns(1_000_000));
    assert!(task.longest_poll_ns <= task.busy_ns);
    assert!(task.busy_ns - task.longest_poll_ns < 1_000, "to the microsecond");

    assert!(ended(&tasks, 7));
    assert!(tasks.get(TaskId(7), clock::now()).is_none());
    assert_eq!(tasks.totals(), TaskTotals { spawned: 1, ended: 1, dropped: 0, unknown_ended: 0 });
    assert!(!ended(&tasks, 7), "a second end is not an end of ours");
    assert_eq!(tasks.totals().ended, 1);
    // What ends before it is born, and something else that ends.
    tasks.unknown_ended();
    tasks.stillborn();
    tasks.unknown_ended();
    assert_eq!(tasks.totals(), TaskTotals { spawned: 2, ended: 2, dropped: 0, unknown_ended: 1 });
}

#[test]
fn no_poll_is_older_than_its_task() {
    let tasks = tasks(100);
    let now = clock::now();
    tasks.spawned(&Birth { now, ..birth(7) }, NONE);
    // It begins where its worker's last poll ended, on another thread.
    polling(&tasks, 7, 0, now - 1_000);
    let task = tasks.get(TaskId(7), now + 5_000).expect("held");
    assert_eq!((task.state_ns, task.age_ns), (clock::ticks_ns(5_000), clock::ticks_ns(5_000)));
}

#[test]
fn a_slot_that_went_to_another_stream_names_nobodys_task() {
    let streams = Arc::new(Streams::default());
    let tasks = Tasks::new(100, streams.clone());
    let first = stream(&streams, "/a.B/First");
    let slot = first.slot().unwrap();
    {
        let _spawning = spawning_for(slot);
        tasks.spawned(&birth(1), NONE);
    }
    let (_, cell) = tasks.cells.find(1).unwrap();
    let copied = Copied::read(cell).ok().flatten().unwrap();
    let method = |copied: &Copied| {
        let stream = tasks.stream_of(cell, copied).ok().flatten();
        stream.map(|of| of.method.to_string())
    };
    assert_eq!(method(&copied).as_deref(), Some("/a.B/First"));

    // The copied task ends, its stream too, and the slot is taken anew.
    ended(&tasks, 1);
    streams.end(&first, None);
    let second = stream(&streams, "/a.B/Second");
    assert_eq!(second.slot(), Some(slot));
    assert_eq!(method(&copied), None, "its stream is not told any more");

    // A task of the new stream is told to be of that one.
    {
        let _spawning = spawning_for(slot);
        tasks.spawned(&birth(2), NONE);
    }
    let (list, _) = tasks.snapshot(clock::now());
    assert_eq!(list[0].method.as_deref(), Some("/a.B/Second"));
    assert_eq!(list[0].stream, Some(second.id()));

    // One that is tagged between the copy and the question is of the later stream.
    let (_, cell) = tasks.cells.find(2).unwrap();
    let copied = Copied::read(cell).ok().flatten().unwrap();
    let third = stream(&streams, "/a.B/Third");
    tasks.tag(TaskId(2), third.slot().unwrap());
    let told = tasks.stream_of(cell, &copied).ok().flatten().unwrap();
    assert_eq!(&*told.method, "/a.B/Third");
}

#[test]
fn the_bound_holds_and_counts_what_it_drops() {
    let tasks = tasks(1_000);
    for id in 1..=10_000 {
        tasks.spawned(&birth(id), NONE);
    }
    let (list, _) = tasks.snapshot(clock::now());
    let totals = tasks.totals();
    assert_eq!(list.len() as u64 + totals.dropped, 10_000);
    assert_eq!(list.len(), 1_000, "all room is used");
    for id in 1..=10_000 {
        ended(&tasks, id);
    }
    assert_eq!(tasks.totals().ended, 1_000);
    // Room again, and every cell of it.
    for id in 20_001..=21_000 {
        tasks.spawned(&birth(id), NONE);
    }
    assert_eq!(tasks.snapshot(clock::now()).0.len(), 1_000);
}

#[test]
fn cells_are_reused_so_that_churn_needs_no_more_memory() {
    let tasks = tasks(DEFAULT_MAX_TASKS);
    for id in 1..=1_000_000 {
        tasks.spawned(&birth(id), NONE);
        ended(&tasks, id);
    }
    assert_eq!(tasks.totals().dropped, 0);
    assert_eq!(tasks.cells.used().count(), 2_048, "the smallest window is enough");
}

#[test]
fn long_lived_tasks_among_many_short_ones_stay_found() {
    let tasks = tasks(20_000);
    let kept: Vec<u64> = (1..=1_000_000).step_by(64).collect();
    for id in 1..=1_000_000 {
        tasks.spawned(&birth(id), NONE);
        if id % 64 != 1 {
            ended(&tasks, id);
        }
    }
    assert_eq!(tasks.totals().dropped, 0);
    assert_eq!(tasks.snapshot(clock::now()).0.len(), kept.len());
    assert!(kept.iter().all(|&id| tasks.cells.find(id).is_some()));
}

#[test]
fn what_ends_while_the_list_is_made_is_not_on_it() {
    let tasks = tasks(100);
    (1..=4).for_each(|id| tasks.spawned(&birth(id), NONE));
    let (mut list, _) = tasks.snapshot(clock::now());
    ended(&tasks, 2);
    ended(&tasks, 3);
    // One of the cells is another's by now.
    tasks.spawned(&birth(5), NONE);
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
                            tasks.spawned(&Birth { parent, ..birth(id) }, NONE);
                        }
                        for id in ids.clone() {
                            let now = clock::now();
                            let poll = polling(tasks, id, thread as u16, now);
                            tasks.polled(&poll, clock::now());
                        }
                        for id in ids {
                            ended(tasks, id);
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

#[test]
fn who_waits_goes_from_its_nursery_to_a_window_with_all_its_accounts() {
    let streams = Arc::new(Streams::default());
    let tasks = Tasks::new(100, streams.clone());
    let nursery = tasks.nursery(3).unwrap();
    let first = stream(&streams, "/a.B/First");
    let place = std::panic::Location::caller();
    {
        let _spawning = spawning_for(first.slot().unwrap());
        let birth = Birth { parent: 3, place: Some(place), ..birth(7) };
        tasks.spawned(&birth, nursery);
    }
    let began = clock::now();
    let poll = polling(&tasks, 7, 5, began);
    assert_eq!(tasks.nursery_of(poll.cell), nursery, "found though nobody said where");
    let young = tasks.get(TaskId(7), clock::now()).unwrap();
    assert_eq!((young.state, young.worker), (TaskState::Running, Some(5)));
    tasks.polled(&poll, began + 2_000_000);

    let older = tasks.get(TaskId(7), began + 3_000_000).unwrap();
    assert_eq!((older.state, older.worker, older.polls), (TaskState::Idle, None, 1));
    assert_eq!((older.parent, older.runtime), (Some(TaskId(3)), RuntimeId(1)));
    assert_eq!(older.busy_ns, clock::ticks_ns(2_000_000));
    assert_eq!(older.state_ns, clock::ticks_ns(1_000_000));
    assert_eq!(older.spawned_at.unwrap().line, place.line());
    assert_eq!(older.method.as_deref(), Some("/a.B/First"));
    assert_eq!(tasks.snapshot(clock::now()).0.len(), 1, "it is told once");
    assert!(tasks.cells.table.get(poll.cell).unwrap().is_free(), "the nursery has room again");
    let poll = polling(&tasks, 7, 5, clock::now());
    assert_eq!(tasks.nursery_of(poll.cell), NONE);

    // Its stream is over once it is.
    let slot = first.slot();
    streams.end(&first, None);
    assert!(tasks.ended(7, poll.cell, [NONE; 2]));
    assert_eq!(stream(&streams, "/a.B/Second").slot(), slot, "nobody holds it any more");
}

#[test]
fn where_there_is_no_room_a_task_stays_in_its_nursery() {
    let tasks = tasks(1);
    let nursery = tasks.nursery(0).unwrap();
    for round in 0..3 {
        let ids = 1_000 * round + 1..=1_000 * round + 300;
        for id in ids.clone() {
            tasks.spawned(&birth(id), nursery);
        }
        // All but those whose place was taken, of which one has another.
        let held: Vec<u64> = tasks.snapshot(clock::now()).0.iter().map(|task| task.id.0).collect();
        assert_eq!(held.len(), 257);
        assert_eq!(tasks.totals().dropped, 43 * (round + 1));
        for polls in 1..=300 {
            for &id in &held {
                let now = clock::now();
                let poll = polling(&tasks, id, 1, now);
                tasks.polled(&poll, now);
                let task = tasks.get(TaskId(id), now).unwrap();
                assert_eq!((task.polls, task.state), (polls, TaskState::Idle));
            }
        }
        assert!(held.iter().all(|&id| ended(&tasks, id)));
        assert!(tasks.snapshot(clock::now()).0.is_empty());
    }
}

/// The hook after a poll, which moves the task, comes as late as may be: when
/// another worker has begun the next poll, and has ended it, and the task.
#[test]
fn a_poll_that_ends_late_takes_nothing_from_the_next() {
    let tasks = tasks(100);
    let nursery = tasks.nursery(0).unwrap();
    tasks.spawned(&birth(7), nursery);
    let first = polling(&tasks, 7, 1, 10);
    let second = polling(&tasks, 7, 2, 20);
    tasks.polled(&first, 2_000_010);
    assert!(has(&tasks, second.cell, 7), "its cell is taken from under the second poll");
    assert_eq!(tasks.nursery_of(second.cell), NONE, "the second has moved it");
    let task = tasks.get(TaskId(7), 30).unwrap();
    assert_eq!((task.state, task.worker, task.polls), (TaskState::Running, Some(2), 2));
    assert!(task.busy_ns >= clock::ticks_ns(2_000_000), "what the first took counts");
    // The third begins before the second has ended.
    let third = polling(&tasks, 7, 3, 40);
    tasks.polled(&second, 50);
    assert_eq!(tasks.get(TaskId(7), 60).unwrap().worker, Some(3));
    tasks.polled(&third, 60);
    let task = tasks.get(TaskId(7), 70).unwrap();
    assert_eq!((task.state, task.polls), (TaskState::Idle, 3));
    assert!(ended(&tasks, 7));

    // The cell is the next one's by now.
    tasks.spawned(&birth(8), nursery);
    let first = polling(&tasks, 8, 1, 10);
    let second = polling(&tasks, 8, 2, 20);
    assert!(tasks.ended(8, second.cell, [NONE; 2]));
    tasks.spawned(&birth(8 + 256), nursery);
    tasks.polled(&first, 2_000_010);
    let task = tasks.get(TaskId(8 + 256), clock::now()).unwrap();
    assert_eq!((task.state, task.busy_ns, task.polls), (TaskState::Scheduled, 0, 0));
    assert!(ended(&tasks, 8 + 256));
    assert!(tasks.cells.used().all(|cell| cell.is_free()));
}

#[test]
fn a_task_that_is_moved_while_its_next_poll_begins_is_lost_by_nobody() {
    const LAST: u64 = 30_000;
    let tasks = tasks(5_000);
    let nursery = tasks.nursery(0).unwrap();
    // The last task that was handed on, that is about to end, and that has ended.
    let [handed, ending, over] = [const { AtomicU64::new(0) }; 3];
    // Who fails does not go on, and the others must not wait for it.
    let begun = Instant::now();
    let in_time = || assert!(begun.elapsed() < Duration::from_secs(100), "another has failed");
    let wait_for = |word: &AtomicU64, id: u64| {
        let mut looks = 0;
        while word.load(Ordering::Acquire) < id {
            looks += 1;
            if looks % 1_000 == 0 {
                in_time();
                std::thread::yield_now();
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for id in 1..=LAST {
                tasks.spawned(&birth(id), nursery);
                let poll = polling(&tasks, id, 1, clock::now());
                handed.store(id, Ordering::Release);
                tasks.polled(&poll, clock::now());
                wait_for(&over, id);
            }
        });
        scope.spawn(|| {
            for id in 1..=LAST {
                wait_for(&handed, id);
                for _ in 0..id % 256 {
                    std::hint::spin_loop();
                }
                let poll = polling(&tasks, id, 2, clock::now());
                assert_ne!(poll.cell, NONE, "{id} is lost");
                for _ in 0..id % 64 {
                    assert!(has(&tasks, poll.cell, id), "{id} is polled, and its cell taken");
                }
                let in_poll = id % 3 == 0;
                if !in_poll {
                    tasks.polled(&poll, clock::now());
                }
                ending.store(id, Ordering::SeqCst);
                let cell = if in_poll { poll.cell } else { NONE };
                assert!(tasks.ended(id, cell, [NONE; 2]), "{id} has no end");
                over.store(id, Ordering::Release);
            }
        });
        let mut seen = 0;
        while over.load(Ordering::Acquire) < LAST {
            in_time();
            let id = handed.load(Ordering::SeqCst);
            let told = tasks.get(TaskId(id), clock::now()).is_some();
            let (list, _) = tasks.snapshot(clock::now());
            let listed = list.iter().filter(|task| task.id.0 == id).count();
            assert!(list.windows(2).all(|two| two[0].id < two[1].id), "told twice");
            if id != 0 && ending.load(Ordering::SeqCst) < id {
                assert!(told && listed == 1, "{id} lives: {told}, {listed}");
                seen += 1;
            }
        }
        assert!(seen > 0, "the reader met some");
    });
    assert_eq!(tasks.totals().ended, LAST);
    assert!(tasks.cells.used().all(|cell| cell.is_free()));
}
