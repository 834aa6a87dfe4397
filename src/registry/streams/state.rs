//! What a stream's numbers mean together: its phase and its HTTP/2 state.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::cell::StreamCell;
use crate::model::{
    BodyState, ConnectionId, Deadline, Http2State, Phase, Side, Stream, StreamEvent,
    StreamEventKind, StreamKind, StreamWire, TaskId,
};
use crate::registry::clock;
use crate::registry::wire::Wire;

impl StreamCell {
    /// The phase, and the ticks since when.
    ///
    /// The order of the questions is the point. A frame that the transport
    /// does not take comes first, because it says who is slow whatever else
    /// waits. A receiver that waits comes before a sender with nothing to
    /// send: in an echo the second only follows from the first.
    pub(super) fn phase(&self) -> (Phase, u64) {
        let polled = self.polled();
        let ended = self.ended();
        if ended != 0 {
            return (Phase::Ended, ended);
        }
        if polled == 0 {
            return (Phase::Starting, self.began);
        }
        let (received, received_since) = self.received.state();
        let (sent, sent_since) = self.sent.state();
        let responded = self.responded.load(Relaxed);
        if sent == BodyState::Taken {
            return (Phase::AwaitSend, sent_since);
        }
        if received == BodyState::Pending {
            return (Phase::AwaitRecv, received_since);
        }
        match self.side {
            Side::Server if responded && sent == BodyState::Pending => {
                (Phase::AwaitProduce, sent_since)
            }
            Side::Server => (Phase::Handler, polled.max(received_since)),
            Side::Client if responded => (Phase::Handler, received_since.max(polled)),
            // The transport has not touched the request: no connection yet, or
            // no free stream on it.
            Side::Client if sent == BodyState::NeverPolled => (Phase::Starting, self.began),
            Side::Client
                if sent == BodyState::Pending
                    && self.method.kind() == StreamKind::ClientStreaming =>
            {
                (Phase::AwaitProduce, sent_since)
            }
            Side::Client => (Phase::AwaitHeaders, sent_since),
        }
    }

    /// The state in the sense of RFC 9113, as far as the bodies show it: an
    /// END_STREAM that our side has not read yet is not known here.
    pub(super) fn http2_state(&self) -> Http2State {
        let (received, _) = self.received.state();
        let (sent, _) = self.sent.state();
        // What ends the stream is the response, ours or the peer's. A request
        // that the server answers early is let go of without a reset.
        let response = match self.side {
            Side::Server => sent,
            Side::Client => received,
        };
        if received == BodyState::Error
            || sent == BodyState::Error
            || response == BodyState::Dropped
            || (self.is_ended() && response != BodyState::End)
        {
            return Http2State::Reset;
        }
        // The response is complete and the request body is let go of: h2 then
        // closes the stream, even if that body was not at its end.
        let over =
            |state| state == BodyState::End || (self.is_ended() && state == BodyState::Dropped);
        match (over(sent), over(received)) {
            (true, true) => Http2State::Closed,
            (true, false) => Http2State::HalfClosedLocal,
            (false, true) => Http2State::HalfClosedRemote,
            (false, false) => Http2State::Open,
        }
    }

    /// What its frames show, and with them its last events, newest last.
    fn wire(
        &self,
        wire: Option<&Wire>,
        now: u64,
        events: &mut Vec<StreamEvent>,
    ) -> Option<StreamWire> {
        let Some(wire) = wire else {
            // A client's request that the transport has not taken up.
            let waits = self.side == Side::Client && self.outcome().is_tapped();
            return waits.then(StreamWire::default);
        };
        let id = self.wire_id.load(Relaxed);
        wire.stream(id, now, events)
    }

    /// The last messages each way, and what else the bodies show; all events
    /// oldest first after that.
    fn messages(&self, framed: bool, now: u64, events: &mut Vec<StreamEvent>) {
        let logged: Vec<_> = {
            let outcome = self.outcome();
            outcome.rare.iter().flat_map(|rare| rare.log.read(now)).collect()
        };
        let since = logged.first().map_or(0, |event| event.ago_ns);
        let rings = self.received.events.read(now).chain(self.sent.events.read(now));
        events.extend(rings.filter(|event| logged.is_empty() || event.ago_ns > since));
        events.extend(logged);
        if !framed {
            // Without frames, an end is where the body was read to it.
            let ends = [
                (&self.received, StreamEventKind::EndReceived),
                (&self.sent, StreamEventKind::EndSent),
            ];
            events.extend(ends.into_iter().filter_map(|(direction, kind)| {
                let (state, since) = direction.state();
                let ago_ns = clock::delta_ns(since, now);
                (state == BodyState::End).then_some(StreamEvent { kind, ago_ns, bytes: 0 })
            }));
        }
        events.sort_by_key(|event| std::cmp::Reverse(event.ago_ns));
    }

    /// The state as the frames have it, where they are seen.
    fn state(&self, wire: Option<&StreamWire>, gone: bool) -> Http2State {
        let bodies = self.http2_state();
        let Some(wire) = wire.filter(|wire| wire.opened) else { return bodies };
        if wire.reset.is_some() {
            return Http2State::Reset;
        }
        match (wire.end_sent, wire.end_received) {
            (true, true) => Http2State::Closed,
            // Its reset is not written yet, or never will be.
            _ if bodies == Http2State::Reset || gone => Http2State::Reset,
            (true, false) => Http2State::HalfClosedLocal,
            (false, true) => Http2State::HalfClosedRemote,
            (false, false) => Http2State::Open,
        }
    }

    /// As plain data. `now` is in ticks, `tasks` the references that live
    /// tasks hold on its slot.
    pub(super) fn to_model(&self, now: u64, tasks: u32) -> Stream {
        let (phase, since) = self.phase();
        let age_ns = clock::delta_ns(self.began, now);
        let ago = |ticks: u64| (ticks != 0).then(|| clock::delta_ns(ticks, now));
        let told = self.outcome().told();
        let task = self.task.load(Relaxed);
        let connection = self.connection.load(Relaxed);
        let mut events = Vec::new();
        let frames = told.wire.as_deref();
        let wire = self.wire(frames, now, &mut events);
        self.messages(frames.is_some(), now, &mut events);
        Stream {
            id: self.id,
            side: self.side,
            method: Arc::clone(&self.method.name),
            kind: self.method.kind(),
            peer: self.peer.clone(),
            connection: (connection != 0).then_some(ConnectionId(connection)),
            task: (task != 0).then_some(TaskId(task)),
            state: self.state(wire.as_ref(), frames.is_some_and(Wire::is_gone)),
            phase,
            phase_ns: clock::delta_ns(since.max(self.began), now),
            age_ns,
            received: self.received.traffic(self.began, now),
            sent: self.sent.traffic(self.began, now),
            deadline: self.timeout().map(|timeout| {
                let timeout_ns = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
                let remaining_ns = i128::from(timeout_ns) - i128::from(age_ns);
                let bounds = i128::from(i64::MIN)..=i128::from(i64::MAX);
                Deadline {
                    timeout_ns,
                    remaining_ns: remaining_ns.clamp(*bounds.start(), *bounds.end()) as i64,
                }
            }),
            cancelled_ago_ns: ago(told.cancelled),
            cancel_reason: told.cancel_reason,
            status: told.status,
            ended_ago_ns: ago(self.ended()),
            live_tasks: tasks,
            logged: self.logged(),
            throttled_ns: ago(told.throttled),
            idle_expected: self.method.idle(),
            wire,
            events,
            metadata: told.metadata,
        }
    }
}
