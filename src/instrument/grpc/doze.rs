//! A future that is asked only once it has been woken itself.
//!
//! A connection's task is woken for each message. What else it waits for, orders
//! and timers, is seldom ready, and each of them takes a lock to be asked.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use pin_project_lite::pin_project;

pin_project! {
    /// Polls `future` at first, and then only after its own waker was woken,
    /// however often the task around it is polled for other reasons.
    pub(super) struct Dozing<F> {
        #[pin]
        future: F,
        bell: Arc<Bell>,
        // What `future` is polled with: rings the bell.
        ring: Waker,
        // Whom the bell wakes.
        task: Option<Waker>,
    }
}

struct Bell {
    rung: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl Bell {
    fn wakes(&self, task: Waker) {
        let before = self.lock().replace(task);
        // Without the lock: a task may go with it.
        drop(before);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Waker>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // A bell that has rung has woken the task, which is not back yet.
        if !self.rung.swap(true, Ordering::AcqRel) {
            let task = self.lock().clone();
            task.into_iter().for_each(Waker::wake);
        }
    }
}

impl<F> Dozing<F> {
    pub(super) fn new(future: F) -> Self {
        let bell = Arc::new(Bell { rung: AtomicBool::new(true), task: Mutex::default() });
        Self { future, ring: bell.clone().into(), bell, task: None }
    }
}

impl<F: Future> Future for Dozing<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        if !this.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            *this.task = Some(cx.waker().clone());
            this.bell.wakes(cx.waker().clone());
        }
        // Looked at after the task is known: who rings from here on wakes it.
        if !this.bell.rung.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        this.bell.rung.swap(false, Ordering::AcqRel);
        this.future.poll(&mut Context::from_waker(this.ring))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use tokio::sync::oneshot;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Woken {
        fn take(&self) -> usize {
            self.0.swap(0, Ordering::SeqCst)
        }
    }

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn it_is_asked_once_and_again_when_it_was_woken() {
        let asked = Arc::new(AtomicUsize::new(0));
        let (tell, told) = oneshot::channel::<u32>();
        let mut told = Box::pin(told);
        let count = asked.clone();
        let mut dozing = std::pin::pin!(Dozing::new(std::future::poll_fn(move |cx| {
            count.fetch_add(1, Ordering::SeqCst);
            told.as_mut().poll(cx)
        })));
        let (first, second) = (Arc::new(Woken::default()), Arc::new(Woken::default()));
        for _ in 0..3 {
            let waker = first.clone().into();
            assert!(dozing.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        // Another task polls it from now on: that one is woken.
        let waker = second.clone().into();
        assert!(dozing.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        tell.send(7).unwrap();
        assert_eq!((first.take(), second.take()), (0, 1));
        assert_eq!(dozing.poll(&mut Context::from_waker(&waker)), Poll::Ready(Ok(7)));
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_wake_in_the_midst_of_a_poll_is_not_lost() {
        let mut left = 3;
        let mut dozing = std::pin::pin!(Dozing::new(std::future::poll_fn(move |cx| {
            if left == 0 {
                return Poll::Ready(());
            }
            left -= 1;
            cx.waker().wake_by_ref();
            Poll::Pending
        })));
        let woken = Arc::new(Woken::default());
        let waker = woken.clone().into();
        let mut polls = 1;
        while dozing.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            assert_eq!(woken.take(), 1, "woken after poll {polls}");
            polls += 1;
        }
        assert_eq!(polls, 4);
    }
}
