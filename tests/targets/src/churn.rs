//! Scenes that never rest.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;
use tokio::task::{JoinHandle, yield_now};

use crate::stage::{HOUR, Stage, role, until};

/// Tasks that stay.
const PARKED: usize = 3_000;
/// Tasks that end and are replaced all the time.
const BUSY: usize = 500;

static PARKING: AtomicUsize = AtomicUsize::new(0);

pub async fn play(stage: &mut Stage) {
    let bell = Arc::new(Notify::new());
    for _ in 0..PARKED {
        let task = tokio::spawn(parked(bell.clone()));
        let role = role("parked").waits("notify").on("bell").path(&["parked"]);
        stage.enter_one_of_many(role, task.id());
    }
    until(|| PARKING.load(Ordering::Acquire) == PARKED).await;
    for _ in 0..BUSY {
        tokio::spawn(brief(0));
    }
    stage.restless();
}

async fn parked(bell: Arc<Notify>) {
    PARKING.fetch_add(1, Ordering::Release);
    bell.notified().await; // MARK: parked
}

/// Ends soon, and has a successor.
async fn brief(generation: u64) {
    for _ in 0..generation % 4 {
        yield_now().await;
    }
    tokio::time::sleep(std::time::Duration::from_micros(generation % 3 * 500)).await;
    tokio::spawn(heir(generation + 1));
}

fn heir(generation: u64) -> futures_util::future::BoxFuture<'static, ()> {
    Box::pin(brief(generation))
}

/// Each request for more leaves as many tasks behind.
const MORE: usize = 200;

async fn left_behind(bell: Arc<Notify>) {
    bell.notified().await; // MARK: left_behind
}

pub async fn growing(stage: &mut Stage) {
    stage.finding("growing_group", &[]);
    let bell = Arc::new(Notify::new());
    stage.on_more(Box::new(move || {
        (0..MORE).map(|_| tokio::spawn(left_behind(bell.clone())).id()).collect()
    }));
}

/// The same come and go.
pub async fn coming_and_going(stage: &mut Stage) {
    let bell = Arc::new(Notify::new());
    let batch = std::sync::Mutex::new(Vec::new());
    stage.on_more(Box::new(move || {
        let mut batch = batch.lock().expect("no panic");
        let before: Vec<JoinHandle<()>> = std::mem::take(&mut *batch);
        before.iter().for_each(JoinHandle::abort);
        batch.extend((0..MORE).map(|_| tokio::spawn(left_behind(bell.clone()))));
        batch.iter().map(JoinHandle::id).collect()
    }));
}

/// Two tasks a worker: whenever one runs another waits for its turn.
pub async fn yielding(stage: &mut Stage) {
    for name in ["yielder_1", "yielder_2", "yielder_3", "yielder_4"] {
        stage.spawn(role(name).waits("yield").path(&["yielder"]).restless(), yielder());
    }
    stage.spawn(role("bystander").waits("sleep"), bystander());
    stage.restless();
}

async fn yielder() {
    loop {
        std::hint::black_box((0..1_000).sum::<u64>());
        yield_now().await; // MARK: yielder
    }
}

async fn bystander() {
    tokio::time::sleep(HOUR).await; // MARK: bystander
}
