//! Await chains and waits of tasks that are parked on purpose.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::{Mutex, Notify, OnceCell, RwLock};

use super::own::{at_rest, id, line_of, runtime, show, task, user_frames};
use crate::model::{HeldKind, Resource, WaitKind};

fn here(marker: &str) -> u32 {
    line_of(include_str!("chains.rs"), marker)
}

async fn inner(notify: Arc<Notify>) {
    notify.notified().await; //@inner
}

async fn outer(notify: Arc<Notify>) {
    inner(notify).await; //@outer
}

/// Written by hand, around a boxed `dyn`.
struct Slow(Pin<Box<dyn Future<Output = ()> + Send>>);

impl Future for Slow {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(context)
    }
}

async fn holder(lock: Arc<Mutex<u32>>, notify: Arc<Notify>) {
    let mut guard = lock.lock().await;
    *guard += 1;
    notify.notified().await; //@holder
    drop(guard);
}

async fn waiter(lock: Arc<Mutex<u32>>) {
    *lock.lock().await += 1; //@waiter
}

async fn dropper(lock: Arc<Mutex<u32>>, notify: Arc<Notify>) {
    let mut guard = lock.lock().await;
    *guard += 1;
    tokio::task::yield_now().await;
    drop(guard);
    notify.notified().await; //@dropper
}

#[test]
fn chains_go_through_functions_boxes_and_hand_written_futures() {
    let runtime = runtime();
    let notify = Arc::new(Notify::new());
    let plain = runtime.spawn(outer(notify.clone()));
    let boxed = runtime.spawn(Slow(Box::pin(outer(notify.clone()))));
    let read = at_rest(&[runtime.handle()], false);
    let expect =
        [format!("chains::inner:{}", here("inner")), format!("chains::outer:{}", here("outer"))];
    assert_eq!(user_frames(task(&read, id(&plain))), expect);
    let boxed = task(&read, id(&boxed));
    assert_eq!(user_frames(boxed)[..2], expect, "{}", show(boxed));
    assert!(user_frames(boxed)[2].starts_with("Slow::poll:"), "{}", show(boxed));
    let wait = boxed.wait.as_ref().unwrap();
    assert_eq!(wait.kind, WaitKind::Notify);
    assert_eq!(wait.resource.map(Resource::address), Some(Arc::as_ptr(&notify) as u64));
    assert_eq!(read.owners.len(), 1);
    assert_eq!((read.owners[0].alive, read.owners[0].read), (2, 2));
    assert_eq!(read.owners[0].flavor, "multi_thread");
    assert_eq!(read.missing, []);
}

/// The walk descends with the chain, on a thread of the debug server's runtime:
/// a stack overflow there would end the whole process.
#[test]
fn a_chain_as_deep_as_the_bound_fits_on_half_a_threads_stack() {
    fn nested(depth: u32, bell: Arc<Notify>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            match depth {
                0 => bell.notified().await,
                _ => nested(depth - 1, bell).await,
            }
        })
    }
    let runtime = runtime();
    let deep = runtime.spawn(nested(1_000, Arc::default()));
    let handle = runtime.handle().clone();
    // What tokio gives its threads, 2 MiB, and half of it for what is around.
    let reader = std::thread::Builder::new().stack_size(1 << 20);
    let reader = reader.spawn(move || at_rest(&[&handle], false)).unwrap();
    let read = reader.join().unwrap();
    let stack = task(&read, id(&deep)).stack.clone().expect("a chain");
    assert!(stack.truncated.is_some(), "{} frames", stack.frames.len());
    assert!(stack.frames.len() > 50, "{} frames", stack.frames.len());
}

#[test]
fn a_locks_waiters_know_its_holder() {
    let runtime = runtime();
    let (lock, notify) = (Arc::new(Mutex::new(0)), Arc::new(Notify::new()));
    // It has had the lock and has given it back: its bytes still look like it.
    let dropped = runtime.spawn(dropper(lock.clone(), notify.clone()));
    at_rest(&[runtime.handle()], false);
    let held = runtime.spawn(holder(lock.clone(), notify.clone()));
    at_rest(&[runtime.handle()], false);
    let waits: Vec<_> = (0..3).map(|_| runtime.spawn(waiter(lock.clone()))).collect();
    let read = at_rest(&[runtime.handle()], false);
    let held_task = task(&read, id(&held));
    let [guard] = &*held_task.holds else { panic!("{}", show(held_task)) };
    assert_eq!(guard.kind, HeldKind::Mutex);
    assert_eq!(guard.local.as_deref(), Some("guard"));
    assert_eq!(guard.location.as_ref().unwrap().line, here("holder"));
    assert!(!guard.dormant);
    for wait in &waits {
        let task = task(&read, id(wait));
        let wait = task.wait.as_ref().unwrap();
        assert_eq!(wait.kind, WaitKind::Mutex, "{}", show(task));
        assert_eq!(wait.queue, Some(3));
        assert_eq!(wait.resource, Some(guard.resource));
        let [holder] = &*wait.holders else { panic!("{}", show(task)) };
        assert_eq!(holder.task, id(&held));
        assert_eq!(holder.local.as_deref(), Some("guard"));
        assert_eq!(user_frames(task), [format!("chains::waiter:{}", here("waiter"))]);
    }
    let dropped = task(&read, id(&dropped));
    assert_eq!(*dropped.holds, [], "{}", show(dropped));
    assert_eq!(user_frames(dropped), [format!("chains::dropper:{}", here("dropper"))]);
}

/// A lock that lets in few readers has few permits: all of them free, and
/// nobody reads.
#[test]
fn a_guard_of_few_readers_given_back_is_not_held() {
    async fn reads(lock: Arc<RwLock<u32>>, bell: Arc<Notify>) {
        let guard = lock.read().await;
        tokio::task::yield_now().await;
        drop(guard);
        bell.notified().await;
    }
    async fn reads_owned(lock: Arc<RwLock<u32>>, bell: Arc<Notify>) {
        let guard = lock.read_owned().await;
        tokio::task::yield_now().await;
        drop(guard);
        bell.notified().await;
    }
    let runtime = runtime();
    let lock = || Arc::new(RwLock::with_max_readers(0, 4));
    let borrowed = runtime.spawn(reads(lock(), Arc::default()));
    let owned = runtime.spawn(reads_owned(lock(), Arc::default()));
    let read = at_rest(&[runtime.handle()], false);
    for reader in [borrowed, owned] {
        let reader = task(&read, id(&reader));
        assert_eq!(*reader.holds, [], "{}", show(reader));
    }
}

/// The compiler's flags leave it open, and tokio's own function does not.
#[test]
fn whoever_initialises_a_cell_surely_holds_it() {
    async fn from_itself(cell: Arc<OnceCell<u32>>) -> u32 {
        *cell.get_or_init(async || *cell.get_or_init(async || 1).await).await
    }
    let runtime = runtime();
    let own = runtime.spawn(from_itself(Arc::default()));
    let read = at_rest(&[runtime.handle()], false);
    let own = task(&read, id(&own));
    let wait = own.wait.as_ref().unwrap();
    assert_eq!((wait.kind, wait.queue), (WaitKind::OnceCell, Some(1)), "{}", show(own));
    let [permit] = &*own.holds else { panic!("{}", show(own)) };
    assert_eq!((permit.kind, Some(permit.resource)), (HeldKind::Permit, wait.resource));
    assert!(!permit.perhaps_dropped, "{}", show(own));
}

async fn relock(lock: Arc<Mutex<u32>>, go: Arc<Notify>) {
    let mut guard = lock.lock().await;
    *guard += 1;
    drop(guard);
    go.notified().await;
    *lock.lock().await += 1; //@relock
}

#[test]
fn a_lock_given_back_is_not_held_though_its_guard_still_lies_there() {
    let runtime = runtime();
    let (lock, go) = (Arc::new(Mutex::new(0)), Arc::new(Notify::new()));
    let again = runtime.spawn(relock(lock.clone(), go.clone()));
    at_rest(&[runtime.handle()], false);
    // Held where no task's memory shows it.
    let guard = lock.blocking_lock();
    go.notify_one();
    let relock = format!("chains::relock:{}", here("relock"));
    let read = std::iter::repeat_with(|| at_rest(&[runtime.handle()], false))
        .find(|read| user_frames(task(read, id(&again))) == [relock.as_str()])
        .unwrap();
    let again = task(&read, id(&again));
    assert_eq!(again.wait.as_ref().unwrap().kind, WaitKind::Mutex);
    assert_eq!(again.wait.as_ref().unwrap().holders, [], "{}", show(again));
    assert_eq!(*again.holds, [], "{}", show(again));
    drop(guard);
}
