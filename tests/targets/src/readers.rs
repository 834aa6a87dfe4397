//! Readers that only a writer between them keeps from each other.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, RwLock};
use tokio::time::{sleep, timeout};

use crate::stage::{Gate, HOUR, Role, Stage, role, until};

type Table = Arc<RwLock<u32>>;
type Lock = Arc<Mutex<u32>>;

/// The second reader would be let in beside the first, but the queue is served
/// in order, and a writer stands in it.
pub async fn with_a_writer(stage: &mut Stage) {
    let writer = role("writer").path(&["plain_writer"]).waits("rw_lock_write").on("table");
    circle(stage, writer.queue(2), writes).await;
}

/// The same, but the writer goes away after a while, and then all go on.
pub async fn with_a_writer_that_leaves(stage: &mut Stage) {
    let writer = role("writer").path(&["timed_writer"]).waits("rw_lock_write").on("table");
    circle(stage, writer.queue(2).deadline(), async |table| {
        let _ = timeout(HOUR, table.write()).await; // MARK: timed_writer
    })
    .await;
}

async fn writes(table: Table) {
    *table.write().await += 1; // MARK: plain_writer
}

async fn circle<W>(stage: &mut Stage, role_of_writer: Role, write: impl FnOnce(Table) -> W)
where
    W: Future<Output = ()> + Send + 'static,
{
    let (table, lock, go) = (Table::default(), Lock::default(), Arc::new(Gate::default()));
    stage.spawn(first(), read_then_lock(table.clone(), lock.clone(), go.clone()));
    let second = role("second").path(&["second_reads"]).waits("rw_lock_read").on("table");
    let second = second.queue(2).holds("mutex", "m", "guard", "second_reads");
    stage.spawn(second, lock_then_read(lock.clone(), table.clone(), go.clone()));
    until(|| table.try_write().is_err() && lock.try_lock().is_err()).await;
    stage.spawn(role_of_writer, write(table.clone()));
    // It has taken the permits that are left.
    until(|| table.try_read().is_err()).await;
    go.let_one_pass();
    go.let_one_pass();
    stage.finding("deadlock", &["first", "second", "writer"]);
}

/// The writer has gone away before the second reader comes: it is let in.
pub async fn without_a_writer(stage: &mut Stage) {
    let (table, lock, go) = (Table::default(), Lock::default(), Arc::new(Gate::default()));
    stage.spawn(first(), read_then_lock(table.clone(), lock.clone(), go.clone()));
    let second = role("second").path(&["second_has_both"]).waits("sleep");
    let second = second.holds("mutex", "m", "guard", "second_has_both");
    let second = second.holds("rw_lock_read", "table", "reading", "second_has_both");
    stage.spawn(second, lock_then_read(lock.clone(), table.clone(), go.clone()));
    until(|| table.try_write().is_err() && lock.try_lock().is_err()).await;
    assert!(timeout(Duration::from_millis(1), table.write()).await.is_err());
    go.let_one_pass();
    go.let_one_pass();
}

fn first() -> Role {
    let first = role("first").path(&["first_locks"]).waits("mutex").on("m").queue(1);
    first.holds("rw_lock_read", "table", "reading", "first_locks")
}

async fn read_then_lock(table: Table, lock: Lock, go: Arc<Gate>) {
    let reading = table.read().await;
    go.pass().await;
    let guard = lock.lock().await; // MARK: first_locks
    drop((guard, reading));
}

async fn lock_then_read(lock: Lock, table: Table, go: Arc<Gate>) {
    let guard = lock.lock().await;
    go.pass().await;
    let reading = table.read().await; // MARK: second_reads
    sleep(HOUR).await; // MARK: second_has_both
    drop((reading, guard));
}
