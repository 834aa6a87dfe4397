//! The promises of a server that stays on: each fails without its guard.

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::fixture::*;
use crate::error::ErrorKind;
use crate::model::{Side, sample};
use crate::serve::{Limits, Listen, ServeConfig, Token, start};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

fn with_limits(change: impl FnOnce(&mut Limits)) -> Target {
    let mut config = config();
    change(&mut config.limits);
    serve(Saved::new(sample::busy_server()), config)
}

#[test]
fn an_open_address_is_refused_before_it_is_bound() {
    let free = std::net::TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap();
    let source = Arc::new(Saved::new(sample::empty()));
    let error = start(ServeConfig::new(Listen::Tcp(free)), source).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsafe);
    assert!(std::net::TcpStream::connect(("127.0.0.1", free.port())).is_err());
}

#[test]
fn foreign_hosts_and_sites_get_no_data() {
    let target = busy();
    for method in ["GET", "HEAD", "POST", "OPTIONS", "DELETE"] {
        for (headers, status) in [
            ("Host: evil.example\r\n", 421),
            ("", 421),
            ("Host: localhost\r\nHost: localhost\r\n", 421),
            ("Host: localhost\r\nOrigin: http://evil.example\r\n", 403),
            ("Host: localhost\r\nSec-Fetch-Site: cross-site\r\n", 403),
        ] {
            let answer = target.raw(&format!(
                "{method} /debug/tasks HTTP/1.1\r\nConnection: close\r\n{headers}\r\n"
            ));
            assert_eq!(answer.status, status, "{method} {headers}");
            assert!(answer.header("access-control-allow-origin").is_none());
            assert!(!answer.text().contains("tasks\":"));
        }
    }
    assert_eq!(target.source.taken.load(Ordering::SeqCst), 0);
}

#[test]
fn every_answer_has_the_policy() {
    let target = busy();
    let policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                  base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";
    for path in [
        "/",
        "/debug/tasks",
        "/debug/pprof/",
        "/debug/pprof/nonsense",
        "/nothing",
        "/debug/tasks?x=1",
        "/metrics",
    ] {
        let answer = target.get(path);
        assert_eq!(answer.header("content-security-policy"), Some(policy), "{path}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(answer.header("cross-origin-resource-policy"), Some("same-origin"), "{path}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
    }
}

#[test]
fn only_the_token_opens() {
    let mut config = config();
    config.token = Some(Token::new(TOKEN).unwrap());
    let target = serve(Saved::new(sample::busy_server()), config);
    let good = format!("Authorization: Bearer {TOKEN}\r\n");
    assert_eq!(target.request("GET", "/debug/tasks", &good).status, 200);
    assert_eq!(target.request("GET", "/", "").status, 200, "the page holds no data");
    assert_eq!(target.get(&format!("/debug/tasks?token={TOKEN}")).status, 401, "never in a URL");
    let statuses: Vec<_> = (0..40)
        .map(|_| target.request("GET", "/debug/tasks", "Authorization: Bearer no\r\n").status)
        .collect();
    assert!(
        statuses.iter().all(|status| matches!(status, 401 | 429)) && statuses.contains(&429),
        "{statuses:?}"
    );
    assert_eq!(
        target.request("GET", "/debug/tasks", &good).status,
        200,
        "others are not locked out"
    );
}

#[test]
fn two_hundred_at_once_take_two_snapshots_at_most() {
    let mut saved = Saved::new(sample::busy_server());
    saved.takes = Duration::from_millis(300);
    let mut config = config();
    config.limits.connections = 256;
    let target = serve(saved, config);
    std::thread::scope(|scope| {
        for _ in 0..200 {
            scope.spawn(|| assert_eq!(target.get("/debug/tasks").status, 200));
        }
    });
    let taken = target.source.taken.load(Ordering::SeqCst);
    assert!(taken <= 2, "{taken}");
}

#[test]
fn what_was_taken_a_moment_too_early_to_judge_is_taken_once_more() {
    let mut snapshot = sample::empty();
    let mut stream = sample::stream(1, &Arc::from("/feed.v1.Feed/Watch"));
    (stream.side, stream.phase_ns) = (Side::Client, 900_000_000);
    snapshot.streams.push(stream);
    let mut source = Saved::new(snapshot);
    // Longer than the stream has to wait, so the answer comes too late to be
    // of use; and long enough for it to be kept for a second.
    source.takes = Duration::from_millis(200);
    let target = serve(source, config());
    let taken = || target.source.taken.load(Ordering::SeqCst);
    assert_eq!(target.get("/debug/streams").status, 200);
    assert_eq!(taken(), 2, "another in its place");
    assert_eq!(target.get("/debug/streams").status, 200);
    assert_eq!(taken(), 2, "which is kept, though it is no better");
}

#[test]
fn slow_heads_are_cut_and_do_not_keep_others_out() {
    let target = with_limits(|limits| {
        limits.connections = 4;
        limits.header_timeout = Duration::from_millis(300);
    });
    let mut slow: Vec<_> = (0..4).map(|_| target.connect()).collect();
    for stream in &mut slow {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: local").unwrap();
    }
    let begun = Instant::now();
    let refused = loop {
        let answer = answer(target.connect());
        if answer.status == 503 {
            break answer;
        }
        assert!(begun.elapsed() < Duration::from_secs(5));
    };
    assert_eq!(refused.text(), "too many connections\n");
    assert_eq!(refused.header("x-content-type-options"), Some("nosniff"));
    assert!(refused.header("content-security-policy").is_some());
    for stream in &mut slow {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    }
    assert_eq!(target.get("/healthz").status, 200);
}

#[test]
fn event_streams_are_bounded() {
    let target = with_limits(|limits| limits.event_streams = 2);
    let open: Vec<_> = (0..2)
        .map(|_| {
            let mut stream = target.connect();
            stream.write_all(b"GET /debug/events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            stream.read_exact(&mut [0; 12]).unwrap();
            stream
        })
        .collect();
    let refused = target.get("/debug/events");
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")));
    drop(open);
}

#[test]
fn paths_and_heads_are_bounded() {
    let target = busy();
    assert_eq!(target.get(&format!("/debug/tasks?filter={}", "x".repeat(5_000))).status, 414);
    assert_eq!(
        target.request("GET", "/healthz", &format!("X: {}\r\n", "x".repeat(40_000))).status,
        431
    );
}

#[test]
fn nothing_can_be_changed_without_the_switch() {
    let target = busy();
    assert_eq!(
        target.request("POST", "/debug/log?stream=1&on=true", "Content-Length: 0\r\n").status,
        404
    );
    assert_eq!(target.get("/debug/log?stream=1&on=true").status, 404);
    let target =
        serve(Saved::new(sample::busy_server()), ServeConfig { control: true, ..config() });
    assert_eq!(target.get("/debug/log?stream=1&on=true").status, 405, "POST only");
}

#[test]
fn no_path_leads_out() {
    let target = busy();
    for form in [
        "/../Cargo.toml",
        "/..%2fCargo.toml",
        "/%2e%2e/Cargo.toml",
        "/%2e%2e%2fCargo.toml",
        "/..\\Cargo.toml",
        "/..%5cCargo.toml",
        "/....//Cargo.toml",
        "/.//Cargo.toml",
        "//Cargo.toml",
        "/./../Cargo.toml",
        "/web/../Cargo.toml",
        "/web/index.html",
        "/js/../../Cargo.toml",
        "/js/..%2f..%2fCargo.toml",
        "/vendor/%252e%252e/Cargo.toml",
        "/%c0%ae%c0%ae/Cargo.toml",
        "/..;/Cargo.toml",
        "/.%00/Cargo.toml",
        "/index.html%00.css",
        "/etc/passwd",
        "//etc/passwd",
        "/%2fetc%2fpasswd",
        "/file:///etc/passwd",
        "/..././Cargo.toml",
        "/.git/config",
        "/src/lib.rs",
        "/C:%5cwindows",
        "/~root",
        "/index.html/",
        "/%2e",
    ] {
        let answer = target.get(form);
        assert_eq!(answer.status, 404, "{form}");
        assert!(!answer.text().contains("[package]") && !answer.text().contains("root:"));
    }
}

#[test]
fn a_client_that_does_not_read_is_reaped() {
    let mut config = config();
    config.limits.write_timeout = Duration::from_millis(300);
    let target = serve(Saved::new(sample::crowd(50_000)), config);
    let mut stuck = target.connect();
    stuck.write_all(b"GET /debug/snapshot HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let begun = Instant::now();
    while !target.get("/metrics").text().contains("taskprof_http_write_timeouts_total 1\n") {
        assert!(begun.elapsed() < Duration::from_secs(20), "it still holds its dump");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Streams are no small matter where there are a hundred thousand: long lists of
/// them are sent two at a time, and short ones keep no snapshot.
#[test]
fn long_lists_of_streams_are_sent_two_at_a_time() {
    let mut snapshot = sample::empty();
    let method = Arc::from("/feed.v1.Feed/Watch");
    snapshot.streams = (1..=50_000).map(|id| sample::stream(id, &method)).collect();
    let mut config = config();
    config.limits.dump_wait = Duration::from_millis(100);
    let target = serve(Saved::new(snapshot), config);
    let ask = |path: &str| {
        let mut client = target.connect();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        client.write_all(request.as_bytes()).unwrap();
        // Its answer has begun; it reads no further.
        client.read_exact(&mut [0; 12]).unwrap();
        client
    };
    let _short: Vec<_> = (0..10).map(|_| ask("/debug/streams?limit=1000")).collect();
    let _long: Vec<_> = (0..2).map(|_| ask("/debug/streams")).collect();
    let refused = target.get("/debug/streams?limit=1001");
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert_eq!(target.get("/debug/streams?limit=1000").status, 200);
    assert_eq!(target.get("/debug/workers").status, 200);
}

#[test]
fn shutdown_waits_for_nobody_long() {
    let target = busy();
    let mut stream = target.connect();
    stream
        .write_all(b"GET /debug/pprof/goroutine?seconds=30 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    let idle = target.connect();
    let begun = Instant::now();
    target.server.shutdown().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    drop((stream, idle));
    assert!(std::net::TcpStream::connect(target.server.local_addr().unwrap()).is_err());
}

#[test]
fn deltas_are_bounded() {
    let target = busy();
    let request = b"GET /debug/pprof/goroutine?seconds=30 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let _open: Vec<_> = (0..2)
        .map(|_| {
            let mut stream = target.connect();
            stream.write_all(request).unwrap();
            stream
        })
        .collect();
    let begun = Instant::now();
    while target.source.taken.load(Ordering::SeqCst) < 2 {
        assert!(begun.elapsed() < Duration::from_secs(5));
        std::thread::yield_now();
    }
    for path in ["goroutine", "block", "mutex"] {
        let refused = target.get(&format!("/debug/pprof/{path}?seconds=30"));
        assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")), "{path}");
        assert_eq!(
            refused.text(),
            "two deltas are being taken already; try again later\n",
            "{path}"
        );
    }
    assert_eq!(target.get("/debug/tasks").status, 200);
}

/// Names come from peers and from paths: they must stay text everywhere.
#[test]
fn hostile_names_stay_text() {
    let hostile = [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "\"><svg onload=alert(1)>",
        "javascript:alert(1)",
        "{{constructor}}",
        "${7*7}",
        "</title><script>",
        "\r\nX-Injected: 1",
        "\n\ndata: x",
        "\nevent: findings",
        "\u{0}nul",
        "\u{202e}rtl",
        "\u{2028}line",
        "'; DROP TABLE",
        "%0d%0aX: 1",
        "\\\"",
        "]]>",
        "<!--",
        "&lt;b&gt;",
        "\u{1b}[31mred",
    ];
    let mut snapshot = sample::busy_server();
    let task = snapshot.tasks[0].clone();
    for (index, text) in hostile.iter().enumerate() {
        let mut task = task.clone();
        task.id = crate::model::TaskId(1_000 + index as u64);
        task.method = Some((*text).into());
        task.peer = Some((*text).into());
        task.spawned_at = Some(std::sync::Arc::new(sample::place(text, 1)));
        snapshot.tasks.push(task);
    }
    let target = serve(Saved::new(snapshot), config());
    let json = target.get("/debug/tasks").json();
    for text in hostile {
        let found = json["tasks"]
            .as_array()
            .unwrap()
            .iter()
            .any(|task| task["method"] == text && task["peer"] == text);
        assert!(found, "{text:?}");
    }
    for path in [
        "/debug/tasks",
        "/debug/snapshot",
        "/debug/pprof/goroutine?debug=1",
        "/debug/pprof/goroutine?debug=2",
        "/metrics",
    ] {
        let answer = target.get(path);
        assert!(!answer.header("content-type").unwrap().contains("html"), "{path}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert!(answer.header("x-injected").is_none());
    }
    assert!(!target.get("/debug/pprof/").text().contains("<script"));
}
