//! Calls that are opened and reset in one packet, as "rapid reset" floods are.
//!
//! h2's client would never put such a call on the wire, so the frames are
//! written by hand.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Status;

use super::{CallResult, Caller, Ending};

/// Calls on one connection. A server that accepts this many is not protected;
/// h2 sends GOAWAY after some fifty.
const CALLS: u32 = 100;

const PATH: &str = "/grpc.examples.echo.Echo/BidirectionalStreamingEcho";

const HEADERS: u8 = 0x1;
const RST_STREAM: u8 = 0x3;
const SETTINGS: u8 = 0x4;
const GOAWAY: u8 = 0x7;
const END_HEADERS: u8 = 0x4;
const CANCEL: u32 = 0x8;

/// Opens a connection, resets a hundred calls on it, and waits for the
/// server's answer: GOAWAY, or a second of patience.
pub async fn instant_resets(caller: Caller) -> CallResult {
    let unreachable = |error: std::io::Error| Status::unavailable(error.to_string());
    let mut socket = TcpStream::connect(caller.target).await.map_err(unreachable)?;
    socket.write_all(&opened_and_reset(caller.target)).await.map_err(unreachable)?;
    caller.stats.sent(u64::from(CALLS));
    let goaway = tokio::time::timeout(Duration::from_secs(1), goaway(&mut socket)).await;
    if let Ok(Some(code)) = goaway {
        tracing::debug!(code, "the server sent GOAWAY");
        caller.stats.received(1);
    }
    caller.pause(Duration::from_millis(200)).await;
    Ok(Ending::Abandoned)
}

/// Reads frames until a GOAWAY; its error code.
async fn goaway(socket: &mut TcpStream) -> Option<u32> {
    loop {
        let mut head = [0; 9];
        socket.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        // Frames above the default maximum were never agreed on.
        let mut payload = vec![0; usize::try_from(length).ok().filter(|n| *n <= 16_384)?];
        socket.read_exact(&mut payload).await.ok()?;
        if head[3] == GOAWAY {
            return payload.get(4..8)?.try_into().ok().map(u32::from_be_bytes);
        }
    }
}

fn opened_and_reset(authority: SocketAddr) -> Vec<u8> {
    let headers = header_block(&authority.to_string());
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    frame(&mut bytes, SETTINGS, 0, 0, &[]);
    for id in (1..).step_by(2).take(CALLS as usize) {
        frame(&mut bytes, HEADERS, END_HEADERS, id, &headers);
        frame(&mut bytes, RST_STREAM, 0, id, &CANCEL.to_be_bytes());
    }
    bytes
}

fn frame(bytes: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).expect("our frames are small").to_be_bytes();
    bytes.extend_from_slice(&length[1..]);
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
}

/// HPACK (RFC 7541) without indexing and without Huffman coding, so that one
/// block serves all streams.
fn header_block(authority: &str) -> Vec<u8> {
    // Entries of the static table: `:method: POST` and `:scheme: http`.
    let mut block = vec![0x83, 0x86];
    let mut literal = |name: &[u8], value: &str| {
        block.extend_from_slice(name);
        block.push(u8::try_from(value.len()).expect("shorter than 127 bytes"));
        block.extend_from_slice(value.as_bytes());
    };
    literal(&[0x04], PATH); // name 4, `:path`
    literal(&[0x01], authority); // name 1, `:authority`
    literal(&[0x0f, 31 - 15], "application/grpc"); // name 31, `content-type`
    literal(b"\x00\x02te", "trailers"); // a name of its own
    block
}
