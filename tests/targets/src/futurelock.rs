//! A task that waits for what only a future of its own could release, which
//! it no longer polls; and tasks that only look so.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::stream::{self, StreamExt as _};
use tokio::sync::{Mutex, Notify, Semaphore};
use tokio::time::sleep;

use crate::stage::{HOUR, Stage, role, until};

type Lock = Arc<Mutex<u32>>;

async fn work(lock: &Mutex<u32>) {
    let guard = lock.lock().await; // MARK: work_waits
    sleep(HOUR).await; // MARK: work_holds
    drop(guard);
}

/// The future queues for the lock, the task moves on and queues behind it. Once
/// the lock is free it belongs to a future that nobody polls.
pub async fn queued(stage: &mut Stage) {
    let (lock, passed) = (Lock::default(), Arc::new(AtomicBool::new(false)));
    let held = lock.lock().await;
    let stuck = role("stuck").path(&["behind_itself"]).waits("mutex").on("m").queue(1);
    // The lock is granted to the future's place in the queue; it has no guard yet.
    let stuck = stuck.keeps("mutex", "m", "pinned", "-").dormant(&[&["work_waits"]]);
    stage.spawn(stuck, moves_on(lock.clone(), passed.clone()));
    until(|| passed.load(Ordering::Acquire)).await;
    drop(held);
    stage.finding("futurelock", &["stuck"]);
}

async fn moves_on(lock: Lock, passed: Arc<AtomicBool>) -> u32 {
    let mut first = pin!(work(&lock));
    tokio::select! {
        biased;
        () = &mut first => return 0,
        () = std::future::ready(()) => passed.store(true, Ordering::Release),
    }
    *lock.lock().await // MARK: behind_itself
}

/// `select!` owns the future, so it is gone when the task moves on.
pub async fn queued_and_dropped(stage: &mut Stage) {
    let (lock, passed) = (Lock::default(), Arc::new(AtomicBool::new(false)));
    let held = lock.lock().await;
    let free = role("free").path(&["alone"]).waits("sleep").holds("mutex", "m", "guard", "alone");
    stage.spawn(free, drops_and_moves_on(lock.clone(), passed.clone()));
    until(|| passed.load(Ordering::Acquire)).await;
    drop(held);
    until(|| lock.try_lock().is_err()).await;
}

async fn drops_and_moves_on(lock: Lock, passed: Arc<AtomicBool>) {
    tokio::select! {
        biased;
        () = work(&lock) => return,
        () = std::future::ready(()) => passed.store(true, Ordering::Release),
    }
    let guard = lock.lock().await;
    sleep(HOUR).await; // MARK: alone
    drop(guard);
}

/// The future has the lock already.
pub async fn held(stage: &mut Stage) {
    let stuck = role("stuck").path(&["behind_own_guard"]).waits("mutex").on("m").queue(1);
    let stuck = stuck.keeps("mutex", "m", "guard", "work_holds").dormant(&[&["work_holds"]]);
    stage.spawn(stuck, moves_on_while_held(Lock::default()));
    stage.finding("futurelock", &["stuck"]);
}

async fn moves_on_while_held(lock: Lock) -> u32 {
    let mut first = pin!(work(&lock));
    tokio::select! {
        biased;
        () = &mut first => return 0,
        () = std::future::ready(()) => {}
    }
    *lock.lock().await // MARK: behind_own_guard
}

/// The task goes round and polls the future that has the lock each time;
/// another task waits for that lock, which is no crime.
pub async fn held_and_polled(stage: &mut Stage) {
    let (lock, bell) = (Lock::default(), Arc::new(Notify::new()));
    let loyal = role("loyal").path(&["fn:polls_on"]).arms(&[&["work_holds"], &[]]);
    let loyal = loyal.holds("mutex", "m", "guard", "work_holds");
    stage.spawn(loyal, polls_on(lock.clone(), bell.clone()));
    until(|| lock.try_lock().is_err()).await;
    bell.notify_one();
    let waiter = role("waiter").path(&["work_waits", "waits_for_work"]).waits("mutex").on("m");
    stage.spawn(waiter, waits_for_work(lock));
    stage.spawn(role("ringer").waits("sleep").path(&["late_ringer"]), ringer(bell));
}

async fn polls_on(lock: Lock, bell: Arc<Notify>) {
    let mut first = pin!(work(&lock));
    loop {
        tokio::select! {
            () = &mut first => return,
            () = bell.notified() => {}
        }
    }
}

async fn waits_for_work(lock: Lock) {
    work(&lock).await; // MARK: waits_for_work
}

async fn ringer(bell: Arc<Notify>) {
    sleep(HOUR).await; // MARK: late_ringer
    bell.notify_one();
}

/// A future in a stream's buffer has the only permit; the task that reads the
/// stream wants it before it polls the stream again.
pub async fn buffered(stage: &mut Stage) {
    let stuck = role("stuck").path(&["between_items"]).waits("semaphore").on("permits").queue(1);
    let stuck = stuck.keeps("permit", "permits", "permit", "item_holds");
    let stuck = stuck.dormant(&[&["item_holds"]]);
    stage.spawn(stuck, reads_stream(Arc::new(Semaphore::new(1)), true));
    stage.finding("futurelock", &["stuck"]);
}

/// The buffered future holds nothing; the permit is with another task.
pub async fn buffered_and_released(stage: &mut Stage) {
    let permits = Arc::new(Semaphore::new(1));
    let holder = role("holder").waits("sleep").path(&["permit_held"]);
    stage.spawn(holder.holds("permit", "permits", "permit", "permit_held"), holds(permits.clone()));
    until(|| permits.available_permits() == 0).await;
    let reader = role("reader").path(&["between_items"]).waits("semaphore").on("permits").queue(1);
    let reader = reader.dormant(&[&["item_holds"]]);
    stage.spawn(reader, reads_stream(permits, false));
}

async fn holds(permits: Arc<Semaphore>) {
    let permit = permits.acquire().await;
    sleep(HOUR).await; // MARK: permit_held
    drop(permit);
}

async fn item(number: u32, permits: Arc<Semaphore>, greedy: bool) -> u32 {
    if number == 0 {
        // So that the others are polled too before the first is ready.
        tokio::task::yield_now().await;
    } else {
        let permit = if greedy { permits.acquire().await.ok() } else { None };
        sleep(HOUR).await; // MARK: item_holds
        drop(permit);
    }
    number
}

async fn reads_stream(permits: Arc<Semaphore>, greedy: bool) {
    let items = stream::iter(0..2).map(|number| item(number, permits.clone(), greedy));
    let mut items = pin!(items.buffered(2));
    while let Some(number) = items.next().await {
        let permit = permits.acquire().await; // MARK: between_items
        drop((permit, number));
    }
}
