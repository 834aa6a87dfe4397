//! Channels whose other end is with a task that does not move any more, and
//! their twins, in which somebody still could.

use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, broadcast, mpsc, oneshot, watch};
use tokio::time::sleep;

use crate::stage::{HOUR, Role, Stage, role};

type Sender<T> = mpsc::UnboundedSender<T>;
type Receiver<T> = mpsc::UnboundedReceiver<T>;

/// What a task can wait for at the ends of channels.
struct Ends {
    job: Sender<u32>,
    value: watch::Sender<u32>,
    news: broadcast::Sender<u32>,
}

/// A task at the receiving end of each.
fn receivers(stage: &mut Stage) -> Ends {
    let (job, jobs) = mpsc::unbounded_channel();
    stage.spawn(role("takes_jobs").waits("mpsc_recv").on("job"), consume(jobs));
    let (value, values) = watch::channel(0);
    stage.spawn(role("awaits_value").waits("watch").on("value"), watch_for(values));
    let (news, heard) = broadcast::channel(4);
    stage.spawn(role("hears_news").waits("broadcast").on("news"), listen(heard));
    Ends { job, value, news }
}

async fn consume(mut jobs: Receiver<u32>) -> Option<u32> {
    jobs.recv().await // MARK: takes_jobs
}

async fn watch_for(mut values: watch::Receiver<u32>) -> bool {
    values.changed().await.is_ok() // MARK: awaits_value
}

async fn listen(mut news: broadcast::Receiver<u32>) -> Option<u32> {
    news.recv().await.ok() // MARK: hears_news
}

async fn ask(answer: oneshot::Receiver<u32>) -> Option<u32> {
    answer.await.ok() // MARK: awaits_answer
}

/// A task that has all of their sending ends, at the mark of its name.
fn keeper(name: &'static str) -> Role {
    role(name)
        .holds("mpsc_sender", "job", "job", name)
        .holds("watch_sender", "value", "value", name)
        .holds("broadcast_sender", "news", "news", name)
        .holds("oneshot_sender", "answer", "answer", name)
}

/// All senders are with a task that nothing can wake.
pub async fn lost(stage: &mut Stage) {
    let ends = receivers(stage);
    let (answer, answered) = oneshot::channel();
    stage.spawn(role("awaits_answer").waits("oneshot").on("answer"), ask(answered));
    drop(stage.spawn(keeper("loses"), loses(ends, answer)));
    stage.finding(
        "unwakeable",
        &["loses", "takes_jobs", "awaits_value", "hears_news", "awaits_answer"],
    );
}

async fn loses(ends: Ends, answer: oneshot::Sender<u32>) {
    let Ends { job, value, news } = ends;
    pending::<()>().await; // MARK: loses
    let _ = (job.send(1), value.send(1), news.send(1), answer.send(1));
}

/// All senders are with a task that a timer will wake.
pub async fn late(stage: &mut Stage) {
    let ends = receivers(stage);
    let (answer, answered) = oneshot::channel();
    stage.spawn(role("awaits_answer").waits("oneshot").on("answer"), ask(answered));
    drop(stage.spawn(keeper("is_late").waits("sleep"), is_late(ends, answer)));
}

async fn is_late(ends: Ends, answer: oneshot::Sender<u32>) {
    let Ends { job, value, news } = ends;
    sleep(HOUR).await; // MARK: is_late
    let _ = (job.send(1), value.send(1), news.send(1), answer.send(1));
}

/// A task that nothing can wake has senders, and so has, where no local shows
/// it, somebody else: of the mpsc channel one that is weak as yet.
pub async fn shared(stage: &mut Stage) {
    let ends = receivers(stage);
    let elsewhere = (ends.job.downgrade(), ends.value.clone(), ends.news.clone());
    let elsewhere = Arc::new(Mutex::new(Some(elsewhere)));
    let role_of_shares = role("shares")
        .holds("mpsc_sender", "job", "job", "shares")
        .holds("watch_sender", "value", "value", "shares")
        .holds("broadcast_sender", "news", "news", "shares");
    drop(stage.spawn(role_of_shares, shares(ends)));
    stage.spawn(role("knows_more").waits("sleep"), knows_more(elsewhere));
    stage.finding("unwakeable", &["shares"]);
}

async fn shares(ends: Ends) {
    let Ends { job, value, news } = ends;
    pending::<()>().await; // MARK: shares
    let _ = (job.send(1), value.send(1), news.send(1));
}

type Elsewhere = Arc<
    Mutex<Option<(mpsc::WeakUnboundedSender<u32>, watch::Sender<u32>, broadcast::Sender<u32>)>>,
>;

async fn knows_more(elsewhere: Elsewhere) {
    sleep(HOUR).await; // MARK: knows_more
    let ends = elsewhere.lock().expect("no panic").take();
    if let Some((job, value, news)) = ends {
        let _ = job.upgrade().map(|job| job.send(1));
        let _ = (value.send(1), news.send(1));
    }
}

/// Two tasks, each of which waits for news of the other.
pub async fn circle(stage: &mut Stage) {
    crossed(stage, None);
    stage.finding("deadlock", &["observer", "hearer"]);
}

/// The same, and somebody else has news for one of them.
pub async fn no_circle(stage: &mut Stage) {
    crossed(stage, Some(role("reporter").waits("sleep")));
}

fn crossed(stage: &mut Stage, reporter: Option<Role>) {
    let (value, values) = watch::channel(0);
    let (news, heard) = broadcast::channel(4);
    if let Some(reporter) = reporter {
        let reporter = reporter.holds("broadcast_sender", "news", "also", "reporter");
        stage.spawn(reporter, report(news.clone()));
    }
    let observer = role("observer").waits("watch").on("value");
    let observer = observer.holds("broadcast_sender", "news", "news", "observer");
    stage.spawn(observer, observe(values, news));
    let hearer = role("hearer").waits("broadcast").on("news");
    let hearer = hearer.holds("watch_sender", "value", "value", "hearer");
    stage.spawn(hearer, hear(heard, value));
}

async fn observe(mut values: watch::Receiver<u32>, news: broadcast::Sender<u32>) {
    let _ = values.wait_for(|value| *value > 0).await; // MARK: observer
    let _ = news.send(1);
}

async fn hear(mut heard: broadcast::Receiver<u32>, value: watch::Sender<u32>) {
    let _ = heard.recv().await; // MARK: hearer
    let _ = value.send(1);
}

async fn report(also: broadcast::Sender<u32>) {
    sleep(HOUR).await; // MARK: reporter
    let _ = also.send(1);
}

/// Messages that lie in a channel without a bound.
const PILE: u32 = 1_500;

fn pile() -> (Sender<u32>, Receiver<u32>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (0..PILE).for_each(|number| sender.send(number).expect("a receiver"));
    (sender, receiver)
}

/// The receiver's task waits for something else that does not come.
pub async fn piled_up(stage: &mut Stage) {
    let (sender, jobs) = pile();
    let bell = Arc::new(Notify::new());
    let neglects_role = role("neglects").waits("notify").on("bell");
    let neglects_role = neglects_role.holds("mpsc_receiver", "pile", "jobs", "neglects");
    stage.spawn(neglects_role, neglect(bell.clone(), jobs));
    let sends = role("sends_more").waits("sleep");
    let sends = sends.holds("mpsc_sender", "pile", "sender", "sends_more");
    stage.spawn(sends, send_more(bell, sender));
    stage.finding("stuck_channel", &["neglects"]);
}

async fn neglect(bell: Arc<Notify>, mut jobs: Receiver<u32>) -> Option<u32> {
    bell.notified().await; // MARK: neglects
    jobs.recv().await
}

async fn send_more(bell: Arc<Notify>, sender: Sender<u32>) {
    sleep(HOUR).await; // MARK: sends_more
    bell.notify_waiters();
    let _ = sender.send(1);
}

/// As many messages, which are taken one by one, beside a wait that is long.
pub async fn worked_off(stage: &mut Stage) {
    let (sender, jobs) = pile();
    let bell = Arc::new(Notify::new());
    stage.spawn(role("both").restless(), both(bell.clone(), jobs));
    stage.spawn(role("sends_more").restless(), send_more(bell, sender));
    stage.restless();
}

async fn both(bell: Arc<Notify>, jobs: Receiver<u32>) {
    tokio::join!(bell.notified(), work_off(jobs));
}

async fn work_off(mut jobs: Receiver<u32>) {
    while jobs.recv().await.is_some() {
        sleep(Duration::from_millis(200)).await;
    }
}
