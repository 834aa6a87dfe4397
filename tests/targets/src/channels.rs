//! Channels whose other end cannot move, and channels that are only slow.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::stage::{HOUR, Stage, role, until};

/// The sender waits for room, the receiver's task for the sender's end.
pub async fn stuck(stage: &mut Stage) {
    let (sender, receiver) = mpsc::channel(1);
    sender.try_send(0).expect("room for one");
    let producer = role("producer").waits("mpsc_send").on("jobs").queue(1);
    let handle = stage.spawn(producer, produce(sender));
    let consumer = role("consumer").waits("join").joins("producer");
    let consumer = consumer.holds("mpsc_receiver", "jobs", "jobs", "consumer");
    stage.spawn(consumer, join_before_reading(handle, receiver));
    stage.finding("deadlock", &["producer", "consumer"]);
}

async fn produce(jobs: mpsc::Sender<u32>) {
    jobs.send(1).await.expect("a receiver"); // MARK: producer
}

async fn join_before_reading(producer: JoinHandle<()>, mut jobs: mpsc::Receiver<u32>) -> usize {
    producer.await.expect("no panic"); // MARK: consumer
    let mut count = 0;
    while jobs.recv().await.is_some() {
        count += 1;
    }
    count
}

/// The sender waits for room, the receiver's task for something else that
/// does not come.
pub async fn idle(stage: &mut Stage) {
    let (sender, receiver) = mpsc::channel(1);
    sender.try_send(0).expect("room for one");
    let producer = role("producer").waits("mpsc_send").on("jobs").queue(1);
    stage.spawn(producer, produce(sender));
    let bell = Arc::new(Notify::new());
    let idler = role("idler").waits("notify").on("bell");
    let idler = idler.holds("mpsc_receiver", "jobs", "jobs", "idler");
    stage.spawn(idler, waits_before_reading(bell.clone(), receiver));
    stage.finding("stuck_channel", &["producer", "idler"]);
}

async fn waits_before_reading(bell: Arc<Notify>, mut jobs: mpsc::Receiver<u32>) -> Option<u32> {
    bell.notified().await; // MARK: idler
    jobs.recv().await
}

/// The sender waits for room, which a slow receiver makes from time to time.
pub async fn slow(stage: &mut Stage) {
    let (sender, receiver) = mpsc::channel(1);
    sender.try_send(0).expect("room for one");
    let handle = stage.spawn(role("producer").restless(), produce_all(sender));
    stage.spawn(role("consumer").restless(), consume_slowly(receiver));
    stage.spawn(role("waits_for_end").waits("join").joins("producer"), waits_for_end(handle));
    stage.restless();
}

async fn produce_all(jobs: mpsc::Sender<u32>) {
    while jobs.send(1).await.is_ok() {}
}

async fn consume_slowly(mut jobs: mpsc::Receiver<u32>) {
    while jobs.recv().await.is_some() {
        sleep(Duration::from_millis(20)).await;
    }
}

async fn waits_for_end(producer: JoinHandle<()>) {
    producer.await.expect("no panic"); // MARK: waits_for_end
}

/// The only sender is a local of the very task that waits to receive.
pub async fn own_sender(stage: &mut Stage) {
    let forgetful = role("forgetful").waits("mpsc_recv").on("jobs");
    let forgetful = forgetful.holds("mpsc_sender", "jobs", "sender", "forgetful");
    stage.spawn(forgetful, keeps_own_sender(None));
    stage.finding("unwakeable", &["forgetful"]);
}

/// The same, but somebody else has a clone where no local shows it: in a
/// mutex behind an `Arc`.
pub async fn shared_sender(stage: &mut Stage) {
    let shared = Shared::default();
    let receiver = role("receiver").waits("mpsc_recv").on("jobs").path(&["forgetful"]);
    let receiver = receiver.holds("mpsc_sender", "jobs", "sender", "forgetful");
    stage.spawn(receiver, keeps_own_sender(Some(shared.clone())));
    until(|| shared.lock().expect("no panic").is_some()).await;
    stage.spawn(role("sends_later").waits("sleep"), sends_later(shared));
}

type Shared = Arc<Mutex<Option<mpsc::Sender<u32>>>>;

async fn keeps_own_sender(shared: Option<Shared>) -> u32 {
    let (sender, mut receiver) = mpsc::channel(4);
    if let Some(shared) = &shared {
        *shared.lock().expect("no panic") = Some(sender.clone());
    }
    let mut sum = 0;
    while let Some(number) = {
        receiver.recv().await // MARK: forgetful
    } {
        sum += number;
    }
    drop(sender);
    sum
}

async fn sends_later(shared: Shared) {
    sleep(HOUR).await; // MARK: sends_later
    let sender = shared.lock().expect("no panic").take();
    if let Some(sender) = sender {
        let _ = sender.try_send(1);
    }
}

/// A full channel whose receiver asks somebody else each time, and is answered.
pub async fn busy(stage: &mut Stage) {
    let (sender, receiver) = mpsc::channel(2);
    let (questions, asked) = mpsc::channel(1);
    stage.spawn(role("clerk").restless(), answers(asked));
    stage.spawn(role("asks").restless(), asks(receiver, questions));
    stage.spawn(role("produces").restless(), produce_all(sender));
    stage.restless();
}

type Question = tokio::sync::oneshot::Sender<()>;

async fn answers(mut asked: mpsc::Receiver<Question>) {
    while let Some(question) = asked.recv().await {
        sleep(Duration::from_millis(2)).await;
        let _ = question.send(());
    }
}

async fn asks(mut jobs: mpsc::Receiver<u32>, questions: mpsc::Sender<Question>) {
    while jobs.recv().await.is_some() {
        let (question, answer) = tokio::sync::oneshot::channel();
        if questions.send(question).await.is_err() || answer.await.is_err() {
            return;
        }
    }
}
