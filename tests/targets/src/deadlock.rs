//! Tasks that wait for each other in a circle or in a crowd, and tasks that
//! only look so.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, Notify, RwLock, Semaphore};
use tokio::time::sleep;

use crate::stage::{Gate, HOUR, Role, Stage, role, until};

type Lock = Arc<Mutex<u32>>;

/// Takes the first lock, and the second once it is told to.
async fn take_both(first: Lock, second: Lock, go: Arc<Gate>) {
    let outer = first.lock().await;
    go.pass().await;
    let inner = second.lock().await; // MARK: second_lock
    sleep(HOUR).await; // MARK: both_held
    drop((outer, inner));
}

async fn hold(lock: Lock) {
    let guard = lock.lock().await; // MARK: hold_waits
    sleep(HOUR).await; // MARK: hold
    drop(guard);
}

fn locked(lock: &Lock) -> bool {
    lock.try_lock().is_err()
}

/// A task that holds `first` and waits for `second`.
fn stands_between(name: &'static str, first: &str, second: &str) -> Role {
    role(name).path(&["second_lock"]).waits("mutex").on(second).queue(1).holds(
        "mutex",
        first,
        "outer",
        "second_lock",
    )
}

pub async fn two(stage: &mut Stage) {
    let (a, b, go) = (Lock::default(), Lock::default(), Arc::new(Gate::default()));
    stage.spawn(stands_between("left", "a", "b"), take_both(a.clone(), b.clone(), go.clone()));
    stage.spawn(stands_between("right", "b", "a"), take_both(b.clone(), a.clone(), go.clone()));
    until(|| locked(&a) && locked(&b)).await;
    go.let_one_pass();
    go.let_one_pass();
    stage.finding("deadlock", &["left", "right"]);
}

/// Both take the locks in the same order: the second only waits.
pub async fn two_in_order(stage: &mut Stage) {
    let (a, b, go) = (Lock::default(), Lock::default(), Arc::new(Gate::default()));
    let first = role("first").path(&["both_held"]).waits("sleep");
    let first = first.holds("mutex", "a", "outer", "both_held");
    let first = first.holds("mutex", "b", "inner", "both_held");
    stage.spawn(first, take_both(a.clone(), b.clone(), go.clone()));
    go.let_one_pass();
    until(|| locked(&a) && locked(&b)).await;
    let second = role("second").path(&["first_lock"]).waits("mutex").on("a").queue(1);
    stage.spawn(second, take_both_at_once(a, b));
}

async fn take_both_at_once(first: Lock, second: Lock) {
    let outer = first.lock().await; // MARK: first_lock
    let inner = second.lock().await;
    drop((outer, inner));
}

pub async fn three(stage: &mut Stage) {
    let [a, b, c] = [Lock::default(), Lock::default(), Lock::default()];
    let go = Arc::new(Gate::default());
    stage.spawn(stands_between("one", "a", "b"), take_both(a.clone(), b.clone(), go.clone()));
    stage.spawn(stands_between("two", "b", "c"), take_both(b.clone(), c.clone(), go.clone()));
    stage.spawn(stands_between("three", "c", "a"), take_both(c.clone(), a.clone(), go.clone()));
    until(|| locked(&a) && locked(&b) && locked(&c)).await;
    for _ in 0..3 {
        go.let_one_pass();
    }
    stage.finding("deadlock", &["one", "two", "three"]);
}

/// The same row, but its end only sleeps.
pub async fn three_in_a_row(stage: &mut Stage) {
    let [a, b, c] = [Lock::default(), Lock::default(), Lock::default()];
    let go = Arc::new(Gate::default());
    let end = role("end").path(&["hold"]).waits("sleep").holds("mutex", "c", "guard", "hold");
    stage.spawn(end, hold(c.clone()));
    stage.spawn(stands_between("one", "a", "b"), take_both(a.clone(), b.clone(), go.clone()));
    stage.spawn(stands_between("two", "b", "c"), take_both(b.clone(), c.clone(), go.clone()));
    until(|| locked(&a) && locked(&b) && locked(&c)).await;
    go.let_one_pass();
    go.let_one_pass();
}

pub async fn itself(stage: &mut Stage) {
    let selfish = role("selfish").path(&["again"]).waits("mutex").on("m").queue(1);
    stage.spawn(selfish.holds("mutex", "m", "guard", "again"), lock_twice(Lock::default()));
    stage.finding("deadlock", &["selfish"]);
}

async fn lock_twice(lock: Lock) -> u32 {
    let guard = lock.lock().await;
    let again = lock.lock().await; // MARK: again
    *guard + *again
}

pub async fn itself_after_release(stage: &mut Stage) {
    let lock = Lock::default();
    let patient = role("patient").path(&["relocked"]).waits("sleep");
    let patient = patient.holds("mutex", "m", "again", "relocked");
    stage.spawn(patient, lock_release_lock(lock.clone()));
    until(|| locked(&lock)).await;
}

async fn lock_release_lock(lock: Lock) -> u32 {
    let guard = lock.lock().await;
    let first = *guard;
    drop(guard);
    tokio::task::yield_now().await;
    let again = lock.lock().await;
    sleep(HOUR).await; // MARK: relocked
    first + *again
}

/// A circle through a lock for readers and writers and a mutex.
pub async fn mixed(stage: &mut Stage) {
    let (table, lock) = (Arc::new(RwLock::new(0)), Lock::default());
    let go = Arc::new(Gate::default());
    let reader = role("reader").path(&["reader_wants"]).waits("mutex").on("m").queue(1);
    let reader = reader.holds("rw_lock_read", "table", "reading", "reader_wants");
    stage.spawn(reader, read_then_lock(table.clone(), lock.clone(), go.clone()));
    let writer = role("writer").path(&["writer_wants"]).waits("rw_lock_write").on("table");
    let writer = writer.holds("mutex", "m", "guard", "writer_wants");
    stage.spawn(writer, lock_then_write(lock.clone(), table.clone(), go.clone()));
    until(|| table.try_write().is_err() && locked(&lock)).await;
    go.let_one_pass();
    go.let_one_pass();
    stage.finding("deadlock", &["reader", "writer"]);
}

/// The reader waits for a lock that is with a task which only sleeps.
pub async fn mixed_with_way_out(stage: &mut Stage) {
    let (table, lock) = (Arc::new(RwLock::new(0)), Lock::default());
    let go = Arc::new(Gate::default());
    let reader = role("reader").path(&["reader_wants"]).waits("mutex").on("m").queue(1);
    let reader = reader.holds("rw_lock_read", "table", "reading", "reader_wants");
    stage.spawn(reader, read_then_lock(table.clone(), lock.clone(), go.clone()));
    let end = role("end").path(&["hold"]).waits("sleep").holds("mutex", "m", "guard", "hold");
    stage.spawn(end, hold(lock.clone()));
    until(|| table.try_write().is_err() && locked(&lock)).await;
    go.let_one_pass();
    let writer = role("writer").path(&["only_writes"]).waits("rw_lock_write").on("table");
    stage.spawn(writer, only_writes(table));
}

async fn read_then_lock(table: Arc<RwLock<u32>>, lock: Lock, go: Arc<Gate>) {
    let reading = table.read().await;
    go.pass().await;
    let guard = lock.lock().await; // MARK: reader_wants
    drop((guard, reading));
}

async fn only_writes(table: Arc<RwLock<u32>>) {
    *table.write().await += 1; // MARK: only_writes
}

/// A circle through a semaphore with one permit. How many it ever had nothing
/// tells, so it is suspected, and only once it has lasted.
pub async fn permits(stage: &mut Stage) {
    let (permits, lock) = (Arc::new(Semaphore::new(1)), Lock::default());
    let go = Arc::new(Gate::default());
    let user = role("user").path(&["user_wants"]).waits("mutex").on("m");
    let user = user.holds("permit", "permits", "permit", "user_wants");
    stage.spawn(user, permit_then_lock(permits.clone(), lock.clone(), go.clone()));
    let owner = role("owner").path(&["owner_wants"]).waits("semaphore").on("permits");
    let owner = owner.holds("mutex", "m", "guard", "owner_wants");
    stage.spawn(owner, lock_then_permit(lock.clone(), permits.clone(), go.clone()));
    until(|| permits.available_permits() == 0 && locked(&lock)).await;
    go.let_one_pass();
    go.let_one_pass();
    stage.finding("deadlock", &["user", "owner"]);
}

async fn permit_then_lock(permits: Arc<Semaphore>, lock: Lock, go: Arc<Gate>) {
    let permit = permits.acquire().await;
    go.pass().await;
    let guard = lock.lock().await; // MARK: user_wants
    drop((guard, permit));
}

async fn lock_then_write(lock: Lock, table: Arc<RwLock<u32>>, go: Arc<Gate>) {
    let guard = lock.lock().await;
    go.pass().await;
    let writing = table.write().await; // MARK: writer_wants
    drop((writing, guard));
}

/// Two permits, two holders: the one in the circle is not the only one who
/// could give one back.
pub async fn permits_with_way_out(stage: &mut Stage) {
    let permits = Arc::new(Semaphore::new(2));
    let (lock, go) = (Lock::default(), Arc::new(Gate::default()));

    let free = role("free").path(&["free_holds"]).waits("sleep");
    stage.spawn(
        free.holds("permit", "permits", "permit", "free_holds"),
        hold_permit(permits.clone()),
    );
    until(|| permits.available_permits() == 1).await;
    let user = role("user").path(&["user_wants"]).waits("mutex").on("m");
    let user = user.holds("permit", "permits", "permit", "user_wants");
    stage.spawn(user, permit_then_lock(permits.clone(), lock.clone(), go.clone()));
    let owner = role("owner").path(&["owner_wants"]).waits("semaphore").on("permits");
    let owner = owner.holds("mutex", "m", "guard", "owner_wants");
    stage.spawn(owner, lock_then_permit(lock.clone(), permits.clone(), go.clone()));
    until(|| permits.available_permits() == 0 && locked(&lock)).await;
    go.let_one_pass();
    go.let_one_pass();
}

async fn hold_permit(permits: Arc<Semaphore>) {
    let permit = permits.acquire().await;
    sleep(HOUR).await; // MARK: free_holds
    drop(permit);
}

async fn lock_then_permit(lock: Lock, permits: Arc<Semaphore>, go: Arc<Gate>) {
    let guard = lock.lock().await;
    go.pass().await;
    let permit = permits.acquire().await; // MARK: owner_wants
    drop((permit, guard));
}

/// What looks like a circle and is none: a guard that was dropped before the
/// end of its scope leaves its bytes in the task.
pub async fn stale(stage: &mut Stage) {
    beside_a_dropped_guard(stage, |stage, m| {
        let sleeper = role("sleeper").path(&["hold"]).waits("sleep");
        stage.spawn(sleeper.holds("mutex", "m", "guard", "hold"), hold(m));
    })
    .await;
}

/// The same, and the lock's real holder is a thread, which no dump sees: only
/// the guard that was dropped is left to be believed.
pub async fn stale_unseen(stage: &mut Stage) {
    beside_a_dropped_guard(stage, |_, m| {
        std::thread::spawn(move || {
            let guard = m.blocking_lock();
            std::thread::sleep(HOUR);
            drop(guard);
        });
    })
    .await;
}

/// `take` has the lock taken whose guard a task has dropped.
async fn beside_a_dropped_guard(stage: &mut Stage, take: impl FnOnce(&mut Stage, Lock)) {
    let (m, n, go) = (Lock::default(), Lock::default(), Arc::new(Gate::default()));
    let dropped = Arc::new(AtomicBool::new(false));
    let first = role("first").path(&["wants_second"]).waits("mutex").on("n").queue(1);
    stage.spawn(first, lock_drop_lock(m.clone(), n.clone(), dropped.clone(), go.clone()));
    until(|| dropped.load(Ordering::Acquire)).await;
    take(stage, m.clone());
    until(|| locked(&m)).await;
    let second = stands_between("second", "n", "m");
    stage.spawn(second, take_both(n.clone(), m.clone(), go.clone()));
    until(|| locked(&n)).await;
    go.let_one_pass();
    go.let_one_pass();
}

async fn lock_drop_lock(first: Lock, second: Lock, dropped: Arc<AtomicBool>, go: Arc<Gate>) {
    let mut guard = first.lock().await;
    *guard += 1;
    drop(guard);
    dropped.store(true, Ordering::Release);
    go.pass().await;
    *second.lock().await += 1; // MARK: wants_second
}

const CROWD: usize = 20;

/// Names of the crowd, `'static` as roles want them.
const NAMES: [&str; CROWD] = [
    "c00", "c01", "c02", "c03", "c04", "c05", "c06", "c07", "c08", "c09", "c10", "c11", "c12",
    "c13", "c14", "c15", "c16", "c17", "c18", "c19",
];

pub async fn convoy(stage: &mut Stage) {
    let lock = Lock::default();
    let head = role("head").path(&["hold"]).waits("sleep").holds("mutex", "m", "guard", "hold");
    stage.spawn(head, hold(lock.clone()));
    until(|| locked(&lock)).await;
    for name in NAMES {
        let waiter = role(name).path(&["hold_waits"]).waits("mutex").on("m").queue(CROWD as u64);
        stage.spawn(waiter, hold(lock.clone()));
    }
    let mut all = vec!["head"];
    all.extend(NAMES);
    stage.finding("lock_convoy", &all);
}

/// As many tasks that wait for one thing, which is no lock; and one that waits
/// for a lock.
pub async fn no_convoy(stage: &mut Stage) {
    let bell = Arc::new(Notify::new());
    for name in NAMES {
        let waiter = role(name).path(&["attendant"]).waits("notify").on("bell");
        stage.spawn(waiter, attend(bell.clone()));
    }
    let lock = Lock::default();
    let head = role("head").path(&["hold"]).waits("sleep").holds("mutex", "m", "guard", "hold");
    stage.spawn(head, hold(lock.clone()));
    until(|| locked(&lock)).await;
    let waiter = role("waiter").path(&["hold_waits"]).waits("mutex").on("m").queue(1);
    stage.spawn(waiter, hold(lock));
    // Somebody who could ring.
    stage.spawn(role("ringer").waits("sleep"), ringer(bell));
}

async fn attend(bell: Arc<Notify>) {
    bell.notified().await; // MARK: attendant
}

async fn ringer(bell: Arc<Notify>) {
    sleep(HOUR).await; // MARK: ringer
    bell.notify_waiters();
}

/// A lock that many want and nobody has for long: seen from outside, each of
/// them waits for it at nearly every look.
pub async fn rotation(stage: &mut Stage) {
    rotate(stage, Duration::from_millis(2));
}

/// The same where each of them has it for long.
pub async fn slow_rotation(stage: &mut Stage) {
    rotate(stage, Duration::from_secs(4));
}

fn rotate(stage: &mut Stage, hold: Duration) {
    let lock = Lock::default();
    for name in NAMES {
        stage.spawn(role(name).restless(), again_and_again(lock.clone(), hold));
    }
    stage.restless();
}

async fn again_and_again(lock: Lock, hold: Duration) {
    loop {
        let mut guard = lock.lock().await;
        *guard += 1;
        sleep(hold).await; // MARK: takes_turns
    }
}
