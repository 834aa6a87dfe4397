//! Promises of a server that stays on, held against a real one.

use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use super::blocked::blocked_threads;
use super::server::{Answer, Server};

/// A figure of `/proc/PID/status`, in bytes.
fn memory(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let line = status.lines().find(|line| line.starts_with(name)).expect(name);
    let kib = line.split_whitespace().nth(1).and_then(|figure| figure.parse::<u64>().ok());
    kib.expect("a figure") * 1024
}

/// Asks from so many threads in one instant, and returns what was answered.
/// One connection too many is cut off before its request was read, so that the
/// reset may overtake what it was told.
fn at_once(server: &Server, count: usize, path: &str) -> Vec<Answer> {
    let ready = Barrier::new(count);
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..count)
            .map(|_| {
                scope.spawn(|| {
                    ready.wait();
                    match Answer::ask(server.http, "GET", path) {
                        Ok(answer) => Some(answer),
                        Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
                        Err(error) if error.kind() == ErrorKind::BrokenPipe => None,
                        Err(error) => panic!("{path}: {error}"),
                    }
                })
            })
            .collect();
        asking.into_iter().filter_map(|one| one.join().expect("an answer")).collect()
    })
}

#[test]
fn two_hundred_at_once_cost_two_dumps_and_little_memory() {
    let server = Server::with_faults(&[]);
    let _load = server.load("watch", &["--streams", "500", "--seconds", "60"]);
    server.wait_for("/debug/streams?limit=1", "500 streams", |json| {
        json["matched"].as_u64().is_some_and(|matched| matched >= 500)
    });
    // What is read once and kept is no cost of these: types at the first dump,
    // and what names the code at the first native stack.
    let read_once = ["/debug/snapshot", "/debug/pprof/profile?seconds=1", "/debug/tasks"];
    for path in read_once.iter().chain(&["/debug/pprof/goroutine?debug=2"]) {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    let pid = server.pid();
    let before = memory(pid, "VmRSS:");
    // The peak counts from here on.
    fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("it is ours");

    let answers = at_once(&server, 200, "/debug/tasks?limit=1");
    let mut taken = BTreeSet::new();
    for answer in &answers {
        if answer.status == 200 {
            let json: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
            taken.insert(json["taken_at"].as_str().expect("a time").to_owned());
        } else {
            assert_eq!((answer.status, answer.text().as_str()), (503, "too many connections\n"));
        }
    }
    assert!((1..=2).contains(&taken.len()), "{taken:?}");

    for path in ["/debug/snapshot", "/debug/pprof/goroutine?debug=2", "/debug/pprof/goroutine"] {
        let answers = at_once(&server, 200, path);
        let answered = answers.iter().filter(|answer| answer.status == 200).count();
        assert!(answered > 0, "{path}");
        assert!(answers.iter().all(|answer| matches!(answer.status, 200 | 503)), "{path}");
    }
    let grown = memory(pid, "VmHWM:").saturating_sub(before);
    assert!(grown <= 64 << 20, "{} MiB more", grown >> 20);
    assert_eq!(server.get("/healthz").status, 200);
}

/// Addresses on which a process listens, as the kernel writes them.
fn listening(pid: u32) -> Vec<String> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).expect("its descriptors");
    let sockets: BTreeSet<String> = descriptors
        .filter_map(|entry| {
            let link = fs::read_link(entry.ok()?.path()).ok()?;
            let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
            Some(inode.to_owned())
        })
        .collect();
    // proc_net(5): the second field is the local address, the fourth the state,
    // 0A while it listens, the tenth the inode.
    let tables = ["tcp", "tcp6"].map(|name| fs::read_to_string(format!("/proc/{pid}/net/{name}")));
    let lines = tables.iter().flatten().flat_map(|table| table.lines().skip(1));
    let fields = lines.map(|line| line.split_whitespace().collect::<Vec<_>>());
    let own = fields.filter(|fields| fields[3] == "0A" && sockets.contains(fields[9]));
    own.map(|fields| fields[1].to_owned()).collect()
}

#[test]
fn it_listens_on_loopback_alone_and_where_it_says() {
    let server = Server::with_faults(&[]);
    let said = [server.grpc, server.http, server.console];
    let expected: BTreeSet<String> =
        said.iter().map(|address| format!("0100007F:{:04X}", address.port())).collect();
    let listening = listening(server.pid());
    assert_eq!(listening.len(), 3, "{listening:?}");
    assert_eq!(listening.into_iter().collect::<BTreeSet<_>>(), expected);
}

#[test]
fn nobody_who_watches_delays_the_end() {
    let mut server = Server::with_faults(&[]);
    let _load = server.load("watch", &["--streams", "500", "--seconds", "60"]);
    server.wait_for("/debug/streams?limit=1", "500 streams", |json| {
        json["matched"].as_u64().is_some_and(|matched| matched >= 500)
    });
    let ask = |path: &str| {
        let mut socket = TcpStream::connect(server.http).expect("connect");
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", server.http);
        socket.write_all(request.as_bytes()).expect("request");
        socket
    };
    let mut events = ask("/debug/events");
    events.read_exact(&mut [0; 12]).expect("it has begun");
    let _open = [
        events,
        ask("/debug/pprof/profile?seconds=60"),
        ask("/debug/pprof/goroutine?seconds=60"),
        ask("/debug/pprof/heap?seconds=60"),
        ask("/debug/snapshot"),
        TcpStream::connect(server.http).expect("connect"),
        {
            let mut half = TcpStream::connect(server.http).expect("connect");
            half.write_all(b"GET /healthz HTTP/1.1\r\nHost: local").expect("half a head");
            half
        },
    ];
    // It has read all that came before.
    assert_eq!(server.get("/healthz").status, 200);
    server.signal("TERM");
    let began = Instant::now();
    assert_eq!(server.wait().code(), Some(0));
    let took = began.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut server = Server::with_faults(&[]);
    // A handler that never awaits cannot be told to end: the server waits.
    let hold = ["--streams", "1", "--seconds", "60", "--hold", "60s"];
    let _load = server.load("block-thread", &hold);
    server.wait_for("/debug/workers", "a blocked worker", |json| {
        !blocked_threads(json, true).is_empty()
    });
    let mut events = TcpStream::connect(server.http).expect("connect");
    let request = format!("GET /debug/events HTTP/1.1\r\nHost: {}\r\n\r\n", server.http);
    events.write_all(request.as_bytes()).expect("request");
    events.read_exact(&mut [0; 12]).expect("it has begun");
    server.signal("INT");
    // The first was seen: event streams end then, with the last chunk.
    let mut told = Vec::new();
    while !told.ends_with(b"\r\n0\r\n\r\n") {
        let mut byte = [0];
        events.read_exact(&mut byte).expect("their end");
        told.push(byte[0]);
    }
    server.signal("INT");
    let began = Instant::now();
    assert_eq!(server.wait().code(), Some(130));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}
