//! Faults with async mutexes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex as StdMutex, PoisonError, Weak};

use tokio::sync::Mutex;
use tokio::time::{Duration, sleep};
use tonic::{Response, Status};

use super::bounds::{EndedBy, Held};
use crate::pb::lab::StuckReply;
use crate::reference::Drain;

const MAX_NAME: usize = 64;

/// Names in use at one time. A name lasts as long as calls hold its mutex.
const MAX_MUTEXES: usize = 1024;

/// Mutexes by name, so that calls can get in each other's way.
#[derive(Debug, Default)]
pub struct Mutexes(StdMutex<HashMap<Box<str>, Weak<Mutex<()>>>>);

impl Mutexes {
    /// The mutex of that name, made if no call holds it.
    pub fn named(&self, name: &str) -> Result<Arc<Mutex<()>>, Status> {
        if name.len() > MAX_NAME {
            return Err(Status::invalid_argument("the name of a mutex has at most 64 bytes"));
        }
        let mut mutexes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mutex) = mutexes.get(name).and_then(Weak::upgrade) {
            return Ok(mutex);
        }
        if mutexes.len() >= MAX_MUTEXES {
            mutexes.retain(|_, mutex| mutex.strong_count() > 0);
        }
        if mutexes.len() >= MAX_MUTEXES {
            return Err(Status::resource_exhausted("1,024 mutexes are in use"));
        }
        let mutex = Arc::default();
        mutexes.insert(name.into(), Arc::downgrade(&mutex));
        Ok(mutex)
    }
}

/// Takes a mutex and keeps it across an await; others queue up behind it.
pub async fn hold_mutex(
    held: Held,
    mutex: &Mutex<()>,
    drain: &Drain,
) -> Result<Response<StuckReply>, Status> {
    tokio::select! {
        guard = mutex.lock() => {
            let ended_by = held.over(drain).await;
            drop(guard);
            Ok(held.reply(ended_by, 0))
        }
        // It never got the mutex.
        ended_by = held.over(drain) => Ok(held.reply(ended_by, 0)),
    }
}

/// Takes the first mutex, gives another call time to take the second, and
/// wants the second: with a call that has them the other way round, forever.
pub async fn lock_cycle(
    held: Held,
    first: &Mutex<()>,
    second: &Mutex<()>,
    drain: &Drain,
) -> Result<Response<StuckReply>, Status> {
    let both = async {
        let first_guard = first.lock().await;
        sleep(Duration::from_millis(100)).await;
        let second_guard = second.lock().await;
        drop((first_guard, second_guard));
    };
    tokio::select! {
        () = both => Ok(held.reply(EndedBy::Released, 0)),
        ended_by = held.over(drain) => Ok(held.reply(ended_by, 0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_and_given_back() {
        let mutexes = Mutexes::default();
        let held: Vec<_> =
            (0..MAX_MUTEXES).map(|n| mutexes.named(&n.to_string()).unwrap()).collect();
        assert_eq!(mutexes.named("more").unwrap_err().code(), tonic::Code::ResourceExhausted);
        assert!(Arc::ptr_eq(&held[7], &mutexes.named("7").unwrap()));
        drop(held);
        assert!(mutexes.named("more").is_ok());
        assert!(mutexes.named(&"x".repeat(65)).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_cycle_of_two_ends_at_the_bound_of_the_shorter() {
        let (a, b, drain) = (Mutex::new(()), Mutex::new(()), Drain::default());
        let (one, two) = tokio::join!(
            lock_cycle(Held::new(1_000), &a, &b, &drain),
            lock_cycle(Held::new(5_000), &b, &a, &drain),
        );
        assert_eq!(one.unwrap().get_ref().ended_by, "bound");
        assert_eq!(two.unwrap().get_ref().ended_by, "released");
    }
}
