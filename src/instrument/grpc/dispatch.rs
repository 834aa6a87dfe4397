//! Which HTTP/2 stream a client's request becomes.
//!
//! hyper's dispatcher asks a request's body whether it is at its end and then,
//! before anything else, gives the request to h2, which numbers requests 1, 3,
//! 5 in that order (hyper 1.12, `proto/h2/client.rs`; h2 0.4,
//! `proto/streams/streams.rs`). So who is asked under the dispatcher of a
//! connection takes that connection's next number. The dispatcher is known by
//! the task it runs in: the executor of a tapped channel says, while it polls,
//! whose connection its futures are.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};

use crate::registry::connections::ConnectionCell;
use crate::registry::streams::StreamCell;

thread_local! {
    /// The connection whose future this thread polls.
    static POLLED: RefCell<Option<Arc<ConnectionCell>>> = const { RefCell::new(None) };
}

/// Whether a request is to be numbered. A byte: each body has one.
pub(super) struct Dispatch(AtomicU8);

/// It is no request of a tapped channel.
const NEVER: u8 = 0;
/// The dispatcher has not had it.
const WAITS: u8 = 1;
/// It has its number.
const DONE: u8 = 2;

impl Dispatch {
    /// What is no request of a tapped channel.
    pub(super) fn never() -> Self {
        Self(AtomicU8::new(NEVER))
    }

    /// A request of a tapped channel.
    pub(super) fn waits() -> Self {
        Self(AtomicU8::new(WAITS))
    }

    /// Its body was asked for its end. False if the dispatcher is still to ask.
    /// `cell` is `None` for a request that nobody follows: it takes a number
    /// too.
    pub(super) fn asked(&self, cell: Option<&Arc<StreamCell>>) -> bool {
        if self.0.load(Relaxed) != WAITS {
            return true;
        }
        // A thread that is being torn down polls no connection.
        let connection = POLLED.try_with(|polled| polled.borrow().clone()).ok().flatten();
        let Some(connection) = connection else { return false };
        self.0.store(DONE, Relaxed);
        match cell {
            Some(cell) => cell.dispatched_on(&connection),
            None => {
                if let Some(wire) = connection.wire() {
                    wire.dispatched_unseen();
                }
            }
        }
        true
    }
}

/// The connection that a channel has made last. It has one at a time. Its tap
/// keeps it alive while its socket is open.
#[derive(Debug, Default)]
pub(super) struct Latest(Mutex<Made>);

#[derive(Debug, Default)]
struct Made {
    cell: Weak<ConnectionCell>,
    /// Of its own two futures, those that were not spawned yet.
    unspawned: u8,
}

/// The one that moves its socket, and the dispatcher of its requests (hyper's
/// `handshake`, then tonic's `transport/channel/service/connection.rs`).
#[cfg(feature = "client")]
const OWN_FUTURES: u8 = 2;

impl Latest {
    #[cfg(feature = "client")]
    pub(super) fn set(&self, cell: &Arc<ConnectionCell>) {
        *self.lock() = Made { cell: Arc::downgrade(cell), unspawned: OWN_FUTURES };
    }

    fn lock(&self) -> MutexGuard<'_, Made> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// That connection, while it is open.
    pub(super) fn get(&self) -> Option<Arc<ConnectionCell>> {
        self.lock().cell.upgrade().filter(|cell| !cell.is_closed())
    }

    /// That connection, if what is spawned now must be a future of its own.
    fn spawns(&self) -> Option<Arc<ConnectionCell>> {
        let mut made = self.lock();
        made.unspawned = made.unspawned.checked_sub(1)?;
        made.cell.upgrade()
    }
}

type BoxFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The executor of a tapped channel.
#[derive(Clone)]
pub(super) struct TapExecutor(pub(super) Arc<Latest>);

impl hyper::rt::Executor<BoxFuture> for TapExecutor {
    fn execute(&self, future: BoxFuture) {
        // What a connection's future spawns is that connection's, even if a
        // newer one is there by now. What else is spawned while no connection
        // is being made is the channel's own queue.
        let parent = POLLED.try_with(|polled| polled.borrow().clone()).ok().flatten();
        let connection = parent.or_else(|| self.0.spawns());
        tokio::spawn(OnConnection { future, connection });
    }
}

/// A future of a connection: its dispatcher, its socket's, one of its bodies'.
struct OnConnection {
    future: BoxFuture,
    connection: Option<Arc<ConnectionCell>>,
}

impl Future for OnConnection {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let polled = Polled::enter(&mut this.connection);
        let result = this.future.as_mut().poll(cx);
        drop(polled);
        result
    }
}

/// Lends the connection to the thread, also across a panic.
struct Polled<'a> {
    own: &'a mut Option<Arc<ConnectionCell>>,
}

impl<'a> Polled<'a> {
    fn enter(own: &'a mut Option<Arc<ConnectionCell>>) -> Self {
        swap(own);
        Self { own }
    }
}

impl Drop for Polled<'_> {
    fn drop(&mut self) {
        swap(self.own);
    }
}

fn swap(own: &mut Option<Arc<ConnectionCell>>) {
    _ = POLLED.try_with(|polled| std::mem::swap(&mut *polled.borrow_mut(), own));
}
