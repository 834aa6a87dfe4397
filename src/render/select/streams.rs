//! gRPC streams: filter and order.

use super::page::{Cursor, Page};
use super::tasks::id;
use super::term::{Compare, Filter, contains, split};
use crate::model::{ConnectionId, Http2State, Phase, Side, Stream, StreamId, TaskId, VerdictKind};

/// What a stream filter may say; part of the answer to a wrong one.
pub const STREAM_FILTER: &str = "words that match the method, peer, phase or status; or phase:await_recv, \
    state:open|half_closed_local|half_closed_remote|closed|reset, side:server|client, method:, peer:, id:, task:, \
    connection:, verdict:peer_not_reading, is:live|ended|cancelled|late|alarm, age:>10s, wait:>1s, messages:>5; -term excludes, \"quotes\" hold blanks";

type Test = Box<dyn Fn(&Stream) -> bool + Send + Sync>;

/// A filter of streams. The verdict is no part of a stream: it is judged by
/// others, and only asked for if some term is about it.
pub struct StreamFilter {
    stream: Filter<Stream>,
    verdict: Filter<VerdictKind>,
}

impl StreamFilter {
    /// All terms match.
    pub fn matches(&self, stream: &Stream, verdict: impl FnOnce() -> VerdictKind) -> bool {
        self.stream.matches(stream) && (self.verdict.is_empty() || self.verdict.matches(&verdict()))
    }
}

/// Parses a stream filter.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn stream_filter(text: &str) -> Result<StreamFilter, String> {
    let (verdict, stream) = split(text)?.into_iter().partition(|word| {
        let word = word.strip_prefix('-').unwrap_or(word);
        word.starts_with("verdict:") || word == "is:alarm"
    });
    Ok(StreamFilter { stream: of_stream(stream)?, verdict: of_verdict(verdict)? })
}

fn of_verdict(words: Vec<String>) -> Result<Filter<VerdictKind>, String> {
    Filter::of_words(words, |key, value| match key {
        Some("verdict") => {
            let named = VerdictKind::ALL.into_iter().find(|kind| kind.as_str() == value);
            let kind = named.ok_or_else(|| format!("`{value}` is no verdict"))?;
            Ok(Box::new(move |is: &VerdictKind| *is == kind))
        }
        _ => Ok(Box::new(|is: &VerdictKind| is.is_alarm())),
    })
}

fn of_stream(words: Vec<String>) -> Result<Filter<Stream>, String> {
    Filter::of_words(words, |key, value| {
        let part = value.to_owned();
        Ok(match key {
            None => Box::new(move |stream: &Stream| anywhere(stream, &part)),
            Some("phase") => {
                let phase = phase(value)?;
                Box::new(move |stream| stream.phase == phase)
            }
            Some("state") => {
                let state = state(value)?;
                Box::new(move |stream| stream.state == state)
            }
            Some("side") => {
                let side = match value {
                    "server" => Side::Server,
                    "client" => Side::Client,
                    _ => return Err(format!("`{value}` is no side")),
                };
                Box::new(move |stream| stream.side == side)
            }
            Some("is") => is(value)?,
            Some("method") => Box::new(move |stream| contains(&stream.method, &part)),
            Some("peer") => Box::new(move |stream| {
                stream.peer.as_deref().is_some_and(|peer| contains(peer, &part))
            }),
            Some("id") => {
                let id: StreamId = id(value)?;
                Box::new(move |stream| stream.id == id)
            }
            Some("task") => {
                let id: TaskId = id(value)?;
                Box::new(move |stream| stream.task == Some(id))
            }
            Some("connection") => {
                let id: ConnectionId = id(value)?;
                Box::new(move |stream| stream.connection == Some(id))
            }
            Some("age") => {
                let compare = Compare::duration(value)?;
                Box::new(move |stream| compare.holds(stream.age_ns))
            }
            Some("wait") => {
                let compare = Compare::duration(value)?;
                Box::new(move |stream| compare.holds(stream.phase_ns))
            }
            Some("messages") => {
                let compare = Compare::number(value)?;
                Box::new(move |stream| {
                    compare.holds(stream.received.messages + stream.sent.messages)
                })
            }
            Some(key) => return Err(format!("`{key}:` is not known")),
        })
    })
}

fn phase(text: &str) -> Result<Phase, String> {
    [
        Phase::Starting,
        Phase::Handler,
        Phase::AwaitRecv,
        Phase::AwaitHeaders,
        Phase::AwaitSend,
        Phase::AwaitProduce,
        Phase::Ended,
    ]
    .into_iter()
    .find(|phase| phase.as_str() == text)
    .ok_or_else(|| format!("`{text}` is no phase"))
}

fn state(text: &str) -> Result<Http2State, String> {
    Ok(match text {
        "open" => Http2State::Open,
        "half_closed_local" => Http2State::HalfClosedLocal,
        "half_closed_remote" => Http2State::HalfClosedRemote,
        "closed" => Http2State::Closed,
        "reset" => Http2State::Reset,
        _ => return Err(format!("`{text}` is no state")),
    })
}

fn is(text: &str) -> Result<Test, String> {
    Ok(match text {
        "live" => Box::new(|stream| stream.ended_ago_ns.is_none()),
        "ended" => Box::new(|stream| stream.ended_ago_ns.is_some()),
        "cancelled" => Box::new(|stream| stream.cancelled_ago_ns.is_some()),
        "late" => {
            Box::new(|stream| stream.deadline.is_some_and(|deadline| deadline.remaining_ns < 0))
        }
        _ => return Err(format!("`is:{text}` is not known")),
    })
}

fn anywhere(stream: &Stream, part: &str) -> bool {
    contains(&stream.method, part)
        || contains(stream.phase.as_str(), part)
        || stream.peer.as_deref().is_some_and(|peer| contains(peer, part))
        || stream
            .status
            .as_ref()
            .is_some_and(|status| contains(&status.name, part) || contains(&status.message, part))
}

/// Orders of streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StreamSort {
    /// Smallest id first.
    #[default]
    Id,
    /// Longest in its phase first.
    Wait,
    /// Most messages both ways first.
    Messages,
    /// Alarms first, in the order of their kinds, then longest.
    Verdict,
}

impl StreamSort {
    /// The words of `sort=`.
    pub const WORDS: &str = "id, wait, messages or verdict";

    /// The order by its word.
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            // Ids are given in the order streams begin.
            "id" | "age" => Self::Id,
            "wait" => Self::Wait,
            "messages" => Self::Messages,
            "verdict" => Self::Verdict,
            _ => return None,
        })
    }

    /// The number cursors of this order carry; apart from those of tasks.
    pub fn number(self) -> u8 {
        0x80 + self as u8
    }

    fn key(
        self,
        uptime_ns: u64,
        stream: &Stream,
        verdict: impl FnOnce() -> (VerdictKind, u64),
    ) -> u64 {
        match self {
            Self::Id => 0,
            Self::Wait => uptime_ns.wrapping_sub(stream.phase_ns) ^ (1 << 63),
            Self::Messages => !stream.received.messages.saturating_add(stream.sent.messages),
            Self::Verdict => {
                let (kind, since_ns) = verdict();
                let rank = kind as u64 + if kind.is_alarm() { 0 } else { 32 };
                // When it began, to 64 ns: that does not move between pages.
                (rank << 58) | (uptime_ns.saturating_sub(since_ns) >> 6)
            }
        }
    }
}

/// One page of the streams that match; `verdict` says what holds one up, and
/// for how long.
pub fn select_streams<'a>(
    streams: impl Iterator<Item = &'a Stream>,
    uptime_ns: u64,
    filter: &StreamFilter,
    verdict: impl Fn(&Stream) -> (VerdictKind, u64),
    sort: StreamSort,
    after: Option<Cursor>,
    limit: usize,
) -> Page {
    let rows =
        streams.enumerate().filter(|(_, stream)| filter.matches(stream, || verdict(stream).0)).map(
            |(index, stream)| (sort.key(uptime_ns, stream, || verdict(stream)), stream.id.0, index),
        );
    Page::cut(rows, sort.number(), after, limit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::sample;

    /// Stream 2 is stuck for three seconds, stream 1 for two.
    fn judged(stream: &Stream) -> (VerdictKind, u64) {
        match stream.id.0 {
            0 => (VerdictKind::Healthy, 9_000_000_000),
            id => (VerdictKind::HandlerWaiting, (id + 1) * 1_000_000_000),
        }
    }

    fn ids(filter: &str) -> Vec<u64> {
        let snapshot = sample::busy_server();
        let streams: Vec<_> = snapshot.streams.iter().chain(&snapshot.ended_streams).collect();
        let filter = stream_filter(filter).unwrap();
        let page =
            select_streams(streams.iter().copied(), 0, &filter, judged, StreamSort::Id, None, 100);
        page.rows.into_iter().map(|index| streams[index].id.0).collect()
    }

    #[test]
    fn filters() {
        for (filter, expected) in [
            ("", vec![0, 1, 2]),
            ("is:live", vec![1, 2]),
            ("is:ended ok", vec![0]),
            ("phase:handler", vec![2]),
            ("method:watch is:live wait:>40s", vec![1]),
            ("state:closed", vec![0]),
            ("task:40", vec![2]),
            ("side:client", vec![]),
            ("messages:>5 connection:1 -id:2", vec![0, 1]),
            ("is:late", vec![]),
            ("is:alarm", vec![1, 2]),
            ("-is:alarm", vec![0]),
            ("verdict:handler_waiting method:watch", vec![1]),
            ("-verdict:handler_waiting verdict:healthy", vec![0]),
            ("verdict:network", vec![]),
        ] {
            assert_eq!(ids(filter), expected, "{filter}");
        }
        for wrong in
            ["phase:x", "state:x", "is:x", "side:x", "colour:red", "age:x", "verdict:x", "verdict:"]
        {
            assert!(stream_filter(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn alarms_come_first_and_the_longest_of_them() {
        let snapshot = sample::busy_server();
        let streams = || snapshot.streams.iter().chain(&snapshot.ended_streams);
        let filter = stream_filter("").unwrap();
        let sort = StreamSort::parse("verdict").unwrap();
        let uptime = snapshot.process.uptime_ns;
        let mut after = None;
        let mut seen = Vec::new();
        loop {
            let page = select_streams(streams(), uptime, &filter, judged, sort, after, 1);
            seen.extend(page.rows.iter().filter_map(|&row| Some(streams().nth(row)?.id.0)));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(seen, [2, 1, 0]);
    }
}
