use super::*;
use crate::registry::clock;
use frame::{INITIAL_WINDOW_SIZE, MAX_CONCURRENT_STREAMS};

const OPEN: Frame = Frame::Headers { id: 1, end_stream: false, complete: true, first: 0x83 };

fn receive(wire: &Wire, frames: &[Frame]) {
    let mut writer = wire.writer(clock::now());
    frames.iter().for_each(|frame| writer.received(*frame));
    writer.finish();
}

fn send(wire: &Wire, frames: &[Frame]) {
    let mut writer = wire.writer(clock::now());
    frames.iter().for_each(|frame| writer.sent(*frame));
    writer.finish();
}

fn stream(wire: &Wire, id: u32) -> Option<StreamWire> {
    wire.stream(id, clock::now(), &mut Vec::new())
}

#[test]
fn a_smaller_initial_window_can_make_an_open_one_negative() {
    let wire = Wire::new(Side::Server);
    receive(&wire, &[OPEN]);
    send(&wire, &[Frame::Data { id: 1, bytes: 60_000, end: false }]);
    receive(&wire, &[Frame::Setting { key: INITIAL_WINDOW_SIZE, value: 1_000 }]);
    let seen = stream(&wire, 1).unwrap();
    assert_eq!((seen.send_window, seen.data_sent), (1_000 - 60_000, 60_000));
    assert!(seen.send_window_closed_ns.is_some());
    receive(&wire, &[Frame::WindowUpdate { id: 1, increment: 59_001 }]);
    let seen = stream(&wire, 1).unwrap();
    assert_eq!((seen.send_window, seen.send_window_closed_ns), (1, None));
    assert_eq!(wire.http2(clock::now()).send_window, 65_535 - 60_000);
}

#[test]
fn our_own_settings_hold_once_they_are_acknowledged() {
    let wire = Wire::new(Side::Server);
    let window = |value| Frame::Setting { key: INITIAL_WINDOW_SIZE, value };
    let limit = Frame::Setting { key: MAX_CONCURRENT_STREAMS, value: 9 };
    send(&wire, &[window(100), Frame::SettingsEnd, limit, Frame::SettingsEnd]);
    receive(&wire, &[OPEN, Frame::Data { id: 1, bytes: 35, end: false }]);
    assert_eq!(stream(&wire, 1).unwrap().recv_window, 65_500);
    receive(&wire, &[Frame::SettingsAck]);
    assert_eq!(stream(&wire, 1).unwrap().recv_window, 65);
    receive(&wire, &[Frame::SettingsAck]);
    assert_eq!(stream(&wire, 1).unwrap().recv_window, 65, "the second said nothing of windows");
    let http2 = wire.http2(clock::now());
    assert_eq!((http2.local_initial_window, http2.local_max_streams), (100, Some(9)));
}

#[test]
fn an_entry_goes_when_the_stream_is_closed_and_nobody_looks() {
    let wire = Wire::new(Side::Server);
    receive(&wire, &[OPEN]);
    assert_eq!(wire.http2(clock::now()).open_streams, 1);
    let end = Frame::Data { id: 1, bytes: 0, end: true };
    receive(&wire, &[end]);
    send(&wire, &[end]);
    assert_eq!(wire.http2(clock::now()).open_streams, 0);
    assert!(stream(&wire, 1).is_some_and(|seen| seen.end_sent && seen.end_received));
    wire.unwanted(1);
    assert_eq!(stream(&wire, 1), None);
    // In the other order.
    let second = Frame::Headers { id: 3, end_stream: true, complete: true, first: 0x83 };
    receive(&wire, &[second]);
    wire.unwanted(3);
    assert!(stream(&wire, 3).is_some());
    send(&wire, &[Frame::Reset { id: 3, code: 8 }]);
    assert_eq!(stream(&wire, 3), None);
    assert_eq!(wire.http2(clock::now()).resets_sent, 1);
}

#[test]
fn requests_given_up_before_they_are_sent_leave_nothing() {
    let wire = Wire::new(Side::Client);
    assert_eq!(
        [wire.dispatched(), wire.dispatched(), wire.dispatched()],
        [Some(1), Some(3), Some(5)]
    );
    assert!(!stream(&wire, 3).unwrap().opened);
    wire.unwanted(3);
    let open = |id| Frame::Headers { id, end_stream: false, complete: true, first: 0x83 };
    send(&wire, &[open(1)]);
    assert!(stream(&wire, 3).is_some(), "its turn may still come");
    send(&wire, &[open(5)]);
    assert!(stream(&wire, 3).is_none() && stream(&wire, 5).is_some_and(|seen| seen.opened));
    // A frame with an id that was never given: from here on nothing is known.
    send(&wire, &[open(9)]);
    assert_eq!((stream(&wire, 9), wire.dispatched()), (None, None));
    assert_eq!(wire.http2(clock::now()).untracked, 1);
}

#[test]
fn pings_are_told_apart_by_their_payload() {
    let wire = Wire::new(Side::Client);
    let ping = |ack, payload| Frame::Ping { ack, payload };
    send(&wire, &[ping(false, 7), ping(false, 8)]);
    receive(&wire, &[ping(true, 9), ping(true, 8), ping(false, 1)]);
    let seen = wire.http2(clock::now() + 1_000_000);
    assert!(seen.ping_outstanding_ns.is_some() && seen.ping_rtt_ns.is_some());
    receive(&wire, &[ping(true, 7)]);
    assert_eq!(wire.http2(clock::now()).ping_outstanding_ns, None);
}

/// What a stream costs the tap, beside its place in a hash map.
#[test]
fn an_entry_is_small() {
    assert!(size_of::<entry::Entry>() <= 144, "{}", size_of::<entry::Entry>());
}
