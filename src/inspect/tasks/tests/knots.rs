//! What is read of tasks in a knot is enough to prove it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{Mutex, Notify};

use super::own::{at_rest, id, line_of, runtime};
use crate::analyze::analyze;
use crate::inspect::tasks::{TaskRead, TasksRead};
use crate::model::{
    Confidence, Edge, Finding, FindingKind, Snapshot, TaskId, Wait, WaitKind, sample,
};

fn here(marker: &str) -> u32 {
    line_of(include_str!("knots.rs"), marker)
}

/// As a handler does it: with a way out that does not come.
async fn both(first: Arc<Mutex<()>>, second: Arc<Mutex<()>>, shutdown: Arc<Notify>) {
    let work = async {
        let first = first.lock().await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        let second = second.lock().await; //@second
        drop((first, second));
    };
    tokio::select! {
        () = work => {}
        () = shutdown.notified() => {}
    }
}

/// The guard lies around what it awaits: whichever comes first, it goes on.
async fn around(first: Arc<Mutex<()>>, second: Arc<Mutex<()>>, shutdown: Arc<Notify>) {
    let guard = first.lock().await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    tokio::select! {
        _ = second.lock() => {}
        () = shutdown.notified() => {}
    }
    drop(guard);
}

async fn futurelock(lock: Arc<Mutex<()>>) {
    let mut first = Box::pin(async { drop(lock.lock().await) });
    tokio::select! {
        () = &mut first => {}
        () = tokio::time::sleep(Duration::from_millis(1)) => {}
    }
    let _again = lock.lock().await; //@again
    first.await;
}

/// Reads until every task waits for a lock, which is where they end.
fn all_lock(handle: &Handle) -> TasksRead {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let read = at_rest(&[handle], false);
        let locks = |wait: Option<&Wait>| wait.is_some_and(|wait| wait.kind == WaitKind::Mutex);
        let one = |task: &TaskRead| {
            locks(task.wait.as_ref())
                || task.branches.iter().any(|one| !one.dormant && locks(one.wait.as_ref()))
        };
        if read.tasks.iter().all(one) || Instant::now() > deadline {
            return read;
        }
    }
}

fn snapshot(read: &TasksRead) -> Snapshot {
    let mut snapshot = sample::empty();
    let nowhere = Arc::new(sample::place("src/main.rs", 1));
    for one in &read.tasks {
        let mut task = sample::task(one.id.0, &nowhere);
        (task.state, task.stack, task.wait) = (one.state, one.stack.clone(), one.wait.clone());
        (task.branches, task.holds) = (one.branches.clone(), one.holds.clone());
        snapshot.tasks.push(task);
    }
    snapshot.tasks.sort_by_key(|task| task.id);
    snapshot
}

fn found(read: &TasksRead) -> Vec<Finding> {
    analyze(&snapshot(read)).findings
}

#[test]
fn a_deadlock_in_a_select_is_proven_and_its_way_out_is_told() {
    let runtime = runtime();
    let (a, b, never) = (Arc::default(), Arc::default(), Arc::new(Notify::new()));
    let one = runtime.spawn(both(Arc::clone(&a), Arc::clone(&b), never.clone()));
    let two = runtime.spawn(both(b, a, never.clone()));
    let read = all_lock(runtime.handle());
    let found = found(&read);
    assert_eq!(found.len(), 1, "{found:#?} {:#?}", read.tasks);
    assert_eq!((found[0].kind, found[0].confidence), (FindingKind::Deadlock, Confidence::Proven));
    let mut tasks: Vec<TaskId> = found[0].tasks.clone();
    tasks.sort_unstable();
    assert_eq!(tasks, [id(&one), id(&two)]);
    let line = |edge: &Edge| edge.at.as_ref().unwrap().line;
    assert!(found[0].edges.iter().all(|edge| line(edge) == here("second")), "{found:#?}");
    assert!(found[0].edges.iter().all(|edge| edge.local.as_deref() == Some("first")));
    let said = found[0].evidence.join(" ");
    assert!(said.contains("also awaits a notified"), "{said}");
}

#[test]
fn a_guard_around_a_select_may_be_given_up() {
    let runtime = runtime();
    let (a, b, never) = (Arc::default(), Arc::default(), Arc::new(Notify::new()));
    runtime.spawn(around(Arc::clone(&a), Arc::clone(&b), never.clone()));
    runtime.spawn(around(b, a, never.clone()));
    let read = all_lock(runtime.handle());
    assert_eq!(found(&read), [], "{:#?}", read.tasks);
}

#[test]
fn a_futurelock_is_proven() {
    let runtime = runtime();
    let lock = Arc::new(Mutex::new(()));
    let guard = runtime.block_on(Arc::clone(&lock).lock_owned());
    let task = runtime.spawn(futurelock(lock));
    // Before the timer it is still in the select, and waits for a lock as well.
    let kept = |read: &TasksRead| read.tasks[0].branches.iter().any(|one| one.dormant);
    let held = std::iter::repeat_with(|| all_lock(runtime.handle())).find(kept).unwrap();
    let held = found(&held);
    drop(guard);
    let read = at_rest(&[runtime.handle()], false);
    for found in [held, found(&read)] {
        assert_eq!(found.len(), 1, "{found:#?} {:#?}", read.tasks);
        assert_eq!(found[0].kind, FindingKind::Futurelock);
        assert_eq!(found[0].confidence, Confidence::Proven);
        assert_eq!(found[0].tasks, [id(&task)]);
        assert_eq!(found[0].edges[0].at.as_ref().unwrap().line, here("again"));
    }
}
