use super::*;
use crate::model::{BodyState, Http2State, Phase, Side};
use std::collections::BTreeMap;

fn begin(path: &str) -> Begin<'_> {
    Begin {
        side: Side::Server,
        path,
        connection: None,
        endpoint: None,
        span: None,
        peer: Some("peer:1".into()),
        timeout: None,
        metadata: BTreeMap::new(),
    }
}

fn small() -> Streams {
    Streams::new(Bounds { live: 3, ended: 2, methods: 10 })
}

#[test]
fn what_does_not_fit_is_counted() {
    let streams = small();
    let cells: Vec<_> = (0..5).map(|_| streams.begin(begin("/a.B/C"))).collect();
    let seen = streams.snapshot(clock::now());
    assert_eq!((seen.live.len(), seen.untracked, seen.started), (3, 2, 5));
    assert_eq!(seen.untracked_live, 2);
    for cell in &cells {
        streams.end(cell, None);
        streams.end(cell, None);
    }
    let seen = streams.snapshot(clock::now());
    assert_eq!((seen.live.len(), seen.ended.len()), (0, 2));
    assert_eq!((seen.forgotten, seen.ended_total), (1, 5));
    assert_eq!((seen.untracked, seen.untracked_live), (2, 0));
    // The freed slots are used again.
    let again = streams.begin(begin("/a.B/C"));
    assert!(again.slot().is_some());
}

#[test]
fn nothing_is_older_than_its_stream() {
    let streams = small();
    let cell = streams.begin(begin("/a.B/C"));
    cell.polled_by(None);
    // The time of a poll that began before, on another thread.
    cell.received.data(10, 1, 1);
    let seen = &streams.snapshot(clock::now()).live[0];
    assert_eq!(seen.received.last_ago_ns, Some(seen.age_ns));
    assert_eq!(seen.received.body_ns, seen.age_ns);
    assert!(seen.phase_ns <= seen.age_ns);
}

#[test]
fn a_task_that_outlives_its_stream_keeps_it_in_sight() {
    let streams = small();
    let cell = streams.begin(begin("/a.B/Leak"));
    let slot = cell.slot().unwrap();
    assert!(streams.retain(slot));
    assert_eq!(streams.snapshot(clock::now()).live[0].live_tasks, 1);
    streams.end(&cell, None);
    // Newer streams push it out of the ring, not out of the list.
    for _ in 0..5 {
        let other = streams.begin(begin("/a.B/Other"));
        streams.end(&other, None);
    }
    let seen = streams.snapshot(clock::now());
    assert_eq!((seen.ended[0].id, seen.ended[0].live_tasks), (cell.id(), 1));
    assert_eq!(seen.ended.len(), 3);
    assert_eq!(&*streams.info(slot).unwrap().method, "/a.B/Leak");
    streams.release(slot);
    assert_eq!(streams.info(slot), None);
    assert!(!streams.retain(slot), "a free slot cannot be taken by a task");
    streams.release(slot);
    assert_eq!(streams.snapshot(clock::now()).ended.len(), 2);
}

#[test]
fn a_task_seen_by_hooks_and_scope_counts_once() {
    let streams = small();
    let cell = streams.begin(begin("/a.B/C"));
    let retained = streams.track(&cell);
    assert_eq!(streams.snapshot(clock::now()).live[0].live_tasks, 1);
    assert!(streams.retain(cell.slot().unwrap()));
    assert_eq!(streams.snapshot(clock::now()).live[0].live_tasks, 1);
    streams.untrack(&cell, retained);
    assert_eq!(streams.snapshot(clock::now()).live[0].live_tasks, 1);
}

#[test]
fn the_phase_names_who_is_waited_for() {
    let streams = small();
    let cell = streams.begin(begin("/a.B/C"));
    let phase = || cell.phase().0;
    assert_eq!(phase(), Phase::Starting);
    cell.polled_by(None);
    assert_eq!(phase(), Phase::Handler);
    cell.received.pending();
    assert_eq!(phase(), Phase::AwaitRecv);
    cell.received.data(7, 1, clock::now());
    assert_eq!(phase(), Phase::Handler);
    cell.received.finish(BodyState::End);
    assert_eq!(cell.http2_state(), Http2State::HalfClosedRemote);
    cell.responded();
    cell.sent.pending();
    assert_eq!(phase(), Phase::AwaitProduce);
    cell.sent.data(9, 1, clock::now());
    assert_eq!(phase(), Phase::AwaitSend);
    cell.sent.finish(BodyState::End);
    assert_eq!(cell.http2_state(), Http2State::Closed);
    streams.end(&cell, None);
    assert_eq!(phase(), Phase::Ended);
}

#[test]
fn logging_is_switched_for_a_stream_or_a_method() {
    let streams = small();
    let (a, b) = (streams.begin(begin("/a.B/A")), streams.begin(begin("/a.B/B")));
    streams.log_stream(b.id(), true).unwrap();
    assert!(b.logged() && !a.logged());
    assert_eq!(streams.log_method("/a.B/A", true).unwrap(), 1);
    assert!(a.logged() && streams.begin(begin("/a.B/A")).logged());
    assert_eq!(streams.log_method("/a.B/A", false).unwrap(), 2);
    assert!(!a.logged());
    assert_eq!(streams.log_method("/never/seen", true).unwrap(), 0);
    assert_eq!(streams.log_stream(StreamId(99), true).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(streams.log_method("no", true).unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn slots_survive_many_threads() {
    let streams = Streams::new(Bounds { live: 64, ended: 8, methods: 4 });
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..2_000 {
                    let cell = streams.begin(begin("/a.B/C"));
                    let held = cell.slot().is_some_and(|slot| streams.retain(slot));
                    assert_eq!(held, cell.slot().is_some());
                    streams.end(&cell, None);
                    if held {
                        let slot = cell.slot().unwrap();
                        assert_eq!(streams.info(slot).unwrap().stream, cell.id());
                        streams.release(slot);
                    }
                }
            });
        }
    });
    let seen = streams.snapshot(clock::now());
    assert_eq!((seen.live.len(), seen.ended.len(), seen.ended_total), (0, 8, 8_000));
    assert!((0..streams.slots.len()).all(|slot| streams.info(slot).is_none()));
}

#[test]
fn a_client_waits_for_a_slot_then_for_headers_then_for_messages() {
    let streams = small();
    let cell = streams.begin(Begin { side: Side::Client, ..begin("/a.B/C") });
    let phase = || cell.phase().0;
    cell.polled_by(None);
    assert_eq!(phase(), Phase::Starting, "the transport has not touched the request");
    cell.sent.data(5, 1, clock::now());
    assert_eq!(phase(), Phase::AwaitSend);
    cell.sent.pending();
    assert_eq!(phase(), Phase::AwaitHeaders);
    streams.declare("/a.B/C", StreamKind::ClientStreaming);
    assert_eq!(phase(), Phase::AwaitProduce, "its own caller has nothing to send");
    cell.sent.finish(BodyState::End);
    assert_eq!((phase(), cell.http2_state()), (Phase::AwaitHeaders, Http2State::HalfClosedLocal));
    cell.responded();
    cell.received.pending();
    assert_eq!(phase(), Phase::AwaitRecv);
    cell.received.data(5, 1, clock::now());
    assert_eq!(phase(), Phase::Handler, "our caller does not read");
    cell.received.finish(BodyState::Dropped);
    streams.end(&cell, None);
    assert_eq!(cell.http2_state(), Http2State::Reset);
}

/// What a stream costs, beside its slot and its call.
#[test]
fn a_cell_is_small() {
    // Each open stream has one; `cargo bench --bench streams` tells what it
    // costs in all.
    assert!(size_of::<StreamCell>() <= 328, "{}", size_of::<StreamCell>());
    assert!(size_of::<Direction>() <= 96, "{}", size_of::<Direction>());
}
