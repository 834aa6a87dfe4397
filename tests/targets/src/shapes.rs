//! Every shape in which futures are put into each other one by one.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use futures_util::future::{BoxFuture, Either, FutureExt as _};
use futures_util::stream::{self, StreamExt as _};
use pin_project_lite::pin_project;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{sleep, timeout};

use crate::stage::{HOUR, Stage, role};

pub async fn play(stage: &mut Stage) {
    stage.spawn(role("plain").path(&["leaf", "middle", "plain"]), plain());
    stage.spawn(role("boxed_dyn").path(&["leaf", "boxed_dyn"]), boxed_dyn());
    stage.spawn(role("boxed_same").path(&["leaf", "boxed_same"]), boxed_same());
    let root: BoxFuture<'static, ()> = Box::pin(leaf());
    stage.spawn(role("boxed_root").path(&["leaf"]), root);
    stage.spawn(role("by_trait").path(&["leaf", "echo_call", "by_trait"]), by_trait());
    let path = &["leaf", "hand_poll", "by_hand"];
    stage.spawn(role("by_hand").path(path), by_hand());
    let path = &["leaf", "projected_poll", "projected"];
    stage.spawn(role("projected").path(path), projected());
    let path = &["leaf", "choice_poll", "chosen"];
    stage.spawn(role("chosen").path(path), chosen());
    stage.spawn(role("timed").path(&["leaf", "timed"]).deadline(), timed());
    let path = &["leaf", "inner_block", "outer_block", "blocks"];
    stage.spawn(role("blocks").path(path), blocks());
    let path = &["leaf", "in_async_closure", "async_closure"];
    stage.spawn(role("async_closure").path(path), async_closure());
    let path = &["leaf", "in_closure", "closure"];
    stage.spawn(role("closure").path(path), closure());
    let path = &["leaf", "disk_fetch", "generic"];
    stage.spawn(role("generic").path(path), generic(Disk, "key"));
    let path = &["leaf", "bottom", "descent", "descent", "descent"];
    stage.spawn(role("descent").path(path), descent(3));
    let path = &["leaf", "unfolding", "streamed"];
    stage.spawn(role("streamed").path(path), streamed());
    stage.spawn(role("pinned").path(&["leaf", "pinned"]), pinned());
    stage.spawn(role("combined").path(&["leaf", "combined"]), combined());
    stage.spawn(role("either").path(&["leaf", "either"]), either(true));
    stage.spawn(role("fused").path(&["leaf", "fused"]), fused());
    let lends = role("lends").path(&["borrows", "lends"]).waits("sleep");
    stage.spawn(lends.holds("mutex", "lent", "guard", "borrows"), lends_guard());
    stage.spawn(role("caught").path(&["leaf", "caught"]), caught());
    stage.spawn(role("many_states").path(&["leaf", "fifth_state"]), many_states());
    let path = &["leaf", "multi_line"];
    stage.spawn(role("multi_line").path(path), multi_line(Disk));
}

pub async fn leaf() {
    sleep(HOUR).await; // MARK: leaf
}

async fn middle() -> u32 {
    leaf().await; // MARK: middle
    3
}

async fn plain() -> u32 {
    middle().await // MARK: plain
}

async fn boxed_dyn() {
    let future: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(leaf());
    future.await; // MARK: boxed_dyn
}

async fn boxed_same() {
    Box::pin(leaf()).await; // MARK: boxed_same
}

trait Call: Send + Sync {
    fn call(&self, times: u32) -> BoxFuture<'_, u32>;
}

struct Echo {
    plus: u32,
}

impl Call for Echo {
    fn call(&self, times: u32) -> BoxFuture<'_, u32> {
        Box::pin(async move {
            leaf().await; // MARK: echo_call
            times + self.plus
        })
    }
}

async fn by_trait() -> u32 {
    let service: Box<dyn Call> = Box::new(Echo { plus: 1 });
    service.call(2).await // MARK: by_trait
}

/// A future written by hand, with what it polls in a box among other fields.
struct Hand<F> {
    polls: u32,
    inner: Pin<Box<F>>,
}

impl<F: Future> Future for Hand<F> {
    type Output = (u32, F::Output);

    // NEXT: hand_poll
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.polls += 1;
        let polls = self.polls;
        self.inner.as_mut().poll(cx).map(|output| (polls, output))
    }
}

async fn by_hand() -> u32 {
    Hand { polls: 0, inner: Box::pin(leaf()) }.await.0 // MARK: by_hand
}

pin_project! {
    /// The same with what it polls inside.
    struct Projected<F> {
        polls: u32,
        #[pin]
        inner: F,
    }
}

impl<F: Future> Future for Projected<F> {
    type Output = F::Output;

    // NEXT: projected_poll
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        *this.polls += 1;
        this.inner.poll(cx)
    }
}

async fn projected() {
    Projected { polls: 0, inner: leaf() }.await; // MARK: projected
}

pin_project! {
    /// An enum of futures, one of which is there.
    #[project = ChoiceView]
    enum Choice<A, B> {
        Left { #[pin] future: A },
        Right { #[pin] future: B, times: u32 },
    }
}

impl<A: Future<Output = ()>, B: Future<Output = ()>> Future for Choice<A, B> {
    type Output = u32;

    // NEXT: choice_poll
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<u32> {
        match self.project() {
            ChoiceView::Left { future } => future.poll(cx).map(|()| 0),
            ChoiceView::Right { future, times } => future.poll(cx).map(|()| *times),
        }
    }
}

async fn never() {
    std::future::pending().await
}

async fn chosen() {
    let choices = [Choice::Left { future: never() }, Choice::Right { future: leaf(), times: 1 }];
    let [_, right] = choices;
    right.await; // MARK: chosen
}

async fn timed() -> bool {
    timeout(HOUR, leaf()).await.is_ok() // MARK: timed
}

async fn blocks() {
    let outer = async {
        let inner = async {
            leaf().await; // MARK: inner_block
        };
        inner.await; // MARK: outer_block
    };
    outer.await; // MARK: blocks
}

async fn async_closure() -> u32 {
    let base = 1;
    let add = async |more: u32| {
        leaf().await; // MARK: in_async_closure
        base + more
    };
    add(2).await // MARK: async_closure
}

async fn closure() -> u32 {
    let add = |more: u32| async move {
        leaf().await; // MARK: in_closure
        more + 1
    };
    add(2).await // MARK: closure
}

trait Fetch {
    fn fetch(&self, key: &str) -> impl Future<Output = usize> + Send;
}

struct Disk;

impl Fetch for Disk {
    async fn fetch(&self, key: &str) -> usize {
        leaf().await; // MARK: disk_fetch
        key.len()
    }
}

async fn generic<T: Fetch + Sync, K: AsRef<str> + Sync>(from: T, key: K) -> usize {
    from.fetch(key.as_ref()).await // MARK: generic
}

async fn descent(depth: u32) {
    if depth == 0 {
        leaf().await; // MARK: bottom
    } else {
        Box::pin(descent(depth - 1)).await; // MARK: descent
    }
}

async fn streamed() {
    let numbers = stream::unfold(0u32, |number| async move {
        leaf().await; // MARK: unfolding
        Some((number, number + 1))
    });
    let mut numbers = pin!(numbers);
    // NEXT: streamed
    while let Some(number) = numbers.next().await {
        std::hint::black_box(number);
    }
}

async fn pinned() {
    let mut future = pin!(leaf());
    future.as_mut().await; // MARK: pinned
}

async fn combined() -> u32 {
    leaf().map(|()| 1).then(async |one| one + 1).await // MARK: combined
}

async fn either(left: bool) {
    let future = if left { Either::Left(leaf()) } else { Either::Right(never()) };
    future.await; // MARK: either
}

async fn fused() {
    let mut future = Box::pin(leaf().fuse());
    (&mut future).await; // MARK: fused
}

async fn lends_guard() {
    let lock = Mutex::new(1);
    borrows_guard(lock.lock().await).await; // MARK: lends
}

async fn borrows_guard(guard: MutexGuard<'_, u32>) {
    sleep(HOUR).await; // MARK: borrows
    drop(guard);
}

async fn caught() -> bool {
    std::panic::AssertUnwindSafe(leaf()).catch_unwind().await.is_ok() // MARK: caught
}

/// Only the last of its awaits counts, and locals of the first overlap others.
async fn many_states() -> usize {
    let first = vec![1; 10];
    tokio::task::yield_now().await;
    let second = first.len();
    drop(first);
    tokio::task::yield_now().await;
    let third = [second; 8];
    tokio::task::yield_now().await;
    sleep(std::time::Duration::from_millis(1)).await;
    leaf().await; // MARK: fifth_state
    third.len()
}

#[rustfmt::skip]
async fn multi_line(disk: Disk) -> usize {
    disk
        .wait_long()
        .await // MARK: multi_line
}

impl Disk {
    fn wait_long(&self) -> impl Future<Output = usize> + Send {
        leaf().map(|()| 1)
    }
}
