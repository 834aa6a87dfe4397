//! What a debug server is asked to do, and within which bounds.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use subtle::ConstantTimeEq as _;

use crate::error::{Error, ErrorKind, Result};

/// Fewest bytes of a token. 32 random bytes cannot be guessed, whatever the rate.
pub const TOKEN_MIN_BYTES: usize = 32;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A TCP address; port 0 takes a free one.
    Tcp(SocketAddr),
    /// A unix socket, made with mode 0600.
    Unix(PathBuf),
}

impl Listen {
    /// Only processes of this machine can reach it.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "http://{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The secret that clients send as `Authorization: Bearer ...`. It has no
/// `Display`, and `Debug` hides it, so that it cannot end up in a log.
#[derive(Clone)]
pub struct Token(Arc<[u8]>);

impl Token {
    /// Takes a token of at least [`TOKEN_MIN_BYTES`] visible ASCII characters.
    ///
    /// # Errors
    /// `InvalidInput` if it is shorter or could not be sent in a header.
    pub fn new(text: &str) -> Result<Self> {
        if text.len() < TOKEN_MIN_BYTES {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "the token needs at least {TOKEN_MIN_BYTES} bytes, this one has {}",
                    text.len()
                ),
            ));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "the token may only have visible ASCII characters, no spaces",
            ));
        }
        Ok(Self(text.as_bytes().into()))
    }

    /// Compares in a time that depends on the lengths only.
    pub(super) fn matches(&self, presented: &[u8]) -> bool {
        self.0.ct_eq(presented).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

/// Every bound of the server. The defaults fit a server left on for good.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at once. A page and a few scrapers need ten; more than this
    /// is a leak or an attack, and would take descriptors from the program.
    pub connections: usize,
    /// Event streams at once: each is a second of work per second.
    pub event_streams: usize,
    /// For a whole request head to arrive, also the longest idle time between
    /// two requests of one connection.
    pub header_timeout: Duration,
    /// For a request body to arrive.
    pub body_timeout: Duration,
    /// How long a client may take no bytes while there are some for it.
    pub write_timeout: Duration,
    /// How long a dump waits for two others to be sent before it answers 503.
    pub dump_wait: Duration,
    /// How long shutdown waits for answers under way.
    pub drain: Duration,
    /// Longest `seconds=` of a profile.
    pub profile: Duration,
    /// Bytes of a request's path and query.
    pub uri_bytes: usize,
    /// Bytes of a request body; only `symbol` reads one.
    pub body_bytes: usize,
    /// Wrong or missing tokens per second before the answer is 429.
    pub token_failures: u32,
    /// Time between two events of an event stream.
    pub event_interval: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 64,
            event_streams: 8,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(5),
            write_timeout: Duration::from_secs(20),
            dump_wait: Duration::from_secs(10),
            drain: Duration::from_millis(800),
            profile: Duration::from_secs(60),
            uri_bytes: 4096,
            body_bytes: 64 * 1024,
            token_failures: 10,
            event_interval: Duration::from_secs(1),
        }
    }
}

/// How to serve.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    /// Where.
    pub listen: Listen,
    /// The secret to ask for; needed for an address that is not loopback.
    pub token: Option<Token>,
    /// Further host names (without port) that clients may use in `Host`.
    pub hosts: Vec<String>,
    /// Offer `POST /debug/log`, the only request that changes anything.
    pub control: bool,
    /// Bounds.
    pub limits: Limits,
}

impl ServeConfig {
    /// Serves there with the defaults: no token, read-only.
    pub fn new(listen: Listen) -> Self {
        Self { listen, token: None, hosts: Vec::new(), control: false, limits: Limits::default() }
    }

    /// Refuses what would expose the process, before anything is bound.
    ///
    /// # Errors
    /// `Unsafe` for an address that others can reach without a token.
    pub fn check(&self) -> Result<()> {
        if self.listen.is_local() || self.token.is_some() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Unsafe,
            format!(
                "{} can be reached from other machines: set a token of at least \
                 {TOKEN_MIN_BYTES} bytes, or listen on 127.0.0.1 or a unix socket",
                self.listen
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_needs_no_token() {
        for (address, allowed) in [
            ("127.0.0.1:0", true),
            ("127.8.9.1:0", true),
            ("[::1]:0", true),
            ("[::ffff:127.0.0.1]:0", true),
            ("0.0.0.0:0", false),
            ("[::]:0", false),
            ("192.168.1.4:0", false),
        ] {
            let mut config = ServeConfig::new(Listen::Tcp(address.parse().unwrap()));
            assert_eq!(config.check().is_ok(), allowed, "{address}");
            config.token = Some(Token::new(&"t".repeat(32)).unwrap());
            assert!(config.check().is_ok(), "{address} with a token");
        }
    }

    #[test]
    fn tokens_are_long_and_can_be_sent() {
        assert!(Token::new(&"x".repeat(31)).is_err());
        assert!(Token::new(&"x".repeat(32)).is_ok());
        assert!(Token::new(&format!("{} {}", "x".repeat(20), "y".repeat(20))).is_err());
        assert!(Token::new(&"é".repeat(32)).is_err());
    }

    #[test]
    fn a_token_never_shows() {
        let token = Token::new("0123456789abcdef0123456789abcdef").unwrap();
        let mut config = ServeConfig::new(Listen::Unix("/run/x".into()));
        config.token = Some(token.clone());
        assert!(!format!("{config:?} {token:?}").contains("0123456789"));
    }
}
