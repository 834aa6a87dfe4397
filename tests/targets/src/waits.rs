//! Every kind of wait that tokio's own types have, sockets left out.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{
    Barrier, Mutex, Notify, OnceCell, OwnedMutexGuard, RwLock, Semaphore, broadcast, mpsc, oneshot,
    watch,
};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::stage::{HOUR, Stage, role, until};

pub async fn play(stage: &mut Stage) {
    mutexes(stage).await;
    rw_locks(stage).await;
    semaphores(stage).await;
    channels(stage).await;
    news(stage).await;
    meetings(stage).await;
    clocks(stage);
}

async fn mutexes(stage: &mut Stage) {
    let lock = Arc::new(Mutex::new(0));
    let holder = role("mutex_holder").waits("sleep").holds("mutex", "m", "guard", "mutex_holder");
    stage.spawn(holder, mutex_holder(lock.clone()));
    until(|| lock.try_lock().is_err()).await;
    for name in ["mutex_waiter_1", "mutex_waiter_2"] {
        let waiter = role(name).waits("mutex").on("m").path(&["mutex_waiter"]).queue(2);
        stage.spawn(waiter, mutex_waiter(lock.clone()));
    }

    let lock = Arc::new(Mutex::new(0));
    let holder = role("owned_holder").waits("sleep");
    let holder = holder.holds("mutex", "owned", "session", "owned_holder");
    stage.spawn(holder, owned_holder(lock.clone()));
    until(|| lock.try_lock().is_err()).await;
    let waiter = role("owned_waiter").waits("mutex").on("owned").queue(1);
    stage.spawn(waiter, owned_waiter(lock));
}

async fn mutex_holder(lock: Arc<Mutex<u32>>) {
    let guard = lock.lock().await;
    sleep(HOUR).await; // MARK: mutex_holder
    drop(guard);
}

async fn mutex_waiter(lock: Arc<Mutex<u32>>) {
    *lock.lock().await += 1; // MARK: mutex_waiter
}

/// A guard inside something else.
struct Session {
    _number: u64,
    guard: OwnedMutexGuard<u32>,
}

async fn owned_holder(lock: Arc<Mutex<u32>>) {
    let session = Session { _number: 7, guard: lock.lock_owned().await };
    sleep(HOUR).await; // MARK: owned_holder
    drop(session.guard);
}

async fn owned_waiter(lock: Arc<Mutex<u32>>) {
    let mut guard = lock.lock_owned().await; // MARK: owned_waiter
    *guard += 1;
}

async fn rw_locks(stage: &mut Stage) {
    let lock = Arc::new(RwLock::new(0));
    let writer = role("writer").waits("sleep").holds("rw_lock_write", "w", "writing", "writer");
    stage.spawn(writer, writer_holds(lock.clone()));
    until(|| lock.try_read().is_err()).await;
    stage.spawn(role("reader_waits").waits("rw_lock_read").on("w"), reader_waits(lock));

    let lock = Arc::new(RwLock::new(0));
    let reader = role("reader").waits("sleep").holds("rw_lock_read", "r", "reading", "reader");
    stage.spawn(reader, reader_holds(lock.clone()));
    until(|| lock.try_write().is_err()).await;
    stage.spawn(role("writer_waits").waits("rw_lock_write").on("r"), writer_waits(lock));
}

async fn writer_holds(lock: Arc<RwLock<u32>>) {
    let writing = lock.write().await;
    sleep(HOUR).await; // MARK: writer
    drop(writing);
}

async fn reader_waits(lock: Arc<RwLock<u32>>) -> u32 {
    *lock.read().await // MARK: reader_waits
}

async fn reader_holds(lock: Arc<RwLock<u32>>) {
    let reading = lock.read().await;
    sleep(HOUR).await; // MARK: reader
    drop(reading);
}

async fn writer_waits(lock: Arc<RwLock<u32>>) {
    *lock.write().await += 1; // MARK: writer_waits
}

async fn semaphores(stage: &mut Stage) {
    let permits = Arc::new(Semaphore::new(3));
    let holder = role("permit_holder").waits("sleep");
    let holder = holder.holds("permit", "s", "permit", "permit_holder");
    stage.spawn(holder, permit_holder(permits.clone()));
    until(|| permits.available_permits() == 2).await;
    let holder = role("owned_permit_holder").waits("sleep");
    let holder = holder.holds("permit", "s", "owned_permit", "owned_permit_holder");
    stage.spawn(holder, owned_permit_holder(permits.clone()));
    until(|| permits.available_permits() == 1).await;
    stage
        .spawn(role("permits_wanted").waits("semaphore").on("s").queue(1), permits_wanted(permits));
}

async fn permit_holder(permits: Arc<Semaphore>) {
    let permit = permits.acquire().await.expect("open");
    sleep(HOUR).await; // MARK: permit_holder
    drop(permit);
}

async fn owned_permit_holder(permits: Arc<Semaphore>) {
    let owned_permit = permits.acquire_owned().await.expect("open");
    sleep(HOUR).await; // MARK: owned_permit_holder
    drop(owned_permit);
}

async fn permits_wanted(permits: Arc<Semaphore>) {
    let permit = permits.acquire_many(3).await; // MARK: permits_wanted
    drop(permit);
}

async fn channels(stage: &mut Stage) {
    let (sender, receiver) = mpsc::channel::<u64>(4);
    let keeper = role("sender_keeper").waits("sleep");
    let keeper = keeper.holds("mpsc_sender", "empty", "sender", "sender_keeper");
    stage.spawn(keeper, sender_keeper(sender));
    stage.spawn(role("receiver").waits("mpsc_recv").on("empty"), receiver_waits(receiver));

    let (sender, receiver) = mpsc::channel::<u64>(1);
    let keeper = role("receiver_keeper").waits("sleep");
    let keeper = keeper.holds("mpsc_receiver", "full", "receiver", "receiver_keeper");
    stage.spawn(keeper, receiver_keeper(receiver));
    sender.try_send(0).expect("room for one");
    stage.spawn(role("sender").waits("mpsc_send").on("full").queue(1), sender_waits(sender));

    let (sender, receiver) = mpsc::unbounded_channel::<String>();
    let keeper = role("unbounded_keeper").waits("sleep");
    let keeper = keeper.holds("mpsc_sender", "unbounded", "sender", "unbounded_keeper");
    stage.spawn(keeper, unbounded_keeper(sender));
    let waiter = role("unbounded_receiver").waits("mpsc_recv").on("unbounded");
    stage.spawn(waiter, unbounded_receiver(receiver));

    let (sender, receiver) = oneshot::channel::<u64>();
    let keeper = role("oneshot_keeper").waits("sleep");
    let keeper = keeper.holds("oneshot_sender", "one", "answer", "oneshot_keeper");
    stage.spawn(keeper, oneshot_keeper(sender));
    stage.spawn(role("oneshot_receiver").waits("oneshot").on("one"), oneshot_receiver(receiver));
}

async fn sender_keeper(sender: mpsc::Sender<u64>) {
    sleep(HOUR).await; // MARK: sender_keeper
    drop(sender);
}

async fn receiver_waits(mut receiver: mpsc::Receiver<u64>) -> u64 {
    let mut sum = 0;
    // NEXT: receiver
    while let Some(next) = receiver.recv().await {
        sum += next;
    }
    sum
}

async fn receiver_keeper(mut receiver: mpsc::Receiver<u64>) {
    sleep(HOUR).await; // MARK: receiver_keeper
    receiver.close();
}

async fn sender_waits(sender: mpsc::Sender<u64>) {
    sender.send(1).await.expect("a receiver"); // MARK: sender
}

async fn unbounded_keeper(sender: mpsc::UnboundedSender<String>) {
    sleep(HOUR).await; // MARK: unbounded_keeper
    drop(sender);
}

async fn unbounded_receiver(mut receiver: mpsc::UnboundedReceiver<String>) -> Option<String> {
    receiver.recv().await // MARK: unbounded_receiver
}

async fn oneshot_keeper(answer: oneshot::Sender<u64>) {
    sleep(HOUR).await; // MARK: oneshot_keeper
    let _ = answer.send(1);
}

async fn oneshot_receiver(receiver: oneshot::Receiver<u64>) -> Option<u64> {
    receiver.await.ok() // MARK: oneshot_receiver
}

/// Things that tell many.
async fn news(stage: &mut Stage) {
    let bell = Arc::new(Notify::new());
    for name in ["listener_1", "listener_2"] {
        let listener = role(name).waits("notify").on("bell").path(&["listener"]);
        stage.spawn(listener, listener_waits(bell.clone()));
    }

    let (sender, receiver) = watch::channel(0);
    let keeper = role("watched").waits("sleep");
    stage.spawn(keeper.holds("watch_sender", "config", "sender", "watched"), watched(sender));
    for name in ["watcher_1", "watcher_2"] {
        let watcher = role(name).waits("watch").on("config").path(&["watcher"]);
        stage.spawn(watcher, watcher_waits(receiver.clone()));
    }

    let (sender, receiver) = broadcast::channel(4);
    let keeper = role("broadcaster").waits("sleep");
    let keeper = keeper.holds("broadcast_sender", "radio", "sender", "broadcaster");
    stage.spawn(role("audience").waits("broadcast").on("radio"), audience(receiver));
    stage.spawn(keeper, broadcaster(sender));
}

async fn listener_waits(bell: Arc<Notify>) {
    bell.notified().await; // MARK: listener
}

async fn watched(sender: watch::Sender<u32>) {
    sleep(HOUR).await; // MARK: watched
    drop(sender);
}

async fn watcher_waits(mut receiver: watch::Receiver<u32>) -> bool {
    receiver.changed().await.is_ok() // MARK: watcher
}

async fn audience(mut receiver: broadcast::Receiver<u32>) -> bool {
    receiver.recv().await.is_ok() // MARK: audience
}

async fn broadcaster(sender: broadcast::Sender<u32>) {
    sleep(HOUR).await; // MARK: broadcaster
    drop(sender);
}

/// Things that wait for each other.
async fn meetings(stage: &mut Stage) {
    let barrier = Arc::new(Barrier::new(3));
    for name in ["early_1", "early_2"] {
        let early = role(name).waits("barrier").on("barrier").path(&["early"]);
        stage.spawn(early, early_waits(barrier.clone()));
    }

    let cell = Arc::new(OnceCell::new());
    let (begun, has_begun) = oneshot::channel();
    let filler = role("filler").waits("sleep").path(&["filling", "filler"]);
    let filler = filler.holds("permit", "cell", "permit", "-");
    stage.spawn(filler, filler_fills(cell.clone(), begun));
    let _ = has_begun.await;
    stage.spawn(role("second").waits("once_cell").on("cell"), second_waits(cell));

    let worker = stage.spawn(role("joined").waits("sleep"), joined());
    stage.spawn(role("joiner").waits("join").joins("joined"), joiner(worker));
}

async fn early_waits(barrier: Arc<Barrier>) -> bool {
    barrier.wait().await.is_leader() // MARK: early
}

async fn filler_fills(cell: Arc<OnceCell<u32>>, begun: oneshot::Sender<()>) -> u32 {
    let fill = || async move {
        let _ = begun.send(());
        sleep(HOUR).await; // MARK: filling
        1
    };
    *cell.get_or_init(fill).await // MARK: filler
}

async fn second_waits(cell: Arc<OnceCell<u32>>) -> u32 {
    *cell.get_or_init(async || 2).await // MARK: second
}

async fn joined() {
    sleep(HOUR).await; // MARK: joined
}

async fn joiner(worker: JoinHandle<()>) {
    worker.await.expect("no panic"); // MARK: joiner
}

fn clocks(stage: &mut Stage) {
    stage.spawn(role("sleeper").waits("sleep").deadline(), sleeper());
    stage.spawn(role("ticker").waits("sleep").deadline(), ticker());
    let bell = Arc::new(Notify::new());
    let impatient = role("impatient").waits("notify").path(&["unheard", "impatient"]);
    stage.spawn(impatient.deadline(), impatient_waits(bell));
}

async fn sleeper() {
    sleep(HOUR).await; // MARK: sleeper
}

async fn ticker() {
    let mut ticks =
        tokio::time::interval_at(tokio::time::Instant::now() + HOUR, Duration::from_secs(1));
    loop {
        ticks.tick().await; // MARK: ticker
    }
}

async fn impatient_waits(bell: Arc<Notify>) -> bool {
    timeout(HOUR, unheard(bell)).await.is_ok() // MARK: impatient
}

async fn unheard(bell: Arc<Notify>) {
    bell.notified().await; // MARK: unheard
}
