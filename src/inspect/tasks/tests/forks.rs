//! Tasks that wait for several things at once, or keep what they do not poll.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::{FuturesUnordered, iter};
use tokio::sync::{Mutex, Notify, mpsc};

use super::own::{at_rest, id, line_below, line_of, runtime, show, task, user_frames};
use crate::inspect::tasks::TaskRead;
use crate::model::{HeldKind, Stack, WaitKind};

fn here(marker: &str) -> u32 {
    line_of(include_str!("forks.rs"), marker)
}

fn below(marker: &str) -> u32 {
    line_below(include_str!("forks.rs"), marker)
}

/// Lines of a stack in this file, innermost first.
fn lines(stack: &Stack) -> Vec<u32> {
    let frames = stack.frames.iter().filter_map(|frame| frame.location.as_ref());
    let mine = frames.filter(|location| location.file.ends_with("forks.rs"));
    mine.map(|location| location.line).collect()
}

/// Kinds of waits of a task, its own first, and the lines they stand at.
fn waits(task: &TaskRead) -> Vec<(WaitKind, Vec<u32>)> {
    let own = (task.wait.as_ref(), task.stack.as_deref().unwrap());
    let branches = task.branches.iter().map(|branch| (branch.wait.as_ref(), &*branch.stack));
    std::iter::once(own)
        .chain(branches)
        .map(|(wait, stack)| (wait.map_or(WaitKind::Unknown, |wait| wait.kind), lines(stack)))
        .collect()
}

async fn rest(notify: &Notify) {
    notify.notified().await; //@rest
}

//@selects
async fn selects(notify: Arc<Notify>, mut jobs: mpsc::Receiver<u8>, never: bool) {
    let resting = rest(&notify);
    tokio::pin!(resting);
    tokio::select! {
        biased;
        () = &mut resting => {}
        _ = jobs.recv() => {}
        () = tokio::time::sleep(Duration::from_secs(9)), if never => {}
    }
}

//@joins
async fn joins(notify: Arc<Notify>) {
    let ready = async {};
    tokio::join!(rest(&notify), ready, async {
        tokio::time::sleep(Duration::from_secs(900)).await; //@slept
    });
}

#[test]
fn select_and_join_wait_for_what_is_left_of_them() {
    let runtime = runtime();
    let notify = Arc::new(Notify::new());
    let (_jobs, queue) = mpsc::channel(1);
    let select = runtime.spawn(selects(notify.clone(), queue, false));
    let join = runtime.spawn(joins(notify.clone()));
    let read = at_rest(&[runtime.handle()], false);
    let select = task(&read, id(&select));
    assert_eq!(
        waits(select),
        [(WaitKind::Notify, vec![here("rest"), below("selects")]), (WaitKind::MpscRecv, vec![]),],
        "{}",
        show(select)
    );
    let join = task(&read, id(&join));
    assert_eq!(
        waits(join),
        [
            (WaitKind::Notify, vec![here("rest"), below("joins")]),
            (WaitKind::Sleep, vec![here("slept")]),
        ],
        "{}",
        show(join)
    );
}

#[test]
fn sets_of_futures_are_walked_through() {
    let runtime = runtime();
    let notify = Arc::new(Notify::new());
    let unordered = runtime.spawn({
        let notify = notify.clone();
        async move {
            let mut set: FuturesUnordered<_> = (0..3).map(|_| rest(&notify)).collect();
            set.next().await; //@unordered
        }
    });
    let buffered = runtime.spawn({
        let notify = notify.clone();
        async move {
            let all = iter(0..5).map(|_| rest(&notify)).buffer_unordered(2);
            all.for_each(async |()| {}).await; //@buffered
        }
    });
    let set = runtime.spawn({
        let notify = notify.clone();
        async move {
            let mut set = tokio::task::JoinSet::new();
            for _ in 0..2 {
                let notify = notify.clone();
                set.spawn(async move { rest(&notify).await });
            }
            set.join_next().await; //@set
        }
    });
    let read = at_rest(&[runtime.handle()], false);
    let unordered = task(&read, id(&unordered));
    let waits_of = waits(unordered);
    assert_eq!(waits_of.len(), 3, "{}", show(unordered));
    assert_eq!(waits_of[0], (WaitKind::Notify, vec![here("rest"), here("unordered")]));
    assert_eq!(waits_of[1], (WaitKind::Notify, vec![here("rest")]));
    let buffered = task(&read, id(&buffered));
    let waits_of = waits(buffered);
    assert_eq!(waits_of.len(), 2, "{}", show(buffered));
    assert_eq!(waits_of[0], (WaitKind::Notify, vec![here("rest"), here("buffered")]));
    let set = task(&read, id(&set));
    let wait = set.wait.as_ref().unwrap();
    assert_eq!(wait.kind, WaitKind::Join, "{}", show(set));
    assert_eq!(wait.detail.as_deref(), Some("2 tasks left in the set"));
    assert_eq!(lines(set.stack.as_ref().unwrap()), [here("set")]);
}

async fn add(lock: &Mutex<u32>) {
    let mut value = lock.lock().await; //@add
    *value += 1;
}

async fn futurelock(lock: Arc<Mutex<u32>>, go: Arc<Notify>) {
    let mut adding = Box::pin(add(&lock));
    tokio::select! {
        biased;
        () = &mut adding => {}
        () = go.notified() => {
            *lock.lock().await += 1; //@locked
        }
    }
}

#[test]
fn a_lock_handed_to_a_future_that_is_not_polled_is_seen() {
    let runtime = runtime();
    let (lock, go, done) =
        (Arc::new(Mutex::new(0)), Arc::new(Notify::new()), Arc::new(Notify::new()));
    let first = runtime.spawn({
        let (lock, done) = (lock.clone(), done.clone());
        async move {
            let guard = lock.lock().await;
            done.notified().await;
            drop(guard);
        }
    });
    at_rest(&[runtime.handle()], false);
    let stuck = runtime.spawn(futurelock(lock.clone(), go.clone()));
    at_rest(&[runtime.handle()], false);
    go.notify_one();
    loop {
        let read = at_rest(&[runtime.handle()], false);
        if user_frames(task(&read, id(&stuck)))[0].ends_with(&format!(":{}", here("locked"))) {
            break;
        }
    }
    done.notify_one();
    runtime.block_on(first).unwrap();
    let read = at_rest(&[runtime.handle()], false);
    let stuck = task(&read, id(&stuck));
    let wait = stuck.wait.as_ref().unwrap();
    assert_eq!(wait.kind, WaitKind::Mutex, "{}", show(stuck));
    let [holder] = &*wait.holders else { panic!("{}", show(stuck)) };
    assert_eq!(holder.task, stuck.id, "it waits for itself");
    let [held] = &*stuck.holds else { panic!("{}", show(stuck)) };
    assert!(held.dormant && held.kind == HeldKind::Mutex, "{held:?}");
    assert_eq!(held.local.as_deref(), Some("adding"));
    let [dormant] = &*stuck.branches else { panic!("{}", show(stuck)) };
    assert!(dormant.dormant);
    assert_eq!(lines(&dormant.stack), [here("add")]);
}

#[test]
fn a_lock_handed_to_a_stream_that_is_not_polled_is_held_by_nobody_awake() {
    let runtime = runtime();
    let (lock, done) = (Arc::new(Mutex::new(0)), Arc::new(Notify::new()));
    let first = runtime.spawn({
        let (lock, done) = (lock.clone(), done.clone());
        async move {
            let guard = lock.lock().await;
            done.notified().await;
            drop(guard);
        }
    });
    at_rest(&[runtime.handle()], false);
    let stuck = runtime.spawn({
        let (lock, done) = (lock.clone(), Arc::new(Notify::new()));
        async move {
            let ready = futures_util::future::Either::Left(async {});
            let adds = futures_util::future::Either::Right(add(&lock));
            iter([adds, ready])
                .buffer_unordered(2)
                .for_each(|()| rest(&done)) //@body
                .await;
        }
    });
    at_rest(&[runtime.handle()], false);
    done.notify_one();
    runtime.block_on(first).unwrap();
    let read = at_rest(&[runtime.handle()], false);
    let stuck = task(&read, id(&stuck));
    assert_eq!(stuck.wait.as_ref().unwrap().kind, WaitKind::Notify, "{}", show(stuck));
    let held = stuck.holds.iter().find(|held| held.kind == HeldKind::Mutex);
    assert!(held.is_some_and(|held| held.dormant), "{}", show(stuck));
    let [dormant] = &*stuck.branches else { panic!("{}", show(stuck)) };
    assert!(dormant.dormant, "{}", show(stuck));
}

async fn rests(notify: Arc<Notify>) {
    rest(&notify).await;
}

#[test]
fn local_sets_are_found_from_their_tasks() {
    let notify = Arc::new(Notify::new());
    let (ready, told) = std::sync::mpsc::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let far = notify.clone();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let set = tokio::task::LocalSet::new();
        let task = id(&set.spawn_local(rests(far)));
        let handle = runtime.handle().clone();
        ready.send((task, handle)).unwrap();
        runtime.block_on(set.run_until(async move { drop(stopped.await) }));
    });
    let (local, handle) = told.recv().unwrap();
    // Not in any runtime's list: only the search leads to it.
    let found = std::iter::repeat_with(|| at_rest(&[&handle], true))
        .find(|read| read.tasks.iter().any(|task| task.id == local && task.wait.is_some()));
    let read = found.unwrap();
    let owner = task(&read, local).owner;
    let owner = read.owners.iter().find(|other| other.address == owner).unwrap();
    assert_eq!((owner.flavor, owner.alive, owner.read), ("local_set", 1, 1));
    assert_eq!(lines(task(&read, local).stack.as_ref().unwrap())[0], here("rest"));
    stop.send(()).unwrap();
    thread.join().unwrap();
}
