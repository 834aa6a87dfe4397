//! gRPC streams: filter and order.

use super::page::{Cursor, Page};
use super::tasks::id;
use super::term::{Compare, Filter, contains};
use crate::model::{ConnectionId, Http2State, Phase, Side, Stream, StreamId, TaskId};

/// What a stream filter may say; part of the answer to a wrong one.
pub const STREAM_FILTER: &str = "words that match the method, peer, phase or status; or phase:await_recv, \
    state:open|half_closed_local|half_closed_remote|closed|reset, side:server|client, method:, peer:, id:, task:, \
    connection:, is:live|ended|cancelled|late, age:>10s, wait:>1s, messages:>5; -term excludes, \"quotes\" hold blanks";

type Test = Box<dyn Fn(&Stream) -> bool + Send + Sync>;

/// Parses a stream filter.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn stream_filter(text: &str) -> Result<Filter<Stream>, String> {
    Filter::parse(text, |key, value| {
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
}

impl StreamSort {
    /// The words of `sort=`.
    pub const WORDS: &str = "id, wait or messages";

    /// The order by its word.
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            // Ids are given in the order streams begin.
            "id" | "age" => Self::Id,
            "wait" => Self::Wait,
            "messages" => Self::Messages,
            _ => return None,
        })
    }

    /// The number cursors of this order carry; apart from those of tasks.
    pub fn number(self) -> u8 {
        0x80 + self as u8
    }

    fn key(self, uptime_ns: u64, stream: &Stream) -> u64 {
        match self {
            Self::Id => 0,
            Self::Wait => uptime_ns.wrapping_sub(stream.phase_ns) ^ (1 << 63),
            Self::Messages => !stream.received.messages.saturating_add(stream.sent.messages),
        }
    }
}

/// One page of the streams that match.
pub fn select_streams<'a>(
    streams: impl Iterator<Item = &'a Stream>,
    uptime_ns: u64,
    filter: &Filter<Stream>,
    sort: StreamSort,
    after: Option<Cursor>,
    limit: usize,
) -> Page {
    let rows = streams
        .enumerate()
        .filter(|(_, stream)| filter.matches(stream))
        .map(|(index, stream)| (sort.key(uptime_ns, stream), stream.id.0, index));
    Page::cut(rows, sort.number(), after, limit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::sample;

    fn ids(filter: &str) -> Vec<u64> {
        let snapshot = sample::busy_server();
        let streams: Vec<_> = snapshot.streams.iter().chain(&snapshot.ended_streams).collect();
        let filter = stream_filter(filter).unwrap();
        let page = select_streams(streams.iter().copied(), 0, &filter, StreamSort::Id, None, 100);
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
        ] {
            assert_eq!(ids(filter), expected, "{filter}");
        }
        for wrong in ["phase:x", "state:x", "is:x", "side:x", "colour:red", "age:x"] {
            assert!(stream_filter(wrong).is_err(), "{wrong}");
        }
    }
}
