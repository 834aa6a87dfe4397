//! A task that nothing can wake, and one that something can.

use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use crate::stage::{Stage, role};

pub async fn no_waker(stage: &mut Stage) {
    drop(stage.spawn(role("waits_for_nothing"), waits_for_nothing()));
    let role_of_other = role("forgot_waker").path(&["forgetful_poll", "forgot_waker"]);
    drop(stage.spawn(role_of_other, forgot_waker()));
    stage.finding("unwakeable", &["waits_for_nothing"]);
    stage.finding("unwakeable", &["forgot_waker"]);
}

async fn waits_for_nothing() {
    pending::<()>().await; // MARK: waits_for_nothing
}

/// Meant to stay until its join handle, which is kept, aborts it.
pub async fn kept(stage: &mut Stage) {
    let handle = stage.spawn(role("stays_until_aborted"), stays_until_aborted());
    stage.finding("unwakeable", &["stays_until_aborted"]);
    std::thread::spawn(move || {
        std::thread::sleep(crate::stage::HOUR);
        handle.abort();
    });
}

async fn stays_until_aborted() {
    pending::<()>().await; // MARK: stays_until_aborted
}

/// Says `Pending` and keeps nothing to be woken by.
struct Forgetful;

impl Future for Forgetful {
    type Output = ();

    // NEXT: forgetful_poll
    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

async fn forgot_waker() {
    Forgetful.await; // MARK: forgot_waker
}

/// Waits until a thread wakes it by the waker it left.
struct Rung {
    waker: Arc<Mutex<Option<Waker>>>,
}

impl Future for Rung {
    type Output = ();

    // NEXT: rung
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        *self.waker.lock().expect("no panic") = Some(cx.waker().clone());
        Poll::Pending
    }
}

pub async fn waker_elsewhere(stage: &mut Stage) {
    let waker = Arc::new(Mutex::new(None));
    let rings = waker.clone();
    std::thread::spawn(move || {
        std::thread::sleep(crate::stage::HOUR);
        let waker: Option<Waker> = rings.lock().expect("no panic").take();
        waker.expect("it waits").wake();
    });
    let role = role("waits_for_thread").path(&["rung", "waits_for_thread"]);
    drop(stage.spawn(role, waits_for_thread(waker)));
}

async fn waits_for_thread(waker: Arc<Mutex<Option<Waker>>>) {
    Rung { waker }.await; // MARK: waits_for_thread
}
