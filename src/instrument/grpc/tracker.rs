//! The beginning of a call: what its request says about it.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use tonic::transport::server::{TcpConnectInfo, UdsConnectInfo};

use super::admit::{Bucket, MethodBuckets, Throttle};
use super::call::Call;
use super::heartbeat;
use super::limits::{Limits, RateUnit};
use super::metadata::MetadataKeys;
use super::watch::Watch;
use crate::model::{Side, TraceContext};
use crate::registry::Registry;
use crate::registry::connections::ConnectionCell;
use crate::registry::endpoints::EndpointCell;
use crate::registry::spans::Seed;
use crate::registry::streams::Begin;

/// What a layer, a client or an accept loop shares between its calls.
pub(super) struct Tracker {
    pub(super) registry: Arc<Registry>,
    pub(super) limits: Limits,
    pub(super) metadata: MetadataKeys,
    /// The server, or the channel.
    pub(super) endpoint: Arc<EndpointCell>,
    buckets: MethodBuckets,
}

/// A call that has begun.
pub(super) struct Begun {
    pub(super) call: Arc<Call>,
    pub(super) watch: Watch,
    /// Tokens that the call itself costs.
    pub(super) admission: Option<Box<Throttle>>,
    /// Tokens that its incoming messages cost.
    pub(super) messages: Option<Box<Throttle>>,
}

impl Tracker {
    pub(super) fn new(
        registry: Arc<Registry>,
        limits: Limits,
        metadata: MetadataKeys,
        endpoint: Arc<EndpointCell>,
    ) -> Self {
        Self { registry, limits, metadata, endpoint, buckets: MethodBuckets::default() }
    }

    /// Begins to follow a request; `None` if it is no gRPC.
    pub(super) fn begin(
        self: &Arc<Self>,
        side: Side,
        parts: &Parts,
        connection: Option<Arc<ConnectionCell>>,
        peer: Option<Arc<str>>,
        connection_buckets: &[Bucket],
    ) -> Option<Begun> {
        if !is_grpc(&parts.headers) {
            return None;
        }
        let cell = self.registry.streams.begin(Begin {
            side,
            path: parts.uri.path(),
            connection,
            endpoint: Some(&self.endpoint),
            span: self.registry.streams.spans.is_on().then(|| {
                Box::new(Seed { trace: trace_context(&parts.headers), ..Seed::default() })
            }),
            peer,
            timeout: timeout(&parts.headers),
            metadata: self.metadata.pick(&parts.headers),
        });
        let buckets = self.buckets.get(&cell.method().name, &self.limits.rates);
        let all = || connection_buckets.iter().chain(&buckets);
        let mut admission = Throttle::new(RateUnit::Streams, all());
        if let Some(admission) = &mut admission {
            admission.owe(1);
        }
        // A beat that has to wait for a token would tell of a stuck application
        // where there is none; its service has a pace of its own.
        let paced = parts.uri.path() == heartbeat::PATH;
        let messages = if paced { None } else { Throttle::new(RateUnit::Messages, all()) };
        let call = Arc::new(Call::new(self.clone(), cell));
        let watch = Watch::new(&call, &self.limits);
        Some(Begun { call, watch, admission, messages })
    }

    /// The connection of a request that came through somebody else's accept
    /// loop, as far as tonic's extensions tell it.
    pub(super) fn connection(
        &self,
        parts: &Parts,
    ) -> (Option<Arc<ConnectionCell>>, Option<Arc<str>>) {
        if let Some(tcp) = parts.extensions.get::<TcpConnectInfo>() {
            return match (tcp.local_addr, tcp.remote_addr) {
                (Some(local), Some(peer)) => {
                    let cell = self.registry.connections.between(Side::Server, local, peer);
                    cell.belongs_to(&self.endpoint);
                    (Some(cell), None)
                }
                (None, Some(peer)) => (None, Some(peer.to_string().into())),
                (_, None) => (None, None),
            };
        }
        let unix = parts.extensions.get::<UdsConnectInfo>();
        (None, unix.map(|info| unix_peer(info.peer_cred.as_ref())))
    }
}

/// A peer on a Unix socket: its process, where the kernel tells.
pub(super) fn unix_peer(credentials: Option<&tokio::net::unix::UCred>) -> Arc<str> {
    match credentials.and_then(|credentials| credentials.pid()) {
        Some(pid) => format!("unix:pid={pid}").into(),
        None => "unix".into(),
    }
}

/// `application/grpc`, alone or with `+proto`, `;charset` and the like. Not
/// gRPC-Web, whose trailers are in the body.
fn is_grpc(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    value
        .strip_prefix(b"application/grpc")
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// The longest `traceparent` kept; version 0 has 55 bytes, later ones may grow.
const TRACE_PARENT: usize = 128;

/// The longest `tracestate` kept, which W3C asks to pass on at least.
const TRACE_STATE: usize = 512;

/// The trace that the request belongs to, unread. A state in several headers,
/// or one that is too long, is left out, as W3C allows.
fn trace_context(headers: &HeaderMap) -> Option<TraceContext> {
    let text = |name: &str, limit: usize| {
        let mut all = headers.get_all(name).iter();
        let (only, none) = (all.next()?, all.next());
        let text = only.to_str().ok().filter(|text| text.len() <= limit && none.is_none())?;
        Some(Box::from(text))
    };
    let parent = text("traceparent", TRACE_PARENT)?;
    Some(TraceContext { parent, state: text("tracestate", TRACE_STATE) })
}

/// `grpc-timeout`: at most eight digits and a unit (gRPC over HTTP/2,
/// "Timeout"). What is not written so is no deadline.
fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(n * 3600),
        "M" => Duration::from_secs(n * 60),
        "S" => Duration::from_secs(n),
        "m" => Duration::from_millis(n),
        "u" => Duration::from_micros(n),
        "n" => Duration::from_nanos(n),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timeout_is_read_as_the_specification_writes_it() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().unwrap());
            timeout(&headers)
        };
        assert_eq!(read("700m"), Some(Duration::from_millis(700)));
        assert_eq!(read("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(read("5u"), Some(Duration::from_micros(5)));
        for wrong in ["", "m", "7", "7x", "-7m", "+7m", "123456789m", "7 m", "7mm"] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn only_grpc_is_followed() {
        let is = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, text.parse().unwrap());
            is_grpc(&headers)
        };
        assert!(is("application/grpc") && is("application/grpc+proto"));
        assert!(!is("application/grpc-web") && !is("application/json"));
        assert!(!is_grpc(&HeaderMap::new()));
    }
}
