//! How long a snapshot is shared, on paused time.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::sleep;

use super::fixture::Saved;
use crate::model::sample;
use crate::serve::flight::Flight;
use crate::serve::source::Want;

#[tokio::test(start_paused = true)]
async fn who_comes_while_others_read_a_snapshot_joins_them() {
    let source = Arc::new(Saved::new(sample::empty()));
    let taken = || source.taken.load(Ordering::SeqCst);
    let flight = Flight::new(source.clone(), Duration::from_secs(1), Arc::default());
    // It took no time, so that it is not kept for its own sake.
    let read = flight.snapshot(Want::ALL).await.unwrap();
    sleep(Duration::from_millis(900)).await;
    let joined = flight.snapshot(Want::ALL).await.unwrap();
    assert_eq!((Arc::ptr_eq(&read, &joined), taken()), (true, 1));

    sleep(Duration::from_millis(200)).await;
    let anew = flight.snapshot(Want::ALL).await.unwrap();
    assert_eq!((Arc::ptr_eq(&read, &anew), taken()), (false, 2), "not one of a second ago");

    drop((read, joined, anew));
    sleep(Duration::from_millis(100)).await;
    flight.snapshot(Want::ALL).await.unwrap();
    assert_eq!(taken(), 3, "nobody read it any more");
}
