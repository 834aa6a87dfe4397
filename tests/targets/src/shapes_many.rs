//! Shapes in which one task awaits several things at once.

use std::pin::pin;

use futures_util::future::{self, BoxFuture, FutureExt as _};
use futures_util::stream::{self, FuturesUnordered, StreamExt as _};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::shapes::leaf;
use crate::stage::{HOUR, Stage, role};

/// Both arms: a leaf in another module, and the one here.
const BOTH: &[&[&str]] = &[&["leaf"], &["other"]];

pub async fn play(stage: &mut Stage) {
    stage.spawn(role("selecting").path(&["fn:selecting"]).arms(BOTH), selecting());
    stage.spawn(role("select_pinned").path(&["fn:select_pinned"]).arms(BOTH), select_pinned());
    stage.spawn(role("joining").path(&["fn:joining"]).arms(BOTH), joining());
    stage.spawn(role("trying").path(&["fn:trying"]).arms(BOTH), trying());
    let leaves: &[&[&str]] = &[&["leaf"], &["leaf"], &["leaf"]];
    stage.spawn(role("joining_all").arms(leaves), joining_all());
    stage.spawn(role("select_one").arms(BOTH), select_one());
    stage.spawn(role("unordered").arms(BOTH), unordered());
    let copies: &[&[&str]] = &[&["leaf", "copy"], &["leaf", "copy"]];
    stage.spawn(role("buffered").arms(copies), buffered());
    let ones: &[&[&str]] = &[&["leaf", "copy", "for_one"], &["leaf", "copy", "for_one"]];
    stage.spawn(role("for_each").arms(ones), for_each());

    let mut set = JoinSet::new();
    let member = set.spawn(leaf());
    stage.enter(role("member").path(&["leaf"]), member.id());
    let other_member = set.spawn(other());
    stage.enter(role("other_member").path(&["other"]), other_member.id());
    stage.spawn(role("join_set"), join_set(set));
}

async fn other() {
    sleep(HOUR).await; // MARK: other
}

async fn selecting() {
    tokio::select! {
        () = leaf() => {}
        () = other() => {}
    }
}

async fn select_pinned() {
    let mut first = pin!(leaf());
    let mut second = pin!(other());
    tokio::select! {
        () = &mut first => {}
        () = &mut second => {}
    }
}

async fn joining() {
    tokio::join!(leaf(), other());
}

async fn trying() -> Result<(), u32> {
    tokio::try_join!(leaf().map(Ok), other().map(Ok)).map(drop)
}

async fn joining_all() {
    future::join_all([leaf(), leaf(), leaf()]).await; // MARK: joining_all
}

async fn select_one() {
    future::select(pin!(leaf()), pin!(other())).await; // MARK: select_one
}

async fn unordered() {
    let futures: FuturesUnordered<BoxFuture<'static, ()>> = FuturesUnordered::new();
    futures.push(leaf().boxed());
    futures.push(other().boxed());
    let mut futures = futures;
    // NEXT: unordered
    while let Some(()) = futures.next().await {}
}

async fn copy(number: u32) -> u32 {
    leaf().await; // MARK: copy
    number
}

async fn buffered() {
    let mut copies = pin!(stream::iter(0..100).map(copy).buffer_unordered(2));
    // NEXT: buffered
    while let Some(number) = copies.next().await {
        std::hint::black_box(number);
    }
}

async fn for_each() {
    let numbers = stream::iter(0..2);
    let each = numbers.for_each_concurrent(None, async |number| {
        let same = copy(number).await; // MARK: for_one
        assert_eq!(same, number);
    });
    each.await; // MARK: for_each
}

async fn join_set(mut set: JoinSet<()>) {
    // NEXT: join_set
    while let Some(ended) = set.join_next().await {
        ended.expect("no panic");
    }
}
