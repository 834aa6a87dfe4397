//! Who may ask: `Host`, `Origin`, `Sec-Fetch-Site`.
//!
//! A web page that someone of this machine has open can send requests to
//! loopback, and with DNS rebinding it can read the answers too. The `Host`
//! header tells which name the browser believes it talks to; `Origin` and
//! `Sec-Fetch-Site` tell which site sent it. Curl and scrapers send neither.

use std::net::IpAddr;

use axum::http::header::{HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{StatusCode, Uri};

use super::config::Listen;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// A refusal: status and what to do about it. Never any data.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: StatusCode,
    pub text: &'static str,
}

const WRONG_HOST: Refusal = Refusal {
    status: StatusCode::MISDIRECTED_REQUEST,
    text: "this Host is not allowed: use a loopback name, the address it listens on, or a configured host",
};
const WRONG_SITE: Refusal = Refusal {
    status: StatusCode::FORBIDDEN,
    text: "requests from another site are refused: open this address by itself",
};

/// The names under which the server may be asked.
#[derive(Clone, Debug)]
pub struct Guard {
    hosts: Vec<String>,
    bound: Option<IpAddr>,
}

impl Guard {
    /// Loopback names, the bound address and these hosts.
    pub fn new(listen: &Listen, hosts: &[String]) -> Self {
        let bound = match listen {
            Listen::Tcp(address) => Some(address.ip()),
            Listen::Unix(_) => None,
        };
        let hosts = hosts.iter().map(|host| host.trim_matches(['[', ']']).to_ascii_lowercase());
        Self { hosts: hosts.collect(), bound }
    }

    /// Lets a request pass or says why not. The same for every method.
    pub fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        let host = single(headers, &HOST).ok_or(WRONG_HOST)?;
        let host = authority(host).ok_or(WRONG_HOST)?;
        if !self.allows(&host) {
            return Err(WRONG_HOST);
        }
        // `GET http://name/ HTTP/1.1`: the target has a name of its own.
        if uri.authority().is_some_and(|target| *target != host) {
            return Err(WRONG_HOST);
        }
        self.check_site(&host, headers)
    }

    fn check_site(&self, host: &Authority, headers: &HeaderMap) -> Result<(), Refusal> {
        if headers.contains_key(ORIGIN) {
            let origin = single(headers, &ORIGIN).and_then(|origin| origin.to_str().ok());
            let same = origin
                .and_then(|origin| {
                    origin.strip_prefix("http://").or(origin.strip_prefix("https://"))
                })
                .is_some_and(|origin| origin.eq_ignore_ascii_case(host.as_str()));
            if !same {
                return Err(WRONG_SITE);
            }
        }
        if headers.contains_key(&SEC_FETCH_SITE) {
            // `none`: typed, bookmarked. `same-site` is another port or name.
            let site = single(headers, &SEC_FETCH_SITE).map(HeaderValue::as_bytes);
            if !matches!(site, Some(b"same-origin" | b"none")) {
                return Err(WRONG_SITE);
            }
        }
        Ok(())
    }

    fn allows(&self, host: &Authority) -> bool {
        let name = host.host().trim_matches(['[', ']']).to_ascii_lowercase();
        if name == "localhost" || self.hosts.contains(&name) {
            return true;
        }
        // Rebinding needs a name: a literal address cannot be rebound, so where
        // all addresses are bound any literal will do.
        let Ok(ip) = name.parse::<IpAddr>() else { return false };
        let ip = ip.to_canonical();
        ip.is_loopback()
            || self.bound.is_some_and(|bound| bound.is_unspecified() || bound.to_canonical() == ip)
    }
}

/// The header's value if it is there exactly once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    values.next().is_none().then_some(first)
}

/// `host` or `host:port`, nothing else.
fn authority(value: &HeaderValue) -> Option<Authority> {
    let text = value.to_str().ok()?;
    let authority: Authority = text.parse().ok()?;
    (!text.contains('@') && !authority.host().is_empty()).then_some(authority)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(guard: &Guard, uri: &str, headers: &[(&str, &str)]) -> u16 {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        match guard.check(&uri.parse().unwrap(), &map) {
            Ok(()) => 200,
            Err(refusal) => refusal.status.as_u16(),
        }
    }

    fn loopback() -> Guard {
        Guard::new(&Listen::Tcp("127.0.0.1:6060".parse().unwrap()), &["Debug.Internal".into()])
    }

    #[test]
    fn hosts() {
        for (host, status) in [
            ("localhost", 200),
            ("localhost:6060", 200),
            ("LOCALHOST:7000", 200),
            ("127.0.0.1:6060", 200),
            ("127.9.9.9", 200),
            ("[::1]:6060", 200),
            ("debug.internal:80", 200),
            ("evil.example", 421),
            ("evil.example:6060", 421),
            ("localhost.evil.example", 421),
            ("127.0.0.1.evil.example", 421),
            ("localhost.", 421),
            ("user@localhost", 421),
            ("localhost/path", 421),
            ("192.168.1.4", 421),
            ("0.0.0.0:6060", 421),
            ("2130706433", 421),
            ("", 421),
            (":6060", 421),
        ] {
            assert_eq!(check(&loopback(), "/", &[("host", host)]), status, "{host:?}");
        }
    }

    #[test]
    fn missing_and_double_hosts_are_misdirected() {
        assert_eq!(check(&loopback(), "/", &[]), 421);
        assert_eq!(check(&loopback(), "/", &[("host", "localhost"), ("host", "localhost")]), 421);
        assert_eq!(
            check(&loopback(), "/", &[("host", "localhost"), ("host", "evil.example")]),
            421
        );
    }

    #[test]
    fn an_absolute_target_must_agree() {
        let host = [("host", "localhost:6060")];
        assert_eq!(check(&loopback(), "http://localhost:6060/debug/tasks", &host), 200);
        assert_eq!(check(&loopback(), "http://evil.example/debug/tasks", &host), 421);
    }

    #[test]
    fn all_addresses_take_any_literal_but_no_name() {
        let guard = Guard::new(&Listen::Tcp("0.0.0.0:6060".parse().unwrap()), &[]);
        assert_eq!(check(&guard, "/", &[("host", "10.1.2.3:6060")]), 200);
        assert_eq!(check(&guard, "/", &[("host", "rebound.example:6060")]), 421);
    }

    #[test]
    fn other_sites_are_forbidden() {
        for (name, value, status) in [
            ("origin", "http://localhost:6060", 200),
            ("origin", "https://localhost:6060", 200),
            ("origin", "http://localhost:6061", 403),
            ("origin", "http://localhost", 403),
            ("origin", "http://evil.example", 403),
            ("origin", "null", 403),
            ("origin", "file://", 403),
            ("origin", "http://localhost:6060.evil.example", 403),
            ("sec-fetch-site", "same-origin", 200),
            ("sec-fetch-site", "none", 200),
            ("sec-fetch-site", "same-site", 403),
            ("sec-fetch-site", "cross-site", 403),
            ("sec-fetch-site", "Same-Origin", 403),
        ] {
            let headers = [("host", "localhost:6060"), (name, value)];
            assert_eq!(check(&loopback(), "/", &headers), status, "{name}: {value}");
        }
        let twice = [
            ("host", "localhost:6060"),
            ("origin", "http://localhost:6060"),
            ("origin", "http://localhost:6060"),
        ];
        assert_eq!(check(&loopback(), "/", &twice), 403);
    }
}
