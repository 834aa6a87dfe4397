//! Futures of different types whose code is equal: an optimised build keeps one
//! copy of it, and may keep one vtable for all of them.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Sleep, sleep};

use crate::stage::{HOUR, Stage, role};

struct Apples;
struct Pears;

/// Waits; what for is only in its type.
struct Quiet<T> {
    sleep: Pin<Box<Sleep>>,
    kind: PhantomData<T>,
}

impl<T> Unpin for Quiet<T> {}

impl<T> Future for Quiet<T> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.sleep.as_mut().poll(cx)
    }
}

fn quiet<T: Send + 'static>() -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(Quiet::<T> { sleep: Box::pin(sleep(HOUR)), kind: PhantomData })
}

async fn fruit(future: Pin<Box<dyn Future<Output = ()> + Send>>) {
    future.await; // MARK: fruit
}

pub async fn play(stage: &mut Stage) {
    stage.spawn(role("apples"), fruit(quiet::<Apples>()));
    stage.spawn(role("pears"), fruit(quiet::<Pears>()));
}
