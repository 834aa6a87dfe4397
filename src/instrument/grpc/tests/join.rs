//! Each call has the frames of its own HTTP/2 stream and of no other. The
//! client writes the stream's number into a header; what a call is joined
//! with must be the same number.

use std::num::NonZeroU32;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::lab::{Running, start_with, until};
use crate::instrument::grpc::{MetadataKeys, ServeConfig};
use crate::model::Stream as Seen;
use crate::registry::streams::Bounds;
use crate::registry::{Registry, clock};

/// Writes frames by hand, wrong ones too.
struct Wire {
    socket: TcpStream,
    next: u32,
    out: Vec<u8>,
}

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

impl Wire {
    async fn connect(server: &Running) -> Self {
        let socket = TcpStream::connect(server.address).await.unwrap();
        let mut out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        frame(&mut out, 4, 0, 0, &[]);
        Self { socket, next: 1, out }
    }

    fn take_id(&mut self) -> u32 {
        self.next += 2;
        self.next - 2
    }

    /// The headers of a call, with its number, and `more`.
    fn headers(&mut self, method: &str, flags: u8, more: &[(&str, &str)]) -> u32 {
        let id = self.take_id();
        let number = id.to_string();
        let path = format!("/t.T/{method}");
        let mut fields = vec![(":method", "POST"), (":scheme", "http"), (":authority", "test")];
        if !method.is_empty() {
            fields.push((":path", path.as_str()));
        }
        fields.push(("content-type", "application/grpc"));
        fields.push(("x-number", number.as_str()));
        fields.extend(more);
        let block = block(&fields);
        // Cut, so that CONTINUATION is seen too.
        let (first, rest) = block.split_at(block.len().min(id as usize % 60));
        frame(&mut self.out, 1, flags & !END_HEADERS, id, first);
        let mut pieces = rest.chunks(10_000).peekable();
        while let Some(piece) = pieces.next() {
            let last = if pieces.peek().is_none() { END_HEADERS } else { 0 };
            frame(&mut self.out, 9, last, id, piece);
        }
        id
    }

    fn reset(&mut self, id: u32) {
        frame(&mut self.out, 3, 0, id, &8_u32.to_be_bytes());
    }

    async fn flush(&mut self) {
        self.socket.write_all(&self.out).await.unwrap();
        self.out.clear();
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, id: u32, payload: &[u8]) {
    out.extend(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend([kind, flags]);
    out.extend(id.to_be_bytes());
    out.extend(payload);
}

/// Literal fields that are not indexed (RFC 7541, section 6.2.2).
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            // An integer with a prefix of seven bits.
            let mut length = text.len();
            if length < 127 {
                block.push(length as u8);
            } else {
                block.push(127);
                length -= 127;
                while length >= 128 {
                    block.push((length % 128) as u8 | 128);
                    length /= 128;
                }
                block.push(length as u8);
            }
            block.extend(text.bytes());
        }
    }
    block
}

/// Whether a call has the numbers of its own stream.
fn is_right(seen: &Seen) -> bool {
    seen.wire
        .as_ref()
        .is_some_and(|wire| wire.opened && wire.stream_id.to_string() == *seen.metadata["x-number"])
}

async fn server(max_streams: u32) -> Running {
    let config = ServeConfig {
        metadata: MetadataKeys::new(["x-number"]).unwrap(),
        reset_burst: NonZeroU32::new(1_000_000).unwrap(),
        max_concurrent_streams: max_streams,
        ..ServeConfig::default()
    };
    let bounds = Bounds { ended: 50_000, ..Bounds::default() };
    let threshold = crate::registry::DEFAULT_BLOCKED_THRESHOLD;
    start_with(Registry::new(bounds, 1_000, threshold), config).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_thousand_instant_resets_are_joined_right() {
    const WANTED: usize = 20_000;
    let server = server(1_000).await;
    let streams = &server.registry.streams;
    let ended = || streams.ended_total() as usize;
    let mut connections = 0;
    // h2 closes a connection with many resets in one batch; what it has handed
    // over by then counts, and the rest comes on the next connection.
    while ended() < WANTED {
        connections += 1;
        let mut wire = Wire::connect(&server).await;
        wire.flush().await;
        let before = ended();
        let mut sent = 0;
        while before + sent < WANTED {
            let batch = 1 + sent % 15;
            for at in 0..batch {
                let method = ["Never", "Echo", "Fail", "Flood"][(sent + at) % 4];
                let id = wire.headers(method, 0, &[]);
                wire.reset(id);
            }
            sent += batch;
            if wire.socket.write_all(&wire.out).await.is_err() {
                break;
            }
            wire.out.clear();
            let mut sink = [0; 65_536];
            while wire.socket.try_read(&mut sink).is_ok_and(|bytes| bytes > 0) {}
            let goal = before + sent;
            for _ in 0..200 {
                if ended() >= goal || sent % 3 == 0 {
                    break;
                }
                tokio::time::sleep(std::time::Duration::from_micros(100)).await;
            }
        }
        drop(wire);
    }
    server.until(|live, _| live.is_empty()).await;
    let seen = streams.snapshot(clock::now()).ended;
    let right = seen.iter().filter(|stream| is_right(stream)).count();
    assert_eq!(right, seen.len(), "of {} on {connections} connections", seen.len());
    assert!(seen.len() >= WANTED);
    assert!(seen.iter().all(|seen| seen.wire.as_ref().unwrap().reset.is_some()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_are_never_handed_over_shift_nobody() {
    const ROUNDS: usize = 40;
    let server = server(30).await;
    let long = "a".repeat(20_000);
    for round in 0..ROUNDS {
        let mut wire = Wire::connect(&server).await;
        let mut good = Vec::new();
        let mut expected = 0;
        // Takes all but a few of the places.
        let held: Vec<_> = (0..26).map(|_| wire.headers("Never", 0, &[])).collect();
        for step in 0..60 {
            match (step * 7 + round) % 5 {
                // No :path: RST PROTOCOL_ERROR.
                0 => drop(wire.headers("", 0, &[])),
                // Too large: 431.
                1 => drop(wire.headers("Echo", END_STREAM, &[("x-long", &long)])),
                // Trailers only, soon.
                2 => good.push(wire.headers("Fail", END_STREAM, &[])),
                // Refused, or not, as the places go.
                3 => good.push(wire.headers("Never", 0, &[])),
                _ => good.push(wire.headers("Echo", END_STREAM, &[])),
            }
            if step % (round + 1) == 0 {
                wire.flush().await;
            }
        }
        // The last is good, once there is room again.
        for id in held {
            wire.reset(id);
            expected += 1;
        }
        wire.flush().await;
        let last = loop {
            let last = wire.headers("Never", 0, &[]);
            wire.flush().await;
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            let live = server.registry.streams.snapshot(clock::now()).live;
            if live.iter().any(|seen| *seen.metadata["x-number"] == *last.to_string()) {
                break last;
            }
        };
        until(&server.registry, |live, ended| {
            live.iter().chain(ended).all(is_right) && live.len() + ended.len() > expected
        })
        .await;
        let live = server.registry.streams.snapshot(clock::now()).live;
        assert!(live.iter().any(|seen| seen.wire.as_ref().unwrap().stream_id == last));
        // What the server says is of no interest, but must not pile up.
        let mut sink = vec![0; 1 << 16];
        assert!(wire.socket.read(&mut sink).await.unwrap() > 0);
        drop(wire);
        server.until(|live, _| live.is_empty()).await;
    }
}
