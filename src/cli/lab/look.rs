//! What one side says of its streams: `/debug/streams` over its Unix socket.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::model::{Stream, Verdict};

/// Longer than any answer takes on a machine that is busy with the fault.
const PATIENCE: Duration = Duration::from_secs(10);

/// The list is a page of at most so many; no case has as many streams.
const LIMIT: usize = 1_000;

/// One stream, with what is said of it.
#[derive(Clone, Debug)]
pub struct Row {
    /// As the model has it.
    pub stream: Stream,
    /// The verdict.
    pub verdict: Verdict,
    /// As it came.
    pub json: Value,
    /// Its connection, once it was asked for.
    pub connection: Option<Value>,
}

#[derive(Deserialize)]
struct Told {
    verdict: Option<Verdict>,
}

/// The streams of a method, or of all, live ones first.
///
/// # Errors
/// A sentence: nobody answers, or not what is expected.
pub async fn streams(socket: &Path, method: Option<&str>) -> Result<Vec<Row>, String> {
    let mut answer = get(socket, &format!("/debug/streams?limit={LIMIT}")).await?;
    let Some(list) = answer.get_mut("streams").and_then(Value::as_array_mut) else {
        return Err("/debug/streams has no list of streams".into());
    };
    let wanted = |json: &Value| method.is_none_or(|method| json["method"] == method);
    let mut rows = Vec::new();
    for json in list.drain(..).filter(wanted) {
        let unreadable = |error| format!("/debug/streams is unreadable: {error}");
        let stream = Stream::deserialize(&json).map_err(unreadable)?;
        let Told { verdict } = Told::deserialize(&json).map_err(unreadable)?;
        let verdict = verdict.ok_or("/debug/streams says no verdict")?;
        rows.push(Row { stream, verdict, json, connection: None });
    }
    Ok(rows)
}

/// The connection of a stream, as its side shows it now.
///
/// # Errors
/// As [`streams`].
pub async fn connection(socket: &Path, row: &Row) -> Result<Option<Value>, String> {
    let mut answer = get(socket, "/debug/connections").await?;
    let wanted = &row.json["connection"];
    let list = answer.get_mut("connections").and_then(Value::as_array_mut);
    let found = list.and_then(|list| list.iter_mut().find(|one| &one["id"] == wanted));
    Ok(found.map(Value::take))
}

async fn get(socket: &Path, path: &str) -> Result<Value, String> {
    let asked = timeout(PATIENCE, exchange(socket, path)).await;
    let raw = asked
        .map_err(|_| format!("{path} is not answered"))?
        .map_err(|error| format!("{path} is not answered: {error}"))?;
    let head = raw.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4);
    let (head, body) = raw.split_at(head.ok_or_else(|| format!("{path}: an answer without head"))?);
    if !head.starts_with(b"HTTP/1.0 200") && !head.starts_with(b"HTTP/1.1 200") {
        let status = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        return Err(format!("{path} answers {}", String::from_utf8_lossy(status)));
    }
    serde_json::from_slice(body).map_err(|error| format!("{path} is not JSON: {error}"))
}

/// HTTP/1.0: the answer ends where the connection does.
async fn exchange(socket: &Path, path: &str) -> std::io::Result<Vec<u8>> {
    let mut socket = UnixStream::connect(socket).await?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
    socket.write_all(request.as_bytes()).await?;
    let mut raw = Vec::new();
    socket.read_to_end(&mut raw).await?;
    Ok(raw)
}
